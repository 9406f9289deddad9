"""Running a graph over all images of a test."""

from __future__ import annotations

import numpy as np

from edge_fg_calibration.graph.session import open_session, run_session


def predict(model, batches, input_name: str, output_name: str) -> np.ndarray:
    """Return the model's outputs for all batches, N x classes float32."""
    session = open_session(model if isinstance(model, bytes) else model.SerializeToString())
    outputs = []
    for batch in batches:
        (output,) = run_session(session, [output_name], {input_name: batch})
        outputs.append(np.asarray(output, np.float32).reshape(len(batch), -1))
    return np.concatenate(outputs)
