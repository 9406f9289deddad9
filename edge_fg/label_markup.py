"""Labels in JSON, in YAML as Ultralytics writes it, and in the label maps of TensorFlow."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

from edge_fg.errors import LabelsError
from edge_fg.labels import Label, in_order, label_from_name
from edge_fg.printing import first_line

_INDEX = re.compile(r"[0-9]{1,18}")
_MAX_INDEX = 10**18
# Where an object of JSON that holds more than labels has them.
_INSIDE = ("id2label", "label2id", "class_to_idx", "names", "class_names", "classes", "labels")
# Of a quoted text: no two ways to match the same characters, so that a hostile file costs no time.
_DOUBLE = r'"[^"\\\n]*(?:\\["' + r"'" + r'\\][^"\\\n]*)*"'
_SINGLE = r"'[^'\\\n]*(?:\\[\"'\\][^'\\\n]*)*'"
_TOKEN = re.compile(rf"\s*(?:#[^\n]*|({_DOUBLE}|{_SINGLE}|[{{}}:]|[^\s{{}}:\"'#,;]+)[,;]?)")
# A text of YAML. One without quotes begins with no sign that means more than itself.
_SCALAR = rf"{_DOUBLE}|'[^']*(?:''[^']*)*'|[^\s\"'\[\]{{}}#,&*!|>%@`?-]"
_FLOW_ENTRY = re.compile(
    rf"\s*(?:(?P<index>[0-9]{{1,18}})\s*:\s+)?(?P<name>{_SCALAR}[^\[\]{{}},]*)(?:,|$)"
)
_BLOCK_ENTRY = re.compile(rf"(?:-|(?P<index>[0-9]{{1,18}})\s*:)\s+(?P<name>{_SCALAR}.*)")


def parse_json(text: str, where: str) -> list[Label]:
    """Parse a list of names, or a mapping from index to name or from name to index."""
    try:
        value = json.loads(text, object_pairs_hook=lambda pairs: _Object(pairs, where))
    except RecursionError:
        raise LabelsError(f"{where} is nested too deeply: not a label file") from None
    except ValueError as error:
        raise LabelsError(f"{where} is not valid JSON: {first_line(error)}") from error
    if isinstance(value, dict):
        inside = (value.get(key) for key in _INSIDE)
        value = next((one for one in inside if isinstance(one, (dict, list))), value)
    if isinstance(value, dict) and value:
        if all(map(_INDEX.fullmatch, value)) and all(isinstance(x, str) for x in value.values()):
            return in_order([label_from_name(int(i), x) for i, x in value.items()], where)
        if all(type(i) is int and 0 <= i < _MAX_INDEX for i in value.values()):
            if all(map(_INDEX.fullmatch, value)):
                raise LabelsError(f"{where}: numbers for numbers: write the names as strings")
            return in_order([label_from_name(i, x) for x, i in value.items()], where)
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return [label_from_name(i, name) for i, name in enumerate(value)]
    raise LabelsError(
        f"{where}: this JSON holds no labels: give a list of names, a mapping from index to name, "
        "one from name to index, or one of these in `id2label`, `names` or `classes`"
    )


class _Object(dict[str, Any]):
    """An object of JSON; of a key that is there twice one value would be lost."""

    def __init__(self, pairs: list[tuple[str, Any]], where: str) -> None:
        super().__init__(pairs)
        if len(self) != len(pairs):
            keys = [key for key, _ in sorted(pairs, key=lambda pair: pair[0])]
            twice = next(a for a, b in pairwise(keys) if a == b)
            raise LabelsError(f"{where}: key {twice[:40]!r} is there twice: remove one")


def parse_pbtxt(text: str, where: str) -> list[Label]:
    """Parse ``item { id: 1 name: "owl" }``; the ids may count from 0 or from 1."""
    tokens, position = [], 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise _not_label_map(where, text, position)
        position = match.end()
        if match[1]:
            tokens.append((match[1], match.start(1)))
    tokens.append(("", len(text)))
    labels, at = [], 0
    while tokens[at][0]:
        start = at
        at += 1
        at += tokens[at][0] == ":"
        if tokens[start][0] != "item" or tokens[at][0] != "{":
            raise _not_label_map(where, text, tokens[start][1])
        fields: dict[str, str] = {}
        at += 1
        while tokens[at][0] != "}":
            key, place = tokens[at]
            if not key or tokens[at + 1][0] != ":" or key in fields:
                raise _not_label_map(where, text, place)
            fields[key] = tokens[at + 2][0] if at + 2 < len(tokens) else ""
            at += 3
            if at >= len(tokens):
                raise _not_label_map(where, text, place)
        at += 1
        name = fields.get("display_name", fields.get("name", ""))
        quoted = re.fullmatch(r"""(["'])((?:[^\\]|\\["'\\])*)\1""", name)
        if quoted is None or not _INDEX.fullmatch(fields.get("id", "")):
            raise _not_label_map(where, text, tokens[start][1])
        name = re.sub(r"\\(.)", r"\1", quoted[2])
        labels.append(label_from_name(int(fields["id"]), name))
    return in_order(labels, where, first=int(all(label.class_id for label in labels)))


def _not_label_map(where: str, text: str, position: int) -> LabelsError:
    line = text.count("\n", 0, position) + 1
    return LabelsError(
        f'{where}: line {line} is not understood: a label map holds `item {{ id: 1 name: "owl" }}` '
        "alone"
    )


def parse_yaml(lines: list[str], where: str) -> list[Label]:
    """Parse what `names:` holds at the top of a YAML file: a list, or a mapping from index to name.

    Both ways of YAML to write them are known; of the rest of YAML, nothing.
    """
    starts = [i for i, line in enumerate(lines) if re.match(r"names\s*:(?:\s|$)", line)]
    if len(starts) != 1:
        raise LabelsError(f"{where}: `names:` must be there once in a YAML file of labels")
    start = starts[0]
    body = [(start + 1, _without_comment(lines[start].split(":", 1)[1]))]
    for number, line in enumerate(lines[start + 1 :], start + 2):
        if re.match(r"[^\s#\-\]}]|---", line):
            break
        body.append((number, _without_comment(line)))
    body = [(number, line) for number, line in body if line.strip()]
    first = body[0][1].strip() if body else ""
    if first[:1] in ("[", "{"):
        return _flow(" ".join(line.strip() for _, line in body), where)
    if first and body[0][0] == start + 1:
        raise _not_yaml(where, body[0][0], first)
    depths = {len(line) - len(line.lstrip(" ")) for _, line in body}
    entries = [(number, line, _BLOCK_ENTRY.fullmatch(line.strip())) for number, line in body]
    found: list[tuple[str | None, str]] = []
    for number, line, match in entries:
        if match is None or len(depths) > 1:
            raise _not_yaml(where, number, line)
        found.append((match["index"], _scalar(match["name"], where, number)))
    return _from_entries(found, where)


def _flow(text: str, where: str) -> list[Label]:
    text = text.strip()
    if text[-1:] != {"[": "]", "{": "}"}[text[0]]:
        raise LabelsError(f"{where}: the list after `names:` has no end, or more after it")
    body, position = text[1:-1].rstrip(), 0
    found: list[tuple[str | None, str]] = []
    while position < len(body):
        match = _FLOW_ENTRY.match(body, position)
        if match is None or (match["index"] is None) != (text[0] == "["):
            raise _not_yaml(where, None, body[position : position + 40])
        found.append((match["index"], _scalar(match["name"], where, None)))
        position = match.end()
    return _from_entries(found, where)


def _from_entries(found: list[tuple[str | None, str]], where: str) -> list[Label]:
    stated = [label_from_name(int(index), name) for index, name in found if index is not None]
    if stated and len(stated) != len(found):
        raise LabelsError(f"{where}: some of `names:` have an index, others none: give all or none")
    return (
        in_order(stated, where)
        if stated
        else [label_from_name(i, name) for i, (_, name) in enumerate(found)]
    )


def _scalar(text: str, where: str, number: int | None) -> str:
    text = text.strip()
    if text[0] in "\"'":
        if not re.fullmatch(_SCALAR, text):
            raise _not_yaml(where, number, text)
        single = text[0] == "'"
        return text[1:-1].replace("''", "'") if single else re.sub(r"\\(.)", r"\1", text[1:-1])
    if re.search(r":(\s|$)|\s#", text):
        raise _not_yaml(where, number, text)
    return text


def _without_comment(line: str) -> str:
    """Cut `` # ...`` off, unless it stands in quotes."""
    match = re.match(r"""(?:(?<=\w)['"]|"(?:[^"\\]|\\.)*"|'[^']*'|(?<=\S)#|[^"'#]+)*""", line)
    end = match.end() if match else 0
    return line[:end] if line[end : end + 1] == "#" else line


def _not_yaml(where: str, number: int | None, text: str) -> LabelsError:
    line = "" if number is None else f"line {number}, "
    return LabelsError(
        f"{where}: {line}{text.strip()[:40]!r} is YAML that is not understood here: under `names:` "
        "write `- owl` or `0: owl` for each class"
    )
