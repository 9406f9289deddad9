"""edge_fg: fine-grained image recognition on edge devices.

>>> import edge_fg
>>> classifier = edge_fg.load("birds.edgefg")
>>> prediction = classifier(frame)  # (H, W, 3) uint8 BGR
>>> prediction.label, prediction.confidence
"""

from edge_fg._version import __version__
from edge_fg.bundle import Bundle
from edge_fg.errors import EdgeFGError
from edge_fg.pipeline import Pipeline, stream
from edge_fg.preprocess import PreprocessSpec
from edge_fg.recognition.classifier import Classifier, load
from edge_fg.recognition.prediction import Answer, Latency, Prediction
from edge_fg.sources import Frame, Source, open_source

__all__ = [
    "Answer",
    "Bundle",
    "Classifier",
    "EdgeFGError",
    "Frame",
    "Latency",
    "Pipeline",
    "Prediction",
    "PreprocessSpec",
    "Source",
    "__version__",
    "load",
    "open_source",
    "stream",
]
