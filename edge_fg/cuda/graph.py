"""CUDA graphs: work captured once from a stream, then launched with one call."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from edge_fg.cuda import libcuda
from edge_fg.cuda.context import Device
from edge_fg.cuda.resource import Resource
from edge_fg.cuda.stream import Stream


class Graph(Resource):
    """Work on a device that is launched as one; made by `capture`."""

    _what = "graph"

    def __init__(self, device: Device, handle: int, work: Callable[[], None]) -> None:
        super().__init__(device, handle)
        # The graph holds addresses: what `work` refers to has to live as long as it does.
        self._work = work

    @classmethod
    def capture(cls, stream: Stream, work: Callable[[], None]) -> Graph:
        """Record what `work` queues in `stream`, without executing it.

        Nothing else may use the stream meanwhile; other threads may use other streams. `work` is
        called once: it queues launches and copies of page-locked or device memory; what allocates
        or waits breaks the capture. The graph keeps `work`, and what it refers to.

        Raises `CudaError` if something in `work` can't be captured. An error that `work` itself
        raises comes through as it is; the stream can be used again either way.
        """
        library, device = libcuda.load(), stream.device
        action = "capture a CUDA graph"
        template, executable = ctypes.c_void_p(), ctypes.c_void_p()
        with device.use():
            device.check(
                library.cuStreamBeginCapture_v2(stream.handle, libcuda.THREAD_LOCAL_CAPTURE), action
            )
            try:
                try:
                    work()
                finally:
                    code = library.cuStreamEndCapture(stream.handle, ctypes.byref(template))
                device.check(code, action)
                code = library.cuGraphInstantiateWithFlags(ctypes.byref(executable), template, 0)
                device.check(code, "instantiate a CUDA graph")
            finally:
                if template:
                    library.cuGraphDestroy(template)
            assert executable.value is not None
            try:
                return cls(device, executable.value, work)
            except BaseException:
                library.cuGraphExecDestroy(executable)
                raise

    def launch(self, stream: Stream) -> None:
        """Queue all of it in `stream`.

        Raises `CudaError` if the graph or the stream is closed, or the driver refused.
        """
        self._check_open()
        with self.device.use():
            code = libcuda.load().cuGraphLaunch(self._raw, stream.handle)
            self.device.check(code, "launch a CUDA graph")

    def _release(self, raw: Any) -> None:
        code = libcuda.load().cuGraphExecDestroy(raw)
        self.device.check(code, "release a CUDA graph")
