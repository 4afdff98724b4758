"""Checks a job's sampling settings against its model: what no row could be generated with is the job's fault."""

from collections.abc import Mapping
from typing import Any

from run_batch.model.checkpoint.settings import SettingsError, build_sampling_params, first_cause


def check_sampling(engine_args: Any, sampling: Mapping[str, Any], model_config: Any, tokenizer: Any) -> None:
    """Check what depends on the vocabulary, and compile schemas and grammars.

    Args:
        engine_args, model_config, tokenizer: vLLM's, of the job's model.

    Raises:
        SettingsError: vLLM would refuse each row.
    """
    from vllm.exceptions import VLLMValidationError

    params = build_sampling_params(sampling)
    try:
        params.verify(model_config, None, _structured_outputs_config(engine_args), tokenizer)
        params.update_from_tokenizer(tokenizer)
    except (VLLMValidationError, ValueError, TypeError) as error:
        key = getattr(error, "parameter", None) or ("structured_outputs" if params.structured_outputs else None)
        raise SettingsError(f"sampling{f'.{key}' if key else ''}: {first_cause(error)}") from error
    check_reasoning_parser(engine_args, tokenizer)


def _structured_outputs_config(engine_args: Any) -> Any:
    from vllm.config import StructuredOutputsConfig

    found = engine_args.structured_outputs_config
    return StructuredOutputsConfig(**found) if isinstance(found, dict) else found


def check_reasoning_parser(engine_args: Any, tokenizer: Any) -> None:
    """Check `engine.reasoning_parser`: vLLM builds one for each row.

    Raises:
        SettingsError: vLLM does not know the parser, or the tokenizer lacks its tokens.
    """
    name = engine_args.reasoning_parser
    if not name:
        return
    from vllm.reasoning import ReasoningParserManager

    try:
        if engine_args.reasoning_parser_plugin:
            ReasoningParserManager.import_reasoning_parser(engine_args.reasoning_parser_plugin)
        ReasoningParserManager.get_reasoning_parser(name)(tokenizer)
    except Exception as error:  # parsers raise exceptions of any type
        raise SettingsError(f"engine.reasoning_parser = {name!r}: {first_cause(error)}") from error
