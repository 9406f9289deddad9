"""One run of `edge-fg run`: from its arguments to its end."""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_fg.errors import OutputError, SourceError, UsageError
from edge_fg.pipeline import Pipeline, Sink, Throttle
from edge_fg.printing import message, printable_lines
from edge_fg.recognition.classifier import Classifier
from edge_fg.recognition.prediction import Prediction
from edge_fg.sinks import PreviewSink, WindowSink
from edge_fg.sinks.records import Content
from edge_fg.sinks.result_annotator import SharedAnnotator
from edge_fg.sources import Source
from edge_fg.telemetry.jetson import JetsonSensors
from edge_fg.telemetry.prometheus import MetricsServer, PipelineCollector
from edge_fg.telemetry.status_line import StatusLine, summary_text
from edge_fg.tracking.visits import follow_visits
from edge_fg_tools.cli.arguments import Address, is_table
from edge_fg_tools.cli.run_output import (
    StandardOutput,
    VisitCounter,
    file_sinks,
    printed_lines,
    root_of,
)

_LOGGER = logging.getLogger("edge_fg")
_WINDOW_SECONDS = 0.02
_STATUS_SECONDS = 0.5
_PLAIN_SECONDS = 10.0  # between two lines where there is no terminal
_DRAIN_SECONDS = 10.0  # for what waits when the time is over


class Session:
    """Builds the pipeline of the arguments, and runs it to its end.

    The classifier and the sources are open, and closed by the caller.
    """

    def __init__(
        self, arguments: argparse.Namespace, classifier: Classifier, sources: Sequence[Source]
    ) -> None:
        self._arguments = arguments
        self._sources = sources
        content: Content = "visits" if arguments.events else "frames"
        self._sensors = JetsonSensors()
        self._status = (
            StatusLine(sys.stderr, every_seconds=_PLAIN_SECONDS) if arguments.status else None
        )
        annotate = SharedAnnotator()
        self._preview = self._make_preview(annotate)
        self._window = WindowSink("edge-fg", annotate=annotate) if arguments.display else None
        self._visits = VisitCounter(classifier.labels.shown) if arguments.events else None
        self._output = StandardOutput(
            arguments.stdout,
            printed_lines(
                arguments,
                content,
                classifier.labels.shown,
                [
                    Path(given).parent if is_table(given) else root_of(source.name)
                    for given, source in zip(arguments.sources, sources, strict=True)
                ],
            ),
            self._status.clear if self._status else None,
        )
        self._pipeline: Pipeline[Prediction] = Pipeline(
            list(sources),
            classifier,
            policy=arguments.policy,
            sinks=[self._output, *file_sinks(arguments, content, annotate), *self._watchers()],
            visits=follow_visits() if arguments.events else None,
            max_frames=arguments.max_frames,
            throttle=self._throttle(),
        )

    def run(self) -> None:
        """Answer until the end; when it raises, the files are as complete as they can be.

        Raises KeyboardInterrupt when the user interrupted the run, EdgeFGError for what failed, and
        BrokenPipeError when the reader of standard output has gone.
        """
        try:
            with contextlib.ExitStack() as serving:
                self._serve_metrics(serving)
                with self._pipeline:
                    self._pipeline.start()
                    if self._preview is not None:
                        _print_note(f"preview at {self._preview.url}")
                    try:
                        self._watch()
                        self._pipeline.stop()
                    except KeyboardInterrupt:
                        self._finish()
                        raise
        except KeyboardInterrupt:
            self._summarise()
            raise
        finally:
            if self._status is not None:
                self._status.clear()
            if self._window is not None:
                self._window.destroy()
        if self._output.error is not None:
            raise self._output.error
        if self._arguments.status or self._arguments.duration:
            self._summarise()
        self._check()

    def _finish(self) -> None:
        """Finish the files; only a third interrupt loses them."""
        try:
            self._pipeline.stop()
        except KeyboardInterrupt:
            _print_note("finishing the files; if you interrupt once more, they are lost")
            raise  # the end of the pipeline's block waits once more

    def _watch(self) -> None:
        """Wait for the end, and serve the window and the status line meanwhile."""
        duration = self._arguments.duration
        until = time.monotonic() + duration if duration else math.inf
        next_status = 0.0
        pause = _WINDOW_SECONDS if self._window is not None else _STATUS_SECONDS / 2
        while not self._pipeline.wait(max(0.0, min(pause, until - time.monotonic()))):
            if self._output.failed.is_set():
                return
            if self._window is not None and not self._window.refresh():
                return
            if time.monotonic() >= until:
                self._pipeline.drain(_DRAIN_SECONDS)
                return
            if self._status is not None and time.monotonic() >= next_status:
                self._status.update(self._pipeline.stats(), self._sensors.read())
                next_status = time.monotonic() + _STATUS_SECONDS

    def _check(self) -> None:
        """Raise what failed, now that the files are complete."""
        stats = self._pipeline.stats()
        self._pipeline.check()
        for source, counted in zip(self._sources, stats.sources, strict=True):
            skipped = len(source.skipped)
            if skipped and not counted.answered:
                raise SourceError(
                    f"{source.name}: none of its {skipped} images or videos can be read"
                )
            if skipped:
                _LOGGER.warning("files that could not be read, or not to their end: %d", skipped)
        for source_stats in stats.sources:
            if source_stats.error:
                raise SourceError(source_stats.error)
        for sink in stats.sinks:
            if sink.failures:
                raise OutputError(f"{sink.name}: {sink.failures} failures, the last: {sink.error}")

    def _summarise(self) -> None:
        if self._status is not None:
            self._status.clear()
        visits = self._visits.visits if self._visits is not None else None
        text = summary_text(self._pipeline.stats(), visits)
        print(printable_lines(text), file=sys.stderr, flush=True)

    def _watchers(self) -> list[Sink]:
        return [sink for sink in (self._preview, self._window, self._visits) if sink is not None]

    def _make_preview(self, annotate: SharedAnnotator) -> PreviewSink | None:
        where: Address | None = self._arguments.preview
        if where is None:
            return None
        _warn_if_remote("--preview", where)
        return PreviewSink(
            where.port,
            where.host,
            allow_remote=where.remote,
            annotate=annotate,
            stats=self._figures,
        )

    def _figures(self) -> dict[str, Any]:
        """Return the figures of this run that the preview shows."""
        figures = self._pipeline.stats().to_dict()
        figures["device"] = self._sensors.read().to_dict()
        return figures

    def _serve_metrics(self, serving: contextlib.ExitStack) -> None:
        where: Address | None = self._arguments.metrics
        if where is None:
            return
        _warn_if_remote("--metrics", where)
        device = self._sensors.read if self._sensors.found else None
        server = MetricsServer(
            PipelineCollector(self._pipeline.stats, device),
            where.port,
            where.host,
            allow_remote=where.remote,
        )
        serving.enter_context(server)
        host, port = server.address
        _print_note(f"metrics at http://{f'[{host}]' if ':' in host else host}:{port}/metrics")

    def _throttle(self) -> Throttle | None:
        temperature, power = self._arguments.max_temperature, self._arguments.max_power
        if temperature is None and power is None:
            return None
        now = self._sensors.reading()
        if temperature is not None and now.temperature_c is None:
            raise UsageError("--max-temperature needs a sensor, and this machine has none")
        if power is not None and now.power_w is None:
            raise UsageError("--max-power needs a power monitor, and this machine has none")
        return Throttle(self._sensors.reading, max_temperature_c=temperature, max_power_w=power)


def _warn_if_remote(option: str, where: Address) -> None:
    if where.remote:
        _LOGGER.warning(
            "%s %s: everyone who can reach this machine can read it", option, where.host
        )


def _print_note(text: str) -> None:
    print(f"edge-fg: {message(text)}", file=sys.stderr, flush=True)
