"""What stands for images, or for videos, in the prompts of a model that goes through vLLM's own processor.

vLLM replaces the placeholders of as many images as a row has. Any others would stay in the prompt, and the model would
generate from bare image tokens; so they are counted before. What stands for an image is learned from what the processor
does with a plain one, since the model classes do not always tell.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm.multimodal.processing import ProcessorInputs, TimingContext
from vllm.multimodal.processing.processor import UpdateMode, iter_token_matches

from run_batch.model.declaration import RowError

# An image that processors of all models take: no side is too small for a patch or too long for its width.
_PLAIN_SIDE = 224
# A video of two seconds, of which all frames are sampled.
_PLAIN_FRAMES = 4
_PLAIN_METADATA = {
    "total_num_frames": _PLAIN_FRAMES,
    "fps": 2.0,
    "duration": 2.0,
    "video_backend": "opencv",
    "frames_indices": list(range(_PLAIN_FRAMES)),
    "do_sample_frames": False,
}


@dataclass(frozen=True, slots=True)
class _Replaced:
    """What a processor does in a prompt for one image.

    Attributes:
        targets: the token ids that it replaces, in one or more ways of writing them; none where it inserts.
        features: ids of tokens whose embeddings the image's features replace, in their order.
        needs_place: whether the prompt has to say where the image belongs.
    """

    targets: Sequence[list[int]]
    features: Sequence[int]
    needs_place: bool


class ImagePlaceholders:
    """The placeholders of one modality in one model's prompts.

    Args:
        processor: a BaseMultiModalProcessor of vLLM.
        placeholder_str: `get_placeholder_str` of the model class: of a modality and a number, counted from 1.
        modality: `image` or `video`.
        counted: placeholders of another modality, whose feature tokens count as those.
    """

    def __init__(
        self,
        processor: Any,
        placeholder_str: Callable[[str, int], str | None],
        modality: str = "image",
        counted: "ImagePlaceholders | None" = None,
    ) -> None:
        self._processor, self._modality, self._counted = processor, modality, counted
        self._placeholder_str = placeholder_str
        self._tokenizer = processor.info.get_tokenizer()

    @property
    def features(self) -> Sequence[int]:
        """Ids of tokens whose embeddings features replace."""
        return self._replaced.features

    def text(self, number: int) -> str | None:
        """The text that stands for the image of this number, counted from 1; None where the prompt needs none."""
        named = self._placeholder_str(self._modality, number)
        if named is not None or not self._replaced.needs_place:
            return named
        return self._tokenizer.decode([*self._replaced.targets, self._replaced.features[:1]][0]) or None

    def check(self, token_ids: list[int], images: int) -> None:
        """Compare a prompt's placeholders with the number of the row's images.

        Raises:
            RowError: `placeholders`, the prompt has more or fewer.
        """
        found, needed = self._found(token_ids, images), images if self._replaced.needs_place else 0
        if found == needed:
            return
        text = self.text(1)
        one = "an image" if self._modality == "image" else f"a {self._modality}"
        hint = f"{text} stands for {one}" if text else f"in prompts of this model nothing stands for {one}"
        if not self._targets_are_special:
            hint += ", also where it is text of the row"
        raise RowError(
            "placeholders",
            f"the prompt has {found} {self._modality} placeholders, the row has {images} {self._modality}s; {hint}",
        )

    def _found(self, token_ids: list[int], images: int) -> int:
        """Number of placeholders, or where it is right, with the image tokens that are in no placeholder."""
        replaced = self._replaced
        bare = sum(map(token_ids.count, replaced.features))
        if not replaced.targets:
            # Models that replace nothing, but need a place, compare the expanded placeholders with the images.
            return images if bare and images and replaced.needs_place else bare
        if not images and not self._targets_are_special:
            found = 0  # in a row without images, what is plain text stays text
        elif self._are_numbered:
            found = self._numbered(token_ids, images)
        elif self._targets_are_special:
            found = sum(len(list(iter_token_matches(token_ids, target))) for target in replaced.targets)
        else:
            found = len(self._written.findall(self._tokenizer.decode(token_ids)))
        bare -= found * sum(map(replaced.targets[0].count, replaced.features))
        return found + max(bare, 0) if found == images else found

    def _numbered(self, token_ids: list[int], images: int) -> int:
        """Number of placeholders; if it is that of the images, of those that each have an image of their number."""
        pattern = re.escape(str(self.text(1))).replace("1", "([0-9]+)")
        numbers = [int(number) for number in re.findall(pattern, self._tokenizer.decode(token_ids))]
        return len(numbers) if len(numbers) != images else len(set(numbers) & set(range(1, images + 1)))

    @cached_property
    def _are_numbered(self) -> bool:
        return self._placeholder_str(self._modality, 1) != self._placeholder_str(self._modality, 2)

    @cached_property
    def _targets_are_special(self) -> bool:
        """Whether they are tokens of their own. Otherwise tokens of the text around them may take their characters."""
        added = self._tokenizer.added_tokens_decoder
        return all(token in added for target in self._replaced.targets for token in target)

    @cached_property
    def _written(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(self._tokenizer.decode(target)) for target in self._replaced.targets))

    @cached_property
    def _replaced(self) -> _Replaced:
        try:
            updates = self._updates(self._plain_inputs())
        # A processor may raise anything for an image that it does not take; it takes the one that vLLM makes for it.
        except Exception:
            updates = self._updates(self._processor.get_dummy_inputs(_PLAIN_SIDE**2, {self._modality: 1}, {}))
        targets = [update.target for update in updates if isinstance(update.target, list)]
        needs_place = any(update.mode is UpdateMode.REPLACE for update in updates) and bool(targets)
        return _Replaced(
            [target for target in targets if target] if needs_place else [],
            self._features(updates[0].content),
            needs_place,
        )

    def _plain_inputs(self) -> ProcessorInputs:
        plain: Any = Image.new("RGB", (_PLAIN_SIDE, _PLAIN_SIDE), (90, 120, 150))
        if self._modality == "video":
            plain = np.stack([np.asarray(plain)] * _PLAIN_FRAMES), _PLAIN_METADATA
        return ProcessorInputs([], self._processor.info.parse_mm_data({self._modality: [plain]}, validate=False))

    def _updates(self, inputs: ProcessorInputs) -> Sequence[Any]:
        """The ways in which the processor may change a prompt for the first image."""
        return self._processor._apply_hf_processor(inputs, TimingContext(enabled=False)).prompt_updates[self._modality][
            0
        ]

    def _features(self, content: Any) -> list[int]:
        """Ids of tokens that stand for features and for nothing else."""
        is_feature = torch.ones(len(content.full), dtype=torch.bool)
        if content.is_embed is not None:
            is_feature = content.is_embed(content.full)
        tokenizer = self._tokenizer
        # Some models use the token for what is unknown, or for an end; a prompt may hold these for their own sake.
        ordinary = {
            *(() if self._counted is None else self._counted.features),
            tokenizer.unk_token_id,
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
        }
        ids = [token for token, is_one in zip(content.full, is_feature.tolist(), strict=True) if is_one]
        return [token for token in dict.fromkeys(ids) if token in tokenizer.added_tokens_decoder.keys() - ordinary]
