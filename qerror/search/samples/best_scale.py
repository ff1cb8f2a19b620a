"""What a search on a sample answers: the best scale of each row, its local minima, the interval around it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..._threads import chunk_slices, thread_map
from ..._types import Array, Index
from ...densities.base import Density
from ...errors.quantization import quantization_error
from ...grids.grid import Grid
from ...results import ErrorTerms, Minimum, Status
from ...samples.rows import rows_of
from ..found import RESOLUTION, TOLERANCE, Found, any_scale, distinct
from ..points import Points, first_of_each
from . import branch_and_bound, kernels
from .cells import Cells
from .interval import one_percent

# Values of the rows that a worker searches together: the more, the less threads wait for each other. Short rows take
# memory for every value, and rows that are not long as much for their intervals as some thousands of values take.
_CHUNK, _SHORT_CHUNK = 1 << 22, 1 << 18
_LONG_ROW, _FEW_ROWS = 1 << 12, 1 << 8
# Local minima within this share of the best are listed, where no more crossings than this lie near them.
_WITHIN = 0.01
_LISTED = 1 << 18
# An error of this share of the power is seen through sums that are right to a few ulp of the power.
_BARE = 1e-9
_TIES = 1e-12
# Noise of this share of the power leaves nothing proven.
_SEEN = 1e-6


T = TypeVar("T")


class RowScales(NamedTuple):
    """The best scale of each row (1.0 where none is better than another), and what is known of it."""

    scale: Array
    status: NDArray[np.object_]


def best_of_rows(density: Density, grid: Grid, shift: Array, certify: bool | None = None) -> RowScales:
    """The scale of least error for each member of a sample, rounding to nearest; `shift` has shape (R,)."""

    def work(cells: Cells, _: Density) -> RowScales:
        return _scales(cells, branch_and_bound.search(cells, _budget(certify)))

    return RowScales(*map(np.concatenate, zip(*_by_chunks(density, grid, shift, work), strict=True)))


def found_in_rows(density: Density, grid: Grid, shift: Array, certify: bool | None = None) -> Found:
    """The same with the local minima near the best and the interval around it."""
    parts = _by_chunks(density, grid, shift, lambda cells, members: _found(cells, members, certify))
    scale, terms, minima, interval, status = zip(*parts, strict=True)
    columns = zip(*(vars(some).values() for some in terms), strict=True)
    return Found(
        np.concatenate(scale),
        ErrorTerms(*map(np.concatenate, columns)),
        list(itertools.chain(*minima)),
        np.concatenate(interval, axis=1),
        np.concatenate(status),
    )


def _found(cells: Cells, members: Density, certify: bool | None) -> Found:
    best = branch_and_bound.search(cells, _budget(certify))
    answer = _scales(cells, best)
    # The best scale of each row first, then its other minima.
    others, other_scales = _others(cells, best, answer.scale)
    count = answer.scale.size
    row, scale = np.concatenate([np.arange(count), others]), np.concatenate([answer.scale, other_scales])
    terms = quantization_error(members.take(row), cells.grid, scale, cells.shift[row])
    mse, minima = np.asarray(terms.mse), []
    order, first = np.lexsort((scale, mse, row)), np.arange(count)
    for member, here in enumerate(np.split(order, np.searchsorted(row[order], np.arange(1, count)))):
        kept = distinct(here, scale, mse, _WITHIN)
        first[member] = kept[0]
        shift = float(cells.shift[member])
        minima.append(tuple(Minimum(float(scale[i]), shift, float(mse[i])) for i in kept if best.live[member]))
    live = np.flatnonzero(best.live)
    ends = np.full((2, count), np.nan)
    ends[:, live] = one_percent(cells, live, scale[first][live], mse[first][live])
    chosen = ErrorTerms(*(np.asarray(value)[first] for value in vars(terms).values()))
    return Found(scale[first], chosen, minima, ends, answer.status)


def _budget(certify: bool | None) -> float:
    return {None: branch_and_bound.BUDGET, True: np.inf, False: 0.0}[certify]


def _by_chunks(density: Density, grid: Grid, shift: Array, work: Callable[[Cells, Density], T]) -> list[T]:
    held = rows_of(density)
    assert held is not None
    rows, source = held
    source = np.broadcast_to(source, shift.shape)
    if len(rows.values) == 1:
        # Members that share a row share what is prepared of it.
        every = [slice(i, i + 1) for i in range(shift.size)]
        return [work(Cells(rows, grid, shift[part]), _members(density, part)) for part in every]
    if Cells(rows, grid, shift).short or kernels.compiled():
        size = _SHORT_CHUNK // rows.n
    else:
        size = _CHUNK // rows.n if rows.n >= _LONG_ROW else _FEW_ROWS
    parts = chunk_slices(shift.size, max(1, size))
    return thread_map(
        lambda part: work(Cells(rows.select(source[part]), grid, shift[part]), _members(density, part)), parts
    )


def _members(density: Density, part: slice) -> Density:
    return density.take(np.arange(part.start, part.stop))


def _scales(cells: Cells, best: branch_and_bound.Best) -> RowScales:
    seen = best.live & (best.b > 0) & (best.c > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(seen, best.b / best.c, any_scale(cells.grid))
        gain = np.where(seen, best.b * best.b / best.c, 0.0)
    # Where noise covers every gain, a scale at which the farthest value has a level next to 0.
    hidden = best.live & ~seen
    scale[hidden] = 0.6 * cells.largest_scale[hidden]
    if cells.grid.float_spec is not None:
        _halve(cells, scale, best.live)
    if not cells.short:
        _by_itself(cells, scale, np.flatnonzero(seen))
    # Where hardly any error is left, the rounding of prefix sums would show.
    # Where sums resolve hardly any of the power, nothing is proven but that no error is the least.
    unseen = hidden | (best.live & (cells.noise > _SEEN * cells.power))
    bare = np.flatnonzero(unseen | (best.live & (gain >= (1 - _BARE) * cells.power)))
    if bare.size:
        _settle(cells, best, scale, bare)
        unseen[bare] &= cells.direct(bare, scale[bare])[0] > RESOLUTION**2 * cells.power[bare]
    status = np.full(scale.size, Status.SCANNED, object)
    status[best.proven & ~unseen] = Status.EXACT
    status[~best.live] = Status.DEGENERATE if bool((cells.grid.levels == 0).any()) else Status.DEGENERATE_NONE
    return RowScales(scale, status)


def _by_itself(cells: Cells, scale: Array, row: Index) -> None:
    """B / C at the scale in place of the sum from where the search began, which depends on the rows beside this one."""
    b, c, _ = cells.evaluate(row, scale[row])
    good = (b > 0) & (c > 0)
    scale[row[good]] = b[good] / c[good]


def _settle(cells: Cells, best: branch_and_bound.Best, scale: Array, bare: Index) -> None:
    """Among the minima that differ by roundings take the one that quantizing the values itself finds the best."""
    row, others = _minima(cells, best, _TIES)
    kept = np.isin(row, bare)
    row, tried = np.concatenate([bare, row[kept]]), np.concatenate([scale[bare], others[kept]])
    tried = cells.settle(row, tried)
    mse = cells.direct(row, tried)[0]
    first = first_of_each(row, mse, tried)
    scale[row[first]] = tried[first]


def _halve(cells: Cells, scale: Array, live: NDArray[np.bool_]) -> None:
    """Floating grids give the very same error at half the scale, until they clip: the smallest scale stands for all."""
    levels = np.abs(cells.grid.levels)
    farthest = np.maximum(np.abs(cells.rows.least - cells.shift), np.abs(cells.rows.greatest - cells.shift))
    row = np.flatnonzero(live)
    while True:
        # Half the scale does as well only if it clips nothing.
        row = row[4 * farthest[row] < scale[row] * (3 * levels.max() - np.unique(levels)[-2])]
        if not row.size:
            return
        mse = _points(cells, np.tile(row, 2), np.concatenate([scale[row], 0.5 * scale[row]])).mse
        here, half = np.split(mse, 2)
        same = half <= here * (1 + TOLERANCE) + RESOLUTION * cells.power[row]
        row = row[same]
        scale[row] *= 0.5


def _points(cells: Cells, row: Index, scale: Array) -> Points:
    b, c, _ = cells.evaluate(row, scale)
    return Points.of(row, scale, cells.power[row], b, c)


def _others(cells: Cells, best: branch_and_bound.Best, scale: Array) -> tuple[Index, Array]:
    """Local minima within 1 % of the best, of the rows where they are not too many to be listed."""
    if cells.short:
        return _minima(cells, best, _WITHIN)
    row = np.flatnonzero(best.live)
    ends = cells.evaluate(np.tile(row, 2), np.concatenate([scale[row] * 0.97, scale[row] * 1.03])).crossed
    low, high = np.split(ends, 2)
    if (high - low).max(initial=0) > _LISTED or not row.size or not best.proven.all():
        return np.empty(0, np.intp), np.empty(0)
    return _minima(cells, best, _WITHIN)


def _minima(cells: Cells, best: branch_and_bound.Best, within: float) -> tuple[Index, Array]:
    return branch_and_bound.minima(cells, best, within, branch_and_bound.BUDGET)
