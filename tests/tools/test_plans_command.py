"""`edge-fg compile`, `doctor` and `inspect` about plans; real plans of TensorRT-RTX."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import edge_fg
from edge_fg.backends import selection
from edge_fg.backends.plan_cache import PlanCache
from edge_fg.backends.tensorrt import library as tensorrt_library
from edge_fg.backends.tensorrt.library import available
from edge_fg.bundle import PRECISIONS
from edge_fg.cuda.device import find_gpus
from support import standin_tensorrt
from support.children import environment

onnx = pytest.importorskip("onnx")
RTX, WHY = available("tensorrt-rtx")
needs_rtx = pytest.mark.skipif(not RTX, reason=f"TensorRT-RTX: {WHY}")
no_gpu = pytest.mark.skipif(bool(find_gpus()[0]), reason="this machine has a GPU")
no_tensorrt = pytest.mark.skipif(available("tensorrt")[0], reason="TensorRT is installed")


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "plans"
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def field_guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model as a bundle with every variant."""
    from edge_fg_tools.cli import main
    from edge_fg_tools.fieldguide import labels_path, model_path, preprocess_path, write_image_set

    folder = tmp_path_factory.mktemp("field-guide")
    write_image_set(folder / "images", 2, seed=3)
    arguments = ["build", model_path(), "--labels", labels_path()]
    arguments += ["--calibration", folder / "images", "--preprocess", preprocess_path()]
    arguments += ["--precision", ",".join(PRECISIONS), "--output", folder / "guide.edgefg"]
    # Few images are enough here: what is proven is that each graph can be built.
    arguments += ["--budget", "agreement=0.1"]
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    try:
        assert main([str(argument) for argument in arguments]) == 0
    finally:
        os.environ.pop("XDG_CACHE_HOME")
        if before is not None:
            os.environ["XDG_CACHE_HOME"] = before
    return folder / "guide.edgefg"


@needs_rtx
@pytest.mark.slow
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_variant_of_the_built_in_model_becomes_an_engine(
    field_guide: Path, plans: Path, edge_fg_command, precision: str
) -> None:
    graph = onnx.load_from_string(edge_fg.Bundle(field_guide).graph(precision)).graph
    operators = Counter(node.op_type for node in graph.node)
    assert ("QuantizeLinear" in operators) == precision.startswith("int8")
    arguments = ["--target", "tensorrt-rtx", "--precision", precision, "--max-batch", "4"]
    done = edge_fg_command("compile", field_guide, *arguments, "--format", "json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["precision"] == precision
    assert not found["from_cache"]
    data = Path(found["path"]).read_bytes()
    assert data[:4] == b"vtrt"
    assert len(data) == found["bytes"] > 10_000
    again = json.loads(edge_fg_command("compile", field_guide, *arguments, "--format", "json").out)
    assert again["from_cache"]
    assert again["sha256"] == found["sha256"]


@needs_rtx
@pytest.mark.slow
def test_the_variants_are_different_engines(field_guide: Path, tmp_path: Path, edge_fg_command):
    sizes = {}
    for precision in PRECISIONS:
        output = tmp_path / f"{precision}.plan"
        arguments = ["--target", "tensorrt-rtx", "--precision", precision, "--output", output]
        assert edge_fg_command("compile", field_guide, *arguments).code == 0
        sizes[precision] = output.stat().st_size
    # INT8 plans may be larger: beside weights a plan holds kernels.
    assert sizes["fp16"] < 0.9 * sizes["fp32"]
    assert len(set(sizes.values())) == 4


@needs_rtx
@no_gpu
def test_what_compile_keeps_is_what_the_loader_finds(tiny_bundle, plans, edge_fg_command, caplog):
    """The loader gets as far as the missing driver, without building anything."""
    from edge_fg.backends.options import EngineOptions
    from edge_fg.backends.plan_provider import PlanRequest

    assert edge_fg_command("compile", tiny_bundle, "--target", "tensorrt-rtx").code == 0
    bundle = edge_fg.Bundle(tiny_bundle)
    key = PlanRequest(bundle.graph("fp32"), "tensorrt-rtx", "fp32", EngineOptions().profile).key()
    assert PlanCache().load(key) is not None


@needs_rtx
def test_settings_make_another_plan_and_can_stand_beside(tiny_bundle, plans, edge_fg_command):
    arguments = ["compile", tiny_bundle, "--target", "tensorrt-rtx", "--format", "json"]
    first = json.loads(edge_fg_command(*arguments).out)
    other = json.loads(edge_fg_command(*arguments, "--level", "1", "--workspace", "64").out)
    assert first["path"] != other["path"]
    beside = json.loads(edge_fg_command(*arguments, "--beside").out)
    assert Path(beside["path"]).parent == tiny_bundle.with_name("tiny.edgefg.plans")
    assert edge_fg_command("inspect", tiny_bundle).code == 0


@needs_rtx
def test_inspect_shows_what_is_known_of_a_plan(tiny_bundle, plans, tmp_path, edge_fg_command):
    done = edge_fg_command("compile", tiny_bundle, "--target", "tensorrt-rtx", "--format", "json")
    path = Path(json.loads(done.out)["path"])
    facts = json.loads(edge_fg_command("inspect", path, "--format", "json").out)
    version = json.loads(done.out)["version"]
    assert facts["built"].startswith(f"by tensorrt-rtx {version} in ")
    if not find_gpus()[0]:
        assert "no NVIDIA driver" in facts["layers"][0]
    copied = tmp_path / "copied.plan"
    copied.write_bytes(path.read_bytes())
    facts = json.loads(edge_fg_command("inspect", copied, "--format", "json").out)
    assert "no record" in facts["built"]
    assert "only plans of this user's plan cache" in facts["layers"][0]
    copied.with_suffix(".json").write_text('{"sha256": "0", "library": "tensorrt"}')
    facts = json.loads(edge_fg_command("inspect", copied, "--format", "json").out)
    assert "of another plan" in facts["built"]


@no_tensorrt
def test_compiling_for_tensorrt_where_it_is_not_says_so_in_one_line(tiny_bundle, edge_fg_process):
    done = edge_fg_process("compile", tiny_bundle, "--target", "tensorrt")
    assert done.code == 1
    assert done.out == ""
    lines = done.err.strip().splitlines()
    assert len(lines) == 1
    assert "tensorrt is needed to use TensorRT" in lines[0]
    assert "JetPack" in lines[0]
    assert "pip install 'edge-fg[tensorrt]'" in lines[0]


def test_compiling_for_tensorrt_without_a_gpu_says_so_in_one_line(
    tiny_bundle, plans, tmp_path, edge_fg_process
):
    """TensorRT's real builder gives nothing without a driver; so does this stand-in."""
    site = Path(standin_tensorrt.__path__[0]) / "site"
    broken = tmp_path / "site" / "tensorrt"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        (site / "tensorrt" / "__init__.py").read_text() + "\nfaults.builder_fails = True\n"
    )
    given = environment(broken.parent)
    done = edge_fg_process("compile", tiny_bundle, "--target", "tensorrt", env=given)
    assert done.code == 1
    lines = done.err.strip().splitlines()
    assert len(lines) == 1
    assert "TensorRT can't start its builder (CUDA initialization failure" in lines[0]
    assert "edge-fg doctor" in lines[0]
    assert not list(plans.glob("*"))


@pytest.mark.parametrize("lacking", [("library", "gpu", "pycuda"), ("gpu",), ("pycuda",), ()])
def test_doctor_says_exactly_what_is_missing(edge_fg_command, monkeypatch, lacking):
    monkeypatch.setattr(
        tensorrt_library,
        "available",
        lambda library: (
            (False, f"{library} is not installed (pip install it)")
            if "library" in lacking
            else (True, f"{library} 10.3")
        ),
    )
    gpu = selection.find_gpus.__globals__["Gpu"]("Orin", "8.7", 8, 8 << 30, integrated=True)
    gpus = [] if "gpu" in lacking else [gpu]
    monkeypatch.setattr(selection, "find_gpus", lambda: (gpus, "no NVIDIA driver"))
    find = importlib.util.find_spec
    found = None if "pycuda" in lacking else object()
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: found if name == "pycuda" else find(name)
    )
    facts = json.loads(edge_fg_command("doctor", "--format", "json").out)
    text = edge_fg_command("doctor").out
    words = {
        "library": "is not installed (pip install it)",
        "gpu": "no NVIDIA driver",
        "pycuda": "PyCUDA is not installed (pip install 'edge-fg[cuda]')",
    }
    for backend in facts["backends"][:2]:
        assert len(backend["missing"]) == len(lacking)
        for name in lacking:
            assert any(words[name] in line for line in backend["missing"])
        assert backend["usable"] == (not lacking)
    for name in lacking:
        assert text.count(words[name]) == 2 if name != "gpu" else words[name] in text
    if lacking and "library" not in lacking:
        assert "builds plans here but can't run them; missing:" in text


@no_gpu
def test_doctor_of_this_machine_names_the_driver(edge_fg_command):
    text = edge_fg_command("doctor").out
    assert text.count("no NVIDIA driver (libcuda.so.1 is not there)") >= 3
    assert "-> onnxruntime" in text


def test_doctor_shows_the_plan_cache(edge_fg_command, monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE", str(tmp_path / "plans"))
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE_BYTES", "5000000")
    facts = json.loads(edge_fg_command("doctor", "--format", "json").out)["plan_cache"]
    assert facts["folder"] == str(tmp_path / "plans")
    assert (facts["plans"], facts["limit_bytes"]) == (0, 5_000_000)
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE_BYTES", "much")
    assert "is not a number of bytes" in edge_fg_command("doctor").out


CHILD = """
import sys
from pathlib import Path
from edge_fg.backends.plan_cache import PlanCache
from edge_fg_tools.compiling import compile_graph

def show(stage, done, total):
    if stage == "Optimizing graph" and done == 0:
        print("building", flush=True)

cache = PlanCache(Path(sys.argv[2]))
done = compile_graph(Path(sys.argv[1]), "tensorrt-rtx", cache=cache, progress=show)
print(done.sha256, flush=True)
"""


@needs_rtx
def test_a_killed_build_of_the_real_library_does_not_block_the_next(tmp_path: Path):
    model = tmp_path / "model.onnx"
    model.write_bytes(deep_model(60))
    command = [sys.executable, "-c", CHILD, str(model), str(tmp_path / "plans")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    killed = subprocess.Popen(command, **pipes)
    assert killed.stdout.readline() == "building\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not list((tmp_path / "plans").glob("*.plan"))
    after = subprocess.run(command, check=True, timeout=120, **pipes)
    assert len(after.stdout.split()[-1]) == 64
    assert len(list((tmp_path / "plans").iterdir())) == 2


def deep_model(layers: int) -> bytes:
    """A chain of convolutions that takes some seconds to build."""
    random = np.random.default_rng(0)
    nodes, weights, value = [], [], "image"
    for index in range(layers):
        shape = (8, 3 if index == 0 else 8, 3, 3)
        kernel = random.normal(0, 0.1, shape).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"w{index}"))
        nodes.append(
            onnx.helper.make_node("Conv", [value, f"w{index}"], [f"c{index}"], pads=[1] * 4)
        )
        value = f"c{index}"
    nodes.append(onnx.helper.make_node("GlobalAveragePool", [value], ["pooled"]))
    nodes.append(onnx.helper.make_node("Flatten", ["pooled"], ["logits"]))
    kind = onnx.TensorProto.FLOAT
    graph = onnx.helper.make_graph(
        nodes,
        "deep",
        [onnx.helper.make_tensor_value_info("image", kind, ["N", 3, 16, 16])],
        [onnx.helper.make_tensor_value_info("logits", kind, ["N", 8])],
        weights,
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
