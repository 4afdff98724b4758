"""Default sampling settings: what vLLM's own resolution gives, and where each comes from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import jobs
from run_batch.model.checkpoint.generation_config import resolve_sampling
from run_batch.model.checkpoint.settings import (
    ModelSettings,
    SettingsError,
    build_model_config,
    build_sampling_params,
)
from run_batch.model.plugin import announce_plugins, register

ALL = {
    "temperature": 0.3,
    "top_p": 0.8,
    "top_k": 7,
    "min_p": 0.05,
    "repetition_penalty": 1.1,
    "max_new_tokens": 9,
    "eos_token_id": [2, 5],
}
SOME = {"do_sample": True, "temperature": 0.5, "top_k": None, "pad_token_id": 0, "eos_token_id": 2}


@pytest.fixture(scope="module", autouse=True)
def _declared_models() -> None:
    announce_plugins([], Path(__file__).parent)
    register()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(jobs.ROOT / "configs" / "demo" / "model", folder)
    return folder


def write(folder: Path, content: Any) -> None:
    (folder / "generation_config.json").write_text(json.dumps(content))


@pytest.mark.parametrize("source", ["auto", "vllm", "path"])
@pytest.mark.parametrize("overrides", [{}, {"top_p": 0.6, "max_new_tokens": 3, "presence_penalty": 0.2}], ids=len)
@pytest.mark.parametrize("content", [ALL, SOME, None], ids=["all", "some", "none"])
def test_the_defaults_are_those_of_vllm(
    model: Path, tmp_path: Path, content: Any, overrides: dict[str, Any], source: str
) -> None:
    from vllm import SamplingParams

    other = tmp_path / "other"
    other.mkdir()
    write(other, {"temperature": 0.9, "eos_token_id": [2, 8]})
    if content is None:
        (model / "generation_config.json").unlink()
        config = json.loads((model / "config.json").read_text())
        config["text_config"] |= {"temperature": 0.7, "eos_token_id": 2}
        (model / "config.json").write_text(json.dumps({**config, "top_k": 4}))
    else:
        write(model, content)
    chosen = {"path": str(other)}.get(source, source)
    settings = ModelSettings(
        str(model),
        engine={"dtype": "float32", "generation_config": chosen, "override_generation_config": overrides},
    )
    vllm_config = build_model_config(settings)
    expected = vllm_config.get_diff_sampling_param()
    found = resolve_sampling(settings, {})
    assert build_sampling_params({**found.values, "max_tokens": expected.get("max_tokens")}) == (
        SamplingParams.from_optional(**{"max_tokens": None, **expected})
    )
    assert found.values["max_tokens"] == expected.get("max_tokens")
    eos = vllm_config.try_get_generation_config().get("eos_token_id") or []
    assert list(found.eos_token_ids) == ([eos] if isinstance(eos, int) else eos)
    assert set(found.sources) == set(found.values)


def test_the_job_wins_over_overrides_and_these_over_the_generation_config(model: Path) -> None:
    write(model, ALL)
    settings = ModelSettings(str(model), engine={"override_generation_config": {"top_p": 0.6, "top_k": 3}})
    found = resolve_sampling(settings, {"top_k": 2, "seed": 1})
    assert {name: (found.values[name], found.sources[name]) for name in ("min_p", "top_p", "top_k", "seed")} == {
        "min_p": (0.05, "the model's generation_config.json"),
        "top_p": (0.6, "engine.override_generation_config"),
        "top_k": (2, "job.toml"),
        "seed": (1, "job.toml"),
    }


@pytest.mark.parametrize(
    ("engine", "content", "says"),
    [
        (
            {"override_generation_config": {"temprature": 0.5}},
            SOME,
            "temprature does nothing.*did you mean temperature",
        ),
        ({"override_generation_config": {"eos_token_id": 5}}, SOME, "set sampling.stop_token_ids instead"),
        (
            {"generation_config": "/nowhere/at/all"},
            SOME,
            "engine.generation_config /nowhere/at/all: no folder with a generation",
        ),
        ({}, [1], "generation_config.json is not a JSON object"),
    ],
)
def test_a_generation_config_that_cannot_be_used_is_refused(
    model: Path, engine: dict[str, Any], content: Any, says: str
) -> None:
    write(model, content)
    with pytest.raises(SettingsError, match=says):
        resolve_sampling(ModelSettings(str(model), engine=engine), {})


def test_a_damaged_generation_config_is_refused(model: Path) -> None:
    (model / "generation_config.json").write_text("{")
    with pytest.raises(SettingsError, match=r"generation_config\.json cannot be read"):
        resolve_sampling(ModelSettings(str(model)), {})


def test_a_model_that_is_not_here_has_no_defaults(tmp_path: Path) -> None:
    assert resolve_sampling(ModelSettings(str(tmp_path / "none")), {"top_k": 1}).values == {
        "max_tokens": None,
        "top_k": 1,
    }
