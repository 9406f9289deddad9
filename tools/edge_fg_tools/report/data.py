"""What a build report holds, as plain frozen values.

Nothing here computes: the build measures and fills these in, and they are written as JSON and
HTML. Texts (file names, labels, node names) may come from hostile files; they are kept as
they are and escaped where they are shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edge_fg_calibration.budget.budget import BudgetCheck
from edge_fg_calibration.budget.results import SearchResult
from edge_fg_calibration.corrections.results import CorrectionTrial
from edge_fg_tools.report.ranges import TensorRange

MAX_CHANGED = 24
"""Most changed answers that a variant's report shows."""


@dataclass(frozen=True)
class ModelFacts:
    """The model that was built from.

    Parameters
    ----------
    file
        Name of the ONNX file, without folders.
    sha256
        Its SHA-256, 64 hexadecimal digits.
    input
        The input in words, for example ``"images: N x 3 x 224 x 224 float32"``.
    classes
        Number of classes.
    kind
        What the output holds: ``"logits"`` or ``"probabilities"``.
    parameters
        Number of weights.
    macs
        Multiply-accumulate operations for one image; None where they can't be counted.
    warnings
        What the check of the graph remarked on, a sentence each.
    """

    file: str
    sha256: str
    input: str
    classes: int
    kind: str
    parameters: int
    macs: int | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CalibrationFacts:
    """How the ranges were found.

    Parameters
    ----------
    source
        Name of the calibration set.
    images
        Number of images used.
    skipped
        ``(file name, reason)`` of each image that could not be used.
    digest
        Digest of the images used.
    method
        The calibration method chosen.
    candidates
        Per method tried: ``mean_kl`` (nats) and ``agreement`` (0..1) on the images that
        chose between them.
    """

    source: str
    images: int
    skipped: tuple[tuple[str, str], ...]
    digest: str
    method: str
    candidates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ProofFacts:
    """The images that the variants were compared on; none of them was calibrated on.

    Parameters
    ----------
    images
        Number of images.
    labelled
        Those whose right answer is known.
    source
        Name of the set.
    """

    images: int
    labelled: int
    source: str


@dataclass(frozen=True)
class Answer:
    """A model's first answer to one image: its label, and its confidence (0..1)."""

    label: str
    confidence: float


@dataclass(frozen=True)
class ChangedAnswer:
    """One image on which a variant and FP32 give different answers.

    Parameters
    ----------
    file
        Name of the image.
    thumbnail_jpeg
        The image made small, as a JPEG file (see `thumbnail`); empty where there is none.
    truth
        The right label, None where unknown.
    reference
        The answer of FP32.
    candidate
        The answer of the variant.
    siblings
        Whether both answers are of the same genus.
    """

    file: str
    thumbnail_jpeg: bytes
    truth: str | None
    reference: Answer
    candidate: Answer
    siblings: bool


@dataclass(frozen=True)
class PlanFacts:
    """A TensorRT plan compiled with the build.

    Parameters
    ----------
    target
        ``"tensorrt"`` or ``"tensorrt-rtx"``.
    bytes
        Size of the plan file.
    seconds
        Time that compiling took.
    version
        Version of the library that compiled it.
    """

    target: str
    bytes: int
    seconds: float
    version: str


@dataclass(frozen=True)
class VariantReport:
    """What was measured of one variant.

    Parameters
    ----------
    name
        ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int8-fp16"``.
    file_bytes
        Size of its ONNX file.
    fidelity
        As written by ``Fidelity.to_dict()``: ``images``, ``agreement``, ``mean_kl``, ``max_kl``,
        ``labelled``, ``agreement_labelled``, ``top1_reference``, ``top1``, ``top5_reference``,
        ``top5``, ``worst_classes`` (mappings with ``index``, ``label``, ``images``,
        ``agreement``) and ``worst_class_drop``. Shares are 0..1; a value that was not measured
        is None or absent.
    int8_macs
        Share (0..1) of the multiply-accumulates done in INT8; None for a variant without INT8.
    plan
        The plan compiled with the build, if any.
    changed
        The worst changed answers, at most `MAX_CHANGED`.
    changed_total
        Number of changed answers in all.
    scatter
        ``(confidence of FP32, confidence of the variant, same answer)`` for each proof image.
    sibling_confusions_added
        Images that FP32 named right and the variant calls another class of the same genus;
        None where that is unknown.
    budget
        The accuracy budget, line by line.

    Raises
    ------
    ValueError
        There are more changed answers than `MAX_CHANGED` or than `changed_total`.
    """

    name: str
    file_bytes: int
    fidelity: Mapping[str, object]
    int8_macs: float | None = None
    plan: PlanFacts | None = None
    changed: tuple[ChangedAnswer, ...] = ()
    changed_total: int = 0
    scatter: tuple[tuple[float, float, bool], ...] = ()
    sibling_confusions_added: int | None = None
    budget: tuple[BudgetCheck, ...] = ()

    def __post_init__(self) -> None:
        if len(self.changed) > MAX_CHANGED:
            raise ValueError(
                f"{self.name}: at most {MAX_CHANGED} changed answers fit in a report, "
                f"not {len(self.changed)}"
            )
        if len(self.changed) > self.changed_total:
            raise ValueError(
                f"{self.name}: {len(self.changed)} changed answers are listed "
                f"but changed_total is {self.changed_total}"
            )


@dataclass(frozen=True)
class Report:
    """Everything that a build report shows.

    Parameters
    ----------
    name
        Name of the bundle.
    created
        When it was built, ISO 8601.
    edge_fg_version
        Version of edge_fg that built it.
    model
        The model it was built from.
    calibration
        How the ranges were found; None when no variant needed calibration.
    proof
        The images that the variants were compared on.
    variants
        What was measured of each variant.
    ranges
        The calibrated ranges; empty without an INT8 variant.
    placement_skipped
        ``(node, operator, reason)`` of the nodes left in floating point.
    provenance
        What else the bundle records of its making: versions, command and the like.
    search
        Which layers the accuracy budget left in float; None without a budget or INT8.
    corrections
        What was tried to bring INT8 nearer to FP32, in the order of trying; None where no INT8
        was made here.
    """

    name: str
    created: str
    edge_fg_version: str
    model: ModelFacts
    calibration: CalibrationFacts | None
    proof: ProofFacts
    variants: tuple[VariantReport, ...]
    ranges: tuple[TensorRange, ...] = ()
    placement_skipped: tuple[tuple[str, str, str], ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)
    search: SearchResult | None = None
    corrections: tuple[CorrectionTrial, ...] | None = None
