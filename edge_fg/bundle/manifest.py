"""The schema of ``bundle.json``."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from edge_fg.errors import BundleFormatError, BundleVersionError
from edge_fg.preprocess.spec import PreprocessSpec

SCHEMA_VERSION: Final = 1
MANIFEST_NAME: Final = "bundle.json"
MAX_MANIFEST_BYTES: Final = 4 << 20
# A graph with a fixed batch always computes all of it; a build accepts no more.
_MAX_BATCH: Final = 256

Precision = Literal["fp32", "fp16", "int8", "int8-fp16"]
PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "fp16", "int8", "int8-fp16")
OutputKind = Literal["logits", "probabilities", "embedding", "cam"]

# One flat folder: a name has no separator, so it can't point outside.
_FILE_NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}"
FileName = Annotated[str, Meta(pattern=rf"^{_FILE_NAME}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0.0, le=1.0)]
# Names are printed: control characters could control a terminal.
Name = Annotated[str, Meta(min_length=1, max_length=512, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")]
Axis = Annotated[int, Meta(ge=1, le=1 << 24)] | Annotated[str, Meta(pattern=r"^N\Z")]


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    pass


class FileEntry(_Struct, frozen=True):
    """Size and hash of one file of the bundle."""

    sha256: Sha256
    bytes: Annotated[int, Meta(ge=0, le=1 << 32)]


class TensorSpec(_Struct, frozen=True):
    """Name, shape ("N" is the batch) and dtype of the model's input."""

    name: Name
    shape: Annotated[tuple[Axis, ...], Meta(min_length=4, max_length=4)]
    dtype: Literal["float32", "float16", "uint8"]


class OutputSpec(_Struct, frozen=True):
    """One output of the model and what it means."""

    name: Name
    kind: OutputKind
    shape: Annotated[tuple[Axis, ...], Meta(min_length=2, max_length=4)]


class LabelsEntry(_Struct, frozen=True):
    """The file of the labels and how many there are."""

    file: FileName
    count: Annotated[int, Meta(ge=1)]


class FidelityEntry(_Struct, frozen=True, omit_defaults=False):
    """How near a variant is to FP32, on `images` images that it was not calibrated on.

    `mean_kl` and `max_kl` are in nats; shares are 0..1; what needs labels is None without them.
    """

    images: Count
    agreement: Share
    mean_kl: float
    max_kl: float | None = None
    labelled: Count = 0
    agreement_labelled: Share | None = None
    top1: Share | None = None
    top5: Share | None = None
    top1_reference: Share | None = None
    top5_reference: Share | None = None


class VariantEntry(_Struct, frozen=True):
    """One precision of the model."""

    file: FileName
    sha256: Sha256
    fidelity: FidelityEntry | None = None
    int8_macs: Share | None = None


class CalibrationEntry(_Struct, frozen=True):
    """Where the INT8 ranges come from."""

    file: FileName
    digest: Sha256
    images: Count
    method: Name


class Manifest(_Struct, frozen=True):
    """Everything that ``bundle.json`` says; see section 4 of the design."""

    schema: int
    name: Name
    files: dict[FileName, FileEntry]
    input: TensorSpec
    outputs: Annotated[tuple[OutputSpec, ...], Meta(min_length=1, max_length=8)]
    preprocess: PreprocessSpec
    labels: LabelsEntry
    variants: Annotated[dict[Precision, VariantEntry], Meta(min_length=1)]
    calibration: CalibrationEntry | None
    provenance: dict[str, Any]

    def __post_init__(self) -> None:
        referenced: dict[str, str | None] = {self.labels.file: None}
        if self.calibration is not None:
            referenced[self.calibration.file] = None
        referenced.update({variant.file: variant.sha256 for variant in self.variants.values()})
        for file, digest in referenced.items():
            entry = self.files.get(file)
            if entry is None:
                raise ValueError(f"`{file}` is used but not listed in files")
            if digest is not None and digest != entry.sha256:
                raise ValueError(f"two different hashes are given for `{file}`")
        if MANIFEST_NAME in self.files:
            raise ValueError(f"`{MANIFEST_NAME}` can't list itself")
        if not any(output.kind in ("logits", "probabilities") for output in self.outputs):
            raise ValueError("no output holds logits or probabilities")
        if self.scores.shape[-1] != self.labels.count or len(self.scores.shape) != 2:
            raise ValueError(f"output `{self.scores.name}` must be N x {self.labels.count} labels")
        if self.input.shape[1:] != self.preprocess.tensor_shape:
            raise ValueError("the input's shape is not what preprocessing gives")
        batch = self.input.shape[0]
        if isinstance(batch, int) and batch > _MAX_BATCH:
            raise ValueError(f"the model takes {batch} images at once, more than {_MAX_BATCH}")
        if self.input.dtype != self.preprocess.dtype:
            raise ValueError("the input's dtype is not what preprocessing gives")

    @property
    def graphs(self) -> set[str]:
        """The names of the files that hold ONNX graphs."""
        return {variant.file for variant in self.variants.values()}

    @property
    def scores(self) -> OutputSpec:
        """The output that predictions are read from."""
        return next(o for o in self.outputs if o.kind in ("logits", "probabilities"))


class _Header(msgspec.Struct):
    schema: int


def parse_manifest(data: bytes, *, where: str) -> Manifest:
    """Read and check the content of ``bundle.json``.

    A `BundleVersionError` says that a newer edge_fg wrote it; a `BundleFormatError`, that it is not
    JSON, or at which key it breaks the schema.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise BundleFormatError(f"{where}: {MANIFEST_NAME} is over {MAX_MANIFEST_BYTES >> 20} MB")
    try:
        version = msgspec.json.decode(data, type=_Header).schema
        if version > SCHEMA_VERSION:
            raise BundleVersionError(
                f"{where} has bundle schema {version}, this edge_fg reads up to {SCHEMA_VERSION}: "
                "update edge-fg on this machine"
            )
        if version != SCHEMA_VERSION:
            raise BundleFormatError(f"{where}: there is no bundle schema {version}")
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleFormatError(f"{where}: {MANIFEST_NAME} can't be used: {error}") from error


def format_manifest(manifest: Manifest) -> bytes:
    """Return `manifest` as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def is_file_name(name: str) -> bool:
    """Whether `name` may name a file of a bundle."""
    return re.fullmatch(_FILE_NAME, name) is not None
