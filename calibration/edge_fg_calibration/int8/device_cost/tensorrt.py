"""What TensorRT fuses, as its documentation and its developers say.

Nothing here was seen in an engine: TensorRT builds only on a GPU. Transformer blocks, which it
compiles as a whole, are counted operator by operator, so too high. Sources:

- [catalog] docs.nvidia.com/deeplearning/tensorrt, "Layer Fusion Catalog"
- [quantized] the same, "Working with Quantized Types"
- [#N] github.com/NVIDIA/TensorRT/issues/N
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edge_fg_calibration.int8.device_cost.fusion import Candidate, Fusion, Rule
from edge_fg_calibration.int8.device_cost.network import INT8, Network, Operation, Tensor

_MOVES_VALUES = frozenset({"MaxPool", "Concat", "Transpose", "Slice", "Gather"})
_AVERAGES = frozenset({"AveragePool", "GlobalAveragePool", "ReduceMean"})


def fuse(network: Network, *, promised_only: bool = False) -> Fusion:
    """Return the kernels that TensorRT makes of a network.

    With `promised_only` those fusions are left out that no source promises (`may_take_quantise`).
    """
    hoped = () if promised_only else (may_take_quantise,)
    for edit in (quantise_early, pad_in_convolution, concat_in_place, dequantise_for_float):
        network = edit(network)
    fusion = Fusion(network)
    for operation in network.operations:
        if operation.name in fusion.kernel_of:
            continue
        rules: tuple[Rule, ...] = (takes_pointwise, averages_in_int8)
        if operation.is_weighted:
            rules = (takes_activation, takes_residual, takes_quantise, *hoped)
        fusion.grow(operation, *rules)
    return fusion


def takes_activation(candidate: Candidate) -> bool:
    """Say whether a convolution or product takes in what computes on its result alone.

    It does with ReLU, with a Clip from 0 and with other pointwise functions, SiLU for one
    ([catalog]: convolution with ReLU, with Clip, with a generic activation). A depthwise one takes
    only the first two ([#3205]), as a Clip from another limit is a pointwise layer
    (github.com/dusty-nv/jetson-inference/issues/1855).
    """
    if candidate.from_elsewhere or "QuantizeLinear" in candidate.operators:
        return False
    simple = all(one.operator in {"Relu", "Cast"} or one.from_zero for one in candidate.step)
    return simple or not candidate.main.is_depthwise


def takes_residual(candidate: Candidate) -> bool:
    """Say whether a convolution takes in an addition of two feature maps.

    It does with one of the same shape ([catalog]: convolution and elementwise sum, without
    broadcasting), once.
    """
    earlier = {one.operator for one in candidate.kernel}
    shapes = {candidate.network.tensors[name].dims for name in candidate.step[0].reads}
    two = len(candidate.step[0].reads) == 2
    return candidate.operators == ["Add"] and "Add" not in earlier and two and len(shapes) == 1


def takes_quantise(candidate: Candidate) -> bool:
    """Say whether an INT8 convolution takes in the QuantizeLinear behind it, and writes INT8.

    It does unless it has added a skip operand in float ([quantized]: with a float addend the fused
    convolution writes float, and the Q behind it stays). Float convolutions never do.
    """
    if candidate.operators != ["QuantizeLinear"] or not candidate.main.is_int8:
        return False
    made = {name for one in candidate.kernel for name in one.writes}
    added = {name for one in candidate.kernel[1:] for name in one.reads} - made
    return all(candidate.network.tensors[name].kind == INT8 for name in added)


def may_take_quantise(candidate: Candidate) -> bool:
    """Say whether a float convolution may write INT8 where a QuantizeLinear reads it alone.

    Hoped for, not promised: [quantized] fuses Q with INT8 convolutions and with pointwise layers;
    whether a float kernel with an INT8 result exists is the builder's to find out.
    """
    return candidate.operators == ["QuantizeLinear"] and not candidate.main.is_int8


def takes_pointwise(candidate: Candidate) -> bool:
    """Say whether a pointwise layer takes in those behind it: always ([catalog])."""
    return candidate.main.is_pointwise


def averages_in_int8(candidate: Candidate) -> bool:
    """Say whether average pooling takes in DequantizeLinear and QuantizeLinear around it.

    Then it runs in INT8 ([quantized]).
    """
    main = candidate.main
    return (
        main.operator in _AVERAGES
        and candidate.operators == ["QuantizeLinear"]
        and candidate.network.tensors[main.reads[0]].kind == INT8
    )


def quantise_early(network: Network) -> Network:
    """Move QuantizeLinear before what only moves values.

    TensorRT moves Q backward over operators that commute with it ([quantized]: maximum pooling,
    transposes, ...), and clones it for each operand of a Concat ([#2597]).
    """
    while (late := next(_late_quantise(network), None)) is not None:
        network = _swapped(network, *late)
    return network


def _late_quantise(network: Network) -> Iterator[tuple[Operation, Operation]]:
    for one in network.operations:
        maker = network.makers.get(one.reads[0]) if one.operator == "QuantizeLinear" else None
        if maker is None or network.leaving(one.reads, {one.name}):
            continue
        if maker.operator in _MOVES_VALUES:
            yield maker, one


def _swapped(network: Network, mover: Operation, quantise: Operation) -> Network:
    early = {name: f"{name} {quantise.name}" for name in mover.reads}

    def rewrite(one: Operation, tensors: dict[str, Tensor]) -> Iterator[Operation]:
        if one is mover:
            for old, new in early.items():
                tensors[new] = replace(tensors[old], kind=INT8)
                yield replace(quantise, name=new, reads=(old,), writes=(new,))
            yield replace(
                mover, reads=tuple(early[name] for name in mover.reads), writes=quantise.writes
            )
        elif one is not quantise:
            yield one

    return network.rewritten(rewrite)


def pad_in_convolution(network: Network) -> Network:
    """Drop a Pad that only convolutions read: they pad themselves ([catalog])."""
    return network.without(_only_pads_convolutions)


def _only_pads_convolutions(network: Network, one: Operation) -> bool:
    name = one.writes[0]
    inside = all(reader.is_weighted for reader in network.readers.get(name, ()))
    return one.operator == "Pad" and inside and name not in network.outputs


def concat_in_place(network: Network) -> Network:
    """Drop a Concat of operands of one type: their makers write into its buffer.

    Its build log calls that concat removal (forums.developer.nvidia.com/t/168691).
    """
    return network.without(joins_buffers)


def joins_buffers(network: Network, one: Operation) -> bool:
    """Say whether an operation is a Concat of activations that are stored in one type."""
    kinds = {network.tensors[name].kind for name in (*one.reads, *one.writes)}
    if one.operator != "Concat" or len(kinds) > 1 or one.writes[0] in network.outputs:
        return False
    return network.makers.keys() >= set(one.reads) and not one.weight_bytes


def dequantise_for_float(network: Network) -> Network:
    """Give a float convolution that reads INT8 a DequantizeLinear of its own ([quantized])."""

    def rewrite(one: Operation, tensors: dict[str, Tensor]) -> Iterator[Operation]:
        reads = list(one.reads)
        for i, name in enumerate(reads):
            if one.is_weighted and not one.is_int8 and tensors[name].kind == INT8:
                reads[i] = f"{name} for {one.name}"
                tensors[reads[i]] = replace(tensors[name], kind=tensors[one.writes[0]].kind)
                yield Operation(reads[i], "DequantizeLinear", (name,), (reads[i],))
        yield replace(one, reads=tuple(reads))

    return network.rewritten(rewrite)
