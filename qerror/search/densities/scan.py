"""The search over the scale: scan every scale that can be the best, follow the dips, prove what was found."""

from __future__ import annotations

import numpy as np

from ..._types import Array, Index
from ...errors import exact as error
from ...results import Minimum, Status
from ..found import TOLERANCE, Found
from ..points import Points, join
from . import bounds
from .doubles import ceiling
from .explored import Explored
from .interval import one_percent
from .ladder import PER_OCTAVE, ladder
from .minima import alike, candidates, chosen, dips, hidden
from .objective import Objective

# Thresholds that a proof may look at before it becomes an option (about 10 ms); on a sample with stochastic rounding;
# and before it is given up.
_CHEAP_PROOF = 400_000
_DEAR_PROOF = 400_000_000
_ASKED_PROOF = 5_000_000_000
# How often an interval that holds a dip unseen is halved at most.
_HALVINGS = 8
# Where a slope that is zero at one scale is no longer so, as factors.
_BESIDE = np.array([1 - 1e-7, 1 + 1e-7])


class Search:
    """One search over the scale for each row of an objective (on samples with nearest rounding: see `sample_scale`).

    Parameters
    ----------
    objective : Objective
    certify : bool or None
        Whether to prove the minimum; None: where it is cheap.
    """

    def __init__(self, objective: Objective, certify: bool | None) -> None:
        self.objective, self.known = objective, Explored(objective)
        rows, live = self.known.rows, self.known.live
        budget = _ASKED_PROOF if certify else _DEAR_PROOF if objective.sample else _CHEAP_PROOF
        # Evaluations that the proof may still make.
        self.left = max(1, budget * (rows if certify else 1) // objective.cost)
        self.certify = certify
        self.status, self.ceiling = np.full(rows, Status.SCANNED, object), np.full(rows, np.inf)
        if not self.known.every:
            zero = bool((objective.grid.levels == 0).any())
            self.status[~live] = Status.DEGENERATE if zero else Status.DEGENERATE_NONE

    def run(self) -> Found:
        """Scan, follow, prove, and say what was found."""
        if self.known.some:
            self.scan()
        found = candidates(self.known)
        best, minima = chosen(self.known, found)
        proof = self.known.some and self.certify is not False and self.objective.model == "exact"
        if proof:
            self.ceiling = ceiling(self.objective, self.known.least)
        self.known.ahead = self._asked() if proof else None
        interval = one_percent(self.known, best)
        if proof:
            points, self.known.ahead = self.known.points, None
            if self.left >= 0:
                self.prove()
            missed = self._missed(found, best)
            if missed:
                best, minima = chosen(self.known, join(found, candidates(self.known)))
            if missed or (self.known.points is not points and self._crossed(best, interval)):
                interval = one_percent(self.known, best)
        return self._found(best, minima, interval)

    def scan(self) -> None:
        """Evaluate a ladder over a first guess of the range, then over what a scale must lie in to be the best."""
        objective = self.objective
        rows = self.known.live.nonzero()[0]
        power, reach = objective.power[rows], self.known.reach.slope[rows]
        # A - MSE <= 2 s reach: below `low` less than half of the power can be gained.
        low = 0.25 * power / reach
        high = np.maximum(2 / objective.smallest * np.sqrt(power), 2 * low)
        stop = PER_OCTAVE * np.ceil(np.log2(high / low))
        self._climb(rows, low, stop)
        most = np.ceil(PER_OCTAVE * np.log2(self.known.reach.largest_scale(self.known.least)[rows] / low))
        if np.count_nonzero(most > stop):
            self.known.evaluate(*ladder(rows, low, stop + 1, most))
        least = self._downwards(rows, low)
        self._meet(low * np.exp2(least / PER_OCTAVE), low * np.exp2(most / PER_OCTAVE))
        for _ in range(_HALVINGS):
            rows, between = hidden(self.known)
            if not rows.size:
                break
            self.known.evaluate(rows, between)

    def _meet(self, low: Array, high: Array) -> None:
        """Evaluate where jumps and cusps of the pdf meet thresholds or levels."""
        objective = self.objective
        thresholds, levels = objective.grid.thresholds, objective.grid.levels
        if len(levels) > 512:
            return
        if objective.kinks.shape[-1]:
            places = np.broadcast_to(objective.kinks, (self.known.rows, objective.kinks.shape[-1]))
            self.known.evaluate(*self._breakpoints(places, np.concatenate([thresholds, levels]), low, high))
        cusp = objective.cusp()
        if not np.isnan(cusp).all():
            # With stochastic rounding dips are narrow, at levels; with nearest they are wide, between thresholds.
            t = thresholds if objective.rounding == "nearest" else np.concatenate([thresholds, levels])
            self.known.evaluate(*self._breakpoints(cusp[:, None], t, low, high))

    def _climb(self, rows: Index, low: Array, stop: Array) -> None:
        """Evaluate steps 0 to `stop` of the ladder; of a float grid, one octave stands for all that repeat it."""
        if self.objective.grid.float_spec is None or stop.max() < 16 * PER_OCTAVE:
            self.known.evaluate(*ladder(rows, low, np.zeros(rows.size), stop))
            return
        ends = self.known.evaluate(*ladder(rows, low, np.zeros(rows.size), stop / PER_OCTAVE, 1))
        inner = ends.row[1:] == ends.row[:-1]
        change = np.abs(np.diff(ends.mse)) / ends.mse[1:]
        number = np.concatenate([[0], alike(np.where(inner, change, np.inf))])
        inner[1:] &= number[2:] != number[:-2]
        row, scale = (np.repeat(end[:-1][inner], PER_OCTAVE - 1) for end in (ends.row, ends.scale))
        self.known.evaluate(row, scale * np.tile(np.exp2(np.arange(1, PER_OCTAVE) / PER_OCTAVE), int(inner.sum())))

    def _downwards(self, rows: Index, low: Array) -> Array:
        """Extend the ladder until no smaller scale can gain more than the best known one; return its lowest step."""
        objective, least = self.objective, np.zeros(rows.size)
        for _ in range(200):
            gain = np.maximum(objective.power - self.known.least, objective.noise)[rows]
            needed = np.floor(PER_OCTAVE * np.log2(0.5 * gain / self.known.reach.slope[rows] / low))
            if not np.count_nonzero(needed < least):
                break
            # Some octaves at a time: a gain found on the way ends it sooner.
            first = np.minimum(least, np.maximum(needed, least - 4 * PER_OCTAVE))
            self.known.evaluate(*ladder(rows, low, first, least - 1))
            least = first
        return least

    def _breakpoints(self, places: Array, t: Array, low: Array, high: Array) -> tuple[Index, Array]:
        """Scales at which a jump or cusp of the pdf meets a threshold or a level.

        Between thresholds the MSE is smooth, at a level the slope changes its course: a dip lies between neighbours.
        """
        rows = self.known.live.nonzero()[0]
        distance = (places - self.objective.shift[:, None])[rows]
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
        least = self.known.least + self.objective.noise
        if np.count_nonzero(self.known.live & (least < best.mse * (1 - TOLERANCE))):
            return True
        if self.objective.bounded:
            return False
        # One octave of the ladder may hold many minima: look for dips without a known one.
        low, high = (self.known.points.key[end] for end in dips(self.known))
        return bool(np.count_nonzero(found.key.searchsorted(low) == found.key.searchsorted(high, "right")))

    def _crossed(self, best: Points, interval: Array) -> bool:
        """Whether a scale inside of the 1 % interval turned out to lose more."""
        row, scale = self.known.points.row, self.known.points.scale
        inside = (interval[0].take(row) < scale) & (scale < interval[1].take(row))
        limit = 1.01 * best.mse + self.objective.noise
        return bool(np.count_nonzero(inside & (self.known.points.mse > limit.take(row))))

    def _asked(self) -> tuple[Index, Array] | None:
        """Scales inside the intervals so near to the best scale that their bound will not do, if not too many."""
        asked = bounds.asked(self.objective, self.known.points, self.known.least, self.ceiling)
        if asked[0].size > self.left:
            # The estimate is a rough one.
            self.left = self.left if asked[0].size <= 2 * self.left else -1
            return None
        self.left -= asked[0].size
        return asked

    def prove(self) -> None:
        """Divide whatever may still hold a better scale until nothing may, or until it costs too much."""
        proven = self.known.live.copy()
        for _ in range(1000):
            place, goal = bounds.undecided(self.objective, self.known.points, self.known.least, ceiling=self.ceiling)
            if not place.size:
                break
            row, scale = bounds.split(self.objective, self.known.points, place, goal)
            self.left -= row.size
            if self.left < 0:
                proven[self.known.points.row[place]] = False
                break
            self.known.evaluate(row, scale)
        self.status[proven] = Status.EXACT

    def _found(self, best: Points, minima: list[tuple[Minimum, ...]], interval: Array) -> Found:
        """The result; a proof is of the points it knew: it stands only if the best is as good as the best of them."""
        objective = self.objective
        if self.known.some:
            # `least` is the least of many B^2 / C: up to 3 resolutions off.
            noise = 4 * objective.noise
            beaten = best.mse > self.known.least * (1 + TOLERANCE) + noise
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
