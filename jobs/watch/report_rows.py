"""The rows that a report shows: sampled, with what the input has of them, and how to find others."""

from collections import Counter
from collections.abc import Iterable

from run_batch.jobs.job.recorded_job import JobRecord
from run_batch.jobs.watch.gallery import gallery
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.page import note
from run_batch.jobs.watch.report_input import InputCells, InputRows
from run_batch.jobs.watch.report_sample import Sample

# Bytes of all pictures, of which the page has four for every three; and of those of one row.
_PICTURE_BYTES, _ROW_PICTURE_BYTES = 3_600_000, 20_000
_LISTED_SIZES = 12


def shown_rows(
    folder: JobFolder, job: JobRecord, sample: Sample, shards: int, seed: int
) -> tuple[list[str], list[tuple[str, str]]]:
    """The sampled rows as HTML, and the sizes of their images: width and height, and how many there are.

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
        gallery(sample.rows, found),
        note(
            f"{len(sample.rows):,} of {job.plan.num_rows:,} rows: random ones of {sample.shards:,} of {shards:,} "
            f"committed shards (seed {seed}); of these and a few others some that failed and that are not as expected; "
            "of all shards the longest and the slowest."
        ),
        note(inputs.problem, "bad"),
        *unreadable,
    ], _sizes(found.values())


def _sizes(found: Iterable[InputCells]) -> list[tuple[str, str]]:
    sizes = Counter(size for cells in found for size in cells.sizes)
    shown = [(f"{width} x {height}", f"{count:,}") for (width, height), count in sizes.most_common(_LISTED_SIZES)]
    others = len(sizes) - len(shown)
    return [*shown, *([("others", f"{others:,} sizes")] if others else [])]
