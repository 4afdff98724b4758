"""What goes wrong while rows are mapped in this process, before a run, told as the job's fault or the input's."""

import contextlib
from collections.abc import Iterator

from run_batch.io.inputs.source import InputError
from run_batch.jobs.job.errors import JobError, RunError, input_failed
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import DeclarationError, JobFault
from run_batch.model.failure_reports import Report, is_own_bug
from run_batch.model.plugin import PluginError


@contextlib.contextmanager
def mapping_faults() -> Iterator[None]:
    """Around the registration of plugins, the building of a RowMapper, and its calls.

    Raises:
        JobError: the job's settings, plugin, model or input cannot map rows.
        RunError: the input has gone, or its storage fails.
    """
    try:
        yield
    except InputError as error:
        raise input_failed(error) from error
    except (PluginError, SettingsError, DeclarationError, JobFault) as error:
        raise JobError(str(error)) from error
    except (JobError, RunError):
        raise
    except Exception as error:
        if is_own_bug(error):
            raise
        raise JobError(f"the first rows cannot be mapped: {Report.of(error).text}") from error
