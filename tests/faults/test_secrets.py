"""A job whose configuration and environment are full of secrets, run with all that it can say about itself."""

from pathlib import Path

import pytest
from servers import file_server

import jobs

pytestmark = pytest.mark.engine

SECRET = "s3crets3crets3cret"


def test_secrets_are_in_nothing_that_a_run_says_or_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AWS_SECRET_ACCESS_KEY", SECRET), ("HF_TOKEN", f"hf_{SECRET}")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("VLLM_LOGGING_LEVEL", raising=False)  # which tests with engines in this process have set
    jobs.write_job(tmp_path, jobs.rows(20))
    with file_server((tmp_path / "rows.parquet").read_bytes(), SECRET) as port:
        url = f"http://user:{SECRET}@127.0.0.1:{port}/data/rows.parquet?signature={SECRET}"
        job = jobs.write_job(
            tmp_path, None, input={"path": url, "id_column": None}, engine={"hf_token": f"hf_{SECRET}"}
        )
        said = ""
        # The run is a process of its own: what vLLM logs while it is imported is said in one alone.
        for command, options, code in (
            ("check", ["--verbose"], 0),
            (None, ["--verbose"], 0),
            ("status", [], 0),
            (None, ["--verbose", "--set", "sampling.max_tokens=3"], 2),
        ):
            finished = jobs.run(job, *options, command=command, forked=command == "check")
            said += finished.stdout + finished.stderr
            assert finished.returncode == code, finished.stderr
    assert SECRET not in said
    assert "INFO" in said, "vLLM logs"
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert (tmp_path / "out" / ".run_batch" / "job.json") in files and len(files) >= 3
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]
    assert jobs.results(job)["row_id"].to_pylist()[:2] == ["rows.parquet:0", "rows.parquet:1"]
    assert SECRET not in str(jobs.results(job).schema.metadata)
