"""Sorted rows of a sample: how values get in, how they are found and added up again."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array, check_finite, is_real_dtype, shown
from .._threads import chunk_slices, thread_map
from . import double_double as dd
from .base import Array

Index = NDArray[np.intp]

# Up to this many values every value is a block of its own: prefix sums of all of them fit in memory and caches.
_SMALL = 1 << 20
_BLOCK = 32
# Below this many values sorting is as fast as counting 65 536 bit patterns.
_COUNTED = 1 << 14
_CHUNK = 1 << 20
# Squares of values of this size, weighted, stay within float64 (every float32 does).
_LARGEST = 1e100


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows sorted along their last axis, each with `count` values; what follows them is padding.

    `elements` is how many elements of the input a row stands for (more than `count` where they were counted).
    """

    values: NDArray[Any]
    weights: Array | None
    count: Index
    elements: Index
    block: int

    @property
    def least(self) -> Array:
        """Smallest value of each row."""
        out: Array = self.values[:, 0].astype(np.float64)
        return out

    @property
    def greatest(self) -> Array:
        """Largest value of each row."""
        out: Array = self.values[np.arange(self.count.size), self.count - 1].astype(np.float64)
        return out

    def rank(self, row: Index, t: Array) -> Index:
        """How many values of `row` are <= `t`, by bisection."""
        # Comparing float32 values with the largest float32 <= t keeps them from being converted.
        key = round_down(t, self.values.dtype)
        if self.count.size == 1:
            return self._rank_in_one(key)
        least, most = np.zeros(t.shape, np.intp), self.count[row]
        flat, start = self.values.ravel(), row * self.values.shape[1]
        for _ in range(int(self.count.max()).bit_length()):
            middle = (least + most) >> 1
            below = (flat[np.minimum(start + middle, flat.size - 1)] <= key) & (middle < most)
            least, most = np.where(below, middle + 1, least), np.where(below, most, middle)
        return least

    def _rank_in_one(self, key: NDArray[Any]) -> Index:
        values, flat = self.values[0, : self.count[0]], key.ravel()
        slices = chunk_slices(flat.size, 1 << 13)
        parts = thread_map(lambda part: np.searchsorted(values, flat[part], side="right"), slices)
        return np.concatenate([*parts, np.empty(0, np.intp)]).reshape(key.shape)

    def first_moment(self, row: Index, block: Index, count: Index) -> Array:
        """Sum of w x over the first `count` values of a block."""
        shape = (self.values.shape[0], -1, self.block)
        inside = np.arange(self.block) < count[..., None]
        last = self.values.shape[1] // self.block - 1
        values = self.values.reshape(shape)[row, np.minimum(block, last)]
        weight = inside if self.weights is None else inside * self.weights.reshape(shape)[row, np.minimum(block, last)]
        out: Array = (weight * values.astype(np.float64)).sum(axis=-1)
        return out

    def mass(self, row: Index, block: Index, count: Index) -> Array:
        """Sum of w over the first `count` values of a block."""
        start = block * self.block
        out: Array = self.direct(row, start, start + count, np.zeros(row.shape), order=0)[0]
        return out

    def direct(self, row: Index, start: Index, stop: Index, about: Array, order: int = 2) -> Array:
        """Moments 0 to `order` of the values of rank `start` to `stop` (fewer than a block), one by one."""
        shape = start.shape
        row, start, stop = (np.broadcast_to(a, shape).ravel() for a in (row, start, stop))
        about = np.broadcast_to(about, shape).ravel()
        out = np.zeros((order + 1, start.size))
        busy = np.flatnonzero(start < stop)
        step = _CHUNK // (4 * self.block)
        for begin in range(0, busy.size, step):
            part = busy[begin : begin + step]
            out[:, part] = self._add_up(row[part], start[part], stop[part], about[part], order)
        return out.reshape(order + 1, *shape)

    def _add_up(self, row: Index, start: Index, stop: Index, about: Array, order: int) -> Array:
        place = start[:, None] + np.arange(self.block)
        inside = place < stop[:, None]
        place = np.where(inside, place, start[:, None])
        distance = self.values[row[:, None], place].astype(np.float64) - about[:, None]
        weight = inside.astype(np.float64)
        if self.weights is not None:
            weight *= self.weights[row[:, None], place]
        out = [weight.sum(axis=1)]
        if order == 2:
            first = weight * distance
            out += [first.sum(axis=1), np.einsum("ij,ij->i", first, distance)]
        return np.array(out)

    def block_sums(self) -> tuple[dd.Pair | None, dd.Pair, dd.Pair]:
        """Prefix sums over the blocks of the weights (None: 1 each), of w x and of w x^2."""
        values = self.values
        if self.block == 1:
            x = values.astype(np.float64)
            if self.weights is None:
                return None, dd.prefix_sums(x), dd.prefix_sums(*dd.two_product(x, x))
            first = dd.two_product(self.weights, x)
            return dd.prefix_sums(self.weights), dd.prefix_sums(*first), dd.prefix_sums(*dd.scale(first, x))
        shape = (values.shape[0], -1, self.block)
        x3 = values.reshape(shape)
        w3 = None if self.weights is None else self.weights.reshape(shape)
        parts = [slice(i, i + _CHUNK // self.block) for i in range(0, x3.shape[1], _CHUNK // self.block)]
        sums = thread_map(lambda part: _sums_of(x3[:, part], None if w3 is None else w3[:, part]), parts)
        zero, one, two = (np.concatenate(column, axis=1) for column in zip(*sums, strict=True))
        return None if w3 is None else dd.prefix_sums(zero), dd.prefix_sums(one), dd.prefix_sums(two)


def _sums_of(x: NDArray[Any], w: Array | None) -> tuple[Array, Array, Array]:
    """Sums over the last axis of w, w x, w x^2 (of 1, x, x^2 without weights: the first is unused)."""
    wide = x.astype(np.float64)
    if w is None:
        one = wide.sum(axis=2)
        return one, one, np.einsum("ijk,ijk->ij", wide, wide)
    return w.sum(axis=2), np.einsum("ijk,ijk->ij", w, wide), np.einsum("ijk,ijk,ijk->ij", w, wide, wide)


def round_down(t: Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The largest value of `dtype` that is <= t."""
    if dtype == np.float64:
        return t
    with np.errstate(over="ignore"):
        key = t.astype(dtype)
    return np.where(key > t, np.nextafter(key, -np.inf, dtype=dtype), key)


def sorted_rows(
    x: ArrayLike, weights: ArrayLike | None, axis: int | tuple[int, ...] | None
) -> tuple[Rows, tuple[int, ...]]:
    """Sort or count the values; return the rows and the shape of the kept axes."""
    values = as_values(x)
    if values.size == 0:
        raise ValueError(f"x must have at least one value, got shape {values.shape}")
    weight = None if weights is None else _as_weights(weights, values.shape)
    kept = () if axis is None else _as_axes(axis, values.ndim)
    shape = tuple(values.shape[i] for i in kept)
    if kept:
        values = np.moveaxis(values, kept, range(len(kept))).reshape(int(np.prod(shape)), -1)
        weight = None if weight is None else np.moveaxis(weight, kept, range(len(kept))).reshape(values.shape)
    elif weight is None and values.size >= _COUNTED:
        codes = half_codes(values)
        if codes is not None:
            return _counted(codes, values), shape
    rows = values.reshape(values.shape[0] if kept else 1, -1)
    return _sorted(rows, None if weight is None else weight.reshape(rows.shape), values), shape


def _as_axes(axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    try:
        return np.lib.array_utils.normalize_axis_tuple(axis, ndim)
    except (TypeError, ValueError):
        known = f"an integer from {-ndim} to {ndim - 1}, or several different ones" if ndim else "None for one number"
        raise ValueError(f"axis must be {known}, got {shown(axis)}") from None


def as_values(x: ArrayLike) -> NDArray[Any]:
    """Real data as float16, float32 or float64, without a copy where it is one of these."""
    try:
        array = np.asarray(x)
    except ValueError:
        remedy = "rows of different lengths make one Empirical each"
        raise ValueError(f"x must be numbers in one shape, got {shown(x)}; {remedy}") from None
    if array.dtype.name == "bfloat16":
        return (np.ascontiguousarray(array).view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if not is_real_dtype(array.dtype):
        raise ValueError(f"x must be real numbers, got dtype {array.dtype}, {shown(x)}; convert it first")
    if array.dtype in (np.float16, np.float32, np.float64):
        return array
    return array.astype(np.float64)


def _as_weights(weights: ArrayLike, shape: tuple[int, ...]) -> Array:
    array = as_float_array("weights", weights)
    check_finite("weights", array)
    if (array < 0).any():
        raise ValueError(f"weights must be >= 0, got {array.min():g}")
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"weights {array.shape} do not broadcast to x {shape}") from None


def half_codes(values: NDArray[Any]) -> NDArray[np.uint16] | None:
    """The 16-bit patterns of float16 data, or of bfloat16 data inside float32; None for other data."""
    if values.dtype == np.float16:
        return np.ascontiguousarray(values).reshape(-1).view(np.uint16)
    if values.dtype != np.float32 or not values.dtype.isnative:
        return None
    halves = np.ascontiguousarray(values).reshape(-1).view(np.uint16).reshape(-1, 2)
    low, high = (0, 1) if np.little_endian else (1, 0)
    for start in range(0, len(halves), _CHUNK):
        if halves[start : start + _CHUNK, low].any():
            return None
    return halves[:, high]


def _counted(codes: NDArray[np.uint16], values: NDArray[Any]) -> Rows:
    """Exact counts of at most 65 536 distinct values."""
    parts = [slice(i, i + _CHUNK) for i in range(0, codes.size, _CHUNK)]
    counts = np.sum(thread_map(lambda part: np.bincount(codes[part], minlength=1 << 16), parts), axis=0)
    every = np.arange(1 << 16, dtype=np.uint16)
    if values.dtype == np.float16:
        table = every.view(np.float16).astype(np.float32)
    else:
        table = (every.astype(np.uint32) << 16).view(np.float32)
    seen = np.flatnonzero(counts)
    if not np.isfinite(table[seen]).all():
        check_finite("x", values)
    seen = seen[np.argsort(table[seen], kind="stable")]
    size = np.array([seen.size])
    return Rows(table[seen][None], counts[seen].astype(np.float64)[None], size, np.array([codes.size]), 1)


def _sorted(rows: NDArray[Any], weight: Array | None, values: NDArray[Any]) -> Rows:
    count, length = rows.shape
    dtype = np.float32 if rows.dtype == np.float16 else rows.dtype.newbyteorder("=")
    block = 1 if rows.size <= _SMALL else _BLOCK
    padded = np.empty((count, -(-length // block) * block), dtype)
    padded[:, length:] = 0
    held = padded[:, :length]
    held[:] = rows
    sorted_weight = None
    if weight is None:
        held.sort(axis=1)
    else:
        order = np.argsort(held, axis=1, kind="stable")
        held[:] = np.take_along_axis(held, order, axis=1)
        sorted_weight = np.zeros(padded.shape)
        sorted_weight[:, :length] = np.take_along_axis(weight, order, axis=1)
        total = sorted_weight.sum(axis=1)
        if not (total > 0).all():
            raise ValueError("weights must not all be 0, in any row")
        _check_size("weights", total)
    # Sorting puts NaN and infinity at the ends.
    if not (np.isfinite(held[:, 0]).all() and np.isfinite(held[:, -1]).all()):
        check_finite("x", values)
    _check_size("x", np.maximum(np.abs(held[:, 0]), np.abs(held[:, -1])))
    lengths = np.full(count, length)
    if count == 1 and weight is None and _repeats(held[0]):
        first = np.flatnonzero(np.append(True, held[0, 1:] != held[0, :-1]))
        times = np.diff(first, append=length).astype(np.float64)
        return Rows(held[:, first], times[None], np.array([first.size]), lengths, 1)
    return Rows(padded, sorted_weight, lengths, lengths, block)


def _repeats(values: NDArray[Any]) -> bool:
    """Whether most of the sorted values are repetitions, judged by some in the middle: then they are counted."""
    middle = values.size // 2
    some = values[max(0, middle - _COUNTED) : middle + _COUNTED]
    distinct = 1 + int(np.count_nonzero(some[1:] != some[:-1]))
    return some.size >= 64 and 4 * distinct <= some.size


def _check_size(name: str, size: NDArray[Any]) -> None:
    """Refuse rows whose weighted squares would over- or underflow: `size` is their largest value or total weight."""
    size = size.astype(np.float64)
    bad = (size > _LARGEST) | ((size > 0) & (size < 1 / _LARGEST))
    if bad.any():
        limits = f"its largest between {1 / _LARGEST:g} and {_LARGEST:g}, so that squares stay within float64"
        raise ValueError(f"{name} must have {limits}, got {size[bad][0]:g}; multiply it by a power of two")
