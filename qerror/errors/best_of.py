"""The better of two scales for each block: what the choice changes in the mean of the two errors.

With S_1, S_2 the sums of a block's squared errors at its two scales, E[min(S_1, S_2)] = (E S_1 + E S_2 - E|D|) / 2 for
D = S_1 - S_2, and what else is of interest, the loss of stochastic rounding, too, is a mean of both and half of
E[(W_2 - W_1) sign D]; where D = 0 the first is taken. D is a sum of independent differences once the largest magnitude
M of the block is given, or bounded:

- any scales: M = m is x_1, the others lie within m, and both scales are proportional to it;
- stored scales: while M lies between two bounds both scales stay, and E[.; M <= m] at the bounds are subtracted.

A tensor's own scale is given by its largest magnitude T: the other blocks are stored scales with all values within T.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._threads import chunk_slices
from .._types import Array, Index
from ..densities.base import Density
from ..densities.block_maxima import Largest, finite
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import staircase
from ..grids.grid import Grid
from .difference_sums import Sum
from .differences import (
    Cells,
    Rounding,
    Rows,
    changes_of_equals,
    coefficients,
    joint_cells,
    loss_change,
    resolved,
    unresolved,
)

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
# Nodes of a panel of the largest value of a tensor: 5e-10 of the mse is lost. Those that are rarer are left out.
_OF_TENSOR, _RARE = 6, 1e-9


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


def best_of_change(
    density: Density,
    form: BlockFormat,
    unit: float,
    mse: float,
    rounding: Rounding = "nearest",
    size: int | None = None,
) -> Change:
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
    rounding : {"nearest", "stochastic"}
        Of the elements; blocks choose their scale by the nearest levels.
    size : int, optional
        Number of values of tensors that have their own scale; `unit` is not read.

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
        stairs = _Stairs.of(form, 1.0 if size else unit)
        whole = np.full(stairs.first.size, np.inf), np.ones(stairs.first.size)
        families = _of_tensors(largest, form, stairs, size) if size else _stored(largest, stairs, *whole)
    total = np.zeros(6)
    for family in families:
        total += _change(density, grid, family, rounding, _TOLERANCE * mse)
        if family.side == 0:
            tops = _tops(largest, grid, family, rounding, mse)
            total[4] += sum(_maximum(largest, grid, top, rounding, mse) for top in tops)
    if not total[5] <= _REQUIRED * mse:
        raise ValueError(
            f"density must be smoother, or elements coarser, for rule best_of: the error of {form.name} is known to "
            f"{total[5] / mse:.1g} of itself alone; qerror.simulate estimates it"
        )
    return Change(*map(float, total))


def _change(density: Density, grid: Grid, family: _Family, rounding: Rounding, tolerance: float) -> Array:
    """What one family adds to each field of Change."""
    scales, rows, share, n, _, side = family
    cells = _cells(density, grid, family, rounding)
    offset, own = cells.at_end(side) if side else (0.0, np.zeros(cells.weights))
    kept = changes_of_equals(density, cells, rows)
    cells = resolved(density, grid, scales, cells, rows)
    parts = coefficients(density, cells, rows, changes=True)
    square = 0.5 * share * rows.size**2
    terms = Sum(cells, parts, kept, rows.mass, n, np.array([offset]))
    found, last = terms.expected(square, tolerance)
    clipping, bias, cross, *loss = n * found.weighted + own[:, None] * found.sign
    mse, top, lacking = -square @ found.absolute, -offset, last[0]
    if loss:
        mse, top, lacking = square @ loss[0], own[3], last[1]
    lacking += n * terms.highest * float(np.abs(square) @ unresolved(parts))
    changes = [square @ clipping, 0.5 * (share * rows.size) @ bias, square @ cross, top * (square @ found.sign)]
    return np.array([mse, *changes, lacking])


def _cells(density: Density, grid: Grid, family: _Family, rounding: Rounding) -> Cells:
    high = float(family.rows.reach.max())
    low = 0.0 if _even(density, grid) else -high
    return joint_cells(grid, family.scales, low, high, np.array(family.cuts), rounding)


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


class _Stairs(NamedTuple):
    """The two scales that blocks choose from between bounds of M, where they differ: all of shape (J,)."""

    inner: Array
    outer: Array
    first: Array
    second: Array

    @classmethod
    def of(cls, form: BlockFormat, unit: float) -> _Stairs:
        """Those of a format at a tensor scale."""
        assert form.scale_format is not None
        one, two = (staircase(form.grid, form.scale_format, "absmax", c, unit) for c in form.constants)
        bounds = np.unique(np.concatenate([one.bounds, two.bounds]))
        bounds = bounds[np.append(np.diff(bounds) > 1e-13 * bounds[:-1], True)]
        middle = np.append(0.5 * (bounds[1:-1] + bounds[:-2]), np.inf)
        first, second = (step.scales[np.searchsorted(step.bounds, middle) - 1] for step in (one, two))
        differs = first != second
        return cls(bounds[:-1][differs], bounds[1:][differs], first[differs], second[differs])

    def at(self, largest: float) -> tuple[float, float]:
        """Both scales of a block, the same where it has no choice."""
        place = np.flatnonzero((self.inner < largest) & (largest <= self.outer))
        return (float(self.first[place[0]]), float(self.second[place[0]])) if place.size else (1.0, 1.0)

    def of_tensors(self, unit: Array) -> _Stairs:
        """All of several tensor scales."""
        return _Stairs(*(np.outer(unit, column).ravel() for column in self))

    def within(self, low: float, high: Array) -> tuple[_Stairs, Index]:
        """Those between ends, each cut at its upper one; and which."""
        outer = np.minimum(self.outer, high)
        some = np.flatnonzero(outer > np.maximum(self.inner, low))
        inner = np.where(self.inner > low, self.inner, 0.0)
        return _Stairs(inner[some], outer[some], self.first[some], self.second[some]), some


def _stored(largest: Largest, stairs: _Stairs, end: Array, weight: Array) -> Iterator[_Family]:
    """Scales of a format: bounds of M between which both stay, alike in every octave of the format.

    Each counts by its weight, with all values within its end.
    """
    n = largest.others + 1
    low, high = largest.span
    stairs, some = stairs.within(low, np.minimum(end, high))
    size = np.maximum(stairs.first, stairs.second)
    shapes, group = np.unique((np.stack(stairs) / size).round(13), axis=1, return_inverse=True)
    for index, (inner, outer, one, two) in enumerate(shapes.T.tolist()):
        of_group = np.flatnonzero(group == index)
        share = np.concatenate([weight[some][of_group], -weight[some][of_group]]) / n
        at, reach = np.tile(size[of_group], 2), np.repeat([outer, inner], of_group.size)
        rows = Rows(at, reach, np.exp(largest.log_inside(at * reach)))
        yield _Family((one, two), rows, share, n, (-inner, inner), 0.0)


def _of_tensors(largest: Largest, form: BlockFormat, stairs: _Stairs, size: int) -> Iterator[_Family]:
    """The scales of tensors of `size` values: given the largest magnitude t, and of the block that has it."""
    density, full = largest.density, (form.full_scale or 1.0) * form.grid.absmax
    t, share = largest.of_tensor(size, _OF_TENSOR)
    t, share = t[share > _RARE], share[share > _RARE]
    inside = np.exp(largest.log_inside(t))
    count = stairs.first.size
    weight = share * (1 - form.block_size / size) / inside**form.block_size
    yield from _stored(largest, stairs.of_tensors(t / full), np.repeat(t, count), np.repeat(weight, count))
    one, two = (scale / full for scale in stairs.at(full))
    up, down = np.asarray(density.pdf(t)), np.asarray(density.pdf(-t))
    for side in (1.0,) if _even(density, form.grid) else (-1.0, 1.0):
        ours = 1.0 if _even(density, form.grid) else (up if side > 0 else down) / (up + down)
        own = share * ours / size / inside**largest.others
        yield _Family((one, two), Rows(t, np.ones(t.size), inside), own, largest.others, (), side)


def _tops(
    largest: Largest, grid: Grid, family: _Family, rounding: Rounding, mse: float
) -> Iterator[tuple[_Family, Array, Array]]:
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
            offset, loss = loss_change(grid, family.scales, side * u, rounding)[:, of]
            m = size[place] * u[of]
            share = (2.0 if cells.folded else 1.0) * weight[place] * (size[place] * weights[part][of])
            share *= np.asarray(density.pdf(side * m))
            rows = Rows(size[place], u[of], np.exp(largest.log_inside(m)))
            most = np.maximum(np.abs(offset), np.abs(loss))
            keep = share * rows.mass**n * most * rows.size**2 > _UNSEEN * mse
            if keep.any():
                cuts = tuple(np.concatenate([-u, u]).tolist())
                rows = Rows(*(column[keep] for column in rows))
                top = _Family(family.scales, rows, share[keep], n, cuts, side)
                yield top, offset[keep], loss[keep]


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


def _maximum(largest: Largest, grid: Grid, top: tuple[_Family, Array, Array], rounding: Rounding, mse: float) -> float:
    """What the choice changes in the error of the largest value."""
    family, offset, loss = top
    scales, rows, share, n, _, _ = family
    cells = resolved(largest.density, grid, scales, _cells(largest.density, grid, family, rounding), rows)
    parts = coefficients(largest.density, cells, rows)
    weight = 0.5 * share * rows.size**2
    none = np.zeros((0, rows.size.size))
    found, _ = Sum(cells, parts, none, rows.mass, n, offset).expected(weight, _COARSER * _TOLERANCE * mse)
    return float((weight * loss) @ found.sign)
