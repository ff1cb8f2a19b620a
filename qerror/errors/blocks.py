"""The expected error of block formats: that of the scaled values, and what a density cannot say."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from .._check import broadcast_shape, check_positive
from .._types import Array
from ..densities.base import Density, check_density
from ..densities.blocks import BlockScaled
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from ..results import BlockErrorTerms
from .exact import Model, Rounding, error_sums


def block_error(
    density: Density, form: BlockFormat, scale: ArrayLike, rounding: Rounding, model: Model
) -> BlockErrorTerms:
    """`quantization_error` of a block format: of each member at each tensor scale.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror.grids.block_formats import block_format
    >>> terms = block_error(qe.Gaussian(), block_format("mxfp4"), 1.0, "nearest", "exact")
    >>> round(float(terms.mse), 12), round(float(terms.maximum / terms.mse), 6)
    (0.013218762254, 0.231464)
    """
    check_density(density)
    units = check_positive("scale", scale)
    shape = broadcast_shape(density.shape, scale=units)
    members, flat = density.spread(shape), np.broadcast_to(units, shape).ravel()
    columns = [_one(_member(members, i), form, float(unit), rounding, model) for i, unit in enumerate(flat)]
    terms = np.array(columns).reshape(-1, 7).T.reshape(7, *shape)
    clipping, rounded, bias, cross, power, mean, maximum = (term[()] for term in terms)
    return BlockErrorTerms(clipping, rounded, bias, cross, power, mean, maximum, form.bits_per_value())


def _member(density: Density, index: int) -> Density:
    if not density.shape:
        return density
    return density.take(np.array(index))


def _one(density: Density, form: BlockFormat, unit: float, rounding: Rounding, model: Model) -> tuple[float, ...]:
    """Clipping, rounding, bias, cross, power, mean and the share of the largest values."""
    blocks = BlockScaled(density, form, unit)
    one, zero = np.ones(1), np.zeros(1)
    clipping, rounded, _, cross = (float(a[0]) for a in error_sums(blocks, form.grid, one, zero, rounding, model)[:4])
    _, first, second = blocks.lost
    weight, mean = blocks.weight, float(density.mean)
    bias = -float(first)
    if not (blocks.symmetric and np.array_equal(form.grid.levels, -form.grid.levels[::-1])):
        # Biases count by the scale, not by its square.
        single = BlockScaled(density, form, unit, order=1)
        bias += single.weight * float(error_sums(single, form.grid, one, zero, rounding, model).bias[0])
    return (
        weight * clipping + float(second),
        weight * rounded,
        bias,
        weight * cross - float(second),
        float(density.std) ** 2 + mean**2,
        mean,
        _maximum(blocks, form.grid, rounding),
    )


def _maximum(blocks: BlockScaled, grid: Grid, rounding: Rounding) -> float:
    """The largest values' part of the mean squared error."""
    x, count, scale = blocks.largest_values(grid)
    return math.fsum(count * _loss(x, scale, grid, rounding))


def _loss(x: Array, scale: Array, grid: Grid, rounding: Rounding) -> Array:
    """The expected squared error of single values."""
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where(scale > 0, x / scale, 0.0)
    if rounding == "nearest":
        level = grid.levels[np.searchsorted(grid.thresholds, y)]
        return np.asarray((x - scale * level) ** 2)
    above = np.clip(np.searchsorted(grid.levels, y), 1, len(grid) - 1)
    a, b = scale * grid.levels[above - 1], scale * grid.levels[above]
    beyond = np.where(y < grid.min, (x - a) ** 2, (x - b) ** 2)
    return np.where((y >= grid.min) & (y <= grid.max), np.maximum((x - a) * (b - x), 0.0), beyond)
