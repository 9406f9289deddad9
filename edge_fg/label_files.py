"""Label files in the formats that people have.

Where a file states indices, they decide which class a name belongs to; its line does not.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from edge_fg.errors import LabelsError
from edge_fg.label_markup import parse_json, parse_pbtxt, parse_yaml
from edge_fg.labels import (
    TAXONOMY,
    Label,
    Labels,
    attribute,
    in_order,
    label_from_name,
    with_epithet,
)
from edge_fg.printing import reason

_MAX_BYTES = 32 << 20
_MAX_MARKUP = 8 << 20
_MAX_CLASSES = 1_000_000
_INDEX = re.compile(r"[0-9]{1,18}")
# Headers of CSV files; the first that a file has is used.
_INDEX_COLUMNS = ("index", "class_id", "class_index", "class_idx", "idx", "label_id", "id")
_NAME_COLUMNS = (
    "label",
    "name",
    "class_name",
    "label_name",
    "display_name",
    "common_name",
    "scientific_name",
    "class",
)
_SEPARATOR = r"(?:\s*[-=]>|\s*[,;=|]|\s*[:.)](?=\s)|:|\s+-(?=\s)|\s)"
_INDEX_FIRST = re.compile(rf'("?)([0-9]{{1,18}})\1{_SEPARATOR}(.*)')
_NUMBER = re.compile(r"(?<![^\W_])[0-9]{1,18}(?![^\W_])")
_DIGITS = "0123456789"
_USE_CSV = "write a CSV file with the header `index,label`, or `label` alone if none is an index"
# A list in JSON holds strings, lists or objects; `[unknown]` is a name.
_JSON = re.compile(r'\s*(?:\{|\[\s*["\[{\]])')
_PBTXT = re.compile(r"^[ \t]*item\s*(?::\s*)?\{", re.MULTILINE)
_YAML = re.compile(r"^names\s*:(?:\s|$)", re.MULTILINE)


def read_labels(path: Path, *, classes: int | None = None) -> Labels:
    """Read labels from a file.

    These formats are known:

    - CSV (comma, semicolon, tab or |) with a header that names the columns: ``label``, ``name``,
      ``class_name``, ``common_name``, ``scientific_name`` or ``class``; perhaps ``index``,
      ``class_id``, ``idx`` or ``id``; perhaps the taxonomy.
    - JSON: a list of names, a mapping from index to name or from name to index, or
      ``{"id2label": ...}``.
    - YAML with ``names:``, a list or a mapping from index to name.
    - Label maps, ``item { id: 1 name: "owl" }``, which may count from 1.
    - SpeciesNet's seven parts a line, ``uuid;class;order;family;genus;species;common``.
    - Text with one label a line, where ``Genus species (Common name)`` is recognised. Where every
      line states an index (``0 owl``, ``0: owl``, ``owl,0``), the index counts.

    A `LabelsError` says that the file is missing, not UTF-8, malformed, that an index is missing or
    stated twice, or that its number of labels is not `classes`, which None leaves open.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise LabelsError(f"can't read labels from {path}: {reason(error)}") from error
    labels = parse_labels(data, where=str(path), suffix=path.suffix.lower())
    if classes is not None and len(labels) != classes:
        raise LabelsError(
            f"{path} holds {len(labels)} labels but the model has {classes} classes: "
            "give one label for each class, in the order of the model's output"
        )
    return labels


def parse_labels(data: bytes, *, where: str = "labels", suffix: str = "") -> Labels:
    """Parse the content of a label file; see `read_labels`.

    A `suffix` of ``.json``, ``.yaml``, ``.yml`` or ``.pbtxt`` demands that format.
    """
    if len(data) > _MAX_BYTES:
        raise LabelsError(f"{where} is larger than {_MAX_BYTES >> 20} MB: not a label file")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise LabelsError(f"{where} is not UTF-8 text (byte {error.start})") from error
    lines = text.splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if len(lines) > _MAX_CLASSES:
        raise LabelsError(f"{where} has more than {_MAX_CLASSES} lines: not a label file")
    return Labels(_parse(text, lines, where, suffix))


def _parse(text: str, lines: list[str], where: str, suffix: str) -> Sequence[Label]:
    is_json = suffix == ".json" or _JSON.match(text)
    is_pbtxt = suffix == ".pbtxt" or _PBTXT.search(text)
    if is_json or is_pbtxt or suffix in (".yaml", ".yml") or _YAML.search(text):
        if len(text) > _MAX_MARKUP:
            raise LabelsError(f"{where} is larger than {_MAX_MARKUP >> 20} MB: write it as CSV")
        if is_json:
            return parse_json(text, where)
        return parse_pbtxt(text, where) if is_pbtxt else parse_yaml(lines, where)
    for delimiter in ",;\t|":
        header = _csv_header(text, delimiter)
        known = {*_INDEX_COLUMNS, *_NAME_COLUMNS, *TAXONOMY, ""}
        named = len(header) > 1 and not set(header).isdisjoint(_NAME_COLUMNS)
        named &= set(header) <= known or not set(header).isdisjoint(_INDEX_COLUMNS)
        if named or "label" in header:
            return _parse_csv(text, header, delimiter, where)
    if lines and all(line.count(";") == 6 for line in lines):
        return [_from_speciesnet(i, line) for i, line in enumerate(lines)]
    return _from_lines(lines, where)


def _csv_reader(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text), strict=True, skipinitialspace=True, delimiter=delimiter)


def _csv_header(text: str, delimiter: str) -> list[str]:
    try:
        first = next(_csv_reader(text, delimiter), [])
    except csv.Error:
        return []
    return [re.sub(r"[ -]", "_", cell.strip().lower()) for cell in first]


def _parse_csv(text: str, header: list[str], delimiter: str, where: str) -> list[Label]:
    rows: list[list[str]] = []
    try:
        reader = _csv_reader(text, delimiter)
        next(reader)
        for row in filter(None, reader):
            if len(row) != len(header):
                raise LabelsError(f"{where}: row {len(rows) + 1} has not as many cells as header")
            rows.append([cell.strip() for cell in row])
    except csv.Error as error:
        raise LabelsError(f"{where} is not valid CSV: {error}") from error
    columns = dict(zip(header, zip(*rows, strict=True), strict=False))
    if doubled := [name for name, times in Counter(header).items() if name and times > 1]:
        raise LabelsError(f"{where}: the header has `{doubled[0][:40]}` twice: remove one")
    if not columns:
        return []
    index, name = _csv_columns(columns, where)
    for cell in columns[index] if index is not None else ():
        if not _INDEX.fullmatch(cell):
            raise LabelsError(f"{where}: `{cell[:40]}` is not a class index")
    taxonomy = [c for c in TAXONOMY if c in columns and c != index and not c == name == "class"]
    scientific = columns.get("scientific_name", ("",) * len(rows))
    labels = [
        with_epithet(
            Label(
                i if index is None else int(columns[index][i]),
                label,
                **{attribute(column): columns[column][i] for column in taxonomy},
            ),
            scientific[i],
        )
        for i, label in enumerate(columns[name])
    ]
    return labels if index is None else in_order(labels, where)


def _csv_columns(columns: dict[str, tuple[str, ...]], where: str) -> tuple[str | None, str]:
    """Return which column states the index, None where none does, and which the label."""
    names = [column for column in _NAME_COLUMNS if column in columns]
    if names == ["class"] and not columns.keys().isdisjoint(TAXONOMY[2:]):  # "aves"
        raise LabelsError(f"{where}: the header names no column `label` or `name`")
    index = next((column for column in _INDEX_COLUMNS if column in columns), None)
    if index is not None:
        return index, names[0]
    numbers = {
        column: [int(cell) for cell in cells]
        for column, cells in columns.items()
        if all(map(_INDEX.fullmatch, cells))
    }
    for column in ("label", "class"):  # "label,name" and "class,name" with numbers in the first
        others = [name for name in names if name != column]
        if column in numbers and others:
            return column, others[0]
    for column, values in numbers.items():
        if column != names[0] and values != sorted(values) == list(range(len(values))):
            raise LabelsError(
                f"{where}: column `{column[:40]}` seems to hold the indices: name it `index`, or "
                "remove it"
            )
    return None, names[0]


def _from_speciesnet(index: int, line: str) -> Label:
    uuid, class_, order, family, genus, species, common = (part.strip() for part in line.split(";"))
    name = common or " ".join(filter(None, (genus, species))) or family or order or class_ or uuid
    return with_epithet(
        Label(index, name, common, class_, order, family, genus.capitalize(), species, uuid)
    )


def _from_lines(lines: list[str], where: str) -> list[Label]:
    by_first = [_index_first(line) for line in lines]
    by_last = [_index_last(line) for line in lines]
    stated = [labels for labels in (by_first, by_last) if lines and None not in labels]
    if len(stated) == 2:
        raise LabelsError(f"{where}: each line has two numbers, one may be an index: {_USE_CSV}")
    if stated:
        labels = [label for label in stated[0] if label is not None]
        return in_order(labels, where, advice=f"; if they are no indices, {_USE_CSV}")
    # What may be indices after all is refused, not guessed: those after a header or a comment, or
    # numbers anywhere in the lines, as in "red 2" or "[2] red", out of order.
    for by in (by_first, by_last):
        start = max((i + 1 for i, label in enumerate(by) if label is None), default=0)
        indices = [label.class_id for label in by[start:] if label is not None]
        if indices and sorted(indices) == list(range(len(indices))):
            raise LabelsError(
                f"{where}: only the lines after line {start} state an index: {_USE_CSV}"
            )
    numbers = [[int(number) for number in _NUMBER.findall(line)] for line in lines]
    if all(numbers) and not all(line.strip().isdecimal() for line in lines):
        for indices in ([some[0] for some in numbers], [some[-1] for some in numbers]):
            ordered = sorted(indices)
            counted = list(range(ordered[0], ordered[0] + len(ordered)))
            if ordered[0] <= 1 and indices != ordered == counted:
                raise LabelsError(f"{where}: each line has what may be an index: {_USE_CSV}")
    return [label_from_name(i, line) for i, line in enumerate(lines)]


def _index_first(line: str) -> Label | None:
    match = _INDEX_FIRST.fullmatch(line.strip())
    return label_from_name(int(match[2]), _unquoted(match[3])) if match else None


def _index_last(line: str) -> Label | None:
    line = line.strip()
    head = line.rstrip(_DIGITS)
    name = head.rstrip(" ")
    if not name or not 0 < len(line) - len(head) <= 18:
        return None
    if name[-1] not in ",;:=|\t":
        return None
    return label_from_name(int(line[len(head) :]), _unquoted(name[:-1]))


def _unquoted(name: str) -> str:
    name = name.strip()
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"')
    return name
