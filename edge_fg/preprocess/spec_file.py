"""Preprocessing as people write it: the name of a preset, or a TOML file."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_fg.errors import PreprocessError
from edge_fg.preprocess.spec import PreprocessSpec, presets
from edge_fg.printing import first_line

_MAX_FILE_BYTES: Final = 1 << 16
_LONGEST_VALUE: Final = 60
_SEE: Final = "(see docs/preprocessing.md)"

_SIZE = "[height, width], whole numbers of pixels >= 1 and <= 8192"
_UNITS = "in units of 0..255, in the order of `color`"
TAKES: Final = {
    "resize": 'a table such as { mode = "squash", size = [224, 224] }',
    "resize.mode": '"squash", "shortest-side+center-crop" or "letterbox"',
    "resize.size": f"{_SIZE}; one number, the shorter side, for shortest-side+center-crop",
    "resize.filter": '"bilinear", "bicubic", "lanczos" or "box"',
    "resize.antialias": "true or false",
    "resize.fill": "a grey level, a whole number >= 0 and <= 255",
    "crop": _SIZE,
    "color": '"rgb" or "bgr"',
    "mean": f"three numbers >= -1024 and <= 1024, {_UNITS}",
    "std": f"three numbers > 1e-06 and <= 1024, {_UNITS}",
    "layout": '"nchw" or "nhwc"',
    "dtype": '"float32", "float16" or "uint8"',
}
"""What each key of the table takes, in words."""


def parse_preprocess(text: str, *, where: str = "preprocessing") -> PreprocessSpec:
    """Read a specification from TOML text with a ``[preprocess]`` table.

    Raises `PreprocessError` if the text is not TOML, or a key is unknown, missing or out of its
    range; it says what the key takes.
    """
    # Bundles hold JSON: only builds pay for importing the TOML parser.
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        document = tomllib.loads(text)
    # ValueError: TOMLDecodeError, and a number of more digits than Python converts.
    except (ValueError, RecursionError) as error:
        raise PreprocessError(f"{where} is not TOML: {first_line(error)} {_SEE}") from error
    table = document.get("preprocess")
    if not isinstance(table, dict) or set(document) != {"preprocess"}:
        found = ", ".join(_shown(key) for key in document) or "nothing"
        raise PreprocessError(
            f"{where} must hold one table named [preprocess] and nothing else, not {found} {_SEE}"
        )
    try:
        return msgspec.convert(table, PreprocessSpec)
    except msgspec.ValidationError as error:
        raise PreprocessError(f"{where}: {_what_is_wrong(error, table)} {_SEE}") from error


def load_preprocess(source: str | Path) -> PreprocessSpec:
    """Return a preset by its name, or read a TOML file.

    Raises `PreprocessError` if it is neither a preset nor a readable file, or its content can't be
    followed.
    """
    known = presets()
    if str(source) in known:
        return known[str(source)]
    path = Path(source)
    try:
        if not path.is_file():
            raise PreprocessError(
                f"`{source}` is neither a preset ({', '.join(known)}) nor a TOML file that exists"
                f"{_did_you_mean(str(source), known)} {_SEE}"
            )
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise PreprocessError(f"can't read {path} as text: {error}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise PreprocessError(f"{path} is over {_MAX_FILE_BYTES} bytes: not a preprocessing file")
    return parse_preprocess(text, where=str(path))


def _what_is_wrong(error: msgspec.ValidationError, table: dict[str, Any]) -> str:
    """Say which key is unknown, is missing or has a wrong value, and what it takes."""
    if error.__cause__ is not None:
        return str(error.__cause__)  # a sentence of the specification's own
    text = str(error)
    unknown = re.search(r"unknown field `([^`]*)", text)
    if unknown:
        return _what_was_meant(unknown[1], "resize" if text.endswith("`$.resize`") else "")
    message, _, place = text.partition(" - at `$")
    key = re.sub(r"\[\d+\]", "", place).strip("`.")
    missing = re.search(r"missing required field `(\w+)`", message)
    if missing:
        key = f"{key}.{missing[1]}".strip(".")
        return f"{key} is missing; it takes {TAKES[key]}"
    value: Any = table
    for name in key.split("."):
        value = value[name]
    choices = re.findall(r'"([^"]+)"', TAKES[key]) if TAKES[key].startswith('"') else ()
    hint = _did_you_mean(value, choices)
    return f"{key} = {_shown(value)} is wrong; it takes {TAKES[key]}{hint}"


def _what_was_meant(key: str, table: str) -> str:
    """Name a key that `table` ("" or "resize") doesn't have, with the one that was meant or all."""
    places = [known.rpartition(".") for known in TAKES]
    known = [name for place, _, name in places if place == table]
    hint = _did_you_mean(key, known) or f"; there are {', '.join(known)}"
    if key in (name for place, _, name in places if place != table):
        hint = f"; it belongs in {'[preprocess]' if table else 'the table resize'}"
    return f"unknown field {_shown(key)}{' in resize' if table else ''}{hint}"


def _did_you_mean(given: object, known: Collection[str]) -> str:
    near = difflib.get_close_matches(str(given)[:_LONGEST_VALUE].lower(), known, 1)
    return f"; did you mean {near[0]!r}?" if near and isinstance(given, str) else ""


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}..."
