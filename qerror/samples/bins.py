"""Equal bins over the range of sorted rows, which say where in a row a search begins."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._types import Index


class Bins(NamedTuple):
    """As many bins as a row has values. Their number grows with x whatever is rounded, so a search stays in its bin.

    Attributes
    ----------
    low, per_bin : ndarray of shape (R, 1)
        A value x is in bin (x - low) * per_bin, rounded down.
    start : ndarray of shape (R * n,)
        How many values of its row lie in the bins before.
    most : int
        The most values in a bin: all of a row whose range is none.
    """

    low: NDArray[Any]
    per_bin: NDArray[Any]
    start: NDArray[np.int32]
    most: int

    @classmethod
    def of(cls, values: NDArray[Any]) -> Bins:
        """The bins of sorted rows of shape (R, n), in their type.

        Examples
        --------
        >>> bins = Bins.of(np.array([[0.0, 1.0, 1.5, 4.0]]))
        >>> bins.start.tolist(), bins.most
        ([0, 1, 3, 3], 2)
        """
        (count, n), low = values.shape, values[:, :1]
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            per_bin = n / (values[:, -1:] - low)
        # Of equal values, and of ranges beyond the type, all lie in the first bin.
        per_bin = np.where(np.isfinite(per_bin), per_bin, 0.0).astype(values.dtype)
        number = _number(values, low, per_bin, n)
        number += n * np.arange(count)[:, None]
        held = np.bincount(number.ravel(), minlength=count * n).reshape(count, n)
        start = np.cumsum(held, axis=1, dtype=np.int32) - held
        return cls(low, per_bin, start.astype(np.int32).ravel(), int(held.max()))

    def start_of(self, row: Index, key: NDArray[Any]) -> Index:
        """How many values of `row` surely are <= `key`: at most `most` fewer than are."""
        n = self.start.size // self.low.size
        number = _number(key, self.low.take(row), self.per_bin.take(row), n)
        number += row * n
        return self.start.take(number).astype(np.intp)


def _number(x: NDArray[Any], low: NDArray[Any], per_bin: NDArray[Any], count: int) -> Index:
    # Keys far beyond a row may leave the range of float32.
    with np.errstate(over="ignore"):
        place = x - low
        place *= per_bin
    np.clip(place, 0, count - 1, out=place)
    number: Index = place.astype(np.intp)
    return number
