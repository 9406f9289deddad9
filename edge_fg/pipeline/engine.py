"""The threads of a pipeline: how they start, work and end."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from edge_fg.errors import UsageError
from edge_fg.pipeline.batch_size import BatchCost
from edge_fg.pipeline.classifier_adapter import Asker, FrameClassifier
from edge_fg.pipeline.frame_queue import FrameQueue
from edge_fg.pipeline.next_frame_hint import Foresight
from edge_fg.pipeline.policy import Policy, is_lossless, makes_wait
from edge_fg.pipeline.recogniser import Recogniser, Unusable
from edge_fg.pipeline.result_queue import ResultQueue
from edge_fg.pipeline.scheduler import Schedule, Turn
from edge_fg.pipeline.sink_worker import GRACE, SinkWorker
from edge_fg.pipeline.source_reader import SourceReader
from edge_fg.pipeline.stats_collector import Reporter
from edge_fg.pipeline.throttle import Throttle, ThrottleWatch
from edge_fg.result import Result
from edge_fg.sinks.protocol import Sink
from edge_fg.sources import Frame, Source
from edge_fg.telemetry.meter import Meter
from edge_fg.telemetry.stats import PipelineStats
from edge_fg.tracking.follower import Follower

_logger = logging.getLogger("edge_fg")

PredictionT = TypeVar("PredictionT")

_STAGES = ("capture", "queue", "visits", "preprocess", "inference", "sink")


class Engine(Generic[PredictionT]):
    """What `Pipeline` shows the world is made of this.

    Parameters
    ----------
    sources, policies
        One policy a source.
    classifier, sinks, max_frames, batch, throttle
        See `Pipeline`.
    followers
        One a source; None where visits are not followed.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        policies: Sequence[Policy],
        classifier: FrameClassifier[PredictionT],
        *,
        sinks: Sequence[Sink],
        followers: Sequence[Follower] | None,
        max_frames: int | None,
        batch: int | None,
        throttle: Throttle | None,
    ) -> None:
        self._sources = sources
        self._sinks = sinks
        self._limit = max_frames
        self._throttle = throttle
        self._lossless = all(map(makes_wait, policies, [source.live for source in sources]))
        self._lock = threading.RLock()
        changed = threading.Condition(self._lock)
        self._queues = [
            FrameQueue(policy, live=source.live, lock=self._lock, changed=changed)
            for policy, source in zip(policies, sources, strict=True)
        ]
        asker = Asker(classifier)
        self._batch = BatchCost(batch if asker.batches else 1)
        self._meter = Meter(_STAGES)
        self._schedule = Schedule(self._queues, self._lock, changed, one_each=followers is not None)
        self._recognise = Recogniser(
            asker, followers, self._batch, self._meter, self._schedule.charge
        )
        self._readers = [
            SourceReader(source, queue, limit=self._read_limit(queue), waited=self._waited)
            for source, queue in zip(sources, self._queues, strict=True)
        ]
        self._workers: list[SinkWorker] = []
        self._outlets: list[ResultQueue] = []
        self._listeners: list[Callable[[], None]] = []
        self._report = Reporter(
            self._lock, sources, self._queues, self._meter, self._batch, throttle, classifier
        )
        self._foresight = Foresight(sources, policies)
        self._watch = ThrottleWatch(throttle, self._meter.pace) if throttle else None
        self._thread = threading.Thread(target=self._work, name="edge_fg-engine", daemon=True)
        self._ended = threading.Event()
        self._stopping = False
        self._sinks_until: float | None = None
        self._failure: BaseException | None = None

    def start(self, *, again: bool = False) -> None:
        """Open the sinks and start the threads; `again` allows that they run already."""
        with self._lock:
            if self._report.state != "new":
                if again and self._report.state != "ended":
                    return
                raise UsageError("a pipeline runs once: make another one")
            self._report.started()
        try:
            self._open_sinks()
            for worker in self._workers:
                worker.start()
            for reader in self._readers:
                reader.start()
            if self._watch is not None:
                self._watch.start()
            self._thread.start()
        except BaseException:
            self._abandon()
            raise

    def attach(self, *, blocking: bool, notify: Callable[[], None] | None = None) -> ResultQueue:
        """Return a queue that gets every result from now on, for a loop."""
        outlet = ResultQueue(4 if blocking else 1, blocking=blocking, notify=notify)
        with self._lock:
            if self._ended.is_set():
                outlet.finish()
            self._outlets.append(outlet)
            self._report.outlets.append(outlet)
        return outlet

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
            never_started = self._report.state == "new"
            self._stopping = True
            self._report.state = "stopping"
            self._sinks_until = time.monotonic() + GRACE
        self._schedule.stop()
        for queue in self._queues:
            queue.close()
        for given in self._given():
            given.give_way()
        if never_started:
            self._release()

    def drain(self) -> None:
        """Read no more, and end when everything is answered; returns at once."""
        for reader in self._readers:
            reader.stop()
            # The read that is under way may take long, and its frame would be refused.
            reader.queue.finish()
        with self._lock:
            if self._report.state == "running":
                self._report.state = "draining"

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; from a thread of the pipeline, return at once."""
        if self.is_inside():
            return self._ended.is_set()
        if self._report.state == "new":
            raise UsageError("the pipeline has not been started")
        ended = self._ended.wait(timeout)
        if ended and self._thread.ident is not None:
            self._thread.join()
        return ended

    def is_inside(self) -> bool:
        """Return whether the caller runs in a thread of the pipeline, which can't wait for it."""
        threads = {self._thread, *(reader.thread for reader in self._readers)}
        threads |= {worker.thread for worker in self._workers}
        return threading.current_thread() in threads

    def failure(self) -> BaseException | None:
        """Return the error that ended the pipeline, or that all sources ended with."""
        return self._failure

    def stats(self) -> PipelineStats:
        """Return what was done so far."""
        return self._report(self._workers)

    def _read_limit(self, queue: FrameQueue) -> int | None:
        """Return how many frames to read: no more than are answered, where none is dropped."""
        return self._limit if is_lossless(queue.policy) else None

    def _waited(self, seconds: float) -> None:
        self._meter.add("capture", seconds)

    def _open_sinks(self) -> None:
        for sink in self._sinks:
            sink.open(self._sources)
            promised = getattr(sink, "lossless", None)
            self._workers.append(
                SinkWorker(
                    sink,
                    blocking=self._lossless if promised is None else bool(promised),
                    fatal=self._fail if promised else None,
                    meter=self._meter,
                )
            )

    def _given(self) -> list[ResultQueue]:
        return [*(worker.queue for worker in self._workers), *self._outlets]

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._failure is None and not self._stopping:
                self._failure = error
        self.stop()

    def _work(self) -> None:
        try:
            if self._answer_all():
                self._judge_sources()
            self._close_visits(range(len(self._sources)))
        # Raised again where the pipeline is waited for; here it must not kill the thread.
        except BaseException as error:  # noqa: BLE001
            self._fail(error)
        self._release()

    def _answer_all(self) -> bool:
        """Answer until the end; return whether it is that of all sources."""
        not_before: float | None = None
        while (turn := self._schedule.take(self._most, not_before)) is not None:
            started = time.monotonic()
            self._say_failures(turn.closing)
            self._close_visits(turn.closing)
            if turn.frames:
                self._answer(turn, started)
                self._foresight.end(time.monotonic() - started)
                not_before = self._rest_until(started, len(turn.frames))
            if self._limit is not None and self._report.answered >= self._limit:
                return False
        return not self._stopping

    def _say_failures(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            error = self._queues[number].error
            if error is not None and len(self._queues) > 1:
                name = self._sources[number].name
                _logger.error("%s has failed, the others go on: %s", name, error)

    def _judge_sources(self) -> None:
        errors = [queue.error for queue in self._queues]
        if all(error is not None for error in errors):
            self._failure = errors[0]

    def _most(self, waiting: int) -> int:
        if self._limit is not None:
            waiting = min(waiting, self._limit - self._report.answered)
        return self._batch.choose(waiting)

    def _answer(self, turn: Turn, now: float) -> None:
        for number, frame in turn.frames:
            self._meter.add("queue", max(0.0, now - frame.captured))
            self._foresight.begin(number, now)
        failed: set[int] = set()
        for number, result in self._recognise(turn.frames):
            if number in failed:
                self._queues[number].leave_out()
                continue
            if isinstance(result, Unusable):
                self._queues[number].fail(result.error)
                failed.add(number)
                continue
            self._report.count(number, result.age)
            self._hand_on(result)

    def _hand_on(self, result: Result[Any]) -> None:
        for given in self._given():
            given.put(result)

    def _rest_until(self, started: float, count: int) -> float | None:
        limit = self._throttle.rate_limit() if self._throttle else None
        return None if limit is None else started + count / limit

    def _close_visits(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            last: Frame | None = self._queues[number].last
            result = self._recognise.close(number, last)
            if result is not None:
                self._hand_on(result)

    def _abandon(self) -> None:
        """Close what a start that failed has opened."""
        self.stop()
        if self._thread.ident is None:
            for worker in self._workers:
                worker.start()  # its thread closes the sink
            self._release()

    def _release(self) -> None:
        """Close everything; each step is taken, whatever becomes of the others."""
        for given in self._given():
            given.finish()
        steps: list[Callable[[], None]] = [self._watch.close] if self._watch else []
        steps += [reader.close for reader in self._readers]
        steps += [partial(worker.join, lambda: self._sinks_until) for worker in self._workers]
        for step in steps:
            try:
                step()
            # What can't be closed must not keep the rest open, nor the program waiting.
            except Exception as error:
                _logger.exception("the pipeline could not close something")
                self._failure = self._failure or error
        self._say_end()

    def _say_end(self) -> None:
        with self._lock:
            self._report.ended()
            self._ended.set()
            listeners = list(self._listeners)
        for listener in listeners:
            listener()
