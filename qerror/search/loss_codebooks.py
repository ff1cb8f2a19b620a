"""The best codebooks for other losses than the square: levels of least E|x - q|^p in their cells, medians for p = 1.

Thresholds stay midpoints. With F_k = E[sign(x - q_k) |x - q_k|^(p - 1); cell k], p times which is how fast the loss
falls with the level, Newton's matrix is that of the square with (q_{k+1} - q_k)^(p - 1) f(t_k) / 2^p across the ends
of cells, and (p - 1) E|x - q_k|^(p - 2) (2 f(q_k) for p = 1) in place of their masses.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .._types import Array, Index
from ..densities.base import Density
from ..densities.powers import power_moments
from .codebook_cells import Cells, solve_tridiagonal

_STEPS, _DAMPED, _HALVINGS = 200, 6, 40
# From the square on, the power changes by no more than that at a time.
_POWER_STEP = 0.25
# Steps, as a share of the standard deviation, and changes of the loss that are rounding.
_SETTLED, _ROUNDING = 1e-13, 1e-14
# Where the matrix is singular (Laplace: both halves slide at no cost) steps of that share no longer lower the loss.
_SLIDES = 1e-9


def loss_cells(density: Density, levels: Array, p: float) -> Cells:
    """The cells of levels for |x - q|^p; `mse` is the loss.

    Examples
    --------
    >>> import qerror as qe
    >>> cells = loss_cells(qe.Gaussian(), np.array([-1.0, 1.0]), 1.0)
    >>> round(cells.mse, 12), cells.first.round(12).tolist()
    (0.535377321548, [0.182689492137, -0.182689492137])
    """
    t = 0.5 * (levels[1:] + levels[:-1])
    edges = np.empty(2 * levels.size + 1)
    edges[0], edges[-1], edges[1::2], edges[2:-1:2] = -np.inf, np.inf, levels, t
    about = np.repeat(levels, 2)
    flow = 0.5 * (0.5 * np.diff(levels)) ** (p - 1.0) * np.asarray(density.pdf(t))
    if p == 1.0:
        lower, power, _ = density.cell_moments(edges, about)
        mass = 2.0 * np.asarray(density.pdf(levels))
    else:
        one = np.zeros(1)
        inner, lower, power = power_moments(density, edges[None], about[None], one, p - 2.0, 3)[:, 0]
        mass = (p - 1.0) * (inner[::2] + inner[1::2])
    first, loss = lower[1::2] - lower[::2], float(np.abs(power).sum())
    return Cells(first, loss, np.maximum(mass, 1e-300), np.append(0.0, flow), np.append(flow, 0.0))


def descend(
    cells: Callable[[Array], Cells], levels: Array, std: float, free: NDArray[np.bool_] | None = None
) -> tuple[Array, float]:
    """Levels of a local minimum, and its loss: Newton's method, and steps of each level for itself where it fails.

    Parameters
    ----------
    cells : callable
    levels : ndarray of shape (K,)
        To start from.
    std : float
        What steps are measured by, units of x.
    free : ndarray of bool, optional
        Which of the levels move.
    """
    free = np.ones(levels.size, bool) if free is None else free
    now = cells(levels)
    for _ in range(_STEPS):
        diagonal = np.where(free, now.above + now.below - now.mass, 1.0)
        beside = np.where(free[:-1] & free[1:], now.above[:-1], 0.0)
        newton = solve_tridiagonal(diagonal, beside, np.where(free, -now.first, 0.0))
        alone = np.where(free, now.first / now.mass, 0.0)
        trials = [newton * 0.5**k for k in range(_DAMPED)] + [alone * 0.5**k for k in range(_HALVINGS)]
        for step in trials:
            if (np.diff(levels + step) > 0).all():
                new = cells(levels + step)
                if new.mse <= now.mse * (1 + _ROUNDING):
                    break
        else:
            break
        size, flat = np.abs(step).max(), new.mse >= now.mse * (1 - 0.1 * _ROUNDING)
        levels, now = levels + step, new
        if size <= _SETTLED * std or (size <= _SLIDES * std and flat):
            break
    return levels, now.mse


def loss_levels(density: Density, start: Array, p: float) -> Array:
    """The best levels near those of the least squared error; of a symmetric density symmetric ones, if as good."""
    levels, std, steps = start, float(density.std), math.ceil(abs(p - 2.0) / _POWER_STEP)
    for power in np.linspace(2.0, p, steps + 1)[1:].tolist():
        levels, loss = descend(functools.partial(loss_cells, density, p=power), levels, std)
    if density.symmetric:
        mean = float(density.mean)
        even = mean + 0.5 * ((levels - mean) - (levels - mean)[::-1])
        if loss_cells(density, even, p).mse <= loss * (1 + 100 * _ROUNDING):
            return even
    return levels


def best_medians(x: Array, weight: Array, count: int) -> Array:
    """Medians of the cut of distinct sorted values into `count` runs that has the least absolute error: proven.

    A dynamic program over all cuts; the best cut before a run moves right with its end, which divides and conquers
    (n log n for a level). Of an interval of medians the lowest.

    Examples
    --------
    >>> best_medians(np.array([0.0, 1.0, 2.0, 10.0, 11.0]), np.ones(5), 2).tolist()
    [1.0, 10.0]
    """
    runs = _Runs(x, weight)
    ends = np.arange(1, x.size + 1)
    best, cuts = runs.cost(np.zeros(x.size, np.intp), ends), []
    best = np.append(np.inf, best)
    for _ in range(count - 1):
        best, cut = _one_more(runs, best)
        cuts.append(cut)
    path = [x.size]
    for cut in reversed(cuts):
        path.append(int(cut[path[-1]]))
    order = np.array([0, *path[::-1]])
    return np.asarray(x[runs.median(order[:-1], order[1:])])


class _Runs:
    """The absolute error of sending the values i <= k < j to their median, from prefix sums."""

    def __init__(self, x: Array, weight: Array) -> None:
        # About the middle sums are smaller.
        self._y = (x - x[x.size // 2]).astype(np.longdouble)
        self._mass, self._first = (
            np.append(np.longdouble(0), np.cumsum(a, dtype=np.longdouble)) for a in (weight, weight * self._y)
        )

    def median(self, start: Index, stop: Index) -> Index:
        half = 0.5 * (self._mass[start] + self._mass[stop])
        return np.clip(np.searchsorted(self._mass, half, "left") - 1, start, np.maximum(stop - 1, start))

    def cost(self, start: Index, stop: Index) -> Array:
        middle = self.median(start, stop)
        below, above = self._mass[middle] - self._mass[start], self._mass[stop] - self._mass[middle]
        first = self._first[start] + self._first[stop] - 2 * self._first[middle]
        return np.asarray(first + (below - above) * self._y[middle], np.float64)


def _one_more(runs: _Runs, before: Array) -> tuple[Array, Index]:
    """best[j] = min over i < j of before[i] + cost(i, j), all middles of one depth at a time."""
    size = before.size
    best, cut = np.full(size, np.inf), np.zeros(size, np.intp)
    low, high, least, most = (np.array([v]) for v in (1, size - 1, 0, size - 2))
    while low.size:
        middle = (low + high) // 2
        width = np.maximum(np.minimum(most, middle - 1) - least + 1, 1)
        first = np.cumsum(width) - width
        i = np.arange(width.sum()) + np.repeat(least - first, width)
        value = before[i] + runs.cost(i, np.repeat(middle, width))
        found = np.minimum.reduceat(value, first)
        hit = np.flatnonzero(value == np.repeat(found, width))
        chosen = i[hit[np.searchsorted(hit, first)]]
        best[middle], cut[middle] = found, chosen
        left, right = low < middle, middle < high
        low, high, least, most = (
            np.concatenate([low[left], middle[right] + 1]),
            np.concatenate([middle[left] - 1, high[right]]),
            np.concatenate([least[left], chosen[right]]),
            np.concatenate([chosen[left], most[right]]),
        )
    return best, cut
