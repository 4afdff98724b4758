"""The whole way of a row, through the command line, with real vLLM and real images."""

import json
import signal
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs

pytestmark = pytest.mark.engine

COUNT = 230
# Enough shards to be stopped in the middle.
LONG, SHARD = 300, 25
BAD_IMAGES: dict[int, tuple[Any, str]] = {
    7: ({"bytes": b"", "path": None}, "image_empty: "),
    19: ({"bytes": jobs.rows(20)["image"][19][:60], "path": None}, "image_decode: "),
    44: ({"bytes": b"<html>no</html>", "path": None}, "image_decode: "),
    101: ({"bytes": None, "path": "../../etc/passwd"}, "path_not_allowed: "),
    150: ({"bytes": None, "path": "missing.png"}, "image_not_found: "),
}
TEXT_ONLY = 180
PLACEHOLDER_IN_TEXT = 60
TOO_LONG = 61


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pa.Table]:
    """A job over images as structs, in several shards, with rows of every trouble among good ones."""
    columns = jobs.rows(COUNT)
    images: list[Any] = [{"bytes": image, "path": None} for image in columns["image"]]
    for row, (image, _) in BAD_IMAGES.items():
        images[row] = image
    images[TEXT_ONLY] = None
    columns["image"] = images
    columns["prompt"][PLACEHOLDER_IN_TEXT] = "is <image> it <image> even?</s>"
    columns["prompt"][TOO_LONG] = "x" * 300
    columns["weight"] = [i / 2 for i in range(COUNT)]
    job = jobs.write_job(tmp_path_factory.mktemp("base"), columns, output={"columns": ["weight", "prompt"]})
    return job, jobs.succeed(job, forked=False)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """The same rows without any trouble, in one shard, images as plain bytes, found by a glob."""
    folder = tmp_path_factory.mktemp("good")
    table = pa.table(jobs.rows(COUNT))
    (folder / "in").mkdir()
    pq.write_table(table.slice(0, 90), folder / "in" / "a.parquet")
    pq.write_table(table.slice(90), folder / "in" / "b.parquet")
    return jobs.succeed(jobs.write_job(folder, None, input={"path": "in/*.parquet"}, output={"rows_per_shard": 1000}))


def test_every_row_is_there_once_in_order_with_its_carried_columns(base: tuple[Path, pa.Table]) -> None:
    job, table = base
    assert table.column_names == [
        *("row_id", "weight", "prompt", "text", "finish_reason", "prompt_tokens", "generated_tokens", "error")
    ]
    assert table["row_id"].to_pylist() == jobs.rows(COUNT)["uid"]
    assert table["weight"].to_pylist() == [i / 2 for i in range(COUNT)]
    assert [pq.read_metadata(path).num_rows for path in jobs.shards(job)] == [50, 50, 50, 50, 30]
    assert (job.parent / "out" / "_SUCCESS").exists()
    assert pq.read_table(job.parent / "out").num_rows == COUNT, "readers see more than the shards"


def test_a_bad_row_becomes_an_error_and_its_neighbours_are_untouched(
    base: tuple[Path, pa.Table], good: pa.Table
) -> None:
    rows = base[1].to_pylist()
    expected = {row: kind for row, (_, kind) in BAD_IMAGES.items()} | {TOO_LONG: "prompt_too_long: "}
    assert {i for i, row in enumerate(rows) if row["error"] is not None} == set(expected)
    for row, kind in expected.items():
        assert rows[row]["error"].startswith(kind) and len(rows[row]["error"]) > len(kind)
        assert rows[row]["text"] is None and rows[row]["finish_reason"] is None
    others = set(range(COUNT)) - set(expected) - {TEXT_ONLY, PLACEHOLDER_IN_TEXT}
    texts = good["text"].to_pylist()
    assert all(rows[i]["text"] == texts[i] for i in others)
    assert len(set(texts)) >= 8, "the texts hardly depend on the rows"
    assert {row["finish_reason"] for row in rows} <= {"stop", "length", None}


def test_text_that_reads_like_a_placeholder_stays_text(base: tuple[Path, pa.Table], good: pa.Table) -> None:
    row = base[1].slice(PLACEHOLDER_IN_TEXT, 1).to_pylist()[0]
    assert row["error"] is None
    # The demo's tokenizer has a token for each character; the image takes 16, and its placeholder stood for one.
    prompt = "USER: <image>\nis <image> it <image> even?</s> ASSISTANT:"
    assert row["prompt_tokens"] == 1 + len(prompt) - len("<image>") + 16


def test_a_row_without_an_image_is_text_only(base: tuple[Path, pa.Table]) -> None:
    row = base[1].slice(TEXT_ONLY, 1).to_pylist()[0]
    assert row["error"] is None and row["text"] is not None
    assert row["prompt_tokens"] == 1 + len(f"USER: \n{row['prompt']} ASSISTANT:")


def test_images_by_path_and_saved_data_sets_give_the_same_texts(tmp_path: Path, good: pa.Table) -> None:
    columns = jobs.rows(60)
    (tmp_path / "media" / "sub").mkdir(parents=True)
    paths = [f"sub/{uid}.img" for uid in columns["uid"]]
    for path, image in zip(paths, columns["image"], strict=True):
        (tmp_path / "media" / path).write_bytes(image)
    job = jobs.write_job(tmp_path / "paths", {**columns, "image": paths}, input={"media_root": "../media"})
    assert jobs.succeed(job)["text"].to_pylist() == good["text"].to_pylist()[:60]

    features = datasets.Features(
        {"uid": datasets.Value("string"), "image": datasets.Image(), "prompt": datasets.Value("string")}
    )
    rows = {**columns, "image": [{"bytes": image, "path": None} for image in columns["image"]]}
    saved = datasets.Dataset.from_dict(rows, features=features)
    datasets.DatasetDict({"test": saved}).save_to_disk(str(tmp_path / "saved" / "data"))
    job = jobs.write_job(tmp_path / "saved", None, input={"path": "data", "split": "test", "id_column": None})
    table = jobs.succeed(job)
    assert table["text"].to_pylist() == good["text"].to_pylist()[:60]
    assert table["row_id"].to_pylist() == [f"test:{i}" for i in range(60)]


@pytest.fixture(scope="module")
def long_job(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, list[Any]], list[str]]:
    """Rows enough to be stopped in the middle, and their texts from a run that nothing stops."""
    columns = jobs.rows(LONG)
    job = jobs.write_job(tmp_path_factory.mktemp("whole"), columns, output={"rows_per_shard": SHARD})
    return columns, jobs.succeed(job)["text"].to_pylist()


def test_a_killed_job_resumes_without_losing_or_repeating_a_row(
    tmp_path: Path, long_job: tuple[dict[str, list[Any]], list[str]]
) -> None:
    columns, texts = long_job
    job = jobs.write_job(tmp_path, columns, output={"rows_per_shard": SHARD})
    process = jobs.start(job)
    jobs.wait_for_shards(job, 3, process)
    process.kill_group()
    kept = {path.name: path.stat().st_mtime_ns for path in jobs.shards(job)}
    assert 3 <= len(kept) < LONG // SHARD and not (tmp_path / "out" / "_SUCCESS").exists()
    assert all(pq.read_metadata(path).num_rows == SHARD for path in jobs.shards(job))

    table = jobs.succeed(job)
    assert table["row_id"].to_pylist() == columns["uid"]
    assert table["text"].to_pylist() == texts
    for path in jobs.shards(job):
        assert kept.get(path.name, path.stat().st_mtime_ns) == path.stat().st_mtime_ns, "a finished shard was repeated"
    again = jobs.run(job)
    assert again.returncode == 0 and f"all {LONG} rows are done already" in again.stdout


def test_a_terminated_job_saves_its_shards_and_exits_with_75(
    tmp_path: Path, long_job: tuple[dict[str, list[Any]], list[str]]
) -> None:
    columns, texts = long_job
    job = jobs.write_job(tmp_path, columns, output={"rows_per_shard": SHARD})
    process = jobs.start(job)
    jobs.wait_for_shards(job, 1, process)
    process.send_signal(signal.SIGTERM)
    ended = process.finish(timeout=30)
    assert ended.returncode == 75 and "run the same command again" in ended.stderr
    status = json.loads(jobs.run(job, "--json", command="status").stdout)
    assert status["state"] != "complete" and 0 < status["done"] < LONG and status["done"] + status["left"] == LONG

    assert jobs.succeed(job)["text"].to_pylist() == texts
    status = json.loads(jobs.run(job, "--json", command="status").stdout)
    assert (status["state"], status["done"], status["failed"], status["left"]) == ("complete", LONG, 0, 0)


def test_another_job_is_refused_in_the_same_folder(base: tuple[Path, pa.Table]) -> None:
    job, _ = base
    before = {path.name: path.stat().st_mtime_ns for path in jobs.shards(job)}
    refused = jobs.run(job, "--set", "sampling.max_tokens=3")
    assert refused.returncode == 2 and "sampling.max_tokens: 8 -> 3" in refused.stderr
    assert {path.name: path.stat().st_mtime_ns for path in jobs.shards(job)} == before


def test_too_many_failed_rows_give_exit_code_3_and_keep_the_others(tmp_path: Path, good: pa.Table) -> None:
    columns = jobs.rows(40)
    columns["image"][:30] = [b"x"] * 30
    job = jobs.write_job(tmp_path, columns)
    finished = jobs.run(job)
    assert finished.returncode == 3 and "30 of 40 rows failed" in finished.stderr
    assert "30 failed" in finished.stdout
    assert jobs.results(job)["text"].to_pylist()[30:] == good["text"].to_pylist()[30:40]
    assert (tmp_path / "out" / "_SUCCESS").exists()


def test_images_that_are_out_of_reach_fail_no_row_and_are_generated_once_they_are_back(
    tmp_path: Path, good: pa.Table
) -> None:
    columns = jobs.rows(60)
    images: list[Any] = [{"bytes": image, "path": None} for image in columns["image"]]
    (tmp_path / "unmounted").mkdir()
    for row in range(30, 40):
        (tmp_path / "unmounted" / f"{row}.img").write_bytes(columns["image"][row])
        images[row] = {"bytes": None, "path": f"images/{row}.img"}
    job = jobs.write_job(tmp_path, {**columns, "image": images}, output={"rows_per_shard": 25})
    finished = jobs.run(job)
    assert finished.returncode == 1 and "10 of the first 60 rows failed" in finished.stderr, finished.stderr
    assert "image_not_found: 10" in finished.stderr and "Traceback" not in finished.stderr
    assert [path.name for path in jobs.shards(job)] == ["part-000000.parquet", "part-000002.parquet"]
    status = json.loads(jobs.run(job, "--json", command="status").stdout)
    assert (status["state"], status["done"], status["failed"], status["left"]) == ("stopped", 50, 0, 10)

    (tmp_path / "unmounted").rename(tmp_path / "images")
    finished = jobs.run(job)
    assert finished.returncode == 0 and "this run: 10 rows" in finished.stdout, finished.stderr
    assert jobs.results(job)["text"].equals(good["text"][:60])


def test_an_unexpected_text_is_kept_and_counts_for_the_exit_code(tmp_path: Path, good: pa.Table) -> None:
    columns = {**jobs.rows(12), "answer": [None, *good["text"].to_pylist()[1:11], "another text"]}
    job = jobs.write_job(tmp_path, columns, errors={"expected_column": "answer", "max_fraction": 0.0})
    finished = jobs.run(job)
    assert finished.returncode == 3 and "1 of 12 rows have another text than is expected of them" in finished.stderr
    assert "0 failed" in finished.stdout and "10 of 11 texts as expected" in finished.stdout
    found = jobs.results(job)
    assert found["text"].equals(good["text"][:12]) and found["error"].null_count == 12
    assert found["matches_expected"].to_pylist() == [None, *[True] * 10, False]
    again = jobs.run(job, "--retry-failed")
    assert (again.returncode, "no row has failed" in again.stdout) == (3, True)


def test_sampling_of_the_job_and_of_single_rows(tmp_path: Path) -> None:
    columns = jobs.rows(24)
    columns["own"] = [None, '{"max_tokens": 1, "temperature": 0.0, "n": 1}', '{"temperatur": 1}', "nonsense"] * 6
    sampling = {"temperature": 1.0, "n": 2, "seed": 5, "logprobs": 1}
    tables: dict[str, Any] = {
        "input": {"sampling_column": "own"},
        "sampling": sampling,
        "errors": {"max_fraction": 1.0},
    }
    first = jobs.succeed(jobs.write_job(tmp_path / "a", columns, **tables))
    second = jobs.succeed(jobs.write_job(tmp_path / "b", columns, output={"rows_per_shard": 7}, **tables))
    assert first["texts"].to_pylist() == second["texts"].to_pylist(), "a seeded row depends on its shard"
    rows = first.to_pylist()
    assert all(len(row["texts"]) == 2 and row["texts"][0] == row["text"] for row in rows[0::4])
    assert all(row["generated_tokens"] == 1 and len(row["texts"]) == 1 for row in rows[1::4])
    assert all(len(row["logprobs"]) == len(row["finish_reasons"]) == 2 for row in rows[0::4])
    assert all(sequence[0][0]["logprob"] <= 0 for row in rows[0::4] for sequence in row["logprobs"])
    assert all(row["error"].startswith("sampling: ") and "temperatur" in row["error"] for row in rows[2::4])
    assert all(row["error"].startswith("sampling: not JSON") for row in rows[3::4])


PLUGIN = """
import os
from run_batch.model import MULTIMODAL_REGISTRY, map_image_pixels
from run_batch.model.families.llava import LlavaForConditionalGeneration

def map_or_die(context, items):
    if any(item.size == (13, 13) for item in items):
        os._exit(9)
    return map_image_pixels(context, items)

@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(map_or_die)
class MortalLlava(LlavaForConditionalGeneration):
    pass
"""


def test_a_plugin_model_runs_and_a_row_that_kills_its_worker_fails_alone(tmp_path: Path, good: pa.Table) -> None:
    columns = jobs.rows(70)
    columns["image"][33] = jobs.encoded(jobs.picture(1, (13, 13)))
    model = {"architecture": "MortalLlava", "plugins": ["mortal"]}
    job = jobs.write_job(tmp_path, columns, model=model, preprocess={"workers": 2})
    (tmp_path / "mortal.py").write_text(PLUGIN)
    table = jobs.succeed(job)
    errors = table["error"].to_pylist()
    assert errors.pop(33) == "worker_died: mapping this row kills the worker process"
    assert errors == [None] * 69
    texts = table["text"].to_pylist()
    assert texts[:33] + texts[34:] == good["text"].to_pylist()[:33] + good["text"].to_pylist()[34:70]
