"""What libraries raise while a checkpoint's files are loaded, as an error of the job's settings."""

import contextlib
from collections.abc import Iterator

from run_batch.model.checkpoint.settings import ModelSettings, SettingsError
from run_batch.model.declaration import DeclarationError
from run_batch.model.rendering.job_faults import describe, root_of


@contextlib.contextmanager
def loading(part: str, settings: ModelSettings) -> Iterator[None]:
    """Turn what libraries raise for a checkpoint's files, or for packages that they miss, into a SettingsError."""
    try:
        yield
    except (SettingsError, DeclarationError):
        raise
    except Exception as error:
        message = f"model.path {settings.path}: its {part} cannot be loaded: {describe(root_of(error))}"
        raise SettingsError(message) from error
