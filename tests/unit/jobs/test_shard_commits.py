"""The counts of a job: from the lines of all processes, and from a shard's own footer where no line can be trusted."""

from pathlib import Path

import msgspec
import pyarrow as pa
import pytest

from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.job.shares import Share
from run_batch.jobs.results.shard_check import find_damaged
from run_batch.jobs.results.shard_commits import (
    Commit,
    CommittedShards,
    complete_shards,
    count_results,
    errors_by_kind,
    footer_of,
    read_commits,
    record_commit,
)

PLAN = Plan(45, 10)


@pytest.fixture
def stores(tmp_path: Path) -> list[ShardStore]:
    """Of two shares of one job."""
    stores = [ShardStore(tmp_path / "out", Share(index, 2).folder) for index in range(2)]
    for store in stores:
        store.create()
    return stores


def commit(shard: int, failed: int = 0, attempt: int = 0, **fields: object) -> Commit:
    rows = len(PLAN.rows(shard))
    kept = Commit(shard, attempt, rows, 3 * rows, rows, {"bad": failed} if failed else {}, time=100.0 + attempt)
    return msgspec.structs.replace(kept, **fields)


def write(store: ShardStore, commit: Commit) -> None:
    store.commit(commit.shard, pa.table({"text": ["x"] * commit.rows}), footer_of(commit))


def test_rows_are_counted_by_what_became_of_them() -> None:
    results = [Generation(0, ("a",), "stop", 5, 2), RowFailure(1, "bad", "x: y"), RowFailure(2, "worse", "z")]
    counted = count_results(7, 1, results)
    assert (counted.shard, counted.attempt, counted.rows, counted.failed) == (7, 1, 3, 2)
    assert (counted.prompt_tokens, counted.generated_tokens, counted.errors) == (5, 2, {"bad": 1, "worse": 1})
    assert errors_by_kind([counted, counted]) == {"bad": 2, "worse": 2}


def test_rows_that_ended_by_length_are_counted_and_those_of_a_later_attempt_instead(stores: list[ShardStore]) -> None:
    ends = ["stop", "length", "length", "repetition"]
    results = [Generation(row, ("a",), end, 5, 2) for row, end in enumerate(ends)]
    assert count_results(0, 0, [*results, RowFailure(4, "bad", "x")]).truncated == 2
    write(stores[0], commit(0, truncated=3))
    counts = CommittedShards(stores[0], PLAN, range(5))
    assert counts.rows_truncated == 3
    counts.add(commit(0, attempt=1, truncated=1))
    assert counts.rows_truncated == 1


def test_commits_of_other_processes_count_and_a_line_without_its_shard_does_not(stores: list[ShardStore]) -> None:
    for store, made in ((stores[0], commit(0, failed=2)), (stores[1], commit(1, failed=1)), (stores[1], commit(2))):
        record_commit(store, made)
        if made.shard != 2:
            write(store, made)
    counts = CommittedShards(stores[0], PLAN, range(5))
    assert (counts.rows, counts.rows_done, counts.rows_failed, counts.missing()) == (45, 20, 3, [2, 3, 4])
    assert [found.shard for found in counts.with_failures()] == [0, 1]


def test_no_shard_is_opened_that_a_line_tells_of(stores: list[ShardStore], monkeypatch: pytest.MonkeyPatch) -> None:
    for shard in range(4):
        record_commit(stores[0], commit(shard, failed=shard))
        write(stores[0], commit(shard, failed=shard))
    opened: list[int] = []
    metadata = ShardStore.metadata
    monkeypatch.setattr(ShardStore, "metadata", lambda self, shard: opened.append(shard) or metadata(self, shard))
    assert CommittedShards(stores[1], PLAN, range(5)).rows_failed == 6 and opened == []
    write(stores[0], commit(4, failed=3))  # its line was lost in a power cut
    counts = CommittedShards(stores[1], PLAN, range(5))
    assert (counts.rows_failed, counts.rows_done, opened) == (9, 45, [4])


def test_few_shards_are_opened_rather_than_the_lines_of_many_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index in range(5):
        store = ShardStore(tmp_path / "out", Share(index, 5).folder)
        store.create()
        record_commit(store, commit(index, failed=index))
        write(store, commit(index, failed=index))
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))
    assert read_commits(store, PLAN, [2, 3]) == {2: commit(2, failed=2), 3: commit(3, failed=3)}
    assert read == []


def test_a_rewritten_shard_is_counted_by_the_attempt_that_is_there(stores: list[ShardStore]) -> None:
    first, second = commit(0, failed=4), commit(0, failed=1, attempt=1)
    for made in (first, commit(1), commit(2)):
        record_commit(stores[0], made)
        write(stores[0], made)
    # Killed before the second attempt took its place: its line is there, the shard is the first one still.
    record_commit(stores[1], msgspec.structs.replace(second, is_there=False))
    assert CommittedShards(stores[0], PLAN, range(3)).rows_failed == 4
    # Killed after that, before the line that says so.
    write(stores[1], second)
    assert CommittedShards(stores[0], PLAN, range(3)).rows_failed == 1
    record_commit(stores[1], second)
    (found,) = CommittedShards(stores[0], PLAN, range(3)).with_failures()
    assert found == second


def test_a_shard_that_was_removed_and_made_again_is_counted_as_it_is_now(stores: list[ShardStore]) -> None:
    for made in (commit(0, failed=4), commit(1), commit(2), commit(0, attempt=1)):
        record_commit(stores[0], made)
    again = commit(0, failed=5, time=1000.0)
    record_commit(stores[0], again)
    for made in (again, commit(1), commit(2)):
        write(stores[0], made)
    assert CommittedShards(stores[0], PLAN, range(3)).rows_failed == 5


def test_a_shard_that_another_process_has_made_again_is_counted_as_it_is_now(stores: list[ShardStore]) -> None:
    # The first share has retried it; then it was removed, and the second one has made it again.
    for made in (commit(0, failed=4), commit(0, attempt=1)):
        record_commit(stores[0], made)
    again = commit(0, failed=5, time=130.0)
    record_commit(stores[1], again)
    for made in (again, commit(1), commit(2)):
        write(stores[1], made)
    assert read_commits(stores[0], PLAN, range(3))[0] == again
    assert CommittedShards(stores[0], PLAN, range(3)).rows_failed == 5


def test_two_processes_whose_clocks_differ_do_not_hide_what_is_there(stores: list[ShardStore]) -> None:
    first, second = commit(0, failed=4, time=120.0), commit(0, failed=1, attempt=1, time=100.0)
    for made in (first, commit(1), commit(2)):
        record_commit(stores[1], made)
        write(stores[1], made)
    write(stores[0], second)
    record_commit(stores[0], second)
    assert CommittedShards(stores[0], PLAN, range(3)).rows_failed == 1


def test_a_torn_line_is_left_out(stores: list[ShardStore]) -> None:
    record_commit(stores[0], commit(0, failed=4))
    write(stores[0], commit(0, failed=4))
    with open(stores[0].own_folder / "commits.jsonl", "ab") as file:
        file.write(b'{"shard":1,"atte')
    assert CommittedShards(stores[0], PLAN, range(5)).rows_failed == 4


def test_counts_go_on_without_reading_and_follow_what_others_do(stores: list[ShardStore]) -> None:
    counts = CommittedShards(stores[0], PLAN, range(3))
    counts.add(commit(0, failed=2))
    counts.add(commit(0, failed=1, attempt=1))
    counts.add(commit(4, failed=5))  # stolen from the other share, and none of this one's
    assert (counts.rows, counts.rows_done, counts.rows_failed) == (30, 10, 1)
    for shard in (1, 2):
        record_commit(stores[1], commit(shard, failed=shard))
        write(stores[1], commit(shard, failed=shard))
    write(stores[0], commit(0, failed=1, attempt=1))
    counts.refresh()
    assert (counts.rows_done, counts.rows_failed, counts.missing()) == (30, 4, [])
    stores[1].path(2).unlink()
    counts.refresh()
    assert (counts.rows_done, counts.rows_failed, counts.missing()) == (20, 2, [2])


def test_a_shard_with_the_rows_of_an_earlier_plan_alone_is_not_complete(stores: list[ShardStore]) -> None:
    grown = Plan(60, 10).following(PLAN)
    for shard in range(5):
        record_commit(stores[0], commit(shard, failed=1))
        write(stores[0], commit(shard, failed=1))
    counts = CommittedShards(stores[1], grown, range(6))
    assert complete_shards(stores[1], grown) == {0, 1, 2, 3}
    assert (counts.rows, counts.rows_done, counts.rows_failed, counts.missing()) == (60, 45, 5, [4, 5])
    assert [found.rows for found in counts.short()] == [5]
    # Another process has given it its rest; the line that says so was lost in a power cut.
    write(stores[0], commit(4, failed=2, attempt=1, rows=10))
    counts.refresh()
    assert complete_shards(stores[1], grown) == {0, 1, 2, 3, 4}
    assert (counts.rows_done, counts.rows_failed, counts.missing(), counts.short()) == (50, 6, [5], [])
    # To a process of the earlier plan, the shard has the rows that it has in that.
    before = CommittedShards(stores[1], PLAN, range(5))
    assert (before.rows_done, before.missing(), find_damaged(stores[1], PLAN, range(5))) == (45, [], {})


def test_a_shard_that_cannot_be_read_is_told_by_its_name(stores: list[ShardStore]) -> None:
    stores[0].path(0).write_bytes(b"PAR1")
    with pytest.raises(ShardError, match=r"part-000000\.parquet cannot be read"):
        CommittedShards(stores[0], PLAN, range(5))
