"""What `edge-fg doctor` checks on a Jetson: each step of docs/jetson.md, and the command for it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Jetson Linux's release -> JetPack, and the CUDA toolkit that it brings.
_JETPACKS = {35: ("5", ""), 36: ("6", "12-6"), 38: ("7", "13-0")}
_OLDEST = 36  # whose Python is 3.10
_VENV = "python3 -m venv --system-site-packages .venv"
_PYCUDA = "PATH=/usr/local/cuda/bin:$PATH pip install --no-cache-dir --force-reinstall pycuda"
_WHEELS = (
    "opencv-python opencv-python-headless opencv-contrib-python opencv-contrib-python-headless"
)


@dataclass(frozen=True)
class Step:
    """One step of the recipe."""

    name: str
    done: bool
    found: str  # What this machine has
    command: str  # What does the step


@dataclass(frozen=True)
class Python:
    """Where this interpreter and its packages are."""

    prefix: Path = Path(sys.prefix)
    base: Path = Path(sys.base_prefix)

    @property
    def sees_system(self) -> bool:
        """Whether packages that apt installed can be imported."""
        try:
            text = (self.prefix / "pyvenv.cfg").read_text()
        except OSError:
            return True  # no virtual environment
        return re.search(r"^include-system-site-packages *= *true", text, re.M | re.I) is not None

    def from_pip(self, package: Mapping[str, Any]) -> bool:
        """Say whether a package lies in the virtual environment."""
        file = package.get("file")
        return self.prefix != self.base and file is not None and self.prefix in Path(file).parents


def jetson_steps(
    packages: Sequence[Mapping[str, Any]],
    video: Mapping[str, Any],
    *,
    root: Path = Path("/"),
    python: Python | None = None,
) -> list[Step]:
    """Return the steps of the recipe, done or not; none where this machine is no Jetson.

    `packages` and `video` are doctor's facts, and the files of the system lie under `root`.
    """
    release = _release(root)
    if release is None:
        return []
    python = python or Python()
    jetpack, toolkit = _JETPACKS.get(release[0], ("", ""))
    by_name = {package["name"]: package for package in packages}
    title = f"Jetson Linux {release[0]}.{release[1]}" + (f" (JetPack {jetpack})" * bool(jetpack))
    seen = "sees the system's packages" if python.sees_system else "hides the system's packages"
    return [
        Step("JetPack", release[0] >= _OLDEST, title, "install JetPack 6 or later"),
        Step("Python", python.sees_system, f"{python.prefix} {seen}", _VENV),
        _numpy(by_name["numpy"], by_name["opencv-python"]),
        _opencv(by_name["opencv-python"], video, "libopencv-python" if jetpack == "6" else ""),
        _tensorrt(by_name["tensorrt"], python),
        *_pycuda(by_name["pycuda"], root, toolkit),
    ]


def _release(root: Path) -> tuple[int, str] | None:
    """Return the release and revision of Jetson Linux, such as (36, "4.3")."""
    try:
        text = (root / "etc/nv_tegra_release").read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return (int(found[1]), found[2]) if found else None


def _numpy(numpy: Mapping[str, Any], cv2: Mapping[str, Any]) -> Step:
    fits = "numpy<2" not in str(cv2["problem"])
    found = f"NumPy {numpy['version']}" + ("" if fits else ", OpenCV was built for NumPy 1")
    return Step("NumPy", fits, found, "pip install 'numpy<2'")


def _opencv(cv2: Mapping[str, Any], video: Mapping[str, Any], package: str) -> Step:
    install = f"sudo apt install {package or 'python3-opencv'}"
    if cv2["problem"] == "not installed":
        return Step("OpenCV", False, "not installed", install)
    if cv2["problem"]:
        remedy = "see the line of NumPy" if "numpy<2" in cv2["problem"] else install
        return Step("OpenCV", False, cv2["problem"], remedy)
    if not video.get("gstreamer"):
        found = f"{cv2['version']} without GStreamer: no CSI camera, no hardware decoder"
        return Step("OpenCV", False, found, f"pip uninstall {_WHEELS}; {install}")
    return Step("OpenCV", True, f"{cv2['version']} with GStreamer", install)


def _tensorrt(tensorrt: Mapping[str, Any], python: Python) -> Step:
    install = "sudo apt install python3-libnvinfer"
    if tensorrt["problem"]:
        return Step("TensorRT", False, tensorrt["problem"], install)
    if python.from_pip(tensorrt):
        found = f"{tensorrt['version']} from pip, not JetPack's"
        return Step("TensorRT", False, found, f"pip uninstall tensorrt; {install}")
    return Step("TensorRT", True, str(tensorrt["version"]), install)


def _pycuda(pycuda: Mapping[str, Any], root: Path, toolkit: str) -> list[Step]:
    nvcc = root / "usr/local/cuda/bin/nvcc"
    found = str(nvcc) if nvcc.exists() else shutil.which("nvcc")
    there = not pycuda["problem"]
    install = f"sudo apt install cuda-toolkit-{toolkit}" if toolkit else "install the CUDA toolkit"
    return [
        # Only PyCUDA's installation needs it.
        Step("nvcc", there or found is not None, found or "not found", install),
        Step("PyCUDA", there, pycuda["version"] or pycuda["problem"], _PYCUDA),
    ]
