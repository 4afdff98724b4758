"""Whether a job can go on with another input than it was planned with: its rows have to be the first ones of that.

Rows are numbered through all files in their order, and shards are made of those numbers: what comes between old rows,
or takes some away, would move all that follow.
"""

from collections.abc import Sequence

from run_batch.io.inputs.input_parts import InputPart


def why_not(before: Sequence[InputPart], now: Sequence[InputPart], limit: int | None) -> str | None:
    """Why a job cannot go on with an input, and what to do; None where it can.

    Args:
        before: the rows that the job was planned with.
        now: the rows of the input.
        limit: input.limit, which the input has been cut to.
    """
    had, has = (sum(part.rows for part in parts) for parts in (before, now))
    if limit == has < had:
        return f"input.limit is {limit}, and the job has {had} rows already. Raise it to {had} or more"
    for index, old in enumerate(before):
        is_last = index == len(before) - 1
        problem = _gone(old, has, had) if index == len(now) else _difference(old, now[index:], before[-1], is_last)
        if problem is not None:
            return problem
    return None


def common_rows(before: Sequence[InputPart], now: Sequence[InputPart]) -> int:
    """How many rows two inputs begin with that are the same in both."""
    rows = 0
    for old, new in zip(before, now, strict=False):
        if old[:3] != new[:3]:
            break
        rows += min(old.rows, new.rows)
        if old.rows != new.rows:
            break
    return rows


def _difference(old: InputPart, rest: Sequence[InputPart], last: InputPart, is_last: bool) -> str | None:
    """What keeps the first rows of the rest of an input from being those of a part, or from beginning with those."""
    new = rest[0]
    if new.file != old.file:
        if not any(part.file == old.file for part in rest):
            return _gone(old)
        return (
            f"{new.file} comes before {old.file}, whose rows have their numbers already. Rename it, so that it sorts "
            f"after {last.file}"
        )
    if new.digest != old.digest:
        return f"{old.file} has other content now. Put the old one back; rows to add belong in a file that sorts last"
    if new.first != old.first or new.rows < old.rows or (new.rows > old.rows and not is_last):
        return f"of {old.file}, {_rows(new)} are asked for now, and were {_rows(old)}. Ask for those again"
    return None


def _gone(part: InputPart, has: int | None = None, had: int | None = None) -> str:
    counts = f" ({has} rows instead of {had})" if had else ""
    return f"{part.file} is not among its files any more{counts}. Put it back"


def _rows(part: InputPart) -> str:
    return f"rows {part.first} to {part.first + part.rows - 1}"
