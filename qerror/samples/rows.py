"""Sorted rows of a sample: how values are found in them and added up."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads import cached_property, chunk_slices, thread_map
from .._types import Array, Index
from ..densities.base import Density
from . import double_double as dd
from .bins import Bins

# Up to this many values every value is a block of its own: prefix sums of all of them fit in memory and caches.
_SMALL = 1 << 20
# Rows of up to this many values have every prefix sum in a table: of 62 bits their number takes at most 17.
_TABLED = 1 << 16
_CHUNK = 1 << 20
# Rows of at least so many values are searched by their fences first.
_FENCE = 16
_FENCED = 1 << 9
# So many thresholds pay for bins, of which none may hold more values than this.
_MANY_KEYS, _MOST_IN_BIN = 64, 64
_PAY_FOR_BINS = 512
# A part of a long row whose sums one thread makes: a multiple of a run.
_PART = 1 << 18
# Values whose prefix sums are made at a time: they stay in the caches.
_AT_ONCE = 1 << 18
# Values that are added up plainly.
_RUN_BITS = 5
RUN = 1 << _RUN_BITS


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of n values each, sorted along their last axis; `elements` is how many elements of the input a row holds."""

    values: NDArray[Any]
    weights: Array | None
    elements: Index

    def select(self, part: slice | Index) -> Rows:
        """Some of the rows; of neighbours a view."""
        if not isinstance(part, slice) and part.size and (part[1:] - part[:-1] == 1).all():
            part = slice(int(part[0]), int(part[-1]) + 1)
        weights = None if self.weights is None else self.weights[part]
        return Rows(self.values[part], weights, self.elements[part])

    @property
    def n(self) -> int:
        """Values in a row: the elements, or the distinct ones where they were counted."""
        return int(self.values.shape[1])

    @property
    def least(self) -> Array:
        """Smallest value of each row."""
        out: Array = self.values[:, 0].astype(np.float64)
        return out

    @property
    def greatest(self) -> Array:
        """Largest value of each row."""
        out: Array = self.values[:, -1].astype(np.float64)
        return out

    @cached_property
    def total(self) -> Array:
        """Sum of the weights of each row (the number of its values, where unweighted)."""
        if self.weights is None:
            return np.full(len(self.values), float(self.n))
        out: Array = self.weights.sum(axis=1)
        return out

    @cached_property
    def mean(self) -> Array:
        """Weighted mean of each row; that of equal values is one of them."""
        return np.minimum(np.maximum(self._sum(None) / self.total, self.least), self.greatest)

    @cached_property
    def variance(self) -> Array:
        """Weighted mean square distance from the mean of each row."""
        return self._sum(self.mean) / self.total

    def _sum(self, centre: Array | None) -> Array:
        """Sums of w x over each row, or of w (x - centre)^2."""

        def of(part: tuple[slice, slice]) -> Array:
            x, weights = self.values[part], None if self.weights is None else self.weights[part]
            if centre is None:
                # Cast first: sums in another type are buffered, across the ends of rows.
                out: Array = (x.astype(np.float64) if weights is None else x * weights).sum(axis=1)
                return out
            square = np.square(x - centre[part[0], None])
            out = square.sum(axis=1) if weights is None else np.einsum("ij,ij->i", square, weights)
            return out

        across, down = chunk_slices(self.n), chunk_slices(len(self.values), max(1, _CHUNK // self.n))
        sums = thread_map(of, [(i, j) for i in down for j in across])
        table = [sums[i : i + len(across)] for i in range(0, len(sums), len(across))]
        return np.concatenate([np.sum(row, axis=0) for row in table])

    def mass_of(self, row: Index, rank: Index) -> Array:
        """Sum of the weights of the first `rank` values of `row`."""
        if self.weights is None:
            return rank.astype(np.float64)
        return self._up_to(row, rank, 0)

    def first_of(self, row: Index, rank: Index, mass: Array) -> Array:
        """Sum of w (x - mean) over the first `rank` values of `row`, whose weights are `mass`, within a few ulp."""
        out = self._up_to(row, rank, 1)
        out -= mass * self._rest.take(row)
        return out

    @cached_property
    def _rest(self) -> Array:
        """How far above the number that the sums are about the mean lies: that number is rounded."""
        return (self._first_sums.total if self.n <= _TABLED else self._run_total(1)) / self.total

    @property
    def second_moment(self) -> Array:
        """`variance`, as a by-product of what `first_of` needs."""
        return (self._first_sums.squares if self.n <= _TABLED else self._run_total(2)) / self.total

    def _run_total(self, order: int) -> Array:
        pair = self._runs[order]
        assert pair is not None
        out: Array = pair[0][:, -1] + pair[1][:, -1]
        return out

    @property
    def block(self) -> int:
        """Values in a block of `block_sums`."""
        return 1 if self.values.size <= _SMALL else RUN

    def block_sums(self) -> tuple[dd.Pair | None, dd.Pair, dd.Pair]:
        """Prefix sums over the blocks of the weights (None: 1 each), of w d and of w d^2, d = x - mean."""
        if self.block > 1:
            return self._runs
        # The mean is rounded, the deviations from it are exact.
        d = dd.two_sum(self.values.astype(np.float64), -self.mean[:, None])
        if self.weights is None:
            return None, dd.prefix_sums(*d), dd.prefix_sums(*dd.multiply(d, d))
        first = dd.scale(d, self.weights)
        return dd.prefix_sums(self.weights), dd.prefix_sums(*first), dd.prefix_sums(*dd.multiply(first, d))

    @cached_property
    def _runs(self) -> tuple[dd.Pair | None, dd.Pair, dd.Pair]:
        """Prefix sums over runs, in double-double precision, of w, w d and w d^2."""
        columns = zip(*thread_map(self._sums_of_runs, chunk_slices(self.n, _PART)), strict=True)
        zero, one, two = (np.concatenate(column, axis=1) for column in columns)
        return None if self.weights is None else dd.prefix_sums(zero), dd.prefix_sums(one), dd.prefix_sums(two)

    def _sums_of_runs(self, part: slice) -> tuple[Array, Array, Array]:
        """Sums over the runs of a part of w, w d and w d^2 (of d, d and d^2 without weights: the first is unused)."""
        d = _in_runs(self.values[:, part] - self.mean[:, None])
        if self.weights is None:
            one = d.sum(axis=2)
            return one, one, np.einsum("ijk,ijk->ij", d, d)
        w = _in_runs(self.weights[:, part])
        return w.sum(axis=2), np.einsum("ijk,ijk->ij", w, d), np.einsum("ijk,ijk,ijk->ij", w, d, d)

    def _up_to(self, row: Index, rank: Index, order: int) -> Array:
        if self.n <= _TABLED:
            return (self._first_sums if order else self._weight_sums).up_to(row, rank)
        row, rank = np.broadcast_arrays(row, rank)
        block = rank // RUN
        pair = self._runs[order]
        assert pair is not None
        out: Array = pair[0][row, block] + (pair[1][row, block] + self._within_run(row, block * RUN, rank, order))
        return out

    def _within_run(self, row: Index, start: Index, stop: Index, order: int) -> Array:
        """Sums of w d^order over the values of rank `start` to `stop`, fewer than a run."""
        flat_row, flat_start, flat_stop = row.ravel(), start.ravel(), stop.ravel()
        out = np.empty(flat_row.size)
        for part in chunk_slices(out.size, _PART // RUN):
            place = flat_start[part, None] + np.arange(RUN)
            inside = (place < flat_stop[part, None]).astype(np.float64)
            place += flat_row[part, None] * self.n
            if self.weights is not None:
                inside *= self.weights.ravel().take(place, mode="clip")
            d = 1.0 if order == 0 else self.values.ravel().take(place, mode="clip") - self.mean[flat_row[part], None]
            out[part] = np.einsum("ij,ij->i", inside, np.broadcast_to(d, inside.shape))
        return out.reshape(row.shape)

    @cached_property
    def _weight_sums(self) -> _PrefixSums:
        assert self.weights is not None
        unit = _unit(self.weights.max(axis=1), self.total)
        return _prefix_sums(self.weights, np.zeros(len(self.values)), None, unit)

    @cached_property
    def _first_sums(self) -> _PrefixSums:
        """The sums of w (x - centre), and of all w (x - centre)^2."""
        # The rows are sorted: of 16 neighbours none is farther from the mean than the next fence away from it.
        ends = np.abs(np.array([self.least, self.greatest]) - self.mean)
        sizes = _FENCE * (np.abs(self._fences - self.mean[:, None]).sum(axis=1) + ends.sum(axis=0))
        most = 1.0 if self.weights is None else self.weights.max(axis=1)
        largest = ends.max(axis=0) * most
        # A prefix sum about the mean is at most half of all sizes.
        unit = _unit(largest, 0.5 * sizes * most)
        centre = self.mean
        if self.weights is None:
            # In whole units, as float32 values are: nothing is rounded then. (Units of w x are no units of x.)
            centre = np.where(largest > 0, np.rint(centre / unit) * unit, centre)
        return _prefix_sums(self.values, centre, self.weights, unit)

    def rank(self, row: Index, t: Array) -> Index:
        """How many values of `row` are <= `t`, by bisection."""
        # Comparing float32 values with the largest float32 <= t keeps them from being converted.
        key = round_down(t, self.values.dtype)
        if len(self.values) == 1:
            return self._rank_in_one(key)
        start = row * self.n
        # Making bins takes as long as looking up some thousands of thresholds.
        many = t.shape[-1] >= _MANY_KEYS and (t.size > _PAY_FOR_BINS * len(self.values) or "_bins" in vars(self))
        bins = self._bins if self.n >= _FENCED and many else None
        if bins is not None:
            place = bins.start_of(row, key)
            place += start
            np.minimum(place, start + (self.n - bins.most), out=place)
            _bisect(self.values, place, key, bins.most)
        elif self.n < _FENCED:
            place = np.broadcast_to(start, key.shape).copy()
            _bisect(self.values, place, key, self.n)
        else:
            count = self._fences.shape[1]
            place = np.broadcast_to(row * count, key.shape).copy()
            _bisect(self._fences, place, key, count)
            place *= _FENCE
            if self.n != count * _FENCE:
                place += row * (self.n - count * _FENCE)
            # Behind the last fence the last values, of which some are known to be below.
            np.minimum(place, start + (self.n - (_FENCE - 1)), out=place)
            _bisect(self.values, place, key, _FENCE - 1)
        place -= start
        return place

    @cached_property
    def _fences(self) -> NDArray[Any]:
        """Every 16th value: a small part of the memory that a search meets first."""
        return np.ascontiguousarray(self.values[:, _FENCE - 1 :: _FENCE])

    @cached_property
    def _bins(self) -> Bins | None:
        """Where to begin a search; None where outliers leave most values to a few bins."""
        bins = Bins.of(self.values)
        return bins if bins.most <= _MOST_IN_BIN else None

    def _rank_in_one(self, key: NDArray[Any]) -> Index:
        values, flat = self.values[0], key.ravel()
        # In a row that fits in the caches a search is over before another thread has begun.
        slices = chunk_slices(flat.size, 1 << (13 if self.n > _PART else 17))
        parts = thread_map(lambda part: np.searchsorted(values, flat[part], side="right"), slices)
        return np.concatenate([*parts, np.empty(0, np.intp)]).reshape(key.shape)

    def direct(self, row: Index, start: Index, stop: Index, about: Array, origin: Array) -> Array:
        """Moments 0, 1 and 2 about origin + `about` of the values of rank `start` to `stop` (fewer than a block)."""
        shape = start.shape
        row, start, stop = (np.broadcast_to(a, shape).ravel() for a in (row, start, stop))
        about, origin = (np.broadcast_to(a, shape).ravel() for a in (about, origin))
        out = np.zeros((3, start.size))
        busy = np.flatnonzero(start < stop)
        for part in (busy[some] for some in chunk_slices(busy.size, _CHUNK // (4 * self.block))):
            out[:, part] = self._one_by_one(row[part], start[part], stop[part], about[part], origin[part])
        return out.reshape(3, *shape)

    def _one_by_one(self, row: Index, start: Index, stop: Index, about: Array, origin: Array) -> Array:
        place = start[:, None] + np.arange(self.block)
        inside = place < stop[:, None]
        place = np.where(inside, place, start[:, None])
        # In this order a small distance keeps its digits.
        y, lost = dd.two_sum(self.values[row[:, None], place].astype(np.float64), -origin[:, None])
        distance = (y - about[:, None]) + lost
        weight = inside.astype(np.float64)
        if self.weights is not None:
            weight *= self.weights[row[:, None], place]
        first = weight * distance
        return np.array([weight.sum(axis=1), first.sum(axis=1), np.einsum("ij,ij->i", first, distance)])


def _bisect(values: NDArray[Any], place: Index, key: NDArray[Any], count: int) -> None:
    """Move each place forward by how many of the `count` sorted values from there are <= its key."""
    flat, value, below = values.ravel(), np.empty(key.shape, key.dtype), np.empty(key.shape, np.intp)
    # All searches take the same steps: what is left of a row halves, whatever the comparison says.
    while count > 1:
        half = count // 2
        flat[half - 1 :].take(place, mode="clip", out=value)
        np.less_equal(value, key, out=below)
        below *= half
        place += below
        count -= half
    flat.take(place, mode="clip", out=value)
    place += np.less_equal(value, key, out=below)


def _in_runs(values: Array) -> Array:
    """Rows cut into runs, the last one filled up with zeros."""
    rows, n = values.shape
    if n % RUN:
        values = np.concatenate([values, np.zeros((rows, RUN - n % RUN))], axis=1)
    return values.reshape(rows, -1, RUN)


class _PrefixSums(NamedTuple):
    """Sums of the first 0, 1, 2, ... terms w (x - centre) of rows, as integers times a unit, and of all squares."""

    sums: NDArray[np.int64]
    unit: Array
    squares: Array

    @property
    def total(self) -> Array:
        """The sums of all terms."""
        out: Array = self.sums[:, -1] * self.unit
        return out

    def up_to(self, row: Index, rank: Index) -> Array:
        """The sums of the first `rank` terms of `row`."""
        place = row * self.sums.shape[1]
        out: Array = self.sums.ravel().take(place + rank, mode="clip") * self.unit.take(row)
        return out


def _unit(largest: Array, sum_: Array) -> Array:
    """The least power of two of which terms of size `largest` are < 2^51 and a sum of size `sum_` is < 2^62."""
    exponent = np.frexp(np.maximum(2.0**-51 * largest, 2.0**-62 * sum_))[1]
    out: Array = np.ldexp(1.0, np.maximum(exponent, -1074))
    return out


def _prefix_sums(values: NDArray[Any], centre: Array, weights: Array | None, unit: Array) -> _PrefixSums:
    """Prefix sums of terms rounded to whole units: integers are added exactly, and four times as fast as float64."""
    count, n = values.shape
    sums, squares = np.empty((count, n + 1), np.int64), np.empty(count)
    sums[:, 0] = 0
    # The last bits of this number are units: adding it rounds to them, and leaves the integer in the bits.
    rounder = 1.5 * 2.0**52 * unit[:, None]
    terms, work = np.empty((2, min(count, max(1, _AT_ONCE // n)), n))
    for some in chunk_slices(count, len(terms)):
        d = terms[: some.stop - some.start]
        np.subtract(values[some], centre[some, None], out=d)
        square = np.square(d, out=work[: len(d)])
        if weights is not None:
            square *= weights[some]
            d *= weights[some]
        # Unlike einsum, which is no faster, in pairs.
        square.sum(axis=1, out=squares[some])
        d += rounder[some]
        whole = d.view(np.int64)
        whole -= rounder[some].view(np.int64)
        np.cumsum(whole, axis=1, out=sums[some, 1:])
    return _PrefixSums(sums, unit, squares)


def rows_of(density: Density) -> tuple[Rows, Index] | None:
    """Sorted rows of values and the row of each member, where all mass is in atoms; else None."""
    kept: tuple[Rows, Index] | None = density.sorted_rows
    if kept is not None or density.atoms is None or density.panels().shape[-1]:
        return kept
    values, masses = (np.reshape(a, (-1, a.shape[-1])) for a in np.broadcast_arrays(*density.atoms))
    order = np.argsort(values, axis=1, kind="stable")
    sorted_values, weights = (np.take_along_axis(a, order, axis=1) for a in (values, masses))
    return Rows(sorted_values, weights, np.full(len(values), values.shape[1])), np.arange(len(values))


def round_down(t: Array, dtype: np.dtype[Any]) -> NDArray[Any]:
    """The largest value of `dtype`, float32 or float64, that is <= t."""
    if dtype == np.float64:
        return t
    with np.errstate(over="ignore"):
        key = t.astype(np.float32)
    # What `nextafter` does, ten times as fast: read as an integer, the float32 below a negative one is greater.
    bits = key.view(np.int32)
    bits -= (key > t) * (bits >> 31 | 1)
    return key
