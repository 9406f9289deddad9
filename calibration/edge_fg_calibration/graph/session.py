"""Running a model on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from edge_fg.errors import CalibrationError, MissingDependencyError, ModelError
from edge_fg.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    import onnxruntime

DEFAULT_THREADS = 2


def open_session(
    model: bytes | onnx.ModelProto,
    *,
    threads: int = DEFAULT_THREADS,
    optimise: bool = True,
    arena: bool = True,
    purpose: str = "run a model on the CPU",
) -> onnxruntime.InferenceSession:
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
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "build", purpose) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = arena
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # Threads that wait by spinning slow each other down many times over on a busy machine.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    data = model if isinstance(model, bytes) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base of their own
        raise ModelError(f"ONNX Runtime refuses the model: {error}") from error


def run_session(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feed: dict[str, NDArray[Any]]
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
    size = session.get_inputs()[0].shape[0]
    ((name, batch),) = feed.items()
    if not isinstance(size, int) or len(batch) == size:
        return _run(session, outputs, feed)
    parts = []
    for begin in range(0, len(batch), size):
        some = batch[begin : begin + size]
        filled = np.concatenate([some, np.repeat(some[-1:], size - len(some), axis=0)])
        found = _run(session, outputs, {name: filled})
        parts.append([one[: len(some)] if len(one) == size else one for one in found])
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _run(
    session: onnxruntime.InferenceSession, outputs: Sequence[str], feed: dict[str, NDArray[Any]]
) -> list[NDArray[Any]]:
    try:
        return list(session.run(list(outputs), feed))
    except Exception as error:  # its exceptions share no base of their own
        raise ModelError(f"ONNX Runtime failed on a batch: {error}") from error


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
