"""What a report tells of all rows: the sketches of the committed shards, put together."""

import heapq
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import TypeVar

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.results.shard_sketch import ShardSketch, read_sketches

# Rows that stand out, of all shards together.
_STANDING_OUT = 16
# Different texts that are counted at the same time: of more, the rarest are forgotten.
_TEXTS = 10_000

Item = TypeVar("Item")


@dataclass(slots=True)
class Numbers:
    """The sketches of several shards, put together; see ShardSketch.

    Attributes:
        shards, rows: that have a sketch.
        finish_reasons, prompt_bits, answer_bits, empty, repeated, expecting, pairs, longest, slowest: see ShardSketch.
            Texts and pairs that are frequent in no shard are not counted.
    """

    shards: int = 0
    rows: int = 0
    finish_reasons: Counter[str] = field(default_factory=Counter)
    prompt_bits: Counter[int] = field(default_factory=Counter)
    answer_bits: Counter[int] = field(default_factory=Counter)
    empty: int = 0
    repeated: Counter[str] = field(default_factory=Counter)
    expecting: Counter[str] = field(default_factory=Counter)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    longest: list[tuple[int, int]] = field(default_factory=list)
    slowest: list[tuple[float, int]] = field(default_factory=list)

    def add(self, sketch: ShardSketch) -> None:
        """Take in one more shard."""
        self.shards += 1
        self.rows += sum(sketch.finish_reasons.values())
        self.finish_reasons.update(sketch.finish_reasons)
        self.prompt_bits.update(sketch.prompt_bits)
        self.answer_bits.update(sketch.answer_bits)
        self.empty += sketch.empty
        self.repeated.update(dict(sketch.repeated))
        self.expecting.update(dict(sketch.expecting))
        self.pairs.update({(expected, text): count for expected, text, count in sketch.pairs})
        self.longest = heapq.nlargest(_STANDING_OUT, [*self.longest, *sketch.longest])
        self.slowest = heapq.nlargest(_STANDING_OUT, [*self.slowest, *sketch.slowest])
        self.repeated, self.expecting = _pruned(self.repeated), _pruned(self.expecting)
        self.pairs = _pruned(self.pairs)


def _pruned(counts: Counter[Item]) -> Counter[Item]:
    return counts if len(counts) <= 2 * _TEXTS else Counter(dict(counts.most_common(_TEXTS)))


def read_numbers(store: ShardStore, shards: Collection[int]) -> Numbers:
    """What is known of all rows of some committed shards.

    Raises:
        OSError: a file cannot be read.
    """
    numbers = Numbers()
    for sketch in read_sketches(store, shards):
        numbers.add(sketch)
    return numbers
