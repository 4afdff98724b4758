"""What the command line says where a word or an option is not what was meant."""

from pathlib import Path

import pytest
from click.testing import CliRunner

import jobs
from run_batch.jobs.cli import main
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["job.toml"], "a job is run by: run-batch --config job.toml"),
        (["jobs/a.toml", "--quiet"], "a job is run by: run-batch --config jobs/a.toml"),
        (["run"], "a job is run without a command: run-batch --config job.toml"),
        (["run", "--config", "job.toml"], "a job is run without a command: run-batch --config job.toml"),
        (["chekc"], "no command chekc; did you mean check?"),
        (["xyzzy"], "no command xyzzy; known: check, init, keys"),
        (["--config", "job.toml", "check"], "--config stands before the command; write options after it"),
        (["--set", "sampling.n=2", "check", "--config", "job.toml"], "--set stands before the command"),
        (["status"], "name the job: run-batch status FOLDER, or run-batch status --config job.toml"),
        (["report", "out", "--config", "job.toml"], "name either the results folder or a job.toml: run-batch report"),
        (["status", "out", "--set", "input.limit=2"], "--set changes a job.toml: it needs --config, not FOLDER"),
        (["--retry-failed", "status"], "--retry-failed stands before the command"),
        (["check", "--retry-failed"], "option of a run, not of check: run-batch --config job.toml --retry-failed"),
        (["status", "--quiet"], "option of a run, not of status: run-batch --config job.toml --quiet"),
        (["try", "--config", "job.toml", "--task-index", "1"], "run-batch --config job.toml --task-index"),
        (["check", "--retry"], "No such option"),
        (["check", "a/job.toml"], "a job is named by: run-batch check --config a/job.toml"),
        (["submit", "job.toml", "--tasks", "2"], "a job is named by: run-batch submit --config job.toml"),
        (["check", "--config", "job.toml", "other.toml"], "unexpected extra argument"),
        (["keys", "a", "b.toml"], "unexpected extra argument"),
    ],
)
def test_a_word_that_is_no_command_and_an_option_at_the_wrong_place_are_refused(words: list[str], said: str) -> None:
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2 and said in result.output, result.output


def test_set_reaches_into_nested_tables_and_refuses_what_is_none(tmp_path: Path) -> None:
    path = jobs.write_job(tmp_path, jobs.rows(2), engine={"compilation_config": {"backend": "eager"}})
    sets = ("engine.compilation_config.cudagraph_mode=NONE", "engine.mm_processor_kwargs.max_pixels=50176")
    engine = load_config(path, sets).engine
    assert engine["compilation_config"] == {"backend": "eager", "cudagraph_mode": "NONE"}
    assert engine["mm_processor_kwargs"] == {"max_pixels": 50176}
    with pytest.raises(JobError, match=r"--set engine.dtype.x=3: engine.dtype is not a table"):
        load_config(path, ("engine.dtype.x=3",))
