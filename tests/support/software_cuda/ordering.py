"""What the scenarios share: counters and failures of the software driver, and how to report.

``python SCENARIOS.py NAME [ARGUMENT ...]`` calls the function NAME and prints as JSON what it
returns. What scenarios check themselves, they assert.
"""

from __future__ import annotations

import ctypes
import json
import sys

from edge_fg.errors import EdgeFGError

COUNTERS = ["buffers", "page_locked", "streams", "events", "modules", "graphs", "retains", "pushed"]
EVER = ["allocations", "launches", "copies", "corrupted"]
IMAGE = b"""// PTX of the kernels in kernels.c
.version 8.0
.target sm_72
.address_size 64
.visible .entry add(.param .u64 values, .param .u32 count, .param .u32 amount) { ret; }
.visible .entry mixed(.param .u64 out, .param .s8 a, .param .f32 b, .param .f64 c, .param .u16 d)
{ ret; }
.visible .entry meet(.param .u64 arrived, .param .u32 count) { ret; }
"""


def driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def counts(names=COUNTERS) -> dict[str, int]:
    library = driver()
    every = {name: library.software_cuda_count(i) for i, name in enumerate(COUNTERS + EVER)}
    assert every["corrupted"] == 0, "a kernel or copy wrote beyond its memory"
    return {name: every[name] for name in names}


def fail(function: str, code: int, calls_before: int = 0, once: bool = False) -> None:
    driver().software_cuda_fail(function.encode(), ctypes.c_long(calls_before), code, int(once))


def heal() -> None:
    driver().software_cuda_heal()


def report(error: BaseException) -> dict[str, object]:
    text = str(error)
    assert isinstance(error, EdgeFGError), repr(error)
    assert "\n" not in text
    assert len(text) > 20
    return {"kinds": [kind.__name__ for kind in type(error).__mro__], "message": text}


def attempt(action) -> dict[str, object] | None:
    try:
        action()
    except EdgeFGError as error:
        return report(error)
    return None


def main(scenarios: dict[str, object]) -> None:
    print(json.dumps(scenarios[sys.argv[1]](*sys.argv[2:])))
