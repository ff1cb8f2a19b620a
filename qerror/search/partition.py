"""The best cut of sorted values into runs, each sent to its mean: a dynamic program on windows that are proven.

Positions are gathered into slots, and the dynamic program goes over their low ends only, from the left and from the
right. The best partition of all loses little when its cuts move to low ends: a window of slots is left to each cut,
those where the best low end costs at most that loss more than a partition that is known. They are divided into smaller
slots until these are single positions. That is exact, whatever the values are; how fast depends on them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._types import Array

Index = NDArray[np.intp]

# The first slots, together and per run. Those in windows are then divided by the factor.
_SLOTS, _SLOTS_PER_RUN, _FACTOR = 2048, 16, 4
_MOST_LLOYD_STEPS = 100


def best_partition(x: Array, weight: Array, count: int) -> Array:
    """Means of the optimal cut of distinct sorted values into `count` runs."""
    runs, least = _Runs(x, weight), np.inf
    order = np.arange(count + 1)
    first, last = order.copy(), x.size - count + order
    first[-1], last[0] = x.size, 0
    starts = _first_slots(x, weight, max(_SLOTS, _SLOTS_PER_RUN * count))
    while True:
        slots = _Slots(runs, starts)
        low, high = slots.holding(first), slots.holding(last)
        wide = slots.inside(low, high) & (slots.high > slots.low)
        best, cuts = _layers(slots.cost, low, high, int(not wide.any()))
        ends = slots.low[_path(cuts, low, high)]
        if not wide.any():
            return runs.means(ends[:-1], ends[1:])
        least = min(least, _lloyd(runs, _apart(ends)))
        rest, _ = _layers(slots.mirrored, slots.top - high[::-1], slots.top - low[::-1], 0)
        through = [a + b[::-1] - least for a, b in zip(best, rest[::-1], strict=True)]
        first, last = _narrowed(runs, slots, through, first, last)
        starts = _divided(starts, wide & slots.inside(slots.holding(first), slots.holding(last)))


def _narrowed(runs: _Runs, slots: _Slots, through: list[Array], first: Index, last: Index) -> tuple[Index, Index]:
    """Windows without the slots through which the best partition, moved to low ends, would cost too much."""
    low, before = slots.holding(first), np.inf
    while True:
        loss = _loss(runs, slots, first, last)
        if loss >= 0.9 * before:
            return first, last
        first, last, before = first.copy(), last.copy(), loss
        for k in range(1, first.size - 1):
            kept = low[k] + np.flatnonzero(through[k] <= loss + first.size * runs.rounding)
            first[k], last[k] = max(first[k], slots.low[kept[0]]), min(last[k], slots.high[kept[-1]])
        first, last = _apart(first), last[-1] - _apart(last[-1] - last[::-1])[::-1]


def _loss(runs: _Runs, slots: _Slots, first: Index, last: Index) -> float:
    """What the best partition loses, at most, when each of its cuts moves to the low end of its slot.

    The levels stay. A value v between low end and cut passes to the next level, d above its own, and costs 2 d (t - v)
    more: t is the threshold, midway between both levels and hence, where a partition is the best, at most the first
    value beyond the cut. The losses of several cuts in one slot add up to just that.
    """
    d = runs.means(last[1:-1], last[2:]) - runs.means(first[:-2], first[1:-1])
    low = slots.low[:-1]
    moved = np.add.reduceat(runs.weight, low) * (runs.x[slots.high[:-1]] - runs.x[low])
    windows = np.array([slots.holding(first), slots.holding(last) + 1])[:, 1:-1].T.ravel()
    return float((2 * d * np.maximum.reduceat(np.append(moved, 0), windows)[::2]).sum())


class _Runs:
    """Squared error of sending the values i <= k < j to their mean, from prefix sums about the overall mean."""

    def __init__(self, x: Array, weight: Array) -> None:
        self.x, self.weight = x, weight
        self.centre = float(np.average(x, weights=weight))
        y = x.astype(np.longdouble) - self.centre
        self.sums = np.zeros((3, x.size + 1), np.longdouble)
        term = weight.astype(np.longdouble)
        for sums in self.sums:
            np.cumsum(term, out=sums[1:])
            term *= y
        # Of a cost, at most: six sums, each off by n roundings, and what float64 keeps of it.
        relative = 8 * x.size * np.finfo(np.longdouble).eps + 4 * np.finfo(np.float64).eps
        self.rounding = float(relative * self.sums[2, -1])

    def cost(self, start: Index, stop: Index) -> Array:
        return _cost(self.sums[:, stop] - self.sums[:, start])

    def means(self, start: Index, stop: Index) -> Array:
        zero, one, _ = self.sums[:, stop] - self.sums[:, start]
        # A mass below the last digit of the sums may leave nothing to divide by.
        one = np.divide(one, zero, out=np.zeros_like(one), where=zero > 0)
        means: Array = np.clip(self.centre + one.astype(np.float64), self.x[start], self.x[stop - 1])
        return means


def _cost(sums: NDArray[Any]) -> Array:
    """Of nothing: zero."""
    zero, one, two = sums
    some = zero > 0
    one *= one
    np.divide(one, zero, out=one, where=some)
    two -= one
    cost: Array = (np.maximum(two, 0) * some).astype(np.float64)
    return cost


class _Slots:
    """Consecutive ranges low <= position <= high of all positions 0, ..., n of a cut."""

    def __init__(self, runs: _Runs, starts: Index) -> None:
        self.low, self.high, self.top = starts[:-1], starts[1:] - 1, starts.size - 2
        self._sums = np.ascontiguousarray(runs.sums[:, self.low].T)

    def cost(self, i: Index, j: Index) -> Array:
        """What a run costs between the low ends of two slots."""
        return _cost((self._sums.take(j, axis=0) - self._sums.take(i, axis=0)).T)

    def mirrored(self, i: Index, j: Index) -> Array:
        """Cost with slots counted from the right."""
        return self.cost(self.top - j, self.top - i)

    def holding(self, position: Index) -> Index:
        return np.searchsorted(self.low, position, side="right") - 1

    def inside(self, low: Index, high: Index) -> NDArray[np.bool_]:
        """Whether a slot is in any of the windows low <= slot <= high."""
        size = self.low.size + 1
        depth = np.cumsum(np.bincount(low, minlength=size) - np.bincount(high + 1, minlength=size))
        return depth[:-1] > 0


def _first_slots(x: Array, weight: Array, count: int) -> Index:
    """Where slots start: half of them of equal counts, half as the levels of a fine quantizer are (Panter and Dite)."""
    n = x.size
    if n <= 2 * count:
        return np.arange(n + 2)
    spread = np.cbrt(weight[1:] * (np.diff(x) / (x[-1] - x[0])) ** 2)
    measure = np.cumsum(spread / spread.sum() + 1 / n)
    inner = 1 + np.searchsorted(measure, np.linspace(0, measure[-1], count + 1)[1:-1])
    return np.unique(np.concatenate([[0, 1], inner, [n, n + 1]]))


def _divided(starts: Index, which: NDArray[np.bool_]) -> Index:
    start, size = starts[:-1][which], np.diff(starts)[which]
    return np.unique(np.concatenate([starts, *(start + k * size // _FACTOR for k in range(1, _FACTOR))]))


def _apart(cuts: Index) -> Index:
    """Moved right where two would coincide."""
    order = np.arange(cuts.size)
    return np.maximum.accumulate(cuts - order) + order


def _lloyd(runs: _Runs, cuts: Index) -> float:
    """Cost of a partition, improved by Lloyd's steps."""
    order, x = np.arange(cuts.size), runs.x
    cuts = np.minimum(cuts, x.size - order[::-1])
    least = float(runs.cost(cuts[:-1], cuts[1:]).sum())
    for _ in range(_MOST_LLOYD_STEPS):
        means = runs.means(cuts[:-1], cuts[1:])
        cuts = np.concatenate([[0], np.searchsorted(x, 0.5 * (means[1:] + means[:-1])), [x.size]])
        new = float(runs.cost(cuts[:-1], cuts[1:]).sum()) if (np.diff(cuts) > 0).all() else np.inf
        if new >= least:
            break
        least = new
    return least


_SlotCost = Callable[[Index, Index], Array]


def _layers(cost: _SlotCost, low: Index, high: Index, apart: int) -> tuple[list[Array], list[Index]]:
    """Least cost of k runs that end in each slot of window k, and the slot before it."""
    best, cuts = [np.zeros(1)], []
    for k in range(1, low.size):
        new, cut = _layer(cost, best[-1], (low[k - 1], high[k - 1]), (low[k], high[k]), apart)
        best.append(new)
        cuts.append(cut)
    return best, cuts


def _path(cuts: list[Index], low: Index, high: Index) -> Index:
    path = [int(high[-1])]
    for k in range(len(cuts), 0, -1):
        path.append(int(cuts[k - 1][path[-1] - low[k]]))
    return np.array(path[::-1])


def _layer(
    cost: _SlotCost, before: Array, sources: tuple[int, int], targets: tuple[int, int], apart: int
) -> tuple[Array, Index]:
    """One more run: best[j] = min over i <= j - apart of before[i] + cost(i, j), in windows.

    The best cut moves right with j, so the slots in the middle of what is decided bound each other's cuts: all middles
    of one depth are solved in one sweep over at most as many candidates as both windows have.
    """
    base, size = targets[0], targets[1] - targets[0] + 1
    best, cut = np.empty(size), np.empty(size, np.intp)
    low, high, least, most = (np.array([v]) for v in (*targets, *sources))
    while low.size:
        middle = (low + high) // 2
        width = np.minimum(most, middle - apart) - least + 1
        first = np.cumsum(width) - width
        i = np.arange(first[-1] + width[-1]) + np.repeat(least - first, width)
        value = before[i - sources[0]] + cost(i, np.repeat(middle, width))
        found = np.minimum.reduceat(value, first)
        hit = np.flatnonzero(value == np.repeat(found, width))
        chosen = i[hit[np.searchsorted(hit, first)]]
        best[middle - base], cut[middle - base] = found, chosen
        left, right = low < middle, middle < high
        low, high, least, most = (
            np.concatenate([low[left], middle[right] + 1]),
            np.concatenate([middle[left] - 1, high[right]]),
            np.concatenate([least[left], chosen[right]]),
            np.concatenate([chosen[left], most[right]]),
        )
    return best, cut
