"""The `[slurm]` table of job.toml: sbatch's long options under their own names, and a few keys of run-batch's own.

Mistakes that can be seen without a cluster are refused here. Whether a partition or an account exists, sbatch says when
the script is submitted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.machine.gpus import gpus_per_engine
from run_batch.model.checkpoint.nearest_name import nearest_or_all

# Options of sbatch, Slurm 22.05 and later: with a value, without one, and with or without.
_WITH_VALUE = """
    account acctg-freq batch bb bbf begin chdir cluster-constraint clusters comment constraint container container-id
    core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot dependency distribution error
    exclude export export-file extra extra-node-info gid gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket
    gpus-per-task gres gres-flags hint input job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem
    mem-bind mem-per-cpu mem-per-gpu mincpus network nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu
    ntasks-per-node ntasks-per-socket oom-kill-step open-mode output partition power prefer priority profile qos
    reservation resv-ports segment signal sockets-per-node switches thread-spec threads-per-core time time-min tmp
    tres-bind tres-per-task uid wait-all-nodes wckey"""
_FLAGS = """
    contiguous hold ignore-pbs no-requeue overcommit oversubscribe reboot requeue spread-job stepmgr use-min-nodes"""
_EITHER = "exclusive get-user-env nice no-kill propagate"
_SBATCH = frozenset(f"{_WITH_VALUE} {_FLAGS} {_EITHER}".split())
# Options that run-batch sets itself, or that do not go with a script that it writes, and what to do instead.
_DECIDED = {
    "array": "write slurm.tasks, or --tasks, and slurm.concurrency",
    "wrap": "the script of run-batch submit is what is submitted",
    "parsable": "run-batch submit prints the job's id",
    "quiet": "run-batch submit prints the job's id",
    "wait": "follow the job with run-batch status --watch",
    "test-only": "see the script with run-batch submit --print",
}
_DECIDED |= {name: "it starts nothing" for name in ("help", "usage", "version", "verbose")}
# Keys of [slurm] that are none of sbatch's.
OWN_KEYS = {
    "tasks": "tasks of the array",
    "concurrency": "tasks that run at once",
    "max-requeues": "restarts of a task, after which it is not requeued again",
    "setup": 'shell lines before run-batch starts, such as ["module load cuda"]',
}
_DEFAULTS = {"signal": "B:USR1@120", "requeue": None, "open-mode": "append"}
_GPUS = re.compile(r"(?:^|,)(?:gres[/:])?gpu(?::(?!\d+(?:,|\(|$))[^:,()]+)?(?::(\d+))?(?=,|\(|$)")  # gpu[:type][:count]
# Options that can make a task several processes, which srun starts.
_PROCESS_COUNTS = ("ntasks", "ntasks-per-node", "ntasks-per-gpu", "ntasks-per-core", "ntasks-per-socket", "nodes")


@dataclass(frozen=True, slots=True)
class SlurmTable:
    """A checked `[slurm]` table.

    Attributes:
        options: sbatch's long options and their values; None for an option without a value.
        tasks: number of tasks of the array; None where it is not set.
        concurrency: number of tasks that run at once; None for all.
        max_requeues: restarts after which a task is not requeued again.
        setup: shell lines that run before run-batch does.
    """

    options: Mapping[str, str | None]
    tasks: int | None = None
    concurrency: int | None = None
    max_requeues: int = 50
    setup: tuple[str, ...] = ()

    @property
    def has_steps(self) -> bool:
        """Whether a task of the array is several processes, a job step."""
        return any(self.options.get(name) not in (None, "1") for name in _PROCESS_COUNTS)


def read_slurm_table(config: JobConfig, arguments: tuple[str, ...] = (), tasks: int | None = None) -> SlurmTable:
    """Check the `[slurm]` table.

    Args:
        arguments: `--name=value` or `--name`, as sbatch takes them; they override the table.
        tasks: overrides slurm.tasks.

    Raises:
        JobError: unknown option, wrong value, or a number of GPUs that contradicts `[engine]`.
    """
    values = {**config.slurm, **dict(map(_parse_argument, arguments))}
    own = {name: _own_value(name, values.pop(name)) for name in OWN_KEYS if name in values}
    if tasks is not None:
        own["tasks"] = tasks
    options: dict[str, str | None] = dict(_DEFAULTS)
    for name, value in values.items():
        _check_name(name)
        if value is not False:
            options[name] = _option_value(name, value)
        else:
            options.pop(name, None)
    if "requeue" not in options:
        options["no-requeue"] = None
    elif "no-requeue" in options:
        del options["requeue"]
    _check_gpus(config, options)
    _check_notice(options)
    return SlurmTable(options, **{name.replace("-", "_"): value for name, value in own.items()})


def _parse_argument(argument: str) -> tuple[str, Any]:
    name, equals, value = argument.removeprefix("--").partition("=")
    if not argument.startswith("--") or name in OWN_KEYS:
        raise JobError(f"--sbatch-arg={argument}: expected an option of sbatch's in its long form, as in --qos=high")
    return name, value if equals else True


def _check_name(name: str) -> None:
    if name in _DECIDED:
        raise JobError(f"slurm.{name} cannot be set: {_DECIDED[name]}")
    if name not in _SBATCH:
        known = [*_SBATCH, *OWN_KEYS]
        hint = nearest_or_all(name.replace("_", "-"), known, "slurm.")
        raise JobError(f"unknown key slurm.{name}{hint} (options of sbatch, by their long names)")


def _option_value(name: str, value: Any) -> str | None:
    if value is True:
        if name in _WITH_VALUE.split():
            raise JobError(f"slurm.{name} = true: sbatch's --{name} takes a value")
        return None
    if not isinstance(value, str | int | float):
        raise JobError(f"slurm.{name} = {value}: expected text or a number; put times and dates in quotes")
    text = str(value)
    if name in _FLAGS.split():
        raise JobError(f"slurm.{name} = {text!r}: expected true or false; sbatch's --{name} takes no value")
    if not text or not text.isprintable():
        raise JobError(f"slurm.{name} = {text!r}: expected one line of text without control characters")
    return text


def _own_value(name: str, value: Any) -> Any:
    if name == "setup":
        lines = value if isinstance(value, list) else []
        if not lines or not all(isinstance(line, str) and line.isprintable() for line in lines):
            raise JobError(f"slurm.setup = {value!r}: expected a list of {OWN_KEYS['setup']}, each one line")
        return tuple(lines)
    low = 0 if name == "max-requeues" else 1
    if not isinstance(value, int) or isinstance(value, bool) or value < low:
        raise JobError(f"slurm.{name} = {value!r}: expected a whole number from {low} on ({OWN_KEYS[name]})")
    return value


def _check_gpus(config: JobConfig, options: Mapping[str, str | None]) -> None:
    an_engine = gpus_per_engine(config)
    needed = an_engine * (config.engines or 1)
    asked = _last_number(options.get("gpus-per-task"))
    # Without engine.data_parallel_size, a task runs as many engines as its GPUs allow.
    if asked is not None and (asked != needed if config.engines else asked % needed or not asked):
        engines = f" x engine.data_parallel_size = {config.engines}" if config.engines else ""
        raise JobError(
            f"slurm.gpus-per-task = {options['gpus-per-task']}, and engine.tensor_parallel_size x "
            f"engine.pipeline_parallel_size = {an_engine}{engines}: a task uses {needed} GPUs"
            + (", so make them equal" if config.engines else " or a multiple of it")
        )
    processes = _last_number(options.get("ntasks-per-node", "1")) or 1
    for name in ("gpus-per-node", "gres"):
        value = options.get(name)
        found = _GPUS.search(value or "")
        on_node = (int(found[1] or 1) if found else None) if name == "gres" else _last_number(value)
        if on_node is not None and on_node < processes * needed:
            raise JobError(
                f"slurm.{name} = {value}: {processes} processes a node need {processes * needed} GPUs "
                f"({needed} each, by the parallel sizes of [engine])"
            )


def _last_number(value: str | None) -> int | None:
    """The count in a GPU option: 4 of `4`, `a100:4` and `gpu:a100:4`."""
    found = re.fullmatch(r"(?:[^,]*:)?(\d+)", value or "")
    return int(found[1]) if found else None


def _check_notice(options: Mapping[str, str | None]) -> None:
    seconds = _seconds(options.get("time") or "")
    notice = re.search(r"@(\d+)$", options.get("signal") or "")
    if seconds is not None and notice and seconds <= int(notice[1]):
        raise JobError(
            f"slurm.time = {options['time']} is not more than the notice before its end (slurm.signal = "
            f"{options['signal']}): tasks would stop as soon as they start"
        )


def _seconds(time: str) -> int | None:
    """Seconds of a time limit in any of sbatch's six formats; None for anything else, such as UNLIMITED."""
    found = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", time)
    if not found:
        return None
    days, *parts = found.groups()
    first, second, third = (int(part or 0) for part in parts)
    if days is not None:
        return int(days) * 86400 + first * 3600 + second * 60 + third
    return first * 60 + second if parts[2] is None else first * 3600 + second * 60 + third
