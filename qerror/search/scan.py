"""The search over the scale: scan every scale that can be the best, follow the dips, prove what was found."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import error
from ..results import ErrorTerms, Minimum, Status
from . import bounds
from .bounds import RESOLUTION, TOLERANCE
from .interval import one_percent
from .ladder import PER_OCTAVE, ladder
from .objective import Array, Index, Objective, Points, join
from .roots import Slope, rising_roots

# Thresholds that a proof may look at before it becomes an option (about 3 ms); on a sample with stochastic rounding;
# and before it is given up.
_CHEAP_PROOF = 100_000
_DEAR_PROOF = 400_000_000
_ASKED_PROOF = 5_000_000_000
# Slope of a minimum, relative to its MSE, that is as good as none.
_FLAT = 1e-7
# How often minima are made sharper at most.
_TURNS = 4
# Where a slope that is zero at one scale is no longer so, as factors.
_BESIDE = np.array([1 - 1e-7, 1 + 1e-7])
_TERMS = tuple(field.name for field in dataclasses.fields(ErrorTerms))


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
        self.points = Points.none()
        # Least MSE known for each row.
        self.least = np.full(self.rows, np.inf)
        if not self.every:
            self.least[~self.live] = 0.0

    def run(self) -> Found:
        """Scan, follow, prove, and evaluate what was found."""
        found = Points.none()
        if self.some:
            self.scan()
            proof = self.certify is not False and self.objective.model == "exact"
            found = self.follow(proof)
            if proof and self.left >= 0:
                self.prove()
            if self._missed(found):
                found = join(found, self.follow())
            if self.objective.sample and self.objective.grid.float_spec is not None:
                found = join(found, self._octaves_below(found))
        return self._evaluated(found)

    def evaluate(self, row: Index, scale: Array) -> Points:
        """Evaluate and remember."""
        new = self.objective(row, scale)
        self.remember(new)
        return new

    def remember(self, new: Points) -> None:
        """Keep points, and the least MSE that they show: the parabola A - 2 s B + s^2 C is never below the MSE."""
        self.points = join(self.points, new)
        value = new.mse
        if self.objective.convex:
            gain = np.maximum(new.b, 0.0)
            gain *= gain
            value = np.minimum(value, self.objective.power[new.row] - np.divide(gain, new.c, out=gain, where=new.c > 0))
        self.least = np.minimum(self.least, np.maximum(self._least_of(new.row, value), 0.0))

    def _least_of(self, row: Index, value: Array) -> Array:
        """The least value of each row, infinity for none."""
        least: Array = value.min(keepdims=True, initial=np.inf) if self.rows == 1 else np.full(self.rows, np.inf)
        if self.rows > 1:
            np.minimum.at(least, row, value)
        return least

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

    def follow(self, proof: bool = False) -> Points:
        """The local minima that the evaluated scales show, as sharp as the evaluations allow."""
        found = self.refine(proof)
        for _ in range(_TURNS):
            if not self._rough(found):
                break
            found = self.refine()
        return found

    def refine(self, proof: bool = False) -> Points:
        """The local minima between scanned scales: roots of the slope from - to +.

        With them are evaluated the scales that a proof is sure to ask for.
        """
        points = self.points
        size = points.mse if self.objective.accurate else self.objective.power[points.row]
        noise = 4 * RESOLUTION * size / points.scale
        # A slope of zero tells nothing: where a jump of the pdf meets a threshold it may be a point of inflection.
        steep = (np.abs(points.slope) > noise).nonzero()[0]
        first, second = steep[:-1], steep[1:]
        dips = (points.row[first] == points.row[second]) & (points.slope[first] < 0) & (points.slope[second] > 0)
        if np.count_nonzero(dips) > 1:
            dips &= ~self._copies()[first]
        place, after = first[dips], second[dips]
        if not place.size:
            return Points.none()
        row = points.row[place]
        low, high = points.select(place), points.select(after)
        scale = rising_roots(lambda index, s: self.evaluate(row[index], s), [Slope()] * row.size, low, high)
        new = self._with_asked(row, scale) if proof else self.evaluate(row, scale)
        if self.objective.kinks.shape[-1]:
            # At a jump of the pdf the MSE may have an edge instead of a smooth minimum.
            edge = np.where(low.mse < high.mse, low.scale, high.scale)
            lower = np.minimum(low.mse, high.mse) < new.mse
            if np.count_nonzero(lower):
                new = join(new.select(~lower), self.objective(row[lower], edge[lower]))
        return new

    def _copies(self) -> NDArray[np.bool_]:
        """Intervals whose ends have the MSEs of the ends half their scale: the same minimum, an octave up.

        Floating grids repeat themselves; the smallest scale stands for minima within 1e-12 of each other.
        """
        points = self.points
        key = np.round(np.log2(points.scale) * 2**20).astype(np.int64) + points.row * 2**40
        below = np.minimum(np.searchsorted(key, key - 2**20), key.size - 1)
        same = (key[below] == key - 2**20) & (np.abs(points.mse - points.mse[below]) <= TOLERANCE * points.mse)
        copies: NDArray[np.bool_] = same[:-1] & same[1:] & (below[1:] == below[:-1] + 1)
        return copies

    def _octaves_below(self, found: Points) -> Points:
        """On a sample, floating grids give the very same error at half the scale, until they clip."""
        order = np.lexsort((found.mse, found.row))
        best = found.select(order[np.append(True, found.row[order][1:] != found.row[order][:-1])])
        octaves = np.arange(1, 1 + int(np.ceil(np.log2(best.scale.max() / self.points.scale.min()))))
        row, scale = np.repeat(best.row, octaves.size), (best.scale[:, None] * 2.0**-octaves).ravel()
        below = self.objective(row, scale)
        return below.select(below.mse <= np.repeat(best.mse, octaves.size) * (1 + TOLERANCE))

    def _rough(self, found: Points) -> bool:
        """Whether a minimum is not as sharp as it could be: a density far from the shift makes for many in a row."""
        if not self.objective.convex:
            return False
        slope = np.abs(found.slope) * found.scale
        rough = (slope > _FLAT * found.mse) & (slope > 8 * RESOLUTION * self.objective.power[found.row])
        return bool(np.count_nonzero(rough))

    def _missed(self, found: Points) -> bool:
        """Whether the proof's points beat the minima found: then the scan had missed one."""
        least = self._least_of(found.row, found.mse)
        best = self.least + RESOLUTION * self.objective.power
        return bool(np.count_nonzero(self.live & (best < least * (1 - TOLERANCE))))

    def _with_asked(self, row: Index, scale: Array) -> Points:
        """Evaluate, and with it divide the intervals so near to the best scale that their bound would not do."""
        asked = bounds.asked(self.objective, self.points, self.least)
        if asked[0].size > self.left:
            # The estimate is a rough one.
            self.left = self.left if asked[0].size <= 2 * self.left else -1
            return self.evaluate(row, scale)
        self.left -= asked[0].size
        new = self.evaluate(np.append(row, asked[0]), np.append(scale, asked[1]))
        return new.select(slice(row.size))

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

    def _evaluated(self, found: Points) -> Found:
        """Accurate errors of the minima; equal ones count once, and the smallest scale stands for them."""
        row, scale = found.row, found.scale
        if self.some:
            # Where the scan found no dip.
            lacking = self.live.copy()
            lacking[row] = False
            if np.count_nonzero(lacking):
                order = np.lexsort((self.points.mse, self.points.row))
                least = order[np.searchsorted(self.points.row, lacking.nonzero()[0])]
                row, scale = np.append(row, self.points.row[least]), np.append(scale, self.points.scale[least])
        if not self.every:
            idle = (~self.live).nonzero()[0]
            row, scale = np.append(row, idle), np.append(scale, np.ones(idle.size))
        objective = self.objective
        terms = error.flat_terms(
            objective.members(row), objective.grid, scale, objective.shift[row], objective.rounding, objective.model
        )
        mse = terms.mse
        minima, first = [], np.empty(self.rows, np.intp)
        order = np.lexsort((scale, mse, row))
        start = row[order].searchsorted(np.arange(self.rows + 1)).tolist()
        for member in range(self.rows):
            kept = distinct(order[start[member] : start[member + 1]], scale, mse)
            first[member] = kept[0]
            shift = float(objective.shift[member])
            minima.append(tuple(Minimum(float(scale[i]), shift, float(mse[i])) for i in kept if self.live[member]))
        # A proof is of the points it knew: it stands only if the answer is as good as the best of them.
        if self.some:
            # `least` is the least of many B^2 / C: up to 3 resolutions off.
            noise = 4 * RESOLUTION * objective.power
            beaten = mse[first] > self.least * (1 + TOLERANCE) + noise
            if np.count_nonzero(beaten):
                self.status[beaten & (self.status == Status.EXACT)] = Status.SCANNED
        chosen = ErrorTerms(*(getattr(terms, name)[first] for name in _TERMS))
        interval = one_percent(self, scale[first], mse[first]) if self.some else np.full((2, self.rows), np.nan)
        return Found(scale[first], chosen, minima, interval, self.status)


def distinct(order: Index, scale: Array, mse: Array, within: float = np.inf) -> list[int]:
    """Minima in `order` (best first) up to `within` above the best, those with equal MSE (1e-12) once."""
    kept: list[int] = []
    for i in order:
        if kept and mse[i] > (1 + within) * mse[kept[0]]:
            break
        if kept and mse[i] <= mse[kept[-1]] * (1 + TOLERANCE):
            if scale[i] < scale[kept[-1]]:
                kept[-1] = i
            continue
        kept.append(i)
    return kept
