"""`run-batch submit`: a job's array script, written next to its results and handed to sbatch.

The script needs nothing but itself: `sbatch SCRIPT` submits the job again, `sbatch --array=3,7 SCRIPT` two of its
tasks.
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

from run_batch.io.secrets import hide_secrets
from run_batch.jobs.check import check_job
from run_batch.jobs.job.columns import model_settings
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import EXIT_COMPLETE, JobError, RunError
from run_batch.jobs.job.plan import record_job
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.slurm.array_script import array_script
from run_batch.jobs.slurm.sbatch_options import SlurmTable
from run_batch.model.checkpoint.download import download_model
from run_batch.model.checkpoint.settings import SettingsError

_UNREACHABLE = re.compile("contact|connect|timed out|establish", re.IGNORECASE)  # of slurmctld, not of the job
# Where the Hub's libraries keep what they have downloaded.
_HUB_CACHES = ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE")


def submit_job(
    job: PreparedJob, slurm: SlurmTable, config_path: Path, overrides: tuple[str, ...], only_print: bool, out: TextIO
) -> int:
    """Check a job as `run-batch check` does, write its script, and submit that.

    Args:
        overrides: of job.toml's keys, as given on the command line; the tasks get them, too.
        only_print: print the script to `out`; write and submit nothing.
        out: where the job's id goes, all else to standard error.

    Returns:
        The exit code.

    Raises:
        JobError: the job cannot start, or sbatch refuses its options.
        RunError: the script cannot be written or submitted.
    """
    tasks = slurm.tasks
    if tasks is None:
        raise JobError("how many tasks? Say --tasks N, or slurm.tasks in job.toml")
    words = [*_own_command(), "--config", str(config_path.absolute()), *_passed_on(overrides)]
    print(check_job(job), file=sys.stderr)
    left = len(job.missing_shards)
    if not left and not only_print:
        print(f"nothing to do: all {job.plan.num_rows} rows are done; nothing submitted", file=sys.stderr)
        return EXIT_COMPLETE
    if tasks > left:
        print(f"{tasks} tasks for {left} shards: some will find nothing to do", file=sys.stderr)
    slurm = _with_places(slurm, job)
    script = array_script(slurm, tasks, words, hub_environment(job.config))
    if only_print:
        print(script, end="", file=out)
        return EXIT_COMPLETE
    if _is_on_hub(job.config.resolve(job.config.model.path)):
        try:
            download_model(model_settings(job.config))
        except SettingsError as error:
            raise JobError(str(error)) from None
    path = _write_script(script, job)
    print(_submit(path), file=out)
    print(
        f"{tasks} tasks for {left} of {job.plan.num_shards} shards; script {path}\n"
        f"follow it: run-batch status --config {shlex.quote(str(config_path))} --watch",
        file=sys.stderr,
    )
    return EXIT_COMPLETE


def _own_command() -> list[str]:
    """The command that submits is the one that the tasks run: same installation, same Python."""
    program = Path(sys.argv[0]).absolute()
    return [str(program)] if os.access(program, os.X_OK) else [sys.executable, str(program)]


def _passed_on(overrides: tuple[str, ...]) -> list[str]:
    words = []
    for override in overrides:
        if hide_secrets(override) != override or override.startswith("engine.hf_token"):
            raise JobError(
                f"--set {override.partition('=')[0]}: its secret would be in the script; put it into job.toml or, "
                "a token of the Hub, into HF_TOKEN"
            )
        if not override.isprintable():
            raise JobError(f"--set {override!r}: expected one line without control characters; put it into job.toml")
        words += [] if override.startswith("slurm.") else ["--set", override]
    return words


def _with_places(slurm: SlurmTable, job: PreparedJob) -> SlurmTable:
    """With a name, a folder and a file for the log."""
    log = str(job.store.run_folder / "logs")
    if "\\" in log and "output" not in slurm.options:
        raise JobError(f"{log}: Slurm takes a backslash for its own; set slurm.output, or another output.path")
    places = {
        "job-name": job.store.folder.name,
        "chdir": str(job.config.folder),
        "output": log.replace("%", "%%") + "/%A_%a.log",
    }
    return replace(slurm, options={**places, **slurm.options})


def _is_on_hub(path: str) -> bool:
    """Of a path that JobConfig.resolve gave."""
    return "://" not in path and not os.path.isabs(path)


def hub_environment(config: JobConfig) -> Mapping[str, str]:
    """What keeps the tasks from asking the Hub: all that they need of it is in its cache once the job was checked."""
    if config.input.path.startswith("hf://"):
        return {}  # rows are read from the Hub itself
    environment = {"HF_HUB_OFFLINE": "1"}
    if any(_is_on_hub(config.resolve(path)) for path in (config.model.path, config.input.path)):
        home = os.path.expanduser(os.environ.get("HF_HOME", "~/.cache/huggingface"))
        caches = {**os.environ, "HF_HOME": home}
        environment |= {name: os.path.abspath(caches[name]) for name in _HUB_CACHES if name in caches}
    return environment


def _write_script(script: str, job: PreparedJob) -> Path:
    path = job.store.run_folder / f"submit-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.sh"
    try:
        job.store.create()
        # A thousand tasks need not check again, each for itself, what has been checked here.
        record_job(job.store, job.identity, job.plan, job.source)
        (job.store.run_folder / "logs").mkdir(exist_ok=True)
        path.write_text(script)
        path.chmod(0o755)
    except OSError as error:
        raise RunError(f"output.path {job.config.output.path} cannot be written to: {error}") from None
    return path


def _submit(path: Path) -> str:
    """Hand the script to sbatch; the job's id."""
    environ = dict(os.environ)
    if "SLURM_JOB_ID" in environ:
        # Submitted from within a job: what Slurm says of that one would reach the tasks of this one.
        environ = {k: v for k, v in environ.items() if not k.startswith("SLURM_") or k.startswith("SLURM_CONF")}
    try:
        done = subprocess.run(["sbatch", "--parsable", str(path)], capture_output=True, text=True, env=environ)
    except FileNotFoundError:
        raise RunError(
            f"sbatch is not on PATH: is this a login node of the cluster? The script is written: sbatch {path}"
        ) from None
    said = " ".join(done.stderr.split())
    if done.returncode != 0:
        problem = f"sbatch does not take {path}: {said or f'exit code {done.returncode}'}"
        raise RunError(problem) if _UNREACHABLE.search(said) else JobError(problem)
    if said:
        print(said, file=sys.stderr)
    return done.stdout.strip().partition(";")[0]
