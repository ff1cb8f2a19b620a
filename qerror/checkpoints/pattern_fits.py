"""One scale for all values of a tensor, from how often each bit pattern is there: the same bits as from the values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..results import FitResult, Status
from ..tensors.arguments import resolve_format
from ..tensors.fitting import fit
from .parts import FormatPart
from .patterns import Patterns
from .recipe import Recipe, split_format

# What a group may have in place of a scale of the rule's own.
UNUSUAL = (Status.DEGENERATE, Status.DEGENERATE_NONE, Status.FALLBACK, Status.UNCONVERGED)
# Up to here values are sorted rather than counted (see `qerror.samples.intake`).
SORTED = 1 << 14


def from_patterns(counts: Patterns, grid: str, recipe: Recipe) -> FormatPart:
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


def fit_patterns(counts: Patterns, grid: str, rule: str, options: Mapping[str, Any]) -> FitResult:
    """`qerror.fit` of all values with one scale, from how often each of them is there."""
    shift, grid = options.get("shift", 0.0), split_format(grid)[0]
    # Symmetric grids see magnitudes only; so does the search in `fit`.
    folded = rule == "optimal" and not isinstance(shift, str) and not np.any(shift)
    folded = folded and "zero_point" not in options and resolve_format(grid, None, None, None).grid.half is not None
    values, weights = counts.values(folded=folded)
    if counts.size <= SORTED:
        return fit(np.repeat(values, weights.astype(np.intp)), grid, rule=rule, measure=False, **options)
    return fit(values, grid, rule=rule, weights=weights, measure=False, **options)


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
