"""Where the reference model and its documents lie."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

from edge_fg.errors import ModelError


def model_path() -> Path:
    """Path of the reference model, an ONNX file."""
    return _shipped("fieldguide.onnx")


def labels_path() -> Path:
    """Path of its labels and taxonomy, a CSV file."""
    return _shipped("labels.csv")


def preprocess_path() -> Path:
    """Path of its preprocessing description, a TOML file."""
    return _shipped("preprocess.toml")


def model_card_path() -> Path:
    """Path of its model card, in Markdown."""
    return _shipped("MODEL_CARD.md")


def _shipped(name: str) -> Path:
    resource = importlib.resources.files("edge_fg_tools.fieldguide") / "model" / name
    path = Path(str(resource))
    if not path.is_file():
        raise ModelError(
            f"{name} of the reference model is not at {path}: install edge-fg unzipped, or make it "
            "with `python -m edge_fg_tools.fieldguide.training --output DIR`"
        )
    return path
