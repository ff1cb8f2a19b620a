"""A table of the two tail functions of a symmetric density, for searches that evaluate 1e5 thresholds.

Between neighbouring edges the pdf is a polynomial through eight Gauss nodes; integrated, it gives the mass and the
first moment beyond t. Edges lie evenly inside each octave, so that the leading bits of t are the index.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices
from .._types import Array

_COUNT = 8
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(_COUNT)
# Coefficients of the polynomial in (t - middle) / half width through values at the nodes.
_TO_COEFFICIENTS = np.linalg.inv(np.vander(_NODES, increasing=True))
_OVER_1 = 1.0 / np.arange(1, _COUNT + 1)
_OVER_2 = 1.0 / np.arange(2, _COUNT + 2)
# Thresholds at a time: a dozen temporaries of this many float64 stay in the second-level cache.
_CHUNK = 4096


class TailTable:
    """sf(t) and E[X; X > t] for t >= 0 within a few 1e-16, at some 50 ns for both.

    Parameters
    ----------
    pdf : callable
        Density on the half-line, at unit standard deviation.
    start : float
        Power of two; one polynomial serves 0 <= t < start.
    stop : float
        Where the table ends; `beyond` is used from there on.
    bits : int
        2^bits intervals per octave.
    beyond : callable
        Returns (sf, first) for any t >= stop.
    """

    def __init__(
        self,
        pdf: Callable[[Array], Array],
        start: float,
        stop: float,
        bits: int,
        beyond: Callable[[Array], tuple[Array, Array]],
    ) -> None:
        steps = math.ceil(math.log2(stop / start) * 2**bits) + 1
        octave, part = np.divmod(np.arange(steps + 1), 2**bits)
        edges = np.concatenate([[0.0], start * 2.0**octave * (1.0 + part / 2**bits)])
        self._shift = 52 - bits
        self._base = int(np.float64(start).view(np.int64) >> self._shift) - 1
        self._stop, self._beyond = float(edges[-1]), beyond
        half = 0.5 * np.diff(edges)
        middle = edges[:-1] + half
        values = pdf(middle[:, None] + half[:, None] * _NODES)
        whole = half * (values @ _WEIGHTS)
        lever = middle * whole + half * half * (values @ (_WEIGHTS * _NODES))
        value = values @ _TO_COEFFICIENTS.T
        upper = half * (value @ _OVER_1)
        upper_lever = middle * upper + half * half * (value @ _OVER_2)
        end_mass, end_first = beyond(np.array([self._stop]))
        mass = _beyond_edges(whole, end_mass) + upper
        first = _beyond_edges(lever, end_first) + upper_lever
        powers = half[:, None] ** -np.arange(_COUNT, dtype=np.float64)
        self._columns = np.ascontiguousarray(
            np.concatenate([np.stack([middle, mass, first], axis=1).astype(np.float64), value * powers], axis=1).T
        )

    def __call__(self, t: Array) -> tuple[Array, Array]:
        """Tail mass and first moment beyond each `t` >= 0, any shape."""
        flat = np.ascontiguousarray(t).reshape(-1)
        mass, first = np.empty_like(flat), np.empty_like(flat)
        for part in chunk_slices(flat.size, _CHUNK):
            self._fill(flat[part], mass[part], first[part])
        far = flat >= self._stop
        if far.any():
            mass[far], first[far] = self._beyond(flat[far])
        return mass.reshape(t.shape), first.reshape(t.shape)

    def _fill(self, t: Array, mass: Array, first: Array) -> None:
        columns = self._columns
        index = (t.view(np.int64) >> self._shift) - self._base
        np.clip(index, 0, columns.shape[1] - 1, out=index)
        middle = columns[0].take(index)
        d = np.minimum(t, self._stop) - middle
        top = columns[-1].take(index)
        zero, one = top * _OVER_1[-1], top * _OVER_2[-1]
        for k in range(_COUNT - 2, -1, -1):
            coefficient = columns[3 + k].take(index)
            zero *= d
            one *= d
            zero += coefficient * _OVER_1[k]
            coefficient *= _OVER_2[k]
            one += coefficient
        zero *= d
        one *= d
        one *= d
        np.subtract(columns[1].take(index), zero, out=mass)
        middle *= zero
        middle += one
        np.subtract(columns[2].take(index), middle, out=first)


def _beyond_edges(parts: Array, end: Array) -> NDArray[np.longdouble]:
    """What lies beyond the upper edge of each interval; hundreds of terms, so in extended precision if there is one."""
    sums = np.cumsum(np.concatenate([end, parts[:0:-1]]).astype(np.longdouble))
    return sums[::-1]
