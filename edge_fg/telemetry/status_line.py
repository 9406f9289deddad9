"""One line on what a pipeline is doing, and a summary at its end."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TextIO

from edge_fg.printing import printable
from edge_fg.telemetry.device import DeviceState
from edge_fg.telemetry.histogram import Summary
from edge_fg.telemetry.stats import PipelineStats, SourceStats

_CLEAR_LINE = "\r\x1b[K"
_SHOWN_COUNTERS = ("reconnects", "stalls", "frozen", "black", "corrupted", "size_changes")


class StatusLine:
    """Keeps one line of a terminal up to date.

    If `stream` is no terminal, it prints a line every so many seconds of the clock.
    """

    def __init__(
        self,
        stream: TextIO,
        *,
        every_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._every = every_seconds
        self._clock = clock
        self._due = -math.inf
        self._shown = False

    def update(self, stats: PipelineStats, device: DeviceState | None = None) -> None:
        """Show this state."""
        if self._stream.isatty():
            width = shutil.get_terminal_size().columns - 1
            self._write(f"{_CLEAR_LINE}{status_text(stats, device)[:width]}")
            self._shown = True
        elif self._clock() >= self._due:
            self._due = self._clock() + self._every
            self._write(f"{status_text(stats, device)}\n")

    def clear(self) -> None:
        """Clear the line, so that something else can be printed."""
        if self._shown:
            self._write(_CLEAR_LINE)
            self._shown = False

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()


def status_text(stats: PipelineStats, device: DeviceState | None = None) -> str:
    """Return one line on what a pipeline is doing."""
    parts = [f"{stats.answered} answers, {stats.rate:.1f}/s"]
    if stats.age.count:
        parts.append(f"age {_ms(stats.age.p50)} (p99 {_ms(stats.age.p99)})")
    lost = sum(stats.dropped.values())
    if lost:
        parts.append(f"{lost} dropped")
    parts += [_source_state(source) for source in stats.sources]
    parts += [f"{printable(s.name)} is failing" for s in stats.sinks if s.state == "failing"]
    if stats.throttle is not None and stats.throttle.reason:
        parts.append(f"throttled to {stats.throttle.share:.0%}: {stats.throttle.reason}")
    if device is not None and device.hottest_c is not None:
        parts.append(f"{device.hottest_c:.0f} °C")
    if device is not None and device.total_power_w is not None:
        parts.append(f"{device.total_power_w:.1f} W")
    if stats.rss_bytes is not None:
        parts.append(f"{stats.rss_bytes / 1e6:.0f} MB")
    return " | ".join(parts)


def summary_text(stats: PipelineStats, visits: Mapping[str | None, int] | None = None) -> str:
    """Return several lines on what a pipeline did, by its statistics at the end.

    `visits` counts those of each species (None: undecided), where visits were followed.
    """
    rate = f" ({stats.answered / stats.uptime:.1f}/s)" if stats.uptime > 0 else ""
    lines = [f"{stats.answered} answers in {stats.uptime:.1f} s{rate}"]
    lines += [f"  {_source_summary(source)}" for source in stats.sources]
    if stats.age.count:
        lines.append(f"  frame age at the answer: {_spread(stats.age)}")
    lines += [
        f"  {stage}: {_spread(summary)}" for stage, summary in stats.stages.items() if summary.count
    ]
    lines += [
        f"  {printable(sink.name)}: {sink.written} written, {sink.dropped} dropped, "
        f"{sink.failures} failed" + (f" ({printable(sink.error)})" if sink.error else "")
        for sink in stats.sinks
        if sink.dropped or sink.failures
    ]
    if visits is not None:
        ordered = sorted(visits.items(), key=lambda item: (-item[1], str(item[0])))
        counts = (f"{n} {'undecided' if one is None else printable(one)}" for one, n in ordered)
        lines.append(f"  visits: {', '.join(counts) or 'none'}")
    return "\n".join(lines)


def _source_state(source: SourceStats) -> str:
    text = f"{printable(source.name)[-32:]} {source.state}"
    reconnects = source.counters.get("reconnects", 0)
    return f"{text} ({reconnects} reconnects)" if reconnects else text


def _source_summary(source: SourceStats) -> str:
    parts = [f"{source.frames} frames, {source.answered} answered"]
    lost = sum(source.dropped.values())
    if lost:
        reasons = ", ".join(f"{n} {reason}" for reason, n in source.dropped.items() if n)
        parts.append(f"{lost} dropped ({reasons})")
    counted = ((name.replace("_", " "), source.counters.get(name)) for name in _SHOWN_COUNTERS)
    parts += [f"{count} {name}" for name, count in counted if count]
    text = f"{printable(source.name)}: {', '.join(parts)}"
    return f"{text}; {printable(source.error)}" if source.error else text


def _spread(summary: Summary) -> str:
    shown = {name: getattr(summary, name) for name in ("p50", "p90", "p99", "max")}
    return ", ".join(f"{name} {_ms(seconds)}" for name, seconds in shown.items())


def _ms(seconds: float) -> str:
    milliseconds = 1e3 * seconds
    if milliseconds >= 10_000:
        return f"{seconds:.0f} s"
    return f"{milliseconds:.0f} ms" if milliseconds >= 10 else f"{milliseconds:.2g} ms"
