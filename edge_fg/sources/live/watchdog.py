"""One thread that watches over all live sources of the process."""

from __future__ import annotations

import logging
import os
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

    thread: threading.Thread | None  # while there is something to check
    _watched: list[Watched]

    def __init__(self) -> None:
        self._handles_fork = False
        self._reset()

    def watch(self, watched: Watched) -> None:
        """Check `watched` from now on."""
        with self._changed:
            if not self._handles_fork:
                os.register_at_fork(after_in_child=self._reset)
                self._handles_fork = True
            if self.thread is None or not self.thread.is_alive():
                thread = threading.Thread(target=self._run, name="edge_fg-watchdog", daemon=True)
                thread.start()
                self.thread = thread
            self._watched = [*self._watched, watched]
            self._changed.notify_all()

    def forget(self, watched: Watched) -> None:
        """Check `watched` no more; a check that is under way may still end."""
        with self._changed:
            self._watched = [each for each in self._watched if each is not watched]
            self._changed.notify_all()

    def _reset(self) -> None:
        """Begin with nothing to check.

        A child process after a fork does so too: it inherits what its parent watched, but not the
        thread, and a lock that another thread of the parent held would never be free.
        """
        # Reentrant: a source that is collected as garbage is forgotten in any thread.
        self._changed = threading.Condition(threading.RLock())
        self._watched = []
        self.thread = None

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
                # One source's trouble (also a listener that calls `sys.exit`) must not leave the
                # others unwatched.
                except BaseException:
                    _logger.exception("a live source could not be checked")


WATCHDOG: Final = Watchdog()
"""The one of this process; it has no thread until a live source is opened."""
