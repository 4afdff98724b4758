"""What a worker pool tells of its work, for the metrics of a run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """What a worker pool has done since it was started.

    Attributes:
        rows_mapped: rows that came back from workers.
        mapping_seconds: of all workers, with rows to map.
        input_seconds: of the pool's thread, reading the input.
        rows_waiting, bytes_waiting: mapped rows that wait for the engine, now, and the bytes of their tensors.
        workers: worker processes.
    """

    rows_mapped: int
    mapping_seconds: float
    input_seconds: float
    rows_waiting: int
    bytes_waiting: int
    workers: int
