"""What the measurements mean, in plain words: one verdict a variant, and what to worry about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from edge_fg_tools.report import words
from edge_fg_tools.report.data import Report, VariantReport

Level = Literal["fine", "look", "worry", "reference"]

FINE_AGREEMENT = 0.98
"""From this agreement on, a variant is said to give the same answers as FP32."""

NEAR_AGREEMENT = 0.95
"""Below this agreement, a variant is said to differ from FP32."""

_TOP1_LOOK, _TOP1_WORRY = 0.01, 0.03
_FEW_CALIBRATION_IMAGES = 100
_WIDE_INTERVAL = 0.04
_LOW_INT8_SHARE = 0.5
_CLASS_LOSS = 0.2
_POOR_CLASS, _POOR_CLASS_IMAGES = 0.8, 5


@dataclass(frozen=True)
class Verdict:
    """A variant judged."""

    # ``"fine"``, ``"look"`` (at what changed), ``"worry"``, or ``"reference"`` for FP32 itself.
    level: Level
    mark: str  # The level in a few words
    headline: str  # The verdict in one sentence
    details: tuple[str, ...]  # The reasons, a sentence each


@dataclass(frozen=True)
class ClassAgreement:
    """How often a variant answers as FP32 on images of one class (share 0..1)."""

    label: str
    images: int
    agreement: float


def agreeing(fidelity: Mapping[str, object]) -> tuple[int, int] | None:
    """Return on how many of how many proof images the answers agree; None if not compared."""
    agreement = words.finite(fidelity.get("agreement"))
    images = words.finite(fidelity.get("images"))
    if agreement is None or images is None or images < 1:
        return None
    total = round(images)
    return min(max(round(agreement * total), 0), total), total


def worst_classes(fidelity: Mapping[str, object]) -> tuple[ClassAgreement, ...]:
    """Return the classes that agree least, worst first; entries without a number are left out.

    A class without a label goes by its index.
    """
    rows = fidelity.get("worst_classes")
    if not isinstance(rows, Sequence) or isinstance(rows, (str, bytes)):
        return ()
    found = []
    for row in rows:
        if not isinstance(row, Mapping):
            continue
        share, images = words.finite(row.get("agreement")), words.finite(row.get("images"))
        if share is not None and images is not None:
            label = str(row.get("label", f"class {row.get('index')}"))
            found.append(ClassAgreement(label, round(images), share))
    return tuple(sorted(found, key=lambda row: (row.agreement, -row.images, row.label)))


def judge(variant: VariantReport) -> Verdict:
    """Judge one variant by its budget, its agreement with FP32 and its accuracy.

    "Fine" asks for an agreement of at least `FINE_AGREEMENT` whose 95 % Wilson interval stays
    above `NEAR_AGREEMENT`, so that a small proof set can't earn it; an accuracy more than one
    point below that of FP32 rules it out. A missed budget, an agreement below `NEAR_AGREEMENT`
    or an accuracy more than three points below is "worry".
    """
    name, compared = words.precision(variant.name), agreeing(variant.fidelity)
    if variant.name == "fp32" and (compared is None or compared[0] == compared[1]):
        headline = "FP32 is the reference: the other variants are compared with it."
        return Verdict("reference", "The reference", headline, _accuracy(variant))
    if compared is None:
        headline = f"{name} was not compared with FP32: how it answers is not known."
        return Verdict("look", "Not compared", headline, ())
    same, total = compared
    lower, upper = words.wilson_interval(same, total, variant.looks)
    widened = f", widened for {variant.looks} looks" if variant.looks > 1 else ""
    headline = (
        f"{name} gives the same answer as FP32 on {same:,} of "
        f"{words.counted(total, 'hold-out image')}."
    )
    interval = (
        f"On other images of this kind, expect the same answer for {words.percent(lower)} "
        f"to {words.percent(upper)} of them (95{chr(160)}% Wilson interval{widened})."
    )
    level, mark = _level(variant, same / total, lower)
    return Verdict(level, mark, headline, (interval, *_accuracy(variant)))


def _level(variant: VariantReport, agreement: float, lower: float) -> tuple[Level, str]:
    drop = _top1_drop(variant)
    if any(not check.met for check in variant.budget):
        return "worry", "Budget not met"
    if agreement < NEAR_AGREEMENT:
        return "worry", "Differs from FP32"
    if drop is not None and drop > _TOP1_WORRY:
        return "worry", "Less accurate than FP32"
    if drop is not None and drop > _TOP1_LOOK:
        return "look", "Slightly less accurate"
    if agreement < FINE_AGREEMENT:
        return "look", "Close to FP32"
    if lower < NEAR_AGREEMENT:
        return "look", "Too few images to be sure"
    return "fine", "Agrees with FP32"


def _top1_drop(variant: VariantReport) -> float | None:
    before = words.finite(variant.fidelity.get("top1_reference"))
    after = words.finite(variant.fidelity.get("top1"))
    return None if before is None or after is None else before - after


def _accuracy(variant: VariantReport) -> tuple[str, ...]:
    labelled = words.finite(variant.fidelity.get("labelled"))
    after = words.finite(variant.fidelity.get("top1"))
    before = words.finite(variant.fidelity.get("top1_reference"))
    if not labelled or after is None:
        return ()
    total = round(labelled)
    sentence = f"It names {round(after * total):,} of {total:,} labelled images correctly"
    if variant.name == "fp32" or before is None:
        return (f"{sentence}.",)
    return (f"{sentence}; FP32 names {round(before * total):,}.",)


def concerns(report: Report) -> tuple[str, ...]:
    """Return what a reader should worry about, a sentence each, the most serious first."""
    warnings = [f"The model: {warning.rstrip('. ')}." for warning in report.model.warnings]
    # Where these are in doubt, the figures mean nothing.
    found = [*warnings[: report.model.doubts], *_budget_concerns(report)]
    for variant in report.variants:
        found.extend(_variant_concerns(variant))
    found.extend(_proof_concerns(report))
    found.extend(_calibration_concerns(report))
    found.extend(warnings[report.model.doubts :])
    return tuple(found)


def _budget_concerns(report: Report) -> Iterator[str]:
    for variant in report.variants:
        for check in variant.budget:
            if not check.met:
                name, term = words.precision(variant.name), words.budget_term(check.key)
                limit = words.budget_limit(check.key, check.required)
                measured = words.number(check.measured)
                yield f"{name} misses its budget: {term} should be {limit} and is {measured}."


def _variant_concerns(variant: VariantReport) -> Iterator[str]:
    name = words.precision(variant.name)
    drop = _top1_drop(variant)
    if drop is not None and drop > _TOP1_LOOK:
        yield f"{name} is right {100 * drop:.1f} percentage points less often than FP32."
    poor = [
        row
        for row in worst_classes(variant.fidelity)
        if row.agreement < _POOR_CLASS and row.images >= _POOR_CLASS_IMAGES
    ]
    if poor:
        yield (
            f"{name} changes the answer for {poor[0].label} most: it agrees with FP32 on "
            f"{words.percent(poor[0].agreement, 0)} of {poor[0].images:,} images."
        )
    loss = words.finite(variant.fidelity.get("worst_class_drop"))
    if loss is not None and loss > _CLASS_LOSS:
        yield (
            f"The class that loses most with {name} is named correctly {100 * loss:.0f} percentage "
            "points less often."
        )
    if variant.sibling_confusions_added:
        images = words.counted(variant.sibling_confusions_added, "image")
        yield (
            f"On {images} that FP32 names correctly, {name} answers a sibling "
            "(another class of the same genus)."
        )
    share = words.finite(variant.int8_macs)
    if share is not None and share < _LOW_INT8_SHARE:
        yield (
            f"Only {words.percent(share, 0)} of {name}'s arithmetic runs in INT8: "
            "expect a smaller gain in speed."
        )


def _proof_concerns(report: Report) -> Iterator[str]:
    proof = report.proof
    if proof.images < 1:
        yield "The hold-out set is empty: how the variants answer is not known."
        return
    if len(proof.looks) > 1:
        yield (
            f"The hold-out set was looked at {len(proof.looks)} times, since the budget was missed "
            "before: each look is another chance to keep it by luck. Intervals are widened for it."
        )
    # What an interval is like near the agreement that is hoped for.
    hoped, total = round(FINE_AGREEMENT * proof.images), proof.images
    lower, upper = words.wilson_interval(hoped, total)
    if upper - lower > _WIDE_INTERVAL:
        yield (
            f"The hold-out set has only {words.counted(total, 'image')}: its shares are uncertain "
            f"by about {100 * (upper - lower):.0f} percentage points. "
            "More images make them more certain."
        )
    if proof.labelled < 1:
        yield (
            "No hold-out image is labelled: this report shows where answers differ from FP32, "
            "not which of them is correct."
        )


def _calibration_concerns(report: Report) -> Iterator[str]:
    calibration = report.calibration
    if calibration is None:
        return
    if calibration.images < _FEW_CALIBRATION_IMAGES:
        yield (
            f"Calibration used only {words.counted(calibration.images, 'image')}: "
            "ranges found on few images may miss what the camera will see."
        )
    if calibration.skipped:
        skipped = len(calibration.skipped)
        were = "was" if skipped == 1 else "were"
        yield f"{words.counted(skipped, 'image')} could not be used and {were} skipped."
