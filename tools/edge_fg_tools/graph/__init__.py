"""Check and clean any image classifier's ONNX graph before it is quantised."""

from edge_fg_tools.graph.load import load_model
from edge_fg_tools.graph.prepare import PreparedModel, prepare
from edge_fg_tools.graph.simplify import simplify

__all__ = ["PreparedModel", "load_model", "prepare", "simplify"]
