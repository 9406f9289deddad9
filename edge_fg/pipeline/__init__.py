"""From sources and a classifier to answers, in a loop or beside the program."""

from edge_fg.pipeline.classifier_adapter import FrameClassifier
from edge_fg.pipeline.pipeline import Pipeline
from edge_fg.pipeline.policy import Every, Latest, Policy, Queue, Rate, parse_policy
from edge_fg.pipeline.stream import Stream, stream
from edge_fg.pipeline.throttle import Throttle
from edge_fg.result import Result, Sighting, VisitEvent
from edge_fg.sinks.base import Sink

__all__ = ["FrameClassifier", "Pipeline", "Sink", "Stream", "Throttle", "stream"]
__all__ += ["Every", "Latest", "Policy", "Queue", "Rate", "parse_policy"]
__all__ += ["Result", "Sighting", "VisitEvent"]
