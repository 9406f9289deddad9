"""Results as plain data: one line of JSON, or one row of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from edge_fg.result import Result

Content = Literal["frames", "visits"]
"""What a file holds: a line for each frame, or one for each event of a visit."""

FRAME_COLUMNS: tuple[str, ...] = ("time", "source", "frame", "position_s", "label", "index")
FRAME_COLUMNS += ("confidence", "runner_up", "runner_up_confidence", "latency_ms", "latency_frames")
FRAME_COLUMNS += ("age_ms", "run")
VISIT_COLUMNS: tuple[str, ...] = ("event", "visit", "source", "label", "index", "confidence")
VISIT_COLUMNS += ("runner_up", "frames", "started_s", "ended_s", "started", "ended")
VISIT_COLUMNS += ("time_s", "time", "x", "y", "width", "height", "run")


def is_sure(answer: Any, min_confidence: float) -> bool:
    """Say whether an answer is sure enough; of no answer, and of None, only 0 is asked."""
    confidence = getattr(answer, "confidence", None)
    return (0.0 if confidence is None else float(confidence)) >= min_confidence


def records(
    result: Result[Any], content: Content, top_k: int, min_confidence: float = 0.0
) -> list[dict[str, Any]]:
    """Return what a result adds to a file of JSON lines; see `frame_record`."""
    if content == "visits":
        return [event.to_dict() for event in result.events if is_sure(event, min_confidence)]
    # The frame of a closing result already has its line.
    answers = (result.prediction, *result.sightings)
    if result.closing or not any(is_sure(one, min_confidence) for one in answers):
        return []
    return [frame_record(result, top_k, min_confidence)]


def frame_record(result: Result[Any], top_k: int, min_confidence: float = 0.0) -> dict[str, Any]:
    """Return one frame as ``edge-fg run --format jsonl`` prints it.

    Where visits are followed, ``sightings`` is added. Where only regions of a frame were
    classified, ``top`` is empty and ``latency_ms`` is None.
    """
    frame, prediction = result.frame, result.prediction
    record: dict[str, Any] = {
        "frame": frame.number,
        "time": frame.time.isoformat() if frame.time else None,
        "source": frame.source,
        **({} if frame.position is None else {"position_s": round(frame.position, 6)}),
        "top": [],
        "latency_ms": None,
    }
    if prediction is not None:
        record |= {
            "top": [a.to_dict() for a in prediction.top(top_k) if is_sure(a, min_confidence)],
            "latency_ms": prediction.latency.to_dict(),
        }
    if result.sightings or prediction is None:
        record["sightings"] = [
            {
                "track": sighting.track,
                "box": list(sighting.region_xywh),
                "label": sighting.label,
                "index": sighting.class_id,
                "confidence": sighting.confidence,
            }
            for sighting in result.sightings
            if is_sure(sighting, min_confidence)
        ]
    return record


def rows(
    result: Result[Any], content: Content, min_confidence: float = 0.0
) -> list[Sequence[object]]:
    """Return what a result adds to a table with `FRAME_COLUMNS` or `VISIT_COLUMNS`, but the run."""
    found = records(result, content, 2, min_confidence)
    if content == "visits":
        return [[*(e[column] for column in VISIT_COLUMNS[:-5]), *e["box"]] for e in found]
    return [_frame_row(record, 1e3 * result.age_s) for record in found]


def _frame_row(record: dict[str, Any], age_ms: float) -> Sequence[object]:
    first, second = (*record["top"], {}, {})[:2]
    latency = {"frames": 1, **record["latency_ms"]} if record["latency_ms"] else {}
    return (
        *(record.get(key) for key in ("time", "source", "frame", "position_s")),
        *(first.get(key) for key in ("label", "index", "confidence")),
        *(second.get(key) for key in ("label", "confidence")),
        latency.get("total"),
        latency.get("frames"),
        round(age_ms, 3),
    )
