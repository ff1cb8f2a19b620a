"""Least costs of runs of sorted values, each sent to its mean, that end in windows: one layer a run."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._types import Index


def squares_of_means(zero: NDArray[Any], one: NDArray[Any]) -> NDArray[Any]:
    """The square sum of what runs are sent to, in place of their first moments: of nothing, zero."""
    some = zero > 0
    one *= one
    np.divide(one, zero, out=one, where=some)
    if not some.all():
        one[~some] = 0
    return one


def least_costs(
    sums: NDArray[Any], low: Index, high: Index, reach: Index, apart: int
) -> tuple[list[NDArray[Any]], list[Index]]:
    """Least cost of k runs that end in each place of window k, and the place before it: from its reach on.

    Parameters
    ----------
    sums : ndarray of shape (3, S)
        Weights of all values before each place, their first and their second moments.
    low, high : ndarray of shape (K + 1,)
        The windows; of 0 runs, and of all, single places.
    reach : ndarray of shape (S,)
        Ascending; runs that end at a place begin here or later.
    apart : int
        The least length of a run, in places.

    Returns
    -------
    best, cuts : list of ndarray
        K + 1 and K arrays, as long as their windows.

    Examples
    --------
    >>> x = np.array([0.0, 1.0, 5.0, 7.0])
    >>> sums = np.array([np.cumsum(np.append(0, x**k)) for k in range(3)])
    >>> best, cuts = least_costs(sums, np.array([0, 1, 4]), np.array([0, 3, 4]), np.zeros(5, np.intp), 1)
    >>> best[-1].tolist(), path(cuts, np.array([0, 1, 4]), np.array([0, 3, 4])).tolist()
    ([2.5], [0, 2, 4])
    """
    best, cuts = [np.zeros(1, sums.dtype)], []
    for k in range(1, low.size):
        new, cut = _layer(sums, best[-1], (low[k - 1], high[k - 1]), (low[k], high[k]), reach, apart)
        best.append(new)
        cuts.append(cut)
    return best, cuts


def path(cuts: list[Index], low: Index, high: Index) -> Index:
    """The places of all cuts of the best partition, from the last back."""
    places = [int(high[-1])]
    for k in range(len(cuts), 0, -1):
        places.append(int(cuts[k - 1][places[-1] - low[k]]))
    return np.array(places[::-1])


def _layer(
    sums: NDArray[Any],
    before: NDArray[Any],
    sources: tuple[int, int],
    targets: tuple[int, int],
    reach: Index,
    apart: int,
) -> tuple[NDArray[Any], Index]:
    """One more run: best[j] = min over reach[j] <= i <= j - apart of before[i] + cost(i, j), in windows.

    The best cut moves right with j, so the slots in the middle of what is decided bound each other's cuts: all middles
    of one depth are solved in one sweep over at most as many candidates as both windows have.
    """
    zero, one, two = sums
    start, source = targets[0], slice(sources[0], sources[1] + 1)
    base = np.stack([zero[source], one[source], before - two[source]])
    size = targets[1] - start + 1
    best, cut = np.empty(size, sums.dtype), np.empty(size, np.intp)
    low, high, least, most = (np.array([v]) for v in (*targets, *sources))
    while low.size:
        middle = (low + high) // 2
        end = np.minimum(most, middle - apart)
        # Where nothing is in reach one is tried all the same.
        begin = np.maximum(least, np.minimum(reach[middle], end))
        width = end - begin + 1
        first = np.cumsum(width) - width
        i = np.arange(first[-1] + width[-1]) + np.repeat(begin - first - sources[0], width)
        mass, moment, value = base.take(i, axis=1)
        mass -= np.repeat(zero[middle], width)
        moment -= np.repeat(one[middle], width)
        value -= squares_of_means(np.negative(mass, out=mass), moment)
        found = np.minimum.reduceat(value, first)
        hit = np.flatnonzero(value == np.repeat(found, width))
        chosen = i[hit[np.searchsorted(hit, first)]] + sources[0]
        best[middle - start], cut[middle - start] = found + two[middle], chosen
        left, right = low < middle, middle < high
        low, high, least, most = (
            np.concatenate([low[left], middle[right] + 1]),
            np.concatenate([middle[left] - 1, high[right]]),
            np.concatenate([least[left], chosen[right]]),
            np.concatenate([chosen[left], most[right]]),
        )
    return best, cut
