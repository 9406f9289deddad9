"""Ways to spoil bytes, text and trees: each takes the case's own random numbers."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from random import Random
from typing import Any, AnyStr

ODD_NUMBERS = [0, 1, -1, 2, 3, 7, 127, 128, 255, 256, 1 << 15, 1 << 16, 10**6, (1 << 31) - 1]
ODD_NUMBERS += [1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, -(1 << 31), -(1 << 63)]
ODD_FLOATS = [0.0, -0.0, 1e-45, 1e-7, 0.1, 1.5, 3.4e38, -3.4e38, float("inf"), float("nan")]


def words(text: AnyStr, *more: AnyStr) -> list[AnyStr]:
    """Return what stands between the blanks of a text, and `more`."""
    return [*text.split(), *more]


ODD_TEXTS = words(
    r"""../../etc/passwd /dev/zero %00 %s{0} ~ 0 -1 1e999 nan 1_0 ٣ null true ' " \ """,
    *["", " ", "\0", "\n", "\r", "\t", "\x1b[2J", "\u202e", "\u2028", "\ufeff", "\ud800"],
    *["é" * 300, "a" * 3000, "9" * 5000, "[" * 3000, "{" * 999],
)
# What takes time with the square of a length shows itself.
_LONG = 300_000
_WORD = re.compile(r"""[\w.+-]+|"[^"\n]*"|'[^'\n]*'""")


def spoil_bytes(random: Random, data: bytes, tokens: Sequence[bytes] = ()) -> bytes:
    """Change a few places: more often near both ends, where headers and indices stand."""
    made = bytearray(data)
    for _ in range(1 << random.randrange(4)):
        at = _place(random, len(made))
        length = min(1 << random.randrange(12), len(made) - at)
        match random.randrange(8):
            case 0:
                made[at : at + 1] = bytes([random.randrange(256)])
            case 1 if made:
                made[at % len(made)] ^= 1 << random.randrange(8)
            case 2:
                size = random.choice([1, 2, 4, 8])
                number = random.choice(ODD_NUMBERS) % (1 << 8 * size)
                made[at : at + size] = number.to_bytes(size, random.choice(["little", "big"]))
            case 3:
                del made[at : at + length]
            case 4:
                made[at:at] = made[at : at + length]
            case 5:
                made[at : at + length] = bytes(length)
            case 6:
                made[at:at] = random.choice(tokens) if tokens else random.randbytes(length % 64)
            case 7 if random.random() < 0.3:
                del made[at:]
    if tokens and random.random() < 0.01:
        piece = random.choice(tokens)
        made[at:at] = piece * (_LONG // len(piece))
    return bytes(made)


def spoil_text(random: Random, text: str, tokens: Sequence[str]) -> str:
    """Change a few places of a text; `tokens` are what its grammar knows.

    Often only words are exchanged, so that the rest of the grammar is kept.
    """
    ways = random.choice([range(6), range(8), range(6, 8)])
    for _ in range(1 if len(text) < 60 else random.choice([1, 1, 2, 4])):
        text = text[:_LONG]
        at, other = (random.randrange(len(text) + 1) for _ in range(2))
        piece = text[at : at + (1 << random.randrange(6))]
        words = list(_WORD.finditer(text))
        match random.choice(ways):
            case 0:
                text = text[:at] + random.choice(tokens) + text[at:]
            case 1:
                text = text[:at] + random.choice(ODD_TEXTS) + text[at:]
            case 2:
                text = text[:at] + text[at + len(piece) :]
            case 3:
                text = text[:other] + piece + text[other:]
            case 4:
                odd = chr(random.choice([random.randrange(128), 0xE9, 0x1F426]))
                text = text[:at] + odd + text[at + 1 :]
            case 5:
                lines = text.splitlines(keepends=True)
                random.shuffle(lines)
                text = "".join(lines) * random.choice([1, 1, 2, 40])
            case _ if words:
                word = random.choice(words)
                others = [other.group() for other in words] * 3
                new = random.choice([*others, *tokens, *map(str, ODD_NUMBERS), *ODD_TEXTS])
                text = text[: word.start()] + new + text[word.end() :]
    if random.random() < 0.01:
        long = random.choice([*tokens, piece or " "])
        text = text[:at] + long * (_LONG // len(long)) + text[at:]
    return text


def text_bytes(random: Random, text: str) -> bytes:
    """Encode a text, mostly as it should be."""
    data = text.encode("utf-8", "surrogatepass")
    match random.randrange(24):
        case 0:
            return b"\xef\xbb\xbf" + data
        case 1:
            return text.encode("utf-16", "surrogatepass")
        case 2:
            return spoil_bytes(random, data)
    return data


def spoil_tree(random: Random, tree: Any) -> Any:
    """Change one to four values of a JSON document."""
    tree = copy.deepcopy(tree)
    for _ in range(random.randint(1, 4)):
        holders = list(_holders(tree))
        holder = random.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key = random.choice(keys)
        other = random.choice(holders)
        match random.randrange(6):
            case 0:
                del holder[key]
            case 1:
                holder[key] = copy.deepcopy(other)
            case 2 if isinstance(holder, dict):
                holder[random.choice([*ODD_TEXTS, *map(str, keys)])] = holder.pop(key)
            case 3 if isinstance(holder, list):
                holder *= random.choice([2, 3, 40])
            case _:
                holder[key] = random.choice([_near(random, holder[key]), odd_value(random)])
    return tree


def odd_value(random: Random) -> Any:
    """A JSON value that nobody expects."""
    plain = [None, True, [], {}, [[]], {"a": 1}, "float32", "N", [1, 2]]
    return random.choice([*plain, *ODD_NUMBERS, *ODD_FLOATS, *ODD_TEXTS])


def _near(random: Random, value: Any) -> Any:
    if isinstance(value, (int, float)):
        return value + random.choice([-1, 1, 7, 0.5])
    if isinstance(value, str):
        return spoil_text(random, value, ["N", ".onnx", "/", "0", "f" * 64])
    return value


def _holders(tree: Any) -> Any:
    if isinstance(tree, (dict, list)):
        yield tree
        for value in list(tree.values()) if isinstance(tree, dict) else tree:
            yield from _holders(value)


def _place(random: Random, length: int) -> int:
    near = random.randrange(min(length, 400) + 1)
    return random.choice([near, length - near, random.randrange(length + 1)])
