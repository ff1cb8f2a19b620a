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
from .objective import SHARP, Array, Index, Objective, Points, join
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
        self._points = points = join(self._points, *self._new)
        self._new.clear()
        value = points.mse
        if self.objective.convex:
            gain = np.maximum(points.b, 0.0)
            gain *= gain
            gain /= np.where(points.c > 0, points.c, np.inf)
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
        found = self._candidates()
        best, minima = self._chosen(found)
        proof = self.some and self.certify is not False and self.objective.model == "exact"
        self._ahead = self._asked() if proof else None
        interval = one_percent(self, best)
        if proof:
            known, self._ahead = self.points, None
            if self.left >= 0:
                self.prove()
            missed = self._missed(found, best)
            if missed:
                best, minima = self._chosen(join(found, self._candidates()))
            if missed or (self.points is not known and self._crossed(best, interval)):
                interval = one_percent(self, best)
        return self._found(best, minima, interval)

    def evaluate(self, row: Index, scale: Array) -> Points:
        """Evaluate and remember."""
        count, ahead = row.size, self._ahead
        if ahead:
            row, scale, self._ahead = np.append(row, ahead[0]), np.append(scale, ahead[1]), None
        new = self.objective(row, scale)
        self._new.append(new)
        return new.select(slice(count)) if ahead else new

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

    def _candidates(self) -> Points:
        """Local minima as sharp as the evaluations allow; for rows without any, the best scale known."""
        found = self.refine()
        for _ in range(_TURNS):
            if not self._rough(found):
                break
            found = self.refine()
        if self.objective.sample and self.objective.grid.float_spec is not None and found.row.size:
            found = join(found, self._octaves_below(found))
        lacking = np.ones(self.rows, bool)
        lacking[found.row] = False
        if np.count_nonzero(lacking):
            found = join(found, self.objective.sharp(*self._least_known(lacking.nonzero()[0])))
        return found

    def refine(self) -> Points:
        """The local minima between evaluated scales: roots of the slope from - to +."""
        points = self.points
        place, after = self._dips()
        if not place.size:
            return Points.none(SHARP)
        row = points.row[place]
        low, high = points.select(place), points.select(after)
        scale = rising_roots(lambda index, s: self.evaluate(row[index], s), [Slope()] * row.size, low, high)
        new = self.objective.sharp(row, scale)
        if self.objective.kinks.shape[-1]:
            # At a jump of the pdf the MSE may have an edge instead of a smooth minimum.
            near = np.minimum(low.mse, high.mse) < new.mse + RESOLUTION * self.objective.power[row]
            if np.count_nonzero(near):
                edge = self.objective.sharp(row[near], np.where(low.mse < high.mse, low.scale, high.scale)[near])
                new.table[:, near] = np.where(edge.mse < new.mse[near], edge.table, new.table[:, near])
        self._new.append(Points(row, new.table[: len(self._points.table)]))
        return new

    def _dips(self) -> tuple[Index, Index]:
        """Neighbouring points (index of both) between which the slope turns from - to +."""
        points = self.points
        size = points.mse if self.objective.accurate else self.objective.power[points.row]
        noise = 4 * RESOLUTION * size / points.scale
        # A slope of zero tells nothing: where a jump of the pdf meets a threshold it may be a point of inflection.
        steep = (np.abs(points.slope) > noise).nonzero()[0]
        first, second = steep[:-1], steep[1:]
        dips = (points.row[first] == points.row[second]) & (points.slope[first] < 0) & (points.slope[second] > 0)
        if np.count_nonzero(dips) > 1:
            dips &= ~self._copies()[first]
        return first[dips], second[dips]

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
        below = self.objective.sharp(row, scale)
        return below.select(below.mse <= np.repeat(best.mse, octaves.size) * (1 + TOLERANCE))

    def _least_known(self, rows: Index) -> tuple[Index, Array]:
        """The best evaluated scale of each of the `rows`, 1 where there was nothing to evaluate."""
        scale, live = np.ones(rows.size), self.live[rows]
        order = np.lexsort((self.points.mse, self.points.row))
        scale[live] = self.points.scale[order[self.points.row.searchsorted(rows[live])]]
        return rows, scale

    def _rough(self, found: Points) -> bool:
        """Whether a minimum is not as sharp as it could be: a density far from the shift makes for many in a row."""
        if not self.objective.convex:
            return False
        slope = np.abs(found.slope) * found.scale
        rough = (slope > _FLAT * found.mse) & (slope > 8 * RESOLUTION * self.objective.power[found.row])
        return bool(np.count_nonzero(rough))

    def _missed(self, found: Points, best: Points) -> bool:
        """Whether the points of the proof show what the scan had missed."""
        least = self.least + RESOLUTION * self.objective.power
        if np.count_nonzero(self.live & (least < best.mse * (1 - TOLERANCE))):
            return True
        # Where one octave of the ladder may hold many minima.
        return not self.objective.bounded and self._dips()[0].size > found.row.size

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

    def _chosen(self, found: Points) -> tuple[Points, list[tuple[Minimum, ...]]]:
        """The best candidate of each row; and all, equal ones once: the smallest scale stands for them."""
        row, scale, mse = found.row, found.scale, found.mse
        minima, first = [], np.empty(self.rows, np.intp)
        order = np.lexsort((scale, mse, row))
        start = row[order].searchsorted(np.arange(self.rows + 1)).tolist()
        for member in range(self.rows):
            kept = distinct(order[start[member] : start[member + 1]], scale, mse)
            first[member] = kept[0]
            shift = float(self.objective.shift[member])
            minima.append(tuple(Minimum(float(scale[i]), shift, float(mse[i])) for i in kept if self.live[member]))
        return found.select(first), minima

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
