"""Builds the software CUDA driver and runs Python programs under it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import compiled

FOLDER = Path(__file__).resolve().parent
SOURCES = ("state.c", "memory.c", "stream.c", "module.c")
FLAGS = ("-O1", "-g", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-shared", "-fPIC")
_COMPILER = shutil.which("gcc") or shutil.which("cc")
_TIMEOUT_S = 240


def why_not() -> str:
    """Why no program can be run under the software driver here; "" if it can."""
    if sys.platform != "linux":
        return "the software CUDA driver is for Linux"
    if _COMPILER is None or shutil.which("nm") is None:
        return "a C compiler is needed to build the software CUDA driver"
    if _pycuda() is None:
        return "PyCUDA is not installed: `.ci/pycuda` builds it without a GPU"
    return ""


def _pycuda() -> Path | None:
    found = importlib.util.find_spec("pycuda")
    if found is None or found.origin is None:
        return None
    return next(Path(found.origin).parent.glob("_driver*.so"), None)


@dataclass
class Driver:
    """A built driver: the folder of its libcuda.so.1, and the library of its kernels."""

    folder: Path
    kernels: Path

    def with_kernels(self, library: Path) -> Driver:
        """Return the same driver with the kernels of `library`."""
        return Driver(self.folder, library)

    def environment(self, **settings: object) -> dict[str, str]:
        """What a child process needs; `settings` are EDGE_FG_SOFTWARE_<NAME>."""
        given = {f"EDGE_FG_SOFTWARE_{k.upper()}": str(v) for k, v in settings.items()}
        paths = [str(self.folder), os.environ.get("LD_LIBRARY_PATH", "")]
        return {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, paths)),
            "EDGE_FG_SOFTWARE_KERNELS": str(self.kernels),
            **given,
        }

    def run(self, scenario: str, *arguments: object, **settings: object) -> Any:
        """Run a scenario, such as "cuda.graphs" of cuda.py, in a child; return what it returned.

        A warning, an unexpected line on stderr or an exit code but 0 fails the test.
        """
        module, _, function = scenario.partition(".")
        result = subprocess.run(
            [
                *(sys.executable, "-X", "faulthandler", "-W", "error"),
                *(str(FOLDER / f"{module}.py"), function, *map(str, arguments)),
            ],
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        assert result.returncode == 0, f"{scenario}: {result.stderr}\n{result.stdout}"
        assert not result.stderr, f"{scenario} wrote: {result.stderr}"
        return json.loads(result.stdout)


def build(*flags: str, lacking: tuple[str, ...] = ()) -> Driver:
    """Build a driver, with stubs for what PyCUDA links against, less `lacking`."""
    module = _pycuda()
    assert module is not None
    made_of = [str(_COMPILER), *FLAGS, *flags, "-", *lacking, FOLDER, module]
    folder = compiled.kept("software-cuda", made_of, lambda folder: _build(folder, flags, lacking))
    return Driver(folder, folder / "kernels.so")


def with_shipped_kernels() -> Driver:
    """A driver whose kernels are those that edge_fg ships, compiled for the processor."""
    return build().with_kernels(compiled.cpu_form())


def with_engines() -> Driver:
    """The same with kernels that call the stand-in of TensorRT back."""
    call, kernels = FOLDER.parent / "standin_tensorrt" / "call.c", compiled.cpu_form()
    command = [compiled.compiler("g++"), "-shared", "-fPIC", "-x", "c", str(call), "-x", "none"]
    command += ["-Wl,--no-as-needed", str(kernels), "-o"]

    def link(folder: Path) -> None:
        subprocess.run([*command, str(folder / "both.so")], check=True)

    return build().with_kernels(compiled.kept("engines", [*command, call], link) / "both.so")


def _build(target: Path, flags: tuple[str, ...], lacking: tuple[str, ...]) -> None:
    library = target / "libcuda.so.1"
    stubs = target / "stubs.c"
    sources = [str(FOLDER / source) for source in SOURCES]
    stubs.write_text("")
    for _ in range(2):
        _compile(
            *flags,
            *("-fvisibility=hidden", "-Wl,-soname,libcuda.so.1", "-o", str(library)),
            *(*sources, str(stubs), "-lpthread", "-ldl"),
        )
        missing = sorted(_needed() - _symbols(library, "--defined-only") - set(lacking))
        stub = '__attribute__((visibility("default"))) int {}(void) {{ return 801; }}\n'
        stubs.write_text("".join(stub.format(symbol) for symbol in missing))
        if not missing:
            break
    _compile("-o", str(target / "kernels.so"), str(FOLDER / "kernels.c"))


def _needed() -> set[str]:
    module = _pycuda()
    assert module is not None
    return {name for name in _symbols(module, "--undefined-only") if re.match(r"cu[A-Z]", name)}


def _symbols(library: Path, which: str) -> set[str]:
    listed = subprocess.run(
        ["nm", "-D", which, str(library)], capture_output=True, text=True, check=True
    )
    return {line.split()[-1].split("@")[0] for line in listed.stdout.splitlines()}


def _compile(*arguments: str) -> None:
    result = subprocess.run(
        [str(_COMPILER), *FLAGS, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
