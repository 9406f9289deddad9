"""Which image classifiers of timm become bundles and TensorRT-RTX plans, and what it costs.

Two steps, because they need different environments::

    python tools/benchmarks/architectures.py --export DIR      needs torch, timm; not torchvision
    python tools/benchmarks/architectures.py --build DIR       needs edge-fg[build,rtx]; no GPU

Weights are random: coverage of operators and graph shapes is measured here, not accuracy.
"""

from __future__ import annotations

import sys
from pathlib import Path

from common import parser_of, write_json

ARCHITECTURES: tuple[str, ...] = (
    *("resnet18", "resnet50", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv4_conv_small"),
    *("efficientnet_b0", "tf_efficientnetv2_b0", "regnetx_002", "regnety_004", "convnext_atto"),
    *("convnext_tiny", "densenet121", "inception_v3", "inception_v4", "vgg11_bn", "seresnet50"),
    *("resnest14d", "ghostnet_100", "mobileone_s0", "repvgg_a0", "hrnet_w18_small", "mixnet_s"),
    *("fastvit_t8", "vit_tiny_patch16_224", "deit_tiny_patch16_224"),
    *("swin_tiny_patch4_window7_224", "efficientformer_l1", "mobilevit_xs", "edgenext_xx_small"),
    "maxvit_tiny_tf_224",
)


def main(arguments: list[str] | None = None) -> int:
    """Export or build; return the exit code."""
    parser = parser_of(__doc__)
    step = parser.add_mutually_exclusive_group(required=True)
    step.add_argument("--export", type=Path, metavar="DIR", help="write NAME.onnx for each")
    step.add_argument("--build", type=Path, metavar="DIR", help="prepare, convert and compile")
    parser.add_argument(
        "--images",
        type=Path,
        metavar="DIR",
        help="take the normalisation layers' statistics from JPEG files there, not from noise",
    )
    parser.add_argument("--only", nargs="*", default=None, metavar="NAME")
    parser.add_argument("--precision", nargs="*", default=["fp32", "fp16", "int8"])
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    names = tuple(options.only or ARCHITECTURES)
    if options.export:
        from architectures_export import export_all

        return export_all(names, options.export, options.images)
    from architectures_build import build_all, costs

    rows = []
    for name in names:
        rows += build_all((name,), options.build, tuple(options.precision))
        # After each: a long run that is stopped keeps what it found.
        write_json(options.json, rows)
    print(costs(rows))
    return 0 if rows and all(row["status"] == "built" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
