"""The command line: commands that look at the results of a job, which may lie far from its job.toml."""

from pathlib import Path
from typing import Any

import click

from run_batch.jobs.cli_without_job import verbose_option
from run_batch.jobs.command import run_on_results
from run_batch.jobs.command_group import Command
from run_batch.jobs.job.errors import EXIT_COMPLETE, EXIT_RUN_FAILED

config_option = click.option("--config", "config_path", type=click.Path(path_type=Path), help="The job's job.toml.")
_folder_argument = click.argument("folder", required=False, type=click.Path(path_type=Path))
set_option = click.option(
    "--set", "overrides", multiple=True, metavar="TABLE.KEY=VALUE", help="Override one key of job.toml."
)


@click.command(cls=Command)
@_folder_argument
@config_option
@set_option
@click.option("--json", "as_json", is_flag=True, help="One line of JSON.")
@click.option("--watch", is_flag=True, help="Again every two seconds, until it is complete or idle for a minute.")
@click.option("--verify", is_flag=True, help="Read every shard to its end; exit code 1 if one is missing or damaged.")
def status(
    folder: Path | None, config_path: Path | None, overrides: tuple[str, ...], as_json: bool, watch: bool, verify: bool
) -> None:
    """Rows done, failed and left; works while the job runs.

    FOLDER is the results folder, or a copy of it; job.toml need not be there. Name it, or a job.toml by --config.
    """
    if watch and verify:
        raise click.UsageError("--watch and --verify exclude each other")

    def run(job: Any, summary: Any) -> int:
        from run_batch.jobs.watch.status import folder_status
        from run_batch.jobs.watch.watching import Display, watch_job

        display = Display(summary)

        def look() -> Any:
            found = folder_status(job, verify)
            if as_json:  # who reads JSON wants all of it
                print(found.as_json(), file=summary, flush=True)
            else:
                display.show(found.as_text())
            return found

        found = watch_job(look) if watch else look()
        return EXIT_RUN_FAILED if verify and (found.missing or found.damaged) else EXIT_COMPLETE

    run_on_results(run, folder, config_path, overrides)


@click.command(cls=Command)
@_folder_argument
@config_option
@set_option
@click.option("--output", "file", type=click.Path(path_type=Path), help="The file; FOLDER/.run_batch/report.html.")
@click.option("--rows", type=click.IntRange(1, 1000), default=200, help="Rows shown at most; 200 without it.")
@click.option("--seed", type=int, default=0, help="Another one chooses other rows; 0 without it.")
@click.option(
    "--watch", is_flag=True, help="Write the page again every half minute, until the job is complete or idle."
)
@verbose_option
def report(
    folder: Path | None,
    config_path: Path | None,
    overrides: tuple[str, ...],
    file: Path | None,
    rows: int,
    seed: int,
    watch: bool,
    verbose: bool,
) -> None:
    """Write an HTML page about the job next to its results.

    FOLDER is the results folder, or a copy of it; job.toml need not be there. Name it, or a job.toml by --config.
    """

    def run(job: Any, summary: Any) -> int:
        from run_batch.jobs.watch.report import ReportOptions, report_job

        return report_job(job, ReportOptions(file, rows, seed), watch, summary)

    run_on_results(run, folder, config_path, overrides, verbose)
