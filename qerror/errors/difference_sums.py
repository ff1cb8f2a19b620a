"""D = o + d(x_1) + ... + d(x_n) of independent x: E|D|, E[sign D] and E[w(x_1) sign D], without sampling.

With p = P(d = 0) and psi(w) = E[e^(i w d); d != 0], D has the characteristic function e^(i w o) (p + psi)^n. Its two
parts in which at most one d is not 0 are integrals over one x. The rest is summed as the Fourier series of |y| or
sign(y) on [-L, L], at w = pi k / L with odd k: psi falls as 1 / k, so that the terms fall as k^-4, or k^-3.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._threads import chunk_slices
from .._types import Array
from .differences import DEGREES, Cells, waves

# Odd frequencies to begin with and at most; how much coarser than |D| signs may be.
_FIRST, _LAST, _COARSER = 32, 1 << 15, 100
# Table entries in flight.
_CHUNK = 1 << 19
# Slopes of the exponential that bounds how often |D| exceeds L, over the largest |d|.
_TILTS = np.geomspace(0.1, 200.0, 60)[:, None]


class Expected(NamedTuple):
    """E|D|, E[sign D] (R,) and E[w(x_1) sign D] (W, R); the sign of 0 is -1."""

    absolute: Array
    sign: Array
    weighted: Array


class Sum:
    """D of every row.

    Parameters
    ----------
    cells : Cells
    parts : ndarray of shape (1 + W, R, C, 12)
        Their `coefficients`: of the pdf and of the pdf times each weight.
    kept : ndarray of shape (W, R)
        Integrals of the pdf times each weight where d is 0.
    mass : ndarray of shape (R,)
        P(|x| <= reach): expectations are over blocks all of whose x are.
    n : int
    offset : ndarray of shape (R,) or (1,)
        By row, or the same for all.
    """

    def __init__(self, cells: Cells, parts: Array, kept: Array, mass: Array, n: int, offset: Array) -> None:
        differs = cells.differs
        self.n, self.offset, self.kept = n, offset, kept
        self.parts = parts[:, :, differs]
        self.level, self.rate = cells.level[differs], (cells.slope * cells.half)[differs]
        self.differ = self.parts[0, ..., 0].sum(axis=-1)
        self.equal = np.maximum(mass - self.differ, 0.0)
        self.highest = float((np.abs(self.level) + np.abs(self.rate)).max(initial=0.0))
        self.period = float(np.abs(offset).max()) + n * self.highest

    def expected(self, size: Array, tolerance: float) -> tuple[Expected, Array]:
        """The expectations, and by how much the last doubling of the series changed the sums of size * E|D|, of signs.

        The series ends when the first is below the tolerance, and the second below a coarser one.
        """
        total = self._at_most_one()
        if self.n < 2 or self.highest == 0:
            return total, np.zeros(2)
        self._shorten(np.abs(size), 0.1 * tolerance)
        total = total._replace(absolute=total.absolute + 0.5 * self.period * _later(self.equal, self.differ, self.n))
        first, count, before, change = 0, _FIRST, total, np.full(2, np.inf)
        while True:
            part, rest = self._terms(np.asarray(2 * np.arange(first, first + count) + 1, np.float64))
            total = _added(total, part)
            found = _added(total, rest)
            now = np.array([abs((found.absolute - before.absolute) @ size), 0.0])
            signs = [found.weighted - before.weighted, (self.offset * (found.sign - before.sign))[None]]
            now[1] = np.abs(np.concatenate(signs) @ size).max() / _COARSER
            # Two that agree by chance are no proof: the doubling before counts as well.
            change, past, before = now, change, found
            first += count
            count = first
            if np.maximum(change, past / 16).max() <= tolerance or 2 * first > _LAST:
                return found, np.maximum(change, past / 16) * [1, _COARSER]

    def _at_most_one(self) -> Expected:
        """Of D with at most one d that is not 0."""
        n, p, o = self.n, self.equal, self.offset
        alone = np.where(o > 0, 1.0, -1.0)
        f, signs = self.parts[0], self._signs()
        linear = (o[:, None] + self.level)[..., None] * f + self.rate[:, None] * _times_place(f)
        absolute, sign = (linear * signs).sum(axis=(-1, -2)), (f * signs).sum(axis=(-1, -2))
        weighted = (self.parts[1:] * signs).sum(axis=(-1, -2)) + alone * self.kept
        one, two = n * _power(p, n - 1), (n - 1) * _power(p, n - 2)
        return Expected(
            np.abs(o) * _power(p, n) + one * absolute,
            alone * _power(p, n) + one * sign,
            _power(p, n - 1) * weighted + two * self.kept * sign,
        )

    def _signs(self) -> Array:
        """What P_n has of sign(o + d) on each cell: (R, C, 12), from its integrals up to the root of o + d."""
        t = np.clip(-(self.offset[:, None] + self.level) / self.rate, -1.0, 1.0)
        value = np.polynomial.legendre.legvander(t, DEGREES)
        out = np.empty((*t.shape, DEGREES))
        out[..., 0] = -t
        out[..., 1:] = (value[..., :-2] - value[..., 2:]) / (2 * np.arange(1, DEGREES) + 1)
        return out * np.sign(self.rate)[:, None]

    def _shorten(self, size: Array, tolerance: float) -> None:
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
        rest = turn * (chi * (_power(p + psi, n - 1) - _power(p, n - 1)) + self.kept[..., None] * _later(p, psi, n - 1))
        square, step = 4 * self.period / np.pi**2, 4 / np.pi
        terms = [-square / k**2 * later.real, step / k * later.imag, step / k * rest.imag]
        # A d that ends at 0 gives terms of one sign, which fall as these powers do: sums over odd k.
        end = float(k[-1] + 1)
        falls = [(k**4, 1 / (6 * end**3)), (k**3, 1 / (4 * end**2)), (k**3, 1 / (4 * end**2))]
        follow = [(term * fall).mean(axis=-1) * left for term, (fall, left) in zip(terms, falls, strict=True)]
        return Expected(*(term.sum(axis=-1) for term in terms)), Expected(*follow)

    def _transforms(self, frequency: Array) -> tuple[Array, Array]:
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


def _added(a: Expected, b: Expected) -> Expected:
    return Expected(*(x + y for x, y in zip(a, b, strict=True)))


def _times_place(parts: Array) -> Array:
    """Legendre coefficients of t f(t)."""
    n = np.arange(1, DEGREES)
    out = np.zeros(parts.shape)
    out[..., 1:] = parts[..., :-1] * (n / (2 * n - 1))
    out[..., :-1] += parts[..., 1:] * (n / (2 * n + 1))
    return out


def _power(x: Array, n: int) -> Array:
    return np.asarray(x**n if n >= 0 else np.zeros_like(x))


def _later(x: Array, y: Array, n: int) -> Array:
    """(x + y)^n without its first two terms in y, which may be all but its last digits."""
    x = np.broadcast_to(x, y.shape)
    out = np.asarray(_power(x + y, n) - _power(x, n) - n * _power(x, n - 1) * y)
    small = n * np.abs(y) < 0.1 * x
    if n > 1 and small.any():
        ratio = y[small] / x[small]
        series = np.ones_like(ratio)
        for j in range(11, 2, -1):
            series = 1 + (n - j + 1) / j * ratio * series
        out[small] = 0.5 * n * (n - 1) * _power(x[small], n - 2) * y[small] ** 2 * series
    return out
