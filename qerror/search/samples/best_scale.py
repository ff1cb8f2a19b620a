"""What a search on a sample answers: the best scale of each row, its local minima, the interval around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..._threads import chunk_slices, thread_map
from ..._types import Array, Index
from ...densities.base import Density
from ...errors.exact import quantization_error
from ...grids.grid import Grid
from ...results import ErrorTerms, Minimum, Status
from ...samples.rows import rows_of
from ..found import RESOLUTION, TOLERANCE, Found, distinct
from ..points import Points, first_of_each
from ..roots import Excess, rising_roots
from . import branch_and_bound as sample
from .cells import Cells

# Values of the rows that a worker searches together: the more, the less threads wait for each other; short rows take
# memory for every value.
_CHUNK, _SHORT_CHUNK = 1 << 22, 1 << 21
# Local minima within this share of the best are listed, where no more crossings than this lie near them.
_WITHIN = 0.01
_LISTED = 1 << 18
# An error of this share of the power is seen through sums that are right to a few ulp of the power.
_BARE = 1e-9
_TIES = 1e-12
# Steps by which the end of the 1 % interval is looked for, and how many at a time.
_STEP = 2.0**0.125
_AT_ONCE = 4


T = TypeVar("T")


class RowScales(NamedTuple):
    """The best scale of each row (1.0 where none is better than another), and what is known of it."""

    scale: Array
    status: NDArray[np.object_]


def best_of_rows(density: Density, grid: Grid, shift: Array, certify: bool | None = None) -> RowScales:
    """The scale of least error for each member of a sample, rounding to nearest; `shift` has shape (R,)."""

    def work(cells: Cells) -> RowScales:
        return _scales(cells, sample.search(cells, _budget(certify)))

    return RowScales(*map(np.concatenate, zip(*_by_chunks(density, grid, shift, work), strict=True)))


def found_in_rows(density: Density, grid: Grid, shift: Array, certify: bool | None = None) -> Found:
    """The same with the local minima near the best and the interval around it."""

    def work(cells: Cells) -> tuple[RowScales, Index, Array, Array]:
        best = sample.search(cells, _budget(certify))
        answer = _scales(cells, best)
        row, scale = _others(cells, best, answer.scale)
        return answer, row, scale, _interval(cells, best, answer.scale)

    parts = _by_chunks(density, grid, shift, work)
    answer = RowScales(*map(np.concatenate, zip(*(part[0] for part in parts), strict=True)))
    start = np.cumsum([0] + [part[0].scale.size for part in parts])
    # The best scale of each row first, then its other minima.
    row = np.concatenate([np.arange(shift.size), *(part[1] + at for part, at in zip(parts, start, strict=False))])
    scale = np.concatenate([answer.scale, *(part[2] for part in parts)])
    members = density.take(row) if density.shape else density
    terms = quantization_error(members, grid, scale, shift[row])
    mse, minima = np.asarray(terms.mse), []
    order = np.lexsort((scale, mse, row))
    first = np.arange(shift.size)
    for member, here in enumerate(np.split(order, np.searchsorted(row[order], np.arange(1, shift.size)))):
        kept = distinct(here, scale, mse, _WITHIN)
        first[member] = kept[0]
        live = answer.status[member] in (Status.EXACT, Status.SCANNED)
        minima.append(tuple(Minimum(float(scale[i]), float(shift[member]), float(mse[i])) for i in kept if live))
    chosen = ErrorTerms(*(np.asarray(value)[first] for value in vars(terms).values()))
    interval = np.concatenate([part[3] for part in parts], axis=1)
    interval = np.where(mse[first] > 0, interval, np.where(np.isnan(interval), interval, scale[first]))
    return Found(scale[first], chosen, minima, interval, answer.status)


def _budget(certify: bool | None) -> float:
    return {None: sample.BUDGET, True: np.inf, False: 0.0}[certify]


def _by_chunks(density: Density, grid: Grid, shift: Array, work: Callable[[Cells], T]) -> list[T]:
    held = rows_of(density)
    assert held is not None
    rows, source = held
    source = np.broadcast_to(source, shift.shape)
    if len(rows.values) == 1:
        # Members that share a row share what is prepared of it.
        return [work(Cells(rows, grid, shift[i : i + 1])) for i in range(shift.size)]
    most = _SHORT_CHUNK if Cells(rows, grid, shift).short else _CHUNK
    parts = chunk_slices(shift.size, max(1, most // rows.n))
    return thread_map(lambda part: work(Cells(rows.select(source[part]), grid, shift[part])), parts)


def _scales(cells: Cells, best: sample.Best) -> RowScales:
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.where(best.live, best.b / best.c, 1.0)
        gain = np.where(best.live, best.b * best.b / best.c, 0.0)
    if cells.grid.float_spec is not None:
        _halve(cells, scale, best.live)
    # Where hardly any error is left, the rounding of prefix sums would show.
    bare = np.flatnonzero(best.live & (gain >= (1 - _BARE) * cells.power))
    if bare.size:
        _settle(cells, best, scale, bare)
    status = np.full(scale.size, Status.SCANNED, object)
    status[best.proven] = Status.EXACT
    status[~best.live] = Status.DEGENERATE if bool((cells.grid.levels == 0).any()) else Status.DEGENERATE_NONE
    return RowScales(scale, status)


def _settle(cells: Cells, best: sample.Best, scale: Array, bare: Index) -> None:
    """Among the minima that differ by roundings take the one that quantizing the values itself finds the best."""
    row, others = _minima(cells, best, _TIES)
    kept = np.isin(row, bare)
    row, tried = np.concatenate([bare, row[kept]]), np.concatenate([scale[bare], others[kept]])
    tried = cells.settle(row, tried)
    mse = cells.direct_mse(row, tried)
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


def _others(cells: Cells, best: sample.Best, scale: Array) -> tuple[Index, Array]:
    """Local minima within 1 % of the best, of the rows where they are not too many to be listed."""
    if cells.short:
        return _minima(cells, best, _WITHIN)
    row = np.flatnonzero(best.live)
    ends = cells.evaluate(np.tile(row, 2), np.concatenate([scale[row] * 0.97, scale[row] * 1.03])).crossed
    low, high = np.split(ends, 2)
    if (high - low).max(initial=0) > _LISTED or not row.size or not best.proven.all():
        return np.empty(0, np.intp), np.empty(0)
    return _minima(cells, best, _WITHIN)


def _minima(cells: Cells, best: sample.Best, within: float) -> tuple[Index, Array]:
    return sample.minima(cells, best, within, sample.BUDGET)


def _interval(cells: Cells, best: sample.Best, scale: Array) -> Array:
    """Where the MSE first exceeds 1.01 times the best, on either side: shape (2, rows)."""
    ends = np.array([np.zeros(scale.size), np.full(scale.size, np.inf)])
    ends[:, ~best.live] = np.nan
    row = np.flatnonzero(best.live)
    if not row.size:
        return ends
    goal = np.zeros(scale.size)
    goal[row] = 1.01 * np.maximum(_points(cells, row, scale[row]).mse, 0.0)
    # Within 1 % of no error at all there is only the best scale.
    ends[:, row] = np.where(goal[row] > 0, ends[:, row], scale[row])
    row = row[goal[row] > 0]
    for sign in (-1, 1):
        inner, outer = _bracket(cells, row, scale, goal, sign)
        found = np.isfinite(outer)
        owner = row[found]
        start, stop = np.sort([inner[found], outer[found]], axis=0)
        ends[(sign + 1) // 2, owner] = rising_roots(
            lambda i, s, owner=owner: _points(cells, owner[i], s),  # type: ignore[misc]
            [Excess(least, sign) for least in (goal[owner] / 1.01).tolist()],
            _points(cells, owner, start),
            _points(cells, owner, stop),
        )
    return ends


def _bracket(cells: Cells, row: Index, scale: Array, goal: Array, sign: int) -> tuple[Array, Array]:
    """Two scales on either side of where the error meets the goal; the outer one is inf where it never does."""
    inner, outer = scale[row].copy(), np.full(row.size, np.inf)
    power = cells.power[row]
    # A - MSE <= 2 s reach; and beyond the largest scale the error is one parabola, constant where 0 is a level.
    with np.errstate(divide="ignore"):
        limit = 0.5 * (power - goal[row]) / cells.reach[row] if sign < 0 else 4 * cells.largest_scale[row]
    open_ = np.flatnonzero(limit > 0)
    while open_.size:
        steps = inner[open_, None] * _STEP ** (sign * np.arange(1, _AT_ONCE + 1))
        owner = np.repeat(row[open_], _AT_ONCE)
        above = (_points(cells, owner, steps.ravel()).mse > goal[owner]).reshape(steps.shape)
        first = np.argmax(above, axis=1)
        met = above[np.arange(open_.size), first]
        before = np.where(met, first - 1, _AT_ONCE - 1)
        moved = before >= 0
        inner[open_[moved]] = steps[moved, before[moved]]
        outer[open_[met]] = steps[met, first[met]]
        open_ = open_[~met]
        open_ = open_[(inner[open_] > limit[open_]) if sign < 0 else (inner[open_] < limit[open_])]
    return inner, outer
