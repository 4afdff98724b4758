"""What the tests with real vLLM share: the declared models, and one engine at a time."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import engines
import pytest
from chat_jobs import TEMPLATES, save_chat_llava

from run_batch.jobs.job.rows import Generation
from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.plugin import announce_plugins, register
from run_batch.model.rendering.renderer import Prompt, Renderer

Generator = Callable[..., list[Generation]]


@pytest.fixture(scope="session", autouse=True)
def _declared_models() -> None:
    announce_plugins([], Path(__file__).parent)
    register()


@pytest.fixture
def generate_with() -> Generator:
    """Load a checkpoint, generate for some rows, and unload it."""

    def run(folder: Path, rows: list[Prompt], **engine: Any) -> list[Generation]:
        settings = ModelSettings(str(folder), engine={**engines.ENGINE, **engine})
        with engines.running_engine(settings, engines.SAMPLING) as started:
            return engines.generate(started, Renderer(settings), rows)

    return run


@pytest.fixture(scope="session")
def chat_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A LLaVA with a chat template of the kind asked for."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in TEMPLATES}
    for kind, folder in folders.items():
        save_chat_llava(folder, kind)
    return folders.__getitem__
