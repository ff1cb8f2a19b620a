"""Rows of a sample by extremes and moments, sorted only when more is asked of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import check_finite
from .._threads import cached_property, chunk_slices, thread_map
from .._types import Array
from ..densities.base import Density
from .empirical import Empirical
from .rows import round_down

# Values that are looked at together: they stay in a cache.
_AT_ONCE = 1 << 15


def _of_sorted(name: str) -> Any:
    """The method of the sorted sample."""
    return lambda self, *args, **options: getattr(self.sorted, name)(*args, **options)


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
        return np.minimum(np.maximum(self._average(lambda x: x), self.support[0]), self.support[1])

    @cached_property
    def std(self) -> Array:
        """Root of the weighted mean square distance from the mean."""
        mean = self.mean[:, None]
        root: Array = np.sqrt(self._average(lambda x: np.square(x - mean)))
        return root

    def moments(self, lower: ArrayLike, upper: ArrayLike, about: ArrayLike) -> Array:
        """Moments of each row over lower < x <= upper; see `Density.moments`."""
        low, up, centre = (np.broadcast_to(a, self.shape).astype(np.float64)[:, None] for a in (lower, upper, about))
        # In the type of the values they are compared without being converted.
        low, up = (round_down(end, self.rows.dtype) for end in (low, up))

        bounded = (low > -np.inf).any(), (up < np.inf).any()

        def parts(x: NDArray[Any], w: Array | None) -> Array:
            out, n = np.empty((3, len(x))), x.shape[1]
            for some in chunk_slices(len(x), max(1, _AT_ONCE // n)):
                own = x[some]
                inside = own <= up[some] if bounded[1] else np.ones(own.shape, np.bool_)
                if bounded[0]:
                    inside &= own > low[some]
                # Of tails there are few: these alone are added up.
                hit = np.flatnonzero(inside)
                row = hit // n
                value = own.ravel().take(hit) - centre[some, 0].take(row)
                mass = None if w is None else w[some].ravel().take(hit)
                first = value if mass is None else value * mass
                for order, terms in enumerate((mass, first, first * value)):
                    out[order, some] = np.bincount(row, terms, len(own))
            return out

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

    def take(self, index: NDArray[np.intp]) -> Self:
        return type(self)(self.rows[index], None if self.weights is None else self.weights[index])

    pdf, panels, cell_moments, tails = map(_of_sorted, ("pdf", "panels", "cell_moments", "tails"))
    cdf, sf, quantile, isf = map(_of_sorted, ("cdf", "sf", "quantile", "isf"))
    atoms = property(lambda self: self.sorted.atoms)
    atom_count = property(lambda self: self.sorted.atom_count)
