"""What a search answers for each row, and when two of its answers are one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._types import Array, Index
from ..grids.grid import Grid
from ..results import ErrorTerms, Minimum

# The MSE of an evaluated point is uncertain by this much of A: a few roundings of sums that are of the size of A. (What
# thresholds far from 0 lose is in `densities.objective`.)
RESOLUTION = 8 * np.finfo(np.float64).eps
# MSEs closer than this (relative) are one minimum, and a proof stops there.
TOLERANCE = 1e-12


def any_scale(grid: Grid) -> float:
    """What stands for the scale of values that all lie at the shift: 1 where 0 is a level, as any scale is as good.

    Elsewhere the error falls on to scale 0: the least normal float32, so that it can be stored.
    """
    return 1.0 if 0 in grid.levels else float(np.finfo(np.float32).tiny)


class Found(NamedTuple):
    """What a search found for each row."""

    scale: Array
    terms: ErrorTerms
    minima: list[tuple[Minimum, ...]]
    interval: Array
    status: NDArray[np.object_]


def distinct(order: Index, scale: Array, mse: Array, within: float = np.inf, equal: float = TOLERANCE) -> list[int]:
    """Minima in `order` (best first) up to `within` above the best, those with equal MSE once."""
    kept: list[int] = []
    least, most = -np.inf, (1 + within) * mse[order[0]] if len(order) and np.isfinite(within) else np.inf
    for i in order:
        if kept and mse[i] > most:
            break
        if mse[i] > least * (1 + equal) or not kept:
            least = mse[i]
            kept.append(i)
        elif scale[i] < scale[kept[-1]]:
            kept[-1] = i
    return kept
