"""The better of two scales for each block: what the choice changes in the mean of the two errors.

With S_1, S_2 the sums of a block's squared errors at its two scales, E[min(S_1, S_2)] = (E S_1 + E S_2 - E|D|) / 2 for
D = S_1 - S_2, and what else is of interest is a mean of both and half of E[(W_2 - W_1) sign D]; where D = 0 each counts
half. D is a sum of independent differences once the largest magnitude M of the block is given, or bounded:

- any scales: M = m is x_1, the others lie within m, and both scales are proportional to it;
- stored scales: while M lies between two bounds both scales stay, and E[.; M <= m] at the bounds are subtracted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._types import Array
from ..densities.base import Density
from ..densities.block_maxima import Largest, finite
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import Staircase, staircase
from ..grids.grid import Grid
from .difference_sums import Sum
from .differences import Rows, coefficients, joint_cells, resolved, unresolved

# Share of the mean squared error to which each family of conditions is summed, and to which the whole must be known.
_TOLERANCE, _REQUIRED = 3e-10, 1e-7
# Nodes that count less than this share are left out; jumps of the pdf by nodes at a time.
_LEFT_OUT, _MOST_JUMPS = 1e-15, 256


class Change(NamedTuple):
    """What the better of two scales has less or more than the mean of both.

    Attributes
    ----------
    mse, clipping, bias, cross, maximum : float
        Each to be added; `maximum` is nan where scales are stored.
    accuracy : float
        Estimated error of `mse`.
    """

    mse: float
    clipping: float
    bias: float
    cross: float
    maximum: float
    accuracy: float


class _Family(NamedTuple):
    """Conditions under which scales and blocks are alike but for their size.

    Attributes
    ----------
    scales : tuple of float
        Of both candidates, in units of the size.
    rows : Rows
    share : ndarray of shape (R,)
        What each row counts.
    others : int
        Values that are bounded by the reach.
    cuts : tuple of float
        Places between which cells lie, in units of the size.
    side : float
        -1 or 1 where one more value lies at that end of the reach, 0 where none does.
    """

    scales: tuple[float, float]
    rows: Rows
    share: Array
    others: int
    cuts: tuple[float, ...]
    side: float


def best_of_change(density: Density, form: BlockFormat, unit: float, mse: float) -> Change:
    """What rule best_of changes, by the mean squared error of its candidates.

    Parameters
    ----------
    density : Density
        Of shape (), without point masses but at 0.
    form : BlockFormat
        Of rule best_of with two constants.
    unit : float
        The tensor scale.
    mse : float
        The mean of the candidates, to measure the accuracy by.

    Raises
    ------
    ValueError
        For more than two constants, for point masses that move with the scale, and where the accuracy is not reached.

    Examples
    --------
    >>> import qerror as qe
    >>> form = qe.BlockFormat("e2m1", 2, rule="best_of", constant=(1, 1.5))
    >>> round(best_of_change(qe.Laplace(), form, 1.0, 1e-3).mse, 12)
    -0.000807278590
    """
    grid = form.grid
    if len(form.constants) > 2:
        raise ValueError(f"constant must be two numbers, got {form.constants}; qerror.simulate takes more")
    if density.has_atoms and 0 not in grid.levels:
        raise ValueError("density must have no point mass where the grid has no level 0; qerror.simulate takes it")
    largest = Largest(density, form.block_size)
    if form.scale_format is None:
        families = _any_scale(largest, form, mse)
    else:
        steps = [staircase(grid, form.scale_format, "absmax", constant, unit) for constant in form.constants]
        families = _stored(largest, form, steps)
    total = np.zeros(6)
    for family in families:
        total += _change(density, grid, family, _TOLERANCE * mse)
    if form.scale_format is not None:
        total[4] = np.nan
    if not total[5] <= _REQUIRED * mse:
        raise ValueError(
            f"density must be smoother for rule best_of: the error of {form.name} is known to {total[5] / mse:.1g} of "
            "itself; qerror.simulate estimates it"
        )
    return Change(*map(float, total))


def _change(density: Density, grid: Grid, family: _Family, tolerance: float) -> Array:
    scales, rows, share, n, cuts, side = family
    high = float(rows.reach.max())
    cells = joint_cells(grid, scales, 0.0 if _even(density, grid) else -high, high, np.array(cuts))
    offset, own = cells.at_end(side) if side else (0.0, np.zeros(3))
    cells = resolved(density, grid, scales, cells, rows)
    parts = coefficients(density, cells, rows, changes=True)
    square = 0.5 * share * rows.size**2
    terms = Sum(cells, parts, rows.mass, n, np.array([offset]))
    found, lacking = terms.expected(square, tolerance)
    lacking += n * terms.highest * float(np.abs(square) @ unresolved(parts))
    clipping, bias, cross = n * found.weighted + own[:, None] * found.sign
    linear = 0.5 * share * rows.size
    return np.array(
        [
            -square @ found.absolute,
            square @ clipping,
            linear @ bias,
            square @ cross,
            -offset * (square @ found.sign),
            lacking,
        ]
    )


def _even(density: Density, grid: Grid) -> bool:
    """Whether x and -x are alike."""
    return density.symmetric and not np.any(density.mean) and np.array_equal(grid.levels, -grid.levels[::-1])


def _any_scale(largest: Largest, form: BlockFormat, mse: float) -> Iterator[_Family]:
    """Scales that follow M: its nodes, as the value at either end."""
    density, grid = largest.density, form.grid
    scales = form.constants[0] / grid.absmax, form.constants[1] / grid.absmax
    marks = np.abs(np.concatenate([grid.thresholds, [grid.min, grid.max]]))
    # Where a threshold meets a jump of the pdf the errors as functions of M have kinks.
    with np.errstate(divide="ignore"):
        meet = np.abs(density.kinks).ravel()[:, None] / np.concatenate([scales[0] * marks, scales[1] * marks])
    m, dm = largest.nodes(finite(meet))
    # Cells are cut at the jumps of the pdf, which lie elsewhere for each m.
    step = max(1, _MOST_JUMPS // density.kinks.size) if density.kinks.size else m.size
    for side in (1.0,) if _even(density, grid) else (-1.0, 1.0):
        share = dm * (largest.both_sides(m) if _even(density, grid) else np.asarray(density.pdf(side * m)))
        keep = np.flatnonzero(share * largest.below(m) * m**2 > _LEFT_OUT * mse)
        for some in (keep[first : first + step] for first in range(0, keep.size, step)):
            rows = Rows(m[some], np.ones(some.size), np.exp(largest.log_inside(m[some])))
            yield _Family(scales, rows, share[some], largest.others, (), side)


def _stored(largest: Largest, form: BlockFormat, steps: list[Staircase]) -> Iterator[_Family]:
    """Scales of a format: bounds of M between which both stay, alike in every octave of the format."""
    low, high, first, second = _pieces(largest, steps)
    size = np.maximum(first, second)
    shapes, group = np.unique((np.stack([low, high, first, second]) / size).round(13), axis=1, return_inverse=True)
    for index, (inner, outer, one, two) in enumerate(shapes.T.tolist()):
        of_group = size[group == index]
        share = np.repeat([1.0, -1.0], of_group.size) / form.block_size
        at, reach = np.tile(of_group, 2), np.repeat([outer, inner], of_group.size)
        rows = Rows(at, reach, np.exp(largest.log_inside(at * reach)))
        yield _Family((one, two), rows, share, form.block_size, (-inner, inner), 0.0)


def _pieces(largest: Largest, steps: list[Staircase]) -> tuple[Array, Array, Array, Array]:
    """Bounds of M and the two scales between them, where these differ."""
    low, high = largest.span
    bounds = np.unique(np.concatenate([step.bounds for step in steps]))
    bounds = np.concatenate([[low], bounds[(bounds > low) & (bounds < high)], [high]])
    bounds = bounds[np.append(np.diff(bounds) > 1e-13 * bounds[:-1], True)]
    middle = 0.5 * (bounds[1:] + bounds[:-1])
    first, second = (step.scales[np.searchsorted(step.bounds, middle) - 1] for step in steps)
    bounds[0] = 0.0
    differs = first != second
    return bounds[:-1][differs], bounds[1:][differs], first[differs], second[differs]
