"""Which rows go into the engine next: suspects one group at a time and without other rows, all others as they came."""

from collections.abc import Iterator

from run_batch.jobs.engine.row_places import Place, RowPlaces
from run_batch.jobs.job.rows import MappedRow


def rows_to_add(
    places: RowPlaces, groups: list[list[int]], capacity: int, is_proven: bool, input_ended: bool
) -> Iterator[MappedRow]:
    """The rows to add to the engine now; the caller moves each one to its new place before it asks for the next.

    Args:
        groups: of suspects, in the order in which they run; a group none of whose rows has come is removed.
        capacity: rows that the engine holds at most, those that wait inside it included.
        is_proven: this engine has finished other rows for a while, so it may run suspects.
        input_ended: no more rows will come.
    """
    if groups and any(places.is_in(Place.IN_ENGINE, row) for row in groups[0]):
        return
    if groups and _may_run(groups[0], places, is_proven, input_ended):
        if not places.count(Place.IN_ENGINE):
            suspects = {row.row: row for row in places.mapped_rows(Place.SUSPECT)}
            group = [suspects[row] for row in groups[0] if row in suspects]
            if not group:
                del groups[0]
            yield from group
        return
    for row in places.mapped_rows(Place.WAITING):
        if places.count(Place.IN_ENGINE) >= capacity:
            return
        yield row


def _may_run(group: list[int], places: RowPlaces, is_proven: bool, input_ended: bool) -> bool:
    if input_ended:
        return is_proven or not places.count(Place.WAITING, Place.IN_ENGINE)
    return is_proven and all(places.is_in(Place.SUSPECT, row) for row in group)
