"""The search over the scale: scan every scale that can be the best, follow the dips, prove what was found."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import error
from ..results import ErrorTerms, Minimum, Status
from . import bounds
from .bounds import RESOLUTION, TOLERANCE
from .interval import one_percent
from .ladder import PER_OCTAVE, ladder
from .minima import candidates, chosen, dips
from .objective import Array, Index, Objective, Points, join

# Thresholds that a proof may look at before it becomes an option (about 3 ms); on a sample with stochastic rounding;
# and before it is given up.
_CHEAP_PROOF = 100_000
_DEAR_PROOF = 400_000_000
_ASKED_PROOF = 5_000_000_000
# Where a slope that is zero at one scale is no longer so, as factors.
_BESIDE = np.array([1 - 1e-7, 1 + 1e-7])
_TINY = np.finfo(np.float64).tiny


class Found(NamedTuple):
    """What a search found for each row."""

    scale: Array
    terms: ErrorTerms
    minima: list[tuple[Minimum, ...]]
    interval: Array
    status: NDArray[np.object_]


class Search:
    """One search over the scale for each row of an objective (on samples with nearest rounding: see `sample_scale`).

    Parameters
    ----------
    objective : Objective
    certify : bool or None
        Whether to prove the minimum; None: where it is cheap.
    """

    def __init__(self, objective: Objective, certify: bool | None) -> None:
        self.objective = objective
        self.rows = objective.shift.size
        budget = _ASKED_PROOF if certify else _DEAR_PROOF if objective.sample else _CHEAP_PROOF
        # Evaluations that the proof may still make.
        self.left = max(1, budget * (self.rows if certify else 1) // objective.cost)
        self.certify = certify
        self.reach = bounds.Reach(objective)
        self.live = self.reach.slope > 0
        # Whether there is anything to search, and everything.
        count = np.count_nonzero(self.live)
        self.some, self.every = count > 0, count == self.rows
        self.status = np.full(self.rows, Status.SCANNED, object)
        if not self.every:
            zero = bool((objective.grid.levels == 0).any())
            self.status[~self.live] = Status.DEGENERATE if zero else Status.DEGENERATE_NONE
        # Evaluated scales: sorted, and those not yet among them; scales to evaluate together with the next ones.
        self._points, self._new = Points.none(), list[Points]()
        self._ahead: tuple[Index, Array] | None = None
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

    def run(self) -> Found:
        """Scan, follow, prove, and say what was found."""
        if self.some:
            self.scan()
        found = candidates(self)
        best, minima = chosen(self, found)
        proof = self.some and self.certify is not False and self.objective.model == "exact"
        self._ahead = self._asked() if proof else None
        interval = one_percent(self, best)
        if proof:
            known, self._ahead = self.points, None
            if self.left >= 0:
                self.prove()
            missed = self._missed(found, best)
            if missed:
                best, minima = chosen(self, join(found, candidates(self)))
            if missed or (self.points is not known and self._crossed(best, interval)):
                interval = one_percent(self, best)
        return self._found(best, minima, interval)

    def evaluate(self, row: Index, scale: Array) -> Points:
        """Evaluate and remember."""
        count, ahead = row.size, self._ahead
        if ahead:
            row, scale, self._ahead = np.concatenate([row, ahead[0]]), np.concatenate([scale, ahead[1]]), None
        new = self.objective(row, scale)
        self.remember(new)
        return new.select(slice(count)) if ahead else new

    def remember(self, new: Points) -> None:
        """Take evaluated scales (and no more columns of their table) among the known ones."""
        self._new.append(Points(new.row, new.table[: len(self._points.table)]))

    def scan(self) -> None:
        """Evaluate a ladder over a first guess of the range, then over what a scale must lie in to be the best."""
        objective = self.objective
        rows = self.live.nonzero()[0]
        power, reach = objective.power[rows], self.reach.slope[rows]
        # A - MSE <= 2 s reach: below `low` less than half of the power can be gained.
        low = 0.25 * power / reach
        high = np.maximum(2 / objective.smallest * np.sqrt(power), 2 * low)
        stop = PER_OCTAVE * np.ceil(np.log2(high / low))
        self._climb(rows, low, stop)
        most = np.ceil(PER_OCTAVE * np.log2(self.reach.largest_scale(self.least)[rows] / low))
        if np.count_nonzero(most > stop):
            self.evaluate(*ladder(rows, low, stop + 1, most))
        least = self._downwards(rows, low)
        if objective.kinks.shape[-1] and len(objective.grid) <= 512:
            self.evaluate(*self._breakpoints(low * np.exp2(least / PER_OCTAVE), low * np.exp2(most / PER_OCTAVE)))

    def _climb(self, rows: Index, low: Array, stop: Array) -> None:
        """Evaluate steps 0 to `stop` of the ladder; of a float grid, one octave stands for all that repeat it."""
        if self.objective.grid.float_spec is None or stop.max() < 16 * PER_OCTAVE:
            self.evaluate(*ladder(rows, low, np.zeros(rows.size), stop))
            return
        ends = self.evaluate(*ladder(rows, low, np.zeros(rows.size), stop / PER_OCTAVE, 1))
        level = (ends.row[1:] == ends.row[:-1]) & (np.abs(np.diff(ends.mse)) <= 0.1 * TOLERANCE * ends.mse[1:])
        inner = ends.row[1:] == ends.row[:-1]
        inner[1:] &= ~(level[1:] & level[:-1])
        row, scale = (np.repeat(end[:-1][inner], PER_OCTAVE - 1) for end in (ends.row, ends.scale))
        self.evaluate(row, scale * np.tile(np.exp2(np.arange(1, PER_OCTAVE) / PER_OCTAVE), int(inner.sum())))

    def _downwards(self, rows: Index, low: Array) -> Array:
        """Extend the ladder until no smaller scale can gain more than the best known one; return its lowest step."""
        objective, least = self.objective, np.zeros(rows.size)
        for _ in range(200):
            gain = np.maximum(objective.power - self.least, RESOLUTION * objective.power)[rows]
            needed = np.floor(PER_OCTAVE * np.log2(0.5 * gain / self.reach.slope[rows] / low))
            if not np.count_nonzero(needed < least):
                break
            # Some octaves at a time: a gain found on the way ends it sooner.
            first = np.minimum(least, np.maximum(needed, least - 4 * PER_OCTAVE))
            self.evaluate(*ladder(rows, low, first, least - 1))
            least = first
        return least

    def _breakpoints(self, low: Array, high: Array) -> tuple[Index, Array]:
        """Scales at which a jump of the pdf meets a threshold or a level.

        Between thresholds the MSE is smooth, at a level the slope changes its course: a dip lies between neighbours.
        """
        rows = self.live.nonzero()[0]
        kinks = np.broadcast_to(self.objective.kinks, (self.rows, self.objective.kinks.shape[-1]))
        t = np.concatenate([self.objective.grid.thresholds, self.objective.grid.levels])
        distance = (kinks - self.objective.shift[:, None])[rows]
        scale = (distance[:, :, None] / t[t != 0]).reshape(rows.size, -1)
        if self.objective.convex:
            # On them the slope may be zero without a dip; where an atom changes its cell it jumps.
            beside = _BESIDE if self.objective.density.has_atoms else _BESIDE[1:]
            scale = (scale[:, :, None] * beside).reshape(rows.size, -1)
        scale.sort(axis=1)
        inside = (scale > low[:, None]) & (scale < high[:, None])
        inside[:, 1:] &= scale[:, 1:] != scale[:, :-1]
        return np.broadcast_to(rows[:, None], scale.shape)[inside], scale[inside]

    def _missed(self, found: Points, best: Points) -> bool:
        """Whether the points of the proof show what the scan had missed."""
        least = self.least + RESOLUTION * self.objective.power
        if np.count_nonzero(self.live & (least < best.mse * (1 - TOLERANCE))):
            return True
        if self.objective.bounded:
            return False
        # One octave of the ladder may hold many minima: look for dips without a known one.
        low, high = (self.points.key[end] for end in dips(self))
        return bool(np.count_nonzero(found.key.searchsorted(low) == found.key.searchsorted(high, "right")))

    def _crossed(self, best: Points, interval: Array) -> bool:
        """Whether a scale inside of the 1 % interval turned out to lose more."""
        row, scale = self.points.row, self.points.scale
        inside = (interval[0].take(row) < scale) & (scale < interval[1].take(row))
        limit = 1.01 * best.mse + RESOLUTION * self.objective.power
        return bool(np.count_nonzero(inside & (self.points.mse > limit.take(row))))

    def _asked(self) -> tuple[Index, Array] | None:
        """Scales inside the intervals so near to the best scale that their bound will not do, if not too many."""
        asked = bounds.asked(self.objective, self.points, self.least)
        if asked[0].size > self.left:
            # The estimate is a rough one.
            self.left = self.left if asked[0].size <= 2 * self.left else -1
            return None
        self.left -= asked[0].size
        return asked

    def prove(self) -> None:
        """Divide whatever may still hold a better scale until nothing may, or until it costs too much."""
        proven = self.live.copy()
        for _ in range(1000):
            place, goal = bounds.undecided(self.objective, self.points, self.least)
            if not place.size:
                break
            row, scale = bounds.split(self.objective, self.points, place, goal)
            self.left -= row.size
            if self.left < 0:
                proven[self.points.row[place]] = False
                break
            self.evaluate(row, scale)
        self.status[proven] = Status.EXACT

    def _found(self, best: Points, minima: list[tuple[Minimum, ...]], interval: Array) -> Found:
        """The result; a proof is of the points it knew: it stands only if the best is as good as the best of them."""
        objective = self.objective
        if self.some:
            # `least` is the least of many B^2 / C: up to 3 resolutions off.
            noise = 4 * RESOLUTION * objective.power
            beaten = best.mse > self.least * (1 + TOLERANCE) + noise
            if np.count_nonzero(beaten):
                self.status[beaten & (self.status == Status.EXACT)] = Status.SCANNED
        terms = error.terms_of(
            error.ErrorSums(*best.table[5:]),
            objective.members(best.row),
            objective.grid,
            best.scale,
            objective.shift,
            objective.rounding,
            objective.model,
        )
        return Found(best.scale, terms, minima, interval, self.status)
