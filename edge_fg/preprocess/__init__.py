"""From a frame to the model's input tensor, with the pixels that the model was trained on."""

from edge_fg.preprocess.cpu import CpuPreprocessor
from edge_fg.preprocess.spec import PreprocessSpec, Resize, presets
from edge_fg.preprocess.spec_file import load_preprocess, parse_preprocess

__all__ = [
    "CpuPreprocessor",
    "PreprocessSpec",
    "Resize",
    "load_preprocess",
    "parse_preprocess",
    "presets",
]
