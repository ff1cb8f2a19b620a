"""The pieces of a sample's error.

Between two crossings MSE(s) = A - 2 s B + s^2 C, a parabola whose minimum A - B^2 / C lies at B / C. At a crossing the
error has a concave kink, so every local minimum is inside a piece, and A - B^2 / C of any piece, be its minimum inside
or not, is nowhere below the error at that scale: the largest B^2 / C is the global minimum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .cells import Array, Cells, Index

# Crossings of one interval: their number takes the last bits of the sorting key, and 2^-40 is left to the rest.
MOST = (1 << 12) - 2
# Crossings in flight.
_CHUNK = 1 << 18


class Piece(NamedTuple):
    """The best piece of each interval, and the local minima asked for: their interval and scale."""

    b: Array
    c: Array
    dip_of: Index
    dip: Array


def best_pieces(u: Array, db: Array, dc: Array, b: Array, c: Array, enough: Array | None = None) -> Piece:
    """Run through the crossings of each interval in ascending order of u = 1 / s.

    Crossings closer than 2^-40 may come in either order: the piece between them is then a mixture of its neighbours,
    whose parabola is not below the error either, and the minimum of a piece so narrow is its neighbours' minimum.

    Parameters
    ----------
    u : ndarray of shape (I, M)
        Crossings; inf fills up.
    db, dc : ndarray of shape (I, M)
        What B and C grow by at each.
    b, c : ndarray of shape (I,)
        B and C before the first.
    enough : ndarray of shape (I,), optional
        List the local minima whose B^2 / C reaches this.
    """
    n, m = u.shape
    mask = (1 << m.bit_length()) - 1
    key = u.view(np.int64) & ~mask
    key |= np.arange(m)
    key.sort(axis=1)
    # Crossing by crossing down the columns, so that all intervals are added up together.
    place = (key & mask).T + np.arange(n) * m
    sums = np.empty((2, m + 1, n))
    sums[:, 0] = b, c
    for change, out in zip((db, dc), sums, strict=True):
        change.ravel().take(place, mode="clip", out=out[1:])
        for k in range(m):
            np.add(out[k], out[k + 1], out=out[k + 1])
    sum_b, sum_c = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = sum_b * sum_b
        gain /= sum_c
    gain[(sum_b <= 0) | (sum_c <= 0)] = 0.0
    best = gain.argmax(axis=0), np.arange(n)
    if enough is None:
        return Piece(sum_b[best], sum_c[best], np.empty(0, np.intp), np.empty(0))
    owner, at = np.nonzero((gain >= enough).T)
    with np.errstate(divide="ignore", invalid="ignore"):
        bottom = sum_b[at, owner] / sum_c[at, owner]
        end = 1 / np.column_stack([np.zeros(n), (key & ~mask).view(np.float64), np.full(n, np.inf)])
    # A bottom that falls on a kink is no minimum.
    margin = 1 + 2.0**-40
    inside = (bottom * margin < end[owner, at]) & (bottom > end[owner, at + 1] * margin)
    return Piece(sum_b[best], sum_c[best], owner[inside], bottom[inside])


def in_intervals(
    cells: Cells, row: Index, low: Array, high: Array, b: Array, c: Array, enough: Array | None = None
) -> Piece:
    """The best pieces of intervals of scales, with B and C at their upper ends; each has at most `MOST` crossings."""
    pairs = cells.pairs(row, low, high)
    u, db, dc = cells.crossings(row[pairs.interval], pairs.value, pairs.threshold)
    start = np.searchsorted(pairs.interval, np.arange(row.size))
    place = pairs.interval, np.arange(u.size) - start[pairs.interval]
    most = int(np.bincount(pairs.interval, minlength=1).max(initial=0))
    full_u, full_b, full_c = np.full((row.size, most), np.inf), np.zeros((row.size, most)), np.zeros((row.size, most))
    full_u[place], full_b[place], full_c[place] = u, db, dc
    found = best_pieces(full_u, full_b, full_c, b, c, enough)
    # The first and the last piece go on beyond the interval.
    inside = (found.dip > low[found.dip_of]) & (found.dip < high[found.dip_of])
    return found._replace(dip_of=found.dip_of[inside], dip=found.dip[inside])


def in_all(cells: Cells, part: slice, enough: Array | None = None) -> Piece:
    """The best of all pieces of short rows: every value at every threshold."""
    grid, rows = cells.grid, cells.rows.select(part)
    t, gaps, squares = grid.thresholds, np.diff(grid.levels), np.diff(grid.levels**2)
    most = max(np.count_nonzero(t > 0), np.count_nonzero(t < 0))
    tables = np.full((2, 3, most), [[np.inf], [0.0], [0.0]])
    for side, on in enumerate((t > 0, t < 0)):
        sign = 1 - 2 * side
        columns = np.array([sign * t[on], gaps[on], sign * squares[on]])
        # From the threshold next to 0 outwards.
        tables[side, :, : columns.shape[1]] = columns[:, ::sign]
    y = rows.values.astype(np.float64) - cells.shift[part, None]
    negative = y < 0
    share = np.broadcast_to(1.0 / rows.total[:, None], y.shape)
    if rows.weights is not None:
        share = share * rows.weights
    moment = np.abs(y) * share
    u, db, dc = (np.empty((*y.shape, most)) for _ in range(3))
    with np.errstate(divide="ignore", over="ignore"):
        np.divide(tables[0, 0], np.abs(y)[..., None], out=u)
        np.multiply(tables[0, 1], moment[..., None], out=db)
        np.multiply(tables[0, 2], share[..., None], out=dc)
        for k in np.flatnonzero((tables[0] != tables[1]).any(axis=0)):
            other = tables[1, :, k]
            u[negative, k] = other[0] / -y[negative]
            db[negative, k], dc[negative, k] = other[1] * moment[negative], other[2] * share[negative]
    above = grid.levels[np.count_nonzero(t <= 0)]
    below = grid.levels[np.count_nonzero(t < 0)]
    b = (np.where(negative, -below, above) * moment).sum(axis=1)
    # On the threshold 0 both levels are equally far from y = 0.
    c = (np.where(negative, below**2, above**2) * share).sum(axis=1)
    shape = (y.shape[0], -1)
    return best_pieces(u.reshape(shape), db.reshape(shape), dc.reshape(shape), b, c, enough)
