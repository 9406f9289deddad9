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
from support.children import environment
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
        (ModuleNotFoundError("No module named 'cv2'", name="cv2"), "and is not installed"),
        (ImportError("No module named 'cv2'"), "and is not installed"),
        (ImportError("libGL.so.1: cannot open shared object file"), "imported (libGL.so.1: cannot"),
        (ModuleNotFoundError("No module named 'numpy'", name="numpy"), "(No module named 'numpy')"),
        (ModuleNotFoundError("no cv2.x", name="cv2.x"), "can't be imported (no cv2.x)"),
        (ImportError("libgomp.so.1: cannot allocate memory in static TLS block"), "LD_PRELOAD"),
    ],
)
def test_a_package_that_can_t_be_loaded_is_not_called_missing(cause: Exception, says: str):
    error = MissingDependencyError("opencv-python-headless", "opencv", "read videos", "cv2")
    error.__cause__ = cause
    assert says in str(error)
    assert ("edge-fg[opencv]" in str(error)) == (says == "and is not installed")
    assert ("is not installed" in str(error)) == (says == "and is not installed")


def loaded(folder: Path, module: str, code: str, use: str) -> str:
    """What is said where a package's import runs `code`; it is used twice."""
    (folder / f"{module}.py").write_text(code)
    script = f"""from edge_fg.errors import EdgeFGError
for turn in range(2):
    try:
        {use}
    except EdgeFGError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == second
    assert "is not installed" not in first
    return first


CV2 = "from edge_fg.opencv import load_cv2; load_cv2('read videos')"
PYCUDA = "from edge_fg.cuda import libcuda, pycuda_driver; pycuda_driver.load()"
PROMETHEUS = "from edge_fg.telemetry.prometheus import PipelineCollector as P; P(print)"
TENSORRT = "from edge_fg.backends.tensorrt.library import import_library as i; i('tensorrt')"


@pytest.mark.parametrize(
    ("module", "code", "use", "says"),
    [
        ("cv2", "raise ImportError('numpy.core.multiarray failed to import')", CV2, "'numpy<2'"),
        ("cv2", "raise AttributeError('_ARRAY_API not found')", CV2, "JetPack"),
        ("cv2", "raise AttributeError(\"module 'cv2.dnn' has no 'X'\")", CV2, "has no 'X'"),
        # As its own loader does, which leaves a mark in `sys`.
        (
            "cv2",
            (
                "import sys\nassert not hasattr(sys, 'OpenCV_LOADER'), 'recursion'\n"
                "sys.OpenCV_LOADER = True\nraise ImportError('libGL.so.1: cannot open')"
            ),
            CV2,
            "can't be imported (libGL.so.1: cannot open)",
        ),
        ("pycuda", "import pytools_that_lacks", PYCUDA, "No module named 'pytools_that_lacks'"),
        ("prometheus_client", "", PROMETHEUS, "No module named 'prometheus_client.core'"),
        ("tensorrt", "import tensorrt_bindings_x", TENSORRT, "named 'tensorrt_bindings_x'"),
    ],
)
def test_an_import_that_fails_says_why(tmp_path: Path, module: str, code: str, use: str, says: str):
    assert says in loaded(tmp_path, module, code, use)


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


def test_a_pyav_that_can_t_be_loaded_is_not_left_out_silently(tmp_path: Path):
    (tmp_path / "av.py").write_text("raise ImportError('libavcodec.so.61: cannot open')")
    done = subprocess.run(
        [sys.executable, "-c", "from edge_fg.sources.live.rtsp import has_pyav as h; print(h())"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=HANG,
        check=True,
    )
    assert done.stdout == "False\n"
    assert "OpenCV decodes instead: av is needed" in done.stderr
    assert "libavcodec.so.61" in done.stderr
