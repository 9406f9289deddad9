"""The formats that images may have, and what opens them: Pillow, or a plugin of it."""

from __future__ import annotations

import importlib
import struct
import threading
import warnings
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from PIL import Image

from edge_fg.errors import ImageError

# Formats of photographs. Pillow knows more, but some start other programs (EPS starts Ghostscript)
# or have no signature (TGA).
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "MPO", "PPM", "JPEG2000")

# Pillow reads each chunk of a PNG in Python; files of cameras and editors have up to some thousand.
_MAX_CHUNKS = 10_000
# OpenJPEG takes about ten kilobytes for each tile before it decodes one.
_MAX_TILES = 4096


class _Plugin(NamedTuple):
    name: str  # of the format
    kind: str  # the format's name in Pillow
    package: str
    module: str  # registers itself where it is imported
    signatures: tuple[bytes, ...]  # at the start of a file, or behind a length of four bytes


_SIGNATURE_BYTES = 12
_CODESTREAM = b"\xff\x4f"  # of JPEG 2000
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")
_PLUGINS = (
    _Plugin("AVIF", "AVIF", "pillow-avif-plugin", "pillow_avif", (b"ftypavif", b"ftypavis")),
    _Plugin(
        "HEIC",
        "HEIF",
        "pillow-heif",
        "pillow_heif.HeifImagePlugin",
        tuple(b"ftyp" + brand for brand in _HEIC_BRANDS),
    ),
    _Plugin("JPEG XL", "JXL", "pillow-jxl-plugin", "pillow_jxl", (b"JXL \r\n\x87\n", b"\xff\x0a")),
)

# `warnings.catch_warnings` changes the whole process and must be left in the order of entering.
_SILENCING = threading.Lock()


def open_image(file: IO[bytes]) -> Image.Image:
    """Open an image at its beginning without decoding it; raises what Pillow raises.

    A plugin that it needs is loaded, if it is installed. `ImageError` if its parts are so many
    that they were made to take long.
    """
    file.seek(0)
    start = file.read(_SIGNATURE_BYTES)
    _check_parts(start, file)
    file.seek(0)
    plugin = _plugin_for(start)
    # Pillow warns from half its limit on, and each time; the limit that counts is ours.
    with _SILENCING, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        Image.init()
        if plugin is not None and plugin.kind not in Image.OPEN:
            with suppress(ImportError):
                importlib.import_module(plugin.module)
        formats = [*_FORMATS, *(plugin.kind for plugin in _PLUGINS)]
        return Image.open(file, formats=[name for name in formats if name in Image.OPEN])


def why_unidentified(path: Path) -> str:
    """Return what a file is of which Pillow knows nothing, and what helps."""
    with path.open("rb") as file:
        start = file.read(_SIGNATURE_BYTES)
    plugin = _plugin_for(start)
    if plugin is None:
        if start.startswith((b"II*\0", b"MM\0*")):
            return "is a damaged or unusual TIFF: save it with 8 or 16 bits a sample"
        return "is not an image in a format that can be read"
    if plugin.kind in Image.OPEN:
        return f"is a {plugin.name} image that is damaged or of a kind that can't be read"
    return f"is a {plugin.name} image: `pip install {plugin.package}`, or convert it to JPEG"


def _check_parts(start: bytes, file: IO[bytes]) -> None:
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        file.seek(8)
        for _ in range(_MAX_CHUNKS):
            head = file.read(8)
            if len(head) < 8 or head[4:] in (b"IDAT", b"IEND"):
                return
            file.seek(int.from_bytes(head[:4], "big") + 4, 1)
        raise ImageError(f"has more than {_MAX_CHUNKS} chunks before its pixels")
    if start.startswith(_CODESTREAM) or start[4:8] == b"jP  ":
        head = start + file.read(1 << 20)
        at = head.find(_CODESTREAM + b"\xff\x51")
        if at >= 0 and len(head) >= at + 40:
            # The corner of the image, its origin, the size of a tile (ISO/IEC 15444-1, A.5.1).
            right, bottom, _, _, width, height = struct.unpack_from(">6I", head, at + 8)
            if min(width, height) and -(-right // width) * -(-bottom // height) > _MAX_TILES:
                raise ImageError(f"has more than {_MAX_TILES} tiles")


def _plugin_for(start: bytes) -> _Plugin | None:
    for plugin in _PLUGINS:
        if start.startswith(plugin.signatures) or start[4:].startswith(plugin.signatures):
            return plugin
    return None
