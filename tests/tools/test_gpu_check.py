"""gpu_check without a GPU: its checks run under the software CUDA driver, in child processes."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from edge_fg_tools.gpu_check import bundles
from edge_fg_tools.gpu_check.cases import random_cases
from edge_fg_tools.gpu_check.checks import test_kernels as exactness
from edge_fg_tools.gpu_check.checks import test_leaks as leaks
from edge_fg_tools.gpu_check.findings import Entry, Findings
from edge_fg_tools.gpu_check.runner import SCHEMA, run_in_child
from edge_fg_tools.gpu_check.settings import CHECKS, Settings
from support.software_cuda import harness

PACKAGE = "edge_fg_tools.gpu_check.checks"
TESTS = Path(__file__).resolve().parents[1]
SCRIPT = TESTS.parent / "tools" / "gpu_check.py"
SCENARIOS = TESTS / "support" / "gpu_check_scenarios.py"
CUDA, TENSORRT = (TESTS / "support" / name for name in ("software_cuda", "standin_tensorrt"))
SMALL = ["--cases", "12", "--repeats", "2", "--inferences", "60", "--cycles", "2"]
SMALL += ["--copy-mib", "1", "--untimed", "the driver is a stand-in"]
NOTHING = dict.fromkeys(
    ["buffers", "page_locked", "streams", "events", "modules", "graphs", "retains", "pushed"], 0
)


@pytest.fixture(scope="module")
def machine():
    """The software driver with the kernels and what calls the stand-in of TensorRT back."""
    if reason := harness.why_not():
        pytest.skip(reason)
    return harness.with_engines()


def python(*arguments: object, environment: dict[str, str], paths: tuple[Path, ...] = ()):
    found = [*map(str, paths), *(path for path in sys.path if path)]
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**environment, "PYTHONPATH": os.pathsep.join(found)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def scenario(machine, *arguments: object):
    paths = (TENSORRT / "site", TENSORRT)
    result = python(SCENARIOS, *arguments, environment=machine.environment(), paths=paths)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(5)
    for number in range(11):
        pixels = random.integers(0, 256, (20 + number, 33, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


# --- the program ---------------------------------------------------------------------------------


def test_without_a_gpu_it_says_so_in_one_line(tmp_path: Path):
    (tmp_path / "libcuda.so.1").write_text("not a library")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    target = tmp_path / "figures.json"
    result = python(SCRIPT, "--json", target, environment=environment)
    assert result.returncode == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("gpu_check: ")
    assert not target.exists()


def test_a_driver_without_a_device_is_no_gpu_either(machine, tmp_path: Path):
    target = tmp_path / "figures.json"
    result = python(SCRIPT, "--json", target, environment=machine.environment(devices=0))
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1
    assert "GPU" in result.stderr
    assert not target.exists()


def test_the_summary_and_the_json_under_the_software_driver(machine, tmp_path: Path):
    target = tmp_path / "figures.json"
    chosen = "kernels,copies,torchvision,cupy,leaks"
    result = python(
        *(SCRIPT, "--only", chosen, "--json", target, *SMALL), environment=machine.environment()
    )
    assert result.returncode == 0, result.stderr
    report = json.loads(target.read_bytes())
    assert report["schema"] == SCHEMA
    assert report["passed"]
    assert report["settings"]["cases"] == 12
    assert report["command"][:3] == ["gpu_check", "--only", chosen]
    entries = [msgspec.convert(entry, Entry) for entry in report["checks"]]
    assert [entry.check for entry in entries] == ["device", *chosen.split(",")]
    found = {entry.check: entry for entry in entries}
    assert found["device"].facts["GPU"] == "Software GPU 0"
    assert found["device"].facts["edge_fg"] == report["edge_fg"]
    assert found["kernels"].verdict == found["leaks"].verdict == "passed"
    figures = {figure.name: figure.value for figure in found["kernels"].figures}
    assert figures["tensors compared"] == 3 * (12 + 6)
    assert figures["tensors that differ"] == figures["largest difference"] == 0
    assert all(figures[f"images {kind}"] for kind in ("bgr", "nv12", "yuyv", "i420"))
    assert found["copies"].verdict == "not measured"
    assert "the driver is a stand-in" in found["copies"].summary
    assert {figure.name for figure in found["copies"].figures if figure.value > 0} == {
        "device to device (read + written)",
        "host to device, page-locked",
        "device to host, page-locked",
        "two copies of nothing in a CUDA graph",
    }
    for entry in entries:
        line = f"{entry.verdict:12}  {entry.check}: {entry.summary}"
        assert result.stdout.splitlines().count(line) == 1
    assert "3 not measured, 3 passed" in result.stdout


def test_a_check_that_kills_its_process_fails_and_the_others_go_on(machine, tmp_path: Path):
    source = tmp_path / "dies.c"
    source.write_text(
        "#include <stdlib.h>\n__attribute__((constructor)) static void die(void) { abort(); }\n"
    )
    library = tmp_path / "dies.so"
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    target = tmp_path / "figures.json"
    broken = machine.with_kernels(library)
    result = python(
        *(SCRIPT, "--only", "kernels,copies", "--json", target, *SMALL),
        environment=broken.environment(),
    )
    report = json.loads(target.read_bytes())
    assert result.returncode == 1
    assert not report["passed"]
    verdicts = [entry["verdict"] for entry in report["checks"]]
    assert verdicts == ["passed", "failed", "not measured"]
    assert "SIGABRT" in report["checks"][1]["summary"]
    assert "1 failed, 1 not measured, 1 passed" in result.stdout


def test_every_check_is_a_test_of_its_module():
    for name, module in CHECKS.items():
        found = importlib.import_module(f"{PACKAGE}.{module.removesuffix('.py')}")
        assert callable(getattr(found, f"test_{name.replace('-', '_')}"))
    defined = {
        function
        for module in set(CHECKS.values())
        for function in vars(importlib.import_module(f"{PACKAGE}.{module.removesuffix('.py')}"))
        if function.startswith("test_")
    }
    assert defined == {f"test_{name.replace('-', '_')}" for name in CHECKS}


def test_a_report_that_cannot_be_written_is_one_line(machine, tmp_path: Path):
    target = tmp_path / "absent" / "folder" / "figures.json"
    result = python(
        *(SCRIPT, "--only", "copies", "--json", target, *SMALL), environment=machine.environment()
    )
    assert (result.returncode, result.stdout) == (1, "")
    assert len(result.stderr.splitlines()) == 1


def test_without_pytest_it_names_the_extra(tmp_path: Path):
    (tmp_path / "pytest.py").write_text("raise ModuleNotFoundError('none', name='pytest')")
    result = python(SCRIPT, environment=dict(os.environ), paths=(tmp_path,))
    assert result.returncode == 1
    assert "edge-fg[gpu-check]" in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "kernels,nonsense"], "there is no check 'nonsense'"),
        (["--cases", "0"], "--cases 0 makes no sense"),
    ],
)
def test_a_wrong_command_line_is_one_line(arguments: list[str], said: str):
    result = python(SCRIPT, *arguments, environment=dict(os.environ))
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- what each check sees ------------------------------------------------------------------------


def findings(**settings) -> Findings:
    return Findings(Entry("check", "title", "passed"), Settings(work="", **settings))


def test_one_wrong_bit_fails_the_kernels():
    def subject(case):
        tensor = case.expected()
        yield tensor.copy()
        tensor.reshape(-1).view(np.uint8)[0] ^= 1
        yield tensor

    found = findings()
    with pytest.raises(AssertionError, match="bgr 1920 x 1080"):
        exactness.compare(found, random_cases(4, 5), subject)
    assert found.value("tensors compared") == 2 * 11
    assert found.value("tensors that differ") == 11


def test_nothing_to_compare_is_not_a_pass():
    with pytest.raises(AssertionError, match="nothing to compare"):
        exactness.compare(findings(), [], lambda case: [])


@pytest.mark.parametrize("tensor", [np.zeros((1, 3, 2, 2)), np.full(3, np.nan, np.float32)])
def test_a_tensor_of_another_shape_or_nan_is_as_wrong_as_can_be(tensor):
    case = next(random_cases(4, 0))
    if tensor.ndim == 1:
        tensor = np.full(case.expected().shape, np.nan, np.float32)
    with pytest.raises(AssertionError, match="up to 255 levels"):
        exactness.compare(findings(), [case], lambda _: [tensor])


def test_memory_that_is_not_given_back_fails(machine):
    found = scenario(machine, "leaking", 9)
    assert found["verdict"] == "failed"
    assert "GPU memory grew by 9.0 MiB over 7 frames" in found["summary"]
    assert scenario(machine, "leaking", 1)["verdict"] == "passed"


def test_a_process_that_grows_fails():
    grown = leaks.Growth(0, leaks.PROCESS_TOLERANCE + 1)
    with pytest.raises(AssertionError, match="process memory grew"):
        leaks.judge(findings(), leaks.Growth(0, 0), grown)


def test_a_gpu_that_fails_ends_the_check_in_words(machine):
    found = scenario(machine, "failing", 719)
    assert found["verdict"] == "failed"
    assert "\n" not in found["summary"]


@pytest.mark.parametrize(
    ("met", "untimed", "verdict", "ends"),
    [
        (True, "", "passed", None),
        (False, "", "failed", pytest.fail.Exception),
        (False, "no GPU", "not measured", pytest.skip.Exception),
    ],
)
def test_a_missed_target_fails_where_times_count(met: bool, untimed: str, verdict: str, ends):
    found = findings(untimed=untimed)
    found.target("a", "<= 1 us", "2 us", met, timed=True)
    with pytest.raises(ends) if ends else contextlib.nullcontext() as raised:
        found.conclude("text", timed=True)
    assert found.entry.targets[0].verdict == verdict
    assert raised is None or str(raised.value) == (untimed or "text")


def test_wrong_pixels_fail_even_where_times_do_not_count():
    found = findings(untimed="no GPU")
    found.target("what was timed", "Pillow's bits", "others", met=False)
    with pytest.raises(pytest.fail.Exception):
        found.conclude("text", timed=True)


def test_a_library_that_is_broken_is_not_measured(tmp_path: Path, monkeypatch):
    folder = tmp_path / "cupy"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('built for\\nanother CUDA')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    entry = run_in_child("cupy", Settings(work=""))
    assert entry.verdict == "not measured"
    assert entry.summary == "cupy can't be imported: built for another CUDA"


def test_no_engine_is_not_measured(tmp_path: Path):
    if bundles.usable_libraries():
        pytest.skip("TensorRT can run here")
    engines = ["bundle", "fidelity", "latency", "leaks-engine"]
    entries = [run_in_child(check, Settings(work=str(tmp_path))) for check in engines]
    assert [entry.check for entry in entries] == engines
    for entry in entries:
        assert entry.verdict == "not measured"
        assert "tensorrt: " in entry.summary


# --- engines, with ONNX Runtime behind TensorRT's interface --------------------------------------


def test_engines_are_compared_with_onnx_runtime(
    machine, tiny_bundle: Path, images: Path, tmp_path: Path
):
    names = ("bundle", "fidelity")
    found = scenario(machine, "engine_checks", tiny_bundle, images, tmp_path / "work", *names)
    assert {name: found[name]["verdict"] for name in names} == dict.fromkeys(names, "passed")
    figures = {figure["name"]: figure["value"] for figure in found["fidelity"]["figures"]}
    assert figures["images"] == 11
    assert figures["tensorrt fp32 agreement, same graph"] == 100
    assert figures["tensorrt fp32 largest difference, same graph"] < 1e-5
    assert found["left"] == NOTHING
    assert found["violations"] == []


def test_an_engine_that_runs_and_is_opened_again_and_again_takes_no_more_memory(
    machine, tiny_bundle: Path, images: Path, tmp_path: Path
):
    found = scenario(machine, "folding", tiny_bundle, images, tmp_path / "work", "leaks-engine")
    assert found["leaks-engine"]["verdict"] == "passed", found
    grown = {figure["name"]: figure["value"] for figure in found["leaks-engine"]["figures"]}
    assert grown["2 openings: GPU memory grew by"] == 0
    assert found["left"] == NOTHING
    assert found["violations"] == []


def test_a_refusal_is_noted_and_is_no_failure(
    machine, tiny_bundle: Path, images: Path, tmp_path: Path
):
    found = scenario(machine, "refused", tiny_bundle, images, tmp_path / "work")["fidelity"]
    assert found["verdict"] == "not measured"
    assert "refused: tensorrt fp32" in found["summary"]
    assert found["facts"]["tensorrt fp32 refused"]


def test_an_engine_that_answers_otherwise_fails(
    machine, tiny_bundle: Path, images: Path, tmp_path: Path
):
    work = tmp_path / "work"
    found = scenario(machine, "folding", tiny_bundle, images, work, "fidelity")["fidelity"]
    assert found["verdict"] == "failed"
    assert "tensorrt fp32 agrees on" in found["summary"]


@pytest.mark.slow
def test_times_are_taken_but_not_judged_on_a_stand_in(
    machine, tiny_bundle: Path, images: Path, tmp_path: Path
):
    names = ("copies", "preprocessing", "latency")
    found = scenario(machine, "folding", tiny_bundle, images, tmp_path / "work", *names)
    for name in names:
        assert found[name]["verdict"] == "not measured"
        assert found[name]["summary"] == "a stand-in"
    assert {one["verdict"] for one in found["latency"]["targets"]} == {"not measured"}
    assert len(found["latency"]["targets"]) == 4
    judged = {one["name"]: one["verdict"] for one in found["preprocessing"]["targets"]}
    assert len(judged) == 6
    for kind in ("bgr", "nv12"):
        assert judged[f"1080p {kind} x1 -> 224, kernels p50"] == "not measured"
        assert judged[f"1080p {kind} x1 -> 224, what was timed"] == "passed"
        assert judged[f"1080p {kind} x8 -> 224, what was timed"] == "passed"
    latency = {figure["name"] for figure in found["latency"]["figures"]}
    for name in ("bgr no graph x1", "bgr graph x1", "nv12 graph x8", "4 threads and contexts"):
        assert {f"{name} p50", f"{name} p99", f"{name} throughput"} <= latency
    assert all(figure["value"] > 0 for figure in found["preprocessing"]["figures"])
    assert found["left"] == NOTHING
    assert found["violations"] == []


# --- execution slots, with an engine that copies -------------------------------------------------


@pytest.mark.parametrize("integrated", [0, 1])
def test_execution_slots_run_where_there_is_no_tensorrt(machine, tmp_path: Path, integrated: int):
    target = tmp_path / "figures.json"
    result = python(
        *(SCRIPT, "--only", "slots,overhead", "--json", target, *SMALL),
        environment=machine.environment(integrated=integrated),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    found = {one["check"]: one for one in json.loads(target.read_bytes())["checks"]}
    assert found["slots"]["verdict"] == "passed"
    assert len(found["slots"]["targets"]) == 4
    figures = {one["name"]: one["value"] for one in found["slots"]["figures"]}
    for name in ("with CUDA graphs", "without CUDA graphs"):
        assert figures[f"{name}: batches"] == 240
        assert figures[f"{name}: batches that differ"] == 0
    assert figures["without CUDA graphs: engine queued by the host"] == 240
    assert 0 < figures["with CUDA graphs: engine queued by the host"] < 240
    assert found["overhead"]["verdict"] == "not measured"
    assert {one["verdict"] for one in found["overhead"]["targets"]} == {"not measured"}
    figures = {one["name"]: one["value"] for one in found["overhead"]["figures"]}
    assert figures["one step of Python"] > 0
    for kind in ("bgr", "nv12"):
        assert f"{kind} graph x1 host, less its copy of the frame" in figures
        assert figures[f"{kind} no graph x8 throughput"] > 0


def test_a_slot_with_another_output_fails(machine):
    found = scenario(machine, "slots_that_mix_frames")
    assert found["verdict"] == "failed"
    assert {one["verdict"] for one in found["targets"]} == {"passed", "failed"}
    assert [one["verdict"] for one in found["targets"] if "outputs" in one["name"]] == [
        "failed"
    ] * 2


def test_slots_that_never_run_as_graphs_fail(machine):
    found = scenario(machine, "slots_without_graphs")
    assert found["verdict"] == "failed"
    assert [one["name"] for one in found["targets"] if one["verdict"] == "failed"] == [
        "with CUDA graphs, launches"
    ]
