"""`edge-fg inspect`: what a bundle, a model or a plan holds."""

from __future__ import annotations

import argparse
import json
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_fg.backends.plan_cache import PlanCache
from edge_fg.backends.tensorrt.engine import plan_layers
from edge_fg.bundle import Bundle, Manifest
from edge_fg.errors import BundleError, EdgeFGError, UsageError
from edge_fg.files import sha256_of
from edge_fg.printing import printable, reason
from edge_fg_tools.cli.arguments import add_format, add_model_choices, model_choices
from edge_fg_tools.cli.command import Command, show

if TYPE_CHECKING:
    import onnx

    from edge_fg_tools.graph import Kind, PreparedModel

_COMMONEST_OPS = 12
_MOST_METADATA, _LONGEST_VALUE = 20, 120
_OF_IMAGES = re.compile(
    r"mean|std|norm|size|colou?r|channel|pixel|range|crop|interpol|layout|scale|preproc|transform|"
    r"image|input",
    re.IGNORECASE,
)
# The usual ends of a plan's name.
_MAX_PLAN_BYTES = 4 << 30
_PLAN_SUFFIXES = (".plan", ".engine", ".trt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "path", type=Path, metavar="BUNDLE|MODEL.onnx|PLAN", help="what is described"
    )
    add_model_choices(parser)
    add_format(parser, "text", "json")


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    size, output, kind = model_choices(arguments)
    facts = inspect(arguments.path, input_size=size, output=output, output_kind=kind)
    show(arguments, facts, _as_text, indent=2)
    return 0


def inspect(
    path: Path,
    *,
    input_size: tuple[int, int] | None = None,
    output: str | None = None,
    output_kind: Kind | None = None,
) -> dict[str, Any]:
    """Return what `path` holds, as lines or lists of lines by their heading.

    A bundle is verified whole: every hash is computed. `input_size` (height, width), `output` and
    `output_kind` are for a model that leaves them open. Raises UsageError where
    there is nothing at `path` or it is none of the three, EdgeFGError where it can't be used.
    """
    try:
        there = path.exists()
    except (OSError, ValueError) as error:
        raise UsageError(f"can't look at {path}: {reason(error)}") from error
    if not there:
        raise UsageError(f"there is nothing at {path}")
    if path.is_dir() or (path.is_file() and zipfile.is_zipfile(path)):
        return _bundle(path)
    if path.suffix.lower() == ".onnx":
        return _model(path, input_size, output, output_kind)
    if path.suffix.lower() in _PLAN_SUFFIXES and path.is_file():
        return _plan(path)
    raise UsageError(f"{path} is no bundle (folder or .zip), ONNX model (.onnx) or plan (.plan)")


def _bundle(path: Path) -> dict[str, Any]:
    bundle = Bundle(path)
    bundle.verify()
    manifest = bundle.manifest
    return {
        "bundle": f"{manifest.name} (schema {manifest.schema}), every hash verified",
        "input": f"{manifest.input.name} {_shape(manifest.input.shape)} {manifest.input.dtype}",
        "outputs": [f"{o.name} {_shape(o.shape)}: {o.kind}" for o in manifest.outputs],
        "preprocess": _preprocess(manifest),
        "labels": f"{manifest.labels.count} classes, such as {bundle.labels()[0].label}",
        "variants": _variants(manifest),
        "calibration": _calibration(manifest),
        "made": [f"{key}: {value}" for key, value in manifest.provenance.items()],
    }


def _preprocess(manifest: Manifest) -> str:
    spec = manifest.preprocess
    crop = f", centre crop {_shape(spec.crop)}" if spec.crop else ""
    size = spec.resize.size
    return (
        f"{spec.resize.mode} {size if isinstance(size, int) else _shape(size)} "
        f"{spec.resize.filter}{crop}, {spec.color}, mean {list(spec.mean)}, std {list(spec.std)}"
    )


def _variants(manifest: Manifest) -> list[str]:
    lines = []
    for name, variant in manifest.variants.items():
        line = f"{name:<10}{manifest.files[variant.file].bytes / 1e6:7.1f} MB"
        if variant.fidelity is not None:
            fidelity = variant.fidelity
            line += f", agreement {fidelity.agreement:.2%} on {fidelity.images} images"
            line += f", mean KL {fidelity.mean_kl:.5f}"
        if variant.int8_macs is not None:
            line += f", {variant.int8_macs:.1%} of MACs in INT8"
        lines.append(line)
    return lines


def _calibration(manifest: Manifest) -> str:
    found = manifest.calibration
    return f"{found.method} on {found.images} images" if found else "none (no INT8 variant)"


def _model(
    path: Path, input_size: tuple[int, int] | None, output: str | None, kind: Kind | None
) -> dict[str, Any]:
    from edge_fg_calibration.graph.onnx_graph import Graph
    from edge_fg_tools.building.class_labels import metadata_labels
    from edge_fg_tools.graph import load_model, prepare

    model = load_model(path)
    prepared = prepare(model, input_size=input_size, output=output, output_kind=kind)
    names, _ = metadata_labels(model, prepared.classes)
    graph = Graph(prepared.model)
    ops = Counter(node.op_type for node in graph.nodes)
    macs = sum(map(graph.macs, graph.nodes))
    shape = f"{prepared.batch or 'N'} x {prepared.image_text}"
    return {
        "model": f"{path.name}, {path.stat().st_size / 1e6:.1f} MB, sha256 {sha256_of(path)}",
        "input": f"{prepared.input_name} {shape} {prepared.layout} {prepared.input_dtype}",
        "output": f"{prepared.output_name}: {prepared.classes} classes, {prepared.kind}",
        "labels": [f"in its metadata, `{key}`: such as {x[0].label}" for key, x in names.items()]
        or ["none in its metadata: a build needs --labels"],
        "preprocess": [_normalisation(prepared), *_metadata(model)],
        "work": f"{macs / 1e6:.1f} million multiply-accumulates for one image",
        "operators": ", ".join(f"{op} {n}" for op, n in ops.most_common(_COMMONEST_OPS)),
        "warnings": list(prepared.warnings) or ["none"],
    }


def _normalisation(prepared: PreparedModel) -> str:
    found = prepared.normalisation
    if found is None:
        return (
            "the graph doesn't normalise: mean and std, as well as colour order and resizing, are "
            "those of the training (docs/preprocessing.md)"
        )
    made_for = f"made for pixels of 0..{found.white}: " if found.white else ""
    std = f"std = {[255 // found.white] * 3}" if found.white else "mean and std to match"
    return f"the graph normalises by itself, {found}; {made_for}leave mean out, {std}"


def _metadata(model: onnx.ModelProto) -> list[str]:
    """Return what the model's metadata says of images; their keys follow no standard."""
    said = [(one.key, one.value) for one in (*model.metadata_props, *model.graph.metadata_props)]
    found = [f"exported by {model.producer_name[:_LONGEST_VALUE]}"] if model.producer_name else []
    for key, value in said:
        if _OF_IMAGES.search(key):
            found.append(f"metadata {key[:_LONGEST_VALUE]}: {value[:_LONGEST_VALUE]}")
    return found[:_MOST_METADATA]


def _plan(path: Path) -> dict[str, Any]:
    size = path.stat().st_size
    if not size:
        raise BundleError(f"{path} is empty: build the plan again with `edge-fg compile`")
    if size > _MAX_PLAN_BYTES:
        raise BundleError(f"{path} has {size / 1e9:.1f} GB: no classifier's plan is that large")
    digest = sha256_of(path)
    return {
        "plan": f"{path.name}, {size / 1e6:.1f} MB",
        "sha256": digest,
        "built": _record(path, digest),
        "layers": _layers(path),
        "note": "a plan is executable code of one TensorRT version: only that library on a GPU of "
        "its kind can open it",
    }


def _record(path: Path, digest: str) -> str:
    """Return what the plan cache noted when it stored a plan."""
    try:
        note = json.loads(path.with_suffix(".json").read_text())
        if note["sha256"] != digest:
            return "unknown: the record beside it is of another plan"
        layers = note["layers"] or "an unknown number of"
        return f"by {note['library']} {note['version']} in {note['seconds']} s, {layers} layers"
    except (OSError, ValueError, KeyError, TypeError):
        return "unknown: there is no record beside it, as the plan cache keeps"


def _layers(path: Path) -> list[str]:
    """Return the layers as the library fused them, if that is safe to read."""
    try:
        cache = PlanCache()
        # Opening a plan executes what is in it: only plans of this user's cache are trusted.
        own = path.resolve().parent == cache.folder.resolve()
        data = cache.load(path.stem) if own else None
        library = json.loads(path.with_suffix(".json").read_text())["library"] if data else None
    except (EdgeFGError, OSError, ValueError, KeyError, TypeError):
        data = library = None
    if data is None or library not in ("tensorrt", "tensorrt-rtx"):
        return ["not shown: only plans of this user's plan cache are opened"]
    try:
        found = plan_layers(data, library)
    except EdgeFGError as error:
        return [f"not shown: {error}"]
    kinds = Counter((layer.kind or "unknown", layer.outputs[:1]) for layer in found)
    return [
        f"{count} x {kind}" + (f" to {to[0]}" if to else "")
        for (kind, to), count in kinds.most_common()
    ] or ["not shown: the library lists none"]


def _shape(shape: tuple[int | str, ...]) -> str:
    return " x ".join(str(length) for length in shape)


def _as_text(facts: dict[str, Any]) -> str:
    lines = []
    for key, value in facts.items():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            lines.append(f"{'' if number else key:<14}{printable(line)}")
    return "\n".join(lines)


COMMAND = Command(
    "show what a bundle, an ONNX model or a plan holds",
    add_arguments,
    execute,
    example="edge-fg inspect birds.edgefg",
)
