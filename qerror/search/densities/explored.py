"""The scales that a search over the scale has evaluated."""

from __future__ import annotations

import numpy as np

from ..._types import Array, Index
from ..points import Points, join
from . import bounds
from .objective import Objective

_TINY = np.finfo(np.float64).tiny


class Explored:
    """What is known of the rows of an objective.

    Attributes
    ----------
    objective : Objective
    rows : int
    reach : Reach
    live : ndarray of bool, shape (R,)
        Rows of which some scale is better than another.
    some, every : bool
        Whether any, and whether all are.
    ahead : tuple of (rows, scales) or None
        To be evaluated together with what is asked for next.
    """

    def __init__(self, objective: Objective) -> None:
        self.objective, self.rows = objective, objective.shift.size
        self.reach = bounds.Reach(objective)
        self.live = self.reach.slope > 0
        count = np.count_nonzero(self.live)
        self.some, self.every = count > 0, count == self.rows
        self.ahead: tuple[Index, Array] | None = None
        # Sorted, and those not yet among them.
        self._points, self._new = Points.none(), list[Points]()
        self._least = np.full(self.rows, np.inf)
        if not self.every:
            self._least[~self.live] = 0.0

    @property
    def points(self) -> Points:
        """Evaluated scales, sorted by row and scale."""
        if self._new:
            self._sort_in()
        return self._points

    @property
    def least(self) -> Array:
        """Least MSE that the evaluated scales of each row show: A - 2 s B + s^2 C is never below the MSE."""
        if self._new:
            self._sort_in()
        return self._least

    def _sort_in(self) -> None:
        # What comes first is a ladder, which is sorted.
        alone = len(self._new) == 1 and not self._points.row.size
        self._points = points = self._new[0] if alone else join(self._points, *self._new)
        self._new.clear()
        value = points.mse
        if self.objective.convex:
            gain = np.maximum(points.b, 0.0)
            gain *= gain
            # Where every value goes to level 0, both are 0.
            gain /= points.c + _TINY
            value = np.minimum(value, self.objective.power[points.row] - gain)
        if self.rows == 1:
            self._least = np.maximum(value.min(keepdims=True, initial=np.inf), 0.0)
        elif value.size:
            start = np.diff(points.row, prepend=-1).nonzero()[0]
            self._least[points.row[start]] = np.maximum(np.minimum.reduceat(value, start), 0.0)

    def evaluate(self, row: Index, scale: Array) -> Points:
        """Evaluate and remember."""
        count, ahead = row.size, self.ahead
        if ahead:
            row, scale, self.ahead = np.concatenate([row, ahead[0]]), np.concatenate([scale, ahead[1]]), None
        new = self.objective(row, scale)
        self.remember(new)
        return new.select(slice(count)) if ahead else new

    def remember(self, new: Points) -> None:
        """Take evaluated scales (and no more columns of their table) among the known ones."""
        self._new.append(Points(new.row, new.table[: len(self._points.table)]))
