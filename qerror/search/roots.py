"""Many one-dimensional roots at a time, each kept in its bracket."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# Relative width of a bracket that ends its search.
_WIDTH = 1e-6


def bracketed_roots(
    function: Callable[[Index, Array], Array], low: Array, high: Array, at_low: Array, at_high: Array, noise: Array
) -> Array:
    """Roots of a function that changes sign between `low` and `high`, by Chandrupatla's method (1997).

    Inverse quadratic interpolation where it is safe, else bisection: 3 to 5 evaluations on smooth functions, and
    never more than bisection would take. A bracket of relative width 1e-6 ends with a secant step, which costs no
    evaluation and leaves about the square of that.

    Parameters
    ----------
    function : callable
        (indices of the problems, points) -> values.
    low, high, at_low, at_high : ndarray of shape (n,)
        Brackets and the values at their ends, of opposite sign (or 0).
    noise : ndarray of shape (n,)
        Values of this size count as zero.

    Returns
    -------
    ndarray of shape (n,)
    """
    problems = [
        _Bracket(*ends) for ends in zip(*(v.tolist() for v in (low, high, at_low, at_high, noise)), strict=True)
    ]
    # A few problems of a few steps: plain floats are faster than arrays of them.
    active = [i for i, problem in enumerate(problems) if not problem.closed]
    for _ in range(100):
        if not active:
            break
        x = [problems[i].next() for i in active]
        values = function(np.array(active), np.array(x)).tolist()
        active = [i for i, place, value in zip(active, x, values, strict=True) if not problems[i].narrow(place, value)]
    return np.array([problem.root for problem in problems])


class _Bracket:
    """A bracket: its newest end a, the end b across the root, and c, the point that was given up last."""

    def __init__(self, low: float, high: float, at_low: float, at_high: float, noise: float) -> None:
        self.a, self.b, self.c = high, low, high
        self.fa, self.fb, self.fc = at_high, at_low, at_high
        self.noise = noise
        self.root = high if abs(at_high) < abs(at_low) else low
        self.closed = min(abs(at_low), abs(at_high)) <= noise
        self.share = 0.0 if self.closed else at_high / (at_high - at_low)

    def next(self) -> float:
        """Where to evaluate."""
        return self.a + self.share * (self.b - self.a)

    def narrow(self, x: float, fx: float) -> bool:
        """Take in a value; say whether that settles the root."""
        if (fx < 0) == (self.fa < 0):
            self.c, self.fc = self.a, self.fa
        else:
            self.c, self.fc, self.b, self.fb = self.b, self.fb, self.a, self.fa
        self.a, self.fa = x, fx
        width = abs(self.b - x)
        if abs(fx) <= self.noise or width <= _WIDTH * abs(x):
            self.root = x if abs(fx) <= self.noise else x + fx / (fx - self.fb) * (self.b - x)
            return True
        least = min(0.25 * _WIDTH * abs(x) / width, 0.5)
        self.share = min(max(self._step(), least), 1 - least)
        return False

    def _step(self) -> float:
        """From a (0) towards b (1): inverse quadratic interpolation where it is safe, else the middle."""
        a, b, c, fa, fb, fc = self.a, self.b, self.c, self.fa, self.fb, self.fc
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        if not (phi * phi < xi and (1 - phi) ** 2 < 1 - xi):
            return 0.5
        return fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
