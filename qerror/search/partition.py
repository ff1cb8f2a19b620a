"""The best cut of sorted values into runs, each sent to its mean: a dynamic program on windows that are proven.

Positions are gathered into slots, and the dynamic program goes over their ends only, from the left and from the right.
The best partition of all loses little when its cuts move to the ends of their slots: a window of slots is left to each
cut, those whose best end costs at most that loss more than a partition that is known. They are divided into smaller
slots until these are single positions. That is exact, whatever the values are; how fast depends on them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from .._types import Array, Index
from .runs import least_costs, path, squares_of_means

# The first slots, together and per run. Those in windows are then divided by the factor.
_SLOTS, _SLOTS_PER_RUN, _FACTOR = 2048, 16, 4
_MOST_LLOYD_STEPS = 100
# Places by run at which it is known how far runs reach.
_PLACES_PER_RUN = 16
# Shares of the number of runs at which less is known of the worth of one more.
_FEWER = np.array([0.3, 0.5, 0.6, 0.7, 0.8])


def best_partition(x: Array, weight: Array, count: int) -> Array:
    """Means of the optimal cut of distinct sorted values into `count` runs."""
    runs, least = _Runs(x, weight), np.inf
    order = np.arange(count + 1)
    first, last = order.copy(), x.size - count + order
    first[-1], last[0] = x.size, 0
    starts = _first_slots(runs, max(_SLOTS, _SLOTS_PER_RUN * count))
    reach = _Reach(runs, count)
    while True:
        slots = _Slots(starts)
        low, high = slots.holding(first), slots.holding(last)
        wide = slots.inside(low, high) & (slots.high > slots.low)
        if wide.any():
            high[1:-1] += 1
        before, after = reach.sources(slots)
        sums = (runs.rough if wide.any() else runs.sums)[:, slots.low]
        best, cuts = least_costs(sums, low, high, before, int(not wide.any()))
        ends = slots.low[path(cuts, low, high)]
        if not wide.any():
            return runs.means(ends[:-1], ends[1:])
        least = min(least, _lloyd(runs, _apart(ends)))
        rest, _ = least_costs((sums[:, -1:] - sums)[:, ::-1], slots.top - high[::-1], slots.top - low[::-1], after, 0)
        through = [a + b[::-1] - least for a, b in zip(best, rest[::-1], strict=True)]
        first, last = _narrowed(runs, slots, through, first, last, reach.steps(slots))
        starts = _divided(starts, wide & slots.inside(slots.holding(first), slots.holding(last)))


def _worth(runs: _Runs, count: int) -> float:
    """How much less one more run than `count` costs, at most.

    The least cost is convex in the number of runs: one more gains no more than any of those did since a smaller number.
    """
    fewer = np.unique((count * _FEWER).astype(np.intp).clip(1))
    return min(
        (_lloyd(runs, _apart(_even_cuts(runs, int(k)))) / (count - k) for k in fewer if k < count), default=np.inf
    )


class _Reach:
    """How far the runs beside a cut may reach in the best partition.

    Split in two a run gains no more than one more run is worth; what this gains grows with the run, on either side.
    """

    def __init__(self, runs: _Runs, count: int) -> None:
        n, worth = runs.x.size, _worth(runs, count) + runs.rounding
        at = np.unique(np.clip(_even_cuts(runs, _PLACES_PER_RUN * count), 1, n - 1))
        self._runs, self._at = runs, at
        self._left = _last(lambda i: runs.gain(i, at) > worth, at - 1, np.full_like(at, -1))
        self._right = _last(lambda j: runs.gain(at, j) > worth, at + 1, np.full_like(at, n + 1))

    def _of(self, slots: _Slots) -> tuple[Index, Index]:
        """The first and last position of runs that end or begin in each slot."""
        left = self._left[np.maximum(np.searchsorted(self._at, slots.low[:-1], side="right") - 1, 0)]
        right = self._right[np.minimum(np.searchsorted(self._at, slots.high[:-1]), self._at.size - 1)]
        return left, right

    def steps(self, slots: _Slots) -> Array:
        """How far the levels on both sides of a cut in each slot lie apart, at most."""
        left, right = self._of(slots)
        low, high = np.maximum(slots.low[:-1], 1), np.minimum(slots.high[:-1], self._runs.x.size - 1)
        return self._runs.means(high, right) - self._runs.means(left, low)

    def sources(self, slots: _Slots) -> tuple[Index, Index]:
        """The first slot at whose low end a run that ends at each begins; the same from the right."""
        left, right = self._of(slots)
        # A cut moves to the low end of its slot or of the next.
        before = np.concatenate([[0], slots.holding(left)])
        after = slots.top - np.minimum(slots.holding(right) + 1, slots.top)
        return before, np.append(after, 0)[::-1]


def _last(beyond: Callable[[Index], NDArray[np.bool_]], inner: Index, outer: Index) -> Index:
    """The last position between `inner` and `outer` that is not beyond, by halving."""
    while (wide := np.abs(outer - inner) > 1).any():
        middle = np.where(wide, (inner + outer) // 2, inner)
        out = beyond(middle)
        inner, outer = np.where(wide & ~out, middle, inner), np.where(wide & out, middle, outer)
    return inner


def _narrowed(
    runs: _Runs, slots: _Slots, through: list[Array], first: Index, last: Index, steps: Array
) -> tuple[Index, Index]:
    """Windows without the slots through whose ends the best partition would cost too much."""
    low, before, moved = slots.holding(first), np.inf, _moved(runs, slots)
    while True:
        loss = _loss(runs, slots, first, last, steps, moved)
        if loss >= 0.9 * before:
            return first, last
        first, last, before = first.copy(), last.copy(), loss
        for k in range(1, first.size - 1):
            nearer = np.minimum(through[k][:-1], through[k][1:])
            kept = low[k] + np.flatnonzero(nearer <= loss + first.size * runs.rough_rounding)
            first[k], last[k] = max(first[k], slots.low[kept[0]]), min(last[k], slots.high[kept[-1]])
        first, last = _apart(first), last[-1] - _apart(last[-1] - last[::-1])[::-1]


def _loss(runs: _Runs, slots: _Slots, first: Index, last: Index, steps: Array, moved: Array) -> float:
    """What the best partition loses, at most, when each of its cuts moves to the nearer end of its slot.

    The levels stay. A value v that a cut passes goes to the next level, d from its own, and costs 2 d |t - v| more: t
    is the threshold, midway between both levels and hence, where a partition is the best, between the values beside the
    cut. The losses of several cuts in one slot add up to just that.
    """
    d = runs.means(last[1:-1], last[2:]) - runs.means(first[:-2], first[1:-1])
    windows = np.array([slots.holding(first), slots.holding(last) + 1])[:, 1:-1].T.ravel()
    by_window = d * np.maximum.reduceat(np.append(moved, 0), windows)[::2]
    by_slot = np.maximum.reduceat(np.append(steps * moved, 0), windows)[::2]
    return float(2 * np.minimum(by_window, by_slot).sum())


def _moved(runs: _Runs, slots: _Slots) -> Array:
    """Sum of |t - v| over the values that a cut passes, at most: those up to the middle go left, the others right."""
    low, high = slots.low[:-1], slots.high[:-1]
    y = runs.offset
    middle = np.clip(np.searchsorted(runs.x, 0.5 * (runs.x[low] + runs.x[high])), low, high)
    count, total = runs.sums[:2, middle] - runs.sums[:2, low]
    left = y[middle] * count - total
    count, total = runs.sums[:2, high + 1] - runs.sums[:2, middle + 1]
    return np.asarray(np.maximum(left, total - y[middle] * count), np.float64)


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
        self.rough = self.sums.astype(np.float64)
        self.rough_rounding = float(8 * np.finfo(np.float64).eps * self.sums[2, -1]) + self.rounding

    def cost(self, start: Index, stop: Index) -> Array:
        zero, one, two = self.sums[:, stop] - self.sums[:, start]
        cost: Array = np.maximum(two - squares_of_means(zero, one), 0).astype(np.float64)
        return cost

    @cached_property
    def measure(self) -> Array:
        """What cuts divide evenly: half the counts, half the density of the levels of a fine quantizer."""
        x = self.x
        spread = np.cbrt(self.weight[1:] * (np.diff(x) / (x[-1] - x[0])) ** 2)
        return np.asarray(np.cumsum(spread / spread.sum() + 1 / x.size))

    @cached_property
    def offset(self) -> Array:
        """The values about the mean of all."""
        return np.asarray(self.x - self.centre)

    def gain(self, start: Index, stop: Index) -> Array:
        """What runs gain when they are split at their means: less than that of the best split, if at all."""
        middle = np.searchsorted(self.x, self.means(start, stop))
        middle = np.clip(middle, start, stop)
        return self.cost(start, stop) - self.cost(start, middle) - self.cost(middle, stop)

    def means(self, start: Index, stop: Index) -> Array:
        zero, one, _ = self.sums[:, stop] - self.sums[:, start]
        # A mass below the last digit of the sums may leave nothing to divide by.
        one = np.divide(one, zero, out=np.zeros_like(one), where=zero > 0)
        means: Array = np.clip(self.centre + one.astype(np.float64), self.x[start], self.x[stop - 1])
        return means


class _Slots:
    """Consecutive ranges low <= position <= high of all positions 0, ..., n of a cut."""

    def __init__(self, starts: Index) -> None:
        self.low, self.high, self.top = starts[:-1], starts[1:] - 1, starts.size - 2

    def holding(self, position: Index) -> Index:
        return np.searchsorted(self.low, position, side="right") - 1

    def inside(self, low: Index, high: Index) -> NDArray[np.bool_]:
        """Whether a slot is in any of the windows low <= slot <= high."""
        size = self.low.size + 1
        depth = np.cumsum(np.bincount(low, minlength=size) - np.bincount(high + 1, minlength=size))
        return depth[:-1] > 0


def _first_slots(runs: _Runs, count: int) -> Index:
    """Where slots start."""
    n = runs.x.size
    if n <= 2 * count:
        return np.arange(n + 2)
    return np.unique(np.concatenate([[0, 1], _even_cuts(runs, count)[1:-1], [n, n + 1]]))


def _even_cuts(runs: _Runs, count: int) -> Index:
    """Cuts of runs, half of them of equal counts, half as the levels of a fine quantizer are (Panter and Dite)."""
    measure = runs.measure
    inner = 1 + np.searchsorted(measure, np.linspace(0, measure[-1], count + 1)[1:-1])
    return np.concatenate([[0], inner, [runs.x.size]])


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
