"""Other libraries on the GPU, where they are installed: their speed, and beside edge_fg."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray

from edge_fg.cuda import Device, Stream
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize, presets
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg.preprocess.pixel_layout import PixelFormat
from edge_fg_tools.gpu_check.cases import PRESET, full_hd_case
from edge_fg_tools.gpu_check.findings import Findings
from edge_fg_tools.gpu_check.timing import current_context

_SHORT, _CROP = 256, 224
_WARM_UP: Final = 10


def test_torchvision(found: Findings) -> None:
    """Measure torchvision's antialiased resize on the GPU, on a frame that lies there already."""
    functional = _import_peer("torch", "torchvision.transforms.functional")
    torch = _import_torch()
    spec, frame = presets()[PRESET], _frame(found)
    on_gpu = torch.from_numpy(frame).cuda()
    _compare(
        found,
        f"torchvision with torch {torch.__version__}",
        frame,
        lambda: torchvision_tensor(torch, functional, on_gpu, spec),
        lambda: torch.cuda.Event(enable_timing=True),
        lambda began, ended: began.elapsed_time(ended),
    )


def torchvision_tensor(torch: Any, functional: Any, frame: Any, spec: PreprocessSpec) -> Any:
    """Return (1, 3, 224, 224) of a (H, W, 3) uint8 BGR tensor, as torchvision's recipes do."""
    image = frame.flip(2).permute(2, 0, 1)[None]
    resized = functional.resize(image, [_SHORT], antialias=True)
    cropped = functional.center_crop(resized, [_CROP, _CROP])
    mean, std = (
        torch.tensor(of, device=frame.device).reshape(1, 3, 1, 1) for of in (spec.mean, spec.std)
    )
    return (cropped.float() - mean) / std


def test_cupy(found: Findings) -> None:
    """Measure CuPy's linear zoom, which has no antialiasing, on a frame that lies there already."""
    ndimage = _import_peer("cupy", "cupyx.scipy.ndimage")
    cupy = _import_peer("cupy")
    if cupy.cuda.runtime.getDeviceCount() == 0:
        pytest.skip(f"cupy {cupy.__version__} finds no GPU")
    spec, frame = presets()[PRESET], _frame(found)
    on_gpu = cupy.asarray(frame)
    _compare(
        found,
        f"cupy {cupy.__version__}",
        frame,
        lambda: _cupy_tensor(cupy, ndimage, on_gpu, spec),
        cupy.cuda.Event,
        cupy.cuda.get_elapsed_time,
    )


def test_torch(found: Findings) -> None:
    """Compute with PyTorch before, between and after, and write into a tensor of its own."""
    torch = _import_torch()
    spec = PreprocessSpec(Resize("squash", (64, 64)), mean=(120.0,) * 3, std=(60.0,) * 3)
    frame = np.random.default_rng(found.settings.seed).integers(
        0, 256, (480, 640, 3), dtype=np.uint8
    )
    expected = CpuPreprocessor(spec)([frame])
    matrix = torch.arange(4096, device="cuda", dtype=torch.float32).reshape(64, 64) / 4096
    before = (matrix @ matrix).cpu()
    context = current_context()
    tensor = torch.zeros(expected.shape, device="cuda")
    torch.cuda.synchronize()
    with Device() as device:
        with Stream(device) as stream, CudaPreprocessor(device, spec, 1) as gpu:
            gpu([frame], None, tensor.data_ptr(), stream)
            between = (matrix @ matrix).cpu()
            stream.synchronize()
            with device.use():
                shared = current_context() == context
        inside = current_context()
    after = (matrix @ matrix).cpu()
    computed = tensor.cpu().numpy()
    wrong = {
        "the thread's context changed": {inside, current_context()} != {context},
        "edge_fg used another context than PyTorch": not shared,
        "PyTorch computed something else": not (
            torch.equal(before, between) and torch.equal(before, after)
        ),
        "the tensor differs from the CPU's": computed.tobytes() != expected.tobytes(),
    }
    said = [text for text, happened in wrong.items() if happened]
    assert not said, "; ".join(said)
    found.conclude(
        f"torch {torch.__version__}: the same context, unchanged; its tensor was written to"
    )


def _cupy_tensor(cupy: Any, ndimage: Any, frame: Any, spec: PreprocessSpec) -> Any:
    scale = _SHORT / min(frame.shape[:2])
    resized = ndimage.zoom(
        frame.astype(cupy.float32), (scale, scale, 1), order=1, mode="nearest", grid_mode=True
    )
    top, left = ((side - _CROP) // 2 for side in resized.shape[:2])
    cropped = resized[top : top + _CROP, left : left + _CROP, ::-1]
    mean, std = cupy.asarray(spec.mean, "float32"), cupy.asarray(spec.std, "float32")
    return ((cropped - mean) / std).transpose(2, 0, 1)[None]


def _compare(
    found: Findings,
    name: str,
    frame: NDArray[np.uint8],
    work: Callable[[], Any],
    event: Callable[[], Any],
    elapsed_ms: Callable[[Any, Any], float],
) -> None:
    """Note how long `work` takes the GPU, by the library's own events, and how far its pixels are.

    That is from Pillow's, on noise, the hardest image. `work` returns its tensor, still on the GPU.
    """
    times = []
    tensor: Any = None
    for turn in range(_WARM_UP + found.settings.repeats):
        began, ended = event(), event()
        began.record()
        tensor = work()
        ended.record()
        ended.synchronize()
        if turn >= _WARM_UP:
            times.append(1e3 * elapsed_ms(began, ended))
    # CuPy's way to NumPy, or PyTorch's.
    pixels = tensor.get() if hasattr(tensor, "get") else tensor.cpu().numpy()
    spec = presets()[PRESET]
    expected = CpuPreprocessor(spec)([frame]).astype(np.float64)
    assert pixels.shape == expected.shape, f"{name} gave a tensor of {pixels.shape}"
    apart = np.abs((pixels.astype(np.float64) - expected) * np.reshape(spec.std, (1, 3, 1, 1)))
    found.spread("resident bgr x1", times, "us")
    found.figure("largest difference from Pillow", float(apart.max()), "levels of 255", 2)
    found.figure("mean difference from Pillow", float(apart.mean()), "levels of 255")
    p50, largest = found.value("resident bgr x1 p50"), round(float(apart.max()), 2)
    found.conclude(f"{name}: {p50:g} us (p50), up to {largest:g} levels from Pillow", timed=True)


def _frame(found: Findings) -> NDArray[np.uint8]:
    case = full_hd_case(presets()[PRESET], PixelFormat.BGR, 1, found.settings.seed)
    return np.ascontiguousarray(case.sources[0].to_bgr(case.data[0]))


def _import_peer(*names: str) -> Any:
    """Return the last of some modules; the check is not measured where one can't be imported."""
    module: Any = None
    for name in names:
        package = name.partition(".")[0]
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        try:
            module = importlib.import_module(name)
        except (ImportError, OSError, RuntimeError) as error:
            # Such as one that was built for another version of PyTorch or CUDA.
            pytest.skip(f"{package} can't be imported: {' '.join(str(error).split())}")
    return module


def _import_torch() -> Any:
    """Return PyTorch; the check is not measured where it has no GPU."""
    torch = _import_peer("torch")
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} has no CUDA here")
    return torch
