"""Files are written whole or not at all, and a failure names the file that it is about."""

from __future__ import annotations

import ctypes
import errno
from pathlib import Path

import pytest

from edge_fg.errors import OutputError
from edge_fg.files import opened_atomically, output_errors, swap_in, write_atomically


def test_a_failed_block_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    write_atomically(path, "old")

    def fail() -> None:
        with opened_atomically(path) as file:
            file.write(b"new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_operating_systems_error_is_told_with_the_path(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"can't write .*none.x: No such file"):
        write_atomically(tmp_path / "none" / "x", b"")


def test_an_output_error_of_another_file_keeps_its_own_name(tmp_path: Path) -> None:
    other = tmp_path / "none" / "video.mp4"
    with pytest.raises(OutputError) as caught, opened_atomically(tmp_path / "mine.jsonl"):
        write_atomically(other, b"")
    assert str(other) in str(caught.value)
    assert "mine.jsonl" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_path_with_a_null_character_is_an_output_error(tmp_path: Path):
    with pytest.raises(OutputError, match=r"can't write .*a\\x00b: .*null"):
        write_atomically(tmp_path / "a\0b", "text")
    with pytest.raises(ValueError, match="of the block"), output_errors(tmp_path):
        raise ValueError("of the block")


@pytest.fixture(params=["one step", "no such call", "not on this file system"])
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Ways in which a system exchanges two names, or can't."""

    class Library:
        def __init__(self, *_: object, **__: object) -> None:
            if request.param == "not on this file system":
                self.renameat2 = self._refuse

        def _refuse(self, *_: object) -> int:
            ctypes.set_errno(errno.EINVAL)
            return -1

    if request.param != "one step":
        monkeypatch.setattr(ctypes, "CDLL", Library)
    return request.param


def made(folder: Path, text: str) -> Path:
    folder.mkdir()
    (folder / "a").write_text(text)
    return folder


def test_a_folder_takes_the_place_of_another(tmp_path: Path, exchange: str) -> None:
    fresh, place, aside = made(tmp_path / "f", "new"), made(tmp_path / "p", "old"), tmp_path / "o"
    swap_in(fresh, place, aside=aside)
    assert (place / "a").read_text() == "new"
    left = fresh if exchange == "one step" else aside
    assert (left / "a").read_text() == "old"
    swap_in(place, tmp_path / "free", aside=aside)
    assert (tmp_path / "free" / "a").read_text() == "new"
    assert not place.exists()


def test_a_failed_swap_leaves_what_was_there(tmp_path: Path, exchange: str) -> None:
    place = made(tmp_path / "p", "old")
    with pytest.raises(FileNotFoundError):
        swap_in(tmp_path / "none", place, aside=tmp_path / "o")
    assert (place / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [place]
