"""Models beyond token parity: features instead of pixels, and what memory is profiled with."""

import io
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from checkpoints import save_llava
from engines import plain_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures import encoded, picture, random_picture
from safetensors.torch import save
from vllm.multimodal import MULTIMODAL_REGISTRY as VLLM_REGISTRY
from vllm.multimodal.processing import ProcessorInputs, TimingContext
from vllm.tokenizers import cached_tokenizer_from_config

import jobs
from run_batch.model import RowError
from run_batch.model.checkpoint.settings import ModelSettings, build_engine_args, build_model_config
from run_batch.model.families import llava_next
from run_batch.model.families.llava import LlavaForConditionalGeneration
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer

pytestmark = pytest.mark.engine

PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
ENGINE = {"dtype": "float32", "max_model_len": 512, "enforce_eager": True}


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("llava")
    return folder, save_llava(folder)


@pytest.fixture(scope="module")
def next_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("next")
    save_llava(folder, image_grid_pinpoints=PINPOINTS)
    return folder


@given(seed=st.integers(0, 1 << 20), counts=st.lists(st.integers(0, 3), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("model", ["llava", "next"])
def test_bulk_gives_what_vllms_own_path_gives(
    model: str, llava: tuple[Path, Any], next_folder: Path, seed: int, counts: list[int]
) -> None:
    folder = llava[0] if model == "llava" else next_folder
    model_settings = ModelSettings(str(folder), engine=ENGINE)
    renderer = _renderer(model_settings)
    rng = random.Random(seed)
    rows = [
        Prompt(
            [Piece("<image>" * count + str(rng.randrange(10**9)), trusted=True)],
            [random_picture(rng) for _ in range(count)],
        )
        for count in counts
    ]
    config = build_model_config(model_settings)
    tokenizer = cached_tokenizer_from_config(config)
    processor = VLLM_REGISTRY.create_processor(config, tokenizer=tokenizer)
    for row, bulk in zip(rows, renderer.render(rows), strict=True):
        assert not isinstance(bulk, RowError)
        data = processor.info.parse_mm_data({"image": list(row.images)} if row.images else {})
        inputs = ProcessorInputs(tokenizer(row.pieces[0].text)["input_ids"], data)
        assert plain_values(bulk) == plain_values(processor.apply(inputs, TimingContext(enabled=False)))


_RENDERERS: dict[str, Renderer] = {}


def _renderer(model_settings: ModelSettings) -> Renderer:
    if model_settings.path not in _RENDERERS:
        _RENDERERS[model_settings.path] = Renderer(model_settings)
    return _RENDERERS[model_settings.path]


def test_placeholders_images_and_their_numbers_have_to_fit(llava: tuple[Path, Any]) -> None:
    renderer = _renderer(ModelSettings(str(llava[0]), engine=ENGINE))
    more, fewer, none = renderer.render(
        [
            Prompt([Piece("<image><image>", trusted=True)], [picture(1)]),
            Prompt([Piece("<image>", trusted=True)], [picture(1), picture(2)]),
            Prompt([Piece("text", trusted=True)], [picture(1)]),
        ]
    )
    assert (
        str(more)
        == "placeholders: the prompt has 2 image placeholders, the row has 1 images; <image> stands for an image"
    )
    assert (
        str(fewer)
        == "placeholders: the prompt has 1 image placeholders, the row has 2 images; <image> stands for an image"
    )
    assert (
        str(none)
        == "placeholders: the prompt has 0 image placeholders, the row has 1 images; <image> stands for an image"
    )


def test_a_placeholder_that_is_several_tokens_is_told_with_its_tokens(
    llava: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlavaForConditionalGeneration, "get_placeholder_str", lambda modality, i: "<picture>")
    renderer = Renderer(ModelSettings(str(llava[0]), engine=ENGINE))
    (row,) = renderer.render([Prompt([Piece("<picture>what?", trusted=True)], [picture(1)])])
    assert str(row).startswith(
        "placeholders: the prompt has 0 image placeholders, the row has 1 images; <picture> is 9 tokens in this "
        "tokenizer ('<', 'p', 'i', 'c', 't', 'u', 'r', 'e', '>'), and an image needs one of its own: "
    )


def test_a_row_with_more_images_than_the_engine_is_made_for_fails_alone(llava: tuple[Path, Any]) -> None:
    """Memory is measured with so many."""
    renderer = Renderer(ModelSettings(str(llava[0]), engine={**ENGINE, "limit_mm_per_prompt": {"image": 1}}))
    one, two = renderer.render(
        [Prompt([Piece("<image>" * n, trusted=True)], [picture(k) for k in range(n)]) for n in (1, 2)]
    )
    assert not isinstance(one, RowError)
    assert str(two) == "image_processing: the row has 2 images; engine.limit_mm_per_prompt leaves room for 1"


@torch.inference_mode()
def features_of(model: Any, folder: Path, image: Any) -> torch.Tensor:
    from transformers import AutoImageProcessor

    pixels = AutoImageProcessor.from_pretrained(folder, backend="pil")([image], return_tensors="pt")["pixel_values"]
    config = model.config
    return model.get_image_features(
        pixels,
        vision_feature_layer=config.vision_feature_layer,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
    ).pooler_output[0]


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_rows_with_features_and_rows_with_pixels_give_the_same_texts(tmp_path: Path, llava: tuple[Path, Any]) -> None:
    folder, model = llava
    images = [picture(n, (40 + n, 60)) for n in range(18)]
    features = [features_of(model, folder, image) for image in images]
    prompts = [f"what is number {n}?" for n in range(len(images))]
    pixels = [encoded(image) for image in images]
    mixed = [
        (pixel, npy(feature.numpy()), save({"features": feature}))[n % 3]
        for n, (pixel, feature) in enumerate(zip(pixels, features, strict=True))
    ]
    nested = pa.array([feature.tolist() for feature in features], pa.list_(pa.list_(pa.float32())))
    fixed = nested.cast(pa.list_(pa.list_(pa.float32(), 64)))
    texts = []
    for name, column in {"pixels": pixels, "mixed": mixed, "nested": nested, "fixed": fixed}.items():
        columns = {"image": column, "prompt": prompts}
        table = pa.table({key: pa.array(value) if isinstance(value, list) else value for key, value in columns.items()})
        job = jobs.write_job(tmp_path / name, table, model={"path": str(folder)}, input={"id_column": None})
        texts.append(jobs.succeed(job)["text"].to_pylist())
    assert texts[0] == texts[1] == texts[2] == texts[3]
    assert len(set(texts[0])) > 9


def test_features_that_cannot_be_are_errors_of_their_rows(tmp_path: Path, llava: tuple[Path, Any]) -> None:
    good = np.random.default_rng(1).normal(size=(16, 64)).astype(np.float32)
    nan = good.copy()
    nan[3, 3] = np.nan
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    cells = [npy(good), npy(good[:, :63]), npy(good.astype(np.int32)), npy(nan), npy(good)[:200], pickled.getvalue()]
    cells += [
        save({"a": torch.ones(1, 64), "b": torch.ones(1, 64)}),
        npy(good[:0]),
        npy(np.ones((300, 64), np.float32)),
    ]
    table = pa.table({"image": cells, "prompt": ["what?"] * len(cells)})
    overrides: dict[str, Any] = {"input": {"id_column": None}, "errors": {"max_fraction": 1.0}}
    job = jobs.write_job(tmp_path, table, model={"path": str(llava[0])}, **overrides)
    errors = jobs.succeed(job)["error"].to_pylist()
    assert errors[0] is None
    assert all(error.startswith("features: ") for error in errors[1:8]), errors
    assert "expected (number of features, 64)" in errors[1] and "NaN" in errors[3]
    assert errors[8].startswith("prompt_too_long: ")


@given(st.integers(1, 3000), st.integers(1, 3000))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_image_has_more_features_than_the_profiled_one(next_folder: Path, height: int, width: int) -> None:
    config = build_model_config(ModelSettings(str(next_folder), engine=ENGINE)).hf_config if not _CONFIG else _CONFIG[0]
    _CONFIG[:] = [config]
    profiled = max(llava_next.image_feature_size(config, tuple(size)) for size in PINPOINTS)
    assert 0 < llava_next.image_feature_size(config, (height, width)) <= profiled


_CONFIG: list[Any] = []


def test_the_largest_image_fits_the_budget_that_was_profiled(next_folder: Path, generate_with: Any) -> None:
    from vllm.multimodal.encoder_budget import MultiModalBudget
    from vllm.usage.usage_lib import UsageContext

    model_settings = ModelSettings(str(next_folder), engine={**ENGINE, "max_num_batched_tokens": 512})
    vllm_config = build_engine_args(model_settings).create_engine_config(UsageContext.LLM_CLASS)
    budget = MultiModalBudget(vllm_config, VLLM_REGISTRY, enable_cache=False)
    config = vllm_config.model_config.hf_config
    largest = max(PINPOINTS, key=lambda size: llava_next.image_feature_size(config, tuple(size)))
    features = llava_next.image_feature_size(config, tuple(largest))
    assert dict(budget.mm_max_toks_per_item) == {"image": features}
    image = picture(1, (largest[1], largest[0]))
    (generation,) = generate_with(
        next_folder, [Prompt([Piece("<image>", trusted=True)], [image])], max_num_batched_tokens=512
    )
    assert generation.prompt_tokens == 1 + features


NO_DUMMY_DATA = """
from torch import nn
from run_batch.model import INPUT_REGISTRY, MULTIMODAL_REGISTRY
from run_batch.model.families.llava import LlavaForConditionalGeneration as Llava, expand_image_tokens
from vllm.model_executor.models.interfaces import SupportsMultiModal

@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper()
@INPUT_REGISTRY.register_input_processor(expand_image_tokens)
class UnprofiledLlava(nn.Module, SupportsMultiModal):
    hf_to_vllm_mapper = Llava.hf_to_vllm_mapper
    __init__ = Llava.__init__
    get_placeholder_str = classmethod(lambda cls, modality, i: "<image>")
    image_features = Llava.image_features
    embed_multimodal = Llava.embed_multimodal
    forward = Llava.forward
    compute_logits = Llava.compute_logits
    load_weights = Llava.load_weights
"""


def test_a_model_without_dummy_data_runs_and_is_warned_of(tmp_path: Path, llava: tuple[Path, Any]) -> None:
    # `super()` in Llava.__init__ needs Llava among the bases: give the class the same parents, not the declaration.
    code = NO_DUMMY_DATA.replace("    __init__ = Llava.__init__\n", INIT)
    model = {"path": str(llava[0]), "architecture": "UnprofiledLlava", "plugins": ["unprofiled"]}
    job = jobs.write_job(tmp_path, jobs.rows(6), model=model)
    (tmp_path / "unprofiled.py").write_text(code)
    finished = jobs.run(job)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("UnprofiledLlava declares no dummy data") == 1
    assert jobs.results(job)["error"].null_count == 6


INIT = """
    def __init__(self, *, vllm_config, prefix=""):
        super().__init__()
        inner = Llava(vllm_config=vllm_config, prefix=prefix)
        self.config, self.normalize_pixels = inner.config, inner.normalize_pixels
        with self._mark_tower_model(vllm_config, "image"):
            self.vision_tower = inner.vision_tower
            self.multi_modal_projector = inner.multi_modal_projector
        with self._mark_language_model(vllm_config):
            self.language_model = inner.language_model
"""
