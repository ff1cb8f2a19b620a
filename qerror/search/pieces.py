"""The pieces of a sample's error.

Between two crossings MSE(s) = A - 2 s B + s^2 C, a parabola whose minimum A - B^2 / C lies at B / C. At a crossing the
error has a concave kink, so every local minimum is inside a piece, and A - B^2 / C of any piece, be its minimum inside
or not, is nowhere below the error at that scale: the largest B^2 / C is the global minimum.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..grids.grid import Grid
from .bounds import RESOLUTION, TOLERANCE
from .cells import Array, Cells, Index

# Crossings of one interval: their number takes the last bits of the sorting key, and 2^-40 is left to the rest.
MOST = (1 << 12) - 2
# Thresholds on one side of 0 up to which a crossing carries the number of its own in its last bits.
_TAGS = 8


class Piece(NamedTuple):
    """The best piece of each interval, and the local minima asked for: their interval and scale."""

    b: Array
    c: Array
    dip_of: Index
    dip: Array


def best_pieces(
    u: Array, db: Array, dc: Array, b: Array, c: Array, enough: Array | None = None, power: Array | None = None
) -> Piece:
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
    power : ndarray of shape (I,), optional
        A: of pieces whose errors A - B^2 / C are equal the smallest scale is taken.
    """
    n, m = u.shape
    mask = (1 << m.bit_length()) - 1
    key = _sorted_keys(u, mask, np.arange(m))
    place = key & mask
    place += (np.arange(n) * m)[:, None]
    sums = np.empty((2, n, m + 1))
    for change, out in zip((db, dc), sums, strict=True):
        out[:, 1:] = change.ravel().take(place, mode="clip")
    gain = _gains(sums, b, c)
    best = np.arange(n), gain.argmax(axis=1) if power is None else _last_best(gain, power)
    sum_b, sum_c = sums
    if enough is None:
        return Piece(sum_b[best], sum_c[best], np.empty(0, np.intp), np.empty(0))
    owner, at = np.nonzero(gain >= enough[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        bottom = sum_b[owner, at] / sum_c[owner, at]
        end = 1 / np.column_stack([np.zeros(n), (key & ~mask).view(np.float64), np.full(n, np.inf)])
    # A bottom that falls on a kink is no minimum.
    margin = 1 + 2.0**-40
    inside = (bottom * margin < end[owner, at]) & (bottom > end[owner, at + 1] * margin)
    return Piece(sum_b[best], sum_c[best], owner[inside], bottom[inside])


def _sorted_keys(u: Array, mask: int, tag: NDArray[np.int64]) -> NDArray[np.int64]:
    """Crossings in ascending order along the rows, in place, the last bits of each (`mask`) given to a tag."""
    key = u.view(np.int64)
    key &= ~mask
    key |= tag
    key.sort(axis=1)
    return key


def _gains(sums: Array, b: Array, c: Array) -> Array:
    """B^2 / C after each crossing of a row, from what B and C grow by, which their sums replace."""
    sums[:, :, 0] = b, c
    for one in sums:
        np.cumsum(one, axis=1, out=one)
    with np.errstate(divide="ignore", invalid="ignore"):
        gain: Array = np.square(sums[0])
        gain /= sums[1]
    # Neither negative B nor 0 / 0 is a gain.
    np.copyto(gain, 0.0, where=~(sums[0] > 0))
    return gain


def _last_best(gain: Array, power: Array) -> Index:
    """The last of the greatest gains (1e-12 of the error, or what float64 resolves): small rows have equal minima."""
    most = gain.max(axis=1)
    slack = np.maximum(TOLERANCE * (power - most), 4 * RESOLUTION * power)
    out: Index = gain.shape[1] - 1 - np.argmax((gain >= (most - slack)[:, None])[:, ::-1], axis=1)
    return out


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
    rows, tables = cells.rows.select(part), _outwards(cells.grid)
    y = rows.values - cells.shift[part, None].astype(np.float64)
    negative, size = y < 0, np.abs(y)
    share = np.broadcast_to(1.0 / rows.total[:, None], y.shape)
    if rows.weights is not None:
        share = share * rows.weights
    power = cells.power[part]
    b, c = _at_home(cells.grid, negative, size * share, share)
    sides = (tables[0] != tables[1]).any(axis=0)
    with np.errstate(divide="ignore", over="ignore"):
        u = tables[0, 0] / size[..., None]
        for k in np.flatnonzero(sides):
            u[negative, k] = tables[1, 0, k] / size[negative]
    u = u.reshape(len(y), -1)
    if enough is None and rows.weights is None and 0 < tables.shape[2] <= _TAGS:
        return _tagged(u, tables, negative if sides.any() else None, b, c, 1.0 / rows.n, power)
    db, dc = tables[0, 1] * (size * share)[..., None], tables[0, 2] * share[..., None]
    for k in np.flatnonzero(sides):
        db[negative, k] = tables[1, 1, k] * (size * share)[negative]
        dc[negative, k] = tables[1, 2, k] * share[negative]
    return best_pieces(u, db.reshape(u.shape), dc.reshape(u.shape), b, c, enough, power)


def _tagged(
    u: Array, tables: Array, negative: NDArray[np.bool_] | None, b: Array, c: Array, share: float, power: Array
) -> Piece:
    """Few thresholds: a crossing and its threshold say which value it is, |y| = |t| / u, to 2^-49 of it."""
    most = tables.shape[2]
    tag = np.arange(most)
    if negative is not None:
        tag = (tag + most * negative[..., None]).reshape(u.shape)
    else:
        tag = np.tile(tag, u.shape[1] // most)
    mask = (1 << (2 * most - 1).bit_length()) - 1
    key = _sorted_keys(u, mask, tag)
    index = key & mask
    key &= ~mask
    t, gaps, squares = tables.transpose(1, 0, 2).reshape(3, -1)
    # A threshold that is missing on one side lies at infinity, as all thresholds do for y = 0: B then stays, C does not
    # fall, and no such piece is the best.
    moment = np.where(np.isfinite(t), t, 0.0) * gaps
    sums = np.empty((2, len(u), u.shape[1] + 1))
    np.divide((moment * share).take(index, mode="clip"), key.view(np.float64), out=sums[0, :, 1:])
    sums[1, :, 1:] = (squares * share).take(index, mode="clip")
    gain = _gains(sums, b, c)
    best = np.arange(len(u)), _last_best(gain, power)
    return Piece(sums[0][best], sums[1][best], np.empty(0, np.intp), np.empty(0))


def _outwards(grid: Grid) -> Array:
    """|t|, gap and growth of the square of the level at each threshold from 0 outwards, shape (2 sides, 3, m)."""
    t, gaps, squares = grid.thresholds, np.diff(grid.levels), np.diff(grid.levels**2)
    most = max(np.count_nonzero(t > 0), np.count_nonzero(t < 0))
    tables = np.full((2, 3, most), [[np.inf], [0.0], [0.0]])
    for side, on in enumerate((t > 0, t < 0)):
        sign = 1 - 2 * side
        columns = np.array([sign * t[on], gaps[on], sign * squares[on]])
        tables[side, :, : columns.shape[1]] = columns[:, ::sign]
    return tables


def _at_home(grid: Grid, negative: NDArray[np.bool_], moment: Array, share: Array) -> tuple[Array, Array]:
    """B and C where all values go to the levels next to 0; on the threshold 0 both are equally far from y = 0."""
    above = grid.levels[np.count_nonzero(grid.thresholds <= 0)]
    below = grid.levels[np.count_nonzero(grid.thresholds < 0)]
    b = (np.where(negative, -below, above) * moment).sum(axis=1)
    c = (np.where(negative, below**2, above**2) * share).sum(axis=1)
    return b, c
