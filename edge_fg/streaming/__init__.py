"""From sources and a classifier to answers, in a loop or beside the program."""

from edge_fg.streaming.events import VisitEvent
from edge_fg.streaming.pipeline import Pipeline
from edge_fg.streaming.policy import Every, Latest, Policy, Queue, Rate, parse_policy
from edge_fg.streaming.result import Result, Sighting
from edge_fg.streaming.sink import Sink
from edge_fg.streaming.stream import Stream, stream
from edge_fg.streaming.throttle import Throttle

__all__ = [
    "Every",
    "Latest",
    "Pipeline",
    "Policy",
    "Queue",
    "Rate",
    "Result",
    "Sighting",
    "Sink",
    "Stream",
    "Throttle",
    "VisitEvent",
    "parse_policy",
    "stream",
]
