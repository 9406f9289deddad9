"""Which frames are answered when they come faster than answers do."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args

from edge_fg.errors import UsageError

Drop = Literal["oldest", "newest", "block"]

DEFAULT_MAX_AGE: Final = 2.0
"""Seconds after which a live frame is no longer worth an answer."""

_LARGEST_QUEUE: Final = 10_000
_SLOWEST_RATE: Final = 1e-6
_FORM: Final = re.compile(r"\s*([a-z]+)\s*(?:\((.*)\))?\s*", re.DOTALL)
_KNOWN: Final = (
    "latest, latest(max_age=SECONDS), every, queue(N, drop=oldest|newest|block), rate(FPS)"
)


@dataclass(frozen=True)
class Latest:
    """The newest frame wins; those it overtakes are dropped. For cameras, and their default.

    Parameters
    ----------
    max_age
        Seconds: a frame that has waited longer when its turn comes is dropped too.

    Raises
    ------
    UsageError
        `max_age` is not a positive number.
    """

    max_age: float = DEFAULT_MAX_AGE

    def __post_init__(self) -> None:
        # Infinity is meant: however old it is.
        if math.isnan(self.max_age) or self.max_age <= 0:
            raise UsageError(f"max_age must be a positive number of seconds, not {self.max_age}")

    def __str__(self) -> str:
        return (
            "latest"
            if self.max_age == DEFAULT_MAX_AGE
            else f"latest(max_age={_exact(self.max_age)})"
        )


@dataclass(frozen=True)
class Every:
    """Every frame is answered, in order: the source waits. For files, and their default."""

    def __str__(self) -> str:
        return "every"


@dataclass(frozen=True)
class Queue:
    """So many frames may wait.

    Parameters
    ----------
    size
        Frames that may wait, 1 to 10,000.
    drop
        What gives way when as many wait already: the ``oldest`` of them, the ``newest`` (the
        frame that comes), or none: ``block`` makes the source wait.

    Raises
    ------
    UsageError
        A value makes no sense.
    """

    size: int
    drop: Drop = "oldest"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= _LARGEST_QUEUE:
            raise UsageError(f"a queue holds 1 to {_LARGEST_QUEUE} frames, not {self.size}")
        if self.drop not in get_args(Drop):
            raise UsageError(f"drop must be one of {', '.join(get_args(Drop))}, not {self.drop!r}")

    def __str__(self) -> str:
        return f"queue({self.size},drop={self.drop})"


@dataclass(frozen=True)
class Rate:
    """So many frames a second at most, evenly spread.

    Of cameras the newest frame is taken each time. Video files are thinned by their own clock
    and lose nothing else. Images, and other sources without a clock, are not thinned but delayed.

    Parameters
    ----------
    fps
        Frames per second, 1e-6 or more.

    Raises
    ------
    UsageError
        `fps` is no number, or less than one frame in a million seconds.
    """

    fps: float

    def __post_init__(self) -> None:
        # Slower, and the wait for the next frame is more than a clock can hold.
        if not (math.isfinite(self.fps) and self.fps >= _SLOWEST_RATE):
            raise UsageError(
                f"a rate must be {_SLOWEST_RATE:g} frames a second or more, not {self.fps:g}"
            )

    def __str__(self) -> str:
        return f"rate({_exact(self.fps)})"


def _exact(number: float) -> str:
    """Return a number so that reading it gives the same one."""
    return repr(float(number)).removesuffix(".0")


Policy: TypeAlias = Latest | Every | Queue | Rate


def parse_policy(text: str) -> Policy:
    """Return the policy that is written as `text`; ``str`` of a policy gives such a text.

    Parameters
    ----------
    text
        ``latest``, ``latest(max_age=0.5)``, ``every``, ``queue(8)``, ``queue(8,drop=newest)``
        or ``rate(5)``.

    Raises
    ------
    UsageError
        It names no policy, or a value makes no sense.
    """
    form = _FORM.fullmatch(text)
    name, inside = form.groups() if form else ("", None)
    values: dict[str, str] = {}
    for part in inside.split(",") if inside and inside.strip() else ():
        key, value = part.split("=", 1) if "=" in part else ("", part)
        if key.strip() in values:
            raise _unknown(text)
        values[key.strip()] = value.strip()
    try:
        match name, sorted(values):
            case "latest", []:
                return Latest()
            case "latest", ["max_age"]:
                return Latest(float(values["max_age"]))
            case "every", []:
                return Every()
            case "queue", [""] | ["", "drop"]:
                drop = values.get("drop", "oldest").strip("\"'")
                return Queue(_whole(values[""]), cast("Drop", drop))
            case "rate", [""]:
                return Rate(float(values[""]))
    except UsageError:
        raise
    except ValueError as error:
        raise _unknown(text) from error
    raise _unknown(text)


def checked_policy(policy: Policy | str | None) -> Policy | None:
    """Return a policy that was given as an object, as text or not at all; else a UsageError."""
    if isinstance(policy, str):
        return parse_policy(policy)
    # Said by the caller's types, but a class in place of its object is soon given.
    if policy is not None and not isinstance(policy, get_args(Policy)):
        raise UsageError(f"{policy!r} is not a policy: give one of {_KNOWN}")
    return policy


def default_policy(live: bool) -> Policy:
    """Return what is done where nobody chose: `Latest` for live sources, `Every` for others."""
    return Latest() if live else Every()


def is_lossless(policy: Policy) -> bool:
    """Return whether a policy makes the source wait instead of dropping frames."""
    return isinstance(policy, Every) or (isinstance(policy, Queue) and policy.drop == "block")


def makes_wait(policy: Policy, live: bool) -> bool:
    """Return whether a source waits for the model: nothing is lost but what is left out on purpose.

    A rate leaves out frames of a file, and then wants the others answered.
    """
    return is_lossless(policy) or (isinstance(policy, Rate) and not live)


def _whole(value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 9):
        raise ValueError(value)
    return int(value)


def _unknown(text: str) -> UsageError:
    return UsageError(f"{text[:80]!r} is not a policy: give one of {_KNOWN}")
