"""What several benchmarks share: steps in child processes, taking turns, Markdown tables.

It imports nothing of edge_fg: some steps run in environments without it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
Row = dict[str, Any]


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """Return a parser that is described by the first line of a program's docstring."""
    return argparse.ArgumentParser(description=(doc or "").partition("\n")[0])


def add_comparison(
    parser: argparse.ArgumentParser, methods: Sequence[str], calibration_images: int
) -> None:
    """Add the options of programs that calibrate by several methods on the same images."""
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="PATH", help="a directory or a CSV file")
    add("--calibration-images", type=int, default=calibration_images, metavar="N")
    add("--seed", type=int, default=0)
    add("--methods", nargs="+", choices=methods, default=list(methods))


def run_child(
    command: Sequence[object],
    *,
    limit_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Row:
    """Run a program that prints JSON in its last line; return that, or ``{"failed": why}``."""
    # Into a file: warnings and progress bars of the libraries would fill up a pipe.
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as log:
        try:
            done = subprocess.run(
                [str(word) for word in command],
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                errors="replace",
                timeout=limit_s,
                # ONNX Runtime's telemetry is off in all that is compared.
                env={"ORT_DISABLE_TELEMETRY": "1", **os.environ, **(environment or {})},
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"over {limit_s:.0f} s"}
        except OSError as error:
            return {"failed": str(error)}
        log.seek(0)
        said = [line.strip() for line in log if line.strip()]
    answers = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not answers:
        return {"failed": said[-1] if said else f"ended with code {done.returncode}"}
    found: Row = json.loads(answers[-1])
    return found


def run_step(steps: Mapping[str, Callable[..., Row]]) -> None:
    """Be such a program: ``STEP FOLDER [ARGUMENT ...]`` on the command line names a function."""
    step, folder, *rest = sys.argv[1:]
    print_answer(steps[step](Path(folder), *rest))


def print_answer(found: Row) -> None:
    """Print what `run_child` reads."""
    print("\n" + json.dumps(found), flush=True)


def read_json(path: Path) -> Row:
    """Return the JSON of a file."""
    found: Row = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_json(path: Path | None, value: object) -> None:
    """Write JSON, where a file was asked for; a path in it becomes text."""
    if path:
        path.write_text(json.dumps(value, indent=1, default=str) + "\n", encoding="utf-8")


def in_turns(
    ways: Mapping[str, Callable[[], object]], rounds: int, *clocks: Callable[[], float]
) -> dict[str, list[tuple[float, ...]]]:
    """Return what each way took, round by round, by each clock.

    All ways run in each round, every other time in the opposite order, so that what slows the
    machine for a while slows all of them. Compare round by round.
    """
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in ways if number % 2 == 0 else reversed(ways):
            before = [clock() for clock in clocks]
            ways[name]()
            times[name].append(tuple(clock() - t for clock, t in zip(clocks, before, strict=True)))
    return times


def table(columns: Sequence[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
