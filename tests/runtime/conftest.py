"""Fixtures of the runtime's tests."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from support.software_cuda import harness
from support.standin_tensorrt import fixtures, host_cuda


@pytest.fixture(scope="session")
def software_cuda():
    """A CUDA driver whose device is the processor; see software_cuda/."""
    if reason := harness.why_not():
        pytest.skip(reason)
    return harness.build()


@pytest.fixture(scope="session")
def gpu(software_cuda):
    """The same with the kernels that edge_fg ships."""
    return harness.with_shipped_kernels()


@pytest.fixture
def old_software_cuda(software_cuda):
    """Builds a driver that lacks the given functions, as an older one would."""

    def build(*lacking: str):
        flags = ["-DOLD_DRIVER"] if "cuGraphInstantiateWithFlags" in lacking else []
        return harness.build(*flags, lacking=lacking)

    return build


@pytest.fixture
def standin(monkeypatch: pytest.MonkeyPatch):
    """TensorRT and CUDA as stand-ins over host memory; see standin_tensorrt/."""
    made = fixtures.put_in_place(monkeypatch, host_cuda)
    yield made
    made.check()


@pytest.fixture
def no_thread_leaks() -> Iterator[None]:
    """Fail a test that leaves a thread behind."""
    before = set(threading.enumerate())
    yield
    if not set(threading.enumerate()) <= before:
        gc.collect()  # ends what nobody holds
    assert set(threading.enumerate()) <= before
