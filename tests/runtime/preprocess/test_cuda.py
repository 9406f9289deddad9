"""Preprocessing on the GPU path: real PyCUDA, the shipped kernels' own code on the processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.properties import sweep

NOTHING = dict.fromkeys(
    ["buffers", "page_locked", "streams", "events", "modules", "graphs", "retains", "pushed"], 0
)


@pytest.mark.parametrize("seed", sweep([1, 2]))
def test_frames_give_the_same_bits_as_on_the_cpu(gpu, seed):
    seen = gpu.run("preprocessing.frames", seed)
    assert seen["images"] > 600
    assert seen["left"] == {**NOTHING, "retains": 1}
    assert seen["end"] == NOTHING


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 12))
def test_many_more_frames_give_the_same_bits(gpu, seed):
    assert gpu.run("preprocessing.frames", seed, 160, 4)["images"] > 2000


@pytest.mark.parametrize(("seed", "capability"), [(1, 72), (2, 87), (3, 110), (4, 120)])
def test_raw_formats_on_several_architectures(gpu, seed, capability):
    # The driver reads names and parameters of the kernels from the image for the architecture.
    seen = gpu.run("preprocessing.raw", seed, 40, capability=capability)
    assert seen["images"] > 100
    assert seen["end"] == NOTHING


def test_full_hd_in_place_and_copied(gpu):
    assert gpu.run("preprocessing.real_size") == NOTHING


def test_nothing_is_allocated_after_the_first_of_a_geometry(gpu):
    seen = gpu.run("preprocessing.steady", 300)
    assert seen["mapped"]["made"] == {"allocations": 0, "copies": 0, "launches": 600}
    assert seen["staged"]["made"] == {"allocations": 0, "copies": 300, "launches": 600}
    for way in ("mapped", "staged"):
        before, after = seen[way]["alive"]
        assert before == after
    assert seen["end"] == NOTHING


@pytest.mark.slow
def test_ten_thousand_frames_allocate_nothing(gpu):
    seen = gpu.run("preprocessing.steady", 10_000)
    assert seen["staged"]["made"] == {"allocations": 0, "copies": 10_000, "launches": 20_000}


def test_the_tables_of_many_geometries_are_bounded(gpu):
    seen = gpu.run("preprocessing.bounded")
    assert max(seen["alive"][50:]) == min(seen["alive"][50:]) < 40
    assert seen["end"] == NOTHING


@pytest.mark.parametrize("transfer", ["mapped", "staged"])
def test_threads_share_a_preprocessor(gpu, transfer):
    seen = gpu.run("preprocessing.threads", transfer)
    assert seen["failures"] == []
    assert seen["images"] > 300
    assert seen["end"] == NOTHING


@pytest.mark.parametrize("transfer", ["mapped", "staged"])
def test_batches_may_be_queued_faster_than_they_are_done(gpu, transfer):
    seen = gpu.run("preprocessing.pipelined", transfer)
    # Two calls are under way at once: the last two batches were still waiting.
    assert seen["waiting"] == 4
    assert seen["end"] == NOTHING


@pytest.mark.parametrize("transfer", ["mapped", "staged"])
def test_a_prepared_batch_is_captured_and_replayed(gpu, transfer):
    seen = gpu.run("preprocessing.captured", transfer)
    assert seen["allocated"] == 0
    few, short, signed = (error["message"] for error in seen["errors"])
    assert "1 images for a batch of 2" in few
    assert "10290 bytes" in short
    assert "int8" in signed
    assert seen["end"] == NOTHING


def test_what_cant_be_used_is_said_and_costs_nothing(gpu):
    seen = gpu.run("preprocessing.refused")
    images = ("grey", "float", "empty", "outside", "odd region", "short", "not bytes")
    for name, error in seen["errors"].items():
        expected = "ImageError" if name in images else "UsageError"
        expected = "CudaError" if name == "closed" else expected
        assert error["kinds"][0] == expected, name
    assert "1 to 2" in seen["errors"]["too many"]["message"]
    assert seen["after"] == seen["before"]
    assert seen["end"] == NOTHING


def test_every_call_of_the_driver_may_fail_and_the_next_batch_works(gpu):
    seen = gpu.run("preprocessing.failing")
    unused = {"cuMemHostGetDevicePointer staged"}
    assert {name for name, failed in seen["seen"].items() if failed == 0} == unused
    assert seen["left"] == {**NOTHING, "retains": 1}
    assert seen["end"] == NOTHING


@pytest.mark.parametrize(("where", "code"), [("kernel", 700), ("cuMemcpyHtoDAsync", 719)])
def test_a_device_lost_in_the_middle(gpu, where, code):
    errors = gpu.run("preprocessing.lost", where, code)
    assert errors[1:] == ["DeviceLostError"] * 4
    assert errors[0] == (None if where == "kernel" else "DeviceLostError")


@pytest.mark.parametrize(("integrated", "chosen"), [(1, "mapped"), (0, "staged")])
def test_the_way_of_images_follows_the_device(gpu, integrated, chosen):
    assert gpu.run("preprocessing.chosen_transfer", integrated=integrated) == chosen


@pytest.mark.real_data
def test_real_photographs(gpu, data_dir: Path):
    seen = gpu.run("preprocessing.real_images", data_dir)
    assert seen["images"] == 48
    assert seen["end"] == NOTHING
