"""Other ways from a full-HD frame to a tensor on the GPU, where they are installed."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, presets
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg_tools.gpu_check.results import (
    CheckResult,
    Figure,
    Settings,
    not_measured,
    spread,
    timed,
)
from edge_fg_tools.gpu_check.speed import PRESET, full_hd

_SHORT, _CROP = 256, 224
_WARM_UP: Final = 10


def why_not(*names: str) -> str:
    """Return which module can't be imported and why, "" if all can."""
    for name in names:
        package = name.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            return f"{package} is not installed"
        try:
            importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            # Such as one that was built for another version of PyTorch or CUDA.
            return f"{package} can't be imported: {' '.join(str(error).split())}"
    return ""


def check_torchvision(settings: Settings) -> CheckResult:
    """Measure torchvision's antialiased resize on the GPU, on a frame that lies there already."""
    if reason := why_not("torch", "torchvision.transforms.functional"):
        return not_measured(reason)
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return not_measured(f"torch {torch.__version__} has no CUDA here")
    spec, frame = presets()[PRESET], _frame(settings)
    on_gpu = torch.from_numpy(frame).cuda()
    times = []
    tensor = None
    for turn in range(_WARM_UP + settings.repeats):
        began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        began.record()
        tensor = torchvision_tensor(on_gpu, spec)
        ended.record()
        ended.synchronize()
        if turn >= _WARM_UP:
            times.append(1e3 * began.elapsed_time(ended))
    assert tensor is not None
    name = f"torchvision with torch {torch.__version__}"
    return _result(name, times, tensor.cpu().numpy(), settings, frame)


def torchvision_tensor(frame: Any, spec: PreprocessSpec) -> Any:
    """Return (1, 3, 224, 224) of a (H, W, 3) uint8 BGR tensor, as torchvision's recipes do."""
    functional: Any = importlib.import_module("torchvision.transforms.functional")
    torch: Any = importlib.import_module("torch")
    image = frame.flip(2).permute(2, 0, 1)[None]
    resized = functional.resize(image, [_SHORT], antialias=True)
    cropped = functional.center_crop(resized, [_CROP, _CROP])
    mean, std = (
        torch.tensor(of, device=frame.device).reshape(1, 3, 1, 1) for of in (spec.mean, spec.std)
    )
    return (cropped.float() - mean) / std


def check_cupy(settings: Settings) -> CheckResult:
    """Measure CuPy's linear zoom, which has no antialiasing, on a frame that lies there already."""
    if reason := why_not("cupy", "cupyx.scipy.ndimage"):
        return not_measured(reason)
    cupy: Any = importlib.import_module("cupy")
    if cupy.cuda.runtime.getDeviceCount() == 0:
        return not_measured(f"cupy {cupy.__version__} finds no GPU")
    spec, frame = presets()[PRESET], _frame(settings)
    on_gpu = cupy.asarray(frame)
    times = []
    tensor = None
    for turn in range(_WARM_UP + settings.repeats):
        began, ended = cupy.cuda.Event(), cupy.cuda.Event()
        began.record()
        tensor = _cupy_tensor(cupy, on_gpu, spec)
        ended.record()
        ended.synchronize()
        if turn >= _WARM_UP:
            times.append(1e3 * cupy.cuda.get_elapsed_time(began, ended))
    return _result(f"cupy {cupy.__version__}", times, cupy.asnumpy(tensor), settings, frame)


def _cupy_tensor(cupy: Any, frame: Any, spec: PreprocessSpec) -> Any:
    ndimage: Any = importlib.import_module("cupyx.scipy.ndimage")
    scale = _SHORT / min(frame.shape[:2])
    resized = ndimage.zoom(
        frame.astype(cupy.float32), (scale, scale, 1), order=1, mode="nearest", grid_mode=True
    )
    top, left = ((side - _CROP) // 2 for side in resized.shape[:2])
    cropped = resized[top : top + _CROP, left : left + _CROP, ::-1]
    mean, std = cupy.asarray(spec.mean, "float32"), cupy.asarray(spec.std, "float32")
    return ((cropped - mean) / std).transpose(2, 0, 1)[None]


def _frame(settings: Settings) -> NDArray[np.uint8]:
    sources, data = full_hd(PixelFormat.BGR, 1, settings.seed)
    return np.ascontiguousarray(sources[0].to_bgr(data[0]))


def _result(
    name: str,
    times: list[float],
    tensor: NDArray[Any],
    settings: Settings,
    frame: NDArray[np.uint8],
) -> CheckResult:
    """Return the times, and how far the pixels are from Pillow's on noise, the hardest image."""
    spec = presets()[PRESET]
    expected = CpuPreprocessor(spec)([frame]).astype(np.float64)
    if tensor.shape != expected.shape:
        return CheckResult("failed", f"{name} gave a tensor of {tensor.shape}")
    std = np.reshape(spec.std, (1, 3, 1, 1))
    apart = np.abs((tensor.astype(np.float64) - expected) * std)
    figures = (
        *spread("resident bgr x1", times, "us"),
        Figure("largest difference from Pillow", round(float(apart.max()), 2), "levels of 255"),
        Figure("mean difference from Pillow", round(float(apart.mean()), 3), "levels of 255"),
    )
    text = f"{name}: {figures[0].value:g} us (p50), up to {figures[2].value:g} levels from Pillow"
    return timed(settings, text, figures)
