"""The scale of least error at given shifts: of samples by their parabolas, of other densities by a scan."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import broadcast_shape
from .._types import Array
from ..densities.base import Density
from ..errors.exact import Model, Rounding
from ..grids.grid import Grid
from ..results import ErrorTerms, Minimum, ScaleResult
from ..samples.rows import rows_of
from .densities.objective import Objective
from .densities.scan import Search
from .samples.best_scale import found_in_rows


def scale_at(
    density: Density, grid: Grid, shift: Array, *, model: Model, rounding: Rounding, certify: bool | None = None
) -> ScaleResult:
    """`optimal_scale` at shifts that broadcast against the density."""
    shape = density.shape if density.shape == shift.shape else broadcast_shape(density.shape, shift=shift)
    members = density.spread(shape)
    shifts = (shift if shift.shape == shape else np.broadcast_to(shift, shape)).ravel()
    if model == "exact" and rounding == "nearest" and rows_of(members) is not None:
        found = found_in_rows(members, grid, shifts, certify)
    else:
        found = Search(Objective(members, grid, shifts, rounding, model), certify).run()
    return assemble(grid, found.scale, shifts, found.terms, found.minima, found.interval, found.status, shape)


def assemble(
    grid: Grid,
    scale: Array,
    shift: Array,
    terms: ErrorTerms,
    minima: list[tuple[Minimum, ...]],
    interval: Array,
    status: NDArray[Any],
    shape: tuple[int, ...],
) -> ScaleResult:
    """Give flat rows their shape."""
    nested = np.empty(len(minima), object)
    nested[:] = minima

    def formed(values: NDArray[Any]) -> Any:
        return values.reshape(shape)[()]

    return ScaleResult(
        scale=formed(scale),
        shift=formed(shift),
        clip=formed(scale * grid.absmax),
        range=(formed(shift + scale * grid.min), formed(shift + scale * grid.max)),
        error=ErrorTerms(*map(formed, vars(terms).values())),
        minima=nested.reshape(shape)[()],
        interval_1pct=(formed(interval[0]), formed(interval[1])),
        status=formed(status),
    )
