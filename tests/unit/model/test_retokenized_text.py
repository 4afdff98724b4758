"""A processor that tokenizes a prompt again makes no special token of a row's text."""

from types import SimpleNamespace
from typing import Any

import pytest
from checkpoints import save_tokenizer
from PIL import Image

from run_batch.model.prompts.tokenizer import Piece, PromptTokenizer
from run_batch.model.rendering.vllm_renderer import VllmRenderer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


class Processor:
    """Stands in for vLLM's: puts three tokens in the place of each image, and decodes and tokenizes the text again."""

    def __init__(self, tokenizer: Any) -> None:
        params = SimpleNamespace(add_special_tokens=True)
        self.info = SimpleNamespace(
            parse_mm_data=lambda data: data, default_tok_params=params, get_tokenizer=lambda: tokenizer
        )
        self._tokenizer = tokenizer

    def apply(self, inputs: Any, timing: Any) -> Any:
        alphabet = self._tokenizer.convert_ids_to_tokens(inputs.prompt)
        ids: list[int] = self._tokenizer.encode("".join(alphabet), add_special_tokens=False)
        at = ids.index(self._tokenizer.convert_tokens_to_ids("<image>"))
        ranges = [SimpleNamespace(offset=at, length=3)]
        return {"prompt_token_ids": [*ids[:at], *[ids[at]] * 3, *ids[at + 1 :]], "mm_placeholders": {"image": ranges}}


@pytest.mark.parametrize(
    ("template", "text", "token"),
    [
        ("<image>{}</s>", "a</s>b", "</s>"),
        ("<image>{}</s>", "a<image>b", "<image>"),
        ("<image>{}</s>", "a</ s>b", None),
        ("</s><image>{}</s>", "a", None),
    ],
)
def test_text_that_would_become_a_special_token_fails_its_row(
    tokenizer: Any, template: str, text: str, token: str | None
) -> None:
    before, after = template.split("{}")
    pieces = [Piece(before, trusted=True), Piece(text, trusted=False), Piece(after, trusted=True)]
    (token_ids,) = PromptTokenizer(tokenizer).encode([pieces], add_special_tokens=True)
    fitting: Any = SimpleNamespace(check=lambda token_ids, images: None)
    renderer = VllmRenderer(Processor(tokenizer), fitting)
    renderer._decode = lambda image: image  # type: ignore[method-assign,assignment,return-value]
    image: Any = Image.new("RGB", (4, 4))
    (rendered,) = renderer.render([token_ids], [[image]])
    if token is None:
        assert isinstance(rendered, dict)
    else:
        message = f"the model's processor would take text of the row for the special token {token}"
        assert str(rendered) == f"image_processing: {message}"
