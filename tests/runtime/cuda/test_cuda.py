"""edge_fg.cuda through real PyCUDA, on a driver whose device is the processor."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

NOTHING = dict.fromkeys(
    ["buffers", "page_locked", "streams", "events", "modules", "graphs", "retains", "pushed"], 0
)


def kinds(error: dict) -> list[str]:
    return error["kinds"]


# --- the device ---------------------------------------------------------------------------------


def test_the_device_says_what_it_is(software_cuda):
    found = software_cuda.run(
        "on_device.open_device", driver=12060, capability=110, integrated=1, devices=2
    )
    assert found["device"] == {
        "name": "Software GPU 0",
        "compute_capability": "11.0",
        "driver_version": 12060,
        "integrated": True,
        "total_bytes": 8 << 30,
        "max_shared_bytes": 100 << 10,
    }
    assert found["counts"] == NOTHING


def test_the_second_device_is_reached_by_its_number(software_cuda):
    found = software_cuda.run("on_device.open_device", 1, devices=2)
    assert found["device"]["name"] == "Software GPU 1"
    assert found["counts"] == NOTHING


def test_the_gpus_are_found_without_a_context(software_cuda):
    found = [[f"Software GPU {number}", "8.7", 8, 8 << 30, False] for number in range(2)]
    assert software_cuda.run("on_device.gpus", devices=2) == [found, "", 0]
    none, why, _ = software_cuda.run("on_device.gpus", devices=0)
    assert none == []
    assert "no usable device" in why


def test_only_the_primary_context_is_used(software_cuda):
    seen = software_cuda.run("on_device.only_the_primary_context")
    assert seen["before"] == NOTHING
    assert seen["inside"] == {**NOTHING, "retains": 2, "pushed": 1}
    assert seen["left"] == {**NOTHING, "retains": 1}
    assert seen["end"] == NOTHING


def test_anything_can_be_closed_from_another_thread(software_cuda):
    assert software_cuda.run("on_device.closing_from_another_thread") == NOTHING


def test_closing_the_device_closes_the_rest_youngest_first(software_cuda):
    seen = software_cuda.run("on_device.closes_what_is_open")
    made = ["stream", "event", "device buffer", "page-locked buffer", "module", "graph"]
    assert seen["order"] == made[::-1]
    assert seen["after"] == NOTHING
    assert all("is closed: make a new one" in message for message in seen["errors"])


def test_what_is_dropped_unclosed_warns_and_is_freed(software_cuda):
    seen = software_cuda.run("on_device.closes_what_is_open")
    assert seen["warnings"] == ["unclosed device buffer"]
    assert seen["before"]["buffers"] == 1  # the one that is still held


def test_dropped_resources_may_be_collected_at_any_time(software_cuda):
    assert software_cuda.run("on_device.collected_at_any_time") == {**NOTHING, "retains": 1}


def test_a_dropped_device_lets_go_of_the_context(software_cuda):
    assert software_cuda.run("on_device.dropped_device") == [1, 0]


def test_a_program_that_closes_nothing_ends_quietly(software_cuda):
    # `run` fails where anything is written to stderr, as PyCUDA's destructors like to do.
    assert software_cuda.run("on_device.dropped_unclosed") == 1


# --- memory, streams, kernels, graphs -----------------------------------------------------------


def test_copies_and_kernels(software_cuda):
    seen = software_cuda.run("on_device.copies_and_kernels")
    assert seen["before"] == [7.0] * 5
    assert seen["after"] == [-3.0, 1.5, 2.25, 65535.0, 7.0]
    argument, launch, name, small, striped, empty, image = seen["errors"]
    assert "1.5 can't be a kernel's argument" in argument
    assert "launch the kernel `add`" in launch
    assert "find the kernel `subtract`" in name
    assert "4000 bytes can't be copied" in small
    assert "contiguous" in striped
    assert "0 bytes" in empty
    assert "not an image" in image
    assert seen["counts"] == NOTHING


def test_work_waits_in_its_stream_and_events_order_streams(software_cuda):
    seen = software_cuda.run("on_device.streams_and_events")
    assert seen["early"] == [0, 0, 0, 0]
    assert seen["late"] == [11, 12, 13, 14]
    assert 0 < seen["elapsed"] < 1000
    assert "time between two events" in seen["error"]["message"]
    assert seen["counts"] == NOTHING


def test_graphs_are_captured_once_and_replayed(software_cuda):
    seen = software_cuda.run("on_device.graphs")
    assert seen["untouched"] == [0] * 8
    assert seen["seen"] == [[17] * 8, [27] * 8, [37] * 8]
    allocates, waits, refused = seen["errors"]
    assert "can't allocate 4 bytes" in allocates["message"]
    assert "STREAM_CAPTURE_UNSUPPORTED" in waits["message"]
    assert "can't instantiate a CUDA graph" in refused["message"]
    assert seen["own"] == '"work\'s own"'
    assert seen["alive"] == [1, 1]
    assert len(seen["elapsed"]) == 2
    assert all(0 < ms < 1000 for ms in seen["elapsed"])
    assert "record an event" in seen["outside"]["message"]
    assert seen["counts"] == NOTHING


@pytest.mark.skipif(
    np.lib.NumpyVersion(np.__version__) < "1.22.0", reason="PyCUDA's tools need NumPy 1.22"
)
def test_pycuda_itself_works_in_the_same_context(software_cuda):
    seen = software_cuda.run("on_device.pycuda_itself")
    assert seen["result"] == [-7.0, 0.5, 1e300, 65534.0]
    assert seen["counts"] == NOTHING


def test_threads_share_a_device(software_cuda):
    seen = software_cuda.run("on_device.threads")
    assert seen == {"failures": [], "counts": NOTHING}


def test_waiting_lets_other_threads_run(software_cuda):
    assert software_cuda.run("on_device.side_by_side") == {"met": 3, "counts": NOTHING}


def test_ten_thousand_rounds_leave_nothing(software_cuda):
    seen = software_cuda.run("on_device.many", 10_000)
    assert seen["after"] == seen["kept"] == {**NOTHING, "retains": 1}
    assert seen["end"] == NOTHING
    half, whole = seen["peak_kib"]
    assert whole - half < 1024


# --- what is missing ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"devices": 0}, ["no CUDA device", "CUDA_VISIBLE_DEVICES"]),
        ({"fail": "cuInit:0:803"}, ["too old, or was updated", "restart the machine"]),
        ({"fail": "cuInit:0:999"}, ["can't be started", "nvidia-smi"]),
    ],
    ids=["no device", "half an update", "broken"],
)
def test_without_a_usable_device_one_line_says_what_to_do(software_cuda, settings, words):
    error = software_cuda.run("on_device.open_device", **settings)["error"]
    assert kinds(error)[:2] == ["CudaUnavailableError", "BackendUnavailableError"]
    assert all(word in error["message"] for word in words), error["message"]


def test_a_number_beyond_the_devices(software_cuda):
    error = software_cuda.run("on_device.open_device", 3, devices=2)["error"]
    assert kinds(error)[0] == "CudaUnavailableError"
    assert "no GPU 3: this machine has 2" in error["message"]


def test_a_context_that_cant_be_had(software_cuda):
    found = software_cuda.run("on_device.open_device", fail="cuDevicePrimaryCtxRetain:0:2")
    assert kinds(found["error"])[0] == "DeviceMemoryError"
    assert found["counts"] == NOTHING


def test_a_driver_that_is_too_old_for_pycuda(old_software_cuda):
    error = old_software_cuda("cuLinkCreate_v2").run("on_device.open_device")["error"]
    assert kinds(error)[0] == "CudaUnavailableError"
    assert "driver is too old for this PyCUDA" in error["message"]
    assert "cuLinkCreate_v2" in error["message"]


def test_a_driver_that_is_too_old_for_graphs(old_software_cuda):
    error = old_software_cuda("cuGraphInstantiateWithFlags").run("on_device.open_device")["error"]
    assert kinds(error)[0] == "CudaUnavailableError"
    assert "too old: it lacks cuGraphInstantiateWithFlags" in error["message"]


def child(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


REPORT = """
from edge_fg.cuda import Device
from edge_fg.errors import EdgeFGError
try:
    Device()
except EdgeFGError as error:
    print(type(error).__name__, str(error))
"""


def test_without_a_driver_one_line_says_so():
    said = child(
        "import ctypes\nreal = ctypes.CDLL\n"
        "def absent(name, *rest, **more):\n"
        "    if 'libcuda' in str(name):\n"
        "        raise OSError(f'{name}: cannot open shared object file')\n"
        "    return real(name, *rest, **more)\n"
        "ctypes.CDLL = absent\n" + REPORT
    )
    assert said.startswith("CudaUnavailableError there is no NVIDIA driver (libcuda.so.1")
    assert said.count("\n") == 1


def test_without_pycuda_one_line_says_how_to_get_it():
    # Of the driver only that it is there matters.
    said = child(
        "import sys\nsys.modules['pycuda'] = None\n"
        "from edge_fg.cuda import libcuda\nlibcuda.load = lambda: None\n" + REPORT
    )
    assert said == (
        "MissingDependencyError pycuda is needed to use the GPU and is not installed: "
        "run `pip install 'edge-fg[cuda]'`\n"
    )


# --- failures -----------------------------------------------------------------------------------


def test_out_of_memory_is_its_own_error_and_leaves_nothing(software_cuda):
    seen = software_cuda.run("on_device.out_of_memory")
    unmapped = seen["errors"].pop("cuMemHostGetDevicePointer")
    for function, error in seen["errors"].items():
        assert kinds(error)[:2] == ["DeviceMemoryError", "CudaError"], function
        assert "smaller batch" in error["message"]
    assert "allocate 5.0 MiB" in seen["errors"]["cuMemAlloc"]["message"]
    assert "page-lock 1200 bytes" in seen["errors"]["cuMemHostAlloc"]["message"]
    assert kinds(unmapped)[0] == "CudaError"
    assert seen["after"] == seen["before"]
    assert seen["end"] == NOTHING


@pytest.mark.parametrize("code", [209, 222])
def test_kernels_for_other_gpus_or_newer_drivers(software_cuda, code):
    error = software_cuda.run("on_device.unsuitable_kernels", code)
    assert kinds(error)[0] == "CudaUnavailableError"
    assert "compute capability 8.7, driver 13000" in error["message"]


@pytest.mark.parametrize("code", [700, 719, 999])
def test_a_device_lost_while_a_kernel_runs(software_cuda, code):
    seen = software_cuda.run("on_device.device_lost", code)
    assert seen["copy"] is seen["launch"] is None
    for error in (seen["noticed"], *seen["later"]):
        assert kinds(error)[:2] == ["DeviceLostError", "CudaError"]
        assert "this process can't use it any more and must restart" in error["message"]
    assert seen["lost"]
    assert seen["closing"] is None
    assert seen["retains"] == seen["pushed"] == 0


@pytest.mark.parametrize("where", ["cuLaunchKernel", "cuMemcpyHtoDAsync", "cuStreamSynchronize"])
def test_a_device_lost_at_a_call(software_cuda, where):
    seen = software_cuda.run("on_device.device_lost", 700, where)
    assert kinds(seen["noticed"])[0] == "DeviceLostError"
    assert seen["retains"] == seen["pushed"] == 0


def test_a_device_lost_beyond_reach_is_closed_quietly(software_cuda):
    seen = software_cuda.run("on_device.lost_beyond_reach")
    for error in (seen["first"], *seen["later"]):
        assert kinds(error)[0] == "DeviceLostError"
    assert seen["closing"] is None
    assert seen["left"] == 0


def test_closing_tells_of_a_loss_that_nobody_saw(software_cuda):
    seen = software_cuda.run("on_device.lost_unnoticed")
    assert kinds(seen["closing"])[0] == "DeviceLostError"
    assert seen["again"] is None
    assert seen["retains"] == 0


def test_a_forked_process_is_told_to_spawn(software_cuda):
    error = software_cuda.run("on_device.forked")
    assert kinds(error)[0] == "CudaError"
    assert "start processes with `spawn`" in error["message"]
