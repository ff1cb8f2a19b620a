"""The expected error of block formats: that of the scaled values, and what a density cannot say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._check import broadcast_shape, check_positive
from .._types import Array
from ..densities.base import Density, check_density
from ..densities.block_tops import largest_values
from ..densities.blocks import BlockScaled
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from ..results import BlockErrorTerms
from .best_of import best_of_change
from .exact import Model, Rounding, error_sums, member, probabilities


def block_error(
    density: Density, form: BlockFormat, scale: ArrayLike, size: int | None, rounding: Rounding, model: Model
) -> BlockErrorTerms:
    """`quantization_error` of a block format: of each member at each tensor scale.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror.grids.block_formats import block_format
    >>> terms = block_error(qe.Gaussian(), block_format("mxfp4"), 1.0, None, "nearest", "exact")
    >>> round(float(terms.mse), 12), round(float(terms.maximum / terms.mse), 6)
    (0.013218762254, 0.231464)
    """
    if form.rule == "optimal":
        remedy = "qerror.simulate(density, form, scale, n=...) has it with its error bar"
        raise ValueError(f"form must have a rule other than optimal, whose error is no finite sum; {remedy}")
    terms = _each(density, scale, lambda one, unit: _one(one, form, unit, size, rounding, model))
    clipping, rounded, bias, cross, power, mean, maximum = (term[()] for term in np.moveaxis(terms, -1, 0))
    return BlockErrorTerms(clipping, rounded, bias, cross, power, mean, maximum, form.bits_per_value(size))


def block_mse(density: Density, form: BlockFormat, unit: ArrayLike, rounding: Rounding, model: Model) -> float:
    """The mean squared error alone, of one density at one tensor scale, or the mean over several.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror.grids.block_formats import block_format
    >>> round(block_mse(qe.Gaussian(), block_format("mxfp4"), 1.0, "nearest", "exact"), 12)
    0.013218762254
    """
    if form.rule == "best_of":
        return float(np.mean([_best_of_mse(density, form, float(one), rounding, model) for one in np.ravel(unit)]))
    blocks = BlockScaled(density, form, unit)
    sums = error_sums(blocks, form.grid, np.ones(1), np.zeros(1), rounding, model)
    return blocks.weight * float(sums.mse[0]) + float(blocks.lost[2])


def mean_of_candidates(
    density: Density, form: BlockFormat, unit: float, rounding: Rounding = "nearest", model: Model = "exact"
) -> float:
    """The mean squared error of a block format, of rule best_of the mean over its constants: found in no time.

    Examples
    --------
    >>> import qerror as qe
    >>> form = qe.BlockFormat("e2m1", 16, "e4m3fn", rule="best_of", constant=(1, 1.5))
    >>> round(mean_of_candidates(qe.Gaussian(), form, 1 / 400), 9)
    0.009346895
    """
    _check_exact(model)
    return float(np.mean([block_mse(density, one, unit, rounding, model) for one in _candidates(form)]))


def _best_of_mse(density: Density, form: BlockFormat, unit: float, rounding: Rounding, model: Model) -> float:
    mean = mean_of_candidates(density, form, unit, rounding, model)
    return mean + best_of_change(density, form, unit, mean, rounding, alone=True).mse


def _candidates(form: BlockFormat) -> list[BlockFormat]:
    """The formats that each constant of rule best_of gives alone."""
    return [form.replace(rule="absmax", constant=constant) for constant in form.constants]


def _check_exact(model: Model) -> None:
    if model != "exact":
        raise ValueError(f"model must be 'exact' for rule best_of, got {model!r}; qerror.simulate estimates the error")


def block_probabilities(density: Density, form: BlockFormat, scale: ArrayLike, rounding: Rounding) -> Array:
    """`code_probabilities` of a block format: of the codes of its elements.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror.grids.block_formats import block_format
    >>> p = block_probabilities(qe.Gaussian(), block_format("e2m1_g1"), 1.0, "nearest")
    >>> p[[0, -1]].round(12).tolist()
    [0.5, 0.5]
    """
    return _each(density, scale, lambda one, unit: _probabilities(one, form, unit, rounding))


def _each(density: Density, scale: ArrayLike, of: Callable[[Density, float], Any]) -> Array:
    """What a function says of each member at each tensor scale, along a last axis."""
    check_density(density)
    units = check_positive("scale", scale)
    shape = broadcast_shape(density.shape, scale=units)
    members, flat = density.spread(shape), np.broadcast_to(units, shape).ravel()
    found = [of(member(members, np.array(i)), float(unit)) for i, unit in enumerate(flat)]
    return np.array(found).reshape(*shape, -1)


def _probabilities(density: Density, form: BlockFormat, unit: float, rounding: Rounding) -> Array:
    blocks = BlockScaled(density, form, unit)
    single, one, zero = blocks.reweighted(0), np.ones(1), np.zeros(1)
    found = single.weight * probabilities(single, form.grid, one, zero, rounding)[0]
    # Blocks of scale 0 have the code of 0.
    found[np.argmin(np.abs(form.grid.levels))] += blocks.lost[0]
    return np.asarray(found)


def _one(
    density: Density, form: BlockFormat, unit: float, size: int | None, rounding: Rounding, model: Model
) -> tuple[float, ...]:
    """Clipping, rounding, bias, cross, power, mean and the share of the largest values."""
    if form.rule == "best_of":
        return _best_of(density, form, unit, size, rounding, model)
    if model == "high_resolution" and form.scale_format is None:
        why = "the model smooths the end of the grid, which the largest values meet"
        raise ValueError(f"model must be 'exact' for block scales of any size, got {model!r} and {form.name}: {why}")
    blocks = BlockScaled(density, form, unit, size=size)
    one, zero = np.ones(1), np.zeros(1)
    clipping, rounded, _, cross = (float(a[0]) for a in error_sums(blocks, form.grid, one, zero, rounding, model)[:4])
    lost, weight, mean = float(blocks.lost[2]), blocks.weight, float(density.mean)
    bias = 0.0
    if not (blocks.symmetric and np.array_equal(form.grid.levels, -form.grid.levels[::-1])) and model == "exact":
        bias = _bias(blocks, form.grid, rounding)
    power = float(density.std) ** 2 + mean**2
    maximum = _maximum(blocks, form.grid, rounding)
    return weight * clipping + lost, weight * rounded, bias, weight * cross - lost, power, mean, maximum


def _best_of(
    density: Density, form: BlockFormat, unit: float, size: int | None, rounding: Rounding, model: Model
) -> tuple[float, ...]:
    """The same where each block has the better of two scales: the mean of both, and what the choice changes."""
    _check_exact(model)
    columns = [_one(density, candidate, unit, size, rounding, model) for candidate in _candidates(form)]
    clipping, rounded, bias, cross, power, mean, maximum = np.mean(columns, axis=0).tolist()
    change = best_of_change(density, form, unit, clipping + rounded, rounding, size)
    return (
        clipping + change.clipping,
        rounded + change.mse - change.clipping,
        bias + change.bias,
        cross + change.cross,
        power,
        mean,
        maximum + change.maximum,
    )


def _bias(blocks: BlockScaled, grid: Grid, rounding: Rounding) -> float:
    """E[Q(x) - x]: counted by the scale with its sign, not by its square."""
    single = blocks.reweighted(1)
    parts = [(1.0, single)]
    if blocks.form.signed:
        parts = [(1.0, single.of_sign(False)), (-1.0, single.of_sign(True))]
    parts = [(sign, part) for sign, part in parts if part.weight > 0]
    if rounding == "stochastic":
        ones = np.ones(1), np.zeros(1)
        sums = (sign * part.weight * error_sums(part, grid, *ones, rounding).bias[0] for sign, part in parts)
        return float(sum(sums)) - float(blocks.lost[1])
    # E[Q] - E[x], from the probabilities beyond the thresholds.
    quantized = (sign * part.weight * _mean_level(part, grid) for sign, part in parts)
    return sum(quantized) - float(blocks.base.mean)


def _mean_level(blocks: BlockScaled, grid: Grid) -> float:
    mass, _ = blocks.tails(grid.thresholds)
    home = grid.levels[int((grid.thresholds < blocks.mean).sum())]
    return float(home + mass @ np.diff(grid.levels))


def _maximum(blocks: BlockScaled, grid: Grid, rounding: Rounding) -> float:
    """The largest values' part of the mean squared error."""
    # Where the loss changes its parabola.
    ends = grid.thresholds if rounding == "nearest" else grid.levels
    x, count, scale = largest_values(blocks, ends)
    return float((count * _loss(x, scale, grid, rounding)).sum())


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
