"""Check and clean any image classifier's ONNX graph before it is quantised."""

from edge_fg.errors import MissingDependencyError

try:
    import onnx as _onnx  # noqa: F401 (each module below needs it)
except Exception as _error:  # a broken package raises whatever it likes
    raise MissingDependencyError("onnx", "build", "read a model") from _error

from edge_fg_tools.graph.kinds import KINDS, Kind
from edge_fg_tools.graph.load import load_model
from edge_fg_tools.graph.prepare import PreparedModel, prepare
from edge_fg_tools.graph.simplify import simplify

__all__ = ["KINDS", "Kind", "PreparedModel", "load_model", "prepare", "simplify"]
