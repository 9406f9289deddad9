"""The TensorRT backend's orchestration, with ONNX Runtime behind TensorRT's interface.

What is proven here is what the backend does; what the GPU does, only a GPU can show.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import threading
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edge_fg
from edge_fg.backends.onnxruntime import OnnxRuntimeBackend
from edge_fg.backends.options import EngineOptions
from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.bundle.manifest import TensorSpec
from edge_fg.bundle.writer import write_bundle
from edge_fg.errors import (
    BackendError,
    BackendUnavailableError,
    CudaError,
    DeviceLostError,
    DeviceMemoryError,
    ImageError,
)
from support.waiting import HANG

pytest.importorskip("onnxruntime")
RANDOM = np.random.default_rng(11)
FRAMES = [RANDOM.integers(0, 256, (h, w, 3), np.uint8) for h, w in [(40, 60), (16, 16), (9, 33)]]


@pytest.fixture
def bundle(tiny_bundle: Path) -> edge_fg.Bundle:
    return edge_fg.Bundle(tiny_bundle)


@pytest.fixture
def opened(standin, bundle, tmp_path):
    """Open backends over a plan cache of the test's own; closes them."""
    with contextlib.ExitStack() as closing:

        def open_one(**options) -> TensorRTBackend:
            settings = EngineOptions(**{"plan_cache": tmp_path / "plans", **options})
            backend = TensorRTBackend(bundle, "fp32", "tensorrt", options=settings)
            closing.callback(backend.close)
            return backend

        yield open_one
    assert standin.cuda.open == {}


def expected(bundle, frames, regions=None) -> np.ndarray:
    with contextlib.closing(OnnxRuntimeBackend(bundle, "fp32", threads=1)) as oracle:
        return oracle.infer(frames, regions).tensors["logits"]


@pytest.mark.parametrize("integrated", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 20])
def test_any_number_of_frames_gives_what_onnx_runtime_gives(
    standin, opened, bundle, count: int, integrated: bool
):
    standin.cuda.integrated = integrated
    frames = [FRAMES[i % 3] for i in range(count)]
    outputs = opened().infer(frames)
    found = outputs.tensors["logits"]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected(bundle, frames), atol=1e-5)
    assert outputs.inference_ms > 0
    assert outputs.preprocess_ms > 0


def test_no_frame_gives_no_row(opened):
    assert opened().infer([]).tensors["logits"].shape == (0, 4)


def test_regions_reach_the_preprocessor(opened, bundle):
    regions = [(10, 5, 30, 20), None, (0, 0, 1, 1)]
    found = opened().infer(FRAMES, regions).tensors["logits"]
    np.testing.assert_allclose(found, expected(bundle, FRAMES, regions), atol=1e-5)


def test_answers_stay_when_the_next_frame_comes(opened):
    backend = opened()
    first = backend.infer(FRAMES[:1]).tensors["logits"]
    kept = first.copy()
    backend.infer(FRAMES[1:2])
    np.testing.assert_array_equal(first, kept)


def test_a_size_that_comes_again_is_captured_once(standin, opened, bundle):
    backend = opened()
    wanted = {count: expected(bundle, (FRAMES * 3)[:count]) for count in (1, 2, 4)}
    # Interleaved: a captured context must not be changed by other sizes.
    for _ in range(6):
        for count in (1, 2, 4):
            found = backend.infer((FRAMES * 3)[:count]).tensors["logits"]
            np.testing.assert_allclose(found, wanted[count], atol=1e-5)
    # From the third time on each is one graph. The engine alone was one before, in batches of
    # one: the warm-up counts. Batches of four are preprocessed in a graph, without the engine.
    assert standin.cuda.graphs_launched == (1 + 4) + 4 + 4
    assert standin.trt.events.count("+context") == 1 + 2


def test_without_cuda_graphs_none_is_captured(standin, opened, bundle):
    backend = opened(cuda_graph=False)
    for _ in range(6):
        backend.infer(FRAMES[:1])
    assert standin.cuda.graphs_launched == 0
    assert standin.trt.events.count("+context") == 1


def test_one_batch_size_takes_one_context(standin, opened):
    backend = opened()
    for _ in range(10):
        backend.infer(FRAMES[:1])
    # One a frame: the second is the engine alone, from the third on they are whole.
    assert standin.cuda.graphs_launched == 9
    assert standin.trt.events.count("+context") == 1


def test_a_capture_gives_way_where_memory_for_other_sizes_lacks(standin, opened, bundle, caplog):
    backend = opened()
    for _ in range(5):
        backend.infer(FRAMES[:1])
    standin.trt.faults.contexts_left = 0
    for count in (2, 1, 3, 1):
        found = backend.infer(FRAMES[:count]).tensors["logits"]
        np.testing.assert_allclose(found, expected(bundle, FRAMES[:count]), atol=1e-5)
    assert caplog.text.count("fewer CUDA graphs") == 1
    assert standin.trt.events.count("+context") == 1


def test_tensorrt_rtx_captures_by_itself(standin, opened, bundle, monkeypatch):
    for (owner, name), value in standin.trt.rtx_additions().items():
        monkeypatch.setattr(owner, name, value, raising=False)
    backend = opened()
    wanted = expected(bundle, FRAMES[:1])
    for _ in range(6):
        found = backend.infer(FRAMES[:1]).tensors["logits"]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    # One context, told to capture; ours are the graphs of the preprocessing alone.
    assert [config.cuda_graph_strategy.name for config in standin.trt.configs] == [
        "WHOLE_GRAPH_CAPTURE"
    ]
    assert standin.cuda.graphs_launched == 4


def test_a_capture_that_fails_is_said_and_works_without(standin, opened, bundle, caplog):
    standin.cuda.capture_fails = True
    backend = opened()
    wanted = expected(bundle, FRAMES[:1])
    with caplog.at_level(logging.WARNING, logger="edge_fg"):
        for _ in range(5):
            found = backend.infer(FRAMES[:1]).tensors["logits"]
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    said = [record.message for record in caplog.records if "no CUDA graph" in record.message]
    assert len(said) == 2
    assert all("operation not permitted" in text for text in said)


def test_frames_of_many_sizes_keep_few_of_them_prepared(standin, opened, bundle):
    backend = opened()
    sizes = [(8 + i, 9 + i) for i in range(7)]
    images = [RANDOM.integers(0, 256, (*size, 3), np.uint8) for size in sizes]
    wanted = [expected(bundle, [image]) for image in images]
    for _ in range(2):
        for image, logits in zip(images, wanted, strict=True):
            for _ in range(4):
                found = backend.infer([image]).tensors["logits"]
                np.testing.assert_allclose(found, logits, atol=1e-5)
    kinds = [type(thing).__name__ for thing in standin.cuda.open.values()]
    assert kinds.count("Batch") == 4
    # The sizes of a thousand moving regions are not remembered.
    for i in range(1000):
        backend.infer(FRAMES[:1], [(0, 0, 1 + i % 50, 1 + i // 50)])
    assert len(backend._held._slots.items[0]._frames._seen) <= 32


def test_a_fixed_region_is_prepared_too(standin, opened, bundle):
    backend = opened()
    for x in range(6):
        regions = [(x, 2, 20, 30)]
        found = backend.infer(FRAMES[:1], regions).tensors["logits"]
        np.testing.assert_allclose(found, expected(bundle, FRAMES[:1], regions), atol=1e-5)
    assert [type(thing).__name__ for thing in standin.cuda.open.values()].count("Batch") == 1


def test_everything_is_released_in_order(standin, opened):
    backend = opened()
    for _ in range(5):
        backend.infer(FRAMES[:1])
    backend.infer(FRAMES[:2])
    standin.trt.events.clear()
    standin.cuda.released.clear()
    order: list[str] = []

    class Recorded(list):
        def append(self, what: str) -> None:
            order.append(what)

    standin.trt.events, standin.cuda.released = Recorded(), Recorded()
    backend.close()
    trt = [what for what in order if what.startswith("-")]
    assert trt == ["-context", "-context", "-engine", "-runtime"]
    assert order[0] == "Graph"
    assert order.index("-runtime") < order.index("Stream") < order.index("Device")
    assert order[-1] == "Device"


def test_a_dropped_backend_releases_everything(standin, bundle, tmp_path):
    backend = TensorRTBackend(
        bundle, "fp32", "tensorrt", options=EngineOptions(plan_cache=tmp_path / "plans")
    )
    backend.infer(FRAMES[:1])
    assert standin.cuda.open
    del backend
    gc.collect()
    assert standin.cuda.open == {}
    assert standin.trt.events[-2:] == ["-engine", "-runtime"]


def test_closing_twice_is_harmless_and_use_afterwards_says_so(opened):
    backend = opened()
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="is closed"):
        backend.infer(FRAMES)
    with pytest.raises(BackendError, match="is closed"):
        backend.layers()


@pytest.mark.parametrize("contexts", [1, 3])
def test_threads_share_slots_and_get_their_own_answers(standin, opened, bundle, contexts: int):
    standin.cuda.sleep = 0.0005
    backend = opened(contexts=contexts)
    wanted = [expected(bundle, [frame]) for frame in FRAMES]
    wrong: list[object] = []

    def work(index: int) -> None:
        try:
            for _ in range(30):
                found = backend.infer([FRAMES[index % 3]]).tensors["logits"]
                if not np.allclose(found, wanted[index % 3], atol=1e-5):
                    wrong.append(index)
        except Exception as error:  # noqa: BLE001  shown below
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(backend._held._slots.items) == contexts


def test_closing_waits_for_what_is_under_way(standin, opened):
    standin.cuda.sleep = 0.05
    backend = opened()
    answers: list[object] = []
    begun = threading.Event()

    def work() -> None:
        begun.set()
        try:
            answers.append(backend.infer(FRAMES * 8).tensors["logits"].shape)
        except BackendError as error:
            answers.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    begun.wait()
    while not backend._held._slots.lent:
        pass
    backend.close()
    thread.join()
    assert answers == [(24, 4)]


def test_memory_for_another_slot_may_lack(standin, opened, caplog):
    standin.cuda.sleep = 0.002
    backend = opened(contexts=4)
    standin.trt.faults.contexts_left = 0
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                backend.infer(FRAMES[:1])
        except BackendError as error:
            failures.append(error)

    with caplog.at_level(logging.WARNING, logger="edge_fg"):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
    assert "enough for 1 at a time, not for 4" in caplog.text


def test_too_little_memory_at_the_start_says_what_to_reduce(standin, opened):
    standin.trt.faults.contexts_left = 0
    with pytest.raises(DeviceMemoryError, match="smaller max_batch") as caught:
        opened()
    assert "\n" not in str(caught.value)
    assert standin.cuda.open == {}


def test_memory_of_the_gpu_runs_out_at_the_start(standin, opened):
    standin.cuda.memory_left = 100
    with pytest.raises(DeviceMemoryError):
        opened()
    assert standin.cuda.open == {}
    standin.cuda.memory_left = None
    assert opened().infer(FRAMES[:1]).tensors["logits"].shape == (1, 4)


def test_memory_that_runs_out_later_leaves_the_classifier_usable(standin, opened, monkeypatch):
    backend = opened()
    slot = backend._held._slots.items[0]

    def full(*_, **__):
        raise DeviceMemoryError("can't allocate 9 bytes on the GPU: it is full")

    with monkeypatch.context() as patch:
        patch.setattr(slot._preprocess, "batch", full)
        with pytest.raises(DeviceMemoryError):
            backend.infer(FRAMES[:1])
    assert backend.infer(FRAMES[:1]).tensors["logits"].shape == (1, 4)


@pytest.mark.parametrize("where", ["synchronize", "capture"])
def test_an_interrupt_leaves_the_classifier_usable(standin, opened, monkeypatch, where):
    backend = opened()
    backend.infer(FRAMES[:1])

    def interrupted(*_):
        raise KeyboardInterrupt

    owner = {"synchronize": standin.host_cuda.Event, "capture": standin.host_cuda.Graph}[where]
    with monkeypatch.context() as patch:
        patch.setattr(owner, where, interrupted)
        with pytest.raises(KeyboardInterrupt):
            backend.infer(FRAMES[:1])
    for _ in range(4):
        assert backend.infer(FRAMES[:1]).tensors["logits"].shape == (1, 4)
    backend.close()
    assert standin.cuda.open == {}
    assert standin.trt.events.count("+context") == standin.trt.events.count("-context")


def test_a_lost_device_closes_the_classifier_and_says_so(standin, opened, caplog):
    backend = opened()
    standin.cuda.lost = True
    with (
        caplog.at_level(logging.ERROR, logger="edge_fg"),
        pytest.raises(DeviceLostError, match="illegal address"),
    ):
        backend.infer(FRAMES[:1])
    assert "closed itself when the GPU failed" in caplog.text
    with pytest.raises(BackendError, match=r"closed itself when the GPU failed.*illegal address"):
        backend.infer(FRAMES[:1])
    assert standin.cuda.open == {}


def test_a_device_lost_while_tensorrt_executes_is_told_as_that(standin, opened, monkeypatch):
    backend = opened()

    def lose(context, stream_handle: int) -> bool:
        standin.cuda.lost = True
        context.engine.logger.log(1, "Cuda Runtime (an illegal memory access was encountered)")
        return False

    monkeypatch.setattr(standin.trt.IExecutionContext, "execute_async_v3", lose)
    with pytest.raises(DeviceLostError):
        backend.infer(FRAMES[:1])
    with pytest.raises(BackendError, match="closed itself"):
        backend.infer(FRAMES[:1])


def test_a_device_lost_under_several_threads_ends_in_all_of_them(standin, opened):
    standin.cuda.sleep = 0.002
    backend = opened(contexts=3)
    ended: list[BaseException] = []

    def work() -> None:
        try:
            while True:
                backend.infer(FRAMES[:1])
        except BackendError as error:
            ended.append(error)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    standin.cuda.lost = True
    for thread in threads:
        thread.join(timeout=HANG)
    assert not any(thread.is_alive() for thread in threads)
    assert len(ended) == 5
    assert any(isinstance(error, DeviceLostError) for error in ended)


def test_an_inference_that_tensorrt_refuses_tells_its_words(standin, opened):
    backend = opened()
    standin.trt.faults.execute_fails = "Error Code 3: Internal Error"
    with pytest.raises(BackendError, match="can't execute the model: Error Code 3") as caught:
        backend.infer(FRAMES[:1])
    assert not isinstance(caught.value, CudaError)
    standin.trt.faults.execute_fails = None
    assert backend.infer(FRAMES[:1]).tensors["logits"].shape == (1, 4)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.int8),
        b"123456789012",
        None,
    ],
)
def test_what_is_no_frame_never_reaches_the_gpu(standin, opened, wrong):
    backend = opened()
    before = backend._held._preprocess.calls
    with pytest.raises(ImageError):
        backend.infer([FRAMES[0], wrong])
    assert backend._held._preprocess.calls == before


def test_a_frame_that_is_not_contiguous_is_read_right(opened, bundle):
    flipped = FRAMES[0][::-1, ::-1]
    found = opened().infer([flipped]).tensors["logits"]
    np.testing.assert_allclose(found, expected(bundle, [flipped.copy()]), atol=1e-5)


@pytest.mark.parametrize("region", [(-1, 0, 5, 5), (55, 0, 6, 5), (0, 0, 0, 1), (1.5, 0, 2, 2)])
def test_a_region_outside_never_reaches_the_gpu(opened, region):
    with pytest.raises(ImageError, match="region"):
        opened().infer(FRAMES[:1], [region])


@pytest.mark.parametrize("batch", [1, 3])
def test_a_graph_of_a_fixed_batch(standin, tiny_bundle: Path, tmp_path: Path, batch: int):
    onnx = pytest.importorskip("onnx")
    before = edge_fg.Bundle(tiny_bundle)
    files = {name: before.read(name) for name in before.manifest.files}
    model = onnx.load_from_string(files["model.fp32.onnx"])
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    files["model.fp32.onnx"] = model.SerializeToString()
    entry = msgspec.structs.replace
    write_bundle(
        tiny_bundle,
        files,
        lambda entries: entry(
            before.manifest,
            files=entries,
            input=TensorSpec("image", (batch, 3, 16, 16), "float32"),
            variants={
                "fp32": entry(
                    before.manifest.variants["fp32"], sha256=entries["model.fp32.onnx"].sha256
                )
            },
        ),
    )
    bundle = edge_fg.Bundle(tiny_bundle)
    options = EngineOptions(plan_cache=tmp_path / "plans")
    with contextlib.closing(TensorRTBackend(bundle, "fp32", options=options)) as backend:
        for count in (1, 2, 3, 4, 7):
            frames = [FRAMES[i % 3] for i in range(count)]
            found = backend.infer(frames).tensors["logits"]
            np.testing.assert_allclose(found, expected(bundle, frames), atol=1e-5)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_a_plan_for_single_frames_takes_any_number(standin, opened, bundle, cuda_graph):
    backend = opened(max_batch=1, cuda_graph=cuda_graph)
    assert backend._held._engine.input.shape == (1, 3, 16, 16)
    for count in (0, 1, 3, 1, 7):
        frames = [FRAMES[i % 3] for i in range(count)]
        found = backend.infer(frames).tensors["logits"]
        np.testing.assert_allclose(found, expected(bundle, frames), atol=1e-5)
    assert bool(standin.cuda.graphs_launched) == cuda_graph
    backend.close()
    # The plan of another batch has another profile.
    assert opened(max_batch=2)._held._engine.input.shape == (-1, 3, 16, 16)
    assert len(standin.trt.builds) == 2


@pytest.mark.parametrize(("integrated", "asked"), [(True, None), (False, None), (False, True)])
def test_waiting_sleeps_on_a_jetson_or_where_asked(standin, opened, integrated, asked):
    standin.cuda.integrated = integrated
    backend = opened(sleep=asked)
    slot = backend._held._slots.items[0]
    assert slot._ended.blocking == (integrated if asked is None else asked)
    assert not slot._began.blocking


def test_a_gpu_without_kernels_is_refused_before_the_build(standin, opened, monkeypatch):
    from edge_fg.backends.tensorrt import backend
    from edge_fg.errors import CudaUnavailableError

    def unbuilt(*_):
        raise CudaUnavailableError("the kernels were not built for compute capability 5.0")

    monkeypatch.setattr(backend, "CudaPreprocessor", unbuilt)
    with pytest.raises(CudaUnavailableError):
        opened()
    assert standin.trt.builds == []
    assert standin.cuda.open == {}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("Requested amount of GPU memory (9 bytes) could not be allocated.", DeviceMemoryError),
        ("[allocate::19] Error Code 1: Cuda Runtime (out of memory)", DeviceMemoryError),
        ("Cuda Runtime (an illegal memory access was encountered)", BackendError),
    ],
)
def test_running_out_of_memory_is_told_from_other_failures(standin, opened, said, kind):
    backend = opened()
    standin.trt.faults.execute_fails = said
    with pytest.raises(BackendError) as caught:
        backend.infer(FRAMES[:1])
    assert type(caught.value) is kind


def test_a_plan_of_another_graph_is_not_executed(standin, opened, bundle, monkeypatch):
    wrong = TensorSpec("photograph", ("N", 3, 16, 16), "float32")
    monkeypatch.setattr(bundle, "manifest", msgspec.structs.replace(bundle.manifest, input=wrong))
    with pytest.raises(BackendError, match=r"takes image .* says photograph"):
        opened()
    assert standin.cuda.open == {}


def test_a_size_that_tensorrt_leaves_open_is_the_manifests(standin, opened, bundle, monkeypatch):
    shape_of = standin.trt.ICudaEngine.get_tensor_shape
    monkeypatch.setattr(
        standin.trt.ICudaEngine,
        "get_tensor_shape",
        lambda self, name: (-1, -1) if name == "logits" else shape_of(self, name),
    )
    found = opened().infer(FRAMES).tensors["logits"]
    np.testing.assert_allclose(found, expected(bundle, FRAMES), atol=1e-5)


def test_a_type_that_numpy_lacks_is_refused(standin, opened, monkeypatch):
    monkeypatch.setattr(
        standin.trt.ICudaEngine, "get_tensor_dtype", lambda self, name: standin.trt.DataType.BF16
    )
    with pytest.raises(BackendError, match="which NumPy lacks"):
        opened()
    assert standin.cuda.open == {}


def test_an_error_of_before_is_not_blamed(standin, opened, monkeypatch):
    backend = opened()
    backend._held._engine._log._receive(1, "an error of before")
    monkeypatch.setattr(
        standin.trt.IExecutionContext, "execute_async_v3", lambda self, stream_handle: False
    )
    with pytest.raises(BackendError, match="it gives no reason"):
        backend.infer(FRAMES[:1])


def test_layers_are_those_that_the_inspector_names(opened):
    first, second = opened().layers()
    assert (first.name, first.kind) == ("c1 + r1", "CaskConvolution")
    assert first.inputs == ("Row major linear FP32",)
    assert second.name == "pool"


def test_a_library_that_can_not_build_says_so(standin, opened):
    from edge_fg.errors import CompileError

    standin.trt.faults.builder_fails = True
    with pytest.raises(CompileError, match="can't start its builder"):
        opened()
    assert standin.cuda.open == {}


def test_a_plan_that_its_own_builder_can_not_load(standin, opened, monkeypatch):
    monkeypatch.setattr(
        standin.trt.Runtime, "deserialize_cuda_engine", lambda self, serialized_engine: None
    )
    with pytest.raises(BackendUnavailableError, match="can't load on this GPU"):
        opened()


def test_the_stand_in_of_cuda_has_the_real_ones_interface(standin):
    """What orchestration is tested with must not take what the real thing refuses."""
    from edge_fg import cuda
    from edge_fg.preprocess.cuda import CudaPreprocessor
    from edge_fg.preprocess.staging import Batch

    real = {**vars(cuda), "CudaPreprocessor": CudaPreprocessor, "Batch": Batch}
    compared = 0
    for name in (*cuda.__all__, "CudaPreprocessor", "Batch"):
        own = getattr(standin.host_cuda, name, None)
        if own is None:
            continue
        if not isinstance(own, type):
            assert parameters(own) == parameters(real[name]), name
            continue
        for method, function in vars(own).items():
            public = not method.startswith("_") or method in ("__init__", "__call__")
            # How a graph or batch is made is its maker's affair.
            made = method == "__init__" and name in ("Graph", "Batch")
            if not public or made or not callable(getattr(function, "__func__", function)):
                continue
            if method in ("usable", "close"):
                continue
            wanted = parameters(getattr(real[name], method))
            found = parameters(getattr(own, method))
            assert wanted[: len(found)] == found, f"{name}.{method}"
            compared += 1
    assert compared > 15


def parameters(function) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name != "self"]


def run_many(backend: TensorRTBackend, count: int, standin) -> tuple[int, int]:
    """Run `count` inferences; return the growth of open resources and of Python objects."""
    for _ in range(50):
        backend.infer(FRAMES[:1])
    gc.collect()
    open_before, objects_before = len(standin.cuda.open), len(gc.get_objects())
    for index in range(count):
        backend.infer(FRAMES[:1] if index % 8 else FRAMES)
    gc.collect()
    return len(standin.cuda.open) - open_before, len(gc.get_objects()) - objects_before


def resident_kb() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_two_thousand_inferences_leave_nothing_behind(standin, opened):
    opened_before, objects = run_many(opened(), 2000, standin)
    assert opened_before <= 3  # the second size's graph, if it was captured after the count began
    assert objects < 200


@pytest.mark.slow
def test_a_hundred_thousand_inferences_leave_nothing_behind(standin, opened):
    backend = opened()
    run_many(backend, 5000, standin)
    before = resident_kb()
    resources, objects = run_many(backend, 100_000, standin)
    assert resources == 0
    assert objects < 50
    assert resident_kb() - before < 4096
