"""What a graph makes ONNX Runtime do can be stopped, has a limit, and is looked at before use."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import edge_fg
from edge_fg.backends.interruption import interruptible
from edge_fg.errors import BackendError, BundleFormatError
from edge_fg.pipeline import Pipeline, engine
from edge_fg.recognition import submission
from support.waiting import HANG, until

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402  comes with onnx

from support.graphs import SIZE, bundle_of, classifier, looping, value, whole  # noqa: E402

FRAME = np.zeros((SIZE, SIZE, 3), np.uint8)
HOURS = looping(whole("rounds", 30_000), side=512)


def load(folder: Path, graph: bytes, **more) -> edge_fg.Classifier:
    return edge_fg.load(bundle_of(folder / "b.edgefg", graph, **more), backend="onnxruntime")


# --- long runs ------------------------------------------------------------------------------------

# Sends the process a SIGTERM as soon as a model runs, and then does what the arguments say.
TERMINATED = """
import os, signal, sys, threading, time
import numpy as np
import edge_fg, edge_fg.pipeline.engine
from edge_fg_tools.cli.main import main
edge_fg.pipeline.engine._PATIENCE_SECONDS = 0.1
def runs(frame):
    while frame is not None and frame.f_code.co_name != "run_session":
        frame = frame.f_back
    return frame is not None
def terminate():
    while not any(map(runs, sys._current_frames().values())):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGTERM)
threading.Thread(target=terminate, daemon=True).start()
if sys.argv[1:2] != ["call"]:
    sys.exit(main(sys.argv[1:]))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
edge_fg.load(sys.argv[2], backend="onnxruntime")(np.zeros((8, 8, 3), np.uint8))
"""


@pytest.fixture(scope="module")
def endless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that runs for hours: as a graph, in a bundle, and with images."""
    folder = tmp_path_factory.mktemp("endless")
    bundle_of(folder / "b.edgefg", HOURS)
    (folder / "m.onnx").write_bytes(HOURS)
    (folder / "labels.txt").write_text("a\nb\nc\n")
    (folder / "images").mkdir()
    for i in range(12):
        Image.new("RGB", (SIZE, SIZE), (20 * i, 100, 5)).save(folder / "images" / f"{i}.png")
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        "call b.edgefg",
        "run b.edgefg images/1.png",
        "evaluate b.edgefg images",
        "inspect m.onnx",
        "build m.onnx --labels labels.txt --calibration images --preprocess clip --output b",
    ],
    ids=lambda arguments: arguments.split()[0],
)
def test_sigterm_ends_what_a_model_keeps_busy(endless: Path, arguments: str):
    done = subprocess.run(
        [sys.executable, "-c", TERMINATED, *arguments.split()],
        cwd=endless,
        capture_output=True,
        text=True,
        timeout=HANG,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    assert not (endless / "b").exists()


def test_a_pipeline_that_stops_interrupts_its_own_frame(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(engine, "_PATIENCE_SECONDS", 0.05)
    loaded = load(tmp_path, HOURS)
    Image.fromarray(FRAME).save(tmp_path / "a.png")
    pipeline = Pipeline(tmp_path / "a.png", loaded)
    pipeline.start()
    until(lambda: loaded._backend._running, "the model runs")
    loaded.interrupt(threading.current_thread())  # nothing of this thread runs
    assert loaded._backend._running
    pipeline.stop()
    assert pipeline.stats().answered == 0


def test_a_classifier_that_is_closed_interrupts_what_was_submitted(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(submission, "_PATIENCE_SECONDS", 0.05)
    loaded = load(tmp_path, HOURS)
    future = loaded.submit(FRAME)
    until(lambda: loaded._backend._running, "the model runs")
    loaded.close()
    with pytest.raises(BackendError, match="terminate"):
        future.result(HANG)


# --- after a fork ---------------------------------------------------------------------------------

# Forks while other threads are in the model, as a server with workers may do.
FORKS = """
import os, sys, threading
import numpy as np
import edge_fg
classifier = edge_fg.load(sys.argv[1], backend="onnxruntime", threads=4)
frame = np.random.default_rng(1).integers(0, 256, (64, 64, 3), dtype=np.uint8)
wanted = classifier(frame)
ended = threading.Event()
def work():
    while not ended.is_set():
        classifier(frame)
threads = [threading.Thread(target=work) for _ in range(2)]
for thread in threads:
    thread.start()
for ask in [lambda: classifier(frame), lambda: classifier.submit(frame).result(60)] * 2:
    child = os.fork()
    if not child:
        same = np.allclose(ask().probabilities, wanted.probabilities, atol=1e-5)
        classifier.close()
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0
ended.set()
for thread in threads:
    thread.join()
assert np.allclose(classifier(frame).probabilities, wanted.probabilities, atol=1e-5)
"""


def parallel() -> bytes:
    """A classifier with enough work for several threads."""
    weights = np.random.default_rng(0).normal(0, 0.05, (64, 64, 3, 3)).astype(np.float32)
    scales = np.float32([1, 1, 8, 8])
    nodes = [
        helper.make_node("Resize", ["x", "", "scales"], ["large"], mode="nearest"),
        helper.make_node("Conv", ["large", "first"], ["c0"], pads=[1] * 4),
        *(
            helper.make_node("Conv", [f"c{i}", "weights"], [f"c{i + 1}"], pads=[1] * 4)
            for i in range(4)
        ),
    ]
    tensors = {"weights": weights, "first": weights[:, :3], "scales": scales}
    stored = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    return classifier(nodes, tensors=stored, added="c4")


def test_a_forked_child_is_answered_by_a_model_of_several_threads(tmp_path: Path):
    bundle = bundle_of(tmp_path / "b.edgefg", parallel())
    command = [sys.executable, "-W", "ignore", "-c", FORKS, str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr


# --- memory ---------------------------------------------------------------------------------------


def computed_shape(values: int) -> bytes:
    nodes = [
        helper.make_node("Mul", ["size", "half"], ["product"]),
        helper.make_node("ConstantOfShape", ["product"], ["huge"]),
    ]
    tensors = [whole("size", 2, 1), whole("half", values // 2, 1)]
    return classifier(nodes, tensors=tensors, added="huge")


def broadcast(values: int) -> bytes:
    side = int(values**0.5)
    nodes = [
        helper.make_node("ConstantOfShape", ["rows"], ["column"]),
        helper.make_node("ConstantOfShape", ["columns"], ["row"]),
        helper.make_node("Add", ["column", "row"], ["huge"]),
    ]
    tensors = [whole("rows", side, 1), whole("columns", 1, side)]
    return classifier(nodes, tensors=tensors, added="huge")


def resized(values: int) -> bytes:
    times = (values / 3 / SIZE**2) ** 0.5
    scales = numpy_helper.from_array(np.float32([1, 1, times, times]), "scales")
    node = helper.make_node("Resize", ["x", "", "scales"], ["huge"], mode="nearest")
    return classifier([node], tensors=[scales], added="huge")


@pytest.mark.parametrize("make", [computed_shape, broadcast, resized])
def test_no_graph_takes_more_than_half_of_the_memory(tmp_path: Path, make):
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    loaded = load(tmp_path, make(memory * 6 // 10 // 4))
    with pytest.raises(BackendError, match="not enough memory to run the fp32 model"):
        loaded(FRAME)
    assert load(tmp_path / "..", classifier())(FRAME).confidence > 0


# --- what comes out -------------------------------------------------------------------------------


def constant(array: np.ndarray, kind: int, *nodes: onnx.NodeProto) -> bytes:
    """A graph that gives a constant, or what `nodes` make ``y`` of it."""
    made = helper.make_node("Constant", [], ["c" if nodes else "y"], value=tensor(array))
    return classifier([made, *nodes], output=value("y", kind, None))


def tensor(array: np.ndarray) -> onnx.TensorProto:
    return numpy_helper.from_array(array, "")


def sequence() -> bytes:
    nodes = [helper.make_node("SequenceConstruct", ["flat"], ["y"])]
    made = helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)
    return classifier(nodes, output=made)


@pytest.mark.parametrize(
    "graph",
    [
        constant(np.array([["a", "b", "c"]], object), TensorProto.STRING),
        constant(np.array([[1, 2, 3]]), TensorProto.INT64),
        constant(np.array([[True, False, True]]), TensorProto.BOOL),
        sequence(),
        classifier(batch=2),
        classifier().replace(b"\x0a\x02\x08\x08", b"\x0a\x02\x08\x09", 1),
    ],
    ids=["strings", "integers", "booleans", "sequence", "another batch", "another size"],
)
def test_a_graph_that_is_not_what_its_manifest_says_is_not_loaded(tmp_path: Path, graph: bytes):
    with pytest.raises(BackendError, match=r"as its manifest says: rebuild the bundle"):
        load(tmp_path, graph)


def test_an_input_or_output_of_another_name_is_not_loaded(tmp_path: Path):
    with pytest.raises(BackendError, match="gives nothing as z"):
        load(tmp_path, classifier(), output="z")


def test_a_manifest_with_a_giant_batch_is_refused(tmp_path: Path):
    bundle = bundle_of(tmp_path / "b.edgefg", classifier(batch=256), batch=256)
    assert edge_fg.load(bundle, backend="onnxruntime")(FRAME).confidence > 0
    manifest = bundle / "bundle.json"
    manifest.write_text(manifest.read_text().replace("256,", "100000,"))
    with pytest.raises(BundleFormatError, match="100000 images at once, more than 256"):
        edge_fg.load(bundle)


@pytest.mark.parametrize(
    ("scores", "batch"),
    [
        (np.float32(1), "N"),
        (np.float32(1), 2),
        (np.ones(3, np.float32), "N"),
        (np.ones((1, 100_000), np.float32), "N"),
        (np.ones((1, 3, 1), np.float32), "N"),
        (np.ones((0, 3), np.float32), 2),
        (np.ones((3, 3), np.float32), 2),
    ],
    ids=["scalar", "scalar of a batch", "row", "classes", "rank", "nothing", "images"],
)
def test_scores_of_another_shape_are_no_answer(tmp_path: Path, scores, batch):
    made = helper.make_node("Constant", [], ["y"], value=tensor(np.asarray(scores)))
    graph = classifier([made], output=value("y", TensorProto.FLOAT, None), batch=batch)
    with pytest.raises(BackendError, match=r"scores of shape|can't be joined"):
        load(tmp_path, graph, batch=batch)(FRAME)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([0.2, np.nan, 0.5], "NaN or infinity"),
        ([0.2, np.inf, 0.5], "NaN or infinity"),
        ([-0.5, 0.5, 1.0], "probabilities from -0.5 to 1 "),
        ([0.0, 0.0, 1.5], "probabilities from 0 to 1.5 "),
        ([0.9, 0.9, 0.9], "sum to 2.7"),
    ],
)
def test_what_can_t_be_probabilities_is_no_answer(tmp_path: Path, row, message: str):
    graph = constant(np.array([row], np.float32), TensorProto.FLOAT)
    with pytest.raises(BackendError, match=message):
        load(tmp_path, graph, kind="probabilities")(FRAME)


@pytest.mark.parametrize("row", [[0.2, 0.3, 0.5], [0.0, 0.0, 0.0], [0.004, -0.001, 1.001]])
def test_rounded_probabilities_are_answers(tmp_path: Path, row):
    graph = constant(np.array([row], np.float32), TensorProto.FLOAT)
    assert load(tmp_path, graph, kind="probabilities")(FRAME).class_id == int(np.argmax(row))


def test_a_call_whose_start_is_interrupted_is_waited_for(monkeypatch):
    """Its thread is about to run: it must not be in a runtime when the interpreter ends."""
    start, told, ended = threading.Thread.start, threading.Event(), threading.Event()

    def interrupted(thread: threading.Thread) -> None:
        monkeypatch.undo()
        threading.Timer(0.05, start, (thread,)).start()
        raise KeyboardInterrupt

    def call() -> None:
        told.wait(10)
        ended.set()

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        interruptible(call, told.set)
    assert ended.is_set()
