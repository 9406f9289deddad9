"""The tables that batches of one geometry share on the device."""

from __future__ import annotations

import threading
from collections import OrderedDict

from edge_fg.cuda import Device, DeviceBuffer, Stream, copy_to_device
from edge_fg.preprocess.launch import LaunchPlan


class Tables:
    """The tables of one geometry on the device."""

    def __init__(self, device: Device, plan: LaunchPlan, stream: Stream) -> None:
        self._buffer = DeviceBuffer(device, plan.tables.nbytes)
        self._holders = 1
        self._lock = threading.Lock()
        try:
            copy_to_device(self._buffer, plan.tables, stream)
            # Once per geometry: from here on, any stream may read them.
            stream.synchronize()
        except BaseException:
            self._buffer.close()
            raise

    @property
    def pointer(self) -> int:
        """Address on the device."""
        return self._buffer.pointer

    def hold(self) -> None:
        """Keep them until one more `release`."""
        with self._lock:
            self._holders += 1

    def release(self) -> None:
        """Free them when they are not held any more."""
        with self._lock:
            self._holders -= 1
            unused = self._holders == 0
        if unused:
            self._buffer.close()


class TableCache:
    """The tables of the `most` geometries that were used last. Safe to share between threads."""

    def __init__(self, device: Device, most: int) -> None:
        self._device = device
        self._most = most
        self._kept: OrderedDict[LaunchPlan, Tables] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, plan: LaunchPlan, stream: Stream) -> Tables:
        """Return the tables of `plan`, held for the caller, who releases them."""
        with self._lock:
            found = self._kept.get(plan)
            if found is None:
                found = Tables(self._device, plan, stream)
                self._kept[plan] = found
            self._kept.move_to_end(plan)
            found.hold()
            oldest = self._kept.popitem(last=False)[1] if len(self._kept) > self._most else None
        if oldest is not None:
            # Freeing device memory waits for the work that reads it.
            oldest.release()
        return found

    def clear(self) -> None:
        """Release all."""
        with self._lock:
            kept, self._kept = self._kept, OrderedDict()
        for tables in kept.values():
            tables.release()
