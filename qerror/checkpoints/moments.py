"""Moments of values in parts, put together without a second look at the values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices


class Moments(NamedTuple):
    """Number of values, their mean, and the sums of powers 2, 3 and 4 of their distance from it."""

    number: float
    mean: float
    second: float
    third: float
    fourth: float

    @property
    def kurtosis(self) -> float:
        """Excess kurtosis (a Gaussian has 0); nan where all values are equal."""
        return self.number * self.fourth / self.second**2 - 3 if self.second > 0 else math.nan


def moments_of(values: NDArray[np.floating], weights: NDArray[np.float64] | None = None) -> Moments:
    """Moments of values, each counted as often as its weight says, in float64 and without a copy of them.

    Examples
    --------
    >>> moments_of(np.array([1.0, 3.0])).second, moments_of(np.array([1.0, 3.0]), np.array([2.0, 2.0])).second
    (2.0, 4.0)
    """
    flat = values.reshape(-1)
    parts = chunk_slices(flat.size)
    count = float(flat.size if weights is None else weights.sum())
    if weights is None:
        mean = sum(float(flat[part].astype(np.float64).sum()) for part in parts) / count
    else:
        mean = sum(float((flat[part] * weights[part]).sum()) for part in parts) / count
    sums = np.zeros(3)
    for part in parts:
        away = flat[part].astype(np.float64) - mean
        square = np.square(away)
        mass = square if weights is None else square * weights[part]
        sums += mass.sum(), np.einsum("i,i->", mass, away), np.einsum("i,i->", mass, square)
    return Moments(count, mean, *map(float, sums))


def joined(parts: Iterable[Moments]) -> Moments:
    """Moments of all values, the parts taken in their order.

    References
    ----------
    Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical moments",
    Sandia report SAND2008-6212, equations 3.1 to 3.4 (doi.org/10.2172/1028931).

    Examples
    --------
    >>> x = np.array([0.5, 2.0, -1.0, 7.0])
    >>> whole, two = moments_of(x), joined([moments_of(x[:1]), moments_of(x[1:])])
    >>> bool(np.allclose(whole, two, rtol=1e-14))
    True
    """
    total = Moments(0.0, 0.0, 0.0, 0.0, 0.0)
    for part in parts:
        total = _two(total, part) if total.number else part
    return total


def _two(one: Moments, two: Moments) -> Moments:
    count = one.number + two.number
    apart = two.mean - one.mean
    a, b = one.number / count, two.number / count
    mean = one.mean + apart * b
    cross = apart * apart * one.number * b
    second = one.second + two.second + cross
    third = one.third + two.third + cross * apart * (a - b) + 3 * apart * (a * two.second - b * one.second)
    fourth = one.fourth + two.fourth + cross * apart**2 * (a * a - a * b + b * b)
    fourth += 6 * apart**2 * (a * a * two.second + b * b * one.second) + 4 * apart * (a * two.third - b * one.third)
    return Moments(count, mean, second, third, fourth)


def sorted_values(
    values: NDArray[np.float32], counts: NDArray[np.int64], *, folded: bool
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Values ascending, and how often each is there; `folded`: of magnitudes.

    0 and -0 stay apart, as a sample of the values has them: sums come out in the same order, to the same bits.

    Examples
    --------
    >>> x, n = np.array([0, 2, -0.0, -2], np.float32), np.array([5, 1, 3, 7])
    >>> sorted_values(x, n, folded=False)
    (array([-2.,  0., -0.,  2.], dtype=float32), array([7., 5., 3., 1.]))
    >>> sorted_values(x, n, folded=True)
    (array([0., 2.], dtype=float32), array([8., 8.]))
    """
    if not folded:
        order = np.argsort(values, kind="stable")
        return values[order], counts[order].astype(np.float64)
    distinct, place = np.unique(np.abs(values), return_inverse=True)
    return distinct, np.bincount(place, counts.astype(np.float64), distinct.size).astype(np.float64)
