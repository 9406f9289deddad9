"""What all things on a device have in common: one owner, closed once, unusable afterwards."""

from __future__ import annotations

import sys
import threading
import warnings
from abc import abstractmethod
from typing import Any

from edge_fg.closing import Closing
from edge_fg.cuda import failures
from edge_fg.cuda.context import Device


class Resource(Closing):
    """Something that the driver holds for us until `close`.

    `Device.close` closes what is still open, the newest first. One that is dropped unclosed is
    closed with a `ResourceWarning`, as an open file is.
    """

    _what = "resource"
    closed = True
    """Whether it was closed, or not made yet."""

    def __init__(self, device: Device, raw: Any) -> None:
        self.device = device
        self._raw = raw
        self._closing = threading.Lock()
        self._key = device.adopt(self)
        self.closed = False

    def close(self) -> None:
        """Release it; it can't be used afterwards. May be called again, from any thread."""
        with self._closing:
            if self.closed:
                return
            self.closed = True
        raw, self._raw = self._raw, None
        self.device.disown(self._key)
        if self.device.lost or self.device.closed:
            self.device.abandon(raw)
            return
        with self.device.use():
            self._release(raw)
            # PyCUDA's own destructors need the context too.
            del raw

    @abstractmethod
    def _release(self, raw: Any) -> None:
        """Give back `raw`, with the context pushed."""

    def _check_open(self) -> None:
        if self.closed:
            raise failures.closed(self._what)

    def __del__(self) -> None:
        if not self.closed and not sys.is_finalizing():
            warnings.warn(f"unclosed {self._what}", ResourceWarning, source=self, stacklevel=2)
            self.close()
