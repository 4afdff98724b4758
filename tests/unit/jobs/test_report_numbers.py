"""What the report says of all rows: sketches of shards, and what is made of them."""

import re
from pathlib import Path
from typing import Any

import pytest
from report_pages import cells_of

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.results.shard_sketch import read_sketches, record_sketch, sketch_results
from run_batch.jobs.watch.report_answers import answers, expected_texts
from run_batch.jobs.watch.report_numbers import Numbers


def generation(row: int, text: str, tokens: int = 1) -> Generation:
    return Generation(row, (text,), "stop", 3, tokens)


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    store = ShardStore(tmp_path)
    store.create()
    return store


def test_a_shard_is_sketched_by_its_own_rows_and_the_latest_sketch_counts(store: ShardStore) -> None:
    results = [generation(0, "9", 5), generation(1, "9", 1), generation(2, " "), RowFailure(3, "bad", "why")]
    sketch = sketch_results((0, 0, 1.0), results, ["4", "9", None, "9"], [(2.5, 1)])
    assert (sketch.finish_reasons, sketch.empty, sketch.repeated) == ({"stop": 3, "error": 1}, 1, [("9", 2)])
    assert sorted(sketch.pairs) == [("4", "9", 1), ("9", "9", 1)] and sketch.longest == [(5, 0), (1, 2)]
    assert sketch.prompt_bits == {2: 3} and sketch.answer_bits == {3: 1, 1: 2}
    record_sketch(store, sketch)
    with open(store.own_folder / "sketches.jsonl", "ab") as file:
        file.write(b'{"shard": 0, "att\n')  # torn
    again = sketch_results((0, 1, 0.5), [generation(0, "4")] * 2, None, [])
    record_sketch(store, again)
    assert list(read_sketches(store, {0})) == [again] and not list(read_sketches(store, {1}))


def test_a_line_is_short_whatever_is_in_the_shard(store: ShardStore) -> None:
    results = [generation(row, f"{row} " * 1000) for row in range(2000)]
    expected = [f"{row + row % 2} " * 1000 for row in range(2000)]
    sketch = sketch_results((0, 0, 1.0), results, expected, [])
    record_sketch(store, sketch)
    assert (store.own_folder / "sketches.jsonl").stat().st_size < 8000
    assert sum(wanted == text for wanted, text, _ in sketch.pairs) == 24 and len(sketch.pairs) > 50


def test_the_most_frequent_mistake_and_the_confusion_of_classes_are_told() -> None:
    numbers = Numbers()
    wrong = [("4", 3), ("5", 1)]
    results = [generation(row, "9") for row in range(10)]
    expected = [digit for digit, count in wrong for _ in range(count)] + ["9"] * 6
    numbers.add(sketch_results((0, 0, 1.0), results, expected, []))
    mistakes, confusion = expected_texts(numbers, 10)
    assert cells_of(mistakes) == ["4", "9", "3", "100.0%", "5", "9", "1", "100.0%"]
    assert re.findall(r"<th [^>]*>([^<]*)", confusion) == ["expected", "4", "5", "9", "rows", "as expected"]
    four, five, nine = (
        ["4", "", "", "3", "3", "0.0%"],
        ["5", "", "", "1", "1", "0.0%"],
        ["9", "", "", "6", "6", "100.0%"],
    )
    assert cells_of(confusion) == [*four, *five, *nine]
    assert re.findall(r"<td class=(\w+)><pre[^>]*>(\d+)<", confusion) == [("heat4", "3"), ("heat2", "1"), ("same", "6")]
    assert "Of 10 rows that expect a text" in mistakes and "not counted" not in mistakes


def test_all_mistakes_of_ten_classes_are_counted() -> None:
    numbers = Numbers()
    for shard in range(2):
        expected = [str(row // 11) for row in range(110)]
        results = [generation(row, str(row % 11 % 10)) for row in range(110)]  # each class is answered in ten ways
        numbers.add(sketch_results((shard, 0, 1.0), results, expected, []))
    mistakes, confusion = expected_texts(numbers, 220)
    cells = cells_of(confusion)
    lines = [cells[start : start + 13] for start in range(0, len(cells), 13)]
    assert lines[0] == ["0", "4", *["2"] * 9, "22", "18.2%"] and lines[9] == ["9", "4", *["2"] * 9, "22", "9.1%"]
    assert "not counted" not in mistakes


def test_parts_of_classes_are_told_only_where_all_rows_are_counted() -> None:
    numbers = Numbers()
    numbers.add(sketch_results((0, 0, 1.0), [generation(0, "9"), generation(1, "4")], ["4", "9"], []))
    mistakes, confusion = expected_texts(numbers, 3)  # the sketch of another shard is lost
    assert cells_of(mistakes) == ["4", "9", "1", "", "9", "4", "1", ""]
    assert cells_of(confusion) == ["4", "", "1", "9", "1", ""]
    assert "1 with an answer that is rare" in mistakes


def test_long_texts_that_begin_alike_are_neither_equal_nor_repeated() -> None:
    long = "x" * 50
    results = [generation(0, f"{long}b"), generation(1, long), generation(2, f"{long}c"), generation(3, long)]
    sketch = sketch_results((0, 0, 1.0), results, [f"{long}a", long, None, None], [])
    (repeated,) = sketch.repeated
    assert repeated[0].startswith("x" * 40 + "… #") and repeated[1] == 2
    assert sorted(wanted == text for wanted, text, _ in sketch.pairs) == [False, True]
    other = sketch_results((1, 0, 1.0), [generation(4, f"{long}b")] * 2, None, [])
    numbers = Numbers()
    for each in (sketch, other):
        numbers.add(each)
    assert sorted(numbers.repeated.values()) == [2, 2]


def test_mistakes_of_many_expected_texts_have_no_table_of_all_pairs() -> None:
    many = Numbers()
    texts = [str(row) for row in range(100)]
    for shard in range(5):
        rows = range(20 * shard, 20 * shard + 20)
        shown = [generation(row, "x") for row in rows]
        many.add(sketch_results((shard, 0, 1.0), shown, [texts[row] for row in rows], []))
    (mistakes, confusion) = expected_texts(many, 103)
    assert "x" in cells_of(mistakes) and not confusion, "a table of a hundred classes"
    assert "3 with an answer that is rare in their shard are not counted here" in mistakes


def test_answers_are_told_by_how_often_they_are_repeated_how_they_ended_and_their_tokens() -> None:
    numbers = Numbers()
    for shard in range(2):
        texts = ["yes"] * 3 + ["no"] * 2 + [" "] * 2 + ["once"]
        results: list[Any] = [generation(row, text, 1 + row) for row, text in enumerate(texts)]
        results += [RowFailure(8, "bad", "why"), Generation(9, ("cut",), "length", 3, 100)]
        numbers.add(sketch_results((shard, 0, 1.0), results, None, []))
    html = "".join(answers(numbers, 9))
    assert html.count("20 rows, in 2 of 9 committed shards") == 1
    endings = ["stop", "16", "80.00%", "error", "2", "10.00%", "length", "2", "10.00%"]
    repeated = ["(empty)", "4", "20.00%", "yes", "6", "30.00%", "no", "4", "20.00%"]
    assert "No answer is repeated" not in html
    assert cells_of(html) == [*endings, *repeated], "answers of one row are repeated by none"
    bars = re.findall(r"<title>([-\d,]+): (\d+) rows</title>", html)
    generated = [("1", "2"), ("2-3", "4"), ("4-7", "8"), ("8-15", "2"), ("16-31", "0"), ("32-63", "0"), ("64-127", "2")]
    assert bars == [*generated, ("2-3", "18")]


def test_that_no_answer_is_empty_or_repeated_is_told() -> None:
    numbers = Numbers()
    numbers.add(sketch_results((0, 0, 1.0), [generation(0, "a"), generation(1, "b")], None, []))
    html = "".join(answers(numbers, 1))
    assert cells_of(html) == ["stop", "2", "100.00%", "(empty)", "0", "0.00%"]
    assert "No answer is repeated in its shard." in html


def test_the_longest_and_the_slowest_rows_are_those_of_all_shards() -> None:
    numbers = Numbers()
    for shard in range(30):
        results = [generation(10 * shard + row, "x", 100 + (7 * shard) % 30 - 50 * row) for row in range(3)]
        numbers.add(sketch_results((shard, 0, 1.0), results, None, [(0.5 * ((11 * shard) % 30), 10 * shard)]))
    assert [tokens for tokens, _ in numbers.longest] == list(range(129, 113, -1)) and numbers.longest[0] == (129, 170)
    assert [seconds for seconds, _ in numbers.slowest] == [0.5 * place for place in range(29, 13, -1)]
    assert numbers.slowest[0] == (14.5, 190)
