"""float32 values counted by their leading bits, with exact sums: brackets of any error, and the values that decide it.

In a bin all values share sign, exponent and the first bits of the significand: x = +-(base + r) ulp with an integer
0 <= r < 2^(32 - k). The sums of r and r^2 over a bin are integers, so bins of parts merge exactly, in any order. With
y = x - z, MSE(s) = A - E[phi_s(y)], phi_s(y) = max_k (2 s l_k y - s^2 l_k^2), which is convex in y: with every value at
the mean of its bin E[phi] is not above the true one, with every bin spread to its two ends about its mean not below.
Both are weighted samples of few values: one bounds the error from above, the other from below, at every scale.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors.exact import error_sums
from ..errors.quantization import quantization_error
from ..grids.grid import Grid
from ..results import Status
from ..samples.empirical import Empirical
from ..tensors.fitting import fit
from .moments import Moments, moments_of, sorted_values

BITS = 20
# Values that are looked at together.
_STEP = 1 << 20
# What sums of float64 may be off by, of A.
_ROUNDING = 64 * float(np.finfo(np.float64).eps)

Floats = NDArray[np.float64]


class Bracket(NamedTuple):
    """A scale, and bounds of its error and of the least error of all scales, which differ by no more than they say."""

    scale: float
    lower: float
    upper: float
    status: Status


@dataclasses.dataclass(frozen=True)
class Bins:
    """Counts and sums by the first `bits` bits of float32 values.

    Attributes
    ----------
    bits : int
    keys : ndarray of int64
        First bits of the bins that are not empty, ascending.
    counts, first, second : ndarray of int64
        How many values each holds, and the sums of r and r^2 over them.
    least, greatest : float
        Of all values.
    """

    bits: int
    keys: NDArray[np.int64]
    counts: NDArray[np.int64]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    least: float
    greatest: float

    @property
    def size(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def merged(self, other: Bins) -> Bins:
        """The bins of both, exactly, in any order."""
        if other.bits != self.bits:
            raise ValueError(f"sketches must have bins of the same bits to be merged, got {self.bits} and {other.bits}")
        keys, place = np.unique(np.concatenate([self.keys, other.keys]), return_inverse=True)
        sums = np.zeros((3, keys.size), np.int64)
        for row, name in zip(sums, ("counts", "first", "second"), strict=True):
            np.add.at(row, place, np.concatenate([getattr(self, name), getattr(other, name)]))
        least, greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        return Bins(self.bits, keys, sums[0], sums[1], sums[2], least, greatest)

    @property
    def _ends(self) -> tuple[Floats, Floats]:
        """The ends of the bins nearest to 0 and farthest from it, with their signs (where 0 is, 0 and the next)."""
        low = (self.keys << (32 - self.bits)).astype(np.uint32)
        width = np.uint32((1 << (32 - self.bits)) - 1)
        near, far = low.view(np.float32).astype(np.float64), (low | width).view(np.float32).astype(np.float64)
        return near, far

    @functools.cached_property
    def known(self) -> bool:
        """Whether no bin has two different values: then it is known how often each is there (floats of 16 bits are)."""
        # r^2 adds up to (sum r)^2 / count only where all r are one.
        each = self.first // self.counts
        return bool((each * self.counts == self.first).all() and (each * self.first == self.second).all())

    def values(self, *, folded: bool = False) -> tuple[NDArray[np.float32], Floats]:
        """The mean of each bin as float32, ascending, and how often it is there; `folded`: of magnitudes.

        They are the values themselves where all are `known`.
        """
        values = self.means()[0].astype(np.float32)
        return sorted_values(values, self.counts, folded=folded)

    def means(self) -> tuple[Floats, Floats]:
        """The mean of each bin and its share of all values."""
        near, far = self._ends
        share = self.first / self.counts / ((1 << (32 - self.bits)) - 1)
        return near + (far - near) * share, self.counts / self.size

    def spread(self) -> tuple[Floats, Floats]:
        """The ends of the bins, each with as much of the values as leaves the mean of the bin where it is."""
        near, far = self._ends
        share = self.first / self.counts / ((1 << (32 - self.bits)) - 1)
        mass = self.counts / self.size
        values, weights = np.concatenate([near, far]), np.concatenate([mass * (1 - share), mass * share])
        return values[weights > 0], weights[weights > 0]

    def power(self, shift: float = 0.0) -> float:
        """E[(x - shift)^2], from the exact sums."""
        near, ulp = self._ends[0], self._ulp
        # About the near end: both sums are of one sign, so nothing cancels but what the shift takes away.
        base = near - shift
        squares = base**2 * self.counts + 2 * base * ulp * self.first + ulp**2 * self.second
        return float(np.sort(squares).sum()) / self.size

    @property
    def mean(self) -> float:
        """Of all values, from the exact sums."""
        values, mass = self.means()
        return float((values * mass).sum())

    def moments(self) -> Moments:
        """Moments of the values, those beyond the second from the bins' means (1e-10 of them at 18 bits)."""
        if self.known:
            return moments_of(*self.values())
        values, mass = self.means()
        mean = self.mean
        away = values - mean
        sums = (np.einsum("i,i->", mass * away, away**2), np.einsum("i,i->", mass * away**2, away**2))
        return Moments(float(self.size), mean, self.size * self.power(mean), *(self.size * float(s) for s in sums))

    def bracket(self, grid: Grid, shift: float = 0.0, scale: float | None = None) -> Bracket:
        """The best scale that the bins tell (or a given one), with bounds of its error and of the least error.

        lower <= min MSE, and MSE(scale) <= upper.
        """
        slack = _ROUNDING * self.power(shift)
        if scale is not None:
            lower, upper = self.errors(grid, np.array([scale]), shift)
            return Bracket(scale, float(lower[0]), float(upper[0]), Status.GIVEN)
        (above, excess), (below, spread) = self._bounds()
        found, bound = (_best(sample, grid, shift) for sample in (above, below))
        most = found[1] + excess + slack
        proven = found[2] == bound[2] == Status.EXACT
        return Bracket(found[0], max(0.0, bound[1] - spread - slack), most, Status.EXACT if proven else Status.SCANNED)

    def errors(self, grid: Grid, scales: Floats, shift: float = 0.0) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the error at each of some scales of one sign."""
        if scales[0] < 0:
            # A negative scale turns the grid around.
            grid, scales = Grid(-grid.levels[::-1]), -scales
        slack = _ROUNDING * self.power(shift)
        (above, excess), (below, spread) = self._bounds()
        upper, lower = (np.asarray(quantization_error(each, grid, scales, shift).mse) for each in (above, below))
        return np.maximum(0.0, lower - spread - slack), upper + excess + slack

    def at_most(self, grid: Grid, shift: float, low: float, high: float) -> float:
        """The most that the error can be at a scale from `low` to `high`.

        At the means MSE = A - s k(s) with a convex k, k' = -E[l^2]: the tangent at `low` bounds it up to `high`.
        """
        most = float(self.errors(grid, np.array([low]), shift)[1][0])
        if high == low:
            return most
        (above, excess), _ = self._bounds()
        sums = error_sums(above, grid, np.array([low]), np.array([shift]))
        power, mse = float(above.std) ** 2 + (float(above.mean) - shift) ** 2, float(sums.mse[0])
        k = (power - mse) / low
        square = (float(sums.by_scale[0]) + k) / low
        end = power - high * k + square * high * (high - low)
        return max(most, end + excess + 2 * _ROUNDING * power)

    def distances(self, shift: float) -> tuple[Floats, Floats]:
        """Of each bin the least and the most that |x - shift| of its values can be."""
        near, far = (np.clip(end, self.least, self.greatest) - shift for end in self._ends)
        if self.known:
            near = far = self.means()[0] - shift
        across = near * far < 0
        sizes = np.abs([near, far])
        return np.where(across, 0.0, sizes.min(axis=0)), sizes.max(axis=0)

    def _bounds(self) -> tuple[tuple[Empirical, float], tuple[Empirical, float]]:
        """The samples of means and of ends, and by how much their powers are below and above the true one."""
        ulp, most = self._ulp, (1 << (32 - self.bits)) - 1
        # E[x^2 - mean^2] within the bins, and E[end^2 - x^2]: sums of what is not negative.
        apart = float((ulp**2 * (self.first * float(most) - self.second)).sum() / self.size)
        return (Empirical(*self.means()), self.within(slice(None))), (Empirical(*self.spread()), apart)

    @property
    def _ulp(self) -> Floats:
        near, far = self._ends
        return (far - near) / ((1 << (32 - self.bits)) - 1)

    def within(self, some: NDArray[np.bool_] | slice) -> float:
        """What some of the bins add to E[x^2] beyond their means: their variances."""
        counts, first, second = self.counts[some], self.first[some].astype(np.float64), self.second[some]
        return float((self._ulp[some] ** 2 * np.maximum(second - first * (first / counts), 0.0)).sum() / self.size)

    def undecided(self, grid: Grid, shift: float = 0.0) -> NDArray[np.bool_]:
        """Bins whose values may go to one or another level at a scale that may be the best.

        A scale is out where the lower bound of its error is above the least upper bound: u^2 (L - U) = (A - U) u^2
        - h(u) with a convex h in u = 1/s, so a chord of h proves it for all scales of an interval.
        """
        power = self.power(shift)
        (above, excess), (below, spread) = self._bounds()
        goal = _best(above, grid, shift)[1] + excess + 2 * _ROUNDING * power
        near, far = (end - shift for end in self._ends)
        largest = float(np.maximum(np.abs(near), np.abs(far)).max())
        t = grid.thresholds[grid.thresholds != 0]
        reach = grid.absmax * float((np.maximum(np.abs(near), np.abs(far)) * self.counts).sum()) / self.size
        # A - MSE(s) <= 2 s reach; beyond the last crossing no scale is better than another.
        ends = max(0.5 * (power - goal) / reach, 1e-300), 1.001 * largest / float(np.abs(t).min())

        def gap(s: Floats) -> Floats:
            """h(1/s) = u^2 (A - L)."""
            lower = np.asarray(quantization_error(below, grid, s, shift).mse) - spread
            return np.asarray((power - lower + 2 * _ROUNDING * power) / s**2)

        narrow = 2.0 ** (7 - self.bits)
        scales = np.array(_possible(gap, power - goal, *ends, narrow)).reshape(-1, 2, 1)
        met = np.sort((scales * grid.thresholds).transpose(0, 2, 1).reshape(-1, 2), axis=1)
        # A little more on both sides, for roundings.
        met += np.array([-1.0, 1.0]) * (1e-12 * np.abs(met) + 1e-300)
        return _meeting(np.minimum(near, far), np.maximum(near, far), met)


def _best(sample: Empirical, grid: Grid, shift: float) -> tuple[float, float, Status]:
    values, weights = sample.atoms
    found = fit(values, grid, weights=weights, shift=shift, measure=False)
    return float(found.scale), float(found.total.mse), found.status.item() if np.ndim(found.status) else found.status


def _meeting(low: Floats, high: Floats, ranges: Floats) -> NDArray[np.bool_]:
    """Which bins, from `low` to `high`, have a value in one of the ranges (n, 2)."""
    order = np.argsort(low)
    first = np.searchsorted(high[order], ranges[:, 0], side="left")
    behind = np.searchsorted(low[order], ranges[:, 1], side="right")
    change = np.zeros(low.size + 1, np.int64)
    some = behind > first
    np.add.at(change, first[some], 1)
    np.add.at(change, behind[some], -1)
    out = np.zeros(low.size, np.bool_)
    out[order] = np.cumsum(change[:-1]) > 0
    return out


def _possible(
    gap: Callable[[Floats], Floats], rest: float, low: float, high: float, narrow: float
) -> list[tuple[float, float]]:
    """Intervals of scales where chords of h leave rest u^2 <= h(u) possible, up to `narrow` wide; no others have it."""
    scale = np.geomspace(low, high, 65)
    value = gap(scale)
    left, right = scale[:-1], scale[1:]
    h_left, h_right = value[:-1], value[1:]
    kept: list[tuple[float, float]] = []
    while left.size:
        # In u the interval runs from 1/right to 1/left; the least of rest u^2 - chord(u) is at the slope's half.
        u1, u2 = 1 / right, 1 / left
        slope = (h_left - h_right) / (u2 - u1)
        u = np.clip(slope / (2 * rest), u1, u2)
        maybe = rest * u * u <= h_right + slope * (u - u1)
        ends = right <= left * (1 + narrow)
        kept += list(zip(left[maybe & ends], right[maybe & ends], strict=True))
        go = maybe & ~ends
        left, right, h_left, h_right = left[go], right[go], h_left[go], h_right[go]
        middle = np.sqrt(left * right)
        inner = gap(middle) if middle.size else middle
        left, right = np.concatenate([left, middle]), np.concatenate([middle, right])
        h_left, h_right = np.concatenate([h_left, inner]), np.concatenate([inner, h_right])
    return _merged(sorted(kept))


def _merged(intervals: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    out: list[tuple[float, float]] = []
    for low, high in intervals:
        if out and low <= out[-1][1] * (1 + 1e-12):
            out[-1] = out[-1][0], max(high, out[-1][1])
        else:
            out.append((float(low), float(high)))
    return out
