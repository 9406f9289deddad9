"""edge_fg: fine-grained image recognition on edge devices.

>>> import edge_fg
>>> classifier = edge_fg.load("birds.edgefg")
>>> prediction = classifier(frame)  # (H, W, 3) uint8 BGR
>>> prediction.label, prediction.confidence

``docs/api.md`` shows every public name in use. What stands here is loaded when it is first used,
so that the import itself takes hardly any time.
"""

from typing import TYPE_CHECKING

from edge_fg._version import __version__
from edge_fg.errors import EdgeFGError
from edge_fg.public_names import lazy_names

if TYPE_CHECKING:
    from edge_fg.backends.options import EngineOptions
    from edge_fg.backends.selection import Choice
    from edge_fg.bundle import Bundle
    from edge_fg.labels import Label, Labels
    from edge_fg.pipeline import (
        Every,
        FrameClassifier,
        Latest,
        Pipeline,
        Policy,
        Queue,
        Rate,
        Result,
        Sighting,
        Sink,
        Stream,
        Throttle,
        VisitEvent,
        stream,
    )
    from edge_fg.preprocess import PreprocessSpec
    from edge_fg.preprocess.pixel_layout import PixelFormat, PixelLayout
    from edge_fg.preprocess.raw_frame import RawFrame
    from edge_fg.preprocess.yuv import ColorStandard
    from edge_fg.recognition import Answer, Classifier, Latency, Prediction, load
    from edge_fg.sources import Frame, Source, StateChange, open_source
    from edge_fg.telemetry.device import Reading
    from edge_fg.telemetry.histogram import Summary
    from edge_fg.telemetry.stats import PipelineStats, SinkStats, SourceStats, ThrottleStats
    from edge_fg.tracking.visits import VisitSettings, follow_visits

__all__ = ["EdgeFGError", "__version__", "load", "open_source", "stream", "follow_visits"]
__all__ += ["Answer", "Choice", "Classifier", "EngineOptions", "Latency", "Prediction"]
__all__ += ["Bundle", "Label", "Labels", "PreprocessSpec"]
__all__ += ["ColorStandard", "PixelFormat", "PixelLayout", "RawFrame"]
__all__ += ["Frame", "Source", "StateChange"]
__all__ += ["FrameClassifier", "Pipeline", "Result", "Sink", "Stream"]
__all__ += ["Every", "Latest", "Policy", "Queue", "Rate"]
__all__ += ["PipelineStats", "Reading", "SinkStats", "SourceStats", "Summary", "ThrottleStats"]
__all__ += ["Sighting", "Throttle", "VisitEvent", "VisitSettings"]

_NAMES_OF = {
    "backends.options": "EngineOptions",
    "backends.selection": "Choice",
    "bundle": "Bundle",
    "labels": "Label Labels",
    "pipeline": "Every FrameClassifier Latest Pipeline Policy Queue Rate Result Sighting Sink "
    "Stream Throttle VisitEvent stream",
    "preprocess": "PreprocessSpec",
    "preprocess.pixel_layout": "PixelFormat PixelLayout",
    "preprocess.raw_frame": "RawFrame",
    "preprocess.yuv": "ColorStandard",
    "recognition": "Answer Classifier Latency Prediction load",
    "sources": "Frame Source StateChange open_source",
    "telemetry.histogram": "Summary",
    "telemetry.device": "Reading",
    "telemetry.stats": "PipelineStats SinkStats SourceStats ThrottleStats",
    "tracking.visits": "VisitSettings follow_visits",
}
_ROOMS = (
    "backends bundle cuda files images labels pipeline preprocess progress recognition result "
    "sinks sources telemetry tracking"
)


def _escape_records() -> None:
    """Escape what records of the logger quote, whatever shows them, from the first one on."""
    import logging

    def escape(record: logging.LogRecord) -> bool:
        from edge_fg.printing import escape_record

        return escape_record(record)

    logging.getLogger(__name__).addFilter(escape)


_escape_records()

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _NAMES_OF, _ROOMS.split())
