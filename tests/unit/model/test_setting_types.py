"""Settings of other types than vLLM declares are refused: text or true in a number's place is a mistake."""

from typing import Any

import pytest

from run_batch.jobs.mapping.row_sampling import row_sampling
from run_batch.model.checkpoint.settings import SettingsError, build_sampling_params
from run_batch.model.declaration import RowError

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": "4"}, "sampling.max_tokens = '4': expected a whole number"),
    ({"max_tokens": True}, "sampling.max_tokens = True: expected a whole number"),
    ({"temperature": "0.5"}, "sampling.temperature = '0.5': expected a number"),
    ({"temperature": False}, "sampling.temperature = False: expected a number"),
    ({"ignore_eos": 1}, "sampling.ignore_eos = 1: expected true or false"),
    ({"ignore_eos": "yes"}, "sampling.ignore_eos = 'yes': expected true or false"),
]


@pytest.mark.parametrize(("settings", "said"), WRONG)
def test_a_value_of_another_type_is_refused_for_a_job_and_for_a_row(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as of_job:
        build_sampling_params(settings)
    assert said in str(of_job.value)
    with pytest.raises(RowError) as of_row:
        row_sampling({}, "id", settings)
    assert of_row.value.kind == "sampling" and said in str(of_row.value)


def test_numbers_are_taken_as_parquet_and_toml_write_them() -> None:
    params = build_sampling_params({"max_tokens": 4.0, "temperature": 1, "ignore_eos": True, "stop": "end"})
    assert (params.max_tokens, params.temperature, params.ignore_eos, params.stop) == (4, 1.0, True, ["end"])
