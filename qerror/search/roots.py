"""Where functions of the scale meet zero: many brackets at a time, each kept by signs and narrowed by interpolation."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from .._types import Array, Index
from .points import Points

# Scale, MSE, and its slope.
Known = Sequence[float]

# Relative width of a bracket that ends its search whatever is inside.
_WIDTH = 1e-6
# Interpolation in a bracket of relative width below the first is done when its last step is below the second.
_NARROW, _SETTLED = 5e-3, 1e-10
# Where to evaluate: ever nearer to the estimate from either end, in parts of the distance to that end.
_NEARER = [8.0**-k for k in range(1, 3)]
_EVENLY = [k / 6 for k in range(1, 6)]


class Curve(Protocol):
    """A function of the scale that rises from negative to positive in its bracket."""

    def value(self, point: Known) -> float:
        """The function at a point."""

    def guess(self, low: Known, high: Known) -> float:
        """Where it meets zero, from what is known at both ends, in parts (0 to 1) of the width."""


class Slope:
    """The slope of the MSE: zero where the cubic that has the MSE and the slope of both ends is lowest."""

    def value(self, point: Known) -> float:
        """The slope at a point."""
        return point[2]

    def guess(self, low: Known, high: Known) -> float:
        """Where the slope of the cubic rises through zero."""
        start, mse, slope = low
        end, last_mse, last_slope = high
        chord = 6 * (last_mse - mse) / (end - start)
        linear = chord - 4 * slope - 2 * last_slope
        square = 3 * (slope + last_slope) - chord
        turn = linear + math.sqrt(max(linear * linear - 4 * square * slope, 0.0))
        return -2 * slope / turn if turn > 0 else 0.5


class Excess:
    """How far the MSE is from 1.01 times `least`, left (side -1) or right (1) of the best scale.

    Its value is a difference of roots, of what the MSE exceeds `least` by and of 1 % of it: nearly linear.
    """

    def __init__(self, least: float, side: int) -> None:
        self._least, self._side, self._goal = least, side, side * 0.1 * math.sqrt(least)

    def value(self, point: Known) -> float:
        """What is left of the way to 1 %, with the sign of a function that rises."""
        return self._side * math.sqrt(max(point[1] - self._least, 0.0)) - self._goal

    def guess(self, low: Known, high: Known) -> float:
        """Where the cubic that has the MSE and the slope of both ends is 1.01 times `least`, by Newton's method."""
        start, mse, slope = low
        end, last_mse, last_slope = high
        rise, first, last = last_mse - mse, slope * (end - start), last_slope * (end - start)
        square, cube, goal = 3 * rise - 2 * first - last, first + last - 2 * rise, 1.01 * self._least - mse
        t = goal / rise if rise else 0.5
        for _ in range(8):
            slope = (3 * cube * t + 2 * square) * t + first
            if slope * self._side <= 0:
                break
            step = (((cube * t + square) * t + first) * t - goal) / slope
            t = min(max(t - step, 0.0), 1.0)
            if abs(step) < 1e-6:
                break
        return t


def rising_roots(
    evaluate: Callable[[Index, Array], Points], curves: Sequence[Curve], low: Points, high: Points
) -> Array:
    """Roots of functions that are negative at `low` and positive at `high`.

    Points ever nearer to a first guess tell between which two of them the root is, and the polynomial through them
    where. Most smooth functions need one such turn, and none more than even division of the bracket would take.

    Parameters
    ----------
    evaluate : callable
        (indices of brackets, scales) -> points.
    curves : sequence of n Curve
    low, high : Points
        Ends of n brackets.

    Returns
    -------
    ndarray of shape (n,)
    """
    ends = zip(curves, low.table[:3].T.tolist(), high.table[:3].T.tolist(), strict=True)
    # A few problems of a few steps: plain floats are faster than arrays of them.
    brackets = [_Bracket(*end) for end in ends]
    open_ = [i for i, bracket in enumerate(brackets) if not bracket.settled]
    for _ in range(60):
        if not open_:
            break
        scales = [brackets[i].next() for i in open_]
        owner = np.array(open_).repeat(len(_EVENLY))
        known = evaluate(owner, np.array(scales).ravel()).table[:3].T.tolist()
        for at, i in enumerate(open_):
            brackets[i].narrow(known[at * len(_EVENLY) : (at + 1) * len(_EVENLY)])
        open_ = [i for i in open_ if not brackets[i].settled]
    return np.array([bracket.root for bracket in brackets])


class _Bracket:
    """Points on either side of a root, the nearest of which are neighbours, and where the root is expected."""

    def __init__(self, curve: Curve, low: Known, high: Known) -> None:
        self.curve, self.evenly = curve, False
        self.x, self.f = [low[0], high[0]], [curve.value(low), curve.value(high)]
        self.low, self.high = self.x
        self.settled = self.high - self.low <= _WIDTH * self.low
        if self.settled:
            # So near to each other, MSEs differ by their rounding.
            self.root, _ = self._interpolate(1)
        else:
            self.root = self.low + (self.high - self.low) * min(max(curve.guess(low, high), 0.0), 1.0)

    def next(self) -> list[float]:
        """Where to evaluate, ascending."""
        low, high, root = self.low, self.high, self.root
        if self.evenly:
            return [low + part * (high - low) for part in _EVENLY]
        below, above = root - low, high - root
        return [*(root - part * below for part in _NEARER), root, *(root + part * above for part in reversed(_NEARER))]

    def narrow(self, points: list[Known]) -> None:
        """Take in points, and aim anew."""
        at, width = bisect(self.x, self.low), self.high - self.low
        self.x[at:at] = [point[0] for point in points]
        self.f[at:at] = [self.curve.value(point) for point in points]
        above = at
        while self.f[above] <= 0 and self.x[above] < self.high:
            above += 1
        self.low, self.high = self.x[above - 1], self.x[above]
        self.evenly = self.high - self.low > 0.3 * width
        self.root, error = self._interpolate(above)
        width, size = self.high - self.low, self.high
        self.settled = width <= _WIDTH * size or (width <= _NARROW * size and error <= _SETTLED * size)

    def _interpolate(self, above: int) -> tuple[float, float]:
        """Inverse interpolation by Aitken's scheme, through the bracket first, and what its last point changed."""
        # Relative to the lower end: what is added up then has few digits to lose.
        base, width, f = self.low, self.high - self.low, self.f[above]
        if f == self.f[above - 1]:
            return base + 0.5 * width, width
        root, error, slack = self.f[above - 1] * width / (self.f[above - 1] - f), width, 0.01 * _SETTLED * base
        rows, least, most = [(0.0, self.f[above - 1]), (root, f)], self.f[above - 1], f
        for i in (above - 2, above + 1, above - 3, above + 2):
            if not 0 <= i < len(self.x) or least <= self.f[i] <= most:
                # What turns back has no inverse.
                continue
            x, f = self.x[i] - base, self.f[i]
            least, most = min(least, f), max(most, f)
            for y, g in rows:
                x = (g * x - f * y) / (g - f)
            change = abs(x - root)
            if change > error or not -slack <= x <= width + slack:
                # No longer the course of a smooth function.
                return base + root, max(change, error)
            root, error = x, change
            if change <= 1e-4 * _SETTLED * base:
                break
            rows.append((x, f))
        return base + root, error
