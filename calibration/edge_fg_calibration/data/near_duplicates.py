"""Finding images that can't be read and images that show the same.

Two images show the same if their difference hashes (N. Krawetz, "Kind of Like That", 2013: the
signs of 8 x 8 differences between neighbours of a tiny grey copy) differ in few bits *and* a tiny
grey copy of one correlates with the other's; the hash alone takes plain backgrounds for each
other. Among 1,570 photographs of 525 bird species two pairs are within these limits, both
pairs of one scene; the next nearest pair is 10 bits apart and no other correlates as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edge_fg.errors import ImageError
from edge_fg.images import OddImages, read_image
from edge_fg_calibration.data.image_set import ImageSet, LabelledImage
from edge_fg_calibration.data.splitting import content_hash

_NEAR_BITS = 6  # Most of the 64 bits in which the hashes of near-duplicates differ
_NEAR_CORRELATION = 0.95  # Least correlation of the 16 x 16 grey copies of near-duplicates
_FLAT = 1.0  # standard deviation, in grey levels, below which there is nothing to compare
_ROWS = 512
_THREADS = 2


@dataclass(frozen=True)
class Fingerprint:
    """What is remembered of one image."""

    item: LabelledImage  # The image
    content: str  # SHA-256 of its file
    signs: NDArray[np.float32] = field(repr=False)  # Difference hash: 64 values of -1 and 1
    # Its 16 x 16 grey copy, mean 0 and length 1; all zeros if it is of one flat colour.
    grey: NDArray[np.float32] = field(repr=False)


def read_fingerprints(image_set: ImageSet) -> tuple[list[Fingerprint], dict[Path, str]]:
    """Decode every image once, in the order of the set.

    Returns what is remembered of those that can be read, and the reason for each that can't.
    """
    odd = OddImages()
    # Decoding releases the interpreter lock.
    with ThreadPoolExecutor(_THREADS) as pool:
        seen = list(pool.map(partial(_fingerprint, odd), image_set.items))
    odd.finish()
    pairs = zip(image_set.items, seen, strict=True)
    corrupt = {item.path: one for item, one in pairs if isinstance(one, str)}
    return [one for one in seen if isinstance(one, Fingerprint)], corrupt


def near_duplicates(fingerprints: Sequence[Fingerprint]) -> dict[Path, Path]:
    """Return the images to leave out, each with the one that is kept instead.

    No two of the others are near-duplicates. Images with a class are kept rather than those
    without; beyond that the contents decide, not names or order. Images of one flat colour
    are compared by their bytes only.
    """
    ordered = sorted(fingerprints, key=_preference)
    if not ordered:
        return {}
    signs = np.stack([one.signs for one in ordered])
    greys = np.stack([one.grey for one in ordered])
    partners: list[list[int]] = []
    for start in range(0, len(ordered), _ROWS):
        rows = slice(start, start + _ROWS)
        distance = (64 - signs[rows] @ signs.T) / 2
        near = (distance <= _NEAR_BITS) & (greys[rows] @ greys.T >= _NEAR_CORRELATION)
        partners.extend(np.flatnonzero(row).tolist() for row in near)
    first_with: dict[str, int] = {}
    kept: set[int] = set()
    dropped: dict[Path, Path] = {}
    for number, one in enumerate(ordered):
        same = first_with.setdefault(one.content, number)
        before = [same] if same != number else [n for n in partners[number] if n in kept]
        if before:
            dropped[one.item.path] = ordered[before[0]].item.path
        else:
            kept.add(number)
    return dropped


def _preference(one: Fingerprint) -> tuple[bool, bool, str, str]:
    item = one.item
    return (item.index is None, item.label is None, one.content, str(item.path))


def _fingerprint(odd: OddImages, item: LabelledImage) -> Fingerprint | str:
    try:
        frame = read_image(item.path, on_odd=odd)
    except (ImageError, OSError) as error:
        return str(error)
    grey = Image.fromarray(frame).convert("L")
    # Pillow averages whole boxes, so one decoder's noise or another's moves no bit.
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    signs = np.where(small[:, 1:] > small[:, :-1], 1, -1).astype(np.float32).reshape(-1)
    copy = np.asarray(grey.resize((16, 16), Image.Resampling.BOX), dtype=np.float32).reshape(-1)
    copy = copy - copy.mean()
    length = float(np.linalg.norm(copy))
    flat = length < _FLAT * np.sqrt(copy.size)
    copy = np.zeros_like(copy) if flat else copy / np.float32(length)
    return Fingerprint(item, content_hash(item.path), signs, copy)
