"""A sample as a density: every sum over it exact, each scale in logarithmic time.

The values of a row are sorted once and, when an error is asked for, cut into blocks, whose sums of x and x^2 are
accumulated in double-double precision. A cell is then whole blocks (a difference of prefix sums) and at most two broken
ones (added up directly).
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._threads import cached_property
from .._types import Array, Index, Values
from ..densities.base import Density
from . import double_double as dd
from .intake import sorted_rows
from .rows import Rows


class Empirical(Density):
    """The distribution of a sample: each value a point mass, exact over the sample.

    E[g(x)] = sum_i w_i g(x_i) / sum_i w_i.

    Parameters
    ----------
    x : array_like
        Real numbers of any shape; never changed, and not kept. float16 and bfloat16 values (also inside float32)
        are counted by their bit patterns instead of sorted.
    weights : array_like, optional
        Importance of each element, >= 0, broadcast against `x`.
    axis : int or tuple of int, optional
        The axis or axes that keep a distribution of their own: `shape` is their lengths. None: one distribution.

    Raises
    ------
    ValueError
        For empty data, NaN or infinity, negative weights or weights that sum to 0.

    Examples
    --------
    >>> import qerror as qe
    >>> sample = qe.Empirical([0.0, 1.0, 5.0])
    >>> float(sample.mean), float(sample.cdf(1.0))
    (2.0, 0.6666666666666666)
    """

    def __init__(
        self, x: ArrayLike, weights: ArrayLike | None = None, axis: int | tuple[int, ...] | None = None
    ) -> None:
        self._hold(*sorted_rows(x, weights, axis))

    @classmethod
    def in_place(
        cls, x: NDArray[Any], weights: ArrayLike | None = None, axis: int | tuple[int, ...] | None = None
    ) -> Self:
        """The same of an array that nobody else reads: it is sorted where it is."""
        new = object.__new__(cls)
        new._hold(*sorted_rows(x, weights, axis, in_place=True))
        return new

    def _hold(self, rows: Rows, shape: tuple[int, ...]) -> None:
        self.shape, self._sums = shape, _Sums(rows)
        if len(rows.values) == 1:
            # What every question needs is made at once; many rows make it part by part.
            _ = rows.second_moment
        self._row: Index = np.arange(rows.values.shape[0]).reshape(self.shape)

    @property
    def sorted_rows(self) -> tuple[Rows, Index]:
        """The sorted rows, and which of them each member is."""
        return self._sums.rows, self._row.ravel()

    def take(self, index: NDArray[np.intp]) -> Self:
        """Members by flat index: they share the sorted rows."""
        if self.shape == ():
            return self
        new = object.__new__(type(self))
        new._sums, new._row = self._sums, self._row.ravel()[index]
        new.shape = index.shape
        return new

    @property
    def name(self) -> str:
        """The word "empirical": no text describes a sample."""
        return "empirical"

    @property
    def count(self) -> Any:
        """Number of elements, an int or an array of shape `shape`."""
        return self._sums.rows.elements[self._row][()]

    @property
    def mean(self) -> Values:
        """Weighted mean of the values, units of x."""
        return self._sums.rows.mean[self._row][()]

    @property
    def std(self) -> Values:
        """Root of the weighted mean square distance from the mean, units of x."""
        return np.sqrt(self._sums.rows.variance)[self._row][()]

    @property
    def support(self) -> tuple[Any, Any]:
        """The least and the greatest value."""
        rows = self._sums.rows
        return rows.least[self._row][()], rows.greatest[self._row][()]

    def pdf(self, x: ArrayLike) -> Array:
        """0: a sample has no continuous part, see `atoms`."""
        return np.zeros(np.broadcast_shapes(np.shape(x), self.shape))

    def panels(self) -> Array:
        """None: there is no continuous part."""
        return np.empty((*self.shape, 0))

    @property
    def atom_count(self) -> int:
        """Values in a row (the distinct ones, where they were counted)."""
        return self._sums.rows.n

    @property
    def atoms(self) -> tuple[Array, Array]:
        """The sorted values and their masses, (..., n)."""
        rows = self._sums.rows
        weight = np.ones(rows.values.shape) if rows.weights is None else rows.weights
        masses = weight / rows.total[:, None]
        return rows.values[self._row].astype(np.float64), masses[self._row]

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        shift = np.asarray(origin, np.float64)[..., None]
        ends = shift + edges if last is None else last
        lead = np.broadcast_shapes(ends.shape[:-1], self.shape)
        row = np.broadcast_to(self._row, lead)[..., None]
        rank = self._sums.rank(row, ends)
        centre = np.broadcast_to(about, (*lead, about.shape[-1]))
        rows, origin = np.broadcast_to(row, centre.shape), np.broadcast_to(shift, centre.shape)
        return self._sums.moments(rows, rank[..., :-1], rank[..., 1:], centre, origin)

    def tails(self, t: Array) -> tuple[Array, Array]:
        row = np.broadcast_to(self._row[..., None], np.broadcast_shapes((*self.shape, 1), t.shape))
        return self._sums.tails(row, t)

    def _mass_up_to(self, x: ArrayLike) -> tuple[Array, Array]:
        """Weight of the values <= x, and that of all."""
        points = np.asarray(x, np.float64)
        row = np.broadcast_to(self._row, np.broadcast_shapes(self.shape, points.shape))
        rank = self._sums.rank(row[..., None], np.broadcast_to(points, row.shape)[..., None])[..., 0]
        return self._sums.rows.mass_of(row, rank), self._sums.rows.total[row]

    def cdf(self, x: ArrayLike) -> Array:
        below, total = self._mass_up_to(x)
        share: Array = (below / total)[()]
        return share

    def sf(self, x: ArrayLike) -> Array:
        """P(X > x), exact where the values are not weighted."""
        below, total = self._mass_up_to(x)
        share: Array = ((total - below) / total)[()]
        return share

    def quantile(self, p: ArrayLike) -> Array:
        """The smallest value whose cdf is at least `p` (the inverted cdf: always a value of the sample)."""
        share = np.asarray(p, np.float64)
        row = np.broadcast_to(self._row, np.broadcast_shapes(self.shape, share.shape))
        return self._sums.select(row, np.broadcast_to(share, row.shape))[()]

    def isf(self, p: ArrayLike) -> Array:
        return self.quantile(1.0 - np.asarray(p, np.float64))

    def _draw(self, generator: np.random.Generator, size: tuple[int, ...]) -> Array:
        return self.quantile(1.0 - generator.random(size))

    def __repr__(self) -> str:
        return f"Empirical(n={np.sum(self.count)}, shape={self.shape})"


class _Sums:
    """Sums over cells of sorted rows, divided by the total weight."""

    def __init__(self, rows: Rows) -> None:
        self.rows = rows

    @cached_property
    def _blocks(self) -> tuple[dd.Pair | None, dd.Pair, dd.Pair]:
        return self.rows.block_sums()

    def rank(self, row: Index, t: Array) -> Index:
        """How many values of the row are <= t."""
        shape = np.broadcast_shapes(row.shape, t.shape)
        return self.rows.rank(np.broadcast_to(row, shape), np.broadcast_to(t, shape))

    def tails(self, row: Index, t: Array) -> tuple[Array, Array]:
        rank = self.rank(row, t)
        total = self.rows.total[row]
        below = self.rows.mass_of(row, rank)
        mass = np.where(t >= self.rows.mean[row], total - below, -below) / total
        # About the mean the first moments of both sides add up to 0.
        return mass, -self.rows.first_of(row, rank, below) / total

    def _prefix(self, j: int, row: Index, block: Index) -> dd.Pair:
        pair = self._blocks[j]
        if pair is None:
            full = np.minimum(block * self.rows.block, self.rows.n).astype(np.float64)
            return full, np.zeros_like(full)
        return pair[0][row, block], pair[1][row, block]

    def moments(self, row: Index, start: Index, stop: Index, about: Array, origin: Array) -> Array:
        """Moments (3, ...) about origin + `about` of the values from rank `start` to `stop`, by the total weight."""
        size = self.rows.block
        first, last = -(-start // size), stop // size
        whole = first <= last
        first = np.where(whole, first, last)
        out = self._whole(row, first, last, about, origin)
        if size > 1:
            out += self.rows.direct(row, start, np.where(whole, first * size, stop), about, origin)
            out += self.rows.direct(row, np.where(whole, last * size, stop), stop, about, origin)
        return out / self.rows.total[row]

    def _whole(self, row: Index, first: Index, last: Index, about: Array, origin: Array) -> Array:
        """Moments of whole blocks: S2 - 2 q S1 + q^2 S0 in double-double, so that the cancellation costs nothing."""
        high, low = dd.two_sum(origin, about)
        high, rest = dd.two_sum(high, -self.rows.mean[row])
        q = dd.two_sum(high, rest + low)
        zero, one, two = (dd.subtract(self._prefix(j, row, last), self._prefix(j, row, first)) for j in range(3))
        centred = dd.subtract(one, dd.multiply(zero, q))
        second = dd.subtract(two, dd.multiply(dd.add(one, centred), q))
        empty = first == last
        return np.where(empty, 0.0, np.stack([zero[0], centred[0], np.maximum(second[0], 0.0)]))

    def select(self, row: Index, share: Array) -> Array:
        """Values at which the cdf reaches `share`."""
        least, most = np.zeros(row.shape, np.intp), np.full(row.shape, self.rows.n - 1)
        goal = share * self.rows.total[row]
        while np.any(least < most):
            middle = (least + most) // 2
            # The relative slack keeps p = k / n at its k-th value when p * n rounds up.
            reached = self.rows.mass_of(row, middle + 1) >= goal * (1 - 1e-15)
            least, most = np.where(reached, least, middle + 1), np.where(reached, middle, most)
        return self.rows.values[row, least].astype(np.float64)
