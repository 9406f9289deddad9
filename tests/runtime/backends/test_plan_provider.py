"""A plan is built once, shared between processes, and never used when it is stale or doubtful.

TensorRT is the stand-in of standin_tensorrt/; processes, files, locks and signals are real.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import edge_fg
from edge_fg.backends import plan_provider, trusted_folder
from edge_fg.backends.options import EngineOptions, plans_beside
from edge_fg.backends.plan import Plan
from edge_fg.backends.plan_cache import DEFAULT_LIMIT_BYTES, PlanCache
from edge_fg.backends.plan_provider import PlanRequest, open_cache, provide_plan
from edge_fg.backends.tensorrt.backend import TensorRTBackend
from edge_fg.errors import CompileError, OutputError, UsageError
from edge_fg.files import cache_folder
from support import standin_tensorrt
from support.children import environment

pytest.importorskip("onnxruntime")
FRAME = np.random.default_rng(5).integers(0, 256, (30, 40, 3), np.uint8)
SITE = Path(standin_tensorrt.__path__[0]) / "site"


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


@pytest.fixture
def request_one(tiny_model: bytes) -> PlanRequest:
    return PlanRequest(tiny_model, "tensorrt", "fp32", (1, 1, 8))


def open_once(bundle_path: Path, folder: Path) -> np.ndarray:
    """Open the backend over a cache, infer, close; returns the answer."""
    bundle = edge_fg.Bundle(bundle_path)
    options = EngineOptions(plan_cache=folder)
    with contextlib.closing(TensorRTBackend(bundle, "fp32", options=options)) as backend:
        return backend.infer([FRAME]).tensors["logits"]


def warnings_of(caplog: pytest.LogCaptureFixture) -> str:
    text = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    caplog.clear()
    return "\n".join(text)


def test_a_plan_is_built_once_and_said_so(standin, tiny_bundle, tmp_path, caplog):
    first = open_once(tiny_bundle, tmp_path / "plans")
    said = warnings_of(caplog)
    assert f"{tiny_bundle}: building a plan (fp32, batches of up to 8) with TensorRT 10.99" in said
    assert "1 to 10 minutes" in said
    again = open_once(tiny_bundle, tmp_path / "plans")
    assert warnings_of(caplog) == ""
    assert len(standin.trt.builds) == 1
    np.testing.assert_array_equal(first, again)


def test_earlier_builds_tell_how_long_the_next_takes(standin, cache, request_one, tiny_model):
    assert "minutes" in plan_provider._expected("tensorrt", cache)
    for key, seconds in (("ab" * 32, 61.4), ("cd" * 32, 7.0)):
        cache.store(key, Plan(b"x", "tensorrt", "10.99.0", 3, seconds))
    assert plan_provider._expected("tensorrt", cache) == "earlier ones took 7 to 61 s here"
    assert "some seconds" in plan_provider._expected("tensorrt-rtx", cache)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "SHA-256"),
        (lambda path: path.write_bytes(b""), "SHA-256"),
        (lambda path: path.unlink(), "No such file"),
        (lambda path: path.chmod(0o666), "written by others"),
        (lambda path: path.with_suffix(".json").write_text("{"), "not used"),
    ],
)
def test_a_doubtful_plan_is_rebuilt_with_a_word_why(
    standin, tiny_bundle, tmp_path, caplog, change, word
):
    first = open_once(tiny_bundle, tmp_path / "plans")
    change(next((tmp_path / "plans").glob("*.plan")))
    warnings_of(caplog)
    again = open_once(tiny_bundle, tmp_path / "plans")
    said = warnings_of(caplog)
    assert word in said
    assert "built again" in said
    assert len(standin.trt.builds) == 2
    np.testing.assert_array_equal(first, again)
    open_once(tiny_bundle, tmp_path / "plans")
    assert len(standin.trt.builds) == 2


@pytest.mark.parametrize("what", ["version", "gpu", "magic"])
def test_a_plan_that_the_library_refuses_is_rebuilt(
    standin, tiny_bundle, tmp_path, caplog, monkeypatch, what
):
    """Such as one that was copied from another machine together with its record."""
    folder = tmp_path / "plans"
    with monkeypatch.context() as patch:
        if what == "version":
            # The key stays that of the version below: as if a file had been renamed.
            patch.setattr(PlanRequest, "version", lambda self: "10.99.0")
            patch.setattr(standin.trt, "__version__", "10.3.0")
        if what == "gpu":
            patch.setenv("STANDIN_TENSORRT_GPU", "Another")
        if what == "magic":
            patch.setattr(standin.trt, "MAGIC", b"trtx another\n")
        open_once(tiny_bundle, folder)
    warnings_of(caplog)
    open_once(tiny_bundle, folder)
    said = warnings_of(caplog)
    assert "the cached plan can't be used, it is built again: TensorRT can't load the plan" in said
    assert len(standin.trt.builds) == 2
    open_once(tiny_bundle, folder)
    assert len(standin.trt.builds) == 2


def test_another_version_gpu_precision_or_profile_is_another_plan(
    standin, request_one, monkeypatch
):
    keys = {request_one.key()}
    for change in (
        {"precision": "int8"},
        {"batch": (1, 1, 4)},
        {"workspace_bytes": 1 << 20},
        {"builder_optimization_level": 5},
        {"graph": request_one.graph + b"\0"},
    ):
        fields = {**vars(request_one), **change}
        keys.add(PlanRequest(**fields).key())
    monkeypatch.setattr(standin.trt, "__version__", "10.100.0")
    keys.add(request_one.key())
    monkeypatch.setattr(
        plan_provider, "gpu_description", lambda device: "Stand-in, 8.7, driver 13000"
    )
    keys.add(request_one.key())
    assert len(keys) == 8


def test_a_plan_swapped_by_another_user_is_not_loaded(
    standin, tiny_bundle, tmp_path, caplog, monkeypatch
):
    open_once(tiny_bundle, tmp_path / "plans")
    plan = next((tmp_path / "plans").glob("*.plan"))
    if os.geteuid() == 0:
        os.chown(plan, 12345, -1)
        foreign = "12345"
    else:
        me = os.geteuid()
        foreign = str(me)
        monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    warnings_of(caplog)
    open_once(tiny_bundle, tmp_path / "plans")
    assert f"belongs to user {foreign}" in warnings_of(caplog)
    assert len(standin.trt.builds) == 2


@pytest.mark.parametrize("place", ["/proc/edge-fg-plans", "file"])
def test_where_nothing_can_be_written_it_works_in_memory(
    standin, tiny_bundle, tmp_path, caplog, place
):
    (tmp_path / "file").touch()
    folder = Path(place) if place.startswith("/") else tmp_path / place / "plans"
    answer = open_once(tiny_bundle, folder)
    assert answer.shape == (1, 4)
    assert "the plan is not kept, the next start builds it again" in warnings_of(caplog)


def test_without_a_home_it_works_in_memory(standin, tiny_bundle, caplog, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(OutputError):
        PlanCache()
    with contextlib.closing(TensorRTBackend(edge_fg.Bundle(tiny_bundle), "fp32")) as backend:
        assert backend.infer([FRAME]).tensors["logits"].shape == (1, 4)
    assert "no plan is kept" in warnings_of(caplog)
    assert open_cache(PlanCache) is None


def run_child(code: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(SITE, **variables),
    )


BUILDER = """
import json, logging, sys
from pathlib import Path
import tensorrt
from edge_fg.backends import plan_provider
from edge_fg.backends.plan_cache import PlanCache

logging.basicConfig(level=logging.WARNING)
plan_provider.gpu_description = lambda device: "Stand-in"
request = plan_provider.PlanRequest(Path(sys.argv[1]).read_bytes(), "tensorrt", "fp32")

def show(stage, done, total):
    if stage == "Building engine" and done == 0:
        print("building", flush=True)

provided = plan_provider.provide_plan(request, PlanCache(Path(sys.argv[2])), progress=show)
print(json.dumps([len(tensorrt.builds), provided.from_cache, provided.plan.sha256]), flush=True)
"""


@pytest.fixture
def model(tmp_path: Path, tiny_model: bytes) -> Path:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny_model)
    return path


def test_two_processes_that_want_the_same_plan_build_it_once(model, tmp_path):
    slow = {"STANDIN_TENSORRT_STEP_SECONDS": "0.3"}
    first = run_child(BUILDER, model, tmp_path / "plans", **slow)
    assert first.stdout.readline() == "building\n"
    second = run_child(BUILDER, model, tmp_path / "plans", **slow)
    out_1, err_1 = first.communicate(timeout=60)
    out_2, err_2 = second.communicate(timeout=60)
    assert (first.returncode, second.returncode) == (0, 0), err_1 + err_2
    built, found = json.loads(out_1.splitlines()[-1]), json.loads(out_2.splitlines()[-1])
    assert built[:2] == [1, False]
    assert found[:2] == [0, True]
    assert built[2] == found[2]
    assert "another process builds this TensorRT plan: waiting" in err_2
    names = {path.suffix for path in (tmp_path / "plans").iterdir()}
    assert names == {".plan", ".json", ".timing"}


def test_a_killed_build_leaves_nothing_that_hinders_the_next(model, tmp_path):
    folder = tmp_path / "plans"
    killed = run_child(BUILDER, model, folder, STANDIN_TENSORRT_STEP_SECONDS="5")
    assert killed.stdout.readline() == "building\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    assert [path.suffix for path in folder.iterdir()] == [".lock"]
    after = run_child(BUILDER, model, folder)
    out, err = after.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])[:2] == [1, False]
    assert "another process" not in err
    assert not list(folder.glob("*.lock"))


def test_a_waiting_process_takes_over_when_the_builder_is_killed(model, tmp_path):
    folder = tmp_path / "plans"
    killed = run_child(BUILDER, model, folder, STANDIN_TENSORRT_STEP_SECONDS="5")
    assert killed.stdout.readline() == "building\n"
    waiting = run_child(BUILDER, model, folder)
    line = ""
    while "waiting" not in line:
        line = waiting.stderr.readline()
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=60)
    out, _ = waiting.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])[:2] == [1, False]


def test_threads_that_want_the_same_plan_build_it_once(standin, cache, request_one):
    standin.trt.faults.step_seconds = 0.05
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(provide_plan(request_one, cache)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(provided.from_cache for provided in found) == [False, True, True, True]
    assert len({provided.plan.sha256 for provided in found}) == 1
    assert len(standin.trt.builds) == 1


def test_the_lock_lets_in_one_at_a_time_though_its_file_comes_and_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(trusted_folder, "_POLL_SECONDS", 0.0005)
    inside: list[int] = []
    most: list[int] = []

    def work(number: int) -> None:
        for _ in range(25):
            with trusted_folder.alone(tmp_path / "one.lock", lambda seconds: None):
                inside.append(number)
                time.sleep(0.0005)
                most.append(len(inside))
                inside.remove(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 200
    assert max(most) == 1
    assert not (tmp_path / "one.lock").exists()


def test_a_failed_build_lets_the_next_one_in(standin, cache):
    request = PlanRequest(b"not a model", "tensorrt")
    for _ in range(2):
        with pytest.raises(CompileError, match="can't read the graph"):
            provide_plan(request, cache)
    assert list(cache.folder.iterdir()) == []


FULL_DISK = """
import logging, resource, sys
from pathlib import Path
from edge_fg.backends.plan import Plan
from edge_fg.backends.plan_cache import PlanCache

logging.basicConfig(level=logging.WARNING)
cache = PlanCache(Path(sys.argv[1]))
small, large = (Plan(b"x" * size, "tensorrt", "10.3", 1, 1.0) for size in (1000, 1_000_000))
assert cache.store("ab" * 32, small)
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
assert cache.store("cd" * 32, large) is None
assert cache.load("ab" * 32) == small.data
assert cache.load("cd" * 32) is None
"""


def test_a_disk_that_takes_no_more_warns_and_leaves_no_half_plan(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] in (resource.RLIM_INFINITY, -1)
    child = run_child(FULL_DISK, tmp_path / "plans")
    _, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "the plan is not kept" in err
    assert len(list((tmp_path / "plans").iterdir())) == 2


def test_plans_that_were_not_used_for_longest_go_first(tmp_path):
    cache = PlanCache(tmp_path / "plans", limit_bytes=3500)
    keys = [digit * 64 for digit in "abc"]
    for age, key in zip((300, 200, 100), keys, strict=True):
        assert cache.store(key, Plan(b"x" * 900, "tensorrt", "10.3", 1, 1.0))
        for path in cache.folder.glob(f"{key}.*"):
            os.utime(path, (time.time() - age,) * 2)
    assert cache.load(keys[0]) is not None  # the oldest is used again
    assert cache.store("d" * 64, Plan(b"x" * 900, "tensorrt", "10.3", 1, 1.0))
    kept = sorted({path.name[0] for path in cache.folder.iterdir()})
    assert kept == ["a", "c", "d"]
    plans, size = cache.usage()
    assert plans == 3
    assert size <= 3500


def test_a_plan_larger_than_the_cache_is_not_kept_and_evicts_nothing(tmp_path, caplog):
    cache = PlanCache(tmp_path / "plans", limit_bytes=2000)
    assert cache.store("a" * 64, Plan(b"x" * 900, "tensorrt", "10.3", 1, 1.0))
    assert cache.store("b" * 64, Plan(b"x" * 2001, "tensorrt", "10.3", 1, 1.0)) is None
    assert "EDGE_FG_PLAN_CACHE_BYTES" in warnings_of(caplog)
    assert cache.load("a" * 64) is not None


def test_the_environment_says_where_and_how_much(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE_BYTES", "12345")
    assert PlanCache().folder == tmp_path / "elsewhere"
    assert PlanCache().limit_bytes == 12345
    monkeypatch.delenv("EDGE_FG_PLAN_CACHE_BYTES")
    assert PlanCache().limit_bytes == DEFAULT_LIMIT_BYTES
    for wrong in ("0", "-1", "2GB", "1" * 30):
        monkeypatch.setenv("EDGE_FG_PLAN_CACHE_BYTES", wrong)
        with pytest.raises(UsageError):
            PlanCache()


def test_plans_beside_the_bundle_where_asked(standin, tiny_bundle, monkeypatch):
    bundle = edge_fg.Bundle(tiny_bundle)
    options = EngineOptions(plan_cache="beside")
    TensorRTBackend(bundle, "fp32", options=options).close()
    beside = tiny_bundle.with_name("tiny.edgefg.plans")
    assert len(list(beside.glob("*.plan"))) == 1
    bundle.verify()
    TensorRTBackend(bundle, "fp32", options=options).close()
    assert len(standin.trt.builds) == 1
    monkeypatch.setenv("EDGE_FG_PLAN_CACHE", "beside")
    TensorRTBackend(bundle, "fp32").close()
    assert len(standin.trt.builds) == 1
    assert PlanCache().folder == cache_folder("plans")
    assert plans_beside(Path("/x/birds.edgefg.zip")) == Path("/x/birds.edgefg.plans")


def test_timings_are_kept_for_the_next_build_of_this_version_and_gpu(standin, cache, tiny_model):
    for batch in (1, 2, 3):
        provide_plan(PlanRequest(tiny_model, "tensorrt", batch=(1, 1, batch)), cache)
    assert [build["timings"] for build in standin.trt.builds] == [
        b"",
        b"timings 10.99.0 of Stand-in",
        b"timings 10.99.0 of Stand-in",
    ]


def test_timings_of_another_version_are_never_offered(standin, cache, tiny_model, monkeypatch):
    provide_plan(PlanRequest(tiny_model, "tensorrt"), cache)
    monkeypatch.setattr(standin.trt, "__version__", "10.100.0")
    provide_plan(PlanRequest(tiny_model, "tensorrt"), cache)
    assert [build["timings"] for build in standin.trt.builds] == [b"", b""]


def test_timings_that_are_refused_are_dropped_with_a_word(standin, cache, tiny_model, caplog):
    provide_plan(PlanRequest(tiny_model, "tensorrt"), cache)
    standin.trt.faults.refuses_timings = True
    warnings_of(caplog)
    provide_plan(PlanRequest(tiny_model, "tensorrt", batch=(1, 1, 2)), cache)
    said = warnings_of(caplog)
    assert "refuses the kept timing cache (timing cache of another device)" in said
    assert [build["timings"] for build in standin.trt.builds] == [b"", b""]


def test_timings_that_break_a_build_are_dropped_with_a_word(standin, cache, tiny_model, caplog):
    provide_plan(PlanRequest(tiny_model, "tensorrt"), cache)
    standin.trt.faults.build_fails_with_timings = True
    warnings_of(caplog)
    provided = provide_plan(PlanRequest(tiny_model, "tensorrt", batch=(1, 1, 2)), cache)
    assert provided.plan.data.startswith(b"ftrt")
    assert "building once more without them" in warnings_of(caplog)
    assert [bool(build["timings"]) for build in standin.trt.builds] == [False, True, False]


def test_timings_that_others_could_have_written_are_not_used(standin, cache, tiny_model, caplog):
    provide_plan(PlanRequest(tiny_model, "tensorrt"), cache)
    next(cache.folder.glob("*.timing")).chmod(0o666)
    provide_plan(PlanRequest(tiny_model, "tensorrt", batch=(1, 1, 2)), cache)
    assert "cached timing not used" in warnings_of(caplog)
    assert standin.trt.builds[1]["timings"] == b""


def test_timings_can_be_left_out(standin, cache, tiny_model):
    provide_plan(PlanRequest(tiny_model, "tensorrt"), cache, keep_timings=False)
    assert standin.trt.builds[0]["timings"] is None
    assert not list(cache.folder.glob("*.timing"))


def test_settings_reach_the_builder(standin, cache, tiny_model):
    request = PlanRequest(
        tiny_model, "tensorrt", workspace_bytes=1 << 26, builder_optimization_level=5
    )
    provide_plan(request, cache)
    assert standin.trt.builds[0]["workspace"] == 1 << 26
    assert standin.trt.builds[0]["level"] == 5


@pytest.mark.parametrize("wrong", [{"max_batch": 0}, {"contexts": 0}, {"max_batch": 10**6}])
def test_options_that_make_no_sense(wrong):
    with pytest.raises(UsageError):
        EngineOptions(**wrong)


def test_progress_is_passed_on(standin, cache, request_one):
    seen = []
    provide_plan(request_one, cache, progress=lambda *step: seen.append(step))
    assert ("Building engine", 5, 5) in seen
