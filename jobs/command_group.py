"""`run-batch` as a group of commands that says what was meant where a word or an option is none of a command."""

import click
from click.core import ParameterSource

from run_batch.model.checkpoint.nearest_name import nearest_or_all


class Command(click.Command):
    """A command that says where an option of another one, or a job.toml without `--config`, belongs."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words after the command; see click.

        Raises:
            click.UsageError: one of them is none of its own.
        """
        words = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            of_a_run = {name for option in ctx.parent.command.params for name in option.opts} if ctx.parent else set()
            if error.option_name not in of_a_run:
                raise
            raise click.UsageError(
                f"{error.option_name} is an option of a run, not of {self.name}: "
                f"run-batch --config job.toml {error.option_name}",
                ctx,
            ) from None
        except click.UsageError:
            files = [word for word in words if word.endswith(".toml")]
            if "--config" in words or not files or not any("--config" in option.opts for option in self.params):
                raise
            raise click.UsageError(f"a job is named by: run-batch {self.name} --config {files[0]}", ctx) from None


class CommandGroup(click.Group):
    """Commands, and the group itself, which runs a job."""

    command_class = Command

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
