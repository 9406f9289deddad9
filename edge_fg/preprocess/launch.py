"""What to launch on a GPU to turn frames into the model's tensor: plain data, no CUDA.

A `LaunchPlanner` turns a specification and the sources of a batch into a `LaunchPlan`: tables to
upload once, a small array of descriptors to upload with every batch, and two launches. The first
kernel resamples across, into words of blue, green and red, only the rows and columns that the
crop needs; the second resamples down, normalises by table and writes the tensor. See
``docs/kernels.md``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import UsageError
from edge_fg.preprocess.cpu import normalisation_table
from edge_fg.preprocess.geometry import Geometry, geometry
from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
from edge_fg.preprocess.spec import PreprocessSpec
from edge_fg.preprocess.tables import TILE_COLUMNS, TableSet, across, down
from edge_fg.preprocess.yuv import factors

BLOCK_THREADS: Final = 128
ACROSS_ROWS: Final = 8
"""Rows of one block of the first kernel, as ``ACROSS_ROWS`` in the source."""
DOWN_ROWS: Final = 4
MAX_BATCH: Final = 65535
"""Most blocks in a grid's third dimension."""
KERNELS: Final = ("resample_across", "resample_down_8", "resample_down_16", "resample_down_32")

_FORMATS: Final = tuple(PixelFormat)
"""The kernels' numbers for them are their places here."""

Pointer = Literal["descriptors", "tables", "scratch", "output"]

SAMPLE: Final = np.dtype(
    [
        ("frame", np.uint64),
        ("frame_bytes", np.int64),
        ("chroma", np.int64, (2,)),
        ("scratch", np.int64),
        *((name, np.int32) for name in ("format", "pitch", "chroma_pitch", "width")),
        *((name, np.int32) for name in ("region_x", "region_y", "columns", "scratch_rows")),
        *((name, np.int32) for name in ("across_first", "across_count", "across_weights")),
        *((name, np.int32) for name in ("across_tiles", "source_rows", "rows")),
        *((name, np.int32) for name in ("down_first", "down_count", "down_weights")),
        *((name, np.int32) for name in ("output_height", "output_width", "top", "left", "fill")),
        *((name, np.int32) for name in ("channel_stride", "pixel_stride")),
        *((name, np.int32) for name in ("first_shift", "shift_step")),
        ("yuv", np.int32, (6,)),
    ]
)
"""One image's descriptor: ``struct Sample`` of ``kernels/sample.h``."""


@dataclass(frozen=True)
class Launch:
    """One kernel launch."""

    kernel: str  # Name of the function in the module; one of `KERNELS`
    # (x, y, z) in blocks and threads.
    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    shared_bytes: int  # Dynamic shared memory
    # In the kernel's order; each stands for the device pointer of that name.
    arguments: tuple[Pointer, ...]


@dataclass(frozen=True, eq=False)
class LaunchPlan:
    """All that one batch of a given geometry needs."""

    tables: NDArray[np.uint8]  # uint8, read-only: to be uploaded once, aligned to 16 bytes
    # Size of the memory between the launches, aligned to 16 bytes; it needs no clearing, and
    # batches that run at the same time need one each.
    scratch_bytes: int
    # Of the output tensor, C-contiguous.
    shape: tuple[int, int, int, int]
    dtype: np.dtype[Any]
    launches: tuple[Launch, ...]  # In order, on one stream
    frame_bytes: tuple[int, ...]  # What the buffer behind each frame pointer must hold at least
    template: NDArray[np.void]

    @property
    def descriptor_bytes(self) -> int:
        """Size of what `descriptors` returns."""
        return self.template.nbytes

    def descriptors(
        self, frame_pointers: Sequence[int], out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8]:
        """Return the bytes to upload for frames at these addresses.

        `frame_pointers` are the addresses, as the kernels see them, of each source's first byte;
        the same number may stand several times. Any alignment works; a multiple of 4 is faster.
        They are written to `out`, uint8 of `descriptor_bytes`, such as page-locked memory; None
        allocates. Raises `UsageError` if there are more or fewer pointers than sources, or `out`
        has another size.
        """
        if len(frame_pointers) != len(self.template):
            raise UsageError(
                f"{len(frame_pointers)} frame pointers for a plan of {len(self.template)} sources"
            )
        if out is None:
            out = np.empty(self.descriptor_bytes, np.uint8)
        elif out.dtype != np.uint8 or out.shape != (self.descriptor_bytes,):
            raise UsageError(
                f"descriptors need {self.descriptor_bytes} uint8, not {out.shape} of {out.dtype}"
            )
        out[:] = self.template.view(np.uint8).reshape(-1)
        out.view(SAMPLE)["frame"] = frame_pointers
        return out


class LaunchPlanner:
    """Work out what to launch; remembers the plans of the last `cached_plans` geometries.

    Safe to share between threads.
    """

    def __init__(self, spec: PreprocessSpec, cached_plans: int = 64) -> None:
        self.spec = spec
        self._levels = normalisation_table(spec)
        self._cached = functools.lru_cache(maxsize=cached_plans)(self._plan)

    def plan(self, sources: Sequence[PixelLayout]) -> LaunchPlan:
        """Return the plan for a batch of `sources`; equal batches get the same object.

        Raises `ImageError` if a source is too narrow a strip (see
        `edge_fg.preprocess.geometry.geometry`), and `UsageError` if there is no source, or more
        than `MAX_BATCH`.
        """
        if not 1 <= len(sources) <= MAX_BATCH:
            raise UsageError(f"a batch of {len(sources)} sources: 1 to {MAX_BATCH} can be launched")
        return self._cached(tuple(sources))

    def _plan(self, sources: tuple[PixelLayout, ...]) -> LaunchPlan:
        tables = TableSet(self._levels)
        template = np.zeros(len(sources), SAMPLE)
        scratch_words = 0
        for row, source in zip(template, sources, strict=True):
            _, _, width, height = source.part
            plan = geometry(self.spec, height, width)
            _describe_source(row, source)
            _describe_output(row, self.spec, plan)
            self._describe_axes(row, source, plan, tables)
            row["scratch"] = scratch_words
            scratch_words += int(row["scratch_rows"]) * int(row["columns"])
        template.flags.writeable = False
        dtype = np.dtype(self.spec.dtype)
        return LaunchPlan(
            tables=tables.joined(),
            scratch_bytes=max(16, scratch_words * 4),
            shape=(len(sources), *self.spec.tensor_shape),
            dtype=dtype,
            launches=_launches(template, self.spec.output_size, dtype.itemsize),
            frame_bytes=tuple(source.nbytes for source in sources),
            template=template,
        )

    def _describe_axes(
        self, row: np.void, source: PixelLayout, plan: Geometry, tables: TableSet
    ) -> None:
        x, y, width, height = source.part
        top, left, rows, columns = plan.crop
        if rows == 0 or columns == 0:
            return
        row["rows"], row["columns"] = rows, columns
        resize = self.spec.resize
        horizontal = across(width, plan.resized[1], resize.filter, resize.antialias, left, columns)
        vertical = down(height, plan.resized[0], resize.filter, resize.antialias, top, rows)
        row["region_x"], row["region_y"] = x, y
        names = ("across_first", "across_count", "across_weights", "across_tiles")
        for name, start in zip(names, tables.place(horizontal), strict=True):
            row[name] = start
        names = ("down_first", "down_count", "down_weights", "source_rows")
        for name, start in zip(names, tables.place(vertical), strict=True):
            row[name] = start
        row["scratch_rows"] = len(vertical.extra)


def _describe_source(row: np.void, source: PixelLayout) -> None:
    row["frame_bytes"] = source.nbytes
    for plane, offset in enumerate(source.chroma_planes):
        row["chroma"][plane] = offset
    row["format"] = _FORMATS.index(source.format)
    row["pitch"], row["chroma_pitch"] = source.row_pitch, source.chroma_row_pitch
    row["width"] = source.width
    if source.standard is not None:
        row["yuv"] = factors(source.standard)


def _describe_output(row: np.void, spec: PreprocessSpec, plan: Geometry) -> None:
    height, width = plan.output
    row["output_height"], row["output_width"] = height, width
    row["top"], row["left"] = plan.offset
    row["fill"] = spec.resize.fill
    planes = spec.layout == "nchw"
    row["channel_stride"], row["pixel_stride"] = (height * width, 1) if planes else (1, 3)
    # A word of scratch is blue, green << 8, red << 16.
    row["first_shift"], row["shift_step"] = (16, -8) if spec.color == "rgb" else (0, 8)


def _launches(
    template: NDArray[np.void], output: tuple[int, int], itemsize: int
) -> tuple[Launch, ...]:
    block = (BLOCK_THREADS, 1, 1)
    launches = []
    blocks = _ceil(int(template["scratch_rows"].max()), ACROSS_ROWS)
    if blocks:
        columns = _ceil(int(template["columns"].max()), TILE_COLUMNS)
        grid = (blocks, columns, len(template))
        arguments: tuple[Pointer, ...] = ("descriptors", "tables", "scratch")
        launches.append(Launch("resample_across", grid, block, 0, arguments))
    grid = (_ceil(output[0], DOWN_ROWS), _ceil(output[1], TILE_COLUMNS), len(template))
    arguments = ("descriptors", "tables", "scratch", "output")
    launches.append(Launch(f"resample_down_{8 * itemsize}", grid, block, 0, arguments))
    return tuple(launches)


def _ceil(amount: int, step: int) -> int:
    return -(-amount // step)
