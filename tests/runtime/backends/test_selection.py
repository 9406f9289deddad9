"""Which backend and variant are taken, what happens when one fails, and that the reason is said."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from pathlib import Path

import msgspec
import numpy as np
import pytest

import edge_fg
from edge_fg.backends import selection
from edge_fg.backends.options import EngineOptions
from edge_fg.backends.selection import choose, open_best, survey
from edge_fg.backends.tensorrt import library as tensorrt_library
from edge_fg.bundle.manifest import PRECISIONS, VariantEntry
from edge_fg.bundle.writer import write_bundle
from edge_fg.errors import (
    BackendUnavailableError,
    CompileError,
    CudaUnavailableError,
    DeviceMemoryError,
    MissingDependencyError,
    UsageError,
)
from edge_fg.labels import Labels

pytest.importorskip("onnxruntime")
FRAME = np.random.default_rng(8).integers(0, 256, (30, 40, 3), np.uint8)


@pytest.fixture
def make_bundle(tmp_path: Path, tiny_model: bytes, tiny_bundle: Path):
    """Write bundles that have the given variants, all of the same graph."""

    def make(*precisions: str) -> edge_fg.Bundle:
        base = edge_fg.Bundle(tiny_bundle)
        files = {f"model.{precision}.onnx": tiny_model for precision in precisions}
        files["labels.csv"] = Labels(list(base.labels())).to_csv().encode()
        output = tmp_path / f"{'-'.join(precisions)}.edgefg"

        def manifest(entries):
            variants = {
                precision: VariantEntry(file, entries[file].sha256)
                for precision in precisions
                for file in [f"model.{precision}.onnx"]
            }
            return msgspec.structs.replace(base.manifest, files=entries, variants=variants)

        write_bundle(output, files, manifest)
        return edge_fg.Bundle(output)

    return make


@pytest.fixture
def gpu(standin, monkeypatch, tmp_path):
    """A machine with a GPU, PyCUDA and TensorRT, and without TensorRT-RTX."""
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE", str(tmp_path / "plans"))
    real = tensorrt_library.available
    monkeypatch.setattr(
        tensorrt_library,
        "available",
        lambda library: (
            real(library) if library == "tensorrt" else (False, "TensorRT-RTX is not installed")
        ),
    )
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: object() if name == "pycuda" else find(name)
    )
    return standin


def test_a_machine_with_all_uses_tensorrt_and_says_so(gpu, make_bundle):
    first, second, third = survey()
    assert (first.name, first.usable, first.missing) == ("tensorrt", True, ())
    assert first.reason == "TensorRT 10.99.0 on Stand-in"
    assert not second.usable
    assert third.usable
    with edge_fg.load(make_bundle("fp32", "int8-fp16")) as classifier:
        assert classifier.choice.backend == "tensorrt"
        assert classifier.choice.precision == "int8-fp16"
        assert "INT8 tensor cores" in classifier.choice.reason
        prediction = classifier(FRAME)
    with edge_fg.load(make_bundle("fp32"), backend="onnxruntime") as oracle:
        np.testing.assert_allclose(prediction.probabilities, oracle(FRAME).probabilities, atol=1e-6)
    assert gpu.cuda.open == {}


@pytest.mark.parametrize(
    ("have", "gpu_takes", "cpu_takes"),
    [
        (PRECISIONS, "int8-fp16", "fp32"),
        (("fp32", "fp16", "int8"), "int8", "fp32"),
        (("fp16", "fp32"), "fp16", "fp32"),
        (("int8", "fp16"), "int8", "fp16"),
        (("fp32",), "fp32", "fp32"),
    ],
)
def test_the_variant_is_the_best_for_the_backend(gpu, make_bundle, have, gpu_takes, cpu_takes):
    bundle = make_bundle(*have)
    on_gpu, on_cpu = choose(bundle), choose(bundle, backend="onnxruntime")
    assert (on_gpu.backend, on_gpu.precision) == ("tensorrt", gpu_takes)
    assert gpu_takes in on_gpu.reason
    assert (on_cpu.backend, on_cpu.precision) == ("onnxruntime", cpu_takes)
    assert cpu_takes in on_cpu.reason


def test_the_settings_reach_the_backend(gpu, make_bundle):
    steps = []
    options = EngineOptions(max_batch=3, builder_optimization_level=1)
    bundle = make_bundle("fp32")
    edge_fg.load(bundle, options=options, progress=lambda *step: steps.append(step)).close()
    assert gpu.trt.builds[0]["level"] == 1
    assert ("Building engine", 5, 5) in steps


def test_a_gpu_is_chosen_by_its_number(gpu, make_bundle, monkeypatch):
    from edge_fg.backends.tensorrt import build

    current = []

    @contextlib.contextmanager
    def noted(ordinal):
        current.append(ordinal)
        yield
        current.append(None)

    monkeypatch.setattr(build, "current_gpu", noted)
    bundle = make_bundle("fp32")
    for device in (None, 0, 1, 1):
        with edge_fg.load(bundle, device=device) as classifier:
            assert ("Second stand-in" in classifier.choice.reason) == (device == 1)
            assert classifier(FRAME).probabilities.shape == (4,)
            assert gpu.cuda.open
            assert {one.ordinal for one in gpu.cuda.open.values() if hasattr(one, "ordinal")} == {
                device or 0
            }
    # A plan for each GPU, built where it is for.
    assert len(gpu.trt.builds) == 2
    assert current == [1, None]


@pytest.mark.parametrize("backend", [None, "tensorrt"])
def test_a_gpu_that_is_not_there_is_said(gpu, make_bundle, backend):
    with pytest.raises(BackendUnavailableError, match="no GPU 2: this machine has 2"):
        edge_fg.load(make_bundle("fp32"), backend=backend, device=2)


def test_a_gpu_asked_for_is_never_replaced_by_the_cpu(gpu, make_bundle, monkeypatch):
    bundle = make_bundle("fp32")
    with pytest.raises(UsageError, match="onnxruntime runs on the CPU"):
        edge_fg.load(bundle, backend="onnxruntime", device=0)
    with pytest.raises(UsageError, match="from 0, not -1"):
        edge_fg.load(bundle, device=-1)
    monkeypatch.setattr(selection, "find_gpus", lambda: ([], "no NVIDIA driver"))
    with pytest.raises(BackendUnavailableError, match=r"on GPU 0: .*no NVIDIA driver"):
        edge_fg.load(bundle, device=0)


@pytest.mark.parametrize("lacking", ["library", "gpu", "pycuda", "all"])
def test_what_is_missing_is_said_for_each_backend(gpu, make_bundle, monkeypatch, lacking):
    if lacking in ("library", "all"):
        monkeypatch.setattr(
            tensorrt_library, "available", lambda library: (False, f"{library} is not installed")
        )
    if lacking in ("gpu", "all"):
        monkeypatch.setattr(selection, "find_gpus", lambda: ([], "no NVIDIA driver"))
    if lacking in ("pycuda", "all"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    first = survey()[0]
    assert not first.usable
    wanted = {
        "library": ("tensorrt is not installed",),
        "gpu": ("no NVIDIA driver",),
        "pycuda": ("PyCUDA is not installed (pip install 'edge-fg[cuda]')",),
    }
    wanted["all"] = wanted["library"] + wanted["gpu"] + wanted["pycuda"]
    assert first.missing == wanted[lacking]
    assert all(text in first.reason for text in first.missing)
    bundle = make_bundle("fp32")
    choice = choose(bundle)
    assert choice.backend == "onnxruntime"
    assert all(text in choice.reason for text in first.missing)
    with pytest.raises(BackendUnavailableError, match="can't run here"):
        choose(bundle, backend="tensorrt")


@pytest.mark.parametrize(
    "error",
    [
        CudaUnavailableError("the NVIDIA driver is too old"),
        MissingDependencyError("pycuda", "cuda", "use the GPU"),
        DeviceMemoryError("can't allocate 9 bytes on the GPU: it is full"),
    ],
)
def test_a_gpu_that_fails_gives_way_to_the_cpu_and_says_so(
    gpu, make_bundle, monkeypatch, caplog, error
):
    from edge_fg.backends.tensorrt import backend

    opened = []

    def fail(ordinal: int = 0):
        opened.append(ordinal)
        raise error

    monkeypatch.setattr(backend, "Device", fail)
    bundle = make_bundle("fp32", "int8")
    with caplog.at_level(logging.WARNING, logger="edge_fg"), edge_fg.load(bundle) as classifier:
        assert classifier.choice.backend == "onnxruntime"
        assert f"int8 failed on tensorrt ({error})" in classifier.choice.reason
        assert classifier(FRAME).probabilities.shape == (4,)
    assert str(error) in caplog.text
    assert "trying fp32 on onnxruntime" in caplog.text
    # Another variant would fail alike.
    assert len(opened) == 1
    with pytest.raises(type(error)):
        edge_fg.load(bundle, backend="tensorrt")


def test_a_graph_that_can_not_be_built_gives_way_to_the_next_variant(
    gpu, make_bundle, monkeypatch, caplog
):
    from edge_fg.backends import plan_provider

    build = plan_provider.build_plan

    def picky(graph: bytes, **settings):
        if len(gpu.trt.builds) < 1:
            gpu.trt.builds.append({})
            raise CompileError("TensorRT can't use ONNX node 'q'")
        return build(graph, **settings)

    monkeypatch.setattr(plan_provider, "build_plan", picky)
    with edge_fg.load(make_bundle("fp32", "fp16", "int8")) as classifier:
        assert (classifier.choice.backend, classifier.choice.precision) == ("tensorrt", "fp16")
        assert "int8 failed on tensorrt (TensorRT can't use ONNX node 'q')" in (
            classifier.choice.reason
        )
    assert "trying fp16 on tensorrt" in caplog.text


def test_the_variant_asked_for_is_taken_or_fails(gpu, make_bundle):
    gpu.trt.faults.builder_fails = True
    bundle = make_bundle("fp32", "fp16")
    with pytest.raises(CompileError):
        edge_fg.load(bundle, backend="tensorrt", precision="fp16")
    with edge_fg.load(bundle, precision="fp16") as classifier:
        assert (classifier.choice.backend, classifier.choice.precision) == ("onnxruntime", "fp16")


def test_when_all_fail_the_last_failure_is_raised(gpu, make_bundle, monkeypatch):
    gpu.trt.faults.builder_fails = True
    monkeypatch.setattr(selection.onnxruntime, "available", lambda: (False, "not installed"))
    with pytest.raises(CompileError, match="can't start its builder"):
        open_best(make_bundle("fp32", "fp16"))


def test_rtx_builds_here_and_says_that_it_can_not_load(standin, make_bundle, tmp_path, caplog):
    """The real TensorRT-RTX: without a driver it builds plans and loads none."""
    usable, why = tensorrt_library.available("tensorrt-rtx")
    if not usable:
        pytest.skip(why)
    from edge_fg.cuda.device import find_gpus

    if find_gpus()[0]:
        pytest.skip("this machine has a GPU")
    from edge_fg.backends.tensorrt.backend import TensorRTBackend

    options = EngineOptions(plan_cache=tmp_path / "plans")
    with pytest.raises(BackendUnavailableError, match="can't load on this GPU") as caught:
        TensorRTBackend(make_bundle("fp32"), "fp32", "tensorrt-rtx", options=options)
    assert "\n" not in str(caught.value)
    assert len(list((tmp_path / "plans").glob("*.plan"))) == 1
    assert standin.cuda.open == {}
