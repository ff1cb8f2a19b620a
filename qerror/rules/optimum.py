"""The exact minimum, as a rule among the others."""

from __future__ import annotations

from typing import Any

from ..densities.base import Density
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from .base import RuleResult


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
    best = optimal_scale(density, as_grid(grid), shift=shift)
    return RuleResult(best.scale, best.shift, best.status)
