"""The best of two or three scales for each block: what the choice changes in the mean of their errors.

With S_1, S_2 the sums of a block's squared errors at its two scales, E[min(S_1, S_2)] = (E S_1 + E S_2 - E|D|) / 2 for
D = S_1 - S_2, and what else is of interest, the loss of stochastic rounding, too, is a mean of both and half of
E[(W_2 - W_1) sign D]; where D = 0 the first is taken. D is a sum of independent differences once the largest magnitude
M of the block is given, or bounded:

- any scales: M = m is x_1, the others lie within m, and all scales are proportional to it;
- stored scales: while M lies between two bounds the scales stay, and E[.; M <= m] at the bounds are subtracted.

A tensor's own scale is given by its largest magnitude T: the other blocks are stored scales with all values within T.
Of three scales half the changes of all pairs are added, and what the median of the three sums takes: `medians`.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

import numpy as np

from .._threads import chunk_slices
from .._types import Array
from ..densities.base import Density
from ..densities.block_maxima import Largest
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from .conditions import Family, even, families
from .difference_sums import Expected, Sum, Terms
from .differences import (
    Cells,
    Rounding,
    Rows,
    changes_of_equals,
    coefficients,
    cut,
    joint_cells,
    loss_change,
    resolved,
    unresolved,
)
from .medians import Medians

# Share of the mean squared error to which each family of conditions is summed, and where it is compared alone; to which
# the whole must be known. Medians of three take a hundred sums each, and may be coarser by a factor.
_TOLERANCE, _ROUGH, _REQUIRED, _OF_THREE = 3e-10, 1e-8, 1e-6, 30.0
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


def best_of_change(
    density: Density,
    form: BlockFormat,
    unit: float,
    mse: float,
    rounding: Rounding = "nearest",
    size: int | None = None,
    *,
    alone: bool = False,
) -> Change:
    """What rule best_of changes, by the mean squared error of its candidates.

    Parameters
    ----------
    density : Density
        Of shape (), without point masses but at 0.
    form : BlockFormat
        Of rule best_of with two or three constants.
    unit : float
        The tensor scale.
    mse : float
        The mean of the candidates, to measure the accuracy by.
    rounding : {"nearest", "stochastic"}
        Of the elements; blocks choose their scale by the nearest levels.
    size : int, optional
        Number of values of tensors that have their own scale; `unit` is not read.
    alone : bool
        Whether `mse` is asked for alone, in a part of the time; what else there is may be left at 0.

    Raises
    ------
    ValueError
        For more constants, for point masses that a grid moves, and where `accuracy` exceeds 1e-6 of the mse.

    Examples
    --------
    >>> import qerror as qe
    >>> form = qe.BlockFormat("e2m1", 2, rule="best_of", constant=(1, 1.5))
    >>> round(best_of_change(qe.Laplace(), form, 1.0, 1e-3).mse, 12)
    -0.00080727859
    """
    grid = form.grid
    if len(form.constants) > 3:
        raise ValueError(f"constant must be two or three numbers, got {form.constants}; qerror.simulate takes more")
    if density.has_atoms and 0 not in grid.levels:
        raise ValueError("density must have no point mass where the grid has no level 0; qerror.simulate takes it")
    largest = Largest(density, form.block_size)
    total = np.zeros(6)
    if len(form.constants) > 2:
        for pair in (pair for pair in combinations(form.constants, 2) if pair[0] != pair[1]):
            one = form.replace(constant=pair)
            total += 0.5 * np.array(best_of_change(density, one, unit, mse, rounding, size, alone=alone))
    for family in families(largest, form, unit, size, mse):
        total += _change(density, grid, family, rounding, (_ROUGH if alone else _TOLERANCE) * mse, alone)
        if not alone and family.side == 0:
            tops = _tops(largest, grid, family, rounding, mse)
            total[4] += sum(_maximum(largest, grid, top, rounding, mse) for top in tops)
    if not total[5] <= _REQUIRED * mse:
        raise ValueError(
            "density must be smoother, elements coarser or constants closer for rule best_of: the error of "
            f"{form.name} is known to {total[5] / mse:.1g} of itself alone; qerror.simulate estimates it"
        )
    return Change(*map(float, total))


def _change(density: Density, grid: Grid, family: Family, rounding: Rounding, tolerance: float, alone: bool) -> Array:
    """What one family adds to each field of Change."""
    scales, rows, share, n, _, side = family
    cells = _cells(density, grid, family, rounding)
    others = len(scales) - 1
    offset, own = cells.at_end(side) if side else (np.zeros(others), np.zeros((cells.weights, others)))
    if others > 1:
        cells = cut(grid, scales, cells, cells.roots(offset))
    # The least of two sums is known without the changes.
    changes = not alone or rounding == "stochastic"
    kept = changes_of_equals(density, cells, rows) if changes else np.zeros((0, rows.size.size))
    cells = resolved(density, grid, scales, cells, rows)
    parts = coefficients(density, cells, rows, changes=changes)
    square = 0.5 * share * rows.size**2
    terms = Terms.of(cells, parts, kept, rows.mass, n, offset[:, None])
    found, last = _expected(terms, square, tolerance)
    mse, top, lacking = -square @ found.absolute, -offset, last[0]
    lost = n * terms.highest * float(np.abs(square) @ unresolved(parts))
    if not changes:
        return np.array([mse, 0.0, 0.0, 0.0, 0.0, lacking + lost])
    clipping, bias, cross, *loss = n * found.weighted + own @ found.sign
    if loss:
        mse, top, lacking = square @ loss[0], own[3], last[1]
    terms_of = [square @ clipping, 0.5 * (share * rows.size) @ bias, square @ cross, top @ found.sign @ square]
    return np.array([mse, *terms_of, lacking + lost])


def _cells(density: Density, grid: Grid, family: Family, rounding: Rounding) -> Cells:
    high = float(family.rows.reach.max())
    low = 0.0 if even(density, grid) else -high
    return joint_cells(grid, family.scales, low, high, np.array(family.cuts), rounding)


def _tops(
    largest: Largest, grid: Grid, family: Family, rounding: Rounding, mse: float
) -> Iterator[tuple[Family, Array, Array]]:
    """Nodes of the largest value between the bounds of a family, d there, and what the second scale loses more."""
    density, n = largest.density, largest.others
    half = family.share.size // 2
    size, weight = family.rows.size[:half], family.share[:half] * (n + 1)
    cells = _cells(density, grid, family, rounding)
    # So many nodes at a time that rows and cells, which are cut at them, stay few.
    step = max(4, _CHUNK // (size.size * cells.values.shape[1]))
    for side in (1.0,) if cells.folded else (-1.0, 1.0):
        nodes, weights = _ring(cells, family.cuts[-1], side)
        for part in chunk_slices(nodes.size, step):
            u = nodes[part]
            place, of = (index.ravel() for index in np.indices((size.size, u.size)))
            offset, loss = loss_change(grid, family.scales, side * u, rounding)[:, :, of]
            m = size[place] * u[of]
            share = (2.0 if cells.folded else 1.0) * weight[place] * (size[place] * weights[part][of])
            share *= np.asarray(density.pdf(side * m))
            rows = Rows(size[place], u[of], np.exp(largest.log_inside(m)))
            most = np.maximum(np.abs(offset), np.abs(loss)).max(axis=0)
            keep = share * rows.mass**n * most * rows.size**2 > _UNSEEN * mse
            if keep.any():
                cuts = tuple(np.concatenate([-u, u]).tolist())
                rows = Rows(*(column[keep] for column in rows))
                top = Family(family.scales, rows, share[keep], n, cuts, side)
                yield top, offset[:, keep], loss[:, keep]


def _ring(cells: Cells, inner: float, side: float) -> tuple[Array, Array]:
    """Nodes and weights of an integral over |u| beyond `inner` on one side."""
    outer = float(cells.edges[-1])
    low = max(inner, outer * _SPAN)
    steps = np.geomspace(low, outer, 1 + int(np.ceil(np.log(outer / low) / _LOG_STEP)))
    roots = cells.roots(np.zeros(len(cells.values) - 1))
    ends = np.unique(np.concatenate([side * cells.edges, side * roots, steps]))
    ends = ends[(ends >= low) & (ends <= outer)]
    half = 0.5 * np.diff(ends)[:, None]
    few = outer < _CLOSE * low or half.size > _NODES
    node, weight = np.polynomial.legendre.leggauss(_FEW_NODES if few else _NODES)
    return (ends[:-1, None] + half * (node + 1)).ravel(), (half * weight).ravel()


def _maximum(largest: Largest, grid: Grid, top: tuple[Family, Array, Array], rounding: Rounding, mse: float) -> float:
    """What the choice changes in the error of the largest value."""
    family, offset, loss = top
    scales, rows, share, n, _, _ = family
    cells = resolved(largest.density, grid, scales, _cells(largest.density, grid, family, rounding), rows)
    parts = coefficients(largest.density, cells, rows)
    weight = 0.5 * share * rows.size**2
    none = np.zeros((0, rows.size.size))
    terms = Terms.of(cells, parts, none, rows.mass, n, offset)
    found, _ = _expected(terms, weight, _COARSER * _TOLERANCE * mse)
    return float((weight * (loss * found.sign).sum(axis=0)).sum())


def _expected(terms: Terms, size: Array, tolerance: float) -> tuple[Expected, Array]:
    if len(terms.level) == 1:
        return Sum(terms).expected(size, tolerance)
    return Medians(terms).expected(size, _OF_THREE * tolerance)
