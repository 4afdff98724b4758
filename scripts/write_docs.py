"""Writes the pages of docs/ that are made of declarations: docs/job-toml.md."""

from pathlib import Path

from run_batch.jobs.keys import markdown

DOCS = Path(__file__).resolve().parents[1] / "docs"

if __name__ == "__main__":
    (DOCS / "job-toml.md").write_text(markdown())
