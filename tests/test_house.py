"""The house itself: which room may know which, what an import costs, what is public."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
import typing
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
    "deprecation",
    "errors",
    "files",
    "images",
    "labels",
    "lazy",
    "opencv",
    "printing",
    "progress",
}
ARROWS: dict[str, set[str]] = {
    "preprocess": {"cuda"},
    "cuda": set(),
    "http_hosts": set(),
    "http_server": {"http_hosts"},
    "bundle": {"preprocess"},
    "sources": {"preprocess"},
    "telemetry": {"http_hosts", "http_server"},
    "backends": {"bundle", "cuda", "preprocess"},
    "recognition": {"backends", "bundle", "preprocess"},
    "result": {"sources"},
    "sinks": {"http_hosts", "http_server", "result", "sources"},
    "tracking": {"preprocess", "result", "sources"},
    "pipeline": {"result", "sinks", "sources", "telemetry"},
}
HEAVY = {"onnx", "onnxruntime", "tensorrt", "tensorrt_rtx", "pycuda", "torch", "cv2", "rich"}
HEAVY |= {"av", "jinja2", "onnxslim", "prometheus_client"}


def modules(package) -> list[tuple[str, Path]]:
    found = [(package.__name__, Path(package.__file__))]
    for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        spec = importlib.util.find_spec(info.name)
        found.append((info.name, Path(spec.origin)))
    return found


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_package_imports_one_above_it(package):
    for name, path in modules(package):
        for imported in imports(path):
            other = imported.split(".")[0]
            if other in RANK:
                assert RANK[other] <= RANK[package.__name__], f"{name} imports {imported}"


def test_each_room_of_the_runtime_imports_only_what_it_may():
    for name, path in modules(edge_fg):
        room = [*name.split("."), ""][1]
        if not room:
            continue  # the face may know all rooms
        allowed = SHARED | ARROWS.get(room, set()) | {room}
        for imported in imports(path):
            parts = imported.split(".")
            if parts[0] == "edge_fg" and len(parts) > 1 and parts[1] in SHARED | set(ARROWS):
                assert parts[1] in allowed, f"{name} imports {imported}"


def test_the_arrows_between_rooms_make_no_circle():
    remaining = dict(ARROWS)
    while remaining:
        free = [room for room, allowed in remaining.items() if not allowed & set(remaining)]
        assert free, f"a circle among {sorted(remaining)}"
        for room in free:
            del remaining[room]


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
        "edge_fg.lazy",
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
            hints = typing.get_type_hints(function, localns={"Self": object})
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


def test_modules_stay_small(repository: Path):
    for package in PACKAGES:
        for name, path in modules(package):
            assert len(path.read_text().splitlines()) <= 400, f"{name} is two rooms in one"
