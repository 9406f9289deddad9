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
    cache = facts["plan_cache"]
    lines = [
        f"edge_fg     {facts['edge_fg']} on Python {facts['python']}",
        f"machine     {facts['machine']}",
        f"GPU         {', '.join(gpus) or 'none: ' + facts['no_gpu_because']}",
        f"plan cache  {cache['folder']} ({'writable' if cache['writable'] else 'READ-ONLY'})",
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
        mark = "->" if backend["used"] else "  "
        lines.append(f"{mark} {backend['name']:<14} {backend['reason']}")
    return "\n".join(lines)
