"""Rounding of normalized values q = (x - z) / s to codes: by arithmetic, by a table or by a search of the thresholds.

A kernel computes in the type of q and never rounds twice: the tie of two levels is decided on q itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grids.grid import FloatSpec, Grid
from .arithmetic import DOUBLE, SINGLE, Round, covers, floating_round, is_plain_uniform, round_integers, uniform_round
from .scratch import Buffer, Scratch
from .upper_half import is_upper_half, upper_half_round

# Up to here one comparison for each threshold is faster than a binary search, whose branches mispredict.
_FEW_THRESHOLDS = 32


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
        Whether the codes are looked up.
    keeps : bool
        Whether the buffer is left as it was, so that it may be the caller's own.
    limit : float or None
        The largest magnitude that the buffer may have; None if the kernel saturates itself.
    """

    round: Round
    dtype: Any
    by_table: bool = False
    keeps: bool = False
    limit: float | None = None


def make_kernel(grid: Grid, dtype: Any, *, stochastic: bool = False, many: bool = False) -> Kernel:
    """The kernel of a grid for q = (x - z) / s in float32 or float64; with `many` values, making a table for them pays.

    Its dtype is float64 where float32 has not the range that it needs, and for stochastic rounding, whose fractions
    need more digits than q has.
    """
    single = dtype == np.float32 and not stochastic
    layouts = (SINGLE, DOUBLE) if single else (DOUBLE,)
    if single and is_upper_half(grid):
        return Kernel(upper_half_round, SINGLE.dtype, keeps=True, limit=grid.absmax)
    if grid.float_spec is not None:
        for layout in layouts:
            if covers(layout, grid):
                if layout is SINGLE and many and _fits_table(grid):
                    look_up = _table_round(_top_half_table(grid, grid.float_spec))
                    return Kernel(look_up, layout.dtype, by_table=True, keeps=True)
                return Kernel(floating_round(grid, layout, stochastic), layout.dtype)
    elif is_plain_uniform(grid):
        return Kernel(uniform_round(grid, stochastic), layouts[0].dtype)
    search = _codebook_stochastic(grid) if stochastic else _codebook_nearest(grid, dtype)
    return Kernel(_with_negative_zero(search, grid), layouts[0].dtype)


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
    # NaN has been refused before; an infinite quotient of finite numbers saturates.
    values = np.where(exponents == 0x7F800000, tops & 0xFF800000, tops).view(np.float32)
    table = np.empty(values.size, dtype=np.uint8)
    floating_round(grid, SINGLE, False)(values, table, Scratch(values.size))
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
        round_integers(q, True, scratch)
        np.copyto(codes, table[lower + q.astype(np.intp)], casting="unsafe")

    return write_codes
