"""INT8 of each architecture of the coverage run: ours beside onnxruntime's and modelopt's.

All methods get the same prepared float32 graph and the same calibration images; all graphs are
executed as written (quantise, dequantise, float operators) on the same images that none of them
has seen. What is compared is the signal-to-noise ratio of the outputs::

    python tools/benchmarks/architectures.py --export exported
    python tools/benchmarks/architectures_int8.py --models exported --images IMAGES \
        --json int8.json [--modelopt-python PYTHON]

needs edge-fg[build]. nvidia-modelopt may live in an environment of its own. What the JSON file
holds already is not measured again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from architectures import ARCHITECTURES

OURS, PLAIN = "edge-fg", "edge-fg, no corrections"
METHODS: tuple[str, ...] = (
    OURS,
    PLAIN,
    "onnxruntime MinMax",
    "onnxruntime Percentile",
    "modelopt max",
    "modelopt entropy",
)
_HERE = Path(__file__).resolve().parent
_STEPS, _PEERS = _HERE / "architectures_int8_steps.py", _HERE / "architectures_int8_peers.py"
Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, print the table; return the exit code."""
    options = _parser().parse_args(arguments)
    document = _opened(options)
    for name in options.only:
        rows = document["architectures"].setdefault(name, {})
        missing = [one for one in options.methods if _is_missing(rows.get(one), options.retry)]
        if not missing:
            continue
        with tempfile.TemporaryDirectory(prefix="architectures-int8-") as folder:
            _architecture(options, name, missing, Path(folder), document)
    print(table(document["architectures"]))
    return 0


def table(architectures: dict[str, dict[str, Row]]) -> str:
    """Return Markdown: an architecture a line, the ratio in dB and the share of INT8 by method."""
    methods = [one for one in METHODS if any(one in rows for rows in architectures.values())]
    head = ["architecture", *methods, "ours above the best peer"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name, rows in architectures.items():
        cells = [name, *(_cell(rows.get(one)) for one in methods), _difference(rows)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(row: Row | None) -> str:
    if row is None:
        return ""
    if "failed" in row:
        return row["failed"] if row["failed"].startswith("over ") else "failed"
    return f"{row['snr_db']:.1f} dB, {100 * row['int8_macs']:.0f} %"


def _difference(rows: dict[str, Row]) -> str:
    """Return how far ours is above the best peer, with the standard error over the images.

    Ours is that with corrections, where it was measured.
    """
    ours = rows.get(OURS) or rows.get(PLAIN, {})
    peers = [row for name, row in rows.items() if name not in {OURS, PLAIN} and "failed" not in row]
    if "snr_db" not in ours or not peers:
        return ""
    best = max(peers, key=lambda row: float(row["snr_db"]))
    pairs = zip(ours["by_image"], best["by_image"], strict=True)
    differences = [mine - other for mine, other in pairs]
    mean = sum(differences) / len(differences)
    spread = sum((one - mean) ** 2 for one in differences) / max(len(differences) - 1, 1)
    error = math.sqrt(spread / len(differences))
    return f"{ours['snr_db'] - best['snr_db']:+.1f} dB (error {error:.1f})"


def _is_missing(row: Row | None, retry: bool) -> bool:
    return row is None or (retry and "failed" in row)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--images", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--only", nargs="+", default=list(ARCHITECTURES), metavar="NAME")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--preprocess", default="timm", help="a preset's name or a TOML file")
    # With fewer, ours can spare no images to judge corrections on, and tries none.
    parser.add_argument("--calibration-images", type=int, default=64, metavar="N")
    parser.add_argument("--judge-images", type=int, default=32, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--modelopt-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--limit", type=float, default=120, metavar="S", help="of a peer")
    parser.add_argument("--own-limit", type=float, default=600, metavar="S", help="of ours")
    parser.add_argument("--retry", action="store_true", help="measure again what failed")
    return parser


def _opened(options: argparse.Namespace) -> Row:
    settings = {
        "images": options.images.name,
        "preprocess": options.preprocess,
        "calibration_images": options.calibration_images,
        "judge_images": options.judge_images,
        "seed": options.seed,
    }
    if not options.json.exists():
        return {"settings": settings, "versions": {}, "architectures": {}}
    document: Row = json.loads(options.json.read_text(encoding="utf-8"))
    if document["settings"] != settings:
        sys.exit(f"{options.json} was measured with {document['settings']}, not {settings}")
    return document


def _architecture(
    options: argparse.Namespace, name: str, methods: list[str], folder: Path, document: Row
) -> None:
    """Measure some methods on one architecture; the file is written after each."""
    rows = document["architectures"][name]
    asked = {
        "model": str(options.models / f"{name}.onnx"),
        "images": str(options.images),
        "preprocess": options.preprocess,
        "calibration_images": options.calibration_images,
        "judge_images": options.judge_images,
        "seed": options.seed,
    }
    (folder / "asked.json").write_text(json.dumps(asked), encoding="utf-8")
    facts = _step([sys.executable, str(_STEPS), "prepare"], folder, options.limit)
    for method in methods:
        row = facts if "failed" in facts else _measured(options, method, folder)
        document["versions"].update(row.pop("versions", {}))
        rows[method] = row
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        print(
            f"{name}, {method}: {_cell(row)} {row.get('failed', '')}", file=sys.stderr, flush=True
        )


def _measured(options: argparse.Namespace, method: str, folder: Path) -> Row:
    (folder / "int8.onnx").unlink(missing_ok=True)
    ours = method in {OURS, PLAIN}
    python = options.modelopt_python if method.startswith("modelopt") else sys.executable
    command = [python, str(_STEPS if ours else _PEERS), "quantise"]
    row = _step(command, folder, options.own_limit if ours else options.limit, method)
    if "failed" in row:
        return row
    judged = _step([sys.executable, str(_STEPS), "judge"], folder, options.own_limit)
    return {**row, **judged}


def _step(command: list[str], folder: Path, limit: float, *arguments: str) -> Row:
    """Run one step in a process of its own and return what it wrote, or why it failed."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    # Warnings and progress bars of the libraries go to a file: a pipe that fills up would block.
    with (folder / "log.txt").open("w+", encoding="utf-8", errors="replace") as log:
        try:
            done = subprocess.run(
                [*command, str(folder), *arguments],
                stdout=log,
                stderr=log,
                timeout=limit,
                env={**os.environ, "OMP_NUM_THREADS": "2"},
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"over {limit:.0f} s"}
        except OSError as error:
            return {"failed": str(error)}
        log.seek(0)
        lines = [line.strip() for line in log if line.strip()]
    if done.returncode or not answer.exists():
        return {"failed": lines[-1] if lines else f"ended with code {done.returncode}"}
    found: Row = json.loads(answer.read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    sys.exit(main())
