"""The model types that transformers and vLLM know by themselves."""


def known_model_types() -> frozenset[str]:
    """The values of `model_type` in config.json that a model of one's own cannot take: a class reads them already."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from vllm.transformers_utils.config import _CONFIG_REGISTRY

    return frozenset(CONFIG_MAPPING_NAMES) | frozenset(_CONFIG_REGISTRY)
