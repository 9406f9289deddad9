"""What tests compile, kept between test sessions by a digest of all that it is made of.

It lies in ``$XDG_CACHE_HOME/edge-fg-tests``, for any number of processes at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

from edge_fg_tools.kernels.cpu_form import SOURCES, compile_cpu_form

# Of the user, before a fixture gives the tests a home of their own.
_ROOT = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-fg-tests"
_UNUSED_DAYS = 30
_SUFFIXES = (".c", ".cpp", ".cu", ".h")


def compiler(name: str) -> str:
    """The path of a compiler; the test is skipped where there is none."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no compiler ({name}) to build what the test needs")
    return found


def cpu_form(flags: Sequence[str] = ("-O2",)) -> Path:
    """The shipped kernels compiled for the processor: a shared library."""
    made_of = [compiler("g++"), *flags, SOURCES]
    return kept("kernels", made_of, lambda folder: compile_cpu_form(folder, flags)) / "kernels.so"


def kept(name: str, made_of: Iterable[str | Path], build: Callable[[Path], object]) -> Path:
    """A folder that `build` filled, now or in an earlier session.

    Parameters
    ----------
    name
        What is built.
    made_of
        All that it depends on: files, folders of sources, the compilers' paths and flags.
    build
        Called with a new folder, which is moved afterwards.
    """
    _ROOT.mkdir(parents=True, exist_ok=True)
    folder = _ROOT / f"{name}-{_digest(made_of)}"
    with _alone(folder.with_suffix(".lock")):
        if not folder.is_dir():
            _remove_unused(_ROOT)
            # Under its own name only once it is complete: a killed build leaves no half of it.
            with tempfile.TemporaryDirectory(dir=_ROOT, prefix=".new-") as made:
                build(Path(made))
                shutil.copytree(made, Path(made).with_suffix(".done"))
                Path(made).with_suffix(".done").rename(folder)
        os.utime(folder)
    return folder


def _digest(made_of: Iterable[str | Path]) -> str:
    digest = hashlib.sha256()
    for part in made_of:
        for content in _contents(part):
            digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:32]


def _contents(part: str | Path) -> Iterator[bytes]:
    """The bytes that stand for a part; of a compiler its version too."""
    if isinstance(part, Path):
        files = sorted(part.rglob("*")) if part.is_dir() else [part]
        for file in files:
            if file == part or file.suffix in _SUFFIXES:
                yield file.name.encode()
                yield file.read_bytes()
        return
    yield part.encode()
    if Path(part).is_absolute() and os.access(part, os.X_OK):
        yield subprocess.run([part, "--version"], capture_output=True, check=False).stdout


@contextlib.contextmanager
def _alone(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_unused(root: Path) -> None:
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime > _UNUSED_DAYS * 86_400:
                shutil.rmtree(folder) if folder.is_dir() else folder.unlink()
