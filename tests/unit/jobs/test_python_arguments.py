"""What `run_batch.jobs.run` says of arguments that are none, in words of the call and not of the command line."""

from typing import Any

import pytest

from run_batch.jobs import JobError, run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"config": {"input": {}}}, "config is a dict; expected the path of a job.toml"),
        ({"overrides": "input.limit=3"}, "overrides is a str; expected a mapping"),
        ({"overrides": {"input": {"limit": 3}}}, "overrides: 'input' names no key; expected \"table.key\""),
        ({"overrides": {1: 2}}, "overrides: 1 names no key"),
        ({"task_index": 1}, "task_index and task_count go together"),
        ({"task_index": "0", "task_count": "3"}, "task_index = '0': expected a whole number"),
    ],
)
def test_arguments_of_other_types_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(JobError) as caught:
        run(**{"config": "job.toml", **arguments})
    assert said in str(caught.value)
