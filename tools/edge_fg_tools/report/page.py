"""The report as one HTML page: templates, and the sentences that they need."""

from __future__ import annotations

from collections.abc import Sequence

from edge_fg.errors import import_optional
from edge_fg_calibration.budget.results import Candidate
from edge_fg_calibration.corrections.results import CorrectionTrial
from edge_fg_calibration.data.validation_split import validation_stride
from edge_fg_tools.report import charts, verdict, words
from edge_fg_tools.report.data import Answer, CalibrationFacts, CostFacts, Report, VariantReport
from edge_fg_tools.report.thumbnails import data_uri

MAX_LAYERS = 30
"""Most layers whose cost is drawn."""

_DASH = "\N{EN DASH}"

TERMS: tuple[tuple[str, str], ...] = (
    ("FP32", "32-bit floating point, the numbers that the model was trained with."),
    ("FP16", "16-bit floating point: half the memory, about three decimal digits."),
    ("INT8", "8-bit whole numbers: a quarter of the memory, and the fastest on most devices."),
    ("Quantisation", "Writing a model's numbers with fewer bits, so that it runs faster."),
    ("Calibration", "Looking at images to learn how large the numbers inside the model become."),
    ("Hold-out set", "Images that are used for this test alone, never for calibration."),
    ("Correction", "A change to the INT8 graph that brings its answers closer to those of FP32."),
    (
        "Softened divergence",
        "KL divergence with all confidences evened out first, so that all classes count.",
    ),
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
    ("Sibling", "Another class of the same genus; siblings are the most easily confused."),
    ("Variant", "The same model in one precision."),
    ("Kernel", "A program that the GPU runs for one layer, or for several that were fused."),
    ("Plan", "A variant compiled by TensorRT for one kind of GPU."),
    ("MACs", "Multiply-accumulates, the unit of work in a neural network."),
    ("amax", "The largest magnitude that INT8 can write for a tensor; what is larger is clipped."),
    ("Tensor", "One of the arrays of numbers that pass from step to step through the model."),
)


def check_report() -> None:
    """Find out before long work whether reports can be written.

    Raises MissingDependencyError where Jinja2 is not installed.
    """
    import_optional("jinja2", "Jinja2", "build", "write the report")


def report_html(report: Report) -> str:
    """Return a report as one HTML page; MissingDependencyError where Jinja2 is not installed.

    The page asks for nothing outside itself and holds no script; its own content policy forbids
    both. File names, labels and node names are escaped, and characters that can't be shown
    replaced, so that the text can always be written as UTF-8.
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
    environment.filters["cell"] = _cell
    environment.globals.update(
        charts=charts,
        verdict=verdict,
        words=words,
        data_uri=data_uri,
        max_layers=MAX_LAYERS,
        terms=TERMS,
        interval=_interval,
        share_width=_share_width,
        hold_out_sentence=_hold_out_sentence,
        corrections_sentence=_corrections_sentence,
        outcome=_outcome,
        why_method=_why_method,
        cost_libraries=_cost_libraries,
        variant_costs=_variant_costs,
    )
    return words.xml_text(environment.get_template("report.html").render(report=report))


def _cell(text: str) -> str:
    """Return a table cell's text: a dash for what was not measured."""
    return _DASH if text == words.NOT_MEASURED else text


def _interval(variant: VariantReport) -> str:
    """Return the 95 % interval of a variant's agreement as a table cell."""
    compared = verdict.agreeing(variant.fidelity)
    # FP32 against itself is no sample of anything.
    if compared is None or verdict.judge(variant).level == "reference":
        return _DASH
    lower, upper = words.wilson_interval(*compared, variant.looks)
    return f"{words.percent(lower)} to {words.percent(upper)}"


def _share_width(answer: Answer) -> str:
    """Return how long the bar of an answer's confidence is, in percent."""
    share = words.finite(answer.confidence) or 0.0
    return f"{100 * min(1.0, max(0.0, share)):.1f}"


def _hold_out_sentence(report: Report) -> str:
    proof = report.proof
    if proof.images < 1:
        return "The hold-out set is empty."
    known = "none of them" if proof.labelled < 1 else f"{proof.labelled:,} of them"
    if proof.labelled == proof.images:
        known = "all of them"
    return (
        f"Each variant was compared with FP32 on the same {words.counted(proof.images, 'image')} "
        f"of {words.quoted(proof.source)}, none of which was used for calibration. "
        f"The correct answer is known for {known}."
    )


def _corrections_sentence(report: Report) -> str:
    corrections: Sequence[CorrectionTrial] = report.corrections or ()
    if not corrections:
        images = report.calibration.images if report.calibration else 0
        if validation_stride(images) > 1:
            return "No correction of INT8 was tried: none applies to this model."
        return (
            f"No correction of INT8 was tried: of {words.counted(images, 'calibration image')} "
            "none can be spared to judge corrections on."
        )
    times = words.counted(len(corrections), "attempt")
    kept = sum(one.kept for one in corrections)
    if not kept:
        return f"Of {times} none brought INT8 nearer to FP32 by more than chance: none was kept."
    return f"Of {times} {kept:,} {'was' if kept == 1 else 'were'} kept."


def _cost_libraries(report: Report) -> list[str]:
    """Return the libraries that costs were estimated for, each once."""
    return list(dict.fromkeys(cost.library for one in report.variants for cost in one.costs))


def _variant_costs(report: Report, library: str) -> list[tuple[VariantReport, CostFacts]]:
    return [(one, cost) for one in report.variants for cost in one.costs if cost.library == library]


def _why_method(calibration: CalibrationFacts, method: str) -> str:
    """Return why a method of calibration was taken, or why not: by its softened divergence."""
    losses = {
        name: words.finite(measured.get("softened"))
        for name, measured in calibration.candidates.items()
    }
    loss, best = losses[method], losses.get(calibration.method)
    if loss is None or best is None:
        return ""
    if method == calibration.method:
        return "the least softened divergence" if len(losses) > 1 else ""
    if loss == best:
        return "as good: the first of equals is taken"
    if not best:
        return "more than none"
    times = loss / best
    if times < 2:
        return f"{words.percent(times - 1)} more"
    return f"{times:.1f} times as much" if times < 10 else f"{times:,.0f} times as much"


def _outcome(candidate: Candidate) -> str:
    """Return in words whether a candidate of the search keeps the budget."""
    if candidate.with_margin:
        return "kept, with a margin"
    return "kept, without a margin" if candidate.holds else "missed"
