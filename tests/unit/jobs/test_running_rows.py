"""The note of the rows in the engine: it outlives its process, and belongs to the one that wrote it last."""

from pathlib import Path

from run_batch.jobs.engine.running_rows import RunningRows, read_running


def test_the_rows_of_a_process_that_died_can_be_read_and_those_of_one_that_ended_are_gone(tmp_path: Path) -> None:
    note = RunningRows(tmp_path / "running-all", 2)
    for row in (7, 0, 5):
        note.add(row)
    note.remove(0)
    assert read_running(tmp_path / "running-all") == [5, 7]
    note.close()
    assert read_running(tmp_path / "running-all") is None


def test_a_process_that_lost_its_lease_leaves_the_note_of_its_successor(tmp_path: Path) -> None:
    slow = RunningRows(tmp_path / "running-all", 2)
    (tmp_path / "running-all").unlink()  # as a run that takes over does, once it has read it
    successor = RunningRows(tmp_path / "running-all", 2)
    successor.add(3)
    slow.close()
    assert read_running(tmp_path / "running-all") == [3]
