"""The house itself: which room may know which, what an import costs, what is public."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import edge_fg
import edge_fg_calibration
import edge_fg_tools

PACKAGES = (edge_fg, edge_fg_calibration, edge_fg_tools)
RANK = {"edge_fg": 0, "edge_fg_calibration": 1, "edge_fg_tools": 2}
# Inside the runtime: which rooms each room may import, beside itself and `SHARED`.
SHARED = {
    "_version",
    "boxes",
    "closing",
    "errors",
    "files",
    "grey",
    "image_formats",
    "images",
    "jpeg",
    "label_files",
    "label_markup",
    "labels",
    "opencv",
    "printing",
    "progress",
    "public_names",
}
ARROWS: dict[str, set[str]] = {
    "preprocess": {"cuda"},
    "cuda": set(),
    "http_server": set(),
    "bundle": {"preprocess"},
    "sources": {"preprocess"},
    "telemetry": {"http_server"},
    "backends": {"bundle", "cuda", "preprocess"},
    "recognition": {"backends", "bundle", "preprocess"},
    "result": {"sources"},
    "sinks": {"http_server", "result", "sources"},
    "tracking": {"preprocess", "result", "sources"},
    "pipeline": {"result", "sinks", "sources", "telemetry"},
    "__main__": set(),
}
CALIBRATION_ARROWS: dict[str, set[str]] = {
    "graph": set(),
    "statistics": {"graph"},
    "data": {"statistics"},
    "int8": {"graph", "statistics"},
    "budget": {"graph"},
    "corrections": {"budget", "data", "graph", "int8", "statistics"},
    "quantize": {"budget", "corrections", "data", "graph", "int8", "statistics"},
}
TOOLS_ARROWS: dict[str, set[str]] = {
    "compiling": set(),
    "evaluation": set(),
    "graph": set(),
    "kernels": set(),
    "report": set(),
    "ros": set(),
    "building": {"compiling", "evaluation", "graph", "report"},
    "fieldguide": {"building"},
    "gpu_check": {"building", "fieldguide"},
    "cli": {"building", "compiling", "evaluation", "fieldguide", "graph"},
    "__main__": {"cli"},
}
ROOMS = pytest.mark.parametrize(
    ("package", "arrows", "shared"),
    [
        (edge_fg, ARROWS, SHARED),
        (edge_fg_calibration, CALIBRATION_ARROWS, set()),
        (edge_fg_tools, TOOLS_ARROWS, set()),
    ],
    ids=["edge_fg", "edge_fg_calibration", "edge_fg_tools"],
)
MOST_LINES, MOST_CLASS_LINES, MOST_MODULES = 400, 200, 20
HEAVY = {"onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "torch", "cv2", "rich"}
HEAVY |= {"av", "jinja2", "onnxslim", "prometheus_client"}


def modules(package) -> list[tuple[str, Path]]:
    found = [(package.__name__, Path(package.__file__))]
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        spec = importlib.util.find_spec(info.name)
        found.append((info.name, Path(spec.origin)))
    return found


def import_statements(path: Path) -> Iterator[tuple[str, str]]:
    """Module and name (empty for a whole module) of each import, also of those for types alone."""
    yield from statements_of(ast.parse(path.read_text()), path)


def statements_of(tree: ast.AST, path: Path) -> Iterator[tuple[str, str]]:
    """Do as `import_statements` for what was parsed."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ((node.module, alias.name) for alias in node.names)


def imports(path: Path) -> set[str]:
    """Whatever a file imports: modules, and names in them."""
    found = set(import_statements(path))
    return {module for module, _ in found} | {f"{module}.{name}" for module, name in found if name}


def without_free(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """Leave out what leads nowhere, again and again: the rest lies on a circle, or before one."""
    graph = dict(graph)
    while free := [name for name, others in graph.items() if not others & graph.keys()]:
        for name in free:
            del graph[name]
    return graph


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_package_imports_one_above_it(package):
    for name, path in modules(package):
        for imported in imports(path):
            other = imported.split(".")[0]
            if other in RANK:
                assert RANK[other] <= RANK[package.__name__], f"{name} imports {imported}"


def imported_rooms(package, path: Path) -> set[str]:
    """Return the rooms of a package from which a file imports anything."""
    parts = [imported.split(".") for imported in imports(path)]
    return {part[1] for part in parts if part[0] == package.__name__ and len(part) > 1}


def test_onnx_runtime_is_imported_with_its_telemetry_off():
    """By `import_onnxruntime` alone; what is imported for types is not loaded."""
    for package in PACKAGES:
        for name, path in modules(package):
            text = path.read_text()
            tree = ast.parse(text if "onnxruntime" in text else "")
            for node in ast.walk(tree):
                if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                    node.body = []
            named = {module.split(".")[0] for module, _ in statements_of(tree, path)}
            assert "onnxruntime" not in named, f"{name}: use import_onnxruntime"


@ROOMS
def test_each_room_imports_only_what_it_may(package, arrows, shared):
    for name, path in modules(package):
        room = [*name.split("."), ""][1]
        if not room:
            continue  # the face may know all rooms
        assert room in shared | set(arrows), f"{room} is not among the arrows: what may it import?"
        allowed = shared | arrows.get(room, set()) | {room}
        wrong = imported_rooms(package, path) & (shared | set(arrows)) - allowed
        assert not wrong, f"{name} imports {wrong}"


@ROOMS
def test_every_arrow_is_one_that_is_used(package, arrows, shared):
    used: dict[str, set[str]] = {room: set() for room in arrows}
    for name, path in modules(package):
        room = [*name.split("."), ""][1]
        if room in arrows:
            used[room] |= imported_rooms(package, path)
    for room, allowed in arrows.items():
        assert allowed <= used[room], f"{room} imports no {allowed - used[room]}"


@ROOMS
def test_the_arrows_between_rooms_make_no_circle(package, arrows, shared):
    assert not without_free(arrows)


def test_no_modules_import_each_other_in_a_circle():
    known = {name: path for package in PACKAGES for name, path in modules(package)}
    graph = {}
    for importer, path in known.items():
        named = [(f"{module}.{name}", module) for module, name in import_statements(path)]
        graph[importer] = {full if full in known else module for full, module in named} - {importer}
    for package in PACKAGES:
        graph[package.__name__] = set()  # a face may know all modules
    assert not without_free(graph)


def test_the_suite_runs_against_the_installed_package(repository: Path):
    for package in PACKAGES:
        assert repository not in Path(package.__file__).resolve().parents or (
            "site-packages" in package.__file__
        ), f"{package.__name__} was imported from the checkout: run `make test`"


def loaded_after(code: str, *, whole: bool = False) -> set[str]:
    """Names of the modules that are loaded then; without `whole`, the packages alone."""
    part = "m" if whole else "m.split('.')[0]"
    program = f"{code}\nimport sys; print(' '.join({part} for m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_runtime_loads_nothing_heavy():
    assert not loaded_after("import edge_fg") & (HEAVY | {"edge_fg_tools", "edge_fg_calibration"})


def test_importing_the_runtime_loads_nothing_that_is_not_used_yet():
    names = loaded_after("import edge_fg", whole=True)
    assert {name for name in names if name.startswith("edge_fg")} == {
        "edge_fg",
        "edge_fg._version",
        "edge_fg.errors",
        "edge_fg.public_names",
    }


def test_a_pipeline_loads_no_event_loop_and_no_server_before_they_are_used():
    names = loaded_after("import edge_fg; edge_fg.Pipeline; edge_fg.stream", whole=True)
    unused = {"asyncio", "http.server", "ssl", "email", "html", "PIL.ImageDraw", "logging.config"}
    assert not names & unused


def test_importing_the_command_line_loads_nothing_heavy():
    assert not loaded_after("import edge_fg_tools.cli") & HEAVY


def test_every_module_imports():
    for package in PACKAGES:
        for name, path in modules(package):
            if name.endswith(("__main__", ".train", ".network")):
                continue  # one runs the program, the others need PyTorch
            assert importlib.import_module(name).__doc__, f"{path} has no docstring"


PUBLIC = {"__version__", "EdgeFGError", "load", "open_source", "stream", "follow_visits"}
PUBLIC |= {"Answer", "Choice", "Classifier", "EngineOptions", "Latency", "Prediction"}
PUBLIC |= {"Bundle", "Label", "Labels", "PreprocessSpec"}
PUBLIC |= {"ColorStandard", "PixelFormat", "PixelLayout", "RawFrame"}
PUBLIC |= {"Frame", "Source", "StateChange"}
PUBLIC |= {"FrameClassifier", "Pipeline", "Result", "Sink", "Stream"}
PUBLIC |= {"Every", "Latest", "Policy", "Queue", "Rate"}
PUBLIC |= {"PipelineStats", "Reading", "SinkStats", "SourceStats", "Summary", "ThrottleStats"}
PUBLIC |= {"Throttle", "Sighting", "VisitEvent", "VisitSettings"}
# Mentioned by public signatures and left in their rooms: for those who write a part of their own
# (a backend, a follower of visits), or settings that are seldom changed.
IN_THEIR_ROOMS = {"Backend", "Outputs", "OutputSpec", "PlanCache", "Follower", "VisitFollower"}
IN_THEIR_ROOMS |= {"Detection", "MotionSettings", "SmoothingSettings", "TrackerSettings", "Resize"}
IN_THEIR_ROOMS |= {"SourceOptions", "SourceKeywords"}


def test_the_public_names():
    assert sorted(edge_fg.__all__) == sorted(PUBLIC)
    assert set(dir(edge_fg)) >= PUBLIC
    for name in PUBLIC:
        value = getattr(edge_fg, name)
        assert getattr(value, "__name__", name) == name
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        edge_fg.laod  # noqa: B018


def edge_fg_classes(hint) -> set[str]:
    """Classes of ours in a type hint."""
    if isinstance(hint, (list, tuple)):
        return set().union(*map(edge_fg_classes, hint))
    own = typing.get_origin(hint) or hint
    found = edge_fg_classes(typing.get_args(hint))
    if isinstance(own, type) and own.__module__.startswith("edge_fg."):
        found.add(own.__name__)
    return found


def signatures(value) -> list:
    """A function; or a class with its public methods and properties."""
    if not isinstance(value, type):
        return [value] if callable(value) else []
    members = vars(value).items()
    public = [m for name, m in members if name[0] != "_" or name in ("__init__", "__call__")]
    return [value, *(m.fget if isinstance(m, property) else m for m in public)]


def test_what_public_signatures_mention_is_public():
    allowed = PUBLIC | IN_THEIR_ROOMS
    for name in PUBLIC:
        for function in signatures(getattr(edge_fg, name)):
            if not callable(function):
                continue
            # Python 3.10 can't evaluate dataclasses' KW_ONLY.
            names = {"Self": object, "Unpack": typing.Optional, "KW_ONLY": object}
            hints = typing.get_type_hints(function, localns=names)
            public = {key: hint for key, hint in hints.items() if not key.startswith("_")}
            errors = set(vars(edge_fg.errors))
            missing = edge_fg_classes(list(public.values())) - allowed - errors
            assert not missing, f"{name} ({function}) mentions {missing}"


def test_every_error_is_in_the_drawn_tree():
    from edge_fg import errors

    drawn = re.findall(r"^(?:[│ ├└─]*)(\w+Error)\b", errors.__doc__, re.MULTILINE)
    defined = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.EdgeFGError)
    ]
    assert sorted(drawn) == sorted(defined)


def test_no_path_of_a_machine_is_committed(repository: Path):
    listed = subprocess.run(
        ["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=False
    )
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    # Written in pieces, so that this file does not hold what it looks for.
    folders = "|".join(("home", "Users", "root", "work", "workspace"))
    pattern = re.compile(rf"(?<![\w.:/}}*])/({folders})/\w")
    for name in listed.stdout.splitlines():
        path = repository / name
        if path.suffix in {".py", ".md", ".toml", ".cfg", ".yaml", ".sh", ""} and path.is_file():
            found = pattern.search(path.read_text())
            assert found is None, f"{name}: {found and found.group()}"


def test_no_context_is_made_by_importing():
    for package in PACKAGES:
        for name, path in modules(package):
            assert "pycuda.autoinit" not in imports(path), name


def source_files(repository: Path) -> list[Path]:
    """All modules that are not tests: packages, benchmarks and examples."""
    folders = ("edge_fg", "calibration", "tools")
    return [path for folder in folders for path in sorted((repository / folder).rglob("*.py"))]


def test_modules_stay_small(repository: Path):
    for path in source_files(repository):
        assert len(path.read_text().splitlines()) <= MOST_LINES, f"{path} is two modules in one"


def test_classes_stay_small(repository: Path):
    for path in source_files(repository):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                lines = node.end_lineno - node.lineno + 1
                assert lines <= MOST_CLASS_LINES, f"{path}: {node.name} has {lines} lines"


def test_folders_stay_small(repository: Path):
    counts = Counter(path.parent for path in source_files(repository))
    for folder, count in counts.items():
        assert count <= MOST_MODULES, f"{folder} holds {count} modules: two rooms in one"


def test_the_map_of_rooms_is_true(repository: Path):
    """Every package stands on it with a line, and nothing else does."""
    guide = (repository / "CONTRIBUTING.md").read_text()
    shown, above = set(), []
    for blanks, folder, what in re.findall(r"^    ( *)([\w/]+)/  +(.*)$", guide, re.MULTILINE):
        above[len(blanks) // 2 :] = [folder]
        shown.add("/".join(above))
        assert len(what.split()) >= 3, f"what is {folder}?"
    initial = {path.parent for path in source_files(repository) if path.name == "__init__.py"}
    assert shown == {path.relative_to(repository).as_posix() for path in initial}


def test_what_contributors_are_told_to_look_at_is_there(repository: Path):
    guide = (repository / "CONTRIBUTING.md").read_text()
    named = set(re.findall(r"`((?:edge_fg|calibration|tools|tests|docs)/[\w/.]+)`", guide))
    assert len(named) > 15
    for path in named:
        assert (repository / path).exists(), path
