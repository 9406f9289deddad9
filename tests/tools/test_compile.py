"""Plans are really built with TensorRT-RTX, which needs no GPU for it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_fg.backends.plan_cache import PlanCache
from edge_fg.backends.tensorrt.build import build_plan
from edge_fg.backends.tensorrt.library import available
from edge_fg.errors import (
    BackendUnavailableError,
    CompileError,
    MissingDependencyError,
    ModelFormatError,
    OutputError,
    UsageError,
)
from edge_fg_tools.compiling import compile_graph

RTX, WHY = available("tensorrt-rtx")
needs_rtx = pytest.mark.skipif(not RTX, reason=f"TensorRT-RTX: {WHY}")


def classifier(batch: int | str = "N", layers: int = 1, op: str = "Relu", side: int = 8) -> bytes:
    """A chain of convolutions, then pooling; one node of each block is an `op`."""
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "image"
    for index in range(layers):
        kernel = generator.standard_normal((8, 3 if index == 0 else 8, 3, 3)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel / 8, f"w{index}"))
        nodes += [
            helper.make_node(
                "Conv", [value, f"w{index}"], [f"c{index}"], f"conv_{index}", pads=[1] * 4
            ),
            helper.make_node(op, [f"c{index}"], [f"a{index}"], f"act_{index}"),
            helper.make_node("GlobalAveragePool", [f"a{index}"], [f"g{index}"], f"pool_{index}"),
            helper.make_node("Mul", [f"a{index}", f"g{index}"], [f"m{index}"], f"mul_{index}"),
        ]
        value = f"m{index}"
    nodes += [
        helper.make_node("GlobalAveragePool", [value], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["logits"], "flatten"),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, side, side])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 8])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    data: bytes = model.SerializeToString()
    return data


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


@needs_rtx
def test_a_plan_is_built_then_taken_from_the_cache(cache: PlanCache) -> None:
    first = compile_graph(classifier(), "tensorrt-rtx", cache=cache)
    again = compile_graph(classifier(), "tensorrt-rtx", cache=cache)
    assert not first.from_cache
    assert again.from_cache
    assert again.seconds == 0
    assert (first.path, first.sha256, first.bytes) == (again.path, again.sha256, again.bytes)
    assert first.path.read_bytes()[:4] == b"vtrt"
    assert first.version in WHY


@needs_rtx
def test_another_batch_is_another_plan(cache: PlanCache) -> None:
    compile_graph(classifier(), "tensorrt-rtx", cache=cache)
    other = compile_graph(classifier(), "tensorrt-rtx", batch=(1, 2, 4), cache=cache)
    assert not other.from_cache


@needs_rtx
def test_a_file_is_written_where_asked(tmp_path: Path, cache: PlanCache) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(classifier(batch=1))
    output = tmp_path / "out.plan"
    compiled = compile_graph(model, "tensorrt-rtx", output=output, cache=cache)
    assert compiled.path == output
    assert output.stat().st_size == compiled.bytes > 1000
    assert not cache.folder.exists()


@needs_rtx
def test_progress_comes_in_the_callers_thread_and_ends() -> None:
    seen: list[tuple[str, int, int]] = []
    threads: set[threading.Thread] = set()

    def show(stage: str, done: int, total: int) -> None:
        seen.append((stage, done, total))
        threads.add(threading.current_thread())

    plan = build_plan(classifier(), library="tensorrt-rtx", progress=show)
    assert plan.layers is not None
    assert plan.layers >= 4
    assert threads == {threading.current_thread()}
    assert all(0 <= done <= total for _, done, total in seen)
    assert seen[0] == ("Reading the graph", 0, 1)
    assert seen[-1][1] == seen[-1][2]


@needs_rtx
def test_an_error_of_the_watcher_stops_the_build() -> None:
    def show(stage: str, done: int, total: int) -> None:
        if stage != "Reading the graph":
            raise ZeroDivisionError(stage)

    with pytest.raises(ZeroDivisionError):
        build_plan(classifier(), library="tensorrt-rtx", progress=show)
    # The next build finds everything in order.
    assert build_plan(classifier(), library="tensorrt-rtx").data[:4] == b"vtrt"


@needs_rtx
def test_the_parser_names_the_node() -> None:
    with pytest.raises(CompileError) as caught:
        build_plan(classifier(op="Relu7"), library="tensorrt-rtx")
    text = str(caught.value)
    for part in ("'act_0'", "Relu7", "node 1", "Plugin not found", "export"):
        assert part in text
    assert "\n" not in text


@needs_rtx
def test_errors_of_one_build_do_not_leak_into_the_next() -> None:
    with pytest.raises(CompileError):
        build_plan(classifier(op="Relu7"), library="tensorrt-rtx")
    with pytest.raises(CompileError) as caught:
        build_plan(b"\xff\xd8\xff\xe0 not a model", library="tensorrt-rtx")
    assert "Relu7" not in str(caught.value)


@needs_rtx
def test_builds_in_two_threads_keep_their_errors_apart() -> None:
    failures: dict[str, str] = {}

    def build(op: str) -> None:
        try:
            build_plan(classifier(op=op), library="tensorrt-rtx")
        except CompileError as error:
            failures[op] = str(error)

    threads = [threading.Thread(target=build, args=(op,)) for op in ("OpA", "Relu", "OpB")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(failures) == ["OpA", "OpB"]
    assert all(op in text for op, text in failures.items())


@needs_rtx
def test_a_dynamic_image_size_is_refused_with_advice() -> None:
    model = onnx.load_from_string(classifier())
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"
    with pytest.raises(CompileError, match=r"'image'.*only the batch may be dynamic"):
        build_plan(model.SerializeToString(), library="tensorrt-rtx")


@needs_rtx
@pytest.mark.parametrize("batch", [(0, 1, 8), (2, 1, 8), (1, 9, 8)])
def test_a_profile_that_does_not_ascend_is_refused(batch: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="ascend"):
        build_plan(classifier(), library="tensorrt-rtx", batch=batch)


def test_a_missing_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(MissingDependencyError, match="JetPack"):
        build_plan(b"", library="tensorrt")
    with pytest.raises(MissingDependencyError, match=r"edge-fg\[rtx\]"):
        build_plan(b"", library="tensorrt-rtx")
    for library in ("tensorrt", "tensorrt-rtx"):
        usable, reason = available(library)
        assert not usable
        assert "pip install" in reason


def test_a_broken_library_is_told_apart_from_a_missing_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    with pytest.raises(BackendUnavailableError, match="libnvinfer"):
        build_plan(b"", library="tensorrt")


def test_available_loads_nothing() -> None:
    code = (
        "import sys; from edge_fg.backends.tensorrt.library import available; "
        "print(available('tensorrt-rtx')); print('tensorrt_rtx' in sys.modules)"
    )
    done = run_python(code)
    assert done.stdout.splitlines()[-1] == "False"


@needs_rtx
def test_output_is_checked_before_the_build(tmp_path: Path, cache: PlanCache) -> None:
    with pytest.raises(OutputError, match="doesn't exist"):
        compile_graph(classifier(), "tensorrt-rtx", output=tmp_path / "no" / "x", cache=cache)
    with pytest.raises(OutputError, match="folder"):
        compile_graph(classifier(), "tensorrt-rtx", output=tmp_path, cache=cache)
    (tmp_path / "birds.onnx").write_bytes(b"precious")
    with pytest.raises(OutputError, match=r"birds\.onnx exists: give --overwrite"):
        compile_graph(classifier(), "tensorrt-rtx", output=tmp_path / "birds.onnx", cache=cache)
    assert (tmp_path / "birds.onnx").read_bytes() == b"precious"
    with pytest.raises(ModelFormatError, match="can't read"):
        compile_graph(tmp_path / "absent.onnx", "tensorrt-rtx", cache=cache)


@needs_rtx
def test_an_unwritable_cache_needs_an_output(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blocked = PlanCache(tmp_path / "file" / "plans")
    with pytest.raises(OutputError, match="EDGE_FG_PLAN_CACHE"):
        compile_graph(classifier(), "tensorrt-rtx", cache=blocked)
    output = tmp_path / "out.plan"
    assert compile_graph(classifier(), "tensorrt-rtx", output=output, cache=blocked).bytes > 1000


CHILD = """
import sys
from pathlib import Path
from edge_fg.backends.plan_cache import PlanCache
from edge_fg_tools.compiling import compile_graph

def show(stage, done, total):
    if stage == "Optimizing graph" and done == 0:
        print("building", flush=True)

try:
    output = Path(sys.argv[2]) / "out.plan" if sys.argv[3] == "file" else None
    cache = PlanCache(Path(sys.argv[2]) / "cache")
    compile_graph(Path(sys.argv[1]), "tensorrt-rtx", output=output, cache=cache, progress=show)
except KeyboardInterrupt:
    print("interrupted", flush=True)
    sys.exit(130)
print("finished", flush=True)
"""


@needs_rtx
@pytest.mark.parametrize("where", ["file", "cache"])
def test_an_interrupted_build_leaves_nothing(tmp_path: Path, where: str) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(classifier(layers=60))
    folder = tmp_path / "out"
    folder.mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(model), str(folder), where],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "building\n"
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, "interrupted\n", "")
    assert [path for path in folder.rglob("*") if not path.is_dir()] == []


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
    )
