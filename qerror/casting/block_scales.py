"""The scale of each block by the rule of its format, from the block's largest magnitude or by comparing errors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import OCTAVES, farthest_is_lowest, octave_end, stored_scales
from ..grids.grid import Grid
from .best_stored import best_of_all
from .cast import fake_quantize
from .losses import losses

_LARGEST = float(np.finfo(np.float64).max)


def own_tensor_scale(x: NDArray[Any], grid: Grid, full_scale: float) -> float:
    """The float32 with which the largest magnitude of x needs a block scale of `full_scale`; 1 for all zeros.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> own_tensor_scale(np.array([3.0, -1344.0]), grid("e2m1"), 448.0)
    0.5
    """
    return tensor_scale_of(max(abs(float(x.max())), abs(float(x.min()))) if x.size else 0.0, grid, full_scale)


def tensor_scale_of(largest: float, grid: Grid, full_scale: float) -> float:
    """The same of the largest magnitude alone: of a tensor in parts, or of several that share it."""
    if not largest:
        return 1.0
    # NaN and infinity stay what they are, for the caller to see.
    range_ = np.finfo(np.float32)
    return float(np.float32(np.clip(largest / (full_scale * grid.absmax), range_.tiny, range_.max)))


def scales_of(blocks: NDArray[Any], form: BlockFormat, unit: float = 1.0, weights: Array | None = None) -> Array:
    """The scale of each block by the rule of the format, in units of the tensor scale `unit`: as it is stored.

    0 where the format of scales has it and the scale rounds to it, and where all values are 0 and scales may have any
    size: such blocks become 0. Negative for signed formats.

    Parameters
    ----------
    blocks : ndarray of shape (..., n)
        Real numbers. Where they are not finite, so is the scale (or the rule is one that compares errors).
    form : BlockFormat
    unit : float
    weights : ndarray of shape (..., n), optional
        Of the squared errors that the rules best_of and optimal compare.

    Returns
    -------
    ndarray of shape (...)

    Examples
    --------
    >>> from qerror.grids.block_formats import block_format
    >>> blocks = np.array([[0.1, -7.0], [0.0, 0.0]])
    >>> [float(scales_of(blocks, block_format("mxfp4").replace(rule=rule))[0]) for rule in OCTAVES]
    [1.0, 2.0, 2.0, 2.0]
    >>> scales_of(blocks, block_format("e2m1_g2_e4m3fn")).tolist()
    [1.125, 0.0]
    """
    if form.rule in ("best_of", "optimal"):
        rows = np.reshape(blocks, (-1, blocks.shape[-1])).astype(np.float64)
        flat = None if weights is None else np.reshape(weights, rows.shape)
        return _compared(rows, form, unit, flat).reshape(blocks.shape[:-1])
    largest, turned = _largest(_plain(blocks), form)
    scale = _by_largest(largest, form, form.constants[0], unit)
    return scale if turned is None else np.where(turned & (scale != 0), -scale, scale)


def _plain(blocks: NDArray[Any]) -> NDArray[Any]:
    """The same values in a type whose magnitudes NumPy has."""
    if blocks.dtype.kind == "f":
        return blocks
    return blocks.astype(np.float32 if blocks.dtype.kind == "V" else np.float64)


def _largest(blocks: NDArray[Any], form: BlockFormat) -> tuple[Array, NDArray[np.bool_] | None]:
    """The largest magnitude of each block, and whether its sign is not that of the level of largest magnitude."""
    if not form.signed:
        return np.asarray(np.abs(blocks).max(axis=-1), np.float64), None
    first = np.abs(blocks).argmax(axis=-1)[..., None]
    value = np.take_along_axis(blocks, first, axis=-1)[..., 0].astype(np.float64)
    below = farthest_is_lowest(form.grid)
    return np.abs(value), (value > 0) if below else (value < 0)


def _by_largest(largest: Array, form: BlockFormat, constant: float, unit: float) -> Array:
    """The scale by a rule that reads the largest magnitude, before its sign."""
    grid, stored = form.grid, form.scale_format
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        if stored is None:
            return _quotient(largest, constant, grid.absmax, unit)
        if form.rule in OCTAVES:
            return _power_of_two(largest, form, stored, constant, unit)
        if form.rule in ("up", "down"):
            values = stored_scales(stored)
            bounds, aim = values * (grid.absmax * unit), constant * largest
            side, before = ("left", 0) if form.rule == "up" else ("right", 1)
            place = np.searchsorted(bounds, aim, side=side) - before  # type: ignore[call-overload]
            return _unless_infinite(values[np.clip(place, 0, values.size - 1)], largest)
        return nearest_stored(_quotient(largest, constant, grid.absmax, unit), stored)


def nearest_stored(scale: Array, stored: Grid) -> Array:
    """The nearest value of a scale format from 0 on, of two equally near ones that of even code; nan stays."""
    good = np.isfinite(scale)
    found = fake_quantize(np.where(good, scale, 0.0), stored)
    return np.where(good, np.maximum(found, stored_scales(stored)[0]), np.nan)


def _quotient(largest: Array, constant: float, absmax: float, unit: float) -> Array:
    """C M / (l t), rounded twice at most: ties of the few digits that formats have are met exactly."""
    divisor = absmax * unit
    top = constant * largest
    if 0 < divisor < math.inf and (top < math.inf).all():
        quotient: Array = top / divisor
    else:
        quotient = largest / absmax / unit * constant
    return np.where(largest <= _LARGEST, np.minimum(quotient, _LARGEST), np.nan)


def _power_of_two(largest: Array, form: BlockFormat, stored: Grid, constant: float, unit: float) -> Array:
    """2^k with theta / 2 <= c M / 2^k < theta, by mantissas and exponents; ceil and rceil have theta on the other side.

    Of a format with gaps the largest value up to that, and its end values beyond them.
    """
    values = stored_scales(stored)
    (part, power), (end, end_power) = math.frexp(unit), math.frexp(octave_end(form.grid, form.rule))
    mantissa, exponent = np.frexp(largest)
    mantissa, more = np.frexp(mantissa * (constant / part))
    beyond = mantissa > end if form.rule in ("ceil", "rceil") else mantissa >= end
    k = exponent + more - power - end_power + beyond
    zeros = int(values[0] == 0)
    exponents = np.frexp(values[zeros:])[1] - 1
    if exponents[-1] - exponents[0] == exponents.size - 1:
        place = k - exponents[0] + zeros
    else:
        place = np.searchsorted(exponents, k, side="right") + zeros - 1
    return _unless_infinite(values[np.where(largest > 0, np.clip(place, 0, values.size - 1), 0)], largest)


def _unless_infinite(scale: Array, largest: Array) -> Array:
    # Largest magnitudes that are no numbers have no scale.
    found: Array = np.where(np.isfinite(largest), scale, np.nan)
    return found


def _compared(rows: Array, form: BlockFormat, unit: float, weights: Array | None) -> Array:
    """The scale of least squared error: of those that the constants give, or of all."""
    if form.rule == "optimal":
        if form.scale_format is None:
            remedy = "qerror.fit finds the best scale of any size"
            raise ValueError(f"scale_format must be given to cast by rule optimal, got {form!r}; {remedy}")
        return best_of_all(rows, form.grid, stored_scales(form.scale_format), unit, weights)
    largest = np.abs(rows).max(axis=1)
    nearest = form.replace(rule="absmax", constant=1.0)
    candidates = np.stack([_by_largest(largest, nearest, c, unit) for c in form.constants])
    if not np.isfinite(largest).all():
        return np.asarray(candidates[0])
    errors = np.stack([losses(rows, form.grid, scale * unit, weights) for scale in candidates])
    # The first of equals.
    return np.asarray(np.take_along_axis(candidates, errors.argmin(axis=0)[None], axis=0)[0])
