"""D = o + d(x_1) + ... + d(x_n) of independent x: E|D|, E[sign D] and E[w(x_1) sign D], without sampling.

With p = P(d = 0) and psi(w) = E[e^(i w d); d != 0], D has the characteristic function e^(i w o) (p + psi)^n. Its two
parts in which at most one d is not 0 are integrals over one x. The rest is summed as the Fourier series of |y| or
sign(y) on [-L, L], at w = pi k / L with odd k: psi falls as 1 / k, so that the terms fall as k^-4, or k^-3.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices
from .._types import Array
from .differences import DEGREES, Cells, Mask, waves

# Odd frequencies to begin with and at most; how much coarser than |D| signs may be.
_FIRST, _LAST, COARSER = 32, 1 << 15, 100
# Table entries in flight.
_CHUNK = 1 << 19
# Slopes of the exponential that bounds how often |D| exceeds L, over the largest |d|.
_TILTS = np.geomspace(0.1, 200.0, 60)[:, None]

Complex = NDArray[np.complex128]


class Expected(NamedTuple):
    """E|D| (R,), E[sign D] (K - 1, R) and E[w(x_1) sign D] (W, R); the sign of 0 is -1.

    Of two candidates, K = 2; with more of them signs are vectors that D and w are multiplied with, see `medians`.
    """

    absolute: Array
    sign: Array
    weighted: Array

    def plus(self, other: Expected, times: float = 1.0) -> Expected:
        """The sum with so many times another."""
        return Expected(*(x + times * y for x, y in zip(self, other, strict=True)))

    def change(self, other: Expected, size: Array, offset: Array) -> Array:
        """How far from another the sum of size * E|D| is, and as an error of signs may be at most: (2,)."""
        off = self.plus(other, -1.0)
        signs = np.concatenate([off.weighted, offset * off.sign])
        return np.array([abs(off.absolute @ size), np.abs(signs @ size).max() / COARSER])


class Terms(NamedTuple):
    """The independent terms of the differences D of a first sum to K - 1 others, where they are not all 0.

    Attributes
    ----------
    level, rate : ndarray of shape (K - 1, C)
        d in the middle of each cell, and what it changes by to its end.
    parts : ndarray of shape (1 + W, R, C, 12)
        Of the pdf and of the pdf times each weight, see `coefficients`.
    kept : ndarray of shape (W, R)
        Integrals of the pdf times each weight where all d are 0.
    mass : ndarray of shape (R,)
        P(|x| <= reach): expectations are over blocks all of whose x are.
    n : int
    offset : ndarray of shape (K - 1, R) or (K - 1, 1)
        By row, or the same for all.
    """

    level: Array
    rate: Array
    parts: Array
    kept: Array
    mass: Array
    n: int
    offset: Array

    @classmethod
    def of(cls, cells: Cells, parts: Array, kept: Array, mass: Array, n: int, offset: Array) -> Terms:
        """Those of cells that have such parts."""
        some = cells.differs
        rate = cells.slope * cells.half
        return cls(cells.level[:, some], rate[:, some], parts[:, :, some], kept, mass, n, offset)

    @property
    def highest(self) -> float:
        """The largest |d|."""
        return float((np.abs(self.level) + np.abs(self.rate)).max(initial=0.0))

    @property
    def equal(self) -> Array:
        """P(d = 0), of all d, and that x is within the reach: (R,)."""
        return np.asarray(np.maximum(self.mass - self.parts[0, ..., 0].sum(axis=-1), 0.0))

    def along(self, direction: Array, changes: Array | None = None) -> Terms:
        """Those of one difference: what d are multiplied with, (K - 1,), and their weights, if they are not by that."""
        times = direction if changes is None else changes
        parts, kept = (np.tensordot(times, by_candidate(a, times.size), 1) for a in (self.parts[1:], self.kept))
        level, rate, offset = ((direction @ a)[None] for a in (self.level, self.rate, self.offset))
        return Terms(level, rate, np.concatenate([self.parts[:1], parts]), kept, self.mass, self.n, offset)

    def within(self, some: Mask) -> Terms:
        """Those of blocks none of whose x lies in another cell."""
        mass = self.mass - self.parts[0, :, ~some, 0].sum(axis=0)
        return Terms(
            self.level[:, some], self.rate[:, some], self.parts[:, :, some], self.kept, mass, self.n, self.offset
        )


def by_candidate(changes: Array, count: int) -> Array:
    """Weights (W, ...) of `count` differences: (count, W / count, ...)."""
    return changes.reshape(count, len(changes) // count, *changes.shape[1:])


class Sum:
    """D of every row, for terms of one difference."""

    def __init__(self, terms: Terms) -> None:
        self.n, self.parts, self.kept = terms.n, terms.parts, terms.kept
        self.level, self.rate, self.offset = terms.level[0], terms.rate[0], terms.offset[0]
        self.differ = self.parts[0, ..., 0].sum(axis=-1)
        self.equal = terms.equal
        self.highest = terms.highest
        self.period = float(np.abs(self.offset).max()) + self.n * self.highest

    # Of the frequencies: odd ones.
    _STRIDE = 2

    def expected(self, size: Array, tolerance: float) -> tuple[Expected, Array]:
        """The expectations, and by how much the last doubling of the series changed the sums of size * E|D|, of signs.

        The series ends when the first is below the tolerance, and the second below a coarser one.
        """
        total = self._at_most_one()
        if self.n < 2 or self.highest == 0:
            return total, np.zeros(2)
        self.shorten(np.abs(size), 0.1 * tolerance)
        total = total._replace(absolute=total.absolute + 0.5 * self.period * _later(self.equal, self.differ, self.n))
        return self.series(total, size, tolerance)

    def series(self, total: Expected, size: Array, tolerance: float) -> tuple[Expected, Array]:
        """What the terms add to a total."""
        first, count, before, change = 0, _FIRST, total, np.full(2, np.inf)
        while True:
            part, rest = self._terms(np.asarray(self._STRIDE * np.arange(first, first + count) + 1, np.float64))
            total = total.plus(part)
            found = total.plus(rest)
            # Two that agree by chance are no proof: the doubling before counts as well.
            change, past, before = found.change(before, size, self.offset), change, found
            first += count
            count = first
            if np.maximum(change, past / 16).max() <= tolerance or self._STRIDE * first > _LAST:
                return found, np.maximum(change, past / 16) * [1, COARSER]

    def _at_most_one(self) -> Expected:
        """Of D with at most one d that is not 0."""
        n, p, o = self.n, self.equal, self.offset
        alone = np.where(o > 0, 1.0, -1.0)
        f, signs = self.parts[0], self._signs()
        linear = (o[:, None] + self.level)[..., None] * f + self.rate[:, None] * _times_place(f)
        absolute, sign = (linear * signs).sum(axis=(-1, -2)), (f * signs).sum(axis=(-1, -2))
        weighted = (self.parts[1:] * signs).sum(axis=(-1, -2)) + alone * self.kept
        one, two = n * power(p, n - 1), (n - 1) * power(p, n - 2)
        return Expected(
            np.abs(o) * power(p, n) + one * absolute,
            (alone * power(p, n) + one * sign)[None],
            power(p, n - 1) * weighted + two * self.kept * sign,
        )

    def _signs(self) -> Array:
        """What P_n has of sign(o + d) on each cell: (R, C, 12), from its integrals up to the root of o + d."""
        t = np.clip(-(self.offset[:, None] + self.level) / self.rate, -1.0, 1.0)
        value = np.polynomial.legendre.legvander(t, DEGREES)
        out = np.empty((*t.shape, DEGREES))
        out[..., 0] = -t
        out[..., 1:] = (value[..., :-2] - value[..., 2:]) / (2 * np.arange(1, DEGREES) + 1)
        return np.asarray(out * np.sign(self.rate)[:, None])

    def shorten(self, size: Array, tolerance: float) -> None:
        """An L that |D| exceeds by less than the tolerance: E(|D| - L)_+ <= e^(-t L) E[e^(t |D|)] / (e t)."""
        t = _TILTS / self.highest
        beyond = np.zeros(t.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            for sign in (-1.0, 1.0):
                tilted = np.exp(t * (sign * self.level + np.abs(self.rate))) @ self.parts[0, ..., 0].T
                beyond += (_later(self.equal, tilted, self.n) * size).sum(axis=-1, keepdims=True)
            least = np.nanmin(np.log(np.maximum(beyond, 1e-300) / (t * tolerance)) / t)
        self.period = min(self.period, float(np.abs(self.offset).max()) + max(float(least), self.highest))

    def _terms(self, k: Array) -> tuple[Expected, Expected]:
        """The terms k of the series, and what they let expect of those that follow."""
        psi, chi = self._transforms(np.pi / self.period * k)
        n, p = self.n, self.equal[:, None]
        turn = np.exp(1j * np.pi / self.period * k * self.offset[:, None])
        later = turn * _later(p, psi, n)
        rest = turn * (chi * (power(p + psi, n - 1) - power(p, n - 1)) + self.kept[..., None] * _later(p, psi, n - 1))
        return self._of_waves(k, later, rest)

    def _of_waves(self, k: Array, later: Complex, rest: Complex) -> tuple[Expected, Expected]:
        """The same from the transforms of D, and of D with each weight."""
        square, step = 4 * self.period / np.pi**2, 4 / np.pi
        terms = [-square / k**2 * later.real, step / k * later.imag, step / k * rest.imag]
        # A d that ends at 0 gives terms of one sign, which fall as these powers do: sums over odd k.
        end = float(k[-1] + 1)
        falls = [(k**4, 1 / (6 * end**3)), (k**3, 1 / (4 * end**2)), (k**3, 1 / (4 * end**2))]
        follow = [(term * fall).mean(axis=-1) * left for term, (fall, left) in zip(terms, falls, strict=True)]
        mean, sign, weighted = (term.sum(axis=-1) for term in terms)
        return Expected(mean, sign[None], weighted), Expected(follow[0], follow[1][None], follow[2])

    def _transforms(self, frequency: Array) -> tuple[Complex, Complex]:
        """E[e^(i w d); d != 0] (R, K), and with each weight (W, R, K)."""
        some = np.flatnonzero(self.parts.any(axis=(1, 2, 3)))
        flat = self.parts[some].swapaxes(-1, -2).reshape(some.size * self.equal.size, -1)
        out = np.zeros((len(self.parts), self.equal.size, frequency.size), np.complex128)
        for part in chunk_slices(frequency.size, max(1, _CHUNK // flat.shape[1])):
            w = frequency[part]
            table = waves(self.rate[:, None] * w)
            table *= np.exp(1j * self.level[:, None] * w)
            table = table.reshape(flat.shape[1], -1)
            sums = (flat @ table.view(np.float64)).view(np.complex128)
            out[some, :, part] = sums.reshape(some.size, self.equal.size, w.size)
        return out[0], out[1:]


def _times_place(parts: Array) -> Array:
    """Legendre coefficients of t f(t)."""
    n = np.arange(1, DEGREES)
    out = np.zeros(parts.shape)
    out[..., 1:] = parts[..., :-1] * (n / (2 * n - 1))
    out[..., :-1] += parts[..., 1:] * (n / (2 * n + 1))
    return out


def power(x: NDArray[Any], n: int) -> NDArray[Any]:
    """x^n, and 0 for negative n, which always count 0 times."""
    if n < 0:
        return np.zeros_like(x)
    # By squares: of complex numbers much faster than x**n.
    out = np.ones_like(x)
    while n:
        if n & 1:
            out = out * x
        n >>= 1
        if n:
            x = x * x
    return out


def _later(x: NDArray[Any], y: NDArray[Any], n: int) -> NDArray[Any]:
    """(x + y)^n without its first two terms in y, which may be all but its last digits."""
    x = np.broadcast_to(x, y.shape)
    out = np.asarray(power(x + y, n) - power(x, n) - n * power(x, n - 1) * y)
    small = n * np.abs(y) < 0.1 * x
    if n > 1 and small.any():
        ratio = y[small] / x[small]
        series = np.ones_like(ratio)
        for j in range(11, 2, -1):
            series = 1 + (n - j + 1) / j * ratio * series
        out[small] = 0.5 * n * (n - 1) * power(x[small], n - 2) * y[small] ** 2 * series
    return out
