"""`run-batch` as a group of commands that says what was meant where a word is no command."""

import click
from click.core import ParameterSource

from run_batch.model.checkpoint.nearest_name import nearest_or_all


class CommandGroup(click.Group):
    """Commands, and the group itself, which runs a job."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command of the first word; see click.

        Raises:
            click.UsageError: there is none; says what runs a job, or which command has a similar name.
        """
        word = args[0]
        if self.get_command(ctx, word) is None and not word.startswith("-"):
            if word.endswith(".toml"):
                raise click.UsageError(f"a job is run by: run-batch --config {word}")
            if word == "run":
                raise click.UsageError("a job is run without a command: run-batch --config job.toml")
            raise click.UsageError(f"no command {word}{nearest_or_all(word, self.list_commands(ctx))}")
        return super().resolve_command(ctx, args)


def refuse_options_before_command(context: click.Context) -> None:
    """Refuse options of the group before a command, which would not see them.

    Raises:
        click.UsageError: names one.
    """
    for parameter in context.command.params:
        if context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{parameter.opts[0]} stands before the command; write options after it: "
                f"run-batch {context.invoked_subcommand} ..."
            )
