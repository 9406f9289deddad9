"""Spoilt images and short videos."""

from __future__ import annotations

import io
import struct
import zlib
from fractions import Fraction
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image

from edge_fg.images import read_image
from edge_fg.sources import open_source
from edge_fg.sources.stdin import PipeSource
from fuzzing.mutations import ODD_NUMBERS, spoil_bytes, words

SIZE = (40, 24)
# What Pillow writes: format, mode, options.


def _exif() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # the orientation
    exif.get_ifd(0x8769).update({0x9003: "2024:05:01 12:30:00", 0x9291: "25", 0x9011: "+02:00"})
    return exif.tobytes()


IMAGES: list[tuple[str, str, dict[str, Any]]] = [
    ("JPEG", "RGB", {"exif": _exif()}),
    *[("JPEG", mode, {"progressive": way}) for mode in ("RGB", "L", "CMYK") for way in (0, 1)],
    ("PNG", "RGB", {"exif": _exif()}),
    *[("PNG", mode, {}) for mode in ("RGB", "RGBA", "P", "L", "1", "I;16")],
    *[("WEBP", "RGBA", {"lossless": way}) for way in (False, True)],
    *[("TIFF", mode, {}) for mode in ("I;16", "1", "F", "CMYK", "P")],
    *[("TIFF", "RGB", {"compression": f"tiff_{way}"}) for way in ("lzw", "deflate", "jpeg")],
    *[(kind, "RGB", {}) for kind in ("BMP", "PPM", "JPEG2000", "GIF")],
]
TOKENS = words(b"""\xff\xd8 \xff\xd9 \xff\xda\0\x08\x01 \xff\xc2 \xff\xdd\0\x04\0\1 IDAT acTL
\x21\xff \x2c VP8X ANMF II*\0 Exif\0\0""")
VIDEOS = {"avi": "mjpeg mpeg4", "mkv": "mjpeg libx264", "mp4": "libx264", "ts": "mpeg2video"}
VIDEOS["webm"] = "libvpx"
BOXES = words(b"""moov trak stts stsz stco mdat elst tkhd RIFF LIST idx1 movi 00dc \x1a\x45\xdf\xa3
\x1f\x43\xb6\x75 \xa3 \0\0\0\1\x67 #EXTM3U""")


@cache
def _pixels(mode: str) -> Image.Image:
    noise = np.random.default_rng(5).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 200)
    return image.convert(mode)


@cache
def _image(number: int) -> bytes:
    kind, mode, options = IMAGES[number]
    buffer = io.BytesIO()
    several = (
        {"save_all": True, "append_images": [_pixels(mode)] * 2} if kind in ("GIF", "TIFF") else {}
    )
    _pixels(mode).save(buffer, kind, **options, **several)
    return buffer.getvalue()


@cache
def _video(suffix: str, codec: str) -> bytes:
    import av

    with TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{suffix}"
        with av.open(str(path), "w") as file:
            stream = file.add_stream(codec, rate=10, options={"g": "4", "threads": "1"})
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(9):
                pixels = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
                image = np.kron(pixels, np.ones((16, 16, 1), np.uint8))
                frame = av.VideoFrame.from_ndarray(image, "rgb24").reformat(format=stream.pix_fmt)
                frame.pts, frame.time_base = number, Fraction(1, 10)
                file.mux(stream.encode(frame))
            file.mux(stream.encode())
        return path.read_bytes()


def run_image(random: Random, folder: Path) -> None:
    """An image is refused, or a frame: read alone, and as a source, which asks for its time."""
    number = random.randrange(len(IMAGES))
    data = _image(number)
    data = _spoil_png(random, data) if data[:4] == b"\x89PNG" else spoil_bytes(random, data, TOKENS)
    path = folder / "image.jpg"
    path.write_bytes(data)
    white = random.choice([None, None, (0, 4095), (7, 9)])
    _check(read_image(path, grey_range=white))
    with open_source(path, grey_range=white) as source:
        _check(next(source).image)


def run_pipe(random: Random, folder: Path) -> None:
    """JPEGs one behind the other, as on standard input."""
    rows = b"".join(_image(random.randrange(7)) for _ in range(3))
    data = spoil_bytes(random, rows, TOKENS)
    for frame in PipeSource(stream=io.BytesIO(data)):
        _check(frame.image)


def run_video(random: Random, folder: Path) -> None:
    """A video is refused, or gives frames until its end or an error."""
    suffix = random.choice(list(VIDEOS))
    path = folder / f"video.{suffix}"
    video = _video(suffix, random.choice(VIDEOS[suffix].split()))
    path.write_bytes(spoil_bytes(random, video, BOXES))
    with open_source(path) as source:
        for count, frame in enumerate(source):
            _check(frame.image)
            if count >= 50:
                break


def _check(frame: np.ndarray) -> None:
    assert frame.dtype == np.uint8
    assert frame.ndim == 3
    assert frame.shape[2] == 3
    assert frame.flags.c_contiguous


def _spoil_png(random: Random, data: bytes) -> bytes:
    """Change chunks and correct their checksums, so that more than the checksum is tried."""
    chunks, at = [], 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    made = data[:8]
    for kind, content in random.sample(chunks, len(chunks)) if random.random() < 0.1 else chunks:
        if random.random() < 0.4:
            content = spoil_bytes(random, content, TOKENS)
        length = random.choice(ODD_NUMBERS) % (1 << 32) if random.random() < 0.05 else len(content)
        made += struct.pack(">I", length) + kind + content
        made += struct.pack(">I", zlib.crc32(kind + content))
    return made
