"""PyCUDA has one home, and nothing of CUDA is touched before it is asked for."""

from __future__ import annotations

import ast
import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge_fg
import edge_fg_calibration
import edge_fg_tools
from edge_fg.cuda import libcuda


def sources() -> list[tuple[str, Path]]:
    found = []
    for package in (edge_fg, edge_fg_calibration, edge_fg_tools):
        root = Path(package.__file__).parent
        found += [
            (".".join([package.__name__, *path.relative_to(root).with_suffix("").parts]), path)
            for path in sorted(root.rglob("*.py"))
        ]
    return found


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute | ast.Name):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if called in {"import_module", "__import__"} and node.args:
                names.add(getattr(node.args[0], "value", ""))
    return names


def test_only_edge_fg_cuda_imports_pycuda():
    homes = {
        name
        for name, path in sources()
        if any(str(n).split(".")[0] == "pycuda" for n in imported(path))
    }
    assert homes == {"edge_fg.cuda.pycuda_driver"}


def test_nobody_makes_a_context_of_his_own():
    for name, path in sources():
        text = path.read_text()
        assert "make_context" not in text, name
        assert "pycuda.autoinit" not in imported(path), name
        assert "cuCtxCreate" not in text, name


@pytest.mark.parametrize(
    "module", ["edge_fg", "edge_fg.cuda", "edge_fg.preprocess.cuda", "edge_fg.backends.selection"]
)
def test_importing_touches_neither_pycuda_nor_the_driver(module):
    program = (
        "import ctypes, sys\n"
        "real = ctypes.CDLL.__init__\n"
        "def opened(self, name, *rest, **more):\n"
        "    assert 'cuda' not in str(name), name\n"
        "    real(self, name, *rest, **more)\n"
        "ctypes.CDLL.__init__ = opened\n"
        f"import {module}\n"
        "print([name for name in sys.modules if name.startswith('pycuda')])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stdout) == (0, "[]\n"), result.stderr


def test_every_function_of_the_driver_is_typed():
    """What is called through ctypes without a signature passes pointers as 32-bit numbers."""
    typed = set(libcuda._SIGNATURES)
    for name, path in sources():
        if not name.startswith("edge_fg.cuda.") or name == "edge_fg.cuda.device":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr.startswith("cu")
                and (node.attr[2:3].isupper())
            ):
                assert node.attr in typed, f"{name} calls {node.attr}"


def test_the_signatures_are_those_of_the_header(tmp_path: Path):
    """Number and size of each function's parameters, against the installed CUDA's cuda.h."""
    include = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"
    if not (include / "cuda.h").is_file() or shutil.which("g++") is None:
        pytest.skip("no CUDA header (set CUDA_HOME) or no C++ compiler")
    shows = "\n".join(f'show("{name}", decltype(&{name})());' for name in libcuda._SIGNATURES)
    (tmp_path / "show.cpp").write_text(
        "#include <cstdio>\n#include <initializer_list>\n#include <cuda.h>\n"
        "template <class... A> void show(const char *name, CUresult (*)(A...)) {\n"
        '  std::printf("%s", name);\n'
        '  for (unsigned size : {(unsigned)sizeof(A)...}) std::printf(" %u", size);\n'
        '  std::printf("\\n");\n}\n'
        f"int main() {{\n{shows}\n}}\n"
    )
    subprocess.run(
        ["g++", f"-I{include}", "-o", str(tmp_path / "show"), str(tmp_path / "show.cpp")],
        check=True,
    )
    shown = subprocess.run([str(tmp_path / "show")], capture_output=True, text=True, check=True)
    expected = [
        " ".join([name, *(str(ctypes.sizeof(kind)) for kind in kinds)])
        for name, kinds in libcuda._SIGNATURES.items()
    ]
    assert [line.rstrip() for line in shown.stdout.splitlines()] == expected
