"""One pass over the calibration images: a histogram of each tensor, in fixed memory."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

import edge_fg
from edge_fg.errors import CalibrationError, UsageError
from edge_fg.progress import ProgressCallback, no_progress
from edge_fg_calibration.graph.onnx_graph import Graph
from edge_fg_calibration.graph.prepare import copied, replace_initializers, replace_nodes
from edge_fg_calibration.graph.session import DEFAULT_THREADS, open_session, run_session
from edge_fg_calibration.statistics.cache import IdentifiedBatches, digest_of
from edge_fg_calibration.statistics.histogram import DEFAULT_BINS, Histogram
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
    bins: int = DEFAULT_BINS,
    threads: int = DEFAULT_THREADS,
) -> dict[str, Histogram]:
    """Run the model once over all batches and count the values of `tensors`.

    As `collect_statistics`, which see for parameters and errors, without channels.

    Returns
    -------
    The histogram of each tensor, by name.
    """
    return collect_statistics(
        model,
        batches,
        tensors,
        input_name=input_name,
        progress=progress,
        total=total,
        bins=bins,
        threads=threads,
    ).histograms


def collect_statistics(
    model: onnx.ModelProto,
    batches: Iterable[NDArray[Any]],
    tensors: Sequence[str],
    *,
    input_name: str,
    channel_axes: Mapping[str, int] | None = None,
    progress: ProgressCallback = no_progress,
    total: int = 0,
    bins: int = DEFAULT_BINS,
    threads: int = DEFAULT_THREADS,
) -> Statistics:
    """Run the model once over all batches and count what `tensors` hold.

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
    channel_axes
        Tensors, all of them among `tensors`, whose channels' maxima are wanted too, and the
        axis that tells the channels apart.
    progress
        Told the images done, stage ``calibrate``.
    total
        Number of images, for `progress`; 0 where unknown.
    bins
        Bins of each histogram.
    threads
        Threads inside an operator.

    Raises
    ------
    CalibrationError
        There are no images, every image is one flat colour, or a tensor holds NaN or
        infinite values; the tensor and the image are named.
    UsageError
        A tensor is not in the model.
    ModelError
        ONNX Runtime refuses the model or fails on a batch.
    """
    names = list(dict.fromkeys(tensors))
    axes = dict(channel_axes or {})
    unobserved = [name for name in axes if name not in names]
    if unobserved:
        raise UsageError(f"channels of {unobserved[0]!r} are wanted, but not the tensor itself")
    observer = _Observer(model, names, input_name, threads)
    fresh = Statistics.of(names, bins=bins, channel_axes=axes)
    if isinstance(batches, IdentifiedBatches) and batches.cache is not None:
        found = _through_cache(observer, batches, fresh, progress, total)
    else:
        found = observer.count(batches, fresh, progress, total)
    if not found.images:
        raise CalibrationError("there are no calibration images")
    if not found.textured:
        raise CalibrationError(
            "all calibration images are one flat colour: ranges from them mean nothing, use "
            "real photographs"
        )
    return found


class _Observer:
    """Runs a model image by image and counts some of its tensors."""

    def __init__(
        self, model: onnx.ModelProto, names: list[str], input_name: str, threads: int
    ) -> None:
        self._names = names
        self._made = [name for name in names if name != input_name]
        self._input = input_name
        self._threads = threads
        self._at_once = _fixed_batch(model, input_name)
        self.graph = _reduced(model, self._made).SerializeToString(deterministic=True)

    def count(
        self,
        batches: Iterable[NDArray[Any]],
        into: Statistics,
        progress: ProgressCallback,
        total: int,
        save: Callable[[Statistics], None] | None = None,
    ) -> Statistics:
        """Count all images that `into` doesn't hold yet; one is counted while the next runs."""
        run = self._runner()
        name_of = batches.at if isinstance(batches, IdentifiedBatches) else None
        pending: Future[None] | None = None
        saved = time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as worker:
            try:
                for number, image in _after(batches, into.images, self._at_once):
                    arrays = run(image)
                    if pending is not None:
                        pending.result()
                    where = name_of(number) if name_of else f"number {number + 1}"
                    pending = worker.submit(_count, into, arrays, image, where)
                    done = number + len(image)
                    progress("calibrate", done, max(total, done))
                    if save is not None and time.monotonic() - saved > _SECONDS_BETWEEN_SAVES:
                        pending.result()
                        save(into)
                        saved = time.monotonic()
                if pending is not None:
                    pending.result()
            except KeyboardInterrupt:
                if save is not None:
                    with contextlib.suppress(CalibrationError):
                        if pending is not None:
                            pending.result()
                        save(into)
                raise
        return into

    def _runner(self) -> Callable[[NDArray[Any]], dict[str, NDArray[Any]]]:
        if not self._made:
            return lambda image: dict.fromkeys(self._names, image)
        session = open_session(
            self.graph,
            threads=self._threads,
            optimise=False,
            purpose="collect calibration statistics",
        )

        def run(image: NDArray[Any]) -> dict[str, NDArray[Any]]:
            values = run_session(session, self._made, {self._input: image})
            found = dict(zip(self._made, values, strict=True))
            return {name: found.get(name, image) for name in self._names}

        return run


def _through_cache(
    observer: _Observer,
    images: IdentifiedBatches,
    fresh: Statistics,
    progress: ProgressCallback,
    total: int,
) -> Statistics:
    cache = images.cache
    assert cache is not None
    key = _key(observer, images, fresh)
    found = cache.find(key)
    if found is not None:
        _LOGGER.info(
            "%s: statistics of %d images reused, graph, preprocessing and images are unchanged",
            images.name,
            found.images,
        )
        progress("calibrate (kept statistics)", found.images, found.images)
        return found
    begun = cache.unfinished(key, images.order)
    if begun is not None:
        _LOGGER.info("%s: going on after %d images", images.name, begun.images)

    def save(statistics: Statistics) -> None:
        cache.keep_unfinished(key, images.order, statistics)

    found = observer.count(images, begun or fresh, progress, total, save)
    if found.images:
        cache.keep(key, found)
    cache.forget_unfinished(key, images.order)
    return found


def _key(observer: _Observer, images: IdentifiedBatches, fresh: Statistics) -> StatisticsKey:
    import onnxruntime
    import PIL

    wanted = [(name, one.bins) for name, one in fresh.histograms.items()]
    return images.key(
        graph=hashlib.sha256(observer.graph).hexdigest(),
        tensors=digest_of(sorted(wanted), fresh.channel_axes),
        software=digest_of(
            edge_fg.__version__, onnxruntime.__version__, PIL.__version__, np.__version__
        ),
    )


def _count(
    into: Statistics, arrays: Mapping[str, NDArray[Any]], image: NDArray[Any], where: str
) -> None:
    """Count the tensors of one image; after an error `into` is of no more use."""
    for name, array in arrays.items():
        try:
            into.add(name, array)
        except CalibrationError as error:
            raise CalibrationError(
                f"tensor {name!r}: {error} on calibration image {where}; check the model in "
                f"float32 and its preprocessing"
            ) from error
    into.textured = into.textured or _has_texture(image)
    into.images += len(image)


def _after(
    batches: Iterable[NDArray[Any]], skip: int, at_once: int
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield the images one by one, or as many as the model insists on, with their number."""
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


def _reduced(model: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    """Return a copy whose outputs are `names`, with only the nodes that these need."""
    graph = Graph(model)
    missing = [name for name in names if name not in graph.producers]
    if missing:
        raise UsageError(f"the model has no tensor called {missing[0]!r}")
    # What sub-graphs use is kept whether or not they are.
    needed = {*names, *graph.captured}
    to_do = list(needed)
    while to_do:
        node = graph.producers.get(to_do.pop())
        for name in node.input if node is not None else ():
            if name and name not in needed:
                needed.add(name)
                to_do.append(name)
    result = copied(model)
    kept = [node for node in result.graph.node if needed.intersection(node.output)]
    replace_nodes(result.graph, kept)
    stored = [one for one in result.graph.initializer if one.name in needed]
    replace_initializers(result.graph, stored)
    del result.graph.output[:]
    # Without a type ONNX Runtime infers it, which also holds for tensors of unknown shape.
    result.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return result
