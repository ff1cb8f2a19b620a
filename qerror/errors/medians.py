"""The least of three sums: what their median takes from it.

Of three numbers whose mean is 0, min = (min - max) / 2 - med / 2, and max - min is half the sum of the differences of
all pairs: E[min] = E[mean] - sum of E|S_i - S_j| / 4 - E[med] / 2. The median is odd and positively homogeneous. With
D(t) = sum over k of cos(t - 2 pi k / 3) S_k it is

    med = -(2 sqrt(3) / pi^2) integral of D log|D| / cos(3 t),    0 < t < pi, principal value:

of the harmonics of D log|D| in t the integral leaves n = 3, 9, 15, ..., each times what it is in med. For each t, D is
a sum of independent terms. The poles lie midway between nodes, so that the error falls exponentially where the law of
the sums is smooth.
"""

from __future__ import annotations

import numpy as np
from scipy.special import sici

from .._types import Array
from .difference_sums import COARSER, Complex, Expected, Sum, Terms, by_candidate, power
from .differences import DEGREES, Mask

# Directions to begin with and at most, three times as many each time: their error falls to a ninth at least, and by a
# ratio that grows. By so much the period exceeds what the first ask for; so much all weights add up to at most.
_FIRST, _LAST, _FALLS, _LONGER, _WEIGHT = 9, 250, 8.0, 1.05, 4.0
_FACTOR = -2 * np.sqrt(3) / np.pi**2
# Share of three numbers that two of them may differ by and be equal.
_EQUAL = 1e-12
# The three pairs of sums and the third; minus a sum, less the first, in terms of d.
_PAIRS, _UNITS = ((0, 1, 2), (0, 2, 1), (1, 2, 0)), np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(DEGREES)
_VALUES = 0.5 * _WEIGHTS * np.polynomial.legendre.legvander(_NODES, DEGREES - 1).T


class Medians:
    """The median of three sums less their mean, as `Expected` of it, for terms of two differences.

    With the differences d of the first to the others it is G d, with a vector G that depends on which is the median:
    absolute is E[G d], sign E[G], weighted E[G w(x_1)].
    """

    def __init__(self, terms: Terms) -> None:
        self.terms = terms

    def expected(self, size: Array, tolerance: float) -> tuple[Expected, Array]:
        """The expectations, and by how much the sums of size * absolute may be off, and those of signs."""
        for i, j, k in _PAIRS:
            if self._alike(i, j).all() and not np.any((_UNITS[j] - _UNITS[i]) @ self.terms.offset):
                return self._always((_UNITS[k] - _UNITS[i]) / 3), np.zeros(2)
        total = self._at_most_one().plus(self._ties(size, tolerance))
        if self.terms.n < 2:
            return total, np.zeros(2)
        # One period for all directions: the unit of D in the logarithm then drops out.
        period = _LONGER * max(self._along(t).needed(size, tolerance) for t in _angles(_FIRST))
        count, raw, before, lacking, change = _FIRST, total.plus(total, -1.0), total, np.zeros(2), np.zeros(2)
        while True:
            for t in _angles(count):
                found, last = self._along(t).later(size, tolerance / _WEIGHT, period)
                found = found._replace(sign=_direction(t)[:, None] * found.sign)
                raw, lacking = raw.plus(found, 1 / np.cos(3 * t)), lacking + np.abs(last / np.cos(3 * t))
            factor = _FACTOR * np.pi / count
            now = total.plus(raw, factor)
            past, change = change, now.change(before, size, self.terms.offset)
            left = change / np.maximum(_FALLS, 0.25 * past / np.maximum(change, 1e-300))
            if (count > _FIRST and left.max() <= tolerance) or 3 * count > _LAST:
                return now, left * [1, COARSER] + abs(factor) * lacking
            before, count = now, 3 * count

    def _alike(self, i: int, j: int) -> Mask:
        """The cells where two of the three lose as much."""
        between = (_UNITS[j] - _UNITS[i]) @ np.stack([self.terms.level, self.terms.rate])
        return np.asarray((np.abs(between) <= _EQUAL * self.terms.highest).all(axis=0))

    def _always(self, g: Array) -> Expected:
        """Of a G that does not depend on x: the means of d and of the changes."""
        level, rate, parts, kept, mass, n, offset = self.terms
        d = level[:, None] * parts[0, ..., 0] + rate[:, None] / 3 * parts[0, ..., 1]
        inside, changes = power(mass, n - 1), parts[1:, ..., 0].sum(axis=-1) + kept
        return Expected(
            g @ (n * inside * d.sum(axis=-1) + offset * power(mass, n)),
            g[:, None] * power(mass, n),
            inside * np.tensordot(g, by_candidate(changes, 2), 1),
        )

    def _along(self, t: float) -> _Logs:
        return _Logs(self.terms.along(_direction(t)))

    def _at_most_one(self) -> Expected:
        """Of sums with at most one term in which d is not 0: exact where cells are cut where two sums meet."""
        level, rate, parts, kept, _, n, o = self.terms
        p = self.terms.equal
        d = o[..., None, None] + (level[..., None] + rate[..., None] * _NODES)[:, None]
        alone, one, f = _median(o), _median(d), parts @ _VALUES
        sign = (one * f[0]).sum(axis=(-1, -2))
        changes, kept = by_candidate(f[1:], 2), by_candidate(kept, 2)
        weighted = (one[:, None] * changes).sum(axis=(0, -1, -2)) + (alone[:, None] * kept).sum(axis=0)
        single = n * power(p, n - 1)
        return Expected(
            (alone * o).sum(axis=0) * power(p, n) + single * ((one * d).sum(axis=0) * f[0]).sum(axis=(-1, -2)),
            alone * power(p, n) + single * sign,
            power(p, n - 1) * weighted + (n - 1) * power(p, n - 2) * (kept * sign[:, None]).sum(axis=0),
        )

    def _ties(self, size: Array, tolerance: float) -> Expected:
        """What is missing where two sums are equal and the first of them is taken, though their changes differ.

        The difference of both, whose sign of 0 is -1, takes it by half; the median, which is one as well as the other,
        not at all. With a third sum above them the other half is missing, with one below it is too much by a half.
        """
        terms, near = self.terms, _EQUAL * self.terms.highest
        # Where all three are equal the first, and not the mean that the median and the three below give.
        equal = terms.equal
        none, all_tied = np.zeros(equal.size), -2 / 3 * (np.abs(terms.offset) <= near).all(axis=0)
        sign = np.tile(all_tied * power(equal, terms.n), (2, 1))
        weighted = all_tied * power(equal, terms.n - 1) * by_candidate(terms.kept, 2).sum(axis=0)
        total = Expected(none, sign, weighted)
        for i, j, k in _PAIRS:
            between, third = _UNITS[j] - _UNITS[i], _UNITS[i] - _UNITS[k]
            tied = np.abs(between @ terms.offset) <= near
            both = terms.within(self._alike(i, j) & (third @ terms.rate != 0)).along(third, between)
            if tied.any() and (both.parts[1:].any() or both.kept.any() or terms.offset.any()):
                found, _ = Sum(both).expected(size, COARSER * tolerance)
                total = total.plus(Expected(none, between[:, None] * found.sign * tied, found.weighted * tied), -0.5)
        return total


class _Logs(Sum):
    """D log|D|, log|D| and w(x_1) log|D|, where at least two d are not 0.

    Constants are left out, which add nothing to the sum over all directions.
    """

    _STRIDE = 1

    def needed(self, size: Array, tolerance: float) -> float:
        """The period: beyond it D log|D| is larger than the difference that it is chosen for."""
        self.shorten(np.abs(size), 1e-3 * tolerance)
        return self.period

    def later(self, size: Array, tolerance: float, period: float) -> tuple[Expected, Array]:
        """The expectations, and what they may be off by."""
        self.period = period
        none = np.zeros(self.equal.size)
        return self.series(Expected(none, none[None], np.zeros(self.kept.shape)), size, tolerance)

    def _of_waves(self, k: Array, later: Complex, rest: Complex) -> tuple[Expected, Expected]:
        # The series on [-1, 1]: of y log|y| -2 Si(w) / w^2 sin(w y), of log|y| -2 Si(w) / w cos(w y), with w = pi k.
        w = np.pi * k
        step = -2 * sici(w)[0] / w
        absolute, sign = later.imag @ (self.period * step / w), later.real @ step
        found = Expected(absolute, sign[None], rest.real @ step)
        return found, Expected(*(np.zeros(part.shape) for part in found))


def _angles(count: int) -> Array:
    """Nodes of so many that are not among a third as many; all of the fewest."""
    index = np.arange(count)
    return np.asarray(np.pi / 6 + np.pi / count * (index[(count == _FIRST) | (index % 3 != 1)] + 0.5))


def _direction(t: float) -> Array:
    """What d is multiplied with in D(t)."""
    return np.asarray(-np.cos(t - 2 * np.pi / 3 * np.arange(1, 3)))


def _median(d: Array) -> Array:
    """G, for d of shape (2, ...): 1/3, and 1 less for the second or third where it is the median; equals share that."""
    sums = np.concatenate([np.zeros_like(d[:1]), -d])
    near = _EQUAL * np.abs(sums).max(axis=0)
    others = sums[:, None] - sums
    middle = ((others > near).sum(axis=1) <= 1) & ((others < -near).sum(axis=1) <= 1)
    return np.asarray(1 / 3 - (middle / middle.sum(axis=0))[1:])
