"""Where results go: files, tables, videos, images, windows, browsers and programs."""

from typing import TYPE_CHECKING

from edge_fg.public_names import lazy_names

if TYPE_CHECKING:
    from edge_fg.sinks.base import BaseSink, CallbackSink
    from edge_fg.sinks.image_folder import ImagesSink
    from edge_fg.sinks.preview import PreviewSink
    from edge_fg.sinks.result_annotator import ResultAnnotator, SharedAnnotator
    from edge_fg.sinks.text import CsvSink, JsonLinesSink
    from edge_fg.sinks.video import VideoSink
    from edge_fg.sinks.video_file import VideoSaver
    from edge_fg.sinks.window import WindowSink

__all__ = ["BaseSink", "CallbackSink", "CsvSink", "ImagesSink", "JsonLinesSink", "PreviewSink"]
__all__ += ["ResultAnnotator", "SharedAnnotator", "VideoSaver", "VideoSink", "WindowSink"]

# A program that writes JSON lines loads no HTTP server and draws nothing.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "base": "BaseSink CallbackSink",
            "image_folder": "ImagesSink",
            "preview": "PreviewSink",
            "result_annotator": "ResultAnnotator SharedAnnotator",
            "text": "CsvSink JsonLinesSink",
            "video": "VideoSink",
            "video_file": "VideoSaver",
            "window": "WindowSink",
        },
    )
