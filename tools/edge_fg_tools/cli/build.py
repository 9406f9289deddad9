"""`edge-fg build`: from an ONNX classifier to a proven bundle."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from edge_fg.bundle import PRECISIONS
from edge_fg.preprocess import presets
from edge_fg.sources import redact
from edge_fg_tools.cli.arguments import (
    add_format,
    add_model_choices,
    add_overwrite,
    model_choices,
    positive,
)
from edge_fg_tools.cli.command import Command, show
from edge_fg_tools.cli.progress import shown_progress

_TARGETS = ("portable", "tensorrt", "tensorrt-rtx")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    _add_inputs(parser)
    _add_demands(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="BUNDLE", help="a new folder, or a .zip file"
    )
    parser.add_argument(
        "--name", metavar="NAME", help="name of the bundle; default: that of the output"
    )
    add_overwrite(parser, "a bundle")
    add_model_choices(parser)
    parser.add_argument(
        "--no-cache",
        action="store_true",
        help="collect calibration statistics again, and don't keep them for the next build",
    )
    add_format(parser, "text", "json")


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, metavar="MODEL.onnx", help="a trained classifier")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes, as text, CSV, JSON, YAML or a label map, each at the index "
        "that the file states for it, else in order; default: the names in the model's metadata",
    )
    parser.add_argument(
        "--calibration",
        required=True,
        metavar="DIR|CSV|VIDEO|CAMERA",
        help="images: some to calibrate on, the others to prove the result",
    )
    parser.add_argument(
        "--preprocess",
        metavar="PRESET|FILE.toml",
        help=f"how the images are prepared: {', '.join(presets())}, or a TOML file (see "
        "docs/preprocessing.md); default: none, since a guess would cost accuracy",
    )
    parser.add_argument(
        "--calibration-images",
        type=positive,
        default=512,
        metavar="N",
        help="most images to calibrate on",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="chooses which images calibrate",
    )


def _add_demands(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--precision",
        default="fp32,fp16,int8",
        metavar="LIST",
        help=f"variants to make, of {','.join(PRECISIONS)}",
    )
    parser.add_argument(
        "--budget",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="fidelity to keep, such as agreement=0.97 (other keys: agreement_labelled, mean_kl, "
        "top1_drop, class_drop; may be given several times): INT8 leaves layers in float until it "
        "keeps it on calibration images; when a variant misses it on the others, surer ones are "
        "tried, and then no bundle is written (exit 3); default: no limit",
    )
    parser.add_argument(
        "--keep-best",
        action="store_true",
        help="when the budget is missed, keep the best that was reached: b.best.edgefg beside "
        "b.edgefg; its manifest and report say what it misses, and the exit code stays 3",
    )
    parser.add_argument(
        "--target",
        choices=_TARGETS,
        default="portable",
        help="what INT8 is placed for",
    )
    parser.add_argument(
        "--allow-low-accuracy",
        action="store_true",
        help="build a model that names labelled images right no more often than by chance, which "
        "ends the build otherwise (exit 3)",
    )


def execute(arguments: argparse.Namespace) -> int:
    """Carry the command out and return the exit code."""
    from edge_fg_calibration import Budget
    from edge_fg_tools.building import BuildOptions, build

    size, output, kind = model_choices(arguments)
    options = BuildOptions(
        model=arguments.model,
        labels=arguments.labels,
        calibration=arguments.calibration,
        output=arguments.output,
        preprocess=arguments.preprocess,
        precisions=tuple(dict.fromkeys(part.strip() for part in arguments.precision.split(","))),
        budget=Budget.parse(arguments.budget),
        target=arguments.target,
        calibration_images=arguments.calibration_images,
        seed=arguments.seed,
        name=arguments.name,
        input_size=size,
        model_output=output,
        output_kind=kind,
        command=shlex.join(["edge-fg", *map(_without_password, sys.argv[1:])]),
        cache=not arguments.no_cache,
        overwrite=arguments.overwrite,
        allow_low_accuracy=arguments.allow_low_accuracy,
        keep_best=arguments.keep_best,
    )
    with shown_progress() as progress:
        result = build(options, progress)
    show(arguments, {"bundle": str(result.output), **result.report}, _as_text)
    return 0


def _without_password(word: str) -> str:
    """Return a word of the command line as the manifest and the report may keep it."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + redact(value)


def _as_text(report: dict[str, Any]) -> str:
    output = Path(report["bundle"])
    images, model = report["proof"]["images"], report["model"]
    lines = [f"{output}: proven on {images} hold-out images"]
    if model["doubts"]:
        lines = [f"{output}: compared with FP32 on {images} hold-out images, which is no proof"]
        lines += [f"  in doubt: {line}" for line in model["warnings"][: model["doubts"]]]
    for variant in report["variants"]:
        fidelity, plan = variant["fidelity"], variant["plan"]
        parts = [f"agreement {fidelity['agreement']:.2%}", f"mean KL {fidelity['mean_kl']:.5f}"]
        if fidelity["top1"] is not None:
            parts.append(f"top-1 {fidelity['top1']:.2%}")
        if variant["int8_macs"] is not None:
            parts.append(f"{variant['int8_macs']:.1%} of MACs in INT8")
        parts.append(f"{variant['file_bytes'] / 1e6:.1f} MB")
        if plan:
            parts.append(f"plan {plan['bytes'] / 1e6:.1f} MB for {plan['target']}")
        lines.append(f"  {variant['name']:<10}{', '.join(parts)}")
    if report["search"]:
        lines.append(f"  budget: {report['search']['reason']}")
    if (looks := len(report["proof"]["looks"])) > 1:
        lines.append(f"  the hold-out set was looked at {looks} times to keep the budget")
    where = "in the bundle" if output.is_file() else output / "report.html"
    lines.append(f"The report is {where}")
    return "\n".join(lines)


COMMAND = Command(
    "turn an ONNX classifier into a bundle, and prove that its answers stay the same",
    add_arguments,
    execute,
    example="edge-fg build birds.onnx --labels birds.txt --preprocess torchvision "
    "--calibration photos/ --output birds.edgefg",
)
