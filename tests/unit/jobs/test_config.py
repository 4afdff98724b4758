"""job.toml: what is accepted, and what is said of what is not."""

import datetime
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from run_batch.jobs.job.config import JobConfig, load_config, parse_config, result_keys
from run_batch.jobs.job.config_keys import Effect, effect_of
from run_batch.jobs.job.config_tables import TABLES, UNDECLARED_TABLES, JobTables
from run_batch.jobs.job.errors import JobError

KEYS = [(table, name) for table, declared in TABLES.items() for name in declared.model_fields]
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
        None,
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
        ("output", "rows_per_shard", 0, "from 1 to 10,000,000"),
        ("output", "rows_per_shard", 5.0, "a whole number"),
        ("output", "rows_per_shard", "5", "a whole number"),
        ("output", "rows_per_shard", -(10**400), "from 1 to"),
        ("input", "limit", -1, "from 1 to"),
        ("input", "format", "xlsx", "'parquet', 'jsonl'"),
        ("input", "path", ["a", 1], "a path, or a list of paths"),
        ("input", "path", [], "a path, or a list of paths"),
        ("prompt", "chat", 1, "true or false"),
        ("model", "plugins", "one", "a list of strings"),
        ("model", "plugins", ["one", 2], "a list of strings"),
        ("errors", "max_fraction", 7, "from 0 to 1"),
        ("errors", "max_fraction", -0.5, "from 0 to 1"),
        ("errors", "max_fraction", True, "a number"),
        ("errors", "max_fraction", float("nan"), "from 0 to 1"),
        ("errors", "step_seconds", float("nan"), "from 0 to 2,592,000"),
        ("errors", "step_seconds", 10**400, "below 1.8e308"),
        ("errors", "mapping_seconds", 1e-9, "0 for no limit, or a number from 0.1 to 2,592,000"),
        ("errors", "storage_seconds", float("inf"), "from 0 to 2,592,000"),
        ("errors", "start_seconds", 1e300, "from 0 to 2,592,000"),
        ("errors", "min_rows", 10**9, "from 1 to 1,000,000"),
        ("output", "rows_per_shard", 10**12, "from 1 to 10,000,000"),
        ("preprocess", "workers", 10**6, "from 1 to 1,024"),
        ("input", "limit", 10**23, "from 1 to 1,000,000,000,000"),
        ("preprocess", "memory", "900 TB", "from 256000000 to 70368744177664"),
        ("preprocess", "memory", "99999999999999999999 TiB", "from 256000000 to"),
        ("input", "split", 5, "a string"),
        ("input", "path", "", "neither empty"),
        ("input", "media_root", "a\0b", "NUL"),
        ("model", "path", "a" * 256, "255 bytes a name"),
        ("output", "path", "é/" * 2001, "4000 characters"),
        ("input", "allowed_hosts", ["https://images.example.org/"], "hosts such as"),
        ("input", "allow_private_hosts", "yes", "true or false"),
    ],
)
def test_a_wrong_value_is_refused_with_what_is_accepted(table: str, key: str, value: object, expected: str) -> None:
    message = refusal(**{table: {**MINIMAL.get(table, {}), key: value}})
    assert f"{table}.{key}" in message and repr(value) in message and expected in message


@pytest.mark.parametrize(
    ("table", "key", "way_out"),
    [
        ("output", "path", "not a URL: mount the storage"),
        ("model", "path", "not a URL: mount the storage"),
        ("input", "media_root", "a folder on a local or shared file system, or in a store of objects"),
    ],
)
def test_urls_are_refused_where_only_local_folders_work(table: str, key: str, way_out: str) -> None:
    of_objects = [] if key == "media_root" else ["s3://b/results", "S3://b"]
    urls = [*of_objects, "gs:b/results", "s3a:/b/results", "file:///tmp/x", "hdfs:results", "://"]
    for url in [*urls, "x:/y", "simplecache::s3://b", "unknown://b", "./s3://b"]:
        message = refusal(**{table: {**MINIMAL.get(table, {}), key: url}})
        assert f"{table}.{key} = {url!r}: expected " in message and way_out in message
    for path in ("results", "12:30", "run:1/results", "../a:b", "/data/2024-01-01T00:00", "s3", "s3/results", "a b: c"):
        parse_config({**MINIMAL, table: {**MINIMAL.get(table, {}), key: path}}, Path("/job"))


def test_a_refusal_is_one_line_with_the_meaning_of_the_key() -> None:
    message = refusal(errors={"max_fraction": "many", "step_seconds": "long"}, model={"path": 5})
    assert message == "model.path = 5: expected a string (model folder or Hub id)"
    assert refusal(**{"a\nb": {}}).startswith("unknown table ['a\\nb']")
    assert refusal(model={"path": "m", "a\nb": 1}).startswith("unknown key model.'a\\nb'")


def test_a_date_is_not_taken_for_text_and_shown_as_in_the_file() -> None:
    for value in (datetime.date(2025, 1, 31), datetime.time(7, 32), datetime.datetime(2025, 1, 31, 7, 32)):
        message = refusal(input={"path": "rows.parquet", "split": value})
        assert message.startswith(f"input.split = {value} (a date or time: text needs quotes): expected a string")


def test_a_whole_number_is_taken_where_a_number_is_asked_for() -> None:
    errors = parse_config({**MINIMAL, "errors": {"max_fraction": 1, "step_seconds": 600}}, Path("/job")).errors
    assert (errors.max_fraction, errors.step_seconds) == (1.0, 600.0)


def test_a_missing_required_key_is_named_also_where_its_table_is_missing() -> None:
    assert refusal(model={}) == "model.path is required: model folder or Hub id"
    with pytest.raises(JobError, match=r"input\.path is required"):
        parse_config({}, Path("/job"))


def test_of_several_mistakes_the_one_behind_the_others_is_reported() -> None:
    assert "unknown key model.pth; did you mean model.path?" in refusal(model={"pth": "model"})
    assert "unknown table [modell]; did you mean model?" in refusal(modell={"path": "m"}, output={})
    assert "errors must be a table: write [errors]" in refusal(errors=5, output={})
    assert "engine must be a table: write [engine]" in refusal(engine=[], output={})


def test_contradictions_are_refused() -> None:
    for name, value in {
        "system": "Be brief.",
        "prefill": "It",
        "chat_template_kwargs": {"a": 1},
        "examples": [],
    }.items():
        assert "prompt.chat" in refusal(prompt={name: value})


def test_a_file_that_is_no_toml_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text("[input\npath=")
    with pytest.raises(JobError, match=r"job\.toml is not TOML"):
        load_config(path)
    for beyond_python in ("[input]\nlimit = " + "9" * 5000, "a = " + "[" * 5000):
        path.write_text(beyond_python)
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


@pytest.mark.parametrize(("table", "name"), KEYS)
def test_every_key_has_a_meaning_and_an_example_that_it_takes(table: str, name: str) -> None:
    field = TABLES[table].model_fields[name]
    assert field.description and "\n" not in field.description
    assert field.examples and field.examples[0] != field.default
    needed = {"chat": True} if table == "prompt" else {}
    others = {"lora": {"a": "adapter"}} if name == "lora_column" else {}
    tables = {**MINIMAL, **others, table: {**MINIMAL.get(table, {}), **needed, name: field.examples[0]}}
    assert getattr(getattr(parse_config(tables, Path("/job")), table), name) == field.examples[0]


@pytest.mark.parametrize(("table", "name"), KEYS)
def test_another_value_itself_makes_another_job_where_the_key_says_so(table: str, name: str) -> None:
    field = TABLES[table].model_fields[name]
    config = parse_config({**MINIMAL, "input": {"path": "before.parquet"}}, Path("/job"))
    other = getattr(config, table).model_copy(update={name: field.examples[0]})
    changed = result_keys(config.model_copy(update={table: other})) != result_keys(config)
    assert changed == (effect_of(field) is Effect.ANOTHER_JOB)


def test_only_the_number_of_rows_may_grow() -> None:
    growing = [key for key in KEYS if effect_of(TABLES[key[0]].model_fields[key[1]]) is Effect.MAY_GROW]
    assert growing == [("input", "limit")]


def test_of_keys_that_name_content_their_value_is_no_part_of_the_job() -> None:
    named = [f"{t}.{name}" for t, name in KEYS if effect_of(TABLES[t].model_fields[name]) is Effect.CONTENT]
    assert named == [
        *(f"input.{name}" for name in ("path", "format", "split", "name", "media_root")),
        *(f"prompt.{name}" for name in ("chat_template", "tools", "examples")),
        *("model.path", "model.lora"),
    ]


def test_the_json_schema_has_every_key_with_its_meaning_example_and_effect() -> None:
    schema = JobTables.model_json_schema()
    assert set(schema["properties"]) == {*TABLES, *UNDECLARED_TABLES}
    assert schema["required"] == ["input", "model", "output"] and schema["additionalProperties"] is False
    for table, name in KEYS:
        described = schema["$defs"][TABLES[table].__name__]["properties"][name]
        assert {"description", "examples", "effect"} <= set(described), f"{table}.{name}"
    assert schema["$defs"]["OutputTable"]["properties"]["rows_per_shard"]["minimum"] == 1
    assert all("description" in schema["properties"][table] for table in UNDECLARED_TABLES)


def test_a_job_does_not_change_and_reaches_other_processes_as_it_is(tmp_path: Path) -> None:
    config = parse_config({**MINIMAL, "engine": {"dtype": "float32"}, "output": {"path": "é"}}, tmp_path)
    with pytest.raises(ValidationError):
        config.output.path = "elsewhere"
    assert pickle.loads(pickle.dumps(config)) == config
    code = (
        "import pickle, sys; config = pickle.load(sys.stdin.buffer); print(ascii(config.output_folder), config.engine)"
    )
    told = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(config), capture_output=True, check=True)
    assert told.stdout.decode().strip() == f"{tmp_path / 'é'!a} {{'dtype': 'float32'}}"


SCHEMA = {"type": "object", "properties": {"digit": {"type": "integer"}}}


def test_a_schema_in_a_file_is_the_job_that_holds_it_itself(tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))

    def job(given: object) -> JobConfig:
        return parse_config({**MINIMAL, "sampling": {"structured_outputs": {"json": given}, "n": 2}}, tmp_path)

    same = [
        result_keys(job(given)) for given in (SCHEMA, json.dumps(SCHEMA), "schema.json", str(tmp_path / "schema.json"))
    ]
    assert same[0]["sampling.structured_outputs"] == {"json": SCHEMA} and same == [same[0]] * 4
    (tmp_path / "schema.json").write_text("{}")
    assert result_keys(job("schema.json")) != same[0]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("nothing.json", "/nothing.json cannot be read: No such file"),
        ("list.json", "expected a JSON object"),
        ("text.json", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ("[]", "expected a JSON object"),
        (".", "cannot be read: Is a directory"),
    ],
)
def test_a_schema_that_is_none_is_refused_with_its_key(tmp_path: Path, given: str, says: str) -> None:
    (tmp_path / "list.json").write_text("[1]")
    (tmp_path / "text.json").write_text("schema")
    with pytest.raises(JobError) as refused:
        parse_config({**MINIMAL, "sampling": {"structured_outputs": {"json": given}}}, tmp_path)
    assert str(refused.value).startswith(f"sampling.structured_outputs.json = {given!r}") and says in str(refused.value)
