"""One case: which kinds there are, how one is repeated, and what it may do."""

from __future__ import annotations

import logging
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Literal

from edge_fg.errors import EdgeFGError
from fuzzing import answers, broken, graphs, media, texts

MOST_SECONDS = 5.0
MOST_BYTES = 200 << 20
MOST_MESSAGE_BYTES = 2000

Run = Callable[[Random, Path], None]
# What is spoilt: how many of the 100,000 cases of a night, and what tries one.
KINDS: dict[str, tuple[int, Run]] = {
    "labels": (20_000, texts.run_labels),
    "preprocess": (15_000, texts.run_preprocess),
    "image-list": (10_000, texts.run_image_list),
    "source": (20_000, texts.run_source),
    "setting": (5_000, texts.run_setting),
    "bundle": (20_000, graphs.run_bundle),
    "model": (3_000, graphs.run_model),
    "build": (500, graphs.run_build),
    "image": (4_500, media.run_image),
    "pipe": (1_000, media.run_pipe),
    "video": (500, media.run_video),
    "http": (400, answers.run_http),
    "rtsp": (100, answers.run_rtsp),
    **{name: (0, run) for name, run in broken.KINDS.items()},
}


@dataclass(frozen=True)
class Case:
    """A case by its name: the same name is always the same input."""

    kind: str
    seed: int
    number: int

    def __str__(self) -> str:
        return f"{self.kind}/{self.seed}/{self.number}"


@dataclass(frozen=True)
class Outcome:
    """How a case ended, and what was wrong with that if it is a finding."""

    end: Literal["well", "refused", "finding"]
    text: str = ""


class _Records(logging.Handler):
    """Keeps what was logged during a case."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


def try_case(case: Case) -> Outcome:
    """Run a case in this process and judge its end, its messages, its time and its memory."""
    random = Random(str(case))
    logger = logging.getLogger("edge_fg")
    records = _Records()
    logger.addHandler(records)
    before, began = _start_memory(), time.process_time()
    try:
        with TemporaryDirectory(prefix="edge-fg-fuzz-") as folder, _inside(folder):
            KINDS[case.kind][1](random, Path(folder))
        outcome = Outcome("well")
    except EdgeFGError as error:
        outcome = Outcome("refused", f"{type(error).__name__}: {error}")
        records.lines.append(str(error))
    except Exception:  # noqa: BLE001  whatever it is, it is what we look for
        outcome = Outcome("finding", traceback.format_exc())
    finally:
        logger.removeHandler(records)
    seconds, grown = time.process_time() - began, _peak_memory() - before
    wrong = [
        f"a message that is no short, plain line: {one[:300]!r}"
        for one in records.lines
        if not _is_plain(one)
    ]
    if seconds > MOST_SECONDS:
        wrong.append(f"took {seconds:.1f} s of the processor")
    if grown > MOST_BYTES:
        wrong.append(f"took {grown >> 20} MB more than before")
    return Outcome("finding", "; ".join([*wrong, outcome.text])) if wrong else outcome


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    """Let names without a folder, such as globs, mean what is in this one."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def _is_plain(message: str) -> bool:
    return message.isprintable() and len(message.encode()) <= MOST_MESSAGE_BYTES


def _start_memory() -> int:
    """Forget the peak of the past and return how many bytes are resident now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak_memory() -> int:
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key + ":"))
