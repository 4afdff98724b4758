"""What the report tells of all rows without reading them: a sketch of each shard, a line of JSON, written with it.

A line takes some kilobytes at most, whatever is in the shard. A line that is lost costs nothing but what the report
would have told of its shard.
"""

import contextlib
import heapq
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.rows import Generation, RowFailure, RowResult
from run_batch.jobs.job.shares import files_of_shares

_FILE = "sketches.jsonl"
# Of each shard: rows that stand out, texts that are frequent, and of these so many characters.
STANDING_OUT, _FREQUENT, _CHARACTERS = 2, 24, 40
# Bytes of all pairs of texts that are not equal: of ten classes, all pairs are kept.
_MISTAKE_BYTES = 3500


class ShardSketch(msgspec.Struct, frozen=True):
    """What stands for the rows of a shard.

    Attributes:
        shard, attempt, time: see Commit.
        finish_reasons: how many rows ended so; of a row that failed, `error`.
        prompt_bits, answer_bits: how many rows have 0 tokens, 1, 2 to 3, 4 to 7, ...: by the bits of the number.
        empty: rows whose text has nothing but white space.
        repeated: the most frequent texts that several rows have, and how many have them; long texts are cut.
        expecting: the most frequent expected texts, and how many rows that did not fail have them; long texts are cut.
        pairs: the most frequent pairs of expected text and text, of equal ones and of others, and how many rows have
            them; long texts are cut.
        longest: tokens and row of those with the most tokens.
        slowest: seconds and row of those that were in the engine for longest, waiting included.
    """

    shard: int
    attempt: int
    time: float
    finish_reasons: dict[str, int]
    prompt_bits: dict[int, int]
    answer_bits: dict[int, int]
    empty: int
    repeated: list[tuple[str, int]]
    expecting: list[tuple[str, int]]
    pairs: list[tuple[str, str, int]]
    longest: list[tuple[int, int]]
    slowest: list[tuple[float, int]]


class _Place(msgspec.Struct, frozen=True):
    """Which shard a line is of."""

    shard: int
    attempt: int
    time: float

    @property
    def age(self) -> tuple[int, float]:
        return self.attempt, self.time


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(ShardSketch)
_place_decoder = msgspec.json.Decoder(_Place)


def sketch_results(
    place: tuple[int, int, float],
    results: Sequence[RowResult],
    expected: Sequence[str | None] | None,
    slowest: Sequence[tuple[float, int]],
) -> ShardSketch:
    """The sketch of a shard that holds these results.

    Args:
        place: shard, attempt and time.
        expected: of each row, the text that is expected; None where none is.
        slowest: see ShardSketch.
    """
    worked = [result for result in results if not isinstance(result, RowFailure)]
    answers = [result for result in worked if isinstance(result, Generation)]
    texts = Counter(_cut(result.texts[0]) for result in answers)
    pairs = Counter(
        (_cut(text), _cut(result.texts[0]))
        for result, text in zip(results, expected or (), strict=False)
        if text is not None and isinstance(result, Generation)
    )
    expecting: Counter[str] = Counter()
    for (text, _), count in pairs.items():
        expecting[text] += count
    return ShardSketch(
        *place,
        finish_reasons=dict(Counter(map(_reason, results))),
        prompt_bits=dict(Counter(result.prompt_tokens.bit_length() for result in worked)),
        answer_bits=dict(Counter(result.generated_tokens.bit_length() for result in answers)),
        empty=sum(count for text, count in texts.items() if not text.strip()),
        repeated=[(text, count) for text, count in texts.most_common(_FREQUENT) if count > 1],
        expecting=expecting.most_common(_FREQUENT),
        pairs=_frequent_pairs(pairs),
        longest=heapq.nlargest(STANDING_OUT, ((result.generated_tokens, result.row) for result in answers)),
        slowest=list(slowest),
    )


def _frequent_pairs(pairs: Counter[tuple[str, str]]) -> list[tuple[str, str, int]]:
    """The most frequent pairs, of equal texts and of others: mistakes are rare."""
    equal = Counter({pair: count for pair, count in pairs.items() if pair[0] == pair[1]})
    chosen, left = [(*pair, count) for pair, count in equal.most_common(_FREQUENT)], _MISTAKE_BYTES
    for pair, count in (pairs - equal).most_common():
        found = (*pair, count)
        left -= len(_encoder.encode(found))
        if left < 0:
            break
        chosen.append(found)
    return chosen


def _reason(result: RowResult) -> str:
    if isinstance(result, RowFailure):
        return "error"
    return result.finish_reason if isinstance(result, Generation) else "none"


def _cut(text: str) -> str:
    """A text, or its beginning, with a checksum: others that begin alike are not taken for it."""
    if len(text) <= _CHARACTERS:
        return text
    return f"{text[:_CHARACTERS]}… #{zlib.crc32(text.encode(errors='surrogatepass')):08x}"


def record_sketch(store: ShardStore, sketch: ShardSketch) -> None:
    """Append a line to the process's own file; it is for people, so a failure to write it is none of the run's."""
    with contextlib.suppress(OSError), open(store.own_folder / _FILE, "ab") as file:
        file.write(_encoder.encode(sketch) + b"\n")


def read_sketches(store: ShardStore, shards: Collection[int]) -> Iterator[ShardSketch]:
    """The latest sketch of each of some shards, in no order; of a shard without one, none.

    Raises:
        OSError: a file cannot be read.
    """
    latest: dict[int, tuple[int, float]] = {}
    for line in _lines(store):
        with contextlib.suppress(msgspec.MsgspecError):  # torn by a crash
            place = _place_decoder.decode(line)
            if place.shard in shards and place.age > latest.get(place.shard, (-1, 0.0)):
                latest[place.shard] = place.age
    for line in _lines(store):
        with contextlib.suppress(msgspec.MsgspecError):
            sketch = _decoder.decode(line)
            if latest.get(sketch.shard) == (sketch.attempt, sketch.time):
                yield sketch
                del latest[sketch.shard]


def _lines(store: ShardStore) -> Iterator[bytes]:
    folder = store.run_folder
    for path in [folder / _FILE, *files_of_shares(folder, _FILE)]:
        with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
            yield from file
