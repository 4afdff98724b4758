"""The row mapper: each row's own seed, and how many encoded images it holds at once."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pictures import encoded, picture

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.rows import MappedRow, RowFailure
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.jobs.mapping.worker_memory import WorkerMemory
from run_batch.model.plugin import announce_plugins, register

ROWS = 200
TEXT_ONLY: dict[str, Any] = {"image_column": ""}


def batch(ids: Sequence[str], start: int = 0, own: Iterable[str | None] = ()) -> RowBatch:
    """Rows with the same prompt, whose ids are a column and, as for an input without one, beside them."""
    records = {"uid": list(ids), "prompt": ["is it even?"] * len(ids), "own": list(own) or [None] * len(ids)}
    schema = pa.schema([(name, pa.string()) for name in records])
    return RowBatch(start, pa.record_batch(records, schema), list(ids))


def mapper(folder: Path, sampling: dict[str, Any], **keys: Any) -> RowMapper:
    announce_plugins([], folder)
    register()
    path = jobs.write_job(
        folder,
        None,
        input={**TEXT_ONLY, **keys},
        prompt={"template": "{prompt}"},
        sampling=sampling,
    )
    return RowMapper(load_config(path), batch([]).records.schema, None)


def samplings(mapper: RowMapper, *batches: RowBatch) -> dict[str, dict[str, Any]]:
    """Each row's own sampling settings, by its id."""
    found = {}
    for rows in batches:
        for row_id, row in zip(rows.row_ids or (), mapper.map(rows), strict=True):
            assert isinstance(row, MappedRow), row
            found[row_id] = dict(row.sampling)
    return found


def seeds(mapper: RowMapper, *batches: RowBatch) -> dict[str, int]:
    return {row_id: sampling["seed"] for row_id, sampling in samplings(mapper, *batches).items()}


IDS = [f"u{i}" for i in range(ROWS)]


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> RowMapper:
    return mapper(tmp_path_factory.mktemp("seeded"), {"seed": 7})


def test_rows_of_one_seed_have_seeds_of_their_own(seeded: RowMapper) -> None:
    found = seeds(seeded, batch(IDS))
    assert len(set(found.values())) == ROWS
    assert all(0 <= seed < 2**63 for seed in found.values()), "not what vLLM takes"


def test_a_rows_seed_depends_on_its_id_and_not_on_its_place_or_its_neighbours(
    seeded: RowMapper, tmp_path: Path
) -> None:
    found = seeds(seeded, batch(IDS))
    backwards = [batch(IDS[start : start + 7][::-1], start=1000 - start) for start in range(0, ROWS, 7)]
    assert seeds(seeded, *backwards) == found
    without_column = mapper(tmp_path, {"seed": 7}, id_column=None)
    assert seeds(without_column, batch(IDS)) == found


def test_a_rows_seed_depends_on_the_jobs(seeded: RowMapper, tmp_path: Path) -> None:
    found, other = seeds(seeded, batch(IDS)), seeds(mapper(tmp_path, {"seed": 8}), batch(IDS))
    assert all(found[row_id] != other[row_id] for row_id in IDS)


def test_seeds_are_the_same_in_every_version(seeded: RowMapper) -> None:
    # BLAKE2b of `7:u0`. A job that is resumed after an upgrade must not sample its other rows in another way.
    assert seeds(seeded, batch(["u0", "u1"])) == {"u0": 3710699690474490413, "u1": 7813815128697984072}


def test_a_job_without_a_seed_gives_its_rows_none(tmp_path: Path) -> None:
    assert samplings(mapper(tmp_path, {"temperature": 1.0}), batch(["u0"])) == {"u0": {}}


def test_a_row_that_brings_a_seed_keeps_it(tmp_path: Path) -> None:
    own = [json.dumps({"seed": 5}), json.dumps({"temperature": 0.5}), None]
    found = samplings(mapper(tmp_path, {"seed": 7}, sampling_column="own"), batch(["u0", "u1", "u2"], own=own))
    plain = seeds(mapper(tmp_path, {"seed": 7}), batch(["u1", "u2"]))
    assert found == {"u0": {"seed": 5}, "u1": {"seed": plain["u1"], "temperature": 0.5}, "u2": {"seed": plain["u2"]}}


def test_log_probabilities_of_a_row_need_the_column_of_the_job(tmp_path: Path) -> None:
    rows = batch(["u0", "u1", "u2"], own=['{"logprobs": 2}', '{"logprobs": 2, "logprob_token_ids": [5, 6]}', None])
    for sampling, kinds in [({}, ["sampling", "sampling", None]), ({"logprobs": 1}, [None] * 3)]:
        mapped = list(mapper(tmp_path, sampling, sampling_column="own").map(rows))
        assert [getattr(row, "kind", None) for row in mapped] == kinds


def test_a_date_that_python_cannot_hold_is_an_error_of_its_row(tmp_path: Path) -> None:
    announce_plugins([], tmp_path)
    register()
    days = pa.array([0, 10**7, 1], pa.date32())
    records = pa.record_batch({"uid": ["a", "b", "c"], "day": days})
    prompt = {"template": "What was on {day:%d %B %Y}?"}
    path = jobs.write_job(tmp_path, None, input={"image_column": ""}, prompt=prompt)
    results = list(RowMapper(load_config(path), records.schema, None).map(RowBatch(0, records)))
    assert [type(result) for result in results] == [MappedRow, RowFailure, MappedRow]
    assert results[1].error.startswith("column_value: ")  # type: ignore[union-attr]


def test_the_images_of_a_batch_are_mapped_in_parts_when_they_are_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encoded(picture(1))
    announce_plugins([], tmp_path)
    register()
    records = pa.record_batch({"uid": [f"u{i}" for i in range(9)], "image": [content] * 9, "prompt": ["?"] * 9})
    memory = WorkerMemory(share=8 * 2 * len(content))
    mapper = RowMapper(load_config(jobs.write_job(tmp_path, None)), records.schema, None, memory=memory)
    original, held = mapper._model.render, []

    def counting(prompts: Any, **keys: Any) -> Any:
        held.append(sum(len(image.encoded) for prompt in prompts for image in prompt.images))
        return original(prompts, **keys)

    monkeypatch.setattr(mapper._model, "render", counting)
    rows = list(mapper.map(RowBatch(5, records)))
    assert sum(held) == 9 * len(content) and max(held) == 2 * len(content)
    assert [row.row for row in rows if isinstance(row, MappedRow)] == list(range(5, 14))
