"""The help of every command: each option with its default, and an example that parses."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from edge_fg.preprocess import presets
from edge_fg_calibration import Budget
from edge_fg_tools.cli.main import make_parser
from support.children import environment


def commands() -> dict[str, argparse.ArgumentParser]:
    parser = make_parser()
    (found,) = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return {"": parser, **found.choices}


COMMANDS = commands()
EACH = pytest.mark.parametrize("name", [name for name in COMMANDS if name])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_and_its_default(name: str):
    parser = COMMANDS[name]
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.default == argparse.SUPPRESS or isinstance(action, argparse._SubParsersAction):
            continue  # --help and --version end the program
        text = formatter._expand_help(action)
        what = text.split("; default: ")[0].removesuffix("; required")
        assert len(what.split()) > 1, f"{name} {action.dest}: {text!r}"
        if action.option_strings:
            told = text.endswith("; required") if action.required else "; default: " in text
            assert told, f"{name} {action.dest}: {text!r}"
            assert "None" not in text
        else:
            assert action.required, f"{name} {action.dest} may be left out: say its default"


@EACH
def test_every_command_has_an_example_that_parses(name: str):
    shown = COMMANDS[name].format_help()
    (example,) = re.findall(r"^example:\n  (edge-fg .+)$", shown, re.MULTILINE)
    words = shlex.split(example)[1:]
    assert words[0] == name
    assert callable(make_parser().parse_args(words).execute)


@EACH
def test_units_are_told(name: str):
    """What is a quantity says of what: the letter of its metavar is explained."""
    units = {"S": "seconds", "C": "°C", "W": "watts", "MIB": "MiB", "P": "0 to 1"}
    for action in COMMANDS[name]._actions:
        if action.metavar in units:
            assert units[action.metavar] in action.help, action.dest
        sized = isinstance(action.metavar, tuple)
        assert not sized or "pixels" in action.help, action.dest


def test_the_help_of_build_names_presets_and_keys():
    shown = " ".join(COMMANDS["build"].format_help().split())
    assert ", ".join(presets()) in shown
    for key in dataclasses.fields(Budget):
        assert key.name in shown


@pytest.mark.parametrize("package", ["edge_fg", "edge_fg_tools"])
def test_the_packages_are_commands_too(package: str):
    command = [sys.executable, "-m", package, "doctor", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: edge-fg doctor ")


def completed(line: str, tmp_path: Path, *paths: Path) -> subprocess.CompletedProcess[str]:
    """Ask as a shell does that is to complete `line`; the answers stand in `tmp_path/answers`."""
    return subprocess.run(
        [sys.executable, "-m", "edge_fg_tools"],
        env=environment(
            *paths,
            _ARGCOMPLETE="1",
            _ARGCOMPLETE_STDOUT_FILENAME=str(tmp_path / "answers"),
            _ARGCOMPLETE_SUPPRESS_SPACE="1",
            COMP_LINE=line,
            COMP_POINT=str(len(line)),
            COMP_TYPE="",
        ),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("line", "among"),
    [
        ("edge-fg ev", {"evaluate"}),
        ("edge-fg run b --min", {"--min-confidence"}),
        ("edge-fg build m.onnx --target tensorrt", {"tensorrt", "tensorrt-rtx"}),
    ],
)
def test_a_shell_completes(line: str, among: set[str], tmp_path: Path):
    pytest.importorskip("argcomplete")
    done = completed(line, tmp_path)
    assert done.returncode == 0, done.stderr
    answers = re.split(r"[\x0b\n]", (tmp_path / "answers").read_text())
    assert {answer.strip() for answer in answers} >= among


def test_completion_without_its_package_names_the_extra(tmp_path: Path):
    (tmp_path / "argcomplete.py").write_text("raise ModuleNotFoundError(name='argcomplete')\n")
    done = completed("edge-fg ru", tmp_path, tmp_path)
    assert done.returncode == 1
    assert "edge-fg[complete]" in done.stderr
