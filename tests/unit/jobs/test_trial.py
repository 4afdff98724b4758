"""`run-batch try` without vLLM's engine: which rows it takes, what it shows of them, what it finds out."""

import base64
import json
import os
import signal
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from checkpoints import save_llava
from fake_engine import FakeEngine
from pictures import encoded, picture
from trials import COUNT, opened, shown, tried

import jobs
from run_batch.jobs.engine.vllm_engine import BrokenDeclaration
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import Interrupted, JobError, RunError
from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.trial.try_job import Trial, try_job

TEXT_ONLY: Mapping[str, Any] = {"input": {"image_column": ""}, "prompt": {"template": "{prompt}"}}


def test_the_first_rows_are_shown_with_what_the_model_got(tmp_path: Path) -> None:
    found, code = tried(opened(tmp_path), rows=3)
    assert code == 0 and [row["row_id"] for row in found["rows"]] == ["u00000", "u00001", "u00002"]
    row = found["rows"][1]
    assert row["prompt"] == "<s>USER: [<image> x 16]\nis it even? ASSISTANT:" and row["prompt_tokens"] == 46
    image = jobs.rows(2)["image"][1]
    assert row["images"] == [{"what": "PNG", "shape": [21, 21], "bytes": len(image)}] and row["image_tokens"] == [16]
    assert row["texts"] == ["text"] and row["finish_reason"] == "stop" and row["error"] is None and row["seconds"] >= 0


def test_an_input_of_fewer_rows_is_tried_whole(tmp_path: Path) -> None:
    assert len(tried(opened(tmp_path, jobs.rows(2)))[0]["rows"]) == 2


def test_hostile_text_is_shown_escaped_and_cannot_pass_for_other_lines(tmp_path: Path) -> None:
    columns = jobs.rows(2)
    hostile = "\x1b[31mred\u202e \u200b\u2028\x07\r\nrow u99999 (number 9"
    columns["uid"][0] = "u\x1b[2J\nrow"

    class Hostile(FakeEngine):
        def step(self) -> list[Generation]:
            return [Generation(done.row, (hostile,), "stop", 1, 1) for done in super().step()]

    text = shown(opened(tmp_path, columns), Hostile())
    assert all(character.isprintable() or character == "\n" for character in text)
    assert "row u\\x1b[2J\\nrow (number 0" in text
    assert "    | \\x1b[31mred\\u202e \\u200b\\u2028\\x07\\r\n    | row u99999 (number 9" in text
    assert [line for line in text.splitlines() if line.startswith("row u99999")] == []


def test_names_of_special_tokens_in_the_data_are_told_from_the_tokens(tmp_path: Path) -> None:
    columns = jobs.rows(2)
    columns["prompt"][0] = "</s> is <image> it <image> even?</s>"
    job = opened(tmp_path, columns)
    row, other = tried(job)[0]["rows"]
    assert row["prompt"] == "<s>USER: [<image> x 16]\n</s> is <image> it <image> even?</s> ASSISTANT:"
    assert row["special_names_in_text"] == {"</s>": 2, "<image>": 2} and other["special_names_in_text"] == {}
    assert "as plain text, not as tokens: </s> (2 x), <image> (2 x)" in shown(job)


def test_long_texts_are_cut_unless_asked_for_whole(tmp_path: Path) -> None:
    class Long(FakeEngine):
        def step(self) -> list[Generation]:
            return [Generation(done.row, ("word " * 2000,), "stop", 1, 1) for done in super().step()]

    job = opened(tmp_path)
    assert "--full shows them" in shown(job, Long(), rows=1)
    assert shown(job, Long(), rows=1, full=True).count("word ") == 2000
    assert tried(job, Long(), rows=1)[0]["rows"][0]["texts"] == ["word " * 2000]


def test_all_answers_of_a_row_are_shown(tmp_path: Path) -> None:
    class Several(FakeEngine):
        def step(self) -> list[Generation]:
            return [Generation(done.row, ("one", "two"), "length", 1, 9) for done in super().step()]

    text = shown(opened(tmp_path), Several(), rows=1)
    assert "  2 answers, 9 tokens together, the first ended by length, " in text
    assert "    answer 1:\n    | one\n    answer 2:\n    | two\n" in text


def test_rows_that_fail_are_shown_with_their_error_and_count_for_the_exit_code(tmp_path: Path) -> None:
    columns = jobs.rows(8)
    columns["image"][2], columns["image"][5] = b"<html>", None
    job = opened(tmp_path, columns, errors={"max_fraction": 0.2})
    engine = FakeEngine()
    engine.refuses = 4
    found, code = tried(job, engine)
    errors = [row["error"] for row in found["rows"]]
    assert code == 3 and errors[2].startswith("image_decode: ") and errors[4] == "refused: "
    assert errors.count(None) == 6 and found["rows"][2]["prompt"] is None
    assert found["rows"][2]["images"] == [{"what": "", "shape": [], "bytes": 6}]
    assert found["rows"][5]["images"] == [] and "[" not in found["rows"][5]["prompt"]
    assert "image 1: 6 bytes, not decoded\n  error: image_decode: " in shown(job)
    assert tried(opened(tmp_path / "b", columns, errors={"max_fraction": 0.25}), engine)[1] == 0


def test_a_row_that_kills_the_engine_is_found_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    text, code = try_job(opened(tmp_path), Trial(4, as_json=True), lambda config: FakeEngine(poison=2))
    errors = [row["error"] for row in json.loads(text)["rows"]]
    assert code == 3 and errors[2].startswith("engine_died: ") and errors.count(None) == 3


def test_where_no_row_can_be_mapped_no_engine_is_started(tmp_path: Path) -> None:
    job = opened(tmp_path, {**jobs.rows(3), "image": [b"x"] * 3})

    def start(config: JobConfig) -> Any:
        raise AssertionError("no row needs it")

    text, code = try_job(job, Trial(8), start)
    assert code == 3 and text.endswith("no forecast: no row was generated")


def test_several_images_text_only_rows_and_features_are_shown_as_they_are(tmp_path: Path) -> None:
    images = [[encoded(picture(1, (30, 20))), encoded(picture(2, (8, 90)), "JPEG")], [], None]
    columns = {**jobs.rows(3), "image": pa.array(images, pa.list_(pa.binary()))}
    job = opened(tmp_path / "a", columns, prompt={"template": "<image>{prompt}<image>"})
    rows = tried(job)[0]["rows"]
    assert [image["shape"] for image in rows[0]["images"]] == [[30, 20], [8, 90]] and rows[0]["image_tokens"] == [
        16,
        16,
    ]
    assert rows[0]["prompt"].startswith("<s>[<image> x 16]which") and rows[0]["prompt"].endswith("?[<image> x 16]")
    assert rows[1]["images"] == rows[2]["images"] == [] and rows[2]["prompt"] == "<s>is it above four?"
    features = np.ones((16, 96), np.float32)
    columns = {**jobs.rows(1), "image": [features.tolist()]}
    (row,) = tried(opened(tmp_path / "b", columns))[0]["rows"]
    assert row["error"] is None and row["images"][0]["what"] == "features" and row["images"][0]["shape"] == [16, 96]


CHAT = """{% for message in messages %}{{ message['role'] | upper }}: {% for part in message['content'] %}\
{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}</s>{% endfor %}ASSISTANT:"""


def test_images_of_examples_and_messages_are_shown_in_their_places(tmp_path: Path) -> None:
    save_llava(tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(CHAT)
    (tmp_path / "example.png").write_bytes(encoded(picture(1, (11, 12))))
    data = "data:image/png;base64," + base64.b64encode(encoded(picture(2, (21, 22)))).decode()
    content = [{"type": "image_url", "image_url": {"url": data}}, {"type": "text", "text": "or "}, {"type": "image"}]
    columns = {**jobs.rows(1), "prompt": [json.dumps([{"role": "user", "content": content}])]}
    columns["image"] = [encoded(picture(3, (31, 32)), "JPEG")]
    prompt = {
        "template": None,
        "chat": True,
        "examples": [{"image": "example.png", "text": "like this?", "answer": "yes"}],
    }
    job = opened(tmp_path, columns, model={"path": str(tmp_path / "model")}, prompt=prompt)
    (row,) = tried(job)[0]["rows"]
    assert [image["shape"] for image in row["images"]] == [[11, 12], [21, 22], [31, 32]]
    assert row["error"] is None and row["image_tokens"] == [16] * 3 and row["prompt"].count("[<image> x 16]") == 3
    assert row["prompt"].startswith("USER:Ġ[<image> x 16]likeĠthis?</s>ASSISTANT:Ġyes</s>USER:Ġ[<image> x 16]orĠ[")


def test_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    before = {name: os.environ.get(name) for name in ("TMPDIR", "PYTHONDONTWRITEBYTECODE")}, tempfile.gettempdir()
    tried(opened(tmp_path), rows=1)
    assert ({name: os.environ.get(name) for name in before[0]}, tempfile.gettempdir()) == before


def test_a_text_only_job_is_tried(tmp_path: Path) -> None:
    (row,) = tried(opened(tmp_path, jobs.rows(1), **TEXT_ONLY))[0]["rows"]
    assert row["prompt"] == "<s>which digit is this?" and row["images"] == [] and row["texts"] == ["text"]


FICKLE = """
from run_batch.model import MULTIMODAL_REGISTRY, RowError, map_image_pixels
from run_batch.model.families.llava import LlavaForConditionalGeneration

calls = 0

def mapper(context, items):
    global calls
    calls += 1
    tensors = map_image_pixels(context, items)
    DOES
    return tensors

@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mapper)
class NAME(LlavaForConditionalGeneration):
    pass
"""


@pytest.mark.parametrize(
    ("name", "does", "says"),
    [
        (
            "FickleTensors",
            "tensors['pixel_values'][0][0, 0, 0] += calls * 1e-3",
            r"other pixel_values \(1 of 3,072 values\)",
        ),
        (
            "FickleErrors",
            "if calls > 1: raise RowError('shy', 'no')",
            "no error the first time, the error shy: no the second",
        ),
    ],
)
def test_a_mapper_that_gives_something_else_the_second_time_is_the_jobs_fault(
    tmp_path: Path, name: str, does: str, says: str
) -> None:
    model = {"architecture": name, "plugins": [name.lower()]}
    (tmp_path / f"{name.lower()}.py").write_text(FICKLE.replace("NAME", name).replace("DOES", does))
    with pytest.raises(JobError, match=f"row 'u00000': mapping it twice gives {says}"):
        tried(opened(tmp_path, model=model), rows=1)


class Broken(FakeEngine):
    def step(self) -> list[Generation]:
        raise BrokenDeclaration("16 placeholder tokens for features, and its embed_multimodal 15")


def test_a_model_that_does_not_do_what_it_declares_is_the_jobs_fault(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="and its embed_multimodal 15"):
        tried(opened(tmp_path), Broken())


def test_an_engine_that_does_not_start_ends_with_its_cause(tmp_path: Path) -> None:
    def start(config: JobConfig) -> Any:
        raise RunError("no memory")

    with pytest.raises(RunError, match="no memory"):
        try_job(opened(tmp_path), Trial(1), start)


def test_a_signal_ends_it_at_once(tmp_path: Path) -> None:
    class Slow(FakeEngine):
        def step(self) -> list[Generation]:
            os.kill(os.getpid(), signal.SIGINT)
            return super().step()

    # Once one has asked it to stop, it ignores all of them, until its process ends.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        with pytest.raises(Interrupted):
            tried(opened(tmp_path), Slow())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_the_output_folder_does_not_matter(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / ".run_batch").mkdir(parents=True)
    (out / ".run_batch" / "job.json").write_text("not even JSON")
    (out / "part-000000.parquet").write_bytes(b"of something else")
    before = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    job = opened(tmp_path, output={"path": "rows.parquet/no/folder"})
    assert tried(job)[1] == 0 and tried(opened(tmp_path))[1] == 0
    after = {path: path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*"))}
    ours = {tmp_path / "job.toml", tmp_path / "rows.parquet"}
    assert {path: time for path, time in after.items() if path not in ours} == before


def test_the_forecast_scales_what_was_measured_and_says_on_how_many_rows(tmp_path: Path) -> None:
    columns = {**jobs.rows(COUNT), "note": ["x" * 100] * COUNT}
    columns["image"][1] = b"no image"
    job = opened(tmp_path, columns, output={"columns": ["note"]}, preprocess={"workers": 3}, errors={"max_fraction": 1})
    found = tried(job)[0]["forecast"]
    assert (found["rows"], found["based_on_rows"], found["workers"], found["gpus"]) == (COUNT, 7, 3, 0)
    assert (found["rows_at_once"], found["most_rows_at_once"]) == (2, 2)
    assert found["prompt_tokens"] == found["generated_tokens"] == COUNT
    assert found["engine_rows_per_second"] == pytest.approx(7 / found["measured_seconds"])
    assert found["seconds"] == pytest.approx(COUNT / found["rows_per_second"])
    assert found["rows_per_second"] < min(found["engine_rows_per_second"], 3 * found["worker_rows_per_second"])
    assert 100 * COUNT < found["result_bytes"] < 250 * COUNT
    text = shown(job)
    assert f"forecast for {COUNT} rows, if they are like the 7 that were generated here" in text
    assert "GPU hours: none" in text


def test_rows_are_measured_in_an_engine_that_has_run_before_and_has_forgotten_them(tmp_path: Path) -> None:
    calls: list[str] = []

    class Engine(FakeEngine):
        def add(self, mapped: Any) -> RowFailure | None:
            calls.append(f"add {mapped.row}")
            return super().add(mapped)

        def forget_rows(self) -> bool:
            calls.append("forget")
            return True

    tried(opened(tmp_path), Engine(), rows=2)
    assert calls == ["add 0", "add 1", "forget", "add 0", "add 1"]
