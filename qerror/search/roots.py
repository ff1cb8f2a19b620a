"""Many one-dimensional roots at a time, each kept in its bracket."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Index = NDArray[np.intp]

# Relative width of a bracket that ends its search whatever is inside.
_WIDTH = 1e-6
# Interpolation in a bracket of relative width below the first is done when its last step is below the second.
_NARROW, _SETTLED = 5e-3, 1e-9


def rising_roots(
    function: Callable[[Index, Array], Array], problems: Iterable[tuple[list[float], list[float], int, float]]
) -> Array:
    """Roots of functions that are negative at the lower end of a bracket and positive at the upper end.

    Inverse interpolation through what is known, then three evaluations at a time: at the root expected and on either
    side of it, as far as the estimate may be wrong. Most smooth functions need one such turn, and none more than
    division of the bracket into four would take.

    Parameters
    ----------
    function : callable
        (indices of the problems, points) -> values.
    problems : iterable of (points, values, above, noise)
        Ascending points, of which those at `above` - 1 and `above` are the bracket. Values of the size of the noise
        count as zero.

    Returns
    -------
    ndarray of shape (n,)
    """
    brackets = [_Bracket(*problem) for problem in problems]
    # A few problems of a few steps: plain floats are faster than arrays of them.
    active = [i for i, bracket in enumerate(brackets) if not bracket.settled]
    for _ in range(100):
        if not active:
            break
        points = [brackets[i].next() for i in active]
        owner = [i for i, new in zip(active, points, strict=True) for _ in new]
        values = iter(function(np.array(owner), np.array([x for new in points for x in new])).tolist())
        for i, new in zip(active, points, strict=True):
            brackets[i].narrow(new, [next(values) for _ in new])
        active = [i for i in active if not brackets[i].settled]
    return np.array([bracket.root for bracket in brackets])


class _Bracket:
    """Points and values around a root between the neighbours `low` and `high`."""

    def __init__(self, x: list[float], f: list[float], above: int, noise: float) -> None:
        self.x, self.f, self.noise, self.stalled = x, f, noise, False
        self._aim(above)

    def next(self) -> list[float]:
        """Where to evaluate, ascending."""
        width = self.high - self.low
        margin = max(self.error, 0.1 * _WIDTH * abs(self.root))
        # Where the estimate was far off, some corner lies in the bracket: it is divided evenly before the next one.
        if margin > 0.2 * width or self.stalled:
            return [self.low + share * width for share in (0.25, 0.5, 0.75)]
        near = [self.root - margin, self.root, self.root + margin]
        return [x for x in near if self.low < x < self.high]

    def narrow(self, x: list[float], f: list[float]) -> None:
        """Take in values."""
        at, width = bisect(self.x, self.low), self.high - self.low
        self.x[at:at], self.f[at:at] = x, f
        self._aim(next(i for i in range(at, len(self.f)) if self.f[i] > 0))
        self.stalled = self.high - self.low > 0.3 * width

    def _aim(self, above: int) -> None:
        """The bracket below the point `above`, and the root expected in it."""
        self.low, self.high = self.x[above - 1], self.x[above]
        width, size = self.high - self.low, abs(self.high)
        nearest = min(above - 1, above, key=lambda i: abs(self.f[i]))
        if abs(self.f[nearest]) <= self.noise:
            self.root, self.settled = self.x[nearest], True
            return
        self.root, self.error = self._interpolate(above)
        good = width <= _NARROW * size and self.error <= _SETTLED * size
        self.settled = good or width <= _WIDTH * size

    def _interpolate(self, above: int) -> tuple[float, float]:
        """Inverse interpolation by Aitken's scheme, through the bracket first, and what its last point changed."""
        # Relative to the lower end: what is added up then has few digits to lose.
        base, width, f = self.low, self.high - self.low, self.f[above]
        root, error = self.f[above - 1] * width / (self.f[above - 1] - f), width
        rows = [(0.0, self.f[above - 1]), (root, f)]
        for i in (above - 2, above + 1, above - 3, above + 2):
            if not 0 <= i < len(self.x):
                continue
            x, f = self.x[i] - base, self.f[i]
            for y, g in rows:
                if f == g:
                    return base + root, error
                x = (g * x - f * y) / (g - f)
            change = abs(x - root)
            if change > error or not 0.0 < x < width:
                # No longer the course of a smooth function.
                return base + root, max(change, error)
            root, error = x, change
            if change <= 1e-3 * _SETTLED * base:
                break
            rows.append((x, f))
        return base + root, error
