"""Scales as a format stores them: which values it has, and the best of all of them."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._types import Array, Index
from ..casting.cast import fake_quantize
from ..densities.base import Density
from ..grids.grid import Grid
from ..results import Status
from ..rules.base import either
from ..search.densities import bounds
from ..search.densities.objective import Objective
from ..search.found import RESOLUTION
from ..search.points import Points, first_of_each, numbered

# MSEs closer than this (relative) are one minimum.
_TOLERANCE = 1e-12
# Evaluated values an octave to start with, and parts of an interval that may hold a better one.
_PER_OCTAVE = 2
_PARTS = 4


@dataclasses.dataclass(frozen=True)
class Stored:
    """The scales `unit` times the positive values of `grid`.

    Attributes
    ----------
    grid : Grid
        The scale format.
    unit : float
        The tensor's own scale; 1 without one.
    """

    grid: Grid
    unit: float = 1.0

    @cached_property
    def values(self) -> Array:
        """All scales, ascending."""
        levels = self.grid.levels
        return levels[levels > 0] * self.unit

    @property
    def any_scale(self) -> float:
        """What stands for all where every scale gives the same error: that nearest the unit."""
        return float(self.values[np.argmin(np.abs(np.log(self.values / self.unit)))])

    def nearest(self, scale: Any) -> Any:
        """The nearest value of the format (ties to even), never 0; beyond the end values the end value."""
        units = fake_quantize(np.asarray(scale, np.float64) / self.unit, self.grid) * self.unit
        return np.maximum(units, self.values[0])[()]

    def at_least(self, scale: Any) -> Any:
        """The smallest value of the format that is not below `scale`; beyond the end values the end value."""
        place = np.searchsorted(self.values, scale, side="left")
        return self.values[np.minimum(place, self.values.size - 1)]


@dataclasses.dataclass(frozen=True)
class _Known:
    """Evaluated values: row, place among the values, B and C; sorted by row and place, each once."""

    row: Index
    place: Index
    b: Array
    c: Array


def best_stored(density: Density, grid: Grid, shift: Array, stored: Stored) -> tuple[Array, NDArray[np.object_]]:
    """The best of all stored scales for each row, by exact MSE.

    Between two evaluated scales MSE(s) >= A - s^2 chord(1 / s) (see `qerror.search.densities.bounds`): intervals
    of values that this excludes are left out, the others are divided until none is left.

    Parameters
    ----------
    density : Density
        A sample of shape (R,).
    grid : Grid
    shift : ndarray of shape (R,)
    stored : Stored

    Returns
    -------
    scale : ndarray of shape (R,)
    status : object ndarray of Status
        EXACT, or DEGENERATE where every scale gives the same error: `unit` times the value nearest 1 stands for them.

    Examples
    --------
    >>> import qerror as qe
    >>> from qerror.grids.formats import grid
    >>> sample = qe.Empirical([[0.4, 1.0, 2.9, -5.8]], axis=0)
    >>> float(best_stored(sample, grid("e2m1"), np.zeros(1), Stored(grid("e8m0")))[0][0])
    1.0
    """
    objective = Objective(density, grid, shift, "nearest", "exact")
    reach = np.broadcast_to(bounds.Reach(objective).slope, shift.shape)
    # Nothing is gained at any scale: where 0 is a level all are alike, else the error grows with the scale.
    alike = bool((grid.levels == 0).any())
    scale = np.full(shift.shape, stored.any_scale if alike else stored.values[0])
    rows = np.flatnonzero(reach > 0)
    if rows.size:
        scale[rows] = stored.values[_Search(objective, rows, reach[rows], stored.values).run()]
    return scale, np.atleast_1d(either(reach > 0, Status.EXACT, Status.DEGENERATE if alike else Status.EXACT))


class _Search:
    """Branch and bound over the places of an ascending array of scales; local rows 0 .. R' - 1 stand for `rows`."""

    def __init__(self, objective: Objective, rows: Index, reach: Array, values: Array) -> None:
        self.objective, self.rows, self.reach, self.values = objective, rows, reach, values
        self.power = objective.power[rows]
        self.best, self.at = np.full(rows.size, np.inf), np.zeros(rows.size, np.intp)
        nothing = np.empty(0, np.intp)
        self.known = _Known(nothing, nothing, np.empty(0), np.empty(0))

    def run(self) -> Index:
        """Place of the best value of each row."""
        top = self._place(self._largest_scale()) + 1
        # A - MSE <= 2 s reach: below this less than half of the power can be gained.
        low = self._place(0.25 * self.power / self.reach)
        self._evaluate(*self._ladder(low, top))
        bottom = self._place(0.5 * (self.power - self.best) / self.reach * (1 - 1e-9))
        self._evaluate(*self._ladder(np.minimum(bottom, low), low))
        while True:
            self._towards_minimum()
            left = self._undecided()
            if not left.size:
                return self.at
            self._evaluate(*self._parts(left))

    def _place(self, scale: Array) -> Index:
        """The place of the largest value <= scale."""
        place: Index = np.clip(np.searchsorted(self.values, scale, side="right") - 1, 0, self.values.size - 1)
        return place

    def _largest_scale(self) -> Array:
        """Beyond it s |l| > 2 |y| for every level but 0: no value gains anything."""
        objective, levels = self.objective, np.abs(self.objective.grid.levels)
        low, high = (np.broadcast_to(end, objective.shift.shape)[self.rows] for end in objective.density.support)
        shift = objective.shift[self.rows]
        farthest = np.maximum(high - shift, shift - low)
        largest: Array = 2 * farthest / levels[levels > 0].min()
        return largest

    def _ladder(self, low: Index, high: Index) -> tuple[Index, Index]:
        high = np.minimum(high, self.values.size - 1)
        octaves = np.log2(self.values[high] / self.values[low])
        return _even(np.arange(low.size), low, high, np.ceil(_PER_OCTAVE * octaves).astype(np.intp) + 1)

    def _evaluate(self, row: Index, place: Index) -> None:
        scale = self.values[place]
        found = self.objective(self.rows[row], scale)
        mse = self.power[row] - scale * (2 * found.b - scale * found.c)
        first = first_of_each(row, mse)
        better = first[mse[first] < self.best[row[first]]]
        self.best[row[better]], self.at[row[better]] = mse[better], place[better]
        known = self.known
        joined = [
            np.concatenate(pair)
            for pair in ((known.row, row), (known.place, place), (known.b, found.b), (known.c, found.c))
        ]
        order = np.lexsort((joined[1], joined[0]))
        again = np.append(False, (np.diff(joined[0][order]) == 0) & (np.diff(joined[1][order]) == 0))
        self.known = _Known(*(column[order[~again]] for column in joined))

    def _towards_minimum(self) -> None:
        """The values on either side of B / C of the best piece, until they are no better."""
        moving = np.arange(self.rows.size)
        while moving.size:
            known = self.known
            key = known.row * self.values.size + known.place
            here = np.searchsorted(key, moving * self.values.size + self.at[moving])
            with np.errstate(divide="ignore", invalid="ignore"):
                aim = np.where(known.b[here] > 0, known.b[here] / known.c[here], self.values[self.at[moving]])
            below = self._place(aim)
            row = np.repeat(moving, 2)
            place = np.stack([below, np.minimum(below + 1, self.values.size - 1)], axis=1).ravel()
            new = ~np.isin(row * self.values.size + place, key)
            before = self.best.copy()
            row, place = row[new], place[new]
            single = np.append(True, (np.diff(row) != 0) | (np.diff(place) != 0)) if row.size else new[:0]
            self._evaluate(row[single], place[single])
            moving = np.flatnonzero(self.best < before)

    def _undecided(self) -> Index:
        """Neighbours (the left one's index) with values between them that may be better."""
        known = self.known
        left = np.flatnonzero((known.row[1:] == known.row[:-1]) & (np.diff(known.place) > 1))
        row = known.row[left]
        unused = np.empty(row.size)
        low, high = (
            Points(self.rows[row], np.array([self.values[known.place[i]], unused, unused, known.b[i], known.c[i]]))
            for i in (left, left + 1)
        )
        power, bound = self.power[row], bounds.lower_bounds(self.objective, low, high)
        goal = self.best[row] - np.maximum(_TOLERANCE * self.best[row], RESOLUTION * power)
        open_: Index = left[bound < goal]
        return open_

    def _parts(self, left: Index) -> tuple[Index, Index]:
        known = self.known
        low, high = known.place[left], known.place[left + 1]
        row, place = _even(known.row[left], low, high, np.full(left.size, _PARTS))
        inner = ~np.isin(row * self.values.size + place, known.row * self.values.size + known.place)
        return row[inner], place[inner]


def _even(row: Index, low: Index, high: Index, parts: Index) -> tuple[Index, Index]:
    """Places low, ..., high of each row in equal steps, at most `parts` of them; each once."""
    parts = np.maximum(np.minimum(parts, high - low), 1)
    owner, step = numbered(parts + 1)
    place = low[owner] + (high - low)[owner] * step // parts[owner]
    single = np.append(True, (np.diff(owner) != 0) | (np.diff(place) != 0)) if owner.size else np.empty(0, bool)
    return row[owner[single]], place[single]
