"""Operations on many bytes at once, on processors with AVX2, for code that numba compiles: the inner loops of a resize.

An instruction multiplies two rows with their weights and adds both, 32 values after each other, and others interleave
the bytes of two rows, which transposes a block in four steps; the loops that numba compiles use neither.
"""

import functools
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from run_batch.model.images.resize import LOW_BITS

# Bytes of a register: values that are summed at once, and rows of a block that is transposed.
LANES = 32
# Columns of a block that is transposed.
COLUMNS = LANES // 2
# Bytes that are copied at once where there are less than `LANES`.
FEW = 8
# Bytes that a processor fetches at once.
CACHE_LINE = 64

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_HALF = ir.VectorType(ir.IntType(8), COLUMNS)
_WORDS = ir.VectorType(ir.IntType(16), LANES // 2)
_SUMS = ir.VectorType(_I32, LANES // 4)


def has_lanes() -> bool:
    """Whether the processor has AVX2."""
    return bool(binding.get_host_cpu_features().get("avx2"))


@intrinsic  # type: ignore[untyped-decorator]
def sum_lanes(
    context: Any,
    rows: Any,
    first: Any,
    stride: Any,
    pairs: Any,
    weights: Any,
    first_weight: Any,
    bits: Any,
    new: Any,
    target: Any,
) -> Any:
    """Sum `LANES` values of 2 * `pairs` rows, from byte `first` of `rows` on, into those from `target` of `new` on.

    The sum is rounded, and clipped to bytes. `weights`, from `first_weight` on, are int16, in units of 2 ** -`bits`: of
    two dimensions, or of three, (new rows, 2, most rows), multiples of 2 ** `LOW_BITS`, and what remains.
    """
    return types.none(rows, first, stride, pairs, weights, first_weight, bits, new, target), _sum_lanes


def _sum_lanes(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    data, lanes = _pointers(context, builder, signature, arguments), _Lanes(builder)
    rows, weights, new = data(0), data(4), data(7)
    _, first, stride, pairs, _, first_weight, bits, _, target = arguments
    bits = builder.trunc(bits, _I32)
    half = lanes.all(builder.shl(_I32(1), builder.sub(bits, _I32(1))))
    starts, firsts = [first_weight], [half]
    if signature.args[4].ndim == 3:
        shape = context.make_array(signature.args[4])(context, builder, arguments[4]).shape
        most = cgutils.unpack_tuple(builder, shape)[2]
        starts, firsts = [first_weight, builder.add(first_weight, most)], [lanes.all(_I32(0)), half]
    parts = [[cgutils.alloca_once_value(builder, value) for _ in range(4)] for value in firsts]
    with cgutils.for_range(builder, pairs, intp=_I64) as loop:
        pair = builder.mul(loop.index, _I64(2))
        row = builder.gep(rows, [builder.add(first, builder.mul(pair, stride))])
        both = lanes.pairs_of_words(lanes.load(row, _BYTES), lanes.load(builder.gep(row, [stride]), _BYTES))
        for start, sums in zip(starts, parts, strict=True):
            weight = lanes.load(builder.gep(weights, [builder.add(start, pair)]), _I32)
            weight = builder.bitcast(lanes.all(weight), _WORDS)
            for place, words in zip(sums, both, strict=True):
                product = lanes.call("avx2.pmadd.wd", _SUMS, words, weight)
                builder.store(builder.add(builder.load(place), product), place)
    values = [builder.load(place) for place in parts[-1]]
    if len(parts) == 2:
        multiples = [builder.shl(builder.load(place), lanes.all(_I32(LOW_BITS))) for place in parts[0]]
        values = [builder.add(*both) for both in zip(values, multiples, strict=True)]
    values = [builder.ashr(value, lanes.all(bits)) for value in values]
    words = [lanes.call("avx2.packssdw", _WORDS, *values[i : i + 2]) for i in (0, 2)]
    lanes.store(lanes.call("avx2.packuswb", _BYTES, *words), builder.gep(new, [target]))
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def transpose_block(context: Any, rows: Any, first: Any, stride: Any, new: Any, target: Any, new_stride: Any) -> Any:
    """Write `LANES` rows of `COLUMNS` bytes, from byte `first` of `rows` on, as columns, from `target` of `new` on."""
    return types.none(rows, first, stride, new, target, new_stride), _transpose_block


def _transpose_block(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    data, lanes = _pointers(context, builder, signature, arguments), _Lanes(builder)
    rows, new = data(0), data(3)
    _, first, stride, _, target, new_stride = arguments
    starts = _steps(builder, builder.gep(rows, [first]), stride, LANES)
    halves = [lanes.load(start, _HALF) for start in starts]
    # Instructions interleave each half of a register by itself: it gets the same columns of the other rows.
    vectors = [lanes.joined(*both) for both in zip(halves[:COLUMNS], halves[COLUMNS:], strict=True)]
    for _ in range(4):
        pairs = zip(vectors[: COLUMNS // 2], vectors[COLUMNS // 2 :], strict=True)
        vectors = [lanes.interleaved(*both, first) for both in pairs for first in (0, COLUMNS // 2)]
    for vector, place in zip(vectors, _steps(builder, builder.gep(new, [target]), new_stride, COLUMNS), strict=True):
        lanes.store(vector, place)
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def copy_lanes(context: Any, old: Any, first: Any, new: Any, target: Any) -> Any:
    """Copy `LANES` bytes, from byte `first` of `old` on, to `target` of `new`."""
    return types.none(old, first, new, target), functools.partial(_copy, _BYTES)


@intrinsic  # type: ignore[untyped-decorator]
def copy_few(context: Any, old: Any, first: Any, new: Any, target: Any) -> Any:
    """Copy `FEW` bytes, as `copy_lanes` does."""
    return types.none(old, first, new, target), functools.partial(_copy, ir.IntType(8 * FEW))


def _copy(type_: Any, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    data, lanes = _pointers(context, builder, signature, arguments), _Lanes(builder)
    value = lanes.load(builder.gep(data(0), [arguments[1]]), type_)
    lanes.store(value, builder.gep(data(2), [arguments[3]]))
    return context.get_dummy_value()


@intrinsic  # type: ignore[untyped-decorator]
def fetch(context: Any, new: Any, target: Any) -> Any:
    """Tell the processor that the bytes around `target` of `new` are written soon; they need not exist."""
    return types.none(new, target), _fetch


def _fetch(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    place = builder.gep(_pointers(context, builder, signature, arguments)(0), [arguments[1]])
    kind = ir.FunctionType(ir.VoidType(), [place.type, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    builder.call(function, [place, _I32(1), _I32(3), _I32(1)])
    return context.get_dummy_value()


def _pointers(context: Any, builder: Any, signature: Any, arguments: Any) -> Callable[[int], Any]:
    """Function of an argument's place to the address of its first value."""
    return lambda place: context.make_array(signature.args[place])(context, builder, arguments[place]).data


def _steps(builder: Any, start: Any, stride: Any, count: int) -> list[Any]:
    """The addresses of so many rows."""
    places = [start]
    for _ in range(count - 1):
        places.append(builder.gep(places[-1], [stride]))
    return places


class _Lanes:
    """Writes operations on vectors."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def load(self, pointer: Any, type_: Any) -> Any:
        return self._builder.load(self._builder.bitcast(pointer, type_.as_pointer()), align=1)

    def store(self, value: Any, pointer: Any) -> None:
        self._builder.store(value, self._builder.bitcast(pointer, value.type.as_pointer()), align=1)

    def all(self, value: Any) -> Any:
        """Sums that all have one value."""
        one = self._builder.insert_element(_SUMS(ir.Undefined), value, _I32(0))
        return self._builder.shuffle_vector(one, _SUMS(ir.Undefined), _SUMS([0] * (LANES // 4)))

    def call(self, name: str, result: Any, first: Any, second: Any) -> Any:
        """An instruction of the processor that takes two vectors."""
        kind = ir.FunctionType(result, [first.type, second.type])
        function = cgutils.get_or_insert_function(self._builder.module, kind, f"llvm.x86.{name}")
        return self._builder.call(function, [first, second])

    def joined(self, low: Any, high: Any) -> Any:
        """Two halves of a register as one."""
        return self._builder.shuffle_vector(low, high, ir.VectorType(_I32, LANES)(list(range(LANES))))

    def pairs_of_words(self, even: Any, odd: Any) -> list[Any]:
        """The bytes of two rows side by side, each as 16 bits, in the order that the instructions which pack undo."""
        zeros = _BYTES([0] * LANES)
        halves = [self.interleaved(even, odd, first) for first in (0, 8)]
        words = [self.interleaved(half, zeros, first) for half in halves for first in (0, 8)]
        return [self._builder.bitcast(vector, _WORDS) for vector in words]

    def interleaved(self, even: Any, odd: Any, first: int) -> Any:
        """The values from `first` on of each 16, alternating: the processor has instructions for that."""
        places = [base + first + i + side for base in range(0, LANES, 16) for i in range(8) for side in (0, LANES)]
        return self._builder.shuffle_vector(even, odd, ir.VectorType(_I32, LANES)(places))
