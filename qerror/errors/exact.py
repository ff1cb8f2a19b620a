"""The error of a quantizer on a density: THE formula, its gradient, and the probabilities of the codes.

MSE = sum over cells of the second moment about the value that the cell is sent to; its derivatives by scale and
shift are -2 sum l_k m1_k and -2 sum m1_k, with m1_k the first moment of cell k about its value.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import broadcast_shape, check_scale, check_shift
from .._threads import chunk_slices
from .._types import Array
from ..casting.ties import last_below
from ..densities.base import Density, check_density
from ..grids.grid import Grid
from ..results import ErrorTerms
from . import fine_grids, high_resolution, on_samples

Rounding = Literal["nearest", "stochastic"]
Model = Literal["exact", "high_resolution"]
ROUNDINGS = ("nearest", "stochastic")
MODELS = ("exact", "high_resolution")

# Cells in flight at a time: edges, values and three moments of this many cells take about 50 MB.
_CHUNK_CELLS = 1 << 20


class ErrorSums(NamedTuple):
    """Terms of the error and the derivatives of the MSE, one flat array each."""

    clipping: Array
    rounding: Array
    bias: Array
    cross: Array
    by_scale: Array
    by_shift: Array

    @property
    def mse(self) -> Array:
        """Clipping and rounding."""
        return self.clipping + self.rounding


def flat_terms(
    density: Density, grid: Grid, scale: Array, shift: Array, rounding: Rounding, model: Model
) -> ErrorTerms:
    """`quantization_error` for flat `scale` and `shift`; density.shape is () or that of `scale`."""
    sums = error_sums(density, grid, scale, shift, rounding, model)
    return terms_of(sums, density, grid, scale, shift, rounding, model)


def terms_of(
    sums: ErrorSums, density: Density, grid: Grid, scale: Array, shift: Array, rounding: Rounding, model: Model
) -> ErrorTerms:
    """The terms of what `error_sums` found for the same arguments."""
    mean = np.zeros(scale.shape) + density.mean
    power = np.square(density.std) + np.square(mean)
    clipping, rounding_error, bias, cross, *_ = sums
    coarse = (clipping + rounding_error > power).nonzero()[0]
    if coarse.size and rounding == "nearest" and model == "exact":
        cross[coarse] = _coarse_cross(member(density, coarse), grid, scale[coarse], shift[coarse])
    return ErrorTerms(clipping, rounding_error, bias, cross, power, mean)


def flatten(
    density: Density, scale: ArrayLike | None, shift: ArrayLike
) -> tuple[Density, Array, Array, tuple[int, ...]]:
    """One row for each (density, scale, shift) of the broadcast shape."""
    check_density(density)
    scale = check_scale(scale)
    shift = check_shift(shift)
    shape = broadcast_shape(density.shape, scale=scale, shift=shift)
    scale, shift = (x if x.shape == shape else np.broadcast_to(x, shape) for x in (scale, shift))
    return density.spread(shape), scale.ravel(), shift.ravel(), shape


def error_sums(
    density: Density, grid: Grid, scale: Array, shift: Array, rounding: str = "nearest", model: str = "exact"
) -> ErrorSums:
    """Terms and derivatives for flat `scale` and `shift`; density.shape is () or that of `scale`."""
    if model == "high_resolution":
        clipping, rounded, by_scale, by_shift = high_resolution.error_sums(density, grid, scale, shift, rounding)
        return ErrorSums(clipping, rounded, np.zeros(scale.shape), np.zeros(scale.shape), by_scale, by_shift)
    if fine_grids.pays(density, grid):
        return ErrorSums(*fine_grids.error_rows(density, grid, scale, shift, rounding))
    if rounding == "nearest" and on_samples.pays(density, scale, shift):
        return ErrorSums(*on_samples.error_rows(density, grid, scale, shift))
    cells = _nearest if rounding == "nearest" else _stochastic
    step = max(1, _CHUNK_CELLS // len(grid.levels))
    parts = chunk_slices(scale.size, step) or [slice(0, 0)]
    sums = [cells(member(density, part), grid, scale[part], shift[part]) for part in parts]
    return sums[0] if len(sums) == 1 else ErrorSums(*(np.concatenate(column) for column in zip(*sums, strict=True)))


def member(density: Density, part: slice | NDArray[np.intp]) -> Density:
    """The rows of `density` that `part` names; the same density where it has no rows."""
    return density.take(np.arange(density.shape[0])[part]) if density.shape else density


def ends_around(inner: Array) -> Array:
    """Edges from minus to plus infinity around `inner`."""
    end = np.full((inner.shape[0], 1), np.inf)
    return np.concatenate([-end, inner, end], axis=1)


@functools.lru_cache(maxsize=128)
def _cells(grid: Grid) -> tuple[Array, Array]:
    """The level of each cell and the ends of the cells, what is clipped apart, in units of the scale."""
    ends = np.concatenate([[-np.inf], grid.levels[:1], grid.thresholds, grid.levels[-1:], [np.inf]])
    return np.concatenate([grid.levels[:1], grid.levels, grid.levels[-1:]]), ends


def _nearest(density: Density, grid: Grid, scale: Array, shift: Array) -> ErrorSums:
    levels, ends = _cells(grid)
    value, edges = scale[:, None] * levels, scale[:, None] * ends
    last = None
    if density.has_atoms:
        last = shift[:, None] + edges
        last[:, 2:-2] = last_below(grid.thresholds, grid.ties_to_lower, scale[:, None], shift[:, None])
    moments = density.cell_moments(edges, value, shift, last)
    _, first, second = moments
    clipping = second[:, 0] + second[:, -1]
    rounding = second[:, 1:-1].sum(axis=1)
    by_shift = first.sum(axis=1)
    # E[x (Q - x)] = -sum of (x - q) x over the cells, x = (x - q) + q.
    cross = -(clipping + rounding + np.vecdot(first, value + shift[:, None]))
    return ErrorSums(clipping, rounding, -by_shift, cross, -2 * np.vecdot(first, levels), -2 * by_shift)


def _coarse_cross(density: Density, grid: Grid, scale: Array, shift: Array) -> Array:
    """E[x (Q - x)] = E[x Q] - E[x^2] where the error exceeds the signal and the sum about the values would cancel."""
    t = shift[:, None] + scale[:, None] * grid.thresholds
    mass, first = density.tails(t)
    mean, std = np.broadcast_to(density.mean, scale.shape), np.broadcast_to(density.std, scale.shape)
    gaps = np.diff(grid.levels)
    home = grid.levels[(t < mean[:, None]).sum(axis=1)]
    level = home + np.einsum("ij,j->i", mass, gaps)
    with_x = np.einsum("ij,j->i", first, gaps) + mean * level
    cross: Array = scale * with_x + shift * mean - (np.square(std) + np.square(mean))
    return cross


def _stochastic(density: Density, grid: Grid, scale: Array, shift: Array) -> ErrorSums:
    """Loss (x - a)(b - x) in the gap from a to b: each half about its own end, where the two terms do not cancel."""
    levels, below, above = grid.levels, grid.levels[:-1], grid.levels[1:]
    inner = np.empty(2 * len(levels) - 1)
    inner[::2], inner[1::2] = levels, grid.thresholds
    centre = np.concatenate([levels[:1], np.repeat(levels, 2)[1:-1], levels[-1:]])
    value = scale[:, None] * centre
    mass, first, second = density.cell_moments(ends_around(scale[:, None] * inner), value, shift)
    gap = scale[:, None] * (above - below)
    left, right = slice(1, -1, 2), slice(2, -1, 2)
    rounding = (gap * (first[:, left] - first[:, right]) - second[:, left] - second[:, right]).sum(axis=1)
    clipping = second[:, 0] + second[:, -1]
    ends = first[:, [0, -1]]
    bias = -ends.sum(axis=1)
    cross = -(clipping + (ends * (value[:, [0, -1]] + shift[:, None])).sum(axis=1))
    from_below = first[:, left] + first[:, right] + gap * mass[:, right]
    from_above = gap * (mass[:, left] + mass[:, right]) - from_below
    by_scale = np.einsum("ij,j->i", from_below, above) - np.einsum("ij,j->i", from_above, below)
    by_scale -= 2 * np.einsum("ij,j->i", ends, levels[[0, -1]])
    by_shift = (from_below - from_above).sum(axis=1) - 2 * ends.sum(axis=1)
    return ErrorSums(clipping, rounding, bias, cross, by_scale, by_shift)


def probabilities(density: Density, grid: Grid, scale: Array, shift: Array, rounding: str) -> Array:
    """Probability of each level, (n, K), for flat `scale` and `shift`; density.shape is () or that of `scale`."""
    unit = scale[:, None]
    if rounding == "nearest":
        last = None
        if density.has_atoms:
            last = ends_around(last_below(grid.thresholds, grid.ties_to_lower, unit, shift[:, None]))
        mass: Array = density.cell_moments(ends_around(unit * grid.thresholds), unit * grid.levels, shift, last)[0]
        return mass
    centre = unit * np.concatenate([grid.levels[:1], grid.levels])
    mass, first, _ = density.cell_moments(ends_around(unit * grid.levels), centre, shift)
    up = np.clip(first[:, 1:-1] / (unit * np.diff(grid.levels)), 0.0, mass[:, 1:-1])
    out = np.zeros((scale.size, len(grid.levels)))
    out[:, 0] += mass[:, 0]
    out[:, -1] += mass[:, -1]
    out[:, :-1] += mass[:, 1:-1] - up
    out[:, 1:] += up
    return out
