"""Write timm classifiers with random weights as ONNX; the step that needs torch."""

from __future__ import annotations

import sys
import time
import types
from pathlib import Path
from typing import Any

_OPSET = 17
_CLASSES = 100
_IMAGES = 32
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_STUBS = (
    *("torchvision", "torchvision.ops", "torchvision.ops.misc", "torchvision.datasets"),
    *("torchvision.transforms", "torchvision.transforms.functional"),
)


def export_all(names: tuple[str, ...], folder: Path, images: Path | None = None) -> int:
    """Export each architecture to ``folder/NAME.onnx``; those already there are kept.

    Normalisation layers get the statistics of noise, or of some `images` (a folder of JPEG
    files): a network that shall be fed images answers sanely only with the latter.
    """
    folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for name in names:
        target = folder / f"{name}.onnx"
        if target.exists():
            continue
        started = time.monotonic()
        try:
            _export(name, target, images)
        except Exception as error:  # noqa: BLE001 (one architecture must not stop the others)
            failed += 1
            print(f"{name}: failed: {type(error).__name__}: {error}", file=sys.stderr)
        else:
            print(f"{name}: {time.monotonic() - started:.1f} s", flush=True)
    return 1 if failed else 0


def _export(name: str, target: Path, images: Path | None) -> None:
    import torch

    timm = _timm_without_torchvision()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = timm.create_model(name, pretrained=False, num_classes=_CLASSES, exportable=True)
    _randomise_zero_scales(model)
    _, height, width = model.default_cfg["input_size"]
    with torch.no_grad():
        # One pass in training mode gives the normalisation layers statistics to live by.
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):  # noqa: SLF001
                module.momentum = 1.0
        some = torch.randn(4, 3, height, width)
        if images is not None:
            some = torch.from_numpy(_read(images, height, width))
        model.train()(some)
        model.eval()
    temporary = target.with_suffix(".part")
    torch.onnx.export(
        model,
        (torch.randn(1, 3, height, width),),
        str(temporary),
        dynamo=False,
        opset_version=_OPSET,
        input_names=["input"],
        output_names=["logits"],
        dynamic_axes={"input": {0: "N"}, "logits": {0: "N"}},
    )
    temporary.rename(target)


def _read(folder: Path, height: int, width: int) -> Any:
    """Return images, evenly spread over a folder, prepared as ImageNet's are."""
    import numpy as np
    from PIL import Image, ImageOps

    files = sorted(folder.rglob("*.jpg"))
    tensors = []
    for at in np.linspace(0, len(files) - 1, _IMAGES).round().astype(int):
        with Image.open(files[at]) as image:
            fitted = ImageOps.fit(image.convert("RGB"), (width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(fitted, np.float32) / 255
        tensors.append((pixels - _MEAN) / _DEVIATION)
    return np.ascontiguousarray(np.stack(tensors).transpose(0, 3, 1, 2), np.float32)


def _randomise_zero_scales(model: Any) -> None:
    """Randomise scales initialised to (nearly) zero: their branches would do nothing."""
    import torch

    with torch.no_grad():
        for label, parameter in model.named_parameters():
            is_scale = parameter.ndim <= 1 or "gamma" in label or "layer_scale" in label
            if is_scale and not label.endswith("bias") and float(parameter.abs().max()) < 1e-3:
                parameter.uniform_(0.2, 1.0)


def _timm_without_torchvision() -> Any:
    """Import timm; it needs only names of torchvision that these models never call."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        for name in _STUBS:
            module = _Stub(name)
            sys.modules[name] = module
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
    import timm

    return timm


def _anything(_: object, name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _Anything(name, (), {})


class _Anything(type):
    """The type of a class that has every public attribute, each again such a class."""

    __getattr__ = _anything


class _Stub(types.ModuleType):
    """A module in which every public name is an empty class."""

    __getattr__ = _anything
