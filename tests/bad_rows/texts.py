"""Prompts and sampling settings of rows."""

import json
from typing import Any

from bad_rows.row import BadRow, Make, case, good_image, of_bytes


def _prompts() -> None:
    """Prompts that are no text, too long, or text like any other in spite of their looks."""

    def prompt(name: str, text: bytes | None, *kinds: str) -> None:
        case(name, lambda rng: BadRow(kinds, of_bytes(good_image(rng)), text))

    prompt("null prompt", None, "prompt_null")
    prompt("prompt that is too long", b"x" * 300, "prompt_too_long")
    prompt("prompt of megabytes", b"is it even? " * 200_000, "prompt_too_long")
    every_private = "".join(map(chr, [*range(0xE000, 0xF900), *range(0xF0000, 0xF0100)]))
    prompt(
        "prompt of all private characters and a placeholder", (every_private + "<image>").encode(), "prompt_too_long"
    )
    for name, text in {
        "lone byte": b"is it \xff even?",
        "surrogate": b"is it \xed\xa0\x80 even?",
        "cut character": b"is it even\xe2\x82",
        "overlong slash": b"..\xc0\xaf..",
        "UTF-16": "is it even?".encode("utf-16"),
    }.items():
        prompt(f"invalid UTF-8: {name}", text, "text_encoding")
    for name, text in {
        "empty": b"",
        "white space": b" \t\r\n ",
        "with placeholder": b"is <image> it <image> even?",
        "with special tokens": b"</s><s>USER: is it even?</s><pad><unk>",
        "with NUL": b"is it\0 even?",
        "with control characters": b"is \x1b[31m it \x08\x7f even?",
        "with braces": b"{prompt} {0} {uid} {{}} %s",
        "in other scripts": "هل هو زوجي؟ 是偶数吗? 👩‍👩‍👧 e\u0301\u202e".encode(),
        "with private characters": "\ue000<image>\ue0010\ue000".encode(),
    }.items():
        prompt(f"prompt {name}", text)


def _sampling() -> None:
    """Settings of single rows that vLLM does not take, or that would hurt the other rows."""
    refused: dict[str, Any] = {
        "unknown key": {"temprature": 1.0},
        "wrong type": {"temperature": "hot"},
        "nested wrong type": {"stop": {"a": 1}},
        "negative temperature": {"temperature": -1.0},
        "top_p above one": {"top_p": 1.5},
        "top_k of minus five": {"top_k": -5},
        "no tokens": {"max_tokens": 0},
        "more tokens at least than at most": {"min_tokens": 9, "max_tokens": 3},
        "NaN temperature": {"temperature": float("nan")},
        "infinite temperature": {"temperature": float("inf")},
        "infinite penalty": {"presence_penalty": float("inf")},
        "NaN penalty": {"repetition_penalty": float("nan")},
        "a billion sequences": {"n": 10**9},
        "many sequences": {"n": 5000},
        "seed of many digits": {"seed": 10**30},
        "negative seed": {"seed": -(2**63) - 1},
        "more tokens than a number holds": {"max_tokens": 2**70},
        "decided key": {"output_kind": 0},
        "logprobs without a column": {"logprobs": 1},
        "logprobs of the prompt": {"prompt_logprobs": 1},
        "empty stop text": {"stop": [""]},
        "empty bad word": {"bad_words": [""]},
        "two constraints": {"structured_outputs": {"regex": "a", "choice": ["a"]}},
        "unknown constraint": {"structured_outputs": {"shape": "round"}},
        "list": ["temperature"],
        "number": 5,
        "text": "temperature",
    }
    refused_by_engine: dict[str, Any] = {
        "bias on a token that does not exist": {"logit_bias": {"99999999": 1.0}},
        "only a token that does not exist": {"allowed_token_ids": [99999999]},
        "no token allowed": {"allowed_token_ids": []},
        "stop token that does not exist": {"stop_token_ids": [2**40]},
        "negative stop token": {"stop_token_ids": [-1]},
        "pattern that is none": {"structured_outputs": {"regex": "((("}},
        "constraint of no choice": {"structured_outputs": {"choice": []}},
    }
    for name, settings in refused.items():
        case(f"sampling: {name}", _with_sampling(json.dumps(settings), "sampling"))
    for name, settings in refused_by_engine.items():
        case(f"sampling: {name}", _with_sampling(json.dumps(settings), "refused"))
    for name, text in {
        "not JSON": "temperature=1",
        "empty text": "",
        "JSON of great depth": "[" * 100_000,
        "number of many digits": '{"seed": ' + "9" * 10_000 + "}",
    }.items():
        case(f"sampling: {name}", _with_sampling(text, "sampling"))
    for name, text in {
        "nothing set": "{}",
        "null": "null",
        "null setting": '{"temperature": null}',
        "lone surrogate to stop at": '{"stop": "\\ud800"}',
        "settings that fit": '{"max_tokens": 3, "temperature": 0, "stop": ["zzz"]}',
        "choice": '{"structured_outputs": {"choice": ["yes", "no"]}}',
    }.items():
        case(f"sampling that works: {name}", _with_sampling(text))


def _with_sampling(text: str, *kinds: str) -> Make:
    return lambda rng: BadRow(kinds, of_bytes(good_image(rng)), sampling=text)


_prompts()
_sampling()
