"""From an ONNX classifier to a proven bundle."""

from edge_fg_tools.building.options import BuildOptions
from edge_fg_tools.building.pipeline import BuildResult, build

__all__ = ["BuildOptions", "BuildResult", "build"]
