"""From any classifier's ONNX graph to one that can be calibrated, quantised and compiled."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import onnx
import onnx.shape_inference

from edge_fg.errors import ModelFormatError
from edge_fg.printing import first_line
from edge_fg_tools.graph.batch import make_batch_dynamic, pinned_batch
from edge_fg_tools.graph.grey import take_colour
from edge_fg_tools.graph.interface import ImageInput, Layout, image_input
from edge_fg_tools.graph.kinds import Kind, features_hint, settle_kind
from edge_fg_tools.graph.nodes import has_quantisation, name_nodes
from edge_fg_tools.graph.normalisation import Normalisation, find_normalisation
from edge_fg_tools.graph.output import choose_output, keep_output
from edge_fg_tools.graph.simplify import simplify
from edge_fg_tools.graph.upgrade import (
    fill_sparse,
    inline_functions,
    raise_opset,
    refuse_training,
    settle_format,
    widen_half,
)


@dataclass(frozen=True)
class PreparedModel:
    """A classifier in the form that the rest of the build needs."""

    # Opset 17 or more (less only with a warning), IR version 8 to 10, shapes inferred, each node
    # named, one input and one output of the original names.
    model: onnx.ModelProto
    input_name: str  # Name of the input
    # Size of one image; height and width in pixels. There are three channels, also where the model
    # as it was given takes one: then all three are worth the same, and grey is made of them.
    channels: int
    height: int
    width: int
    is_grey: bool  # Whether that is so
    layout: Layout  # ``"nchw"`` or ``"nhwc"``
    input_dtype: str  # ``"float32"`` or ``"uint8"``
    output_name: str  # Name of the output, N x classes
    classes: int  # How many classes it scores
    kind: Kind  # ``"logits"`` or ``"probabilities"``
    features_hint: str | None  # Why it may hold features, not scores for classes
    batch: int | None  # None where the batch is dynamic (named ``N``), else its fixed size
    warnings: tuple[str, ...]  # What the user should know; each names the node where there is one
    normalisation: Normalisation | None = None  # What it does to pixels before its first layer

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape of one image in the model's layout."""
        if self.layout == "nchw":
            return self.channels, self.height, self.width
        return self.height, self.width, self.channels

    @property
    def image_text(self) -> str:
        """Channels, height and width as text: ``3 x 224 x 224``."""
        return f"{self.channels} x {self.height} x {self.width}"


def prepare(
    model: onnx.ModelProto,
    *,
    input_size: tuple[int, int] | None = None,
    output: str | None = None,
    output_kind: Kind | None = None,
) -> PreparedModel:
    """Check and clean a classifier; every change is proven by running before and after.

    `model` is as `load_model` gives it, and not changed. `input_size` is (height, width) in pixels,
    where the model leaves them open, `output` the one with the classes, where several could be,
    `output_kind` what that holds, where neither graph nor values tell it.

    Raises NotAClassifierError where inputs or outputs are not those of an image classifier,
    UnsupportedNodeError where an operator is not one of ONNX's own, ModelFormatError where the
    opset is too old to be raised or the graph contradicts itself, ModelError where the graph can't
    be run, was exported in training mode or leaves its size open, and UsageError where there is no
    output of that name or it can't be of that kind.
    """
    warnings: list[str | None] = []
    work = inline_functions(model)
    fill_sparse(work)
    settle_format(work)
    refuse_training(work.graph)
    image = image_input(work.graph, input_size)
    _fix_size(work, image)
    quantised = has_quantisation(work)
    if quantised is not None:
        warnings.append(
            f"node {quantised.name!r} ({quantised.op_type}): the model is quantised already; its "
            "quantisation is kept and not calibrated again"
        )
    image = pinned_batch(work, image)
    chosen = choose_output(work, image, output)
    warnings.append(chosen.warning)
    keep_output(work, chosen)
    normalisation = find_normalisation(work, image)
    work, warning = raise_opset(work, image)
    warnings.append(warning)
    work, warning = widen_half(work, image)
    warnings.append(warning)
    if image.dtype == "float16":
        image = dataclasses.replace(image, elem_type=onnx.TensorProto.FLOAT)
    hint = features_hint(work, chosen.name)
    kind, warning = settle_kind(work, image, chosen.name, output_kind)
    warnings.append(warning)
    exported = image
    work, image, warning = take_colour(work, image)
    warnings.append(warning)
    work, image = _clean(work, image, exported, warnings)
    channels, height, width = image.chw
    return PreparedModel(
        model=work,
        input_name=image.name,
        channels=channels,
        height=height,
        width=width,
        is_grey=exported.chw[0] == 1,
        layout=image.layout,
        input_dtype=image.dtype,
        output_name=chosen.name,
        classes=chosen.classes,
        kind=kind,
        features_hint=hint if kind == "logits" else None,
        batch=image.batch,
        warnings=tuple(warning for warning in warnings if warning is not None),
        normalisation=normalisation,
    )


def _clean(
    model: onnx.ModelProto, image: ImageInput, exported: ImageInput, warnings: list[str | None]
) -> tuple[onnx.ModelProto, ImageInput]:
    """Make the batch dynamic, simplify, infer shapes and check."""
    work, image, fixed = make_batch_dynamic(model, image, exported)
    work, kept = simplify(work, image)
    if fixed is not None:
        # Folded constants can be repaired where computed ones could not.
        work, image, fixed = make_batch_dynamic(work, image, exported)
    if has_quantisation(work) is None:
        warnings.append(kept)
    warnings.append(fixed)
    try:
        work = onnx.shape_inference.infer_shapes(work, data_prop=True)
        settle_format(work)
        name_nodes(work.graph)
        onnx.checker.check_model(work)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ModelFormatError(f"the graph contradicts itself: {first_line(error)}") from error
    return work, image


def _fix_size(model: onnx.ModelProto, image: ImageInput) -> None:
    """Write the image's size into the input; shapes inferred from another are forgotten."""
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, size in zip(list(dims)[1:], image.shape, strict=True):
        dim.dim_value = size
    del model.graph.value_info[:]
