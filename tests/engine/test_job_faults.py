"""Job faults through the command line: the run stops with the cause, and no row is blamed."""

import json
import shutil
from pathlib import Path

import pytest
from pictures import encoded, picture

import jobs

pytestmark = pytest.mark.engine

BAD = [b"x"] * 40


def columns(images: list[bytes]) -> dict[str, list[object]]:
    return {**jobs.rows(len(images)), "image": images}


def test_first_rows_that_all_fail_alike_stop_the_run_and_leave_the_folder_to_the_corrected_job(tmp_path: Path) -> None:
    job = jobs.write_job(tmp_path, columns(BAD), errors={"min_rows": 20, "max_fraction": 1.0})
    finished = jobs.run(job)
    assert finished.returncode == 2 and "rows fail alike" in finished.stderr and "image_decode: " in finished.stderr
    assert "Traceback" not in finished.stderr and not (tmp_path / "out").exists()
    jobs.succeed(jobs.write_job(tmp_path, jobs.rows(40), errors={"min_rows": 20}))


def test_a_job_of_fewer_rows_that_all_fail_ends_with_3(tmp_path: Path) -> None:
    finished = jobs.run(jobs.write_job(tmp_path, columns(BAD)))
    assert finished.returncode == 3, finished.stderr
    assert jobs.results(tmp_path / "job.toml")["error"].null_count == 0


def test_bad_first_rows_with_a_good_one_among_them_are_row_errors(tmp_path: Path) -> None:
    images = [*BAD[:30], encoded(picture(1)), *BAD[31:]]
    job = jobs.write_job(tmp_path, columns(images), errors={"min_rows": 20, "max_fraction": 1.0})
    assert jobs.succeed(job)["error"].null_count == 1


def test_check_ends_with_3_where_more_of_the_first_rows_fail_than_allowed(tmp_path: Path) -> None:
    for allowed, code in ((0.5, 3), (1.0, 0)):
        job = jobs.write_job(tmp_path, columns(BAD), errors={"max_fraction": allowed})
        checked = jobs.run(job, command="check")
        assert checked.returncode == code and "16 fail" in checked.stdout, checked.stderr


@pytest.mark.parametrize("command", [None, "check"])
def test_a_chat_template_that_fails_on_a_plain_message_is_the_jobs_fault(tmp_path: Path, command: str | None) -> None:
    model = tmp_path / "model"
    shutil.copytree(jobs.ROOT / "configs" / "demo" / "model", model)
    path = model / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config["chat_template"] = "{{ messages[0]['content']['nowhere']['here'] }}"
    path.write_text(json.dumps(config))
    tables = {"model": {"path": str(model)}, "prompt": {"template": None, "chat": True}, "input": {"image_column": ""}}
    finished = jobs.run(jobs.write_job(tmp_path / "job", jobs.rows(3), **tables), command=command)
    assert finished.returncode == 2 and "a plain message cannot be rendered" in finished.stderr, finished.stderr
    assert "Traceback" not in finished.stderr
