"""ONNX Runtime on the CPU: runs the same graphs on any machine.

Every ONNX Runtime session of edge_fg is opened by `open_session`, and it is imported here only.
"""

from __future__ import annotations

import functools
import importlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.base import Outputs, cut
from edge_fg.backends.interruption import interruptible
from edge_fg.boxes import Region
from edge_fg.bundle import Bundle, Precision
from edge_fg.errors import BackendError, EdgeFGError, MissingDependencyError
from edge_fg.preprocess import CpuPreprocessor
from edge_fg.preprocess.raw_frame import Pixels, all_bgr
from edge_fg.printing import first_line, import_failure, printable, shortage

if TYPE_CHECKING:
    import onnxruntime

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"
# What ONNX Runtime logs as an error, it also raises.
_ONLY_FATAL = 4
# One graph may ask for a tensor of any size: all of them together get half of the memory.
_SHARE_OF_MEMORY = 0.5
_LIMITED_FOLDING = (1, 32)
_OVER_LIMIT = "Available memory of"
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


class OnnxRuntimeBackend:
    """Executes a variant of an opened bundle with ONNX Runtime's CPU provider.

    `threads` is for one inference; 0 takes as many as there are cores. Raises
    `MissingDependencyError` without ONNX Runtime, and `BackendError` if it can't execute the graph.
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
        self._what = f"the {precision} model of {bundle.path}"
        self._process = os.getpid()
        # By thread: what ends the inference that it waits for.
        self._running: dict[int, onnxruntime.RunOptions] = {}
        self._open: Callable[[], onnxruntime.InferenceSession] = lambda: open_session(
            bundle.graph(precision), what=self._what, threads=threads
        )
        self._reopening = threading.Lock()
        self._left: onnxruntime.InferenceSession | None = None
        self._session: onnxruntime.InferenceSession | None = self._open()
        self._check_interface(self._session, manifest.input.shape)

    def infer(
        self,
        frames: Sequence[Pixels],
        regions: Sequence[Region | None] | None = None,
    ) -> Outputs:
        """Return the model's outputs; see `edge_fg.backends.base.Backend.infer`."""
        session = self._own_session()
        if regions is None:
            regions = [None] * len(frames)
        started = time.perf_counter()
        parts = [cut(*pair) for pair in zip(all_bgr(frames), regions, strict=True)]
        tensor = self._preprocess(parts)
        prepared = time.perf_counter()
        found = run_batches(
            session, self._outputs, {self._input: tensor}, what=self._what, running=self._running
        )
        ended = time.perf_counter()
        tensors = {
            name: values.astype(np.float32, copy=False)
            for name, values in zip(self._outputs, found, strict=True)
        }
        return Outputs(tensors, 1e3 * (prepared - started), 1e3 * (ended - prepared))

    def interrupt(self, thread: threading.Thread) -> None:
        """End the inference that `thread` waits for; see `edge_fg.backends.base.Backend`."""
        options = self._running.get(thread.ident or 0)
        if options is not None:
            options.terminate = True

    def _check_interface(
        self, session: onnxruntime.InferenceSession, shape: tuple[int | str, ...]
    ) -> None:
        """Refuse a graph that takes or gives something else than the manifest says."""
        try:
            inputs = {one.name: one.shape for one in session.get_inputs()}
            types = {one.name: one.type for one in session.get_outputs()}
        except UnicodeDecodeError as error:
            raise BackendError(f"{self._what} has names that are no text: rebuild it") from error
        wrong = [name for name in self._outputs if types.get(name) not in _FLOATS]
        taken = inputs.get(self._input, [])
        stated = [size for size in taken if isinstance(size, int)]
        if list(inputs) != [self._input]:
            found = f"takes {', '.join(map(printable, inputs)) or 'no input'}, not {self._input}"
        elif wrong:
            found = f"gives {types.get(wrong[0], 'nothing')} as {wrong[0]}, not float numbers"
        elif len(taken) != len(shape) or stated != [
            size for size, own in zip(shape, taken, strict=True) if isinstance(own, int)
        ]:
            found = f"takes images of {taken}, not {list(shape)}"
        else:
            return
        raise BackendError(f"{self._what} {found}, as its manifest says: rebuild the bundle")

    def _own_session(self) -> onnxruntime.InferenceSession:
        """Return the session; a forked child opens its own.

        The parent's threads are not in the child, and its locks may be held there for ever. The
        parent's session is kept: releasing it waits for those threads.
        """
        if self._process != os.getpid():
            with self._reopening:
                if self._process != os.getpid() and self._session is not None:
                    self._left, self._session = self._session, self._open()
                    self._process = os.getpid()
        if self._session is None:
            raise BackendError("the classifier is closed: load the bundle again")
        return self._session

    def close(self) -> None:
        """Release the session; an inference under way still ends."""
        if self._process != os.getpid():
            self._left = self._session
        self._session = None


def available() -> tuple[bool, str]:
    """Return whether ONNX Runtime can be used, and its version or what is missing."""
    try:
        onnxruntime = import_onnxruntime()
    except (ImportError, OSError, MemoryError) as error:
        if (why := import_failure(error, "onnxruntime")) is not None:
            return False, f"onnxruntime can't be loaded: {why}"
        return False, "onnxruntime is not installed (pip install 'edge-fg[cpu]')"
    return True, f"onnxruntime {onnxruntime.__version__}, CPU"


def import_onnxruntime() -> ModuleType:
    """Import ONNX Runtime with its telemetry off; `ImportError` where it is not installed.

    Otherwise it keeps an identifier of this device and events of its sessions under the user's
    cache, and sends them to its maker. A value of ``ORT_DISABLE_TELEMETRY`` in the environment is
    left as it is, and so is an ONNX Runtime that the program has imported before.
    """
    if _NO_TELEMETRY in os.environ:
        return importlib.import_module("onnxruntime")
    # It looks at the variable only while it is imported, so the process need not keep it.
    os.environ[_NO_TELEMETRY] = "1"
    try:
        return importlib.import_module("onnxruntime")
    finally:
        os.environ.pop(_NO_TELEMETRY, None)  # another thread may have been faster


def open_session(
    graph: bytes,
    *,
    what: str = "the model",
    threads: int = 0,
    optimise: bool = True,
    fuse_int8: bool = True,
    arena: bool = True,
    error: type[EdgeFGError] = BackendError,
    extra: str = "cpu",
    purpose: str = "run a model on the CPU",
) -> onnxruntime.InferenceSession:
    """Open an ONNX Runtime session on the CPU.

    The graph has its weights inside: no other file is read. `threads` are those inside an operator;
    0 takes as many as there are cores. Without `optimise` the graph runs as it is written, so that
    every tensor can be observed. Without `fuse_int8` INT8 runs as it is written: quantise, then
    dequantise around float operators; the results then don't depend on which integer instructions
    this CPU has. Without `arena` memory is returned after each run instead of keeping the largest
    amount.

    Raises `MissingDependencyError`, with `extra` and `purpose` (what brings ONNX Runtime, and what
    it is needed for), where that is not installed, and `error` if it can't load the graph, which
    `what` names.
    """
    try:
        onnxruntime = import_onnxruntime()
    except (ImportError, OSError, MemoryError) as missing:
        raise MissingDependencyError("onnxruntime", extra, purpose) from missing
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _ONLY_FATAL
    options.enable_cpu_mem_arena = arena
    if arena and _limits_memory(os.getpid()):
        options.add_session_config_entry("session.use_env_allocators", "1")
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimise else levels.ORT_DISABLE_ALL
    entries = {
        # Threads that spin while they wait burn a battery, and slow down a busy machine.
        "session.intra_op.allow_spinning": "0",
        "session.disable_quant_qdq": "0" if fuse_int8 else "1",
        # Weights outside the graph would lie in this folder: there are none.
        "session.model_external_initializers_file_folder_path": os.devnull,
    }
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    version = tuple(int(part) for part in onnxruntime.__version__.split(".")[:2])
    # Older versions compute constants of any size while they load a graph.
    unlimited = ["ConstantFolding"] if version < _LIMITED_FOLDING else None
    cancel = getattr(options, "set_load_cancellation_flag", lambda _: None)
    try:
        return interruptible(
            lambda: onnxruntime.InferenceSession(
                graph,
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=False,
                disabled_optimizers=unlimited,
            ),
            lambda: cancel(True),
        )
    except Exception as failure:  # ONNX Runtime's own classes share no other base
        raise error(_sentence("load", what, failure)) from failure


@functools.lru_cache(maxsize=1)
def _limits_memory(_process: int) -> bool:
    """Limit the memory that the sessions of a process take together; return whether it could be.

    It can't where the program has done so itself, or, with some versions, in a forked child.
    """
    onnxruntime = import_onnxruntime()
    limit = int(_SHARE_OF_MEMORY * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    where = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, onnxruntime.OrtMemType.DEFAULT)
    try:
        onnxruntime.create_and_register_allocator(
            where, onnxruntime.OrtArenaCfg({"max_mem": limit})
        )
    except Exception:  # noqa: BLE001  ONNX Runtime's own classes share no other base
        return False
    return True


def _sentence(verb: str, what: str, failure: Exception) -> str:
    if _OVER_LIMIT in str(failure) or shortage(failure):
        return (
            f"there is not enough memory to {verb} {what}: ONNX Runtime gets half of the "
            "machine's memory; close other programs, or use a smaller model or batch"
        )
    return f"ONNX Runtime can't {verb} {what}: {first_line(failure)}"


def run_session(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str] | None,
    inputs: Mapping[str, NDArray[Any]],
    *,
    what: str = "the model",
    error: type[EdgeFGError] = BackendError,
    running: dict[int, onnxruntime.RunOptions] | None = None,
) -> list[NDArray[Any]]:
    """Run a session from `open_session` once; a signal can interrupt it.

    `outputs` names the tensors wanted, None for all outputs; `inputs` has a batch for each input,
    by the input's name. While it runs, `running` has what ends it, by the caller's thread. Raises
    `error` if ONNX Runtime can't run the graph, which `what` names.
    """
    options: Any = import_onnxruntime().RunOptions()
    running = {} if running is None else running
    thread = threading.get_ident()
    running[thread] = options
    names = None if outputs is None else list(outputs)
    try:
        return list(
            interruptible(
                lambda: session.run(names, dict(inputs), options),
                lambda: setattr(options, "terminate", True),
            )
        )
    except Exception as failure:  # ONNX Runtime's own classes share no other base
        raise error(_sentence("run", what, failure)) from failure
    finally:
        del running[thread]


def run_batches(
    session: onnxruntime.InferenceSession,
    outputs: Sequence[str],
    inputs: Mapping[str, NDArray[Any]],
    *,
    what: str = "the model",
    error: type[EdgeFGError] = BackendError,
    running: dict[int, onnxruntime.RunOptions] | None = None,
) -> list[NDArray[Any]]:
    """Run a batch of any size on a graph with one input.

    A graph with a fixed batch runs as often as needed; the last part is filled up with copies of
    the last image, whose results are dropped. Parameters and errors are those of `run_session`.
    """
    size = session.get_inputs()[0].shape[0]
    ((name, batch),) = inputs.items()
    run = functools.partial(run_session, session, outputs, what=what, error=error, running=running)
    if not isinstance(size, int) or len(batch) == size:
        return run(inputs)
    parts = []
    for begin in range(0, len(batch), size):
        part = batch[begin : begin + size]
        filled = np.concatenate([part, np.repeat(part[-1:], size - len(part), axis=0)])
        found = run({name: filled})
        parts.append([one[: len(part)] if np.shape(one)[:1] == (size,) else one for one in found])
    try:
        return [np.concatenate(column) for column in zip(*parts, strict=True)]
    except ValueError as failure:
        raise error(
            f"{what} gives outputs that can't be joined: {first_line(failure)}"
        ) from failure
