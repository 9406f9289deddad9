"""How a source is doing: its state, its counters, and who wants to know."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

_logger = logging.getLogger("edge_fg")

SourceState = Literal["connecting", "live", "stalled", "lost", "ended"]

# Explained at `edge_fg.sources.Source`.
_COUNTERS: Final = (
    "frames",
    "reconnects",
    "stalls",
    "frozen",
    "black",
    "size_changes",
    "corrupted",
    "dropped",
)


@dataclass(frozen=True)
class StateChange:
    """A source came into another state.

    Parameters
    ----------
    source
        The source's name, fit to be shown.
    state, previous
        What it is now, and what it was before.
    reason
        Why, in words; never holds credentials.
    at
        When, in seconds of `time.monotonic`.
    """

    source: str
    state: SourceState
    previous: SourceState
    reason: str
    at: float


StateListener = Callable[[StateChange], None]


class SourceStatus:
    """State and counters of one source, safe to be read and written by several threads.

    Each change is logged and told to the listeners, in the thread that caused it and never under a
    lock. A listener that raises is logged and kept: it must not end the source.
    """

    def __init__(self, source: str, state: SourceState = "live") -> None:
        self._source = source
        self._state: SourceState = state
        self._counts = dict.fromkeys(_COUNTERS, 0)
        self._listeners: list[StateListener] = []
        self._lock = threading.Lock()

    @property
    def state(self) -> SourceState:
        """What the source is now."""
        return self._state

    @property
    def counters(self) -> dict[str, int]:
        """A copy of the counters."""
        with self._lock:
            return dict(self._counts)

    def add(self, counter: str, count: int = 1) -> None:
        """Count something that happened; `counter` is one of `Source.counters`."""
        with self._lock:
            self._counts[counter] += count

    def on_state(self, listener: StateListener) -> Callable[[], None]:
        """Tell `listener` of each change from now on; the function returned ends that."""
        with self._lock:
            self._listeners.append(listener)

        def forget() -> None:
            with self._lock:
                if listener in self._listeners:
                    self._listeners.remove(listener)

        return forget

    def change(
        self,
        state: SourceState,
        reason: str,
        *,
        only_from: SourceState | None = None,
        level: int | None = None,
    ) -> None:
        """Bring the source into `state`, unless it is in it, has ended, or isn't `only_from`.

        `reason` holds no credentials. `level` is that of the log line; by default a warning for
        ``stalled`` and ``lost``.
        """
        with self._lock:
            previous = self._state
            if previous in (state, "ended") or only_from not in (None, previous):
                return
            self._state = state
            if state == "stalled":
                self._counts["stalls"] += 1
            listeners = list(self._listeners)
        if level is None:
            level = logging.WARNING if state in ("stalled", "lost") else logging.INFO
        if state == "ended" and previous == "live":
            level = logging.DEBUG  # the end of a file is nothing to talk about
        _logger.log(level, "%s is %s: %s", self._source, state, reason)
        change = StateChange(self._source, state, previous, reason, time.monotonic())
        for listener in listeners:
            try:
                listener(change)
            # Whatever a listener does wrong is its own; the frames must keep coming.
            except Exception:
                _logger.exception("a listener to the state of %s failed", self._source)
