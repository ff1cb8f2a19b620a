"""Many one-dimensional roots at a time, each kept in its bracket."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]


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
    root = np.where(np.abs(at_high) < np.abs(at_low), high, low)
    active = np.flatnonzero((np.abs(at_low) > noise) & (np.abs(at_high) > noise))
    a, b, fa, fb = high[active], low[active], at_high[active], at_low[active]
    t = fa / (fa - fb)
    for _ in range(100):
        if not active.size:
            break
        x = a + t * (b - a)
        fx = function(active, x)
        same = (fx < 0) == (fa < 0)
        # The new point a, its neighbour b across the root, and c, the point given up.
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, fx
        root[active] = np.where(fa == fb, a, a + fa / np.where(fa == fb, 1.0, fa - fb) * (b - a))
        keep = (np.abs(fa) > noise[active]) & (np.abs(b - a) > 1e-6 * np.abs(a))
        active = active[keep]
        if active.size:
            a, b, c, fa, fb, fc = (v[keep] for v in (a, b, c, fa, fb, fc))
            t = _next(a, b, c, fa, fb, fc)
    return root


def _next(a: Array, b: Array, c: Array, fa: Array, fb: Array, fc: Array) -> Array:
    """Where to go between a (0) and b (1): inverse quadratic interpolation if it is safe, else the middle."""
    with np.errstate(divide="ignore", invalid="ignore"):
        xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
        quadratic = (phi * phi < xi) & ((1 - phi) * (1 - phi) < 1 - xi)
        step = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
    least = np.minimum(2.5e-7 * np.abs(a / (b - a)), 0.5)
    return np.clip(np.where(quadratic, step, 0.5), least, 1 - least)
