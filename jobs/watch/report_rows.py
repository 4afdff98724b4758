"""The rows that a report shows: sampled, with what the input has of them, and how to find others."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

from run_batch.jobs.job.recorded_job import JobRecord
from run_batch.jobs.watch.gallery import gallery
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import block, note, table
from run_batch.jobs.watch.report_input import InputCells, InputRows
from run_batch.jobs.watch.report_sample import Sample, SampledRow

# Bytes of all pictures, of which the page has four for every three; and of those of one row.
_PICTURE_BYTES, _ROW_PICTURE_BYTES = 3_600_000, 20_000
_LISTED_SIZES = 8


def shown_rows(
    folder: JobFolder, job: JobRecord, sample: Sample, shards: int, seed: int
) -> tuple[list[str], list[str]]:
    """The sampled rows, and the sizes of their images, as HTML.

    Args:
        shards: that are committed.
        seed: of the random choice.
    """
    unreadable = [note(text, "bad") for text in sample.unreadable]
    if not sample.rows:
        return [*unreadable, note("No row is in a committed shard yet.") if not unreadable else ""], []
    inputs = InputRows(folder, min(_ROW_PICTURE_BYTES, _PICTURE_BYTES // len(sample.rows)))
    found = inputs.read(sample.rows)
    return [
        gallery(sample.rows, found, job.plan.num_rows),
        note(
            f"{len(sample.rows):,} of {job.plan.num_rows:,} rows: random ones of {sample.shards:,} of {shards:,} "
            f"committed shards (seed {seed}); of these and a few others some that failed and that are not as expected; "
            "of all shards the longest and the slowest."
        ),
        note(inputs.problem, "bad"),
        *unreadable,
    ], _sizes(sample.rows, found)


def _sizes(rows: Sequence[SampledRow], found: Mapping[int, InputCells]) -> list[str]:
    """The largest and the smallest images of the rows shown, and the most frequent sizes, as HTML."""
    sizes = [(size, row.cells["row_id"]) for row in rows if row.row in found for size in found[row.row].sizes]
    if not sizes:
        return []
    by_size = sorted(sizes, key=lambda found: math.prod(found[0]))
    some = {"smallest": by_size[0], "median": by_size[len(by_size) // 2], "largest": by_size[-1]}
    counts = Counter(size for size, _ in sizes)
    frequent = [(_size(size), f"{count:,}") for size, count in counts.most_common(_LISTED_SIZES)]
    others = [("others", f"{len(counts) - len(frequent):,} sizes")] if len(counts) > len(frequent) else []
    return [
        block(
            "Smallest and largest",
            note(f"Of the {len(sizes):,} images of the rows shown, which can be sorted by the size of their images."),
            table([(f"{what}: {_size(size)}", row_id) for what, (size, row_id) in some.items()], ("size", "row")),
        ),
        block("Most frequent sizes", table([*frequent, *others], ("width x height", "images"))),
    ]


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
