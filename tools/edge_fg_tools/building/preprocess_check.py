"""Signs that the preprocessing asked for is not the one that the model was trained with.

Such a model still answers, and its INT8 variant agrees with it: a comparison of the two alone would
prove nothing. What black and white become, after the preprocessing and what the model itself does
before its first layer, shows the usual mistakes.
"""

from __future__ import annotations

from edge_fg.preprocess import PreprocessSpec
from edge_fg_tools.graph.normalisation import Normalisation, colours

# Networks are trained on values whose black and white are this far apart: 1 (0..1) to 255.
_NARROWEST, _WIDEST = 0.25, 300.0
_BESIDE = 0.05  # How far zero may lie beside black or white, as a share of their distance
_CENTRED_MEAN = 60.0  # From this mean on values are centred, in units of 0..255
_SCALED_STD = 120.0  # From this std on centred values become tiny


def preprocess_doubts(spec: PreprocessSpec, inside: Normalisation | None) -> tuple[str, ...]:
    """Return what makes a preprocessing doubtful; nothing, mostly.

    `inside` is the normalisation that the model itself begins with, in the units of its input.
    """
    given = f"mean {colours(spec.mean)} and std {colours(spec.std)}"
    ends = [
        _black_and_white(mean, std, inside, index)
        for index, (mean, std) in enumerate(zip(spec.mean, spec.std, strict=True))
    ]
    usual = all(map(_is_usual, ends))
    seen = f"black {colours(low for low, _ in ends)}, white {colours(high for _, high in ends)}"
    if inside is not None and (not usual or _is_repeated(spec, inside)):
        advice = "check which values the model takes"
        if inside.white is not None:
            std = 255 // inside.white
            advice = f"give a file with mean = [0, 0, 0], std = [{std}, {std}, {std}]"
        found = f"the model normalises by itself, {inside}; with {given} before that, its first "
        found += f"layer gets {seen}: {advice}"
    elif any(0 < abs(mean) <= 1 for mean in spec.mean) or min(spec.std) < 1:
        found = (
            f"{given} look like values for pixels of 0..1, and pixels are 0..255: write both in "
        )
        found += "those units, such as 123.675 for 0.485 (std = 255 gives 0..1)"
    elif not usual:
        found = f"{given} give {seen}, which no network is trained on: check them, in units of "
        found += "0..255"
    else:
        return ()
    return (f"preprocessing: {found} (see docs/preprocessing.md)",)


def _black_and_white(
    mean: float, std: float, inside: Normalisation | None, index: int
) -> tuple[float, float]:
    """Return what pixels of 0 and 255 are where the first layer reads them."""
    black, white = -mean / std, (255.0 - mean) / std
    if inside is None:
        return black, white
    grey = len(inside.mean) == 1  # then the step from RGB to grey stands between
    shift, scale = (row[0 if grey else index] for row in (inside.mean, inside.std))
    return (black - shift) / scale, (white - shift) / scale


def _is_usual(ends: tuple[float, float]) -> bool:
    """Say whether a network could be trained on such values: neither tiny nor huge, about zero."""
    low, high = min(ends), max(ends)
    beside = _BESIDE * (high - low)
    return _NARROWEST <= high - low <= _WIDEST and low - beside <= 0 <= high + beside


def _is_repeated(spec: PreprocessSpec, inside: Normalisation) -> bool:
    """Say whether values that are centred already meet a normalisation of pixels."""
    if min(spec.mean) < _CENTRED_MEAN or inside.white is None:
        return False
    return inside.white == 1 or min(inside.mean) >= _CENTRED_MEAN or min(inside.std) >= _SCALED_STD
