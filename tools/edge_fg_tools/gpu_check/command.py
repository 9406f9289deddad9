"""The command line of ``tools/gpu_check.py``."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from edge_fg.errors import EdgeFGError, UsageError
from edge_fg.files import write_atomically
from edge_fg_tools.gpu_check.checks import CHECKS, DEVICE
from edge_fg_tools.gpu_check.results import QUICK, Settings
from edge_fg_tools.gpu_check.runner import run_checks
from edge_fg_tools.gpu_check.table import render

_NUMBERS: Final = ("seed", "cases", "repeats", "inferences", "cycles", "per_class", "copy_mib")


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this machine's GPU; return 0 if nothing failed, else 1 (2: a wrong command line)."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = _parser().parse_args(given)
    try:
        return _check(parsed, given)
    except UsageError as error:
        _say(str(error))
        return 2
    except EdgeFGError as error:
        _say(str(error))
        return 1
    except KeyboardInterrupt:
        _say("interrupted")
        return 130


def _check(parsed: argparse.Namespace, given: Sequence[str]) -> int:
    names = [check.name for check in CHECKS]
    chosen = parsed.only.split(",") if parsed.only else names
    if unknown := sorted(set(chosen) - set(names)):
        raise UsageError(f"there is no check {unknown[0]!r}: there are {', '.join(names)}")
    with tempfile.TemporaryDirectory(prefix="edge-fg-gpu-check-") as folder:
        work = Path(parsed.work or folder).absolute()
        work.mkdir(parents=True, exist_ok=True)
        report = run_checks(_settings(parsed, work), chosen, ["gpu_check", *given], _say)
    # JSON first: whatever the terminal can't show, the figures are not lost.
    text = msgspec.json.format(msgspec.json.encode(report), indent=2)
    write_atomically(Path(parsed.json), text + b"\n")
    sys.stdout.write(render(report) + "\n")
    _say(f"the figures are in {parsed.json}")
    return 0 if report.passed else 1


def _settings(parsed: argparse.Namespace, work: Path) -> Settings:
    given: dict[str, Any] = dict(QUICK) if parsed.quick else {}
    asked = {name: getattr(parsed, name) for name in _NUMBERS}
    given.update((name, value) for name, value in asked.items() if value is not None)
    for name, value in given.items():
        if value < (0 if name == "seed" else 1):
            raise UsageError(f"--{name.replace('_', '-')} {value} makes no sense")
    for name in ("bundle", "images"):
        if place := getattr(parsed, name):
            given[name] = str(Path(place).absolute())
    if parsed.untimed:
        given["untimed"] = f"times don't count here: {parsed.untimed}"
    return msgspec.convert({**given, "work": str(work)}, Settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_check",
        description="What can only be seen on a GPU: exactness, speed, fidelity and leaks.",
        epilog=f"checks: {', '.join(check.name for check in CHECKS if check.name != DEVICE)}",
    )
    parser.add_argument(
        "--json", default="gpu-check.json", help="where the figures go (%(default)s)"
    )
    parser.add_argument("--only", metavar="CHECK,...", help="run these checks only")
    parser.add_argument("--quick", action="store_true", help="fewer cases and samples: minutes")
    parser.add_argument("--bundle", help="bundle to run (built from the reference model)")
    parser.add_argument("--images", help="folder of images for the engines (rendered)")
    parser.add_argument("--work", help="folder to keep plans and images in (a temporary one)")
    parser.add_argument(
        "--untimed",
        metavar="WHY",
        default="",
        help="judge no times, say as on a stand-in for a GPU",
    )
    for name in _NUMBERS:
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, metavar="N", help=_HELP[name])
    return parser


_HELP: Final = {
    "seed": "of all that is random",
    "cases": "random cases of the kernels",
    "repeats": "samples of each latency",
    "inferences": "frames between two looks at the memory",
    "cycles": "times that everything is opened and closed",
    "per_class": "images of each class for the engines",
    "copy_mib": "MiB of the copies whose rate is measured",
}


def _say(text: str) -> None:
    sys.stderr.write(f"gpu_check: {text}\n")
