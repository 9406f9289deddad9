"""ONNX Runtime as calibration uses it: the one CPU session of the runtime, with its own errors.

Explicit INT8 is executed as written, quantise then dequantise around float operators, so that a
figure doesn't depend on which integer instructions this CPU has.
"""

from __future__ import annotations

from functools import partial

from edge_fg.backends import onnxruntime
from edge_fg.errors import ModelError

open_session = partial(
    onnxruntime.open_session, threads=2, fuse_int8=False, error=ModelError, extra="build"
)
"""Opens a serialised model; raises `ModelError` where ONNX Runtime refuses it."""

run_session = partial(onnxruntime.run_batches, error=ModelError)
"""Runs a session on a batch of any size: names of outputs, then the batch by the input's name."""
