"""What is the job's fault or the machine's is no row's."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from run_batch.model.declaration import JobFault, RowError
from run_batch.model.rendering.job_faults import machine_fault
from run_batch.model.rendering.vllm_renderer import VllmRenderer

DUMMY = "dummy"


class Processor:
    """Stands in for vLLM's: fails on each row, and on its own dummy image too where `always`."""

    def __init__(self, error: BaseException, always: bool) -> None:
        self._error, self._always = error, always
        params = SimpleNamespace(add_special_tokens=True)
        self.info = SimpleNamespace(
            parse_mm_data=lambda data: data, default_tok_params=params, get_tokenizer=lambda: None
        )
        self.dummies = 0

    def get_dummy_inputs(self, length: int, counts: Any, options: Any) -> Any:
        self.dummies += 1
        return DUMMY

    def apply(self, inputs: Any, timing: Any) -> Any:
        if inputs == DUMMY and not self._always:
            return {}
        try:
            raise self._error
        except Exception as error:  # as vLLM does
            raise ValueError("Failed to apply a processor on data=...") from error


def render(processor: Processor) -> Any:
    image: Any = Image.new("RGB", (4, 4))
    fitting: Any = SimpleNamespace(check=lambda token_ids, images: None)
    renderer = VllmRenderer(processor, fitting)
    renderer._decode = lambda _: image  # type: ignore[method-assign,assignment]
    renderer.render([[1]], [[image]])
    return renderer.render([[1]], [[image]])[0]


@pytest.mark.parametrize("error", [KeyError("token"), AttributeError("no patches"), RuntimeError("shape")])
def test_a_processor_that_fails_on_vllms_own_image_too_is_the_jobs_fault(error: Exception) -> None:
    processor = Processor(error, always=False)
    failed = render(processor)
    assert isinstance(failed, RowError) and failed.kind == "image_processing"
    assert failed.message.startswith(type(error).__name__) and processor.dummies == 1
    with pytest.raises(JobFault, match=f"fails on vLLM's own dummy image: {type(error).__name__}: "):
        render(Processor(error, always=True))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ModuleNotFoundError("No module named 'tiles'"), "needs the package tiles, which is not installed"),
        (ImportError("half of it"), "a package that the model needs cannot be imported: half of it"),
        (MemoryError(), "MemoryError"),
        (OSError(errno.EMFILE, "Too many open files"), "OSError: .*Too many open files"),
    ],
)
def test_what_the_machine_lacks_is_no_rows_fault(error: Exception, message: str) -> None:
    with pytest.raises(JobFault, match=message):
        render(Processor(error, always=False))


def test_a_machine_fault_is_seen_behind_the_error_of_a_row() -> None:
    def wrapped(inner: Exception) -> RowError:
        try:
            try:
                raise inner
            except Exception:
                raise RowError("image_unreadable", "a.png") from None
        except RowError as error:
            return error

    for number in (errno.EMFILE, errno.ESTALE):
        assert isinstance(machine_fault(wrapped(OSError(number, "x"))), OSError)
    assert isinstance(machine_fault(wrapped(MemoryError())), MemoryError)
    for error in (
        OSError(errno.EACCES, "x"),
        OSError(errno.EIO, "x"),
        FileNotFoundError(errno.ENOENT, "x"),
        ValueError("damaged"),
    ):
        assert machine_fault(wrapped(error)) is None
