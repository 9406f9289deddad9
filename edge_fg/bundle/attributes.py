"""Read the integers of ONNX attributes: some make a result larger than its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_fg.bundle.wire import DELIMITED, Data, expect, fields, signed, varint

_NAME, _INTS = 1, 8
_ENLARGING: Final = {b"pads", b"strides", b"dilations", b"output_shape", b"output_padding"}
_MAX_VALUES: Final = 8  # a shape has no more


@dataclass(frozen=True)
class Integers:
    """The list of integers of an attribute."""

    values: tuple[int, ...]  # empty where there are none, or many
    enlargement: int  # the largest one, if they may enlarge what the operator gives; else 0


def read_integers(data: Data, start: int, end: int) -> Integers:
    """Read the AttributeProto in `data[start:end]`; a `WireError` says that it is damaged."""
    enlarges, largest = False, 0
    values: list[int] = []
    for number, wire_type, begin, stop in fields(data, start, end):
        if number == _NAME:
            expect(DELIMITED, wire_type, "AttributeProto", number)
            enlarges |= data[begin:stop] in _ENLARGING
        elif number == _INTS:  # one alone, or a packed list
            while begin < stop:
                value, begin = varint(data, begin, stop)
                largest = max(largest, signed(value))
                if len(values) <= _MAX_VALUES:
                    values.append(signed(value))
    few = tuple(values) if len(values) <= _MAX_VALUES else ()
    return Integers(few, largest if enlarges else 0)
