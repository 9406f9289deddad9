"""What checks take as arguments, and the entries of the report that are made of them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Final

import msgspec
import pytest

from edge_fg.backends.tensorrt.library import Library
from edge_fg.bundle import Bundle
from edge_fg.cuda import Device, Stream
from edge_fg.errors import EdgeFGError, MissingDependencyError
from edge_fg.files import write_atomically
from edge_fg_tools.gpu_check import bundles
from edge_fg_tools.gpu_check.findings import Entry, Findings
from edge_fg_tools.gpu_check.settings import Settings

_ENTRIES: Final = pytest.StashKey[list[Entry]]()
_EXPECTED: Final = (EdgeFGError, AssertionError, pytest.skip.Exception, pytest.fail.Exception)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add what `runner.arguments` passes."""
    parser.addoption("--settings", help="`Settings` as JSON")
    parser.addoption("--entries", type=Path, help="JSON file for the entries")


def pytest_configure(config: pytest.Config) -> None:
    """Begin without entries."""
    config.stash[_ENTRIES] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Begin an entry."""
    check = item.name.removeprefix("test_").replace("_", "-")
    item.config.stash[_ENTRIES].append(Entry(check, "", "passed"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how a check went on; what it failed with is a result too."""
    report = yield
    entry = item.config.stash[_ENTRIES][-1]
    entry.seconds = round(entry.seconds + call.duration, 1)
    if call.excinfo is not None and entry.verdict != "failed":
        entry.verdict = "failed" if report.failed else "not measured"
        error = call.excinfo.value
        entry.summary = " ".join(str(error).split())
        if not entry.summary or not isinstance(error, _EXPECTED):
            entry.summary = f"{type(error).__name__}: {entry.summary}"
            entry.facts["traceback"] = report.longreprtext
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the entries."""
    entries = session.config.stash[_ENTRIES]
    write_atomically(session.config.getoption("--entries"), msgspec.json.encode(entries))


@pytest.fixture
def settings(pytestconfig: pytest.Config) -> Settings:
    """Return how thoroughly to check."""
    return msgspec.json.decode(pytestconfig.getoption("--settings"), type=Settings)


@pytest.fixture
def found(pytestconfig: pytest.Config, settings: Settings) -> Findings:
    """Return what collects what the check finds."""
    return Findings(pytestconfig.stash[_ENTRIES][-1], settings)


@pytest.fixture
def device() -> Iterator[Device]:
    """Open the GPU."""
    with Device() as opened:
        yield opened


@pytest.fixture
def stream(device: Device) -> Iterator[Stream]:
    """Open a stream of the GPU."""
    with Stream(device) as opened:
        yield opened


@pytest.fixture
def libraries() -> list[Library]:
    """Return which of TensorRT and TensorRT-RTX run here; the check is skipped if none does."""
    usable = bundles.usable_libraries()
    if not usable:
        pytest.skip(bundles.why_no_engine())
    return usable


@pytest.fixture
def bundle(settings: Settings, request: pytest.FixtureRequest) -> Bundle:
    """Return the bundle that was given, or one of the reference model.

    The check is skipped where none was given and none can be built, or no engine could run it.
    """
    if settings.bundle:
        return Bundle(Path(settings.bundle))
    request.getfixturevalue("libraries")
    built = Path(settings.work) / "fieldguide.edgefg"
    try:
        if not built.exists():
            bundles.build_bundle(built)
    except MissingDependencyError as error:
        pytest.skip(f"no bundle can be built here ({error}); or give --bundle")
    return Bundle(built)
