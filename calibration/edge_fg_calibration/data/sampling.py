"""Choosing the images to calibrate on, and those that prove the result.

The two sides are parted by chance alone, class by class. Only then are the images to calibrate
on chosen, among those of their side: picking hard examples from the whole would leave the proof
with the easier ones, and flatter it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from edge_fg.errors import DatasetError, UsageError
from edge_fg_calibration.data.image_set import ImageSet, LabelledImage
from edge_fg_calibration.data.near_duplicates import near_duplicates, read_fingerprints
from edge_fg_calibration.data.splitting import (
    MINIMUM_FOR_SPLIT,
    drawn,
    parted,
    split_by_class,
    stratified,
)

_HARD_SHARE = 0.25  # Share of the calibration images that is taken from the hardest of their side
_CANDIDATES = 2  # looked at for each image wanted


@dataclass(frozen=True)
class TopAnswer:
    """What the float model says to one image.

    Parameters
    ----------
    index
        Its answer.
    margin
        Probability (0..1) of the answer less that of the second.
    """

    index: int
    margin: float


Predict: TypeAlias = Callable[[ImageSet], Mapping[Path, TopAnswer]]
"""Runs the float model; images that it couldn't read are missing from the result."""

Strata: TypeAlias = Literal["class", "answer", "chance"]


@dataclass(frozen=True)
class Sample:
    """Both sides of a set of images, and what was left out.

    Parameters
    ----------
    calibration
        Images to calibrate on.
    hold_out
        Images for the proof; none is, or resembles, one of the other side.
    corrupt
        Reason for each file that can't be read.
    duplicates
        For each file left out as the same as another, or nearly, that other one.
    not_chosen
        Images of the calibration side that were not chosen. They prove nothing either: without
        the hard ones they are too easy.
    hard
        How many of `calibration` were chosen for their small margin.
    strata
        What made the choice representative: the ``class``, the model's own ``answer`` where
        classes are unknown, or ``chance`` where there was nothing to choose.
    """

    calibration: ImageSet
    hold_out: ImageSet
    corrupt: Mapping[Path, str]
    duplicates: Mapping[Path, Path]
    not_chosen: int
    hard: int
    strata: Strata


def sample(
    image_set: ImageSet,
    calibration_images: int,
    *,
    seed: int = 0,
    predict: Predict | None = None,
    hard_share: float = _HARD_SHARE,
) -> Sample:
    """Choose calibration images for the purpose, and hold out the others for the proof.

    Files that can't be decoded and near-duplicates are left out. At most half of the others
    become the calibration side, whole groups together. Of that side, where it has more images
    than wanted, the model runs (on at most twice as many as wanted) and the choice is: the given
    share of those with the smallest margin, and the rest in proportion to the classes, or to the
    model's answers where no class is known. The choice depends on the contents and the seed,
    not on names or order.

    Parameters
    ----------
    image_set
        The images.
    calibration_images
        Images wanted for calibration; at most half of a small set is taken.
    seed
        Another seed gives another choice.
    predict
        Runs the float model; without it there are no hard examples. It is not called where
        there is nothing to choose.
    hard_share
        Share (0..1) of hard examples.

    Raises
    ------
    DatasetError
        Fewer than eight images are left.
    UsageError
        `calibration_images` is not positive or `hard_share` not within 0..1.
    """
    if not 0 <= hard_share <= 1:
        raise UsageError(f"the share of hard examples lies within 0..1, not {hard_share}")
    fingerprints, corrupt = read_fingerprints(image_set)
    duplicates = near_duplicates(fingerprints)
    left = [one for one in fingerprints if one.item.path not in duplicates]
    if len(left) < MINIMUM_FOR_SPLIT:
        raise DatasetError(_too_few(image_set, len(left), corrupt, duplicates))
    known = replace(image_set, items=tuple(one.item for one in left))
    if calibration_images < 1:
        raise UsageError(f"calibration images must be at least 1, not {calibration_images}")
    contents = {one.item.path: one.content for one in left}
    side, hold_out = _parted(known, contents, calibration_images * _CANDIDATES, seed)
    chosen, hard, strata = _chosen(side, contents, calibration_images, seed, predict, hard_share)
    return Sample(
        calibration=replace(side, items=chosen),
        hold_out=hold_out,
        corrupt=corrupt,
        duplicates=duplicates,
        not_chosen=len(side) - len(chosen),
        hard=hard,
        strata=strata,
    )


def _parted(
    images: ImageSet, contents: Mapping[Path, str], wanted: int, seed: int
) -> tuple[ImageSet, ImageSet]:
    """Part by chance: class by class, or whole groups where there are any."""
    if all(item.group is None for item in images.items):
        return split_by_class(images, contents, wanted, seed)
    members: dict[str, list[str]] = {}
    for item in images.items:
        members.setdefault(_group_of(item), []).append(contents[item.path])
    if len(members) < 2:
        raise DatasetError(
            f"{images.name}: all images are from one moment; a longer video is needed, one "
            f"part to calibrate on and one to prove the result"
        )
    target = min(wanted, len(images) // 2)
    taken: set[str] = set()
    count = 0
    # Drawn by what a group shows: its name holds a path, which is no part of the choice.
    for key in sorted(members, key=lambda one: drawn(min(members[one]), seed)):
        size = len(members[key])
        if abs(target - count - size) < abs(target - count):
            taken.add(key)
            count += size
    if not taken:
        taken.add(min(members, key=lambda one: (len(members[one]), min(members[one]))))
    return parted(images, {item.path for item in images.items if _group_of(item) in taken})


def _group_of(item: LabelledImage) -> str:
    return f"image {item.path}" if item.group is None else f"group {item.group}"


def _chosen(
    side: ImageSet,
    contents: Mapping[Path, str],
    wanted: int,
    seed: int,
    predict: Predict | None,
    hard_share: float,
) -> tuple[tuple[LabelledImage, ...], int, Strata]:
    """Choose among the calibration side; return the images, how many are hard, and by what."""
    if len(side) <= wanted:
        return side.items, 0, "chance"
    answers = predict(side) if predict is not None else {}
    by_content = {contents[item.path]: item for item in side.items}
    hardest = sorted(
        (answer.margin, drawn(contents[path], seed), contents[path])
        for path, answer in answers.items()
    )
    hard = {content for _, _, content in hardest[: round(wanted * hard_share)]}
    labelled = any(item.known_class is not None for item in side.items)
    strata = {
        content: _stratum(item, answers.get(item.path))
        for content, item in by_content.items()
        if content not in hard
    }
    taken = hard | set(stratified(strata, seed)[: wanted - len(hard)])
    items = tuple(item for content, item in by_content.items() if content in taken)
    return items, len(hard), "class" if labelled else "answer" if answers else "chance"


def _stratum(item: LabelledImage, answer: TopAnswer | None) -> object:
    if item.known_class is not None:
        return item.known_class
    return ("answer", None if answer is None else answer.index)


def _too_few(
    image_set: ImageSet, left: int, corrupt: Mapping[Path, str], duplicates: Mapping[Path, Path]
) -> str:
    causes = []
    if corrupt:
        path, reason = next(iter(corrupt.items()))
        causes.append(f"{len(corrupt)} can't be read, such as {path.name}: {reason}")
    if duplicates:
        causes.append(f"{len(duplicates)} show the same as another")
    why = f" ({'; '.join(causes)})" if causes else ""
    return (
        f"{image_set.name}: {left} distinct images{why}; "
        f"at least {MINIMUM_FOR_SPLIT} are needed, half to calibrate and half to prove the result "
        f"(a few hundred give good ranges)"
    )


def summary(found: Sample) -> str:
    """Return in one line how the images were chosen."""
    how = {
        "class": "class by class",
        "answer": "by the model's own answers",
        "chance": "by chance",
    }[found.strata]
    parts = (
        (len(found.calibration), f"images to calibrate on, chosen {how}"),
        (found.hard, "of them because the model hesitates"),
        (len(found.hold_out), "held out for the proof"),
        (found.not_chosen, "not chosen"),
        (len(found.duplicates), "left out that show the same as another"),
        (len(found.corrupt), "left out that can't be read"),
    )
    return ", ".join(f"{count} {what}" for count, what in parts if count)
