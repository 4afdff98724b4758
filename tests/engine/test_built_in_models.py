"""Models that vLLM ships, on its own processors: the inputs and the texts are those of vLLM's own `LLM.chat`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from built_in_families import FAMILIES, family_folders
from engines import plain_values
from pictures import encoded, picture
from vllm.multimodal.processing import BaseProcessingInfo
from vllm.renderers.params import ChatParams
from vllm.renderers.registry import renderer_from_config
from vllm.usage.usage_lib import UsageContext
from vllm_chat import chat, messages

import jobs
from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.rows import MappedRow, MappedRows, RowFailure
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.checkpoint.settings import ModelSettings, build_engine_args

ENGINE = {"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 8, "enforce_eager": True}
# Of one image each: smaller than a patch of some models, ten times as wide as high, larger than a tile, and gray.
IMAGES = [
    encoded(picture(1, (20, 20))),
    encoded(picture(2, (400, 40))),
    encoded(picture(3, (1200, 900)), "JPEG"),
    encoded(picture(4, (150, 200)).convert("L")),
]
ROWS: list[tuple[list[bytes], str]] = [
    *(([image], f"What is in picture {number}?") for number, image in enumerate(IMAGES)),
    ([], "Say something."),
    (IMAGES[1::2], "Compare the two."),
]
FAST = ("qwen2_5_vl", "internvl", "mistral3")

Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """The checkpoint of a family, made when it is first asked for."""
    return family_folders(tmp_path_factory.mktemp)


def rows_of(family: str) -> list[tuple[list[bytes], str]]:
    return ROWS[:-1] if family == "paligemma" else ROWS  # which takes one image


def table(rows: Sequence[tuple[list[bytes], str]]) -> pa.Table:
    images, prompts = zip(*rows, strict=True)
    columns = {"image": pa.array(images, pa.list_(pa.binary())), "prompt": list(prompts)}
    return pa.table({"uid": [f"u{number}" for number in range(len(rows))], **columns})


def write_job(folder: Path, model: Path, rows: Sequence[tuple[list[bytes], str]], **prompt: Any) -> Path:
    tables = {"model": {"path": str(model)}, "engine": ENGINE, "prompt": {"template": None, **prompt}}
    return jobs.write_job(folder, table(rows), **tables)


def mapped(folder: Path, model: Path, rows: Sequence[tuple[list[bytes], str]], **prompt: Any) -> MappedRows:
    columns = table(rows)
    mapper = RowMapper(load_config(write_job(folder, model, rows, **prompt)), columns.schema, None)
    return list(mapper.map(RowBatch(0, columns.combine_chunks().to_batches()[0], None)))


def vllms_renderer(model: Path) -> Any:
    settings = ModelSettings(str(model), engine=ENGINE)
    return renderer_from_config(build_engine_args(settings).create_engine_config(UsageContext.LLM_CLASS))


@pytest.mark.parametrize("family", FAMILIES)
def test_inputs_are_those_of_vllms_own_renderer(family: str, tmp_path: Path, folder: Folder) -> None:
    rows, renderer = rows_of(family), vllms_renderer(folder(family))
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    params = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})
    for (images, prompt), row in zip(rows, mapped(tmp_path, folder(family), rows, chat=True), strict=True):
        assert isinstance(row, MappedRow), row
        _, (expected,) = renderer.render_chat([messages(images, prompt)], params, tokens)
        for key in ("type", "prompt_token_ids", "mm_placeholders", "mm_kwargs"):
            assert plain_values(row.engine_input.get(key)) == plain_values(expected.get(key)), key


def refused(folder: Path, model: Path, prompt: str, *images: int) -> list[str]:
    """The errors of rows with the same prompt and so many images."""
    rows = [(IMAGES[:number], "what?") for number in images]
    texts = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %}{% endfor %}"
    found = mapped(folder, model, rows, chat=True, chat_template=prompt + texts)
    errors = [row.error for row in found if isinstance(row, RowFailure)]
    assert len(errors) == len(images), f"{prompt!r} is rendered for a row with other images"
    return errors


@pytest.mark.parametrize("family", FAMILIES)
def test_placeholders_and_images_have_to_fit(family: str, tmp_path: Path, folder: Folder) -> None:
    """PaliGemma needs no placeholder, and refuses the token that vLLM inserts for its features."""
    image = FAMILIES[family]()[2] or "<image>"
    errors = refused(tmp_path / "one", folder(family), image, 0, 2)
    errors += refused(tmp_path / "two", folder(family), f"{image} and {image}", 0, 1, 3)
    for error, (placeholders, images) in zip(errors, [(1, 0), (1, 2), (2, 0), (2, 1), (2, 3)], strict=True):
        numbers = f"the prompt has {placeholders} image placeholders, the row has {images} images"
        assert error.startswith(f"placeholders: {numbers}; ")


@pytest.mark.parametrize(
    ("family", "template"),
    [
        ("gemma3", "<start_of_image><image_soft_token>"),
        ("glm4v", "<|begin_of_image|><|image|><|end_of_image|><|image|>"),
        ("qwen3_vl", "<|vision_start|><|image_pad|><|image_pad|><|vision_end|>"),
    ],
)
def test_image_tokens_beside_the_placeholders_are_no_text(
    family: str, template: str, tmp_path: Path, folder: Folder
) -> None:
    (error,) = refused(tmp_path, folder(family), template, 1)
    assert error.startswith("placeholders: the prompt has 2 image placeholders, the row has 1 images; ")


@pytest.mark.parametrize("family", FAMILIES)
def test_data_never_becomes_a_placeholder(family: str, tmp_path: Path, folder: Folder) -> None:
    image = FAMILIES[family]()[2].strip() or "<image>"
    rows = [(IMAGES[:1], f"Compare with {image}"), ([], f"What does {image} mean?")]
    for row in mapped(tmp_path, folder(family), rows, chat=True):
        assert isinstance(row, MappedRow), row


@pytest.mark.parametrize("family", FAMILIES)
def test_a_row_without_images_leaves_the_templates_placeholder_out(family: str, tmp_path: Path, folder: Folder) -> None:
    image = FAMILIES[family]()[2].strip()
    rows = [(IMAGES[:1], "what?"), ([], "what?")]
    with_image, without = mapped(tmp_path, folder(family), rows, template=f"Look: {image}{{prompt}}")
    assert isinstance(with_image, MappedRow) and isinstance(without, MappedRow), (with_image, without)
    (expected,) = vllms_renderer(folder(family)).render_cmpl([{"prompt": "Look: what?"}])
    assert without.engine_input["prompt_token_ids"] == expected["prompt_token_ids"]


@pytest.mark.parametrize("adds", [True, False])
def test_a_template_gets_the_bos_token_that_the_processor_asks_for(
    adds: bool, tmp_path: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """False is what some models ask for, such as LFM2-VL and Gemma 4."""
    default = BaseProcessingInfo.get_default_tok_params
    changed = lambda info: default(info).with_kwargs(add_special_tokens=adds)  # noqa: E731
    monkeypatch.setattr(BaseProcessingInfo, "get_default_tok_params", changed)
    (row,) = mapped(tmp_path, folder("mistral3"), [([], "what?")], template="[IMG]{prompt}")
    (expected,) = vllms_renderer(folder("mistral3")).render_cmpl([{"prompt": "what?"}])
    assert isinstance(row, MappedRow) and row.engine_input["prompt_token_ids"] == expected["prompt_token_ids"]
    assert len(expected["prompt_token_ids"]) == len("what?") + adds


@pytest.mark.parametrize("family", ["mistral3", "qwen2_vl"])
def test_a_template_without_the_placeholder_that_it_needs_is_refused(
    family: str, tmp_path: Path, folder: Folder
) -> None:
    """Mistral 3's class does not tell its placeholder, Qwen's does."""
    with pytest.raises(JobError, match=r"prompt\.template has no .+, the model's image placeholder"):
        mapped(tmp_path, folder(family), ROWS, template="{prompt}")


OTHERS = [pytest.param(family, marks=pytest.mark.long) for family in FAMILIES if family not in FAST]


@pytest.mark.engine
@pytest.mark.parametrize("family", [*FAST, *OTHERS])
def test_texts_are_those_of_vllms_own_chat(family: str, tmp_path: Path, folder: Folder) -> None:
    rows = rows_of(family)
    results = jobs.succeed(write_job(tmp_path, folder(family), rows, chat=True))
    assert results["error"].null_count == len(rows)
    expected = chat(folder(family), [messages(*row) for row in rows], **ENGINE)
    assert results["text"].to_pylist() == expected
    assert len(set(expected)) > len(rows) // 2, "the texts hardly depend on the images"
