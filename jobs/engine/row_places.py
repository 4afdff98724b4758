"""Where each row of the supervisor is: waiting, in the engine, a suspect, blamed or refused."""

from collections import Counter
from enum import Enum, auto

from run_batch.jobs.job.rows import MappedRow, RowFailure


class Place(Enum):
    """The state of a row that was added to the supervisor and has not been given back."""

    WAITING = auto()  # for room in the engine
    IN_ENGINE = auto()
    SUSPECT = auto()  # waits to be run with its group alone
    BLAMED = auto()  # failed: it kills the engine
    REFUSED = auto()  # failed: vLLM does not take it


class RowPlaces:
    """A map from row to place; rows in the same place are in the order in which they came there."""

    def __init__(self) -> None:
        self._rows: dict[int, tuple[Place, MappedRow | RowFailure]] = {}
        self._counts: Counter[Place] = Counter()

    def __len__(self) -> int:
        return len(self._rows)

    def count(self, *places: Place) -> int:
        """How many rows are in any of these places."""
        return sum(self._counts[place] for place in places)

    def put(self, row: MappedRow | RowFailure, place: Place) -> None:
        """Add a row, or move it here from the place where it is."""
        if row.row in self._rows:
            self.remove(row.row)
        self._rows[row.row] = place, row
        self._counts[place] += 1

    def remove(self, row: int) -> None:
        """Forget a row, which is in some place."""
        place, _ = self._rows.pop(row)
        self._counts[place] -= 1

    def is_in(self, place: Place, row: int) -> bool:
        """Whether a row, known or not, is in this place."""
        return row in self._rows and self._rows[row][0] is place

    def mapped_rows(self, place: Place) -> list[MappedRow]:
        """The rows in WAITING, IN_ENGINE or SUSPECT."""
        if not self._counts[place]:
            return []
        return [row for where, row in self._rows.values() if where is place and isinstance(row, MappedRow)]

    def take_failures(self, place: Place) -> list[RowFailure]:
        """Remove all rows from BLAMED or REFUSED."""
        if not self._counts[place]:
            return []
        taken = [row for where, row in self._rows.values() if where is place and isinstance(row, RowFailure)]
        for row in taken:
            self.remove(row.row)
        return taken
