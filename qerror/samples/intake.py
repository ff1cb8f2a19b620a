"""How the values of a sample get in: as sorted rows, or counted by their bit patterns."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array, check_finite, is_real_dtype, readable, shown
from .._threads import chunk_slices, thread_map
from .._types import Array
from .rows import Rows

# Below this many values sorting is as fast as counting 65 536 bit patterns.
_COUNTED = 1 << 14
_CHUNK = 1 << 20
# A long row is sorted in 2^3 parts.
_HALVINGS = 3
# Squares of values of this size, weighted, stay within float64 (every float32 does).
_LARGEST = 1e100


def sorted_rows(
    x: ArrayLike, weights: ArrayLike | None, axis: int | tuple[int, ...] | None, *, in_place: bool = False
) -> tuple[Rows, tuple[int, ...]]:
    """Sort or count the values; return the rows and the shape of the kept axes. `in_place`: x may be written over."""
    values = as_values(x)
    if values.size == 0:
        raise ValueError(f"x must have at least one value, got shape {values.shape}")
    weight = None if weights is None else as_weights(weights, values.shape)
    kept = () if axis is None else _as_axes(axis, values.ndim)
    shape = tuple(values.shape[i] for i in kept)
    if kept:
        values = np.moveaxis(values, kept, range(len(kept))).reshape(int(np.prod(shape)), -1)
        weight = None if weight is None else np.moveaxis(weight, kept, range(len(kept))).reshape(values.shape)
    elif weight is None and values.size >= _COUNTED:
        codes = half_codes(values)
        if codes is None:
            values = _narrowed(values)
            codes = half_codes(values)
        if codes is not None:
            return _counted(codes, values), shape
    rows = values.reshape(values.shape[0] if kept else 1, -1)
    if weight is None:
        return _sorted(rows, None, values, in_place), shape
    weight = weight.reshape(rows.shape)
    rows = np.where(weight > 0, rows, first_weighted(rows, weight)[:, None]) if not weight.all() else rows
    return _sorted(rows, weight, rows.reshape(values.shape), in_place), shape


def _as_axes(axis: int | tuple[int, ...], ndim: int) -> tuple[int, ...]:
    try:
        return np.lib.array_utils.normalize_axis_tuple(axis, ndim)
    except (TypeError, ValueError, OverflowError):
        known = f"an integer from {-ndim} to {ndim - 1}, or several different ones" if ndim else "None for one number"
        raise ValueError(f"axis must be {known}, got {shown(axis)}") from None


def as_values(x: ArrayLike) -> NDArray[Any]:
    """Real data as float16, float32 or float64, without a copy where it is one of these."""
    x = readable("x", x)
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


def as_weights(weights: ArrayLike, shape: tuple[int, ...]) -> Array:
    """Weights, none negative, broadcast to the shape of the values."""
    array = as_float_array("weights", weights)
    check_finite("weights", array)
    if (array < 0).any():
        raise ValueError(f"weights must be >= 0, got {array.min():g}")
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"weights of shape {array.shape} must broadcast to x of shape {shape}") from None


def first_weighted(rows: NDArray[Any], weights: Array) -> NDArray[Any]:
    """The first value of each row that has a weight: it stands for those without, which do not exist."""
    has = weights > 0
    if not has.any(axis=1).all():
        raise ValueError("weights must not all be 0, in any row")
    # A finite one, so that a NaN that is refused is counted once.
    finite = has & np.isfinite(rows)
    at = np.where(finite.any(axis=1), finite.argmax(axis=1), has.argmax(axis=1))
    first: NDArray[Any] = rows[np.arange(len(rows)), at]
    return first


def half_codes(values: NDArray[Any]) -> NDArray[np.uint16] | None:
    """The 16-bit patterns of float16 data, or of bfloat16 data inside float32; None for other data."""
    if values.dtype == np.float16:
        return np.ascontiguousarray(values).reshape(-1).view(np.uint16)
    if values.dtype != np.float32 or not values.dtype.isnative:
        return None
    halves = np.ascontiguousarray(values).reshape(-1).view(np.uint16).reshape(-1, 2)
    low, high = (0, 1) if np.little_endian else (1, 0)
    if any(halves[part, low].any() for part in chunk_slices(len(halves), _CHUNK)):
        return None
    return halves[:, high]


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """float32 values that float16 holds, as float16; others as they are."""
    if values.dtype != np.float32:
        return values
    flat = np.ascontiguousarray(values).reshape(-1)
    out = np.empty(flat.shape, np.float16)
    with np.errstate(over="ignore"):
        for part in chunk_slices(flat.size, _COUNTED):
            out[part] = flat[part]
            # Most others differ at once; what is not finite is looked at where all values are.
            if not np.array_equal(out[part], flat[part]):
                return values
    return out


def _counted(codes: NDArray[np.uint16], values: NDArray[Any]) -> Rows:
    """Exact counts of at most 65 536 distinct values."""
    parts = chunk_slices(codes.size, _CHUNK)
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
    return Rows(table[seen][None], counts[seen].astype(np.float64)[None], np.array([codes.size]))


def _sorted(rows: NDArray[Any], weight: Array | None, values: NDArray[Any], in_place: bool) -> Rows:
    count, length = rows.shape
    kind = np.float32 if rows.dtype == np.float16 else rows.dtype.newbyteorder("=")
    held = np.array(rows, kind, order="C", copy=None if in_place else True)
    if weight is None:
        _sort(held)
    else:
        order = np.argsort(held, axis=1, kind="stable")
        held = np.take_along_axis(held, order, axis=1)
        weight = np.take_along_axis(weight, order, axis=1)
        total = weight.sum(axis=1)
        _check_size("weights", total)
    # Sorting puts NaN and infinity at the ends.
    if not (np.isfinite(held[:, 0]).all() and np.isfinite(held[:, -1]).all()):
        check_finite("x", values)
    _check_size("x", np.maximum(np.abs(held[:, 0]), np.abs(held[:, -1])))
    lengths = np.full(count, length)
    if count == 1 and weight is None and _repeats(held[0]):
        first = np.flatnonzero(np.append(True, held[0, 1:] != held[0, :-1]))
        times = np.diff(first, append=length).astype(np.float64)
        return Rows(held[:, first], times[None], lengths)
    return Rows(held, weight, lengths)


def _sort(held: NDArray[Any]) -> None:
    """Sort rows in place: a long row is cut by its quantiles into parts that threads sort."""
    count, length = held.shape
    if count * length < _CHUNK:
        held.sort(axis=1)
    elif length < _CHUNK:
        thread_map(lambda part: held[part].sort(axis=1), chunk_slices(count, max(1, _CHUNK // (4 * length))))
    else:
        parts = list(held)
        for _ in range(_HALVINGS):
            thread_map(lambda part: part.partition(part.size // 2), parts)
            parts = [half for part in parts for half in np.array_split(part, [part.size // 2])]
        thread_map(lambda part: part.sort(), parts)


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
