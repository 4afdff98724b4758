"""Which bulk mapper a model that vLLM ships has: by its image processor, of transformers or of vLLM."""

from collections.abc import Callable, Mapping

from run_batch.model.declaration import Declaration
from run_batch.model.mappers.gemma3 import declare_gemma3
from run_batch.model.mappers.glm4v import declare_glm4v
from run_batch.model.mappers.idefics3 import declare_idefics3
from run_batch.model.mappers.internvl import declare_internvl
from run_batch.model.mappers.internvl_chat import declare_internvl_chat
from run_batch.model.mappers.llava_onevision import declare_llava_onevision
from run_batch.model.mappers.processor_facts import ProcessorFacts, UnknownSettings
from run_batch.model.mappers.qwen_vl import declare_qwen_vl

_FAMILIES: Mapping[str, Callable[[type, ProcessorFacts], Declaration]] = {
    "transformers.models.qwen2_vl.image_processing_qwen2_vl.Qwen2VLImageProcessor": declare_qwen_vl,
    "transformers.models.got_ocr2.image_processing_got_ocr2.GotOcr2ImageProcessor": declare_internvl,
    "transformers.models.gemma3.image_processing_gemma3.Gemma3ImageProcessor": declare_gemma3,
    "transformers.models.idefics3.image_processing_idefics3.Idefics3ImageProcessor": declare_idefics3,
    "transformers.models.llava_onevision.image_processing_llava_onevision.LlavaOnevisionImageProcessor": (
        declare_llava_onevision
    ),
    "transformers.models.smolvlm.image_processing_smolvlm.SmolVLMImageProcessor": declare_idefics3,
    "vllm.transformers_utils.processors.internvl.InternVLImageProcessor": declare_internvl_chat,
    "transformers.models.glm4v.image_processing_glm4v.Glm4vImageProcessor": declare_glm4v,
}


def has_bulk_mapper(image_processor: type) -> bool:
    """Whether models on this image processor, and on no class derived from it, have a bulk mapper."""
    return class_name(image_processor) in _FAMILIES


def is_bulk_mapper(function: Callable[..., object]) -> bool:
    """Whether a declared function is one of this package, and no plugin's."""
    return getattr(function, "__module__", "").startswith(f"{__package__}.")


def class_name(cls: type) -> str:
    """A class's name, with its module."""
    return f"{cls.__module__}.{cls.__qualname__}"


def declare_shipped(model_cls: type, facts: ProcessorFacts) -> Declaration:
    """Declare the inputs of a model whose image processor `has_bulk_mapper`.

    Raises:
        UnknownSettings: the checkpoint or the job has settings that its bulk mapper does not know.
    """
    try:
        return _FAMILIES[facts.image_processor](model_cls, facts)
    except (KeyError, TypeError) as error:
        raise UnknownSettings(f"its settings lack what the mapper reads: {error}") from error
