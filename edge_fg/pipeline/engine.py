"""The threads of a pipeline: how they start, work and end."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

from edge_fg.errors import UsageError
from edge_fg.pipeline.answer_loop import AnswerLoop
from edge_fg.pipeline.batch_size import BatchSizer
from edge_fg.pipeline.classifier_adapter import ClassifierAdapter, FrameClassifier
from edge_fg.pipeline.policy import Policy
from edge_fg.pipeline.recogniser import Follower, Recogniser
from edge_fg.pipeline.result_queue import ResultQueue
from edge_fg.pipeline.sink_group import SinkGroup
from edge_fg.pipeline.source_group import SourceGroup
from edge_fg.pipeline.throttle import Throttle, ThrottleMonitor
from edge_fg.sinks.base import Sink
from edge_fg.sources import Source
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.process import resident_bytes
from edge_fg.telemetry.stats import PipelineStats

_logger = logging.getLogger("edge_fg")

# The frames that the model works on may take so long after a stop.
_PATIENCE_SECONDS = 5.0
_STAGES = ("capture", "queue", "visits", "preprocess", "inference", "sink")


class Engine:
    """Builds the parts of a `Pipeline`, and starts and ends their threads.

    Each source has a policy and, where visits are followed, a follower; the other parameters are
    those of `Pipeline`.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policies: Sequence[Policy],
        classifier: FrameClassifier[Any],
        *,
        sinks: Sequence[Sink],
        followers: Sequence[Follower] | None,
        max_frames: int | None,
        batch: int | None,
        throttle: Throttle | None,
        clock: Callable[[], float],
    ) -> None:
        self._meter = meter = Meter(_STAGES, clock=clock)
        one_each = followers is not None
        self._sources = SourceGroup(sources, policies, one_each, max_frames, meter, clock)
        self._sinks = SinkGroup(sinks, self._sources.lossless, self._fail, meter, clock)
        adapter = ClassifierAdapter(classifier)
        self._sizer = sizer = BatchSizer(batch if adapter.batches else 1)
        charge = self._sources.scheduler.charge
        recogniser = Recogniser(adapter, followers, sizer, meter, charge, clock)
        self._loop = AnswerLoop(
            self._sources, self._sinks, recogniser, sizer, meter, throttle, max_frames, clock
        )
        self._throttle = throttle
        self._monitor = ThrottleMonitor(throttle, meter.pace) if throttle else None
        self._classifier = classifier
        self._clock = clock
        self._lock = self._sources.lock
        self._thread = threading.Thread(target=self._work, name="edge_fg-engine", daemon=True)
        self._ended = threading.Event()
        self._listeners: list[Callable[[], None]] = []
        self._state = "new"
        self._started_at: float | None = None
        self._ended_at: float | None = None
        self._failure: BaseException | None = None

    def start(self, *, again: bool = False) -> None:
        """Open the sinks and start the threads; `again` allows that they run already."""
        with self._lock:
            if self._state != "new":
                if again and self._state != "ended":
                    return
                raise UsageError("a pipeline runs once: make another one")
            self._state, self._started_at = "running", self._clock()
        try:
            self._sinks.open(self._sources.sources)
            self._sinks.start()
            self._sources.start()
            if self._monitor is not None:
                self._monitor.start()
            self._thread.start()
        except BaseException:
            self.stop()
            if self._thread.ident is None:
                self._sinks.start()  # their threads close them
                self._release()
            raise

    def attach(self, notify: Callable[[], None] | None = None) -> ResultQueue:
        """Return a queue for a loop: of all results from now on, or of the newest.

        All come, and recognition waits for the loop, where no frame may be lost. `notify` is
        called after each change that the loop waits for.
        """
        lossless = self._sources.lossless
        results = ResultQueue(4 if lossless else 1, blocking=lossless, notify=notify)
        with self._lock:
            if self._ended.is_set():
                results.finish()
            self._sinks.loops.append(results)
        return results

    def on_end(self, listener: Callable[[], None]) -> None:
        """Call `listener` at the end, at once if it has come."""
        with self._lock:
            if not self._ended.is_set():
                self._listeners.append(listener)
                return
        listener()

    def stop(self) -> None:
        """Stop soon; returns at once."""
        with self._lock:
            if self._ended.is_set():
                return
            never_started = self._state == "new"
            self._state = "stopping"
        self._sources.stop()
        self._sinks.hurry()
        if never_started:
            self._release()

    def stop_and_wait(self) -> None:
        """Stop soon and wait for the end, unless in a thread of the pipeline.

        A model that goes on for too long is interrupted.
        """
        self.stop()
        if not self.wait(_PATIENCE_SECONDS) and not self.is_inside():
            interrupt = getattr(self._classifier, "interrupt", lambda _: None)
            interrupt(self._thread)
            self.wait()

    def drain(self) -> None:
        """Read no more, and end when everything is answered; returns at once."""
        self._sources.drain()
        with self._lock:
            if self._state == "running":
                self._state = "draining"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; from a thread of the pipeline, return at once."""
        if self.is_inside():
            return self._ended.is_set()
        if self._state == "new":
            raise UsageError("the pipeline has not been started")
        ended = self._ended.wait(timeout)
        if ended and self._thread.ident is not None:
            self._thread.join()
        return ended

    def is_inside(self) -> bool:
        """Return whether the caller runs in a thread of the pipeline, which can't wait for it."""
        threads = {self._thread} | self._sources.threads | self._sinks.threads
        return threading.current_thread() in threads

    def check(self) -> None:
        """Raise the error that ended the pipeline, or that all sources ended with."""
        if self._failure is not None:
            raise self._failure

    def stats(self) -> PipelineStats:
        """Return what was done so far, all counts of one moment."""
        with self._lock:
            stages, age = self._meter.copies()
            sources, answered = self._sources.stats(), self._sources.answered
            state, uptime = self._state, self._uptime()
        return PipelineStats(
            state=state,
            uptime=uptime,
            answered=answered,
            rate=0.0 if state == "ended" else self._meter.rate(),
            batch=self._sizer.current,
            sources=sources,
            sinks=self._sinks.stats(),
            stages={name: histogram.summary() for name, histogram in stages.items()},
            age=age.summary(),
            throttle=self._throttle.stats() if self._throttle else None,
            rss_bytes=resident_bytes(),
            engine_bytes=getattr(self._classifier, "engine_bytes", None),
        )

    def _uptime(self) -> float:
        if self._started_at is None:
            return 0.0
        return (self._clock() if self._ended_at is None else self._ended_at) - self._started_at

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None and self._state not in ("stopping", "ended"):
                self._failure = error
        self.stop()

    def _work(self) -> None:
        try:
            self._failure = self._loop.run() or self._failure
        # `check` raises it again; here it must not kill the thread.
        except BaseException as error:  # noqa: BLE001
            self._fail(error)
        self._release()

    def _release(self) -> None:
        """Close everything; an error of one step does not stop the others."""
        self._sinks.finish()
        closers = [self._monitor.close] if self._monitor else []
        for close in (*closers, *self._sources.closers(), *self._sinks.closers()):
            try:
                close()
            # What can't be closed must not keep the rest open.
            except Exception as error:
                _logger.exception("the pipeline could not close something")
                self._failure = self._failure or error
        with self._lock:
            self._state, self._ended_at = "ended", self._clock()
            self._ended.set()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
