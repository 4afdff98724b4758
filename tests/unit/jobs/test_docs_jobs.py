"""The job.toml files and figures in the docs: each is one that run-batch takes, and what its own code computes."""

import json
import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.mapping.row_memory import MemoryShares
from run_batch.jobs.slurm.sbatch_options import read_slurm_table
from run_batch.model.families.llava_next import image_feature_size
from run_batch.model.images.decode import Size
from run_batch.model.mappers.patches import smart_resize
from run_batch.model.mappers.tiles import Tiling, tiles_of

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
LEAST: dict[str, Any] = {"input": {"path": "rows.parquet"}, "model": {"path": "model"}, "output": {"path": "results"}}


def blocks(page: Path) -> list[dict[str, Any]]:
    return [tomllib.loads(block) for block in re.findall(r"^```toml\n(.*?)^```", page.read_text(), re.M | re.S)]


JOBS = [(str(page.relative_to(ROOT)), number, found) for page in PAGES for number, found in enumerate(blocks(page))]
MOVED = [found for page, _, found in JOBS if page == "docs/migration.md"]


def whole(tables: dict[str, Any], folder: Path) -> JobConfig:
    """A job of the tables that a page shows, with what it does not show."""
    merged = {table: {**LEAST.get(table, {}), **tables.get(table, {})} for table in {*LEAST, *tables}}
    if {"system", "prefill", "examples", "tools", "chat_template"} & merged.get("prompt", {}).keys():
        merged["prompt"].setdefault("chat", True)
    schema = merged.get("sampling", {}).get("structured_outputs", {}).get("json")
    if schema is not None:
        (folder / schema).write_text("{}")
    return parse_config(merged, folder)


@pytest.mark.parametrize(("page", "number", "tables"), JOBS, ids=[f"{page}-{number}" for page, number, _ in JOBS])
def test_the_keys_and_values_of_each_job_in_the_docs_are_taken(
    page: str, number: int, tables: dict[str, Any], tmp_path: Path
) -> None:
    read_slurm_table(whole(tables, tmp_path))


def write_input(folder: Path) -> None:
    """Rows that have the columns of the scripts in docs/migration.md, in each of the forms that they read."""
    column = [{"bytes": b"a", "path": None}]
    rows = {"id": ["a"], "image": column, "question": ["q"], "text": ["t"], "url": ["https://images.example.org/a"]}
    (folder / "rows").mkdir()
    for file in (folder / "rows.parquet", folder / "rows" / "0.parquet"):
        pq.write_table(pa.table(rows), file)
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    request = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": body}
    (folder / "requests.jsonl").write_text(json.dumps(request) + "\n")
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")


@pytest.mark.parametrize("tables", MOVED, ids=lambda tables: str(tables["input"]))
def test_a_job_for_what_a_script_does_fits_the_rows_that_the_script_reads(
    tables: dict[str, Any], tmp_path: Path
) -> None:
    write_input(tmp_path)
    job = prepare(parse_config({**tables, "model": {"path": "model"}}, tmp_path), writes=False)
    assert job.plan.num_rows == 1


def test_there_is_a_job_for_each_thing_that_users_come_from() -> None:
    assert len(MOVED) == len(re.findall(r"^## From ", (DOCS / "migration.md").read_text(), re.MULTILINE)) == 5


LLAVA_NEXT = SimpleNamespace(
    vision_config=SimpleNamespace(image_size=336, patch_size=14),
    image_grid_pinpoints=[[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
)


def patch_tokens(size: Size, unit: int, least: int, most: int) -> int:
    height, width = smart_resize(size, unit, least, most)
    return height * width // unit**2


def tile_tokens(size: Size) -> int:
    rows, columns = tiles_of(size, Tiling((448, 448), 1, 12, "bicubic"))
    tiles = rows * columns + (rows * columns > 1)
    return 256 * tiles + 2


# Limits of pixels as the checkpoints ship them.
TOKENS = {
    "LLaVA-1.5": lambda size: (336 // 14) ** 2,
    "LLaVA-NeXT": lambda size: image_feature_size(LLAVA_NEXT, size),
    "Qwen2-VL, Qwen2.5-VL": lambda size: patch_tokens(size, 28, 56 * 56, 28 * 28 * 16384),
    "the same, `longest_edge = 1003520`": lambda size: patch_tokens(size, 28, 256 * 28 * 28, 1003520),
    "Qwen3-VL": lambda size: patch_tokens(size, 32, 256 * 256, 4096 * 4096),
    "InternVL in transformers' format": tile_tokens,
}


def table_below(page: Path, heading: str) -> list[list[str]]:
    text = page.read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("model", TOKENS)
def test_the_tokens_of_an_image_are_those_that_the_code_computes(model: str) -> None:
    header, _, *rows = table_below(DOCS / "sizing.md", "Tokens of an image")
    sizes = [tuple(map(int, reversed(cell.split("x")))) for cell in header[1:6]]
    row = next(row for row in rows if row[0] == model)
    assert row[1:6] == [f"{TOKENS[model](size):,}" for size in sizes]  # type: ignore[arg-type]


def test_the_rates_of_mapping_are_those_of_the_benchmarks() -> None:
    measured = (DOCS / "throughput.md").read_text()
    _, _, *rows = table_below(DOCS / "sizing.md", "CPU cores for a GPU")
    own = re.findall(r"^\| run-batch's worker[^|]*\|(.*)\|$", measured, re.MULTILINE)
    known = {number.strip() for line in own for number in line.split("|")}
    assert len(own) == 2 and {row[1] for row in rows} <= known


@pytest.mark.parametrize(("row_bytes", "workers", "said"), [(7_827_456, 8, "5.5 GB"), (391 * 2352, 8, "0.6 GB")])
def test_the_memory_that_rows_take_is_that_of_the_budget(row_bytes: int, workers: int, said: str) -> None:
    needed = MemoryShares.budget_for((256 + workers) * 2 * row_bytes, workers) / 1e9
    shown = f"{needed:.0f} GB" if needed >= 10 else f"{needed:.1f} GB"
    assert shown == said and said in (DOCS / "sizing.md").read_text()
