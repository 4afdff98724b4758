"""Deaths of the engine before it has finished any row: tells a model that fails on every row from a row that kills it.

After such a death, rows run one at a time. If one of them is finished, the engine works, and the search for the row
that kills it goes on as usual. After three deaths in succession by one exception, the rows are not the cause.
"""

from collections.abc import Sequence

from run_batch.jobs.engine.vllm_engine import EngineDied
from run_batch.jobs.job.errors import JobError, RunError

_DEATHS_TO_END = 3


class FirstDeaths:
    """Counts deaths by one exception until a row is finished.

    Attributes:
        works: a row of the job has been finished, so the model does not fail on every one.
        probe: the row that is to run next, alone; None for no such row.
    """

    def __init__(self) -> None:
        self.works = False
        self.probe: int | None = None
        self._deaths: list[EngineDied] = []
        self._tried: set[int] = set()

    def finished_a_row(self) -> None:
        """Note that the engine works."""
        self.works, self.probe = True, None

    def died(self, death: EngineDied, running: Sequence[int]) -> None:
        """Count a death of the engine with these rows in it.

        Raises:
            JobError: the code of a plugin fails whatever row it gets.
            RunError: other code does.
        """
        self.probe = None
        if self.works or death.report is None:
            return
        if self._deaths and _cause(self._deaths[-1]) != _cause(death):
            self._deaths.clear()
        self._deaths.append(death)
        if len(running) == 1:
            self._tried.add(running[0])
        if len(self._deaths) >= _DEATHS_TO_END:
            raise _fails_on_every_row(death)

    def choose_probe(self, waiting: Sequence[int]) -> None:
        """After a death, choose the row to run next, alone: the first and the last of those that wait."""
        untried = [row for row in waiting if row not in self._tried]
        if untried and self._deaths and not self.works:
            self.probe = untried[0 if len(self._deaths) % 2 else -1]

    def refused(self, row: int, waiting: Sequence[int]) -> None:
        """Choose another row: vLLM does not take this one."""
        self.probe = None
        self._tried.add(row)
        self.choose_probe(waiting)


def _cause(death: EngineDied) -> str:
    return death.report.cause if death.report is not None else ""


def _fails_on_every_row(death: EngineDied) -> Exception:
    report = death.report
    assert report is not None
    whose = "correct the plugin" if report.in_plugin else "find the cause with --verbose"
    message = (
        f"the engine dies whatever row it gets, {_DEATHS_TO_END} times of the same exception: {report.text}. "
        f"That is not the rows' fault: {whose}, and run the same command again"
    )
    error = JobError(message) if report.in_plugin else RunError(message)
    error.add_note(report.trace)
    return error
