"""One scale for all values of a tensor, from how often each bit pattern is there: the same bits as from the values."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..densities.estimation import ValueCounts, fit_density
from ..densities.parametric import Gaussian
from ..results import FitResult, Status
from ..rules import as_rule
from ..tensors.arguments import resolve_format
from ..tensors.fitting import fit
from .moments import Moments
from .parts import FormatPart
from .recipe import Recipe, split_format

# What a group may have in place of a scale of the rule's own.
UNUSUAL = (Status.DEGENERATE, Status.DEGENERATE_NONE, Status.FALLBACK, Status.UNCONVERGED)
# Up to here values are sorted rather than counted (see `qerror.samples.intake`).
SORTED = 1 << 14


class Counts(Protocol):
    """How often each value is there: of 16 bits, or of float32 where no bin has two different values."""

    @property
    def size(self) -> int:
        """How many there are."""

    def values(self, *, folded: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Different values, ascending, and how often each is there; `folded`: of their magnitudes."""

    def moments(self) -> Moments:
        """Moments of all values."""


def from_patterns(counts: Counts, grid: str, recipe: Recipe) -> FormatPart:
    """What one scale for all values costs in a format."""
    options, mse, unusual = recipe.of(grid), {}, {}
    arrays: dict[str, NDArray[Any]] = {}
    power, weight = 0.0, float(counts.size)
    for rule in recipe.every_rule:
        found = fit_patterns(counts, grid, rule, options)
        total = found.total
        mse[rule], unusual[rule] = float(total.mse) * weight, unusual_groups(found)
        if rule == recipe.rules[0]:
            power, arrays = float(total.power) * weight, stored_scales(found)
    return FormatPart(mse, power, weight, 1, unusual, arrays, recipe.rules)


def fit_patterns(counts: Counts, grid: str, rule: str, options: Mapping[str, Any]) -> FitResult:
    """`qerror.fit` of all values with one scale, from how often each of them is there."""
    shift, grid = options.get("shift", 0.0), split_format(grid)[0]
    # Symmetric grids see magnitudes only; so does the search in `fit`.
    folded = rule == "optimal" and not isinstance(shift, str) and not np.any(shift)
    folded = folded and "zero_point" not in options and resolve_format(grid, None, None, None).grid.half is not None
    values, weights = counts.values(folded=folded)
    how = _with_family(rule, values, weights)
    if counts.size <= SORTED:
        return fit(np.repeat(values, weights.astype(np.intp)), grid, rule=how, measure=False, **options)
    return fit(values, grid, rule=how, weights=weights, measure=False, **options)


def _with_family(rule: str, values: NDArray[Any], counts: NDArray[np.float64]) -> Any:
    """The rule with family="auto" replaced by what fits all values, which as weights would count alike."""
    made = as_rule(rule)
    if not isinstance(made, partial) or made.keywords.get("family") != "auto":
        return rule
    mean = float(np.average(values, weights=counts))
    std = float(np.sqrt(np.average(np.square(values - mean), weights=counts)))
    family = fit_density(ValueCounts((values - mean) / std, counts)) if std else Gaussian()
    return partial(made.func, **{**made.keywords, "family": family})


def unusual_groups(result: FitResult) -> dict[str, int]:
    """How many groups have no scale of the rule's own, by what they have instead."""
    status = np.atleast_1d(np.asarray(result.status, object))
    counts = {one.name: int(np.count_nonzero(status == one)) for one in UNUSUAL}
    return {one: count for one, count in counts.items() if count}


def stored_scales(found: FitResult) -> dict[str, NDArray[Any]]:
    """What is written of a fit."""
    arrays = {"scale": np.asarray(found.scale), "shift": np.asarray(found.shift)}
    if found.zero_point is not None:
        arrays["zero_point"] = np.asarray(found.zero_point)
    if found.tensor_scale is not None:
        arrays["tensor_scale"] = np.asarray(found.tensor_scale)
    return arrays
