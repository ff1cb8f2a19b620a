"""The best of a few stored scales for each of many rows: all that may win lie in a window of an octave or two.

Where nothing is clipped at s, E(2s) >= E(s) if the levels at 2s are levels at s: a level at 2s that lies beyond the
grid's end at s is farther away than that end is. So above twice the smallest scale that clips nothing, none is the only
best whose half is a scale, too. Below, a scale is out once the error of the largest value alone exceeds the best sum.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices
from .._types import Array, Index
from ..grids.grid import Grid
from .losses import PIECE, Losses

_Test = Callable[[Index, Index], NDArray[np.bool_]]

# Up to so many scales an octave all are tried; and up to so many whose halves are no scales.
_MOST = 16
# What sums of squares are rounded by.
_SLACK = 1 + 1e-12


def is_short(grid: Grid, scales: Array) -> bool:
    """Whether windows hold few scales.

    Parameters
    ----------
    grid : Grid
    scales : ndarray of shape (K,)
        Ascending, positive.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> [is_short(grid(name), 2.0 ** np.arange(9)) for name in ("int4", "e4m3fn", "nf4")]
    [True, True, False]
    """
    octave = np.searchsorted(scales, 2 * scales) - np.arange(scales.size)
    return bool(octave.max() <= _MOST and _undoubled(scales) <= _MOST) and grid.holds_doubles


def last_that_wins(scales: Array, first: Index) -> Index:
    """The last place of a scale that may be the only best, `first` being the smallest that clips nothing."""
    last = np.searchsorted(scales, 2 * scales[first]) - 1
    return np.minimum(np.maximum(last, _undoubled(scales) - 1), scales.size - 1)


def _undoubled(scales: Array) -> int:
    """From which place on the halves of all scales are scales."""
    alone = np.flatnonzero(~np.isin(0.5 * scales, scales))
    return int(alone[-1]) + 1


def best_in_window(rows: Array, grid: Grid, scales: Array, weights: Array | None = None) -> tuple[Index, Array]:
    """The place of the scale of least squared error for each row, the first of equals, and the sum of these.

    Parameters
    ----------
    rows : ndarray of shape (R, n)
        Finite.
    grid : Grid
    scales : ndarray of shape (K,)
        For which `is_short` holds.
    weights : ndarray of shape (R, n), optional

    Returns
    -------
    place : ndarray of shape (R,)
    loss : ndarray of shape (R,)

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> best_in_window(np.array([[0.5, -3.0]]), grid("int4"), np.array([0.25, 0.5, 1.0]))
    (array([1]), array([0.]))
    """
    n = rows.shape[1]
    step = max(1, PIECE // n)
    of = Losses(grid, step * n)
    place, loss = np.empty(len(rows), np.intp), np.empty(len(rows))
    for some in chunk_slices(len(rows), step):
        window = _Window(rows[some], of, scales, None if weights is None else weights[some])
        window.go_down()
        window.go_up()
        place[some], loss[some] = window.at, window.best
    return place, loss


class _Window:
    """The scales that may be best for some rows, from the smallest that clips nothing downwards and upwards."""

    def __init__(self, x: Array, of: Losses, scales: Array, weights: Array | None) -> None:
        # What has no weight is clipped at no scale.
        self.x = x if weights is None else np.where(weights > 0, x, 0.0)
        self.of, self.scales, self.weights = of, scales, weights
        ends = np.array([[of.grid.max], [-of.grid.min]])
        places = np.stack([self.x.argmax(axis=1), self.x.argmin(axis=1)])
        row = np.arange(len(x))
        # On a side without levels values become 0 at any scale.
        self.reach = np.where(ends > 0, np.array([[1.0], [-1.0]]) * self.x[row, places], 0.0)
        self.weight = np.ones((2, 1)) if weights is None else weights[row, places]
        self.ends = ends
        least = (self.reach / np.where(ends > 0, ends, 1.0)).max(axis=0)
        self.first = np.minimum(np.searchsorted(scales, least), scales.size - 1)
        self.best, self.at = of(self.x, scales[self.first], weights), self.first.copy()

    def go_down(self) -> None:
        """Try smaller scales until one value's error is too large."""

        def may_win(row: Index, place: Index) -> NDArray[np.bool_]:
            beyond = np.maximum(self.reach[:, row] - self.scales[np.maximum(place, 0)] * self.ends, 0.0)
            weight = self.weight if self.weight.shape[1] == 1 else self.weight[:, row]
            with np.errstate(over="ignore"):
                lost = (weight * beyond * beyond).max(axis=0)
            return np.asarray((place >= 0) & ~(lost > self.best[row] * _SLACK))

        self._walk(-1, may_win)

    def go_up(self) -> None:
        """Try greater ones below twice the first, and those whose halves are no scales."""
        last = last_that_wins(self.scales, self.first)
        self._walk(1, lambda row, place: np.asarray(place <= last[row]))

    def _walk(self, step: int, may_win: _Test) -> None:
        row, place = np.arange(len(self.x)), self.first
        x, weights = self.x, self.weights
        while True:
            place = place + step
            kept = np.flatnonzero(may_win(row, place))
            if kept.size < row.size:
                row, place, x = row[kept], place[kept], x[kept]
                weights = None if weights is None else weights[kept]
            if not row.size:
                return
            loss = self.of(x, self.scales[place], weights)
            # The smallest of equals.
            better = np.flatnonzero(loss <= self.best[row] if step < 0 else loss < self.best[row])
            self.best[row[better]], self.at[row[better]] = loss[better], place[better]
