"""From the model's outputs to an answer."""

from edge_fg.recognition.classifier import Classifier, load
from edge_fg.recognition.prediction import Answer, Latency, Prediction

__all__ = ["Answer", "Classifier", "Latency", "Prediction", "load"]
