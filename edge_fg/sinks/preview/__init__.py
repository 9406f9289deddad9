"""Live images for browsers, by default only on this machine."""

from edge_fg.sinks.preview.sink import PreviewSink

__all__ = ["PreviewSink"]
