"""Splitting sets of images by what the files hold, never by their names or order."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from edge_fg.errors import DatasetError
from edge_fg.files import sha256_of
from edge_fg_calibration.data.image_set import ImageSet

MINIMUM_FOR_SPLIT = 8
"""Distinct images below which nothing can be calibrated *and* proven."""


def split_by_class(
    images: ImageSet, contents: Mapping[Path, str], calibration_images: int, seed: int
) -> tuple[ImageSet, ImageSet]:
    """Split into the calibration set and the hold-out set, each in the order of `images`.

    Classes give in proportion to their size (systematic sampling within each class, images
    without a class being one more), so the hold-out set keeps the mixture of the whole. The choice
    depends on the contents and the seed, not on names or order. `contents` holds the SHA-256 of
    each image, no two alike; at most half of a small set is taken for calibration.
    """
    strata = {contents[item.path]: item.known_class for item in images.items}
    chosen = set(stratified(strata, seed)[: min(calibration_images, len(images) // 2)])
    return parted(images, {path for path, content in contents.items() if content in chosen})


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
    """Order contents, known by their hashes, so that every prefix holds each stratum in proportion.

    Another seed gives another order.
    """
    groups: defaultdict[object, list[tuple[str, str]]] = defaultdict(list)
    for content, stratum in strata.items():
        groups[stratum].append((drawn(content, seed), content))
    places = []
    for group in groups.values():
        group.sort()
        # A start drawn per class: without it all classes of two would give their first alike.
        start = int(group[0][0][-8:], 16) / 2**32
        for rank, (key, content) in enumerate(group):
            places.append(((rank + start) / len(group), key, content))
    return [content for _, _, content in sorted(places)]


def drawn(content: str, seed: int) -> str:
    """Return what orders contents by chance, the same for one seed."""
    return hashlib.sha256(f"{seed}:{content}".encode()).hexdigest()


def content_hash(path: Path) -> str:
    """Return the SHA-256 of an image file; `DatasetError` where it can't be read."""
    try:
        return sha256_of(path)
    except OSError as error:
        raise DatasetError(f"{path}: can't be read ({error.strerror or error})") from error
