"""From codes to values: by a look-up in a table, or of bf16 by a shift of bits, and for arrays of scales a product."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._check import is_real_dtype, readable
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .scratch import Scratch
from .upper_half import is_upper_half, read_upper_half

# From here on a table of 65 536 pairs is made in a small part of the time that it saves.
_MANY = 1 << 21

Decode = Callable[[NDArray[Any], NDArray[Any], tuple[Any, ...], Scratch], bool]
"""Called with a block of codes, the target, the index of the block in the whole, and scratch memory.

It returns False, having written something, if not all codes are codes of the grid.
"""


def make_decoder(
    grid: Grid,
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    zero_point: NDArray[np.float64] | None,
    shape: tuple[int, ...],
    dtype: DTypeLike,
    code_dtype: np.dtype[Any],
) -> tuple[Decode, np.dtype[Any]]:
    """The decoder of a grid, for checked scales, shifts and zero points, and the dtype of its values."""
    target = np.dtype(dtype)
    limit = _largest(target)
    if is_upper_half(grid):
        return _upper_half_kernel(grid, scale, shift, shape, target, limit), target
    table = _make_table(grid)
    if zero_point is not None and zero_point.size == 1:
        # The difference of two integers is exact.
        table = replace(table, values=table.values - zero_point.reshape(()))
        zero_point = None
    if scale.size == 1 and shift.size == 1 and zero_point is None:
        with np.errstate(over="ignore", under="ignore"):
            values = table.values * scale.reshape(())
            values = values + shift.reshape(()) if shift.any() else values  # -0 + 0 would be +0
            values = np.clip(values, -limit, limit).astype(target)
        return _look_up_kernel(_with_pairs(replace(table, values=values), code_dtype, math.prod(shape))), target
    s = np.broadcast_to(scale, shape)
    z = np.broadcast_to(shift, shape) if shift.any() else None
    p = None if zero_point is None else np.broadcast_to(zero_point, shape)
    if z is None and p is None and target == np.float32 and _product_is_single(table.values, scale):
        single = replace(table, values=table.values.astype(np.float32))
        single = _with_pairs(single, code_dtype, math.prod(shape))
        return _scaling_kernel(partial(_look_up, single), np.float32, s.astype(np.float32), None, None, limit), target
    return _scaling_kernel(partial(_look_up, table), np.float64, s, z, p, limit), target


def check_codes(codes: ArrayLike, grid: Grid, *, every: bool = False) -> NDArray[Any]:
    """Codes as an integer array; with `every`, each of them is one of the grid's."""
    array = np.asarray(readable("codes", codes))
    if array.dtype.kind not in "iu":
        if array.size:
            raise ValueError(f"codes must be integers, got dtype {array.dtype}; codes of bits are codes.view(np.uint8)")
        array = array.astype(np.int64)
    if every:
        table = _make_table(grid)
        top = table.base + table.values.size - 1
        bad = (array < table.base) | (array > top) | _in_hole(array, table)
        if bad.any():
            where = np.unravel_index(int(np.argmax(bad)), array.shape) if array.ndim else ()
            place = f" at index {', '.join(str(int(i)) for i in where)}" if where else ""
            n_bad = int(np.count_nonzero(bad))
            raise ValueError(
                f"codes must be codes of {grid!r}, {_describe(table)}, got {int(array[where])}{place} "
                f"({n_bad} of {array.size} {'is' if n_bad == 1 else 'are'} none)"
            )
    return array


@dataclass(frozen=True)
class _Table:
    """Values by code - base; the codes first_hole .. last_hole between them stand for nothing finite.

    `pairs` holds the two values of each two bytes of codes, as one number of twice their width.
    """

    values: NDArray[Any]
    base: int
    first_hole: int = 0
    last_hole: int = -1
    pairs: NDArray[Any] | None = None


def _make_table(grid: Grid) -> _Table:
    base = int(grid.codes.min())
    values = np.full(int(grid.codes.max()) - base + 1, np.nan)
    values[grid.codes - base] = grid.levels
    spec = grid.float_spec
    if spec is not None and spec.signed and spec.reserved != "fnuz":
        values[1 << (spec.bits - 1)] = -0.0
    # Reserved codes are those of the largest magnitudes or that of -0: one hole, below the negative values.
    holes = np.flatnonzero(np.isnan(values))
    return _Table(values, base, base + int(holes[0]), base + int(holes[-1])) if holes.size else _Table(values, base)


def _in_hole(codes: NDArray[Any], table: _Table) -> NDArray[np.bool_]:
    return np.asarray((codes >= table.first_hole) & (codes <= table.last_hole))


def _describe(table: _Table) -> str:
    text = f"from {table.base} to {table.base + table.values.size - 1}"
    if table.first_hole > table.last_hole:
        return text
    holes = f"{table.first_hole} to {table.last_hole}" if table.first_hole < table.last_hole else f"{table.first_hole}"
    return f"{text} without {holes}"


def _look_up(table: _Table, codes: NDArray[Any], out: NDArray[Any], scratch: Scratch) -> bool:
    if int(codes.min()) < table.base or int(codes.max()) >= table.base + table.values.size:
        return False
    # The codes are in range already; "clip" only spares NumPy a buffer that its check would need.
    if table.pairs is not None and codes.itemsize == 1 and codes.flags.c_contiguous and codes.size % 2 == 0:
        two_codes = codes.reshape(-1).view(np.uint16)
        index = scratch.take("index", np.intp, two_codes.size)
        np.copyto(index, two_codes)
        np.take(table.pairs, index, out=out.reshape(-1).view(table.pairs.dtype), mode="clip")
    else:
        index = scratch.take("index", np.intp, codes.size).reshape(codes.shape)
        np.copyto(index, codes, casting="unsafe")
        index -= table.base
        np.take(table.values, index, out=out, mode="clip")
    return table.first_hole > table.last_hole or not bool(_in_hole(codes, table).any())


def _with_pairs(table: _Table, code_dtype: np.dtype[Any], size: int) -> _Table:
    """Add the table of pairs if codes are bytes and there are so many that half the look-ups repay it."""
    wide = {2: np.uint32, 4: np.uint64}.get(table.values.dtype.itemsize)
    if code_dtype.itemsize > 1 or size < _MANY or wide is None:
        return table
    # Through a view of bytes, so that first and second are those of this machine's memory.
    position = np.arange(256, dtype=np.uint8).view(code_dtype).astype(np.intp) - table.base
    known = (position >= 0) & (position < table.values.size)
    values = table.values[np.where(known, position, 0)]
    both = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    return replace(table, pairs=values[both].view(wide).ravel())


def _look_up_kernel(table: _Table) -> Decode:
    def decode(codes: NDArray[Any], out: NDArray[Any], index: tuple[Any, ...], scratch: Scratch) -> bool:
        return _look_up(table, codes, out, scratch)

    return decode


def _upper_half_kernel(
    grid: Grid,
    scale: NDArray[np.float64],
    shift: NDArray[np.float64],
    shape: tuple[int, ...],
    target: np.dtype[Any],
    limit: float,
) -> Decode:
    """The decoder without a table: one of 65 536 values does not stay in the first-level cache."""
    single = target == np.float32 and not shift.any() and _all_single(scale)
    work = np.float32 if single else np.float64
    s = None if (scale == 1).all() else np.broadcast_to(scale.astype(work), shape)
    z = np.broadcast_to(shift, shape) if shift.any() else None
    # Rounding keeps the order, so what holds for the largest product and sum holds for all.
    largest = grid.absmax * np.abs(scale).max(initial=0.0) + np.abs(shift).max(initial=0.0)
    return _scaling_kernel(read_upper_half, work, s, z, None, limit if largest > limit else None)


def _scaling_kernel(
    read: Callable[[NDArray[Any], NDArray[Any], Scratch], bool],
    work: Any,
    scale: NDArray[Any] | None,
    shift: NDArray[Any] | None,
    zero_point: NDArray[Any] | None,
    limit: float | None,
) -> Decode:
    """What reads levels in the dtype `work`, and scales, shifts and limits them; None is not to do."""

    def decode(codes: NDArray[Any], out: NDArray[Any], index: tuple[Any, ...], scratch: Scratch) -> bool:
        direct = out.dtype == work
        values = out if direct else scratch.take("values", work, codes.size).reshape(codes.shape)
        good = read(codes, values, scratch)
        with np.errstate(over="ignore", under="ignore"):
            if zero_point is not None:
                values -= zero_point[index]
            if scale is not None:
                values *= scale[index]
            if shift is not None:
                values += shift[index]
            if limit is not None:
                np.clip(values, -limit, limit, out=values)
            if not direct:
                np.copyto(out, values, casting="unsafe")
        return good

    return decode


def _product_is_single(values: NDArray[np.float64], scale: NDArray[np.float64]) -> bool:
    """Tell whether float32 products of levels and scales are the rounded exact products.

    They are if both factors are float32 numbers: then their product is exact in float64, and either way it is rounded
    once.
    """
    return _all_single(values) and _all_single(scale)


def _all_single(values: NDArray[np.float64]) -> bool:
    with np.errstate(over="ignore", under="ignore"):
        return bool(np.array_equal(values, values.astype(np.float32), equal_nan=True))


def _largest(dtype: np.dtype[Any]) -> float:
    """The largest finite value of a floating-point dtype."""
    if issubclass(dtype.type, np.floating):
        return float(np.finfo(dtype).max)
    if dtype.kind in "fV" and is_real_dtype(dtype):
        # A dtype of ml_dtypes, of which NumPy knows no limits: its grid does.
        return as_grid(dtype).absmax
    raise ValueError(f"dtype must be a floating-point dtype such as numpy.float32, got {dtype}")
