"""Items that threads borrow: which one is lent, when one is made, and how it ends."""

from __future__ import annotations

import threading

import pytest

from edge_fg.cuda.pool import Pool
from edge_fg.errors import BackendError, CudaError, DeviceMemoryError


@pytest.mark.parametrize(("in_turn", "expected"), [(False, "bbb"), (True, "aba")])
def test_items_are_lent_in_turn_or_the_last_one_again(in_turn: bool, expected: str):
    pool = Pool("ab", in_turn=in_turn)
    seen = []
    for _ in range(3):
        with pool.lend() as item:
            seen.append(item)
    assert "".join(seen) == expected


def test_more_are_made_when_all_are_lent_and_memory_is_enough(caplog):
    made = []

    def make() -> str:
        if len(made) == 1:
            raise DeviceMemoryError("it is full")
        made.append("b")
        return "b"

    pool = Pool("a", make, limit=5)
    got = []
    with pool.lend() as first, pool.lend() as second:
        assert (first, second) == ("a", "b")
        assert pool.lent == 2
        third = threading.Thread(target=lambda: got.append(lend_once(pool)))
        third.start()
    third.join()
    assert got[0] in ("a", "b")
    with pool.lend(), pool.lend():
        assert pool.items == ["a", "b"]


def lend_once(pool: Pool[str]) -> str:
    with pool.lend() as item:
        return item


def test_after_the_end_each_thread_gets_the_first_error():
    pool = Pool("a")
    ended = []
    with pool.lend():
        waiting = threading.Thread(target=lambda: ended.append(refused(pool)))
        waiting.start()
        pool.stop(CudaError("the GPU is closed"))
        pool.stop(BackendError("later"))
        waiting.join()
    pool.drain()
    assert pool.closed
    assert [*ended, refused(pool)] == [(CudaError, "the GPU is closed")] * 2


def refused(pool: Pool[str]) -> tuple[type[BaseException], str]:
    with pytest.raises(BackendError) as caught, pool.lend():
        pass
    return type(caught.value), str(caught.value)
