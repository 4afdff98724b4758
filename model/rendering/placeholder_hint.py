"""What the error of a row with more or fewer placeholders than images says of the text that stands for an image."""

from typing import Any

_SHOWN = 12


def placeholder_hint(tokenizer: Any, placeholder: str | None) -> str:
    """What stands for an image in prompts of a declared model, and what to do where the tokenizer does not know it.

    Args:
        placeholder: `get_placeholder_str` of the model class; None gives no hint.
    """
    if not placeholder:
        return ""
    ids = tokenizer.encode(placeholder, add_special_tokens=False)
    # The text may also have tokens around the one that stands for the image: `<|vision_start|><|image_pad|>`.
    if any(token in tokenizer.added_tokens_decoder and token != tokenizer.unk_token_id for token in ids):
        return f"; {placeholder} stands for an image"
    if len(ids) == 1 and ids[0] != tokenizer.unk_token_id:
        return f"; {placeholder} stands for an image"
    count = f"{len(ids)} token{'s' * (len(ids) != 1)}"
    tokens = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(ids[:_SHOWN]))) + ", ..." * (len(ids) > _SHOWN)
    added = f'tokenizer.add_special_tokens({{"additional_special_tokens": ["{placeholder}"]}})'
    return (
        f"; {placeholder} is {count} in this tokenizer ({tokens}), and an image needs one of its own: have "
        "get_placeholder_str and prompts name a token that the tokenizer has, or add this one by "
        f"{added} and save_pretrained, and give its id to the input processor"
    )
