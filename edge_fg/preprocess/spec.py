"""What happens to a frame before the model sees it, as data."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge_fg.errors import PreprocessError

Mode = Literal["squash", "shortest-side+center-crop", "letterbox"]
Filter = Literal["bilinear", "bicubic", "lanczos", "box"]
Pixels = Annotated[int, Meta(ge=1, le=8192)]
# Not tuple[Pixels, Pixels]: msgspec 0.22 reads past its type table for a fixed-length tuple in a
# union with a bounded int.
Size = Annotated[tuple[Pixels, ...], Meta(min_length=2, max_length=2)]
Level = Annotated[float, Meta(ge=-1024.0, le=1024.0)]
Deviation = Annotated[float, Meta(gt=1e-6, le=1024.0)]
Byte = Annotated[int, Meta(ge=0, le=255)]

_MAX_FLOAT16: Final = 65504.0


class Resize(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a frame of any size becomes one of the size that the model takes."""

    # ``squash`` stretches the whole frame to `size`; ``shortest-side+center-crop`` scales the
    # shorter side to `size` and leaves the cut to `PreprocessSpec.crop`; ``letterbox`` keeps the
    # aspect ratio and fills the rest of `size`.
    mode: Mode
    # ``(height, width)`` in pixels; one number, the shorter side, for ``shortest-side+center-
    # crop``.
    size: Size | Pixels
    filter: Filter = "bilinear"  # Pillow's filter of that name
    # True widens the filter when shrinking, as Pillow always does, and with it torchvision and
    # timm. False samples at its native width, as TensorFlow's ``tf.image.resize`` and OpenCV do:
    # only for models that were trained that way.
    antialias: bool = True
    fill: Byte = 114  # Grey level 0..255 around a letterboxed frame (114 is YOLO's)

    def __post_init__(self) -> None:
        one_number = isinstance(self.size, int)
        if one_number != (self.mode == "shortest-side+center-crop"):
            wanted = "one number" if not one_number else "[height, width]"
            raise ValueError(f"resize mode `{self.mode}` takes a size of {wanted}")


class PreprocessSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything between a frame and the model's input tensor.

    The pixels after `resize` and `crop` are exactly Pillow's, uint8; then each becomes
    ``(pixel - mean) / std``.

    Parameters
    ----------
    resize
        How the frame gets the model's size.
    crop
        ``(height, width)`` of a centre crop after resizing, or None.
    color
        Order of the colour channels that the model takes; frames come as BGR.
    mean, std
        Per channel in the model's colour order, in units of 0..255; together they must keep
        every pixel within `dtype`.
    layout
        ``nchw`` or ``nhwc``.
    dtype
        Of the tensor that the model takes.
    """

    resize: Resize
    crop: Size | None = None
    color: Literal["rgb", "bgr"] = "rgb"
    mean: tuple[Level, Level, Level] = (0.0, 0.0, 0.0)
    std: tuple[Deviation, Deviation, Deviation] = (1.0, 1.0, 1.0)
    layout: Literal["nchw", "nhwc"] = "nchw"
    dtype: Literal["float32", "float16", "uint8"] = "float32"

    def __post_init__(self) -> None:
        shortest_side = isinstance(self.resize.size, int)
        if shortest_side and self.crop is None:
            raise ValueError("resize mode `shortest-side+center-crop` needs `crop`")
        if self.crop is not None:
            height, width = self.resized_limits
            if self.crop[0] > height or self.crop[1] > width:
                raise ValueError(f"crop {list(self.crop)} is larger than the resized frame")
        if self.dtype == "uint8" and (self.mean, self.std) != ((0.0,) * 3, (1.0,) * 3):
            raise ValueError("dtype `uint8` takes pixels as they are: leave out mean and std")
        if self.dtype == "float16":
            for mean, std in zip(self.mean, self.std, strict=True):
                if max(abs(mean), abs(255.0 - mean)) / std > _MAX_FLOAT16:
                    raise ValueError(f"std {std:g} takes pixels beyond float16")

    @property
    def resized_limits(self) -> tuple[int, int]:
        """Smallest (height, width) that a resized frame can have."""
        size = self.resize.size
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @property
    def output_size(self) -> tuple[int, int]:
        """(height, width) of the tensor."""
        return (self.crop[0], self.crop[1]) if self.crop is not None else self.resized_limits

    @property
    def tensor_shape(self) -> tuple[int, int, int]:
        """Shape of one image's tensor: (3, H, W) or (H, W, 3)."""
        height, width = self.output_size
        return (3, height, width) if self.layout == "nchw" else (height, width, 3)


_PerChannel = tuple[float, float, float]
_IMAGENET_MEAN = (123.675, 116.28, 103.53)
_IMAGENET_STD = (58.395, 57.12, 57.375)
_HALF = (127.5, 127.5, 127.5)


def _shortest_side(
    short: int, crop: int, filter_name: Filter, mean: _PerChannel, std: _PerChannel
) -> PreprocessSpec:
    resize = Resize("shortest-side+center-crop", short, filter_name)
    return PreprocessSpec(resize, (crop, crop), mean=mean, std=std)


def _keras(mean: _PerChannel, std: _PerChannel, color: Literal["rgb", "bgr"]) -> PreprocessSpec:
    resize = Resize("squash", (224, 224), antialias=False)
    return PreprocessSpec(resize, color=color, mean=mean, std=std, layout="nhwc")


def presets() -> dict[str, PreprocessSpec]:
    """Return the preprocessing that well-known training libraries evaluate with, by name.

    Sources: torchvision's classification presets (256 -> 224, bilinear), timm's default
    configuration (crop 0.875, bicubic), ``keras.applications.imagenet_utils.preprocess_input``
    (modes ``tf`` and ``caffe``), TF-slim's Inception evaluation (299), OpenAI CLIP (bicubic 224).
    """
    return {
        "torchvision": _shortest_side(256, 224, "bilinear", _IMAGENET_MEAN, _IMAGENET_STD),
        "timm": _shortest_side(256, 224, "bicubic", _IMAGENET_MEAN, _IMAGENET_STD),
        "inception": _shortest_side(342, 299, "bilinear", _HALF, _HALF),
        "clip": _shortest_side(
            224,
            224,
            "bicubic",
            (122.7709383, 116.7460125, 104.09373615),
            (68.5005327, 66.6321579, 70.32316305),
        ),
        "keras-tf": _keras(_HALF, _HALF, "rgb"),
        "keras-caffe": _keras((103.939, 116.779, 123.68), (1.0, 1.0, 1.0), "bgr"),
    }


def with_input(spec: PreprocessSpec, *, height: int, width: int, layout: str) -> PreprocessSpec:
    """Fit `spec` to a model's input: its layout and, for a preset, its size.

    A spec whose output already has the model's size only gets the layout. Otherwise the resize
    keeps its proportion to the crop, rounded down as timm's ``transforms_imagenet_eval`` does it
    (256:224 becomes 292:256 for a 256-pixel model).
    """
    fields: dict[str, Any] = msgspec.to_builtins(spec)
    fields["layout"] = layout
    if spec.output_size != (height, width):
        if isinstance(spec.resize.size, int) and spec.crop is not None:
            # In whole numbers: a rounded ratio could fall just below the exact result.
            resized = min(height, width) * spec.resize.size // min(spec.crop)
            fields["resize"]["size"] = max(height, width, resized)
            fields["crop"] = [height, width]
        else:
            fields["resize"]["size"] = [height, width]
            fields["crop"] = None
    try:
        return msgspec.convert(fields, PreprocessSpec)
    except msgspec.ValidationError as error:
        raise PreprocessError(f"preprocessing: {error}") from error
