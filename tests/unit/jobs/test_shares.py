"""The cut of a job into shares: every shard once, evenly, and the same wherever it is worked out."""

import itertools
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import jobs
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.shares import WHOLE_JOB, Share, share_of


@given(st.integers(0, 100_000), st.integers(1, 2_000))
def test_shares_together_have_every_shard_once_and_as_many_as_each_other(shards: int, count: int) -> None:
    cut = [Share(index, count).shards(Plan(10 * shards, 10)) for index in range(count)]
    assert cut[0].start == 0 and cut[-1].stop == shards
    assert all(one.stop == next.start for one, next in itertools.pairwise(cut))
    assert max(map(len, cut)) - min(map(len, cut)) <= 1


def test_a_share_is_known_by_its_label_and_the_whole_job_by_one_of_its_own() -> None:
    for share in (WHOLE_JOB, Share(3, 64), Share(63, 64)):
        assert share_of(share.label) == share
    assert WHOLE_JOB.label == "all" and Share(3, 64).label == "3-of-64"
    assert share_of("64-of-64") is None and share_of("tmp") is None


def test_there_is_no_share_beyond_the_last() -> None:
    for index, count in ((4, 4), (-1, 4)):
        with pytest.raises(JobError, match=f"no share {index} of {count}: shares are counted from 0 to 3"):
            Share(index, count)
    with pytest.raises(JobError, match="cannot be cut into 0 shares"):
        Share(0, 0)


def test_half_of_a_share_on_the_command_line_is_refused(tmp_path: Path) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(1))
    alone = jobs.run(job, "--task-index", "0")
    assert alone.returncode == 2 and "--task-index and --task-count go together" in alone.stderr
    beyond = jobs.run(job, "--task-index", "2", "--task-count", "2")
    assert beyond.returncode == 2 and "counted from 0 to 1" in beyond.stderr and "Traceback" not in beyond.stderr
