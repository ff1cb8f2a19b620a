"""What no scale can beat.

Rounding to nearest: with u = 1 / s, h(u) = A u^2 - u^2 MSE(1/u) = E[max_k (2 u y l_k - l_k^2)], a mean of maxima of
linear functions of u, is convex. Between two evaluated scales it lies under its chord, so MSE(s) >= A - s^2 chord(1/s).
A pdf that falls with the distance from z bounds the curvature, too: MSE'' = 2 (C - D), where D is the sum of
gap_k t_k^2 s f(z + s t_k) over the thresholds t_k. Between s1 and s2, C is at least C(s2) and each f at most what it
was at s1: MSE'' >= 2 C(s2) - 2 (s2 / s1) D(s1), and the MSE lies above the parabolas of that curvature which touch it.
Stochastic rounding: (MSE + A) u^2 is the mean of a convex interpolant of (u y)^2, hence lies above its tangents.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..._types import Array, Index
from ..found import TOLERANCE
from ..points import Points, numbered
from .objective import Objective

Bound = Callable[[Objective, Points, Points], Array]

# Radii, in rms of y, at which `largest_scale` looks; where no shell is enough, far beyond the last.
_SHELLS = 2.0 ** np.arange(-12, 8, 0.5)
_OUTER, _SQUARES = np.append(_SHELLS[1:], 1e3 * _SHELLS[-1]), _SHELLS[:-1] ** 2
_AROUND = np.concatenate([-_SHELLS[::-1], [0.0], _SHELLS])
# Into how many parts an interval is divided at a time, at least and at most.
_FEWEST_PARTS, _MOST_PARTS = 2, 64


class Reach:
    """What the tails around the shift say before any scale is evaluated.

    Attributes
    ----------
    slope : ndarray of shape (R,)
        Half the slope of h at infinity, E[max_k y l_k]: 2 s times it bounds A - MSE from above. Not positive where no
        scale is better than another: then the error only falls as s goes to 0, or not at all.
    """

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        shift, offset, grid = objective.shift, objective.offset, objective.grid
        self._rms = np.sqrt(objective.power)
        count = _SHELLS.size
        t = self._rms[:, None] * _AROUND
        t += shift[:, None]
        mass, first = objective.members(np.arange(shift.size)).tails(t)
        above = mass + (t < objective.mean[:, None])
        # E[y; y > 0]. No mass on one side must come out as exactly nothing, whatever the rounding of the other side.
        upper = first[:, count] + offset * above[:, count]
        nothing = mass[:, count] == 0
        if np.count_nonzero(nothing):
            upper = np.where(nothing, np.where(shift < objective.mean, offset, 0.0), upper)
        self.slope = grid.max * upper + grid.min * (offset - upper)
        # E[y^2; |y| <= radius] from below: the mass of each shell at its inner radius.
        outside = above[:, count + 1 :] - above[:, count - 1 :: -1]
        self._inside = ((outside[:, :-1] - outside[:, 1:]) * _SQUARES).cumsum(axis=1)
        self._inside *= objective.power[:, None]

    def largest_scale(self, best: Array) -> Array:
        """Beyond this scale every MSE exceeds `best`.

        A - MSE <= E[y^2; |y| > s m / 2], m the smallest nonzero |level|: whatever lies closer to z than to any such
        level gains nothing. So the scales with E[y^2; |y| <= s m / 2] > best are out.
        """
        objective = self._objective
        short = self._inside <= (best + objective.noise)[:, None]
        radius = self._rms * _OUTER[short.sum(axis=1)]
        low, high = objective.density.support
        far = np.maximum(np.abs(high - objective.shift), np.abs(objective.shift - low))
        reach: Array = np.minimum(radius, far)
        reach *= 2 / objective.smallest
        return reach


def lower_bounds(objective: Objective, left: Points, right: Points) -> Array:
    """A value that the MSE nowhere falls below between neighbouring evaluated scales."""
    found = [bound(objective, left, right) for bound in _kinds(objective)]
    return found[0] if len(found) == 1 else np.maximum(*found)


def _kinds(objective: Objective) -> tuple[Bound, ...]:
    """The bounds that hold, cheapest first."""
    if not objective.convex:
        return (_above_tangents,)
    return (_below_chord, _above_parabolas) if objective.bounded else (_below_chord,)


def _below_chord(objective: Objective, left: Points, right: Points) -> Array:
    low, high = left.scale, right.scale
    u1, u2 = 1 / low, 1 / high
    h1, h2 = 2 * u1 * left.b - left.c, 2 * u2 * right.b - right.c
    slope = (h1 - h2) / (u1 - u2)
    intercept = h2 - slope * u2
    best = np.divide(-0.5 * slope, intercept, out=high.copy(), where=intercept < 0)
    scale = np.minimum(np.maximum(best, low), high)
    bound: Array = objective.power[left.row] - scale * (slope + scale * intercept)
    return bound


def _above_parabolas(objective: Objective, left: Points, right: Points) -> Array:
    """Parabolas of least curvature that touch the MSE at both ends; each bounds it on its side of their crossing."""
    half = right.c - right.scale / left.scale * objective.falling(left)
    width = right.scale - left.scale
    lean = half * width
    apart = 2 * lean - (right.slope - left.slope)
    ahead = right.mse - left.mse - (right.slope - lean) * width
    # Where both parabolas meet, and the bottoms of those that have one on their side.
    cross = np.divide(ahead, apart, out=0.5 * width, where=apart < 0)
    cross = np.minimum(np.maximum(cross, 0.0), width)
    bowl = np.where(half > 0, -2 * half, -np.inf)
    from_left, from_right = left.slope / bowl, right.slope / bowl
    from_left = np.minimum(np.maximum(from_left, 0.0), cross)
    from_right = np.maximum(np.minimum(from_right, 0.0), cross - width)
    least: Array = np.minimum(left.mse + cross * (left.slope + half * cross), np.minimum(left.mse, right.mse))
    np.minimum(least, left.mse + from_left * (left.slope + half * from_left), out=least)
    np.minimum(least, right.mse + from_right * (right.slope + half * from_right), out=least)
    return least


def _above_tangents(objective: Objective, left: Points, right: Points) -> Array:
    """Tangents of g(u) = (MSE + A) u^2 at both ends; each bounds MSE = g / u^2 - A on its side of their crossing."""
    power = objective.power[left.row]
    u1, u2 = 1 / left.scale, 1 / right.scale
    g1, g2 = (left.mse + power) * u1**2, (right.mse + power) * u2**2
    # dg/du = 2 u (MSE + A) - dMSE/ds, since ds/du = -s^2.
    d1, d2 = 2 * u1 * (left.mse + power) - left.slope, 2 * u2 * (right.mse + power) - right.slope
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(d1 > d2, (g2 - g1 + d1 * u1 - d2 * u2) / (d1 - d2), 0.5 * (u1 + u2))
    middle = 1 / np.clip(cross, u2, u1)
    near_left = _least(g1 - d1 * u1, d1, left.scale, middle)
    near_right = _least(g2 - d2 * u2, d2, middle, right.scale)
    bound: Array = np.minimum(near_left, near_right) - power
    return bound


def _least(square: Array, linear: Array, low: Array, high: Array) -> Array:
    """Minimum of square * s^2 + linear * s over low <= s <= high."""
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(square > 0, -0.5 * linear / square, low)
    inner = np.clip(best, low, high)
    least: Array = np.min([s * (linear + s * square) for s in (low, inner, high)], axis=0)
    return least


def undecided(
    objective: Objective, points: Points, best: Array, tolerance: float = TOLERANCE, ceiling: Array | None = None
) -> tuple[Index, Array]:
    """Intervals (index of their left end) that may still hold a better scale, most promising first; the MSE of one.

    Those from the `ceiling` of their row on are left out.
    """
    goal = best - np.maximum(tolerance * best, objective.noise)
    wide = (points.row[1:] == points.row[:-1]) & (points.scale[1:] > points.scale[:-1] * (1 + 1e-15))
    if ceiling is not None:
        wide &= points.scale[:-1] < ceiling[points.row[:-1]]
    if objective.sample:
        # Equal B and C at both ends: no value changes its cell between them, the MSE is one parabola, whose minimum
        # A - B^2 / C is known.
        wide &= (points.b[1:] != points.b[:-1]) | (points.c[1:] != points.c[:-1])
    place = wide.nonzero()[0]
    promise = np.empty(0)
    for bound in _kinds(objective):
        every = place.size == wide.size
        left, right = (points.select(i) for i in ((slice(-1), slice(1, None)) if every else (place, place + 1)))
        promise = goal[left.row] - bound(objective, left, right)
        promising = (promise > 0).nonzero()[0]
        place, promise = place[promising], promise[promising]
        if not place.size:
            break
    return place[(-promise).argsort(kind="stable")], goal


def asked(objective: Objective, points: Points, best: Array, ceiling: Array) -> tuple[Index, Array]:
    """New scales inside the intervals below the ceiling that a proof will divide, without a look at their bounds."""
    goal = best - np.maximum(TOLERANCE * best, objective.noise)
    place = ((points.row[1:] == points.row[:-1]) & (points.scale[:-1] < ceiling[points.row[:-1]])).nonzero()[0]
    return split(objective, points, place, goal, fewest=1)


def split(
    objective: Objective, points: Points, place: Index, goal: Array, fewest: int = _FEWEST_PARTS
) -> tuple[Index, Array]:
    """New scales inside the intervals at `place`, as dense as their proof needs and no denser.

    The gap between h and its chord is about A w^2 / 4 for an interval of relative width w, and may be as large as the
    MSE lies above the goal. That excess grows with the square of the distance from the best scale, hence w like the
    distance; with parabolas, whose gap is about A w^3, like its power 2/3.
    """
    row, scale, after = points.row, points.scale, place + 1
    power, goal = objective.power[row], goal[row]
    excess = np.maximum(points.mse - goal, np.maximum(TOLERANCE * goal, objective.noise[row])) / power
    length = np.log(scale[after] / scale[place])
    if objective.bounded:
        # Where the excess is K d^2, parts narrower than about K / 3 are seen to be convex.
        convex = 0.2 * np.maximum(excess[place], excess[after]) / length**2
        square = 0.7 * np.cbrt(excess)
        first, second = np.maximum(square[place], convex), np.maximum(square[after], convex)
        a, b = np.sqrt(first), np.sqrt(second)
        whole = first + a * b + second
        owner, t = _parts(3 * length / whole, fewest)
        a, rise = a[owner], (b - a)[owner] * t
        share = t * (3 * a * a + rise * (3 * a + rise)) / whole[owner]
    else:
        width = 1.4 * np.sqrt(excess)
        first, second = width[place], width[after]
        ratio = np.log(second / first)
        ratio[np.abs(ratio) < 1e-6] = 1e-6
        owner, t = _parts(length * ratio / (first * np.expm1(ratio)), fewest)
        share = np.expm1(t * ratio[owner]) / np.expm1(ratio[owner])
    place = place[owner]
    return row[place], scale[place] * np.exp(share * length[owner])


def _parts(count: Array, fewest: int) -> tuple[Index, Array]:
    """Where about `count` parts of each interval meet: its index, and the share of the parts to the left."""
    whole = np.minimum(np.maximum(np.ceil(count), fewest), _MOST_PARTS).astype(np.intp)
    cuts = whole - 1
    owner, place = numbered(cuts)
    return owner, (place + 1) / whole[owner]
