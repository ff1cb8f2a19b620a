"""StatQAT's iterative quantizer: least squares with the cells frozen."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_int, check_scale
from .._types import Array
from ..densities.base import Density
from ..errors.exact import error_sums, flatten
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import Status
from .base import MOST_STEPS, WITH_OWN_SHIFT, RuleResult, as_number, either, fixed_shift, is_word
from .names import as_rule


def iterative(
    density: Density,
    grid: Grid | str,
    *,
    shift: Any = 0.0,
    n_iter: int = 100,
    tol: float = 1e-9,
    start: ArrayLike | str = "analytic",
) -> RuleResult:
    """StatQAT's iterative quantizer: least squares with the cells frozen, again and again.

    s <- E[(x - z) l] / E[l^2], and with shift "optimal" then z <- E[x - s l], l the level that x goes to. The MSE never
    rises; it ends in a local minimum near the start, and slowly on fine grids.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; with "optimal" the shift starts at that of `start`, else at the mean.
    n_iter : int
        Steps at most.
    tol : float
        A group has settled when a step moves its scale (and shift) by at most `tol` scales.
    start : array_like or str
        The scale to start from, or the rule that gives it.

    Returns
    -------
    RuleResult
        With `trace`; status UNCONVERGED where `n_iter` was not enough.

    References
    ----------
    StatQAT, arXiv 2605.17745.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(iterative(qe.Gaussian(), "binary", start=1.0).scale), 9)
    0.797884561
    """
    levels = as_grid(grid)
    steps, tol = as_int("n_iter", n_iter, 0, MOST_STEPS), as_number("tol", tol)
    free = is_word(shift, "optimal")
    first_shift = np.asarray(density.mean, np.float64) if free else fixed_shift("iterative", density, shift)
    if isinstance(start, str):
        begin = as_rule(start)
        own_shift = free and start.partition(":")[0] in WITH_OWN_SHIFT
        from_ = begin(density, levels, shift="optimal" if own_shift else first_shift)
        first, first_shift = from_.scale, from_.shift
    else:
        first = check_scale(start)
    members, s, z, shape = flatten(density, first, first_shift)
    s, z = s.copy(), z.copy()
    mse, settled = _descend(members, levels, s, z, free=free, steps=steps, tol=tol)
    status = either(settled.reshape(shape), Status.RULE, Status.UNCONVERGED)
    trace = np.array(mse).reshape(-1, *shape)
    return RuleResult(s.reshape(shape)[()], z.reshape(shape)[()], status, trace=trace)


def _descend(
    density: Density, grid: Grid, s: Array, z: Array, *, free: bool, steps: int, tol: float
) -> tuple[list[Array], NDArray[np.bool_]]:
    """Step `s` and `z` in place; the MSE before each step and after the last, and which rows have settled."""
    mean = np.broadcast_to(density.mean, s.shape)
    spread = np.broadcast_to(np.square(density.std), s.shape)
    active, trace, last = np.arange(s.size), [], np.empty(s.size)
    for step in range(steps + 1):
        members = density.take(active) if density.shape else density
        s0, z0 = s[active], z[active]
        sums = error_sums(members, grid, s0, z0)
        last = last.copy()
        last[active] = sums.mse
        trace.append(last)
        if step == steps or not active.size:
            break
        offset = mean[active] - z0
        # By MSE = A - 2 s B + s^2 C and its slope 2 (s C - B): C = E[l^2], and s + E[l e] / C is B / C.
        square = ((spread[active] + offset**2 - sums.mse) / s0 + sums.by_scale) / s0
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = s0 - 0.5 * sums.by_scale / square
        moved = np.where((square > 0) & (moved > 0) & np.isfinite(moved), moved, s0)
        level = (offset + 0.5 * sums.by_shift) / s0
        new = mean[active] - moved * level if free else z0
        s[active], z[active] = moved, new
        active = active[(np.abs(moved - s0) > tol * s0) | (np.abs(new - z0) > tol * s0)]
    settled = np.ones(s.size, np.bool_)
    settled[active] = False
    return trace, settled
