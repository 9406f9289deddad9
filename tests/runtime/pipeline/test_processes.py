"""Programs that are interrupted, told to end, or killed while a pipeline runs."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.waiting import HANG

PROGRAM = """
import signal, sys, threading, time
import numpy as np
from edge_fg.pipeline import Pipeline

def frames():
    while True:
        time.sleep(0.002)
        yield np.zeros((2, 2, 3), np.uint8)

running = threading.Event()

class Lines:
    name, lossless = "lines", True
    def open(self, sources):
        self.file = open(sys.argv[1], "w")
    def __call__(self, result):
        self.file.write(f"{result.frame.number}\\n")
        self.file.flush()
        if result.frame.number == 20:
            print("running", flush=True)
            running.set()
    def close(self):
        self.file.write("end\\n")
        self.file.close()

pipeline = Pipeline(frames(), lambda image: 0, sinks=[Lines()])
"""

ENDINGS = {
    "run": """
try:
    pipeline.run()
except KeyboardInterrupt:
    print(pipeline.stats().state, threading.active_count())
""",
    "loop": """
try:
    for result in pipeline:
        pass
except KeyboardInterrupt:
    print(pipeline.stats().state, threading.active_count())
""",
    "async": """
import asyncio
try:
    asyncio.run(pipeline.run_async())
except KeyboardInterrupt:
    print(pipeline.stats().state, threading.active_count())
""",
    "term": """
def drain(number, frame):
    raise SystemExit(3)
signal.signal(signal.SIGTERM, drain)
try:
    pipeline.run()
finally:
    print(pipeline.stats().state, threading.active_count())
""",
}


def start(tmp_path: Path, ending: str) -> tuple[subprocess.Popen, Path]:
    written = tmp_path / "lines.txt"
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM + ending, str(written)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "running\n"
    return child, written


@pytest.mark.parametrize("ending", ["run", "loop", "async"])
def test_ctrl_c(tmp_path: Path, ending: str) -> None:
    child, written = start(tmp_path, ENDINGS[ending])
    child.send_signal(signal.SIGINT)
    output, errors = child.communicate(timeout=HANG)
    assert (child.returncode, output, errors) == (0, "ended 1\n", "")
    *numbers, last = written.read_text().splitlines()
    assert numbers == [str(n) for n in range(len(numbers))]
    assert last == "end"


def test_sigterm_where_the_program_wants_to_close(tmp_path: Path) -> None:
    child, written = start(tmp_path, ENDINGS["term"])
    child.send_signal(signal.SIGTERM)
    output, errors = child.communicate(timeout=HANG)
    assert (child.returncode, output, errors) == (3, "ended 1\n", "")
    assert written.read_text().splitlines()[-1] == "end"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_program_is_gone_at_once(tmp_path: Path, number: signal.Signals) -> None:
    child, written = start(tmp_path, ENDINGS["run"])
    child.send_signal(number)
    child.communicate(timeout=HANG)
    assert child.returncode == -number
    numbers = written.read_text().splitlines()
    assert numbers == [str(n) for n in range(len(numbers))], "whole lines, in order"


def test_a_program_that_forgets_its_pipeline_still_ends(tmp_path: Path) -> None:
    child, written = start(tmp_path, "pipeline.start(); running.wait()")
    _, errors = child.communicate(timeout=HANG)
    assert child.returncode == 0
    assert "Traceback" not in errors
    assert len(written.read_text().splitlines()) >= 20
