"""The sampling settings of a job and where each comes from: job.toml, the checkpoint's generation config, or vLLM.

As `vllm serve` has it: what job.toml does not name comes from the checkpoint's `generation_config.json`, and
`max_tokens` is what the context leaves to a row. Needs no vLLM: the settings are part of a job's identity, which is
made before that is imported.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_batch.model.checkpoint.hub import snapshot_folder
from run_batch.model.checkpoint.nearest_name import nearest_or_all
from run_batch.model.checkpoint.settings import ModelSettings, SettingsError

_FILE = "generation_config.json"
# What vLLM takes from a generation config, and the fields of SamplingParams that these set.
_TAKEN = {
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "max_new_tokens": "max_tokens",
}
# Where the config.json of a multi-modal model keeps the config of its language model.
_DECODERS = ("decoder", "generator", "text_config")


@dataclass(frozen=True, slots=True)
class ResolvedSampling:
    """The sampling settings of a job.

    Attributes:
        values: fields of vLLM's SamplingParams; `max_tokens` is None where the context decides.
        sources: where each of them comes from, for people.
        eos_token_ids: tokens of the generation config that end a text, besides the tokenizer's own.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)
    eos_token_ids: tuple[int, ...] = ()


def resolve_sampling(settings: ModelSettings, sampling: Mapping[str, Any]) -> ResolvedSampling:
    """Bring the job's settings together with the defaults.

    Args:
        settings: of the model; `engine.generation_config` is `auto`, `vllm` or a path, as in vLLM.
        sampling: the job's table.

    Raises:
        SettingsError: a generation config cannot be read, or an override is none that vLLM takes.
    """
    chosen = settings.engine.get("generation_config") or "auto"
    overrides = settings.engine.get("override_generation_config") or {}
    if not isinstance(chosen, str) or not isinstance(overrides, Mapping):
        return ResolvedSampling(dict(sampling))  # vLLM says what it takes there
    _check_overrides(overrides)
    # vLLM stops at the checkpoint's own eos tokens even where the generation config is not to be used.
    config, name = _read(settings, "auto" if chosen == "vllm" else chosen)
    values: dict[str, Any] = {"max_tokens": None}
    sources = {"max_tokens": "nothing limits it"}
    layers = [({} if chosen == "vllm" else config, name), (overrides, "engine.override_generation_config")]
    for given, source in layers:
        for key, target in _TAKEN.items():
            if given.get(key) is not None:
                values[target], sources[target] = given[key], source
    values.update(sampling)
    sources.update(dict.fromkeys(sampling, "job.toml"))
    return ResolvedSampling(values, sources, _eos_token_ids(config))


def _check_overrides(overrides: Mapping[str, Any]) -> None:
    for key in overrides:
        if key == "eos_token_id":
            raise SettingsError(
                "engine.override_generation_config.eos_token_id does nothing; set sampling.stop_token_ids instead"
            )
        if key not in _TAKEN:
            hint = nearest_or_all(key, _TAKEN)
            raise SettingsError(f"engine.override_generation_config.{key} does nothing, vLLM does not read it{hint}")


def _read(settings: ModelSettings, chosen: str) -> tuple[Mapping[str, Any], str]:
    """The generation config, and its name for people.

    Raises:
        SettingsError: it cannot be read, or the one that is named is not there.
    """
    revision = settings.engine.get("revision")
    if chosen != "auto":
        folder = snapshot_folder(chosen, None, (_FILE,))
        found = _load(folder / _FILE, "engine.generation_config") if folder is not None else None
        if found is None:
            raise SettingsError(
                f"engine.generation_config {chosen}: no folder with a {_FILE}; auto and vllm are accepted, too"
            )
        return found, f"{chosen}/{_FILE}"
    model = settings.engine.get("hf_config_path") or settings.path
    folder = snapshot_folder(str(model), revision, (_FILE, "config.json"))
    if folder is None:
        return {}, ""
    found = _load(folder / _FILE, "model.path")
    if found is not None:
        return found, f"the model's {_FILE}"
    return _of_model_config(_load(folder / "config.json", "model.path") or {}), "the model's config.json"


def _load(path: Path, key: str) -> Mapping[str, Any] | None:
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(f"{key} {path.parent}: {path.name} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise SettingsError(f"{key} {path.parent}: {path.name} is not a JSON object")
    return content


def _of_model_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What transformers takes from `config.json` where there is no generation config: what ends a text."""
    inner: Mapping[str, Any] = next((config[name] for name in _DECODERS if isinstance(config.get(name), dict)), {})
    found = config.get("eos_token_id")
    return {"eos_token_id": inner.get("eos_token_id") if found is None else found}


def _eos_token_ids(config: Mapping[str, Any]) -> tuple[int, ...]:
    found = config.get("eos_token_id")
    if isinstance(found, int):
        return (found,)
    return tuple(sorted(found)) if isinstance(found, list) and all(isinstance(i, int) for i in found) else ()
