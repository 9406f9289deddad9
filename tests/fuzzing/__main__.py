"""Spoilt inputs of every kind, by the hundred thousand: `make fuzz`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

# Not the folder of this file, nor that of the checkout: what is installed is tested.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from fuzzing import runner, worker  # noqa: E402
from fuzzing.cases import KINDS, Case, Outcome  # noqa: E402


def main() -> int:
    """Try cases, print the findings and how to repeat each, and return 1 if there are any."""
    usual = [kind for kind, (share, _) in KINDS.items() if share]
    parser = argparse.ArgumentParser(prog="tests/fuzzing", description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000, help="default: 100000")
    parser.add_argument("--kind", action="append", choices=usual, help="default: all")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="default: a new one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="worker processes")
    parser.add_argument("--repeat", metavar="KIND/SEED/NUMBER", help="try that one case again")
    parser.add_argument("--work", nargs=5, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        descriptor, kind, *numbers = given.work
        worker.work(int(descriptor), kind, *map(int, numbers))
        return 0
    if given.repeat:
        kind, seed, number = given.repeat.split("/")
        found = runner.fuzz({kind: 1}, int(seed), jobs=1, first=int(number), tell=_say)
        return bool(found.findings)
    counts = runner.shares(given.cases, given.kind or usual)
    print(f"{sum(counts.values())} cases, seed {given.seed}", flush=True)
    found = runner.fuzz(counts, given.seed, jobs=given.jobs, tell=_say_finding)
    for kind, ends in found.ends.items():
        print(
            f"{kind:<12}{ends.total():8} cases",
            *(f"{n} {end}" for end, n in sorted(ends.items())),
            sep="  ",
        )
    print(f"{len(found.findings)} findings")
    return bool(found.findings)


def _say(case: Case, outcome: Outcome) -> None:
    print(f"{case}: {outcome.end}\n{outcome.text}", flush=True)


def _say_finding(case: Case, outcome: Outcome) -> None:
    if outcome.end == "finding":
        _say(case, outcome)
        print(f"repeat it: {runner.repeat_command(case)}\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
