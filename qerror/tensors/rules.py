"""The recipes in use for choosing a scale, by name.

Each is a function `rule(density, grid, *, shift, **options)` that reads a `Density` and nothing else: on an `Empirical`
it is the algorithm on data, on a density by formula its limit for infinitely many data. They return a `RuleResult`
whose arrays have the broadcast shape of density and shift.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_int, check_scale, shown, suggest
from ..densities.base import Density
from ..error import error_sums, flatten
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import Status
from ..search.optimal import optimal_scale
from .rule_base import WITH_OWN_SHIFT, Array, RuleResult, as_number, either, fixed_shift, is_word
from .rules_extreme import minmax, ocp, percentile, shrink_search
from .rules_statistic import aciq, analytic, octav, sawb

__all__ = [
    "RULES", "Rule", "RuleResult", "aciq", "analytic", "as_rule", "iterative", "minmax", "ocp", "octav", "optimal",
    "percentile", "rule_label", "sawb", "shrink_search",
]  # fmt: skip

Rule = Callable[..., RuleResult]


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
    steps, tol = as_int("n_iter", n_iter, 0), as_number("tol", tol)
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


def optimal(density: Density, grid: Grid | str, *, shift: Any = 0.0) -> RuleResult:
    """The exact minimum: `qerror.optimal_scale`.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(optimal(qe.Gaussian(), "binary").scale), 9)
    0.797884561
    """
    best = optimal_scale(density, grid, shift=shift)
    return RuleResult(best.scale, best.shift, best.status)


RULES: dict[str, Rule] = {
    "minmax": minmax,
    "percentile": percentile,
    "analytic": analytic,
    "iterative": iterative,
    "aciq": aciq,
    "octav": octav,
    "sawb": sawb,
    "shrink_search": shrink_search,
    "ocp": ocp,
    "optimal": optimal,
}


def as_rule(rule: str | Rule) -> Rule:
    """The function of a rule: of "name" or "name:key=value,key=value"; a callable is returned as it is.

    Parameters
    ----------
    rule : str or callable
        A callable takes (density, grid, shift=...) and returns a `RuleResult`.

    Returns
    -------
    callable

    Raises
    ------
    ValueError
        For an unknown rule (near matches are shown) or option.

    Examples
    --------
    >>> import qerror as qe
    >>> float(as_rule("percentile:p=50")(qe.Empirical([1.0, 7.0, 70.0]), "int4").scale)
    1.0
    """
    if callable(rule):
        return rule
    if not isinstance(rule, str):
        raise ValueError(f"rule must be a name or a function, got {shown(rule)}; names are {', '.join(RULES)}")
    name, _, said = rule.strip().partition(":")
    key = name.strip().lower().replace("-", "_")
    if key not in RULES:
        raise ValueError(f"unknown rule {name!r}{suggest(name, RULES) or '; known are ' + ', '.join(RULES)}")
    options = dict(_option(part, rule) for part in said.split(",")) if said.strip() else {}
    known = list(inspect.signature(RULES[key]).parameters)[3:]
    for option in options:
        if option not in known:
            raise ValueError(f"rule {key} has no option {option!r}; it has {', '.join(known) or 'none'}")
    return partial(RULES[key], **options) if options else RULES[key]


def rule_label(rule: str | Rule) -> str:
    """How a rule is called in tables: its name with its options, or the name of the function.

    Examples
    --------
    >>> rule_label(minmax)
    'minmax'
    """
    return rule.strip() if isinstance(rule, str) else getattr(rule, "__name__", type(rule).__name__)


def _option(text: str, rule: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not key:
        raise ValueError(f"options of a rule are written as key=value, separated by commas, got {text!r} in {rule!r}")
    try:
        return key.lower(), json.loads(value)
    except ValueError:
        return key.lower(), value
