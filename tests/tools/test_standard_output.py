"""Standard output has whole answers, and nothing else."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("onnxruntime")

EDGE_FG = [sys.executable, "-m", "edge_fg_tools"]
# Prints to standard output as libraries do, from Python, from C and from a child, at each call.
NOISY = """
import ctypes, os, subprocess, sys
from edge_fg.backends.onnxruntime import OnnxRuntimeBackend
from edge_fg_tools.cli import main
infer = OnnxRuntimeBackend.infer
def noisy(self, *arguments):
    print("*************** EP Error ***************")
    os.write(1, b"[ WARN:0] from OpenCV\\n")
    subprocess.run(["echo", "from a child"])
    libc = ctypes.CDLL(None)
    libc.puts(b"from C")
    libc.fflush(None)
    return infer(self, *arguments)
OnnxRuntimeBackend.infer = noisy
sys.exit(main())
"""
NOISE = ("EP Error", "from OpenCV", "from a child", "from C")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(40):
        noise = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number:02}.png")
    return folder


@pytest.mark.parametrize("command", ["run --format jsonl", "evaluate --format json"])
def test_what_libraries_print_goes_to_standard_error(tiny_bundle, images, command):
    name, *options = command.split()
    words = [sys.executable, "-c", NOISY, name, str(tiny_bundle), str(images), *options]
    done = subprocess.run(words, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for words in NOISE:
        assert words not in done.stdout
        assert words in done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == (40 if name == "run" else 1)


@pytest.mark.parametrize("place", ["--jsonl -", "--jsonl /dev/stdout", "--csv /dev/fd/1"])
def test_standard_output_by_its_other_names(tiny_bundle, images, place):
    words = [*EDGE_FG, "run", str(tiny_bundle), str(images / "00.png"), *place.split()]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    line = done.stdout.splitlines()[-2:]
    assert any(str(images / "00.png") in one for one in line)


def test_onnx_runtime_says_nothing_of_a_graph_that_it_refuses(tmp_path, capfd):
    from edge_fg.backends.onnxruntime import open_session
    from edge_fg.errors import BackendError

    with pytest.raises(BackendError):
        open_session(b"no graph")
    assert capfd.readouterr() == ("", "")


GIVEN_BACK = """
import os
from edge_fg_tools.cli.process import own_standard_output
for _ in range(3):
    with own_standard_output() as ours:
        print("theirs")
        os.write(1, b"theirs, from C\\n")
        print("ours", file=ours)
    print("after", flush=True)
    os.write(1, b"after, from C\\n")
"""


def test_standard_output_is_given_back():
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, text=True)
    assert done.stdout.splitlines() == 3 * ["ours", "after", "after, from C"]
    assert sorted(done.stderr.splitlines()) == 3 * ["theirs"] + 3 * ["theirs, from C"]


def limited(size: int):
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


@pytest.mark.parametrize(("mode", "size"), [("wb", 4000), ("ab", 6001)])
def test_a_full_disk_ends_lines_on_standard_output_whole(
    tiny_bundle, images, tmp_path, mode, size
) -> None:
    """No file may be longer than `size` bytes: what is written beyond fails as on a full disk."""
    words = [*EDGE_FG, "run", str(tiny_bundle), str(images), "--format", "jsonl"]
    path = tmp_path / "answers.jsonl"
    path.write_text('{"old": 1}\n')
    with path.open(mode) as out:
        done = subprocess.run(
            words, stdout=out, stderr=subprocess.PIPE, text=True, preexec_fn=limited(size)
        )
    assert done.returncode == 1
    assert done.stderr == "edge-fg: can't write to standard output: File too large\n"
    kept = path.read_text()
    assert size - 900 < len(kept) <= size
    assert kept.endswith("}\n")
    found = [json.loads(line) for line in kept.splitlines()]
    if mode == "ab":
        assert found.pop(0) == {"old": 1}
    assert [line["frame"] for line in found] == list(range(len(found)))


def test_a_full_disk_ends_files_of_lines_whole(tiny_bundle, images, tmp_path):
    size = 5000
    lines, table = tmp_path / "a.jsonl", tmp_path / "a.csv"
    words = [*EDGE_FG, "run", tiny_bundle, images, "--jsonl", lines, "--csv", table]
    done = subprocess.run(
        list(map(str, words)), capture_output=True, text=True, preexec_fn=limited(size)
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    for path in (lines, table):
        assert 0 < path.stat().st_size <= size
        assert path.read_text().endswith("\n")
    assert all(json.loads(line)["top"] for line in lines.read_text().splitlines())
    commas = {line.count(",") for line in table.read_text().splitlines()}
    assert len(commas) == 1


@pytest.mark.parametrize("command", ["inspect", "evaluate --format json"])
def test_a_device_that_is_full_is_named(tiny_bundle, images, command):
    name, *options = command.split()
    given = [tiny_bundle] if name == "inspect" else [tiny_bundle, images]
    words = [*EDGE_FG, name, *map(str, given), *options]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    told = done.stderr.splitlines()
    assert told[-1].startswith("edge-fg: can't write to standard output: No space left on device")


@pytest.mark.parametrize("closed", ["1>&-", "2>&-"])
def test_a_closed_descriptor_becomes_no_file(tiny_bundle, images, tmp_path, closed):
    """What is printed to a closed descriptor must not land in a file that was opened as it."""
    saved = tmp_path / "a.jsonl"
    shell = shutil.which("sh")
    words = f'exec "$@" {closed}'
    command = [sys.executable, "-c", NOISY, "run", str(tiny_bundle), str(images)]
    done = subprocess.run(
        [shell, "-c", words, "sh", *command, "--jsonl", str(saved)], capture_output=True, text=True
    )
    assert done.returncode == (1 if "1" in closed else 0)
    assert "internal error" not in done.stderr
    for line in saved.read_text().splitlines() if saved.exists() else ():
        assert json.loads(line)["top"]
    assert "1" in closed or saved.read_text().count("\n") == 40
