"""Rounding of normalized values q = (x - z) / s to codes: uniform, floating-point and codebook grids.

A kernel computes in the type of q and never rounds twice: the tie of two levels is decided on q itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qerror.grids.grid import FloatSpec, Grid

__all__ = ["Kernel", "Round", "Scratch", "ScratchPool", "is_plain_uniform", "last_below", "make_kernel"]

Buffer = NDArray[Any]
Round = Callable[[Buffer, Buffer, "Scratch"], None]
"""Called with a flat buffer of q, which it may overwrite, the codes to write, and scratch memory."""

# Up to here one comparison for each threshold is faster than a binary search, whose branches mispredict.
_FEW_THRESHOLDS = 32


class Scratch:
    """Memory that the steps of one worker use again and again, so that it stays in the cache.

    Parameters
    ----------
    size : int
        Elements of the longest buffer, of at most eight bytes each.

    Attributes
    ----------
    rng : numpy.random.Generator or None
        The stream of the chunk at work, for stochastic rounding.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._slots: dict[str, NDArray[np.uint8]] = {}
        self.rng: np.random.Generator | None = None

    def take(self, slot: str, dtype: Any, size: int) -> Buffer:
        """Return a buffer of `size` elements of a dtype; the same slot is the same memory."""
        if slot not in self._slots:
            self._slots[slot] = np.empty(8 * self._size, dtype=np.uint8)
        return self._slots[slot][: size * np.dtype(dtype).itemsize].view(dtype)


class ScratchPool:
    """One Scratch for each thread that asks, alive as long as the pool.

    Parameters
    ----------
    size : int
        Elements of the longest buffer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._local = threading.local()

    def of_thread(self, rng: np.random.Generator | None = None) -> Scratch:
        """Return the scratch memory of the calling thread, with the stream of its present chunk."""
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch(self._size)
        scratch.rng = rng
        return scratch


@dataclass(frozen=True)
class _Layout:
    """Bits of a binary floating-point type of the machine."""

    dtype: Any
    integer: Any
    mantissa_bits: int
    bias: int
    sign_shift: int


_SINGLE = _Layout(np.float32, np.int32, 23, 127, 31)
_DOUBLE = _Layout(np.float64, np.int64, 52, 1023, 63)


@dataclass(frozen=True)
class Kernel:
    """How to round to a grid.

    Attributes
    ----------
    round : callable
        Writes the codes of a buffer.
    dtype : numpy dtype
        Type of the buffer.
    by_table : bool
        Whether the codes are looked up. Then the buffer is left as it was, so that it may be the caller's own.
    """

    round: Round
    dtype: Any
    by_table: bool = False


def make_kernel(grid: Grid, dtype: Any, *, stochastic: bool = False, many: bool = False) -> Kernel:
    """Return the kernel of a grid.

    Parameters
    ----------
    grid : Grid
        The grid.
    dtype : numpy dtype
        Type in which q was computed, float32 or float64.
    stochastic : bool, optional
        Round to one of the two neighbours, to either with the probability that makes the mean exact.
    many : bool, optional
        So many values are to be rounded that making a table for them pays.

    Returns
    -------
    Kernel
        Its dtype is float64 where float32 has not the range that it needs, and for stochastic rounding, whose
        fractions need more digits than q has.
    """
    single = dtype == np.float32 and not stochastic
    layouts = (_SINGLE, _DOUBLE) if single else (_DOUBLE,)
    if grid.float_spec is not None:
        for layout in layouts:
            if _covers(layout, grid):
                if layout is _SINGLE and many and _fits_table(grid):
                    return Kernel(_table_round(_top_half_table(grid, grid.float_spec)), layout.dtype, by_table=True)
                return Kernel(_floating_round(grid, layout, stochastic), layout.dtype)
    elif is_plain_uniform(grid):
        return Kernel(_uniform_round(grid, stochastic), layouts[0].dtype)
    search = _codebook_stochastic(grid) if stochastic else _codebook_nearest(grid, dtype)
    return Kernel(_with_negative_zero(search, grid), layouts[0].dtype)


def _round(y: Buffer, stochastic: bool, scratch: Scratch) -> None:
    """Round y to integers, in place."""
    if not stochastic:
        np.rint(y, out=y)
        return
    rng = scratch.rng
    if rng is None:
        raise TypeError("stochastic rounding needs a random stream")
    floor = np.floor(y, out=scratch.take("floor", y.dtype, y.size))
    y -= floor
    up = np.less(rng.random(y.size), y, out=scratch.take("up", np.bool_, y.size))
    np.add(floor, up, out=y)


def is_plain_uniform(grid: Grid) -> bool:
    """Tell whether levels / step are consecutive integers or half-integers that can be computed without rounding."""
    step = grid.step
    if step is None or not 2.0**-60 <= step <= 2.0**60 or np.frexp(step)[0] != 0.5:
        return False
    first, last = grid.min / step, grid.max / step
    if max(abs(first), abs(last)) > 2.0**22:
        return False
    if first.is_integer():
        return int(first) % 2 == int(grid.codes[0]) % 2
    # Around a threshold at 0 the scaling must not underflow, so it may only enlarge.
    return (2 * first).is_integer() and step <= 1 and int(grid.codes[0]) == 0


def _uniform_round(grid: Grid, stochastic: bool) -> Round:
    step = float(grid.step or 0.0)
    lowest, highest, first_code = grid.min, grid.max, int(grid.codes[0])
    first = lowest / step
    midrise = not first.is_integer()

    def write_codes(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        np.clip(q, lowest, highest, out=q)
        if step != 1.0:
            q *= 1.0 / step
        if midrise and not stochastic:
            # floor + ceil is 2q only on the integers, which are the thresholds: there alone a half is left for rint,
            # which then picks the even index. Adding the offset to q first would round q onto the threshold.
            floor = np.floor(q, out=scratch.take("floor", q.dtype, q.size))
            np.ceil(q, out=q)
            q += floor
            q *= 0.5
        if midrise:
            q -= first
        _round(q, stochastic, scratch)
        if not midrise and first_code != first:
            q += first_code - first
        np.copyto(codes, q, casting="unsafe")

    return write_codes


def _covers(layout: _Layout, grid: Grid) -> bool:
    """Tell whether the powers of two of the binades and the reciprocals of their ulps are normal numbers."""
    spec = grid.float_spec
    if spec is None:
        return False
    lowest = (1 if spec.subnormals else 0) - spec.bias
    highest = int(np.frexp(grid.absmax)[1]) - 1
    exponents = (lowest, highest, spec.mantissa_bits - lowest, spec.mantissa_bits - highest)
    return all(1 <= exponent + layout.bias <= 2 * layout.bias for exponent in exponents)


def _floating_round(grid: Grid, layout: _Layout, stochastic: bool) -> Round:
    spec = grid.float_spec
    if spec is None:
        raise TypeError("the grid has no floating-point layout")
    m, integer = spec.mantissa_bits, layout.integer
    lowest, highest = grid.min, grid.max
    drop = layout.mantissa_bits - m
    exponent_mask = integer(((1 << (layout.sign_shift - layout.mantissa_bits)) - 1) << layout.mantissa_bits)
    least = integer(((1 if spec.subnormals else 0) - spec.bias + layout.bias) << layout.mantissa_bits)
    # Subtracting the exponent field of 2^e from this leaves that of 2^(m - e); the difference wraps as intended.
    mirror = np.array((2 * layout.bias + m) << layout.mantissa_bits).astype(integer)
    offset = integer((layout.bias - spec.bias + 1) << m)
    sign_code = integer(1 << (spec.bits - 1))

    def write_codes(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        code = codes if codes.dtype == integer else scratch.take("code", integer, q.size)
        field = scratch.take("field", integer, q.size)
        if spec.signed:
            sign = np.right_shift(q.view(integer), layout.sign_shift, out=scratch.take("sign", integer, q.size))
            sign &= sign_code
            np.abs(q, out=q)
        np.clip(q, 0.0 if spec.signed else lowest, highest, out=q)
        # With 2^e the binade of q, or the lowest one of the grid, y = q 2^(m - e) counts ulps of the grid exactly.
        np.bitwise_and(q.view(integer), exponent_mask, out=field)
        np.maximum(field, least, out=field)
        q *= np.subtract(mirror, field, out=code).view(layout.dtype)
        tie = q == 1.5 if m == 0 and not stochastic else None
        _round(q, stochastic, scratch)
        np.copyto(code, q, casting="unsafe")
        field >>= drop
        field -= offset
        if tie is not None:
            # Without mantissa bits the parity of a code is that of its exponent, which rint does not see.
            code -= tie & (field & 1).astype(np.bool_)
        code += field
        if spec.signed:
            code |= sign
            if spec.reserved == "fnuz":
                code *= code != sign_code
        if code is not codes:
            np.copyto(codes, code, casting="unsafe")

    return write_codes


def _fits_table(grid: Grid) -> bool:
    """Tell whether codes have 8 bits and every threshold ends in 17 zero bits as a float32."""
    thresholds = grid.thresholds.astype(np.float32)
    ends_in_zeros = not (thresholds.view(np.uint32) & 0x1FFFF).any()
    return ends_in_zeros and bool((thresholds == grid.thresholds).all()) and int(grid.codes.max()) < 256


@lru_cache(maxsize=32)
def _top_half_table(grid: Grid, spec: FloatSpec) -> NDArray[np.uint8]:
    """Codes by the upper 16 bits of a float32 of which the last is set if any lower bit was.

    The layout is part of the key because grids are equal if their levels are, whatever their codes.
    """
    tops = np.arange(1 << 16, dtype=np.uint32) << 16
    exponents = tops & 0x7F800000
    # Infinities and NaN have been refused before; their entries are never read.
    values = np.where(exponents == 0x7F800000, np.uint32(0), tops).view(np.float32)
    table = np.empty(values.size, dtype=np.uint8)
    _floating_round(grid, _SINGLE, False)(values, table, Scratch(values.size))
    return table


def _table_round(table: NDArray[np.uint8]) -> Round:
    # A third of the NumPy calls of the arithmetic kernel, so that threads wait for each other less. Rounding "to odd"
    # first (the dropped bits set the last kept one) does not round twice: no threshold has that bit.
    def write_codes(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        bits = q.view(np.uint32)
        key = np.bitwise_and(bits, np.uint32(0xFFFF), out=scratch.take("key", np.uint32, q.size))
        key += np.uint32(0xFFFF)
        key |= bits
        index = np.right_shift(key, np.uint32(16), out=key)
        wide = scratch.take("index", np.intp, q.size)
        np.copyto(wide, index)
        np.take(table, wide, out=codes, mode="clip")

    return write_codes


def _codebook_nearest(grid: Grid, dtype: Any) -> Round:
    bounds = last_below(grid, dtype)
    table = None if int(grid.codes[0]) == 0 and int(grid.codes[-1]) == len(grid) - 1 else grid.codes

    def write_codes(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        index = _count_below(bounds, q, scratch)
        np.copyto(codes, index if table is None else table[index], casting="unsafe")

    return write_codes


def _with_negative_zero(search: Round, grid: Grid) -> Round:
    """Give the code of -0 to what a search among the levels rounded to zero from below."""
    spec = grid.float_spec
    if spec is None or not spec.signed or spec.reserved == "fnuz":
        return search

    def signed_search(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        negative = np.signbit(q)
        search(q, codes, scratch)
        codes[negative & (codes == 0)] = 1 << (spec.bits - 1)

    return signed_search


def _count_below(bounds: Buffer, q: Buffer, scratch: Scratch) -> Buffer:
    """Return for each q how many of the sorted bounds are less than it."""
    if bounds.size > _FEW_THRESHOLDS:
        return np.searchsorted(bounds, q)
    count = scratch.take("count", np.uint8, q.size)
    count[:] = 0
    above = scratch.take("above", np.bool_, q.size)
    for bound in bounds:
        count += np.greater(q, bound, out=above).view(np.uint8)
    return count


def last_below(grid: Grid, dtype: Any) -> Buffer:
    """For each threshold the largest number of a type that still belongs to the level below it."""
    with np.errstate(over="ignore", under="ignore"):
        bounds = grid.thresholds.astype(dtype)
    minus_infinity = np.asarray(-np.inf, dtype=dtype)
    bounds = np.where(bounds > grid.thresholds, np.nextafter(bounds, minus_infinity), bounds)
    tie_goes_up = (bounds == grid.thresholds) & ~grid.ties_to_lower
    return np.where(tie_goes_up, np.nextafter(bounds, minus_infinity), bounds)


def _codebook_stochastic(grid: Grid) -> Round:
    levels, gaps, table = grid.levels, np.diff(grid.levels), grid.codes
    last_before = np.nextafter(levels[1:-1], -np.inf)

    def write_codes(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        np.clip(q, levels[0], levels[-1], out=q)
        lower = _count_below(last_before, q, scratch)
        q -= levels[lower]
        q /= gaps[lower]
        _round(q, True, scratch)
        np.copyto(codes, table[lower + q.astype(np.intp)], casting="unsafe")

    return write_codes
