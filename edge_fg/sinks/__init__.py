"""Where results go: files, tables, videos, images, windows, browsers and programs."""

from edge_fg.sinks.base import BaseSink, CallbackSink
from edge_fg.sinks.image_folder import ImagesSink
from edge_fg.sinks.preview import PreviewSink
from edge_fg.sinks.result_annotator import ResultAnnotator, SharedAnnotator
from edge_fg.sinks.text import CsvSink, JsonLinesSink
from edge_fg.sinks.video import VideoSink
from edge_fg.sinks.video_file import VideoSaver
from edge_fg.sinks.window import WindowSink

__all__ = [
    "BaseSink",
    "CallbackSink",
    "CsvSink",
    "JsonLinesSink",
    "ImagesSink",
    "PreviewSink",
    "ResultAnnotator",
    "SharedAnnotator",
    "VideoSaver",
    "VideoSink",
    "WindowSink",
]
