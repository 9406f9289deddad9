"""Images as frames: decoded by Pillow, as the training pipelines decoded them.

A model was trained on what a decoder and ``convert("RGB")`` of Pillow gave, so images have the
same pixels here. There are three differences from a plain ``Image.open``: the EXIF orientation is
applied, 16-bit greys are scaled instead of clipped, and JPEGs that lost data are refused.
"""

from __future__ import annotations

import io
import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from edge_fg.errors import ImageError
from edge_fg.grey import (
    check_grey_range,
    grey_to_8_bits,
    is_narrow,
    ppm_samples,
    stated_grey,
)
from edge_fg.image_formats import open_image, why_unidentified
from edge_fg.jpeg import MAX_PIXELS_PER_BYTE, SOI, decode_jpeg, jpeg_size
from edge_fg.printing import reason

#: Suffixes (lower case) of the image files that a directory or a data set is searched for.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".jp2", ".avif", ".heic", ".heif", ".hif", ".jxl"}
)

#: Most pixels that an image may have: the number from which Pillow refuses to decode. Telephones
#: give 108 million. Decoding takes about ten bytes a pixel.
MAX_PIXELS = 2 * (1024 * 1024 * 1024 // 4 // 3)

#: Largest ratio of the two sides. No camera gives a longer strip, and enlarging its short side to
#: the model's size would turn a few bytes into thousands of megapixels.
MAX_SIDE_RATIO = 200

# Above this, an image must have a byte for each MAX_PIXELS_PER_BYTE: a few bytes that claim more
# were made to fill the memory.
_MANY_PIXELS = 1 << 24

# An uncompressed image of MAX_PIXELS with three channels of 16 bits, and its header.
_MAX_FILE_BYTES = MAX_PIXELS * 6 + (1 << 20)

OnOdd = Callable[[str, str], None]
"""Takes what is odd about an image that is used all the same: its kind, and a sentence."""

_ORIENTATION_TAG = 0x0112

_logger = logging.getLogger("edge_fg")


class OddImages:
    """Logs what is odd about the images of one source or set: the first of each kind."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._lock = threading.Lock()

    def __call__(self, kind: str, sentence: str) -> None:
        """Log the sentence if it is the first of this kind."""
        with self._lock:
            self._seen[kind] += 1
            if self._seen[kind] == 1:
                _logger.warning("%s", sentence)

    def finish(self) -> None:
        """Log how many there were, where it was not one."""
        for kind, count in self._seen.items():
            if count > 1:
                _logger.warning("images that %s: %d in all", kind, count)
        self._seen.clear()


def read_image(
    path: str | PathLike[Any],
    *,
    grey_range: tuple[int, int] | None = None,
    on_odd: OnOdd | None = None,
) -> NDArray[np.uint8]:
    """Decode an image file into a frame: H x W x 3, BGR, 0..255, C-contiguous.

    The EXIF orientation is applied; transparency is dropped, not blended, as
    ``convert("RGB")`` does it in torchvision and timm; greys of more than 8 bits are scaled by
    what the file states (see `edge_fg.grey`), or from `grey_range`, those of the file's values that
    are black and white; of an animation or a multi-page file the first image is taken. JPEG, PNG,
    WebP, GIF, BMP, TIFF, PPM and JPEG 2000 are read, and AVIF, HEIC or JPEG XL where their plugin
    of Pillow is installed. An image that is odd but whole is used: `on_odd` is told of a JPEG with
    a few bytes too many, and of values that use a small part of their range; None logs a warning.

    An `ImageError` says that there is no such file, that it can't be read, is not an image, is
    damaged or cut short, has more than `MAX_PIXELS` pixels or is a strip beyond `MAX_SIDE_RATIO`,
    says more pixels than its bytes can hold, has lost data as far as its decoder notices, or that
    it holds floating-point values, for which no white is defined.
    """
    path = Path(os.fsdecode(path))
    check_grey_range(grey_range)
    with _naming(path, on_odd) as tell:
        file_bytes = _check_regular(path)
        with path.open("rb") as file:
            if file.read(len(SOI)) == SOI:
                return _frame_of_jpeg(SOI + file.read(), tell)
            with open_image(file) as image:
                _check_size(image.size, file_bytes)
                return _decoded(image, grey_range, tell)


def to_frame(image: Any) -> NDArray[np.uint8]:
    """Return the frame of a path, a Pillow image or an array, as `read_image` would read it.

    An array is one that `as_frame` takes. An `ImageError` says that the image is none of these, or
    can't be used.
    """
    if isinstance(image, (str, PathLike)):
        return read_image(image)
    if isinstance(image, Image.Image):
        where = Path(os.fsdecode(getattr(image, "filename", "") or "given"))
        with _naming(where) as tell:
            return _decoded(image, None, tell)
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
def _naming(path: Path, on_odd: OnOdd | None = None) -> Iterator[OnOdd]:
    """Put the path before what is said of an image, and what is raised into one line with it."""
    tell = on_odd or OddImages()
    try:
        yield lambda kind, what: tell(kind, f"the image {path} {what}")
    except ImageError as error:
        raise ImageError(f"{path} {error}") from error
    except FileNotFoundError as error:
        raise ImageError(f"there is no image {path}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{path} {why_unidentified(path)}") from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has more than {MAX_PIXELS} pixels and is not decoded") from error
    except OSError as error:
        raise ImageError(f"can't read the image {path}: {reason(error)}") from error
    except MemoryError as error:
        raise ImageError(f"there is not enough memory to decode the image {path}") from error
    # Decoders meet damaged files with errors of nearly any type (struct.error, KeyError, ...).
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        raise ImageError(f"can't decode the image {path} ({what})") from error


def _decoded(
    image: Image.Image, grey_range: tuple[int, int] | None, tell: OnOdd
) -> NDArray[np.uint8]:
    _check_size(image.size)
    jpeg = _jpeg_data(image)
    if jpeg is not None:
        frame = _frame_of_jpeg(jpeg, tell)
        if jpeg_size(jpeg) == image.size:  # else a smaller one was asked for by `draft`
            return frame
    stated, samples = stated_grey(image), ppm_samples(image)
    is_deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if samples is None:
        image.load()
        # Some formats learn their size only while decoding.
        _check_size(image.size)
        # `convert` clips at 255, which turns nearly every 16-bit image white.
        samples = np.asarray(image if _has_deep_grey(image) else image.convert("RGB"))
    if _has_deep_grey(image):
        # A TIFF of mode "I" has 32 bits, and nothing says which of its values is white.
        container = 255 if image.mode == "I" and image.format == "TIFF" else 65535
        samples, warning = grey_to_8_bits(samples, stated, container, grey_range)
        if warning:
            tell("use a small part of their range", warning)
    elif is_deep and is_narrow(samples, 0, 255):
        what = "uses a small part of its 16 bits, so it is nearly black or flat: scale its values"
        tell("use a small part of their range", what)
    if samples.ndim == 2:
        samples = np.repeat(samples[:, :, np.newaxis], 3, axis=2)
    return np.ascontiguousarray(_upright(samples, _orientation(image))[:, :, ::-1])


def _has_deep_grey(image: Image.Image) -> bool:
    # Pillow gives a grey PNG of 16 bits the mode "I;16" or, in older releases, "I".
    return image.mode in ("F", "I") or image.mode.startswith("I;16")


def _jpeg_data(image: Image.Image) -> bytes | None:
    """Return the file of a JPEG of which nothing was decoded yet."""
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or not (image.tile and image.fp):
        return None
    if image.tell() != 0:  # another image of an MPO
        return None
    image.fp.seek(0)
    return image.fp.read()


def _frame_of_jpeg(data: bytes, tell: OnOdd) -> NDArray[np.uint8]:
    try:
        pixels, note = decode_jpeg(data, MAX_PIXELS)
    except ImageError as error:
        raise ImageError(f"can't be used: {error}") from error
    _check_size(pixels.shape[1::-1])
    if note:
        tell("have bytes too many", f"has {note}: it is used")
    try:
        with JpegImagePlugin.JpegImageFile(io.BytesIO(data)) as image:
            orientation = _orientation(image)
    except Exception:  # noqa: BLE001 - a damaged EXIF segment must not cost the image
        orientation = 1
    return np.ascontiguousarray(_upright(pixels, orientation))


def _check_regular(path: Path) -> int:
    """Return the size of a file in bytes."""
    # A pipe or a device would make `open` wait, or never end.
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise ImageError("is a directory, not an image")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError("is not a regular file")
    if status.st_size == 0:
        raise ImageError("is empty (0 bytes)")
    if status.st_size > _MAX_FILE_BYTES:
        raise ImageError(f"has {status.st_size} bytes, at most {_MAX_FILE_BYTES} are read")
    return status.st_size


def _check_size(size_wh: tuple[int, ...], file_bytes: int = _MAX_FILE_BYTES) -> None:
    width, height = size_wh
    if width < 1 or height < 1:
        raise ImageError(f"has no pixels ({width} x {height})")
    if width * height > MAX_PIXELS:
        raise ImageError(
            f"says that it has {width} x {height} pixels; at most {MAX_PIXELS} are decoded"
        )
    if max(width, height) > MAX_SIDE_RATIO * min(width, height):
        raise ImageError(
            f"is a strip of {width} x {height} pixels: one side may be at most "
            f"{MAX_SIDE_RATIO} times as long as the other, cut it into parts"
        )
    if width * height > max(_MANY_PIXELS, file_bytes * MAX_PIXELS_PER_BYTE):
        raise ImageError(
            f"says that it has {width} x {height} pixels in {file_bytes} bytes: "
            "no photograph is so dense, and it is not decoded"
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
