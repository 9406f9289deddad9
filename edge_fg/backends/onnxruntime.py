"""ONNX Runtime on the CPU: runs the same graphs on any machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.base import Outputs, Region, cut
from edge_fg.bundle import Bundle, Precision
from edge_fg.errors import BackendError, MissingDependencyError
from edge_fg.preprocess import CpuPreprocessor
from edge_fg.preprocess.raw_frame import Pixels, all_bgr

if TYPE_CHECKING:
    import onnxruntime

_ONLY_ERRORS = 3


class OnnxRuntimeBackend:
    """Executes a variant with ONNX Runtime's CPU provider.

    Parameters
    ----------
    bundle
        An opened bundle.
    precision
        The variant to execute.
    threads
        Threads for one inference; 0 takes as many as there are cores.

    Raises
    ------
    MissingDependencyError
        ONNX Runtime is not installed.
    BackendError
        ONNX Runtime can't execute the graph.
    """

    name = "onnxruntime"
    takes_raw = False
    engine_bytes = None

    def __init__(self, bundle: Bundle, precision: Precision, *, threads: int = 0) -> None:
        manifest = bundle.manifest
        self.precision: Precision = precision
        self._preprocess = CpuPreprocessor(manifest.preprocess)
        self._input = manifest.input.name
        self._outputs = [output.name for output in manifest.outputs]
        batch = manifest.input.shape[0]
        self._fixed_batch = batch if isinstance(batch, int) else None
        self._session: onnxruntime.InferenceSession | None = _open_session(
            bundle.graph(precision), str(bundle.path), threads
        )

    def infer(
        self,
        frames: Sequence[Pixels],
        regions: Sequence[Region | None] | None = None,
    ) -> Outputs:
        """Return the model's outputs; see `edge_fg.backends.base.Backend.infer`."""
        session = self._session
        if session is None:
            raise BackendError("the classifier is closed: load the bundle again")
        if regions is None:
            regions = [None] * len(frames)
        started = time.perf_counter()
        parts = [cut(*pair) for pair in zip(all_bgr(frames), regions, strict=True)]
        tensor = self._preprocess(parts)
        prepared = time.perf_counter()
        tensors = self._run(session, tensor)
        ended = time.perf_counter()
        return Outputs(tensors, 1e3 * (prepared - started), 1e3 * (ended - prepared))

    def _run(
        self, session: onnxruntime.InferenceSession, tensor: NDArray[np.generic]
    ) -> dict[str, NDArray[np.float32]]:
        size = self._fixed_batch or len(tensor)
        chunks: list[list[NDArray[np.generic]]] = []
        for begin in range(0, len(tensor), max(size, 1)):
            chunk = tensor[begin : begin + size]
            missing = size - len(chunk)
            if missing:
                chunk = np.concatenate([chunk, np.repeat(chunk[-1:], missing, axis=0)])
            results = self._execute(session, chunk)
            chunks.append([result[: size - missing] for result in results])
        return {
            name: np.concatenate([chunk[i] for chunk in chunks]).astype(np.float32, copy=False)
            for i, name in enumerate(self._outputs)
        }

    def _execute(
        self, session: onnxruntime.InferenceSession, tensor: NDArray[np.generic]
    ) -> list[NDArray[np.generic]]:
        try:
            results: list[NDArray[np.generic]] = session.run(self._outputs, {self._input: tensor})
        except Exception as error:  # ONNX Runtime's own classes share no other base
            raise BackendError(f"ONNX Runtime failed on the {self.precision} model: {error}") from (
                error
            )
        return results

    def close(self) -> None:
        """Release the session; inference that is under way still ends."""
        self._session = None


def available() -> tuple[bool, str]:
    """Return whether ONNX Runtime can be used, and its version or what is missing."""
    try:
        import onnxruntime
    except ImportError:
        return False, "onnxruntime is not installed (pip install 'edge-fg[cpu]')"
    return True, f"onnxruntime {onnxruntime.__version__}, CPU"


def _open_session(graph: bytes, where: str, threads: int) -> onnxruntime.InferenceSession:
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError("onnxruntime", "cpu", "run a bundle on the CPU") from error
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ONLY_ERRORS
    # Threads that spin between frames would burn a battery, and slow a busy machine down.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BackendError(f"ONNX Runtime can't load the model of {where}: {error}") from error
