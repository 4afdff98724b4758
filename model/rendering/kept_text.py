"""Checks that an input processor keeps the prompt's text: it may put tokens in a placeholder's place, and no others."""

from collections.abc import Callable, Sequence

from run_batch.model.declaration import PlaceholderRange


def first_change(
    before: Sequence[int], after: Sequence[int], placeholders: Sequence[PlaceholderRange]
) -> tuple[int, int] | None:
    """Where the text of a prompt changes first.

    Args:
        before: the prompt's tokens, with what stands for its images.
        after: the expanded prompt's tokens.
        placeholders: the ranges of `after` that take the images' places. Each replaces one token of `before`; or none,
            for a model whose prompts need no placeholder; or several tokens that are all in the range itself, in order.

    Returns:
        The positions in `before` and `after` of the first token outside the ranges that differs, or that has no
        counterpart; None where all are equal.
    """
    if _walk(before, after, placeholders, lambda *_: 1) is None:
        return None
    return _walk(before, after, placeholders, _replaced)


def _walk(
    before: Sequence[int],
    after: Sequence[int],
    placeholders: Sequence[PlaceholderRange],
    replaced: Callable[[Sequence[int], Sequence[int], Sequence[int], bool], int],
) -> tuple[int, int] | None:
    """The first change, where `replaced` tells how many tokens of `before` a range replaces."""
    at_before = at_after = 0
    ends = [*(r.offset for r in placeholders), len(after)]
    for number, end in enumerate(ends):
        text = after[at_after:end]
        if before[at_before : at_before + len(text)] != text:
            same = _common_prefix(before[at_before:], text)
            return at_before + same, at_after + same
        at_before += len(text)
        if number < len(placeholders):
            at_after = end + placeholders[number].length
            following = after[at_after : ends[number + 1]]
            at_before += replaced(before[at_before:], after[end:at_after], following, number + 2 == len(ends))
    return None if at_before == len(before) else (at_before, len(after))


def _replaced(rest: Sequence[int], run: Sequence[int], following: Sequence[int], is_last: bool) -> int:
    """How many tokens of `rest` the range `run` replaces, so that the text goes on with `following`."""
    inside = iter(run)
    longest = next((i for i, token in enumerate(rest) if token not in inside), len(rest))
    if not following and not is_last:
        return longest
    for count in (1, 0, *range(2, longest + 1)):
        end = count + len(following)
        if rest[count:end] == following and (not is_last or end == len(rest)):
            return count
    return min(1, longest)


def _common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((i for i, (one, other) in pairs if one != other), min(len(first), len(second)))
