"""Execution contexts: each executes an engine, one inference at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import numpy as np

from edge_fg.backends.tensorrt.message_log import MessageLog
from edge_fg.cuda import Device, Stream
from edge_fg.errors import BackendError, CudaError

if TYPE_CHECKING:
    from edge_fg.backends.tensorrt.api import ExecutionContext


@dataclass(frozen=True)
class Binding:
    """An input or output of an engine."""

    name: str  # Its name in the graph
    dtype: np.dtype[np.generic]  # Its type
    shape: tuple[int, ...]  # Its sizes; -1 stands for the batch

    def at(self, batch: int) -> tuple[int, ...]:
        """Return its shape for a batch."""
        return tuple(batch if size < 0 else size for size in self.shape)

    def nbytes(self, batch: int) -> int:
        """Return how many bytes a batch has."""
        return prod(self.at(batch)) * self.dtype.itemsize


class Context:
    """Executes an engine, one inference at a time; made by `Engine.new_context`.

    `binding` is the engine's input; `closed` is called when the context was closed.
    """

    def __init__(
        self,
        raw: ExecutionContext,
        binding: Binding,
        device: Device,
        log: MessageLog,
        closed: Callable[[], None],
    ) -> None:
        self._raw: ExecutionContext | None = raw
        self._input = binding
        self._device = device
        self._log = log
        self._closed = closed
        self._batch = 0

    def bind(self, addresses: Mapping[str, int], stream: Stream) -> None:
        """Set the addresses of all inputs and outputs on the device; waits for the stream.

        Raises `BackendError` if TensorRT refused one.
        """
        raw = self._opened()
        self._log.forget_error()
        # Only an engine's first context is promised to have the profile without being told.
        dynamic = self._input.shape[0] < 0
        if dynamic and not raw.set_optimization_profile_async(0, stream.handle):
            raise self._log.failure("choose the profile")
        stream.synchronize()
        for name, address in addresses.items():
            if not raw.set_tensor_address(name, address):
                raise self._log.failure(f"bind {name!r}")

    def set_batch(self, batch: int) -> None:
        """Set the batch of the inferences that follow.

        Raises `BackendError` if the plan was not built for it.
        """
        if batch == self._batch:
            return
        self._log.forget_error()
        if not self._opened().set_input_shape(self._input.name, self._input.at(batch)):
            self._batch = 0
            raise self._log.failure(f"take a batch of {batch}")
        self._batch = batch

    def enqueue(self, stream: Stream) -> None:
        """Queue one inference; the device's context must be pushed.

        Raises `BackendError` if TensorRT refused; the message quotes its reason.
        """
        self._log.forget_error()
        if not self._opened().execute_async_v3(stream.handle):
            raise self._log.failure("execute the model")

    def close(self) -> None:
        """Release it; its work must be done. May be called again."""
        if self._raw is not None:
            with releasing(self._device):
                self._raw = None
            self._closed()

    def _opened(self) -> ExecutionContext:
        if self._raw is None:
            raise BackendError("the execution context is closed: load the bundle again")
        return self._raw


@contextlib.contextmanager
def releasing(device: Device) -> Iterator[None]:
    """Push the device's context for a release, where the device still has one to push."""
    with contextlib.ExitStack() as pushed:
        with contextlib.suppress(CudaError):
            pushed.enter_context(device.use())
        yield
