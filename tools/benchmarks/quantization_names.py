"""The methods that `quantization.py` knows; a module of its own because it must import nothing."""

from __future__ import annotations

METHODS: tuple[str, ...] = (
    "edge-fg portable",
    "edge-fg tensorrt",
    "edge-fg tensorrt, no corrections",
    "edge-fg tensorrt, entropy alone",
    "onnxruntime MinMax",
    "onnxruntime Entropy",
    "onnxruntime Percentile",
    "onnxruntime MinMax, inputs only",
    "modelopt max",
    "modelopt entropy",
)
