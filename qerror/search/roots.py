"""Many one-dimensional roots at a time, each kept in its bracket."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def bracketed_roots(
    function: Callable[[NDArray[np.intp], Array], Array],
    low: Array,
    high: Array,
    at_low: Array,
    at_high: Array,
    tolerance: float,
) -> Array:
    """Roots of a function that changes sign between `low` and `high`, by Chandrupatla's method (1997).

    Inverse quadratic interpolation where it is safe, else bisection: 5 to 8 evaluations for 13 digits on smooth
    functions, and never more than bisection would take.

    Parameters
    ----------
    function : callable
        (indices of the problems, points) -> values.
    low, high, at_low, at_high : ndarray of shape (n,)
        Brackets and the values at their ends, of opposite sign (or 0).
    tolerance : float
        Relative width of a bracket that ends its search; the root itself is then known to about its square.

    Returns
    -------
    ndarray of shape (n,)
        The secant root of each final bracket.
    """
    b, fb = low.copy(), at_low.copy()
    a, fa = high.copy(), at_high.copy()
    best = np.where(np.abs(fa) < np.abs(fb), a, b)
    active = np.flatnonzero((fa != 0) & (fb != 0))
    a, b, fa, fb = a[active], b[active], fa[active], fb[active]
    c, fc = a, fa
    t = fa / (fa - fb)
    for _ in range(100):
        if not active.size:
            break
        x = a + t * (b - a)
        fx = function(active, x)
        same = np.sign(fx) == np.sign(fa)
        c, fc = np.where(same, a, b), np.where(same, fa, fb)
        b, fb = np.where(same, b, a), np.where(same, fb, fa)
        a, fa = x, fx
        # One more secant step costs no evaluation and squares the relative width.
        best[active] = np.where(fx == 0, x, a + fa / (fa - fb) * (b - a))
        width = np.abs(b - a)
        resolution = 0.5 * tolerance * np.abs(a)
        keep = (fx != 0) & (width > 2 * resolution)
        if not keep.any():
            break
        active, a, b, c, fa, fb, fc, width, resolution = (
            v[keep] for v in (active, a, b, c, fa, fb, fc, width, resolution)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            xi, phi = (a - b) / (c - b), (fa - fb) / (fc - fb)
            quadratic = (1 - np.sqrt(1 - xi) < phi) & (phi < np.sqrt(xi))
            step = fa / (fb - fa) * fc / (fb - fc) + (c - a) / (b - a) * fa / (fc - fa) * fb / (fc - fb)
        least = np.minimum(resolution / width, 0.5)
        t = np.clip(np.where(quadratic, step, 0.5), least, 1 - least)
    return best
