"""The high-resolution model: clipping exact, rounding as if the error were uniform inside every gap.

A uniform grid: rounding = step^2 / 12 on the whole line (StatQAT, arXiv 2605.17745; ACIQ, arXiv 1810.05723). Any other
grid: the sum over gaps between neighbouring levels of gap^2 / 12 * P(gap), StatQAT's regions of constant step.
Stochastic rounding doubles it (/6). The bias and cross terms are 0.
"""

from __future__ import annotations

import numpy as np

from .._threads import chunk_slices
from .._types import Array
from ..densities.base import Density
from ..grids.grid import Grid

_CHUNK_CELLS = 1 << 20


def error_sums(
    density: Density, grid: Grid, scale: Array, shift: Array, rounding: str = "nearest"
) -> tuple[Array, Array, Array, Array]:
    """Clipping, rounding and the derivatives of their sum by scale and shift, for flat `scale` and `shift`.

    Raises
    ------
    ValueError
        For a density with point masses: the model smooths what they are not.
    """
    if density.has_atoms:
        raise ValueError(f"model='high_resolution' needs a density without point masses, got {density!r}; use 'exact'")
    part = 6.0 if rounding == "stochastic" else 12.0
    clipping, by_scale, by_shift = _clipping(density, grid, scale, shift)
    if grid.step is not None:
        constant = grid.step**2 / part
        return clipping, constant * scale * scale, by_scale + 2 * constant * scale, by_shift
    rounding_error = np.empty_like(scale)
    for rows in chunk_slices(scale.size, max(1, _CHUNK_CELLS // len(grid.levels))):
        members = density.take(np.arange(scale.size)[rows]) if density.shape else density
        rounding_error[rows], by_s, by_z = _gaps(members, grid, scale[rows], shift[rows], part)
        by_scale[rows] += by_s
        by_shift[rows] += by_z
    return clipping, rounding_error, by_scale, by_shift


def _clipping(density: Density, grid: Grid, scale: Array, shift: Array) -> tuple[Array, Array, Array]:
    ends = scale[:, None] * np.array([[-np.inf, grid.min, grid.max, np.inf]])
    value = scale[:, None] * np.array([[grid.min, 0.0, grid.max]])
    _, first, second = density.cell_moments(ends, value, shift)
    lower, upper = first[:, 0], first[:, 2]
    return second[:, 0] + second[:, 2], -2 * (lower * grid.min + upper * grid.max), -2 * (lower + upper)


def _gaps(density: Density, grid: Grid, scale: Array, shift: Array, part: float) -> tuple[Array, Array, Array]:
    """Sum of gap^2 P(gap) / part, and its derivatives: the gaps scale, and their ends carry mass along."""
    edges = scale[:, None] * grid.levels
    mass = density.cell_moments(edges, edges[:, :-1], shift)[0]
    square = np.diff(grid.levels) ** 2 / part
    members = density.take(np.arange(scale.size)[:, None]) if density.shape else density
    f = members.pdf(shift[:, None] + edges)
    gathered = np.einsum("ij,j->i", mass, square)
    carried = np.einsum("ij,j->i", np.diff(f * grid.levels, axis=1), square)
    moved = np.einsum("ij,j->i", np.diff(f, axis=1), square)
    return scale**2 * gathered, 2 * scale * gathered + scale**2 * carried, scale**2 * moved
