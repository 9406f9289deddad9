"""The plan cache gives back only what this user stored, unchanged."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from edge_fg.backends.plan import Plan
from edge_fg.backends.plan_cache import PlanCache, plan_key
from edge_fg.errors import UsageError
from edge_fg.files import cache_folder

KEY = plan_key(graph_sha256="ab" * 32, library="tensorrt-rtx", version="1.7")


def a_plan(data: bytes = b"plan" * 1000) -> Plan:
    return Plan(data=data, library="tensorrt-rtx", version="1.7", layers=3, seconds=0.5)


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "cache" / "plans")


@pytest.fixture
def stored(cache: PlanCache) -> Path:
    path = cache.store(KEY, a_plan())
    assert path is not None
    assert cache.load(KEY) == a_plan().data
    return path


def refused(cache: PlanCache, caplog: pytest.LogCaptureFixture) -> str:
    """Return why the plan is refused."""
    with caplog.at_level(logging.WARNING, logger="edge_fg"):
        assert cache.load(KEY) is None
    assert [record.name for record in caplog.records] == ["edge_fg"]
    return caplog.text


def test_a_stored_plan_comes_back_and_is_plain(cache: PlanCache, stored: Path) -> None:
    assert stored.read_bytes() == a_plan().data
    assert cache.path(KEY) == stored
    assert hashlib.sha256(a_plan().data).hexdigest() in stored.with_suffix(".json").read_text()


def test_folder_and_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        cache = PlanCache(tmp_path / "plans")
        path = cache.store(KEY, a_plan())
    finally:
        os.umask(before)
    assert path is not None
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    assert cache.load(KEY) == a_plan().data


def test_an_unknown_key_is_no_reason_to_warn(
    cache: PlanCache, caplog: pytest.LogCaptureFixture
) -> None:
    assert cache.load(KEY) is None
    assert not caplog.records


def test_storing_again_replaces(cache: PlanCache, stored: Path) -> None:
    assert cache.store(KEY, a_plan(b"newer")) == stored
    assert cache.load(KEY) == b"newer"
    assert len(list(stored.parent.iterdir())) == 2


@pytest.mark.parametrize("place", [0, 1999, 3999])
def test_a_flipped_byte_is_refused(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture, place: int
) -> None:
    data = bytearray(stored.read_bytes())
    data[place] ^= 1
    stored.write_bytes(data)
    assert "SHA-256" in refused(cache, caplog)


@pytest.mark.parametrize("suffix", [".plan", ".json"])
@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_a_file_that_others_can_write_is_refused(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture, suffix: str, mode: int
) -> None:
    stored.with_suffix(suffix).chmod(mode)
    assert "written by others" in refused(cache, caplog)


def test_a_folder_that_others_can_write_is_refused(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored.parent.chmod(0o770)
    assert "written by others" in refused(cache, caplog)
    assert cache.store(KEY, a_plan()) is None


@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_a_symbolic_link_is_refused(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    linked = stored.with_suffix(suffix)
    elsewhere = linked.rename(stored.parent.parent / "elsewhere")
    linked.symlink_to(elsewhere)
    assert "symbolic link" in refused(cache, caplog)


def test_a_linked_folder_is_refused(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = stored.parent.rename(stored.parent.parent / "other")
    stored.parent.symlink_to(other, target_is_directory=True)
    assert "symbolic link" in refused(cache, caplog)


def test_another_users_plan_is_refused(
    cache: PlanCache,
    stored: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    me = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: me + 1)
    assert f"belongs to user {me}" in refused(cache, caplog)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", "not json", '{"sha256": 1}', "\udcff", "[" * 60_000]
)
def test_a_damaged_record_is_refused(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    stored.with_suffix(".json").write_bytes(content.encode(errors="surrogateescape"))
    assert refused(cache, caplog)


@pytest.mark.parametrize("suffix", [".plan", ".json"])
def test_half_a_pair_is_refused(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    stored.with_suffix(suffix).unlink()
    assert refused(cache, caplog)


def test_a_named_pipe_does_not_hang(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored.unlink()
    os.mkfifo(stored)
    assert "ordinary file" in refused(cache, caplog)


@pytest.mark.parametrize("above", [False, True])
@pytest.mark.parametrize("make", [os.mkfifo, Path.touch])
def test_what_is_no_folder_in_the_place_of_the_cache_warns_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, make: Callable[[Path], None], above: bool
) -> None:
    make(tmp_path / "plans")
    cache = PlanCache(tmp_path / "plans" / "deeper" if above else tmp_path / "plans")
    with caplog.at_level(logging.WARNING, logger="edge_fg"):
        assert cache.load(KEY) is None
        assert cache.store(KEY, a_plan()) is None
    assert "not kept" in caplog.text
    if not above:
        assert "is not a folder" in caplog.text


def test_an_unwritable_place_warns_and_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with caplog.at_level(logging.WARNING, logger="edge_fg"):
        assert PlanCache(tmp_path / "file" / "plans").store(KEY, a_plan()) is None
    assert "not kept" in caplog.text


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_warns_and_still_gives_plans(
    cache: PlanCache, stored: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stored.parent.chmod(0o500)
    try:
        assert cache.store(KEY, a_plan(b"newer")) is None
        assert cache.load(KEY) == a_plan().data
    finally:
        stored.parent.chmod(0o700)
    assert "not kept" in caplog.text


def test_what_a_killed_process_left_is_swept(cache: PlanCache, stored: Path) -> None:
    left = stored.parent / f".{KEY}.plan.abcd1234"
    left.write_bytes(b"half")
    mine = stored.parent / "notes.txt"
    mine.write_text("not ours")
    cache.store(KEY, a_plan())
    assert not left.exists()
    assert mine.exists()


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "A" * 64, "a" * 63])
def test_a_key_is_never_a_path(cache: PlanCache, key: str) -> None:
    with pytest.raises(UsageError, match="64 hexadecimal"):
        cache.load(key)
    with pytest.raises(UsageError, match="64 hexadecimal"):
        cache.store(key, a_plan())


def test_everything_that_changes_a_plan_changes_its_key() -> None:
    base = {"graph_sha256": "a", "library": "tensorrt", "version": "10.3"}
    keys = {
        plan_key(**base),
        plan_key(**{**base, "graph_sha256": "b"}),
        plan_key(**{**base, "library": "tensorrt-rtx"}),
        plan_key(**{**base, "version": "10.13"}),
        plan_key(**base, precision="int8"),
        plan_key(**base, profile=(1, 1, 8)),
        plan_key(**base, profile=(1, 8, 8)),
        plan_key(**base, flags={"level": 3}),
        plan_key(**base, gpu="Orin, compute capability 8.7"),
    }
    assert len(keys) == 9
    assert plan_key(**base, flags={"a": 1, "b": 2}) == plan_key(**base, flags={"b": 2, "a": 1})


def test_default_folder_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("plans") == tmp_path / "edge-fg" / "plans"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("plans") == tmp_path / "home" / ".cache" / "edge-fg" / "plans"
