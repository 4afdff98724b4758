"""The command line: commands that need no job, because they write or describe what one is made of."""

import shlex
from pathlib import Path
from typing import Any

import click

from run_batch.jobs.command import run_process
from run_batch.jobs.job.errors import EXIT_COMPLETE, JobError

verbose_option = click.option("--verbose", is_flag=True, help="Show what vLLM logs, and tracebacks.")


@click.command()
@click.argument("path", metavar="INPUT")
@click.option("--model", help="Folder of the model, or its id on the Hub.")
@click.option("--name", help="Configuration of the input, where there are several.")
@click.option("--split", help="Split of the input, where there are several.")
@click.option("--output", "file", type=click.Path(path_type=Path), default="job.toml", help="The file; job.toml.")
@verbose_option
def init(path: str, model: str | None, name: str | None, split: str | None, file: Path, verbose: bool) -> None:
    """Write a commented job.toml for an input, from its columns and the kind of the model."""

    def run(summary: Any) -> int:
        from run_batch.jobs.init.init_job import init_job

        found = init_job(path, model, name, split, file)
        shown = {"images": found.image, "prompts": found.prompt, "ids": found.id}
        text = ", ".join(f"{kind} in column {column}" for kind, column in shown.items() if column)
        print(f"{file}: {text or 'no column was recognized'}; next: run-batch try --config {file}", file=summary)
        return EXIT_COMPLETE

    run_process(run, verbose)


@click.command("new-model")
@click.argument("name")
@click.option("--output", "folder", type=click.Path(path_type=Path), help="The folder; NAME without it.")
@verbose_option
def new_model(name: str, folder: Path | None, verbose: bool) -> None:
    """Write a plugin with a model of your own, NAME, to begin from: its job, a tiny checkpoint and a test."""

    def run(summary: Any) -> int:
        from run_batch.jobs.new_model.new_model import new_model

        files = new_model(name, folder or Path(name))
        names = ", ".join(file.name for file in files)
        print(f"{files[0].parent}: {names}; next: python -m pytest {shlex.quote(str(files[-1]))}", file=summary)
        return EXIT_COMPLETE

    run_process(run, verbose)


@click.command()
@click.argument("name", metavar="[TABLE]", required=False)
@click.option("--json-schema", is_flag=True, help="The JSON Schema of job.toml, for editors.")
def keys(name: str | None, json_schema: bool) -> None:
    """Show the keys of job.toml: type, default, meaning, example.

    TABLE is one table, or one key: `run-batch keys input`, `run-batch keys output.columns`. The tables engine and
    sampling are those of the installed vLLM.
    """
    from run_batch.jobs import keys as reference

    try:
        click.echo(reference.json_schema() if json_schema else reference.describe(name))
    except JobError as error:
        raise click.UsageError(str(error)) from None
