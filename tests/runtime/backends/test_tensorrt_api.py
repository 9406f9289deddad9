"""Every name of TensorRT that the code uses exists in each version that it claims to work with.

`edge_fg.backends.tensorrt.api` states the names. That the code uses no other is mypy's to prove
(no expression of it may be `Any`); that each exists, with these parameters and results, is read
from the real bindings, which are imported over stub libraries in child processes.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import typing
import zipfile
from pathlib import Path

import pytest

from edge_fg.backends.tensorrt import api
from edge_fg.backends.tensorrt.api import REAL_NAMES, RTX_ONLY
from edge_fg.backends.tensorrt.engine_layers import parse_layers
from support.children import environment

HERE = Path(__file__).resolve().parent
# The modules that hold objects of TensorRT.
USERS = (
    "plan_provider",
    "tensorrt.build",
    "tensorrt.build_job",
    "tensorrt.engine",
    "tensorrt.engine_context",
    "tensorrt.library",
    "tensorrt.message_log",
)
# The first and last release with wheels for JetPack 6, JetPack 7's, and the newest.
RELEASES = {
    "10.3.0": ("tensorrt-cu12-bindings==10.3.0", 10),
    "10.13.3.9": ("tensorrt-cu12-bindings==10.13.3.9", 10),
    "11.4.0.106": ("tensorrt-cu13-bindings==11.4.0.106", 11),
}
C_SYMBOLS = (
    *("getNvOnnxParserVersion", "createNvOnnxParser_INTERNAL"),
    *("createInferBuilder_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createInferRefitter_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
    *("getPluginRegistry", "getBuilderPluginRegistry"),
    *("initLibNvInferPlugins", "getInferLibVersion"),
)


def protocols() -> dict[str, type]:
    """The protocols of `api`, by name."""
    found = {
        name: value
        for name, value in vars(api).items()
        if isinstance(value, type) and value.__module__ == api.__name__
    }
    assert len(found) > 20
    return found


def annotation(value: object) -> str:
    """The class of TensorRT, or the builtin, that an annotation of ours names, or ""."""
    text = value if isinstance(value, str) else getattr(value, "__name__", "")
    text = text.replace("| None", "").strip()
    if text in REAL_NAMES:
        return REAL_NAMES[text]
    return text if text in {"bool", "int", "str"} else ""


def claims() -> list[dict[str, object]]:
    """What the code relies on: one entry for each class, method, property and enum member."""
    made: list[dict[str, object]] = []
    for protocol, kind in protocols().items():
        owner = REAL_NAMES.get(protocol, "")
        common = {"owner": owner, "rtx_only": protocol in RTX_ONLY, "protocol": protocol}
        for name, text in vars(kind).get("__annotations__", {}).items():
            real = text.removeprefix("type[").removesuffix("]")
            made.append({**common, "name": name, "kind": "value", "returns": annotation(real)})
        for name, value in vars(kind).items():
            if isinstance(value, property):
                result = value.fget.__annotations__["return"]
                entry = {"name": name, "kind": "value", "returns": annotation(result)}
                made.append({**common, **entry})
            elif inspect.isfunction(value) and (not name.startswith("_") or name == "__init__"):
                if value.__qualname__ != f"{protocol}.{name}":
                    continue  # what typing puts into a protocol without an __init__
                parameters = list(inspect.signature(value).parameters)[1:]
                entry = {
                    "name": name,
                    "kind": "call",
                    "parameters": parameters,
                    "returns": annotation(value.__annotations__.get("return", "")),
                }
                made.append({**common, **entry})
    return made


CHECK = r"""
import importlib, json, re, sys

trt = importlib.import_module(sys.argv[1])
rtx = "rtx" in sys.argv[1]
problems = []


def text_of(thing):
    if isinstance(thing, property):
        return thing.fget.__doc__ or ""
    return getattr(thing, "__doc__", None) or ""


def last(name):
    # The one class whose C++ name stands in a signature.
    name = name.strip().replace("nvonnxparser::IParserError", "ParserError")
    return name.split(".")[-1].rstrip(")]")


def overloads(doc, name):
    for line in doc.splitlines():
        found = re.match(r"(?:\d+\. )?" + re.escape(name) + r"\((.*)\) -> (.+)$", line.strip())
        if found:
            yield found[1], found[2]


def split(parameters):
    depth, current, parts = 0, "", []
    for letter in parameters:
        depth += (letter in "([{<") - (letter in ")]}>")
        if letter == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += letter
    return [part for part in [*parts, current.strip()] if part]


def fits(claim, parameters, result):
    given = [part for part in split(parameters) if not part.startswith("self")]
    names = [part.split(":")[0].strip() for part in given]
    wanted = claim["parameters"]
    if names[: len(wanted)] != wanted:
        return False
    if any("=" not in part for part in given[len(wanted):]):
        return False
    return not claim["returns"] or last(result) == claim["returns"]


def check(claim):
    owner, name = claim["owner"], claim["name"]
    holder = getattr(trt, owner, None) if owner else trt
    where = f"{owner}.{name}" if owner else name
    if holder is None:
        return f"there is no class {owner}"
    if not owner and claim["kind"] == "call" and name != "nptype":
        made = getattr(trt, name, None)
        doc = text_of(made.__init__) if made is not None else ""
        if made is None or claim["returns"] != name:
            return f"there is no class {name}"
        found = list(overloads(doc, "__init__"))
        claim = {**claim, "returns": "None"}
        if not any(fits(claim, *one) for one in found):
            return f"{name}({claim['parameters']}) is {found}"
        return None
    thing = getattr(holder, name, None)
    if thing is None:
        return f"there is no {where}"
    if claim["kind"] == "call":
        if name == "nptype":
            return None if callable(thing) else f"{where} can't be called"
        found = list(overloads(text_of(thing), name))
        if not any(fits(claim, *one) for one in found):
            return f"{where}({claim['parameters']}) -> {claim['returns']} is {found}"
    elif isinstance(thing, property):
        result = re.search(r"-> (.+)", text_of(thing))
        if claim["returns"] and result and last(result[1]) != claim["returns"]:
            return f"{where} is {result[1]}, not {claim['returns']}"
    return None


for claim in json.loads(sys.stdin.read()):
    if claim["rtx_only"] and not rtx:
        continue
    problem = check(claim)
    if problem:
        problems.append(problem)
print(json.dumps({"version": trt.__version__, "problems": problems}))
"""


def examine(
    module: str, made: list[dict[str, object]], *paths: Path, **variables: str
) -> dict[str, object]:
    child = subprocess.run(
        [sys.executable, "-c", CHECK, module],
        input=json.dumps(made),
        capture_output=True,
        text=True,
        env=environment(*paths, **variables),
        check=False,
    )
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)


def stub_libraries(folder: Path, number: int) -> Path:
    """Libraries of TensorRT's names whose functions do nothing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("a C compiler is needed for the stub libraries")
    source = folder / "stub.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in C_SYMBOLS))
    for library in ("nvinfer", "nvonnxparser", "nvinfer_plugin"):
        name = f"lib{library}.so.{number}"
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name)]
        subprocess.run([*command, str(source)], check=True)
    return folder


def bindings(requirement: str, folder: Path) -> Path:
    """Fetch a wheel of TensorRT's bindings (1 MB) and unpack it; skips where there is none."""
    if sys.platform != "linux":
        pytest.skip("TensorRT's bindings are for Linux")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    done = subprocess.run(
        [*command, str(folder), "--only-binary=:all:", "--timeout=20", requirement],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        pytest.skip(f"{requirement} can't be fetched for this Python: {lines[-1:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.mark.slow
@pytest.mark.parametrize("release", RELEASES)
def test_each_name_exists_in_the_real_bindings(tmp_path: Path, release: str):
    requirement, number = RELEASES[release]
    site = bindings(requirement, tmp_path)
    libraries = stub_libraries(tmp_path, number)
    found = examine("tensorrt_bindings", claims(), site, LD_LIBRARY_PATH=str(libraries))
    assert found["version"] == release
    assert found["problems"] == []


@pytest.mark.slow
def test_the_check_finds_what_is_not_there(tmp_path: Path):
    requirement, number = RELEASES["10.3.0"]
    site = bindings(requirement, tmp_path)
    libraries = stub_libraries(tmp_path, number)
    wrong = [
        {"owner": "ICudaEngine", "name": "get_binding_name", "kind": "call", "parameters": []},
        {"owner": "IRuntimeCache", "name": "reset", "kind": "call", "parameters": []},
        {"owner": "ICudaEngine", "name": "num_io_tensors", "kind": "value", "returns": "str"},
        {"owner": "IExecutionContext", "name": "execute_async_v3", "kind": "call"},
        {"owner": "IBuilderConfig", "name": "set_timing_cache", "kind": "call"},
        {"owner": "TensorIOMode", "name": "SHAPE", "kind": "value"},
        {"owner": "", "name": "Runtime", "kind": "call", "returns": "Runtime"},
    ]
    parameters = {"execute_async_v3": ["stream"], "set_timing_cache": ["cache"], "Runtime": []}
    made = [
        {"parameters": parameters.get(str(c["name"]), []), "returns": "", "rtx_only": False, **c}
        for c in wrong
    ]
    found = examine("tensorrt_bindings", made, site, LD_LIBRARY_PATH=str(libraries))
    assert len(found["problems"]) == len(wrong), found["problems"]


def test_each_name_exists_in_tensorrt_rtx():
    if importlib.util.find_spec("tensorrt_rtx") is None:
        pytest.skip("TensorRT-RTX is not installed")
    made = claims()
    assert sum(bool(claim["rtx_only"]) for claim in made) >= 5
    assert examine("tensorrt_rtx", made)["problems"] == []


def test_the_stand_in_has_the_same_interface(standin):
    """What the orchestration is tested with must not be kinder than the real thing."""
    for claim in claims():
        if claim["rtx_only"]:
            continue
        owner, name = str(claim["owner"]), str(claim["name"])
        holder = getattr(standin.trt, owner) if owner else standin.trt
        if claim["kind"] == "call":
            given = list(inspect.signature(getattr(holder, name)).parameters)
            wanted = [*(["self"] if owner else []), *claim["parameters"]]
            assert given[: len(wanted)] == wanted, f"{owner}.{name}"


def source_path(repository: Path, module: str) -> Path:
    """Where a module of `edge_fg.backends` lies in the checkout."""
    return repository / "edge_fg" / "backends" / f"{module.replace('.', '/')}.py"


def source(module: str) -> ast.Module:
    spec = importlib.util.find_spec(f"edge_fg.backends.{module}")
    return ast.parse(Path(spec.origin).read_text())


def test_nothing_is_stated_that_the_code_does_not_use():
    used = set()
    for module in USERS:
        for node in ast.walk(source(module)):
            if isinstance(node, ast.Attribute):
                used.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                used.add(node.name)
            elif isinstance(node, ast.Constant):
                used.add(node.value)
    stated = {str(claim["name"]) for claim in claims()} - {"__init__"}
    assert stated - used == set()


def test_what_only_tensorrt_rtx_has_is_asked_for_first():
    only = {str(claim["name"]) for claim in claims() if claim["rtx_only"]}
    everywhere = {str(claim["name"]) for claim in claims() if not claim["rtx_only"]}
    for module in USERS:
        for function in ast.walk(source(module)):
            if not isinstance(function, ast.FunctionDef):
                continue
            inside = list(ast.walk(function))
            names = {node.attr for node in inside if isinstance(node, ast.Attribute)}
            if names & (only - everywhere):
                asked = {ast.unparse(node) for node in inside if isinstance(node, ast.If)}
                assert any("hasattr(" in text for text in asked), f"{module}.{function.name}"


def test_no_object_of_tensorrt_escapes_the_types():
    """Casts are only from the imported module, and to what a guard has shown."""
    casts = []
    for module in USERS:
        tree = source(module)
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert "Any" not in names, f"{module} uses Any"
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"cast", "getattr"}:
                casts.append(ast.unparse(node))
    trt = [text for text in casts if "TensorRT" in text or "Rtx" in text]
    assert sorted(trt) == [
        "cast('RtxEngine', engine)",
        "cast('TensorRT', module)",
        "cast('TensorRTRTX', self._trt)",
    ]
    others = [text for text in casts if text not in trt]
    assert all("__version__" in text or "_errors" in text for text in others), others


@pytest.fixture(scope="module")
def mypy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mypy-cache")


def untyped_uses(repository: Path, text: str, folder: Path, cache: Path) -> list[str]:
    """The lines of a module where a name of TensorRT is used of an object without a type."""
    names = "|".join(sorted({str(claim["name"]) for claim in claims()}))
    module = folder / "module.py"
    module.write_text(text)
    command = [sys.executable, "-m", "mypy", "--config-file", str(repository / "setup.cfg")]
    command += ["--disallow-any-expr", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, "--cache-dir", str(cache), str(module)],
        cwd=repository,
        env={**os.environ, "MYPYPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not re.search(r"attr-defined|import-not-found", done.stdout), done.stdout
    lines = text.splitlines()
    reported = re.findall(r'module.py:(\d+): error: Expression has type "Any"', done.stdout)
    at = [lines[int(number) - 1] for number in reported]
    return [line for line in at if re.search(rf"\.({names})\b", line)]


def test_no_other_module_holds_an_object_of_tensorrt(repository: Path):
    allowed = {source_path(repository, module) for module in USERS}
    for package in ("edge_fg", "calibration", "tools"):
        for path in (repository / package).rglob("*.py"):
            if path in allowed:
                continue
            tree = ast.parse(path.read_text())
            for node in ast.walk(tree):
                imported = getattr(node, "names", []) if isinstance(node, ast.Import) else []
                assert not {alias.name for alias in imported} & {"tensorrt", "tensorrt_rtx"}, path
                # Elsewhere the module may be imported to see whether it can be, and let go.
                value = getattr(node, "value", None)
                if isinstance(value, ast.Call) and not isinstance(node, ast.Expr):
                    assert ast.unparse(value.func) not in {"import_library", "message_log"}, path


@pytest.mark.slow
@pytest.mark.parametrize("module", USERS)
def test_each_use_of_tensorrt_is_typed(
    repository: Path, tmp_path: Path, mypy_cache: Path, module: str
):
    """Then mypy, which runs with every change, refuses whatever name is not stated."""
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    text = source_path(repository, module).read_text()
    assert untyped_uses(repository, text, tmp_path, mypy_cache) == []
    if module == "tensorrt.engine":
        loosened = text.replace("-> CudaEngine:", "-> Any:")
        loosened = loosened.replace("TYPE_CHECKING, cast", "TYPE_CHECKING, Any, cast")
        assert len(untyped_uses(repository, loosened, tmp_path, mypy_cache)) >= 5


def test_the_hints_resolve():
    for kind in protocols().values():
        for value in vars(kind).values():
            if inspect.isfunction(value):
                assert typing.get_type_hints(value, vars(api)) is not None
    assert set(REAL_NAMES) | {"TensorRT", "TensorRTRTX"} == set(protocols())
    assert set(protocols()) >= RTX_ONLY
    assert all(re.fullmatch(r"\w+", name) for name in REAL_NAMES.values())


def test_layers_are_read_from_both_forms_of_the_inspector():
    """TensorRT 11 says `I/O Tensors` for `Bindings`, and a tensor's format and type apart."""
    ten = '{"Layers": [{"Name": "conv", "LayerType": "Conv", "Inputs": [{"Name": "x", '
    ten += '"Format/Datatype": "Half"}], "Outputs": []}, "named only"], "Bindings": ["x"]}'
    eleven = '{"Layers": [{"Name": "conv", "LayerType": "Conv", "Inputs": [{"Name": "x", '
    eleven += '"Format": "kLINEAR", "DataType": "Half"}], "Outputs": []}, "named only"], '
    eleven += '"I/O Tensors": [{"Name": "x", "IOMode": "Input"}]}'
    for text in (ten, eleven):
        first, second = parse_layers(text)
        assert (first.name, first.kind, first.inputs) == ("conv", "Conv", ("Half",))
        assert (second.name, second.kind) == ("named only", "")


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"Layers": 3}', "[" * 99_999, "null"])
def test_an_inspector_that_says_something_else_breaks_nothing(text: str):
    assert parse_layers(text) == []
