"""What edge_fg.cuda does, in a child process under the software CUDA driver; see ordering.py."""

from __future__ import annotations

import ctypes
import gc
import json
import threading
import warnings

import numpy as np
from ordering import IMAGE, attempt, counts, driver, fail, heal, main

from edge_fg.cuda import (
    Device,
    DeviceBuffer,
    Event,
    Graph,
    HostBuffer,
    Module,
    Stream,
    copy_to_device,
    copy_to_host,
)

# --- the device ---------------------------------------------------------------------------------


def open_device(ordinal="0"):
    def work():
        with Device(int(ordinal)) as device:
            found.update(
                name=device.name,
                compute_capability=device.compute_capability,
                driver_version=device.driver_version,
                integrated=device.integrated,
                total_bytes=device.total_bytes,
                max_shared_bytes=device.max_shared_bytes,
            )

    found = {}
    error = attempt(work)
    return {"device": found, "error": error, "counts": counts()}


def only_the_primary_context():
    """Importing makes nothing; using leaves the thread's own contexts as they were."""
    library = driver()
    before = counts()
    library.cuInit(0)
    mine, current = ctypes.c_void_p(), ctypes.c_void_p()
    library.cuDevicePrimaryCtxRetain(ctypes.byref(mine), 0)  # as PyTorch does
    library.cuCtxPushCurrent_v2(mine)
    device = Device()
    for _ in range(3):
        with device.use(), device.use():
            library.cuCtxGetCurrent(ctypes.byref(current))
            assert current.value == mine.value
        DeviceBuffer(device, 10).close()
    inside = counts()
    device.close()
    library.cuCtxGetCurrent(ctypes.byref(current))
    assert current.value == mine.value, "the caller's context is no longer current"
    assert library.cuCtxPopCurrent_v2(ctypes.byref(current)) == 0
    left = counts()
    library.cuDevicePrimaryCtxRelease_v2(0)
    return {"before": before, "inside": inside, "left": left, "end": counts()}


def closing_from_another_thread():
    device = Device()
    buffer = DeviceBuffer(device, 100)
    stream, event = Stream(device), Event(device)
    held = HostBuffer(device, (4,), np.float32)
    for closed in (buffer, stream, event, held, device):
        thread = threading.Thread(target=closed.close)
        thread.start()
        thread.join()
    return counts()


def closes_what_is_open():
    """`Device.close` closes the rest, the youngest first; what is dropped warns and is freed."""
    device = Device()
    order = []
    resources = [
        Stream(device),
        Event(device),
        DeviceBuffer(device, 8),
        HostBuffer(device, (2, 3), np.uint8, mapped=True),
        Module(device, IMAGE),
    ]
    resources.append(Graph.capture(resources[0], lambda: None))
    for resource in resources:
        release = resource._release

        def noted(raw, release=release, what=resource._what):
            order.append(what)
            release(raw)

        resource._release = noted
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        DeviceBuffer(device, 16)
        gc.collect()
    before = counts()
    device.close()
    device.close()
    for resource in resources:
        resource.close()
        assert resource.closed
    errors = [
        attempt(lambda: DeviceBuffer(device, 1)),
        attempt(lambda: resources[2].pointer),
        attempt(lambda: resources[3].array),
        attempt(lambda: resources[3].device_pointer),
        attempt(resources[0].synchronize),
        attempt(lambda: resources[0].handle),
        attempt(lambda: resources[1].record(resources[0])),
        attempt(lambda: resources[4].function("add")),
        attempt(lambda: resources[5].launch(resources[0])),
        attempt(lambda: device.use().__enter__()),
    ]
    assert all(errors)
    return {
        "order": order,
        "before": before,
        "after": counts(),
        "warnings": [str(warning.message) for warning in caught],
        "errors": [error["message"] for error in errors],
    }


# --- memory, streams, kernels, graphs -----------------------------------------------------------


def copies_and_kernels():
    with Device() as device, Stream(device) as stream, Module(device, IMAGE) as module:
        add = module.function("add")
        values = np.arange(1000, dtype=np.int32)
        with DeviceBuffer(device, values.nbytes) as buffer:
            copy_to_device(buffer, values, stream)
            expected = values + 5
            values[:] = 0  # ordinary memory is taken over by the copy before it returns
            arguments = (buffer, np.int32(1000), np.int32(5))
            add.launch((4, 1, 1), (256, 1, 1), arguments, stream)
            result = np.zeros_like(values)
            copy_to_host(result, buffer.pointer, stream)
            stream.synchronize()
            np.testing.assert_array_equal(result, expected)
        with HostBuffer(device, (5,), np.float64, mapped=True) as host:
            function = module.function("mixed")
            arguments = (
                host.device_pointer,
                np.int8(-3),
                np.float32(1.5),
                np.float64(2.25),
                np.uint16(65535),
            )
            host.array[:] = 7
            function.launch((1, 1, 1), (1, 1, 1), arguments, stream)
            before = host.array.tolist()
            stream.synchronize()
            after = host.array.tolist()
        big = attempt(lambda: add.launch((1, 1, 1), (1, 1, 1), (0, 1.5), stream))
        wrong = attempt(lambda: add.launch((1, 1, 1), (2048, 1, 1), (0, 0, 0), stream))
        none = attempt(lambda: module.function("subtract"))
        with DeviceBuffer(device, 4) as tiny:
            small = attempt(lambda: copy_to_device(tiny, values, stream))
        striped = attempt(lambda: copy_to_device(1, values[::2], stream))
        nothing = attempt(lambda: DeviceBuffer(device, 0))
        add.launch((1, 1, 1), (1, 1, 1), (1, np.int32(0), np.int32(0)), stream, 60 << 10)
        bad = attempt(lambda: Module(device, b"not an image"))
    errors = [big, wrong, none, small, striped, nothing, bad]
    return {
        "before": before,
        "after": after,
        "errors": [error and error["message"] for error in errors],
        "counts": counts(),
    }


def streams_and_events():
    """Work of a stream happens when something waits for it, and events order streams."""
    with Device() as device, Module(device, IMAGE) as module:
        add = module.function("add")
        one, two = Stream(device), Stream(device)
        host = HostBuffer(device, (4,), np.int32)
        result = HostBuffer(device, (4,), np.int32)
        buffer = DeviceBuffer(device, 16)
        started, done = Event(device, timing=True), Event(device, timing=True)
        host.array[:] = [1, 2, 3, 4]
        result.array[:] = 0
        started.record(one)
        copy_to_device(buffer, host.array, one)
        add.launch((1, 1, 1), (4, 1, 1), (buffer, np.int32(4), np.int32(10)), one)
        done.record(one)
        two.wait(done)
        copy_to_host(result.array, buffer, two)
        early = result.array.tolist()
        two.synchronize()
        late = result.array.tolist()
        elapsed = done.elapsed_ms_since(started)
        untimed = Event(device)
        untimed.record(one)
        untimed.synchronize()
        error = attempt(lambda: untimed.elapsed_ms_since(started))
    return {"early": early, "late": late, "elapsed": elapsed, "error": error, "counts": counts()}


def graphs():
    with Device() as device, Module(device, IMAGE) as module, Stream(device) as stream:
        add = module.function("add")
        source = HostBuffer(device, (8,), np.int32)
        result = HostBuffer(device, (8,), np.int32)
        buffer = DeviceBuffer(device, 32)
        launches = 0

        def work():
            nonlocal launches
            launches += 1
            copy_to_device(buffer, source.array, stream)
            add.launch((1, 1, 1), (8, 1, 1), (buffer, np.int32(8), np.int32(3)), stream)
            add.launch((1, 1, 1), (8, 1, 1), (buffer, np.int32(8), np.int32(4)), stream)
            copy_to_host(result.array, buffer, stream)

        source.array[:] = result.array[:] = 0
        graph = Graph.capture(stream, work)
        stream.synchronize()
        untouched = result.array.tolist()
        seen = []
        for start in (10, 20, 30):
            source.array[:] = start
            graph.launch(stream)
            stream.synchronize()
            seen.append(result.array.tolist())
        alive = counts()["graphs"]

        def allocates():
            copy_to_device(buffer, source.array, stream)
            DeviceBuffer(device, 4)

        def refuses():
            copy_to_device(buffer, source.array, stream)
            raise KeyError("work's own")

        errors = [
            attempt(lambda: Graph.capture(stream, allocates)),
            attempt(lambda: Graph.capture(stream, stream.synchronize)),
        ]
        try:
            Graph.capture(stream, refuses)
        except KeyError as error:
            own = str(error)
        fail("cuGraphInstantiate", 801)
        errors.append(attempt(lambda: Graph.capture(stream, work)))
        heal()
        # Another thread's allocation doesn't spoil a capture in this one.
        spoiler = threading.Thread(target=lambda: DeviceBuffer(device, 64).close())

        def beside():
            work()
            spoiler.start()
            spoiler.join()

        with Graph.capture(stream, beside) as second:
            second.launch(stream)
            stream.synchronize()
        alive_after = counts()["graphs"]
        began, ended = Event(device, timing=True), Event(device, timing=True)

        def timed():
            began.record(stream, in_graph=True)
            work()
            ended.record(stream, in_graph=True)

        outside = attempt(lambda: began.record(stream, in_graph=True))
        elapsed = []
        with Graph.capture(stream, timed) as third:
            for _ in range(2):
                third.launch(stream)
                ended.synchronize()
                elapsed.append(ended.elapsed_ms_since(began))
        graph.close()
    return {
        "untouched": untouched,
        "seen": seen,
        "launches": launches,
        "alive": [alive, alive_after],
        "errors": errors,
        "elapsed": elapsed,
        "outside": outside,
        "own": own,
        "counts": counts(),
    }


def threads():
    """Eight threads use one device at once, each with its own stream and memory."""
    device = Device()
    module = Module(device, IMAGE)
    add = module.function("add")
    failures = []

    def work(seed):
        try:
            random = np.random.default_rng(seed)
            with Stream(device) as stream, DeviceBuffer(device, 4000) as buffer:
                for _ in range(50):
                    values = random.integers(0, 1000, 1000, dtype=np.int32)
                    copy_to_device(buffer, values, stream)
                    arguments = (buffer, np.int32(1000), np.int32(seed))
                    add.launch((4, 1, 1), (256, 1, 1), arguments, stream)
                    result = np.empty_like(values)
                    copy_to_host(result, buffer, stream)
                    stream.synchronize()
                    np.testing.assert_array_equal(result, values + seed)
        except BaseException as error:  # noqa: BLE001 (told by the main thread)
            failures.append(repr(error))

    workers = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    module.close()
    device.close()
    return {"failures": failures, "counts": counts()}


def side_by_side():
    """Threads that wait for their streams let each other run: their kernels meet."""
    with Device() as device, Module(device, IMAGE) as module:
        meet = module.function("meet")
        arrived = HostBuffer(device, (1,), np.int32, mapped=True)
        arrived.array[:] = 0

        def work():
            with Stream(device) as stream:
                arguments = (arrived.device_pointer, np.int32(3))
                meet.launch((1, 1, 1), (1, 1, 1), arguments, stream)
                stream.synchronize()

        workers = [threading.Thread(target=work) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        met = int(arrived.array[0])
    return {"met": met, "counts": counts()}


def many(iterations="10000"):
    """Make, use and close everything, over and over: nothing may be left."""
    import resource as unix

    device = Device()
    kept = counts()
    peak = []
    for i in range(int(iterations)):
        with (
            Stream(device) as stream,
            Event(device) as event,
            DeviceBuffer(device, 64) as buffer,
            HostBuffer(device, (16,), np.int32) as host,
        ):
            copy_to_device(buffer, host.array, stream)
            event.record(stream)
            if i % 100 == 0:
                with Module(device, IMAGE) as module:
                    add = module.function("add")
                    arguments = (buffer, np.int32(16), np.int32(1))
                    add.launch((1, 1, 1), (16, 1, 1), arguments, stream)
                with Graph.capture(stream, lambda: None) as graph:
                    graph.launch(stream)
            event.synchronize()
        if i in (int(iterations) // 2, int(iterations) - 1):
            peak.append(unix.getrusage(unix.RUSAGE_SELF).ru_maxrss)
    after = counts()
    device.close()
    return {"kept": kept, "after": after, "end": counts(), "peak_kib": peak}


def pycuda_itself():
    """PyCUDA's own interface beside ours, in the same context: packed parameters, a pool."""
    import pycuda.driver as cuda
    import pycuda.tools

    with Device() as device, device.use(), Stream(device) as stream:
        module = cuda.module_from_buffer(IMAGE)
        function = module.get_function("mixed").prepare("Pbfd" + "H")
        pool = pycuda.tools.DeviceMemoryPool()
        memory = pool.allocate(40)
        function.prepared_async_call(
            (1, 1), (1, 1, 1), stream.pycuda, int(memory), -7, 0.5, 1e300, 65534
        )
        result = np.zeros(4)
        copy_to_host(result, int(memory), stream)
        stream.synchronize()
        memory.free()
        pool.stop_holding()
        del memory, pool, function, module
    return {"result": result.tolist(), "counts": counts()}


def dropped_unclosed():
    """A program that ends, by an error too, without closing anything ends quietly."""
    global kept
    device = Device()
    stream = Stream(device)
    kept = [device, stream, Event(device), HostBuffer(device, (4,), np.int8), Module(device, IMAGE)]
    with device.use():
        return counts()["retains"]


def collected_at_any_time():
    """Dropped resources, in cycles, are collected in the middle of making others."""
    warnings.simplefilter("ignore", ResourceWarning)
    with Device() as device:
        for i in range(600):
            gc.set_threshold(1 + i % 40)
            held = [DeviceBuffer(device, 16), Event(device)]
            held.append(held)
            del held
        gc.set_threshold(700)
        gc.collect()
        return counts()


def dropped_device():
    """A device that is dropped lets go of the primary context."""
    device = Device()
    inside = counts()["retains"]
    del device
    gc.collect()
    return [inside, counts()["retains"]]


# --- failures -----------------------------------------------------------------------------------


def out_of_memory():
    with Device() as device, Stream(device) as stream:
        before = counts()
        errors = {}
        for function, action in {
            "cuMemAlloc": lambda: DeviceBuffer(device, 5 << 20),
            "cuMemHostAlloc": lambda: HostBuffer(device, (3, 100), np.float32),
            "cuStreamCreate": lambda: Stream(device),
            "cuEventCreate": lambda: Event(device),
            "cuModuleLoadData": lambda: Module(device, IMAGE),
        }.items():
            fail(function, 2)
            errors[function] = attempt(action)
            heal()
        fail("cuMemHostGetDevicePointer", 1)
        errors["cuMemHostGetDevicePointer"] = attempt(
            lambda: HostBuffer(device, (3,), np.float32, mapped=True)
        )
        heal()
        gc.collect()
        after = counts()
        DeviceBuffer(device, 5 << 20).close()  # and it works again
        stream.synchronize()
    return {"errors": errors, "before": before, "after": after, "end": counts()}


def unsuitable_kernels(code):
    with Device() as device:
        fail("cuModuleLoadData", int(code))
        return attempt(lambda: Module(device, IMAGE))


def device_lost(code="700", where="kernel"):
    """The device breaks; every later use says so, and closing is quiet."""
    device = Device()
    stream, event, module = Stream(device), Event(device), Module(device, IMAGE)
    buffer, host = DeviceBuffer(device, 64), HostBuffer(device, (16,), np.int32)
    add = module.function("add")
    graph = Graph.capture(stream, lambda: None)
    fail(where, int(code))
    copy = attempt(lambda: copy_to_device(buffer, host.array, stream))
    launch = attempt(
        lambda: add.launch((1, 1, 1), (1, 1, 1), (buffer, np.int32(1), np.int32(1)), stream)
    )
    noticed = attempt(stream.synchronize)
    lost = device.lost
    later = [
        attempt(lambda: copy_to_device(buffer, host.array, stream)),
        attempt(lambda: DeviceBuffer(device, 4)),
        attempt(event.synchronize),
        attempt(lambda: graph.launch(stream)),
    ]
    stream.close()
    host.close()
    closing = attempt(device.close)
    device.close()
    return {
        "copy": copy,
        "launch": launch,
        "noticed": noticed,
        "lost": lost,
        "later": later,
        "closing": closing,
        "retains": counts()["retains"],
        "pushed": counts()["pushed"],
    }


def lost_beyond_reach():
    """After the loss not even the context can be made current; closing is quiet all the same."""
    device = Device()
    stream = Stream(device)
    DeviceBuffer(device, 8).close()
    buffer = DeviceBuffer(device, 8)
    fail("cuStreamSynchronize", 700)
    first = attempt(stream.synchronize)
    fail("cuCtxPushCurrent", 700)
    later = [attempt(lambda: DeviceBuffer(device, 8)), attempt(stream.synchronize)]
    buffer.close()
    closing = attempt(device.close)
    return {"first": first, "later": later, "closing": closing, "left": counts()["retains"]}


def gpus():
    from edge_fg.cuda.device import find_gpus

    found, why_none = find_gpus()
    gpus = [
        [g.name, g.compute_capability, g.multiprocessors, g.total_bytes, g.integrated]
        for g in found
    ]
    return [gpus, why_none, counts()["retains"]]


def lost_unnoticed():
    """The failure of the last launch is found by closing, which still releases everything."""
    device = Device()
    stream, module = Stream(device), Module(device, IMAGE)
    buffer = DeviceBuffer(device, 64)
    add = module.function("add")
    fail("kernel", 700)
    add.launch((1, 1, 1), (1, 1, 1), (buffer, np.int32(1), np.int32(1)), stream)
    closing = attempt(device.close)
    return {"closing": closing, "again": attempt(device.close), "retains": counts()["retains"]}


def forked():
    """A child of fork can't use CUDA; it says what to do instead."""
    import os

    device = Device()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        fail("cuMemAlloc", 3)  # what a real driver answers there
        os.write(writer, json.dumps(attempt(lambda: DeviceBuffer(device, 4))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    said = json.loads(os.read(reader, 4096))
    device.close()
    return said


if __name__ == "__main__":
    main(globals())
