"""The names of a model's classes, and their taxonomy."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import overload

from edge_fg.errors import LabelsError
from edge_fg.printing import reason
from edge_fg.public_names import deprecated_alias

_MAX_BYTES = 32 << 20
_MAX_CLASSES = 1_000_000
_MAX_INDEX_DIGITS = 18
# C0, DEL, C1 and the Unicode line and paragraph separators, but not the tab: labels are printed,
# and these characters could control a terminal or break a line.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")
_COLUMNS = ("common_name", "class", "order", "family", "genus", "species", "uuid")
# "Athene cunicularia (Burrowing Owl)": genus, specific epithet, perhaps a subspecies, then a name.
_BINOMIAL = re.compile(
    r"(?P<genus>[A-Z][a-z]+) (?P<species>[a-z][a-z-]+)(?: [a-z-]+)? \((?P<common>.+)\)"
)


@dataclass(frozen=True)
class Label:
    """One class.

    Parameters
    ----------
    class_id
        Position in the model's output.
    label
        The name that predictions carry, as the user wrote it.
    common_name, class_, order, family, genus, species, uuid
        Empty where unknown; `species` is the specific epithet alone.
    """

    class_id: int
    label: str
    common_name: str = ""
    class_: str = ""
    order: str = ""
    family: str = ""
    genus: str = ""
    species: str = ""
    uuid: str = ""

    index = deprecated_alias("class_id")

    def is_sibling_of(self, other: Label) -> bool:
        """Whether both are different classes of one known genus."""
        return self.class_id != other.class_id and self.genus != "" and self.genus == other.genus


class Labels(Sequence[Label]):
    """The classes of a model in the order of its output.

    Parameters
    ----------
    labels
        Their indices must be 0, 1, 2, ... in order.

    Raises
    ------
    LabelsError
        There are none, an index is missing or given twice, a label is empty, or it or its
        taxonomy holds control characters.
    """

    def __init__(self, labels: Sequence[Label]) -> None:
        if not labels:
            raise LabelsError("no labels were found: one is needed for each class")
        for position, label in enumerate(labels):
            if label.class_id != position:
                raise LabelsError(
                    f"label `{label.label}` has index {label.class_id} where {position} was "
                    "expected: indices must run from 0 without a gap"
                )
            if not label.label.strip():
                raise LabelsError(f"the label of class {position} is empty")
            if _CONTROL.search("".join(astuple(label)[1:])):
                raise LabelsError(
                    f"the label of class {position}, {label.label!r}, or its taxonomy holds a "
                    "control character or a line break: remove it"
                )
        self._labels = tuple(labels)

    def __len__(self) -> int:
        return len(self._labels)

    @overload
    def __getitem__(self, index: int) -> Label: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Label, ...]: ...
    def __getitem__(self, index: int | slice) -> Label | tuple[Label, ...]:
        return self._labels[index]

    @property
    def names(self) -> list[str]:
        """The label of each class."""
        return [label.label for label in self._labels]

    def to_csv(self) -> str:
        """Return the content of a bundle's ``labels.csv``."""
        used = [c for c in _COLUMNS if any(getattr(x, _attribute(c)) for x in self._labels)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["index", "label", *used])
        for label in self._labels:
            row = [getattr(label, _attribute(column)) for column in used]
            writer.writerow([label.class_id, label.label, *row])
        return text.getvalue()


def read_labels(path: Path, *, classes: int | None = None) -> Labels:
    """Read labels from a file.

    Three formats are known: CSV with a header that has at least ``label`` and may have ``index``
    and taxonomy columns (blanks, quotes and capitals in it don't matter); SpeciesNet's seven parts
    a line, ``uuid;class;order;family;genus;species;common``; and any other text with one label a
    line, where ``Genus species (Common name)`` is recognised.

    A `LabelsError` says that the file is missing, not UTF-8, malformed, or that its number of
    labels is not `classes`, which None leaves open.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise LabelsError(f"can't read labels from {path}: {reason(error)}") from error
    labels = parse_labels(data, where=str(path))
    if classes is not None and len(labels) != classes:
        raise LabelsError(
            f"{path} holds {len(labels)} labels but the model has {classes} classes: "
            "give one label for each class, in the order of the model's output"
        )
    return labels


def parse_labels(data: bytes, *, where: str = "labels") -> Labels:
    """Parse the content of a label file; see `read_labels`."""
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
    header = _csv_header(text)
    if "label" in header:
        return Labels(_parse_csv(text, header, where))
    if lines and all(line.count(";") == 6 for line in lines):
        return Labels([_from_speciesnet(i, line) for i, line in enumerate(lines)])
    return Labels([_from_line(i, line) for i, line in enumerate(lines)])


def _csv_header(text: str) -> list[str]:
    try:
        first = next(csv.reader(io.StringIO(text), strict=True, skipinitialspace=True), [])
    except csv.Error:
        return []
    return [cell.strip().lower() for cell in first]


def _parse_csv(text: str, header: list[str], where: str) -> list[Label]:
    labels: list[Label] = []
    try:
        reader = csv.DictReader(io.StringIO(text), strict=True, skipinitialspace=True)
        reader.fieldnames = header
        next(reader)
        for row in reader:
            if None in row or None in row.values():
                raise LabelsError(f"{where}: row {len(labels) + 1} has not as many cells as header")
            index = row.get("index", str(len(labels))).strip()
            if not index.isdecimal() or len(index) > _MAX_INDEX_DIGITS:
                raise LabelsError(f"{where}: `{index[:40]}` is not a class index")
            taxonomy = {_attribute(column): (row.get(column) or "").strip() for column in _COLUMNS}
            labels.append(Label(int(index), row["label"].strip(), **taxonomy))
    except csv.Error as error:
        raise LabelsError(f"{where} is not valid CSV: {error}") from error
    return sorted(labels, key=lambda label: label.class_id)


def _from_speciesnet(index: int, line: str) -> Label:
    uuid, class_, order, family, genus, species, common = (part.strip() for part in line.split(";"))
    name = common or " ".join(filter(None, (genus, species))) or family or order or class_ or uuid
    return Label(index, name, common, class_, order, family, genus.capitalize(), species, uuid)


def _from_line(index: int, line: str) -> Label:
    label = line.strip()
    match = _BINOMIAL.fullmatch(label)
    if match is None:
        return Label(index, label)
    common, genus, species = match["common"], match["genus"], match["species"]
    return Label(index, label, common, genus=genus, species=species)


def _attribute(column: str) -> str:
    return "class_" if column == "class" else column
