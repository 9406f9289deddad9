"""What the variants of a build cost on devices, for the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx

from edge_fg.bundle import Precision
from edge_fg_calibration import Target
from edge_fg_calibration.int8.device_cost.cost import DeviceCost, Library, device_cost
from edge_fg_calibration.int8.device_cost.devices import Device, devices
from edge_fg_tools.report import CostFacts, CostlyKernel, DeviceLatency

_COSTLIEST = 5
_LIBRARIES: Mapping[Target, tuple[Library, ...]] = {
    "portable": ("tensorrt", "tensorrt-rtx"),
    "tensorrt": ("tensorrt",),
    "tensorrt-rtx": ("tensorrt-rtx",),
}
_DEVICES: Mapping[Library, tuple[str, ...]] = {
    "tensorrt": ("agx-orin", "orin-nx", "orin-nano", "thor"),
    "tensorrt-rtx": ("rtx-4090",),
}


def cost_facts(
    graphs: Mapping[Precision, bytes], target: Target
) -> dict[Precision, tuple[CostFacts, ...]]:
    """Estimate what each variant costs with each library that `target` names."""
    models = {name: onnx.load_model_from_string(graph) for name, graph in graphs.items()}
    known = devices()
    found: dict[Precision, tuple[CostFacts, ...]] = dict.fromkeys(graphs, ())
    for library in _LIBRARIES[target]:
        costs = {name: device_cost(model, library) for name, model in models.items()}
        for name, cost in costs.items():
            half = None if name == "fp16" else costs.get("fp16")
            facts = _facts(cost, half, [known[device] for device in _DEVICES[library]])
            found[name] = (*found[name], facts)
    return found


def _facts(cost: DeviceCost, half: DeviceCost | None, chosen: Sequence[Device]) -> CostFacts:
    return CostFacts(
        library=cost.library,
        kernels=len(cost.kernels),
        activation_bytes=cost.activation_bytes,
        weight_bytes=cost.weight_bytes,
        macs=cost.macs,
        latencies=tuple(
            DeviceLatency(
                device.name,
                *cost.latency(device),
                beside_fp16=cost.compare(half, device) if half else None,
            )
            for device in chosen
        ),
        costliest=tuple(
            CostlyKernel(kernel.layers, kernel.operators, share)
            for kernel, share in cost.costliest(chosen[0], _COSTLIEST)
        ),
    )
