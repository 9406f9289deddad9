"""A report arranged for the page: sentences, table cells and charts, nothing left to compute."""

from __future__ import annotations

from dataclasses import dataclass

from edge_fg_tools.report import charts, words
from edge_fg_tools.report.corrections import CorrectionsView, arrange_corrections
from edge_fg_tools.report.data import Answer, ChangedAnswer, Report, TensorRange, VariantReport
from edge_fg_tools.report.search import SearchFacts
from edge_fg_tools.report.thumbnails import data_uri
from edge_fg_tools.report.verdict import (
    ClassAgreement,
    Verdict,
    agreeing,
    concerns,
    judge,
    worst_classes,
)

_DASH = "\N{EN DASH}"
_NOTABLE_CLIPPING = 0.01
_MAX_LAYERS = 30

_TERMS: tuple[tuple[str, str], ...] = (
    ("FP32", "32-bit floating point, the numbers that the model was trained with."),
    ("FP16", "16-bit floating point: half the memory, about three decimal digits."),
    ("INT8", "8-bit whole numbers: a quarter of the memory, and the fastest on most devices."),
    ("Quantisation", "Writing a model's numbers with fewer bits, so that it runs faster."),
    ("Calibration", "Looking at images to learn how large the numbers inside the model become."),
    ("Agreement", "Share of the images whose first answer is the same as that of FP32."),
    (
        "Top-1, top-5",
        "Share of the images whose right answer is the first, or in the first five.",
    ),
    ("Confidence", "How sure the model says it is of its answer, from 0 to 100 %."),
    (
        "KL divergence",
        "How far the confidences for all classes moved from those of FP32; 0 is not at all.",
    ),
    (
        "Wilson interval",
        "Where the true share lies with 95 % certainty, given how many images were looked at.",
    ),
    ("Sibling", "Another class of the same genus: the likeliest to be mistaken for each other."),
    ("Variant", "The same model in one precision."),
    ("Plan", "A variant compiled by TensorRT for one kind of GPU."),
    ("MACs", "Multiply-accumulates, the unit of work in a neural network."),
    ("amax", "The largest magnitude that INT8 can write for a tensor; what is larger is clipped."),
    ("Tensor", "One of the arrays of numbers that pass from step to step through the model."),
)


@dataclass(frozen=True)
class AnswerView:
    """One answer on a card: who gives it, what it is, how sure, and whether it is right."""

    who: str
    label: str
    confidence: str
    width: str
    right: bool | None


@dataclass(frozen=True)
class CardView:
    """One changed answer; `image` is a ``data:`` address, empty where there is none."""

    file: str
    image: str
    truth: str | None
    answers: tuple[AnswerView, AnswerView]
    siblings: bool


@dataclass(frozen=True)
class BudgetView:
    """One line of the accuracy budget, in words."""

    term: str
    required: str
    measured: str
    met: bool


@dataclass(frozen=True)
class VariantView:
    """One variant; charts are SVG, empty where there is nothing to draw."""

    name: str
    anchor: str
    meaning: str
    verdict: Verdict
    compared: bool
    row: tuple[str, ...]
    budget: tuple[BudgetView, ...]
    plan: str
    scatter: str
    scatter_note: str
    changes: str
    bars: str
    cards: tuple[CardView, ...]
    changed_total: int
    siblings_added: str


@dataclass(frozen=True)
class RangeView:
    """One line of the table of ranges."""

    tensor: str
    node: str
    op: str
    method: str
    amax: str
    maximum: str
    clipped: str
    notable: bool
    strip: str


@dataclass(frozen=True)
class SearchView:
    """How the budget was sought; the chart is SVG, empty where nothing was measured."""

    found: str
    expected: str
    chart: str
    chart_note: str
    tried: tuple[tuple[str, str, str, str, str, bool], ...]


@dataclass(frozen=True)
class ReportView:
    """The whole page."""

    name: str
    byline: str
    variants: tuple[VariantView, ...]
    concerns: tuple[str, ...]
    test: str
    calibration: tuple[str, ...]
    candidates: tuple[tuple[str, str, str, bool], ...]
    skipped: tuple[tuple[str, str], ...]
    model: tuple[tuple[str, str], ...]
    ranges: tuple[RangeView, ...]
    placement_skipped: tuple[tuple[str, str, str], ...]
    search: SearchView | None
    corrections: CorrectionsView | None
    provenance: tuple[tuple[str, str], ...]
    terms: tuple[tuple[str, str], ...]


def arrange(report: Report) -> ReportView:
    """Arrange a report for the page."""
    version = report.edge_fg_version
    return ReportView(
        name=report.name,
        byline=f"Built on {words.date(report.created)} with edge_fg {version}",
        variants=tuple(
            _variant(variant, index) for index, variant in enumerate(report.variants, start=1)
        ),
        concerns=concerns(report),
        test=_test(report),
        calibration=_calibration(report),
        candidates=_candidates(report),
        skipped=report.calibration.skipped if report.calibration else (),
        model=_model(report),
        ranges=tuple(_range(item) for item in report.ranges),
        placement_skipped=report.placement_skipped,
        search=_search(report.search) if report.search else None,
        corrections=_corrections(report),
        provenance=tuple((str(key), str(value)) for key, value in report.provenance.items()),
        terms=_TERMS,
    )


def _variant(variant: VariantReport, index: int) -> VariantView:
    name, points = words.precision(variant.name), variant.scatter
    added = variant.sibling_confusions_added
    return VariantView(
        name=name,
        anchor=f"variant-{index}",
        meaning=words.meaning(variant.name),
        verdict=judge(variant),
        compared=agreeing(variant.fidelity) is not None,
        row=_row(variant),
        budget=tuple(
            BudgetView(
                term=words.budget_term(line.key),
                required=words.budget_limit(line.key, line.required),
                measured=words.number(line.measured),
                met=line.met,
            )
            for line in variant.budget
        ),
        plan=_plan(variant),
        scatter=charts.confidence_scatter(points) if points else "",
        scatter_note=_scatter_note(len(points)),
        changes=charts.change_histogram(points) if points else "",
        bars=_bars(worst_classes(variant.fidelity)),
        cards=tuple(_card(item, name) for item in variant.changed),
        changed_total=variant.changed_total,
        siblings_added="" if added is None else words.counted(added, "image"),
    )


def _row(variant: VariantReport) -> tuple[str, ...]:
    values, compared = variant.fidelity, agreeing(variant.fidelity)
    interval = _DASH
    # FP32 against itself is no sample of anything.
    if compared is not None and judge(variant).level != "reference":
        lower, upper = words.wilson_interval(*compared)
        interval = f"{words.percent(lower)} to {words.percent(upper)}"
    return (
        words.size(variant.file_bytes),
        _cell(words.percent(values.get("agreement"))),
        interval,
        _cell(words.percent(values.get("top1"))),
        _cell(words.percent(values.get("top5"))),
        _cell(words.number(values.get("mean_kl"))),
        _cell(words.number(values.get("max_kl"))),
        _cell(words.percent(variant.int8_macs, 0)),
    )


def _cell(text: str) -> str:
    return _DASH if text == words.NOT_MEASURED else text


def _plan(variant: VariantReport) -> str:
    plan = variant.plan
    if plan is None:
        return ""
    return (
        f"Compiled for {plan.target} {plan.version} in {plan.seconds:.1f} s: "
        f"a plan of {words.size(plan.bytes)}."
    )


def _scatter_note(total: int) -> str:
    if total <= charts.MAX_POINTS:
        return ""
    return (
        f"Drawn are {charts.MAX_POINTS:,} of {total:,} images: "
        "the changed answers first, and an even sample of the others."
    )


def _bars(classes: tuple[ClassAgreement, ...]) -> str:
    # A list of classes that all agree says nothing that the headline does not.
    below = [item for item in classes if item.agreement < 1]
    return charts.agreement_bars(below) if below else ""


def _card(item: ChangedAnswer, name: str) -> CardView:
    return CardView(
        file=item.file,
        image=data_uri(item.thumbnail_jpeg) if item.thumbnail_jpeg else "",
        truth=item.truth,
        answers=(
            _answer("FP32", item.reference, item.truth),
            _answer(name, item.candidate, item.truth),
        ),
        siblings=item.siblings,
    )


def _answer(who: str, answer: Answer, truth: str | None) -> AnswerView:
    share = words.finite(answer.confidence)
    return AnswerView(
        who=who,
        label=answer.label,
        confidence=words.percent(answer.confidence, 0),
        width=f"{100 * min(1.0, max(0.0, share or 0.0)):.1f}",
        right=None if truth is None else answer.label == truth,
    )


def _test(report: Report) -> str:
    proof = report.proof
    if proof.images < 1:
        return "No images were kept back for the test."
    known = "none of them" if proof.labelled < 1 else f"{proof.labelled:,} of them"
    if proof.labelled == proof.images:
        known = "all of them"
    return (
        f"Each variant and FP32 looked at the same {words.counted(proof.images, 'image')} "
        f"of {words.quoted(proof.source)}, "
        f"none of which was used to calibrate. The right answer is known for {known}."
    )


def _calibration(report: Report) -> tuple[str, ...]:
    facts = report.calibration
    if facts is None:
        return ("No variant needed calibration.",)
    images = words.counted(facts.images, "image")
    found = (
        f"The ranges were found on {images} of {words.quoted(facts.source)} "
        f"with the method {words.quoted(facts.method)}."
    )
    return (found, f"Digest of the images: {facts.digest}")


def _candidates(report: Report) -> tuple[tuple[str, str, str, bool], ...]:
    facts = report.calibration
    if facts is None:
        return ()
    return tuple(
        (
            method,
            _cell(words.percent(measured.get("agreement"))),
            _cell(words.number(measured.get("mean_kl"))),
            method == facts.method,
        )
        for method, measured in facts.candidates.items()
    )


def _model(report: Report) -> tuple[tuple[str, str], ...]:
    model = report.model
    return (
        ("File", model.file),
        ("SHA-256", model.sha256),
        ("Input", model.input),
        ("Output", f"{model.kind} of {words.counted(model.classes, 'class', 'classes')}"),
        ("Parameters", words.large(model.parameters)),
        ("MACs for one image", words.large(model.macs)),
    )


def _range(item: TensorRange) -> RangeView:
    clipped = words.finite(item.clipped_share)
    return RangeView(
        tensor=item.tensor,
        node=item.node,
        op=item.op,
        method=item.method,
        amax=_cell(words.number(item.amax)),
        maximum=_cell(words.number(item.maximum)),
        clipped=_cell(words.percent(item.clipped_share, 2)),
        notable=clipped is not None and clipped > _NOTABLE_CLIPPING,
        strip=charts.range_strip(item),
    )


def _search(facts: SearchFacts) -> SearchView:
    drawn = facts.layers[:_MAX_LAYERS]
    expected = ""
    if facts.expected_agreement is not None:
        expected = (
            "From these images, an agreement of about "
            f"{words.percent(facts.expected_agreement)} is to be expected on others."
        )
    more = len(facts.layers) - len(drawn)
    return SearchView(
        found=f"{facts.reason[:1].upper()}{facts.reason[1:]}.",
        expected=expected,
        chart=charts.sensitivity_bars(drawn) if drawn else "",
        chart_note=f"The {more} cheapest are not drawn." if more else "",
        tried=tuple(
            (
                words.count(one.kept),
                words.percent(one.int8_macs),
                ("" if one.complete else "at most ") + words.percent(one.agreement),
                ("" if one.complete else "at least ") + words.number(one.mean_kl),
                _outcome(holds=one.holds, with_margin=one.with_margin),
                one.taken,
            )
            for one in facts.tried
        ),
    )


def _corrections(report: Report) -> CorrectionsView | None:
    if report.corrections is None:
        return None
    images = report.calibration.images if report.calibration else 0
    return arrange_corrections(report.corrections, images)


def _outcome(*, holds: bool, with_margin: bool) -> str:
    if with_margin:
        return "kept, with a margin"
    return "kept, without a margin" if holds else "missed"
