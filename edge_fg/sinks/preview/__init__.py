"""A live image for browsers, on this machine unless asked otherwise."""

from edge_fg.sinks.preview.sink import PreviewSink

__all__ = ["PreviewSink"]
