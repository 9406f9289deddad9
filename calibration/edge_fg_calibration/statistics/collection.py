"""One pass over the calibration images: a histogram of each tensor, in fixed memory."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import edge_fg
from edge_fg.backends.onnxruntime import import_onnxruntime
from edge_fg.errors import CalibrationError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.graph.observation import Observer, where_it_begins
from edge_fg_calibration.statistics.cache import IdentifiedBatches, StatisticsCache, digest_of
from edge_fg_calibration.statistics.histogram import Histogram
from edge_fg_calibration.statistics.tensor_statistics import Statistics, StatisticsKey

_LOGGER = logging.getLogger("edge_fg")
_SECONDS_BETWEEN_SAVES = 30.0


def collect_histograms(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    tensors: Sequence[str],
    *,
    input_name: str,
    progress: ProgressCallback = no_progress,
    total: int = 0,
) -> dict[str, Histogram]:
    """Run the model once over all batches and count the values of `tensors`.

    Memory doesn't grow with the number of images. Each image runs by itself, so the result
    is the same to the last bit however they were batched or ordered. The graph is cut down to
    what the tensors need and runs unoptimised, so the tensors are those that it describes.

    Statistics of `IdentifiedBatches` are taken from their cache where nothing changed; an
    interrupted pass goes on where it stopped.

    Parameters
    ----------
    model
        A float32 model.
    batches
        Network inputs, each n x 3 x H x W.
    tensors
        Names of float tensors: the input, or outputs of nodes.
    input_name
        Name of the model's image input.
    progress
        Told the images done, stage ``calibrate``.
    total
        Number of images, for `progress`; 0 where unknown.

    Returns
    -------
    The histogram of each tensor, by name.

    Raises
    ------
    CalibrationError
        There are no images, every image is one flat colour, a tensor holds NaN, or an output
        of the model infinite values; the tensor, the image and the node where they begin are
        named. Infinite values of other tensors are not counted.
    UsageError
        A tensor is not in the model.
    ModelError
        ONNX Runtime refuses the model or fails on a batch.
    """
    return collect_statistics(
        model, batches, tensors, input_name=input_name, progress=progress, total=total
    ).histograms


def collect_statistics(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    tensors: Sequence[str],
    *,
    input_name: str,
    progress: ProgressCallback = no_progress,
    total: int = 0,
) -> Statistics:
    """Return the histograms, how many images they count, and which tensors had infinite values.

    Parameters and errors are those of `collect_histograms`.
    """
    observer, at_once = Observer(model, tensors, input_name), _fixed_batch(model, input_name)
    counting = _Counting(observer, batches, at_once, progress, total)
    fresh = Statistics.of(tensors)
    if isinstance(batches, IdentifiedBatches) and batches.cache is not None:
        found = _through_cache(counting, batches, batches.cache, fresh)
    else:
        found = counting.count(fresh)
    if not found.images:
        raise CalibrationError("there are no calibration images")
    if not found.textured:
        raise CalibrationError(
            "all calibration images are one flat colour: ranges from them mean nothing, use "
            "real photographs"
        )
    return found


@dataclass
class _Counting:
    """One pass over the images; one image is counted while the next runs."""

    observer: Observer
    batches: Iterable[NDArray[Any]]
    at_once: int
    progress: ProgressCallback
    total: int
    _pending: Future[None] | None = None

    def count(
        self, into: Statistics, save: Callable[[Statistics], None] = lambda _: None
    ) -> Statistics:
        """Count all images that `into` doesn't hold yet, and `save` it now and then."""
        saved = time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as worker:
            try:
                for number, image in _after(self.batches, into.images, self.at_once):
                    arrays = self.observer(image)
                    self._wait()
                    where = self._name(number)
                    self._pending = worker.submit(self._add, into, arrays, image, where)
                    done = number + len(image)
                    self.progress("calibrate", done, max(self.total, done))
                    if time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                        self._wait()
                        save(into)
                        saved = time.monotonic()
                self._wait()
            except KeyboardInterrupt:
                with contextlib.suppress(CalibrationError):
                    self._wait()
                    save(into)
                raise
        return into

    def _add(
        self, into: Statistics, arrays: Mapping[str, NDArray[Any]], image: NDArray[Any], where: str
    ) -> None:
        """Count the tensors of one image; after an error `into` is of no more use."""
        for name, array in arrays.items():
            try:
                into.histograms[name].add(array)
            except CalibrationError as error:
                if np.isnan(array).any() or name in self.observer.must_be_finite:
                    begin = where_it_begins(
                        self.observer.model, name, image, self.observer.input_name
                    )
                    raise CalibrationError(
                        f"tensor {name!r}: {error} on calibration image {where}, which begins at "
                        f"{begin}; check it in float32"
                    ) from error
                # A mask, or padding in front of a maximum: only what is finite has a range.
                into.infinite.add(name)
                into.histograms[name].add(array[np.isfinite(array)])
        into.textured = into.textured or _has_texture(image)
        into.images += len(image)

    def _wait(self) -> None:
        if self._pending is not None:
            self._pending.result()

    def _name(self, number: int) -> str:
        batches = self.batches
        if isinstance(batches, IdentifiedBatches) and batches.at is not None:
            return batches.at(number)
        return f"number {number + 1}"


def _through_cache(
    counting: _Counting, images: IdentifiedBatches, cache: StatisticsCache, fresh: Statistics
) -> Statistics:
    key = _key(counting.observer.graph, images, fresh)
    found = cache.find(key)
    if found is not None:
        _LOGGER.info(
            "%s: statistics of %d images reused, graph, preprocessing and images are unchanged",
            images.name,
            found.images,
        )
        counting.progress("calibrate (kept statistics)", found.images, found.images)
        return found
    begun = cache.unfinished(key, images.order)
    if begun is not None:
        _LOGGER.info("%s: going on after %d images", images.name, begun.images)

    def save(statistics: Statistics) -> None:
        cache.keep_unfinished(key, images.order, statistics)

    found = counting.count(begun or fresh, save)
    if found.images:
        cache.keep(key, found)
    cache.forget_unfinished(key, images.order)
    return found


def _key(graph: bytes, images: IdentifiedBatches, fresh: Statistics) -> StatisticsKey:
    import PIL

    return StatisticsKey(
        graph=hashlib.sha256(graph).hexdigest(),
        preprocessing=images.preprocessing,
        images=images.images,
        tensors=digest_of(sorted((name, one.bins) for name, one in fresh.histograms.items())),
        software=digest_of(
            edge_fg.__version__, import_onnxruntime().__version__, PIL.__version__, np.__version__
        ),
    )


def _after(
    batches: Iterable[NDArray[Any]], skip: int, at_once: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the images one by one, or as many as a fixed batch holds, with their number."""
    number = 0
    for batch in batches:
        for start in range(0, len(batch), at_once):
            some = batch[start : start + at_once]
            if number >= skip:
                yield number, some
            number += len(some)


def _has_texture(batch: NDArray[Any]) -> bool:
    """Say whether any channel of any image holds more than one value."""
    flat = batch.reshape(*batch.shape[:2], -1)
    return bool(np.any(flat.max(axis=2) != flat.min(axis=2)))


def _fixed_batch(model: onnx.ModelProto, input_name: str) -> int:
    for one in model.graph.input:
        dims = one.type.tensor_type.shape.dim
        if one.name == input_name and dims:
            return max(int(dims[0].dim_value), 1)
    return 1
