"""The best scale of rows of a sample, proven.

Intervals of scales are bounded from below by the chord of the convex h(u) = A u^2 - u^2 MSE(1 / u) (see `bounds`), and
divided until the bound rules them out or few crossings are left inside, whose pieces are then looked at one by one.
Short rows are looked at piece by piece at once.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..._types import Array, Index
from ..found import TOLERANCE
from ..points import numbered
from . import kernels, pieces
from .cells import Cells
from .chords import Intervals, below_chord, between, joined, neighbours_joined

# A crossing costs about as much as a cell of an evaluation, and spares the rounds that would follow.
_PER_CELL = 3
# Crossings that take no longer than one more round.
_FEW = 1 << 16
# Into how many parts an interval is divided at a time, and cells looked at in one round.
_MOST_PARTS = 8
# The same where there is but one round.
_AT_ONCE = 64
_ROUND = 1 << 22
# Crossings and cells of the intervals that are looked at together.
_LOOKED = 1 << 18
# Less than this (a logarithm) no width grows.
_EVEN = 1e-6
# Cells and crossings after which the proof for a row is given up, unless it was asked for.
BUDGET = 20_000_000


class Best(NamedTuple):
    """For each row: B and C of the best piece, whether any scale gains, and whether the piece is proven the best."""

    b: Array
    c: Array
    live: NDArray[np.bool_]
    proven: NDArray[np.bool_]


def search(cells: Cells, budget: float = BUDGET) -> Best:
    """The best pieces of some rows."""
    if cells.short:
        b, c, _, _ = pieces.in_all(cells)
        return Best(b, c, (b > 0) & (cells.reach > 0), np.ones(b.shape, bool))
    if budget and kernels.compiled():
        found = kernels.search(cells, budget / cells.effort)
        if found is not None:
            return Best(found[0], found[1], cells.reach > 0, found[2])
    return _Search(cells, budget).run()


def minima(cells: Cells, best: Best, within: float, budget: float) -> tuple[Index, Array]:
    """Row and scale of the local minima whose MSE is within this share of the best, none where they are too many."""
    gain = np.where(best.live, best.b * best.b / np.where(best.c > 0, best.c, 1.0), 0.0)
    error = np.maximum(cells.power - gain, 0.0)
    enough = cells.power - error - np.maximum(within * error, 8 * cells.noise)
    if cells.short:
        _, _, row, scale = pieces.in_all(cells, enough)
    else:
        every = _Search(cells, budget, enough)
        every.run()
        row, scale = every.dips
    kept = best.live[row]
    return row[kept], scale[kept]


class _Search:
    """A search for the best pieces, or for all local minima whose gain B^2 / C is `enough`."""

    def __init__(self, cells: Cells, budget: float, enough: Array | None = None) -> None:
        self.cells, self.budget, self.enough = cells, budget, enough
        self._dips: list[tuple[Index, Array]] = []
        self.live = cells.reach > 0
        home_b, home_c = cells.at_home
        self.b, self.c = np.where(self.live, np.maximum(home_b, 0.0), 0.0), home_c.copy()
        self.gain = np.zeros(self.b.size)
        self.proven = np.ones(self.b.size, bool)
        self._floor = cells.noise
        self._offer(np.arange(self.b.size), home_b, home_c)

    def _aim(self) -> None:
        """Set what a scale must fall below to be better than the best known, or to be good enough."""
        if self.enough is not None:
            self.goal = self.cells.power - self.enough
            return
        least = self.cells.power - self.gain
        self.goal = least - np.maximum(TOLERANCE * least, self._floor)

    @property
    def dips(self) -> tuple[Index, Array]:
        """Row and scale of the local minima met."""
        if not self._dips:
            return np.empty(0, np.intp), np.empty(0)
        row, scale = (np.concatenate(column) for column in zip(*self._dips, strict=True))
        return row, scale

    def _offer(self, row: Index, b: Array, c: Array) -> None:
        """Keep the piece of largest B^2 / C of each row."""
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where((b > 0) & (c > 0), b * b / c, 0.0)
        better = (gain > self.gain.take(row)).nonzero()[0]
        row, gain = row[better], gain[better]
        np.maximum.at(self.gain, row, gain)
        most = gain == self.gain[row]
        row, better = row[most], better[most]
        self.b[row], self.c[row] = b[better], c[better]
        self._aim()

    def run(self) -> Best:
        left, waiting = self._ladder(), self._none
        spent = 0.0
        while left.size or waiting.size:
            left = left.select(self._may_win(left))
            if not left.size:
                # In one go, when the goal is as near as it comes.
                self._look(waiting.select(self._may_win(waiting)))
                break
            left, few, cost = self._divide(*self._next(left))
            waiting = joined(waiting, few)
            spent += cost
            if spent > self.budget * self.b.size:
                self._look(waiting.select(self._may_win(waiting)))
                self.proven[left.select(self._may_win(left)).row] = False
                break
        return Best(self.b, self.c, self.live, self.proven)

    @property
    def _none(self) -> Intervals:
        return Intervals(np.empty((3, 0), np.intp), np.empty((6, 0)))

    def _ladder(self) -> Intervals:
        """Intervals of an octave over all scales that may be the best."""
        cells = self.cells
        rows = np.flatnonzero(self.live)
        reach, power = cells.reach[rows], cells.power[rows]
        top = cells.largest_scale[rows] * (1 + 1e-9)
        if self.enough is None:
            # A minimum that is listed may be no better than one at half its scale.
            top = np.minimum(top, cells.dominated[rows])
        # A - MSE <= 2 s reach: below `low` less than 94 % of the power can be gained.
        low = 0.47 * power / reach
        top = np.maximum(top, 2 * low)
        steps = np.maximum(1, np.ceil(np.log2(top / low))).astype(np.intp)
        found = self._intervals(rows, low, top, steps)
        # Where that is not gained, scales further down must be looked at.
        bottom = 0.5 * (power - self.goal[rows]) / reach * (1 - 1e-9)
        # Where all of the power is good enough every scale is: twenty octaves of them.
        bottom = np.maximum(bottom, low * 2.0**-20)
        more = np.flatnonzero(bottom < low)
        if more.size:
            steps = np.maximum(1, np.ceil(np.log2(low[more] / bottom[more]))).astype(np.intp)
            extra = self._intervals(rows[more], bottom[more], low[more], steps)
            found = joined(found, extra)
        start, stop = cells.repeating
        # What is found an octave below stands for these.
        return found.select((found.ends[0] < start[found.row]) | (found.ends[3] > stop[found.row]))

    def _intervals(self, rows: Index, low: Array, high: Array, steps: Index) -> Intervals:
        """Evaluate `steps` + 1 scales from low to high of each row, in equal ratios."""
        owner, step = numbered(steps + 1)
        scale = low[owner] * (high / low)[owner] ** (step / steps[owner])
        found = self.cells.evaluate(rows[owner], scale)
        self._offer(rows[owner], found.b, found.c)
        points = np.array([scale, found.b, found.c])
        left = (step < steps[owner]).nonzero()[0]
        return between(rows[owner], found.crossed, points, left, self.cells.least_crossings)

    def _may_win(self, intervals: Intervals) -> NDArray[np.bool_]:
        """Whether the bound leaves a better scale possible; without crossings there is but one parabola, known."""
        bound = below_chord(self.cells.power[intervals.row], intervals)
        open_ = bound < self.goal[intervals.row]
        if self.enough is not None:
            self._look(intervals.select(open_ & (intervals.crossings == 0)))
        return open_ & (intervals.crossings > 0)

    def _next(self, left: Intervals) -> tuple[Intervals, Intervals]:
        """The intervals of this round, those of most promise first where there are too many."""
        most = max(1, _ROUND // (self.cells.effort * 8))
        if left.size <= most:
            return left.select(np.zeros(0, np.intp)), left
        promise = (self.goal[left.row] - below_chord(self.cells.power[left.row], left)) / self.cells.power[left.row]
        order = np.argsort(-promise, kind="stable")
        return left.select(order[most:]), left.select(order[:most])

    def _divide(self, left: Intervals, now: Intervals) -> tuple[Intervals, Intervals, float]:
        """What is left, the intervals with so few crossings that these are to be looked at, and the cost of both."""
        parts, ratio = self._spacing(now)
        few_in_all = now.crossings.sum() <= _FEW
        most = pieces.MOST if few_in_all else np.minimum(_PER_CELL * self.cells.effort * parts, pieces.MOST)
        few = now.select(now.crossings <= most)
        cost = float(few.crossings.sum()) + 2.0 * few.size * self.cells.width
        many = (now.crossings > most).nonzero()[0]
        if not many.size:
            return left, few, cost
        now, parts, ratio = now.select(many), parts[many], ratio[many]
        cost += float((parts - 1).sum()) * self.cells.effort
        owner, step = numbered(parts + 1)
        low, high = now.ends[0], now.ends[3]
        # Parts whose widths grow in equal ratios; in logarithms, by intervals and then by points.
        start, width, grown, ratio, parts_of = np.array([low, np.log(high / low), np.expm1(ratio), ratio, parts]).take(
            owner, axis=1
        )
        scale = start * np.exp(width * (np.expm1(step / parts_of * ratio) / grown))
        first = (step == 0).nonzero()[0]
        last = np.append(first[1:], step.size) - 1
        inner = ((step > 0) & (step < parts_of)).nonzero()[0]
        row, scale = now.row.take(owner), scale.take(inner)
        found = self.cells.evaluate(row.take(inner), scale)
        self._offer(row.take(inner), found.b, found.c)
        points, crossed = np.empty((3, step.size)), np.empty(step.size, np.intp)
        points[:, inner], points[:, first], points[:, last] = (scale, found.b, found.c), now.ends[:3], now.ends[3:]
        crossed[inner], crossed[first], crossed[last] = found.crossed, now.counts[1], now.counts[1] + now.counts[2]
        left_ends = np.delete(np.arange(step.size), last)
        new = between(row, crossed, points, left_ends, self.cells.least_crossings)
        return joined(left, new), few, cost

    def _spacing(self, now: Intervals) -> tuple[Index, Array]:
        """How many parts, and the factor (its logarithm, not 0) by which their widths grow from end to end."""
        power, goal = self.cells.power[now.row], self.goal[now.row]
        floor = np.maximum(TOLERANCE * goal, self._floor[now.row])
        scale, b, c = now.both
        u = 1 / scale
        # Half the curvature of h over the interval; A where it is even.
        bend = np.maximum((b[0] - b[1]) / (u[0] - u[1]), 1e-6 * power)
        excess = power - goal - scale * (2 * b - scale * c)
        widths = 1.8 * np.sqrt(np.maximum(excess, floor) / bend)
        ratio = np.log(widths[1] / widths[0])
        ratio[np.abs(ratio) < _EVEN] = _EVEN
        count = np.log(scale[1] / scale[0]) * ratio / (widths[0] * np.expm1(ratio))
        most = _MOST_PARTS if self.budget else _AT_ONCE
        return np.clip(np.ceil(count), 2, most).astype(np.intp), ratio

    def _look(self, now: Intervals) -> None:
        """Look at every piece of some intervals."""
        if not now.size:
            return
        now = neighbours_joined(now)
        now = now.select(np.argsort(now.crossings, kind="stable"))
        # As many at a time as have crossings and ends to keep the memory of a round.
        load = np.cumsum(now.crossings + 2 * self.cells.width)
        part = load // _LOOKED
        for some in np.split(np.arange(load.size), np.flatnonzero(part[1:] != part[:-1]) + 1):
            one = now.select(some)
            enough = None if self.enough is None else self.enough[one.row]
            low, _, _, high, high_b, high_c = one.ends
            found = pieces.in_intervals(self.cells, one.row, low, high, high_b + 1j * high_c, enough)
            self._offer(one.row, found.b, found.c)
            self._dips.append((one.row[found.dip_of], found.dip))
