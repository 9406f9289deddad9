"""What the checks are asked to do and what they answer, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
import numpy as np

SCHEMA: Final = 1
"""Version of the JSON report's layout."""

Verdict = Literal["passed", "failed", "not measured"]


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How thoroughly to check.

    Parameters
    ----------
    work
        Folder for the bundle, the plans and the images.
    bundle
        Bundle to run; "" builds one from the reference model.
    images
        Folder of images for the fidelity of engines; "" renders some.
    seed
        Of all that is random.
    cases
        Random cases of the kernels, of up to four images each.
    repeats
        Samples of each latency.
    inferences
        Frames between the two looks at the memory.
    cycles
        Times that everything is opened and closed.
    per_class
        Images of each class that the reference model is compared on.
    copy_mib
        Size of the copies whose rate is measured, and of the frames that take turns, so that no
        cache holds them all.
    untimed
        Why times don't count here, as on a driver without a GPU; "" if they do. They are taken all
        the same, and judged by nothing.
    """

    work: str
    bundle: str = ""
    images: str = ""
    seed: int = 0
    cases: int = 1500
    repeats: int = 500
    inferences: int = 5000
    cycles: int = 10
    per_class: int = 10
    copy_mib: int = 256
    untimed: str = ""


QUICK: Final = {
    "cases": 150,
    "repeats": 60,
    "inferences": 600,
    "cycles": 3,
    "per_class": 3,
    "copy_mib": 128,
}
"""What ``--quick`` sets."""


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One number that was measured."""

    name: str
    value: float
    unit: str


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a GPU must reach, what this one reaches, and whether that is enough."""

    name: str
    wanted: str
    measured: str
    verdict: Verdict


class CheckResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one check found.

    Parameters
    ----------
    verdict
        ``not measured`` where it can't be done here; `summary` then says why.
    summary
        One line.
    figures, targets
        What was measured, and what of that is judged.
    facts
        Words, such as versions, by their names.
    """

    verdict: Verdict
    summary: str
    figures: tuple[Figure, ...] = ()
    targets: tuple[Target, ...] = ()
    facts: dict[str, str] = {}


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A check in the report: its name, what it found and the seconds that it took."""

    check: str
    title: str
    seconds: float
    result: CheckResult


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON report.

    Parameters
    ----------
    schema
        `SCHEMA`.
    edge_fg
        Version of edge_fg.
    started
        Date and time in UTC, ISO 8601.
    command
        The command line.
    settings
        Numbers in effect.
    passed
        Whether no check failed.
    checks
        In the order in which they ran.
    """

    schema: int
    edge_fg: str
    started: str
    command: list[str]
    settings: Settings
    passed: bool
    checks: list[Entry]


def not_measured(reason: str) -> CheckResult:
    """Return the result of a check that can't be done here."""
    return CheckResult("not measured", reason)


def target(name: str, wanted: str, measured: str, met: bool, settings: Settings) -> Target:
    """Return a target, judged if times count here."""
    verdict: Verdict = "not measured" if settings.untimed else "passed" if met else "failed"
    return Target(name, wanted, measured, verdict)


def timed(
    settings: Settings, text: str, figures: Sequence[Figure], targets: Sequence[Target] = ()
) -> CheckResult:
    """Return the result of a check of times: it fails where a target is missed."""
    verdict: Verdict = "passed"
    if any(one.verdict == "failed" for one in targets):
        verdict = "failed"
    elif settings.untimed:
        verdict, text = "not measured", settings.untimed
    return CheckResult(verdict, text, tuple(figures), tuple(targets))


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return a percentile of at least one sample, interpolated."""
    return float(np.percentile(samples, percent))


def spread(
    name: str, samples: Sequence[float], unit: str, percents: Sequence[float] = (50, 99)
) -> tuple[Figure, ...]:
    """Return percentiles as figures called ``NAME p50`` and so on."""
    return tuple(
        Figure(f"{name} p{percent:g}", round(percentile(samples, percent), 3), unit)
        for percent in percents
    )
