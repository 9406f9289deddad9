"""What the machine lacks is named, never taken for a damaged file or a missing package."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from edge_fg import Bundle
from edge_fg.errors import EdgeFGError, MissingDependencyError, UnsafeBundleError
from edge_fg.images import read_image
from edge_fg.label_files import read_labels
from edge_fg.printing import shortage
from support.waiting import HANG


@pytest.fixture
def no_more_files():
    """Opens files until there can be no more."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    held: list[int] = []

    def use_up() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[0]), before[1]))
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            assert error.errno == errno.EMFILE

    yield use_up
    for descriptor in held:
        os.close(descriptor)
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def zipped(bundle: Path) -> Path:
    target = bundle.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for file in bundle.iterdir():
            archive.write(file, file.name)
    return target


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: Bundle(folder / "tiny.edgefg"),
        lambda folder: Bundle(folder / "tiny.zip"),
        lambda folder: read_image(folder / "a.png"),
        lambda folder: read_labels(folder / "labels.txt"),
    ],
    ids=["folder", "zip", "image", "labels"],
)
def test_too_many_open_files_are_no_damage(
    tiny_bundle: Path, no_more_files: Callable[[], None], use: Callable[[Path], object]
):
    folder = tiny_bundle.parent
    zipped(tiny_bundle)
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    (folder / "labels.txt").write_text("a\nb\n")
    use(folder)  # imports what it needs
    no_more_files()
    with pytest.raises(EdgeFGError, match="EMFILE") as caught:
        use(folder)
    assert "damaged" not in str(caught.value)


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (MemoryError(), "needed to read videos, and there is not enough memory"),
        (ImportError("libx.so: cannot open: Too many open files"), "EMFILE"),
        (ImportError("libx.so: failed to map segment from shared object"), "not enough memory"),
        (OSError(errno.ENFILE, "Too many open files in system"), "ENFILE"),
        (RuntimeError("can't start new thread"), "not enough memory"),
        (ImportError("No module named 'cv2'"), "is not installed"),
        (ImportError("libGL.so.1: cannot open shared object file"), "is not installed"),
    ],
)
def test_a_package_that_can_t_be_loaded_is_not_called_missing(cause: Exception, says: str):
    error = MissingDependencyError("opencv-python-headless", "opencv", "read videos")
    error.__cause__ = cause
    assert says in str(error)
    assert ("pip install" in str(error)) == (says == "is not installed")


def test_a_shortage_behind_another_error_is_found():
    outer, inner = ValueError("odd"), OSError(errno.ENOSPC, "No space left on device")
    assert shortage(outer) is None
    outer.__cause__ = inner
    inner.__context__ = outer  # a circle
    assert "ENOSPC" in str(shortage(outer))
    assert shortage(OSError(errno.EACCES, "Permission denied")) is None


def test_little_memory_is_called_so(tmp_path: Path):
    def limit() -> None:  # less than NumPy's libraries take
        resource.setrlimit(resource.RLIMIT_AS, (60_000_000, 60_000_000))

    done = subprocess.run(
        [sys.executable, "-m", "edge_fg", "run", "bundle", "image"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
        preexec_fn=limit,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode
    assert "not enough memory" in done.stderr
    assert "installed" not in done.stderr


def test_a_zip_of_a_million_files_is_refused_before_they_are_listed(tmp_path: Path):
    """The list of files is written by hand: one entry, many times."""
    path = tmp_path / "many.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"")
    content = path.read_bytes()
    start, end = content.index(b"PK\x01\x02"), content.index(b"PK\x05\x06")
    entries = content[start:end] * 1_000_000
    tail = bytearray(content[end:])
    tail[8:12] = b"\xff\xff" * 2
    tail[12:16] = len(entries).to_bytes(4, "little")
    path.write_bytes(content[:start] + entries + bytes(tail))
    with pytest.raises(UnsafeBundleError, match="more than 256 files"):
        Bundle(path)


def test_a_graph_over_two_gigabytes_is_refused_unread(tiny_bundle: Path):
    size = 4 << 30
    with (tiny_bundle / "model.fp32.onnx").open("r+b") as file:
        before = os.fstat(file.fileno()).st_size
        file.truncate(size)
    manifest = tiny_bundle / "bundle.json"
    manifest.write_text(manifest.read_text().replace(str(before), str(size)))
    with pytest.raises(UnsafeBundleError, match="larger than 2 GB"):
        Bundle(tiny_bundle).graph("fp32")
