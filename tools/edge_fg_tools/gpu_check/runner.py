"""Runs each check in a process of its own, which is pytest with one test, and reports on all."""

from __future__ import annotations

import datetime as dt
import importlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

import edge_fg
from edge_fg.files import write_atomically
from edge_fg_tools.gpu_check.findings import Entry
from edge_fg_tools.gpu_check.settings import CHECKS, Settings, function_of

SCHEMA: Final = 2
"""Version of the JSON report's layout."""
LIMIT_S: Final = 3600.0
"""Most seconds of one check: TensorRT builds for minutes on a Jetson."""

_CHECKS: Final = Path(__file__).parent / "checks"
# No configuration of the folder or of the user: a check is the same wherever it is started.
_OPTIONS: Final = (
    *("-c", os.devnull, "--rootdir", str(_CHECKS), "--import-mode=append", "--assert=plain"),
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "--capture=no"),
    *("-qq", "-rN", "--no-header", "--tb=short"),
)
# Plugins that happen to be installed, such as those of ROS, stay out.
_ENVIRONMENT: Final = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
_LAST_WORDS: Final = 300


def run_all(
    checks: Sequence[str], device: Entry, settings: Settings, command: Sequence[str], json: Path
) -> int:
    """Run checks, print what they find, and write the report (`json`) again after each.

    `device` is the entry of the device's check, which was run before. Returns the exit code, 0
    if no check failed; raises `OutputError` where the report can't be written.
    """
    report = {
        "schema": SCHEMA,
        "edge_fg": edge_fg.__version__,
        "started": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "settings": settings,
    }
    entries: list[Entry] = []
    for check in checks:
        if check != device.check:
            _print(f"{'running ...':12}  {check}")
        entry = device if check == device.check else run_in_child(check, settings)
        entries.append(entry)
        counts = Counter(entry.verdict for entry in entries)
        document = {**report, "passed": not counts["failed"], "checks": entries}
        text = msgspec.json.format(msgspec.json.encode(document), indent=2)
        # Before anything is printed: where that fails, the figures are not lost.
        write_atomically(json, text + b"\n")
        _print(f"{entry.verdict:12}  {check}: {entry.summary}")
        for one in entry.targets:
            _print(f"{one.verdict:12}    {one.name}: {one.measured}; wanted {one.wanted}")
    _print(", ".join(f"{counts[verdict]} {verdict}" for verdict in sorted(counts)))
    _print(f"the figures are in {json}")
    return int(counts["failed"] > 0)


def run_in_child(check: str, settings: Settings, limit_s: float = LIMIT_S) -> Entry:
    """Run one check in a process of its own; how that ends is a result too."""
    module = importlib.import_module(f"{__package__}.checks.{CHECKS[check].removesuffix('.py')}")
    title = getattr(module, function_of(check)).__doc__.splitlines()[0].rstrip(".")
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder, "entries"), Path(folder, "log")
        with log.open("wb") as said:
            try:
                code = subprocess.run(
                    [sys.executable, "-m", "pytest", *arguments([check], settings, answer)],
                    env={**os.environ, **_ENVIRONMENT},
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    timeout=limit_s,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                return Entry(check, title, "failed", f"it did not end within {limit_s:g} s")
        for entry in read_entries(answer) if answer.exists() else ():
            # What a process wrote before it died at its end does not count.
            if code == int(entry.verdict == "failed"):
                entry.title = title
                return entry
        said_last = " ".join(log.read_text(errors="replace").split())[-_LAST_WORDS:]
        return Entry(check, title, "failed", f"{_end(code)}; it said: {said_last or 'nothing'}")


def arguments(checks: Sequence[str], settings: Settings, answer: Path) -> list[str]:
    """Return pytest's arguments for some checks in one process, which writes its `answer`."""
    given = msgspec.json.encode(settings).decode()
    nodes = [f"{_CHECKS / CHECKS[check]}::{function_of(check)}" for check in checks]
    return [*_OPTIONS, f"--settings={given}", f"--entries={answer}", *nodes]


def read_entries(answer: Path) -> list[Entry]:
    """Return what such a process wrote, an entry a check."""
    return msgspec.json.decode(answer.read_bytes(), type=list[Entry])


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _end(code: int) -> str:
    if code >= 0:
        return f"the check ended with exit code {code}"
    try:
        return f"the check was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the check was ended by signal {-code}"
