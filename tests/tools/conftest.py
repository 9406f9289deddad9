"""Fixtures for the tools: a model file, images, and the command line."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_fg_tools.cli import main

PREPROCESS = """[preprocess]
resize = { mode = "squash", size = [16, 16] }
mean = [128, 128, 128]
std = [64, 64, 64]
"""
LABELS = "Athene cunicularia (Burrowing Owl)\nAthene noctua (Little Owl)\nParus major (Great Tit)\n"


@pytest.fixture(autouse=True)
def cache_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What builds keep for the next one goes to a folder of the test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


@dataclass(frozen=True)
class Workshop:
    """A folder with all that a build needs; `arguments` are those of a build that works."""

    folder: Path
    model: Path
    labels: Path
    images: Path
    preprocess: Path

    def arguments(self, *extra: str, **changed: str | Path) -> list[str]:
        """Return the arguments of `edge-fg build`, some changed and `extra` ones at the end."""
        given: dict[str, str | Path] = {
            "model": self.model,
            "labels": self.labels,
            "calibration": self.images,
            "preprocess": self.preprocess,
            "output": self.folder / "b.edgefg",
            **changed,
        }
        words = ["build", str(given.pop("model"))]
        for key, value in given.items():
            words += [f"--{key}", str(value)]
        return [*words, *extra]


@pytest.fixture
def workshop(tmp_path: Path, tiny_model: bytes) -> Workshop:
    """The tiny model with 40 images, of which none of the labels is known."""
    shop = Workshop(
        tmp_path,
        tmp_path / "m.onnx",
        tmp_path / "labels.txt",
        tmp_path / "images",
        tmp_path / "p.toml",
    )
    shop.model.write_bytes(tiny_model)
    shop.labels.write_text(LABELS + "background\n")
    shop.preprocess.write_text(PREPROCESS)
    shop.images.mkdir()
    rng = np.random.default_rng(0)
    for i in range(40):
        # Smooth colour fields: noise alone would average to the same grey everywhere.
        small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
        Image.fromarray(small).resize((50, 40), Image.Resampling.BICUBIC).save(
            shop.images / f"{i:02}.png"
        )
    return shop


@pytest.fixture
def fragile_workshop(workshop: Workshop) -> Workshop:
    """The workshop with a model of which `c2` alone can't bear INT8.

    Its input has a channel a hundred times larger than all others, which it scales down again.
    It comes from a Softplus, through which no equalisation can reach.
    """
    onnx = pytest.importorskip("onnx")
    model = onnx.load(workshop.model)
    arrays = {one.name: onnx.numpy_helper.to_array(one).copy() for one in model.graph.initializer}
    arrays["w1"][0] *= 100
    arrays["b1"][0] *= 100
    arrays["w2"][:, 0] /= 100
    (activation,) = [node for node in model.graph.node if node.output[0] == "r1"]
    activation.op_type = "Softplus"
    for stored in model.graph.initializer:
        stored.CopyFrom(onnx.numpy_helper.from_array(arrays[stored.name], stored.name))
    onnx.save(model, workshop.model)
    return workshop


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The last line on standard error; a defect of ours is not a complaint."""
        assert "Traceback" not in self.err
        assert "internal error" not in self.err, self.err
        return self.err.strip().splitlines()[-1]


@pytest.fixture
def edge_fg_command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run `edge-fg` in this process."""

    def run(*arguments: str | Path) -> Outcome:
        capsys.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # argparse
            code = end.code if isinstance(end.code, int) else 1
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def edge_fg_process() -> Callable[..., Outcome]:
    """Run `edge-fg` in a process of its own."""

    def run(*arguments: str | Path, **options: object) -> Outcome:
        command = [sys.executable, "-m", "edge_fg_tools", *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, **options)
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@dataclass(frozen=True)
class Guide:
    """The built-in model as a bundle, and the first seconds of the built-in clip."""

    bundle: Path
    clip: Path
    frames: int
    species: tuple[str, ...]


@pytest.fixture(scope="session")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Guide:
    """See `Guide`; made once, for it takes seconds."""
    pytest.importorskip("onnx")
    from edge_fg.sinks import VideoSaver
    from edge_fg_tools import fieldguide
    from edge_fg_tools.building import BuildOptions, build

    folder = tmp_path_factory.mktemp("guide")
    fieldguide.write_image_set(folder / "photographs", 1, seed=5)
    build(
        BuildOptions(
            model=fieldguide.model_path(),
            labels=fieldguide.labels_path(),
            calibration=folder / "photographs" / "images.csv",
            output=folder / "guide.edgefg",
            preprocess=str(fieldguide.preprocess_path()),
            precisions=("fp32",),
        )
    )
    species: dict[str, None] = {}
    frames = 75
    with VideoSaver(folder / "clip.mp4", 15, (640, 360)) as saver:
        for frame, truth in itertools.islice(fieldguide.render_clip(0), frames):
            saver.write(frame)
            species.update(dict.fromkeys(bird.label for bird in truth.birds))
    return Guide(folder / "guide.edgefg", folder / "clip.mp4", frames, tuple(species))
