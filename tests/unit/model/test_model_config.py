"""A checkpoint that cannot do the job is refused from its config, before its weights are read."""

import json
from pathlib import Path

import pytest

from run_batch.model.checkpoint.settings import ModelSettings, SettingsError, build_model_config

BERT = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 32,
    "vocab_size": 100,
}


def test_a_model_that_generates_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BERT))
    with pytest.raises(SettingsError, match="BertModel generates no text"):
        build_model_config(ModelSettings(str(tmp_path), engine={"dtype": "float32"}))
