"""Waiting for what other threads and processes do, without a bound on how fast they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Seconds after which a thing is said to hang. A busy machine must never come near it.
HANG = 120.0


def until(condition: Callable[[], T], what: object = "the condition") -> T:
    """Wait until `condition` gives something true, and return that; fail where it never does.

    `what` is turned into text for the failure only, so that it can tell the state at that time.
    """
    deadline = time.monotonic() + HANG
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come within {HANG:.0f} s"
        time.sleep(0.002)
    return found


def new_threads(before: set[threading.Thread]) -> set[threading.Thread]:
    """Return the threads that run now and are not among `before`, of which some may have ended.

    Numbers of threads can't be compared: one of an earlier test may end at any time.
    """
    return set(threading.enumerate()) - before


def unchanged(value: Callable[[], T]) -> T:
    """Give what must not happen the time to happen: the value once it stood for 0.2 s.

    A test that passes may then have missed a change, but one that fails never fails by chance.
    """
    last, since = value(), time.monotonic()
    while time.monotonic() - since < 0.2:
        time.sleep(0.01)
        if (now := value()) != last:
            last, since = now, time.monotonic()
    return last


def joined(thread: threading.Thread) -> None:
    """Wait for the end of a thread; fail where it hangs."""
    thread.join(HANG)
    assert not thread.is_alive(), f"thread {thread.name} hangs"
