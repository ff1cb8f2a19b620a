"""The scale of least E|x - Q(x)|^p, proven by bounds on intervals of scales.

G(s) = E min_k |y - s l_k|^p, y = x - shift, is a convex function of s less another one: as s grows, G' rises inside of
cells and falls only where a value crosses a threshold t_k, by 2 p |t_k| (s gap_k / 2)^(p - 1). What it may fall by on
[a, b] is therefore at most N = sum of that at b times P(y between a t_k and b t_k), and what it rises by is no more
than V = G'(b) - G'(a) + N. Then on [a, b]

    G(s) >= chord of G - V (s - a)(b - s) / (b - a),  G(s) >= the tangents at both ends, tilted by N,

for every p >= 1, on densities and on samples. (p = 2: 1/s in place of s makes the falling part a known square, and the
chord alone a bound: DESIGN's convex h. For other p both parts are sums of their own.) On a sample with p = 1 all
pieces are linear, so that the best scale is some y_i / l_k: there the tangents meet.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._check import broadcast_shape, check_shift
from .._types import Array
from ..densities.base import Density
from ..errors.exact import member
from ..errors.losses import expected_loss, is_sample, loss_sums, size_of
from ..grids.grid import Grid
from ..results import LossScaleResult, Status
from .fixed_shift import scale_at
from .found import RESOLUTION, TOLERANCE, any_scale

# Scales an octave to begin with.
_PER_OCTAVE = 12
# Values of the pdf, or of a sample, that a proof may look at unless it is asked for, and if it is.
_CHEAP, _ASKED = 12_000_000, 8_000_000_000
# What an integral over a cell takes: nodes, or a formula.
_NODES, _FORMULA = 20, 4
# Intervals as narrow as that are what float64 resolves.
_NARROW = 4 * float(np.finfo(np.float64).eps)
# Intervals in which G' falls by less than that part of what it rises by are split where their tangents meet.
_CONVEX = 0.1
_ROUNDS, _POLISH = 200, 60
# Dips that are followed, up to that many times the least; values that differ by rounding.
_DIPS, _NEAR, _EQUAL = 5, 1.05, 1e-14


def best_scale_of_loss(
    density: Density, grid: Grid, shift: Array, p: float, certify: bool | None = None
) -> LossScaleResult:
    """`optimal_scale` of the loss |x - Q(x)|^p.

    Examples
    --------
    >>> import qerror as qe
    >>> found = best_scale_of_loss(qe.Gaussian(), qe.grid("binary"), np.array(0.0), 1.0)
    >>> round(float(found.scale), 9), found.status.name                    # the median of |x|
    (0.67448975, 'EXACT')
    """
    shape = broadcast_shape(density.shape, shift=check_shift(shift))
    members, shifts = density.spread(shape), np.broadcast_to(shift, shape).ravel()
    found = [_one(member(members, np.array(i)), grid, float(z), p, certify) for i, z in enumerate(shifts)]
    scale = np.array([one for one, _ in found]).reshape(shape)[()]
    status = np.empty(len(found), object)
    status[:] = [one for _, one in found]
    at = shifts.reshape(shape)[()]
    ends = at + scale * grid.min, at + scale * grid.max
    error = expected_loss(density, grid, scale, at, p)
    return LossScaleResult(scale, at, scale * grid.absmax, ends, error, status.reshape(shape)[()])


def _one(density: Density, grid: Grid, shift: float, p: float, certify: bool | None) -> tuple[float, Status]:
    curve = _Curve(density, grid, shift, p)
    if not math.isfinite(curve.size):
        raise ValueError(f"loss must be a power that {density!r} has a moment of, got {p:g}")
    if curve.size == 0:
        return any_scale(grid), Status.DEGENERATE if 0 in grid.levels else Status.DEGENERATE_NONE
    budget = {None: _CHEAP, True: _ASKED, False: 0}[certify]
    search = _Search(curve, budget)
    status = Status.EXACT if search.run() else Status.SCANNED
    return search.polished(), status


class _Points(NamedTuple):
    """Scales, G and G' there, and the masses below the thresholds: no more, and no less, than these."""

    scale: Array
    loss: Array
    slope: Array
    least: Array
    most: Array

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_] | slice) -> _Points:
        return _Points(*(column[index] for column in self))

    def join(self, other: _Points) -> _Points:
        return _Points(*map(np.concatenate, zip(self, other, strict=True)))


class _Curve:
    """G of one density, grid and shift."""

    def __init__(self, density: Density, grid: Grid, shift: float, p: float) -> None:
        self.density, self.grid, self.shift, self.p = density, grid, shift, p
        self.size = float(size_of(density, np.array([shift]), p)[0])
        self.sample = is_sample(density)
        # Where points and a continuous part meet, no bound of the mass between two thresholds is at hand.
        self.bounded = self.sample or not density.has_atoms
        self.jump = 2 * p * np.abs(grid.thresholds) * (0.5 * np.diff(grid.levels)) ** (p - 1.0)
        if self.sample:
            points, masses = density.atoms  # type: ignore[misc]
            order = np.argsort(points, kind="stable")
            self._x, self._mass = points[order] - shift, np.append(0.0, np.cumsum(masses[order]))
            self.cost = self._x.size if p != 1.0 else 2 * len(grid) * 64
        else:
            self.cost = 2 * len(grid) * (_FORMULA if p == 1.0 else _NODES)

    def at(self, scale: Array) -> _Points:
        """Evaluate."""
        sums = loss_sums(self.density, self.grid, scale, np.full(scale.size, self.shift), self.p)
        return _Points(scale, sums.loss, sums.by_scale, *self._below(scale[:, None] * self.grid.thresholds))

    def _below(self, t: Array) -> tuple[Array, Array]:
        if self.sample:
            # A value that rounding may put on either side is on both.
            slack = 4 * np.spacing(np.abs(t) + abs(self.shift))
            low, high = np.searchsorted(self._x, t - slack, "left"), np.searchsorted(self._x, t + slack, "right")
            return self._mass[low], self._mass[high]
        at = self.shift + t
        mass, _ = self.density.tails(at)
        below = np.where(at >= self.density.mean, 1.0 - mass, -mass)
        error = self.density.tails_error + RESOLUTION
        return below - error, below + error

    def beyond(self, reach: float) -> float:
        """E[|y|^p; |y| > reach]."""
        if self.sample:
            weight = np.diff(self._mass)
            return float((weight * np.where(np.abs(self._x) > reach, np.abs(self._x), 0.0) ** self.p).sum())
        # What is clipped by a quantizer whose ends are that far out, moved there: |y|^p <= 2^(p-1) (|y-c|^p + c^p).
        ends = loss_sums(self.density, _WIDE, np.array([reach]), np.array([self.shift]), self.p).clipping[0]
        mass = float(self.density.cdf(self.shift - reach) + self.density.sf(self.shift + reach))
        return float(2 ** (self.p - 1.0) * (ends + reach**self.p * mass))

    def falls(self, low: _Points, high: _Points) -> Array:
        """No less than what G' falls by from one scale to another."""
        up = self.grid.thresholds > 0
        mass = np.where(up, high.most - low.least, low.most - high.least)
        return np.asarray(np.maximum(mass, 0.0) @ self.jump * high.scale ** (self.p - 1.0))


_WIDE = Grid([-1.0, 0.0, 1.0])


class _Search:
    """Intervals between evaluated scales, divided until none may hold a better scale."""

    def __init__(self, curve: _Curve, budget: int) -> None:
        self.curve, self.left = curve, budget // max(1, curve.cost)
        self.known = self._ladder()

    @property
    def least(self) -> float:
        """The least G known."""
        return float(self.known.loss.min())

    def _ladder(self) -> _Points:
        """Scales from the least to the greatest that may be the best."""
        curve, grid, p = self.curve, self.curve.grid, self.curve.p
        found = scale_at(curve.density, grid, np.array(curve.shift), model="exact", rounding="nearest", certify=False)
        start = curve.at(np.atleast_1d(np.asarray(found.scale, np.float64)))
        best = min(float(start.loss[0]), curve.size * (1 - 1e-9))
        # Minkowski: the norm of the error is no less than that of y less that of the values.
        low = (curve.size ** (1 / p) - best ** (1 / p)) / grid.absmax
        magnitudes = np.abs(grid.levels)
        high = max(float(start.scale[0]), 2 * low)
        if magnitudes.min() > 0:
            high = max(high, (curve.size ** (1 / p) + best ** (1 / p)) / float(magnitudes.min()))
        else:
            # Where all is rounded to 0 nothing is gained.
            nearest = 0.5 * float(magnitudes[magnitudes > 0].min())
            while curve.beyond(high * nearest) >= curve.size - best:
                high *= 1.25
        count = max(2, math.ceil(_PER_OCTAVE * math.log2(high / low)))
        return _sorted(curve.at(low * (high / low) ** (np.arange(count + 1) / count)).join(start))

    def run(self) -> bool:
        """Divide; whether the best known scale is proven."""
        if self.least <= RESOLUTION**self.curve.p * self.curve.size:
            return True
        low, high = self.known.select(slice(None, -1)), self.known.select(slice(1, None))
        if not self.curve.bounded or self.left <= 0:
            return False
        for _ in range(_ROUNDS):
            bound, meet = _bound(low, high, self.curve.falls(low, high))
            goal = self.least * (1 - TOLERANCE) - RESOLUTION * self.curve.size * _NARROW
            wide = high.scale - low.scale > _NARROW * high.scale
            open_ = (bound < goal) & wide
            if not open_.any():
                return True
            self.left -= int(open_.sum())
            if self.left < 0:
                return False
            low, high = low.select(open_), high.select(open_)
            new = self.curve.at(meet[open_])
            best = new.select(np.array([int(new.loss.argmin())]))
            self.known = _sorted(self.known.join(best))
            low, high = low.join(new), new.join(high)
        return False

    def polished(self) -> float:
        """The best known scale, followed to where G' is zero, and without a proof the best of the dips beside it."""
        dips = [int(self.known.loss.argmin())]
        if self.curve.sample and self.curve.p == 1.0:
            return self._breakpoint(self.known.select(slice(dips[0], dips[0] + 1)))
        padded = np.pad(self.known.loss, 1, constant_values=np.inf)
        lowest = np.flatnonzero((padded[1:-1] <= padded[:-2]) & (padded[1:-1] <= padded[2:]))
        dips = lowest[np.argsort(self.known.loss[lowest])][:_DIPS].tolist()
        near = [at for at in dips if self.known.loss[at] <= _NEAR * self.least]
        found = [self._followed(at) for at in near]
        return min(found)[1]

    def _followed(self, at: int) -> tuple[float, float]:
        """G and the scale where G' is zero between a known scale and its neighbour on the other side of it."""
        best = self.known.select(slice(at, at + 1))
        ends = [self.known.select(slice(i, i + 1)) for i in (at - 1, at + 1) if 0 <= i < self.known.scale.size]
        side = [one for one in ends if one.slope[0] * best.slope[0] < 0]
        if not side:
            return float(best.loss[0]), float(best.scale[0])
        a, b, new = best, side[0], best
        for _ in range(_POLISH):
            new = self.curve.at(_secant(a, b))
            if new.slope[0] == 0 or abs(a.scale[0] - b.scale[0]) <= _NARROW * new.scale[0]:
                break
            kept = b if new.slope[0] * a.slope[0] > 0 else a
            # Illinois: an end that stays counts half.
            b = kept._replace(slope=0.5 * kept.slope) if kept is b else kept
            a = new
        # Values next to the minimum differ by their rounding: the zero of G' is nearer to it than the least of them.
        return min((float(one.loss[0]) * (1 + _EQUAL * (one is best)), float(one.scale[0])) for one in (new, best))

    def _breakpoint(self, best: _Points) -> float:
        """The value over a level that is nearest to the best scale: the minimum is at one."""
        levels = self.curve.grid.levels[self.curve.grid.levels != 0]
        place = np.searchsorted(self.curve._x, best.scale[0] * levels)
        near = np.clip(place[:, None] + np.array([-1, 0]), 0, self.curve._x.size - 1)
        scale = (self.curve._x[near] / levels[:, None]).ravel()
        scale = scale[scale > 0]
        near_by = scale[np.argsort(np.abs(scale - best.scale[0]))[:4]]
        new = self.curve.at(np.unique(np.append(near_by, best.scale)))
        return float(new.scale[int(new.loss.argmin())])


def _sorted(points: _Points) -> _Points:
    _, order = np.unique(points.scale, return_index=True)
    return points.select(order)


def _bound(low: _Points, high: _Points, falls: Array) -> tuple[Array, Array]:
    """No more than G between two scales, and where to look next."""
    width, rise = high.scale - low.scale, high.loss - low.loss
    rises = np.maximum(high.slope - low.slope + falls, 0.0)
    most = rises * width
    with np.errstate(divide="ignore", invalid="ignore"):
        dip = 0.5 * (low.loss + high.loss) - 0.25 * most - 0.25 * rise**2 / most
        chord = np.where(np.abs(rise) < most, dip, np.minimum(low.loss, high.loss))
        # Two lines: down from the left with slope -left, up to the right with slope right.
        left, right = falls - low.slope, high.slope + falls
        crossing = (right * low.loss + left * high.loss - left * right * width) / (left + right)
        tangents = np.where(left <= 0, low.loss, np.where(right <= 0, high.loss, crossing))
    meet = np.where(falls <= _CONVEX * rises, _meeting(low, high, width), low.scale + 0.5 * width)
    return np.maximum(chord, np.nan_to_num(tangents, nan=-np.inf)), meet


def _meeting(low: _Points, high: _Points, width: Array) -> Array:
    """Where the tangents at both ends meet, a little away from these."""
    with np.errstate(divide="ignore", invalid="ignore"):
        part = (low.loss - high.loss + high.slope * width) / ((high.slope - low.slope) * width)
    return low.scale + width * np.clip(np.nan_to_num(part, nan=0.5), 0.01, 0.99)


def _secant(a: _Points, b: _Points) -> Array:
    """Between two scales of different signs of G', where the line through these is zero, kept away from the ends."""
    part = a.slope / (a.slope - b.slope)
    return np.asarray(a.scale + (b.scale - a.scale) * np.clip(part, 1e-3, 0.999))
