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
import math
import statistics
import sys
import tempfile
from pathlib import Path

from architectures import ARCHITECTURES
from common import (
    HERE,
    Row,
    add_comparison,
    parser_of,
    read_json,
    run_child,
    table,
    write_json,
)

OURS, PLAIN = "edge-fg", "edge-fg, no corrections"
METHODS: tuple[str, ...] = (
    OURS,
    PLAIN,
    "onnxruntime MinMax",
    "onnxruntime Percentile",
    "modelopt max",
    "modelopt entropy",
)
_STEPS, _PEERS = HERE / "architectures_int8_steps.py", HERE / "peer_quantizers.py"


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
    print(compared(document["architectures"]))
    return 0


def compared(architectures: dict[str, dict[str, Row]]) -> str:
    """Return Markdown: an architecture a line, the ratio in dB and the share of INT8 by method."""
    methods = [one for one in METHODS if any(one in rows for rows in architectures.values())]
    return table(
        ["architecture", *methods, "ours above the best peer"],
        (
            [name, *(_cell(rows.get(one)) for one in methods), _difference(rows)]
            for name, rows in architectures.items()
        ),
    )


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
    spread = statistics.stdev(differences) if len(differences) > 1 else 0.0
    error = spread / math.sqrt(len(differences))
    return f"{ours['snr_db'] - best['snr_db']:+.1f} dB (error {error:.1f})"


def _is_missing(row: Row | None, retry: bool) -> bool:
    return row is None or (retry and "failed" in row)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    # With fewer than 64, ours can spare no images to judge corrections on, and tries none.
    add_comparison(parser, METHODS, calibration_images=64)
    parser.add_argument("--models", type=Path, required=True, metavar="DIR")
    parser.add_argument("--json", type=Path, required=True, metavar="FILE")
    parser.add_argument("--only", nargs="+", default=list(ARCHITECTURES), metavar="NAME")
    parser.add_argument("--preprocess", default="timm", help="a preset's name or a TOML file")
    parser.add_argument("--judge-images", type=int, default=32, metavar="N")
    parser.add_argument("--modelopt-python", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--limit", type=float, default=120, metavar="S", help="of a peer")
    parser.add_argument("--own-limit", type=float, default=600, metavar="S", help="of ours")
    parser.add_argument("--retry", action="store_true", help="measure again what failed")
    return parser


def _opened(options: argparse.Namespace) -> Row:
    names = ("preprocess", "calibration_images", "judge_images", "seed")
    settings = {"images": options.images.name} | {name: getattr(options, name) for name in names}
    if not options.json.exists():
        return {"settings": settings, "versions": {}, "architectures": {}}
    document = read_json(options.json)
    if document["settings"] != settings:
        sys.exit(f"{options.json} was measured with {document['settings']}, not {settings}")
    return document


def _architecture(
    options: argparse.Namespace, name: str, methods: list[str], folder: Path, document: Row
) -> None:
    """Measure some methods on one architecture; the file is written after each."""
    rows = document["architectures"][name]
    asked = {**vars(options), "model": options.models / f"{name}.onnx"}
    write_json(folder / "asked.json", asked)
    facts = _run([sys.executable, _STEPS, "prepare", folder], options.limit)
    for method in methods:
        row = facts if "failed" in facts else _measured(options, method, folder)
        document["versions"].update(row.pop("versions", {}))
        rows[method] = row
        write_json(options.json, document)
        print(
            f"{name}, {method}: {_cell(row)} {row.get('failed', '')}", file=sys.stderr, flush=True
        )


def _measured(options: argparse.Namespace, method: str, folder: Path) -> Row:
    (folder / "int8.onnx").unlink(missing_ok=True)
    ours = method in {OURS, PLAIN}
    python = options.modelopt_python if method.startswith("modelopt") else sys.executable
    program = _STEPS if ours else _PEERS
    limit = options.own_limit if ours else options.limit
    row = _run([python, program, "quantise", folder, method], limit)
    if "failed" in row:
        return row
    return row | _run([sys.executable, _STEPS, "judge", folder], options.own_limit)


def _run(command: list[object], limit: float) -> Row:
    return run_child(command, limit_s=limit, environment={"OMP_NUM_THREADS": "2"})


if __name__ == "__main__":
    sys.exit(main())
