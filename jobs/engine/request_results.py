"""What vLLM gives of a finished request, as the result of its row."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from run_batch.jobs.job.rows import Candidates, Generation, RowFailure, RowResult, Timing, TokenLogprob

# How a generation ends regularly, of vLLM's FINISH_REASON_STRINGS. `repetition` comes only where a job or a row sets
# `repetition_detection`.
_REGULAR_ENDS = ("stop", "length", "repetition")


def result_of(output: Any, extra: Collection[str]) -> RowResult:
    """The result of a finished request; it fails with any of its sequences.

    Args:
        output: vLLM's RequestOutput.
        extra: of `output.extra`: what the result holds beside texts.
    """
    sequences = sorted(output.outputs, key=lambda sequence: sequence.index)
    for sequence in sequences:
        if sequence.finish_reason not in _REGULAR_ENDS:
            return RowFailure.of(
                int(output.request_id),
                "generation_failed",
                f"vLLM gave up after {len(sequence.token_ids)} tokens, with finish_reason {sequence.finish_reason}",
            )
    return _generation(output, sequences, extra)


def _generation(output: Any, sequences: Sequence[Any], extra: Collection[str]) -> Generation:
    first, *others = sequences
    return Generation(
        row=int(output.request_id),
        texts=tuple(sequence.text for sequence in sequences),
        finish_reason=first.finish_reason,
        prompt_tokens=len(output.prompt_token_ids),
        generated_tokens=sum(len(sequence.token_ids) for sequence in sequences),
        logprobs=None if first.logprobs is None else tuple(_logprobs(sequence.logprobs) for sequence in sequences),
        other_finish_reasons=tuple(sequence.finish_reason for sequence in others),
        token_ids=tuple(tuple(sequence.token_ids) for sequence in sequences) if "token_ids" in extra else None,
        stop_reasons=tuple(_stop_reason(sequence) for sequence in sequences) if "stop_reason" in extra else None,
        prompt_logprobs=_prompt_logprobs(output) if "prompt_logprobs" in extra else None,
        timing=_timing(output.metrics) if "timing" in extra else None,
    )


def _logprobs(positions: Sequence[Mapping[int, Any]]) -> tuple[Candidates, ...]:
    return tuple(tuple(sorted(_candidates(position), key=lambda candidate: candidate.rank)) for position in positions)


def _prompt_logprobs(output: Any) -> tuple[Candidates | None, ...] | None:
    """In vLLM's order, by which the token of the prompt is told from its candidates."""
    if output.prompt_logprobs is None:
        return None
    return tuple(None if position is None else _candidates(position) for position in output.prompt_logprobs)


def _candidates(position: Mapping[int, Any]) -> Candidates:
    return tuple(
        TokenLogprob(token_id, entry.decoded_token or "", entry.logprob, entry.rank or 0)
        for token_id, entry in position.items()
    )


def _stop_reason(sequence: Any) -> str | None:
    return None if sequence.stop_reason is None else str(sequence.stop_reason)


def _timing(metrics: Any) -> Timing:
    scheduled, first = metrics.scheduled_ts, metrics.first_token_ts
    return Timing(scheduled - metrics.queued_ts, first - scheduled, metrics.last_token_ts - first)
