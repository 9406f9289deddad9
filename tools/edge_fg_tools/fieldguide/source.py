"""The demo clip as a source: ``fieldguide://?seed=3&loop=2``."""

from __future__ import annotations

import itertools
import time
from collections.abc import Generator
from datetime import datetime
from urllib.parse import parse_qsl

import numpy as np
from numpy.typing import NDArray

from edge_fg.errors import UsageError
from edge_fg.sources.base import BaseSource
from edge_fg.sources.flip import flipped, flipped_size
from edge_fg.sources.frame import Frame
from edge_fg.sources.options import SourceOptions
from edge_fg_tools.fieldguide.clip import CLIP_FPS, CLIP_FRAMES, render_clip
from edge_fg_tools.fieldguide.drawing.feeder import CLIP_WH

_USAGE = "write fieldguide://?seed=N&loop=N&live=0|1 (loop=0: without end)"


class FieldGuideSource(BaseSource):
    """The demo clip, rendered while it is read.

    Each of the `rounds` (None: without end) has the next seed, and so other visitors. When `live`,
    frames come at the clip's own pace (15 a second) or at that of `options.fps`, and are dropped
    if not read in time, as a camera's are; otherwise each is made when it is read.
    """

    def __init__(
        self,
        seed: int = 0,
        rounds: int | None = 1,
        *,
        live: bool = False,
        options: SourceOptions | None = None,
    ) -> None:
        options = options or SourceOptions()
        name = f"fieldguide://?seed={seed}&loop={rounds or 0}&live={int(live)}"
        super().__init__(
            name,
            fps=options.fps or float(CLIP_FPS),
            size_wh=flipped_size(CLIP_WH, options.flip),
            frame_count=None if live or rounds is None else rounds * CLIP_FRAMES,
            live=live,
        )
        self._flip = options.flip
        self._images = _rounds(seed, rounds)
        self._started: float | None = None
        self._made = 0

    def _read(self) -> Frame | None:
        assert self.fps is not None
        dropped = self._keep_pace() if self.live else 0
        image = next(self._images, None)
        if image is None:
            return None
        position = self._made / self.fps
        self._made += 1
        return Frame(
            flipped(image, self._flip),
            number=self._delivered,
            source=self.name,
            time=datetime.now().astimezone() if self.live else None,
            position=None if self.live else position,
            dropped=dropped,
        )

    def _keep_pace(self) -> int:
        """Wait until the next frame is due; pass over those that came too early for anybody."""
        assert self.fps is not None
        now = time.monotonic()
        if self._started is None:
            self._started = now
        late = int((now - self._started) * self.fps) - self._made
        passed = 0
        while passed < late and next(self._images, None) is not None:
            passed += 1
        self._made += passed
        self._status.add("dropped", passed)
        time.sleep(max(0.0, self._started + self._made / self.fps - time.monotonic()))
        return passed

    def _release(self) -> None:
        self._images.close()


def open_fieldguide(uri: str, options: SourceOptions) -> FieldGuideSource:
    """Open ``fieldguide://?seed=N&loop=N&live=0|1``; the entry point of this scheme.

    Raises UsageError where the address says something else, or an option is given that a rendered
    clip can't have.
    """
    if options.size_wh is not None or options.codec is not None or options.raw:
        raise UsageError("size, codec and raw can't be chosen for fieldguide://")
    place, _, query = uri.partition("://")[2].partition("?")
    pairs = parse_qsl(query, keep_blank_values=True)
    values = dict(pairs)
    unknown = values.keys() - {"seed", "loop", "live"}
    numbers = all(text.isascii() and text.isdigit() and len(text) < 10 for text in values.values())
    if place or unknown or len(values) < len(pairs) or not numbers:
        raise UsageError(f"{uri[:80]} is not an address of the field guide: {_USAGE}")
    if values.get("live", "0") not in ("0", "1"):
        raise UsageError(f"{uri[:80]}: live is 0 or 1")
    return FieldGuideSource(
        int(values.get("seed", "0")),
        int(values.get("loop", "1")) or None,
        live=values.get("live") == "1",
        options=options,
    )


def _rounds(seed: int, rounds: int | None) -> Generator[NDArray[np.uint8], None, None]:
    for played in itertools.count() if rounds is None else range(rounds):
        for image, _ in render_clip(seed + played):
            yield image
