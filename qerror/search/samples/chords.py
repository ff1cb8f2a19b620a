"""Intervals of scales of many rows, and the chord that bounds the error inside them from below."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._types import Array, Index

# Intervals that touch become one of up to twice as many crossings.
_JOINED = 1 << 10


class Intervals(NamedTuple):
    """Between two evaluated scales of a row: MSE(s) <= A - 2 s B + s^2 C with the B and C of either end.

    In two tables, of which some columns are taken in one call: threads wait for the interpreter lock at every one.
    """

    # Row, crossings below, crossings inside.
    counts: Index
    # Scale, B and C at the low end, then at the high end.
    ends: Array

    @property
    def row(self) -> Index:
        """Of each interval."""
        out: Index = self.counts[0]
        return out

    @property
    def crossings(self) -> Index:
        """Inside each interval."""
        out: Index = self.counts[2]
        return out

    @property
    def both(self) -> tuple[Array, Array, Array]:
        """Scale, B and C, each at both ends: shape (2, I)."""
        scale, b, c = self.ends.reshape(2, 3, -1).swapaxes(0, 1)
        return scale, b, c

    @property
    def size(self) -> int:
        """How many intervals."""
        return int(self.counts.shape[1])

    def select(self, index: Index | NDArray[np.bool_]) -> Intervals:
        """Those at `index`."""
        if index.dtype == np.bool_:
            index = index.nonzero()[0]
        return Intervals(self.counts.take(index, axis=1), self.ends.take(index, axis=1))


def joined(*parts: Intervals) -> Intervals:
    """All of some tables."""
    counts, ends = (np.concatenate(tables, axis=1) for tables in zip(*parts, strict=True))
    return Intervals(counts, ends)


def neighbours_joined(now: Intervals) -> Intervals:
    """Intervals that touch as one where it has few crossings; there must be one at least."""
    now = now.select(np.lexsort((now.ends[0], now.row)))
    touch = (now.row[1:] == now.row[:-1]) & (now.ends[0, 1:] == now.ends[3, :-1])
    part, small = np.cumsum(now.crossings) // _JOINED, now.crossings <= _JOINED
    apart = ~(touch & small[1:] & small[:-1] & (part[1:] == part[:-1]))
    first, last = np.append(True, apart).nonzero()[0], np.append(apart, True).nonzero()[0]
    row, below = now.counts[:2].take(first, axis=1)
    counts = np.array([row, below, np.add.reduceat(now.crossings, first)])
    return Intervals(counts, np.concatenate([now.ends[:3].take(first, axis=1), now.ends[3:].take(last, axis=1)]))


def between(row: Index, crossed: Index, points: Array, left: Index, least: int = 0) -> Intervals:
    """Intervals from the points `left` (their scale, B and C) to those that follow them.

    Crossings that are estimated are taken for `least` at least: only by counting is it known that there are none.
    """
    right = left + 1
    below = crossed.take(left)
    counts = np.array([row.take(left), below, np.maximum(crossed.take(right) - below, least)])
    return Intervals(counts, np.concatenate([points.take(left, axis=1), points.take(right, axis=1)]))


def below_chord(power: Array, now: Intervals) -> Array:
    """What the MSE nowhere falls below inside the intervals, by the chord of h(u) = 2 u B - C, u = 1 / s."""
    return chord(power, *now.both)


def chord(power: Array, scale: Array, b: Array, c: Array) -> Array:
    """The same from scales, B and C with both ends along the first axis."""
    low, high = scale
    u = 1 / scale
    h = 2 * u * b - c
    slope = (h[0] - h[1]) / (u[0] - u[1])
    intercept = h[1] - slope * u[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        bottom = np.where(intercept < 0, -0.5 * slope / intercept, high)
    at = np.clip(bottom, low, high)
    out: Array = power - at * (slope + at * intercept)
    return out
