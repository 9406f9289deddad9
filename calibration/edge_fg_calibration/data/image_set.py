"""Sets of images: reading them, naming their classes, feeding them in batches."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import DatasetError, ImageError, SourceError, UsageError
from edge_fg.images import IMAGE_SUFFIXES, OddImages, read_image
from edge_fg.labels import Labels
from edge_fg.printing import reason
from edge_fg.sources.folders import files_below, with_suffixes

T = TypeVar("T")
_NAMED_IN_ERRORS = 5
_NAME_CHARACTERS = 200
# A row takes some thirty times its bytes in memory where it is short.
_MAX_CSV_BYTES = 64 << 20
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class LabelledImage:
    """One image of a set.

    Parameters
    ----------
    path
        The file.
    label
        Name of its class, None where unknown.
    index
        Its class as an index into the model's output, None where unknown.
    group
        Images that belong together, such as the frames of one stretch of a video: `sample`
        never puts them on different sides.
    """

    path: Path
    label: str | None
    index: int | None
    group: str | None = None

    @property
    def known_class(self) -> int | str | None:
        """Its index, else its label; None where neither is known."""
        return self.label if self.index is None else self.index


@dataclass(frozen=True)
class ImageSet:
    """Images in a fixed order.

    Parameters
    ----------
    items
        The images.
    root
        The directory, or the CSV file, that they were read from.
    name
        What to call the set in messages and reports.
    """

    items: tuple[LabelledImage, ...]
    root: Path
    name: str

    def __len__(self) -> int:
        return len(self.items)


def read_image_set(path: Path, *, minimum: int = 1) -> ImageSet:
    """Read a directory of images or a CSV that lists them.

    In a directory, the first-level sub-directories name classes and images at the top have
    no label; the order is sorted by path. Every image below it is read once, see `files_below`;
    what isn't an image is left out, which is logged. A CSV has the column ``file`` (relative to the
    CSV) and, where known, ``label`` or ``index``; an empty cell means unknown; the order is the
    file's.

    Parameters
    ----------
    path
        Directory or CSV file.
    minimum
        Fewest images that are of use to the caller.

    Raises
    ------
    DatasetError
        Nothing there, too few images, a listed file is missing, or the CSV is malformed.
    """
    if _is(path, Path.is_dir):
        items = _read_directory(path)
    elif _is(path, Path.is_file):
        items = _read_csv(path)
    else:
        raise DatasetError(f"{path}: no such directory or CSV file of images")
    if len(items) < max(minimum, 1):
        found = f"{len(items)} images" if items else "no images"
        raise DatasetError(
            f"{path}: {found} found, at least {max(minimum, 1)} needed "
            f"(a directory of {', '.join(sorted(IMAGE_SUFFIXES))} files, or a CSV with a "
            f"`file` column)"
        )
    return ImageSet(tuple(items), path, path.name or str(path))


def resolve_labels(image_set: ImageSet, labels: Labels) -> tuple[ImageSet, tuple[str, ...]]:
    """Fill in each image's index from the name of its class.

    An image that has an index keeps it. A name is looked up by `Labels.find`. Where no label is a
    number, names that are numbers are indices, provided that the model has all of them as classes.
    A name that stands for no class, or for several, leaves the index None, as an image of an
    unknown class: it counts for agreement, not for accuracy.

    Parameters
    ----------
    image_set
        The images.
    labels
        The model's classes.

    Returns
    -------
    The set with its indices, and the names that stand for no one class, sorted.

    Raises
    ------
    DatasetError
        An index is not one of the model's classes.
    """
    for item in image_set.items:
        if item.index is not None and item.index >= len(labels):
            raise DatasetError(
                f"{image_set.name}: {item.path.name} has index {item.index}, but the model has "
                f"{len(labels)} classes (0 to {len(labels) - 1})"
            )
    unclear = {item.label for item in image_set.items if item.index is None and item.label}
    found = {name: labels.find(name) for name in unclear}
    numbers = {n: int(n) for n, classes in found.items() if not classes and _NUMBER.fullmatch(n)}
    if max(numbers.values(), default=0) < len(labels) and not any(
        _NUMBER.fullmatch(name.strip()) for name in labels.names
    ):
        found |= {name: (index,) for name, index in numbers.items()}
    known = {name: classes[0] for name, classes in found.items() if len(classes) == 1}
    items = (
        item if item.index is not None else replace(item, index=known.get(item.label or ""))
        for item in image_set.items
    )
    return replace(image_set, items=tuple(items)), tuple(sorted(found.keys() - known.keys()))


def batches(
    image_set: ImageSet,
    preprocess: Callable[[Sequence[NDArray[np.uint8]]], T],
    batch_size: int,
    on_error: Callable[[Path, Exception], None],
    *,
    read: Callable[[Path], NDArray[np.uint8]] | None = None,
) -> Iterator[tuple[list[LabelledImage], T]]:
    """Yield preprocessed batches; an image that can't be read goes to `on_error` instead.

    Parameters
    ----------
    image_set
        The images.
    preprocess
        Turns frames, H x W x 3 uint8 BGR, into what is yielded, such as one network input.
    batch_size
        Most images in one batch.
    on_error
        Called with each image that was left out and why; it may raise to stop.
    read
        Reads one image as H x W x 3 uint8 BGR; `edge_fg.images.read_image` by default, which logs
        what is odd about images that are used.

    Raises
    ------
    DatasetError
        Not one image of the set could be read.
    """
    if batch_size < 1:
        raise UsageError(f"batch size must be at least 1, not {batch_size}")
    odd = OddImages()
    read = read or partial(read_image, on_odd=odd)
    left_out = 0
    pending: list[LabelledImage] = []
    frames: list[NDArray[np.uint8]] = []
    for item in image_set.items:
        try:
            frames.append(read(item.path))
        except (ImageError, OSError) as error:
            on_error(item.path, error)
            left_out += 1
            continue
        pending.append(item)
        if len(pending) == batch_size:
            yield pending, preprocess(frames)
            pending, frames = [], []
    if pending:
        yield pending, preprocess(frames)
    odd.finish()
    if left_out == len(image_set):
        raise DatasetError(f"{image_set.name}: none of its {len(image_set)} images can be read")


def _read_directory(root: Path) -> list[LabelledImage]:
    try:
        paths = with_suffixes(files_below(root), IMAGE_SUFFIXES, str(root))
    except SourceError as error:
        raise DatasetError(str(error)) from error
    insides = sorted(path.relative_to(root).parts for path in paths)
    return [
        LabelledImage(root.joinpath(*inside), inside[0] if len(inside) > 1 else None, None)
        for inside in insides
    ]


def _read_csv(path: Path) -> list[LabelledImage]:
    try:
        if path.stat().st_size > _MAX_CSV_BYTES:
            raise DatasetError(f"{path} is larger than {_MAX_CSV_BYTES >> 20} MB: split it")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip() if name else "" for name in reader.fieldnames or []]
            reader.fieldnames = columns
            if "file" not in columns:
                raise DatasetError(
                    f"{path}: no column `file` (found: {', '.join(columns)[:200] or 'nothing'}); "
                    f"a CSV of images needs `file` and may have `label` or `index`"
                )
            items = [_csv_row(path, reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV file of images ({error})") from error
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({reason(error)})") from error
    missing = [item.path for item in items if not _is(item.path, Path.is_file)]
    if missing:
        names = ", ".join(
            os.path.relpath(one, path.parent)[:_NAME_CHARACTERS]
            for one in missing[:_NAMED_IN_ERRORS]
        )
        more = f" and {len(missing) - _NAMED_IN_ERRORS} more"
        raise DatasetError(
            f"{path}: {len(missing)} of {len(items)} files are missing: {names}"
            f"{more if len(missing) > _NAMED_IN_ERRORS else ''}"
        )
    return items


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except (OSError, ValueError):  # a name that is too long, or holds a null character
        return False


def _csv_row(path: Path, line: int, row: dict[str, Any]) -> LabelledImage:
    where = f"{path}, line {line}"
    if None in row:
        raise DatasetError(f"{where}: more cells than columns")
    name = (row.get("file") or "").strip()
    if not name or "\0" in name:
        raise DatasetError(f"{where}: the cell `file` is empty or not a path")
    relative = PurePosixPath(os.path.normpath(name))
    outside = relative.is_absolute() or relative.parts[:1] == ("..",)
    if outside or PureWindowsPath(name).is_absolute():
        raise DatasetError(
            f"{where}: {name} is absolute or outside the folder of the CSV; files are listed "
            f"relative to it"
        )
    text = (row.get("index") or "").strip()
    try:
        index = int(text) if text else None
    except ValueError:
        raise DatasetError(f"{where}: index {text[:40]!r} is not a whole number") from None
    if index is not None and index < 0:
        raise DatasetError(f"{where}: index {index} is negative")
    return LabelledImage(path.parent / relative, (row.get("label") or "").strip() or None, index)
