"""Kernels, bytes and operations of a variant, and the time that they bound on a device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import onnx

from edge_fg_calibration.int8.device_cost import tensorrt, tensorrt_rtx
from edge_fg_calibration.int8.device_cost.devices import RATES, Device, Kind, Rates
from edge_fg_calibration.int8.device_cost.fusion import Fusion
from edge_fg_calibration.int8.device_cost.network import HALF, Network, Operation, network_of

Library: TypeAlias = Literal["tensorrt", "tensorrt-rtx"]
Order: TypeAlias = Literal["faster", "slower", "undecided"]

TOLERANCE = 0.1
"""How far an estimate may be off: bytes of most convolutional networks are, see the benchmark."""

_CONVERSIONS = frozenset({"Cast", "QuantizeLinear", "layout"})


@dataclass(frozen=True)
class Kernel:
    """One kernel, for a batch of one."""

    layers: tuple[str, ...]  # Keys of the nodes that it computes
    operators: tuple[str, ...]  # Theirs
    bytes_read: int  # Activations, the image included
    bytes_written: int
    image_bytes: int  # Those of both that are the image, as given or converted
    weight_bytes: int  # Stored weights, biases and scales
    macs: int
    kind: Kind  # What it multiplies
    is_depthwise: bool  # Tensor cores don't help it

    def seconds(self, device: Device, rates: Rates) -> float:
        """Return what it takes: the slower of moving bytes and computing, and the launch."""
        moved = self.bytes_read + self.bytes_written + self.weight_bytes
        peak = device.vector_rate if self.is_depthwise else device.tensor_rates[self.kind]
        moving = moved / (device.bandwidth * rates.of_bandwidth)
        return max(moving, 2 * self.macs / (peak * rates.of_peak)) + rates.launch_s


@dataclass(frozen=True)
class DeviceCost:
    """What a library makes of a variant.

    Parameters
    ----------
    library
        Whose rules were used.
    kernels
        With all fusions that the library may do.
    surely
        With those only that its documentation promises.
    is_known
        Whether the rules know how the library runs all of it: not so with attention.
    """

    library: Library
    kernels: tuple[Kernel, ...]
    surely: tuple[Kernel, ...]
    is_known: bool

    @property
    def activation_bytes(self) -> int:
        """Bytes that layers read and write of what layers have made, all fusions done."""
        return sum(one.bytes_read + one.bytes_written - one.image_bytes for one in self.kernels)

    @property
    def weight_bytes(self) -> int:
        """Bytes of stored weights, biases and scales that are read."""
        return sum(one.weight_bytes for one in self.kernels)

    @property
    def macs(self) -> dict[Kind, int]:
        """Multiply-accumulates of one image by what is multiplied; kinds without any left out."""
        counts: Counter[Kind] = Counter()
        for one in self.kernels:
            counts[one.kind] += one.macs
        return {kind: count for kind, count in counts.items() if count}

    def latency(self, device: Device) -> tuple[float, float]:
        """Return the least and the most seconds of one image, without pre- and postprocessing."""
        best, worst = RATES
        return self._range(device, best)[0], self._range(device, worst)[1]

    def compare(self, other: DeviceCost, device: Device) -> Order:
        """Say whether this variant is faster on a device than another.

        However well the device reaches its peak rates, it does so for both: their ranges are
        compared for the same rates, the best and the worst. Ranges that overlap or are nearer than
        `TOLERANCE`, for either, are undecided, and so is all that the rules don't know.
        """
        if not (self.is_known and other.is_known):
            return "undecided"
        orders = {
            _order(self._range(device, rates), other._range(device, rates)) for rates in RATES
        }
        return orders.pop() if len(orders) == 1 else "undecided"

    def costliest(self, device: Device, count: int) -> tuple[tuple[Kernel, float], ...]:
        """Return the kernels that take longest and their share (0..1) of the time, at best."""
        best = RATES[0]
        total = self._range(device, best)[0]
        shares = [(one, one.seconds(device, best) / total) for one in self.kernels]
        return tuple(sorted(shares, key=lambda pair: -pair[1])[:count])

    def _range(self, device: Device, rates: Rates) -> tuple[float, float]:
        low, high = (
            sum(one.seconds(device, rates) for one in kernels)
            for kernels in (self.kernels, self.surely)
        )
        return low, high


def device_cost(model: onnx.ModelProto, library: Library) -> DeviceCost:
    """Estimate what a library makes of a variant's graph, for a batch of one.

    Raises
    ------
    ModelFormatError
        Shapes or types of the graph can't be inferred.
    """
    network = network_of(model)
    is_known = not any(one.is_weighted and len(one.reads) > 1 for one in network.operations)
    if library == "tensorrt-rtx":
        kernels = kernels_of(tensorrt_rtx.fuse(network))
        return DeviceCost(library, kernels, kernels, is_known)
    hoped, sure = (tensorrt.fuse(network, promised_only=one) for one in (False, True))
    return DeviceCost(library, kernels_of(hoped), kernels_of(sure), is_known)


def kernels_of(fusion: Fusion) -> tuple[Kernel, ...]:
    """Count what each kernel reads and writes: all that it doesn't keep to itself."""
    image = _image_tensors(fusion.network)
    return tuple(
        _kernel(fusion.network, operations, image) for operations in fusion.kernels if operations
    )


def _kernel(network: Network, operations: Sequence[Operation], image: set[str]) -> Kernel:
    names = {one.name for one in operations}
    made = {name for one in operations for name in one.writes}
    read = {name for one in operations for name in one.reads} - made
    written = network.leaving(made, names)
    sizes = {name: network.tensors[name].bytes for name in read | written}
    main = next((one for one in operations if one.is_weighted), operations[0])
    half = network.tensors[main.writes[0]].kind == HALF
    return Kernel(
        layers=tuple(one.name for one in operations),
        operators=tuple(one.operator for one in operations),
        bytes_read=sum(sizes[name] for name in read),
        bytes_written=sum(sizes[name] for name in written),
        image_bytes=sum(sizes[name] for name in (*read, *written) if name in image),
        weight_bytes=sum(one.weight_bytes for one in operations),
        macs=sum(one.macs for one in operations),
        kind="int8" if main.is_int8 else "fp16" if half else "fp32",
        is_depthwise=main.is_depthwise,
    )


def _image_tensors(network: Network) -> set[str]:
    """Return the network's inputs, and what only converts them."""
    found = {name for name in network.tensors if name not in network.makers}
    for one in network.operations:
        if one.operator in _CONVERSIONS and found.issuperset(one.reads):
            found.update(one.writes)
    return found


def _order(one: tuple[float, float], other: tuple[float, float]) -> Order:
    if one[1] * (1 + TOLERANCE) < other[0]:
        return "faster"
    return "slower" if other[1] * (1 + TOLERANCE) < one[0] else "undecided"
