"""`edge-fg doctor`: what this machine has, what will be used and why."""

from __future__ import annotations

import argparse
import json
from typing import Any

from edge_fg_tools.cli.arguments import Subparsers, add_format
from edge_fg_tools.diagnosis import diagnose


def add_parser(commands: Subparsers) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("doctor", help="what this machine has, what will be used and why")
    add_format(parser, "text", "json")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    facts = diagnose()
    print(json.dumps(facts, indent=2) if arguments.format == "json" else _as_text(facts))
    return 0


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
