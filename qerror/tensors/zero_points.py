"""Scale and integer zero point together, as integer runtimes have them: the best of all integers, or of all codes.

At zero point p the values are s (l_k - p): the grid l - p at shift 0. Each integer is its own search over the scale,
but few need one: codes are ruled out all at once (see `qerror.search.samples.lattice`), integers beyond them by what
any interval of values must clip, and near ones by the chord of the convex h(u) (see `qerror.search.densities.bounds`)
against the best error known. Data farther from 0 than that start at the best pair of scale and shift, which bounds what
any zero point can reach.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .._types import Array, Index
from ..densities.base import Density
from ..errors.quantization import quantization_error
from ..grids.grid import Grid
from ..results import Status
from ..samples.rows import rows_of
from ..search.densities import bounds
from ..search.densities.objective import Objective
from ..search.points import join, numbered
from ..search.samples import kernels
from ..search.samples.lattice import undecided
from ..search.samples.scale_and_shift import best_scale_and_shift

# Zero points beyond the codes that are looked at one by one.
_MOST = 1 << 12
# Beyond, a step of the grid is lost in the rounding of float64.
_FAR = 1 << 50
_MOST_TRIED = 1 << 13
_TOLERANCE = 1e-12
# Scales an octave to bound the error with, and how often what is left undecided is divided in four.
_PER_OCTAVE = 8
_ROUNDS = 2

Search = Callable[[Density, Grid], tuple[Array, NDArray[np.object_]]]


def exact_pair(grid: Grid, value: Array) -> tuple[Array, NDArray[np.int64]]:
    """A scale and a zero point among the codes that represent constants, not 0, exactly.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> exact_pair(grid("uint8"), np.array([0.1, -0.1]))
    (array([0.1, 0.1]), array([0, 1]))
    """
    # One step above or below level 0; where the grid has none there, the zero point makes room for it.
    room = np.where(value > 0, grid.max - 1, grid.min + 1)
    return np.abs(value), np.where(value > 0, np.minimum(0, room), np.maximum(0, room)).astype(np.int64)


def stored_pair(grid: Grid, value: float, scales: Array, most: int) -> tuple[float, int]:
    """Of all `scales` and all multiples of them up to `most` times the nearest to a constant.

    Of several the largest scale; the zero point is among the codes if it can be, and near 0.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> stored_pair(grid("uint8"), -2.5, 2.0 ** np.arange(-9, 9), 255)
    (0.5, 5)
    """
    with np.errstate(over="ignore"):
        steps = np.clip(np.rint(value / scales), -most, most)
    distance = np.abs(scales * steps - value)
    best = np.flatnonzero(distance == distance.min())[-1]
    k, lowest, highest = int(steps[best]), int(grid.min), int(grid.max)
    low, high = max(lowest, lowest - k), min(highest, highest - k)
    if low > high:
        low, high = lowest - k, highest - k
    return float(scales[best]), min(max(0, low), high)


def best_zero_point(
    density: Density, grid: Grid, search: Search, *, storable: bool = False, scales: Array | None = None
) -> tuple[Array, NDArray[np.int64], NDArray[np.object_]]:
    """The scale and integer zero point of least error for each row of a sample, on a grid of consecutive integers.

    `search` gives the best scales of rows on a grid at shift 0, and their status. The zero point -shift / scale is any
    integer, inside the codes or not (with `storable` inside); the status is EXACT where every one is searched or ruled
    out. `scales` are all that `search` chooses from, where these are not all positive numbers.

    Examples
    --------
    >>> import qerror as qe
    >>> x = qe.Empirical([[1.0, 1.5, 2.0, 2.5]], axis=0)
    >>> from qerror.tensors.plans import best_scales
    >>> [v.item() for v in best_zero_point(x, qe.grid("uint2"), best_scales)[:2]]
    [0.5, -2]
    """
    return _Search(density, grid, search, storable, scales).run()


class _Search:
    """The best known of each row, improved zero point by zero point."""

    def __init__(self, density: Density, grid: Grid, search: Search, storable: bool, scales: Array | None) -> None:
        self.density, self.grid, self.search, self.scales = density, grid, search, scales
        # The least and the greatest zero point that may be chosen.
        self.limits = (int(grid.min), int(grid.max)) if storable else (-_FAR, _FAR)
        self._storable = storable
        self.power = np.square(density.std) + np.square(density.mean)
        count = density.shape[0]
        self.least, self.scale = np.full(count, np.inf), np.ones(count)
        self.zero_point = np.zeros(count, np.int64)
        self.status = np.full(count, Status.DEGENERATE, object)
        self.proven = np.ones(count, np.bool_)
        least, most = (np.asarray(end) for end in density.support)
        self.constant = (least == most) & (least != 0)
        # What the roots of errors are known to.
        self.resolution = np.finfo(np.float64).eps * np.maximum(np.abs(least), np.abs(most))

    def run(self) -> tuple[Array, NDArray[np.int64], NDArray[np.object_]]:
        """Start near the range of the data, then go through all that may be better."""
        self._settle_constants()
        guess, rows = self._guess(), np.flatnonzero(~self.constant)
        first = np.clip(guess, *self.limits).astype(np.int64)
        best = self._best_codes(rows)
        start = first[rows] if best is None else best[0]
        for p in np.unique(start):
            self._try(int(p), rows[start == p])
        if best is None:
            self._try(min(max(0, self.limits[0]), self.limits[1]), rows)
        low, high = self._window(first)
        middle = np.median(self.zero_point)
        every = np.arange(low.min(), high.max() + 1)
        order = np.argsort(np.abs(every - middle), kind="stable")
        for p in every[order[_MOST_TRIED:]]:
            self.proven[(low <= p) & (p <= high)] = False
        codes = self._undecided_codes(self._open if best is None else np.isin(np.arange(guess.size), rows[~best[1]]))
        # In ascending order: which of equals a row gets does not depend on the rows beside it.
        for p in np.sort(every[order[:_MOST_TRIED]]):
            rows = np.flatnonzero((low <= p) & (p <= high) & self._open)
            place = int(p - self.grid.min)
            if 0 <= place < len(self.grid):
                rows = rows[codes[rows, place] & (self.zero_point[rows] != p)]
                if self.scales is not None:
                    rows = self._may_win(int(p), rows)
            else:
                rows = self._may_win(int(p), rows)
            self._try(int(p), rows)
        # Nothing is known of zero points that far away.
        self.proven &= self.constant | self._storable | (np.abs(guess) <= _FAR) | (self.least == 0)
        searched = (self.status == Status.EXACT) & ~self.proven
        return self.scale, self.zero_point, np.where(searched, np.asarray(Status.SCANNED, object), self.status)

    def _best_codes(self, some: Index) -> tuple[Index, NDArray[np.bool_]] | None:
        """The best zero points among the codes and whether they are proven, where compiled functions find them."""
        held = rows_of(self.density)
        if held is None or self.scales is not None or not some.size or not kernels.compiled():
            return None
        rows, source = held
        place, proven = kernels.zero_points(rows.select(np.broadcast_to(source, self.least.shape)[some]), self.grid)
        return place + int(self.grid.min), proven

    def _undecided_codes(self, some: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each of some rows the codes that may be a better zero point than the best known, (R, K)."""
        out = np.zeros((self.least.size, len(self.grid)), np.bool_)
        held, open_ = rows_of(self.density), np.flatnonzero(self._open & some)
        if held is None or self.scales is not None:
            # Half of a stored scale may be none: `_may_win` looks at these alone.
            out[:] = True
        elif open_.size:
            rows, source = held
            source = np.broadcast_to(source, self.least.shape)
            out[open_] = undecided(rows.select(source[open_]), self.grid, self.least[open_])
        return out

    @property
    def _open(self) -> NDArray[np.bool_]:
        """Rows whose error is above what float64 resolves."""
        open_: NDArray[np.bool_] = ~self.constant & (self.least > self.resolution**2)
        return open_

    def _guess(self) -> Array:
        """Where the ends of the grid lie on the ends of the data."""
        least, most = self.density.support
        scale = (most - least) / (self.grid.max - self.grid.min)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            p: Array = np.nan_to_num(np.rint(self.grid.min - least / scale))
        return p

    def _settle_constants(self) -> None:
        """Constants, all of whose pairs are known."""
        rows = np.flatnonzero(self.constant)
        if not rows.size:
            return
        value = np.asarray(self.density.support[0])[rows]
        self.status[rows] = Status.EXACT
        if self.scales is None:
            self.scale[rows], self.zero_point[rows] = exact_pair(self.grid, value)
            return
        most = int(self.grid.max - self.grid.min) if self._storable else _FAR
        each, which = np.unique(value, return_inverse=True)
        pairs = [stored_pair(self.grid, one, self.scales, most) for one in each.tolist()]
        scale, zero_point = zip(*pairs, strict=True)
        self.scale[rows], self.zero_point[rows] = np.array(scale)[which], np.array(zero_point)[which]

    def _far(self, rows: Index) -> None:
        """Zero points next to the best pairs of scale and shift; these bound what any zero point can reach."""
        for row, free in zip(rows.tolist(), best_scale_and_shift(self.density.take(rows), self.grid), strict=True):
            for pair in free.minima:
                near = round(-pair.shift / pair.scale)
                for p in (near - 1, near, near + 1):
                    if abs(p) < _FAR:
                        self._try(p, np.array([row]))
            # The values s (l - p) are rounded.
            goal = (np.sqrt(free.minima[0].mse * (1 + _TOLERANCE)) + self.resolution[row]) ** 2
            self.proven[row] = free.proven and self.least[row] <= goal

    def _try(self, p: int, rows: Index) -> None:
        """Search at zero point p for some rows."""
        if not rows.size:
            return
        grid, members = Grid(self.grid.levels - p), self.density.take(rows)
        scale, status = self.search(members, grid)
        mse = np.asarray(quantization_error(members, grid, scale).mse)
        self.proven[rows[status == Status.SCANNED]] = False
        better = (mse < self.least[rows]) & ((status == Status.EXACT) | (status == Status.SCANNED))
        # Where no scale gains anything at this zero point, any other is as good or better.
        better |= np.isinf(self.least[rows])
        won = rows[better]
        self.least[won], self.scale[won], self.status[won] = mse[better], scale[better], status[better]
        self.zero_point[won] = p

    def _window(self, first: NDArray[np.int64]) -> tuple[Index, Index]:
        """The zero points that are not ruled out for each row by what lies beyond the ends of all values."""
        if self._storable:
            return np.full(self.least.size, self.limits[0]), np.full(self.least.size, self.limits[1])
        beyond, far = [], np.zeros(self.least.size, np.bool_)
        for sign in (1.0, -1.0):
            distant = np.flatnonzero(self._open & (np.abs(first) > _MOST))
            far[distant[self._clips_less(distant, _MOST, sign)]] = True
            reach, left = np.zeros(self.least.size, np.intp), np.flatnonzero(self._open & ~far)
            m = 1
            while left.size and m <= _MOST:
                left = left[self._clips_less(left, m, sign)]
                reach[left] = m = 2 * m
            far |= reach > _MOST
            beyond.append(np.minimum(reach, _MOST))
        low, high = int(self.grid.min) - beyond[0], int(self.grid.max) + beyond[1]
        if far.any():
            self._far(np.flatnonzero(far))
        # What is proven, or too far away, is not looked for nearby.
        return np.where(far, 0, low), np.where(far, 0, high)

    def _clips_less(self, rows: Index, m: int, sign: float) -> NDArray[np.bool_]:
        """Whether values from a to a (1 + (K - 1) / m), a > 0, on one side of 0 can clip less than the best error.

        The mean square distance to that interval is convex in a: its minimum lies above the tangent at the lower end
        of a bracket. It grows with m, so that what is excluded at m is excluded beyond.
        """
        density, ratio = self.density.take(rows), 1 + (self.grid.max - self.grid.min) / m
        low, high = (np.asarray(end) for end in density.support)
        farthest = np.maximum(sign * low, sign * high)
        none = farthest <= 0
        a, end = np.zeros(rows.size), np.where(none, 1.0, farthest)
        for _ in range(50):
            middle = 0.5 * (a + end)
            falling = self._distance(density, middle, ratio, sign)[1] < 0
            a, end = np.where(falling, middle, a), np.where(falling, end, middle)
        value, slope = self._distance(density, a, ratio, sign)
        bound = value + np.minimum(slope, 0.0) * (end - a)
        less: NDArray[np.bool_] = ~none & (bound < self.least[rows])
        return less

    def _distance(self, density: Density, a: Array, ratio: float, sign: float) -> tuple[Array, Array]:
        """E[dist(x, values)^2] and its derivative by a."""
        near, far = sign * a, sign * a * ratio
        if sign > 0:
            inner, outer = density.moments(-np.inf, near, near), density.moments(far, np.inf, far)
        else:
            inner, outer = density.moments(near, np.inf, near), density.moments(-np.inf, far, far)
        return inner[2] + outer[2], -2 * sign * (inner[1] + ratio * outer[1])

    def _may_win(self, p: int, rows: Index) -> Index:
        """Rows for which some scale at zero point p may be better than the best known."""
        if not rows.size:
            return rows
        members = self.density.take(rows)
        objective = Objective(members, Grid(self.grid.levels - p), np.zeros(rows.size), "nearest", "exact")
        reach, best = np.broadcast_to(bounds.Reach(objective).slope, rows.shape), self.least[rows]
        live = np.flatnonzero((reach > 0) & (self.zero_point[rows] != p))
        if not live.size:
            return rows[live]
        hopeless = best[live] > 0.999 * objective.power[live]
        if hopeless.any():
            # Hardly anything is gained so far: a bound would have to look at the smallest scales.
            return rows[live]
        # A - MSE <= 2 s reach; and where s |l| > 2 |y| for every level but 0 nothing is gained.
        low = 0.5 * (objective.power - best)[live] / reach[live] * (1 - 1e-9)
        farthest = np.maximum(*(np.abs(end) for end in members.support))[live]
        levels = np.abs(objective.grid.levels)
        high = np.maximum(2 * farthest / levels[levels > 0].min(), 2 * low)
        row, scale = _ladder(live, low, high)
        if self.scales is not None:
            start, stop = np.searchsorted(self.scales, low), np.searchsorted(self.scales, high, side="right")
            if (stop - start).sum() <= scale.size:
                # Stored scales so far apart are looked at one by one: a bound would be that of all between them.
                owner, step = numbered(stop - start)
                points = objective(live[owner], self.scales[start[owner] + step])
                goal = best - np.maximum(_TOLERANCE * best, objective.noise)
                stored: Index = rows[np.unique(points.row[points.mse < goal[points.row]])]
                return stored
        points = join(objective(row, scale))
        for round_ in range(_ROUNDS + 1):
            left, _ = bounds.undecided(objective, points, best, _TOLERANCE)
            if round_ == _ROUNDS or not left.size:
                break
            one, two = points.select(left), points.select(left + 1)
            share = np.array([0.25, 0.5, 0.75])
            scale = (one.scale[:, None] * (two.scale / one.scale)[:, None] ** share).ravel()
            points = join(points, objective(np.repeat(one.row, share.size), scale))
        # An interval in which nothing changes its cell is decided: by the minimum of its parabola, A - B^2 / C.
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where(points.b > 0, points.b**2 / points.c, 0.0)
        better = points.row[objective.power[points.row] - gain < best[points.row]]
        winners: Index = rows[np.union1d(points.row[left], better)]
        return winners


def _ladder(row: Index, low: Array, high: Array) -> tuple[Index, Array]:
    """Scales from low to high of each row in equal ratios."""
    steps = np.ceil(_PER_OCTAVE * np.log2(high / low)).astype(np.intp)
    owner, step = numbered(steps + 1)
    return row[owner], low[owner] * (high / low)[owner] ** (step / steps[owner])
