"""Text from outside is escaped wherever it is shown."""

from __future__ import annotations

import io
import logging

import pytest

from edge_fg.errors import EdgeFGError, OutputError
from edge_fg.printing import has_control, message, printable
from edge_fg.sinks.preview.page import index_page

EVIL = [
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x9b2J",
    "two\nlines\r",
    "\u202egnp.exe",
    "\u2066isolated\u2069",
    "line\u2028separator",
    "\udcff\udc80",
    "\x00\x7f",
]


def is_clean(text: str) -> bool:
    return all(letter.isprintable() or letter == "\n" for letter in text)


@pytest.mark.parametrize("evil", EVIL)
def test_errors_are_one_clean_line(evil: str) -> None:
    for error in (EdgeFGError(f"bad {evil}: do this"), OutputError(f"bad {evil}: do this")):
        assert str(error).isprintable()
        assert "\n" not in str(error)
        assert str(error).endswith(": do this")
    assert has_control(evil)


@pytest.mark.parametrize("evil", EVIL)
@pytest.mark.parametrize("name", ["edge_fg", "edge_fg.tensorrt"])
def test_log_records_are_clean_for_every_handler(evil: str, name: str) -> None:
    import edge_fg.backends.tensorrt.message_log  # noqa: F401  that logger's only user

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    log = logging.getLogger(name)
    log.addHandler(handler)
    try:
        log.warning("left out %s, %d of them", evil, 3)
        try:
            raise OSError(2, f"no {evil}")
        except OSError:
            log.exception("%s failed", evil)
    finally:
        log.removeHandler(handler)
    first, second, *traceback = stream.getvalue().splitlines()
    assert is_clean(stream.getvalue())
    assert first == f"left out {printable(evil)}, 3 of them"
    assert second == f"{printable(evil)} failed"
    assert traceback[0] == "Traceback (most recent call last):"


@pytest.mark.parametrize("letter", ["x", "é", "鳥", "\x1b"])
def test_messages_stay_below_2_kb_and_keep_both_ends(letter: str) -> None:
    text = str(EdgeFGError(f"can't read {letter * 50_000}: copy it again"))
    assert len(text.encode()) < 2000
    assert text.startswith("can't read ")
    assert text.endswith(": copy it again")
    assert " ... " in text


@pytest.mark.parametrize("name", ["a b", "Meise (männlich)", "鳥", "нос", "طائر", "conv/1:0", "🐦"])
def test_usual_names_stay_as_they_are(name: str) -> None:
    assert message(name) == name
    assert not has_control(name)


@pytest.mark.parametrize("evil", EVIL)
def test_the_page_of_a_preview_is_clean(evil: str) -> None:
    assert is_clean(index_page((evil,)))
