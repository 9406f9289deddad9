"""Which detection belongs to which track: the cheapest one-to-one assignment."""

from __future__ import annotations

import math
from collections.abc import Sequence


def assign(costs: Sequence[Sequence[float]], unassigned: float) -> list[int | None]:
    """Assign rows to columns, each to one at most, at the least total cost.

    The shortest augmenting path method of Jonker and Volgenant, "A Shortest Augmenting Path
    Algorithm for Dense and Sparse Linear Assignment Problems" (1987), with dual prices. A
    short implementation is enough for a few animals; the usual library for it has tens of
    megabytes. A greedy choice would be shorter, but swaps neighbours where two fit one place.

    A cost of infinity means that a pair is impossible; `unassigned` is what it costs to leave a
    row without a column. Returns each row's column, or None.

    >>> assign([[0.1, 0.9], [0.2, math.inf]], 1.0)
    [1, 0]
    >>> assign([[0.1], [0.2]], 1.0)
    [0, None]
    """
    rows = len(costs)
    columns = len(costs[0]) if rows else 0
    # A column of its own lets each row stay alone.
    table = [
        [*row, *(unassigned if other == number else math.inf for other in range(rows))]
        for number, row in enumerate(costs)
    ]
    owner: list[int | None] = [None] * (columns + rows)
    row_price, column_price = [0.0] * rows, [0.0] * (columns + rows)
    for row in range(rows):
        _place(row, table, owner, row_price, column_price)
    column_of = {taken_by: column for column, taken_by in enumerate(owner[:columns])}
    return [column_of.get(row) for row in range(rows)]


def _place(
    row: int,
    table: list[list[float]],
    owner: list[int | None],
    row_price: list[float],
    column_price: list[float],
) -> None:
    """Give `row` a column along the cheapest chain of moves (Dijkstra on reduced costs)."""
    best = [math.inf] * len(owner)
    came_from: list[int | None] = [None] * len(owner)
    unreached = list(range(len(owner)))
    moved: list[tuple[int, int]] = []  # columns that are reached, and the rows that have them
    length, current, at = 0.0, row, None
    while True:
        for column in unreached:
            through = length + table[current][column] - row_price[current] - column_price[column]
            if through < best[column]:
                best[column], came_from[column] = through, at
        at = min(unreached, key=best.__getitem__)
        length = best[at]
        unreached.remove(at)
        holder = owner[at]
        if holder is None:
            break
        moved.append((at, holder))
        current = holder
    row_price[row] += length
    for column, holder in moved:
        row_price[holder] += length - best[column]
        column_price[column] += best[column] - length
    while at is not None:
        before = came_from[at]
        owner[at] = row if before is None else owner[before]
        at = before
