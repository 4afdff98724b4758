"""Engines that die or hang, and rows that do it to them."""

import math
import os
import re
import signal
import time
from pathlib import Path

import pytest
from stand_ins import Setting, Speed
from standing import kill_group, make_job, wait_for_rows

from run_batch.jobs.engine.suspects import Suspects

ROWS = 300


def prompts(**special: int) -> list[str]:
    rows = [f"prompt {i}" for i in range(ROWS)]
    for prompt, row in special.items():
        rows[row] = prompt
    return rows


def check_all_but(job_rows: list[dict[str, object]], *bad: int) -> None:
    assert [row["row_id"] for row in job_rows] == [f"u{i:06d}" for i in range(ROWS)]
    for i, row in enumerate(job_rows):
        if i in bad:
            assert str(row["error"]).startswith("engine_died: ") and row["text"] is None
        else:
            assert (row["text"], row["error"]) == (f"text of prompt {i}", None)


def test_a_row_that_kills_the_engine_is_found_and_the_rest_goes_on(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(poison=100))
    code, said = job.run()
    assert code == 0, said
    check_all_but(job.table().to_pylist(), 100)
    restarts = said.count("the engine died")
    assert said.count("the engine runs again, after ") == restarts
    print(f"\none poison row among {ROWS}: {restarts} restarts")
    assert restarts <= 5 + math.log2(2 * job.speed.max_num_seqs + 16)
    repeated = len(job.generated()) - len(set(job.generated()))
    assert repeated <= restarts * job.speed.max_num_seqs


def test_several_rows_that_kill_the_engine_are_found(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(poison1=100, poison2=101, poison3=110, poison4=ROWS - 1))
    code, said = job.run()
    assert code == 0, said
    check_all_but(job.table().to_pylist(), 100, 101, 110, ROWS - 1)


def test_an_engine_that_dies_of_every_row_ends_the_run_and_blames_none(tmp_path: Path) -> None:
    rows = [f"prompt {i}" if i < 20 else f"poison {i}" for i in range(ROWS)]
    job = make_job(tmp_path, rows)
    code, said = job.run(timeout=120)
    assert code == 1 and "the engine dies whatever row it gets" in said and "Traceback" not in said
    assert not any(b"engine_died" in path.read_bytes() for path in (job.store / ".run_batch" / "journal").iterdir())
    job.speed = Speed(tame=True)  # the engine has been repaired
    code, said = job.run()
    assert code == 0, said
    assert job.table()["error"].null_count == ROWS


def test_a_step_that_hangs_counts_as_a_death(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(hang=50), errors={"step_seconds": 0.4})
    code, said = job.run()
    assert code == 0 and "no progress for 0.4 s" in said
    check_all_but(job.table().to_pylist(), 50)


def test_an_engine_that_hangs_in_the_process_of_the_run_ends_it_and_the_rows_go_on(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(hang=50), errors={"step_seconds": 0.4})
    job.setting = Setting(in_process=True)
    runs = 0
    while not job.is_complete() and runs < 20:
        code, said = job.run()
        runs += 1
        assert code in (0, 1), said
        assert code == 0 or "errors.step_seconds" in said
    assert 3 <= runs <= 12, job.said()
    check_all_but(job.table().to_pylist(), 50)
    repeated = len(job.generated()) - len(set(job.generated()))
    assert repeated <= runs, "finished rows were not saved"


def test_a_row_that_kills_the_whole_run_is_found_over_some_runs(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(crash=120))
    runs = 0
    while not job.is_complete() and runs < 20:
        code, said = job.run()
        runs += 1
        assert code in (0, -signal.SIGKILL), said
    print(f"\na row that kills the whole run among {ROWS}: {runs} runs")
    assert 3 <= runs <= 12, job.said()
    check_all_but(job.table().to_pylist(), 120)
    assert not list((job.store / ".run_batch").glob("suspects-*")), "the job is complete, and still suspects"


def test_a_killed_engine_costs_no_row_its_text(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts())
    process = job.start()
    for count in (40, 90, 140):
        wait_for_rows(job, count)
        pid = int(job.log.with_suffix(".engine").read_text())
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.4)
    process.join(60)
    assert process.exitcode == 0 and job.said().count("the engine died") == 3
    check_all_but(job.table().to_pylist())
    kill_group(process)


def test_a_suspect_is_found_in_a_logarithmic_number_of_deaths() -> None:
    for poison in (0, 17, 63, 511):
        suspects, deaths, rounds = Suspects(), 0, 0
        running = list(range(512))
        while poison not in suspects.blamed:
            rounds += 1
            assert rounds <= 2 + 2 * 9 + 3, "the engine runs nearly empty for longer than it has to"
            if poison in running:
                deaths += 1
                suspects.died(running)
            else:
                for row in running:
                    suspects.clear(row)
            running = list(suspects.groups[0]) if suspects.groups else list(range(512))
        assert deaths <= 2 + 9 + 3, poison
        assert suspects.blamed == {poison}


def test_only_deaths_without_other_rows_count_against_a_suspect() -> None:
    suspects = Suspects()
    for _ in range(2):
        suspects.died([1, 2])
    assert suspects.groups == [[1], [2]]
    assert suspects.died([2, 3]) is None and not suspects.is_suspect(3), "it is row 3's first death"
    for _ in range(10):
        assert suspects.died([2, 3]) is None, "row 3 may have done it as well"
    suspects = Suspects()
    suspects.groups = [[1], [2]]
    assert [suspects.died([2]) for _ in range(3)] == [None, None, 2], "whichever group was the first to run"
    assert suspects.groups == [[1]]


def test_suspects_that_the_engine_died_before_it_had_them_stay_suspects() -> None:
    suspects = Suspects()
    suspects.groups = [[1, 2, 3], [4]]
    suspects.died([1, 2])
    assert suspects.groups == [[1], [2], [3], [4]]
    suspects.groups = [[1, 2, 3], [4]]
    suspects.died([1])
    assert suspects.groups == [[1], [2, 3], [4]]


def test_rows_that_are_finished_or_not_left_to_this_run_are_no_suspects() -> None:
    suspects = Suspects()
    for _ in range(3):
        suspects.groups = [[1]]
        assert [suspects.died([1]), suspects.died([1])] == [None, None]
        suspects.clear(1)
    suspects.groups = [[1, 2], [3]]
    suspects.keep_only(lambda row: row == 2)
    assert suspects.groups == [[2]]


def test_what_is_known_of_suspects_survives_the_process(tmp_path: Path) -> None:
    file = tmp_path / "suspects.json"
    Suspects(file).died([1, 2, 3])
    Suspects(file).died([3, 4])
    assert Suspects(file).groups == [[3]]
    for _ in range(3):
        Suspects(file).died([3])
    known = Suspects(file)
    assert known.blamed == {3} and known.groups == []
    file.write_text("{damaged")
    assert Suspects(file).blamed == set()


def test_the_engines_messages_name_the_option(tmp_path: Path) -> None:
    job = make_job(tmp_path, prompts(), errors={"step_seconds": -1})
    code, said = job.run()
    assert code == 2 and re.search(r"errors\.step_seconds = -1: expected a number from 0 to", said)


@pytest.mark.parametrize("retry", [False, True])
def test_a_row_that_killed_an_engine_is_generated_again_only_on_request(tmp_path: Path, retry: bool) -> None:
    job = make_job(tmp_path, prompts(poison=100))
    assert job.run()[0] == 0
    generated = len(job.generated())
    job.setting = Setting(retry_failed=retry)
    code, said = job.run()
    assert code == 0
    assert said.count("the engine died") == (5 if retry else 0)
    assert len(job.generated()) == generated
    check_all_but(job.table().to_pylist(), 100)
