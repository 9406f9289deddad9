"""Our INT8 beside onnxruntime's and nvidia-modelopt's, on one model and one set of images.

Each method calibrates in a process of its own, so its seconds and its peak memory are its own.
All get the same prepared float32 model and the same calibration images; all graphs are judged
by the same code on the same images, which none of them was calibrated on::

    python tools/benchmarks/quantization.py --model M.onnx --labels L.txt \
        --preprocess P.toml --images IMAGES --json figures.json

needs edge-fg[build]. nvidia-modelopt is measured where it is installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

# This process imports no library: a child's peak memory starts from that of its parent.
from common import HERE, Row, add_comparison, parser_of, run_child, table, write_json

METHODS: tuple[str, ...] = (
    "edge-fg portable",
    "edge-fg tensorrt",
    "edge-fg tensorrt, no corrections",
    "edge-fg tensorrt, entropy alone",
    "onnxruntime MinMax",
    "onnxruntime Entropy",
    "onnxruntime Percentile",
    "onnxruntime MinMax, inputs only",
    "modelopt max",
    "modelopt entropy",
)
_LIBRARIES = ("numpy", "Pillow", "onnx", "onnxruntime", "onnxslim", "nvidia-modelopt")
_ABSENT = "not installed"


def main(arguments: list[str] | None = None) -> int:
    """Run all methods, print the table; return the exit code."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="quantization-") as name:
        folder = Path(name)
        load = [os.getloadavg()[0]]
        # Prepare the model and choose the images, once for all methods.
        write_json(folder / "asked.json", vars(options))
        facts = _needed("split", folder)
        rows = [_calibrate(method, folder) for method in options.methods]
        made = [row["method"] for row in rows if "failed" not in row]
        judged = _needed("judge", folder, *made) if made else {"methods": {}, "float32": {}}
        load.append(os.getloadavg()[0])
    for row in rows:
        row.update(judged["methods"].get(row["method"], {}))
    document = {
        "model": options.model.name,
        **facts,
        "float32": judged["float32"],
        "versions": _versions(),
        "cores": os.cpu_count(),
        "load": load,
        "rows": rows,
    }
    write_json(options.json, document)
    print(_heading(document))
    print(table(["method", *_CELLS], map(_cells, rows)))
    failures = [row for row in rows if row.get("failed", _ABSENT) != _ABSENT]
    for row in failures:
        print(f"\n{row['method']} failed: {row['failed']}")
    return 0 if made and not failures else 1


def _parser() -> argparse.ArgumentParser:
    parser = parser_of(__doc__)
    add_comparison(parser, METHODS, calibration_images=100)
    parser.add_argument("--model", type=Path, required=True, metavar="ONNX")
    parser.add_argument("--labels", type=Path, required=True, metavar="FILE")
    parser.add_argument("--preprocess", required=True, metavar="TOML", help="or a preset's name")
    parser.add_argument(
        "--hold-out-images",
        "--proof-images",
        type=int,
        metavar="N",
        help="judge on at most so many (all of them)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser


def _calibrate(method: str, folder: Path) -> Row:
    maker = method.split()[0]
    if maker == "modelopt" and importlib.util.find_spec(maker) is None:
        return {"method": method, "failed": _ABSENT}
    print(f"{method} ...", file=sys.stderr, flush=True)
    return {"method": method, **_step("calibrate", folder, method)}


def _needed(step: str, folder: Path, *arguments: str) -> Row:
    """Run a step without which there is nothing to compare."""
    found = _step(step, folder, *arguments)
    if "failed" in found:
        sys.exit(found["failed"])
    return found


def _step(step: str, folder: Path, *arguments: str) -> Row:
    return run_child([sys.executable, HERE / "quantization_steps.py", step, folder, *arguments])


def _heading(document: Row) -> str:
    reference = document["float32"]
    accuracy = reference.get("top1")
    float32 = "no labels" if accuracy is None else f"float32 top-1 {100 * accuracy:.1f} %"
    low, high = min(document["load"]), max(document["load"])
    return (
        f"\n{document['model']}: {document['calibration']} images calibrated on, "
        f"{reference.get('images', 0)} judged on ({reference.get('labelled', 0)} labelled; "
        f"{float32}); load average {low:.1f} to {high:.1f} on {document['cores']} cores\n"
    )


def _percent(key: str) -> Callable[[Row], str]:
    return lambda row: "-" if row[key] is None else f"{100 * row[key]:.1f} %"


def _number(key: str, digits: int) -> Callable[[Row], str]:
    return lambda row: f"{row[key]:.{digits}f}"


_CELLS: dict[str, Callable[[Row], str]] = {
    "agreement, all": _percent("agreement"),
    "agreement, labelled": _percent("agreement_labelled"),
    "mean KL": _number("mean_kl", 4),
    "top-1": _percent("top1"),
    "INT8 MACs": _percent("int8_macs"),
    "calibration s": _number("wall_seconds", 1),
    "CPU s": _number("cpu_seconds", 1),
    "peak MB": _number("peak_mb", 0),
}
"""What each column of the table says of a method."""


def _cells(row: Row) -> list[str]:
    if "failed" in row:
        what = row["failed"] if row["failed"] == _ABSENT else "failed"
        return [row["method"], what, *[""] * (len(_CELLS) - 1)]
    return [row["method"], *(cell(row) for cell in _CELLS.values())]


def _versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = _ABSENT
    return found


if __name__ == "__main__":
    sys.exit(main())
