"""What an engine's process reports of its own death, and what the run makes of it."""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from run_batch.jobs.engine.vllm_engine import BrokenDeclaration, Engine, EngineDied, OwnBug
from run_batch.model.declaration import DeclarationError
from run_batch.model.failure_reports import DeathReporter, Reports, report_deaths
from run_batch.model.rendering.feature_counts import check_feature_counts


@pytest.fixture
def reports() -> Iterator[Reports]:
    opened = Reports()
    report_deaths()
    report_deaths()  # vLLM loads its plugins more than once in a process
    yield opened
    logger = logging.getLogger("vllm")
    for handler in [handler for handler in logger.handlers if isinstance(handler, DeathReporter)]:
        logger.removeHandler(handler)
    opened.close()


def fail_in_own_code() -> None:
    check_feature_counts("Model", [1], None)


def fail_in_a_plugin() -> None:
    raise ValueError("shape of you")


def fail_for_lack_of_memory() -> None:
    try:
        fail_in_own_code()
    except TypeError as error:
        raise RuntimeError("CUDA out of memory").with_traceback(error.__traceback__) from None


def fail_to_declare() -> None:
    raise DeclarationError("Model gives 3 features")


FAILURES: list[tuple[Callable[[], None], type[Exception]]] = [
    (fail_in_own_code, OwnBug),
    (fail_to_declare, BrokenDeclaration),
    (fail_in_a_plugin, EngineDied),
    (fail_for_lack_of_memory, EngineDied),
]


@pytest.mark.parametrize(("fail", "expected"), FAILURES, ids=[fail.__name__ for fail, _ in FAILURES])
def test_only_what_a_row_may_have_caused_counts_as_the_engines_death(
    reports: Reports, fail: Callable[[], None], expected: type[Exception]
) -> None:
    try:
        fail()
    except Exception:  # as vLLM does with what ends one of its processes
        logging.getLogger("vllm.v1.engine.core").exception("EngineCore encountered a fatal error.")
    engine = Engine.__new__(Engine)
    engine._reports = reports
    death = engine._death(RuntimeError("the process is dead"))
    assert type(death) is expected
    if expected is OwnBug:
        assert "feature_counts.py" in str(death) and "TypeError" in str(death)
    if expected is BrokenDeclaration:
        assert str(death) == "Model gives 3 features"


def test_of_several_processes_that_end_the_first_report_counts(reports: Reports) -> None:
    for text in ("first", "second"):
        logging.getLogger("vllm").error("ends", exc_info=DeclarationError(text))
    found: Any = reports.first()
    assert found.text == "first"


def test_a_report_that_the_run_does_not_live_to_see_is_no_further_trouble(
    reports: Reports, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = DeathReporter("/proc/0/fd/0")
    record = logging.LogRecord("vllm", logging.ERROR, "", 0, "", None, (DeclarationError, DeclarationError("x"), None))
    reporter.handle(record)
    assert reports.first() is None
