"""Whether images get to the GPU faster in place or copied, measured on this machine."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.cuda import Device, DeviceBuffer, Stream
from edge_fg.preprocess.batch_factory import transfer_for
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.spec import PreprocessSpec
from edge_fg.preprocess.staging import Transfer

_WARM_UP: Final = 5


@dataclass(frozen=True)
class TransferTimes:
    """What both ways took."""

    # Median milliseconds of one frame, from the call until the tensor is there.
    mapped_ms: float
    staged_ms: float
    chosen: Transfer  # What `CudaPreprocessor` takes on this device by itself

    @property
    def fastest(self) -> Transfer:
        """The faster way."""
        return "mapped" if self.mapped_ms <= self.staged_ms else "staged"


def measure_transfers(
    device: Device,
    spec: PreprocessSpec,
    frame: NDArray[np.uint8],
    *,
    repeats: int = 50,
    image: bytes | None = None,
) -> TransferTimes:
    """Preprocess `frame` both ways and return the times.

    The ways take turns, so that a change of clocks meanwhile meets both.

    Parameters
    ----------
    device
        To measure on.
    spec
        What to do.
    frame
        (H, W, 3) uint8 BGR of the size that matters.
    repeats
        Frames of each way that count; a few more warm up.
    image
        As for `CudaPreprocessor`.

    Raises
    ------
    CudaError
        The GPU refused.
    """
    size = int(np.prod(spec.tensor_shape)) * np.dtype(spec.dtype).itemsize
    times: dict[Transfer, list[float]] = {"mapped": [], "staged": []}
    with (
        Stream(device) as stream,
        DeviceBuffer(device, size) as output,
        CudaPreprocessor(device, spec, 1, transfer="mapped", image=image) as mapped,
        CudaPreprocessor(device, spec, 1, transfer="staged", image=image) as staged,
    ):
        for turn in range(_WARM_UP + repeats):
            for way in (mapped, staged):
                start = time.perf_counter()
                way([frame], None, output.pointer, stream)
                stream.synchronize()
                if turn >= _WARM_UP:
                    times[way.transfer].append(1e3 * (time.perf_counter() - start))
    return TransferTimes(
        statistics.median(times["mapped"]),
        statistics.median(times["staged"]),
        transfer_for(device),
    )
