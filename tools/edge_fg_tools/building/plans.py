"""Real plans of what is being built, where the target can be compiled for on any machine."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path

from edge_fg.backends.tensorrt.library import import_library
from edge_fg.bundle import Precision
from edge_fg.errors import OutputError
from edge_fg.progress import ProgressCallback
from edge_fg_calibration import Target
from edge_fg_tools.compiling import CompiledPlan, compile_graph

_LOGGER = logging.getLogger("edge_fg")


def check_target(target: Target) -> None:
    """Find out before long work whether `target` can be compiled for.

    Raises
    ------
    MissingDependencyError, BackendUnavailableError
        TensorRT-RTX is wanted and not there, or can't be loaded.
    """
    if target == "tensorrt-rtx":
        import_library(target)


def compile_plans(
    graphs: dict[Precision, bytes], target: Target, progress: ProgressCallback
) -> dict[Precision, CompiledPlan]:
    """Build a plan of each graph for TensorRT-RTX; none for other targets.

    A plan for TensorRT depends on the GPU that it will run on and is built there.

    Raises
    ------
    CompileError
        A graph can't be built.
    """
    if target != "tensorrt-rtx":
        return {}
    return {name: _compile(graph, name, progress) for name, graph in graphs.items()}


def _compile(graph: bytes, precision: Precision, progress: ProgressCallback) -> CompiledPlan:
    def told(stage: str, done: int, total: int) -> None:
        progress(f"{precision} plan: {stage}", done, total)

    try:
        return compile_graph(graph, "tensorrt-rtx", precision=precision, progress=told)
    except OutputError as error:
        _LOGGER.warning("the %s plan is built as a proof, and not kept: %s", precision, error)
    with tempfile.TemporaryDirectory(prefix="edge-fg-plan-") as folder:
        output = Path(folder) / f"{precision}.plan"
        return compile_graph(
            graph, "tensorrt-rtx", precision=precision, output=output, progress=told
        )
