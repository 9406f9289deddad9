"""Execution slots and what a frame costs the host, on an engine that needs no TensorRT."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge_fg.backends.tensorrt.execution_slot import ExecutionSlot
from edge_fg.cuda import Device, Stream
from edge_fg.cuda.pool import Pool
from edge_fg.preprocess import CpuPreprocessor, PreprocessSpec, Resize, presets
from edge_fg.preprocess.raw_frame import Pixels
from edge_fg_tools.gpu_check import clocks
from edge_fg_tools.gpu_check.calls import Infer, measure_kinds
from edge_fg_tools.gpu_check.cases import PRESET
from edge_fg_tools.gpu_check.findings import Findings
from edge_fg_tools.gpu_check.stand_in import MAX_BATCH, OUTPUT, StandInEngine, open_slots

_THREADS: Final = 4
_BATCHES: Final = (1, 1, 3, MAX_BATCH)
_TURNS: Final = 5  # of each batch size and frame size, so that it comes often enough for a graph
_SIZES: Final = ((48, 64), (77, 33), (120, 160))
_SPEC: Final = PreprocessSpec(Resize("squash", (32, 32)), mean=(120.0,) * 3, std=(60.0,) * 3)


def test_slots(found: Findings, device: Device) -> None:
    """Compare the outputs of threads in execution slots, with CUDA graphs of several sizes."""
    random = np.random.default_rng(found.settings.seed)
    frames = [
        [random.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(2 * MAX_BATCH)]
        for size in _SIZES
    ]
    expected = [list(CpuPreprocessor(_SPEC)(of_one_size)) for of_one_size in frames]
    rounds = max(1, found.settings.inferences // (1000 * _THREADS))
    for cuda_graph in (False, True):
        name = "with CUDA graphs" if cuda_graph else "without CUDA graphs"
        engine = StandInEngine(device, _SPEC)
        with (
            open_slots(engine, _SPEC, cuda_graph=cuda_graph, limit=_THREADS) as slots,
            ThreadPoolExecutor(_THREADS) as threads,
        ):
            check = partial(_wrong, slots, frames, expected, rounds)
            wrong = sum(threads.map(check, range(_THREADS)))
            used = len(slots.items)
        batches = _THREADS * rounds * len(_SIZES) * len(_BATCHES) * _TURNS
        found.figure(f"{name}: batches", batches)
        found.figure(f"{name}: batches that differ", wrong)
        found.figure(f"{name}: engine queued by the host", engine.queued)
        found.figure(f"{name}: slots", used)
        found.target(
            f"{name}, outputs of {_THREADS} threads",
            "the same bits as the CPU's",
            f"{wrong} of {batches} batches differ",
            not wrong,
        )
        found.target(
            f"{name}, launches",
            "graphs" if cuda_graph else "no graphs",
            f"the engine was queued {engine.queued} times",
            (engine.queued < batches) == cuda_graph,
        )
    found.conclude(f"{_THREADS} threads in execution slots, on an engine that copies its input")


def _wrong(
    slots: Pool[ExecutionSlot],
    frames: Sequence[Sequence[NDArray[np.uint8]]],
    expected: Sequence[Sequence[NDArray[Any]]],
    rounds: int,
    thread: int,
) -> int:
    """Return how many of a thread's batches differ from what the CPU gives."""
    wrong = 0
    for turn in range(rounds * len(frames) * len(_BATCHES) * _TURNS):
        batch = _BATCHES[turn // _TURNS % len(_BATCHES)]
        size = (turn // (_TURNS * len(_BATCHES)) + thread) % len(frames)
        chosen = [(turn + thread + i) % len(frames[size]) for i in range(batch)]
        with slots.lend() as slot:
            outputs, _ = slot.run([frames[size][i] for i in chosen], [None] * batch)
        right = np.stack([expected[size][i] for i in chosen])
        wrong += outputs[OUTPUT].tobytes() != right.tobytes()
    return wrong


def test_overhead(found: Findings, stream: Stream) -> None:
    """Measure what a full-HD frame costs the host, on an engine that takes the GPU no time."""
    spec = presets()[PRESET]
    engine = StandInEngine(stream.device, spec)

    @contextlib.contextmanager
    def opened(cuda_graph: bool) -> Iterator[Infer]:
        with open_slots(engine, spec, cuda_graph=cuda_graph) as slots:

            def infer(frames: Sequence[Pixels]) -> float:
                with slots.lend() as slot:
                    return slot.run(frames, [None] * len(frames))[1]

            yield infer

    measure_kinds(found, spec, stream, opened, (1, MAX_BATCH), judge_whole=False)
    found.facts(clocks.read(stream.device))
    host = found.value("bgr graph x1 host, less its copy of the frame")
    found.conclude(
        f"the host takes {host:g} us for a 1080p BGR frame (p50, CUDA graph)", timed=True
    )
