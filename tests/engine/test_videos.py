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
from pictures import encoded, picture
from videos import index_first, video
from vllm.multimodal.video import VideoLoader
from vllm.renderers.params import ChatParams
from vllm.renderers.registry import renderer_from_config
from vllm.usage.usage_lib import UsageContext
from vllm_chat import chat, messages

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.rows import MappedRow, MappedRows, RowFailure
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.checkpoint.settings import ModelSettings, build_engine_args
from run_batch.model.rendering import video_frames

ENGINE: dict[str, Any] = {"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 8, "enforce_eager": True}
FEWER = {"media_io_kwargs": {"video": {"fps": 1}}}
FAMILIES = ("qwen2_5_vl", "qwen3_vl")
IMAGE = encoded(picture(9, (90, 70)))
# Of several lengths, rates, sizes and containers; four frames are fewer than the loaders want of a second.
VIDEOS = [
    video(1),
    video(2, frames=50, fps=25.0, size=(96, 64)),
    video(3, frames=4, fps=2.0, size=(48, 96)),
    video(4, frames=31, fps=7.5, form="avi"),
]
Row = tuple[list[bytes], list[bytes], str]
ROWS: list[Row] = [
    *(([], [encoded_video], f"What is in video {number}?") for number, encoded_video in enumerate(VIDEOS)),
    ([], VIDEOS[:2], "Compare the two."),
    ([IMAGE], VIDEOS[2:3], "Is the image from the video?"),
    ([IMAGE], [], "What is this?"),
    ([], [], "Say something."),
    ([], VIDEOS[:1], "What is at the end?"),
]
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The checkpoint of a family, made when it is first asked for."""
    return family_folders(tmp_path_factory.mktemp)


def table(rows: Sequence[Row]) -> pa.Table:
    images, videos, prompts = zip(*rows, strict=True)
    kind = pa.list_(pa.binary())
    columns = {"image": pa.array(images, kind), "video": pa.array(videos, kind), "prompt": list(prompts)}
    return pa.table({"uid": [f"u{number}" for number in range(len(rows))], **columns})


def write_job(
    folder: Path, model: Path, columns: pa.Table, engine: dict[str, Any] | None = None, **prompt: Any
) -> Path:
    tables = {"model": {"path": str(model)}, "engine": {**ENGINE, **(engine or {})}}
    with_images = {"image_column": "image"} if "image" in columns.column_names else {}
    named = {"input": {"video_column": "video", **with_images}, "prompt": {"template": None, **prompt}}
    return jobs.write_job(folder, columns, **tables, **named)


def mapped(folder: Path, model: Path, columns: pa.Table, root: Path | None = None, **settings: Any) -> MappedRows:
    mapper = RowMapper(load_config(write_job(folder, model, columns, **settings)), columns.schema, root)
    return list(mapper.map(RowBatch(0, columns.combine_chunks().to_batches()[0], None)))


def conversation(images: Sequence[bytes], videos: Sequence[bytes], prompt: str) -> list[dict[str, Any]]:
    (message,) = messages(images, prompt)
    *parts, text = message["content"]
    urls = [f"data:video/mp4;base64,{base64.b64encode(item).decode()}" for item in videos]
    parts += [{"type": "video_url", "video_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, text]}]


@pytest.mark.parametrize("engine", [{}, FEWER], ids=["default", "fewer frames"])
@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_those_of_vllms_own_renderer(
    family: str, engine: dict[str, Any], tmp_path: Path, folder: Folder
) -> None:
    settings = ModelSettings(str(folder(family)), engine={**ENGINE, **engine})
    renderer = renderer_from_config(build_engine_args(settings).create_engine_config(UsageContext.LLM_CLASS))
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    media = engine.get("media_io_kwargs")
    kwargs = {"add_generation_prompt": True, "tokenize": False}
    params = ChatParams(chat_template_kwargs=kwargs, media_io_kwargs=media)
    found = mapped(tmp_path, folder(family), table(ROWS), engine=engine, chat=True)
    for row, result in zip(ROWS, found, strict=True):
        assert isinstance(result, MappedRow), result
        _, (expected,) = renderer.render_chat([conversation(*row)], params, tokens)
        for key in ("type", "prompt_token_ids", "mm_placeholders", "mm_kwargs"):
            assert plain_values(result.engine_input.get(key)) == plain_values(expected.get(key)), (row[2], key)


def token_ids(results: MappedRows) -> list[list[int]]:
    return [row.engine_input["prompt_token_ids"] for row in results if isinstance(row, MappedRow)]


def test_the_frames_are_those_that_the_settings_ask_for(tmp_path: Path, folder: Folder) -> None:
    """The video of 50 frames takes two seconds."""
    for rate, frames in ((2, 4), (6, 12)):
        columns = table([([], VIDEOS[1:2], "what?")])
        engine = {"media_io_kwargs": {"video": {"fps": rate}}}
        (row,) = mapped(tmp_path / str(rate), folder("qwen2_5_vl"), columns, engine=engine, chat=True)
        assert isinstance(row, MappedRow), row
        (item,) = row.engine_input["mm_kwargs"]["video"]
        assert item["video_grid_thw"].data[0] == frames // 2, "two frames are a step in time"


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


STREAMED = index_first(VIDEOS[1])
HLS = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/passwd.ts\n#EXT-X-ENDLIST\n"
BAD = {
    "empty": (b"", "video_empty: the video has no bytes"),
    "no video": (IMAGE, "video_decode: no video that is known by its first bytes"),
    "playlist": (HLS, "video_decode: no video that is known by its first bytes"),
    "cut off": (VIDEOS[1][: len(VIDEOS[1]) // 2], "video_decode: the file is cut off: it has "),
    "frames cut off": (STREAMED[: len(STREAMED) // 3], "video_decode: the file is cut off: it has 5,18"),
    "AVI cut off": (VIDEOS[3][: len(VIDEOS[3]) // 2], "video_decode: the file is cut off: it has "),
    "zeros": (VIDEOS[1][:64] + bytes(4000), "video_decode: "),
    "one frame": (video(1, frames=1), "video_decode: ZeroDivisionError"),
    "missing": ("b.mp4", "video_not_found: no file b.mp4 in input.media_root"),
    "folder": (".", "video_unreadable: .: Is a directory"),
    "outside": ("../a.mp4", "path_not_allowed: ../a.mp4 leads out of input.media_root"),
    "url": ("https://example.org/a.mp4", "url_not_allowed: "),
}


def test_a_bad_video_is_an_error_of_its_row(tmp_path: Path, folder: Folder) -> None:
    cells = [
        {"bytes": None if isinstance(bad, str) else bad, "path": bad if isinstance(bad, str) else None}
        for bad, _ in BAD.values()
    ]
    columns = pa.table({"video": [*cells, {"bytes": VIDEOS[0], "path": None}], "prompt": ["what?"] * (len(cells) + 1)})
    columns = columns.append_column("uid", pa.array([str(number) for number in range(len(columns))]))
    *failures, good = mapped(tmp_path / "job", folder("qwen2_5_vl"), columns, tmp_path, chat=True)
    assert isinstance(good, MappedRow), good
    for failure, (case, (_, error)) in zip(failures, BAD.items(), strict=True):
        assert isinstance(failure, RowFailure) and failure.error.startswith(error), (case, failure)


def test_frames_are_counted_before_they_are_decoded(
    tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the first two videos, four frames each."""
    first, second = 4 * 64 * 48, 4 * 96 * 64
    most = first + second
    needed: list[int] = []
    monkeypatch.setattr(video_frames, "need", needed.append)
    columns = table([([], VIDEOS[:2], "what?"), ([], VIDEOS[:1], "what?")])
    for limit, fails in ((most, False), (most - 1, True)):
        monkeypatch.setattr(video_frames, "_ROW_PIXELS", limit)
        large, small = mapped(tmp_path / str(limit), folder("qwen2_5_vl"), columns, chat=True)
        assert isinstance(small, MappedRow) and isinstance(large, RowFailure) is fails, (large, small)
    assert isinstance(large, RowFailure) and large.error.startswith("video_too_large: 4 frames of 96 x 64, ")
    assert sum(needed) == 2 * 3 * (first + second + first + first + first), "frames are in memory twice"


@pytest.mark.parametrize(("missing", "fails"), [(1, False), (2, True)])
def test_containers_may_count_one_frame_too_many(
    missing: int, fails: bool, tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = VideoLoader.read_frames
    short = lambda *given, **options: tuple(part[:-missing] for part in read(*given, **options))  # noqa: E731
    monkeypatch.setattr(VideoLoader, "read_frames", short)
    (row,) = mapped(tmp_path, folder("qwen3_vl"), table([([], VIDEOS[:1], "what?")]), chat=True)
    assert isinstance(row, RowFailure) is fails, row
    error = "video_decode: only 2 of 4 sampled frames can be decoded: damaged"
    assert not isinstance(row, RowFailure) or row.error == error


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
        row({"type": "video", "video": "a.mp4"}),
    ]
    columns = pa.table({"video": [VIDEOS[:2]] * 5, "prompt": prompts, "uid": [*"abcde"]})
    job = write_job(tmp_path, folder("qwen2_5_vl"), columns, chat=True)
    mapper = RowMapper(load_config(job), columns.schema, None, PromptColumn.JSON_CONVERSATIONS)
    rows = list(mapper.map(RowBatch(0, columns.combine_chunks().to_batches()[0], None)))
    placed, swapped, before, *bad = rows
    hashes = [row.engine_input["mm_hashes"]["video"] for row in (placed, swapped, before)]
    assert hashes[0] == hashes[2] == hashes[1][::-1] and len(set(hashes[0])) == 2
    assert [failure.error.split(":")[0] for failure in bad] == ["placeholders", "prompt_messages"]


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "setting that the loader does not read": (
        "qwen2_5_vl",
        {"media_io_kwargs": {"video": {"num_frames": 8}}},
        "engine.media_io_kwargs.video.num_frames does nothing: vLLM's loader qwen2_vl",
    ),
    "loader that there is not": (
        "qwen3_vl",
        {"media_io_kwargs": {"video": {"video_backend": "avi"}}},
        "engine.media_io_kwargs.video.video_backend = 'avi': expected one of ",
    ),
    "no room for videos": ("qwen3_vl", {"limit_mm_per_prompt": {"video": 0}}, " takes no videos"),
    "model without videos": ("mistral3", {}, " takes no videos"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_fit_the_model_is_refused(case: str, tmp_path: Path, folder: Folder) -> None:
    family, engine, says = REFUSALS[case]
    with pytest.raises(JobError) as caught:
        mapped(tmp_path, folder(family), table(ROWS), engine=engine, chat=True)
    assert says in str(caught.value)


def test_a_model_without_videos_is_named_before_a_row_is_read(tmp_path: Path) -> None:
    """The model of the demo, whose class is run-batch's own."""
    columns = {**jobs.rows(3), "video": VIDEOS[:3]}
    finished = jobs.run(jobs.write_job(tmp_path, columns, input={"video_column": "video", "image_column": "image"}))
    assert finished.returncode == 2 and "Traceback" not in finished.stderr, finished.stderr
    assert f"input.video_column: {jobs.TABLES['model']['path']} takes no videos" in finished.stderr


def test_check_says_what_samples_the_frames(tmp_path: Path, folder: Folder) -> None:
    job = write_job(tmp_path, folder("qwen2_5_vl"), table(ROWS), engine=FEWER, chat=True)
    checked = jobs.run(job, command="check")
    assert checked.returncode == 0, checked.stderr
    assert "videos: vLLM's own processor, frames sampled by vLLM's loader qwen2_vl (fps = 1)" in checked.stdout
    assert "2 of the first 9 rows have no video in column video: they are asked without it" in checked.stdout


@pytest.mark.engine
@pytest.mark.parametrize("family", FAMILIES)
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
    tried = jobs.run(write_job(tmp_path, folder("qwen2_5_vl"), table(ROWS[1:2]), chat=True), command="try")
    assert tried.returncode == 0, tried.stderr
    assert "50 frames of 96 x 64" in tried.stdout
