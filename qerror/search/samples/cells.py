"""Rows of a sample cut into the cells of a grid, at many scales at once.

With y = x - z and l the level that y / s goes to, MSE(s) = A - 2 s B + s^2 C, where B = E[y l] and C = E[l^2]. They
change only where a value crosses a threshold, y_i = s t_k. Two routes find them: by thresholds (their ranks in the
sorted row, the rest are prefix sums), and by values (their levels one by one), whichever are fewer.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._threads import cached_property, chunk_slices
from ..._types import Array, Index
from ...grids.grid import Grid
from ...samples.rows import Rows
from ..found import RESOLUTION
from .rounding import Rounding, pays

Steps = NDArray[np.complex128]

# Cells in flight: enough for each step to be long against the hand-over between threads.
_CHUNK = 1 << 18
# Crossings of a row up to which all its pieces are looked at.
_SHORT = 1 << 10
# So many values are rounded in the time that a crossing takes; and what the shortest rows cost.
_PER_CROSSING, _LEAST_EFFORT = 512, 1


class Evaluated(NamedTuple):
    """B and C at a scale, and how many crossings lie below it (up to a constant)."""

    b: Array
    c: Array
    crossed: Index


class Pairs(NamedTuple):
    """Which value (by rank) crosses which threshold inside which interval, and how many crossings each has."""

    interval: Index
    value: Index
    threshold: Index
    counts: Index


class Cells:
    """Rows of one length, a grid and the shift of each row.

    Parameters
    ----------
    rows : Rows
    grid : Grid
    shift : ndarray of shape (R,)
    """

    def __init__(self, rows: Rows, grid: Grid, shift: Array) -> None:
        self.rows, self.grid, self.shift = rows, grid, shift
        self.n = rows.n
        self._shifted = bool(np.count_nonzero(shift))
        self._by_value = self.n < grid.thresholds.size
        self.width = min(self.n, grid.thresholds.size)
        self._rounding = Rounding(rows, grid, shift) if pays(self.n, grid) else None
        # What an evaluation costs, in crossings; a level found by bisection takes longer than one by arithmetic.
        self.effort = self.width * (8 if self._by_value and grid.step is None else 1)
        if self._rounding is not None:
            self.effort = max(_LEAST_EFFORT, self.n // _PER_CROSSING)
        elif self.width > 64:
            self.effort = self.width // 6
        self._gaps, self._squares = np.diff(grid.levels), np.diff(grid.levels**2)
        self._growth = np.sign(grid.thresholds) * self._squares
        # The level of y = 0, and the side of it on which a threshold lies.
        self._home = grid.levels[np.count_nonzero(grid.thresholds < 0)]
        self._outside = np.where(grid.thresholds < 0, 0.0, 1.0)
        self._sides = np.sign(grid.thresholds).astype(np.intp)

    @property
    def most_crossings(self) -> int:
        """How many thresholds all values of a row cross at most."""
        t = self.grid.thresholds
        return self.n * int(max(np.count_nonzero(t > 0), np.count_nonzero(t < 0)))

    @property
    def least_crossings(self) -> int:
        """Of an interval between two evaluated scales: 1 where they are estimated."""
        return 0 if self._rounding is None else 1

    @property
    def short(self) -> bool:
        """Whether looking at all pieces is cheaper than bounds."""
        return self.most_crossings <= _SHORT

    @cached_property
    def distance(self) -> Array:
        """The values y."""
        out: Array = self.rows.values - self.shift[:, None]
        return out

    @cached_property
    def offset(self) -> Array:
        """E[y]."""
        return self.rows.mean - self.shift

    @cached_property
    def power(self) -> Array:
        """A = E[y^2]."""
        if self.short:
            y, weights = self.distance, self.rows.weights
            first = y if weights is None else y * weights
            power: Array = np.einsum("ij,ij->i", first, y) / self.rows.total
            return power
        return self.rows.second_moment + self.offset**2

    @cached_property
    def noise(self) -> Array:
        """What the rounding of B and C may change the error by: of sums of any weights, that of the farthest value."""
        weights = self.rows.weights
        if weights is None or np.array_equal(weights, np.rint(weights)):
            # Their sums are exact, or of few roundings.
            return (1 if self._rounding is None else 4) * RESOLUTION * self.power
        farthest = np.maximum(self.rows.greatest - self.shift, self.shift - self.rows.least)
        return RESOLUTION * np.maximum(self.power, np.square(farthest))

    def evaluate(self, row: Index, scale: Array) -> Evaluated:
        """B, C and crossings for pairs of a row and a scale."""
        if self._rounding is not None:
            b, c = self._rounding.sums(row, scale)
            return Evaluated(b, c, self._rounding.crossed(scale, self._size.take(row)))
        route = self._from_values if self._by_value else self._from_thresholds
        parts = [route(row[part], scale[part]) for part in self._parts(row, self.width)]
        return Evaluated(*map(np.concatenate, zip(*parts, strict=True)))

    @staticmethod
    def _parts(row: Index, width: int) -> list[slice]:
        return chunk_slices(max(row.size, 1), max(1, _CHUNK // width))

    def _from_thresholds(self, row: Index, scale: Array) -> tuple[Array, Array, Index]:
        rank, row_ = self._ranks(row, scale), row[:, None]
        below, total = self.rows.mass_of(row_, rank), self.rows.total.take(row)
        first = np.einsum("ij,j->i", self.rows.first_of(row_, rank, below), self._gaps) / total
        # Each side of y = 0 by its own tail, so that no tail is lost in 1 - tail.
        mass = np.subtract(total[:, None] * self._outside, below, out=below)
        level = self._home + np.einsum("ij,j->i", mass, self._gaps) / total
        b = self.offset.take(row) * level - first
        c = self._home**2 + np.einsum("ij,j->i", mass, self._squares) / total
        return b, c, np.einsum("ij,j->i", rank, self._sides)

    def _ranks(self, row: Index, scale: Array) -> Index:
        """How many values lie below each threshold."""
        t = scale[:, None] * self.grid.thresholds
        if self._shifted:
            t += self.shift[row, None]
        return self.rows.rank(row[:, None], t)

    def _codes(self, row: Index, scale: Array) -> Index:
        """The level that each value goes to; which way a tie goes changes neither the error nor the bound."""
        grid, q = self.grid, (self.rows.values[row].astype(np.float64) - self.shift[row, None]) / scale[:, None]
        if grid.step is not None:
            return np.clip(np.rint((q - grid.min) / grid.step), 0, len(grid) - 1).astype(np.intp)
        return np.searchsorted(grid.thresholds, q)

    def _from_values(self, row: Index, scale: Array) -> tuple[Array, Array, Index]:
        y = self.rows.values[row].astype(np.float64) - self.shift[row, None]
        code = self._codes(row, scale)
        level = self.grid.levels[code]
        weighted = level if self.rows.weights is None else level * self.rows.weights[row]
        crossed = -np.einsum("ij,ij->i", code, np.sign(y).astype(np.intp))
        total = self.rows.total[row]
        return np.einsum("ij,ij->i", weighted, y) / total, np.einsum("ij,ij->i", weighted, level) / total, crossed

    def direct(self, row: Index, scale: Array) -> tuple[Array, Array, Array]:
        """The error at a scale, its slope, and C, value by value: each right to its own digits."""
        found = np.empty((3, row.size))
        for part in self._parts(row, self.n):
            one, s, weights = row[part], scale[part, None], self.rows.weights
            level = self.grid.levels[self._codes(one, scale[part])]
            error = s * level - (self.rows.values[one] - self.shift[one, None])
            weighted, mass = (error, level) if weights is None else (error * weights[one], level * weights[one])
            pairs = ((weighted, error), (weighted, level), (mass, level))
            found[:, part] = [np.einsum("ij,ij->i", a, b) for a, b in pairs] / self.rows.total[one]
        found[1] *= 2
        return found[0], found[1], found[2]

    def settle(self, row: Index, scale: Array) -> Array:
        """B / C of the cells at a scale, from the values themselves: exact where they lie on the levels."""
        found = [self._from_values(row[part], scale[part]) for part in self._parts(row, self.n)]
        b, c = (np.concatenate([part[i] for part in found]) for i in (0, 1))
        # Data of the size of a rounding may all lie nearest to 0 after all.
        out: Array = np.divide(b, c, out=scale.copy(), where=b > 0)
        return out

    def pairs(self, row: Index, low: Array, high: Array) -> Pairs:
        """All crossings between two scales of each row."""
        route = self._codes if self._by_value else self._ranks
        both = route(np.concatenate([row, row]), np.concatenate([low, high]))
        one, two = both[: row.size], both[row.size :]
        count = np.abs(one - two)
        flat = count.ravel()
        # `repeat` holds the interpreter lock: once for all three.
        cell = np.repeat(np.arange(flat.size), flat)
        other = (np.minimum(one, two).ravel() - (np.cumsum(flat) - flat)).take(cell)
        other += np.arange(other.size)
        interval = cell // self.width
        own = np.subtract(cell, interval * self.width, out=cell)
        value, threshold = (own, other) if self._by_value else (other, own)
        return Pairs(interval, value, threshold, count.sum(axis=1))

    def crossings(self, row: Index, value: Index, threshold: Index) -> Array:
        """The u = 1 / s of each crossing."""
        y = self.rows.values.ravel().take(row * self.n + value) - self.shift.take(row)
        return np.divide(self.grid.thresholds.take(threshold), y, out=y)

    def changes(self, u: Array, row: Index, value: Index, threshold: Index) -> Steps:
        """What B + i C grows by as u passes a crossing: |y| = |t| / u."""
        moment, squares = self.growth
        share = 1.0 / self.rows.total.take(row)
        if self.rows.weights is not None:
            share *= self.rows.weights.ravel().take(row * self.n + value)
        change = np.empty(u.size, np.complex128)
        np.multiply(share, squares.take(threshold), out=change.imag)
        share /= u
        np.multiply(share, moment.take(threshold), out=change.real)
        return change

    @property
    def growth(self) -> tuple[Array, Array]:
        """|t| times the gap at each threshold, and what the square of the level grows by away from 0."""
        return np.abs(self.grid.thresholds) * self._gaps, self._growth

    @cached_property
    def at_home(self) -> tuple[Array, Array]:
        """B and C where the scale is so large that all values go to the levels next to 0."""
        grid = self.grid
        above = grid.levels[np.count_nonzero(grid.thresholds <= 0)]
        upper, lower, outer = self.sides
        # On the threshold 0 both levels are equally far from y = 0.
        c = self._home**2 + (above**2 - self._home**2) * outer
        return above * upper - self._home * lower, c

    @cached_property
    def _size(self) -> Array:
        """E|y|."""
        upper, lower, _ = self.sides
        return np.asarray(upper + lower)

    @cached_property
    def sides(self) -> tuple[Array, Array, Array]:
        """E[y; y > 0], E[-y; y <= 0] and P(y > 0), each exactly 0 where there is nothing."""
        rows = self.rows
        every = np.arange(self.shift.size)[:, None]
        rank = rows.rank(every, self.shift[:, None])
        mass = rows.mass_of(every, rank)
        share = 1.0 - mass[:, 0] / rows.total
        # About the mean, what lies below a threshold is minus what lies above.
        upper = rows.first_of(every, rank, mass)[:, 0] / -rows.total + self.offset * share
        upper = np.where(rank[:, 0] == self.n, 0.0, upper)
        lower = np.where(rank[:, 0] == 0, 0.0, upper - self.offset)
        return upper, lower, share

    @cached_property
    def reach(self) -> Array:
        """E[max_k y l_k]: A - MSE(s) <= 2 s times it. Where it is not positive no scale is better than another."""
        upper, lower = self._short_sides if self.short else self.sides[:2]
        out: Array = self.grid.max * upper - self.grid.min * lower
        return out

    @property
    def _short_sides(self) -> tuple[Array, Array]:
        y = self.distance if self.rows.weights is None else self.distance * self.rows.weights
        # Sums of one order: nothing on a side is exactly 0.
        total, size = y.sum(axis=1), np.abs(y).sum(axis=1)
        half = 0.5 / self.rows.total
        return half * (size + total), half * (size - total)

    @cached_property
    def largest_scale(self) -> Array:
        """Beyond this scale no value crosses a threshold (0 where none ever does)."""
        t = self.grid.thresholds
        high = self.rows.greatest - self.shift
        low = self.rows.least - self.shift
        above = high / t[t > 0][0] if (t > 0).any() else np.zeros_like(high)
        below = low / t[t < 0][-1] if (t < 0).any() else np.zeros_like(low)
        out: Array = np.maximum(np.maximum(above, below), 0.0)
        return out

    @cached_property
    def dominated(self) -> Array:
        """Above this scale none is the only best: half of it clips nothing and has all of its levels (else inf)."""
        grid = self.grid
        if not grid.holds_doubles:
            return np.full(self.shift.size, np.inf)
        # On a side without levels nothing depends on the scale.
        high = (self.rows.greatest - self.shift) / grid.max if grid.max > 0 else 0.0
        low = (self.rows.least - self.shift) / grid.min if grid.min < 0 else 0.0
        out: Array = 2 * np.maximum(np.maximum(high, low), 0.0) * (1 + 1e-9)
        return out

    @cached_property
    def repeating(self) -> tuple[Array, Array]:
        """Scales between which a floating grid has the very same error at half the scale: 0 and 0 where nowhere.

        There nothing is clipped at half the scale, and no value but 0 falls below the normal numbers at the scale.
        """
        grid, spec, size = self.grid, self.grid.float_spec, self.shift.size
        if spec is None:
            return np.zeros(size), np.zeros(size)
        low, high = self.rows.least - self.shift, self.rows.greatest - self.shift
        start = np.maximum(high / grid.max, low / grid.min if grid.min < 0 else 0.0)
        every, about = np.arange(size), np.stack([np.nextafter(self.shift, -np.inf), self.shift], axis=1)
        rank = self.rows.rank(every[:, None], about)
        below = self.shift - self.rows.values[every, np.maximum(rank[:, 0] - 1, 0)]
        above = self.rows.values[every, np.minimum(rank[:, 1], self.n - 1)] - self.shift
        below, above = np.where(rank[:, 0] > 0, below, np.inf), np.where(rank[:, 1] < self.n, above, np.inf)
        # A little less of both, for the roundings of y = x - z and of y / s.
        return 2 * start * (1 + 1e-9), np.minimum(below, above) * 2.0 ** (spec.bias - 1) * (1 - 1e-9)
