"""What stands for an image, for kinds of processors of which the tests have no checkpoint."""

from types import SimpleNamespace
from typing import Any

import pytest
from checkpoints import save_tokenizer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.multimodal.processing import PromptIndexTargets, PromptInsertion, PromptReplacement, PromptUpdateDetails

from run_batch.model.declaration import RowError
from run_batch.model.rendering.image_placeholders import ImagePlaceholders


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return save_tokenizer(tmp_path_factory.mktemp("tokenizer"))


class Processor:
    """Stands in for vLLM's: makes one update of a prompt for each image."""

    def __init__(self, tokenizer: Any, update: PromptReplacement | PromptInsertion, takes_plain: bool = True) -> None:
        self._update, self._takes_plain = update, takes_plain
        parse = lambda data, validate: data["image"]  # noqa: E731
        self.info = SimpleNamespace(get_tokenizer=lambda: tokenizer, parse_mm_data=parse)

    def get_dummy_inputs(self, length: int, counts: Any, options: Any) -> Any:
        return SimpleNamespace(mm_data_items=["dummy"])

    def _apply_hf_processor(self, inputs: Any, timing: Any) -> Any:
        if not self._takes_plain and inputs.mm_data_items != ["dummy"]:
            raise ValueError("an image of this size is not taken")
        return SimpleNamespace(prompt_updates={"image": [[self._update.resolve(0)]]})


def replacing(tokenizer: Any, target: Any, number_of_tokens: int = 4) -> PromptReplacement:
    image = tokenizer.convert_tokens_to_ids("<image>")
    return PromptReplacement("image", target=target, replacement=[image] * number_of_tokens)


def inserting(tokenizer: Any) -> PromptInsertion:
    image = tokenizer.convert_tokens_to_ids("<image>")
    content = PromptUpdateDetails.select_token_id([image] * 4 + [tokenizer.bos_token_id], image)
    return PromptInsertion("image", target=PromptIndexTargets.prefix([tokenizer.bos_token_id]), insertion=content)


def errors(placeholders: ImagePlaceholders, tokenizer: Any, prompt: str, *images: int) -> list[str | None]:
    """For each number of images, what is wrong with the prompt; None where it fits."""
    found: list[str | None] = []
    for number in images:
        try:
            placeholders.check(tokenizer.encode(prompt), number)
            found.append(None)
        except RowError as error:
            found.append(str(error).partition(";")[0])
    return found


def counts(placeholders: int, images: int) -> str:
    return f"placeholders: the prompt has {placeholders} image placeholders, the row has {images} images"


@pytest.mark.parametrize("takes_plain", [True, False])
def test_what_a_class_does_not_tell_its_processor_does(tokenizer: Any, takes_plain: bool) -> None:
    processor = Processor(tokenizer, replacing(tokenizer, tokenizer.encode("<image>")[1:]), takes_plain)
    placeholders = ImagePlaceholders(processor, lambda modality, number: None)
    assert placeholders.text(1) == placeholders.text(2) == "<image>"
    assert errors(placeholders, tokenizer, "a <image> b", 0, 1, 2) == [counts(1, 0), None, counts(1, 2)]


def test_a_processor_that_inserts_needs_no_placeholder(tokenizer: Any) -> None:
    placeholders = ImagePlaceholders(Processor(tokenizer, inserting(tokenizer)), lambda modality, number: None)
    assert placeholders.text(1) is None
    assert errors(placeholders, tokenizer, "a", 0, 1, 2) == [None] * 3
    assert errors(placeholders, tokenizer, "<image>a", 0, 1, 2) == [counts(1, 0), counts(1, 1), counts(1, 2)]


def test_a_processor_that_looks_for_expanded_placeholders_leaves_the_comparison_to_itself(tokenizer: Any) -> None:
    """Such as that of Pixtral in Mistral's own format."""
    placeholders = ImagePlaceholders(Processor(tokenizer, replacing(tokenizer, [])), lambda modality, number: None)
    assert placeholders.text(1) == "<image>"
    assert errors(placeholders, tokenizer, "<image>" * 4, 0, 1) == [counts(4, 0), None]
    assert errors(placeholders, tokenizer, "a", 0, 1) == [None, counts(0, 1)]


def test_numbered_placeholders_are_those_of_their_images(tokenizer: Any) -> None:
    """Such as those of Phi-3-vision and Phi-4-multimodal, which are plain text."""

    def numbered(modality: str, number: int) -> str:
        return f"<|{modality}_{number}|>"

    target = replacing(tokenizer, lambda index: tokenizer.encode(numbered("image", index + 1))[1:])
    placeholders = ImagePlaceholders(Processor(tokenizer, target), numbered)
    assert (placeholders.text(1), placeholders.text(12)) == ("<|image_1|>", "<|image_12|>")
    assert errors(placeholders, tokenizer, "<|image_2|> and <|image_1|>", 1, 2, 3) == [counts(2, 1), None, counts(2, 3)]
    assert errors(placeholders, tokenizer, "<|image_1|> and <|image_1|>", 2) == [counts(1, 2)]
    assert errors(placeholders, tokenizer, "<|image_0|> and <|image_7|>", 2) == [counts(0, 2)]
    assert errors(placeholders, tokenizer, "none", 0, 1) == [None, counts(0, 1)]


def test_placeholders_that_are_plain_text_are_found_whatever_tokens_they_fall_into() -> None:
    """Such as <image> in InternVL-Chat: a tokenizer may join its last character with the next one."""
    vocab = {token: i for i, token in enumerate([*sorted(pre_tokenizers.ByteLevel.alphabet()), "]."])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("]", ".")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<image>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    target = replacing(tokenizer, tokenizer.encode("[img]"))
    placeholders = ImagePlaceholders(Processor(tokenizer, target), lambda modality, number: "[img]")
    assert errors(placeholders, tokenizer, "[img] and [img].", 1, 2, 3) == [counts(2, 1), None, counts(2, 3)]
    assert errors(placeholders, tokenizer, "[img] <image>", 1) == [counts(2, 1)]
    # Nothing can tell it from text of the row, which is harmless where no image is put in its place.
    assert errors(placeholders, tokenizer, "[img]", 0) == [None]
