"""Tells once that `preprocess.memory` keeps the engine from running as many rows as it could, and how much would do."""

import sys

from run_batch.jobs.machine.memory import as_key
from run_batch.jobs.mapping.row_memory import RowMemory


class MemoryNotice:
    """Watches the memory of a run's rows.

    Args:
        memory: of the run's pool.
        max_num_seqs: rows that the engine runs at once.
        workers: of the pool.
    """

    def __init__(self, memory: RowMemory, max_num_seqs: int, workers: int) -> None:
        self._memory, self._max_num_seqs, self._workers = memory, max_num_seqs, workers
        self._is_told = False

    def look(self, rows_waiting: int, rows_in_engine: int) -> None:
        """Tell, if rows are held back for their memory alone while the engine has room.

        Args:
            rows_waiting: for the engine.
            rows_in_engine: those that run or wait in it.
        """
        memory, most = self._memory, self._max_num_seqs
        if self._is_told or not memory.is_short or rows_waiting or not 0 < rows_in_engine < most:
            return
        fit = memory.shares.rows // max(1, memory.row_bytes)
        if fit >= most:
            return
        self._is_told = True
        needed = memory.shares.budget_for((most + self._workers) * memory.row_bytes, self._workers)
        print(
            f"preprocess.memory: {as_key(memory.shares.budget)} hold {fit} rows of {as_key(memory.row_bytes)} (with "
            f"the engine's copy), and the engine could run {most} rows at once (engine.max_num_seqs); that takes "
            f'preprocess.memory = "{as_key(needed)}"',
            file=sys.stderr,
        )
