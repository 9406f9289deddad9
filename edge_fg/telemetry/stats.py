"""The statistics of a pipeline at one moment, ready for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edge_fg.telemetry.histogram import Summary


@dataclass(frozen=True)
class SourceStats:
    """One source.

    Parameters
    ----------
    name
        As it is shown; holds no credentials.
    state
        ``connecting``, ``live``, ``stalled``, ``lost`` or ``ended``.
    error
        What ended it, in one line; None where nothing did.
    policy
        As it is written on the command line.
    frames, answered
        Frames that the source gave, and how many of them were answered.
    dropped
        Frames that were left out, by reason: ``overtaken`` (a newer one came), ``full`` (the queue
        was full), ``stale`` (waited longer than `max_age`), ``rate`` (more than the policy's rate),
        ``unusable`` (the model can't take it, which ends the source), ``stopped`` (waited when the
        source or pipeline was stopped).
    waiting
        Frames in its queue now.
    counters
        What the source itself counts, if it does: reconnects, stalls, frozen, black, ...
    """

    name: str
    state: str
    error: str | None
    policy: str
    frames: int
    answered: int
    dropped: Mapping[str, int]
    waiting: int
    counters: Mapping[str, int]


@dataclass(frozen=True)
class SinkStats:
    """One sink.

    Parameters
    ----------
    name
        As it is shown; holds no credentials.
    state
        ``open``, ``failing`` (paused after errors) or ``closed``.
    written, dropped, failures
        Results that it wrote, that were dropped because it was slow, and that failed.
    error
        The latest error, in one line; None where there was none.
    waiting
        Results in its queue now.
    latency
        Seconds that it took for a result.
    """

    name: str
    state: str
    written: int
    dropped: int
    failures: int
    error: str | None
    waiting: int
    latency: Summary


@dataclass(frozen=True)
class ThrottleStats:
    """Whether the rate is lowered.

    Parameters
    ----------
    share
        Of the full rate that is allowed now, above 0 and up to 1.
    rate_limit
        Answers a second that this means now; None where nothing is lowered.
    reason
        Why it is lowered; None where it isn't.
    temperature_c, power_w
        The latest reading; None where there is no such sensor.
    """

    share: float
    rate_limit: float | None
    reason: str | None
    temperature_c: float | None
    power_w: float | None


@dataclass(frozen=True)
class PipelineStats:
    """A pipeline at one moment.

    Parameters
    ----------
    state
        ``new``, ``running``, ``draining``, ``stopping`` or ``ended``.
    uptime
        Seconds since the start, until the end.
    answered
        Frames of all sources that were answered.
    rate
        Answers a second, over the latest ones (at most 128).
    batch
        How many frames or regions are given to the model at once now.
    sources, sinks
        One by one, in the order given.
    stages
        Seconds that each stage took: ``capture`` (until the source gave a frame), ``queue``
        (waiting for its turn), ``visits`` (finding regions and following them), ``preprocess``
        and ``inference`` (for one frame or region, also in a batch), ``sink`` (all sinks).
    age
        Seconds from a frame's capture to its answer.
    throttle
        None where there is none.
    rss_bytes
        Memory of the process; None where the system does not tell.
    engine_bytes
        Memory of the model on its device; None where it is not known.
    """

    state: str
    uptime: float
    answered: int
    rate: float
    batch: int
    sources: tuple[SourceStats, ...]
    sinks: tuple[SinkStats, ...]
    stages: Mapping[str, Summary]
    age: Summary
    throttle: ThrottleStats | None = None
    rss_bytes: int | None = None
    engine_bytes: int | None = None
    dropped: Mapping[str, int] = field(init=False)

    def __post_init__(self) -> None:
        total = Counter[str]()
        for source in self.sources:
            total.update(source.dropped)
        object.__setattr__(self, "dropped", dict(total))

    def to_dict(self) -> dict[str, Any]:
        """Return the statistics as data for JSON."""
        return asdict(self)
