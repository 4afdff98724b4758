"""Keys of engine.mm_processor_kwargs: those that something reads are taken, all others refused."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from checkpoints import save_blip2
from engines import ENGINE

from run_batch.model.checkpoint.settings import ModelSettings, SettingsError
from run_batch.model.declaration import Declaration
from run_batch.model.rendering.processor_kwargs import check_declared, check_no_processor
from run_batch.model.rendering.renderer import Renderer

MAPPERS = """
def resized(items, longest=100):
    return items[:longest]

def blind(context, items):
    return {"pixels": resized(items)}
"""
READING_MAPPERS = (
    MAPPERS
    + """
def reading(context, items):
    kwargs = context.get_merged_mm_kwargs({})
    return {"pixels": resized(items, kwargs.get("crop_left", 0)), "b": "crop_right" in kwargs}

def passing(context, items):
    return {"pixels": resized(items, **context.model_config.multimodal_config.mm_processor_kwargs)}
"""
)


def declaration(source: str, name: str, monkeypatch: pytest.MonkeyPatch) -> Declaration:
    module = ModuleType("plugin_of_one_test")
    exec(source, module.__dict__)
    monkeypatch.setitem(__import__("sys").modules, "plugin_of_one_test", module)
    found = Declaration(type("YourModel", (), {}))
    found.mappers["image_pixels"] = vars(module)[name]
    return found


@pytest.mark.parametrize(
    ("source", "name", "key", "is_read"),
    [
        (MAPPERS, "blind", "longest", False),
        (READING_MAPPERS, "reading", "crop_left", True),
        (READING_MAPPERS, "reading", "crop_right", True),
        (READING_MAPPERS, "reading", "crop_lft", False),
        (READING_MAPPERS, "passing", "longest", True),
        (READING_MAPPERS, "passing", "shortest", False),
    ],
)
def test_of_a_declared_model_its_functions_tell_what_is_read(
    source: str, name: str, key: str, is_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = declaration(source, name, monkeypatch)
    if is_read:
        check_declared({"mm_processor_kwargs": {key: 1}}, declared)
    else:
        with pytest.raises(SettingsError, match=f"engine.mm_processor_kwargs.{key} does nothing: no function of Your"):
            check_declared({"mm_processor_kwargs": {key: 1}}, declared)


def test_without_kwargs_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for engine in ({}, {"mm_processor_kwargs": {}}, {"mm_processor_kwargs": None}, {"mm_processor_device": "auto"}):
        check_declared(engine, declaration(MAPPERS, "blind", monkeypatch))
        check_no_processor(engine)


def test_a_model_that_takes_text_only_reads_no_kwargs() -> None:
    for engine in ({"mm_processor_kwargs": {"size": 1}}, {"mm_processor_device": "cpu"}):
        with pytest.raises(SettingsError, match="the model takes text only"):
            check_no_processor(engine)


@pytest.fixture(scope="module")
def blip2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("blip2")
    save_blip2(folder)
    return folder


@pytest.mark.parametrize(
    ("kwargs", "says"),
    [
        ({"size": {"height": 32, "width": 32}}, None),
        ({"do_normalize": True, "images_kwargs": {"do_resize": True}}, None),
        ({"max_pixel": 5}, "engine.mm_processor_kwargs.max_pixel does nothing: Blip2Processor does not read it"),
        ({"do_resiz": False}, "did you mean do_resize"),
        ({"images_kwargs": {"siez": 5}}, "engine.mm_processor_kwargs.images_kwargs.siez does nothing"),
        ({"image_mean": [0.1, 0.2, 0.3]}, None),
        ({"size": [[32, 32]]}, "engine.mm_processor_kwargs.size is a list of lists or tables, on which vLLM fails"),
    ],
)
def test_of_a_model_of_vllms_its_processor_tells_what_is_read(
    blip2: Path, kwargs: dict[str, Any], says: str | None
) -> None:
    settings = ModelSettings(str(blip2), engine={**ENGINE, "mm_processor_kwargs": kwargs})
    if says is None:
        Renderer(settings)
    else:
        with pytest.raises(SettingsError, match=says):
            Renderer(settings)
