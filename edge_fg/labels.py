"""The names of a model's classes, and their taxonomy."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from typing import overload

from edge_fg.errors import LabelsError
from edge_fg.public_names import deprecated_alias

# C0, DEL, C1, the Unicode line and paragraph separators and lone surrogates, but not the tab:
# labels are printed, and these characters could control a terminal, break a line or not be UTF-8.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
TAXONOMY = ("common_name", "class", "order", "family", "genus", "species", "uuid")
# "Athene cunicularia (Burrowing Owl)": genus, specific epithet, perhaps a subspecies, then a name.
_BINOMIAL = re.compile(
    r"(?P<genus>[A-Z][a-z]+) (?P<species>[a-z][a-z-]+)(?: [a-z-]+)? \((?P<common>.+)\)"
)
_SCIENTIFIC = re.compile(r"(?P<genus>[A-Z][a-z]+) (?P<species>[a-z]{2}[a-z-]*)(?: |$)")
_APOSTROPHE = re.compile("['\u2019`\u00b4]")


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

    @property
    def scientific_name(self) -> str:
        """Genus and specific epithet, as far as they are known."""
        return f"{self.genus} {self.species}".strip()

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

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self.names[:3]))
        return f"Labels({len(self)}: {shown}{', ...' if len(self) > 3 else ''})"

    def __eq__(self, other: object) -> bool:
        return self._labels == other._labels if isinstance(other, Labels) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._labels)

    @property
    def names(self) -> list[str]:
        """The label of each class."""
        return [label.label for label in self._labels]

    def find(self, name: str) -> tuple[int, ...]:
        """Return the classes that a name may mean: mostly one, none if it is no name of a class.

        It may be a label, a common name, a scientific name or both, one in brackets. Labels come
        before other names, those written exactly so before those that differ in case or in blanks,
        and these before those that differ in underscores, hyphens, apostrophes and the like.
        Several classes are returned where all have that name.
        """
        folded = _folded(name)
        keys = (_composed(name), folded, _words(folded), _words(folded))
        for key, known in zip(keys, self._by_name, strict=True):
            if key and key in known:
                return known[key]
        return ()

    def of_one_name(self) -> list[tuple[int, ...]]:
        """Return the groups of classes whose labels are one name, but for case and blanks."""
        return [classes for classes in self._by_label.values() if len(classes) > 1]

    def shown(self, class_id: int) -> str:
        """Return the label for people: with its index where another class has that name."""
        label = self._labels[class_id].label
        shared = len(self._by_label[_folded(label)]) > 1
        return f"{label} [{class_id}]" if shared else label

    @cached_property
    def _by_label(self) -> dict[str, tuple[int, ...]]:
        """The classes of each label, folded. `shown` needs no more."""
        return _classes_of((_folded(x.label), x) for x in self._labels)

    @cached_property
    def _by_name(self) -> tuple[dict[str, tuple[int, ...]], ...]:
        """The classes of each label, of each label folded, of its words, and of other names'."""
        return (
            _classes_of((_composed(x.label), x) for x in self._labels),
            self._by_label,
            _classes_of((_words(_folded(x.label)), x) for x in self._labels),
            _classes_of(
                (_words(_folded(name)), x)
                for x in self._labels
                for one, other in [(x.common_name, x.scientific_name)]
                for name in (one, other, f"{one} {other}", f"{other} {one}")
            ),
        )

    def to_csv(self) -> str:
        """Return the content of a bundle's ``labels.csv``."""
        used = [c for c in TAXONOMY if any(getattr(x, attribute(c)) for x in self._labels)]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["index", "label", *used])
        for label in self._labels:
            row = [getattr(label, attribute(column)) for column in used]
            writer.writerow([label.class_id, label.label, *row])
        return text.getvalue()


def in_order(
    labels: Sequence[Label], where: str, *, first: int = 0, advice: str = ""
) -> list[Label]:
    """Sort labels by their stated indices, which become 0, 1, 2, ...

    A `LabelsError` names an index that is missing, counted from `first`, or stated twice; `advice`
    ends its message.
    """
    last = first + len(labels) - 1
    count = Counter(label.class_id for label in labels)
    twice = min((index for index, times in count.items() if times > 1), default=None)
    missing = min(set(range(first, last + 1)) - count.keys(), default=None)
    if twice is None and missing is None:
        ordered = sorted(labels, key=lambda label: label.class_id)
        return [replace(label, class_id=label.class_id - first) for label in ordered]
    problem = f"{missing} is missing" if twice is None else f"{twice} is stated twice or more"
    raise LabelsError(
        f"{where}: index {problem}: the indices of {len(labels)} labels must run from {first} to "
        f"{last} without a gap{advice}"
    )


def label_from_name(index: int, name: str) -> Label:
    """Return the label of a class; ``Genus species (Common name)`` gives its taxonomy too."""
    name = name.strip()
    match = _BINOMIAL.fullmatch(name)
    if match is None:
        return Label(index, name)
    common = match["common"].strip()
    return Label(index, name, common, genus=match["genus"], species=match["species"])


def with_epithet(label: Label, scientific_name: str = "") -> Label:
    """Split ``Genus epithet``, given as the epithet or as `scientific_name`, into the two."""
    text = label.species if " " in label.species else scientific_name
    match = _SCIENTIFIC.match(text)
    # "House sparrow", where a file calls the common name the species.
    if match is None or text.casefold() == label.common_name.casefold():
        return label
    other_genus = label.genus.casefold() not in ("", match["genus"].casefold())
    if other_genus or label.species not in ("", text, match["species"]):
        return label
    return replace(label, genus=label.genus or match["genus"], species=match["species"])


def _classes_of(named: Iterable[tuple[str, Label]]) -> dict[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for name, label in named:
        found.setdefault(name, []).append(label.class_id)
    return {name: tuple(dict.fromkeys(classes)) for name, classes in found.items()}


def _composed(name: str) -> str:
    """Return a name in the one form of letters with accents; file systems may give another."""
    return unicodedata.normalize("NFC", name.strip())


def _folded(name: str) -> str:
    """Return a name without what people don't see as a difference: case, and kinds of blanks."""
    return " ".join(_composed(name.casefold()).split())


def _words(folded: str) -> str:
    """Return the words of a name: file systems and habits change what stands between them.

    Marks, such as the vowels of Hindi, and symbols, such as those of the sexes, belong to words.
    """
    kept = (c if unicodedata.category(c)[0] in "LMNS" else " " for c in _APOSTROPHE.sub("", folded))
    return " ".join("".join(kept).split())


def attribute(column: str) -> str:
    """Return the name that `Label` has for a column of a CSV file."""
    return "class_" if column == "class" else column
