"""The columns of results: which a job has, what they hold, and that all shards of a job have the same."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from job_configs import job, make_inputs

from run_batch.jobs.engine.pooling import pooled_result
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import make_plan
from run_batch.jobs.job.rows import Generation, Pooled, PooledForm, RowFailure, RowResult, Timing, TokenLogprob
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.result_table import ShardTables

EXTRA = ["token_ids", "stop_reason", "prompt_logprobs", "timing"]
SAMPLING = {"logprobs": 1, "prompt_logprobs": 0}


def config(folder: Path, n: int, extra: list[str] = EXTRA, **output: Any) -> JobConfig:
    return job(folder, sampling={**SAMPLING, "n": n}, output={"extra": extra, **output})


def tables(config: JobConfig, pooled: PooledForm | None = None) -> ShardTables:
    source = open_source(config)
    plan = make_plan(config, source)
    return ShardTables(config, source, Work(plan, list(range(plan.num_shards))), lambda shard: False, pooled)


def build(made: ShardTables, rows: Sequence[RowResult]) -> pa.Table:
    """The first shard."""
    return pa.concat_tables(table for table, _ in made.build(0, rows))


def generation(row: int, sequences: int) -> Generation:
    position = (TokenLogprob(7, "a", -0.5, 1), TokenLogprob(3, "é", -1.5, 2))
    ends: tuple[str, ...] = ("stop", "length", "stop")[:sequences]
    return Generation(
        row=row,
        texts=("one", "", "three")[:sequences],
        finish_reason=ends[0],
        prompt_tokens=2,
        generated_tokens=5,
        logprobs=tuple((position,) * i for i in range(sequences)),
        other_finish_reasons=ends[1:],
        token_ids=((5, 6), (), (2**31 - 1,))[:sequences],
        stop_reasons=("###", None, "2")[:sequences],
        prompt_logprobs=(None, position),
        timing=Timing(0.5, 0.25, 2.0),
    )


@pytest.mark.parametrize("n", [1, 3])
def test_all_that_was_generated_comes_back_from_a_shard_as_it_was(tmp_path: Path, n: int) -> None:
    made = tables(config(make_inputs(tmp_path), n))
    # A row of its own settings may have fewer sequences, and nothing of what the job asks for.
    plain = Generation(2, ("text",), "stop", 3, 1, token_ids=((1,),), stop_reasons=(None,))
    rows: list[RowResult] = [generation(0, n), RowFailure(1, "kind", "a: b"), plain, generation(3, 1)]
    table = build(made, rows)
    pq.write_table(table, tmp_path / "shard.parquet")
    assert list(made.results(pq.read_table(tmp_path / "shard.parquet"), 0).values()) == rows


@pytest.mark.parametrize("n", [1, 2])
def test_all_shards_have_the_same_columns_even_where_no_row_has_a_value(tmp_path: Path, n: int) -> None:
    made = tables(config(make_inputs(tmp_path), n))
    good = build(made, [generation(row, n) for row in range(4)])
    failed = build(made, [RowFailure(row, "kind", "why") for row in range(4)])
    empty = build(made, [Generation(row, ("",), "stop", 1, 0) for row in range(4)])
    assert good.schema.equals(failed.schema) and good.schema.equals(empty.schema)
    assert not any(pa.types.is_null(field.type) for field in good.schema)


def test_what_several_sequences_have_are_lists_of_what_one_has(tmp_path: Path) -> None:
    folder = make_inputs(tmp_path)
    one, several = (build(tables(config(folder, n)), [generation(0, n)] * 4) for n in (1, 3))
    for name in ("logprobs", "token_ids", "stop_reason"):
        assert several.schema.field(name).type == pa.list_(one.schema.field(name).type)
        assert several[name][0].as_py()[0] == one[name][0].as_py()
    assert several["texts"][0].as_py() == ["one", "", "three"]
    assert several["finish_reasons"][0].as_py() == ["stop", "length", "stop"]
    assert several["stop_reason"][0].as_py() == ["###", None, "2"]
    assert not {"texts", "finish_reasons"} & set(one.column_names)
    assert one["timing"][0].as_py() == {"queue_seconds": 0.5, "prefill_seconds": 0.25, "decode_seconds": 2.0}


def test_columns_that_no_one_asked_for_are_not_there(tmp_path: Path) -> None:
    names = build(tables(job(make_inputs(tmp_path))), [generation(row, 1) for row in range(4)]).column_names
    expected = ["row_id", "text", "finish_reason", "prompt_tokens", "generated_tokens", "error"]
    assert names == expected


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"output": {"extra": ["prompt_logprobs"]}}, "output.extra: the column prompt_logprobs stays empty without"),
        (
            {"output": {"extra": ["prompt_logprobs"]}, "sampling": {"prompt_logprobs": False}},
            "sampling.prompt_logprobs = False: expected a whole number",
        ),
        ({"sampling": {"prompt_logprobs": 2}}, 'needs output.extra = ["prompt_logprobs"]'),
        ({"output": {"extra": ["timing", "timing"]}}, "named twice"),
        ({"output": {"extra": ["tokens"]}}, "output.extra = ['tokens']: expected 'token_ids', 'stop_reason'"),
        ({"output": {"extra": "timing"}}, "expected a list"),
    ],
)
def test_an_extra_column_that_would_be_empty_or_is_none_is_refused(
    tmp_path: Path, tables: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobError) as refused:
        job(tmp_path, **tables)
    assert says in str(refused.value)


@pytest.mark.parametrize("name", [*EXTRA, "finish_reasons", "Token_Ids"])
def test_a_carried_column_has_another_name_than_a_result_column(tmp_path: Path, name: str) -> None:
    make_inputs(tmp_path)
    rows = pq.read_table(tmp_path / "rows.parquet")
    pq.write_table(rows.append_column(name, rows["prompt"]), tmp_path / "rows.parquet")
    asked = config(tmp_path, 1, columns=[name])
    with pytest.raises(JobError, match=f"output.columns: {name} (is the name of|differs from the result column)"):
        check_columns(asked, open_source(asked))
    if name in EXTRA:
        own = job(tmp_path, output={"columns": [name]})
        check_columns(own, open_source(own))  # the results have no such column of their own


@pytest.mark.parametrize("form", [PooledForm("embedding", 3), PooledForm("score", 1), PooledForm("probs", 3)])
def test_numbers_of_pooling_models_come_back_from_a_shard_and_all_shards_have_the_same_columns(
    tmp_path: Path, form: PooledForm
) -> None:
    pooling = job(make_inputs(tmp_path), engine={"runner": "pooling"})
    values = np.array([0.1, -1e-30, 3e38], np.float32)[: form.width].tobytes()
    rows: list[RowResult] = [Pooled(0, values, 5), RowFailure(1, "kind", "a: b"), Pooled(2, values, 1)]
    made = tables(pooling, form)
    table = build(made, [*rows, Pooled(3, values, 2)])
    pq.write_table(table, tmp_path / "shard.parquet")
    assert list(made.results(pq.read_table(tmp_path / "shard.parquet"), 0).values())[:3] == rows
    failed = build(made, [RowFailure(row, "kind", "why") for row in range(4)])
    assert failed.schema.equals(table.schema)
    assert table.column_names == ["row_id", form.column, "prompt_tokens", "generated_tokens", "error"]


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"sampling": {"temperature": 0.0}}, "sampling.temperature does nothing with engine.runner"),
        ({"input": {"sampling_column": "own"}}, "input.sampling_column does nothing"),
        ({"output": {"extra": ["timing"]}}, "output.extra does nothing"),
        ({"errors": {"expected_column": "answer"}}, "errors.expected_column does nothing"),
        ({"prompt": {"chat": True, "prefill": "It"}}, "prompt.prefill does nothing"),
        ({"engine": {"pooler_config": {"max_embed_len": 9}}}, "engine.pooler_config.max_embed_len does nothing here"),
        ({"engine": {"runner": "generate", "convert": "embed"}}, "engine.convert does nothing without engine.runner"),
        ({"engine": {"runner": "draft"}}, "engine.runner = 'draft': expected 'generate' or 'pooling'"),
    ],
)
def test_settings_that_do_nothing_for_a_pooling_model_are_refused(
    tmp_path: Path, tables: dict[str, Any], says: str
) -> None:
    with pytest.raises(JobError) as refused:
        job(tmp_path, **{**tables, "engine": {"runner": "pooling", **tables.get("engine", {})}})
    assert says in str(refused.value)


def test_numbers_that_are_not_finite_fail_their_row() -> None:
    def output(*values: float) -> Any:
        return SimpleNamespace(
            request_id="3", prompt_token_ids=[1], outputs=SimpleNamespace(data=torch.tensor(values).bfloat16())
        )

    assert pooled_result(output(1.0, 2.0)) == Pooled(3, np.array([1, 2], np.float32).tobytes(), 1)
    failed = pooled_result(output(1.0, float("nan")))
    assert isinstance(failed, RowFailure) and failed.kind == "pooling_failed"
