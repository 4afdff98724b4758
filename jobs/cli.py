"""The command line: commands and their options, nothing else."""

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click

from run_batch.jobs.cli_on_results import config_option, report, set_option, status
from run_batch.jobs.cli_without_job import init, keys, new_model, verbose_option
from run_batch.jobs.command import run_command
from run_batch.jobs.command_group import CommandGroup, refuse_options_before_command
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.shares import WHOLE_JOB, Share
from run_batch.jobs.machine.gpus import engine_places, first_place
from run_batch.jobs.machine.slurm_environment import find_share

_EXIT_CODES = """\b
Exit codes:
  0   complete, row failures within errors.max_fraction
  1   the run failed; run the same command again to go on
  2   bad configuration or usage; nothing started
  3   complete, but more rows failed than errors.max_fraction
  74  storage or network failed in a way that may pass; run the same command again later
  75  interrupted after saving progress; run the same command again
"""


@click.group(
    cls=CommandGroup, invoke_without_command=True, epilog=_EXIT_CODES, context_settings={"max_content_width": 100}
)
@config_option
@set_option
@click.option("--retry-failed", is_flag=True, help="Generate again the rows that have an error, and only those.")
@click.option("--task-index", type=int, help="Do one share of the job alone: this one, counted from 0.")
@click.option("--task-count", type=int, help="Into how many shares the job is cut.")
@click.option("--quiet", is_flag=True, help="Show no progress, and say nothing of the start and the end.")
@verbose_option
@click.version_option(version("run-batch"), prog_name="run-batch")
@click.pass_context
def main(
    context: click.Context,
    config_path: Path | None,
    overrides: tuple[str, ...],
    retry_failed: bool,
    task_index: int | None,
    task_count: int | None,
    quiet: bool,
    verbose: bool,
) -> None:
    """Generate text for every row of a data set of images and prompts.

    Without a command: run the job, or resume it where it stopped.
    """
    if context.invoked_subcommand is not None:
        refuse_options_before_command(context)
        return

    if (task_index is None) != (task_count is None):
        raise click.UsageError("--task-index and --task-count go together")

    def run(config: JobConfig, summary: Any) -> int:
        from run_batch.jobs.watch.run_messages import RunMessages

        share = _share(task_index, task_count)
        places = engine_places(config, os.environ, by_hand=task_index)
        RunMessages(quiet).begin(config)
        from run_batch.jobs.engines.run_engines import RunOptions, run_on_machine
        from run_batch.jobs.job.prepare import prepare

        return run_on_machine(prepare(config, share), places, RunOptions(quiet, verbose, retry_failed), summary)

    run_command(run, config_path, overrides, verbose)


@main.command()
@config_option
@set_option
@verbose_option
def check(config_path: Path | None, overrides: tuple[str, ...], verbose: bool) -> None:
    """Validate a job and show its plan, without starting an engine."""

    def run(config: JobConfig, summary: Any) -> int:
        from run_batch.jobs.job.prepare import prepare
        from run_batch.jobs.slurm.sbatch_options import read_slurm_table

        read_slurm_table(config)
        job = prepare(config)
        from run_batch.jobs.watch.loading_line import loading_line

        with loading_line(quiet=not sys.stderr.isatty(), what="checking the model and the first rows"):
            # This imports vLLM, which takes seconds: what can be refused without it is refused before.
            from run_batch.jobs.check import check_job

            text, code = check_job(job)
        print(text, file=summary)
        return code

    run_command(run, config_path, overrides, verbose)


@main.command("try")
@config_option
@set_option
@click.option("--rows", type=click.IntRange(1, 256), help="Try so many first rows; 8 without it.")
@click.option(
    "--row",
    "row_ids",
    multiple=True,
    metavar="ID",
    help="Try the row with this id instead, or several; the input's id column is read up to them.",
)
@click.option("--full", is_flag=True, help="Show long prompts and answers whole.")
@click.option("--json", "as_json", is_flag=True, help="One line of JSON, texts whole.")
@verbose_option
def try_rows(
    config_path: Path | None,
    overrides: tuple[str, ...],
    rows: int | None,
    row_ids: tuple[str, ...],
    full: bool,
    as_json: bool,
    verbose: bool,
) -> None:
    """Generate a few rows, show all about them, and forecast the job; writes nothing.

    Exit codes: 0, 1 (the engine fails), 2 (the job is at fault), 3 (more of the rows fail than errors.max_fraction
    allows), 74 (storage or network failed in a way that may pass), 75 (interrupted).
    """
    if rows is not None and row_ids:
        raise click.UsageError("--rows and --row exclude each other")

    def run(config: JobConfig, summary: Any) -> int:
        from run_batch.jobs.job.prepare import prepare

        os.environ.update(first_place(config, os.environ))
        job = prepare(config, writes=False)
        from run_batch.jobs.watch.loading_line import loading_line

        with loading_line(quiet=False, what="importing vLLM"):
            # It takes seconds: what can be refused without it is refused before.
            from run_batch.jobs.trial.try_job import Trial, try_job

        text, code = try_job(job, Trial(rows or 8, row_ids, full, as_json))
        print(text, file=summary)
        return code

    run_command(run, config_path, overrides, verbose)


@main.command()
@config_option
@set_option
@click.option("--tasks", type=click.IntRange(min=1), help="Tasks of the array; slurm.tasks of job.toml without it.")
@click.option(
    "--sbatch-arg",
    "sbatch_arguments",
    multiple=True,
    metavar="--NAME=VALUE",
    help="An option of sbatch's, in its long form; wins over [slurm] of job.toml.",
)
@click.option("--print", "only_print", is_flag=True, help="Print the script; write and submit nothing.")
@verbose_option
def submit(
    config_path: Path | None,
    overrides: tuple[str, ...],
    tasks: int | None,
    sbatch_arguments: tuple[str, ...],
    only_print: bool,
    verbose: bool,
) -> None:
    """Check a job and submit it as a Slurm array; prints the array's job id."""

    def run(config: JobConfig, summary: Any) -> int:
        from run_batch.jobs.job.prepare import prepare
        from run_batch.jobs.slurm.sbatch_options import read_slurm_table

        table = read_slurm_table(config, sbatch_arguments, tasks)
        job = prepare(config)
        from run_batch.jobs.slurm.submit import submit_job

        assert config_path is not None
        return submit_job(job, table, config_path, overrides, only_print, summary)

    run_command(run, config_path, overrides, verbose)


@main.command()
@config_option
@set_option
@click.option("--tasks", type=click.IntRange(min=1), required=True, help="Into how many shares the job is cut.")
@click.option("--address", help="The cluster's; RAY_ADDRESS, or the cluster that runs here, without it.")
@click.option("--gpus", type=click.FloatRange(min=0), help="GPUs of a share; those of its engine without it.")
@click.option("--cpus", type=click.FloatRange(min=0.1), help="Cores of a share; a part of the cluster's without it.")
@verbose_option
def ray(
    config_path: Path | None,
    overrides: tuple[str, ...],
    tasks: int,
    address: str | None,
    gpus: float | None,
    cpus: float | None,
    verbose: bool,
) -> None:
    """Run the shares of a job as tasks of a Ray cluster; needs Ray (pip install ray).

    All nodes have run-batch and Ray at the same paths, and see the job's folders.
    """

    def run(config: JobConfig, summary: Any) -> int:
        from run_batch.jobs.job.prepare import prepare
        from run_batch.jobs.ray.run_on_ray import RayOptions, run_on_ray

        assert config_path is not None
        job = prepare(config)
        return run_on_ray(job, RayOptions(tasks, address, gpus, cpus), config_path, overrides, summary)

    run_command(run, config_path, overrides, verbose)


for command in (init, new_model, keys, status, report):
    main.add_command(command)


def _share(index: int | None, count: int | None) -> Share:
    """The share asked for, else the one that Slurm's environment tells of, else the whole job.

    Raises:
        JobError: there is no such share.
    """
    if index is not None and count is not None:
        return Share(index, count)
    return find_share(os.environ) or WHOLE_JOB
