"""Recordings and builds that a signal ends: nothing is torn, and what can be finished is."""

from __future__ import annotations

import csv
import fcntl
import json
import os
import pty
import random
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from PIL import Image

import edge_fg
from support.feed import RUN, Feed
from support.waiting import until

pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")

# How much of 100 kills, 50 lost terminals and 50 ends: 1 for all.
SHARE = float(os.environ.get("EDGE_FG_ENDINGS_SHARE", "0.08"))
INTERRUPTED = 130


class Recording:
    """What a run records into a folder, checked after it has ended."""

    def __init__(self, folder: Path, video: str = "a.mp4") -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.lines, self.table = folder / "a.jsonl", folder / "a.csv"
        self.video, self.images = folder / video, folder / "images"
        self.options = (
            "--save", self.video, "--save-frames", self.images,
            "--jsonl", self.lines, "--csv", self.table,
        )  # fmt: skip

    def answers(self) -> int:
        """How many answers it has, after checking that no line, row or image is torn."""
        lines, table = (
            path.read_text() if path.exists() else "" for path in (self.lines, self.table)
        )
        assert not lines or lines.endswith("}\n")
        assert not table or table.endswith("\n")
        assert all(json.loads(line)["top"] for line in lines.splitlines())
        assert len({len(row) for row in csv.reader(table.splitlines())}) <= 1
        for image in self.images.glob("[!.]*"):
            Image.open(image).load()
        return lines.count("\n")

    def await_answers(self, more_than: int) -> None:
        """Wait until it has more answers than that."""
        until(lambda: self.answers() > more_than)

    def check_video(self) -> None:
        """Check that the video is whole."""
        with edge_fg.open_source(self.video) as video:
            assert sum(1 for _ in video) > 0
            assert not video.skipped

    def unfinished(self) -> list[Path]:
        """The temporary files."""
        return list(self.folder.rglob(".*"))


@pytest.fixture
def recording(tmp_path: Path) -> Recording:
    return Recording(tmp_path / "recording")


def test_sighup_finishes_recordings(tiny_bundle, recording):
    feed = Feed(tiny_bundle, "-", *recording.options)
    for _ in range(5):
        feed.line()
    code, _, errors = feed.end(signal.SIGHUP)
    assert code == INTERRUPTED
    assert errors.splitlines()[-1] == "edge-fg: interrupted"
    assert recording.answers() >= 5
    recording.check_video()
    assert recording.unfinished() == []


def test_many_hangups_at_once_lose_nothing(tiny_bundle, recording):
    """A shell, the kernel and a session manager may each send one."""
    feed = Feed(tiny_bundle, "-", *recording.options)
    for _ in range(5):
        feed.line()
    for _ in range(20):
        feed.process.send_signal(signal.SIGHUP)
        time.sleep(0.001)
    code, _, _ = feed.end(signal.SIGTERM)
    assert code in (INTERRUPTED, -signal.SIGTERM, -signal.SIGHUP)  # after all was finished
    recording.check_video()
    assert recording.unfinished() == []


def test_nohup_lets_it_record_on(tiny_bundle, recording):
    feed = Feed(
        tiny_bundle, "-", "--format", "jsonl", *recording.options, command=["nohup", *RUN]
    )  # fmt: skip
    for _ in range(3):
        feed.line()
    feed.process.send_signal(signal.SIGHUP)
    until(lambda: json.loads(feed.line())["frame"] > 20)
    assert feed.process.poll() is None
    code, _, _ = feed.end(signal.SIGTERM)
    assert code == INTERRUPTED
    recording.check_video()


@pytest.mark.parametrize("options", [("--status", "--format", "jsonl"), ("--events", "visits")])
def test_a_lost_terminal_ends_it_well(tiny_bundle, recording, options):
    """Whatever is printed then fails, too."""
    master, slave = pty.openpty()

    def own_terminal() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    feed = Feed(
        tiny_bundle, "-", *recording.options, *options,
        stdout=slave, stderr=slave, preexec_fn=own_terminal,
    )  # fmt: skip
    os.close(slave)
    images = recording.images
    until(lambda: images.is_dir() and len(list(images.glob("[!.]*"))) >= 5)
    os.close(master)
    code, _, _ = feed.end()
    assert code == INTERRUPTED
    recording.answers()
    recording.check_video()
    assert recording.unfinished() == []


# Interrupted while they are imported, C extensions raise all kinds of errors.
TOUCHY = """
import os, signal
try:
    os.kill(os.getpid(), signal.{name})
    for _ in range(1000):
        pass
except BaseException as error:
    raise ImportError("it is not installed") from error
"""
IMPORTING = """
import time
from edge_fg_tools.cli.process import ended_as_interrupted
try:
    with ended_as_interrupted():
        import touchy
        time.sleep(60)
except KeyboardInterrupt:
    print("interrupted", touchy.__name__)
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_waits_for_the_end_of_an_import(tmp_path, name):
    (tmp_path / "touchy.py").write_text(TOUCHY.format(name=name))
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING], env=environment, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("interrupted touchy\n", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "times"), [(signal.SIGKILL, 100), (signal.SIGHUP, 50), (signal.SIGTERM, 50)]
)
def test_recordings_survive_their_end_at_any_moment(tiny_bundle, tmp_path, ending, times):
    """All runs add to the same files, so each also goes on from what the one before has left."""
    moments, finished = random.Random(ending), 0
    for number in range(max(1, round(SHARE * times))):
        video = f"{number}.{('mp4', 'avi', 'mkv')[number % 3]}"
        recording = Recording(tmp_path / "recording", video)
        before, printed = recording.answers(), tmp_path / "printed.jsonl"
        with printed.open("ab") as out:
            feed = Feed(tiny_bundle, "-", "--format", "jsonl", *recording.options, stdout=out)
        early = number % 10 == 9  # while it starts
        if not early:
            recording.await_answers(before)
        time.sleep(moments.uniform(0, 0.6))
        code, _, errors = feed.end(ending)
        assert code in (-ending, INTERRUPTED), errors
        assert "Traceback" not in errors or code == -ending
        answered = recording.answers() - before
        assert all(json.loads(line)["top"] for line in printed.read_text().splitlines())
        if code == INTERRUPTED and answered:
            recording.check_video()
            finished += 1
        elif recording.video.exists():
            recording.check_video()
        if ending != signal.SIGKILL:
            assert early or code == INTERRUPTED
            assert recording.unfinished() == []
    assert finished or ending == signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("place", ["b.edgefg", "b.zip"])
def test_builds_survive_their_end_at_any_moment(workshop, edge_fg_process, place):
    """The older bundle stays until the new one is in its place; what is kept serves the next."""
    output = workshop.folder / place
    words = workshop.arguments("--overwrite", "--precision", "fp32,int8", output=output)
    began = time.monotonic()
    assert edge_fg_process(*words).code == 0
    lasts = time.monotonic() - began
    moments = random.Random(place)
    for number in range(max(1, round(SHARE * 50))):
        process = subprocess.Popen(
            [sys.executable, "-m", "edge_fg_tools", *words], stderr=subprocess.DEVNULL
        )
        time.sleep(moments.uniform(0, lasts))
        process.send_signal((signal.SIGKILL, signal.SIGHUP)[number % 2])
        process.wait(60)
        edge_fg.Bundle(output).verify()
    for left in workshop.folder.glob(".b.*"):
        os.utime(left, (time.time() - 3600,) * 2)
    done = edge_fg_process(*words)
    assert done.code == 0, done.err
    assert "refused" not in done.err
    edge_fg.Bundle(output).verify()
    assert list(workshop.folder.glob(".b.*")) == []
