"""The rows of a trial, for people and as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from typing import Any

import numpy as np

from run_batch.jobs.job.rows import Generation, MappedRow, Pooled, RowFailure, RowResult
from run_batch.jobs.trial.forecast import Forecast, forecast_lines
from run_batch.jobs.trial.image_facts import ImageFacts
from run_batch.jobs.trial.prompt_text import media_tokens, prompt_text, special_names_in_text
from run_batch.jobs.trial.shown_text import block, escaped
from run_batch.jobs.trial.timed_generation import Generated
from run_batch.jobs.trial.trial_rows import TrialRows

# Of an embedding.
_VALUES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class TriedRow:
    """A row of a trial.

    Attributes:
        row: index in the input.
        prompt: as the model got it; None where the row was not mapped.
        prompt_tokens: with image tokens.
        plain_text: names of special tokens that stand in the prompt as plain text, and how often.
        images: of the prompt; of a row that fails, those that it has.
        image_tokens: of each image in the prompt.
        seconds: in the engine, beside the other rows; None where it did not get there.
    """

    row: int
    row_id: str
    prompt: str | None
    prompt_tokens: int
    plain_text: dict[str, int]
    images: list[ImageFacts]
    image_tokens: list[int]
    result: RowResult
    seconds: float | None


def tried_rows(rows: TrialRows, generated: Generated) -> list[TriedRow]:
    """All rows of a trial, those that were not mapped too."""
    return [_tried_row(rows, mapped, generated) for mapped in rows.results]


def _tried_row(rows: TrialRows, mapped: MappedRow | RowFailure, generated: Generated) -> TriedRow:
    prompt, tokens, plain, of_media = None, 0, dict[str, int](), list[int]()
    if isinstance(mapped, MappedRow):
        prompt = prompt_text(rows.tokenizer, mapped.engine_input)
        tokens = len(mapped.engine_input["prompt_token_ids"])
        plain = special_names_in_text(rows.tokenizer, mapped.engine_input)
        of_media = media_tokens(mapped.engine_input)
    return TriedRow(
        row=mapped.row,
        row_id=rows.ids[mapped.row],
        prompt=prompt,
        prompt_tokens=tokens,
        plain_text=plain,
        images=rows.images[mapped.row],
        image_tokens=of_media,
        result=mapped if isinstance(mapped, RowFailure) else generated.results[mapped.row],
        seconds=generated.seconds.get(mapped.row),
    )


def as_text(rows: Sequence[TriedRow], found: Forecast | None, full: bool) -> str:
    """The trial for people.

    Args:
        full: show long prompts and answers whole.
    """
    lines = [line for row in rows for line in [*_row_lines(row, full), ""]]
    return "\n".join([*lines, *forecast_lines(found)])


def _row_lines(row: TriedRow, full: bool) -> list[str]:
    lines = [f"row {escaped(row.row_id)} (number {row.row} of the input, counted from 0)"]
    if row.prompt is not None:
        lines += [f"  prompt, {row.prompt_tokens} tokens:", *_indented(row.prompt, full)]
    if row.plain_text:
        names = ", ".join(f"{escaped(name)} ({count} x)" for name, count in row.plain_text.items())
        lines.append(f"    in it as plain text, not as tokens: {names}")
    lines += _image_lines(row)
    if isinstance(row.result, RowFailure):
        return [*lines, f"  error: {escaped(row.result.error)}"]
    if isinstance(row.result, Pooled):
        return [*lines, f"  {_pooled_text(row.result)}, {row.seconds:.2f} s in the engine beside the other rows"]
    result, count = row.result, len(row.result.texts)
    how = f"ended by {result.finish_reason}, {row.seconds:.2f} s in the engine beside the other rows"
    if count == 1:
        return [*lines, f"  answer, {result.generated_tokens} tokens, {how}:", *_indented(result.texts[0], full)]
    lines.append(f"  {count} answers, {result.generated_tokens} tokens together, the first {how}:")
    for number, text in enumerate(result.texts, 1):
        lines += [f"    answer {number}:", *_indented(text, full)]
    return lines


def _pooled_text(result: Pooled) -> str:
    """The numbers of a pooling model, a long vector by its beginning."""
    values = np.frombuffer(result.values, np.float32)
    shown = ", ".join(f"{value:.6g}" for value in values[:_VALUES_SHOWN])
    more = f", … ({len(values)} numbers)" if len(values) > _VALUES_SHOWN else ""
    return f"result: {shown}{more}"


def _indented(text: str, full: bool) -> list[str]:
    return [f"    {line}" for line in block(text, full)]


def _image_lines(row: TriedRow) -> list[str]:
    images, tokens = row.images, row.image_tokens
    numbers = {medium: count(1) for medium in ("image", "video")}
    lines = [f"  {image.medium} {next(numbers[image.medium])}: {image}" for image in images]
    if len(images) == len(tokens):
        return [f"{line}, {number} tokens" for line, number in zip(lines, tokens, strict=True)]
    # A row that fails has no tokens.
    return lines + [f"  placeholders {i}: {number} tokens" for i, number in enumerate(tokens, 1)]


def as_json(rows: Sequence[TriedRow], found: Forecast | None) -> str:
    """The trial on one line of ASCII, texts whole."""
    return json.dumps({"rows": [_as_dict(row) for row in rows], "forecast": None if found is None else asdict(found)})


def _as_dict(row: TriedRow) -> dict[str, Any]:
    result = row.result
    common = {
        "row_id": row.row_id,
        "row": row.row,
        "prompt": row.prompt,
        "prompt_tokens": row.prompt_tokens if row.prompt is not None else None,
        "special_names_in_text": row.plain_text,
        "images": [{"what": image.what, "shape": list(image.shape), "bytes": image.nbytes} for image in row.images],
        "image_tokens": row.image_tokens,
        "seconds": row.seconds,
    }
    if isinstance(result, Generation):
        ended = {"finish_reason": result.finish_reason, "generated_tokens": result.generated_tokens, "error": None}
        return {**common, "texts": list(result.texts), **ended}
    if isinstance(result, Pooled):
        values = np.frombuffer(result.values, np.float32).tolist()
        return {**common, "texts": None, "values": values, "finish_reason": None, "generated_tokens": 0, "error": None}
    return {**common, "texts": None, "finish_reason": None, "generated_tokens": None, "error": result.error}
