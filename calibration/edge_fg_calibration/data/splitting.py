"""Splitting sets of images by what the files hold, never by their names or order."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from edge_fg.errors import DatasetError, UsageError
from edge_fg.files import sha256_of
from edge_fg_calibration.data.image_set import ImageSet, LabelledImage

MINIMUM_FOR_SPLIT = 8
"""Distinct images below which nothing can be calibrated *and* proven."""


def split_image_set(
    image_set: ImageSet, calibration_images: int, seed: int = 0
) -> tuple[ImageSet, ImageSet]:
    """Split into images to calibrate on and images to prove on, disjoint by content.

    Of files with the same bytes only the first counts. Classes give in proportion to their
    size (systematic sampling within each class, images without a class being one more), so the
    hold-out set keeps the mixture of the whole. The choice depends on the contents and the
    seed, not on names or order.

    Parameters
    ----------
    image_set
        The images.
    calibration_images
        Images wanted for calibration; at most half of a small set is taken.
    seed
        Another seed gives another split.

    Returns
    -------
    The calibration set and the hold-out set, each in the order of `image_set`.

    Raises
    ------
    DatasetError
        There are fewer than eight distinct images.
    UsageError
        `calibration_images` is not positive.
    """
    if calibration_images < 1:
        raise UsageError(f"calibration images must be at least 1, not {calibration_images}")
    distinct: dict[str, LabelledImage] = {}
    for item in image_set.items:
        distinct.setdefault(content_hash(item.path), item)
    if len(distinct) < MINIMUM_FOR_SPLIT:
        raise DatasetError(
            f"{image_set.name}: {len(distinct)} distinct images; at least {MINIMUM_FOR_SPLIT} "
            f"are needed, half to calibrate and half to prove the result (a few hundred give "
            f"good ranges)"
        )
    wanted = min(calibration_images, len(distinct) // 2)
    strata = {
        content: item.label if item.index is None else item.index
        for content, item in distinct.items()
    }
    chosen = set(stratified(strata, seed)[:wanted])
    calibration = {item.path for content, item in distinct.items() if content in chosen}
    return parted(replace(image_set, items=tuple(distinct.values())), calibration)


def parted(image_set: ImageSet, calibration: Collection[Path]) -> tuple[ImageSet, ImageSet]:
    """Return the images of these paths, and the others: the calibration and the hold-out set."""
    first = tuple(item for item in image_set.items if item.path in calibration)
    second = tuple(item for item in image_set.items if item.path not in calibration)
    return (
        replace(image_set, items=first, name=f"{image_set.name} (calibration)"),
        replace(image_set, items=second, name=f"{image_set.name} (hold-out)"),
    )


def image_set_digest(image_set: ImageSet, *, ordered: bool = False) -> str:
    """Return one SHA-256 for the contents of all images, whatever their names.

    Their order doesn't matter either, unless it is to (`ordered`).

    Raises
    ------
    DatasetError
        A file can't be read.
    """
    hashes = [content_hash(item.path) for item in image_set.items]
    if not ordered:
        hashes.sort()
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def stratified(strata: Mapping[str, object], seed: int) -> list[str]:
    """Order contents so that every prefix holds each stratum in proportion.

    Parameters
    ----------
    strata
        The stratum of each content; contents are known by their hashes.
    seed
        Another seed gives another order.
    """
    groups: defaultdict[object, list[tuple[str, str]]] = defaultdict(list)
    for content, stratum in strata.items():
        key = hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()
        groups[stratum].append((key, content))
    places = []
    for group in groups.values():
        group.sort()
        # A start drawn per class: without it all classes of two would give their first alike.
        start = int(group[0][0][-8:], 16) / 2**32
        for rank, (key, content) in enumerate(group):
            places.append(((rank + start) / len(group), key, content))
    return [content for _, _, content in sorted(places)]


def content_hash(path: Path) -> str:
    """Return the SHA-256 of an image file.

    Raises
    ------
    DatasetError
        The file can't be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror or error})") from error
