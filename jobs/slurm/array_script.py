"""The batch script of a job's Slurm array: its text, and how options, variables and the command get into it."""

import re
import shlex
from collections.abc import Mapping

from run_batch.jobs.job.errors import EXIT_INTERRUPTED, EXIT_MAY_PASS
from run_batch.jobs.machine.slurm_environment import ARRAY_COUNT
from run_batch.jobs.slurm.sbatch_options import SlurmTable

# How long a task waits in the queue after storage or network have failed; Slurm's own pause is two minutes.
_PAUSE_SECONDS = 600
# Characters that sbatch takes without quotes.
_PLAIN = re.compile(r"[\w@%+=:,./\[\]*&|!-]+", re.ASCII)


def array_script(slurm: SlurmTable, tasks: int, command: list[str], environment: Mapping[str, str]) -> str:
    """The batch script of an array of `tasks` tasks that each run `command`, with the variables `environment` set."""
    limit = f"%{slurm.concurrency}" if slurm.concurrency else ""
    options = {**slurm.options, "array": f"0-{tasks - 1}{limit}"}
    lines = [f"#SBATCH --{name}" + ("" if value is None else f"={_quoted(value)}") for name, value in options.items()]
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    run = shlex.join(command)
    parts = {
        "options": "\n".join(sorted(lines)),
        "exports": "\n".join([f"export {ARRAY_COUNT}={tasks}", *exports]),
        "setup": "\n".join(["set -e", *slurm.setup, "set +e"]) if slurm.setup else "# (none)",
        "command": _SRUN.replace("{command}", run) if slurm.has_steps else run,
        "ending": _REQUEUE_OR_EXIT if "requeue" in slurm.options else _EXIT,
        "interrupted": str(EXIT_INTERRUPTED),
        "may_pass": str(EXIT_MAY_PASS),
        "pause": str(_PAUSE_SECONDS),
        "max_requeues": str(slurm.max_requeues),
    }
    script = _SCRIPT.replace("{ending}", parts.pop("ending"))
    # All in one pass: braces in a value are not taken for another place to fill.
    return re.sub(r"\{(\w+)\}", lambda found: parts.get(found[1], found[0]), script)


def _quoted(value: str) -> str:
    """An option's value in quotes where sbatch needs them, which it reads in a script almost, not quite, as a shell."""
    if _PLAIN.fullmatch(value):
        return value
    return '"' + re.sub(r'(["\\])', r"\\\1", value) + '"'


_SCRIPT = """\
#!/bin/bash
# Written by run-batch submit. Any of its tasks can be submitted again: sbatch --array=3,7 FILE
{options}

# Slurm sends USR1 to this shell some time before the time limit. bash handles a signal only between two commands, so
# run-batch runs in the background, where its end can be waited for.
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

# vLLM caches what it compiles in files that two tasks must not write at the same time.
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

_SRUN = """\
srun --kill-on-bad-exit=0 --wait=0 --label ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} \\
    bash -c 'export VLLM_CACHE_ROOT="$VLLM_CACHE_ROOT/$SLURM_PROCID"; exec "$@"' task \\
    {command}"""

_EXIT = """\
exit "$code"
"""

_REQUEUE_OR_EXIT = """\
# {interrupted}: run-batch was interrupted and has saved what it had. 138 and 143, 128 + signal: USR1 or TERM came
# before it handled signals, so there was nothing to save. {may_pass}: storage or network failed in a way that may pass.
# Such a task is requeued if Slurm still counts it as running: one that was cancelled must not be, and one that was
# preempted or requeued is in the queue already.
case $code in {may_pass} | {interrupted} | 138 | 143) ;; *) exit "$code" ;; esac
task=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
[ "$(squeue --noheader --format=%T --job="$task")" = RUNNING ] || exit "$code"
if [ "${SLURM_RESTART_COUNT:-0}" -ge {max_requeues} ]; then
    echo "run-batch: task $task was restarted {max_requeues} times (slurm.max-requeues); it is not requeued" >&2
    exit "$code"
fi
trap '' TERM # which Slurm sends to all of a task that it requeues
scontrol requeue "$task" && [ "$code" -eq {may_pass} ] && scontrol update JobId="$task" StartTime=now+{pause}
exit "$code"
"""
