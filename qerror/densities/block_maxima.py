"""The largest magnitude of the others: what one value of a block sees of its neighbours.

Of B independent values take one, x; the largest magnitude M' of the other n = B - 1 is independent of it, with
P(M' <= m) = A(m)^n, A(m) = P(|x| <= m), and the block's largest magnitude is max(|x|, M').
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._types import Array
from .base import Density
from .panels import resolve

# Panels in log m to begin with, and nodes on those that were found.
_PANEL, _NODES = 0.5, 16
# Where the coarse look for the range begins and ends, in powers of two of the root mean square; how fine it is.
_FIRST, _LAST, _PER_OCTAVE = -60, 500, 4
# Shares of E[M^2] that are left out at either end.
_LEFT_OUT = 1e-19


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
        outside = np.asarray(self.density.sf(m)) + np.asarray(self.density.cdf(np.nextafter(-m, -np.inf)))
        near = outside > 0.5
        with np.errstate(divide="ignore"):
            out = np.log1p(-np.minimum(outside, 0.5))
            if near.any():
                out[near] = np.log(self.density.moments(np.nextafter(-m[near], -np.inf), m[near], 0.0)[0])
        return np.asarray(out)

    def below(self, m: Array) -> Array:
        """P(M' <= m)."""
        if not self.others:
            return np.ones(np.shape(m))
        return np.asarray(np.exp(self.others * self.log_inside(m)))

    def both_sides(self, m: Array) -> Array:
        """f(m) + f(-m)."""
        return np.asarray(self.density.pdf(m)) + np.asarray(self.density.pdf(-m))

    def weight(self, m: Array) -> Array:
        """How much blocks with their largest magnitude about m count: m^3 A(m)^n (f(m) + f(-m)), by log m."""
        with np.errstate(over="ignore", invalid="ignore"):
            return np.nan_to_num(self.below(m) * self.both_sides(m) * m**3, posinf=0.0)

    def range(self) -> tuple[float, float]:
        """The m between which all but 1e-19 of E[M^2] lies (no further than float64 and the support reach)."""
        end = float(np.max(np.abs(self.density.support)))
        m = self.rms * np.exp2(np.arange(_FIRST * _PER_OCTAVE, _LAST * _PER_OCTAVE + 1) / _PER_OCTAVE)
        m = m[m < min(end, 1e150)]
        w = self.weight(m)
        total = w.sum()
        before, after = np.cumsum(w), np.cumsum(w[::-1])[::-1]
        inside = np.flatnonzero((before > _LEFT_OUT * total) & (after > _LEFT_OUT * total))
        low, high = m[max(inside[0] - 1, 0)], m[min(inside[-1] + 1, m.size - 1)]
        return float(low), end if high == m[-1] and np.isfinite(end) else float(high)

    def nodes(self, cuts: Array, step: float = _PANEL) -> tuple[Array, Array]:
        """Nodes m and weights dm of an integral over the range, whose integrand is smooth between `cuts`."""
        low, high = self.range()
        inner = np.log(cuts[(cuts > low) & (cuts < high)])
        count = max(1, int(np.ceil((np.log(high) - np.log(low)) / step)))
        edges = np.linspace(np.log(low), np.log(high), count + 1)
        known = np.unique(np.abs(np.concatenate([self.density.kinks.ravel(), _finite(self.density.support)])))
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


class Shells(NamedTuple):
    """What the scale of a block depends on, in rows: for M' <= inner and |x| <= inner, and for the ring up to outer.

    Of row j, x with |x| <= inner[j] is scaled by scale[j] with probability `within[j]`, x with inner[j] < |x| <=
    outer[j] with probability `around[j]`: in a ring x may itself be the largest.
    """

    scale: Array
    inner: Array
    outer: Array
    within: Array
    around: Array

    def select(self, index: Any) -> Shells:
        """Some of the rows."""
        return Shells(*(column[index] for column in self))


def stored_shells(largest: Largest, bounds: Array, scales: Array) -> Shells:
    """Scales that are constant between bounds: a finite sum, all of whose terms are positive.

    E[loss] = sum_j (P_{j+1} - P_j) C_j(m_j) + P_{j+1} (C_j(m_{j+1}) - C_j(m_j)), P_j = P(M' <= m_j) and C_j(m) the loss
    of |x| <= m at scale j.
    """
    low, high = largest.range()
    # What lies below the range has any scale: hardly anything is there.
    first = max(int(np.searchsorted(bounds, low, side="right")) - 1, 0)
    last = int(np.searchsorted(bounds, high, side="left"))
    bounds, scales = bounds[first : last + 1], scales[first:last]
    inner, outer = np.where(np.arange(scales.size) == 0, 0.0, bounds[:-1]), bounds[1:]
    around = largest.below(outer)
    within = np.zeros(scales.size)
    if largest.others:
        with np.errstate(divide="ignore", invalid="ignore"):
            ends = np.stack([np.stack([-outer, -inner], axis=-1), np.stack([inner, outer], axis=-1)])
            mass = largest.density.cell_moments(ends, np.zeros((2, scales.size, 1)))[0].sum(axis=(0, 2))
            # A_j / A_{j+1} = 1 - mass / A_{j+1}: the mass of a narrow ring keeps its digits.
            share = np.minimum(mass / np.exp(largest.log_inside(outer)), 1.0)
            within = np.nan_to_num(around * -np.expm1(largest.others * np.log1p(-share)))
    return Shells(scales, inner, outer, within, around)


def ends_of(*arrays: Any) -> Array:
    """All finite numbers of some arrays."""
    return _finite(np.concatenate([np.ravel(np.asarray(a, np.float64)) for a in arrays]))


def _finite(values: Any) -> Array:
    flat = np.ravel(np.asarray(values, np.float64))
    return flat[np.isfinite(flat)]
