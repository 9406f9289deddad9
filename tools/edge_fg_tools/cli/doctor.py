"""`edge-fg doctor`: what this machine has, what will be used and why."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from dataclasses import asdict
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import edge_fg
from edge_fg.backends.plan_cache import PlanCache
from edge_fg.backends.selection import survey
from edge_fg.cuda.device import find_gpus
from edge_fg.errors import EdgeFGError
from edge_fg.preprocess import presets
from edge_fg.printing import first_line, import_failure, import_remedy
from edge_fg_tools.cli.arguments import add_format
from edge_fg_tools.cli.command import Command, show
from edge_fg_tools.cli.jetson import jetson_steps

# Import name, name on PyPI, what it is for.
_PACKAGES = (
    ("numpy", "numpy", "arrays"),
    ("PIL", "Pillow", "images and exact resizing"),
    ("msgspec", "msgspec", "bundles"),
    ("cv2", "opencv-python", "cameras and video"),
    ("onnxruntime", "onnxruntime", "inference on the CPU, calibration"),
    ("onnx", "onnx", "building bundles"),
    ("onnxslim", "onnxslim", "simplifying graphs"),
    ("jinja2", "Jinja2", "reports"),
    ("rich", "rich", "progress bars"),
    ("tensorrt", "tensorrt", "plans for Jetson and data-centre GPUs"),
    ("tensorrt_rtx", "tensorrt-rtx", "plans for RTX GPUs"),
    ("pycuda", "pycuda", "CUDA preprocessing"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_format(parser, "text", "json")


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    show(arguments, diagnose(), _as_text, indent=2)
    return 0


def diagnose() -> dict[str, Any]:
    """Return facts about this machine as JSON-safe data."""
    gpus, why_none = find_gpus()
    surveyed = survey()
    packages, video = [_package(*names) for names in _PACKAGES], _video()
    used = next((candidate.name for candidate in surveyed if candidate.usable), None)
    return {
        "edge_fg": edge_fg.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {_device_model()}",
        "gpus": [{"name": g.name, "compute_capability": g.compute_capability} for g in gpus],
        "no_gpu_because": why_none,
        "packages": packages,
        "video": video,
        "plan_cache": _plan_cache(),
        "backends": [
            {
                "name": c.name,
                "usable": c.usable,
                "reason": c.reason,
                "missing": list(c.missing),
                "installed": c.installed,
                "used": c.name == used,
            }
            for c in surveyed
        ],
        "gpu_problem": _gpu_problem() if gpus else None,
        "jetson": [asdict(step) for step in jetson_steps(packages, video)],
    }


def _device_model() -> str:
    """Return what a board such as a Jetson calls itself, or the operating system."""
    try:
        return Path("/proc/device-tree/model").read_text().strip("\0\n ")
    except OSError:
        return platform.platform(terse=True)


def _package(module: str, name: str, purpose: str) -> dict[str, Any]:
    try:
        loaded = import_module(module)
        version = str(getattr(loaded, "__version__", None) or metadata.version(name))
        problem, file = None, loaded.__file__
    except Exception as error:  # noqa: BLE001  a broken package is what a doctor looks for
        broken = f"broken: {first_line(error)}: {import_remedy(error)}"
        problem = "not installed" if import_failure(error, module) is None else broken
        file = version = None
    return {
        "name": name,
        "version": version,
        "purpose": purpose,
        "problem": problem,
        "file": file,
    }


def _video() -> dict[str, Any]:
    """Return which video back ends this OpenCV was built with."""
    cv2 = sys.modules.get("cv2")
    if cv2 is None:
        return {}
    text = cv2.getBuildInformation()
    found = {
        key: re.search(rf"^\s+{label}:\s+YES", text, re.MULTILINE) is not None
        for key, label in (("ffmpeg", "FFMPEG"), ("gstreamer", "GStreamer"), ("v4l2", r"v4l/v4l2"))
    }
    return {"opencv": str(cv2.__file__), **found}


def _gpu_problem() -> str | None:
    """Open the GPU as inference does; return what is wrong with it, or None."""
    try:
        from edge_fg.cuda import Device
        from edge_fg.preprocess.cuda import CudaPreprocessor

        with Device() as device, CudaPreprocessor(device, presets()["torchvision"], 1):
            return None
    except EdgeFGError as error:
        return str(error)


def _plan_cache() -> dict[str, Any]:
    try:
        cache = PlanCache()
    except EdgeFGError as error:
        return {"folder": None, "writable": False, "problem": str(error)}
    nearest = next(parent for parent in (cache.folder, *cache.folder.parents) if parent.exists())
    writable = nearest.is_dir() and os.access(nearest, os.W_OK)
    plans, size = cache.usage()
    return {
        "folder": str(cache.folder),
        "writable": writable,
        "plans": plans,
        "bytes": size,
        "limit_bytes": cache.limit_bytes,
    }


def _as_text(facts: dict[str, Any]) -> str:
    gpus = [f"{gpu['name']} (compute {gpu['compute_capability']})" for gpu in facts["gpus"]]
    lines = [
        f"edge_fg     {facts['edge_fg']} on Python {facts['python']}",
        f"machine     {facts['machine']}",
        f"GPU         {', '.join(gpus) or 'none: ' + facts['no_gpu_because']}",
        f"plan cache  {_cache(facts['plan_cache'])}",
        "",
        "packages",
    ]
    for package in facts["packages"]:
        state = package["version"] or package["problem"]
        lines.append(f"  {package['name']:<14} {state:<16} {package['purpose']}")
    if facts["video"]:
        have = [
            f"{k} {'yes' if facts['video'][k] else 'NO'}" for k in ("ffmpeg", "gstreamer", "v4l2")
        ]
        lines += ["", f"video       {', '.join(have)}"]
    lines += ["", "backends, in order of preference"]
    for backend in facts["backends"]:
        lines += _backend(backend)
    if facts["gpu_problem"]:
        lines += ["", f"the GPU can't be used: {facts['gpu_problem']}"]
    if facts["jetson"]:
        lines += ["", "Jetson"]
    for step in facts["jetson"]:
        lines.append(f"  {'ok' if step['done'] else '--'}  {step['name']:<9} {step['found']}")
        if not step["done"]:
            lines.append(f"      {'':<9} run: {step['command']}")
    return "\n".join(lines)


def _backend(backend: dict[str, Any]) -> list[str]:
    if backend["usable"]:
        return [f"{'->' if backend['used'] else '  '} {backend['name']:<14} {backend['reason']}"]
    able = "builds plans here but can't run them" if backend["installed"] else "can't run here"
    lines = [f"   {backend['name']:<14} {able}; missing:"]
    return lines + [f"   {'':<14} - {text}" for text in backend["missing"]]


def _cache(cache: dict[str, Any]) -> str:
    if cache["folder"] is None:
        return f"none: {cache['problem']}"
    state = "writable" if cache["writable"] else "READ-ONLY: every start builds plans again"
    size, limit = cache["bytes"] / 1e6, cache["limit_bytes"] / 1e6
    return f"{cache['folder']} ({cache['plans']} plans, {size:.0f} of {limit:.0f} MB, {state})"


COMMAND = Command(
    "show what this machine has, what will be used and why",
    add_arguments,
    execute,
    example="edge-fg doctor",
)
