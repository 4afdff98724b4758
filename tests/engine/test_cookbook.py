"""docs/cookbook.md: its recipes do what they say."""

import functools
import http.server
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from built_in_families import save_family
from object_store import ObjectStore
from pictures import encoded, picture
from videos import video

import jobs

pytestmark = pytest.mark.engine

PAGE = (jobs.ROOT / "docs" / "cookbook.md").read_text()
DEMO = jobs.ROOT / "configs" / "demo" / "model"
# What a machine without a GPU needs, and a small model.
SMALL = {
    "dtype": '"float32"',
    "enforce_eager": "true",
    "kv_cache_memory_bytes": "134217728",
    "max_model_len": "4096",
}
IMAGES = [encoded(picture(number, (60, 80))) for number in range(4)]


def blocks(recipe: str, language: str) -> list[str]:
    section = PAGE.split(f"## {recipe}\n")[1].split("\n## ")[0]
    return re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)


def write(recipe: str, folder: Path, model: Path, **engine: str) -> Path:
    """The recipe's job.toml, with another model and what a small machine needs."""
    (toml,) = blocks(recipe, "toml")
    toml = re.sub(r'(\[model\]\npath = )"[^"]*"', rf'\1"{model}"', toml)
    keys = {
        key: value for key, value in {**SMALL, **engine}.items() if not re.search(rf"^{key} = ", toml, re.MULTILINE)
    }
    lines = "".join(f"{key} = {value}\n" for key, value in keys.items())
    if "[engine]\n" in toml:
        toml = toml.replace("[engine]\n", f"[engine]\n{lines}")
    else:
        # Before a table of the engine's, if there is one: TOML allows it once.
        toml = (
            toml.replace("[engine.", f"[engine]\n{lines}\n[engine.")
            if "[engine." in toml
            else f"{toml}\n[engine]\n{lines}"
        )
    path = folder / "job.toml"
    path.write_text(toml)
    return path


def generated(job: Path, folder: str = "results") -> list[dict[str, Any]]:
    finished = jobs.run(job)
    assert finished.returncode == 0, finished.stderr
    found = sorted((job.parent / folder).glob("part-*.parquet"))
    return [row for path in found for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_family(folder, "qwen2_5_vl")
    return folder


def write_images(folder: Path) -> None:
    (folder / "images" / "more").mkdir(parents=True)
    for number, image in enumerate(IMAGES):
        (folder / "images" / ("more" if number % 2 else "") / f"{number}.png").write_bytes(image)


def test_every_recipe_is_tested_here() -> None:
    tests = Path(__file__).read_text()
    assert [name for name in re.findall(r"^## (.*)$", PAGE, re.MULTILINE) if f'"{name}"' not in tests] == []


def test_a_folder_of_images(tmp_path: Path, qwen: Path) -> None:
    write_images(tmp_path)
    (tmp_path / "images" / "again.png").write_bytes(IMAGES[2])
    rows = generated(write("Describe every image of a folder", tmp_path, qwen))
    texts = {row["row_id"]: row["text"] for row in rows}
    assert set(texts) == {"0.png", "more/1.png", "2.png", "more/3.png", "again.png"}
    assert texts["again.png"] == texts["2.png"] and len(set(texts.values())) == 4, "each text is of its image"


def test_questions_about_images(tmp_path: Path, qwen: Path) -> None:
    questions = ["What is it?", "Is it red?", "How many?", "What is it?", "Is it red?"]
    images = [IMAGES[0], IMAGES[1], IMAGES[0], IMAGES[0], IMAGES[0]]
    pq.write_table(pa.table({"image": images, "question": questions}), tmp_path / "rows.parquet")
    rows = generated(write("Answer questions about images", tmp_path, qwen))
    texts = [row["text"] for row in rows]
    assert [row["question"] for row in rows] == questions and texts[0] == texts[3]
    assert len(set(texts)) == 4, "each text is of its image and its question"


def test_classes_and_their_probabilities(tmp_path: Path) -> None:
    recipe = "Classify images, with the probability of each class"
    pq.write_table(pa.table({"image": jobs.rows(12)["image"]}), tmp_path / "rows.parquet")
    generated(write(recipe, tmp_path, DEMO, max_model_len="256"))
    code = f'{blocks(recipe, "python")[0]}\nprint(rows[["text", "probabilities"]].to_json(orient="records"))'
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


def test_pairs_of_images(tmp_path: Path, qwen: Path) -> None:
    pairs = pa.array([IMAGES[:2], IMAGES[2:]], pa.list_(pa.binary()))
    pq.write_table(pa.table({"image": pairs, "prompt": ["a cat", "a dog"]}), tmp_path / "judge.parquet")
    rows = generated(write("Judge pairs of images", tmp_path, qwen), "judged")
    assert [row["prompt"] for row in rows] == ["a cat", "a dog"]
    assert all("first".startswith(row["text"]) or "second".startswith(row["text"]) for row in rows)


def test_embeddings(tmp_path: Path, qwen: Path) -> None:
    recipe = "Embeddings of images"
    write_images(tmp_path)
    assert len({tuple(row["embedding"]) for row in generated(write(recipe, tmp_path, qwen), "embeddings")}) == 4
    code = f"{blocks(recipe, 'python')[0]}\nassert all(nearest != range(len(rows)))"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)


def test_labels(tmp_path: Path) -> None:
    columns = jobs.rows(6)
    pq.write_table(pa.table({**columns, "answer": ["yes"] * 6}), tmp_path / "rows.parquet")
    rows = generated(write("Evaluate a model against labels", tmp_path, DEMO, max_model_len="256"))
    assert [row["matches_expected"] for row in rows] == [row["text"] == "yes" for row in rows]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A server of the images."""
    write_images(tmp_path)
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "images")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"localhost:{server.server_port}"
        server.shutdown()


def test_urls(tmp_path: Path, qwen: Path, host: str) -> None:
    urls = [f"http://{host}/{name}" for name in ("0.png", "more/1.png", "2.png", "more/3.png", "2.png", "gone.png")]
    pq.write_table(pa.table({"url": urls}), tmp_path / "rows.parquet")
    job = write("Images behind URLs", tmp_path, qwen)
    own = f'allowed_hosts = ["{host}"]\nallow_private_hosts = true #'
    job.write_text(job.read_text().replace('allowed_hosts = ["images.example.org"]', own))
    rows = generated(job)
    assert [row["url"] for row in rows if row["error"]] == urls[5:] and all(row["text"] for row in rows[:5])
    assert rows[4]["text"] == rows[2]["text"] and len({row["text"] for row in rows[:4]}) == 4


def test_buckets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ObjectStore(f"bucket-{os.getpid()}-{time.monotonic_ns()}")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    pq.write_table(pa.table(jobs.rows(6)), tmp_path / "rows.parquet")
    store.client.upload_file(str(tmp_path / "rows.parquet"), store.bucket, "rows/0.parquet")
    job = write("From a bucket, into a bucket", tmp_path, DEMO, max_model_len="256")
    job.write_text(job.read_text().replace("s3://bucket/", f"s3://{store.bucket}/"))
    rows = generated(job)
    copied = {name: content for name, content in store.objects().items() if name.startswith("results/part-")}
    store.stop()
    assert [pq.read_table(pa.BufferReader(content)).to_pylist() for content in copied.values()] == [rows]


def accepted(recipe: str, folder: Path) -> Path:
    pq.write_table(pa.table(jobs.rows(6)), folder / "rows.parquet")
    return write(recipe, folder, DEMO, max_model_len="256")


def test_gpus(tmp_path: Path) -> None:
    checked = jobs.run(accepted("All GPUs of a machine", tmp_path), command="check")
    assert checked.returncode == 0, checked.stderr


def test_slurm(tmp_path: Path) -> None:
    job = accepted("A cluster with Slurm", tmp_path)
    script = jobs.run(job, "--print", command="submit")
    assert script.returncode == 0, script.stderr
    assert "#SBATCH --array=0-63" in script.stdout and "#SBATCH --partition=gpu" in script.stdout


def test_videos(tmp_path: Path, qwen: Path) -> None:
    pq.write_table(pa.table({"video": [video(1), video(2, frames=30)]}), tmp_path / "clips.parquet")
    rows = generated(write("Ask about videos", tmp_path, qwen))
    assert len(rows) == 2 and all(row["text"] and not row["error"] for row in rows)
