"""Read what an ONNX tensor says of itself, without its weights.

A tensor that declares more values than it holds could make a runtime reserve memory without limit,
or read past the end.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edge_fg.bundle.wire import (
    DELIMITED,
    FIXED32,
    FIXED64,
    VARINT,
    Data,
    WireError,
    expect,
    signed,
    varint,
)

# Fields of a TensorProto.
_DIMS, _DATA_TYPE, _NAME, _RAW, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 9, 13, 14
_SEGMENT = 3  # it is only a part of a tensor
_FLOATS, _INT32S, _STRINGS, _INT64S, _DOUBLES, _UINT64S = 4, 5, 6, 7, 10, 11
# Bytes of a number and its wire type where it stands alone; the other kinds are varints.
_FIXED: Final = {_FLOATS: (4, FIXED32), _DOUBLES: (8, FIXED64)}

_INT64: Final = 7
_STRING: Final = 8
# Bits of a value by its data type; types that are not here are left to the runtime.
_BITS: Final = {
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
}
# Where values of a data type stand if they are not raw, and how many numbers one takes. Those of
# other types are among the int32s; below eight bits, several share one.
_TYPED: Final = {
    1: (_FLOATS, 1),
    14: (_FLOATS, 2),
    11: (_DOUBLES, 1),
    15: (_DOUBLES, 2),
    _INT64: (_INT64S, 1),
    12: (_UINT64S, 1),
    13: (_UINT64S, 1),
    _STRING: (_STRINGS, 1),
}
_MAX_DIMENSIONS: Final = 64
_MAX_VALUES: Final = 8
_CONTINUED: Final = bytes(range(0x80, 0x100))  # bytes of a varint before its last


@dataclass(frozen=True)
class Tensor:
    """A tensor's own claims."""

    name: bytes
    external: bool  # its data lie elsewhere
    declared: int  # how many values its shape has
    complete: bool  # whether it holds just as many
    # Those of a short list of int64, which may be a shape; None for other tensors.
    values: tuple[int, ...] | None


def read_tensor(data: Data, fields: Iterable[tuple[int, int, int, int]]) -> Tensor:
    """Read a TensorProto from its `fields` in `data`; a `WireError` says that it is damaged."""
    name, external, data_type, raw = b"", False, 0, -1
    dims: list[int] = []
    held = Counter[int]()
    values: list[int] = []
    packed = b""
    for number, wire_type, begin, stop in fields:
        if number == _DIMS:
            dims += dimensions(data, wire_type, begin, stop)
        elif number in (_DATA_TYPE, _DATA_LOCATION):
            expect(VARINT, wire_type, "TensorProto", number)
            value = varint(data, begin, stop)[0]
            data_type = value if number == _DATA_TYPE else data_type
            # Every value but DEFAULT: parsers differ in how many of its bits they read.
            external |= number == _DATA_LOCATION and value != 0
        elif number in (_NAME, _RAW, _STRINGS, _EXTERNAL_DATA, _SEGMENT):
            expect(DELIMITED, wire_type, "TensorProto", number)
            held[number] += 1
            if number == _NAME:
                name = data[begin:stop]
            elif number == _RAW:
                raw = stop - begin
                packed = data[begin : min(stop, begin + 8 * _MAX_VALUES)]
        elif number in (_FLOATS, _DOUBLES, _INT32S, _INT64S, _UINT64S):
            held[number] += _count(data, wire_type, begin, stop, number)
            while number == _INT64S and begin < stop and len(values) < _MAX_VALUES:
                value, begin = varint(data, begin, stop)
                values.append(signed(value))
    _check_dimensions(dims)
    declared = math.prod(dims)
    external |= held[_EXTERNAL_DATA] > 0
    complete = external or _is_complete(declared, data_type, raw, held)
    complete &= not held[_SEGMENT]  # which no runtime reads
    # Runtimes could differ in which of several contents they take.
    clear = held[_RAW] + (held[_INT64S] > 0) <= 1 and not external
    known = None
    if data_type == _INT64 and declared <= _MAX_VALUES and complete and clear:
        known = struct.unpack(f"<{declared}q", packed) if raw >= 0 else tuple(values)
    return Tensor(name, external, declared, complete, known)


def dimensions(data: Data, wire_type: int, begin: int, stop: int) -> list[int]:
    """Return one dimension, or a packed list of them; a `WireError` says that they are damaged."""
    if wire_type != DELIMITED:
        expect(VARINT, wire_type, "TensorProto", _DIMS)
    found: list[int] = []
    while begin < stop:
        value, begin = varint(data, begin, stop)
        found.append(signed(value))
        _check_dimensions(found)
    return found


def _check_dimensions(dims: list[int]) -> None:
    if len(dims) > _MAX_DIMENSIONS or min(dims, default=0) < 0:
        raise WireError("a tensor of a negative size or too many dimensions")


def _is_complete(declared: int, data_type: int, raw: int, held: Counter[int]) -> bool:
    bits = _BITS.get(data_type, 8 if data_type == _STRING else 0)
    if not bits:
        return True
    if raw >= 0 and data_type != _STRING:
        return raw == -(-declared * bits // 8)
    place, numbers = _TYPED.get(data_type, (_INT32S, 1))
    return held[place] == -(-declared * numbers // max(8 // bits, 1))


def _count(data: Data, wire_type: int, begin: int, stop: int, number: int) -> int:
    """Return how many numbers a field holds."""
    length, alone = _FIXED.get(number, (0, VARINT))
    if wire_type == alone:
        return 1
    expect(DELIMITED, wire_type, "TensorProto", number)
    return (stop - begin) // length if length else len(data[begin:stop].translate(None, _CONTINUED))
