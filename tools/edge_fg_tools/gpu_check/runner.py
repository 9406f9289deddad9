"""Runs the checks, each in a process of its own: one that loses the device ends alone."""

from __future__ import annotations

import datetime as dt
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

import edge_fg
from edge_fg.errors import BackendUnavailableError
from edge_fg_tools.gpu_check.checks import CHECKS, DEVICE, Check
from edge_fg_tools.gpu_check.results import SCHEMA, CheckResult, Entry, Report, Settings

MODULE: Final = "edge_fg_tools.gpu_check"
LIMIT_S: Final = 3600.0
"""Most seconds of one check: TensorRT builds for minutes on a Jetson."""

_LAST_WORDS: Final = 300

Said = Callable[[str], None]


def run_checks(
    settings: Settings, names: Sequence[str], command: Sequence[str], say: Said
) -> Report:
    """Run checks and return the report.

    Parameters
    ----------
    settings
        How thoroughly.
    names
        Checks to run, of `CHECKS`; the device is looked at in any case.
    command
        The command line, for the report.
    say
        Told of each check as it begins, once there is a GPU.

    Raises
    ------
    BackendUnavailableError
        There is no GPU that could be checked.
    """
    started = dt.datetime.now(dt.timezone.utc)
    entries: list[Entry] = []
    for check in CHECKS:
        if check.name not in {DEVICE, *names}:
            continue
        if check.name != DEVICE:
            say(f"{check.title} ...")
        begun = time.monotonic()
        result = run_apart(check, settings)
        if check.name == DEVICE and result.verdict != "passed":
            raise BackendUnavailableError(result.summary)
        seconds = round(time.monotonic() - begun, 1)
        entries.append(Entry(check.name, check.title, seconds, result))
    return Report(
        schema=SCHEMA,
        edge_fg=edge_fg.__version__,
        started=started.isoformat(timespec="seconds"),
        command=list(command),
        settings=settings,
        passed=not any(entry.result.verdict == "failed" for entry in entries),
        checks=entries,
    )


def run_apart(check: Check, settings: Settings, limit_s: float = LIMIT_S) -> CheckResult:
    """Run one check in a process of its own; how that ends is a result too."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "result.json")
        given = Path(folder, "settings.json")
        given.write_bytes(msgspec.json.encode(settings))
        words = Path(folder, "words")
        with words.open("wb") as said:
            try:
                ended = subprocess.run(
                    [sys.executable, "-m", MODULE, check.name, str(given), str(answer)],
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    timeout=limit_s,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                return CheckResult("failed", f"it did not end within {limit_s:g} s")
        # What a process wrote before it died on its way out does not count as passed.
        if ended.returncode == 0 and answer.exists():
            return msgspec.json.decode(answer.read_bytes(), type=CheckResult)
        return CheckResult("failed", f"{_end(ended.returncode)}; {_last_words(words)}")


def _end(code: int) -> str:
    if code >= 0:
        return f"the check ended with exit code {code}"
    try:
        return f"the check was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the check was ended by signal {-code}"


def _last_words(path: Path) -> str:
    text = " ".join(path.read_text(encoding="utf-8", errors="replace").split())
    return f"it said: {text[-_LAST_WORDS:]}" if text else "it said nothing"
