"""Computing a table: every grid on every density."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .._check import check_choice, check_shift
from .._version import __version__
from ..densities.base import Density
from ..errors.exact import MODELS, ROUNDINGS, Model, Rounding
from ..grids.block_formats import BlockFormat
from ..grids.formats import formats
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from .names import by_name, named_density, named_grid
from .row import ScaleRow, Shift
from .table import ScaleTable

Progress = Callable[[Sequence[Any]], Iterable[Any]]

# Unit variance, mean 0. Student's t: 5 degrees of freedom is that of SF4, 8 that of the FP8 study (arXiv 2208.09225),
# 3 the heaviest tail in use; generalized Gaussians between Laplace and Gaussian, and beyond Laplace.
_USUAL_DENSITIES = (
    *("gaussian", "laplace", "logistic", "uniform"),
    *("student-t:df=3", "student-t:df=5", "student-t:df=8"),
    *("generalized-gaussian:beta=0.5", "generalized-gaussian:beta=1.5"),
)
_WIDEST_USUAL = 8


def scale_table(
    grids: Iterable[Grid | BlockFormat | str] | None = None,
    densities: Iterable[Density | str] | None = None,
    *,
    model: Model = "exact",
    rounding: Rounding | Sequence[Rounding] = "nearest",
    shift: Shift = 0.0,
    progress: Progress | None = None,
) -> ScaleTable:
    """Optimal scales of every grid on every density: `optimal_scale`, tabulated.

    Parameters
    ----------
    grids : iterable of Grid, BlockFormat or str, optional
        Each with a name. Default: every named grid of up to 8 bits. Of block formats the best constant of the rule is
        tabulated (see `ScaleRow`).
    densities : iterable of Density or str, optional
        Each of shape () and with a name of its own. Default: the parametric families at unit variance, Student's t of
        3, 5 and 8 degrees of freedom, generalized Gaussians of beta 0.5 and 1.5.
    model : {"exact", "high_resolution"}
        What is minimized, and what the errors are those of.
    rounding : {"nearest", "stochastic"}, or several
    shift : float, "mean" or "optimal"
    progress : callable, optional
        Receives the list of cases and returns an iterable of them, such as one that draws a bar.

    Raises
    ------
    ValueError
        For unknown or missing names, two grids or densities of one name, and what `optimal_scale` refuses.

    Examples
    --------
    >>> import qerror as qe
    >>> qe.scale_table(["int4", "e2m1"], ["gaussian", "laplace"])
    nearest rounding, model exact, shift 0.0: scale of least error, SQNR in dB
            gaussian         laplace
    int4    0.338608  19.26  0.467647  15.98
    e2m1    0.487079  18.97  0.691141  17.33
    """
    check_choice("model", model, MODELS)
    roundings = (rounding,) if isinstance(rounding, str) else tuple(rounding)
    for one in roundings:
        check_choice("rounding", one, ROUNDINGS)
    if not isinstance(shift, str):
        shift = float(check_shift(shift))
    named_grids = by_name("grids", default_grids() if grids is None else grids, named_grid)
    named = by_name("densities", default_densities() if densities is None else densities, named_density)
    cases = list(itertools.product(named_grids.items(), named.items(), dict.fromkeys(roundings)))
    rows = []
    for (grid_name, levels), (name, density), one in cases if progress is None else progress(cases):
        rows.append(_row(grid_name, name, one, density, levels, shift, model))
    return ScaleTable(tuple(rows), model, shift, __version__)


def default_grids() -> list[str]:
    """Names of every format of up to 8 bits."""
    return [name for bits in range(1, _WIDEST_USUAL + 1) for name in formats(bits)]


def default_densities() -> list[str]:
    """Names of the parametric densities at their usual shapes."""
    return list(_USUAL_DENSITIES)


def _row(
    grid: str, name: str, rounding: Rounding, density: Density, levels: Grid | BlockFormat, shift: Shift, model: Model
) -> ScaleRow:
    if isinstance(levels, BlockFormat):
        found = optimal_scale(density, levels, shift=shift, model=model, rounding=rounding, free="constant")
        best: Any = found
        scale, at, clip = 1 / found.form.end, 0.0, found.constant
    else:
        best = optimal_scale(density, levels, shift=shift, model=model, rounding=rounding)
        scale, at, clip = float(best.scale), float(best.shift), float(best.clip)
    return ScaleRow(
        grid=grid,
        density=name,
        rounding=rounding,
        std=float(density.std),
        scale=scale,
        shift=at,
        clip=clip,
        clipping_error=float(best.error.clipping),
        rounding_error=float(best.error.rounding),
        mse=float(best.error.mse),
        power=float(best.error.power),
        status=best.status.name,
    )
