"""The error of quantized rows, by quantizing them: one pass over the values, without sorting."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads import thread_map
from .._types import Array
from ..casting.blocks import cast_at
from ..casting.cast import fake_quantize
from ..grids.grid import Grid

# Elements in one piece: long enough that threads seldom meet at the interpreter lock. Longer rows are summed by pieces.
_PIECE = 1 << 17


class Measured(NamedTuple):
    """Sums over each row: clipping, rounding, bias, cross, power and mean; all weights; those of clipped values."""

    sums: Array
    weight: Array
    clipped: Array


def measure_rows(rows: NDArray[Any], weights: Array | None, grid: Grid, scale: Array, shift: Array) -> Measured:
    """Quantize each row at its scale and shift, and add up what that costs.

    Parameters
    ----------
    rows : ndarray of shape (R, n)
    weights : ndarray of shape (R, n) or None
    grid : Grid
    scale, shift : ndarray of shape (R,)

    Returns
    -------
    Measured
        Arrays of shape (6, R), (R,) and (R,).

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> x, one = np.array([[0.0, 0.75, 2.0]]), np.ones(1)
    >>> measure_rows(x, None, grid("ternary"), one, 0 * one).sums[:2].ravel().tolist()
    [1.0, 0.0625]
    """
    out, pieces = np.zeros((8, rows.shape[0])), list(_pieces(*rows.shape))
    whole = rows.shape[1] <= _PIECE

    def work(piece: tuple[slice, slice]) -> Array | None:
        row, _ = piece
        w = None if weights is None else weights[piece]
        sums = _add_up(rows[piece], w, grid, scale[row, None], shift[row, None])
        if not whole:
            return sums
        out[:, row] = sums
        return None

    for (row, _), sums in zip(pieces, thread_map(work, pieces), strict=True):
        if sums is not None:
            out[:, row] += sums
    return Measured(out[:6], out[6], out[7])


def _pieces(count: int, length: int) -> Iterator[tuple[slice, slice]]:
    step = max(1, _PIECE // length)
    for row in range(0, count, step):
        for column in range(0, length, _PIECE):
            yield slice(row, row + step), slice(column, column + _PIECE)


def _add_up(x: NDArray[Any], w: Array | None, grid: Grid, scale: Array, shift: Array) -> Array:
    x = x.astype(np.float64)
    e = cast_at(fake_quantize, x, grid, scale, shift)
    e -= x
    mass = np.full(x.shape[0], float(x.shape[1])) if w is None else w.sum(axis=1)
    weighted = e if w is None else w * e
    square = weighted * e
    # A negative scale turns the grid around.
    low, high = np.sort([shift + scale * grid.min, shift + scale * grid.max], axis=0)
    ends = np.stack([x.min(axis=1), x.max(axis=1)])
    clipping, clipped = np.zeros((2, x.shape[0]))
    if (ends[0] < low[:, 0]).any() or (ends[1] > high[:, 0]).any():
        outside = (x < low) | (x > high)
        clipped = (outside if w is None else np.where(outside, w, 0.0)).sum(axis=1, dtype=np.float64)
        clipping = np.where(outside, square, 0.0).sum(axis=1)
        square[outside] = 0.0
    wx = x if w is None else w * x
    rounding, bias, mean = square.sum(axis=1), weighted.sum(axis=1), wx.sum(axis=1)
    cross, power = np.einsum("ij,ij->i", wx, e), np.einsum("ij,ij->i", wx, x)
    return np.stack([clipping, rounding, bias, cross, power, mean, mass, clipped])
