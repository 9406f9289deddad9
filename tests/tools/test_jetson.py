"""`edge-fg doctor` on a Jetson: each step of the recipe, done or with the command for it."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import pytest

from edge_fg_tools.cli import doctor, jetson
from edge_fg_tools.cli.jetson import Python, jetson_steps

JETPACK_6 = "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n"
JETPACK_7 = "# R38 (release), REVISION: 2.0, GCID: 1, BOARD: generic\n"
JETPACK_5 = "# R35 (release), REVISION: 4.1, GCID: 1, BOARD: t186ref\n"
OLD_NUMPY = "broken: numpy.core.multiarray failed to import: run `pip install 'numpy<2'`"
GOOD = {"numpy": "1.26.4", "opencv-python": "4.8.0", "tensorrt": "10.3.0", "pycuda": "2025.1"}


@pytest.fixture
def board(tmp_path: Path):
    """What doctor says of a board: the steps that are not done, and their commands."""

    def look(release=JETPACK_6, problems=None, gstreamer=True, venv="true", pip=False, nvcc=True):
        (tmp_path / "etc").mkdir()
        (tmp_path / "etc/nv_tegra_release").write_text(release)
        compiler = tmp_path / "usr/local/cuda/bin/nvcc"
        compiler.parent.mkdir(parents=True)
        if nvcc:
            compiler.touch()
        prefix = tmp_path / "venv"
        prefix.mkdir()
        (prefix / "pyvenv.cfg").write_text(f"home = /usr\ninclude-system-site-packages = {venv}\n")
        packages = [
            {
                "name": name,
                "version": None if (problems or {}).get(name) else version,
                "problem": (problems or {}).get(name),
                "file": str((prefix if pip else Path("/usr")) / name / "__init__.py"),
            }
            for name, version in GOOD.items()
        ]
        python = Python(prefix, Path("/usr"))
        steps = jetson_steps(packages, {"gstreamer": gstreamer}, root=tmp_path, python=python)
        assert [step.name for step in steps][:2] == ["JetPack", "Python"]
        assert len(steps) == 7
        return {step.name: step.command for step in steps if not step.done}

    return look


def test_another_machine_has_no_steps(tmp_path: Path):
    assert jetson_steps([], {}, root=tmp_path) == []


@pytest.mark.parametrize("release", [JETPACK_6, JETPACK_7])
def test_a_board_that_followed_the_recipe_lacks_nothing(board, release: str):
    assert board(release) == {}


@pytest.mark.parametrize(
    ("given", "commands"),
    [
        ({"release": JETPACK_5}, {"JetPack": "JetPack 6"}),
        ({"venv": "false"}, {"Python": "--system-site-packages"}),
        (
            {"problems": {"opencv-python": OLD_NUMPY}},
            {"NumPy": "pip install 'numpy<2'", "OpenCV": "NumPy"},
        ),
        ({"problems": {"opencv-python": "not installed"}}, {"OpenCV": "install libopencv-python"}),
        (
            {"problems": {"opencv-python": "not installed"}, "release": JETPACK_7},
            {"OpenCV": "install python3-opencv"},
        ),
        ({"gstreamer": False}, {"OpenCV": "pip uninstall opencv-python "}),
        ({"problems": {"tensorrt": "not installed"}}, {"TensorRT": "python3-libnvinfer"}),
        ({"pip": True}, {"TensorRT": "pip uninstall tensorrt"}),
        ({"problems": {"pycuda": "not installed"}}, {"PyCUDA": "PATH=/usr/local/cuda/bin"}),
        (
            {"problems": {"pycuda": "not installed"}, "nvcc": False},
            {"nvcc": "cuda-toolkit-12-6", "PyCUDA": "pip install"},
        ),
        ({"nvcc": False}, {}),  # it has done its work
    ],
)
def test_each_step_that_is_missing_names_its_command(board, monkeypatch, given, commands):
    monkeypatch.setattr(jetson.shutil, "which", lambda name: None)
    found = board(**given)
    assert found.keys() == commands.keys()
    for name, words in commands.items():
        assert words in found[name]


def test_doctor_shows_the_steps(edge_fg_command, monkeypatch, tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").write_text(JETPACK_6)
    real = jetson_steps
    monkeypatch.setattr(doctor, "jetson_steps", lambda *facts: real(*facts, root=tmp_path))
    broken = tmp_path / "site"
    broken.mkdir()
    (broken / "cv2.py").write_text("raise ImportError('numpy.core.multiarray failed to import')")
    monkeypatch.syspath_prepend(broken)
    monkeypatch.setitem(sys.modules, "cv2", types.ModuleType("cv2"))
    del sys.modules["cv2"]
    text = edge_fg_command("doctor").out
    assert "  ok  JetPack   Jetson Linux 36.4.3 (JetPack 6)" in text
    assert "run: pip install 'numpy<2'" in text
    facts = json.loads(edge_fg_command("doctor", "--format", "json").out)
    assert {step["name"] for step in facts["jetson"]} >= {"NumPy", "OpenCV", "TensorRT", "PyCUDA"}
    cv2 = next(package for package in facts["packages"] if package["name"] == "opencv-python")
    assert cv2["problem"].startswith("broken: numpy.core.multiarray failed to import: ")


def test_the_extra_leaves_jetpack_s_packages_alone(repository: Path):
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    brought = " ".join(extras["optional-dependencies"]["jetson"] + extras["dependencies"])
    assert "pycuda" in brought
    assert "opencv" not in brought
    assert "tensorrt" not in brought
