"""Whether the kernels give Pillow's pixels on this GPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.cuda import Device, DeviceBuffer, Stream, copy_to_device, copy_to_host
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg_tools.gpu_check.cases import Case, random_cases
from edge_fg_tools.gpu_check.findings import Findings

Subject = Callable[[Case], Iterable[NDArray[Any]]]
"""Gives a case's tensor, once for each way there is to compute it."""


def test_kernels(found: Findings, device: Device, stream: Stream) -> None:
    """Compare every way into the kernels with Pillow on random cases, bit by bit."""
    cases = random_cases(found.settings.seed, found.settings.cases)
    compare(found, cases, lambda case: _on_gpu(case, device, stream))


def compare(found: Findings, cases: Iterable[Case], subject: Subject) -> None:
    """Compare what `subject` gives with what each case expects, bit by bit.

    Fails if a single bit of a single tensor differs; the summary describes the first case.
    """
    tensors = wrong = 0
    worst = 0.0
    first = ""
    images: Counter[PixelFormat] = Counter()
    for case in cases:
        expected = case.expected()
        images.update(source.format for source in case.sources)
        for tensor in subject(case):
            tensors += 1
            if not _same_bits(tensor, expected):
                wrong += 1
                first = first or case.describe()
                worst = max(worst, _difference(case, tensor, expected))
    found.figure("images", images.total())
    for kind in PixelFormat:
        found.figure(f"images {kind.value}", images[kind])
    found.figure("tensors compared", tensors)
    found.figure("tensors that differ", wrong)
    found.figure("largest difference", worst, "levels of 255")
    assert tensors, "there was nothing to compare"
    assert not wrong, (
        f"{wrong} of {tensors} tensors differ, by up to {worst:g} levels; first: {first}"
    )
    found.conclude(f"{tensors} tensors bit-exact, largest difference 0")


def _same_bits(found: NDArray[Any], expected: NDArray[Any]) -> bool:
    if (found.shape, found.dtype) != (expected.shape, expected.dtype):
        return False
    return found.tobytes() == expected.tobytes()


def _difference(case: Case, found: NDArray[Any], expected: NDArray[Any]) -> float:
    if found.shape != expected.shape:
        return 255.0
    apart = np.abs(case.levels(found) - case.levels(expected))
    # NaN and infinity too are as wrong as can be.
    return float(np.nan_to_num(apart, nan=255.0).max().clip(0.0, 255.0))


def _on_gpu(case: Case, device: Device, stream: Stream) -> Iterable[NDArray[Any]]:
    """Yield the tensor from images copied, read in place, and lying on the device."""
    count = len(case.sources)
    tensor = np.empty((count, *case.spec.tensor_shape), case.spec.dtype)
    with DeviceBuffer(device, tensor.nbytes) as output:

        def result() -> NDArray[Any]:
            copy_to_host(tensor, output, stream)
            stream.synchronize()
            found: NDArray[Any] = tensor.copy()
            # What the next way leaves out must not be found here.
            tensor.view(np.uint8)[:] = 0x5A
            copy_to_device(output, tensor, stream)
            stream.synchronize()
            return found

        for transfer in ("staged", "mapped"):
            with CudaPreprocessor(device, case.spec, count, transfer=transfer) as gpu:
                gpu.raw(case.sources, case.data, output.pointer, stream)
                yield result()
                if transfer == "staged":
                    _resident(case, gpu, output, stream)
                    yield result()


def _resident(case: Case, gpu: CudaPreprocessor, output: DeviceBuffer, stream: Stream) -> None:
    whole = np.concatenate([data.reshape(-1) for data in case.data])
    starts = np.cumsum([0, *(data.size for data in case.data)])
    with DeviceBuffer(gpu.device, whole.nbytes) as frames:
        copy_to_device(frames, whole, stream)
        pointers = [frames.pointer + int(start) for start in starts[:-1]]
        gpu.on_device(case.sources, pointers, output.pointer, stream)
        stream.synchronize()
