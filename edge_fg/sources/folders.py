"""The files of a folder or a glob: each real one once, and a word about what is left out."""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from edge_fg.errors import SourceError
from edge_fg.images import IMAGE_SUFFIXES
from edge_fg.printing import printable
from edge_fg.sources.uri import VIDEO_SUFFIXES

_logger = logging.getLogger("edge_fg")
_DIGITS = re.compile(r"(\d+)")
_LETTERS = re.compile(r"\[(?P<no>!?)(?P<set>[^]]+)\]|[A-Za-z]")
_NAMED_SUFFIXES = 5

# Folders that systems keep for themselves: resource forks of macOS, thumbnails and snapshots of a
# NAS, deleted files. What begins with a dot ("._IMG_1.JPG", ".Trashes") is hidden, too.
_SYSTEM_FOLDERS = frozenset(
    {"__macosx", "@eadir", "@recycle", "#recycle", "#snapshot", "$recycle.bin", "lost+found"}
    | {"system volume information"}
)
# Images straight from the sensor: people mean them, and nothing here decodes them.
_RAW_SUFFIXES = frozenset(
    {".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".orf", ".rw2", ".raf", ".pef"}
)
_MEANT = IMAGE_SUFFIXES | VIDEO_SUFFIXES | _RAW_SUFFIXES


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return a sorting key by which ``IMG_9`` comes before ``IMG_10``."""
    text = os.fspath(path)
    parts = _DIGITS.split(text.casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], text


def files_below(folder: Path) -> list[Path]:
    """Return the files of a folder and of all folders in it, in natural order, each real one once.

    Links are followed, but never twice to one place: one that leads back up ends there. Hidden
    names, and folders that systems keep for themselves, are passed over. A folder further down that
    can't be listed is logged as a warning; `SourceError` if `folder` itself can't be.
    """
    return _each_once(_walk(folder, must_list=True))


def files_matching(pattern: str) -> list[Path]:
    """Return the files that a glob matches, in natural order, each real one once.

    The suffix matches in any case, because cameras write ``.JPG``; ``**`` stands for any folders.
    A folder that matches stands for all that is in it, see `files_below`.
    """
    parts = Path(pattern).parts
    if "**" not in parts:
        return _each_once(_expanded(Path(_any_case(pattern))))
    # Python's own "**" follows links that lead back up, dozens of times.
    place = parts.index("**")
    above, below = Path(*parts[:place]), [*parts[place:-1], _any_case(parts[-1])]
    roots = [Path(root) for root in glob.iglob(os.fspath(above))] if place else [Path()]  # noqa: PTH207
    return _each_once(
        path
        for root in roots
        if root.is_dir() and root.name.lower() not in _SYSTEM_FOLDERS
        for path in _walk(root)
        if _matches(path.relative_to(root).parts, below)
    )


def with_suffixes(files: Iterable[Path], suffixes: frozenset[str], where: str) -> list[Path]:
    """Return the files that have one of these suffixes (lower case), in any case of theirs.

    The others are logged: as a warning where there are images or videos among them.
    """
    kept, others = [], Counter[str]()
    for path in files:
        suffix = path.suffix.lower()
        if suffix in suffixes:
            kept.append(path)
        else:
            others[suffix] += 1
    if others:
        named = sorted(others, key=lambda suffix: (suffix not in _MEANT, suffix))
        _logger.log(
            logging.WARNING if others.keys() & _MEANT else logging.INFO,
            "%s: left out, because they are not read here: %s",
            where,
            ", ".join(
                f"{others[suffix]} {printable(suffix) or 'without a suffix'}"
                for suffix in named[:_NAMED_SUFFIXES]
            )
            + (", ..." if len(named) > _NAMED_SUFFIXES else ""),
        )
    return kept


def _walk(top: Path, *, must_list: bool = False) -> Iterator[Path]:
    """Yield the files of `files_below` in any order, some perhaps by several names.

    Where `top` can't be listed, that is an error only if `must_list`.
    """
    seen: set[object] = set()
    folders, links = [top], deque[Path]()
    # Links come last, so that what has a name of its own is found under it.
    while folders or links:
        here = folders.pop() if folders else links.popleft()
        try:
            identity = _identity(here)
            entries = [] if identity in seen else list(os.scandir(here))
        except OSError as error:
            message = f"can't list {here}: {error.strerror or error}"
            if must_list and here == top:
                raise SourceError(message) from error
            _logger.warning("%s; what is in it is left out", message)
            continue
        seen.add(identity)
        for entry in entries:
            path = here / entry.name
            if entry.name.startswith("."):
                continue
            if not os.path.isdir(entry):  # noqa: PTH112  Path.is_dir raises what it can't look at
                yield path
            elif entry.name.lower() not in _SYSTEM_FOLDERS:
                (links if entry.is_symlink() else folders).append(path)


def _expanded(pattern: Path) -> Iterator[Path]:
    for match in map(Path, glob.iglob(os.fspath(pattern))):  # noqa: PTH207  it may be absolute
        if not match.is_dir():
            if not match.name.startswith("."):
                yield match
        elif match.name.lower() not in _SYSTEM_FOLDERS:
            yield from _walk(match)


def _each_once(paths: Iterable[Path]) -> list[Path]:
    """Sort, and leave out further names of one file; of these a link's is left out first."""
    once: dict[object, Path] = {}
    for path in sorted(sorted(paths, key=natural_order), key=Path.is_symlink):
        try:
            once.setdefault(_identity(path), path)
        except OSError:  # such as a link to nothing: who reads it will say so
            once[path] = path
    return sorted(once.values(), key=natural_order)


def _identity(path: Path) -> object:
    """Return what is the same for all names of a file or folder."""
    status = path.stat()
    # Size and time, because a few file systems number their files in no lasting way.
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path, or a folder that it lies in, matches a glob."""
    if not patterns:
        return True
    if patterns[0] == "**":
        return any(_matches(parts[skip:], patterns[1:]) for skip in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])


def _any_case(pattern: str) -> str:
    """Return a glob whose suffix matches in capitals and small letters."""

    def either(found: re.Match[str]) -> str:
        letters = found["set"] or found[0]
        return f"[{found['no'] or ''}{letters.lower()}{letters.upper()}]"

    stem, dot, suffix = pattern.rpartition(".")
    return stem + dot + _LETTERS.sub(either, suffix) if dot and "/" not in suffix else pattern
