"""What may be asked of a source: by keyword, or behind its name.

`SourceOptions` is the one declaration. The keywords of `open_source` and what may stand behind a
name (``?width=640&height=480``) follow from it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final, Literal, TypedDict, get_args
from urllib.parse import unquote

from edge_fg.errors import UsageError
from edge_fg.grey import check_grey_range

Flip = Literal[
    "none",
    "counterclockwise",
    "rotate-180",
    "clockwise",
    "horizontal",
    "vertical",
    "upper-right-diagonal",
    "upper-left-diagonal",
]
"""How to turn or mirror images, in the words of NVIDIA's ``nvvidconv`` and jetson-utils.

``counterclockwise`` and ``clockwise`` turn by 90 degrees; ``upper-right-diagonal`` and
``upper-left-diagonal`` mirror at the diagonal through that corner.
"""
Codec = Literal["mjpeg", "yuyv", "nv12", "h264", "h265"]

FLIPS: Final[tuple[Flip, ...]] = get_args(Flip)
CODECS: Final[tuple[Codec, ...]] = get_args(Codec)

_MAX_SIDE = 16384
_MAX_FPS = 1000.0
_MAX_SECONDS = 86400.0
_MAX_BUFFER = 64
_BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _number(text: str) -> float:
    # float() takes "1_0", "nan" and digits of every script.
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise ValueError
    return float(text)


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError
    return int(text)


def _range(text: str) -> tuple[int, int]:
    low, _, high = text.partition("-")
    return _count(low), _count(high)


def _or_none(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: None if text == "none" else convert(text)


def _boolean(text: str) -> bool:
    return _BOOLEANS[text.lower()]


# The metadata of a field says how the option is read where it stands behind a name.
@dataclass(frozen=True)
class SourceOptions:
    """What to ask of a source; None leaves it to the device.

    Raises
    ------
    UsageError
        A value makes no sense.
    """

    # Width and height in pixels, 1..16384; cameras only.
    size_wh: tuple[int, int] | None = None  # behind a name it is width and height
    # Frames per second, above 0 and up to 1000; cameras only.
    fps: float | None = field(default=None, metadata={"read": _number})
    # Seconds to wait for a connection to open, and then for each frame; live sources only.
    timeout: float = field(default=10.0, metadata={"read": _number})
    # How to turn or mirror every frame; see `Flip`.
    flip: Flip = field(default="none", metadata={"read": str})
    # What a V4L2 camera must send: ``mjpeg``, ``yuyv``, ``nv12``, or, where OpenCV has GStreamer,
    # ``h264`` or ``h265``.
    codec: Codec | None = field(default=None, metadata={"read": str.lower})
    # Keep NV12 or YUYV as a `RawFrame`, for the GPU path to convert. Cameras only; what a camera
    # sends in another format is decoded, which is logged.
    raw: bool = field(default=False, metadata={"read": _boolean})
    # How often in a row to try again after a live source was lost: None without end, 0 never.
    reconnect: int | None = field(default=None, metadata={"read": _or_none(_count)})
    # Whether to wait, as after a loss, for a live source that can't be opened at first.
    wait: bool = field(default=False, metadata={"read": _boolean})
    # First and longest wait before a new attempt, in seconds; see `Backoff`.
    backoff: tuple[float, float] = (0.5, 30.0)
    # Makes the random part of these waits repeatable; None doesn't.
    seed: int | None = field(default=None, metadata={"read": _count})
    # Seconds of one and the same image, bit by bit, after which a live source counts as frozen and
    # is connected again; None to accept still images.
    frozen_after: float | None = field(default=30.0, metadata={"read": _or_none(_number)})
    # Seconds of black images after which this is logged; None not to look.
    black_after: float | None = field(default=10.0, metadata={"read": _or_none(_number)})
    # Black and white of grey image files with more than 8 bits, in the files' own values, such as
    # (0, 4095); None takes what the file states. Behind a name it is ``grey_range=0-4095``.
    grey_range: tuple[int, int] | None = field(default=None, metadata={"read": _range})
    # Frames of a live source that may wait for a loop over it, 1..64; the oldest is dropped. In a
    # pipeline its policy decides.
    buffer: int = field(default=1, metadata={"read": _count})
    # Where the password of a network stream stands, to be kept out of its address: a file that
    # holds nothing else, or a variable of the environment; see `with_password`.
    password_file: str | None = field(default=None, metadata={"read": str})
    password_env: str | None = field(default=None, metadata={"read": str})

    def __post_init__(self) -> None:
        if self.size_wh is not None:
            sides = tuple(self.size_wh)
            if len(sides) != 2 or not all(_whole(side, 1, _MAX_SIDE) for side in sides):
                raise UsageError(
                    f"size_wh must be (width, height) in pixels, 1..{_MAX_SIDE}, not {self.size_wh}"
                )
        if self.fps is not None and not _within(self.fps, _MAX_FPS):
            raise UsageError(f"fps must be a positive number up to {_MAX_FPS:g}, not {self.fps}")
        for name in ("timeout", "frozen_after", "black_after"):
            value = getattr(self, name)
            if not ((value is None and name != "timeout") or _within(value, _MAX_SECONDS)):
                raise UsageError(f"{name} must be a positive number of seconds, not {value}")
        if self.flip not in FLIPS:
            raise UsageError(f"flip must be one of {', '.join(FLIPS)}, not {self.flip!r}")
        if self.codec is not None and self.codec not in CODECS:
            raise UsageError(f"codec must be one of {', '.join(CODECS)}, not {self.codec!r}")
        if self.reconnect is not None and not _whole(self.reconnect, 0, 1 << 31):
            raise UsageError(f"reconnect must be None or a count of tries, not {self.reconnect!r}")
        check_grey_range(self.grey_range)
        if not _whole(self.buffer, 1, _MAX_BUFFER):
            raise UsageError(f"buffer must be 1..{_MAX_BUFFER} frames, not {self.buffer!r}")
        first, longest = self.backoff
        if not (_within(first, _MAX_SECONDS) and _within(longest, _MAX_SECONDS)):
            raise UsageError(f"backoff must be two positive numbers of seconds, not {self.backoff}")
        if first > longest:
            raise UsageError(f"backoff must rise: its first wait is above its last, {self.backoff}")

    def merged(self, given: Mapping[str, Any]) -> SourceOptions:
        """Return these options with those of `given` instead; `UsageError` for unknown names."""
        names = [option.name for option in fields(self)]
        for name in given:
            if name not in names:
                raise UsageError(f"there is no option {name!r}: choose from {', '.join(names)}")
        return replace(self, **given)


class SourceKeywords(TypedDict, total=False):
    """`SourceOptions` as keywords, for type checkers."""

    size_wh: tuple[int, int] | None
    fps: float | None
    timeout: float
    flip: Flip
    codec: Codec | None
    raw: bool
    reconnect: int | None
    wait: bool
    backoff: tuple[float, float]
    seed: int | None
    frozen_after: float | None
    black_after: float | None
    grey_range: tuple[int, int] | None
    buffer: int
    password_file: str | None
    password_env: str | None


def _within(value: Any, most: float) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value) and 0 < value <= most


def _whole(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


_READERS: Final[dict[str, Callable[[str], Any]]] = {"width": _count, "height": _count} | {
    option.name: option.metadata["read"]
    for option in fields(SourceOptions)
    if "read" in option.metadata
}
OPTION_NAMES: Final = frozenset(_READERS)  # behind a source's name

_PAIRS = re.compile(r"[a-z_]+=[^&=]*(?:&[a-z_]+=[^&=]*)*")


def are_options(text: str) -> bool:
    """Whether `text` is written like options, known or not."""
    return _PAIRS.fullmatch(text) is not None


def looks_like_options(query: str) -> bool:
    """Whether `query` is nothing but options of ours, such as ``width=640&height=480``."""
    return are_options(query) and all(
        pair.partition("=")[0] in OPTION_NAMES for pair in query.split("&")
    )


def parse_options(query: str, name: str) -> dict[str, Any]:
    """Read ``key=value`` pairs with ``&`` between them, as they stand behind the source `name`.

    Returns keywords for `SourceOptions`: ``width`` and ``height`` have become ``size_wh``.
    `UsageError` if an option is not known, is given twice, or its value can't be read.
    """
    values: dict[str, Any] = {}
    for pair in filter(None, query.split("&")):
        key, equals, text = pair.partition("=")
        if key not in _READERS:
            known = ", ".join(sorted(_READERS))
            raise UsageError(f"{name} has no option {key[:40]!r}: there are {known}")
        if key in values:
            raise UsageError(f"{name}: the option {key} is given twice")
        try:
            values[key] = _READERS[key](unquote(text)) if equals else None
        except (ValueError, KeyError) as error:
            raise UsageError(f"{name}: {key}={text[:40]!r} makes no sense") from error
        if not equals:
            raise UsageError(f"{name}: the option {key} has no value")
    width, height = values.pop("width", None), values.pop("height", None)
    if (width is None) != (height is None):
        raise UsageError(f"{name}: width and height go together")
    if width is not None:
        values["size_wh"] = (width, height)
    return values
