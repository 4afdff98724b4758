"""Rows with videos: the inputs and the texts are those of vLLM's own `LLM.chat` for the same files."""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from built_in_families import QWEN_IMAGE, QWEN_VIDEO, family_folders
from engines import plain_values
from video_jobs import ENGINE, IMAGE, ROWS, VIDEOS, Row, mapped, table, token_ids, write_job
from vllm.renderers.params import ChatParams
from vllm.renderers.registry import renderer_from_config
from vllm.usage.usage_lib import UsageContext
from vllm_chat import chat, messages

import jobs
from run_batch.jobs.job.config import load_config, result_keys
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.model.checkpoint.settings import ModelSettings, build_engine_args
from run_batch.model.rendering import video_frames

FEWER = {"media_io_kwargs": {"video": {"fps": 1}}}
FAMILIES = ("qwen2_5_vl", "qwen3_vl")
OTHERS = ("qwen2_vl", "internvl", "llava_onevision", "glm4v")

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The checkpoint of a family, made when it is first asked for."""
    return family_folders(tmp_path_factory.mktemp)


def conversation(images: Sequence[bytes], videos: Sequence[bytes], prompt: str) -> list[dict[str, Any]]:
    (message,) = messages(images, prompt)
    *parts, text = message["content"]
    urls = [f"data:video/mp4;base64,{base64.b64encode(item).decode()}" for item in videos]
    parts += [{"type": "video_url", "video_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, text]}]


@pytest.mark.parametrize(
    ("family", "engine"),
    [*((family, {}) for family in (*FAMILIES, *OTHERS)), *((family, FEWER) for family in FAMILIES)],
)
def test_inputs_are_those_of_vllms_own_renderer(
    family: str, engine: dict[str, Any], tmp_path: Path, folder: Folder
) -> None:
    settings = ModelSettings(str(folder(family)), engine={**ENGINE, **engine})
    renderer = renderer_from_config(build_engine_args(settings).create_engine_config(UsageContext.LLM_CLASS))
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    media = engine.get("media_io_kwargs")
    kwargs = {"add_generation_prompt": True, "tokenize": False}
    params = ChatParams(chat_template_kwargs=kwargs, media_io_kwargs=media)
    rows = [row for row in ROWS if len(row[1]) < 2 or family != "glm4v"]  # which takes one video
    found = mapped(tmp_path, folder(family), table(rows), engine=engine, chat=True)
    for row, result in zip(rows, found, strict=True):
        assert isinstance(result, MappedRow), result
        _, (expected,) = renderer.render_chat([conversation(*row)], params, tokens)
        for key in ("type", "prompt_token_ids", "mm_placeholders", "mm_kwargs"):
            assert plain_values(result.engine_input.get(key)) == plain_values(expected.get(key)), (row[2], key)


def test_the_frames_are_those_that_the_settings_ask_for(tmp_path: Path, folder: Folder) -> None:
    """The video of 50 frames takes two seconds."""
    for rate, frames in ((2, 4), (6, 12)):
        columns = table([([], VIDEOS[1:2], "what?")])
        engine = {"media_io_kwargs": {"video": {"fps": rate}}}
        (row,) = mapped(tmp_path / str(rate), folder("qwen2_5_vl"), columns, engine=engine, chat=True)
        assert isinstance(row, MappedRow), row
        (item,) = row.engine_input["mm_kwargs"]["video"]
        assert item["video_grid_thw"].data[0] == frames // 2, "two frames are a step in time"


def test_settings_of_frames_belong_to_the_job(tmp_path: Path, folder: Folder) -> None:
    job = load_config(write_job(tmp_path, folder("qwen2_5_vl"), table(ROWS), engine=FEWER, chat=True))
    keys = result_keys(job)
    assert keys["engine.media_io_kwargs"] == FEWER["media_io_kwargs"] and keys["input.video_column"] == "video"


def test_a_cell_holds_a_video_in_any_form(tmp_path: Path, folder: Folder) -> None:
    (tmp_path / "a.mp4").write_bytes(VIDEOS[0])
    url = f"data:video/mp4;base64,{base64.b64encode(VIDEOS[0]).decode()}"
    structs = [{"bytes": VIDEOS[0], "path": None}, {"bytes": None, "path": "a.mp4"}, {"bytes": None, "path": None}]
    texts = ["a.mp4", str(tmp_path / "a.mp4"), url, None]
    found = []
    for number, cells in enumerate((structs, texts, [[VIDEOS[0]], [], [VIDEOS[0]] * 2])):
        columns = pa.table({"video": cells, "prompt": ["what?"] * len(cells), "uid": [*map(str, range(len(cells)))]})
        found += token_ids(mapped(tmp_path / str(number), folder("qwen2_5_vl"), columns, tmp_path, chat=True))
    lengths = [len(ids) for ids in found]
    one, none = lengths[0], lengths[2]
    assert lengths == [one, one, none, one, one, one, none, one, none, 2 * one - none] and one > none


def test_a_video_of_several_rows_is_decoded_once(
    tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    sampled: list[int] = []
    sample = video_frames.FrameSampler.sample
    counted = lambda self, videos: sampled.append(len(videos)) or sample(self, videos)  # noqa: E731
    monkeypatch.setattr(video_frames.FrameSampler, "sample", counted)
    columns = table([([], VIDEOS[:1], f"question {number}?") for number in range(5)])
    found = mapped(tmp_path, folder("qwen3_vl"), columns, chat=True)
    assert len(token_ids(found)) == 5 and sampled == [1]


def test_a_template_says_where_a_video_stands(tmp_path: Path, folder: Folder) -> None:
    """Placeholders of what a row does not have are left out."""
    template = f"Image: {QWEN_IMAGE} Video: {QWEN_VIDEO} {{prompt}}"
    rows: list[Row] = [([IMAGE], VIDEOS[:1], "what?"), ([IMAGE], [], "what?"), ([], VIDEOS[:1], "what?")]
    results = mapped(tmp_path, folder("qwen3_vl"), table([*rows, ([], VIDEOS[:2], "what?")]), template=template)
    both, image, of_video, two = results
    assert isinstance(two, RowFailure)
    assert two.error.startswith("placeholders: the prompt has 1 video placeholders, the row has 2 videos; ")
    tokens = [[set(row.engine_input.get("mm_placeholders", {}))] for row in (both, image, of_video)]
    assert tokens == [[{"image", "video"}], [{"image"}], [{"video"}]]
    with pytest.raises(JobError, match=r"prompt\.template has no .*video_pad.*, the model's video placeholder"):
        mapped(tmp_path / "without", folder("qwen3_vl"), table(rows), template=f"{QWEN_IMAGE} {{prompt}}")


def test_parts_of_messages_say_where_videos_stand(tmp_path: Path, folder: Folder) -> None:
    def row(*parts: dict[str, Any]) -> str:
        return json.dumps([{"role": "user", "content": [*parts, {"type": "text", "text": "what?"}]}])

    place = {"type": "video"}
    prompts = [
        row({"type": "text", "text": "first"}, place, {"type": "text", "text": "then"}, place),
        row({"type": "video", "index": 1}, {"type": "video", "index": 0}),
        row(),
        row(place),
    ]
    columns = pa.table({"video": [VIDEOS[:2]] * 4, "prompt": prompts, "uid": [*"abcd"]})
    rows = mapped(tmp_path, folder("qwen2_5_vl"), columns, holds=PromptColumn.JSON_CONVERSATIONS, chat=True)
    placed, swapped, before, *bad = rows
    hashes = [row.engine_input["mm_hashes"]["video"] for row in (placed, swapped, before)]
    assert hashes[0] == hashes[2] == hashes[1][::-1] and len(set(hashes[0])) == 2
    assert [failure.error.split(":")[0] for failure in bad] == ["placeholders"]


def test_check_says_what_samples_the_frames(tmp_path: Path, folder: Folder) -> None:
    job = write_job(tmp_path, folder("qwen2_5_vl"), table(ROWS), engine=FEWER, chat=True)
    checked = jobs.run(job, command="check")
    assert checked.returncode == 0, checked.stderr
    assert "videos: vLLM's own processor, frames sampled by vLLM's loader qwen2_vl (fps = 1)" in checked.stdout
    assert "2 of the first 10 rows have no video in column video: they are asked without it" in checked.stdout


@pytest.mark.engine
@pytest.mark.parametrize("family", [pytest.param("qwen2_5_vl", marks=pytest.mark.long), "qwen3_vl"])
def test_texts_are_those_of_vllms_own_chat(family: str, tmp_path: Path, folder: Folder) -> None:
    """And the report says that there are videos."""
    job = write_job(tmp_path, folder(family), table(ROWS), chat=True)
    results = jobs.succeed(job)
    assert results["error"].null_count == len(ROWS), results["error"]
    expected = chat(folder(family), [conversation(*row) for row in ROWS], **ENGINE)
    assert results["text"].to_pylist() == expected
    assert len(set(expected)) > len(ROWS) // 2, "the texts hardly depend on the videos"
    reported = jobs.run(job, command="report")
    assert reported.returncode == 0, reported.stderr
    assert "2 videos, not shown" in (tmp_path / "out" / ".run_batch" / "report.html").read_text()


@pytest.mark.engine
def test_a_trial_shows_videos(tmp_path: Path, folder: Folder) -> None:
    tried = jobs.run(write_job(tmp_path, folder("qwen2_5_vl"), table([ROWS[1], ROWS[5]]), chat=True), command="try")
    assert tried.returncode == 0, tried.stderr
    assert "  video 1: 50 frames of 96 x 64, " in tried.stdout
    assert "  image 1: 90 x 70 PNG, " in tried.stdout and "  video 1: 4 frames of 48 x 96, " in tried.stdout
