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

    `Device.close` closes what is still open, the youngest first. One that is dropped unclosed is
    closed with a `ResourceWarning`, as an open file is.
    """

    _what = "resource"

    def __init__(self, device: Device, raw: Any) -> None:
        self._device = device
        self._raw = raw
        self._closing = threading.Lock()
        self._key = device.adopt(self)
        self._open = True

    @property
    def device(self) -> Device:
        """The device that it is on."""
        return self._device

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return not self._open

    def close(self) -> None:
        """Release it; it can't be used afterwards. May be called again, from any thread."""
        with self._closing:
            if not self._open:
                return
            self._open = False
        raw, self._raw = self._raw, None
        self._device.disown(self._key)
        if self._device.lost or self._device.closed:
            self._device.abandon(raw)
            return
        with self._device.use():
            self._release(raw)
            # PyCUDA's own destructors need the context too.
            del raw

    @abstractmethod
    def _release(self, raw: Any) -> None:
        """Give back `raw`, with the context pushed."""

    def _check_open(self) -> None:
        if not self._open:
            raise failures.closed(self._what)

    def __del__(self) -> None:
        if getattr(self, "_open", False) and not sys.is_finalizing():
            warnings.warn(f"unclosed {self._what}", ResourceWarning, source=self, stacklevel=2)
            self.close()
