"""Missing images in H.264, found by the numbers that images carry.

Where an image is missing, FFmpeg fills the gap with a copy and marks nothing, and what is built
upon the copy is smeared. But each image states its ``frame_num``, which must follow that of the
reference image before it (ITU-T H.264, clauses 7.3.2.1.1, 7.3.3 and 7.4.3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_START = re.compile(rb"\x00\x00\x01")
_SLICE, _KEY_SLICE, _SPS = 1, 5, 7
# Profiles whose parameter sets say more of the colours.
_HIGH_PROFILES: Final = frozenset({100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135})
# A header is never longer; the rest of a unit need not be read.
_HEAD_BYTES = 512


@dataclass(frozen=True)
class _Sequence:
    """What is needed of a sequence parameter set."""

    frame_num_bits: int
    separate_planes: bool
    gaps_allowed: bool


class GapFinder:
    """Follows the images of one stream, and tells where some are missing.

    What can't be read is passed over: whether a packet is damaged is the decoder's to say.
    """

    def __init__(self) -> None:
        self._sequence: _Sequence | None = None
        self._before: int | None = None  # frame_num of the last reference image

    def missing_before(self, data: bytes) -> bool:
        """Take the next packet; return whether images are missing before one of its own.

        It holds NAL units with start codes (annex B); packets come in the order of decoding. False
        also for streams that leave numbers out on purpose, and until their parameters are known.
        """
        missing = False
        for unit in _units(data):
            kind, is_reference = unit[0] & 31, bool(unit[0] & 0x60)
            try:
                if kind == _SPS:
                    self._sequence = _read_sequence(_Bits(unit[1:]))
                elif kind in (_SLICE, _KEY_SLICE):
                    missing |= self._follow(_Bits(unit[1:]), kind == _KEY_SLICE, is_reference)
            except IndexError:
                continue
        return missing

    def _follow(self, bits: _Bits, is_key: bool, is_reference: bool) -> bool:
        sequence = self._sequence
        if sequence is None or sequence.gaps_allowed:
            return False
        first_block = bits.golomb()
        bits.golomb()  # slice_type
        bits.golomb()  # pic_parameter_set_id
        if sequence.separate_planes:
            bits.take(2)
        number = bits.take(sequence.frame_num_bits)
        if first_block != 0:
            return False  # another slice of the same image
        before, modulus = self._before, 1 << sequence.frame_num_bits
        if is_reference:
            self._before = number
        if is_key or before is None:
            return False
        return number not in (before, (before + 1) % modulus)


class _Bits:
    """Reads bits from a unit, without its emulation prevention bytes; IndexError at the end."""

    def __init__(self, unit: bytes) -> None:
        self._data = unit.replace(b"\0\0\3", b"\0\0")
        self._at = 0

    def take(self, count: int) -> int:
        value = 0
        for _ in range(count):
            byte = self._data[self._at >> 3]
            value = value << 1 | byte >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def golomb(self) -> int:
        """Read an unsigned Exp-Golomb code (clause 9.1)."""
        zeros = 0
        while self.take(1) == 0:
            zeros += 1
            if zeros > 32:
                raise IndexError
        return (1 << zeros) - 1 + self.take(zeros)

    def signed_golomb(self) -> int:
        """Read a signed Exp-Golomb code (clause 9.1.1)."""
        code = self.golomb()
        return (code + 1) // 2 if code % 2 else -(code // 2)


def _units(data: bytes) -> list[bytes]:
    """Return the beginnings of the NAL units."""
    starts = [found.end() for found in _START.finditer(data)]
    ends = [start - 3 for start in starts[1:]] + [len(data)]
    cuts = zip(starts, ends, strict=False)
    return [data[start : min(end, start + _HEAD_BYTES)] for start, end in cuts if end > start]


def _read_sequence(bits: _Bits) -> _Sequence:
    profile = bits.take(8)
    bits.take(16)  # constraints and level
    bits.golomb()  # seq_parameter_set_id
    separate = False
    if profile in _HIGH_PROFILES:
        chroma = bits.golomb()
        separate = chroma == 3 and bits.take(1) == 1
        bits.golomb()  # bit_depth_luma_minus8
        bits.golomb()  # bit_depth_chroma_minus8
        bits.take(1)  # qpprime_y_zero_transform_bypass_flag
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    frame_num_bits = bits.golomb() + 4
    if frame_num_bits > 16:
        raise IndexError
    order = bits.golomb()  # pic_order_cnt_type
    if order == 0:
        bits.golomb()
    elif order == 1:
        bits.take(1)
        bits.signed_golomb()
        bits.signed_golomb()
        for _ in range(min(bits.golomb(), 255)):
            bits.signed_golomb()
    bits.golomb()  # max_num_ref_frames
    return _Sequence(frame_num_bits, separate, bits.take(1) == 1)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = scale = 8
    for _ in range(size):
        if scale:
            scale = (last + bits.signed_golomb() + 256) % 256
        last = scale or last
