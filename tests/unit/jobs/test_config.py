"""job.toml: what is accepted, and what is said of what is not."""

from pathlib import Path

import pytest

from run_batch.jobs.job.config import load_config, parse_config, result_keys
from run_batch.jobs.job.errors import JobError

MINIMAL = {"input": {"path": "rows.parquet"}, "model": {"path": "model"}, "output": {"path": "out"}}


def refusal(**tables: dict[str, object]) -> str:
    with pytest.raises(JobError) as caught:
        parse_config({**MINIMAL, **tables}, Path("/job"))
    return str(caught.value)


def test_defaults_are_those_of_the_contract() -> None:
    config = parse_config(MINIMAL, Path("/job"))
    assert (config.input.image_column, config.input.prompt_column, config.input.split) == (
        "image",
        "prompt",
        "train",
    )
    assert (config.prompt.template, config.prompt.chat) == ("{prompt}", False)
    assert (config.output.rows_per_shard, config.output.columns) == (1000, [])
    assert (config.errors.max_fraction, config.model.plugins) == (0.1, [])


def test_an_unknown_key_is_refused_with_its_full_name_and_the_nearest_known_key() -> None:
    message = refusal(output={"path": "out", "rows_per_shrad": 5})
    assert "output.rows_per_shrad" in message and "output.rows_per_shard" in message


def test_a_key_in_the_wrong_table_is_refused_with_its_right_place() -> None:
    assert "model.plugins" in refusal(input={"path": "rows.parquet", "plugins": []})


def test_an_unknown_table_is_refused_with_the_nearest_known_table() -> None:
    assert "[samplin]" in refusal(samplin={}) and "sampling" in refusal(samplin={})


@pytest.mark.parametrize(
    ("table", "key", "value", "expected"),
    [
        ("output", "rows_per_shard", "many", "a whole number"),
        ("output", "rows_per_shard", True, "a whole number"),
        ("output", "rows_per_shard", 0, "from 1 on"),
        ("input", "limit", -1, "from 1 on"),
        ("input", "format", "csv", "'parquet' or 'hf'"),
        ("prompt", "chat", 1, "true or false"),
        ("model", "plugins", "one", "a list of strings"),
        ("errors", "max_fraction", 7, "from 0 to 1"),
        ("input", "path", "", "neither empty"),
        ("input", "media_root", "a\0b", "NUL"),
        ("model", "path", "a" * 256, "255 bytes a name"),
        ("output", "path", "é/" * 2001, "4000 characters"),
        ("input", "allowed_hosts", ["https://images.example.org/"], "host names such as"),
        ("input", "allow_private_hosts", "yes", "true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(table: str, key: str, value: object, expected: str) -> None:
    message = refusal(**{table: {**MINIMAL.get(table, {}), key: value}})
    assert f"{table}.{key}" in message and repr(value) in message and expected in message


def test_a_missing_required_key_is_named() -> None:
    assert "model.path is required" in refusal(model={})


def test_contradictions_are_refused() -> None:
    assert "contradict" in refusal(prompt={"chat": True, "template": "{prompt}"})
    assert "prompt.chat" in refusal(prompt={"system": "Be brief."})


def test_a_file_that_is_no_toml_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("[input\npath=")
    with pytest.raises(JobError, match=r"job\.toml is not TOML"):
        load_config(path)
    with pytest.raises(JobError, match="no such file"):
        load_config(tmp_path / "other.toml")


def test_overrides_win_over_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text('input.path = "a"\nmodel.path = "m"\noutput.path = "o"\n')
    config = load_config(path, ("input.path=b", "input.limit=3", "sampling.temperature=0.5", "prompt.chat=true"))
    assert (config.input.path, config.input.limit, config.prompt.chat) == ("b", 3, True)
    assert config.sampling == {"temperature": 0.5}
    with pytest.raises(JobError, match=r"table\.key=value"):
        load_config(path, ("limit",))


def test_relative_paths_start_at_the_folder_of_the_job(tmp_path: Path) -> None:
    config = parse_config(MINIMAL, tmp_path)
    assert config.output_folder == tmp_path / "out"
    assert config.resolve("rows.parquet") == str(tmp_path / "rows.parquet")
    assert config.resolve("org/model") == "org/model"
    assert config.resolve("s3://bucket/rows") == "s3://bucket/rows"
    assert config.resolve("org/*.parquet") == str(tmp_path / "org" / "*.parquet")
    (tmp_path / "data").mkdir()
    assert config.resolve("data/mistyped") == str(tmp_path / "data" / "mistyped")


def test_only_what_changes_results_makes_another_job() -> None:
    def keys(**tables: dict[str, object]) -> dict[str, object]:
        return result_keys(parse_config({**MINIMAL, **tables}, Path("/job")))

    same = keys(
        preprocess={"workers": 3},
        errors={"max_fraction": 0.5},
        engine={"max_num_seqs": 8, "tensor_parallel_size": 2},
        output={"path": "elsewhere"},
    )
    assert same == keys()
    for other in (
        {"sampling": {"max_tokens": 3}},
        {"engine": {"dtype": "float32"}},
        {"prompt": {"template": "{prompt}!"}},
        {"output": {"path": "out", "rows_per_shard": 7}},
    ):
        assert keys(**other) != keys()
