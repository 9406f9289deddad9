"""The report as one table of plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edge_fg_tools.gpu_check.results import Entry, Report


class _Row(NamedTuple):
    what: str
    verdict: str
    found: str


def render(report: Report) -> str:
    """Return the table: each check, what it is judged by, and what it measured."""
    rows = [row for entry in report.checks for row in _rows(entry)]
    header = _Row("check", "verdict", "what was found")
    what, verdict = (max(len(row[i]) for row in (header, *rows)) for i in range(2))
    rule = _Row("-" * what, "-" * verdict, "-" * len(header.found))
    lines = [f"{a:{what}}  {b:{verdict}}  {c}".rstrip() for a, b, c in (header, rule, *rows)]
    return "\n".join([*lines, "", _total(report.checks)])


def _rows(entry: Entry) -> Iterator[_Row]:
    result = entry.result
    yield _Row(f"{entry.check}: {entry.title}", result.verdict, result.summary)
    for target in result.targets:
        found = f"{target.measured}; wanted {target.wanted}"
        yield _Row(f"  {target.name}", target.verdict, found)
    for figure in result.figures:
        yield _Row(f"  {figure.name}", "", f"{figure.value:.12g} {figure.unit}")
    for name, fact in result.facts.items():
        yield _Row(f"  {name}", "", fact)


def _total(entries: Sequence[Entry]) -> str:
    verdicts = [entry.result.verdict for entry in entries]
    return ", ".join(
        f"{verdicts.count(verdict)} {verdict}" for verdict in ("passed", "failed", "not measured")
    )
