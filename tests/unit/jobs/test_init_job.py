"""`run-batch init`: what it makes of an input's columns and a model's kind is a job that can start."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from run_batch.jobs.init import init_job as init_job_module
from run_batch.jobs.init.init_job import init_job
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
    init_job(str(folder / "rows.parquet"), str(folder / "model"), None, None, folder / "job.toml")
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


def test_a_column_of_videos_is_no_column_of_images(tmp_path: Path) -> None:
    columns = {"clip": [f"{name}.MP4?v=1" for name in "abc"], "scan": IMAGES, "question": ["a", "b", "c"]}
    config = init(tmp_path, columns, {"tokenizer_config.json": {"chat_template": "{{ messages }}"}})
    assert (config.input.video_column, config.input.image_column) == ("clip", "scan")
    (tmp_path / "other").mkdir()
    config = init(tmp_path / "other", {"video": IMAGES, "n": [1, 2, 3]}, {"config.json": {"model_type": "qwen"}})
    assert (config.input.video_column, config.input.image_column) == ("video", "")
    assert config.prompt.template == "Describe this video."


def test_names_of_images_tell_their_column_and_texts_may_be_encoded_as_a_dictionary(tmp_path: Path) -> None:
    columns = {
        "ID": ["a", "b", "c"],
        "Bild": ["x/1.PNG", None, "https://example.org/2.jpg?size=3"],
        "Question": pa.array(["a", "b", "c"]).dictionary_encode(),
    }
    config = init(tmp_path, columns, {"config.json": {"model_type": "llava"}})
    assert (config.input.image_column, config.input.prompt_column, config.input.id_column) == (
        "Bild",
        "Question",
        "ID",
    )


def test_ids_are_no_prompts(tmp_path: Path) -> None:
    config = init(tmp_path, {"ID": ["a", "b", "c"], "Frage": ["x.png?", "y.png", "z"]}, {})
    assert (config.input.image_column, config.input.prompt_column, config.input.id_column) == ("", "Frage", "ID")


def test_conversations_are_taken_as_chat(tmp_path: Path) -> None:
    columns = {"messages": [CONVERSATION] * 3, "prompt": ["a", "b", "c"]}
    config = init(tmp_path, columns, {"tokenizer_config.json": {"chat_template": "{{ messages }}"}})
    assert config.input.prompt_column == "messages" and config.prompt.chat and config.input.image_column == ""


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    init(tmp_path, {"prompt": ["a", "b", "c"]}, {})
    before = (tmp_path / "job.toml").read_text()
    with pytest.raises(JobError, match="is there already; name another file"):
        init_job(str(tmp_path / "rows.parquet"), None, None, None, tmp_path / "job.toml")
    assert (tmp_path / "job.toml").read_text() == before


def test_paths_are_those_of_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "rows.parquet")
    (tmp_path / "jobs").mkdir()
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    init_job("rows.parquet", "model", None, None, Path("jobs/job.toml"))
    config = load_config(tmp_path / "jobs" / "job.toml")
    assert (config.input.path, config.model.path) == ("../rows.parquet", "../model")


def lines(folder: Path) -> str:
    return (folder / "job.toml").read_text()


def test_a_column_that_is_called_like_one_of_the_results_is_carried_under_another_name(tmp_path: Path) -> None:
    config = init(tmp_path, {"Text": ["a", "b", "c"], "answer": ["x", "y", "z"]}, {})
    assert config.input.prompt_column == "Text"
    assert config.output.columns == {"Text": "input_Text", "answer": "answer"}


def test_a_model_without_a_chat_template_gets_no_conversations(tmp_path: Path) -> None:
    columns = {"messages": [CONVERSATION] * 3, "question": ["a", "b", "c"]}
    config = init(tmp_path, columns, {"config.json": {"model_type": "llava"}})
    assert (config.prompt.chat, config.input.prompt_column) == (False, "question")
    (tmp_path / "job.toml").unlink()
    pq.write_table(pa.table({"messages": [CONVERSATION] * 3}), tmp_path / "rows.parquet")
    with pytest.raises(JobError, match=r"no job can be made of .*rows\.parquet"):
        init_job(str(tmp_path / "rows.parquet"), str(tmp_path / "model"), None, None, tmp_path / "job.toml")
    assert not (tmp_path / "job.toml").exists()


def test_what_images_behind_urls_and_paths_need_is_hinted_at(tmp_path: Path) -> None:
    urls = ["https://a.example.org/1.jpg", "http://user:pw@b.example.org:8080/2.jpg", "data:image/png;base64,AA"]
    init(tmp_path, {"image": urls}, {})
    assert '# allowed_hosts = ["a.example.org", "b.example.org:8080"]' in lines(tmp_path)
    assert "media_root" not in lines(tmp_path) and "pw" not in lines(tmp_path)
    (tmp_path / "job.toml").unlink()
    (tmp_path / "here.jpg").write_bytes(b"")
    init(tmp_path, {"image": ["here.jpg"] * 3})
    assert "media_root" not in lines(tmp_path), "the files are there"
    (tmp_path / "job.toml").unlink()
    init(tmp_path, {"image": [{"bytes": None, "path": "far\n/away.jpg"}] * 3})
    assert '# media_root = "…"' in lines(tmp_path) and '"far\\n/away.jpg"' in lines(tmp_path)


def test_an_input_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="the input has no rows"):
        init(tmp_path, {"prompt": pa.array([], pa.string())}, {})
    assert not (tmp_path / "job.toml").exists()


def test_splits_and_configurations_are_named_with_the_options_that_choose_them(tmp_path: Path) -> None:
    for folder in ("en", "de"):
        for split in ("train", "test"):
            (tmp_path / "rows" / folder).mkdir(parents=True, exist_ok=True)
            pq.write_table(pa.table({"prompt": [folder + split]}), tmp_path / "rows" / folder / f"{split}.parquet")
    card = "configs:\n" + "".join(f"- config_name: {n}\n  data_dir: {n}\n" for n in ("en", "de"))
    (tmp_path / "rows" / "README.md").write_text(f"---\n{card}---\n")
    (tmp_path / "model").mkdir()

    def run(name: str | None, split: str | None) -> None:
        init_job(str(tmp_path / "rows"), str(tmp_path / "model"), name, split, tmp_path / "job.toml")

    with pytest.raises(JobError, match=r"configurations en, de; .*--name"):
        run(None, None)
    with pytest.raises(JobError, match=r"splits train.*, test.*--split"):
        run("de", None)
    run("de", "test")
    config = load_config(tmp_path / "job.toml")
    assert (config.input.name, config.input.split) == ("de", "test")
    assert prepare(config).plan.num_rows == 1


def test_a_glob_is_written_as_the_folder_of_the_file_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"prompt": ["a"]}), tmp_path / "rows.parquet")
    for folder in ("jobs", "model"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    init_job("*.parquet", "model", None, None, Path("jobs/job.toml"))
    assert load_config(tmp_path / "jobs" / "job.toml").input.path == "../*.parquet"


TEXTS = ["a", None, "c"]
CELLS: list[Any] = [
    ["a", "b", "c"],
    [1, 2, 3],
    [1, 1, None],
    [0.5, 1.0, None],
    [b"a", b"b", None],
    IMAGES,
    [[{"role": "user", "content": "a"}]] * 3,
    [["a"], [], None],
    [[[1.0]], [[2.0]], None],
    [{"a": 1}, None, {"a": 2}],
    pa.nulls(3),
    pa.array(TEXTS, pa.string_view()),
    pa.array(TEXTS, pa.large_string()),
    pa.array(TEXTS).dictionary_encode(),
    pa.array([1, 2, 3], pa.duration("s")),
    pa.array([1, 2, 3], pa.decimal256(60, 0)),
    pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int32())),
    ["https://a/1", "b.jpg", ""],
    ["http://[", "x" * 999, "https:///"],
    ["a\0b", "/9j/4AAQSkZJRg" + "A" * 300, None],
    ['[{"role": "user", "content": "a"}]'] * 3,
]
OWN = ["text", "Text", "error", "row_id", "input_text"]
WORDS = [*OWN, "image", "Image", "prompt", "messages", "id", "answer", "label", "url", "*"]
NAMES = st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    columns=st.dictionaries(NAMES, st.integers(0, len(CELLS) - 1), min_size=1, max_size=5),
    model=st.sampled_from(["none", "chat", "llava"]),
)
def test_what_is_written_is_a_job_that_can_start_whatever_the_columns_are(
    tmp_path_factory: pytest.TempPathFactory, columns: dict[str, int], model: str
) -> None:
    folder = tmp_path_factory.mktemp("odd")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": model}))
    if model == "chat":
        (folder / "model" / "chat_template.jinja").write_text("{{ messages }}")
    try:
        pq.write_table(pa.table({name: CELLS[index] for name, index in columns.items()}), folder / "rows.parquet")
        pq.read_table(folder / "rows.parquet")
    except (pa.ArrowException, UnicodeError, OSError):
        assume(False)
    try:
        init_job(str(folder / "rows.parquet"), str(folder / "model"), None, None, folder / "job.toml")
    except JobError:
        assert not (folder / "job.toml").exists()
        return
    prepare(load_config(folder / "job.toml"))


def test_a_cpu_engine_is_told_how_much_memory_to_take_and_a_gpu_engine_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = []
    for is_cpu in (True, False):
        monkeypatch.setattr(init_job_module, "is_cpu_build", lambda is_cpu=is_cpu: is_cpu)
        folder = tmp_path / str(is_cpu)
        folder.mkdir()
        engines.append(init(folder, {"prompt": ["a"]}, {}).engine)
    assert engines == [{"kv_cache_memory_bytes": 1 << 30, "enforce_eager": True}, {}]
