"""Casting arrays to the codes of a grid and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._check import (
    as_rng,
    check_choice,
    check_finite,
    check_scale,
    check_shift,
    check_zero_point,
    is_real_dtype,
    readable,
)
from .._threads import thread_map
from .._types import Array
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid, check_affine
from .arithmetic import round_integers
from .decoding import check_codes, make_decoder
from .kernels import make_kernel
from .scratch import Scratch, ScratchPool
from .units import TABLE_THREADS, UNIT, Unit, cut, longest

Rounding = Literal["nearest", "stochastic"]


def _quiet() -> np.errstate:
    """Overflow of q saturates and underflow rounds to zero, both as they should: no warnings, whatever the user set."""
    return np.errstate(over="ignore", under="ignore", invalid="ignore")


@_quiet()
def quantize(
    x: ArrayLike,
    grid: Grid | str,
    scale: ArrayLike = 1.0,
    shift: ArrayLike = 0.0,
    *,
    zero_point: ArrayLike | None = None,
    rounding: Rounding = "nearest",
    rng: int | np.random.Generator | None = None,
) -> NDArray[Any]:
    """`qerror.quantize` to a grid.

    Examples
    --------
    >>> quantize([-1.0, 0.3, 0.75, 9.0], "int4", scale=0.5)
    array([-2,  1,  2,  7], dtype=int8)
    """
    g = as_grid(grid)
    job = _prepare(x, g, scale, shift, zero_point, rounding)
    codes = np.empty(job.shape, dtype=code_dtype(g))
    _run(job, g, rng, lambda unit, scratch: codes.reshape(-1)[unit.flat], None)
    return codes


@_quiet()
def dequantize(
    codes: ArrayLike,
    grid: Grid | str,
    scale: ArrayLike = 1.0,
    shift: ArrayLike = 0.0,
    *,
    zero_point: ArrayLike | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """`qerror.dequantize` from a grid.

    Examples
    --------
    >>> dequantize([-2, 1, 7], "int4", scale=0.5)
    array([-1. ,  0.5,  3.5], dtype=float32)
    """
    g = as_grid(grid)
    array = check_codes(codes, g)
    s, z, p = _parameters(g, scale, shift, zero_point)
    shape = _broadcast_shape("codes", array, s, z if p is None else p)
    decode, target = make_decoder(g, s, z, p, shape, dtype, array.dtype)
    out = np.empty(shape, dtype=target)
    source = np.broadcast_to(array, shape)

    chunks = cut(shape)
    memory = ScratchPool(longest(chunks))

    def work(units: Sequence[Unit]) -> bool:
        scratch = memory.of_thread()
        return all(decode(source[unit.index], out[unit.index], unit.index, scratch) for unit in units)

    if not all(thread_map(work, chunks, at_most=TABLE_THREADS)):
        check_codes(array, g, every=True)
    return out


@_quiet()
def fake_quantize(
    x: ArrayLike,
    grid: Grid | str,
    scale: ArrayLike = 1.0,
    shift: ArrayLike = 0.0,
    *,
    zero_point: ArrayLike | None = None,
    rounding: Rounding = "nearest",
    rng: int | np.random.Generator | None = None,
) -> NDArray[Any]:
    """`qerror.fake_quantize` to a grid.

    Examples
    --------
    >>> fake_quantize([-1.0, 0.3, 0.75, 9.0], "int4", scale=0.5)
    array([-1. ,  0.5,  1. ,  3.5])
    """
    g = as_grid(grid)
    job = _prepare(x, g, scale, shift, zero_point, rounding)
    dtype = np.float64 if job.x.dtype.kind in "iub" else job.x.dtype
    kind = code_dtype(g)
    decode, target = make_decoder(g, *_parameters(g, scale, shift, zero_point), job.shape, dtype, kind)
    out = np.empty(job.shape, dtype=target)

    def finish(unit: Unit, codes: NDArray[Any], scratch: Scratch) -> None:
        decode(codes.reshape(out[unit.index].shape), out[unit.index], unit.index, scratch)

    _run(job, g, rng, lambda unit, scratch: scratch.take("codes", kind, unit.size), finish)
    return out


@dataclass(frozen=True)
class _Job:
    """What to cast: x, scale and shift broadcast to one shape; scale 1 and shift 0 are None."""

    x: NDArray[Any]
    source: NDArray[Any]
    scale: NDArray[Any] | None
    shift: NDArray[Any] | None
    zero_point: NDArray[Any] | None
    shape: tuple[int, ...]
    dtype: Any
    stochastic: bool


def _parameters(
    grid: Grid, scale: ArrayLike, shift: ArrayLike, zero_point: ArrayLike | None
) -> tuple[Array, Array, Array | None]:
    """Scale, shift and zero point, checked."""
    s = check_scale(scale, signed=True)
    if zero_point is None:
        return s, check_shift(shift), None
    check_affine(grid)
    return s, np.zeros(()), check_zero_point(zero_point, shift)


def _prepare(
    x: ArrayLike, grid: Grid, scale: ArrayLike, shift: ArrayLike, zero_point: ArrayLike | None, rounding: Rounding
) -> _Job:
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    array = as_real("x", x)
    s, z, p = _parameters(grid, scale, shift, zero_point)
    shape = _broadcast_shape("x", array, s, z if p is None else p)
    narrow = array.dtype.kind == "V" or (array.dtype.kind == "f" and array.dtype.itemsize <= 4)
    # Far zero points meet quotients whose fractions float32 has not; nor has it those that stochastic rounding needs.
    near = p is None or (rounding == "nearest" and bool(((p >= grid.min) & (p <= grid.max)).all()))
    dtype = np.float32 if narrow and near and _fit_single(s, z) else np.float64
    return _Job(
        x=array,
        source=np.broadcast_to(array, shape),
        scale=None if (s == 1).all() else np.broadcast_to(s.astype(dtype), shape),
        shift=None if (z == 0).all() else np.broadcast_to(z.astype(dtype), shape),
        zero_point=None if p is None else np.broadcast_to(p.astype(dtype), shape),
        shape=shape,
        dtype=dtype,
        stochastic=rounding == "stochastic",
    )


def _run(
    job: _Job,
    grid: Grid,
    rng: int | np.random.Generator | None,
    target: Callable[[Unit, Scratch], NDArray[Any]],
    finish: Callable[[Unit, NDArray[Any], Scratch], None] | None,
) -> None:
    """Round every unit into the array that `target` names, and hand it to `finish`."""
    chunks = cut(job.shape)
    # A stream for each chunk, not for each thread: the result is the same for any number of threads.
    streams = as_rng(rng).spawn(len(chunks)) if job.stochastic else [None] * len(chunks)
    # With a zero point what comes to the kernel is rounded, and only to be encoded.
    stochastic = job.stochastic and job.zero_point is None
    kernel = make_kernel(grid, job.dtype, stochastic=stochastic, many=math.prod(job.shape) >= UNIT)
    memory = ScratchPool(longest(chunks))

    def work(item: tuple[list[Unit], np.random.Generator | None]) -> bool:
        units, stream = item
        scratch = memory.of_thread(stream)
        with _quiet():
            for unit in units:
                q = _normalize(job, unit, scratch, kernel.keeps and job.zero_point is None)
                # The extremes show NaN and infinity; an infinite q may also be a finite x that overflowed.
                least, most = q.min(), q.max()
                if not np.isfinite(most - least) and not np.isfinite(job.source[unit.index].astype(np.float64)).all():
                    return False
                if kernel.limit is not None and max(-least, most) > kernel.limit:
                    q = np.clip(q, -kernel.limit, kernel.limit, out=scratch.take("q", q.dtype, q.size))
                if job.zero_point is not None:
                    round_integers(q, job.stochastic, scratch)
                    q += job.zero_point[unit.index].ravel()
                if kernel.dtype != job.dtype:
                    wide = scratch.take("wide", kernel.dtype, unit.size)
                    np.copyto(wide, q)
                    q = wide
                codes = target(unit, scratch)
                kernel.round(q, codes, scratch)
                if finish is not None:
                    finish(unit, codes, scratch)
        return True

    at_most = TABLE_THREADS if kernel.by_table else None
    if not all(thread_map(work, zip(chunks, streams, strict=True), at_most=at_most)):
        check_finite("x", job.x if job.x.dtype.kind != "V" else job.x.astype(np.float64))


def _normalize(job: _Job, unit: Unit, scratch: Scratch, share: bool) -> NDArray[Any]:
    """Return (x - z) / s of a unit as a flat buffer, or with `share` x itself where it is that."""
    x = job.source[unit.index]
    plain = job.shift is None and job.scale is None
    if share and plain and x.dtype == job.dtype and x.flags.c_contiguous and x.flags.aligned:
        return np.reshape(x, -1)
    flat = scratch.take("q", job.dtype, unit.size)
    q = flat.reshape(np.shape(x))
    if plain or x.dtype != job.dtype:
        np.copyto(q, x, casting="unsafe")
        x = q
    if job.shift is not None:
        x = np.subtract(x, job.shift[unit.index], out=q)
    if job.scale is not None:
        np.divide(x, job.scale[unit.index], out=q)
    return flat


def as_real(name: str, x: ArrayLike) -> NDArray[Any]:
    """An array of real numbers in its own dtype."""
    try:
        array = np.asarray(readable(name, x))
    except ValueError as error:
        raise ValueError(f"{name} must be an array of real numbers with one shape: {error}") from None
    if not is_real_dtype(array.dtype):
        raise ValueError(f"{name} must be an array of real numbers, got dtype {array.dtype}")
    return array


def _broadcast_shape(
    name: str, array: NDArray[Any], scale: NDArray[np.float64], shift: NDArray[np.float64]
) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(array.shape, scale.shape, shift.shape)
    except ValueError:
        raise ValueError(
            f"scale of shape {scale.shape} and shift of shape {shift.shape} must broadcast against {name} of shape "
            f"{array.shape}; one scale a row is scale[:, None]"
        ) from None


def _fit_single(scale: NDArray[np.float64], shift: NDArray[np.float64]) -> bool:
    """Tell whether float32 holds the scales without loss of digits and the shifts without danger of overflow."""
    if not scale.size or not shift.size:
        return True
    size = np.abs(scale)
    return bool(size.min() >= 2.0**-126 and size.max() < 2.0**127 and np.abs(shift).max() < 2.0**120)


def code_dtype(grid: Grid) -> np.dtype[Any]:
    """The smallest integer dtype that holds all codes of a grid."""
    low, high = int(grid.codes.min()), int(grid.codes.max())
    # A negative number has a signed type, and the one that holds -high - 1 holds high.
    return np.min_scalar_type(min(low, -high - 1) if low < 0 else high)
