"""The classifier that programs embed."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TypeAlias

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from edge_fg.backends.base import Backend, Outputs
from edge_fg.backends.options import EngineOptions
from edge_fg.backends.selection import Choice, open_best
from edge_fg.boxes import Region
from edge_fg.bundle import Bundle
from edge_fg.bundle.manifest import OutputSpec
from edge_fg.closing import Closing
from edge_fg.errors import BackendError, BundleIntegrityError, ImageError
from edge_fg.images import to_frame
from edge_fg.labels import Labels
from edge_fg.preprocess.raw_frame import Pixels, RawFrame
from edge_fg.progress import ProgressCallback
from edge_fg.public_names import deprecated_argument
from edge_fg.recognition.prediction import Latency, Prediction
from edge_fg.recognition.submission import Submissions

_LOGGER = logging.getLogger("edge_fg")
_ROUNDING = 0.02
_MAX_SUM = 2.1

Image: TypeAlias = Pixels | str | os.PathLike[str] | PIL.Image.Image
"""What a classifier takes: a frame, an image file, or a Pillow image."""


class Classifier(Closing):
    """Classifies images. Safe to share between threads; one per process is enough.

    Usually made by `edge_fg.load`.

    Parameters
    ----------
    backend
        Executes the model.
    scores
        The output that probabilities are read from.
    labels
        The classes.
    choice
        Which backend and variant were chosen, and why.
    bundle
        Where it was loaded from, to be shown.
    """

    instead = "hand over the bundle's path, and call edge_fg.load there"

    def __init__(
        self,
        backend: Backend,
        scores: OutputSpec,
        labels: Labels,
        choice: Choice,
        bundle: str = "",
    ) -> None:
        self._backend = backend
        self._scores = scores
        self.labels = labels
        self.choice = choice
        self._bundle = bundle
        self._submissions = Submissions(self)

    def __repr__(self) -> str:
        return (
            f"Classifier(bundle={self._bundle!r}, backend={self.choice.backend!r}, "
            f"precision={self.choice.precision!r}, classes={len(self.labels)})"
        )

    @property
    def takes_raw(self) -> bool:
        """Whether raw frames are best handed over as they are; see `RawFrame`."""
        return self._backend.takes_raw

    @property
    def engine_bytes(self) -> int | None:
        """Bytes of the GPU's memory that loading the model took; None on the CPU."""
        return self._backend.engine_bytes

    def __call__(
        self,
        frame: Image,
        region_xywh: Region | None = None,
        *,
        region: Region | None = None,
    ) -> Prediction:
        """Return the prediction for one image.

        Parameters
        ----------
        frame
            (H, W, 3) uint8 BGR, as OpenCV gives it, of any size; the path of an image file; a
            Pillow image; or a camera's own bytes as a `edge_fg.RawFrame`, which the GPU converts.
        region_xywh
            (x, y, width, height) in pixels of the frame: look only at this part.
        region
            Deprecated name of `region_xywh`.

        Raises
        ------
        ImageError
            The frame or the region can't be used.
        BackendError
            The model could not be executed.
        """
        region_xywh = deprecated_argument("region_xywh", region_xywh, "region", region)
        return self.batch([frame], [region_xywh])[0]

    def batch(
        self,
        frames: Sequence[Image] | NDArray[np.uint8],
        regions_xywh: Sequence[Region | None] | None = None,
        *,
        regions: Sequence[Region | None] | None = None,
    ) -> list[Prediction]:
        """Return the prediction for each image; see `__call__`.

        An array of N x H x W x 3 is N frames. For several regions of one frame, repeat the frame.
        `regions` is the deprecated name of `regions_xywh`.

        Raises
        ------
        ImageError
            A frame or region can't be used, or there are not as many regions as frames.
        BackendError
            The model could not be executed, or the classifier is closed.
        """
        started = time.perf_counter()
        regions_xywh = deprecated_argument("regions_xywh", regions_xywh, "regions", regions)
        if isinstance(frames, (str, os.PathLike, PIL.Image.Image)):
            raise ImageError(f"batch takes several images, not one ({frames}): give a list")
        checked = [frame if isinstance(frame, RawFrame) else to_frame(frame) for frame in frames]
        if regions_xywh is not None and len(regions_xywh) != len(checked):
            raise ImageError(f"{len(checked)} frames came with {len(regions_xywh)} regions")
        if not checked:
            return []
        outputs = self._backend.infer(checked, regions_xywh)
        probabilities = self._probabilities(outputs, len(checked))
        latency = Latency(
            outputs.preprocess_ms,
            outputs.inference_ms,
            1e3 * (time.perf_counter() - started),
            len(checked),
        )
        return [Prediction(row, self.labels, latency) for row in probabilities]

    def submit(
        self,
        frame: Image,
        region_xywh: Region | None = None,
        *,
        deadline: float | None = None,
        region: Region | None = None,
    ) -> Future[Prediction]:
        """Hand over a frame and return at once: for control loops that must never wait.

        One frame is worked on and one waits, until a newer one takes its place. The future of a
        frame that was left out fails with an `UnansweredError`, so that a loop can distinguish it
        from a real failure and from its own cancelling: `SupersededError`, at once, when a newer
        frame came; `DeadlineError` when its turn came too late. Callbacks run in the thread that
        causes them. The frame is not copied: don't write into it before its future is done.

        Parameters
        ----------
        frame, region_xywh, region
            See `__call__`; what is wrong with them is raised by the future.
        deadline
            Seconds from now within which its turn must come; None for no limit.

        Raises
        ------
        BackendError
            The classifier is closed.
        UsageError
            `deadline` is negative.
        """
        region_xywh = deprecated_argument("region_xywh", region_xywh, "region", region)
        return self._submissions.submit(frame, region_xywh, deadline=deadline)

    def _probabilities(self, outputs: Outputs, frames: int) -> NDArray[np.float32]:
        scores = outputs.tensors[self._scores.name]
        # The manifest states the shape, but the graph could give another one.
        if scores.shape != (frames, len(self.labels)):
            raise BackendError(
                f"the {self.choice.precision} model gave scores of shape {scores.shape} for "
                f"{frames} frames and {len(self.labels)} labels: rebuild the bundle"
            )
        if not np.isfinite(scores).all():
            raise BackendError(
                f"the {self.choice.precision} model gave NaN or infinity: "
                "run the fp32 variant, and rebuild the bundle with a budget"
            )
        if self._scores.kind == "probabilities":
            _check_probabilities(scores, self.choice.precision)
        if self._scores.kind == "logits":  # their softmax, computed in float64
            odds = np.exp(scores.astype(np.float64) - scores.max(axis=1, keepdims=True))
            scores = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
        return scores

    def interrupt(self, thread: threading.Thread) -> None:
        """End the call that `thread` waits for, because the program ends: it raises `BackendError`.

        A GPU can't be stopped: there, the call ends by itself.
        """
        self._backend.interrupt(thread)

    def close(self) -> None:
        """Release the model; the classifier can't be used afterwards. May be called again."""
        self._submissions.close()
        self._backend.close()


def _check_probabilities(scores: NDArray[np.float32], precision: str) -> None:
    """Refuse what can't be probabilities.

    In INT8 each of them is rounded, to at most twice its value, or to nothing.
    """
    low, high, most = scores.min(), scores.max(), scores.sum(axis=1).max()
    if low < -_ROUNDING or high > 1 + _ROUNDING or most > _MAX_SUM:
        raise BackendError(
            f"the {precision} model gave probabilities from {low:.3g} to {high:.3g} that sum to "
            f"{most:.3g}: rebuild the bundle"
        )


def load(
    bundle: str | os.PathLike[str] | Bundle,
    *,
    backend: str | None = None,
    precision: str | None = None,
    device: int | None = None,
    threads: int = 0,
    options: EngineOptions | None = None,
    progress: ProgressCallback | None = None,
) -> Classifier:
    """Open a bundle and return a classifier that runs on the best backend of this machine.

    The first start on a GPU builds a plan, which takes seconds to minutes; later ones load it.

    Parameters
    ----------
    bundle
        Path of a bundle (directory or .zip), or an opened one.
    backend
        ``tensorrt``, ``tensorrt-rtx`` or ``onnxruntime``; None takes the first that works, and
        ``classifier.choice.reason`` says why.
    precision
        ``fp32``, ``fp16``, ``int8`` or ``int8-fp16``; None takes what is best on that backend.
    device
        Which GPU, by its number from 0; then the CPU is never used instead. None takes the first
        GPU, or the CPU. The same as ``EngineOptions.device``.
    threads
        CPU threads for one inference; 0 takes as many as there are cores.
    options
        Settings of the TensorRT backends: largest batch, contexts, plan cache.
    progress
        Called as ``progress(stage, done, total)`` while a plan is built; None tells the log.

    Raises
    ------
    BundleError
        The bundle can't be used.
    BackendError
        No backend can run it here, or there is no such GPU.
    CompileError
        The backend asked for can't build the variant's graph.
    UsageError
        There is no backend or precision of that name, or `threads` or `device` is out of range.
    """
    if device is not None:
        options = dataclasses.replace(options or EngineOptions(), device=device)

    def load_from(opened: Bundle) -> Classifier:
        labels = opened.labels()
        executed, choice = open_best(
            opened, backend, precision, threads=threads, options=options, progress=progress
        )
        _LOGGER.info("%s runs on %s: %s", opened.path, choice.backend, choice.reason)
        return Classifier(executed, opened.manifest.scores, labels, choice, str(opened.path))

    if isinstance(bundle, Bundle):
        return load_from(bundle)
    opened = Bundle(bundle)
    while True:
        try:
            return load_from(opened)
        except BundleIntegrityError:
            before, opened = opened, Bundle(bundle)
            if opened.manifest == before.manifest:
                raise
            # A new build has replaced it while it was read.
