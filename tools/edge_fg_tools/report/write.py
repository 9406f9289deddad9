"""A report as JSON for programs and as one self-contained HTML page for people."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from edge_fg.errors import MissingDependencyError
from edge_fg_tools.report import words
from edge_fg_tools.report.data import Report, VariantReport
from edge_fg_tools.report.verdict import agreeing, concerns, judge
from edge_fg_tools.report.view import arrange

SCHEMA = 1
"""Version of the layout of ``report.json``."""

_KEYS = {"corrections": "repairs", "validation_images": "trial_images", "with_margin": "assured"}
"""Keys of ``report.json`` that are older than the names of the fields."""

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None


def report_json(report: Report) -> dict[str, Json]:
    """Return a report as values that any JSON reader takes.

    The keys are the names of the fields of `Report` and of what it holds, in their order (three
    have kept older names: ``repairs``, ``trial_images``, ``assured``), with ``schema`` first;
    images are left out. Added to each variant are ``agreement_interval``
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
        "concerns": [words.printable(sentence) for sentence in concerns(report)],
    }


def check_report() -> None:
    """Find out before long work whether reports can be written.

    Raises
    ------
    MissingDependencyError
        Jinja2 is not installed.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError("Jinja2", "build", "write the report") from error


def report_html(report: Report) -> str:
    """Return a report as one HTML page.

    The page asks for nothing outside itself and holds no script; its own content policy forbids
    both. File names, labels and node names are escaped, and characters that can't be shown
    replaced, so that the text can always be written as UTF-8.

    Raises
    ------
    MissingDependencyError
        Jinja2 is not installed.
    """
    check_report()
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("edge_fg_tools.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html").render(page=arrange(report))
    return words.printable(page)


def _variant(variant: VariantReport) -> dict[str, Json]:
    plain = _plain(variant)
    assert isinstance(plain, dict)
    compared = agreeing(variant.fidelity)
    verdict = judge(variant)
    return {
        **plain,
        "agreement_interval": list(words.wilson_interval(*compared)) if compared else None,
        "verdict": {
            "level": verdict.level,
            "mark": verdict.mark,
            "headline": words.printable(verdict.headline),
        },
    }


def _plain(value: object) -> Json:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return words.printable(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            _KEYS.get(field.name, field.name): _plain(getattr(value, field.name))
            for field in dataclasses.fields(value)
            if field.name != "thumbnail_jpeg"
        }
    if isinstance(value, Mapping):
        return {words.printable(str(key)): _plain(item) for key, item in value.items()}
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
    return words.printable(str(value))
