"""One thread that watches over all live sources of the process."""

from __future__ import annotations

import logging
import threading
from typing import Final, Protocol

_logger = logging.getLogger("edge_fg")


class Watched(Protocol):
    """What a watchdog looks after."""

    check_every: float  # seconds

    def check(self) -> None:
        """Look whether all is well; must be quick."""


class Watchdog:
    """Checks what it was given, in a thread that lives as long as there is something to check."""

    def __init__(self) -> None:
        # Reentrant: a source that is collected as garbage is forgotten in any thread.
        self._changed = threading.Condition(threading.RLock())
        self._watched: list[Watched] = []
        self.thread: threading.Thread | None = None  # while there is something to check

    def watch(self, watched: Watched) -> None:
        """Check `watched` from now on."""
        with self._changed:
            if self.thread is not None and self.thread.is_alive():
                self._watched = [*self._watched, watched]
                self._changed.notify_all()
                return
            # A child process inherits what its parent watched, but not the thread.
            self._watched = [watched]
            self.thread = threading.Thread(target=self._run, name="edge_fg-watchdog", daemon=True)
            self.thread.start()

    def forget(self, watched: Watched) -> None:
        """Check `watched` no more; a check that is under way may still end."""
        with self._changed:
            self._watched = [each for each in self._watched if each is not watched]
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._watched:
                    self.thread = None
                    return
                self._changed.wait(min(each.check_every for each in self._watched))
                watched = self._watched
            for each in watched:
                try:
                    each.check()
                # One source's trouble must not leave the others unwatched.
                except Exception:
                    _logger.exception("a live source could not be checked")


WATCHDOG: Final = Watchdog()
"""The one of this process; it has no thread until a live source is opened."""
