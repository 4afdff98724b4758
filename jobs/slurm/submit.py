"""`run-batch submit`: checks a job, writes its array script below its output folder, and hands the script to sbatch.

The script is complete: `sbatch SCRIPT` submits the job again, `sbatch --array=3,7 SCRIPT` two of its tasks.
"""

import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from run_batch.jobs.check import check_job
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import EXIT_COMPLETE, JobError, RunError, storage_failed
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.shares import rows_in_vain
from run_batch.jobs.machine.own_command import set_arguments, this_program
from run_batch.jobs.results.shard_commits import CommittedShards
from run_batch.jobs.slurm.array_script import array_script
from run_batch.jobs.slurm.sbatch_options import SlurmTable
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.checkpoint.weights_download import download_model

# Of sbatch's errors, those that say that slurmctld cannot be reached; others say that it refuses the job.
_UNREACHABLE = re.compile("contact|connect|timed out|establish", re.IGNORECASE)
# Variables that name the folders in which the Hub's libraries keep downloads.
_HUB_CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE")


def submit_job(
    job: PreparedJob, slurm: SlurmTable, config_path: Path, overrides: tuple[str, ...], only_print: bool, out: TextIO
) -> int:
    """Check a job as `run-batch check` does, write its script, and submit that.

    Args:
        overrides: values of `--set`; the tasks get them, too.
        only_print: print the script to `out`; write and submit nothing.
        out: gets the id of the Slurm job; messages go to standard error.

    Returns:
        The exit code of run-batch.

    Raises:
        JobError: the job cannot start, or sbatch refuses its options.
        RunError: the script cannot be written or submitted.
    """
    tasks = slurm.tasks
    if tasks is None:
        raise JobError("how many tasks? Say --tasks N, or slurm.tasks in job.toml")
    command = [*this_program(), "--config", str(config_path.absolute()), *set_arguments(overrides)]
    print(check_job(job)[0], file=sys.stderr)
    left = len(CommittedShards(job.store, job.plan, job.shards).missing())
    if not left and not only_print:
        print(f"nothing to do: all {job.plan.num_rows} rows are done; nothing submitted", file=sys.stderr)
        return EXIT_COMPLETE
    if tasks > left:
        print(f"{tasks} tasks for {left} shards: some will find nothing to do", file=sys.stderr)
    in_vain = rows_in_vain(job.plan, tasks)
    if in_vain:
        print(
            f"{tasks} tasks read {in_vain} rows in vain together, because some begin inside of row groups of the input",
            file=sys.stderr,
        )
    slurm = _with_job_options(slurm, job)
    script = array_script(slurm, tasks, command, hub_environment(job.config))
    if only_print:
        print(script, end="", file=out)
        return EXIT_COMPLETE
    _download_weights(job.config)
    path = _write_script(script, job)
    print(_submit(path), file=out)
    follow = shlex.join(["run-batch", "status", "--config", str(config_path), *set_arguments(overrides), "--watch"])
    print(
        f"{tasks} tasks for {left} of {job.plan.num_shards} shards; script {path}\nfollow it: {follow}",
        file=sys.stderr,
    )
    return EXIT_COMPLETE


def _with_job_options(slurm: SlurmTable, job: PreparedJob) -> SlurmTable:
    """The table with a job name, a working folder and a log file where it names none."""
    log = str(job.store.run_folder / "logs")
    if "\\" in log and "output" not in slurm.options:
        raise JobError(f"{log}: Slurm takes a backslash for its own; set slurm.output, or another output.path")
    from_job = {
        "job-name": job.store.folder.name,
        "chdir": str(job.config.folder),
        "output": log.replace("%", "%%") + "/%A_%a.log",
    }
    return replace(slurm, options={**from_job, **slurm.options})


def _download_weights(config: JobConfig) -> None:
    """Download the weights of a model of the Hub once, before many tasks start and ask for them at the same time.

    Raises:
        JobError: they cannot be downloaded.
    """
    if not config.is_on_hub(config.model.path):
        return
    try:
        download_model(config.model_settings)
    except SettingsError as error:
        raise JobError(str(error)) from error


def hub_environment(config: JobConfig) -> Mapping[str, str]:
    """Variables that keep the tasks off the Hub: after the check and the download its cache has all that they need."""
    if any(path.startswith("hf://") for path in config.input_paths):
        return {}  # rows are read from the Hub itself
    environment = {"HF_HUB_OFFLINE": "1"}
    if any(map(config.is_on_hub, (config.model.path, *config.input_paths))):
        home = os.path.expanduser(os.environ.get("HF_HOME", "~/.cache/huggingface"))
        caches = {**os.environ, "HF_HOME": home}
        environment |= {name: os.path.abspath(caches[name]) for name in _HUB_CACHES if name in caches}
    return environment


def _write_script(script: str, job: PreparedJob) -> Path:
    """Write the script below the output folder, with a folder for its logs, and record the job there."""
    path = job.store.run_folder / f"submit-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.sh"
    try:
        job.store.create()
        # With this record, the tasks need not repeat the checks that read the whole input.
        job.write_record()
        (job.store.run_folder / "logs").mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    except OSError as error:
        raise storage_failed(f"output.path {job.config.output.path} cannot be written to", error) from error
    return path


def _submit(path: Path) -> str:
    """Hand the script to sbatch, and return the id of the Slurm job."""
    environ = dict(os.environ)
    if "SLURM_JOB_ID" in environ:
        # Submitted from inside a job: sbatch would pass that job's variables on to the tasks of this one.
        environ = {k: v for k, v in environ.items() if not k.startswith("SLURM_") or k.startswith("SLURM_CONF")}
    try:
        done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, env=environ)
    except FileNotFoundError:
        raise RunError(
            f"sbatch is not on PATH: is this a login node of the cluster? The script is written: sbatch {path}"
        ) from None
    said = " ".join(done.stderr.split())
    if done.returncode != 0:
        problem = f"sbatch rejected {path}: {said or f'exit code {done.returncode}'}"
        raise RunError(problem) if _UNREACHABLE.search(said) else JobError(problem)
    if said:
        print(said, file=sys.stderr)
    return done.stdout.strip().partition(";")[0]
