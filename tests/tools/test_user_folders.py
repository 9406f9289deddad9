"""What commands write into the user's folders: the caches that the documents name, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def written(home: Path, *words: str | Path) -> set[str]:
    """Run a command that has this home and no other settings; return the folders with new files."""
    ours = ("XDG_", "ORT_", "PYTHON", "EDGE_FG")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
    done = subprocess.run(
        [sys.executable, "-m", "edge_fg_tools", *map(str, words)],
        env=kept | {"HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    files = [path.relative_to(home) for path in home.rglob("*") if path.is_file()]
    return {path.parent.as_posix() for path in files}


def test_a_build_keeps_its_statistics_alone(workshop, home):
    words = workshop.arguments("--precision", "fp32,int8")
    assert written(home, *words) == {".cache/edge-fg/calibration"}


@pytest.mark.parametrize("command", ["run", "evaluate", "inspect", "build --no-cache"])
def test_other_commands_write_nothing(workshop, tiny_bundle, home, command):
    name, *options = command.split()
    images = workshop.images
    words = {
        "run": [tiny_bundle, images, "--jsonl", workshop.folder / "a.jsonl"],
        "evaluate": [tiny_bundle, images],
        "inspect": [workshop.model],
        "build": workshop.arguments("--precision", "fp32")[1:],
    }
    assert written(home, name, *words[name], *options) == set()
