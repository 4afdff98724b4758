"""The process of a command: signals, standard output, what libraries log, and the exit code at its end."""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from run_batch.io.transient import may_pass
from run_batch.jobs.engine.engine_folder import remove_engine_folder
from run_batch.jobs.job.config import JobConfig, load_config
from run_batch.jobs.job.errors import (
    EXIT_INTERRUPTED,
    EXIT_RUN_FAILED,
    Interrupted,
    JobError,
    MayPassError,
    RunError,
    storage_failed,
)
from run_batch.jobs.job.errors_table import ErrorsTable
from run_batch.jobs.machine.early_signals import INTERRUPTED_LINE, end_when_interrupted
from run_batch.jobs.machine.storage_watch import StorageWatch
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.model.failure_reports import Report


def run_command(
    action: Callable[[JobConfig, Any], int],
    config_path: Path | None,
    overrides: tuple[str, ...],
    verbose: bool,
) -> NoReturn:
    """Run a command on a job.toml and end the process with its exit code, whatever happens in it."""
    if config_path is None:
        raise click.UsageError("--config job.toml is missing")

    def on_job(summary: Any) -> int:
        config = load_config(config_path, overrides)
        with StorageWatch(config.errors.storage_seconds).thread("the input or the output folder"):
            return action(config, summary)

    run_process(on_job, verbose)


def run_on_results(
    action: Callable[[JobFolder, Any], int],
    folder: Path | None,
    config_path: Path | None,
    overrides: tuple[str, ...],
    verbose: bool = False,
) -> NoReturn:
    """Run a command on a results folder, named by itself or by a job.toml, and end the process with its exit code."""
    if (folder is None) == (config_path is None):
        name = click.get_current_context().info_name
        what = "the job" if folder is None else "either the results folder or a job.toml"
        raise click.UsageError(f"name {what}: run-batch {name} FOLDER, or run-batch {name} --config job.toml")
    if folder is None:
        run_command(lambda config, summary: action(JobFolder.of(config), summary), config_path, overrides, verbose)
    if overrides:
        raise click.UsageError("--set changes a job.toml: it needs --config, not FOLDER")
    results = folder
    run_process(lambda summary: action(JobFolder.at(results), summary), verbose)


def tell(error: Exception) -> None:
    """Tell people of an error, on standard error."""
    print(f"run-batch: {error}", file=sys.stderr)


def run_process(
    action: Callable[[Any], int],
    verbose: bool,
    tell: Callable[[Exception], None] = tell,
    interrupted_line: str = INTERRUPTED_LINE,
) -> NoReturn:
    """Run an action and end the process with its exit code, whatever happens in it.

    Args:
        action: gets a stream for its summary line.
        tell: tells of a JobError or RunError.
        interrupted_line: what is said when a signal comes that the action does not handle; nothing if it is empty.
    """
    end_when_interrupted(interrupted_line)
    # Idle OpenMP threads spin, on the cores where images are mapped: let them sleep after microseconds. This has to be
    # set before torch is imported.
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    summary = _keep_stdout()
    _show_own_warnings()
    if not verbose:
        _quiet_libraries()
    with StorageWatch(ErrorsTable().storage_seconds).thread("job.toml, standard output or standard error"):
        try:
            code = action(summary)
        except (JobError, RunError) as error:
            code = _complain(_told_as_passing(error), verbose, tell)
        except (KeyboardInterrupt, Interrupted):
            print(interrupted_line, end="\n" if interrupted_line else "", file=sys.stderr)
            code = EXIT_INTERRUPTED
        except Exception as error:
            if isinstance(error, OSError) and may_pass(error):
                code = _complain(storage_failed("a file cannot be read or written", error), verbose, tell)
            else:
                code = _complain_of_bug(error)
        summary.flush()
        sys.stderr.flush()
    remove_engine_folder()
    # Everything is written; tearing down torch and vLLM would only take time.
    os._exit(code)


def _whose_bug(error: Exception) -> str:
    """An exception out of run-batch's own code; where a plugin's code or model class was running, that is named."""
    report = getattr(error, "report", None) or Report.of(error)
    return (
        f"{report.text}; if not of the plugin, this is a bug in run-batch"
        if report.in_plugin
        else ("this is a bug in run-batch")
    )


def _keep_stdout() -> Any:
    """Keep standard output for the summary line: what libraries print goes to standard error."""
    # What a terminal's encoding lacks is escaped: texts of the data are shown, too.
    summary = os.fdopen(os.dup(1), "w", errors="backslashreplace")
    os.dup2(2, 1)
    return summary


def _show_own_warnings() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("run-batch: %(message)s"))
    logging.getLogger("run_batch").addHandler(handler)


def _quiet_libraries() -> None:
    """Keep the logs of torch and vLLM off the terminal, in this process and in all that it starts."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    os.environ.setdefault("TORCH_LOGS", "-torch._library")
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    warnings.simplefilter("ignore")
    # vLLM logs a little before it has set its level; without any handler, Python would print that.
    logging.getLogger().addHandler(logging.NullHandler())


def _told_as_passing(error: JobError | RunError) -> JobError | RunError:
    """The error of a command; a MayPassError where storage or network are behind it, whoever ran into that."""
    if isinstance(error, MayPassError) or not may_pass(error):
        return error
    return MayPassError(f"{error}. This may pass: run the same command again later")


def _complain(error: JobError | RunError, verbose: bool, tell: Callable[[Exception], None]) -> int:
    if verbose:
        traceback.print_exc()
    tell(error)
    return error.exit_code


def _complain_of_bug(error: Exception) -> int:
    traceback.print_exc()
    print(f"run-batch: {_whose_bug(error)}; please report it with the lines above", file=sys.stderr)
    return EXIT_RUN_FAILED
