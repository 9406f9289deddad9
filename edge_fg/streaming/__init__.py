"""From a source and a classifier to a stream of answers."""

from edge_fg.streaming.pipeline import Stream, stream

__all__ = ["Stream", "stream"]
