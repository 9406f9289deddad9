"""The main job on real models and photographs, as a user would do it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edge_fg

pytestmark = [pytest.mark.slow, pytest.mark.real_data]

SQUASH = """[preprocess]
color = "rgb"
resize = { mode = "squash", size = [224, 224], filter = "bilinear" }
mean = [128, 128, 128]
std = [128, 128, 128]
layout = "nchw"
"""


def edge_fg_command(*arguments: str | Path) -> str:
    """Run `edge-fg` in a process of its own and return what it printed."""
    command = [sys.executable, "-m", "edge_fg_tools", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def build(folder: Path, data: Path, name: str, images: Path, *extra: str) -> Path:
    preprocess = folder / "squash128.toml"
    preprocess.write_text(SQUASH)
    model = data / "models" / f"inat_{name}_mnv2.onnx"
    arguments = ["build", model, "--labels", model.with_suffix("").with_suffix(".labels.txt")]
    arguments += ["--preprocess", preprocess, "--calibration", images, *extra]
    edge_fg_command(*arguments, "--output", folder / f"{name}.edgefg")
    return folder / f"{name}.edgefg"


@pytest.fixture(scope="module")
def birds(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the bird model, with a real plan of each variant."""
    pytest.importorskip("tensorrt_rtx")
    folder = tmp_path_factory.mktemp("birds")
    # So few that no corrections are tried, which take minutes: the insects' build has them.
    extra = ("--precision", "fp32,fp16,int8", "--target", "tensorrt-rtx")
    extra += ("--calibration-images", "60", "--no-cache")
    return build(folder, data_dir, "birds", data_dir / "images" / "birds.csv", *extra)


def test_int8_agrees_at_least_as_often_as_onnxruntimes_minmax(birds: Path):
    variants = edge_fg.Bundle(birds).manifest.variants
    int8 = variants["int8"]
    assert int8.fidelity.images > 700
    assert int8.fidelity.agreement >= 0.908
    assert int8.fidelity.agreement_labelled >= 0.978
    assert int8.int8_macs >= 0.9
    assert variants["fp16"].fidelity.agreement >= 0.995
    report = json.loads((birds / "report.json").read_text())
    assert {v["plan"]["target"] for v in report["variants"]} == {"tensorrt-rtx"}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_known_birds_are_named(birds: Path, data_dir: Path, precision: str):
    scenes = data_dir / "images" / "scenes"
    out = edge_fg_command("run", birds, scenes, "--format", "jsonl", "--precision", precision)
    found = {
        Path(line["source"]).name: line["top"][0]["label"]
        for line in map(json.loads, out.splitlines())
    }
    assert "(Burrowing Owl)" in found["owl.jpg"]
    assert "(Scarlet Macaw)" in found["parrot.jpg"]
    assert "(Black-capped Chickadee)" in found["bird.png"]
    assert found["cat.png"] == "background"


def test_camera_trap_images_and_clips_run_through(birds: Path, data_dir: Path):
    traps = data_dir / "images" / "cameratrap"
    answered = len(edge_fg_command("run", birds, traps).splitlines())
    assert answered == sum(1 for _ in traps.glob("*.jpg")) - 1  # one is truncated
    for clip in sorted((data_dir / "videos").iterdir()):
        out = edge_fg_command("run", birds, clip, "--format", "jsonl", "--max-frames", "30")
        assert len(out.splitlines()) == 30, clip.name


@pytest.mark.timeout(900)
def test_corrections_lift_int8_far_above_the_best_peer(data_dir: Path, tmp_path: Path):
    extra = ("--precision", "int8")
    bundle = build(tmp_path, data_dir, "insects", data_dir / "images" / "insects", *extra)
    fidelity = edge_fg.Bundle(bundle).manifest.variants["int8"].fidelity
    assert fidelity.images >= 100
    # Of onnxruntime's and modelopt's, the best agrees on 84.2 % (docs/quantization.md).
    assert fidelity.agreement >= 0.92
