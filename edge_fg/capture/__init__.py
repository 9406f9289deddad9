"""Frames from pictures, videos, cameras, network streams and programs."""

from edge_fg.capture.base import Source
from edge_fg.capture.frame import Frame
from edge_fg.capture.opencv import quiet_ffmpeg
from edge_fg.capture.options import CaptureOptions
from edge_fg.capture.source import open_source, open_sources
from edge_fg.capture.state import SourceState, StateChange, StateListener
from edge_fg.capture.uri import VIDEO_SUFFIXES, SourceDescription, parse_source, redact

__all__ = [
    "CaptureOptions",
    "Frame",
    "Source",
    "SourceDescription",
    "SourceState",
    "StateChange",
    "StateListener",
    "VIDEO_SUFFIXES",
    "open_source",
    "open_sources",
    "parse_source",
    "quiet_ffmpeg",
    "redact",
]
