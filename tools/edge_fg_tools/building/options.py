"""What a build is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from edge_fg.bundle import PRECISIONS, Precision
from edge_fg.errors import PreprocessError, UsageError
from edge_fg.preprocess import PreprocessSpec, load_preprocess, presets
from edge_fg.preprocess.spec import with_input
from edge_fg_calibration import Budget, Target
from edge_fg_tools.graph import Kind, PreparedModel

_LONGEST_NAME = 200


@dataclass(frozen=True)
class BuildOptions:
    """One build."""

    # The ONNX file, and the label file; None takes the names from the model's metadata.
    model: Path
    labels: Path | None
    # A directory or CSV of images, a video file, or the name of a camera or stream.
    calibration: Path | str
    output: Path  # The bundle: a directory, or a file that ends in .zip
    preprocess: str | None = None  # Name of a preset or path of a TOML file
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")  # Variants wanted
    # Fidelity that every variant must keep.
    budget: Budget = Budget.parse([])  # noqa: RUF009  frozen
    # Where INT8 is placed for; ``tensorrt-rtx`` also builds a real plan of every variant.
    target: Target = "portable"
    # At most so many images are calibrated on; all others prove the result.
    calibration_images: int = 512
    seed: int = 0  # Of the choice between the two
    name: str | None = None  # Of the bundle; None takes the output's
    input_size: tuple[int, int] | None = None  # (height, width) for a model that leaves them open
    model_output: str | None = None  # Which output holds the classes, for a model with several
    output_kind: Kind | None = None  # What it holds, where neither graph nor values tell it
    command: str = ""  # How the build was asked for, for the record
    cache: bool = True  # Whether calibration statistics are kept and reused
    overwrite: bool = False  # Whether a bundle that is there already is replaced
    allow_low_accuracy: bool = False  # Whether a model that is right only by chance is built
    keep_best: bool = False  # Whether the best that missed the budget is kept as `best_output`

    def __post_init__(self) -> None:
        unknown = [p for p in self.precisions if p not in PRECISIONS]
        if unknown or not self.precisions:
            raise UsageError(
                f"there is no precision `{', '.join(unknown)}`: choose from {', '.join(PRECISIONS)}"
            )
        if not 1 <= len(self.bundle_name) <= _LONGEST_NAME or not self.bundle_name.isprintable():
            raise UsageError(
                f"a bundle's name has 1 to {_LONGEST_NAME} printable characters: give --name"
            )
        if self.keep_best and self.budget == Budget():
            raise UsageError("--keep-best keeps what misses a budget: give --budget, too")

    @property
    def bundle_name(self) -> str:
        """Name of the bundle: the one asked for, or the output's without its suffix."""
        return self._stem if self.name is None else self.name

    @property
    def best_output(self) -> Path:
        """Where the best that missed the budget is kept: ``b.best.edgefg`` beside ``b.edgefg``."""
        suffix = self.output.name[len(self._stem) :]
        return self.output.with_name(f"{self._stem}.best{suffix}")

    @property
    def _stem(self) -> str:
        return self.output.name.removesuffix(".zip").removesuffix(".edgefg")


def fit_preprocess(asked: str | None, prepared: PreparedModel) -> PreprocessSpec:
    """Return the preprocessing asked for, fitted to the model's input.

    A preset takes the model's size; a file must agree with it. Raises PreprocessError where none
    was given or it does not give what the model takes.
    """
    if asked is None:
        raise PreprocessError(
            "how was the model's training data prepared? Guessing would cost accuracy: give "
            f"--preprocess with a preset ({', '.join(presets())}) or a TOML file "
            "(see docs/preprocessing.md)"
        )
    spec = load_preprocess(asked)
    if asked in presets():
        spec = with_input(
            spec, height=prepared.height, width=prepared.width, layout=prepared.layout
        )
    if prepared.is_grey:
        if len(set(zip(spec.mean, spec.std, strict=True))) > 1:
            raise PreprocessError(
                f"{asked} normalises red, green and blue differently, but the model takes one grey "
                "channel: give a TOML file whose mean and std are the same for all three"
            )
        # The weights of grey are in the order of RGB.
        spec = msgspec.structs.replace(spec, color="rgb")
    shape = spec.tensor_shape
    wanted = prepared.image_shape
    if shape != wanted or spec.dtype != prepared.input_dtype:
        raise PreprocessError(
            f"{asked} gives {spec.layout} {shape} {spec.dtype}, the model takes "
            f"{prepared.layout} {wanted} {prepared.input_dtype}: correct size, layout or dtype "
            "(see docs/preprocessing.md)"
        )
    return spec
