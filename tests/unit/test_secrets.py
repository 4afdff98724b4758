"""Secrets in URLs and tokens: in no message, and in no file that a job writes."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import file_server

from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import InputError
from run_batch.io.secrets import hide_secrets
from run_batch.jobs.job.config import named_content, parse_config
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.job_identity import as_recorded, job_identity
from run_batch.model.checkpoint.settings import ModelSettings, SettingsError, build_engine_args

SECRET = "s3cret"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://KEY:s3cret@bucket/a.parquet", "s3://***@bucket/a.parquet"),
        ("s3://KEY:a/s3cret+b@bucket/a.parquet", "s3://***@bucket/a.parquet"),
        ("s3://KEY:s3@cret@bucket/a?.parquet", "s3://***@bucket/a?.parquet"),
        ("https://s3cret@host/a", "https://***@host/a"),
        ("https://host:8080/a@b/c", "https://host:8080/a@b/c"),
        ("https://host/a.parquet?Signature=s3cret&b=/s3cret; what?", "https://host/a.parquet?***; what?"),
        ("az://box/a.parquet?sig=s3cret", "az://box/a.parquet?***"),
        ("simplecache::zip://a.csv::ftp://u:s3cret@h/a.zip", "simplecache::zip://a.csv::ftp://***@h/a.zip"),
        ("hf://datasets/org/name@main/a.parquet", "hf://datasets/org/name@main/a.parquet"),
        ("s3://bucket/part-?.parquet", "s3://bucket/part-?.parquet"),
        ("token hf_s3crets3crets3cret!", "token hf_***!"),
        ("a plain question? yes: user@host, C://", "a plain question? yes: user@host, C://"),
    ],
)  # fmt: skip
def test_what_may_be_a_secret_is_hidden_and_nothing_else(text: str, shown: str) -> None:
    assert hide_secrets(text) == shown


def test_no_message_shows_the_secrets_of_a_url() -> None:
    for error in (InputError, JobError, RunError):
        assert SECRET not in str(error(f"input.path s3://KEY:{SECRET}@bucket/a: no such file"))
    with pytest.raises(InputError, match=r"nosuch://\*\*\*@bucket") as caught:
        ParquetSource(f"nosuch://KEY:{SECRET}@bucket/a.parquet")
    assert SECRET not in str(caught.value)
    with pytest.raises(SettingsError, match=r"engine\.hf_token = \(hidden\)"):
        build_engine_args(ModelSettings("org/name", engine={"hf_token": [SECRET]}))


def test_a_job_is_the_same_with_other_credentials_and_keeps_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"prompt": ["a"], "image": [b"b"]}), tmp_path / "a.parquet")
    source = ParquetSource(str(tmp_path / "a.parquet"))

    def recorded(path: str, token: str) -> dict[str, object]:
        tables = {
            "input": {"path": path},
            "model": {"path": "m"},
            "output": {"path": "o"},
            "engine": {"hf_token": token},
        }
        config = parse_config(tables, Path("/nowhere"))
        return {**as_recorded(named_content(config)), **job_identity(config, source)}

    first = recorded(f"s3://KEY:{SECRET}@bucket/a.parquet", SECRET)
    assert first == recorded("s3://KEY:other@bucket/a.parquet", "other")
    assert first != recorded("s3://KEY:other@bucket/b.parquet", "other")
    assert SECRET not in json.dumps(first)


def test_rows_of_a_signed_url_are_called_by_the_name_of_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1, 2, 3]}), tmp_path / "rows.parquet")
    with file_server((tmp_path / "rows.parquet").read_bytes(), SECRET) as port:
        url = f"http://127.0.0.1:{port}/data/rows.parquet"
        source = ParquetSource(f"{url}?signature={SECRET}/x")
        assert source.row_names(0, 3) == ["rows.parquet:0", "rows.parquet:1", "rows.parquet:2"]
        batches = source.cursor(["a"], 2).read(0, 3)
        assert [row for batch in batches for row in batch.records["a"].to_pylist()] == [1, 2, 3]
        with pytest.raises(InputError) as caught:
            ParquetSource(f"{url}?signature=wr0ng")
        assert "wr0ng" not in str(caught.value)
