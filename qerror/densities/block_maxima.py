"""The largest magnitude of the others: what one value of a block sees of its neighbours.

Of B independent values take one, x; the largest magnitude M' of the other n = B - 1 is independent of it, with
P(M' <= m) = A(m)^n, A(m) = P(|x| <= m), and the block's largest magnitude is max(|x|, M').
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from .._types import Array, Index
from .base import Density
from .panels import resolve

# Panels in log m to begin with, and nodes on those that were found.
_PANEL, _NODES = 1.0, 16
# Nodes of an interval by its width, as a share of its upper end or of the length in which all changes, if shorter.
_COUNTS = ((0.0, 0.02, 4), (0.02, 0.15, 8), (0.15, np.inf, 16))
# Where the coarse look for the range begins and ends, in powers of two of the root mean square; how fine it is.
_FIRST, _LAST, _PER_OCTAVE = -480, 500, 2
# Panels in the Gumbel variable of a tensor's largest, and their nodes: NVFP4's error is right to 1e-12.
_GUMBEL, _GUMBEL_NODES = np.array([-3.6, -1.5, 0.5, 3.0, 8.0, 30.0]), 10
# A unit of it about the middle of M', and where M' hardly ever is above; how many of them make a length.
_MIDDLE, _UNITS = np.array([0.5, 1.5, 9.5]), 10.0
# Shares of the blocks that are left out at the lower end, and of E[M^2] at the upper.
_LEFT_OUT = 1e-17


class Largest:
    """M' of a density, for blocks of `block_size` values.

    Parameters
    ----------
    density : Density
        Of shape (), without point masses but at 0.
    block_size : int
    """

    def __init__(self, density: Density, block_size: int) -> None:
        self.density, self.others = density, block_size - 1
        self.rms = float(np.hypot(density.std, density.mean))

    def log_inside(self, m: Array) -> Array:
        """Log A(m), from the smaller of the mass inside and outside."""
        outside = self._outside(m)
        near = outside > 0.5
        with np.errstate(divide="ignore"):
            out = np.log1p(-np.minimum(outside, 0.5))
            if near.any():
                out[near] = np.log(self.density.moments(np.nextafter(-m[near], -np.inf), m[near], 0.0)[0])
        return np.asarray(out)

    def _outside(self, m: Array) -> Array:
        """P(|x| > m), within a few roundings of 1."""
        # So far out nothing is left of any density, and no formula meets an infinity.
        m, mean = np.minimum(m, 1e30 * self.rms), float(self.density.mean)
        if self.density.symmetric and mean == 0:
            return np.asarray(2 * self.density.tails_about_mean(m)[0])
        above, below = self.density.tails(m)[0], self.density.tails(-m)[0]
        return np.where(m >= mean, above, 1 + above) + np.where(-m >= mean, 1 - below, -below)

    def below(self, m: Array) -> Array:
        """P(M' <= m)."""
        if not self.others:
            return np.ones(np.shape(m))
        return np.asarray(np.exp(self.others * self.log_inside(m)))

    def both_sides(self, m: Array) -> Array:
        """f(m) + f(-m)."""
        return np.asarray(self.density.pdf(m)) + np.asarray(self.density.pdf(-m))

    def ring(self, inner: Array, outer: Array) -> Array:
        """P(inner < |x| <= outer), to its own digits."""
        ends = np.stack([np.stack([-outer, -inner], axis=-1), np.stack([inner, outer], axis=-1)])
        mass: Array = self.density.cell_moments(ends, np.zeros((2, inner.size, 1)))[0].sum(axis=(0, 2))
        return mass

    def beyond(self, p: Array) -> Array:
        """The m with P(|x| > m) = p."""
        if self.density.symmetric and not np.any(self.density.mean):
            return np.asarray(self.density.isf(0.5 * p))
        goal = np.log(p)
        low, high = np.full(p.shape, 1e-9 * self.rms), np.full(p.shape, self.rms)
        while (short := self._log_outside(high) > goal).any():
            high = np.where(short, 2 * high, high)
        for _ in range(60):
            middle = np.sqrt(low * high)
            more = self._log_outside(middle) > goal
            low, high = np.where(more, middle, low), np.where(more, high, middle)
        return np.asarray(high)

    def _log_outside(self, m: Array) -> Array:
        with np.errstate(divide="ignore"):
            return np.log(np.asarray(self.density.sf(m)) + np.asarray(self.density.cdf(np.nextafter(-m, -np.inf))))

    def between(self, lower: Array, upper: Array) -> tuple[Array, Array, Index]:
        """Gauss-Legendre nodes of intervals of positive numbers, fewer of those in which hardly anything changes.

        Returns
        -------
        x, weight : ndarray of shape (n,)
        owner : ndarray of shape (n,)
            The interval that each node belongs to.
        """
        length, calm = self._length
        width = (upper - lower) / np.where(lower < calm, np.minimum(upper, length), upper)
        parts = []
        for least, most, count in _COUNTS:
            some = np.flatnonzero((width > least) & (width <= most))
            node, weight = np.polynomial.legendre.leggauss(count)
            half = 0.5 * (upper - lower)[some, None]
            x = lower[some, None] + half * (node + 1)
            parts.append((x.ravel(), (half * weight).ravel(), np.repeat(some, count)))
        x, share, owner = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        return x, share, owner

    @functools.cached_property
    def _length(self) -> tuple[float, float]:
        """The distance within which P(M' <= m) changes by far (units of its Gumbel variable), and where it is 0.9999.

        Beyond, heavy tails go on for long, and nothing changes but with m itself.
        """
        if self.others < 2:
            return np.inf, 0.0
        one, two, calm = self.beyond(np.exp(-_MIDDLE) / self.others)
        return _UNITS * float(two - one), float(calm)

    @functools.cached_property
    def marks(self) -> Array:
        """The m between which P(M' <= m) is smooth: there its Gumbel variable -log(n P(|x| > m)) is a panel's end."""
        outside = np.exp(-_GUMBEL) / max(1, self.others)
        return self.beyond(outside[outside < 1]) if self.others else np.empty(0)

    def of_tensor(self, size: int, nodes: int = _GUMBEL_NODES) -> tuple[Array, Array]:
        """Largest magnitudes t of `size` values, as nodes (so many to a panel), and their probabilities.

        In z = -log(size P(|x| > t)) the density of t is close to exp(-z - exp(-z)) whatever that of x.
        """
        edges = _GUMBEL
        node, weight = np.polynomial.legendre.leggauss(nodes)
        half = 0.5 * np.diff(edges)[:, None]
        z = (edges[:-1, None] + half * (node + 1)).ravel()
        outside = np.exp(-z) / size
        possible = outside < 1
        z, outside = z[possible], outside[possible]
        share = (half * weight).ravel()[possible] * np.exp((size - 1) * np.log1p(-outside) - z)
        return self.beyond(outside), share / share.sum()

    def weight(self, m: Array, order: int = 2) -> Array:
        """How much blocks with their largest magnitude M about m count for E[M^order], by log m.

        It is m^order A(m)^n (f(m) + f(-m)) m.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            return np.nan_to_num(self.below(m) * self.both_sides(m) * m ** (order + 1), posinf=0.0)

    @functools.cached_property
    def span(self) -> tuple[float, float]:
        """The m between which all but 1e-17 of the blocks and of E[M^2] lie, within float64 and the support.

        Small blocks with small maxima are more of all blocks than of the squares: codes are counted in all of them.
        """
        end = float(np.max(np.abs(self.density.support)))
        m = self.rms * np.exp2(np.arange(_FIRST * _PER_OCTAVE, _LAST * _PER_OCTAVE + 1) / _PER_OCTAVE)
        m = m[m < min(end, 1e150)]
        if np.isfinite(end):
            # Of large blocks all maxima are next to the end.
            m = np.unique(np.concatenate([m, end * (1 - 0.5 ** np.arange(1.0, 40.0))]))
        blocks, squares = self.weight(m, 0), self.weight(m)
        before, after = np.cumsum(blocks), np.cumsum(squares[::-1])[::-1]
        inside = np.flatnonzero((before > _LEFT_OUT * before[-1]) & (after > _LEFT_OUT * after[0]))
        low, high = m[max(inside[0] - 1, 0)], m[min(inside[-1] + 1, m.size - 1)]
        return float(low), end if high == m[-1] and np.isfinite(end) else float(high)

    def nodes(self, cuts: Array) -> tuple[Array, Array]:
        """Nodes m and weights dm of an integral over the range, whose integrand is smooth between `cuts`."""
        low, high = self.span
        inner = np.log(cuts[(cuts > low) & (cuts < high)])
        count = max(1, int(np.ceil((np.log(high) - np.log(low)) / _PANEL)))
        edges = np.linspace(np.log(low), np.log(high), count + 1)
        known = np.unique(np.abs(np.concatenate([self.density.kinks.ravel(), finite(self.density.support)])))
        inner = np.concatenate([inner, np.log(known[(known > low) & (known < high)])])
        if np.isfinite(self.density.support).any():
            # M' gathers within 1 / n of the end.
            inner = np.append(inner, np.log(high) + np.log1p(-(0.5 ** np.arange(1, 30))))
        edges = np.unique(np.concatenate([edges, inner[inner > edges[0]]]))
        edges, _ = resolve(lambda at: self.weight(np.exp(at)), edges, relative=1e-9, absolute=1e-13, depth=12)
        node, weight = np.polynomial.legendre.leggauss(_NODES)
        half = 0.5 * np.diff(edges)[:, None]
        m = np.exp(edges[:-1, None] + half * (node + 1))
        return m.ravel(), (half * weight * m).ravel()


def finite(values: Any) -> Array:
    """The finite numbers of an array, flat."""
    flat = np.ravel(np.asarray(values, np.float64))
    return flat[np.isfinite(flat)]
