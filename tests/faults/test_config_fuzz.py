"""Mutated job.toml files: each is a job, or is refused with a message that says where to look; never anything else."""

import json
import os
import random
import re
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.config_tables import TABLES, UNDECLARED_TABLES
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import prepare
from run_batch.model.checkpoint.settings import SettingsError, build_model_config, build_sampling_params
from run_batch.model.plugin import announce_plugins, register

SEED = 20251124
BASE: Mapping[str, Mapping[str, Any]] = {
    **jobs.TABLES,
    "input": {
        "path": "rows.parquet",
        "id_column": "uid",
        "image_column": "image",
        "prompt_column": "prompt",
        "limit": 5,
        "media_root": ".",
        "allowed_hosts": ["images.example.org"],
        "allow_private_hosts": False,
    },
    "model": {**jobs.TABLES["model"], "plugins": [], "trust_remote_code": False},
    "preprocess": {"workers": 1},
    "output": {"path": "out", "rows_per_shard": 50, "columns": ["prompt"]},
    "errors": {"max_fraction": 0.5},
}
TEXTS = [
    *(
        "",
        " ",
        "\0",
        "\x1b[31m",
        "a" * 5000,
        "..",
        ".",
        "~",
        "~nobody-of-this-name/x",
        "$HOME",
        "rows.parquet",
        "folder",
    ),
    *(
        "a/b",
        "org/name/more",
        "*.parquet",
        "**",
        "[",
        "[!",
        "?",
        "{",
        "{}",
        "{0}",
        "{prompt",
        "{prompt!r}",
        "{prompt:9}",
    ),
    *(
        "{image}",
        "{uid}{prompt}",
        "{no_such}",
        "prompt",
        "image",
        "uid",
        "numbers",
        "no_such",
        "row_id",
        "text",
        "error",
    ),
    *("s3://bucket/key", "memory://nothing", "file:///nothing", "nosuch://x", "://", "http://[", "fifo", "/dev/null"),
    *("é", "\U0001f600", "\ufeff", "\u202e", "1e999", "true", "null", "auto", "float32", "parquet", "hf", "train"),
    *("not.parquet", "empty.parquet", "job.toml", "loop", "config.json", "locked-in/x"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 10**6, 2**31, 2**63 - 1, 2**63, 10**400, -(10**30)),
    *(0.0, -0.0, 0.5, 1.5, float("inf"), float("-inf"), float("nan"), 1e308),
    *([], [[]], ["a"], ["a", 1], [""], ["prompt", "prompt"], [None], {}, {"a": 1}, {"a": {"b": []}}, [{"a": 1}]),
]
# Bare texts that only TOML knows.
RAW = [
    "1979-05-27",
    "07:32:00",
    "1979-05-27T07:32:00Z",
    "0xff",
    "1_0",
    "'''\n'''",
    '"\\ud800"',
    "+inf",
    "01",
    "[1, ",
    "=",
    "",
]
# A message that says where to look names one of these.
NAMED = re.compile(
    rf"(?:^|[^a-z])(?:{'|'.join([*TABLES, *UNDECLARED_TABLES])})(?:\.\w|: |\]| must be a table)|"
    r"unknown table \[|job\.toml|unknown key "
)


_VLLM_KEYS = {"engine": list(EngineArgs.__dataclass_fields__), "sampling": list(SamplingParams.__struct_fields__)}


class Raw(str):
    """TOML as it is."""


def to_toml(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(k))} = {to_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False) if value is not None else '""'


def written(tables: Mapping[str, Any]) -> str:
    lines = []
    for name, table in tables.items():
        if isinstance(table, dict):
            lines.append(f"[{name}]" if re.fullmatch(r"\w+", name) else f"[{json.dumps(name)}]")
            lines += [f"{json.dumps(key)} = {to_toml(value)}" for key, value in table.items()]
        else:
            lines.insert(0, f"{json.dumps(name)} = {to_toml(table)}")
    return "\n".join(lines) + "\n"


def any_value(rng: random.Random) -> Any:
    kind = rng.random()
    if kind < 0.45:
        return rng.choice(TEXTS)
    if kind < 0.9:
        return rng.choice(VALUES)
    return Raw(rng.choice(RAW))


def mutate_tables(tables: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(list(tables)) if tables else "input"
    table = tables.get(name)
    if not isinstance(table, dict) or rng.random() < 0.06:
        tables[rng.choice([name, name + "s", rng.choice(TEXTS), "slurm"])] = rng.choice([{}, any_value(rng)])
        return
    key = rng.choice(list(table)) if table else "path"
    action = rng.random()
    if action < 0.15:
        table.pop(key, None)
    elif action < 0.25:
        tables.pop(name)
    elif action < 0.4:
        known = _VLLM_KEYS.get(name) or [field for other in TABLES.values() for field in other.model_fields]
        table[rng.choice([*known, key[:-1], key + "x", rng.choice(TEXTS)])] = any_value(rng)
    else:
        table[key] = any_value(rng)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.choice([0, 1, 1, 3, 20]))
        content = (
            content[:at]
            + rng.choice([b"", b"\n", b'"', b"[", b"]", b"=", b"\xff", b"\0", b"#", b"{", b".", b"9"])
            + content[end:]
        )
    return content


def mutated(seed: int) -> bytes:
    rng = random.Random(f"{SEED} {seed}")
    tables: dict[str, Any] = deepcopy({name: dict(table) for name, table in BASE.items()})
    if rng.random() < 0.8:
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            mutate_tables(tables, rng)
        return written(tables).encode()
    return mutate_bytes(written(tables).encode(), rng)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job's folder with what the texts above name. Nothing is asked of any network."""
    import datasets
    import huggingface_hub
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    announce_plugins([], tmp_path)
    register()
    jobs.write_job(tmp_path, {**jobs.rows(8), "numbers": [[1, 2]] * 8})
    (tmp_path / "folder").mkdir()
    (tmp_path / "not.parquet").write_text("no parquet")
    pq.write_table(pa.table({"uid": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo")
    return tmp_path


def outcome(path: Path) -> str:
    """`job`, or why it is refused."""
    try:
        config = load_config(path)
        prepare(config)
    except JobError as error:
        return str(error)
    try:
        build_sampling_params(config.sampling)
        build_model_config(config.model_settings)
    except SettingsError as error:
        return str(error)
    return "job"


def test_a_mutated_job_is_a_job_or_is_refused_with_a_message_that_names_a_key(folder: Path, long_form: bool) -> None:
    path = folder / "job.toml"
    wrong: dict[str, list[int]] = {}
    valid = 0
    count = 10_000 if long_form else 300
    for seed in range(count):
        path.write_bytes(mutated(seed))
        try:
            found = outcome(path)
        except Exception as error:
            wrong.setdefault(f"{type(error).__name__}: {error}"[:150], []).append(seed)
            continue
        valid += found == "job"
        if found != "job" and not (NAMED.search(found) and "\n" not in found):
            wrong.setdefault(f"names nothing: {found}"[:150], []).append(seed)
    assert not wrong, "\n".join(f"{len(seeds)} times, as seed {seeds[0]}: {what}" for what, seeds in wrong.items())
    assert valid > count / 50, "hardly any mutation is a job: they are too wild to test much"
    print(f"{count} mutated files: {valid} are jobs, {count - valid} are refused")
