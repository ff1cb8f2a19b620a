"""Scales of rows as block formats have them: by their rules, and the best that they store."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import check_finite
from .._types import Array
from ..casting.best_stored import best_of_all
from ..casting.block_scales import scales_of
from ..grids.block_rules import stored_scales
from ..grids.grid import Grid
from ..results import Status
from ..rules import BlockRule
from ..rules.base import either, fixed_shift
from ..samples.row_moments import RowMoments
from ..search.found import any_scale
from .choices import Choice, Plan, flat
from .scale_formats import Stored


def by_block_rule(rows: NDArray[Any], weights: Array | None, shift: Any, plan: Plan, rule: BlockRule) -> Choice:
    """What casting does, with a shift that the values are taken about."""
    if plan.zero_point is not None:
        raise ValueError(f"zero_point must be left out with rule {plan.label}, which chooses no shift")
    at = fixed_shift(rule.name, RowMoments(rows, weights), shift) if isinstance(shift, str) else shift
    stored = plan.stored
    unit = 1.0 if stored is None else stored.unit
    grid, values = plan.grid, _about(rows, at)
    if grid.max <= 0:
        # A grid that was turned around: formats have positive levels.
        grid, values = Grid(-grid.levels[::-1]), -values.astype(np.float64)
    form = rule.within(grid, None if stored is None else stored.grid, plan.form)
    if rule.name == "best_of":
        check_finite("x", rows)
    scale = unit * scales_of(values, form, unit, weights)
    if not np.isfinite(scale).all():
        check_finite("x", rows)
    if plan.form is not None or stored is not None:
        return flat(len(rows), scale, at, Status.RULE)
    # As for other rules, a scale stands for any where all values are at the shift.
    idle = ~values.any(axis=1)
    status = Status.DEGENERATE if (grid.levels == 0).any() else Status.DEGENERATE_NONE
    return flat(len(rows), np.where(idle, any_scale(grid), scale), at, either(idle, status, Status.RULE))


def _about(rows: NDArray[Any], at: Any) -> NDArray[Any]:
    """Rows less the shift of each."""
    if not np.any(at):
        return rows
    moved: NDArray[Any] = rows - np.broadcast_to(at, len(rows))[:, None]
    return moved


def best_by_rounding(
    rows: NDArray[Any], weights: Array | None, at: Array, grid: Grid, stored: Stored, *, zero: bool
) -> Choice:
    """The best scale that can be stored, by rounding at each that may be it; 0, too, where `zero` says so."""
    check_finite("x", rows)
    values = _about(rows, at).astype(np.float64)
    known = stored_scales(stored.grid)
    scale = stored.unit * best_of_all(values, grid, known if zero else known[known > 0], stored.unit, weights)
    low, high = values.min(axis=1), values.max(axis=1)
    gains = ((high > 0) & (grid.max > 0)) | ((low < 0) & (grid.min < 0))
    if not (grid.levels == 0).any():
        return flat(len(rows), scale, at, Status.EXACT)
    scale = scale if zero else np.where(gains, scale, stored.any_scale)
    return flat(len(rows), scale, at, either(gains, Status.EXACT, Status.DEGENERATE))
