"""Adds rows to the engine: as many as it has room for, suspects without others, after a first death one row alone."""

from run_batch.jobs.engine.admission import rows_to_add
from run_batch.jobs.engine.first_deaths import FirstDeaths
from run_batch.jobs.engine.restartable_engine import RestartableEngine
from run_batch.jobs.engine.row_places import Place, RowPlaces
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.job.rows import MappedRow, RowFailure

# Rows added to the engine, as a multiple of max_num_seqs: the others wait inside it, so that the next step does not
# lack a row when one has just finished.
ROWS_IN_ENGINE = 2
# Rows that a new engine finishes before suspects run, as a multiple of max_num_seqs: the more, the less likely is it
# that kills from outside hit the same suspects again and again.
_FINISHED_BEFORE_SUSPECTS = 10


class EngineFeed:
    """Moves waiting rows into the engine.

    Attributes:
        suspects: rows that may kill the engine.
    """

    def __init__(
        self, engine: RestartableEngine, places: RowPlaces, suspects: Suspects, first_deaths: FirstDeaths
    ) -> None:
        self._engine, self._places, self._first_deaths = engine, places, first_deaths
        self.suspects = suspects

    def fill(self, input_ended: bool) -> None:
        """Add rows until the engine is full, or has those that are to run without others; a refused one is put aside.

        Raises:
            EngineDied, RunError: see RestartableEngine.add.
        """
        if self._first_deaths.probe is not None:
            self._run_alone(self._first_deaths.probe)
            return
        capacity = ROWS_IN_ENGINE * self._engine.max_num_seqs
        is_proven = self._engine.finished >= _FINISHED_BEFORE_SUSPECTS * self._engine.max_num_seqs
        for row in rows_to_add(self._places, self.suspects.groups, capacity, is_proven, input_ended):
            failure = self.add(row)
            if failure is not None:
                self._places.put(failure, Place.REFUSED)

    def add(self, row: MappedRow) -> RowFailure | None:
        """Add one row; its failure if vLLM refuses it.

        Raises:
            EngineDied, RunError: see RestartableEngine.add.
        """
        self._places.put(row, Place.IN_ENGINE)
        failure = self._engine.add(row)
        if failure is not None:
            self._places.remove(row.row)
            self.suspects.clear(row.row)
        return failure

    def _run_alone(self, probe: int) -> None:
        """Add the row that shows whether the engine works at all, once no other is in it."""
        if self._places.count(Place.IN_ENGINE):
            return
        waiting = self._places.mapped_rows(Place.WAITING)
        (row,) = (row for row in waiting if row.row == probe)
        failure = self.add(row)
        if failure is not None:
            self._places.put(failure, Place.REFUSED)
            self._first_deaths.refused(probe, [row.row for row in waiting])
