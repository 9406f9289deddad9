"""edge_fg: fine-grained image recognition on edge devices."""

from edge_fg._version import __version__
from edge_fg.preprocess import PreprocessSpec
