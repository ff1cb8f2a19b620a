"""The squared errors of rows at one scale each, in float64: what the search for a stored scale compares."""

from __future__ import annotations

import numpy as np

from .._threads import chunk_slices
from .._types import Array
from ..grids.grid import Grid
from .arithmetic import level_round
from .cast import fake_quantize
from .scratch import Scratch

PIECE = 1 << 16
"""Values that are rounded together: few enough for the caches, enough that calls cost little."""


class Losses:
    """Rounds rows of up to `size` values again and again, in the same memory.

    Parameters
    ----------
    grid : Grid
    size : int
        The most values of one call.
    """

    def __init__(self, grid: Grid, size: int) -> None:
        self.grid, self._round = grid, level_round(grid)
        self._scratch, self._work = Scratch(size), np.empty((3, size))

    def values(self, x: Array, scale: Array) -> Array:
        """What x becomes at one scale a row, in memory that the next call overwrites; at scale 0 all becomes 0.

        Parameters
        ----------
        x : ndarray of shape (R, n)
            Finite.
        scale : ndarray of shape (R,)
            Not negative.
        """
        flat, s = self._work[0, : x.size], scale[:, None]
        q = flat.reshape(x.shape)
        with np.errstate(over="ignore", under="ignore", divide="ignore"):
            inverse = 1.0 / s
            if np.isfinite(inverse).all():
                np.multiply(x, inverse, out=q)
            else:
                np.divide(x, np.where(s > 0, s, np.inf), out=q)
        if self._round is not None:
            self._round(flat, self._work[1:, : x.size], self._scratch)
        else:
            np.clip(q, self.grid.min, self.grid.max, out=q)
            np.copyto(q, fake_quantize(q, self.grid))
        q *= s
        return q

    def __call__(self, x: Array, scale: Array, weights: Array | None = None) -> Array:
        """Sums of the squared errors, shape (R,)."""
        error = self.values(x, scale)
        error -= x
        return squares(error, weights)


def squares(error: Array, weights: Array | None = None) -> Array:
    """Weighted sums of squares along the last axis."""
    if weights is None:
        return np.asarray(np.einsum("ij,ij->i", error, error))
    return np.asarray(np.einsum("ij,ij->i", np.square(error), weights))


def losses(rows: Array, grid: Grid, scale: Array, weights: Array | None = None) -> Array:
    """Sum of the squared errors of each row at its scale, in float64; at scale 0 all values become 0.

    Parameters
    ----------
    rows : ndarray of shape (R, n)
        Finite.
    grid : Grid
    scale : ndarray of shape (R,)
        Not negative.
    weights : ndarray of shape (R, n), optional

    Returns
    -------
    ndarray of shape (R,)

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> losses(np.array([[1.0, 9.0], [1.0, 9.0]]), grid("int4"), np.array([1.0, 0.0])).tolist()
    [4.0, 82.0]
    """
    step = max(1, PIECE // rows.shape[1])
    of, found = Losses(grid, step * rows.shape[1]), np.empty(len(rows))
    for some in chunk_slices(len(rows), step):
        found[some] = of(rows[some], scale[some], None if weights is None else weights[some])
    return found
