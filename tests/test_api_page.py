"""`docs/api.md` shows every public name in use, and what it shows works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import edge_fg


@pytest.fixture(scope="module")
def page(repository: Path) -> str:
    return (repository / "docs" / "api.md").read_text()


def test_every_public_name_stands_in_a_block(page):
    code = "\n".join(blocks(page))
    shown = set(re.findall(r"\bedge_fg\.(\w+)", code))
    assert set(edge_fg.__all__) - shown == set()


def test_what_is_shown_works(page, demo_out, monkeypatch, capsys):
    monkeypatch.chdir(demo_out)
    names: dict[str, object] = {}
    for number, block in enumerate(blocks(page)):
        exec(compile(block, f"api.md, block {number}", "exec"), names)
    printed = capsys.readouterr().out
    assert "visit_ended" in printed
    assert "there is no image missing.jpg" in printed
    assert len((demo_out / "answers.jsonl").read_text().splitlines()) == 10


def test_every_linked_page_is_there(page, repository):
    for target in re.findall(r"\]\(([^)#]+)\)", page):
        assert (repository / "docs" / target).is_file(), target


def blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page, re.DOTALL)
