"""The field guide: invented birds, photographs of them, a demo clip, and a model that knows them.

Everything is drawn by a generator from seeds; nothing was downloaded. The model and its card
lie beside this file as package data; `edge_fg_tools.fieldguide.training` made them.
"""

from edge_fg_tools.fieldguide.clip import BirdTruth, FrameTruth, render_clip, write_clip
from edge_fg_tools.fieldguide.dataset import (
    BACKGROUND_INDEX,
    LABELS,
    render_photograph,
    write_image_set,
)
from edge_fg_tools.fieldguide.model_files import (
    labels_path,
    model_card_path,
    model_path,
    preprocess_path,
)
from edge_fg_tools.fieldguide.species import GENERA, SPECIES, Genus, Marks, Species

__all__ = [
    "BACKGROUND_INDEX",
    "GENERA",
    "LABELS",
    "SPECIES",
    "BirdTruth",
    "FrameTruth",
    "Genus",
    "Marks",
    "Species",
    "labels_path",
    "model_card_path",
    "model_path",
    "preprocess_path",
    "render_clip",
    "render_photograph",
    "write_clip",
    "write_image_set",
]
