"""The MSE as a function of the scale, fast enough for searches: many (row, scale) pairs in one call.

With rounding to nearest, MSE(s) = A - 2 s B + s^2 C, where A = E[y^2], B = E[y l], C = E[l^2], y = x - z and l the
level that y / s goes to. B and C are sums over thresholds of tail functions of the density; they are right to float64
rounding of A, not of the MSE: the error of a result comes by `errors.exact`.
"""

from __future__ import annotations

import functools

import numpy as np

from ..._threads import chunk_slices
from ..._types import Array, Index
from ...densities.base import Density
from ...errors import exact as error
from ...errors import fine_grids
from ...grids.grid import Grid
from ..found import RESOLUTION
from ..points import Points

# Columns of a table of sharp points: those of `Points`, and those of `error.ErrorSums`.
SHARP = 5 + len(error.ErrorSums._fields)
# Thresholds in flight: two tail functions and their temporaries stay in the second-level cache.
_CHUNK = 1 << 14
# How far from its top, in units of std, a pdf is looked at for a cusp.
_BESIDE_CUSP = 1e-4


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

    def __init__(
        self, density: Density, grid: Grid, shift: Array, rounding: error.Rounding, model: error.Model
    ) -> None:
        self.density, self.grid, self.shift = density, grid, shift
        self.rounding, self.model = rounding, model
        self.mean = np.zeros(shift.shape) + density.mean
        self.offset = self.mean - shift
        self.power = np.square(density.std) + self.offset**2
        self.convex = rounding == "nearest" and model == "exact"
        self.accurate = not self.convex or fine_grids.pays(density, grid)
        self.sample = density.has_atoms and density.panels().shape[-1] == 0
        # What one evaluation looks at: the values themselves where they are fewer than the thresholds.
        self._direct = _Direct(density, grid) if self.sample and density.atom_count < grid.thresholds.size else None
        per_value = 1 if grid.step is not None else 16
        per_threshold = 16 if self.sample else 1
        self.cost = density.atom_count * per_value if self._direct else grid.thresholds.size * per_threshold
        self.kinks = density.kinks
        # Smallest magnitude of a level but zero.
        self.smallest = _smallest(grid)
        centred = density.symmetric and not np.count_nonzero(self.offset)
        self._centred, self._shifted = centred, bool(np.count_nonzero(shift))
        self._tails = (_symmetric if centred else _Tails)(grid)
        # How much an MSE is uncertain by: a few roundings of A, and those of thresholds far from 0.
        far = 0.0 if centred else np.abs(shift)
        self.noise = (RESOLUTION + density.tails_error) * (self.power + far * np.sqrt(self.power))
        # Scales evaluated at a time.
        self._step = max(1, _CHUNK // (density.atom_count if self._direct else self._tails.thresholds.size))
        # Whether `falling` bounds the curvature of the MSE (see `bounds`).
        self.bounded = self.convex and not self.accurate and centred and density.unimodal

    def cusp(self) -> Array:
        """Where the pdf of each row has a cusp away from the shift, which divides dips of the MSE; else nan."""
        if not (self.density.unimodal and np.count_nonzero(self.offset)):
            return np.full(self.shift.shape, np.nan)
        top, beside = (self.density.pdf(self.density.mean + d * self.density.std) for d in (0.0, _BESIDE_CUSP))
        # A smooth top falls by the square of this.
        return np.where((top - beside > _BESIDE_CUSP * top / 8) & (self.offset != 0), self.mean, np.nan)

    def members(self, row: Index) -> Density:
        """The density of each row (one for all where there is only one)."""
        return self.density.take(row) if self.density.shape else self.density

    def __call__(self, row: Index, scale: Array) -> Points:
        """Evaluate at `scale[i]` for the density of `row[i]`."""
        if self.accurate:
            return Points(row, self.sharp(row, scale).table[:5])
        if scale.size <= self._step:
            b, c = self._sums(row, scale)
        else:
            parts = chunk_slices(scale.size, self._step)
            b, c = np.concatenate([self._sums(row[part], scale[part]) for part in parts], axis=1)
        return Points.of(row, scale, self.power[row], b, c)

    def falling(self, points: Points) -> Array:
        """D = sum of gap_k t_k^2 s f(z + s t_k) over the thresholds t_k: how fast C falls, dC/ds = -2 D / s."""
        out, t = np.empty_like(points.scale), self._tails.thresholds
        for part in chunk_slices(out.size, max(1, _CHUNK // t.size)):
            row, scale = points.row[part], points.scale[part]
            pdf = self.members(row[:, None]).pdf_from(self.shift[row][:, None], scale[:, None] * t)
            out[part] = scale * np.vecdot(pdf, self._tails.levers)
        return out

    def _sums(self, row: Index, scale: Array) -> tuple[Array, Array]:
        if self._direct:
            return self._direct.sums(row if self.density.shape else np.zeros_like(row), scale, self.shift[row])
        t = scale[:, None] * self._tails.thresholds
        if self._centred:
            mass, first = self.members(row).tails_about_mean(t)
        else:
            if self._shifted:
                t += self.shift[row][:, None]
            mass, first = self.members(row).tails(t)
        return self._tails.sums(t, self.mean[row], self.offset[row], mass, first)

    def sharp(self, row: Index, scale: Array) -> Points:
        """Points right to their own digits; the table goes on with the columns of `error.ErrorSums`."""
        sums = error.error_sums(self.members(row), self.grid, scale, self.shift[row], self.rounding, self.model)
        out = np.empty((SHARP, scale.size))
        _, mse, slope, b, c = out[:5]
        out[0], out[5:] = scale, sums
        mse[:], slope[:] = sums.mse, sums.by_scale
        # From MSE = A - 2 s B + s^2 C and slope = 2 (s C - B).
        b[:] = (self.power[row] - mse) / scale + 0.5 * slope if self.convex else np.nan
        c[:] = (b + 0.5 * slope) / scale
        return Points(row, out)


class _Tails:
    """B and C by summation over thresholds (Abel), each with its smaller tail."""

    def __init__(self, grid: Grid) -> None:
        self.thresholds, self._levels = grid.thresholds, grid.levels
        self._gaps, self._squares = np.diff(grid.levels), np.diff(grid.levels**2)
        self.levers = self._gaps * self.thresholds**2

    def sums(self, t: Array, mean: Array, offset: Array, mass: Array, first: Array) -> tuple[Array, Array]:
        # Below the mean `mass` is P(x > t) - 1: the sums then are deviations from the level of the mean itself.
        home = self._levels[np.count_nonzero(t < mean[:, None], axis=1)]
        level = home + np.vecdot(mass, self._gaps)
        b = np.vecdot(first, self._gaps) + offset * level
        return b, home * home + np.vecdot(mass, self._squares)


class _Symmetric:
    """The same for a symmetric density whose mean is the shift (offset 0): thresholds t and -t share their tails."""

    def __init__(self, grid: Grid) -> None:
        self.thresholds, place = np.unique(np.abs(grid.thresholds), return_inverse=True)
        gaps, squares = np.diff(grid.levels), np.diff(grid.levels**2)
        side = np.where(grid.thresholds < 0, -1.0, 1.0)
        count = self.thresholds.size
        self._gaps = np.bincount(place, gaps, count)
        self.levers = self._gaps * self.thresholds**2
        self._squares = np.bincount(place, side * squares, count)
        self._home = grid.levels[np.count_nonzero(grid.thresholds < 0)]

    def sums(self, t: Array, mean: Array, offset: Array, mass: Array, first: Array) -> tuple[Array, Array]:
        return np.vecdot(first, self._gaps), self._home**2 + np.vecdot(mass, self._squares)


class _Direct:
    """B and C of a sample value by value."""

    def __init__(self, density: Density, grid: Grid) -> None:
        atoms = density.atoms
        assert atoms is not None
        self._points, self._masses = (np.reshape(a, (-1, a.shape[-1])) for a in atoms)
        self._grid = grid

    def sums(self, row: Index, scale: Array, shift: Array) -> tuple[Array, Array]:
        y = self._points[row] - shift[:, None]
        t, grid = y / scale[:, None], self._grid
        if grid.step is not None:
            # Which way a tie goes changes neither the error nor the bound.
            level = grid.min + grid.step * np.clip(np.rint((t - grid.min) / grid.step), 0, len(grid) - 1)
        else:
            level = grid.levels[np.searchsorted(grid.thresholds, t)]
        weighted = self._masses[row] * level
        return np.vecdot(weighted, y), np.vecdot(weighted, level)


@functools.lru_cache(maxsize=128)
def _smallest(grid: Grid) -> float:
    magnitudes = np.abs(grid.levels)
    return float(magnitudes[magnitudes > 0].min())


@functools.lru_cache(maxsize=128)
def _symmetric(grid: Grid) -> _Symmetric:
    return _Symmetric(grid)
