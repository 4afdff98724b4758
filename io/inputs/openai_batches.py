"""Batch files of OpenAI's API: a row is a request, with its id, its messages, and its own sampling settings."""

import json
from collections.abc import Mapping
from typing import Any

URLS = ("/v1/chat/completions", "/chat/completions")
# Of a body, the fields that vLLM's SamplingParams have under the same name.
_SAMPLING = frozenset(
    (
        *("temperature", "top_p", "top_k", "min_p", "seed", "stop", "n", "max_tokens", "min_tokens"),
        *("presence_penalty", "frequency_penalty", "repetition_penalty", "stop_token_ids", "ignore_eos"),
        *("include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens"),
    )
)
# What says who asks, or how the service is to bill and deliver: it changes no text. The model is the job's own.
_NO_MATTER = frozenset(
    (
        *("model", "messages", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"),
        *("max_completion_tokens", "logprobs", "top_logprobs", "stream_options"),
    )
)
# Values of other fields that ask for what happens anyway.
_SAME_ANYWAY: Mapping[str, tuple[Any, ...]] = {
    "stream": (False,),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "tools": ([],),
    "parallel_tool_calls": (True, False),
    "tool_choice": ("none", "auto"),
}
_INSTEAD = {
    "tools": "set prompt.tools for the job",
    "response_format": "set sampling.structured_outputs for the job",
    "stream": "results are written when a row is finished",
}


def row_of_request(request: dict[str, Any]) -> dict[str, Any]:
    """The row that a line of a batch file is: `custom_id`, `messages` and `sampling`, the latter two as JSON text.

    Raises:
        ValueError: it is no request for a chat completion, or asks for what a row cannot have.
    """
    request_id, body = request.get("custom_id"), request.get("body")
    if not isinstance(request_id, str) or not request_id or not isinstance(body, dict):
        raise ValueError('expected {"custom_id": "…", "method": "POST", "url": "/v1/chat/completions", "body": {…}}')
    if request.get("method", "POST") != "POST" or request.get("url", URLS[0]) not in URLS:
        raise ValueError(
            f"{request.get('method')} {request.get('url')} is not supported; only requests to {URLS[0]} (POST) are"
        )
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ValueError("body.messages is no list of messages")
    return {"custom_id": request_id, "messages": _dumped(messages), "sampling": _dumped(_sampling(body))}


def _sampling(body: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings of a request."""
    settings = {name: body[name] for name in body if name in _SAMPLING and body[name] is not None}
    for name, value in body.items():
        is_known = name in _SAMPLING or name in _NO_MATTER or value is None
        if not is_known and value not in _SAME_ANYWAY.get(name, ()):
            raise ValueError(f"body.{name} is not supported; {_INSTEAD.get(name, 'take it out of the requests')}")
    most = body.get("max_completion_tokens")
    if most is not None and settings.setdefault("max_tokens", most) != most:
        raise ValueError("body.max_tokens and body.max_completion_tokens differ; keep one")
    if body.get("logprobs"):
        settings["logprobs"] = body.get("top_logprobs") or 0
    return settings


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
