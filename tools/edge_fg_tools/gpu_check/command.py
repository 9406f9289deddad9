"""The command line of ``tools/gpu_check.py``."""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edge_fg.errors import EdgeFGError, UsageError, import_optional
from edge_fg_tools.gpu_check.runner import run_all, run_in_child
from edge_fg_tools.gpu_check.settings import CHECKS, DEVICE, QUICK, Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Check this machine's GPU; return 0 if nothing failed, else 1 (2: a wrong command line)."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what the terminal can't show
    given = sys.argv[1:] if arguments is None else list(arguments)
    parsed = vars(_parser().parse_args(given))
    try:
        return _check(parsed, given)
    except UsageError as error:
        return _say(str(error), 2)
    except EdgeFGError as error:
        return _say(str(error), 1)
    except KeyboardInterrupt:
        return _say("interrupted", 130)


def _check(parsed: dict[str, Any], given: Sequence[str]) -> int:
    json, only, quick = (parsed.pop(name) for name in ("json", "only", "quick"))
    chosen = only.split(",") if only else list(CHECKS)
    if unknown := sorted(set(chosen) - set(CHECKS)):
        raise UsageError(f"there is no check {unknown[0]!r}: there are {', '.join(CHECKS)}")
    import_optional("pytest", "pytest", "gpu-check", "check the GPU")  # the checks are its tests
    with tempfile.TemporaryDirectory(prefix="edge-fg-gpu-check-") as folder:
        settings = _settings({"work": folder, **(QUICK if quick else {}), **parsed})
        Path(settings.work).mkdir(parents=True, exist_ok=True)
        device = run_in_child(DEVICE, settings)
        if device.verdict != "passed":
            return _say(device.summary, 1)
        names = [name for name in CHECKS if name in {DEVICE, *chosen}]
        return run_all(names, device, settings, ["gpu_check", *given], Path(json).absolute())


def _settings(given: dict[str, Any]) -> Settings:
    for name, value in given.items():
        if isinstance(value, int) and value < (0 if name == "seed" else 1):
            raise UsageError(f"--{name.replace('_', '-')} {value} makes no sense")
        if name in {"work", "bundle", "images"}:
            given[name] = str(Path(value).absolute())
    return msgspec.convert(given, Settings)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gpu_check",
        description="What can only be seen on a GPU: exactness, speed, fidelity and leaks.",
        epilog=f"checks: {', '.join(name for name in CHECKS if name != DEVICE)}",
    )
    add = parser.add_argument
    add("--json", default="gpu-check.json", help="where the results are written (%(default)s)")
    add("--only", metavar="CHECK,...", help="run these checks only")
    add("--quick", action="store_true", help="fewer cases and samples: minutes")
    for name, described in typing.get_type_hints(Settings, include_extras=True).items():
        kind, about = typing.get_args(described)
        option = f"--{name.replace('_', '-')}"
        # What is not given stays out: the field's own default, or that of --quick, holds.
        add(option, type=kind, default=argparse.SUPPRESS, help=about.description)
    return parser


def _say(text: str, code: int) -> int:
    sys.stderr.write(f"gpu_check: {text}\n")
    return code
