"""What bulk mappers give, compared with what vLLM's own processors give, to the last bit."""

import functools
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from built_in_families import family_folders
from engines import plain_values
from internvl_chat import save_internvl_chat
from pictures import encoded, picture
from PIL import Image

from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import EncodedImage
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer

PLACEHOLDERS = {
    "glm4v": "<|begin_of_image|><|image|><|end_of_image|>",
    "internvl": "<IMG_CONTEXT>\n",
    "gemma3": "<start_of_image>",
    "idefics3": "<image>",
    "internvl_chat": "<image>\n",
    "llava_onevision": "<image>\n",
    "smolvlm": "<image>",
}
QWEN_PLACEHOLDER = "<|vision_start|><|image_pad|><|vision_end|>"

transparent = picture(5, (90, 130)).convert("RGBA")
transparent.putalpha(picture(6, (90, 130)).convert("L"))
rotated = Image.Exif()
rotated[0x0112] = 6
IMAGES = [
    encoded(picture(1, (20, 20))),
    encoded(picture(2, (400, 40))),
    encoded(picture(3, (1200, 900)), "JPEG"),
    encoded(picture(4, (150, 200)).convert("L")),
    encoded(transparent),
    encoded(picture(7, (64, 300)).quantize(16)),
    encoded(picture(8, (120, 77)), "JPEG", exif=rotated),
    encoded(picture(9, (112, 140))),
    encoded(picture(10, (1, 1))),
    encoded(picture(11, (3, 500))),
]
ROWS = [*([image] for image in IMAGES), [], IMAGES[1:4], [IMAGES[0], IMAGES[0]]]

Folder = Callable[..., Path]


def changed_folders(make_folder: Callable[[str], Path]) -> Folder:
    """The checkpoint of a family, made when it is first asked for; with changes, a copy of it.

    Args:
        make_folder: see family_folders.
    """
    of = family_folders(make_folder)

    @functools.cache
    def chat_folder() -> Path:
        path = make_folder("internvl_chat")
        save_internvl_chat(path)
        return path

    def changed(family: str, vision: dict[str, Any] | None = None, **image_processor: Any) -> Path:
        if family == "internvl_chat":
            return chat_folder()
        if not vision and not image_processor:
            return of(family)
        path = make_folder("changed") / family
        shutil.copytree(of(family), path)
        _edit(path / "processor_config.json", "image_processor", image_processor)
        _edit(path / "config.json", "vision_config", vision or {})
        return path

    return changed


def _edit(file: Path, table: str, changes: dict[str, Any]) -> None:
    config = json.loads(file.read_text())
    config[table].update(changes)
    file.write_text(json.dumps(config))


def renderer(model: Path, mapper: str = "auto", **engine: Any) -> Renderer:
    engine = {"dtype": "float32", "max_model_len": 8192, **engine}
    return Renderer(ModelSettings(str(model), engine=engine, mapper=mapper, trust_remote_code=True))


def prompts(family: str, rows: Sequence[list[bytes]]) -> list[Prompt]:
    image = PLACEHOLDERS.get(family, QWEN_PLACEHOLDER)
    return [
        Prompt(
            [
                Piece("Look: " + image * len(images), trusted=True),
                Piece(f"what is <|image_pad|> {row}?", trusted=False),
            ],
            [EncodedImage.of(image) for image in images],
        )
        for row, images in enumerate(rows)
    ]


def assert_equal(family: str, model: Path, rows: Sequence[list[bytes]], is_bulk: bool = True, **engine: Any) -> str:
    """Compare the bulk mapper's engine inputs with those of vLLM's processor; how the model's images are mapped."""
    auto, by_vllm = renderer(model, **engine), renderer(model, "vllm", **engine)
    assert str(auto.image_mapping).startswith("the bulk mapper") == is_bulk, auto.image_mapping
    assert str(by_vllm.image_mapping) == 'vLLM\'s own processor: model.mapper = "vllm"'
    mapped = 0
    for ours, theirs in zip(auto.render(prompts(family, rows)), by_vllm.render(prompts(family, rows)), strict=True):
        if isinstance(theirs, RowError):
            assert str(ours) == str(theirs)
            continue
        assert not isinstance(ours, RowError), ours
        for key in ("type", "prompt_token_ids", "mm_placeholders"):
            assert plain_values(ours.get(key)) == plain_values(theirs.get(key)), key
        assert tensors(ours) == tensors(theirs)
        mapped += len(tensors(ours))
    assert mapped or not any(rows), "no image was mapped"
    return str(auto.image_mapping)


def tensors(engine_input: Any) -> list[dict[str, Any]]:
    """What the model gets of a row, of each image alone and of all together, and which tensors it gets on the CPU."""
    items = list((engine_input.get("mm_kwargs") or {}).get("image", ()))
    batches = [*([item] for item in items), *([items] if items else [])]
    return [
        {
            name: (element.field.keep_on_cpu, in_bytes(element.field.reduce_data([item[name] for item in batch])))
            for name, element in batch[0].items()
        }
        for batch in batches
    ]


def in_bytes(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    return tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
