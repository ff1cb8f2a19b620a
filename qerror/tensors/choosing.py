"""Scale, shift and zero point of each row of a chunk, by a rule under what was asked of them."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..densities.base import Density
from ..densities.empirical import Empirical
from ..grids.grid import Grid
from ..results import ErrorTerms, Status
from ..search.optimal import optimal_scale
from .rule_base import RuleResult, either
from .rules import Rule, aciq, analytic, iterative, minmax, ocp, optimal, sawb, shrink_search
from .stored_scales import Stored, best_stored
from .unsorted import Unsorted
from .zero_points import best_zero_point

__all__ = ["Choice", "Plan", "best_scales", "choose", "sorted_sample"]

Array = NDArray[np.float64]

# These read extremes and a few moments: sorting the values for them would be most of the work.
_FROM_MOMENTS = (minmax, ocp, analytic, aciq, sawb)


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked of every group.

    Attributes
    ----------
    grid : Grid
    rule : callable
    integer : bool
        Whether -shift / scale must be an integer; the shift is then chosen, whatever is asked of it.
    stored : Stored or None
        The scales that can be stored.
    """

    grid: Grid
    rule: Rule
    integer: bool = False
    stored: Stored | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Flat arrays, one entry a row; the error and the clipped share where the search found them on its way."""

    scale: Array
    shift: Array
    status: NDArray[np.object_]
    zero_point: NDArray[np.int64] | None = None
    terms: ErrorTerms | None = None
    clipped: Array | None = None


def choose(rows: NDArray[Any], weights: Array | None, shift: Any, plan: Plan) -> Choice:
    """Choose for each row of `rows`; `shift` is "mean", "optimal" or an array of one entry a row."""
    if plan.rule is optimal:
        return _best(rows, weights, shift, plan)
    function = plan.rule.func if isinstance(plan.rule, partial) else plan.rule
    sample = Unsorted(rows, weights) if function in _FROM_MOMENTS else Empirical(rows, weights, axis=0)
    if plan.integer:
        shift = "optimal" if function in (minmax, iterative, shrink_search) else "mean"
    found: Any = plan.rule(sample, plan.grid, shift=shift)
    if not isinstance(found, RuleResult):
        scale, at = found if isinstance(found, tuple) else (found, sample.mean if isinstance(shift, str) else shift)
        found = RuleResult(scale, at, Status.RULE)
    choice = _flat(len(rows), found.scale, found.shift, found.status)
    if plan.stored is not None:
        choice = dataclasses.replace(choice, scale=np.atleast_1d(plan.stored.nearest(choice.scale)))
    return _with_integer(choice, np.rint(-choice.shift / choice.scale)) if plan.integer else choice


def _with_integer(choice: Choice, zero_point: Array) -> Choice:
    # Minus zero would be shown as such.
    shift = -zero_point * choice.scale + 0.0
    return dataclasses.replace(choice, shift=shift, zero_point=zero_point.astype(np.int64))


def _best(rows: NDArray[Any], weights: Array | None, shift: Any, plan: Plan) -> Choice:
    """The exact minimum of what may be chosen."""
    stored = plan.stored
    if plan.integer:
        sample = Empirical(rows, weights, axis=0)
        search = best_scales if stored is None else lambda density, grid: _stored(density, grid, 0.0, stored)
        scale, zero_point, status = best_zero_point(sample, plan.grid, search)
        return _with_integer(_flat(len(rows), scale, 0.0, status), zero_point.astype(np.float64))
    if stored is None:
        return _search(sorted_sample(rows, weights), shift, plan)
    sample = Empirical(rows, weights, axis=0)
    if isinstance(shift, str) and shift == "optimal":
        free = optimal_scale(sample, plan.grid, shift=shift)
        scale, status = _stored(sample, plan.grid, free.shift, stored)
        return _flat(len(rows), scale, free.shift, either(status == Status.EXACT, Status.LOCAL, status))
    shift = sample.mean if isinstance(shift, str) else shift
    scale, status = _stored(sample, plan.grid, shift, stored)
    return _flat(len(rows), scale, shift, status)


def best_scales(density: Density, grid: Grid) -> tuple[Array, NDArray[np.object_]]:
    """The best scale of each row at shift 0, and its status."""
    best = optimal_scale(density, grid)
    return np.ravel(best.scale), np.ravel(np.asarray(best.status, object))


def _stored(density: Density, grid: Grid, shift: Any, stored: Stored) -> tuple[Array, NDArray[np.object_]]:
    return best_stored(density, grid, np.broadcast_to(np.asarray(shift, np.float64), density.shape), stored)


def _search(sample: Empirical, shift: Any, plan: Plan) -> Choice:
    best = optimal_scale(sample, plan.grid, shift=shift)
    flat = (np.ravel(getattr(best.error, field.name)) for field in dataclasses.fields(ErrorTerms))
    low, high = (np.ravel(end) for end in best.range)
    clipped = np.ravel(sample.sf(high)) + np.ravel(sample.cdf(np.nextafter(low, -np.inf)))
    choice = _flat(low.size, best.scale, best.shift, best.status)
    return dataclasses.replace(choice, terms=ErrorTerms(*flat), clipped=clipped)


def sorted_sample(rows: NDArray[Any], weights: Array | None) -> Empirical:
    """The exact sample of rows; of one row as a single distribution, whose repeated values are counted."""
    if len(rows) == 1:
        return Empirical(rows[0], None if weights is None else weights[0])
    return Empirical(rows, weights, axis=0)


def _flat(count: int, scale: Any, shift: Any, status: Any) -> Choice:
    flat = [np.broadcast_to(np.ravel(np.asarray(value, np.float64)), count) for value in (scale, shift)]
    return Choice(flat[0], flat[1], np.broadcast_to(np.ravel(np.asarray(status, object)), count))
