"""`run-batch init`: what it makes of an input's columns and a model's kind is a job that can start."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.jobs.init_job import init_job
from run_batch.jobs.job.config import JobConfig, load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import prepare

ROOT = Path(__file__).parents[3]
IMAGES = [{"bytes": b"a", "path": None}] * 3
CONVERSATION = [{"role": "user", "content": "What is it?"}]


def init(folder: Path, columns: dict[str, Any], model: dict[str, Any] | None = None) -> JobConfig:
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    if model is not None:
        (folder / "model").mkdir()
        for name, content in model.items():
            (folder / "model" / name).write_text(json.dumps(content))
    init_job(str(folder / "rows.parquet"), str(folder / "model"), None, folder / "job.toml")
    config = load_config(folder / "job.toml")
    prepare(config, writes=False)
    return config


def test_columns_are_told_by_their_names_and_types(tmp_path: Path) -> None:
    columns = {"Id": [7, 8, 9], "Photo": IMAGES, "Question": ["a", "b", "c"], "answer": ["x", "y", "z"], "n": [1, 2, 3]}
    config = init(tmp_path, columns, {"tokenizer_config.json": {"chat_template": "{{ messages }}"}})
    assert (config.input.image_column, config.input.prompt_column, config.input.id_column) == (
        "Photo",
        "Question",
        "Id",
    )
    assert (config.prompt.chat, config.prompt.template) == (True, "{prompt}")
    assert config.output.columns == ["Question", "answer"]


def test_images_are_found_whatever_their_column_is_called_and_get_one_question(tmp_path: Path) -> None:
    config = init(tmp_path, {"id": [1, 1, 2], "scan": IMAGES}, {"config.json": {"model_type": "llava"}})
    assert config.input.image_column == "scan" and config.input.id_column is None, "ids repeat"
    assert config.prompt.template == "USER: <image>\nDescribe this image. ASSISTANT:" and not config.prompt.chat


def test_conversations_are_taken_as_chat(tmp_path: Path) -> None:
    config = init(tmp_path, {"messages": [CONVERSATION] * 3, "prompt": ["a", "b", "c"]}, {"config.json": {}})
    assert config.input.prompt_column == "messages" and config.prompt.chat and config.input.image_column == ""


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    init(tmp_path, {"prompt": ["a", "b", "c"]}, {})
    before = (tmp_path / "job.toml").read_text()
    with pytest.raises(JobError, match="is there already; name another file"):
        init_job(str(tmp_path / "rows.parquet"), None, None, tmp_path / "job.toml")
    assert (tmp_path / "job.toml").read_text() == before


def test_paths_are_those_of_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "rows.parquet")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    init_job("rows.parquet", "model", None, Path("jobs/job.toml"))
    config = load_config(tmp_path / "jobs" / "job.toml")
    assert (config.input.path, config.model.path) == ("../rows.parquet", "../model")
