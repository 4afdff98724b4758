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
from run_batch.jobs.job.errors import EXIT_COMPLETE, EXIT_INTERRUPTED, JobError, RunError
from run_batch.jobs.job.job_identity import record_job
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.machine.slurm_environment import ARRAY_COUNT
from run_batch.jobs.results.commits import CommittedShards
from run_batch.jobs.slurm.sbatch_options import SlurmTable
from run_batch.model.checkpoint.download import download_model
from run_batch.model.checkpoint.settings import SettingsError

_PLAIN = re.compile(r"[\w@%+=:,./\[\]*&|!-]+", re.ASCII)
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
    left = len(CommittedShards(job.store, job.plan, job.shards).missing())
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


def array_script(slurm: SlurmTable, tasks: int, words: list[str], environment: Mapping[str, str]) -> str:
    """The script of an array of `tasks` tasks that each run the command `words`, with `environment` set."""
    limit = f"%{slurm.concurrency}" if slurm.concurrency else ""
    options = {**slurm.options, "array": f"0-{tasks - 1}{limit}"}
    lines = [f"#SBATCH --{name}" + ("" if value is None else f"={_quoted(value)}") for name, value in options.items()]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    command = shlex.join(words)
    parts = {
        "options": "\n".join(sorted(lines)),
        "exports": "\n".join([f"export {ARRAY_COUNT}={tasks}", *exports]),
        "setup": "\n".join(["set -e", *slurm.setup, "set +e"]) if slurm.setup else "# (none)",
        "command": _STEP.replace("{command}", command) if slurm.has_steps else command,
        "ending": _NO_REQUEUE if "requeue" not in slurm.options else _REQUEUE,
        "interrupted": str(EXIT_INTERRUPTED),
        "max_requeues": str(slurm.max_requeues),
    }
    script = _SCRIPT.replace("{ending}", parts.pop("ending"))
    # In one pass: what is put in is not looked through again.
    return re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), script)


def _quoted(value: str) -> str:
    """As sbatch reads its options in a script: not quite as a shell does."""
    if _PLAIN.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


_SCRIPT = """\
#!/bin/bash
# Written by run-batch submit. Any of its tasks can be submitted again: sbatch --array=3,7 FILE
{options}

# Slurm tells this shell of the time limit ahead, by USR1. bash acts on a signal only between two commands, so
# run-batch runs in the background.
child=
request=
pass_on() {
    request=$1
    [ -z "$child" ] || kill -s "$1" "$child" 2>/dev/null
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM

{exports}

# slurm.setup of job.toml:
{setup}

# What vLLM compiles, it keeps in files that tasks must not write at the same time.
cache=$(mktemp -d "${TMPDIR:-/tmp}/run-batch-XXXXXX") || exit 1
trap 'rm -rf "$cache"' EXIT
export VLLM_CACHE_ROOT="${VLLM_CACHE_ROOT:-$cache}"

{command} &
child=$!
[ -z "$request" ] || pass_on "$request"
code=
until [ -n "$code" ] && [ -z "$request" ]; do
    request=
    wait "$child"
    code=$?
done
child=

{ending}"""

_STEP = """\
srun --kill-on-bad-exit=0 --wait=0 --label ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \\
    bash -c 'export VLLM_CACHE_ROOT="$VLLM_CACHE_ROOT/$SLURM_PROCID"; exec "$@"' task \\
    {command}"""

_NO_REQUEUE = """\
exit "$code"
"""

_REQUEUE = """\
# {interrupted}: run-batch was interrupted and has saved what it had. A task that Slurm still counts as running goes
# back to the queue; one that was cancelled must not, and one that is preempted or requeued is there already.
# 128 + 10 and + 15: USR1 or TERM came before it listened, so there was nothing to save.
case $code in {interrupted} | 138 | 143) ;; *) exit "$code" ;; esac
task=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
[ "$(squeue --noheader --format=%T --job="$task")" = RUNNING ] || exit "$code"
if [ "${SLURM_RESTART_COUNT:-0}" -ge {max_requeues} ]; then
    echo "run-batch: task $task was restarted {max_requeues} times (slurm.max-requeues); it is not requeued" >&2
    exit "$code"
fi
scontrol requeue "$task"
exit "$code"
"""


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
