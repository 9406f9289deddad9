"""What TensorRT-RTX fuses, as the build log of its version 1.7 shows it.

With ``profiling_verbosity=DETAILED`` the log lists each kernel with the types and shapes of what it
reads and writes, on a machine without a GPU. All rules were read from such logs;
``tools/benchmarks/device_cost.py`` compares them with the logs of many architectures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from edge_fg_calibration.int8.device_cost import tensorrt
from edge_fg_calibration.int8.device_cost.fusion import Candidate, Fusion
from edge_fg_calibration.int8.device_cost.network import (
    FLOAT,
    HALF,
    Network,
    Operation,
    Tensor,
)

_GENERATED = frozenset(
    {
        *("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization"),
        *("GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax", "ReduceSum", "ReduceL2"),
        *("Transpose", "Slice", "Gather", "Split", "Expand", "Pad", "Concat", "Resize"),
        *("layout", "rescale", "widen", "columns"),  # added below
    }
)
_PADDED_CHANNELS = 4


def fuse(network: Network) -> Fusion:
    """Return the kernels that TensorRT-RTX makes of a network."""
    network = reads_half(tensorrt.quantise_early(network))
    for edit in (channels_last, widen_depthwise, even_columns, rescale_int8, concat_in_place):
        network = edit(network)
    fusion = Fusion(network)
    for operation in network.operations:
        if operation.name in fusion.kernel_of:
            continue
        latest = fusion.latest(operation)
        follows = latest is not None and is_generated(fusion.kernels[latest][0])
        if follows and is_generated(operation):
            fusion.add(operation, latest)
            fusion.pull(operation, is_generated)
        elif operation.is_weighted and not operation.is_int8:
            fusion.grow(operation, tensorrt.takes_activation, takes_additions)
        else:
            fusion.add(operation)
    return fusion


def is_generated(operation: Operation) -> bool:
    """Say whether the compiler generates code for an operation (``kgen`` in the log).

    It does for pointwise functions, reductions, normalisations and moves of values; one generated
    kernel takes in all that follow each other, and may write several tensors.
    """
    return operation.is_pointwise or operation.operator in _GENERATED


def takes_additions(candidate: Candidate) -> bool:
    """Say whether a float convolution takes in an addition of feature maps of its own shape.

    It does with any number of them, as TensorRT with one.
    """
    begun = replace(candidate, kernel=candidate.kernel[:1])
    return tensorrt.takes_residual(begun)


def concat_in_place(network: Network) -> Network:
    """Drop a Concat between kernels that are not generated: they share its buffer.

    Generated ones take it in.
    """
    return network.without(_joins_convolutions)


def _joins_convolutions(network: Network, one: Operation) -> bool:
    if not tensorrt.joins_buffers(network, one):
        return False
    makers = [_main_of(network, network.makers[name]) for name in one.reads]
    return not any(map(is_generated, (*makers, *network.readers.get(one.writes[0], ()))))


def _main_of(network: Network, one: Operation) -> Operation:
    """Return what an activation belongs to: a convolution that takes it in, or itself."""
    while one.is_pointwise and one.reads[0] in network.makers:
        one = network.makers[one.reads[0]]
    return one


def reads_half(network: Network) -> Network:
    """Drop a Cast from FP16 to float32 before a float convolution, which reads FP16 as well."""
    return network.without(_casts_for_convolution)


def _casts_for_convolution(network: Network, one: Operation) -> bool:
    readers = network.readers.get(one.writes[0], ())
    from_half = one.operator == "Cast" and network.tensors[one.reads[0]].kind == HALF
    return from_half and bool(readers) and all(other.is_weighted for other in readers)


def channels_last(network: Network) -> Network:
    """Give a convolution that reads the image a copy of it with channels last.

    With FP16 and INT8 the copy has four channels.
    """

    def rewrite(one: Operation, tensors: dict[str, Tensor]) -> Iterator[Operation]:
        dims = tensors[one.reads[0]].dims if one.is_weighted else ()
        if len(dims) < 3 or dims[1] >= _PADDED_CHANNELS:
            yield one
            return
        name, source = f"{one.name} image", tensors[one.reads[0]]
        padded = dims[1] if source.kind == FLOAT else _PADDED_CHANNELS
        tensors[name] = replace(source, dims=(dims[0], padded, *dims[2:]))
        zeros = tensors[name].bytes - source.bytes  # a stored constant
        yield Operation(name, "layout", one.reads[:1], (name,), weight_bytes=zeros)
        yield replace(one, reads=(name, *one.reads[1:]))

    return network.rewritten(rewrite)


def widen_depthwise(network: Network) -> Network:
    """Give an INT8 depthwise convolution four channels in place of each, three of them zero."""

    def rewrite(one: Operation, tensors: dict[str, Tensor]) -> Iterator[Operation]:
        if not (one.is_int8 and one.is_depthwise and len(tensors[one.reads[0]].dims) > 1):
            yield one
            return
        name, source = f"{one.name} widened", tensors[one.reads[0]]
        batch, channels, *rest = source.dims
        tensors[name] = replace(source, dims=(batch, channels * _PADDED_CHANNELS, *rest))
        zeros = tensors[name].bytes - source.bytes  # a stored constant
        yield Operation(name, "widen", one.reads, (name,), weight_bytes=zeros)
        yield replace(one, reads=(name,), weight_bytes=one.weight_bytes * _PADDED_CHANNELS)

    return network.rewritten(rewrite)


def even_columns(network: Network) -> Network:
    """Let a matrix product write an even number of columns; a later kernel leaves out the last."""

    def rewrite(one: Operation, tensors: dict[str, Tensor]) -> Iterator[Operation]:
        result = tensors[one.writes[0]]
        odd = bool(result.dims) and result.dims[-1] % 2
        if one.operator in {"Gemm", "MatMul"} and one.weight_bytes and odd:
            name = f"{one.name} even"
            tensors[name] = replace(result, dims=(*result.dims[:-1], result.dims[-1] + 1))
            yield replace(one, writes=(name,))
            yield Operation(f"{one.name} columns", "columns", (name,), one.writes)
        else:
            yield one

    return network.rewritten(rewrite)


def rescale_int8(network: Network) -> Network:
    """Let an INT8 convolution or product write float32 products.

    A generated kernel scales them, adds the bias and does what follows, whatever the graph looks
    like.
    """

    def rewrite(one: Operation, tensors: dict[str, Tensor]) -> Iterator[Operation]:
        if one.is_int8:
            name = f"{one.name} products"
            tensors[name] = replace(tensors[one.writes[0]], kind=FLOAT)
            yield replace(one, writes=(name,))
            yield Operation(f"{one.name} rescale", "rescale", (name,), one.writes)
        else:
            yield one

    return network.rewritten(rewrite)
