"""vLLM's engine: takes mapped rows and generates their texts, with continuous batching."""

import contextlib
import functools
import gc
import os
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from typing import Any

from run_batch.jobs.engine.pooling import find_form, pooled_result
from run_batch.jobs.engine.request_results import result_of
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import MappedRow, PooledForm, RowFailure, RowResult
from run_batch.jobs.machine.processes import kill_tree
from run_batch.model.checkpoint.adapter_fit import adapter_requests
from run_batch.model.checkpoint.adapters import AdapterError
from run_batch.model.checkpoint.missing_package import missing_packages_named
from run_batch.model.checkpoint.sampling_checks import check_reasoning_parser
from run_batch.model.checkpoint.settings import (
    ModelSettings,
    SettingsError,
    build_engine_args,
    build_sampling_params,
    first_cause,
)
from run_batch.model.checkpoint.vllm_messages import in_own_words
from run_batch.model.declaration import DeclarationError
from run_batch.model.failure_reports import Fault, Report, Reports, is_own_bug


class EngineDied(Exception):
    """The engine has failed, and a row in it may be the cause; the message says how, on one line.

    Attributes:
        report: of the exception that ended it; None if a process died without one.
    """

    def __init__(self, message: str, report: Report | None = None) -> None:
        super().__init__(message)
        self.report = report


class OwnBug(Exception):
    """run-batch's own code has failed in a process of the engine; the message is the traceback of that process.

    Attributes:
        report: of that exception.
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report.trace)
        self.report = report


class BrokenDeclaration(RunError):
    """The model does not do what it declares, as a row has shown; the message says what."""


class Engine:
    """One vLLM engine with the job's sampling settings.

    Attributes:
        max_num_seqs: rows that it runs at once.
        pooled: what it gives of each row, where that is no text.
    """

    pooled: PooledForm | None = None

    def __init__(self, settings: ModelSettings, sampling: Mapping[str, Any], extra: Collection[str] = ()) -> None:
        """Load the weights and profile memory.

        Args:
            extra: of `output.extra`: what results hold beside texts.

        Raises:
            JobError: vLLM refuses the engine or sampling settings, the model cannot be found, what it declares is
                wrong, or a LoRA adapter does not fit it.
            RunError: the engine does not start: weights that do not fit the model, too little memory.
        """
        from vllm.sampling_params import RequestOutputKind

        self._sampling, self._result = dict(sampling), functools.partial(result_of, extra=extra)
        self._output_kind = RequestOutputKind.FINAL_ONLY
        with _settings_errors(settings.path):
            self._shared_params: Any = build_sampling_params(sampling, output_kind=self._output_kind)
            config = _engine_config(settings)
        self.max_num_seqs: int = config.scheduler_config.max_num_seqs
        self._reports = Reports()
        self._engine = _load(config, settings.path, self._reports, with_times="timing" in extra)

        manager = getattr(getattr(self._engine.engine_core, "resources", None), "engine_manager", None)
        self._processes: list[Any] = list(getattr(manager, "processes", []))
        if self._processes:
            watched = (self._engine.engine_core, self._processes)
            threading.Thread(target=_wake_when_dead, args=watched, name="engine-death", daemon=True).start()
        gc.freeze()
        try:
            with _start_errors(self._reports):
                self._adapters = adapter_requests(self._engine, settings.adapters)
                if settings.runner == "pooling":
                    self._shared_params, self.pooled = find_form(self._engine)
        except Exception:
            self.close()
            raise

    @property
    def unfinished(self) -> int:
        """Rows added and not yet given back, running or waiting in the engine."""
        return self._engine.get_num_unfinished_requests()

    @property
    def running(self) -> int:
        """Rows that run, not counting those that wait; an upper bound if the engine is a process of its own."""
        core = getattr(self._engine.engine_core, "engine_core", None)
        return min(self.unfinished, self.max_num_seqs) if core is None else len(core.scheduler.running)

    def add(self, mapped: MappedRow) -> RowFailure | None:
        """Queue one row; a row that vLLM refuses is given back as its failure.

        Raises:
            EngineDied, OwnBug, RunError: a process of the engine is dead; see `step`.
        """
        from vllm.exceptions import VLLMClientError
        from vllm.v1.engine.exceptions import EngineDeadError

        params = self._shared_params
        try:
            if mapped.sampling:
                params = build_sampling_params({**self._sampling, **mapped.sampling}, output_kind=self._output_kind)
            adapter = self._adapters[mapped.adapter] if mapped.adapter is not None else None
            row, priority = str(mapped.row), mapped.priority
            self._engine.add_request(row, mapped.engine_input, params, lora_request=adapter, priority=priority)
        except (VLLMClientError, ValueError, SettingsError) as error:
            return RowFailure.of(mapped.row, "refused", first_cause(error))
        except EngineDeadError as error:
            raise self._death(error) from error
        return None

    def step(self) -> list[RowResult]:
        """Run the model once for all running rows; the rows that this finished, or whose generation vLLM gave up.

        Raises:
            EngineDied: a process of the engine is dead, memory has run out, or vLLM or a plugin's model has failed.
            OwnBug: run-batch's own code has failed in a process of the engine. In this process, it raises its own
                exception.
            BrokenDeclaration: the model does not do what it declares.
        """
        try:
            outputs = self._engine.step()
        except DeclarationError as error:
            raise BrokenDeclaration(str(error)) from None
        except Exception as error:
            if is_own_bug(error):
                raise
            raise self._death(error) from error
        result = pooled_result if self.pooled is not None else self._result
        return [result(output) for output in outputs if output.finished]

    def _death(self, error: Exception) -> Exception:
        """The exception for a failure of vLLM: EngineDied, unless a process has reported a cause that is no row."""
        from vllm.v1.engine.exceptions import EngineDeadError

        report = self._reports.first()
        if report is None and isinstance(error, EngineDeadError):
            return EngineDied(f"{type(error).__name__}: {first_cause(error)}")  # its process keeps its error to itself
        report = report or Report.of(error)
        if report.fault is Fault.UNKNOWN:
            return EngineDied(report.text, report)
        return OwnBug(report) if report.fault is Fault.OWN_BUG else BrokenDeclaration(report.text)

    def forget_rows(self) -> bool:
        """Empty the caches that earlier rows have filled, while no row is in the engine.

        Returns:
            Whether they are empty: the next rows then take as long as rows that the engine has not seen.
        """
        self._engine.reset_mm_cache()
        self._engine.reset_encoder_cache()
        return self._engine.reset_prefix_cache()

    def kill(self) -> bool:
        """Send SIGKILL to the engine's processes, from any thread; False if the engine runs in this process."""
        for process in self._processes:
            kill_tree(process.pid)
        return bool(self._processes)

    def close(self) -> None:
        """End the engine's processes. An engine in this process is left as it is: the process is about to exit."""
        if self._processes:
            self._engine.engine_core.shutdown()

    def discard(self) -> None:
        """End a dead engine and free its memory, so that another one can be started in this process."""
        from vllm.distributed import cleanup_dist_env_and_memory

        with contextlib.suppress(Exception):  # any call to a dead engine may fail
            self.kill()
            self._engine.engine_core.shutdown()
        self._reports.close()
        del self._engine
        with contextlib.suppress(Exception):
            cleanup_dist_env_and_memory()
        gc.unfreeze()
        gc.collect()


def _wake_when_dead(core: Any, processes: Sequence[Any]) -> None:
    """End `LLMEngine.step` when a process dies: vLLM notices that, too, but its step goes on waiting for an answer.

    Runs in a thread.
    """
    from vllm.v1.engine.exceptions import EngineDeadError

    with contextlib.suppress(OSError, ValueError):  # closed meanwhile
        wait([process.sentinel for process in processes])
    core.outputs_queue.put_nowait(EngineDeadError())


@contextlib.contextmanager
def _settings_errors(model_path: str) -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise JobError(str(error)) from error
    except OSError as error:
        raise JobError(f"model.path {model_path} cannot be loaded: {first_cause(error)}") from error
    except Exception as error:  # vLLM's checks, and the parsers and plugins that they load
        if is_own_bug(error):
            raise
        raise JobError(f"the engine settings are invalid: {first_cause(error)}") from error


def _engine_config(settings: ModelSettings) -> Any:
    from vllm.platforms import current_platform
    from vllm.tokenizers import cached_tokenizer_from_config
    from vllm.usage.usage_lib import UsageContext

    if current_platform.is_cpu() and int(settings.engine.get("tensor_parallel_size", 1)) == 1:
        # On a CPU a second process only moves the same work elsewhere: start-up takes three times as long.
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    engine_args = build_engine_args(settings)
    if engine_args.reasoning_parser:
        check_reasoning_parser(engine_args, cached_tokenizer_from_config(engine_args.create_model_config()))
    with missing_packages_named(settings.path):
        return engine_args.create_engine_config(UsageContext.LLM_CLASS)


def _load(config: Any, model_path: str, reports: Reports, with_times: bool) -> Any:
    from vllm import LLMEngine
    from vllm.usage.usage_lib import UsageContext

    # What has been imported stays. vLLM has the garbage collector walk through all objects six times while an engine
    # starts, which takes more than a second if these are not left out.
    gc.freeze()
    with _start_errors(reports), missing_packages_named(model_path):
        # Without its statistics, vLLM takes no times of requests.
        return LLMEngine.from_vllm_config(config, UsageContext.LLM_CLASS, disable_log_stats=not with_times)


@contextlib.contextmanager
def _start_errors(reports: Reports) -> Iterator[None]:
    """Around what starts an engine, and runs it for the first time."""
    try:
        yield
    except JobError:
        raise
    except (DeclarationError, SettingsError, AdapterError) as error:
        raise JobError(str(error)) from error
    except Exception as error:
        report = reports.first()
        if report is not None and report.fault is Fault.DECLARATION:
            raise JobError(report.text) from error
        # Whatever vLLM, torch and the model's own class raise: --verbose shows where.
        text = in_own_words(report.text) if report is not None else _cause(error)
        raise RunError(f"the engine does not start: {text} (--verbose tells more)") from error


def _cause(error: Exception) -> str:
    """An error on one line, with its place where that is in a plugin."""
    report, raw, text = Report.of(error), " ".join(str(error).split()), first_cause(error)
    if text not in (raw, type(error).__name__):
        return text  # it is known what it means, whoever has raised it
    return report.text if report.in_plugin else f"{type(error).__name__}: {text}"
