"""Rows of a sample by extremes and moments, sorted only when more is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import check_finite
from .._threads import cached_property, chunk_slices, thread_map
from ..densities.base import Array, Density
from .empirical import Empirical


class RowMoments(Density):
    """A sample of shape (R,): extremes and moments by passes over its rows, all else by the `Empirical` of them.

    Parameters
    ----------
    rows : ndarray of shape (R, n)
        Not copied: it lives no longer than the fit.
    weights : ndarray of shape (R, n) or None

    Examples
    --------
    >>> RowMoments(np.array([[1.0, 2.0, 6.0]]), None).mean
    array([3.])
    """

    def __init__(self, rows: NDArray[Any], weights: Array | None) -> None:
        self.rows, self.weights = rows, weights
        self.shape = (rows.shape[0],)

    @cached_property
    def sorted(self) -> Empirical:
        """The same rows as the exact sample engine has them."""
        return Empirical(self.rows, self.weights, axis=0)

    @property
    def name(self) -> str:
        """The word "empirical": no text describes a sample."""
        return "empirical"

    @cached_property
    def support(self) -> tuple[Array, Array]:
        """The least and the greatest value of each row."""
        ends = self._over(lambda x, w: (x.min(axis=1), x.max(axis=1)))
        low, high = np.min([end[0] for end in ends], axis=0), np.max([end[1] for end in ends], axis=0)
        # A NaN shows in both, an infinity at its end.
        if not (np.isfinite(low).all() and np.isfinite(high).all()):
            check_finite("x", self.rows)
        return low.astype(np.float64), high.astype(np.float64)

    @cached_property
    def _total(self) -> Array:
        return np.full(self.shape, float(self.rows.shape[1])) if self.weights is None else self.weights.sum(axis=1)

    @cached_property
    def mean(self) -> Array:
        """Weighted mean of each row."""
        return self._average(lambda x: x)

    @cached_property
    def std(self) -> Array:
        """Root of the weighted mean square distance from the mean."""
        mean = self.mean[:, None]
        root: Array = np.sqrt(self._average(lambda x: np.square(x - mean)))
        return root

    def moments(self, lower: ArrayLike, upper: ArrayLike, about: ArrayLike) -> Array:
        """Moments of each row over lower < x <= upper; see `Density.moments`."""
        low, up, centre = (np.broadcast_to(a, self.shape).astype(np.float64)[:, None] for a in (lower, upper, about))

        def parts(x: NDArray[Any], w: Array | None) -> Array:
            distance = x.astype(np.float64) - centre
            inside = ((x > low) & (x <= up)).astype(np.float64)
            mass = inside if w is None else inside * w
            return np.stack([mass.sum(axis=1), *(np.einsum("ij,ij->i", mass, distance**j) for j in (1, 2))])

        out: Array = np.sum(self._over(parts), axis=0) / self._total
        return out

    def _average(self, function: Callable[[Array], Array]) -> Array:
        def part(x: NDArray[Any], w: Array | None) -> Array:
            value = function(x.astype(np.float64))
            out: Array = value.sum(axis=1) if w is None else np.einsum("ij,ij->i", w, value)
            return out

        out: Array = np.sum(self._over(part), axis=0) / self._total
        return out

    def _over(self, function: Callable[[NDArray[Any], Array | None], Any]) -> list[Any]:
        """Call on pieces of the columns: one for all but very long rows."""
        columns = chunk_slices(self.rows.shape[1])
        weights = self.weights
        return thread_map(lambda c: function(self.rows[:, c], None if weights is None else weights[:, c]), columns)

    def pdf(self, x: ArrayLike) -> Array:
        """0: a sample has no continuous part."""
        return self.sorted.pdf(x)

    def panels(self) -> Array:
        """None: there is no continuous part."""
        return self.sorted.panels()

    @property
    def atom_count(self) -> int:
        """Length of the longest row."""
        return self.sorted.atom_count

    @property
    def atoms(self) -> tuple[Array, Array]:
        """The sorted values and their masses."""
        return self.sorted.atoms

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """See `Density.cell_moments`."""
        return self.sorted.cell_moments(edges, about, origin, last)

    def tails(self, t: Array) -> tuple[Array, Array]:
        """See `Density.tails`."""
        return self.sorted.tails(t)

    def cdf(self, x: ArrayLike) -> Array:
        """P(X <= x)."""
        return self.sorted.cdf(x)

    def sf(self, x: ArrayLike) -> Array:
        """P(X > x)."""
        return self.sorted.sf(x)

    def quantile(self, p: ArrayLike) -> Array:
        """The smallest value whose cdf is at least `p`."""
        return self.sorted.quantile(p)

    def isf(self, p: ArrayLike) -> Array:
        """The smallest value with at most the share `p` above it."""
        return self.sorted.isf(p)

    def take(self, index: NDArray[np.intp]) -> Self:
        """Members by flat index."""
        return type(self)(self.rows[index], None if self.weights is None else self.weights[index])
