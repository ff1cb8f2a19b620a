"""What no scale can beat.

Rounding to nearest: with u = 1 / s, h(u) = A u^2 - u^2 MSE(1/u) = E[max_k (2 u y l_k - l_k^2)], a mean of maxima of
linear functions of u, is convex. Between two evaluated scales it lies under its chord, so MSE(s) >= A - s^2 chord(1/s).
Stochastic rounding: (MSE + A) u^2 is the mean of a convex interpolant of (u y)^2, hence lies above its tangents.
"""

from __future__ import annotations

import numpy as np

from .objective import Array, Index, Objective, Points

# The MSE of an evaluated point is uncertain by this much of A: a few roundings of sums that are of the size of A.
RESOLUTION = 8 * np.finfo(np.float64).eps

# Radii, in rms of y, at which `largest_scale` looks.
_SHELLS = 2.0 ** np.arange(-12, 8, 0.5)
# Into how many parts an interval is divided at a time.
_MOST_PARTS = 64


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
        self._radius = np.sqrt(objective.power)[:, None] * _SHELLS
        count = _SHELLS.size
        t = shift[:, None] + np.concatenate([-self._radius[:, ::-1], np.zeros((shift.size, 1)), self._radius], axis=1)
        mass, first = objective.members(np.arange(shift.size)).tails(t)
        above = np.where(t < objective.mean[:, None], 1.0 + mass, mass)
        # E[y; y > 0]. No mass on one side must come out as exactly nothing, whatever the rounding of the other side.
        here, below_mean = mass[:, count], shift < objective.mean
        upper = first[:, count] + offset * above[:, count]
        upper = np.where(here == 0, np.where(below_mean, offset, 0.0), upper)
        self.slope = grid.max * upper + grid.min * (offset - upper)
        # E[y^2; |y| <= radius] from below: the mass of each shell at its inner radius.
        outside = above[:, count + 1 :] + 1.0 - above[:, count - 1 :: -1]
        self._inside = np.cumsum((outside[:, :-1] - outside[:, 1:]) * self._radius[:, :-1] ** 2, axis=1)

    def largest_scale(self, best: Array) -> Array:
        """Beyond this scale every MSE exceeds `best`.

        A - MSE <= E[y^2; |y| > s m / 2], m the smallest nonzero |level|: whatever lies closer to z than to any such
        level gains nothing. So the scales with E[y^2; |y| <= s m / 2] > best are out.
        """
        objective = self._objective
        levels = np.abs(objective.grid.levels)
        smallest = levels[levels > 0].min()
        enough = self._inside > (best + RESOLUTION * objective.power)[:, None]
        found = enough.any(axis=1)
        shell = self._radius[np.arange(found.size), np.argmax(enough, axis=1) + 1]
        low, high = objective.density.support
        far = np.maximum(np.abs(high - objective.shift), np.abs(objective.shift - low))
        reach: Array = np.minimum(np.where(found, shell, np.inf), np.minimum(far, 1e3 * self._radius[:, -1]))
        reach *= 2 / smallest
        return reach


def lower_bounds(objective: Objective, left: Points, right: Points) -> Array:
    """A value that the MSE nowhere falls below between neighbouring evaluated scales."""
    if objective.convex:
        return _below_chord(objective.power[left.row], left, right)
    return _above_tangents(objective.power[left.row], left, right)


def _below_chord(power: Array, left: Points, right: Points) -> Array:
    u1, u2 = 1 / left.scale, 1 / right.scale
    h1, h2 = 2 * u1 * left.b - left.c, 2 * u2 * right.b - right.c
    slope = (h1 - h2) / (u1 - u2)
    intercept = h2 - slope * u2
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(intercept < 0, -0.5 * slope / intercept, right.scale)
    scale = np.clip(best, left.scale, right.scale)
    return power - scale * (slope + scale * intercept)


def _above_tangents(power: Array, left: Points, right: Points) -> Array:
    """Tangents of g(u) = (MSE + A) u^2 at both ends; each bounds MSE = g / u^2 - A on its side of their crossing."""
    u1, u2 = 1 / left.scale, 1 / right.scale
    g1, g2 = (left.mse + power) * u1**2, (right.mse + power) * u2**2
    # dg/du = 2 u (MSE + A) - dMSE/ds, since ds/du = -s^2.
    d1, d2 = 2 * u1 * (left.mse + power) - left.slope, 2 * u2 * (right.mse + power) - right.slope
    with np.errstate(divide="ignore", invalid="ignore"):
        cross = np.where(d1 > d2, (g2 - g1 + d1 * u1 - d2 * u2) / (d1 - d2), 0.5 * (u1 + u2))
    middle = 1 / np.clip(cross, u2, u1)
    near_left = _least(g1 - d1 * u1, d1, left.scale, middle)
    near_right = _least(g2 - d2 * u2, d2, middle, right.scale)
    return np.minimum(near_left, near_right) - power


def _least(square: Array, linear: Array, low: Array, high: Array) -> Array:
    """Minimum of square * s^2 + linear * s over low <= s <= high."""
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(square > 0, -0.5 * linear / square, low)
    inner = np.clip(best, low, high)
    least: Array = np.min([s * (linear + s * square) for s in (low, inner, high)], axis=0)
    return least


def undecided(objective: Objective, points: Points, best: Array, tolerance: float) -> tuple[Index, Array]:
    """Intervals (index of their left end) that may still hold a better scale, most promising first; the MSE of one."""
    goal = best - np.maximum(tolerance * best, RESOLUTION * objective.power)
    # Equal B and C at both ends: no value changes its cell between them, the MSE is one parabola, whose minimum
    # A - B^2 / C is known. (A density without point masses never gives that.)
    closed = (points.b[1:] == points.b[:-1]) & (points.c[1:] == points.c[:-1])
    closed |= points.scale[1:] <= points.scale[:-1] * (1 + 1e-15)
    place = np.flatnonzero((points.row[1:] == points.row[:-1]) & ~closed)
    left = points.select(place)
    bound = lower_bounds(objective, left, points.select(place + 1))
    promise = goal[left.row] - bound
    order = np.argsort(-promise, kind="stable")
    return place[order[: np.count_nonzero(promise > 0)]], goal


def split(objective: Objective, points: Points, place: Index, goal: Array) -> tuple[Index, Array]:
    """New scales inside the intervals at `place`, as dense as their proof needs and no denser.

    The gap between h and its chord is about A w^2 / 4 for an interval of relative width w, and may be as large as the
    MSE lies above the goal. That excess grows from the best scale outwards, and the spacing with its square root.
    """
    left, right = points.select(place), points.select(place + 1)
    row = left.row
    floor = np.maximum(1e-12 * goal[row], RESOLUTION * objective.power[row])
    widths = [1.4 * np.sqrt(np.maximum(end.mse - goal[row], floor) / objective.power[row]) for end in (left, right)]
    length = np.log(right.scale / left.scale)
    ratio = np.log(widths[1] / widths[0])
    flat = np.abs(ratio) < 1e-6
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_width = np.where(flat, widths[0], (widths[1] - widths[0]) / ratio)
    count = np.clip(np.ceil(length / mean_width), 2, _MOST_PARTS).astype(np.intp)
    owner = np.repeat(np.arange(place.size), count - 1)
    step = np.arange(owner.size) - np.repeat(np.cumsum(count - 1) - (count - 1), count - 1) + 1
    share = step / count[owner]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(flat[owner], share, np.expm1(share * ratio[owner]) / np.expm1(ratio[owner]))
    return row[owner], left.scale[owner] * np.exp(share * length[owner])
