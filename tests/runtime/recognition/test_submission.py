"""`Classifier.submit`: never waits, newest wins, deadlines, one thread that ends."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

import edge_fg
from edge_fg.errors import (
    BackendError,
    DeadlineError,
    EdgeFGError,
    ImageError,
    SupersededError,
    UnansweredError,
    UsageError,
)
from edge_fg.recognition.submission import Submissions
from support.clock import FakeClock
from support.waiting import HANG, new_threads


class Model:
    """Answers when it is let to; remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.threads: set[threading.Thread] = set()
        self.entered = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def __call__(self, frame: object, region: object) -> object:
        self.asked.append(frame)
        self.threads.add(threading.current_thread())
        self.entered.release()
        assert self.allowed.acquire(timeout=HANG)
        if frame == "broken":
            raise BackendError("broken")
        return frame, region


pytestmark = pytest.mark.usefixtures("no_thread_leaks")


@pytest.fixture
def model() -> Model:
    return Model()


def test_the_newest_frame_wins_and_older_ones_are_told(model: Model) -> None:
    submissions = Submissions(model)
    first = submissions.submit(1)
    assert model.entered.acquire(timeout=HANG)
    second, third = submissions.submit(2), submissions.submit(3, (0, 0, 4, 4))
    # At once, without the model's help.
    assert isinstance(second.exception(timeout=0), SupersededError)
    model.allowed.release(2)
    assert first.result(timeout=HANG) == (1, None)
    assert third.result(timeout=HANG) == (3, (0, 0, 4, 4))
    assert model.asked == [1, 3]
    submissions.close()


def test_a_frame_whose_turn_comes_too_late_is_not_executed(model: Model) -> None:
    clock = FakeClock(100.0)
    submissions = Submissions(model, clock=clock)
    first = submissions.submit(1, deadline=0.02)
    assert model.entered.acquire(timeout=HANG)
    late = submissions.submit(2, deadline=0.02)
    clock.now += 0.03
    model.allowed.release()
    error = late.exception(timeout=HANG)
    assert isinstance(error, DeadlineError)
    assert "10.0 ms after its deadline" in str(error)
    assert first.result(timeout=HANG) == (1, None), "it had begun before its deadline"
    in_time = submissions.submit(3, deadline=0.02)
    model.allowed.release()
    assert in_time.result(timeout=HANG) == (3, None)
    assert model.asked == [1, 3]
    submissions.close()


def test_what_the_loop_catches() -> None:
    assert issubclass(SupersededError, UnansweredError)
    assert issubclass(DeadlineError, UnansweredError)
    assert not issubclass(UnansweredError, BackendError)
    assert issubclass(UnansweredError, EdgeFGError)


def test_an_error_reaches_its_future_and_the_thread_goes_on(model: Model) -> None:
    submissions = Submissions(model)
    model.allowed.release(2)
    with pytest.raises(BackendError, match="broken"):
        submissions.submit("broken").result(timeout=HANG)
    assert submissions.submit(2).result(timeout=HANG) == (2, None)
    assert len(model.threads) == 1
    submissions.close()


def test_a_frame_that_the_caller_cancelled_is_not_executed(model: Model) -> None:
    submissions = Submissions(model)
    first = submissions.submit(1)
    assert model.entered.acquire(timeout=HANG)
    second = submissions.submit(2)
    assert second.cancel()
    assert not first.cancel()
    model.allowed.release()
    assert first.result(timeout=HANG)
    third = submissions.submit(3)
    model.allowed.release()
    assert third.result(timeout=HANG)
    assert model.asked == [1, 3]
    submissions.close()


def test_closing_refuses_what_waits_and_what_comes(model: Model) -> None:
    submissions = Submissions(model)
    first = submissions.submit(1)
    assert model.entered.acquire(timeout=HANG)
    second = submissions.submit(2)
    model.allowed.release()
    submissions.close()
    submissions.close()
    assert first.result(timeout=0) == (1, None)
    with pytest.raises(BackendError, match="closed"):
        second.result(timeout=0)
    with pytest.raises(BackendError, match="closed"):
        submissions.submit(3)


def test_no_thread_before_the_first_frame_and_none_after_the_owner() -> None:
    model = Model()
    before = set(threading.enumerate())
    submissions = Submissions(model)
    assert not new_threads(before)
    model.allowed.release()
    submissions.submit(1).result(timeout=HANG)
    (thread,) = model.threads
    model.threads.clear()
    del model, submissions
    gc.collect()
    thread.join(20)
    assert not thread.is_alive()


@pytest.mark.parametrize("deadline", [-1.0, float("nan")])
def test_a_deadline_is_seconds_from_now(model: Model, deadline: float) -> None:
    with pytest.raises(UsageError, match="deadline"):
        Submissions(model).submit(1, deadline=deadline)


def test_many_threads_submit(model: Model) -> None:
    """Each future gets an answer of its own frame, or is told that a newer one came."""
    submissions = Submissions(model)
    model.allowed.release(10_000)
    outcomes: list[bool] = []

    def loop(thread: int) -> None:
        for number in range(200):
            future = submissions.submit((thread, number))
            try:
                assert future.result(timeout=HANG) == ((thread, number), None)
                outcomes.append(True)
            except SupersededError:
                outcomes.append(False)

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == 800
    assert sum(outcomes) == len(model.asked)
    submissions.close()


def test_with_a_real_bundle(tiny_bundle: Path, frame: np.ndarray) -> None:
    pytest.importorskip("onnxruntime")
    with edge_fg.load(tiny_bundle) as classifier:
        expected = classifier(frame, (4, 4, 20, 20))
        future = classifier.submit(frame, (4, 4, 20, 20))
        np.testing.assert_array_equal(
            future.result(timeout=HANG).probabilities, expected.probabilities
        )
        with pytest.raises(ImageError):
            classifier.submit(np.zeros(3)).result(timeout=HANG)

        async def awaited() -> str:
            return (await asyncio.wrap_future(classifier.submit(frame))).label

        assert asyncio.run(awaited()) == classifier(frame).label
    with pytest.raises(BackendError, match="closed"):
        classifier.submit(frame)


def test_submitting_never_waits(model: Model) -> None:
    """The model is stuck all the time, and 2,000 frames are handed over."""
    submissions = Submissions(model)
    image = np.zeros((1080, 1920, 3), np.uint8)
    submissions.submit(image)
    assert model.entered.acquire(timeout=HANG)
    for _ in range(2000):
        submissions.submit(image, deadline=0.02)
    assert not model.entered.acquire(blocking=False), "it is still at the first"
    model.allowed.release(2)
    submissions.close()


def test_a_program_that_forgets_to_close_still_ends(tiny_bundle: Path) -> None:
    pytest.importorskip("onnxruntime")
    code = (
        "import sys, numpy as np, edge_fg\n"
        "classifier = edge_fg.load(sys.argv[1])\n"
        "frame = np.zeros((64, 64, 3), np.uint8)\n"
        "print(classifier.submit(frame).result().class_id >= 0)\n"
        "classifier.submit(frame)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tiny_bundle)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_a_thread_that_can_not_start_is_tried_again(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    submissions = Submissions(model)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            submissions.submit(1)
    model.allowed.release()
    assert submissions.submit(2).result(HANG) == (2, None)
    submissions.close()


FORK = """
import os, sys
import numpy as np
import edge_fg
classifier = edge_fg.load(sys.argv[1], backend="onnxruntime")
frame = np.zeros((16, 16, 3), np.uint8)
wanted = classifier.submit(frame).result(60).label
child = os.fork()
if not child:
    given = classifier.submit(frame, deadline=60).result(60).label
    classifier.close()
    os._exit(0 if given == wanted else 1)
assert os.waitpid(child, 0)[1] == 0
assert classifier.submit(frame).result(60).label == wanted
"""


def test_a_forked_child_is_answered(tiny_bundle: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORK, str(tiny_bundle)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANG, check=False)
    assert done.returncode == 0, done.stderr
