"""LoRA adapters: a row with one generates what the checkpoint does into which it is merged, and what vLLM does."""

from pathlib import Path
from typing import Any

import engines
import pytest
from adapters import save_adapter, save_merged
from checkpoints import save_llava
from pictures import picture

import jobs
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.rows import Generation, MappedRow
from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer

pytestmark = pytest.mark.engine

TOWER = r"vision_tower.*(q_proj|fc1)|multi_modal_projector"


def prompts(count: int = 8) -> list[Prompt]:
    text = "USER: <image>\n{} ASSISTANT:"
    return [Prompt([Piece(text.format(i), trusted=True)], [picture(i, (40 + i, 50))]) for i in range(count)]


def texts(settings: ModelSettings, adapters: list[str | None]) -> list[str]:
    """The texts of one row for each of the adapters."""
    with engines.running_engine(settings, engines.SAMPLING) as engine:
        rendered = Renderer(settings).render(prompts(len(adapters)))
        for row, (engine_input, adapter) in enumerate(zip(rendered, adapters, strict=True)):
            assert engine.add(MappedRow(row, engine_input, {}, adapter=adapter)) is None
        found: list[Any] = []
        while engine.unfinished:
            found += engine.step()
    assert all(isinstance(result, Generation) for result in found)
    return [result.texts[0] for result in sorted(found, key=lambda result: result.row)]


def settings(model: Path, engine: dict[str, Any] | None = None, **adapters: Path) -> ModelSettings:
    return ModelSettings(
        str(model), engine={**engines.ENGINE, **(engine or {})}, adapters={k: str(v) for k, v in adapters.items()}
    )


@pytest.mark.parametrize("kind", ["llava", pytest.param("next", marks=pytest.mark.long)])
def test_rows_generate_what_their_adapters_merged_checkpoint_does(tmp_path: Path, kind: str) -> None:
    pinpoints = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56]]} if kind == "next" else {}
    save_llava(tmp_path / "base", seed=5, **pinpoints)
    base = tmp_path / "base"
    adapters = {"text": save_adapter(tmp_path / "text", base, seed=1)}
    adapters["tower"] = save_adapter(tmp_path / "tower", base, TOWER, seed=2, rank=12)
    order = ["text", None, "tower", "text"] * 2
    found = texts(settings(base, {"enable_tower_connector_lora": True}, **adapters), order)
    expected: dict[str | None, list[str]] = {None: texts(settings(base), [None] * 8)}
    for name, folder in adapters.items():
        expected[name] = texts(settings(save_merged(tmp_path / f"merged-{name}", base, folder)), [None] * 8)
    assert found == [expected[name][row] for row, name in enumerate(order)]
    assert all(len({expected[name][row] for name in expected}) == 3 for row in range(8)), "the adapters hardly matter"


Q = r"language_model.*q_proj"
UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "weights of a larger model": (
        dict(shape=2.0, layers=Q),
        "the adapter has 128 inputs and 128 outputs, the layer 64 and 64",
    ),
    "weights of a smaller model": (
        dict(shape=0.5, layers=Q),
        "the adapter has 32 inputs and 32 outputs, the layer 64 and 64",
    ),
    "layers of the tower": (dict(layers="q_proj"), "engine.enable_tower_connector_lora = true"),
    "a method that vLLM lacks": (dict(use_dora=True), "DoRA"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_an_adapter_that_does_not_fit_is_refused_by_name_when_the_engine_starts(tmp_path: Path, kind: str) -> None:
    making, says = UNFIT[kind]
    save_llava(tmp_path / "base")
    folder = save_adapter(tmp_path / "a", tmp_path / "base", **making)
    with pytest.raises(JobError) as refused, engines.running_engine(settings(tmp_path / "base", a=folder), {}):
        pass
    assert str(refused.value).startswith(f"a {folder} does not fit the model: ") and says in str(refused.value)


def test_rows_of_a_job_name_their_adapters_and_generate_what_vllm_does_with_them(tmp_path: Path) -> None:
    from vllm import LLM, SamplingParams
    from vllm.lora.request import LoRARequest

    base = Path(str(jobs.TABLES["model"]["path"]))
    folders = {name: save_adapter(tmp_path / name, base, seed=seed, rank=8) for seed, name in enumerate(("a", "b"))}
    named = ["a", None, "b", "c", "a", "b"]
    rows = {"prompt": [f"{jobs.QUESTIONS[i % 3]} {i}" for i in range(len(named))], "adapter": named}
    tables: dict[str, Any] = {
        "input": {"image_column": "", "id_column": None},
        "prompt": {"template": "USER: {prompt} ASSISTANT:"},
        "errors": {"max_fraction": 0.5},
    }
    own = {
        **tables,
        "input": {**tables["input"], "lora_column": "adapter"},
        "lora": {"a": "../a", "b": str(folders["b"])},
    }
    found = jobs.succeed(jobs.write_job(tmp_path / "own", rows, **own)).to_pylist()
    model = {"lora": "../a"}
    all_a = jobs.succeed(jobs.write_job(tmp_path / "all", rows, model=model, **tables)).to_pylist()

    llm = LLM(str(base), disable_log_stats=True, enable_lora=True, max_lora_rank=8, max_loras=3, **engines.ENGINE)
    requests = {name: LoRARequest(name, i, str(folder)) for i, (name, folder) in enumerate(folders.items(), 1)}
    prompts, params = [f"USER: {p} ASSISTANT:" for p in rows["prompt"]], SamplingParams(temperature=0.0, max_tokens=8)

    def expected(names: list[str | None]) -> list[str]:
        outputs = llm.generate(prompts, params, use_tqdm=False, lora_request=[requests.get(n or "") for n in names])
        return [output.outputs[0].text for output in outputs]

    mixed, same = expected(named), expected(["a"] * 6)
    llm.llm_engine.engine_core.shutdown()
    assert [row["text"] for row in found] == [*mixed[:3], None, *mixed[4:]]
    assert found[3]["error"] == "adapter: 'c' is none of the names in [lora]"
    assert [row["text"] for row in all_a] == same and same[:3] != mixed[:3], "the adapters hardly matter"
