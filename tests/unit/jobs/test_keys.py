"""The reference of job.toml: complete, and the same in the terminal, in the docs and in the JSON Schema."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from run_batch.jobs.cli import main
from run_batch.jobs.job.config_tables import TABLES
from run_batch.jobs.keys import declared_keys, markdown

ROOT = Path(__file__).parents[3]
KEYS = [key for table in TABLES for key in declared_keys(table)]


def keys(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["keys", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_page_in_docs_is_what_the_declarations_say() -> None:
    assert (ROOT / "docs" / "job-toml.md").read_text() == markdown(), "run scripts/write_docs.py"


def test_every_key_is_shown_with_its_type_default_meaning_and_example() -> None:
    shown = keys()
    assert len(KEYS) > 30
    for key in KEYS:
        assert f"  {key.name}  ({key.accepts}" in shown and f"`{key.name}`" in markdown()
        assert key.accepts and key.meaning and key.effect
        assert tomllib.loads(f"value = {key.example}")["value"] is not None
        if key.default not in ("required", ""):
            assert tomllib.loads(f"value = {key.default}")["value"] is not None
    assert "output.rows_per_shard  (whole number from 1 to 10,000,000, default 1000)" in shown


def test_one_table_and_one_key_can_be_asked_for() -> None:
    assert "errors.max_fraction  (number from 0 to 1, default 0.1)" in keys("errors")
    assert keys("input.format").startswith("  input.format  (")
    assert "slurm.max-requeues" in keys("slurm")


@pytest.mark.parametrize(
    ("asked", "said"), [("outptu", "did you mean output?"), ("output.colums", "did you mean output.columns?")]
)
def test_a_mistyped_table_or_key_is_named_with_the_nearest_one(asked: str, said: str) -> None:
    done = CliRunner().invoke(main, ["keys", asked])
    assert done.exit_code == 2 and said in done.output


def test_the_json_schema_knows_the_tables_and_refuses_unknown_keys() -> None:
    schema = json.loads(keys("--json-schema"))
    assert set(schema["required"]) == {"input", "model", "output"}
    assert {"engine", "sampling", "lora", "slurm", *TABLES} == set(schema["properties"])
    assert all(schema["$defs"][table.__name__]["additionalProperties"] is False for table in TABLES.values())
