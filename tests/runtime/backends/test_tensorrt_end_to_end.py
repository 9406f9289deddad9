"""The whole GPU path without a GPU: `edge_fg.load` to the answer, real but for the engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support import standin_tensorrt
from support.children import environment
from support.software_cuda import harness

pytest.importorskip("onnxruntime")
HERE = Path(standin_tensorrt.__path__[0])
NOTHING = dict.fromkeys(
    ["buffers", "page_locked", "streams", "events", "modules", "graphs", "retains", "pushed"], 0
)


@pytest.fixture(scope="module")
def machine(software_cuda):
    """The software driver with the real kernels, and one that calls the stand-in back."""
    return harness.with_engines()


@pytest.fixture
def run(machine, tiny_bundle: Path, tmp_path: Path):
    """Run a scenario of end_to_end.py in a child; anything on standard error fails."""

    def one(scenario: str, *arguments: object, **settings: object):
        command = [sys.executable, "-X", "faulthandler", "-W", "error"]
        command += [str(HERE / "end_to_end.py"), scenario, str(tiny_bundle)]
        result = subprocess.run(
            [*command, str(tmp_path / "plans"), *map(str, arguments)],
            env=environment(HERE / "site", **machine.environment(**settings)),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return json.loads(result.stdout)

    return one


@pytest.mark.parametrize("integrated", [0, 1])
def test_the_answers_are_those_of_onnx_runtime(run, tmp_path: Path, integrated: int):
    seen = run("answers", integrated=integrated)
    assert seen["backend"] == "tensorrt"
    assert seen["worst"] < 1e-6
    assert seen["graphs"] >= 1
    assert seen["violations"] == []
    assert seen["left"] == NOTHING
    assert seen["builds"] == 1 - integrated  # there it is built in a process of its own
    assert len(list((tmp_path / "plans").glob("*.plan"))) == 1
    assert run("answers", integrated=integrated)["builds"] == 0


@pytest.mark.parametrize("integrated", [0, 1])
def test_raw_frames_are_answered_as_their_pixels_are(run, integrated: int):
    seen = run("raw", integrated=integrated)
    assert seen["worst"] < 1e-6
    assert seen["takes_raw"]
    assert 0 < seen["engine_bytes"] < 1 << 20
    assert seen["graphs"] >= 3
    assert seen["violations"] == []
    assert seen["left"] == NOTHING


def test_the_second_gpu_is_used_from_the_build_to_the_answer(run):
    seen = run("second", devices=2)
    assert "on Software GPU 1" in seen["reason"]
    assert seen["current"] == [1]
    assert seen["violations"] == []
    assert seen["left"] == NOTHING


@pytest.mark.parametrize(("contexts", "integrated"), [(1, 0), (3, 0), (6, 1)])
def test_threads_get_their_own_answers(run, contexts: int, integrated: int):
    seen = run("threads", contexts, integrated=integrated)
    assert seen["wrong"] == []
    assert seen["rounds"] == 360
    assert seen["graphs"] >= contexts
    assert seen["left"] == NOTHING


@pytest.mark.parametrize("code", [700, 719])
def test_a_lost_device_is_said_and_stays_said(run, code: int):
    seen = run("lost", code)
    (first, _), *later = seen["said"]
    assert first == "DeviceLostError"
    assert [kind for kind, _ in later] == ["BackendError", "BackendError"]
    assert all("closed itself when the GPU failed" in text for _, text in later)
    assert seen["pushed"] == 0


def test_a_full_gpu_gives_way_to_the_cpu(run):
    seen = run("full")
    backend, reason = seen["chosen"]
    assert backend == "onnxruntime"
    assert "fp32 failed on tensorrt" in reason
    assert seen["failed"][0] == "DeviceMemoryError"
    assert seen["left"] == {**NOTHING, "modules": seen["left"]["modules"]}


def test_a_program_that_closes_nothing_ends_quietly(run):
    assert run("unclosed") == "tensorrt"


def test_a_dropped_classifier_gives_everything_back(run):
    assert run("dropped") == NOTHING


def test_a_plan_of_another_board_of_the_family_is_built_again(run):
    """All Orins have one name and capability."""
    nx = {"multiprocessors": 8, "megabytes": 15_530}
    assert run("answers", **nx)["builds"] == 1
    assert run("answers", multiprocessors=8, megabytes=7_620)["builds"] == 1  # Orin Nano
    assert run("answers", multiprocessors=4, megabytes=15_530)["builds"] == 1  # its power mode
    assert run("answers", multiprocessors=8, megabytes=15_600)["builds"] == 0  # after an update
