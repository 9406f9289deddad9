"""The README's commands and example work."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest

from edge_fg.preprocess import parse_preprocess, presets

pytest.importorskip("cv2")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def readme(repository: Path) -> str:
    return (repository / "README.md").read_text()


def test_the_embedding_example_runs(readme, demo_out, monkeypatch, capsys):
    (example,) = re.findall(r"```python\n(.*?)```", readme, re.DOTALL)
    monkeypatch.chdir(demo_out)
    exec(compile(example, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 300
    assert all(re.fullmatch(r"\d+ .+ \d+%", line) for line in printed)


def commands(readme: str) -> list[list[str]]:
    text = readme.replace("\\\n", " ")
    found = re.findall(r"^    (edge-fg .*)$", text, re.MULTILINE)
    return [shlex.split(command, comments=True)[1:] for command in found]


def test_every_command_is_one_that_the_parser_knows(readme):
    from edge_fg_tools.cli.main import make_parser

    assert len(commands(readme)) >= 7
    for words in commands(readme):
        assert callable(make_parser().parse_args(words).execute)


def test_every_command_runs(readme, demo_out, monkeypatch, capsys):
    """Run them as written, on the built-in model and clip under the names of the README."""
    from edge_fg_tools import fieldguide
    from edge_fg_tools.cli import main

    monkeypatch.chdir(demo_out)
    shutil.copy(fieldguide.model_path(), "birds.onnx")
    shutil.copy(fieldguide.labels_path(), "birds.txt")
    shutil.copy("demo-out/clip.mp4", "visit.mp4")
    for words in commands(readme):
        if words[-1] == "0":
            continue  # no machine in CI has a camera
        if "tensorrt-rtx" in words:
            pytest.importorskip("tensorrt_rtx")
        if words[0] == "build":
            words[words.index("agreement=0.97")] = "agreement=0.5"  # 50 images prove little
        # Neither a camera nor a free port of that number can be counted on.
        words = ["visit.mp4" if word.startswith("rtsp://") else word for word in words]
        words = ["0" if word == "8080" else word for word in words]
        assert main(words) == 0, (words, capsys.readouterr().err)


def test_every_make_target_exists(readme, repository):
    targets = set(re.findall(r"\bmake ([a-z-]+)", readme))
    makefile = (repository / "Makefile").read_text()
    assert targets >= {"demo", "test"}
    for target in targets:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_presets_and_the_preprocessing_file_are_real(readme):
    (block,) = re.findall(
        r"((?:^    .*\n)+)", readme[readme.index("    [preprocess]") :], re.MULTILINE
    )[:1]
    assert parse_preprocess(block.replace("    ", "")).output_size == (224, 224)
    sentence = readme[readme.index("takes a preset") : readme.index("or a file")]
    assert set(re.findall(r"`([a-z-]+)`", sentence)) == set(presets())


def test_every_linked_file_is_there(readme, repository):
    for target in re.findall(r"\]\(([^)#]+)\)", readme):
        assert (repository / target).is_file(), target
