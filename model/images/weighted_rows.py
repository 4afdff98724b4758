"""Sums rows of bytes with weights of 16 bits, on processors with AVX2: the inner loop of a resize.

An instruction multiplies two rows with their weights and adds both, 32 values after each other; the loops that numba
compiles do not use it. numba is imported here alone: see `compile_plane_resize`.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import int16, int64, njit, types, uint8, void
from numba.core import cgutils
from numba.extending import intrinsic

# Values that are summed at once, in registers of so many bytes.
LANES = 32

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.VectorType(ir.IntType(8), LANES)
_WORDS = ir.VectorType(ir.IntType(16), LANES // 2)
_SUMS = ir.VectorType(_I32, LANES // 4)


def compile_sum_rows() -> Callable[..., None] | None:
    """Compile `_sum_rows` for this process; None where the processor has no AVX2."""
    if not binding.get_host_cpu_features().get("avx2"):
        return None
    # Arrays that share memory with bytes are read-only.
    rows = types.Array(uint8, 2, "A", readonly=True)
    signature = void(rows, types.Array(uint8, 2, "A"), int64[::1], int64[::1], int16[:, ::1], int64)
    return njit(signature, nogil=True)(_sum_rows)  # type: ignore[no-any-return]


def _sum_rows(rows: Any, new: Any, begins: Any, pairs: Any, weights: Any, bits: int) -> None:
    """Make each new row the weighted sum of old rows, rounded, and clipped to bytes.

    Args:
        rows: uint8 (old rows, values), each row contiguous, at least `LANES` values.
        new: uint8 (new rows, values), each row contiguous.
        begins: for each new row, its first old row.
        pairs: for each new row, half the number of old rows, all of which exist.
        weights: int16 (new rows, 2 * most pairs), in units of 2 ** -bits.
    """
    values, stride, new_stride = rows.shape[1], rows.strides[0], new.strides[0]
    for y in range(new.shape[0]):
        for x in range(0, values, LANES):
            # The last lanes overlap those before them where the values are no multiple.
            at = min(x, values - LANES)
            first, target = begins[y] * stride + at, y * new_stride + at
            _sum_lanes(rows, first, stride, pairs[y], weights, y * weights.shape[1], bits, new, target)


@intrinsic  # type: ignore[untyped-decorator]
def _sum_lanes(
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
    """Sum `LANES` values of 2 * `pairs` rows, from byte `first` of `rows` on, into those from `target` of `new` on."""
    signature = types.none(rows, first, stride, pairs, weights, first_weight, bits, new, target)
    return signature, _generate


def _generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    def data(index: int) -> Any:
        return context.make_array(signature.args[index])(context, builder, arguments[index]).data

    lanes = _Lanes(builder)
    rows, weights, new = data(0), data(4), data(7)
    _, first, stride, pairs, _, first_weight, bits, _, target = arguments
    bits = builder.trunc(bits, _I32)
    half = lanes.all(builder.shl(_I32(1), builder.sub(bits, _I32(1))))
    sums = [cgutils.alloca_once_value(builder, half) for _ in range(4)]
    with cgutils.for_range(builder, pairs, intp=_I64) as loop:
        pair = builder.mul(loop.index, _I64(2))
        row = builder.gep(rows, [builder.add(first, builder.mul(pair, stride))])
        both = lanes.load(row, _BYTES), lanes.load(builder.gep(row, [stride]), _BYTES)
        weight = lanes.load(builder.gep(weights, [builder.add(first_weight, pair)]), _I32)
        weight = builder.bitcast(lanes.all(weight), _WORDS)
        for place, words in zip(sums, lanes.pairs_of_words(*both), strict=True):
            product = lanes.call("avx2.pmadd.wd", _SUMS, words, weight)
            builder.store(builder.add(builder.load(place), product), place)
    values = [builder.ashr(builder.load(place), lanes.all(bits)) for place in sums]
    words = [lanes.call("avx2.packssdw", _WORDS, *values[i : i + 2]) for i in (0, 2)]
    into = builder.bitcast(builder.gep(new, [target]), _BYTES.as_pointer())
    builder.store(lanes.call("avx2.packuswb", _BYTES, *words), into, align=1)
    return context.get_dummy_value()


class _Lanes:
    """Writes operations on vectors."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder

    def load(self, pointer: Any, type_: Any) -> Any:
        return self._builder.load(self._builder.bitcast(pointer, type_.as_pointer()), align=1)

    def all(self, value: Any) -> Any:
        """Sums that all have one value."""
        one = self._builder.insert_element(_SUMS(ir.Undefined), value, _I32(0))
        return self._builder.shuffle_vector(one, _SUMS(ir.Undefined), _SUMS([0] * (LANES // 4)))

    def call(self, name: str, result: Any, first: Any, second: Any) -> Any:
        """An instruction of the processor that takes two vectors."""
        kind = ir.FunctionType(result, [first.type, second.type])
        function = cgutils.get_or_insert_function(self._builder.module, kind, f"llvm.x86.{name}")
        return self._builder.call(function, [first, second])

    def pairs_of_words(self, even: Any, odd: Any) -> list[Any]:
        """The bytes of two rows side by side, each as 16 bits, in the order that the instructions which pack undo."""
        zeros = _BYTES([0] * LANES)
        halves = [self._interleave(even, odd, first) for first in (0, 8)]
        words = [self._interleave(half, zeros, first) for half in halves for first in (0, 8)]
        return [self._builder.bitcast(vector, _WORDS) for vector in words]

    def _interleave(self, even: Any, odd: Any, first: int) -> Any:
        """The values from `first` on of each 16, alternating: the processor has instructions for that."""
        places = [base + first + i + side for base in range(0, LANES, 16) for i in range(8) for side in (0, LANES)]
        return self._builder.shuffle_vector(even, odd, ir.VectorType(_I32, LANES)(places))
