"""What a worker pool reports of its work, for the metrics of a run."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolCounts:
    """What a worker pool has done since its start, and what waits now.

    Attributes:
        rows_mapped: rows that came back from workers.
        mapping_seconds: time in which a worker had rows to map, summed over the workers.
        input_seconds: time that the pool's thread spent reading the input.
        rows_waiting, bytes_waiting: mapped rows that wait for the engine now, and the bytes of their tensors.
        workers: number of worker processes.
    """

    rows_mapped: int
    mapping_seconds: float
    input_seconds: float
    rows_waiting: int
    bytes_waiting: int
    workers: int
