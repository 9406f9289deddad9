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
from edge_fg_calibration.int8.device_cost.devices import Kind
from edge_fg_tools.report.ranges import TensorRange

MAX_CHANGED = 24
"""Most changed answers that a variant's report shows."""


@dataclass(frozen=True)
class ModelFacts:
    """The model that was built from."""

    file: str  # Name of the ONNX file, without folders
    sha256: str  # Its SHA-256, 64 hexadecimal digits
    input: str  # The input in words, for example ``"images: N x 3 x 224 x 224 float32"``
    classes: int  # Number of classes
    kind: str  # What the output holds: ``"logits"`` or ``"probabilities"``
    parameters: int  # Number of weights
    # Multiply-accumulate operations for one image; None where they can't be counted.
    macs: int | None
    # What the build doubts and what the check of the graph remarked on, a sentence each.
    warnings: tuple[str, ...] = ()
    # How many of them, the first ones, make the proof itself doubtful: preprocessing, labels or
    # images may not be those of the model.
    doubts: int = 0


@dataclass(frozen=True)
class CalibrationFacts:
    """How the ranges were found."""

    source: str  # Name of the calibration set
    images: int  # Number of images used
    # ``(file name, reason)`` of each image that could not be used.
    skipped: tuple[tuple[str, str], ...]
    digest: str  # Digest of the images used
    method: str  # The calibration method chosen
    # Per method tried: ``mean_kl``, ``softened`` (nats, which decides) and ``agreement`` (0..1) on
    # the images that chose between them.
    candidates: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    validation_images: int = 0  # How many images that was; 0 where it is not known


@dataclass(frozen=True)
class HoldOutLook:
    """One look at the hold-out set: what was proven there, and what it said."""

    why: str  # What had been asked for: the first graph, or one that misses the budget less
    kept_float: int  # Nodes that the budget had left in float
    int8_macs: float | None  # Share (0..1) of multiply-accumulates in INT8; None without INT8
    agreement: Mapping[str, float]  # Of each variant that was run, 0..1
    mean_kl: Mapping[str, float]  # The same in nats
    missed: tuple[str, ...]  # Each limit of the budget that was not kept, a sentence


@dataclass(frozen=True)
class ProofFacts:
    """The images that the variants were compared on; none of them was calibrated on."""

    images: int  # Number of images
    labelled: int  # Those whose right answer is known
    source: str  # Name of the set
    looks: tuple[HoldOutLook, ...] = ()  # Each time that variants were proven, in order


@dataclass(frozen=True)
class Answer:
    """A model's first answer to one image: its label, and its confidence (0..1)."""

    label: str
    confidence: float


@dataclass(frozen=True)
class ChangedAnswer:
    """One image on which a variant and FP32 give different answers."""

    file: str  # Name of the image
    # The image made small, as a JPEG file (see `thumbnail`); empty where there is none.
    thumbnail_jpeg: bytes
    truth: str | None  # The right label, None where unknown
    reference: Answer  # The answer of FP32
    candidate: Answer  # The answer of the variant
    siblings: bool  # Whether both answers are of the same genus


@dataclass(frozen=True)
class PlanFacts:
    """A TensorRT plan compiled with the build."""

    target: str  # ``"tensorrt"`` or ``"tensorrt-rtx"``
    bytes: int  # Size of the plan file
    seconds: float  # Time that compiling took
    version: str  # Version of the library that compiled it
    from_cache: bool = False  # Whether an earlier build had compiled it; `seconds` is 0 then


@dataclass(frozen=True)
class DeviceLatency:
    """What one image is estimated to take on a device, without pre- and postprocessing."""

    device: str  # Its name
    least_s: float  # Seconds
    most_s: float
    # Beside the FP16 variant: ``"faster"``, ``"slower"`` or ``"undecided"``; None where there is
    # none, and for that variant itself.
    beside_fp16: str | None


@dataclass(frozen=True)
class CostlyKernel:
    """A kernel that is estimated to take long: its nodes' keys, and its share of the time."""

    layers: tuple[str, ...]
    operators: tuple[str, ...]
    share: float  # 0..1


@dataclass(frozen=True)
class CostFacts:
    """What a library is estimated to make of a variant, for a batch of one; nothing is measured."""

    library: str  # ``"tensorrt"`` or ``"tensorrt-rtx"``
    kernels: int
    activation_bytes: int  # What layers read and write of each other's results
    weight_bytes: int
    macs: Mapping[Kind, int]  # Multiply-accumulates by what is multiplied
    latencies: tuple[DeviceLatency, ...]
    costliest: tuple[CostlyKernel, ...]  # On the first device, the longest first


@dataclass(frozen=True)
class VariantReport:
    """What was measured of one variant.

    Raises ValueError for more changed answers than `MAX_CHANGED` or than `changed_total`.
    """

    name: str  # ``"fp32"``, ``"fp16"``, ``"int8"`` or ``"int8-fp16"``
    file_bytes: int  # Size of its ONNX file
    # As written by ``Fidelity.to_dict()``: ``images``, ``agreement``, ``mean_kl``, ``max_kl``,
    # ``labelled``, ``agreement_labelled``, ``top1_reference``, ``top1``, ``top5_reference``,
    # ``top5``, ``worst_classes`` (mappings with ``index``, ``label``, ``images``, ``agreement``)
    # and ``worst_class_drop``. Shares are 0..1; a value that was not measured is None or absent.
    fidelity: Mapping[str, object]
    # Share (0..1) of the multiply-accumulates done in INT8; None for a variant without INT8.
    int8_macs: float | None = None
    plan: PlanFacts | None = None  # The plan compiled with the build, if any
    changed: tuple[ChangedAnswer, ...] = ()  # The worst changed answers, at most `MAX_CHANGED`
    changed_total: int = 0  # Number of changed answers in all
    # ``(confidence of FP32, confidence of the variant, same answer)`` for each proof image.
    scatter: tuple[tuple[float, float, bool], ...] = ()
    # Images that FP32 named right and the variant calls another class of the same genus; None where
    # that is unknown.
    sibling_confusions_added: int | None = None
    # How often graphs of this precision were proven before it was taken: intervals are wider then.
    looks: int = 1
    budget: tuple[BudgetCheck, ...] = ()  # The accuracy budget, line by line
    costs: tuple[CostFacts, ...] = ()  # By library

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
    """Everything that a build report shows."""

    name: str  # Name of the bundle
    created: str  # When it was built, ISO 8601
    edge_fg_version: str  # Version of edge_fg that built it
    model: ModelFacts  # The model it was built from
    # How the ranges were found; None when no variant needed calibration.
    calibration: CalibrationFacts | None
    proof: ProofFacts  # The images that the variants were compared on
    variants: tuple[VariantReport, ...]  # What was measured of each variant
    ranges: tuple[TensorRange, ...] = ()  # The calibrated ranges; empty without an INT8 variant
    # ``(node, operator, reason)`` of the nodes left in floating point.
    placement_skipped: tuple[tuple[str, str, str], ...] = ()
    # What else the bundle records of its making: versions, command and the like.
    provenance: Mapping[str, object] = field(default_factory=dict)
    # Which layers the accuracy budget left in float; None without a budget or INT8.
    search: SearchResult | None = None
    # What was tried to bring INT8 nearer to FP32, in the order of trying; None where no INT8 was
    # made here.
    corrections: tuple[CorrectionTrial, ...] | None = None
