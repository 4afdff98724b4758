"""docs/cookbook.md: its recipes do what they say."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs

pytestmark = pytest.mark.engine

PAGE = (jobs.ROOT / "docs" / "cookbook.md").read_text()
DEMO = jobs.ROOT / "configs" / "demo" / "model"
SMALL = '\n[engine]\ndtype = "float32"\nmax_model_len = 256\nenforce_eager = true\nkv_cache_memory_bytes = 134217728\n'


def blocks(recipe: str, language: str) -> list[str]:
    section = PAGE.split(f"## {recipe}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def test_classes_and_their_probabilities(tmp_path: Path) -> None:
    (toml,), (python,) = (
        blocks("Classify images, with the probability of each class", name) for name in ("toml", "python")
    )
    (tmp_path / "model").symlink_to(DEMO)
    pq.write_table(pa.table({"image": jobs.rows(12)["image"]}), tmp_path / "rows.parquet")
    (tmp_path / "job.toml").write_text(toml + SMALL)
    assert jobs.run(tmp_path / "job.toml").returncode == 0
    code = f'{python}\nprint(rows[["text", "probabilities"]].to_json(orient="records"))'
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    rows = json.loads(shown.stdout.splitlines()[-1])
    assert len(rows) == 12 and {row["text"] for row in rows} == {"yes", "no"}, "the images hardly matter"
    for row in rows:
        assert sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-3)
        assert row["text"] == max(row["probabilities"], key=row["probabilities"].__getitem__)


def test_json_of_a_schema(tmp_path: Path) -> None:
    (schema,), (toml,) = (blocks("Answers as JSON of a schema", name) for name in ("json", "toml"))
    (tmp_path / "schema.json").write_text(schema)
    job = jobs.write_job(tmp_path, jobs.rows(4), sampling={"temperature": None, "max_tokens": None})
    text = job.read_text().replace("[sampling]\n", toml + "temperature = 0.0\n")
    job.write_text(text)
    assert jobs.run(job).returncode == 0
    answers = jobs.results(job)
    whole = [row["text"] for row in answers.to_pylist() if row["finish_reason"] == "stop"]
    assert all(set(json.loads(answer)) == {"digit"} for answer in whole)
    assert all(row["text"].startswith("{") for row in answers.to_pylist())
