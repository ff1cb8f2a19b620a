"""Conditions under which the scales that a block chooses from stay, or are proportional to its largest magnitude.

Given them a block's errors are sums of independent terms; see `best_of`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .._types import Array, Index
from ..densities.base import Density
from ..densities.block_maxima import Largest, finite
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import staircase
from ..grids.grid import Grid
from .differences import Rows, Scales

# Nodes that count less than this share are left out; jumps of the pdf by nodes at a time.
_LEFT_OUT, _MOST_JUMPS = 1e-15, 256
# Nodes of a panel of the largest value of a tensor: 5e-10 of the mse is lost. Those that are rarer are left out.
_OF_TENSOR, _RARE = 6, 1e-9


class Family(NamedTuple):
    """Conditions under which scales and blocks are alike but for their size.

    Attributes
    ----------
    scales : tuple of float
        Of the candidates, in units of the size.
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

    scales: Scales
    rows: Rows
    share: Array
    others: int
    cuts: tuple[float, ...]
    side: float


def families(largest: Largest, form: BlockFormat, unit: float, size: int | None, mse: float) -> Iterator[Family]:
    """All conditions of a format, at a tensor scale or for tensors of `size` values.

    Examples
    --------
    >>> import qerror as qe
    >>> form = qe.BlockFormat("e2m1", 16, "e8m0", rule="best_of", constant=(1, 2))
    >>> [family.scales for family in families(Largest(qe.Gaussian(), 16), form, 1.0, None, 0.01)][-1]
    (0.5, 1.0)
    """
    if form.scale_format is None:
        return _any_scale(largest, form, mse)
    stairs = _Stairs.of(form, 1.0 if size else unit)
    if size:
        return _of_tensors(largest, form, stairs, size)
    return _stored(largest, stairs, np.full(stairs.inner.size, np.inf), np.ones(stairs.inner.size))


def even(density: Density, grid: Grid) -> bool:
    """Whether x and -x are alike."""
    return density.symmetric and not np.any(density.mean) and np.array_equal(grid.levels, -grid.levels[::-1])


def _any_scale(largest: Largest, form: BlockFormat, mse: float) -> Iterator[Family]:
    """Scales that follow M: its nodes, as the value at either end."""
    density, grid = largest.density, form.grid
    scales = tuple(constant / grid.absmax for constant in form.constants)
    marks = np.abs(np.concatenate([grid.thresholds, [grid.min, grid.max]]))
    # Where a threshold meets a jump of the pdf the errors as functions of M have kinks.
    with np.errstate(divide="ignore"):
        meet = np.abs(density.kinks).ravel()[:, None] / np.outer(scales, marks).ravel()
    m, dm = largest.nodes(finite(meet))
    # Cells are cut at the jumps of the pdf, which lie elsewhere for each m.
    step = max(1, _MOST_JUMPS // density.kinks.size) if density.kinks.size else m.size
    for side in (1.0,) if even(density, grid) else (-1.0, 1.0):
        share = dm * (largest.both_sides(m) if even(density, grid) else np.asarray(density.pdf(side * m)))
        keep = np.flatnonzero(share * largest.below(m) * m**2 > _LEFT_OUT * mse)
        for some in (keep[first : first + step] for first in range(0, keep.size, step)):
            rows = Rows(m[some], np.ones(some.size), np.exp(largest.log_inside(m[some])))
            yield Family(scales, rows, share[some], largest.others, (), side)


class _Stairs(NamedTuple):
    """The scales (K, J) that blocks choose from between bounds (J,) of M, where not all are the same."""

    inner: Array
    outer: Array
    scales: Array

    @classmethod
    def of(cls, form: BlockFormat, unit: float) -> _Stairs:
        """Those of a format at a tensor scale."""
        assert form.scale_format is not None
        steps = [staircase(form.grid, form.scale_format, "absmax", c, unit) for c in form.constants]
        bounds = np.unique(np.concatenate([step.bounds for step in steps]))
        bounds = bounds[np.append(np.diff(bounds) > 1e-13 * bounds[:-1], True)]
        middle = np.append(0.5 * (bounds[1:-1] + bounds[:-2]), np.inf)
        scales = np.stack([step.scales[np.searchsorted(step.bounds, middle) - 1] for step in steps])
        differs = (scales != scales[0]).any(axis=0)
        return cls(bounds[:-1][differs], bounds[1:][differs], scales[:, differs])

    def at(self, largest: float) -> Scales:
        """The scales of a block, all the same where it has no choice."""
        place = np.flatnonzero((self.inner < largest) & (largest <= self.outer))
        return tuple(self.scales[:, place[0]].tolist()) if place.size else (1.0,) * len(self.scales)

    def of_tensors(self, unit: Array) -> _Stairs:
        """All of several tensor scales."""
        scales = np.multiply.outer(unit, self.scales).swapaxes(0, 1).reshape(len(self.scales), -1)
        return _Stairs(np.outer(unit, self.inner).ravel(), np.outer(unit, self.outer).ravel(), scales)

    def within(self, low: float, high: Array) -> tuple[_Stairs, Index]:
        """Those between ends, each cut at its upper one; and which."""
        outer = np.minimum(self.outer, high)
        some = np.flatnonzero(outer > np.maximum(self.inner, low))
        inner = np.where(self.inner > low, self.inner, 0.0)
        return _Stairs(inner[some], outer[some], self.scales[:, some]), some


def _stored(largest: Largest, stairs: _Stairs, end: Array, weight: Array) -> Iterator[Family]:
    """Scales of a format: bounds of M between which all stay, alike in every octave of the format.

    Each counts by its weight, with all values within its end.
    """
    n = largest.others + 1
    low, high = largest.span
    stairs, some = stairs.within(low, np.minimum(end, high))
    size = stairs.scales.max(axis=0)
    columns = np.concatenate([[stairs.inner], [stairs.outer], stairs.scales])
    shapes, group = np.unique((columns / size).round(13), axis=1, return_inverse=True)
    for index, (inner, outer, *scales) in enumerate(shapes.T.tolist()):
        of_group = np.flatnonzero(group == index)
        share = np.concatenate([weight[some][of_group], -weight[some][of_group]]) / n
        at, reach = np.tile(size[of_group], 2), np.repeat([outer, inner], of_group.size)
        rows = Rows(at, reach, np.exp(largest.log_inside(at * reach)))
        yield Family(tuple(scales), rows, share, n, (-inner, inner), 0.0)


def _of_tensors(largest: Largest, form: BlockFormat, stairs: _Stairs, size: int) -> Iterator[Family]:
    """The scales of tensors of `size` values: given the largest magnitude t, and of the block that has it."""
    density, full = largest.density, (form.full_scale or 1.0) * form.grid.absmax
    t, share = largest.of_tensor(size, _OF_TENSOR)
    t, share = t[share > _RARE], share[share > _RARE]
    inside = np.exp(largest.log_inside(t))
    count = stairs.inner.size
    weight = share * (1 - form.block_size / size) / inside**form.block_size
    yield from _stored(largest, stairs.of_tensors(t / full), np.repeat(t, count), np.repeat(weight, count))
    scales = tuple(scale / full for scale in stairs.at(full))
    up, down = np.asarray(density.pdf(t)), np.asarray(density.pdf(-t))
    for side in (1.0,) if even(density, form.grid) else (-1.0, 1.0):
        ours = 1.0 if even(density, form.grid) else (up if side > 0 else down) / (up + down)
        own = share * ours / size / inside**largest.others
        yield Family(scales, Rows(t, np.ones(t.size), inside), own, largest.others, (), side)
