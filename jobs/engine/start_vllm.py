"""The start of vLLM's engine for a job."""

import gc
import os

from run_batch.jobs.engine.engine_folder import use_engine_folder
from run_batch.jobs.engine.vllm_engine import Engine
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.model.engine_phases import Phase, begin_phase, note_phases

# Seconds: vLLM waits for as many milliseconds as an int has room for.
_LONGEST_START = 20 * 86400


def start_vllm(config: JobConfig) -> Engine:
    """Start vLLM's engine for a job, with its plugins' models registered.

    Raises:
        JobError, RunError: it does not start.
    """
    from run_batch.model.declaration import DeclarationError
    from run_batch.model.plugin import PluginError, register

    begin_phase(Phase.STARTING)
    # While vLLM is imported almost nothing becomes garbage, and the collector walks through all of it often.
    gc.disable()
    use_engine_folder()
    # What a start may take is for errors.start_seconds to say; vLLM's own limit is of ten minutes.
    os.environ.setdefault("VLLM_ENGINE_READY_TIMEOUT_S", str(_LONGEST_START))
    try:
        register()
        note_phases()
        return Engine(config.model_settings, config.resolve_sampling().values, config.output.extra)
    except (PluginError, DeclarationError) as error:
        raise JobError(str(error)) from None
    finally:
        gc.enable()
