"""Two plugins of pytest: one runs checks in this process, one each in a process of its own."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec
import pytest

import edge_fg
from edge_fg.errors import EdgeFGError
from edge_fg.files import write_atomically
from edge_fg_tools.gpu_check.findings import Entry, Findings
from edge_fg_tools.gpu_check.settings import Settings, node_id

SCHEMA: Final = 2
"""Version of the JSON report's layout."""
LIMIT_S: Final = 3600.0
"""Most seconds of one check: TensorRT builds for minutes on a Jetson."""
SETTINGS: Final = pytest.StashKey[Settings]()
FOUND: Final = pytest.StashKey[Findings]()

# No configuration of the folder or of the user: a check is the same wherever it is started.
_OPTIONS: Final = (
    *("-c", os.devnull, "--rootdir", str(Path(__file__).parent), "--import-mode=append"),
    *("-p", "no:cacheprovider", "-p", "no:faulthandler", "--assert=plain", "--capture=no"),
)
_LAST_WORDS: Final = 300
_EXPECTED: Final = (EdgeFGError, AssertionError, pytest.skip.Exception, pytest.fail.Exception)
_Outcome = Literal["passed", "failed", "skipped"]


def run_in_this_process(checks: Sequence[str], settings: Settings) -> list[Entry]:
    """Run checks in this process, by their names; what they fail with is a result too."""
    plugin = _ChildPlugin(settings)
    _pytest(["-p", "no:terminal"], checks, plugin)
    return plugin.entries


def run_all(checks: Sequence[str], plugin: ParentPlugin) -> int:
    """Run each check in a process of its own; return the exit code, 0 if none failed.

    Raises
    ------
    OutputError
        The report can't be written.
    KeyboardInterrupt
        The user interrupted it.
    """
    plugin.write()
    code = _pytest(["-v", "--no-header", "--tb=short", "-rN"], checks, plugin)
    if code is pytest.ExitCode.INTERRUPTED:
        raise KeyboardInterrupt
    return int(code != pytest.ExitCode.OK)


def run_in_child(check: str, settings: Settings, limit_s: float = LIMIT_S) -> Entry:
    """Run one check in a process of its own; how that ends is a result too."""
    with tempfile.TemporaryDirectory() as folder:
        answer, given, log = (Path(folder, name) for name in ("entry", "settings", "log"))
        given.write_bytes(msgspec.json.encode(settings))
        command = [sys.executable, "-m", "edge_fg_tools.gpu_check", check, str(given), str(answer)]
        with log.open("wb") as said:
            try:
                code = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=subprocess.STDOUT,
                    timeout=limit_s,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                return Entry(check, "", "failed", f"it did not end within {limit_s:g} s")
        # What a process wrote before it died at its end does not count as passed.
        if code == 0 and answer.exists():
            return msgspec.json.decode(answer.read_bytes(), type=Entry)
        said_last = " ".join(log.read_text(errors="replace").split())[-_LAST_WORDS:]
        return Entry(check, "", "failed", f"{_end(code)}; it said: {said_last or 'nothing'}")


class _ChildPlugin:
    """Gives checks their settings and makes an entry of each."""

    def __init__(self, settings: Settings) -> None:
        self.entries: list[Entry] = []
        self._settings = settings

    def pytest_configure(self, config: pytest.Config) -> None:
        """Hand the settings to the fixtures."""
        config.stash[SETTINGS] = self._settings

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Begin an entry."""
        self.entries.append(Entry(_check(item), _title(item), "passed"))
        item.stash[FOUND] = Findings(self.entries[-1], self._settings)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Note how a check went on."""
        report = yield
        entry = item.stash[FOUND].entry
        entry.seconds = round(entry.seconds + call.duration, 1)
        if call.excinfo is not None and entry.verdict != "failed":
            entry.verdict = "failed" if report.failed else "not measured"
            error = call.excinfo.value
            entry.summary = " ".join(str(error).split())
            if not entry.summary or not isinstance(error, _EXPECTED):
                entry.summary = f"{type(error).__name__}: {entry.summary}"
                entry.facts["traceback"] = report.longreprtext
        return report


class ParentPlugin:
    """Runs each check in a process of its own; writes the JSON report and a summary.

    Parameters
    ----------
    settings
        How thoroughly.
    device
        The entry of the device's check, which was run before.
    command
        The command line, for the report.
    json
        File for the report; it is written again after each check.
    """

    def __init__(
        self, settings: Settings, device: Entry, command: Sequence[str], json: Path
    ) -> None:
        self._device = device
        self._settings = settings
        self._json = json
        self._entries: list[Entry] = []
        self._head = {
            "schema": SCHEMA,
            "edge_fg": edge_fg.__version__,
            "started": dt.datetime.now(dt.timezone.utc).isoformat(timespec="seconds"),
            "command": list(command),
            "settings": settings,
        }

    def write(self) -> None:
        """Write what was found until now.

        Raises
        ------
        OutputError
            The file can't be written.
        """
        passed = not any(entry.verdict == "failed" for entry in self._entries)
        report = {**self._head, "passed": passed, "checks": self._entries}
        text = msgspec.json.format(msgspec.json.encode(report), indent=2)
        write_atomically(self._json, text + b"\n")

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool:
        """Run one check, and write the report again."""
        check, hook = _check(item), item.ihook
        hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        entry = self._device
        if check != entry.check:
            entry = run_in_child(check, self._settings)
        entry.title = _title(item)
        self._entries.append(entry)
        # Before anything is printed: whatever the terminal can't show, the figures are not lost.
        self.write()
        hook.pytest_runtest_logreport(report=_test_report(item, entry))
        hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print each check and its targets."""
        say = terminalreporter.write_line
        for entry in self._entries:
            say(f"{entry.verdict:12}  {entry.check}: {entry.summary}")
            for one in entry.targets:
                say(f"{one.verdict:12}    {one.name}: {one.measured}; wanted {one.wanted}")
        say(f"the figures are in {self._json}")


def _pytest(options: Sequence[str], checks: Sequence[str], plugin: object) -> int:
    # Plugins that happen to be installed, such as those of ROS, stay out.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.pop("PYTEST_ADDOPTS", None)
    return pytest.main([*_OPTIONS, *options, *map(node_id, checks)], plugins=[plugin])


def _check(item: pytest.Item) -> str:
    return item.name.removeprefix("test_").replace("_", "-")


def _title(item: pytest.Item) -> str:
    assert isinstance(item, pytest.Function)
    return (item.function.__doc__ or "").splitlines()[0].rstrip(".")


def _test_report(item: pytest.Item, entry: Entry) -> pytest.TestReport:
    """Return pytest's own form of an entry."""
    skipped = entry.verdict == "not measured"
    outcome: _Outcome = "skipped" if entry.verdict == "not measured" else entry.verdict
    words = (str(item.path), 0, entry.summary) if skipped else entry.summary
    return pytest.TestReport(
        item.nodeid, item.location, {}, outcome, words, "call", duration=entry.seconds
    )


def _end(code: int) -> str:
    if code >= 0:
        return f"the check ended with exit code {code}"
    try:
        return f"the check was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"the check was ended by signal {-code}"
