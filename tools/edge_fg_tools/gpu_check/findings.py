"""What a check finds: figures, targets and facts, and its entry in the JSON report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np

from edge_fg_tools.gpu_check.settings import Settings

Verdict = Literal["passed", "failed", "not measured"]


class Figure(msgspec.Struct, frozen=True):
    """One number that was measured."""

    name: str
    value: float
    unit: str


class Target(msgspec.Struct, frozen=True):
    """What a GPU must reach, what this one reaches, and whether that is enough."""

    name: str
    wanted: str
    measured: str
    verdict: Verdict


class Entry(msgspec.Struct):
    """A check in the report."""

    check: str  # Its name
    title: str  # What it does
    verdict: Verdict  # ``not measured`` where it can't be done here; `summary` then says why
    summary: str = ""  # One line
    seconds: float = 0.0  # How long it took
    figures: list[Figure] = []  # What was measured
    targets: list[Target] = []  # What of that is judged
    facts: dict[str, str] = {}  # Texts, such as versions, by their names


class Findings:
    """Collects what a check finds in its entry; the fixture ``found`` of each check."""

    def __init__(self, entry: Entry, settings: Settings) -> None:
        self.entry = entry
        self.settings = settings

    def figure(self, name: str, value: float, unit: str = "", digits: int = 3) -> None:
        """Note a number."""
        self.entry.figures.append(Figure(name, round(value, digits), unit))

    def spread(
        self, name: str, samples: Sequence[float], unit: str, percents: Sequence[int] = (50, 99)
    ) -> None:
        """Note percentiles as figures called ``NAME p50`` and so on."""
        for percent in percents:
            self.figure(f"{name} p{percent}", percentile(samples, percent), unit)

    def value(self, name: str) -> float:
        """Return the figure of that name."""
        return next(figure.value for figure in self.entry.figures if figure.name == name)

    def facts(self, facts: dict[str, str]) -> None:
        """Note texts."""
        self.entry.facts.update(facts)

    def target(
        self, name: str, wanted: str, measured: str, met: bool, *, timed: bool = False
    ) -> None:
        """Note a target; one of times (`timed`) is judged only where times count."""
        judged = not (timed and self.settings.untimed)
        verdict: Verdict = "not measured" if not judged else "passed" if met else "failed"
        self.entry.targets.append(Target(name, wanted, measured, verdict))

    def conclude(self, summary: str, *, timed: bool = False) -> None:
        """End a check: it fails where a target was missed.

        A check of times (`timed`) is not measured where times don't count.
        """
        import pytest

        self.entry.summary = summary
        if any(target.verdict == "failed" for target in self.entry.targets):
            pytest.fail(summary, pytrace=False)
        if timed and self.settings.untimed:
            pytest.skip(self.settings.untimed)


def percentile(samples: Sequence[float], percent: float) -> float:
    """Return a percentile of at least one sample, interpolated."""
    return float(np.percentile(samples, percent))
