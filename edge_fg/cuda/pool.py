"""Things of a device that threads borrow, each for one thread at a time."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

from edge_fg.errors import BackendError, DeviceMemoryError

_log = logging.getLogger("edge_fg")
ItemT = TypeVar("ItemT")


class Pool(Generic[ItemT]):
    """Lends `items`, at least one, to threads.

    Where all are lent, `make` makes one more, up to `limit`; without `make` threads wait. With
    `in_turn` the item that was returned first is lent next; otherwise the last one, so that no
    more items are used than threads need.
    """

    def __init__(
        self,
        items: Iterable[ItemT],
        make: Callable[[], ItemT] | None = None,
        limit: int = 0,
        *,
        in_turn: bool = False,
    ) -> None:
        self.items: list[ItemT] = list(items)
        """All items, lent ones too."""
        self._make = make
        self._limit = limit
        self._in_turn = in_turn
        self._changed = threading.Condition()
        self._free = deque(self.items)
        self._making = 0
        self._stopped: BackendError | None = None

    @property
    def closed(self) -> bool:
        """Whether it lends no more."""
        return self._stopped is not None

    @property
    def lent(self) -> int:
        """How many items are lent now."""
        return len(self.items) - len(self._free)

    @contextlib.contextmanager
    def lend(self) -> Iterator[ItemT]:
        """Lend an item while the block runs; waits for one where all are lent.

        After `stop` it raises what that was given.
        """
        item = self._borrow()
        try:
            yield item
        finally:
            with self._changed:
                self._free.append(item)
                self._changed.notify_all()

    def stop(self, error: BackendError) -> None:
        """Lend no more: further threads get `error`, or what was given first."""
        with self._changed:
            self._stopped = self._stopped or error
            self._changed.notify_all()

    def drain(self) -> None:
        """Wait until every item is back, after `stop`."""
        with self._changed:
            self._changed.wait_for(lambda: not self.lent and not self._making)

    def _borrow(self) -> ItemT:
        with self._changed:
            while True:
                if self._stopped is not None:
                    raise type(self._stopped)(str(self._stopped))
                if self._free:
                    return self._free.popleft() if self._in_turn else self._free.pop()
                if self._make is not None and len(self.items) + self._making < self._limit:
                    self._making += 1
                    break
                self._changed.wait()
        return self._grow(self._make)

    def _grow(self, make: Callable[[], ItemT]) -> ItemT:
        made: list[ItemT] = []
        try:
            made.append(make())
        except DeviceMemoryError as error:
            wanted, self._limit = self._limit, len(self.items)
            _log.warning(
                "the GPU's memory is enough for %d at a time, not for %d: %s",
                *(self._limit, wanted, error),
            )
        finally:
            with self._changed:
                self._making -= 1
                self.items.extend(made)
                self._changed.notify_all()
        return made[0] if made else self._borrow()
