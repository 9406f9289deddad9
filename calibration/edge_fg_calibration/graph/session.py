"""Running a model on ONNX Runtime's CPU provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import onnx
from numpy.typing import NDArray

from edge_fg.backends import onnxruntime
from edge_fg.errors import ModelError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_THREADS = 2


def open_session(
    model: bytes | onnx.ModelProto,
    *,
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
    optimise, arena, purpose
        See `edge_fg.backends.onnxruntime.open_session`.

    Raises
    ------
    MissingDependencyError
        ONNX Runtime is not installed.
    ModelError
        It refuses the model.
    """
    return onnxruntime.open_session(
        model if isinstance(model, bytes) else model.SerializeToString(),
        threads=_THREADS,
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
