"""A histogram as a density: constant between neighbouring edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array, check_finite
from .._types import Array
from .base import Density
from .inversion import probability
from .location_scale import said_value, unwrap


class Histogram(Density):
    """Piecewise constant density of binned data, in the order of `numpy.histogram`.

    f(x) = counts_i / (sum(counts) (edges_(i+1) - edges_i)) for edges_i < x < edges_(i+1).

    Parameters
    ----------
    counts : array_like of shape (n,)
        Counts or weights of the bins, >= 0, not all 0.
    edges : array_like of shape (n + 1,)
        Ascending, finite, units of x.

    Raises
    ------
    ValueError
        For negative counts, counts that sum to 0, edges that do not ascend or do not fit.

    Examples
    --------
    >>> import numpy as np, qerror as qe
    >>> bins = qe.Histogram(*np.histogram([0.1, 0.2, 0.6, 1.9], bins=2, range=(0, 2)))
    >>> bins.pdf([0.5, 1.5]).tolist(), float(bins.mean)
    ([0.75, 0.25], 0.75)
    """

    nodes = 2

    def __init__(self, counts: ArrayLike, edges: ArrayLike) -> None:
        self.counts, self.edges = _checked(counts, edges)
        share = self.counts / self.counts.max()
        self._mass = share / share.sum()
        width = np.diff(self.edges)
        self._height = self._mass / width
        middle = self.edges[:-1] + 0.5 * width
        # About the middle of the range: edges far from zero keep their precision.
        origin = 0.5 * self.edges[0] + 0.5 * self.edges[-1]
        self._mean = float(origin + (self._mass * (middle - origin)).sum())
        self._std = float(np.sqrt((self._mass * ((middle - self._mean) ** 2 + width**2 / 12)).sum()))
        self._below = np.concatenate([[0.0], np.cumsum(self._mass)])
        self._above = np.concatenate([np.cumsum(self._mass[::-1])[::-1], [0.0]])

    @property
    def name(self) -> str:
        """Counts and edges, as `qerror.density` reads them."""
        return f"histogram:counts={said_value(self.counts)},edges={said_value(self.edges)}"

    @property
    def mean(self) -> float:
        return self._mean

    @property
    def std(self) -> float:
        return self._std

    @property
    def support(self) -> tuple[float, float]:
        """Ends of the first and last bin that hold anything."""
        filled = np.flatnonzero(self._mass)
        return float(self.edges[filled[0]]), float(self.edges[filled[-1] + 1])

    @property
    def entropy(self) -> float:
        """-sum of mass times log2 of the height, over the bins."""
        filled = self._mass > 0
        return -float((self._mass[filled] * np.log2(self._height[filled])).sum())

    @property
    def kinks(self) -> Array:
        """Edges where the height changes."""
        height = np.concatenate([[0.0], self._height, [0.0]])
        changes: Array = self.edges[np.diff(height) != 0.0]
        return changes

    def panels(self) -> Array:
        """The edges where the height changes."""
        return self.kinks

    def _bin(self, x: Array) -> NDArray[np.intp]:
        return np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, self._mass.size - 1)

    def pdf(self, x: ArrayLike) -> Array:
        """Height of the bin of `x` (the right one on an inner edge), 0 outside."""
        x = np.asarray(x, np.float64)
        inside = (x >= self.edges[0]) & (x <= self.edges[-1])
        return unwrap(np.where(inside, self._height[self._bin(x)], 0.0))

    def decay_length(self, x: Array, sign: Array) -> Array:
        """There is nothing beyond the edges: any length serves."""
        return np.full(np.shape(x), self._std)

    def cdf(self, x: ArrayLike) -> Array:
        x = np.clip(np.asarray(x, np.float64), self.edges[0], self.edges[-1])
        i = self._bin(x)
        return unwrap(self._below[i] + self._height[i] * (x - self.edges[i]))

    def sf(self, x: ArrayLike) -> Array:
        x = np.clip(np.asarray(x, np.float64), self.edges[0], self.edges[-1])
        i = self._bin(x)
        return unwrap(self._above[i + 1] + self._height[i] * (self.edges[i + 1] - x))

    def tails(self, t: Array) -> tuple[Array, Array]:
        x = np.clip(t, self.edges[0], self.edges[-1])
        i = self._bin(x)
        upper = t >= self._mean
        left, right = x - self.edges[i], self.edges[i + 1] - x
        down, up = self._first_below_above()
        above = up[i + 1] + self._height[i] * right * (x - self._mean + 0.5 * right)
        below = down[i] + self._height[i] * left * (self._mean - x + 0.5 * left)
        mass = np.where(upper, self._above[i + 1] + self._height[i] * right, -self._below[i] - self._height[i] * left)
        return mass, np.maximum(np.where(upper, above, below), 0.0)

    def _first_below_above(self) -> tuple[Array, Array]:
        """E[mean - X; X < edge] and E[X - mean; X > edge] at every edge."""
        first = self._mass * (0.5 * (self.edges[:-1] - self._mean) + 0.5 * (self.edges[1:] - self._mean))
        down, up = np.cumsum(-first), np.cumsum(first[::-1])[::-1]
        return np.concatenate([[0.0], down]), np.concatenate([up, [0.0]])

    def quantile(self, p: ArrayLike) -> Array:
        p = probability(p)
        return unwrap(np.where(p <= 0.5, self._from_below(p), self._from_above(1.0 - p)))

    def isf(self, p: ArrayLike) -> Array:
        p = probability(p)
        return unwrap(np.where(p < 0.5, self._from_above(p), self._from_below(1.0 - p)))

    def _from_below(self, p: Array) -> Array:
        # The smallest x: an empty stretch is left on its lower side, and p = 0 is the start of the support.
        low, high = self.support
        i = np.clip(np.searchsorted(self._below, p, side="left") - 1, 0, self._mass.size - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.edges[i] + (p - self._below[i]) / self._height[i]
        return np.where(p > 0.0, np.clip(np.minimum(x, self.edges[i + 1]), low, high), low)

    def _from_above(self, p: Array) -> Array:
        low, high = self.support
        ascending = self._above[::-1]
        j = np.clip(ascending.size - np.searchsorted(ascending, p, side="right"), 1, self._mass.size)
        with np.errstate(divide="ignore", invalid="ignore"):
            x = self.edges[j] - (p - self._above[j]) / self._height[j - 1]
        return np.where(p > 0.0, np.clip(np.maximum(x, self.edges[j - 1]), low, high), high)

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        # A bin for each value, then a place inside it.
        filled = np.flatnonzero(self._mass)
        ends = np.cumsum(self._mass[filled])[:-1]
        i = filled[np.searchsorted(ends, generator.random(size), side="right")]
        return np.asarray(self.edges[i] + (self.edges[i + 1] - self.edges[i]) * generator.random(size))


def _checked(counts: ArrayLike, edges: ArrayLike) -> tuple[Array, Array]:
    counts, edges = np.array(as_float_array("counts", counts)), np.array(as_float_array("edges", edges))
    check_finite("counts", counts)
    check_finite("edges", edges)
    if counts.ndim != 1 or edges.shape != (counts.size + 1,) or not counts.size:
        raise ValueError(f"edges must hold one value more than counts, got {edges.shape} edges, {counts.shape} counts")
    if (np.diff(edges) <= 0).any():
        i = int(np.argmax(np.diff(edges) <= 0))
        raise ValueError(f"edges must ascend, got {edges[i]} before {edges[i + 1]} at index {i}")
    if (counts < 0).any():
        i = int(np.argmax(counts < 0))
        raise ValueError(f"counts must be >= 0, got {counts[i]} at index {i}")
    if not counts.max() > 0:
        raise ValueError("counts must not all be 0: there is no mass")
    counts.flags.writeable = edges.flags.writeable = False
    return counts, edges
