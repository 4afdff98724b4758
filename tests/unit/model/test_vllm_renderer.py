"""What vLLM's own processors give is checked before the engine gets it."""

import json
from pathlib import Path

import pytest
from checkpoints import save_blip2
from pictures import encoded, picture

from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import EncodedImage
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer


@pytest.mark.parametrize(("deviation", "is_finite"), [(0.5, True), (0.0, False)])
def test_a_processor_that_gives_values_that_are_not_finite_fails_the_row(
    tmp_path: Path, deviation: float, is_finite: bool
) -> None:
    save_blip2(tmp_path)
    for path in tmp_path.glob("*processor_config.json"):
        config = json.loads(path.read_text())
        config.get("image_processor", config)["image_std"] = [deviation] * 3
        path.write_text(json.dumps(config))
    image = EncodedImage(encoded(picture(1)), b"1")
    (rendered,) = Renderer(ModelSettings(str(tmp_path))).render([Prompt([Piece("what?", True)], [image])])
    if is_finite:
        assert not isinstance(rendered, RowError)
    else:
        assert isinstance(rendered, RowError) and rendered.kind == "image_processing"
        assert rendered.message == "vLLM's processor gave pixel_values with NaN or infinite values"
