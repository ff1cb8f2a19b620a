"""The pieces of a sample's error.

Between two crossings MSE(s) = A - 2 s B + s^2 C, a parabola whose minimum A - B^2 / C lies at B / C. At a crossing the
error has a concave kink, so every local minimum is inside a piece, and A - B^2 / C of any piece, be its minimum inside
or not, is nowhere below the error at that scale: the largest B^2 / C is the global minimum.
"""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._threads import chunk_slices
from ..._types import Array, Index
from ...grids.grid import Grid
from ..found import RESOLUTION, TOLERANCE
from .cells import Cells, Steps

# Crossings of one interval: their number takes the last bits of the sorting key, and 2^-40 is left to the rest.
MOST = (1 << 12) - 2
# Thresholds up to which a crossing carries the number of its own in its last bits: on one side of 0 in short rows, of
# which all crossings are sorted, and in intervals.
_TAGS, _MOST_TAGS = 8, 1 << 12
# Crossings of short rows that are sorted at a time: long enough for threads, short enough for the caches.
_AT_ONCE = 1 << 17
# Intervals of fewer than 2^5 crossings are taken together.
_SHORTEST = 5
# In place of u = inf.
_FAR = 1e300
# In place of C = 0.
_NO_LEVEL = 1e-300


class Piece(NamedTuple):
    """The best piece of each interval, and the local minima asked for: their interval and scale."""

    b: Array
    c: Array
    dip_of: Index
    dip: Array


def best_pieces(u: Array, change: Steps, enough: Array | None = None, power: Array | None = None) -> Piece:
    """Run through the crossings of each interval in ascending order of u = 1 / s.

    Crossings closer than 2^-40 may come in either order: the piece between them is then a mixture of its neighbours,
    whose parabola is not below the error either, and the minimum of a piece so narrow is its neighbours' minimum.

    Parameters
    ----------
    u : ndarray of shape (I, M)
        First 0, then the crossings; what fills up is inf or so.
    change : ndarray of shape (I, M)
        B + i C before the first crossing, then what they grow by at each: one complex sum takes as long as a real one.
    enough : ndarray of shape (I,), optional
        List the local minima whose B^2 / C reaches this.
    power : ndarray of shape (I,), optional
        A: of pieces whose errors A - B^2 / C are equal the smallest scale is taken.
    """
    n, m = u.shape
    mask = (1 << (m - 1).bit_length()) - 1
    key = _sorted_keys(u, mask, np.arange(m))
    place = key & mask
    key &= ~mask
    place += (np.arange(n) * m)[:, None]
    return _best(change.ravel().take(place, mode="clip"), u, enough, power)


def _best(sums: Steps, u: Array, enough: Array | None, power: Array | None) -> Piece:
    """`best_pieces` of sorted crossings; `sums` are what B + i C grow by. Both are written over."""
    gain = _gains(sums, out=u if enough is None else None)
    best = np.arange(len(u)), gain.argmax(axis=1) if power is None else _last_best(gain, power)
    b, c = sums[best].real, sums[best].imag
    if enough is None:
        return Piece(b, c, np.empty(0, np.intp), np.empty(0))
    owner, at = np.nonzero(gain >= enough[:, None])
    with np.errstate(divide="ignore", invalid="ignore"):
        bottom = sums.real[owner, at] / sums.imag[owner, at]
        end = 1 / np.column_stack([u, np.full(len(u), np.inf)])
    # A bottom that falls on a kink is no minimum.
    margin = 1 + 2.0**-40
    inside = (bottom * margin < end[owner, at]) & (bottom > end[owner, at + 1] * margin)
    return Piece(b, c, owner[inside], bottom[inside])


def _sorted_keys(u: Array, mask: int, tag: NDArray[np.int64]) -> NDArray[np.int64]:
    """Crossings in ascending order along the rows, in place, the last bits of each (`mask`) given to a tag."""
    # Infinity with a tag would be no number.
    np.minimum(u, _FAR, out=u)
    key = u.view(np.int64)
    key &= ~mask
    key |= tag
    # Positive numbers are sorted faster than their bits.
    u.sort(axis=1)
    return key


def _gains(sums: Steps, out: Array | None = None) -> Array:
    """B^2 / C from each crossing of a row to the next, from what B and C grow by, which their sums replace."""
    # Where C = 0 no value has left 0, and B is what roundings leave of 0: that is no gain, nor is a negative B.
    start = sums[:, 0]
    start[start.imag <= 0] = 1j * _NO_LEVEL
    signed = bool((start.real < 0).any())
    np.cumsum(sums, axis=1, out=sums)
    gain: Array = np.square(sums.real, out=out)
    gain /= sums.imag
    if signed:
        np.copyto(gain, 0.0, where=sums.real < 0)
    return gain


def _last_best(gain: Array, power: Array) -> Index:
    """The last of the greatest gains (1e-12 of the error, or what float64 resolves): small rows have equal minima."""
    most = gain.max(axis=1)
    slack = np.maximum(TOLERANCE * (power - most), 4 * RESOLUTION * power)
    at = np.flatnonzero(gain >= (most - slack)[:, None])
    row = at // gain.shape[1]
    out = np.zeros(most.size, np.intp)
    # Of several the last one stays.
    out[row] = at - row * gain.shape[1]
    return out


def in_intervals(cells: Cells, row: Index, low: Array, high: Array, start: Steps, enough: Array | None = None) -> Piece:
    """The best pieces of intervals of scales, with B + i C at their upper ends; each has at most `MOST` crossings.

    The intervals come in ascending order of the number of their crossings.
    """
    pairs = cells.pairs(row, low, high)
    owner, tagged = row.take(pairs.interval), cells.rows.weights is None and cells.grid.thresholds.size <= _MOST_TAGS
    u = cells.crossings(owner, pairs.value, pairs.threshold)
    change = np.empty(0, np.complex128) if tagged else cells.changes(u, owner, pairs.value, pairs.threshold)
    moment, squares = (a / cells.n for a in cells.growth)
    mask = _mask(moment.size)
    if tagged:
        np.minimum(u, _FAR, out=u)
        key = u.view(np.int64)
        key &= ~mask
        key |= pairs.threshold
    end = np.cumsum(pairs.counts)
    # Filled up to one length, those together that need about the same.
    size = np.maximum(np.frexp(pairs.counts)[1], _SHORTEST)
    cuts = [0, *(np.flatnonzero(size[1:] != size[:-1]) + 1).tolist(), row.size]
    found = []
    for one, two in itertools.pairwise(cuts):
        some, count = slice(one, two), pairs.counts[one:two]
        inside = slice(end[one] - count[0], end[two - 1])
        # The first place of a row is left to where its sums begin.
        shape = two - one, 1 + int(count.max())
        ahead = np.arange(two - one) * shape[1] + 1 - (end[some] - count)
        place = ahead.take(pairs.interval[inside] - one)
        place += np.arange(inside.start, inside.stop)
        full, least = _filled(shape, place, u[inside], 0.0, _FAR), None if enough is None else enough[some]
        if tagged:
            full.sort(axis=1)
            found.append(_best(_tagged(full, mask, moment, squares, start[some]), full, least, None))
        else:
            found.append(best_pieces(full, _filled(shape, place, change[inside], start[some], 0.0), least))
    b, c, dip = (np.concatenate([piece[i] for piece in found]) for i in (0, 1, 3))
    dip_of = np.concatenate([at + piece.dip_of for at, piece in zip(cuts, found, strict=False)])
    # The first and the last piece go on beyond the interval.
    own = (dip > low[dip_of]) & (dip < high[dip_of])
    return Piece(b, c, dip_of[own], dip[own])


def _filled(shape: tuple[int, int], place: Index, values: NDArray[Any], first: Any, rest: float) -> NDArray[Any]:
    """Rows of one length that hold the values at their places, begin with `first` and end with `rest`."""
    full = np.full(shape, rest, values.dtype)
    full.ravel()[place] = values
    full[:, 0] = first
    return full


def _mask(tags: int) -> int:
    """The last bits that number so many thresholds."""
    return (1 << (tags - 1).bit_length()) - 1


def _tagged(
    u: Array, mask: int, moment: Array, squares: Array, start: Steps, work: tuple[Index, Steps] | None = None
) -> Steps:
    """What B + i C grow by at sorted crossings with the numbers of their thresholds, which are taken away.

    The crossing and its threshold say which value it is, |y| = |t| / u: of 16 thresholds to 2^-49 of it.
    `moment` is |t| times the gap at each threshold.
    """
    index, sums = (np.empty(u.shape, np.intp), np.empty(u.shape, np.complex128)) if work is None else work
    key = u.view(np.int64)
    np.bitwise_and(key, mask, out=index)
    key &= ~mask
    (moment + 1j * squares).take(index, mode="clip", out=sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        sums.real /= u
    sums[:, 0] = start
    return sums


class _Work(NamedTuple):
    """What parts of one size write into, one after the other: fresh memory would cost as much as the work."""

    u: Array
    tags: Index
    sums: Steps


def in_all(cells: Cells, enough: Array | None = None) -> Piece:
    """The best of all pieces of short rows: every value at every threshold."""
    tables = _outwards(cells.grid)
    width = 1 + tables.shape[2] * cells.n
    parts = chunk_slices(cells.shift.size, max(1, _AT_ONCE // width))
    shape = min(cells.shift.size, max(1, _AT_ONCE // width)), width
    work = _Work(np.empty(shape), np.empty(shape, np.intp), np.empty(shape, np.complex128))
    found = [_in_part(cells, part, tables, work, None if enough is None else enough[part]) for part in parts]
    dip_of = np.concatenate([part.start + piece.dip_of for part, piece in zip(parts, found, strict=True)])
    b, c, dip = (np.concatenate([piece[i] for piece in found]) for i in (0, 1, 3))
    return Piece(b, c, dip_of, dip)


def _in_part(cells: Cells, part: slice, tables: Array, work: _Work, enough: Array | None) -> Piece:
    y, power, n, weights = cells.distance[part], cells.power[part], cells.n, cells.rows.weights
    negative, size = y < 0, np.abs(y)
    share: Array | float = 1.0 / n if weights is None else weights[part] / cells.rows.total[part, None]
    start = _at_home(cells.grid, negative, size, share)
    one_sided = np.array_equal(*tables) or not negative.any()
    u, width = work.u[: len(y)], tables.shape[2]
    u[:, 0] = 0.0
    # All values at one threshold, then at the next.
    columns = [slice(1 + k * n, 1 + (k + 1) * n) for k in range(width)]
    with np.errstate(divide="ignore", over="ignore"):
        for k, column in enumerate(columns):
            t = tables[0, 0, k] if one_sided else np.where(negative, tables[1, 0, k], tables[0, 0, k])
            np.divide(t, size, out=u[:, column])
    if enough is None and weights is None and 0 < width <= _TAGS:
        tag = np.repeat(np.arange(width), n)
        if not one_sided:
            tag = tag + width * np.tile(negative, width)
        mask = _mask(2 * width)
        _sorted_keys(u, mask, np.insert(tag, 0, 0, axis=-1))
        # A threshold that is missing on one side lies at infinity, as all thresholds do for y = 0: B then stays, C does
        # not fall, and no such piece is the best.
        t, gaps, squares = tables.transpose(1, 0, 2).reshape(3, -1)
        moment = np.where(np.isfinite(t), t, 0.0) * gaps
        sums = _tagged(u, mask, moment / n, squares / n, start, (work.tags[: len(y)], work.sums[: len(y)]))
        return _best(sums, u, None, power)
    change = np.empty(u.shape, np.complex128)
    change[:, 0] = start
    for k, column in enumerate(columns):
        gap, square = (np.where(negative, tables[1, j, k], tables[0, j, k]) for j in (1, 2))
        change.real[:, column], change.imag[:, column] = gap * size * share, square * share
    return best_pieces(u, change, enough, power)


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


def _at_home(grid: Grid, negative: NDArray[np.bool_], size: Array, share: Array | float) -> Steps:
    """B + i C where all values go to the levels next to 0; on the threshold 0 both are equally far from y = 0."""
    above = grid.levels[np.count_nonzero(grid.thresholds <= 0)]
    below = grid.levels[np.count_nonzero(grid.thresholds < 0)]
    out = np.zeros(len(size), np.complex128)
    if above or below:
        out.real = (np.where(negative, -below, above) * (size * share)).sum(axis=1)
        out.imag = (np.where(negative, below**2, above**2) * share).sum(axis=1)
    return out
