"""Finds the row that kills the engine by bisection, in a number of deaths that grows with the logarithm of the rows.

Rows that were in the engine at two deaths become suspects: from then on they run in groups, without other rows, half of
them at a time. The rows of a group that finishes are no suspects any more; a group with which the engine dies is
halved again; a row with which it dies three times, without any other, is blamed. One death makes no suspect, for most
have other causes. All this is kept in a file, for rows that kill the whole process.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from run_batch.io.files import read_file, replace_file

_DEATHS_TO_SUSPECT = 2
_DEATHS_ALONE_TO_BLAME = 3


class Suspects:
    """Counts the deaths of the engine by the rows that were in it.

    Attributes:
        groups: suspects, in groups that are to run one after the other and without other rows.
        blamed: rows that were found to kill the engine.
    """

    def __init__(self, file: Path | None = None) -> None:
        """Read what earlier processes found out.

        Args:
            file: where that is kept, if anywhere; a damaged file is ignored, which costs some restarts.
        """
        self._file = file
        self._deaths: Counter[int] = Counter()
        self._deaths_alone: Counter[int] = Counter()
        self.groups: list[list[int]] = []
        self.blamed: set[int] = set()
        try:
            known = json.loads(read_file(file)) if file is not None else {}
            self._deaths.update({int(row): count for row, count in known.get("deaths", {}).items()})
            self._deaths_alone.update({int(row): count for row, count in known.get("deaths_alone", {}).items()})
            self.groups = [[int(row) for row in group] for group in known.get("groups", [])]
            self.blamed = {int(row) for row in known.get("blamed", [])}
        except (OSError, ValueError, TypeError, AttributeError):
            pass

    def is_suspect(self, row: int) -> bool:
        """Whether a row may run with the other rows of its group only."""
        return any(row in group for group in self.groups)

    def keep_only(self, is_left: Callable[[int], bool]) -> None:
        """Forget all rows but those for which `is_left` is true."""
        self.groups = [kept for group in self.groups if (kept := [row for row in group if is_left(row)])]
        self.blamed = {row for row in self.blamed if is_left(row)}
        for counter in (self._deaths, self._deaths_alone):
            for row in [row for row in counter if not is_left(row)]:
                del counter[row]

    def clear(self, row: int) -> None:
        """Forget a row that is finished."""
        if not (self._deaths or self.groups or self.blamed):
            return
        self._deaths.pop(row, None)
        self._deaths_alone.pop(row, None)
        self.blamed.discard(row)
        for group in self.groups:
            if row in group:
                group.remove(row)
        self.groups = [group for group in self.groups if group]

    def died(self, running: Sequence[int]) -> int | None:
        """Count a death of the engine with these rows in it; the row that is now to blame, if there is one.

        Raises:
            OSError: the file cannot be written.
        """
        blamed = None
        group = next((group for group in self.groups if running and set(running) <= set(group)), None)
        if group is not None:
            self.groups.remove(group)
            self.groups.insert(0, group)
            blamed = self._group_died(list(running))
        else:
            self._deaths.update(running)
            suspects = [row for row in running if self._deaths[row] >= _DEATHS_TO_SUSPECT]
            for row in suspects:
                self.clear(row)
            self.groups += _halves(suspects)
        self.save()
        return blamed

    def _group_died(self, running: list[int]) -> int | None:
        """Split the first group, of which these rows were in the engine; its other rows had not been added yet."""
        if len(running) > 1:
            left = [row for row in self.groups[0] if row not in running]
            self.groups[:1] = [*_halves(running), *([left] if left else [])]
            return None
        row = running[0]
        self._deaths_alone[row] += 1
        rest = [other for other in self.groups[0] if other != row]
        self.groups[:1] = [[row], *([rest] if rest else [])]
        if self._deaths_alone[row] < _DEATHS_ALONE_TO_BLAME:
            return None
        del self.groups[0]
        self.blamed.add(row)
        return row

    def forget(self) -> None:
        """Forget all rows: the cause of the deaths is none of them.

        Raises:
            OSError: the file cannot be written.
        """
        self._deaths.clear()
        self._deaths_alone.clear()
        self.groups.clear()
        self.blamed.clear()
        self.save()

    def save(self) -> None:
        """Write the file, or remove it when there is nothing to keep.

        Raises:
            OSError: the file cannot be written.
        """
        if self._file is None:
            return
        if not (self._deaths or self.groups or self.blamed):
            self._file.unlink(missing_ok=True)
            return
        known = {
            "deaths": self._deaths,
            "deaths_alone": self._deaths_alone,
            "groups": self.groups,
            "blamed": sorted(self.blamed),
        }
        replace_file(self._file, json.dumps(known).encode())


def _halves(rows: list[int]) -> list[list[int]]:
    middle = (len(rows) + 1) // 2
    return [half for half in (rows[:middle], rows[middle:]) if half]
