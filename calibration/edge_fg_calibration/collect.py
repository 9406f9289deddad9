"""One pass over the calibration pictures: a histogram of each tensor, in fixed memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError, UsageError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.graph import Graph
from edge_fg_calibration.histogram import DEFAULT_BINS, Histogram
from edge_fg_calibration.prepare import copied
from edge_fg_calibration.run import DEFAULT_THREADS, open_session, run_session

_PICTURES_AT_ONCE = 4


def collect_histograms(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    tensors: Sequence[str],
    *,
    input_name: str,
    progress: ProgressCallback = no_progress,
    total: int = 0,
    bins: int = DEFAULT_BINS,
    threads: int = DEFAULT_THREADS,
) -> dict[str, Histogram]:
    """Run the model once over all batches and count the values of `tensors`.

    Memory doesn't grow with the number of pictures: batches are cut to four pictures, counted
    and dropped. The graph runs unoptimised, so the tensors are those that it describes.

    Parameters
    ----------
    model
        A float32 model.
    batches
        Network inputs, each n x 3 x H x W.
    tensors
        Names of float tensors: the input, or outputs of nodes.
    input_name
        Name of the model's picture input.
    progress
        Told the pictures done, stage ``calibrate``.
    total
        Number of pictures, for `progress`; 0 where unknown.
    bins
        Bins of each histogram.
    threads
        Threads inside an operator.

    Returns
    -------
    The histogram of each tensor, by name.

    Raises
    ------
    CalibrationError
        There are no pictures, every picture is one flat colour, or a tensor holds NaN or
        infinite values; the tensor is named.
    UsageError
        A tensor is not in the model.
    ModelError
        ONNX Runtime refuses the model or fails on a batch.
    """
    names = [name for name in dict.fromkeys(tensors) if name != input_name]
    session = open_session(
        _with_outputs(model, names),
        threads=threads,
        optimise=False,
        arena=False,
        purpose="collect calibration statistics",
    )
    found = {name: Histogram(bins) for name in dict.fromkeys(tensors)}
    done, textured = 0, False
    for batch in _small(batches):
        textured = textured or _has_texture(batch)
        feed = {input_name: batch}
        values = run_session(session, names, feed) if names else []
        for name, array in zip((input_name, *names), (batch, *values), strict=True):
            if name in found:
                _count(found[name], name, array)
        done += len(batch)
        progress("calibrate", done, max(total, done))
    if not done:
        raise CalibrationError("there are no calibration pictures")
    if not textured:
        raise CalibrationError(
            "all calibration pictures are one flat colour: ranges from them mean nothing, use "
            "real photographs"
        )
    return found


def _count(histogram: Histogram, name: str, array: NDArray[Any]) -> None:
    try:
        histogram.add(array)
    except CalibrationError as error:
        raise CalibrationError(
            f"tensor {name!r}: {error} on a calibration picture; check the model in float32 and "
            f"its preprocessing"
        ) from error


def _small(batches: Iterable[NDArray[Any]]) -> Iterator[NDArray[Any]]:
    for batch in batches:
        for start in range(0, len(batch), _PICTURES_AT_ONCE):
            yield batch[start : start + _PICTURES_AT_ONCE]


def _has_texture(batch: NDArray[Any]) -> bool:
    """Say whether any channel of any picture holds more than one value."""
    flat = batch.reshape(*batch.shape[:2], -1)
    return bool(np.any(flat.max(axis=2) != flat.min(axis=2)))


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    result = copied(model)
    graph = Graph(model)
    missing = [name for name in names if name not in graph.producers]
    if missing:
        raise UsageError(f"the model has no tensor called {missing[0]!r}")
    present = set(graph.outputs)
    # Without a type ONNX Runtime infers it, which also holds for tensors of unknown shape.
    result.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in present
    )
    return result
