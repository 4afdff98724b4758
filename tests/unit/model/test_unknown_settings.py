"""Mistyped names and values of vLLM's fields are found without vLLM."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import jobs
from run_batch.model.checkpoint import vllm_field_names
from run_batch.model.checkpoint.unknown_settings import find_unknown

ROOT = Path(__file__).parents[3]
VERSION = vllm_field_names.VERSION


def test_the_list_has_the_fields_of_the_installed_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    script = importlib.import_module("write_field_names")
    assert script.FILE.read_text() == script.source(), "run scripts/write_field_names.py"


def test_a_name_is_unknown_with_a_hint_at_the_nearest_one() -> None:
    assert find_unknown(VERSION, {"max_model_len": 1, "data_parallel_size": 2}, {"temperature": 1.0}) is None
    assert find_unknown(VERSION, {"max_modle_len": 1}, {}) == (
        "unknown key engine.max_modle_len; did you mean max_model_len?"
    )
    assert find_unknown(VERSION, {}, {"temprature": 1.0}) == (
        "unknown key sampling.temprature; did you mean temperature?"
    )
    assert str(find_unknown(VERSION, {}, {"_all_stop_token_ids": []})).startswith("unknown key sampling._all_stop")


@pytest.mark.parametrize(
    ("table", "values", "said"),
    [
        ("engine", {"dtype": "flaot32"}, "engine.dtype = 'flaot32': expected auto, half, float16, bfloat16, float, "),
        ("engine", {"dtype": "flaot32"}, "; did you mean float32?"),
        ("engine", {"max_model_len": "256"}, "engine.max_model_len = '256': expected a whole number"),
        ("engine", {"max_num_seqs": 2.5}, "engine.max_num_seqs = 2.5: expected a whole number"),
        ("engine", {"enforce_eager": 1}, "engine.enforce_eager = 1: expected true or false"),
        ("engine", {"gpu_memory_utilization": True}, "engine.gpu_memory_utilization = True: expected a number"),
        (
            "engine",
            {"compilation_config": {"cudagraph_mod": 1}},
            "unknown key engine.compilation_config.cudagraph_mod; ",
        ),
        ("sampling", {"max_tokens": "8"}, "sampling.max_tokens = '8': expected a whole number"),
        ("sampling", {"structured_outputs": {"jsn": {}}}, "structured_outputs.jsn; did you mean json?"),
        ("sampling", {"repetition_detection": {"zz": 1}}, "; known: max_pattern_size, min_count, min_pattern_size"),
    ],
)
def test_a_value_of_another_type_is_found_and_so_are_names_in_nested_tables(
    table: str, values: dict[str, object], said: str
) -> None:
    assert said in str(find_unknown(VERSION, *(values if table == name else {} for name in ("engine", "sampling"))))


def test_what_vllm_takes_is_no_mistake() -> None:
    engine = {
        "max_num_seqs": 4.0,
        "gpu_memory_utilization": 1,
        "dtype": "half",
        "seed": None,
        "tokenizer_mode": "of a plugin",
    }
    engine |= {"compilation_config": {"cudagraph_mode": "NONE"}, "mm_processor_kwargs": {"of_a_processor": 1}}
    assert find_unknown(VERSION, engine, {"stop": ["a"], "structured_outputs": {"choice": ["a"]}, "top_k": 0}) is None


def test_another_version_of_vllm_is_asked_itself() -> None:
    assert find_unknown("0.33.1", {"new_in_it": 1}, {}) is None


@pytest.mark.parametrize(
    "tables", [{"engine": {"max_modle_len": 5}}, {"engine": {"dtype": "flaot32"}}, {"sampling": {"temperatur": 1.0}}]
)
def test_a_command_refuses_a_mistake_before_it_imports_vllm(tmp_path: Path, tables: dict[str, object]) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(2), **tables)  # type: ignore[arg-type]
    code = (
        "import os, sys; sys.modules['vllm'] = None; "
        f"sys.argv = ['run-batch', '--config', {str(job)!r}]; from run_batch.jobs.start import main; main()"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    (table,) = tables
    assert found.returncode == 2 and f" {table}." in found.stderr, found.stderr
    assert not (tmp_path / "out").exists()
