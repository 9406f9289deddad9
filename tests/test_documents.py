"""The Python examples of all documents run, and pass a strict type check, as the programs do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# What no machine in CI has, and what stands for it here.
STAND_INS = {
    "csi://0": "demo-out/clip.mp4",
    "rtsp://10.0.0.7/nest": "demo-out/clip.mp4",
    "PreviewSink(8080": "PreviewSink(0",
}
# The others have a test of their own: see `test_api_page.py` and `test_readme.py`.
PAGES = ("docs/outputs.md", "docs/streaming.md", "docs/visits.md")


def example(page: Path) -> str:
    """All blocks of a page, one after another."""
    return "\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL))


def test_no_page_is_left_out(repository: Path):
    pages = [repository / "README.md", *(repository / "docs").glob("*.md")]
    shown = {str(page.relative_to(repository)) for page in pages if example(page)}
    assert shown == {*PAGES, "README.md", "docs/api.md"}


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_shows_works(
    name: str, repository: Path, demo_out: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_out / "demo-out", "demo-out")
    shutil.copytree("demo-out/fieldguide.edgefg", "birds.edgefg")
    shutil.copy("demo-out/clip.mp4", "feeder.mp4")
    code = example(repository / name)
    for address, instead in STAND_INS.items():
        code = code.replace(address, instead)
    exec(compile(code, name, "exec"), {})
    assert "Traceback" not in capsys.readouterr().err


def test_examples_pass_a_strict_type_check(repository: Path, tmp_path: Path):
    pytest.importorskip("mypy")
    pages = [repository / "README.md", *(repository / "docs").glob("*.md")]
    for page in pages:
        (tmp_path / f"{page.stem.lower().replace('-', '_')}.py").write_text(example(page))
    for program in (repository / "tools" / "examples").glob("*.py"):
        # Without ROS 2 its node is a class of an unknown kind.
        ignored = "  # type: ignore[misc]" if program.name == "ros2_node.py" else ""
        text = program.read_text().replace(
            "class BirdNode(Node):", f"class BirdNode(Node):{ignored}"
        )
        (tmp_path / program.name).write_text(text)
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = True\nignore_missing_imports = True\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
