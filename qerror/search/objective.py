"""The MSE as a function of the scale, fast enough for searches: many (row, scale) pairs in one call.

With rounding to nearest and u = 1 / s, MSE(s) = A - 2 s B + s^2 C, where A = E[y^2], B = E[y l], C = E[l^2],
y = x - z and l the level that y / s goes to. B and C are sums over thresholds of tail functions of the density; they
are right to float64 rounding of A, not of the MSE: the error of a result comes from `error.error_sums`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import error, fine_grids, high_resolution
from ..densities.base import Density
from ..grids.grid import Grid

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# Thresholds in flight: two tail functions and their temporaries stay in the second-level cache.
_CHUNK = 1 << 14


class Points(NamedTuple):
    """Evaluated scales: which row, the scale, the MSE and its slope, and B and C (nan where the route has none)."""

    row: Index
    scale: Array
    mse: Array
    slope: Array
    b: Array
    c: Array

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Points:
        return Points(*(field[index] for field in self))


def join(parts: list[Points]) -> Points:
    """All points, sorted by row and scale, each scale once."""
    every = Points(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    every = every.select(np.lexsort((every.scale, every.row)))
    again = np.zeros(every.row.size, bool)
    again[1:] = (every.row[1:] == every.row[:-1]) & (every.scale[1:] == every.scale[:-1])
    return every.select(~again) if again.any() else every


class Objective:
    """MSE of a density (or of rows of densities) on a grid at fixed shifts, as a function of the scale.

    Parameters
    ----------
    density : Density
        Of shape () or (R,).
    grid : Grid
    shift : ndarray of shape (R,)
    rounding, model : str
        As in `quantization_error`.
    """

    def __init__(self, density: Density, grid: Grid, shift: Array, rounding: str, model: str) -> None:
        self.density, self.grid, self.shift = density, grid, shift
        self.rounding, self.model = rounding, model
        self.mean = np.broadcast_to(np.asarray(density.mean, np.float64), shift.shape)
        self.offset = self.mean - shift
        self.power = np.broadcast_to(np.square(density.std), shift.shape) + self.offset**2
        self.convex = rounding == "nearest" and model == "exact"
        self.accurate = not self.convex or fine_grids.pays(density, grid)
        levels = grid.levels
        self._gaps, self._squares = np.diff(levels), np.diff(levels**2)

    def members(self, row: Index) -> Density:
        return self.density.take(row) if self.density.shape else self.density

    def __call__(self, row: Index, scale: Array) -> Points:
        """Evaluate at `scale[i]` for the density of `row[i]`."""
        if self.accurate:
            return self._accurate(row, scale)
        b, c = np.empty_like(scale), np.empty_like(scale)
        step = max(1, _CHUNK // self._gaps.size)
        for start in range(0, scale.size, step):
            part = slice(start, start + step)
            b[part], c[part] = self._sums(row[part], scale[part])
        mse = self.power[row] - scale * (2 * b - scale * c)
        return Points(row, scale, mse, 2 * (scale * c - b), b, c)

    def _sums(self, row: Index, scale: Array) -> tuple[Array, Array]:
        """B and C by summation over thresholds (Abel): each contributes its tail, the smaller of the two."""
        shift, offset = self.shift[row], self.offset[row]
        values = scale[:, None] * self.grid.thresholds + shift[:, None]
        mass, first = self.members(row).tails(values)
        # The level of the mean itself: P(x > t) - 1 below it turns the sums into deviations from that level.
        home = self.grid.levels[(values < self.mean[row][:, None]).sum(axis=1)]
        level = home + np.einsum("ij,j->i", mass, self._gaps)
        square = home * home + np.einsum("ij,j->i", mass, self._squares)
        return np.einsum("ij,j->i", first, self._gaps) + offset * level, square

    def _accurate(self, row: Index, scale: Array) -> Points:
        shift = self.shift[row]
        if self.model == "high_resolution":
            clipping, rounding, slope, _ = high_resolution.error_sums(
                self.members(row), self.grid, scale, shift, self.rounding
            )
            mse = clipping + rounding
        else:
            sums = error.error_sums(self.members(row), self.grid, scale, shift, self.rounding)
            mse, slope = sums.mse, sums.by_scale
        if not self.convex:
            return Points(row, scale, mse, slope, *np.full((2, scale.size), np.nan))
        # From MSE = A - 2 s B + s^2 C and slope = 2 (s C - B).
        b = (self.power[row] - mse) / scale + 0.5 * slope
        return Points(row, scale, mse, slope, b, (b + 0.5 * slope) / scale)
