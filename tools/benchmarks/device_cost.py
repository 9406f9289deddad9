"""What the device cost says of TensorRT-RTX's kernels, beside what its build log lists.

    python tools/benchmarks/device_cost.py DIR [--only NAME ...]

DIR holds classifiers as ONNX files, such as `architectures.py --export` writes. Needs
edge-fg[build,rtx]; no GPU. INT8 ranges are invented: no fusion depends on them.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
from common import HERE, Row, parser_of, run_child, table, write_json

from edge_fg_calibration import insert_qdq, place, prepared_copy, to_fp16
from edge_fg_calibration.int8.device_cost.cost import device_cost
from edge_fg_tools.graph import load_model, prepare

_LIMIT_S = 600
_COLUMNS = ("model", "variant", "kernels", "log", "MB read and written", "log", "off by")


def main(arguments: list[str] | None = None) -> int:
    """Compare; return the exit code."""
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="names of files, without .onnx")
    parser.add_argument("--model-output", metavar="NAME", help="which output has the classes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    rows: list[Row] = []
    for path in sorted(options.folder.glob("*.onnx")):
        if options.only is None or path.stem in options.only:
            rows.extend(_rows(path, options.model_output))
            write_json(options.json, rows)
    print(table(_COLUMNS, map(_cells, rows)))
    return 0 if rows and not any("failed" in row for row in rows) else 1


def _rows(path: Path, output: str | None) -> Iterator[Row]:
    for variant, model in _variants(path, output).items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "variant.onnx"
            onnx.save(model, file)
            log = run_child([sys.executable, HERE / "rtx_kernels.py", file], limit_s=_LIMIT_S)
        found = device_cost(model, "tensorrt-rtx").kernels
        ours = {
            "kernels": len(found),
            "bytes": sum(one.bytes_read + one.bytes_written for one in found),
        }
        row: Row = {"model": path.stem, "variant": variant, "ours": ours, "log": log, **log}
        print(*_cells(row), sep=", ", file=sys.stderr, flush=True)
        yield row


def _variants(path: Path, output: str | None) -> dict[str, onnx.ModelProto]:
    model = prepared_copy(prepare(load_model(path), output=output).model)
    placement = place(model)
    int8 = insert_qdq(model, placement, dict.fromkeys(placement.activations, 1.0))
    return {"fp32": model, "fp16": to_fp16(model), "int8": int8, "int8-fp16": to_fp16(int8)}


def _cells(row: Row) -> tuple[object, ...]:
    ours, log = row["ours"], row["log"]
    megabytes = f"{ours['bytes'] / 1e6:.1f}"
    start = (row["model"], row["variant"], ours["kernels"])
    if "failed" in row:
        return (*start, row["failed"], megabytes, "", "")
    listed = log["bytes_read"] + log["bytes_written"]
    off = f"{100 * (ours['bytes'] / listed - 1):+.1f} %"
    return (*start, log["kernels"], megabytes, f"{listed / 1e6:.1f}", off)


if __name__ == "__main__":
    sys.exit(main())
