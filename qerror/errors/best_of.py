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

from .._threads import chunk_slices
from .._types import Array
from ..densities.base import Density
from ..densities.block_maxima import Largest, finite
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import Staircase, staircase
from ..grids.grid import Grid
from .difference_sums import Sum
from .differences import Cells, Rows, coefficients, joint_cells, loss_change, resolved, unresolved

# Share of the mean squared error to which each family of conditions is summed, and to which the whole must be known.
_TOLERANCE, _REQUIRED = 3e-10, 1e-6
# Nodes that count less than this share are left out; jumps of the pdf by nodes at a time.
_LEFT_OUT, _MOST_JUMPS = 1e-15, 256
# The largest value where scales are stored: panels in log m and their nodes, few where bounds are close; how far below
# the upper bound it is looked for, and how much coarser signs may be. About 1e-5 of the mse is lost in small blocks.
_LOG_STEP, _CLOSE, _NODES, _FEW_NODES = 0.125, 1.2, 12, 4
_SPAN, _COARSER = 2.0**-8, 300
# Share of the mse that such a node may be left out for; rows times cells in flight.
_UNSEEN, _CHUNK = 1e-10, 20_000


class Change(NamedTuple):
    """What the better of two scales has less or more than the mean of both.

    Attributes
    ----------
    mse, clipping, bias, cross, maximum : float
        Each to be added.
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
        For more than two constants, for point masses that a grid moves, and where `accuracy` exceeds 1e-6 of the mse.

    Examples
    --------
    >>> import qerror as qe
    >>> form = qe.BlockFormat("e2m1", 2, rule="best_of", constant=(1, 1.5))
    >>> round(best_of_change(qe.Laplace(), form, 1.0, 1e-3).mse, 12)
    -0.00080727859
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
            total[4] += sum(_maximum(largest, grid, at_top, mse) for at_top in _tops(largest, grid, family, mse))
    if not total[5] <= _REQUIRED * mse:
        raise ValueError(
            f"density must be smoother, or elements coarser, for rule best_of: the error of {form.name} is known to "
            f"{total[5] / mse:.1g} of itself alone; qerror.simulate estimates it"
        )
    return Change(*map(float, total))


def _change(density: Density, grid: Grid, family: _Family, tolerance: float) -> Array:
    """What one family adds to each field of Change."""
    scales, rows, share, n, _, side = family
    cells = _cells(density, grid, family)
    offset, own = cells.at_end(side) if side else (0.0, np.zeros(3))
    cells = resolved(density, grid, scales, cells, rows)
    parts = coefficients(density, cells, rows, changes=True)
    square = 0.5 * share * rows.size**2
    terms = Sum(cells, parts, rows.mass, n, np.array([offset]))
    found, lacking = terms.expected(square, tolerance)
    lacking += n * terms.highest * float(np.abs(square) @ unresolved(parts))
    clipping, bias, cross = n * found.weighted + own[:, None] * found.sign
    changes = [square @ clipping, 0.5 * (share * rows.size) @ bias, square @ cross, -offset * (square @ found.sign)]
    return np.array([-square @ found.absolute, *changes, lacking])


def _cells(density: Density, grid: Grid, family: _Family) -> Cells:
    high = float(family.rows.reach.max())
    low = 0.0 if _even(density, grid) else -high
    return joint_cells(grid, family.scales, low, high, np.array(family.cuts))


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


def _tops(largest: Largest, grid: Grid, family: _Family, mse: float) -> Iterator[tuple[_Family, Array]]:
    """Nodes of the largest value between the bounds of a family, and d there."""
    density, n = largest.density, largest.others
    size = family.rows.size[: family.share.size // 2]
    cells = _cells(density, grid, family)
    # So many nodes at a time that rows and cells, which are cut at them, stay few.
    step = max(4, _CHUNK // (size.size * cells.values.shape[1]))
    for side in (1.0,) if cells.folded else (-1.0, 1.0):
        nodes, weights = _ring(cells, family.cuts[-1], side)
        for part in chunk_slices(nodes.size, step):
            u = nodes[part]
            place, of = (index.ravel() for index in np.indices((size.size, u.size)))
            m, offset = size[place] * u[of], loss_change(grid, family.scales, side * u)[of]
            share = (
                (2.0 if cells.folded else 1.0) * (size[place] * weights[part][of]) * np.asarray(density.pdf(side * m))
            )
            rows = Rows(size[place], u[of], np.exp(largest.log_inside(m)))
            keep = share * rows.mass**n * np.abs(offset) * rows.size**2 > _UNSEEN * mse
            if keep.any():
                cuts = tuple(np.concatenate([-u, u]).tolist())
                rows = Rows(*(column[keep] for column in rows))
                yield _Family(family.scales, rows, share[keep], n, cuts, side), offset[keep]


def _ring(cells: Cells, inner: float, side: float) -> tuple[Array, Array]:
    """Nodes and weights of an integral over |u| beyond `inner` on one side."""
    outer = float(cells.edges[-1])
    low = max(inner, outer * _SPAN)
    steps = np.geomspace(low, outer, 1 + int(np.ceil(np.log(outer / low) / _LOG_STEP)))
    ends = np.unique(np.concatenate([side * cells.edges, side * cells.roots, steps]))
    ends = ends[(ends >= low) & (ends <= outer)]
    half = 0.5 * np.diff(ends)[:, None]
    few = outer < _CLOSE * low or half.size > _NODES
    node, weight = np.polynomial.legendre.leggauss(_FEW_NODES if few else _NODES)
    return (ends[:-1, None] + half * (node + 1)).ravel(), (half * weight).ravel()


def _maximum(largest: Largest, grid: Grid, top: tuple[_Family, Array], mse: float) -> float:
    """What the choice changes in the error of the largest value."""
    family, offset = top
    scales, rows, share, n, _, _ = family
    cells = resolved(largest.density, grid, scales, _cells(largest.density, grid, family), rows)
    parts = coefficients(largest.density, cells, rows)
    weight = 0.5 * share * rows.size**2
    found, _ = Sum(cells, parts, rows.mass, n, offset).expected(weight, _COARSER * _TOLERANCE * mse)
    return -float((weight * offset) @ found.sign)
