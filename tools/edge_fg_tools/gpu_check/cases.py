"""Random images, specifications and regions for the kernels, and what they must give."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.base import cut
from edge_fg.boxes import Region
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize, presets
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.spec import Filter, Mode
from edge_fg.preprocess.yuv import ColorStandard

YUV: Final = frozenset({PixelFormat.NV12, PixelFormat.YUYV, PixelFormat.I420})
FULL_HD: Final = (1080, 1920)
PRESET: Final = "torchvision"
"""Shortest side to 256, centre crop of 224, bilinear: the most usual way to 224."""

_FILTERS: Final[tuple[Filter, ...]] = ("bilinear", "bicubic", "lanczos", "box")
_MODES: Final[tuple[Mode, ...]] = ("squash", "shortest-side+center-crop", "letterbox")
_DTYPES: Final[tuple[Literal["float32", "float16", "uint8"], ...]] = ("float32", "float16", "uint8")
_LONGEST: Final = 160
_LARGEST_OUTPUT: Final = 64
_MOST_IMAGES: Final = 4
T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """One batch: what to do with which images."""

    spec: PreprocessSpec  # What to do
    sources: tuple[PixelLayout, ...]  # What each image is
    data: tuple[NDArray[np.uint8], ...]  # The bytes of each image's frame

    @property
    def tensor_bytes(self) -> int:
        """How many bytes the batch's tensor has."""
        one = int(np.prod(self.spec.tensor_shape)) * np.dtype(self.spec.dtype).itemsize
        return len(self.sources) * one

    def expected(self) -> NDArray[Any]:
        """Return the tensor: Pillow's pixels, of YUV images those of the oracle."""
        pairs = zip(self.sources, self.data, strict=True)
        images = [cut(source.to_bgr(data), source.region) for source, data in pairs]
        return CpuPreprocessor(self.spec)(images)

    def levels(self, tensor: NDArray[Any]) -> NDArray[np.float64]:
        """Return the tensor's pixels in levels of 0 to 255, before normalisation."""
        axis = (3, 1, 1) if self.spec.layout == "nchw" else (3,)
        std, mean = (np.reshape(of, axis) for of in (self.spec.std, self.spec.mean))
        pixels: NDArray[np.float64] = tensor.astype(np.float64) * std + mean
        return pixels

    def describe(self) -> str:
        """Return the case in a few words."""
        resize = self.spec.resize
        images = ", ".join(
            f"{s.format.value} {s.width} x {s.height}" + (f" region {s.region}" if s.region else "")
            for s in self.sources
        )
        return (
            f"{images} -> {resize.mode} {resize.filter} {self.spec.output_size} "
            f"{self.spec.layout} {self.spec.dtype}"
        )


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """Yield one full-HD case of each format, then `count` small ones of any kind."""
    random = np.random.default_rng(seed)
    for kind in PixelFormat:
        yield full_hd_case(presets()[PRESET], kind, 1, int(random.integers(1 << 31)))
    for _ in range(count):
        spec = random_spec(random)
        kinds = [str(random.choice([kind.value for kind in PixelFormat]))] * _MOST_IMAGES
        if random.random() < 0.5:
            kinds = [str(random.choice([kind.value for kind in PixelFormat])) for _ in kinds]
        images = int(random.integers(1, _MOST_IMAGES + 1))
        sources = tuple(_random_source(random, PixelFormat(kind)) for kind in kinds[:images])
        yield Case(spec, sources, tuple(random_bytes(random, source) for source in sources))


def full_hd_case(spec: PreprocessSpec, kind: PixelFormat, batch: int, seed: int) -> Case:
    """Return a batch of random frames of 1920 x 1080."""
    random = np.random.default_rng(seed)
    standard = ColorStandard.BT709_LIMITED if kind in YUV else None
    source = PixelLayout(kind, *FULL_HD, standard=standard)
    return Case(spec, (source,) * batch, tuple(random_bytes(random, source) for _ in range(batch)))


def random_bytes(random: np.random.Generator, source: PixelLayout) -> NDArray[np.uint8]:
    """Return random bytes for a source's frame."""
    return random.integers(0, 256, source.nbytes, dtype=np.uint8)


def random_spec(random: np.random.Generator) -> PreprocessSpec:
    """Return a random valid specification with a small output."""
    mode = _pick(random, _MODES)
    height, width = (int(side) for side in random.integers(1, _LARGEST_OUTPUT, 2))
    one_side = mode == "shortest-side+center-crop"
    crop = None
    if one_side or random.random() < 0.3:
        limits = (height, height) if one_side else (height, width)
        crop = tuple(int(random.integers(1, limit + 1)) for limit in limits)
    resize = Resize(
        mode,
        height if one_side else (height, width),
        _pick(random, _FILTERS),
        antialias=bool(random.random() < 0.75),
        fill=int(random.integers(0, 256)),
    )
    dtype = _pick(random, _DTYPES)
    plain = dtype == "uint8"
    return PreprocessSpec(
        resize,
        crop=crop,
        color="rgb" if random.random() < 0.5 else "bgr",
        mean=(0.0, 0.0, 0.0) if plain else (123.675, 116.28, 103.53),
        std=(1.0, 1.0, 1.0) if plain else (58.395, 57.12, 57.375),
        layout="nchw" if random.random() < 0.5 else "nhwc",
        dtype=dtype,
    )


def _pick(random: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(random.integers(len(options)))]


def _random_source(random: np.random.Generator, kind: PixelFormat) -> PixelLayout:
    height, width = (int(side) for side in random.integers(1, _LONGEST, 2))
    standard = _pick(random, tuple(ColorStandard)) if kind in YUV else None
    tight = PixelLayout(kind, height, width, standard=standard)
    pitch = None if random.random() < 0.5 else tight.row_bytes + int(random.integers(0, 20))
    return PixelLayout(kind, height, width, pitch, standard, _random_region(random, height, width))


def _random_region(random: np.random.Generator, height: int, width: int) -> Region | None:
    if random.random() < 0.4:
        return None
    x, y = int(random.integers(0, width)), int(random.integers(0, height))
    return (x, y, int(random.integers(1, width - x + 1)), int(random.integers(1, height - y + 1)))
