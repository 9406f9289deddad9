"""The variants of a model that its author has quantised already."""

from __future__ import annotations

import logging

from edge_fg.bundle import Precision
from edge_fg_calibration import to_fp16, validate_qdq
from edge_fg_calibration.int8.qat import int8_share, is_quantised, without_rounding
from edge_fg_tools.building.variants import Variants
from edge_fg_tools.graph import PreparedModel

_LOGGER = logging.getLogger("edge_fg")

KEPT = (
    "the model's own quantisation is kept: `int8` is the graph as it was given; `fp32` and `fp16` "
    "are the same network with its ranges but without their rounding, and are compared with the "
    "graph as it was given"
)
"""What the report says of such a build."""


def quantised_variants(
    prepared: PreparedModel, precisions: tuple[Precision, ...]
) -> Variants | None:
    """Return the variants of a quantised model, None for a float model.

    Nothing is calibrated: the scales were learnt together with the weights.

    Raises
    ------
    UnsupportedNodeError
        A backend would refuse the quantisation, or compute something else; names the node.
    """
    if not is_quantised(prepared.model):
        return None
    validate_qdq(prepared.model)
    _LOGGER.info("%s", KEPT)
    graphs: dict[Precision, bytes] = {}
    smooth = without_rounding(prepared.model)
    for precision in precisions:
        model = prepared.model if precision.startswith("int8") else smooth
        if precision in {"fp16", "int8-fp16"}:
            model = to_fp16(model)
        graphs[precision] = model.SerializeToString(deterministic=True)
    return Variants(graphs=graphs, int8=None, int8_macs=int8_share(prepared.model))
