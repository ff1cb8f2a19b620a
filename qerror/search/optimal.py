"""The scale of least error: the global minimum, and the proof that it is."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import check_choice, check_finite
from ..densities.base import Density
from ..error import MODELS, ROUNDINGS, Model, Rounding, quantization_error
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import ErrorTerms, Minimum, ScaleResult, Status
from . import bounds
from .objective import Array, Index, Objective, Points, join
from .roots import bracketed_roots

__all__ = ["excess_db", "optimal_scale"]

Shift = Literal["mean", "optimal"]

# Scales an octave in the scan of a smooth density: enough to separate the minima of every named format.
_PER_OCTAVE = 8
# MSEs closer than this (relative) are one minimum, and a proof stops there.
_TOLERANCE = 1e-12
# Thresholds that a proof may cost before it becomes an option (about 10 ms).
_CHEAP_PROOF = 400_000
_DEAR_PROOF = 40_000_000


def optimal_scale(
    density: Density,
    grid: Grid | str,
    *,
    shift: Shift | ArrayLike = 0.0,
    model: Model = "exact",
    rounding: Rounding = "nearest",
    certify: bool | None = None,
) -> ScaleResult:
    """The scale that minimizes the mean squared error over all s > 0.

    Parameters
    ----------
    density : Density
        Of any `shape`; a sample is `Empirical(x)`.
    grid : Grid or str
    shift : array_like, "mean" or "optimal"
        The value that level 0 stands for: given, the mean of the density, or optimized together with the scale.
    model : {"exact", "high_resolution"}
        What is minimized.
    rounding : {"nearest", "stochastic"}
    certify : bool, optional
        Whether to prove the minimum global by the convexity of (A - MSE) / s^2 in 1 / s. None: always on a sample,
        and on other densities where it is cheap (not where copies of a minimum an octave apart differ by 1e-12).

    Returns
    -------
    ScaleResult
        Fields of the broadcast shape of density and shift.

    Raises
    ------
    ValueError
        For an unknown grid, shift, model or rounding, or a shift that is not finite.

    Examples
    --------
    >>> import qerror as qe
    >>> result = qe.optimal_scale(qe.Gaussian(), "binary")
    >>> round(float(result.scale), 12), result.status.name
    (0.797884560803, 'EXACT')
    """
    check_choice("rounding", rounding, ROUNDINGS)
    check_choice("model", model, MODELS)
    levels = as_grid(grid)
    if isinstance(shift, str):
        check_choice("shift", shift, ("mean", "optimal"))
        if shift == "optimal":
            from .free_shift import optimal_scale_and_shift

            return optimal_scale_and_shift(density, levels, model=model, rounding=rounding)
        fixed = np.asarray(density.mean, np.float64)
    else:
        fixed = np.asarray(shift, np.float64)
        check_finite("shift", fixed)
    shape = np.broadcast_shapes(density.shape, fixed.shape)
    members = density
    if density.shape:
        index = np.arange(int(np.prod(density.shape))).reshape(density.shape)
        members = density.take(np.broadcast_to(index, shape).ravel())
    objective = Objective(members, levels, np.broadcast_to(fixed, shape).ravel(), rounding, model)
    return _Search(objective, certify).result(shape)


def excess_db(
    density: Density,
    grid: Grid | str,
    scale: ArrayLike,
    shift: ArrayLike = 0.0,
    *,
    model: Model = "exact",
    rounding: Rounding = "nearest",
) -> Any:
    """Decibels lost by a scale against the best one at the same shift: 10 log10(MSE(scale) / min MSE) >= 0.

    Parameters
    ----------
    density, grid, scale, shift, model, rounding
        As in `quantization_error`.

    Returns
    -------
    float or ndarray
        dB of the broadcast shape; 0 where both errors are 0.

    Examples
    --------
    >>> import qerror as qe
    >>> round(float(qe.excess_db(qe.Gaussian(), "int4", 0.25)), 3)
    2.762
    """
    here = np.asarray(quantization_error(density, grid, scale, shift, model=model, rounding=rounding).mse)
    best = np.asarray(optimal_scale(density, grid, shift=shift, model=model, rounding=rounding).error.mse)
    with np.errstate(divide="ignore", invalid="ignore"):
        loss = 10 * np.log10(here / best)
    return np.where(here <= best, 0.0, loss)[()]


class _Search:
    """One search over the scale for each row of an objective."""

    def __init__(self, objective: Objective, certify: bool | None) -> None:
        self.objective = objective
        self.rows = objective.shift.size
        self.sample = objective.density.has_atoms and objective.density.panels().shape[-1] == 0
        self.certify = certify
        self.reach = bounds.reach(objective)
        self.status = np.full(self.rows, Status.SCANNED, object)
        self.active = np.flatnonzero(self.reach > 0)
        zero = bool((objective.grid.levels == 0).any())
        self.status[self.reach <= 0] = Status.DEGENERATE if zero else Status.DEGENERATE_NONE
        nowhere = np.empty(0)
        self.points = Points(np.empty(0, np.intp), nowhere, nowhere, nowhere, nowhere, nowhere)

    def evaluate(self, row: Index, scale: Array) -> Points:
        """Evaluate and remember."""
        new = self.objective(row, scale)
        self.points = join([self.points, new])
        return new

    def best(self) -> Array:
        """Least MSE known for each row: the parabola A - 2 s B + s^2 C of a point is never below the MSE."""
        least = np.full(self.rows, np.inf)
        np.minimum.at(least, self.points.row, self.points.mse)
        if self.objective.convex:
            with np.errstate(divide="ignore", invalid="ignore"):
                below = self.objective.power[self.points.row] - self.points.b**2 / self.points.c
            np.fmin.at(least, self.points.row, np.where(self.points.b > 0, below, np.inf))
        return np.where(np.isfinite(least), np.maximum(least, 0.0), 0.0)

    def scan(self) -> None:
        """Coarse, then at `_PER_OCTAVE`, over every scale that can be the best."""
        objective, rows = self.objective, self.active
        power, grid = objective.power[rows], objective.grid
        low = 0.25 * power / self.reach[rows]
        levels = np.abs(grid.levels)
        high = np.maximum(2 * np.sqrt(power) / levels[levels > 0].min(), 2 * low)
        self.evaluate(*_ladder(rows, low, high, 1))
        best = self.best()
        gain = (objective.power - best)[rows]
        low = np.minimum(low, 0.5 * np.maximum(gain, 1e-3 * power) / self.reach[rows])
        high = np.maximum(bounds.largest_scale(objective, np.where(np.isfinite(best), best, 0.0))[rows], 2 * low)
        self.limits = (low, high)
        self.evaluate(*_ladder(rows, low, high, 2 if self.sample else _PER_OCTAVE))
        kinks = objective.density.kinks
        if kinks.shape[-1] and len(grid.levels) <= 512:
            self.evaluate(*self._breakpoints(np.broadcast_to(kinks, (self.rows, kinks.shape[-1]))))

    def _breakpoints(self, kinks: Array) -> tuple[Index, Array]:
        """Scales at which a jump of the pdf meets a threshold: between them the MSE is smooth."""
        t = self.objective.grid.thresholds
        distance = (kinks - self.objective.shift[:, None])[self.active]
        with np.errstate(divide="ignore", invalid="ignore"):
            scale = (distance[:, :, None] / t[t != 0]).reshape(self.active.size, -1)
        row = np.broadcast_to(self.active[:, None], scale.shape)
        inside = (scale > self.limits[0][:, None]) & (scale < self.limits[1][:, None])
        return row[inside], scale[inside]

    def refine(self) -> Points:
        """The local minima between scanned scales: roots of the slope from - to +."""
        left, right = self.points.select(slice(None, -1)), self.points.select(slice(1, None))  # type: ignore[arg-type]
        dips = (left.row == right.row) & (left.slope < 0) & (right.slope >= 0) & ~self._copies()
        left, right = left.select(dips), right.select(dips)

        def slope(index: Index, scale: Array) -> Array:
            return self.objective(left.row[index], scale).slope

        scale = bracketed_roots(slope, left.scale, right.scale, left.slope, right.slope, 1e-6)
        return self.evaluate(left.row, scale) if scale.size else self.points.select(np.empty(0, np.intp))

    def _copies(self) -> NDArray[np.bool_]:
        """Intervals whose ends have the MSEs of the ends half their scale: the same minimum, an octave up.

        Floating grids repeat themselves; the smallest scale stands for minima within 1e-12 of each other.
        """
        points = self.points
        key = np.round(np.log2(points.scale) * 2**20).astype(np.int64) + points.row * 2**40
        order = np.argsort(key, kind="stable")
        below = order[np.minimum(np.searchsorted(key[order], key - 2**20), key.size - 1)]
        same = (key[below] == key - 2**20) & (np.abs(points.mse - points.mse[below]) <= _TOLERANCE * points.mse)
        return same[:-1] & same[1:] & (np.diff(below) == 1)

    def descend(self) -> Points:
        """On a sample: from the best pieces, s <- B / C until no value changes its cell."""
        points = self.points
        with np.errstate(divide="ignore", invalid="ignore"):
            reach = self.objective.power[points.row] - points.b**2 / points.c
        usable = (points.b > 0) & (points.c > 0)
        near = reach <= self.best()[points.row] * 1.01 + bounds.RESOLUTION * self.objective.power[points.row]
        start = points.select(usable & near)
        # The best few of each row; the rest of the pieces within 1 % end in the same minima or worse ones.
        order = np.lexsort((reach[usable & near], start.row))
        start = start.select(order)
        rank = np.arange(start.row.size) - np.searchsorted(start.row, start.row)
        moving = start.select(rank < 8)
        settled = []
        for _ in range(200):
            if not moving.row.size:
                break
            new = self.objective(moving.row, moving.b / moving.c)
            done = ((new.b == moving.b) & (new.c == moving.c)) | (new.scale == moving.scale)
            settled.append(new.select(done))
            moving = new.select(~done)
        settled.append(moving)
        found = Points(*(np.concatenate(column) for column in zip(*settled, strict=True)))
        self.points = join([self.points, found])
        return found

    def prove(self) -> None:
        """Bisect whatever may still hold a better scale until nothing may, or until it costs too much."""
        always = self.sample or bool(self.certify)
        budget = _DEAR_PROOF * max(1, self.rows) if always else _CHEAP_PROOF
        spent, thresholds = 0, self.objective.grid.thresholds.size
        open_rows = self.active
        for _ in range(200):
            place, goal = bounds.undecided(self.objective, self.points, self.best(), _TOLERANCE)
            open_rows = np.unique(self.points.row[place])
            if not place.size:
                break
            row, scale = bounds.split(self.objective, self.points, place, goal, 64)
            spent += row.size * thresholds
            if spent > budget:
                break
            self.evaluate(row, scale)
        closed = np.setdiff1d(self.active, open_rows)
        self.status[closed] = Status.EXACT

    def result(self, shape: tuple[int, ...]) -> ScaleResult:
        found = [self.points]
        if self.active.size:
            self.scan()
            found = [] if self.sample else [self.refine()]
            if self.certify is not False and self.objective.model == "exact":
                self.prove()
            found.append(self.descend() if self.sample else self._rescue(found[0]))
        minima, terms = self._minima(found)
        # A proof is of the points it knew: it stands only if the answer is as good as the best of them.
        slack = bounds.RESOLUTION * self.objective.power
        beaten = np.asarray(terms.mse) > self.best() * (1 + _TOLERANCE) + slack
        self.status[beaten & (self.status == Status.EXACT)] = Status.SCANNED
        scale = np.ones(self.rows)
        scale[self.active] = [minima[row][0].scale for row in self.active]
        interval = self._interval(minima) if self.active.size else np.full((2, self.rows), np.nan)
        objective = self.objective
        return assemble(objective.grid, scale, objective.shift, terms, minima, interval, self.status, shape)

    def _rescue(self, found: Points) -> Points:
        """What the scan had missed: where the proof's points beat the minima found, look for minima again."""
        least = np.full(self.rows, np.inf)
        np.minimum.at(least, found.row, found.mse)
        best = self.best() + bounds.RESOLUTION * self.objective.power
        if (best[self.active] >= least[self.active] * (1 - _TOLERANCE)).all():
            return found.select(slice(0, 0))  # type: ignore[arg-type]
        return self.refine()

    def _minima(self, found: list[Points]) -> tuple[list[tuple[Minimum, ...]], ErrorTerms]:
        """Local minima of each row, best first, and the accurate error of the best; equal ones count once."""
        candidates = join(found)
        row, scale = candidates.row, candidates.scale
        missing = np.setdiff1d(self.active, row)
        if missing.size:
            least = self.points.select(self._least_points())
            least = least.select(np.isin(least.row, missing))
            row, scale = np.append(row, least.row), np.append(scale, least.scale)
        idle = np.setdiff1d(np.arange(self.rows), self.active)
        row, scale = np.append(row, idle), np.append(scale, np.ones(idle.size))
        objective = self.objective
        terms = quantization_error(
            objective.members(row), objective.grid, scale, objective.shift[row],
            rounding=objective.rounding, model=objective.model,
        )  # fmt: skip
        mse = np.asarray(terms.mse)
        out: list[tuple[Minimum, ...]] = [()] * self.rows
        best = np.empty(self.rows, np.intp)
        for member in range(self.rows):
            here = np.flatnonzero(row == member)
            order = here[np.lexsort((scale[here], mse[here]))]
            out[member], first = _distinct(order, scale, mse, float(objective.shift[member]), self.sample)
            best[member] = first
        for member in idle:
            out[member] = ()
        return out, ErrorTerms(*(np.asarray(getattr(terms, f.name))[best] for f in dataclasses.fields(terms)))

    def _least_points(self) -> Index:
        order = np.lexsort((self.points.mse, self.points.row))
        first = np.flatnonzero(np.diff(self.points.row[order], prepend=-1))
        return order[first]

    def _interval(self, minima: list[tuple[Minimum, ...]]) -> Array:
        """Where the MSE first exceeds 1.01 times the best, on either side."""
        out = np.full((2, self.rows), np.nan)
        points = self.points
        goal = np.full(self.rows, np.nan)
        start = np.ones(self.rows)
        for row in self.active:
            start[row], goal[row] = minima[row][0].scale, 1.01 * minima[row][0].mse
        above = points.mse > goal[points.row]
        brackets = []
        for side, sign in enumerate((-1.0, 1.0)):
            beyond = np.flatnonzero(above & (sign * (points.scale - start[points.row]) > 0))
            if sign < 0:
                beyond = beyond[::-1]
            rows, first = np.unique(points.row[beyond], return_index=True)
            outer = beyond[first]
            brackets.append((np.full(rows.size, side), rows, outer, outer - int(sign)))
            unbounded = np.setdiff1d(self.active, rows)
            out[side, unbounded] = (0.0, np.inf)[side]
        side, row, outer, inner = (np.concatenate(column) for column in zip(*brackets, strict=True))
        far, near = points.scale[outer], points.scale[inner]
        # The best scale itself may be the inner neighbour without being among the points.
        near = np.where(points.row[inner] == row, near, start[row])
        near = np.where((near - start[row]) * (far - start[row]) < 0, start[row], near)
        at_near = np.minimum(self.objective(row, near).mse - goal[row], 0.0)
        root = bracketed_roots(
            lambda index, s: self.objective(row[index], s).mse - goal[row[index]],
            near, far, at_near, points.mse[outer] - goal[row], 1e-6,
        )  # fmt: skip
        out[side, row] = root
        return out


def _ladder(rows: Index, low: Array, high: Array, per_octave: int) -> tuple[Index, Array]:
    """Scales from `low` to `high` of each row, `per_octave` to a factor of two."""
    count = np.ceil(per_octave * np.log2(high / low)).astype(np.intp) + 1
    owner = np.repeat(np.arange(rows.size), count)
    step = np.arange(owner.size) - np.repeat(np.cumsum(count) - count, count)
    return rows[owner], low[owner] * np.exp2(step / per_octave)


def _distinct(order: Index, scale: Array, mse: Array, shift: float, sample: bool) -> tuple[tuple[Minimum, ...], int]:
    """Minima in `order` (best first), those with equal MSE (1e-12) once; and the index of the first."""
    kept: list[int] = []
    for i in order:
        if sample and kept and mse[i] > 1.01 * mse[kept[0]]:
            break
        if kept and mse[i] <= mse[kept[-1]] * (1 + _TOLERANCE):
            if scale[i] < scale[kept[-1]]:
                kept[-1] = i
            continue
        kept.append(i)
    return tuple(Minimum(float(scale[i]), shift, float(mse[i])) for i in kept), kept[0]


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

    def formed(values: Any) -> Any:
        return np.asarray(values).reshape(shape)[()]

    return ScaleResult(
        scale=formed(scale),
        shift=formed(shift),
        clip=formed(scale * grid.absmax),
        range=(formed(shift + scale * grid.min), formed(shift + scale * grid.max)),
        error=ErrorTerms(*(formed(getattr(terms, field.name)) for field in dataclasses.fields(terms))),
        minima=nested.reshape(shape)[()],
        interval_1pct=(formed(interval[0]), formed(interval[1])),
        status=formed(status),
    )
