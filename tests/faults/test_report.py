"""The report: one page that tells what a job did, and in which nothing of a row is markup."""

import json
import re
from pathlib import Path

from standing import make_job

import jobs


def test_a_report_tells_counts_errors_and_sampled_rows_and_loads_nothing(tmp_path: Path) -> None:
    prompts = ["<script>alert(1)</script>", "bad", *(f"prompt {i}" for i in range(98))]
    job = make_job(tmp_path, prompts, output={"rows_per_shard": 50})
    assert job.share(1, 2).run()[0] == 0
    early = jobs.run(job.config, command="report")
    assert early.returncode == 0
    assert "1 of 2" in (job.store / ".run_batch" / "report.html").read_text()

    assert job.share(0, 2).run()[0] == 0
    written = jobs.run(job.config, command="report")
    page = Path(written.stdout.strip()).read_text()
    assert Path(written.stdout.strip()) == job.store / ".run_batch" / "report.html"
    lines = [json.loads(line) for file in job.store.rglob("metrics.jsonl") for line in file.read_text().splitlines()]
    assert sum(line["rows_finished"] for line in lines) == 100, "with the last part of a second"
    text = re.sub(r"<[^>]+>", " ", page)
    for found in (r"state\s+complete", r"rows\s+100", r"failed\s+1 \(1\.00%", r"generated tokens\s+396 \(4\.0 a row\)"):
        assert re.search(found, text), found
    assert re.search(r"bad_row\s+1\s+u000001\s+it says so\s+\S+\s+[-\d]+ [:\d]+\s", text)
    assert "text of &lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert page.count("<script") == 1 and not re.search(r"<img|<link|src=|href=.[^#]|url\(", page)


def test_a_job_that_was_never_started_has_no_report(tmp_path: Path) -> None:
    job = make_job(tmp_path, ["prompt"])
    refused = jobs.run(job.config, command="report")
    assert refused.returncode == 2 and "has not been started" in refused.stderr
    assert not job.store.exists()
