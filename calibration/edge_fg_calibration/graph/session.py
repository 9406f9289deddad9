"""Running a model on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.backends import onnxruntime
from edge_fg.errors import CalibrationError, ModelError
from edge_fg.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

DEFAULT_THREADS = 2


def open_session(
    model: bytes | onnx.ModelProto,
    *,
    threads: int = DEFAULT_THREADS,
    optimise: bool = True,
    arena: bool = True,
    purpose: str = "run a model on the CPU",
) -> InferenceSession:
    """Open an ONNX Runtime session on the CPU.

    Explicit INT8 is executed as written, quantise then dequantise around float operators, so
    that a figure doesn't depend on which integer instructions this CPU has.

    Parameters
    ----------
    model
        The model, serialised or not.
    threads
        Threads inside an operator.
    optimise
        False leaves the graph as it is, so that every tensor can be observed.
    arena
        False returns memory after each run instead of keeping the largest amount.
    purpose
        What it is for, should ONNX Runtime be missing.

    Raises
    ------
    MissingDependencyError
        ONNX Runtime is not installed.
    ModelError
        It refuses the model.
    """
    return onnxruntime.open_session(
        model if isinstance(model, bytes) else model.SerializeToString(),
        threads=threads,
        optimise=optimise,
        fuse_int8=False,
        arena=arena,
        error=ModelError,
        extra="build",
        purpose=purpose,
    )


def run_session(
    session: InferenceSession, outputs: Sequence[str], feed: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    """Run one batch; for a model whose batch is fixed it is cut and filled up to that size.

    Parameters
    ----------
    session
        A model with one input, from `open_session`.
    outputs
        Names of the tensors wanted.
    feed
        The batch, by the input's name.

    Raises
    ------
    ModelError
        ONNX Runtime fails on it.
    """
    return onnxruntime.run_batches(session, outputs, feed, error=ModelError)


def predict(
    model: bytes | onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    input_name: str,
    output_name: str,
    progress: ProgressCallback = no_progress,
    *,
    threads: int = DEFAULT_THREADS,
    stage: str = "predict",
    total: int = 0,
) -> NDArray[np.float32]:
    """Return the model's outputs for all images.

    Parameters
    ----------
    model
        The model, serialised or not.
    batches
        Network inputs, each n x 3 x H x W.
    input_name, output_name
        Names of the model's image input and class output.
    progress
        Told the images done, as `stage`.
    threads
        Threads inside an operator.
    stage, total
        Name of the stage and number of images, for `progress`.

    Returns
    -------
    Outputs, N x classes.

    Raises
    ------
    CalibrationError
        There are no batches.
    ModelError
        ONNX Runtime refuses the model or fails on a batch.
    """
    session = open_session(model, threads=threads)
    outputs = []
    done = 0
    for batch in batches:
        (output,) = run_session(session, [output_name], {input_name: batch})
        outputs.append(np.asarray(output, dtype=np.float32).reshape(len(batch), -1))
        done += len(batch)
        progress(stage, done, max(total, done))
    if not outputs:
        raise CalibrationError("there are no images to run the model on")
    return np.concatenate(outputs)
