"""Scale, shift and zero point of each row of a chunk, by a rule under what was asked of them."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..densities.empirical import Empirical
from ..grids.grid import Grid
from ..results import ErrorTerms, Status
from ..search.optimal import optimal_scale
from .rule_base import RuleResult
from .rules import Rule, aciq, analytic, minmax, ocp, optimal, sawb
from .unsorted import Unsorted

__all__ = ["Choice", "Plan", "choose", "sorted_sample"]

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
    """

    grid: Grid
    rule: Rule


@dataclasses.dataclass(frozen=True)
class Choice:
    """Flat arrays, one entry a row; the error and the clipped share where the search found them on its way."""

    scale: Array
    shift: Array
    status: NDArray[np.object_]
    terms: ErrorTerms | None = None
    clipped: Array | None = None


def choose(rows: NDArray[Any], weights: Array | None, shift: Any, plan: Plan) -> Choice:
    """Choose for each row of `rows`; `shift` is "mean", "optimal" or an array of one entry a row."""
    if plan.rule is optimal:
        return _search(sorted_sample(rows, weights), shift, plan)
    function = plan.rule.func if isinstance(plan.rule, partial) else plan.rule
    sample = Unsorted(rows, weights) if function in _FROM_MOMENTS else Empirical(rows, weights, axis=0)
    found: Any = plan.rule(sample, plan.grid, shift=shift)
    if not isinstance(found, RuleResult):
        scale, at = found if isinstance(found, tuple) else (found, sample.mean if isinstance(shift, str) else shift)
        found = RuleResult(scale, at, Status.RULE)
    return _flat(len(rows), found.scale, found.shift, found.status)


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
