"""The best of all stored scales for each of many blocks, by rounding them at some and excluding the others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices
from .._types import Array, Index
from ..grids.grid import Grid
from .losses import PIECE, Losses, squares
from .scale_window import best_in_window, is_short, last_that_wins

# What sums of squares are rounded by, of the sum of the squared values.
_RESOLUTION = 1e-14
# Chords between scales of a greater ratio say nothing in float64.
_FARTHEST = 2.0**300


def best_of_all(rows: Array, grid: Grid, values: Array, unit: float = 1.0, weights: Array | None = None) -> Array:
    """The value of least squared error for each row, the smallest of equals.

    Of few scales an octave all are tried that may win (see `scale_window`). Else a scale far below the largest
    magnitude is excluded by what it clips, one far above because all but 0 is out of reach. In between, u = 1 / s,
    (A - E) u^2 is convex, A the sum of the squares: a chord bounds what lies between two scales, which are divided
    where that may be better.

    Parameters
    ----------
    rows : ndarray of shape (R, n)
    grid : Grid
    values : ndarray of shape (K,)
        Ascending, the first may be 0.
    unit : float
        What they are multiplied with.
    weights : ndarray of shape (R, n), optional

    Returns
    -------
    ndarray of shape (R,)

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> best_of_all(np.array([[0.5, -3.0], [0.0, 0.0]]), grid("int4"), np.array([0.0, 0.25, 0.5, 1.0])).tolist()
    [0.5, 0.0]
    """
    positive = values[values > 0]
    if is_short(grid, positive):
        place, least = best_in_window(rows, grid, positive * unit, weights)
    else:
        search = _Search(rows, grid, positive * unit, weights)
        place, least = search.run(), search.best
    found: Array = positive[place]
    if values[0] == 0:
        # The same sum that a scale gives at which all values become 0.
        found = np.where(squares(rows, weights) <= least, 0.0, found)
    return found


class _Search:
    """Intervals between places of an ascending array of scales, divided until none can hold a better one."""

    def __init__(self, rows: Array, grid: Grid, scales: Array, weights: Array | None) -> None:
        self.rows, self.grid, self.scales, self.weights = rows, grid, scales, weights
        self.power = squares(rows, weights)
        self.best, self.at = np.full(len(rows), np.inf), np.zeros(len(rows), np.intp)

    def run(self) -> Index:
        """Place of the best scale of each row."""
        row = np.arange(len(self.rows))
        left, right = self._window(row)
        gain = [self._try(row, left), self._try(row, right)]
        while True:
            open_ = self._open(row, left, right, *gain)
            row, left, right = row[open_], left[open_], right[open_]
            if not row.size:
                return self.at
            middle = (left + right) // 2
            at_middle = self._try(row, middle)
            row, left, right = np.tile(row, 2), np.concatenate([left, middle]), np.concatenate([middle, right])
            low, high = gain[0][open_], gain[1][open_]
            gain = [np.concatenate([low, at_middle]), np.concatenate([at_middle, high])]

    def _place(self, scale: Array) -> Index:
        """The place of the first scale from here on."""
        place: Index = np.minimum(np.searchsorted(self.scales, scale), self.scales.size - 1)
        return place

    def _window(self, row: Index) -> tuple[Index, Index]:
        """The places that are not excluded by the error of one value, nor because nothing reaches a level but 0."""
        magnitude, levels = np.abs(self.rows), np.abs(self.grid.levels)
        largest = magnitude.max(axis=1)
        with np.errstate(over="ignore", under="ignore", divide="ignore", invalid="ignore"):
            self._try(row, self._place(largest / self.grid.absmax))
            error = self.best[:, None] if self.weights is None else self.best[:, None] / self.weights
            # A value without weight has no error: 0 / 0.
            reach = np.nan_to_num(magnitude - np.sqrt(error), nan=0.0, neginf=0.0).max(axis=1)
            low, high = (1 - 1e-12) * reach / self.grid.absmax, 2 * largest / levels[levels > 0].min()
            last = self._place(high)
            if self.grid.holds_doubles:
                nearer = min(end for end in (self.grid.max, -self.grid.min) if end > 0)
                last = np.minimum(last, last_that_wins(self.scales, self._place(largest / nearer)))
        return np.maximum(self._place(low) - 1, 0), last

    def _try(self, row: Index, place: Index) -> Array:
        """What rows gain at scales, against 0; keeps the best, the smallest of equals."""
        loss, gain = self._losses(row, self.scales[place])
        order = np.lexsort((place, loss, row))
        first = order[np.append(True, row[order][1:] != row[order][:-1])]
        mine, least, at = row[first], loss[first], place[first]
        better = (least < self.best[mine]) | ((least == self.best[mine]) & (at < self.at[mine]))
        self.best[mine[better]], self.at[mine[better]] = least[better], at[better]
        return np.asarray(gain)

    def _losses(self, row: Index, scale: Array) -> Array:
        """Losses, and how far these are below the sum of the squares, with all digits where that is little; (2, N)."""
        n, out = self.rows.shape[1], np.empty((2, row.size))
        step = max(1, PIECE // n)
        of = Losses(self.grid, step * n)
        for some in chunk_slices(row.size, step):
            x = self.rows[row[some]]
            weights = None if self.weights is None else self.weights[row[some]]
            values = of.values(x, scale[some])
            gain = values * (2 * x - values)
            out[1, some] = (gain if weights is None else gain * weights).sum(axis=1)
            values -= x
            out[0, some] = squares(values, weights)
        return out

    def _open(self, row: Index, left: Index, right: Index, gain: Array, far: Array) -> NDArray[np.bool_]:
        """Whether a better scale, or a smaller one as good, may lie between two."""
        power, best = self.power[row], self.best[row]
        # In units of the left scale, t = s / left: A - E <= a t^2 + b t, equal at both ends.
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            ratio = self.scales[right] / self.scales[left]
            a, b = (far / ratio - gain) / (ratio - 1), (gain - far / ratio / ratio) / (1 - 1 / ratio)
            top = -0.5 * b / a
            inside = (a < 0) & (top > 1) & (top < ratio)
            most = np.where(inside, -0.25 * b * b / a, np.maximum(gain, far))
            most[ratio > _FARTHEST] = np.inf
        bound, slack = power - most, _RESOLUTION * power
        better = (bound < best - slack) | ((bound <= best + slack) & (left < self.at[row]))
        open_: NDArray[np.bool_] = (right - left > 1) & better
        return open_
