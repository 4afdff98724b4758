"""The script of a job's Slurm array, and how it is filled in."""

import re
import shlex
from collections.abc import Mapping

from run_batch.jobs.job.errors import EXIT_INTERRUPTED
from run_batch.jobs.machine.slurm_environment import ARRAY_COUNT
from run_batch.jobs.slurm.sbatch_options import SlurmTable

_PLAIN = re.compile(r"[\w@%+=:,./\[\]*&|!-]+", re.ASCII)


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
