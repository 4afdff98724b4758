"""Exit code 74: storage or network is behind a failure, whoever ran into it."""

import errno
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobs
from run_batch.io import transient
from run_batch.io.inputs.source import DamagedInputError, LostInputError, UnreachableInputError
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.command import run_command
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError, MayPassError, RunError, input_failed, storage_errors
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.runner.place_failures import PlaceError
from run_batch.jobs.watch.status import read_status


def of_os(number: int) -> OSError:
    return OSError(number, os.strerror(number), "/data/model")


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (of_os(errno.ESTALE), 74),
        (MayPassError("the input cannot be read now"), 74),
        (caused(JobError("model.path m cannot be loaded"), of_os(errno.ETIMEDOUT)), 74),
        (caused(RunError("the engine does not start"), caused(RuntimeError("x"), of_os(errno.EHOSTDOWN))), 74),
        (JobError("no such column"), 2),
        (RunError("the disk is full"), 1),
        (caused(RunError("the disk fails"), of_os(errno.EIO)), 1),
        (PlaceError("all images are out of reach"), 1),
        (of_os(errno.EIO), 1),
        (KeyError("a bug"), 1),
    ],
    ids=repr,
)
def test_a_command_ends_with_the_code_of_what_is_behind_its_failure(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    def fail(*_: Any) -> int:
        raise error

    job = jobs.write_job(tmp_path, {"uid": ["a"]})
    process = multiprocessing.get_context("fork").Process(target=run_command, args=(fail, job, (), False))
    process.start()
    process.join(30)
    said = capfd.readouterr().err
    assert process.exitcode == code, said
    if code == 74 and not isinstance(error, MayPassError):
        assert "may pass" in said and "run the same command again" in said and "Traceback" not in said


def test_an_error_of_the_input_tells_damage_from_what_may_pass() -> None:
    assert isinstance(input_failed(UnreachableInputError("x")), MayPassError)
    lost = input_failed(LostInputError("x"))
    assert isinstance(lost, RunError) and not isinstance(lost, MayPassError)
    assert isinstance(input_failed(DamagedInputError("x")), JobError), "no other run of the same command helps"


@pytest.mark.parametrize("number", [errno.ESTALE, errno.ENOTCONN, errno.EIO, errno.ENOSPC])
def test_an_error_of_the_output_folder_does_too(number: int) -> None:
    with pytest.raises(RunError, match="run the same command again") as caught, storage_errors("shard 3"):
        raise of_os(number)
    assert caught.value.exit_code == (74 if number in (errno.ESTALE, errno.ENOTCONN) else 1)


@pytest.mark.parametrize("look", [read_status, prepare], ids=["status", "check"])
def test_looking_at_a_job_on_storage_that_stumbles_ends_so_only_where_it_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: Callable[..., Any]
) -> None:
    columns = {"uid": ["a"], "image": [b""], "prompt": ["is it even?"]}
    config = load_config(jobs.write_job(tmp_path, columns))
    job = prepare(config)
    job.store.create()
    job.write_record()
    failing, real = [of_os(errno.ESTALE)] * 2, os.scandir

    def stumble(path: Any = ".") -> Any:
        if failing and Path(path).is_relative_to(ShardStore(tmp_path / "out").folder):
            raise failing.pop()
        return real(path)

    monkeypatch.setattr(transient, "STORAGE_PAUSES", (0.001, 0.001))
    monkeypatch.setattr(os, "scandir", stumble)
    look(config)
    failing += [of_os(errno.ESTALE)] * 99
    if look is read_status:
        with pytest.raises(MayPassError, match="Stale file handle"):
            look(config)
