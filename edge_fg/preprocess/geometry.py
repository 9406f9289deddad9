"""Where each pixel of a resized, cropped or letterboxed frame comes from, in whole numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from edge_fg.errors import ImageError
from edge_fg.preprocess.spec import PreprocessSpec

MAX_RESIZED_PIXELS: Final = 1 << 27
"""Most pixels after either pass of resampling: twice the largest size that a spec can name."""


@dataclass(frozen=True)
class Geometry:
    """Sizes and offsets for one frame size, all in pixels."""

    resized: tuple[int, int]  # (height, width) that the whole frame is resampled to
    crop: tuple[int, int, int, int]  # (top, left, height, width) cut out of the resized frame
    offset: tuple[int, int]  # (top, left) where the cut lands in the output
    output: tuple[int, int]  # (height, width) of the output; what the cut doesn't cover is filled

    @property
    def padded(self) -> bool:
        """Whether some of the output is fill."""
        return self.crop[2:] != self.output


def geometry(spec: PreprocessSpec, height: int, width: int) -> Geometry:
    """Work out the geometry for a frame of `height` x `width` pixels.

    The shortest side follows torchvision's ``Resize`` (the longer side is truncated to a whole
    number) and the centre crop its ``CenterCrop`` (halves are rounded to even). Letterboxing
    rounds the scaled sides and puts the odd pixel of the border last.

    Raises `ImageError` if the frame is so narrow a strip, or so large, that resampling would take
    more than `MAX_RESIZED_PIXELS`.
    """
    plan = _plan(spec, height, width)
    # The first pass, across, still has all of the frame's rows.
    if max(height, plan.resized[0]) * plan.resized[1] > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"a frame or region of {width} x {height} pixels would be resized to "
            f"{plan.resized[1]} x {plan.resized[0]}, over {MAX_RESIZED_PIXELS} pixels on the way: "
            "choose a part that is less of a strip"
        )
    return plan


def _plan(spec: PreprocessSpec, height: int, width: int) -> Geometry:
    if spec.resize.mode == "letterbox":
        return _letterbox(spec, height, width)
    if isinstance(spec.resize.size, int):
        short = spec.resize.size
        resized = (
            (short, int(short * width / height))
            if height <= width
            else (int(short * height / width), short)
        )
    else:
        resized = spec.resized_limits
    output = spec.output_size if spec.crop is not None else resized
    top = round((resized[0] - output[0]) / 2)
    left = round((resized[1] - output[1]) / 2)
    return Geometry(resized, (top, left, *output), (0, 0), output)


def _letterbox(spec: PreprocessSpec, frame_height: int, frame_width: int) -> Geometry:
    box_height, box_width = spec.resized_limits
    scale = min(box_height / frame_height, box_width / frame_width)
    resized = (
        min(box_height, max(1, round(frame_height * scale))),
        min(box_width, max(1, round(frame_width * scale))),
    )
    offset = ((box_height - resized[0]) // 2, (box_width - resized[1]) // 2)
    if spec.crop is None:
        return Geometry(resized, (0, 0, *resized), offset, (box_height, box_width))
    height, width = spec.output_size
    crop_top = round((box_height - height) / 2)
    crop_left = round((box_width - width) / 2)
    top, offset_top, rows = _visible(offset[0], resized[0], crop_top, height)
    left, offset_left, columns = _visible(offset[1], resized[1], crop_left, width)
    crop = (top, left, rows, columns)
    return Geometry(resized, crop, (offset_top, offset_left), (height, width))


def _visible(offset: int, length: int, crop: int, cropped: int) -> tuple[int, int, int]:
    """Return (start in the image, offset in the crop, length) of what a crop leaves visible."""
    begin = max(offset, crop)
    end = min(offset + length, crop + cropped)
    return begin - offset if end > begin else 0, begin - crop, max(0, end - begin)
