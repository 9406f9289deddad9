"""Images as frames: decoded by Pillow, as the training pipelines decoded them.

A model was trained on what a decoder and ``convert("RGB")`` of Pillow gave, so images are read by
the same functions. There are two differences from a plain ``Image.open``: the EXIF orientation is
applied, and 16-bit greys are scaled instead of clipped.
"""

from __future__ import annotations

import os
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from edge_fg.errors import EdgeFGError, ImageError
from edge_fg.printing import reason

#: Suffixes (lower case) of the image files that a directory or a data set is searched for.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".jp2", ".avif", ".heic"}
)

#: Most pixels that an image may have: the number from which Pillow refuses to decode. Telephones
#: give 108 million. Decoding takes about ten bytes a pixel.
MAX_PIXELS = 2 * (1024 * 1024 * 1024 // 4 // 3)

#: Largest ratio of the two sides. No camera gives a longer strip, and enlarging its short side to
#: the model's size would turn a few bytes into thousands of megapixels.
MAX_SIDE_RATIO = 200

# An uncompressed image of MAX_PIXELS with three channels of 16 bits, and its header.
_MAX_FILE_BYTES = MAX_PIXELS * 6 + (1 << 20)

# Formats of photographs. Pillow knows more, but some start other programs (EPS starts Ghostscript)
# or have no signature (TGA).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "MPO", "PPM", "JPEG2000")
_FORMATS_OF_SOME_PILLOWS = ("AVIF", "HEIF")

_ORIENTATION_TAG = 0x0112

# `warnings.catch_warnings` changes the whole process and must be left in the order of entering.
_SILENCING = threading.Lock()


def read_image(path: str | PathLike[Any]) -> NDArray[np.uint8]:
    """Decode an image file into a frame.

    The EXIF orientation is applied; transparency is dropped, not blended, as
    ``convert("RGB")`` does it in torchvision and timm; 16-bit greys keep their upper eight
    bits; of an animation or a multi-page file the first image is taken. JPEG, PNG, WebP, GIF, BMP,
    TIFF, PPM and JPEG 2000 are read, and AVIF or HEIF where the installed Pillow reads them. The
    frame is H x W x 3, BGR, 0..255, C-contiguous.

    An `ImageError` says that there is no such file, that it can't be read, is not an image, is
    damaged or cut short, has more than `MAX_PIXELS` pixels or is a strip beyond `MAX_SIDE_RATIO`,
    or that it holds floating-point values, for which no white is defined.
    """
    path = Path(os.fsdecode(path))
    with _image_errors(path):
        _check_regular(path)
        with _opened(path) as image:
            return _decoded(path, image)


def to_frame(image: Any) -> NDArray[np.uint8]:
    """Return the frame of a path, a Pillow image or an array, as `read_image` would read it.

    An array is one that `as_frame` takes. An `ImageError` says that the image is none of these, or
    can't be used.
    """
    if isinstance(image, (str, PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        where = Path(os.fsdecode(getattr(image, "filename", "") or "given"))
        with _image_errors(where):
            return _decoded(where, image)
    return as_frame(image)


def as_frame(array: Any) -> NDArray[np.uint8]:
    """Check that `array` is a frame (H x W x 3, uint8, BGR, not empty), and return it C-contiguous.

    It is copied only if it is not so yet. An `ImageError` states what was expected, what came, and
    how to convert it where that is known.
    """
    expected = "a frame must be an H x W x 3 uint8 array (BGR)"
    if not isinstance(array, np.ndarray):
        raise ImageError(f"{expected}, not {type(array).__name__}{_advice_for_object(array)}")
    if array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8 and array.size:
        return np.ascontiguousarray(array)
    raise ImageError(
        f"{expected}, not shape {array.shape} of {array.dtype}{_advice_for_array(array)}"
    )


@contextmanager
def _image_errors(path: Path) -> Iterator[None]:
    """Turn what opening and decoding raise into one line with the path."""
    try:
        yield
    except EdgeFGError:
        raise
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {path}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} is not an image in a format that can be read") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has more than {MAX_PIXELS} pixels and is not decoded") from error
    except OSError as error:
        raise ImageError(f"can't read the image {path}: {reason(error)}") from error
    # Decoders meet damaged files with errors of nearly any type (struct.error, KeyError, ...).
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ImageError(f"can't decode the image {path} ({what})") from error


def _decoded(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    _check_size(path, image.size)
    image.load()
    # Some formats learn their size only while decoding.
    _check_size(path, image.size)
    rgb = _upright(_as_rgb(path, image), _orientation(image))
    return np.ascontiguousarray(rgb[:, :, ::-1])


def _opened(path: Path) -> Image.Image:
    # Pillow warns from half its limit on, and each time; the limit that counts is ours.
    with _SILENCING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.init()
        formats = [name for name in _FORMATS + _FORMATS_OF_SOME_PILLOWS if name in Image.OPEN]
        return Image.open(path, formats=formats)


def _check_regular(path: Path) -> None:
    # A pipe or a device would make `open` wait, or never end.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(f"{path} is a directory, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(f"{path} is not a regular file")
    if status.st_size == 0:
        raise ImageError(f"the image {path} is empty (0 bytes)")
    if status.st_size > _MAX_FILE_BYTES:
        raise ImageError(f"{path} has {status.st_size} bytes, at most {_MAX_FILE_BYTES} are read")


def _check_size(path: Path, size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise ImageError(f"the image {path} has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"{path} says that it has {width} x {height} pixels; at most {MAX_PIXELS} are decoded"
        )
    if max(width, height) > MAX_SIDE_RATIO * min(width, height):
        raise ImageError(
            f"the image {path} is a strip of {width} x {height} pixels: one side may be at most "
            f"{MAX_SIDE_RATIO} times as long as the other, cut it into parts"
        )


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    # A damaged EXIF block can raise any error. The pixels are good all the same, and the decoders
    # of the training libraries then show them as they are stored.
    except Exception:  # noqa: BLE001
        return 1
    return orientation if isinstance(orientation, int) else 1


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return a view that undoes an orientation, numbered 1 to 8 as in EXIF 2.32."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels


def _as_rgb(path: Path, image: Image.Image) -> NDArray[np.uint8]:
    # `convert` clips at 255, which turns nearly every 16-bit image white. Pillow gives such
    # a grey PNG or PGM the mode "I;16" or, in older releases, "I"; a TIFF of mode "I" has 32
    # bits, and nothing says which of its values is white.
    if image.mode == "I" and image.format == "TIFF":
        return _grey(path, np.asarray(image), bits=8)
    if image.mode == "I" or image.mode.startswith("I;16"):
        return _grey(path, np.asarray(image), bits=16)
    if image.mode == "F":
        raise ImageError(
            f"the image {path} holds floating-point values, and nothing says which is white: "
            "save it with 8 or 16 unsigned bits"
        )
    return np.asarray(image.convert("RGB"), dtype=np.uint8)


def _grey(path: Path, values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    low, high, white = int(values.min()), int(values.max()), (1 << bits) - 1
    if low < 0 or high > white:
        raise ImageError(
            f"the image {path} has values from {low} to {high}, outside 0..{white}: "
            "save it with 8 or 16 unsigned bits"
        )
    grey = (values >> (bits - 8)).astype(np.uint8)
    return np.repeat(grey[:, :, np.newaxis], 3, axis=2)


def _advice_for_object(thing: Any) -> str:
    if isinstance(thing, Image.Image):
        return ": use numpy.asarray(image.convert('RGB'))[:, :, ::-1]"
    if isinstance(thing, (str, Path)):
        return ": read the file with edge_fg.images.read_image first"
    if thing is None:
        return ": cv2.imread and VideoCapture.read give None when they fail"
    if hasattr(thing, "numpy"):
        return ": use tensor.cpu().numpy(), height x width x channels, BGR, 0..255"
    return ""


def _advice_for_array(array: NDArray[Any]) -> str:
    if array.size == 0:
        return ": it is empty"
    match array.shape:
        case (_, _) | (_, _, 1):
            return ": a grey image, use cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)"
        case (_, _, 4):
            return ": four channels, use frame[:, :, :3] if it is BGRA"
        case (_, _, 3) if array.dtype.kind == "f":
            return ": scale it to 0..255 and use frame.round().astype('uint8')"
        case (_, _, 3):
            return ": use values 0..255 and frame.astype('uint8')"
        case (3, _, _):
            return ": channels come last, use frame.transpose(1, 2, 0)"
        case (1, _, _, _):
            return ": a batch, use frames[0]"
        case (_, _, _, _):
            return ": a batch, give its frames one by one"
    return ""
