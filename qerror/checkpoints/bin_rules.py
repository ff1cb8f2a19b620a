"""What rules do on values known by their bins alone: the scales that may be theirs, and the most that they cost."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..grids.grid import Grid
from ..results import Status
from ..rules import (
    BlockRule,
    aciq,
    analytic,
    as_rule,
    minmax,
    ocp,
    octav,
    percentile,
    sawb,
    shrink_search,
    signed_absmax,
)
from ..rules.extremes import SHRINK
from ..samples.empirical import Empirical
from ..tensors.fitting import fit
from .bins import Bins

# What sums of float64 may be off by, relative.
_SUMS = 1e-14
_MOMENTS, _ENDS = (analytic, aciq, sawb), (minmax, ocp, signed_absmax)


class RuleBound(NamedTuple):
    """The scale of a rule lies from `low` to `high`, and its error is `mse` at most."""

    low: float
    high: float
    mse: float
    status: Status


def rule_bound(bins: Bins, grid: Grid, rule: str, shift: float = 0.0) -> RuleBound:
    """What a rule does on the values in these bins.

    Rules of extremes and of E(x - z)^2 and E|x - z| have their scale exactly, up to roundings. Those that grow with
    every |x - z| have it between what they are with all values at the inner ends of their bins and at the outer ones.

    Raises
    ------
    ValueError
        For rules that need the values themselves.
    """
    made = as_rule(rule)
    function, options = (made.func, made.keywords) if isinstance(made, partial) else (made, {})
    if function is shrink_search and not options:
        return _shrunk(bins, grid, shift)
    if function in _ENDS or (isinstance(function, BlockRule) and function.name != "best_of"):
        found = fit(np.array([bins.least, bins.greatest]), grid, rule=made, shift=shift, measure=False)
        low = high = float(found.scale)
        status: Status = Status.RULE
    elif function in _MOMENTS and options.get("family") != "auto":
        low, high, status = _of_moments(bins, grid, made, shift)
    elif function is percentile or (function is octav and not options):
        low, high, status = _between(bins, grid, made, shift)
        if function is octav:
            low, high = _with_cycles(bins, grid, low, high, shift)
    else:
        raise ValueError(
            f"rule {rule} needs the values themselves, of which a sketch of float32 has bounds; `qerror fit` reads them"
        )
    return RuleBound(low, high, bins.at_most(grid, shift, low, high), status)


def _of_moments(bins: Bins, grid: Grid, rule: Any, shift: float) -> tuple[float, float, Status]:
    """A rule of E(x - z)^2 and E|x - z|: what it says of two values that have the same."""
    power, found = bins.power(shift), []
    # |x - z| is convex: no less than at the means of the bins, no more than at their ends.
    for (values, mass), slack in ((bins.means(), 1 - _SUMS), (bins.spread(), 1 + _SUMS)):
        distance = slack * float((np.abs(values - shift) * mass).sum())
        for square in (power * (1 - _SUMS), power * (1 + _SUMS)):
            share = min(1.0, distance**2 / square)
            found.append(rule(Empirical([0.0, square / distance], [1 - share, share]), grid, shift=0.0))
    status = _same_status(found)
    if status == Status.FALLBACK:
        found = [minmax(Empirical([bins.least, bins.greatest]), grid, shift=shift)]
    return min(float(each.scale) for each in found), max(float(each.scale) for each in found), status


def _between(bins: Bins, grid: Grid, rule: Any, shift: float) -> tuple[float, float, Status]:
    """A rule that grows with every |x - z|."""
    inner, outer = bins.distances(shift)
    side = np.where(bins.means()[0] >= shift, 1.0, -1.0)
    # Counts, not shares: p of them is met exactly.
    found = [rule(Empirical(shift + side * end, bins.counts), grid, shift=shift) for end in (inner, outer)]
    low, high = (float(each.scale) for each in found)
    return low * (1 - _SUMS), high * (1 + _SUMS), _same_status(found)


def _with_cycles(bins: Bins, grid: Grid, low: float, high: float, shift: float) -> tuple[float, float]:
    """Where OCTAV's steps end: at their fixed point, which grows with every |x|, or around it.

    A clip that is a value may be left and come back to for ever. The two sums that it is in or out of differ by its
    share of g P(|x| <= a) + P(|x| > a), g = 4^-B / 3, times g.
    """
    g, reach = 4.0**-grid.bits / 3, 2.0 ** (grid.bits - 1) * (grid.step or 1.0)
    inner, outer = bins.distances(shift)
    near = bins.counts[(inner <= high * reach) & (outer >= low * reach)].sum() / bins.size
    beyond = bins.counts[inner > high * reach].sum() / bins.size
    apart = g * float(near) / (g + (1 - g) * float(beyond))
    return low * (1 - apart), high * (1 + apart)


def _shrunk(bins: Bins, grid: Grid, shift: float) -> RuleBound:
    """The line search: of its scales those that may be the best; the one that is costs no more than any."""
    whole = minmax(Empirical([bins.least, bins.greatest]), grid, shift=shift)
    scales = float(whole.scale) * SHRINK
    lower, upper = bins.errors(grid, scales, shift)
    mse = float(upper.min())
    maybe = scales[lower <= mse]
    return RuleBound(float(maybe.min()), float(maybe.max()), mse, Status(whole.status))


def _same_status(found: list[Any]) -> Status:
    statuses = {each.status for each in found}
    if len(statuses) > 1:
        raise ValueError("the sketch does not tell whether the rule gives a scale; `qerror fit` reads the values")
    (status,) = statuses
    return Status(status)
