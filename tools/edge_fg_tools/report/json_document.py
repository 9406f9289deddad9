"""A report as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from edge_fg_calibration.budget.results import SearchResult
from edge_fg_tools.report import words
from edge_fg_tools.report.data import Report, VariantReport
from edge_fg_tools.report.verdict import agreeing, concerns, judge

SCHEMA = 1
"""Version of the layout of ``report.json``."""

_KEYS = {"corrections": "repairs"}
"""Keys of ``report.json`` that are older than the names of the fields."""

_LEFT_OUT = {"thumbnail_jpeg", "failure"}

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


def report_json(report: Report) -> dict[str, Json]:
    """Return a report as values that any JSON reader takes.

    The keys are the names of the fields of `Report` and of what it holds, in their order (the
    corrections stand under their older name ``repairs``, the search as its ``to_dict`` says),
    with ``schema`` first; images are left out. Added to each variant are ``agreement_interval``
    (95 % Wilson interval, two shares, or None) and ``verdict`` (``level``, ``mark``,
    ``headline``), and to the whole ``concerns``, a list of sentences. Numbers that are not
    finite become None, NumPy scalars plain numbers, other values text.
    """
    whole = _plain(report)
    assert isinstance(whole, dict)
    variants: list[Json] = [_variant(variant) for variant in report.variants]
    return {
        "schema": SCHEMA,
        **whole,
        "variants": variants,
        "concerns": [words.xml_text(sentence) for sentence in concerns(report)],
    }


def _variant(variant: VariantReport) -> dict[str, Json]:
    plain = _plain(variant)
    assert isinstance(plain, dict)
    compared = agreeing(variant.fidelity)
    verdict = judge(variant)
    interval = words.wilson_interval(*compared, variant.looks) if compared else None
    return {
        **plain,
        "agreement_interval": _plain(interval),
        "verdict": {
            "level": verdict.level,
            "mark": verdict.mark,
            "headline": words.xml_text(verdict.headline),
        },
    }


def _plain(value: object) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return words.xml_text(value)
    if isinstance(value, SearchResult):
        return _plain(value.to_dict())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            _KEYS.get(field.name, field.name): _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name not in _LEFT_OUT
        }
    if isinstance(value, Mapping):
        return {words.xml_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item) for item in value]
    return _scalar(value)


def _scalar(value: Any) -> Json:
    # NumPy's scalars and arrays know their plain form.
    if not isinstance(value, (int, float)) and hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return words.finite(value)
    return words.xml_text(str(value))
