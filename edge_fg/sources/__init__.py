"""Frames from images, videos, cameras, network streams and programs."""

from edge_fg.sources.base import Source
from edge_fg.sources.frame import Frame
from edge_fg.sources.opening import open_source
from edge_fg.sources.options import SourceKeywords, SourceOptions
from edge_fg.sources.state import SourceState, StateChange, StateListener
from edge_fg.sources.uri import VIDEO_SUFFIXES, SourceDescription, parse_source, redact

__all__ = [
    "Frame",
    "Source",
    "SourceDescription",
    "SourceKeywords",
    "SourceOptions",
    "SourceState",
    "StateChange",
    "StateListener",
    "VIDEO_SUFFIXES",
    "open_source",
    "parse_source",
    "redact",
]
