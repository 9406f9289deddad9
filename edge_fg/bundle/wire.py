"""Read the fields of protobuf's wire format, from bytes that may be hostile.

The format: https://protobuf.dev/programming-guides/encoding/. Only what every parser reads in the
same way is accepted: groups, field number 0 and lengths past the end are refused, and so are tags
and lengths over 32 bits and varints over 64, which some parsers truncate.
"""

from __future__ import annotations

from collections.abc import Iterator
from mmap import mmap
from typing import Final, TypeAlias

Data: TypeAlias = bytes | mmap
"""A message's bytes; a mapped file is read only where the walk goes."""

VARINT: Final = 0
FIXED64: Final = 1
DELIMITED: Final = 2
FIXED32: Final = 5

_FIXED_BYTES: Final = {FIXED64: 8, FIXED32: 4}
_TAG_BYTES: Final = 5
_VARINT_BYTES: Final = 10


class WireError(ValueError):
    """The bytes are not protobuf; the message says where."""


def fields(data: Data, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield each field of the message that is `data[start:end]`, in its order.

    That is its number, its wire type, and where its content begins and ends in `data`. A
    `WireError` says that the bytes are damaged.
    """
    at = start
    while at < end:
        tag = data[at]
        if tag < 0x80:
            at += 1
        else:
            tag, at = varint(data, at, end, _TAG_BYTES)
        number, wire_type = tag >> 3, tag & 7
        if not number:
            raise WireError(f"a field without a number at byte {at}")
        if wire_type == DELIMITED:
            size, begin = varint(data, at, end, _TAG_BYTES)
            at = begin + size
        elif wire_type == VARINT:
            begin = at
            _, at = varint(data, at, end)
        elif wire_type in _FIXED_BYTES:
            begin = at
            at += _FIXED_BYTES[wire_type]
        else:
            raise WireError(f"wire type {wire_type} at byte {at}")
        if at > end:
            raise WireError(f"a field at byte {begin} ends past its message")
        yield number, wire_type, begin, at


def varint(data: Data, at: int, end: int, most: int = _VARINT_BYTES) -> tuple[int, int]:
    """Return the number at `at`, which need not be in its shortest form, and where it ends.

    A `WireError` says that it has more than `most` bytes, ends past `end`, or has more bits than
    its kind: 64, or 32 where `most` is less than 10.
    """
    value = 0
    for position in range(at, min(at + most, end)):
        byte = data[position]
        value |= (byte & 0x7F) << 7 * (position - at)
        if byte < 0x80:
            if value >> (64 if most == _VARINT_BYTES else 32):
                break
            return value, position + 1
    raise WireError(f"a damaged number at byte {at}")


def signed(value: int) -> int:
    """Return the number that a varint stands for where its kind is a signed one."""
    return value - (1 << 64) if value >> 63 else value


def expect(wanted: int, wire_type: int, message: str, number: int) -> None:
    """Raise a `WireError` where field `number` of a `message` has another wire type."""
    if wire_type != wanted:
        raise WireError(f"field {number} of a {message} has wire type {wire_type}")
