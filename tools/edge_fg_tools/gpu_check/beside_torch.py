"""Whether edge_fg and PyTorch work in one process, in the same context."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from edge_fg.cuda import Device, Stream
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize
from edge_fg.preprocess.cuda import CudaPreprocessor
from edge_fg_tools.gpu_check.results import CheckResult, Settings, not_measured
from edge_fg_tools.gpu_check.rivals import why_not
from edge_fg_tools.gpu_check.timing import current_context


def check_torch(settings: Settings) -> CheckResult:
    """Compute with PyTorch before, between and after, and write into a tensor of its own."""
    if reason := why_not("torch"):
        return not_measured(reason)
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return not_measured(f"torch {torch.__version__} has no CUDA here")
    spec = PreprocessSpec(Resize("squash", (64, 64)), mean=(120.0,) * 3, std=(60.0,) * 3)
    frame = np.random.default_rng(settings.seed).integers(0, 256, (480, 640, 3), dtype=np.uint8)
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
    found = tensor.cpu().numpy()
    wrong = {
        "the thread's context changed": {inside, current_context()} != {context},
        "edge_fg used another context than PyTorch": not shared,
        "PyTorch computed something else": not (
            torch.equal(before, between) and torch.equal(before, after)
        ),
        "the tensor differs from the CPU's": found.tobytes() != expected.tobytes(),
    }
    said = [text for text, happened in wrong.items() if happened]
    if said:
        return CheckResult("failed", "; ".join(said))
    text = f"torch {torch.__version__}: the same context, unchanged; its tensor was written to"
    return CheckResult("passed", text)
