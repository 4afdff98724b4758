"""What a report tells of answers: how they ended, how long they are, which are frequent, which were expected."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from run_batch.jobs.watch.charts import token_chart
from run_batch.jobs.watch.page import block, group, note, table
from run_batch.jobs.watch.report_numbers import Numbers

_LISTED = 20
# A confusion table of more texts is no table to look at.
_CLASSES = 24
# Colors of its cells, in page.css.
_HEATS = 4


def answers(numbers: Numbers, shards: int) -> list[str]:
    """What is told of the answers of all rows, as HTML.

    Args:
        shards: that are committed.
    """
    if not numbers.rows:
        return []
    of_all = f"Of {numbers.rows:,} rows, in {numbers.shards:,} of {shards:,} committed shards."
    generated = token_chart(numbers.answer_bits, "How many rows have generated how many tokens")
    prompts = token_chart(numbers.prompt_bits, "How many rows have how many tokens in their prompt")
    return [
        block("How they ended", note(of_all), table(_endings(numbers), ("finish reason", "rows", "part"))),
        block("Empty and repeated answers", *_repeated(numbers)),
        block("Rows by generated tokens", generated),
        block("Rows by tokens of the prompt, images included", prompts),
    ]


def _repeated(numbers: Numbers) -> list[str]:
    """How many answers are empty, 0 too, and which are frequent, as HTML."""
    found = [(text, count) for text, count in numbers.repeated.most_common(_LISTED) if text.strip()]
    rows = [(text, f"{count:,}", f"{count / numbers.rows:.2%}") for text, count in [("(empty)", numbers.empty), *found]]
    known = (
        "Answers of several rows of a shard, the most frequent ones:"
        if found
        else "No answer is repeated in its shard."
    )
    return [note(known), table(rows, ("answer", "rows", "part"))]


def expected_texts(numbers: Numbers, compared: int) -> list[str]:
    """What is told of expected texts and answers, as HTML.

    Args:
        compared: rows whose answer was compared with an expected text.
    """
    uncounted = compared - numbers.pairs.total()
    rare = f" {uncounted:,} with an answer that is rare in their shard are not counted here." if uncounted > 0 else ""
    # Of how many rows expect a text, all shards tell, or it is not told.
    expecting = numbers.expecting if numbers.expecting.total() == compared else Counter()
    wrong, (names, classes, marks) = _mistakes(numbers, expecting), _confusion(numbers, expecting)
    of_all = f"Of {compared:,} rows that expect a text and did not fail, the most frequent other answers:{rare}"
    mistakes = table(wrong, ("expected", "answered", "rows", "of those that expect it"))
    confusion = [
        note("Rows by expected text, down, and answer, across. Rows of all prompts are counted together."),
        table(classes, names, marks),
    ]
    return [
        group("mistakes", note(of_all), mistakes) if wrong else "",
        group("confusion", *confusion) if classes else "",
    ]


def _endings(numbers: Numbers) -> list[tuple[str, str, str]]:
    """How rows ended: reason, rows, part of all."""
    return [
        (reason, f"{count:,}", f"{count / numbers.rows:.2%}") for reason, count in numbers.finish_reasons.most_common()
    ]


def _mistakes(numbers: Numbers, expecting: Counter[str]) -> list[tuple[str, str, str, str]]:
    """The most frequent texts that are not the expected one: expected, text, rows, part of the rows that expect it.

    Args:
        expecting: how many rows expect each text; empty where that is not known of all.
    """
    wrong = Counter({pair: count for pair, count in numbers.pairs.items() if pair[0] != pair[1]})
    return [
        (expected, text, f"{count:,}", f"{count / expecting[expected]:.1%}" if expecting else "")
        for (expected, text), count in wrong.most_common(_LISTED)
    ]


def _confusion(
    numbers: Numbers, expecting: Counter[str]
) -> tuple[list[str], list[list[str]], dict[tuple[int, int], str]]:
    """A row of the table for each expected text, a column for each text; their names; and how cells stand out. Nothing
    of too many texts.

    Args:
        expecting: see `_mistakes`.
    """
    rows: dict[str, Counter[str]] = defaultdict(Counter)
    for (wanted, text), count in numbers.pairs.items():
        rows[wanted][text] += count
    expected = _ordered(rows)
    if not 2 <= len(expected) <= _CLASSES:
        return [], [], {}
    # Texts that nobody expects are many where a model talks: they share a column.
    others = {text for counts in rows.values() for text in counts} - rows.keys()
    table = []
    for name in expected:
        counts = rows[name]
        rest = [sum(counts[text] for text in others)] if others else []
        cells = [f"{n:,}" if n else "" for n in [*(counts[text] for text in expected), *rest]]
        whole = [f"{expecting[name]:,}", f"{counts[name] / expecting[name]:.1%}"] if expecting else []
        table.append([name, *cells, *whole])
    sums = ["rows", "as expected"] if expecting else []
    return ["expected", *expected, *(["others"] if others else []), *sums], table, _marks(expected, rows)


def _marks(expected: Sequence[str], rows: Mapping[str, Counter[str]]) -> dict[tuple[int, int], str]:
    """Of a confusion table: cells of equal texts, and cells of others by how many rows they have."""
    highest = max((rows[wanted][text] for wanted in expected for text in expected if wanted != text), default=0)
    marks = {}
    for y, wanted in enumerate(expected):
        for x, text in enumerate(expected, 1):
            count = rows[wanted][text]
            if wanted == text:
                marks[y, x] = "same"
            elif count:
                marks[y, x] = f"heat{-(-count * _HEATS // highest)}"
    return marks


def _ordered(texts: Iterable[str]) -> list[str]:
    """In the order of numbers where they are numbers, else of letters."""
    return sorted(texts, key=lambda text: (not text.isdecimal(), int(text) if text.isdecimal() else 0, text))
