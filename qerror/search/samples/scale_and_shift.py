"""Scale and shift of a sample together: the least error over both, and the proof that it is.

Let x be taken about its mean, A = E[x^2], u = 1 / s and v = -z / s. Rounding to nearest, h(u, v) = E[max_k (2 (u x + v)
l_k - l_k^2)], a mean of maxima of linear functions, is convex, and u^2 MSE = A u^2 + v^2 - h. On a rectangle in the
(u, v) plane a convex function lies under the bilinear one through its corners, and a square lies at most a quarter of
its width squared under its chord: g = u^2 (MSE - best) is at least its least corner less ((A - best) du^2 + dv^2) / 4.
Rectangles where this is positive are out, the others are divided in four. Where all corners have the same E[x l], E[l]
and E[l^2], h is a plane: the values keep their levels, and least squares on them is the best that is possible there.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._threads import chunk_slices, thread_map
from ..._types import Array, Index
from ...densities.base import Density
from ...errors.quantization import quantization_error
from ...grids.grid import Grid
from ...results import Minimum
from ..found import RESOLUTION, TOLERANCE, any_scale, distinct

# Rows times levels of the grid that are searched together, which bounds the rectangles in memory; the number of a row
# takes the first bits of a corner's key, its place 2 * 28 others.
_TOGETHER = 1 << 9
_PLACE = 28
# Rectangles of the first level along u and v, and how often they are divided at most.
_FIRST = (4, 8)
_LEVELS = 24
# Values looked up for one row before its proof is given up. It takes at least 2 K^2 corners on K levels: where these
# are too many, it is not begun.
_BUDGET = 1 << 26
# Thresholds in flight.
_CHUNK = 1 << 15
# The best corners of each level that are followed down, and the steps at most.
_FOLLOWED = 4
_STEPS = 200
_SETTLED = 1e-14


class FreeScale(NamedTuple):
    """Local minima of a row that were met, best first, and whether the first is proven to be the least."""

    minima: tuple[Minimum, ...]
    proven: bool


def best_scale_and_shift(density: Density, grid: Grid) -> list[FreeScale]:
    """Search each member of a sample, rounding to nearest.

    Examples
    --------
    >>> import qerror as qe
    >>> found, = best_scale_and_shift(qe.Empirical([1.0, 1.5, 2.0, 2.5]), qe.grid("uint2"))
    >>> found.minima[0].scale, found.minima[0].shift, found.proven
    (0.5, 1.0, True)
    """
    low, high = (np.ravel(end) for end in density.support)
    found = [FreeScale(constant(float(value), grid), True) for value in low]
    live = np.flatnonzero(low < high)
    parts = chunk_slices(live.size, min(64, max(1, _TOGETHER // len(grid))))
    done = thread_map(lambda part: _Search(density.take(live[part]), grid).run(), parts)
    for i, row in zip(live, (row for part in done for row in part), strict=True):
        found[i] = row
    return found


def constant(value: float, grid: Grid) -> tuple[Minimum, ...]:
    """All values equal: a shift onto them leaves no error where 0 is a level, any level will do elsewhere."""
    level = float(grid.levels[np.argmin(np.abs(grid.levels))])
    scale = any_scale(grid)
    return (Minimum(scale, value - scale * level, 0.0),)


class _Points(NamedTuple):
    """Evaluated pairs: row, u and v, E[x l], E[l], E[l^2], and the least MSE with these levels."""

    row: Index
    u: Array
    v: Array
    with_x: Array
    level: Array
    square: Array
    least: Array

    def select(self, index: Index | NDArray[np.bool_]) -> _Points:
        """Those at `index`."""
        row, u, v, with_x, level, square, least = self
        return _Points(row[index], u[index], v[index], with_x[index], level[index], square[index], least[index])


class _Search:
    """Branch and bound over rectangles for rows 0 .. R - 1."""

    def __init__(self, density: Density, grid: Grid) -> None:
        self.density, self.grid = density, grid
        self.mean, self.power = np.atleast_1d(density.mean), np.atleast_1d(np.square(density.std))
        self._gaps, self._squares = np.diff(grid.levels), np.diff(grid.levels**2)
        self._span = grid.max - grid.min
        self._price = min(density.atom_count, self._gaps.size)
        atoms = density.atoms if density.atom_count < self._gaps.size else None
        self._values = atoms and (np.atleast_2d(atoms[0]) - self.mean[:, None], np.atleast_2d(atoms[1]))
        self.best, self.spent = np.full(self.mean.size, np.inf), np.zeros(self.mean.size)
        self.met: list[tuple[Index, Array, Array, Array]] = []

    def run(self) -> list[FreeScale]:
        """Divide the plane until nothing is left."""
        self._follow(self._starts())
        tried = 2 * len(self.grid) ** 2 * self._price <= _BUDGET
        return self._answers(self._divide() if tried else np.zeros(self.best.shape, np.bool_))

    def _starts(self) -> _Points:
        """The ends of the grid on the ends of the data, and a grid twice as fine around the mean."""
        low, width = self._range()
        u = np.concatenate([self._span / width, 2 * self._span / width])
        middle = np.full(width.shape, 0.5 * (self.grid.min + self.grid.max))
        v = np.concatenate([self.grid.min + u[: width.size] * (self.mean - low), middle])
        return self._evaluate(np.tile(np.arange(width.size), 2), u, v)

    def _range(self) -> tuple[Array, Array]:
        low, high = (np.atleast_1d(end) for end in self.density.support)
        return low, high - low

    def _plane(self) -> tuple[Array, Array]:
        """Least u and v that can be better than the best, and the sizes of the first rectangles, (2, R) each."""
        # The values lie within span s / 2 of the middle but for their clipping errors, so their std is at most
        # span s / 2 + sqrt(MSE); and least squares gives no scale whose least gap exceeds the range of the data.
        std, rest = np.sqrt(self.power), np.sqrt(self.best)
        finest = 0.5 * self._span / np.maximum(std - rest, 1e-9 * std)
        coarsest = self._gaps.min() / self._range()[1] * (1 - 1e-9)
        # The mean is at most sqrt(MSE) beyond the end values.
        beyond = rest * finest
        start = np.stack([coarsest, self.grid.min - beyond])
        return start, (np.stack([finest, self.grid.max + beyond]) - start) / np.array(_FIRST)[:, None]

    def _divide(self) -> NDArray[np.bool_]:
        """Which rows have nothing left."""
        every, (start, size) = np.arange(self.best.size), self._plane()
        i, j = (a.ravel() for a in np.indices(_FIRST))
        row, place = np.repeat(every, i.size), np.tile(np.stack([i, j]), every.size)
        proven = np.ones(every.size, np.bool_)
        for _ in range(_LEVELS):
            keep = self._undecided(row, place, start, size)
            row, place = row[keep], 2 * place[:, keep]
            proven[np.isin(every, row) & (self.spent > _BUDGET)] = False
            going = proven[row]
            row, place, size = np.repeat(row[going], 4), np.repeat(place[:, going], 4, axis=1), 0.5 * size
            if not row.size:
                break
            place += np.tile(np.array([[0, 0, 1, 1], [0, 1, 0, 1]]), place.shape[1] // 4)
        proven[row] = False
        return proven

    def _undecided(self, row: Index, place: Index, start: Array, size: Array) -> NDArray[np.bool_]:
        """The rectangles that may hold something better than the best of their row."""
        corners = place[:, None, :] + np.array([[0, 0, 1, 1], [0, 1, 0, 1]])[:, :, None]
        key = (row << 2 * _PLACE) | (corners[0] << _PLACE) | corners[1]
        _, first, corner = np.unique(key, return_index=True, return_inverse=True)
        at = np.tile(row, 4)[first]
        u, v = (start[k, at] + corners[k].ravel()[first] * size[k, at] for k in (0, 1))
        points = self._evaluate(at, u, v)
        self._follow(self._promising(points))
        best, power = self.best[at] * (1 - TOLERANCE), self.power[at]
        h = 2 * u * points.with_x + 2 * v * points.level - points.square
        g = (power - best) * u * u + v * v - h
        noise = RESOLUTION * (power * u * u + v * v + points.square)
        corner = corner.reshape(4, -1)
        sag = 0.25 * ((self.power - self.best)[row] * size[0, row] ** 2 + size[1, row] ** 2)
        noise = noise[corner].max(axis=0)
        maybe = g[corner].min(axis=0) < sag + noise
        sums = np.stack([points.with_x / np.sqrt(power), points.level, points.square])[:, corner]
        plane = (np.ptp(sums, axis=1) <= RESOLUTION * np.abs(sums).max(axis=1)).all(axis=0)
        exact = self.best[row] <= (RESOLUTION**2) * (self.power + self.mean**2)[row]
        out: NDArray[np.bool_] = maybe & ~plane & (sag > noise) & ~exact
        return out

    def _promising(self, points: _Points) -> _Points:
        """The corners of each row with the least MSE of their piece, if that is better than the best."""
        order = np.lexsort((points.least, points.row))
        row = points.row[order]
        rank = np.arange(row.size) - np.searchsorted(row, row)
        chosen = order[(rank < _FOLLOWED) & (points.least[order] < self.best[row])]
        return points.select(chosen)

    def _follow(self, points: _Points) -> None:
        """Least squares on the levels that the values have, until they keep them."""
        for _ in range(_STEPS):
            spread = points.square - points.level**2
            live = (spread > 0) & (points.with_x > 0)
            points = points.select(live)
            scale, level = points.with_x / spread[live], points.level
            np.minimum.at(self.best, points.row, points.least)
            self.met.append((points.row, scale, -scale * level, points.least))
            moved = (np.abs(1 - points.u * scale) > _SETTLED) | (np.abs(points.v - level) > _SETTLED * self._span)
            if not moved.any():
                return
            points = self._evaluate(points.row[moved], 1 / scale[moved], level[moved])

    def _evaluate(self, row: Index, u: Array, v: Array) -> _Points:
        self.spent += np.bincount(row, minlength=self.best.size) * self._price
        route = self._by_thresholds if self._values is None else self._by_values
        step = max(1, _CHUNK // self._price)
        parts = [route(row[p], u[p, None], v[p, None]) for p in chunk_slices(row.size, step)]
        with_x, level, square = np.concatenate([np.empty((3, 0)), *parts], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(with_x > 0, with_x**2 / (square - level**2), 0.0)
        least = np.maximum(self.power[row] - np.where(np.isfinite(gain), gain, 0.0), 0.0)
        return _Points(row, u, v, with_x, level, square, least)

    def _by_thresholds(self, row: Index, u: Array, v: Array) -> Array:
        mean = self.mean[row, None]
        t = (self.grid.thresholds - v) / u + mean
        mass, first = self._members(row).tails(t)
        # Below the mean `mass` is P(x > t) - 1: the sums then are deviations from the level of the mean itself.
        home = self.grid.levels[np.count_nonzero(t < mean, axis=1)]
        level, square = (np.einsum("ij,j->i", mass, gaps) for gaps in (self._gaps, self._squares))
        return np.stack([np.einsum("ij,j->i", first, self._gaps), home + level, home**2 + square])

    def _by_values(self, row: Index, u: Array, v: Array) -> Array:
        assert self._values is not None
        x, mass, grid = self._values[0][row], self._values[1][row], self.grid
        t = u * x + v
        if grid.step is not None:
            level = grid.min + grid.step * np.clip(np.rint((t - grid.min) / grid.step), 0, len(grid) - 1)
        else:
            level = grid.levels[np.searchsorted(grid.thresholds, t)]
        weighted = mass * level
        return np.stack([np.einsum("ij,ij->i", weighted, a) for a in (x, np.ones_like(x), level)])

    def _answers(self, proven: NDArray[np.bool_]) -> list[FreeScale]:
        """What was met within 1 % of the best of each row, measured value by value (sums know it to an ulp of A)."""
        row, scale, shift, least = (np.concatenate(column) for column in zip(*self.met, strict=True))
        near = np.flatnonzero(least <= 1.01 * self.best[row] + RESOLUTION * self.power[row])
        row, scale, shift = row[near], scale[near], (shift + self.mean[row])[near]
        mse = np.asarray(quantization_error(self._members(row), self.grid, scale, shift).mse)
        out, order = [], np.lexsort((mse, row))
        for i, mine in enumerate(np.split(order, np.searchsorted(row[order], np.arange(1, self.best.size)))):
            kept = distinct(mine, scale, mse, within=0.01)
            minima = tuple(Minimum(float(scale[k]), float(shift[k]), float(mse[k])) for k in kept)
            out.append(FreeScale(minima, bool(proven[i])))
        return out

    def _members(self, row: Index) -> Density:
        return self.density.take(row) if self.density.shape else self.density
