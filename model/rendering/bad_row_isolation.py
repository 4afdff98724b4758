"""Finds the bad rows among many that are worked on together."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from run_batch.model.declaration import RowError

Row = TypeVar("Row")
Result = TypeVar("Result")


def isolate_bad_rows(
    function: Callable[[Sequence[Row]], Iterable[Result]], rows: Sequence[Row]
) -> list[Result | RowError]:
    """Call `function` on all rows at once and, where it raises RowError, on each row alone.

    Args:
        function: gives one result for each row, in their order.

    Returns:
        For each row its result, or the RowError that `function` raises for it alone.
    """
    if not rows:
        return []
    try:
        return list(function(rows))
    except RowError as error:
        if len(rows) == 1:
            return [error]
    return [isolate_bad_rows(function, [row])[0] for row in rows]
