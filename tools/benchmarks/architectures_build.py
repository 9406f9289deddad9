"""Prepare, convert and compile exported classifiers; what `architectures --build` runs."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from common import Row, table
from numpy.typing import NDArray

from edge_fg.backends.tensorrt.build import build_plan
from edge_fg_tools.graph import PreparedModel, load_model, prepare
from edge_fg_tools.graph.running import Runner

_CALIBRATION_IMAGES = 8
_CALIBRATION_BATCH = 2
_COLUMNS = (
    *("architecture", "precision", "result", "prepare s", "convert s", "build s", "plan MB"),
    *("INT8 MACs", "against FP32"),
)


def build_all(names: tuple[str, ...], folder: Path, precisions: tuple[str, ...]) -> list[Row]:
    """Return a row for each architecture and precision: built or refused, and the cost."""
    rows: list[Row] = []
    for name in names:
        started = time.monotonic()
        try:
            prepared = prepare(load_model(folder / f"{name}.onnx"))
        except Exception as error:  # noqa: BLE001 (a table of failures is what this makes)
            rows.append(_refused(name, "prepare", error))
            continue
        seconds = time.monotonic() - started
        for precision in precisions:
            row = _row(name, precision, prepared)
            row["prepare_seconds"] = round(seconds, 1)
            rows.append(row)
            print(*_cells(row), sep=", ", file=sys.stderr, flush=True)
    return rows


def costs(rows: Iterable[Row]) -> str:
    """Return the rows as a Markdown table, one line an architecture and precision."""
    return table(_COLUMNS, map(_cells, rows))


def _row(name: str, precision: str, prepared: PreparedModel) -> Row:
    row: Row = {"name": name, "precision": precision, "warnings": list(prepared.warnings)}
    try:
        started = time.monotonic()
        model, row["int8_macs"] = _convert(prepared, precision)
        row["convert_seconds"] = round(time.monotonic() - started, 1)
        row["snr_db"] = _signal_to_noise(prepared, model) if precision != "fp32" else None
        plan = build_plan(model.SerializeToString(), library="tensorrt-rtx")
    except Exception as error:  # noqa: BLE001 (see above)
        return {**row, **_refused(name, precision, error)}
    row.update(
        status="built",
        build_seconds=round(plan.seconds, 1),
        plan_mb=round(len(plan.data) / 1e6, 1),
        layers=plan.layers,
        library=f"{plan.library} {plan.version}",
    )
    return row


def _convert(prepared: PreparedModel, precision: str) -> tuple[onnx.ModelProto, float | None]:
    if precision == "fp32":
        return prepared.model, None
    import edge_fg_calibration

    if precision == "fp16":
        return edge_fg_calibration.to_fp16(prepared.model), None
    result = edge_fg_calibration.quantize_int8(
        prepared.model,
        lambda: (
            _images(prepared, _CALIBRATION_BATCH, seed)
            for seed in range(_CALIBRATION_IMAGES // _CALIBRATION_BATCH)
        ),
        input_name=prepared.input_name,
        output_name=prepared.output_name,
        kind=prepared.kind,
        target="tensorrt-rtx",
    )
    return result.model, float(result.int8_macs)


def _images(prepared: PreparedModel, count: int, seed: int) -> NDArray[Any]:
    """Return smooth noise, nearer to images than independent pixels are."""
    generator = np.random.default_rng(seed)
    coarse = generator.standard_normal((count, prepared.channels, 8, 8), dtype=np.float32)
    rows = np.arange(prepared.height) * 8 // prepared.height
    columns = np.arange(prepared.width) * 8 // prepared.width
    images = coarse[:, :, rows][:, :, :, columns]
    fine = generator.standard_normal(images.shape, dtype=np.float32)
    return np.ascontiguousarray(images + 0.3 * fine)


def _signal_to_noise(prepared: PreparedModel, model: onnx.ModelProto) -> float:
    """Return the power of the FP32 outputs over that of the error, in dB, on unseen noise."""
    images = _images(prepared, 4, seed=99)
    expected = Runner(prepared.model)(images)[0].astype(np.float64)
    found = Runner(model)(images)[0].astype(np.float64)
    noise = float(np.square(expected - found).sum())
    return round(10 * float(np.log10(np.square(expected).sum() / max(noise, 1e-30))), 1)


def _refused(name: str, precision: str, error: BaseException) -> Row:
    return {
        "name": name,
        "precision": precision,
        "status": "refused",
        "reason": " ".join(f"{type(error).__name__}: {error}".split()),
    }


def _cells(row: Row) -> tuple[object, ...]:
    snr, macs = row.get("snr_db"), row.get("int8_macs")
    seconds = (row.get(f"{part}_seconds", "") for part in ("prepare", "convert", "build"))
    return (
        row["name"],
        row["precision"],
        row["status"] if row["status"] == "built" else f"refused: {row['reason']}",
        *seconds,
        row.get("plan_mb", ""),
        "" if macs is None else f"{100 * macs:.0f} %",
        "" if snr is None else f"{snr} dB",
    )
