"""Videos in messages: inputs and texts are those of vLLM's own `LLM.chat` for the same messages."""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from built_in_families import family_folders
from engines import plain_values
from servers import file_server
from video_jobs import ENGINE, IMAGE, VIDEOS, token_ids
from vllm.renderers.params import ChatParams
from vllm.renderers.registry import renderer_from_config
from vllm.usage.usage_lib import UsageContext
from vllm_chat import chat

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.rows import MappedRow, MappedRows, RowFailure
from run_batch.jobs.mapping import row_images
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.checkpoint.settings import ModelSettings, build_engine_args

Folder = Callable[[str], Path]
Message = dict[str, Any]
FEWER = {"media_io_kwargs": {"video": {"fps": 1}}}


def data_url(encoded: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(encoded).decode()}"


def text(words: str) -> Message:
    return {"type": "text", "text": words}


IMAGE_PART = {"type": "image_url", "image_url": {"url": data_url(IMAGE, "image/png")}}
FIRST, SECOND, THIRD = (
    {"type": "video_url", "video_url": {"url": data_url(encoded, "video/mp4")}} for encoded in VIDEOS[:3]
)
CONVERSATIONS: list[list[Message]] = [
    [{"role": "user", "content": [FIRST, text("What happens?")]}],
    [{"role": "user", "content": [text("First"), SECOND, text("then"), IMAGE_PART, text("then"), FIRST, text("?")]}],
    [{"role": "user", "content": [IMAGE_PART, THIRD, IMAGE_PART, text("Is it in there?")]}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [THIRD, text("What is this?")]},
        {"role": "assistant", "content": "A video."},
        {"role": "user", "content": [FIRST, FIRST, text("And these?")]},
    ],
    [{"role": "user", "content": [IMAGE_PART, text("An image?")]}],
    [{"role": "user", "content": "Just say something."}],
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The checkpoint of a family, made when it is first asked for."""
    return family_folders(tmp_path_factory.mktemp)


def table(conversations: list[Any], **columns: Any) -> pa.Table:
    prompts = list(map(json.dumps, conversations))
    return pa.table({"uid": [f"u{number}" for number in range(len(prompts))], "prompt": prompts, **columns})


def mapped(
    folder: Path,
    model: Path,
    columns: pa.Table,
    root: Path | None = None,
    hosts: Sequence[str] = (),
    **engine: Any,
) -> MappedRows:
    named = {"video_column": "video"} if "video" in columns.column_names else {"image_column": ""}
    tables: dict[str, dict[str, Any]] = {
        "input": {**named, "allowed_hosts": list(hosts), "allow_private_hosts": True if hosts else None},
        "model": {"path": str(model)},
        "engine": {**ENGINE, **engine},
        "prompt": {"template": None, "chat": True},
    }
    config = load_config(jobs.write_job(folder, columns, **tables))
    mapper = RowMapper(config, columns.schema, root, PromptColumn.JSON_CONVERSATIONS)
    return list(mapper.map(RowBatch(0, columns.combine_chunks().to_batches()[0], None)))


def openai_batch(tmp_path: Path, model: Path) -> Path:
    """A job of the conversations as a batch file of OpenAI's API."""
    requests = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "messages": conversation, "temperature": 0, "max_tokens": 8},
        }
        for number, conversation in enumerate(CONVERSATIONS)
    ]
    (tmp_path / "batch.jsonl").write_text("".join(json.dumps(request) + "\n" for request in requests))
    unset = dict.fromkeys(("prompt_column", "id_column", "image_column"))
    tables = {
        "input": {"path": str(tmp_path / "batch.jsonl"), "format": "openai", **unset},
        "model": {"path": str(model)},
        "engine": ENGINE,
        "prompt": {"template": None, "chat": None},
    }
    return jobs.write_job(tmp_path, None, **tables)


@pytest.mark.parametrize(("family", "engine"), [("qwen2_5_vl", FEWER), ("qwen3_vl", {})])
def test_inputs_are_those_of_vllms_own_renderer(
    family: str, engine: dict[str, Any], tmp_path: Path, folder: Folder
) -> None:
    settings = ModelSettings(str(folder(family)), engine={**ENGINE, **engine})
    renderer = renderer_from_config(build_engine_args(settings).create_engine_config(UsageContext.LLM_CLASS))
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    kwargs = {"add_generation_prompt": True, "tokenize": False}
    params = ChatParams(chat_template_kwargs=kwargs, media_io_kwargs=engine.get("media_io_kwargs"))
    rows = mapped(tmp_path, folder(family), table(CONVERSATIONS), **engine)
    for conversation, row in zip(CONVERSATIONS, rows, strict=True):
        assert isinstance(row, MappedRow), row
        _, (expected,) = renderer.render_chat([conversation], params, tokens)
        for key in ("type", "prompt_token_ids", "mm_placeholders", "mm_kwargs"):
            assert plain_values(row.engine_input.get(key)) == plain_values(expected.get(key)), (conversation, key)


def test_a_part_holds_a_video_in_any_form(tmp_path: Path, folder: Folder) -> None:
    """Beside those of the row's column, which have places of their own."""
    (tmp_path / "a.mp4").write_bytes(VIDEOS[0])
    ask = text("What?")
    held = [{"type": "video", "video": "a.mp4"}, {"type": "video", "path": str(tmp_path / "a.mp4")}, FIRST]
    with file_server(VIDEOS[0], "s3cret") as port:
        host = f"127.0.0.1:{port}"
        held.append({"type": "video_url", "video_url": {"url": f"http://{host}/a.mp4?key=s3cret"}})
        columns = table([[part, ask] for part in held])
        rows = mapped(tmp_path, folder("qwen2_5_vl"), columns, tmp_path, hosts=[host])
    assert token_ids(rows) == token_ids(rows)[:1] * 4 and hashes_of(rows[0]) == hashes_of(rows[3])
    place, second = {"type": "video"}, VIDEOS[1]
    conversations = [[place, ask, FIRST], [FIRST, ask, place], [FIRST, ask], [place, ask], [place, ask, place]]
    columns = table(conversations, video=[second] * 5)
    beside, swapped, before, one, bad = mapped(tmp_path / "beside", folder("qwen2_5_vl"), columns)
    hashes = [hashes_of(row) for row in (beside, swapped, before)]
    assert hashes == [[hashes[0][0], *hashes_of(rows[0])], hashes[0][::-1], hashes[0]] and len(set(hashes[0])) == 2
    assert hashes_of(one) == hashes[0][:1]
    assert (
        isinstance(bad, RowFailure)
        and bad.error == "placeholders: the messages have 2 places for videos, the row has 1"
    )


def hashes_of(row: MappedRow | RowFailure) -> list[str]:
    assert isinstance(row, MappedRow), row
    hashes: list[str] = row.engine_input["mm_hashes"]["video"]
    return hashes


BAD = {
    "not there": ({"type": "video", "video": "b.mp4"}, "video_not_found: no file b.mp4 in input.media_root"),
    "outside": ({"type": "video", "video": "../a.mp4"}, "path_not_allowed: "),
    "host": ({"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}, "url_not_allowed: "),
    "no video": ({"type": "video_url", "video_url": IMAGE_PART["image_url"]}, "video_decode: no video that is known"),
    "an image for a video": ({"type": "image_url", "image_url": FIRST["video_url"]}, "image_decode: "),
    "cut off": ({"type": "video", "video": data_url(VIDEOS[0][:3000], "video/mp4")}, "video_decode: the file is cut"),
    "no place": ({"type": "video"}, "placeholders: the messages have 1 places for videos, the row has 0"),
    "frames": ({"type": "video", "video": ["a.jpg"]}, "prompt_messages: a part of type video holds a list"),
    "sampling of its own": ({**FIRST, "fps": 2}, "prompt_messages: a part of type video_url has the key 'fps'"),
}


def test_a_bad_video_in_a_message_is_an_error_of_its_row(tmp_path: Path, folder: Folder) -> None:
    conversations = [[{"role": "user", "content": [part, text("What?")]}] for part, _ in BAD.values()]
    *failures, good = mapped(tmp_path / "job", folder("qwen3_vl"), table([*conversations, CONVERSATIONS[0]]), tmp_path)
    assert isinstance(good, MappedRow), good
    for failure, (case, (_, error)) in zip(failures, BAD.items(), strict=True):
        assert isinstance(failure, RowFailure) and failure.error.startswith(error), (case, failure)


def test_the_videos_of_a_row_have_one_limit(tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of its column and those in its messages together."""
    monkeypatch.setattr(row_images, "MAX_VIDEO_BYTES", len(VIDEOS[0]) + len(VIDEOS[1]))
    place, ask = {"type": "video"}, text("What?")
    columns = table([[place, SECOND, ask], [place, SECOND, FIRST, ask]], video=[VIDEOS[0]] * 2)
    fits, fails = mapped(tmp_path, folder("qwen2_5_vl"), columns)
    assert isinstance(fits, MappedRow), fits
    assert isinstance(fails, RowFailure) and fails.error.startswith("video_too_large: "), fails


def test_a_model_without_videos_answers_the_other_rows(tmp_path: Path, folder: Folder) -> None:
    with_video, image, plain = mapped(
        tmp_path, folder("smolvlm"), table([CONVERSATIONS[0], CONVERSATIONS[4], CONVERSATIONS[5]])
    )
    assert isinstance(image, MappedRow) and isinstance(plain, MappedRow), (image, plain)
    assert isinstance(with_video, RowFailure)
    assert with_video.error == f"prompt_messages: a message holds a video, and {folder('smolvlm')} takes no videos"
    with pytest.raises(JobError, match=r"engine\.media_io_kwargs: .* takes no videos; remove the key"):
        mapped(tmp_path / "set", folder("smolvlm"), table(CONVERSATIONS[4:]), **FEWER)


def test_check_takes_a_batch_file_with_videos(tmp_path: Path, folder: Folder) -> None:
    checked = jobs.run(openai_batch(tmp_path, folder("qwen2_5_vl")), command="check")
    assert checked.returncode == 0, checked.stderr
    assert "videos: vLLM's own processor, frames sampled by vLLM's loader qwen2_vl" in checked.stdout
    assert f"first {len(CONVERSATIONS)} rows: {len(CONVERSATIONS)} can be mapped, 0 fail" in checked.stdout


@pytest.mark.engine
@pytest.mark.long
@pytest.mark.parametrize("family", ["qwen2_5_vl", "qwen3_vl"])
def test_texts_of_a_batch_file_are_those_of_vllms_own_chat(family: str, tmp_path: Path, folder: Folder) -> None:
    results = jobs.succeed(openai_batch(tmp_path, folder(family)))
    assert results["error"].null_count == len(CONVERSATIONS), results["error"]
    expected = chat(folder(family), CONVERSATIONS, **ENGINE)
    assert results["text"].to_pylist() == expected and len(set(expected)) > len(expected) // 2
