"""Tries many cases in worker processes: a crash or a hang is a finding of the case it came with."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import Pipe
from pathlib import Path
from typing import IO

from fuzzing.cases import KINDS, Case, Outcome
from support.children import environment

_PATIENCE_SECONDS = 60.0  # for one case, after which it hangs
_BATCH = 500  # cases a process tries: what it leaks ends with it
_CRASH_CHARACTERS = 1500
_STARTING_SECONDS = 120.0
_FOLDER = Path(__file__).resolve().parent


@dataclass
class Findings:
    """What came out: how many cases of each kind ended how, and the findings."""

    ends: dict[str, Counter[str]] = field(default_factory=dict)
    findings: list[tuple[Case, str]] = field(default_factory=list)

    def add(self, case: Case, outcome: Outcome) -> None:
        """Count an outcome."""
        self.ends.setdefault(case.kind, Counter())[outcome.end] += 1
        if outcome.end == "finding":
            self.findings.append((case, outcome.text))


def shares(count: int, kinds: Sequence[str]) -> dict[str, int]:
    """Divide a number of cases among kinds as a night does."""
    whole = sum(KINDS[kind][0] for kind in kinds)
    return {kind: max(1, count * KINDS[kind][0] // whole) for kind in kinds}


def repeat_command(case: Case) -> str:
    """Return what repeats a case, to be run from the repository."""
    return f".venv/bin/python tests/fuzzing --repeat {case}"


def fuzz(
    counts: dict[str, int],
    seed: int,
    *,
    jobs: int,
    first: int = 0,
    patience: float = _PATIENCE_SECONDS,
    tell: Callable[[Case, Outcome], None] = lambda case, outcome: None,
) -> Findings:
    """Try so many cases of each kind, from number `first` on; `tell` hears of each outcome.

    A case that takes longer than `patience` seconds hangs.
    """
    found = Findings()
    lock = threading.Lock()

    def run(batch: tuple[str, int, int]) -> None:
        kind, begin, end = batch
        for number, outcome in _outcomes(kind, seed, begin, end, patience):
            with lock:
                found.add(Case(kind, seed, number), outcome)
                tell(Case(kind, seed, number), outcome)

    batches = [
        (kind, begin, min(begin + _BATCH, first + count))
        for kind, count in counts.items()
        for begin in range(first, first + count, _BATCH)
    ]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(run, batches))
    return found


def _outcomes(
    kind: str, seed: int, begin: int, end: int, patience: float
) -> Iterator[tuple[int, Outcome]]:
    """Yield the outcome of each case; after one that ends its worker, another one goes on."""
    while begin < end:
        with tempfile.TemporaryFile() as errors:
            results, theirs = Pipe(duplex=False)
            words = ["--work", str(theirs.fileno()), kind, str(seed), str(begin), str(end)]
            worker = subprocess.Popen(
                [sys.executable, str(_FOLDER), *words],
                pass_fds=[theirs.fileno()],
                stderr=errors,
                env=environment(),
            )
            theirs.close()
            waits = _STARTING_SECONDS
            try:
                while begin < end and results.poll(waits):
                    outcome: Outcome | None = results.recv()
                    waits = patience
                    if outcome is not None:
                        yield begin, outcome
                        begin += 1
                lost = Outcome("finding", f"no answer within {waits:.0f} s")
            except EOFError:
                lost = Outcome("finding", f"the process ended: {_why(worker.wait())}")
            finally:
                worker.kill()
                worker.wait()
                results.close()
            if begin < end:
                yield begin, Outcome("finding", f"{lost.text}\n{_last_words(errors)}")
                begin += 1


def _last_words(errors: IO[bytes]) -> str:
    """Return where the process was when it crashed, as far as it could say so."""
    errors.seek(0)
    _, mark, crash = errors.read().decode(errors="replace").rpartition("Fatal Python error")
    return f"{mark}{crash}"[:_CRASH_CHARACTERS] if mark else crash[-_CRASH_CHARACTERS:]


def _why(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"
