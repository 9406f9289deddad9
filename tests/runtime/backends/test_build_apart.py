"""Where the GPU shares the CPU's memory a plan is built in a child process, which may die alone.

TensorRT is the stand-in; processes and signals are real.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

import edge_fg
from edge_fg.backends.options import EngineOptions
from edge_fg.backends.plan_cache import PlanCache
from edge_fg.backends.plan_provider import PlanRequest, provide_plan
from edge_fg.backends.tensorrt import build, build_apart
from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.backends.tensorrt.build import build_plan
from edge_fg.cuda.device import Gpu
from edge_fg.errors import CompileError, DeviceMemoryError, EdgeFGError

pytest.importorskip("onnxruntime")
GIB = 1 << 30
SHARE = 2 * GIB  # a quarter of the memory
OUT_OF_MEMORY = "[allocate::19] Error Code 1: Cuda Runtime (out of memory)"


@pytest.fixture
def children(standin, monkeypatch) -> list[subprocess.Popen[bytes]]:
    """The processes that were started, on a board with 8 GiB."""
    gpu = Gpu("Orin", "8.7", 8, 8 * GIB, integrated=True)
    monkeypatch.setattr(build, "find_gpus", lambda: ([gpu], ""))
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*given, **named):
        started.append(start(*given, **named))
        return started[-1]

    monkeypatch.setattr(build_apart.subprocess, "Popen", noted)
    yield started
    assert all(child.poll() is not None for child in started)
    assert standin.trt.builds == []  # none here


def test_a_plan_is_built_apart_and_answers(children, tiny_bundle, tmp_path, caplog):
    bundle = edge_fg.Bundle(tiny_bundle)
    caplog.set_level(logging.INFO, "edge_fg")
    options = EngineOptions(plan_cache=tmp_path / "plans")
    for _ in range(2):  # the second time from the cache
        with contextlib.closing(TensorRTBackend(bundle, "fp32", options=options)) as backend:
            found = backend.infer([np.zeros((9, 9, 3), np.uint8)])
            assert found.tensors["logits"].shape == (1, 4)
    assert len(children) == 1


def test_progress_and_warnings_come_from_the_child(children, tiny_model, caplog):
    seen: list[tuple[str, int, int]] = []
    plan = build_plan(
        tiny_model,
        library="tensorrt",
        progress=lambda *step: seen.append(step),
        timings=b"of another version",
    )
    assert seen[-1] == ("Building engine", 5, 5)
    assert "refuses the kept timing cache" in caplog.text
    assert plan.timings
    assert plan.timings.startswith(b"timings")


@pytest.mark.parametrize(
    ("end", "error", "says"),
    [
        ("SIGKILL", DeviceMemoryError, "was killed (SIGKILL), most likely by the kernel"),
        (OUT_OF_MEMORY, DeviceMemoryError, "ran out of memory while it built a plan"),
        ("SIGSEGV", CompileError, "died (Segmentation fault)"),
        ("exit", CompileError, "ended with exit code 3"),
        ("Could not find any implementation for node c1", CompileError, "any implementation"),
        ("no implementation for c1, insufficient workspace", CompileError, "allow more"),
    ],
)
def test_a_build_that_fails_is_one_error(
    children, tiny_model, tmp_path, monkeypatch, caplog, end, error: type[EdgeFGError], says: str
):
    monkeypatch.setenv("STANDIN_TENSORRT_MOST_WORKSPACE", f"1 {end}")
    cache = PlanCache(tmp_path / "plans")
    with pytest.raises(EdgeFGError) as caught:
        provide_plan(PlanRequest(tiny_model, "tensorrt"), cache)
    assert type(caught.value) is error
    assert says in str(caught.value)
    assert list(cache.folder.iterdir()) == []
    # Only what lacked memory is tried again, with less.
    assert len(children) == (2 if error is DeviceMemoryError else 1)
    assert ("once more with a workspace of 537 MB" in caplog.text) == (len(children) == 2)


@pytest.mark.parametrize("end", ["SIGKILL", OUT_OF_MEMORY])
@pytest.mark.parametrize(("most", "tried"), [(SHARE, 1), (SHARE // 4, 2)])
def test_a_smaller_workspace_saves_the_build(
    children, tiny_model, monkeypatch, end: str, most: int, tried: int
):
    monkeypatch.setenv("STANDIN_TENSORRT_MOST_WORKSPACE", f"{most} {end}")
    assert build_plan(tiny_model, library="tensorrt").data
    assert len(children) == tried
    # What is asked for is the limit, and not more is taken.
    with pytest.raises(DeviceMemoryError):
        build_plan(tiny_model, library="tensorrt", workspace_bytes=4 * most + 4)
    assert build_plan(tiny_model, library="tensorrt", workspace_bytes=most).data


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("the terminal is gone")])
def test_what_the_watcher_raises_ends_the_child(children, tiny_model, monkeypatch, error):
    monkeypatch.setenv("STANDIN_TENSORRT_STEP_SECONDS", "60")

    def show(stage: str, done: int, total: int) -> None:
        if stage == "Building engine":
            raise error

    with pytest.raises((KeyboardInterrupt, OSError)):
        build_plan(tiny_model, library="tensorrt", progress=show)
    assert children[0].returncode == -signal.SIGKILL


def test_a_child_that_can_not_start_is_one_error(children, tiny_model, monkeypatch, tmp_path: Path):
    monkeypatch.setattr(build_apart.sys, "executable", "/bin/false")
    with pytest.raises(CompileError, match="ended with exit code 1"):
        build_plan(tiny_model, library="tensorrt")
    monkeypatch.setattr(build_apart.sys, "executable", str(tmp_path / "none"))
    with pytest.raises(CompileError, match="can't be started"):
        build_plan(tiny_model, library="tensorrt")
    assert len(children) == 1


def test_a_damaged_graph_is_told_as_without_a_child(children):
    with pytest.raises(CompileError, match="can't read the graph"):
        build_plan(b"not a model", library="tensorrt")
    assert len(children) == 1
