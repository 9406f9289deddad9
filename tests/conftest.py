"""Fixtures that all tests share."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from edge_fg.bundle.manifest import (
    SCHEMA_VERSION,
    FileEntry,
    LabelsEntry,
    Manifest,
    OutputSpec,
    TensorSpec,
    VariantEntry,
)
from edge_fg.bundle.writer import write_bundle
from edge_fg.labels import Label, Labels
from edge_fg.preprocess import PreprocessSpec, Resize

# Tests import ONNX Runtime by themselves; those of its telemetry take this away again.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

REPOSITORY = Path(__file__).resolve().parent.parent

# The same examples in every run, however busy the machine is.
settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# New examples in every run: `pytest -m hypothesis --hypothesis-profile explore`.
settings.register_profile(
    "explore",
    settings.get_profile("fixed"),
    derandomize=False,
    max_examples=1000,
    print_blob=True,
)
settings.load_profile("fixed")


@pytest.fixture(scope="session", autouse=True)
def _elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leave the checkout: `python -m` in it would import the checkout, not what is installed."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    yield
    os.chdir(before)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> Iterator[None]:
    """Listen to Ctrl-C again: a suite in the background would start children that ignore it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def _own_user_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Caches and data go to folders of this run, never to those of the user."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
        yield


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Undo what a command did to the package's logger: later tests read its records."""
    logger = logging.getLogger("edge_fg")
    before = logger.handlers[:], logger.propagate, logger.level
    yield
    logger.handlers[:], logger.propagate = before[:2]
    logger.setLevel(before[2])


@pytest.fixture(scope="session")
def repository() -> Path:
    """The checkout that the tests belong to."""
    return REPOSITORY


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Real models, photographs and clips; the test is skipped where there are none."""
    folder = Path(os.environ.get("EDGE_FG_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "models").is_dir():
        pytest.skip("real models and photographs are absent (set EDGE_FG_DATA)")
    return folder


TINY_LABELS = [
    Label(0, "Burrowing Owl", genus="Athene", species="cunicularia"),
    Label(1, "Little Owl", genus="Athene", species="noctua"),
    Label(2, "Great Tit", genus="Parus", species="major"),
    Label(3, "background"),
]


def make_tiny_model(classes: int = 4, size: int = 16, seed: int = 0) -> bytes:
    """A small convolutional classifier with logits, as an ONNX file's content."""
    onnx = pytest.importorskip("onnx")
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.normal(0, 0.3, (16, 3, 3, 3)),
        "b1": rng.normal(0, 0.1, 16),
        "w2": rng.normal(0, 0.2, (32, 16, 3, 3)),
        "b2": rng.normal(0, 0.1, 32),
        "w3": rng.normal(0, 0.5, (32, classes)),
        "b3": rng.normal(0, 0.1, classes),
    }
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        tiny (float[N,3,{size},{size}] image) => (float[N,{classes}] logits)
        {{
            c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(image, w1, b1)
            r1 = Relu(c1)
            c2 = Conv<pads=[1,1,1,1], strides=[2,2]>(r1, w2, b2)
            r2 = Relu(c2)
            p = GlobalAveragePool(r2)
            f = Flatten(p)
            logits = Gemm(f, w3, b3)
        }}
        """
    )
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(value.astype(np.float32), name)
        for name, value in weights.items()
    )
    onnx.checker.check_model(model)
    return model.SerializeToString()


def tiny_manifest(entries: dict[str, FileEntry]) -> Manifest:
    """The manifest of the bundle that `tiny_bundle` writes."""
    graph = entries["model.fp32.onnx"].sha256
    return Manifest(
        schema=SCHEMA_VERSION,
        name="tiny",
        files=entries,
        input=TensorSpec("image", ("N", 3, 16, 16), "float32"),
        outputs=(OutputSpec("logits", "logits", ("N", 4)),),
        preprocess=PreprocessSpec(Resize("squash", (16, 16)), mean=(128,) * 3, std=(64,) * 3),
        labels=LabelsEntry("labels.csv", 4),
        variants={"fp32": VariantEntry("model.fp32.onnx", graph)},
        calibration=None,
        provenance={},
    )


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """A small valid bundle folder with the labels `TINY_LABELS`."""
    output = tmp_path / "tiny.edgefg"
    files = {
        "model.fp32.onnx": make_tiny_model(),
        "labels.csv": Labels(TINY_LABELS).to_csv().encode(),
    }
    write_bundle(output, files, tiny_manifest)
    return output


@pytest.fixture(scope="session")
def tiny_model() -> bytes:
    """See `make_tiny_model`."""
    return make_tiny_model()


@pytest.fixture
def frame() -> np.ndarray:
    """A frame of noise, 40 x 60."""
    return np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def demo_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `demo-out/` as `make demo` leaves it, built from fewer images."""
    for needed in ("onnx", "onnxruntime", "cv2"):
        pytest.importorskip(needed)
    from edge_fg_tools import fieldguide
    from edge_fg_tools.building import BuildOptions, build

    folder = tmp_path_factory.mktemp("demo")
    out = folder / "demo-out"
    out.mkdir()
    fieldguide.write_image_set(folder / "photos", 2, seed=77)
    build(
        BuildOptions(
            model=fieldguide.model_path(),
            labels=fieldguide.labels_path(),
            calibration=folder / "photos" / "images.csv",
            output=out / "fieldguide.edgefg",
            preprocess=str(fieldguide.preprocess_path()),
        )
    )
    fieldguide.write_clip(out / "clip.mp4", out / "clip-truth.jsonl")
    return folder
