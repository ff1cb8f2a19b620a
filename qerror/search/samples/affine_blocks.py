"""Scale and shift of very many short rows on consecutive integers: least squares from many starts, without a proof.

For given codes c the best pair of x = z + s c is a linear regression, and for a given pair the best codes are the
nearest. From each start (where the range begins, and how long it is, as shares of the row's own) one such step is
taken; from the best few of them several more. Where a row ends is what most starts differ in: with 210 of them what is
lost to the proven pair (`scale_and_shift`) is 0.001 dB over all rows of 32 (Gaussian values, trained weights), in one
row of a hundred more than 0.01 dB, for a fiftieth of the time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._threads import thread_map

# Best ranges begin 0.05 of the row's own inside its least value to 0.03 outside of it, and are 0.93 to 1.18 of it long:
# longer ones leave levels at their ends without values. (Rows of 32 on 16 levels; Gaussian, Laplace, trained weights.)
_BEGINS, _LENGTHS = np.linspace(-0.035, 0.055, 7), np.linspace(0.925, 1.175, 30)
# From so many starts so many more steps.
_BEST, _STEPS = 6, 4
# Rows together: they and what is made of them stay in a cache.
_ROWS = 1024

_Floats = NDArray[np.float32]


def affine_blocks(
    x: NDArray[np.floating], last: int, weights: NDArray[np.floating] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Scale and shift of each row for codes 0 to `last`: close to the least (weighted) squared error.

    Parameters
    ----------
    x : ndarray of shape (rows, columns)
        Finite.
    last : int
        The largest code.
    weights : ndarray of shape (rows, columns), optional
        Not negative.

    Returns
    -------
    scale, shift : ndarray of shape (rows,)

    Examples
    --------
    >>> scale, shift = affine_blocks(np.array([[3.0, 5.0, 9.0, 33.0]]), 15)
    >>> float(scale[0].round(6)), float(shift[0].round(6))
    (2.0, 3.0)
    """

    def work(begin: int) -> NDArray[np.float64]:
        own = None if weights is None else weights[begin : begin + _ROWS]
        return _pairs(x[begin : begin + _ROWS].astype(np.float64), last, own)

    parts = thread_map(work, range(0, len(x), _ROWS))
    scale, shift = np.concatenate(parts, axis=1) if parts else np.empty((2, 0))
    return scale, shift


def _pairs(x: NDArray[np.float64], last: int, weights: NDArray[np.floating] | None) -> NDArray[np.float64]:
    low = x.min(axis=1)
    span = x.max(axis=1) - low
    constant = span == 0
    span[constant] = 1
    # From 0 to 1: single precision is enough, as the scale is fitted once more to the shift as it is stored.
    rows = _Rows(((x - low[:, None]) / span[:, None]).astype(np.float32), last, weights)
    tried = [rows.step(length / last, begin) for begin in _BEGINS for length in _LENGTHS]
    errors = np.stack([error for *_, error in tried])
    order = np.argpartition(errors, _BEST, axis=0)[:_BEST]
    columns = np.arange(len(x))
    scales, shifts = (np.stack([one[k] for one in tried]) for k in (0, 1))
    best = [np.zeros(len(x), np.float32), np.zeros(len(x), np.float32), np.full(len(x), np.inf, np.float32)]
    for which in order:
        pair = scales[which, columns], shifts[which, columns]
        for _ in range(_STEPS):
            *pair, error = rows.step(*pair)  # type: ignore[assignment]
        better = error < best[2]
        for kept, new in zip(best, (*pair, error), strict=True):
            kept[better] = new[better]
    scale, shift = best[0] * span, low + best[1] * span
    shift[constant] = low[constant]
    return np.stack([scale, shift])


class _Rows:
    """Rows from 0 to 1, and the regression of their values on codes."""

    def __init__(self, y: _Floats, last: int, weights: NDArray[np.floating] | None) -> None:
        self.y, self.last = y, np.float32(last)
        self.weights = None
        if weights is not None:
            total = weights.sum(axis=1, keepdims=True, dtype=np.float64)
            # Rows without any weight count all values alike.
            self.weights = np.where(total > 0, weights / np.where(total > 0, total, 1), 1 / y.shape[1]).astype(
                np.float32
            )
        self.mean = self._mean(y)
        self.centred = y - self.mean[:, None]
        squares: _Floats = np.square(self.centred)
        self.power = self._mean(squares)

    def _mean(self, values: NDArray[Any]) -> _Floats:
        found: _Floats = values.mean(axis=1) if self.weights is None else np.einsum("ij,ij->i", values, self.weights)
        return found

    def step(self, scale: _Floats | float, shift: _Floats | float) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """The nearest codes of a pair, their best pair, and its mean squared error."""
        s, z = (np.asarray(each, np.float32).reshape(-1, 1) for each in (scale, shift))
        codes: NDArray[Any] = (self.y - z) * (1 / s)
        np.rint(codes, out=codes)
        np.clip(codes, 0, self.last, out=codes)
        middle = self._mean(codes)
        codes -= middle[:, None]
        own: NDArray[Any] = codes if self.weights is None else codes * self.weights
        size = np.einsum("ij,ij->i", codes, own)
        product = np.einsum("ij,ij->i", self.centred, own)
        if self.weights is None:
            size, product = (each / np.float32(self.y.shape[1]) for each in (size, product))
        # All values at one code: any scale is as good.
        flat = (size <= 0) | (product <= 0)
        one = np.float32(1)
        slope: NDArray[Any] = np.where(flat, one, product) / np.where(flat, one, size)
        error: NDArray[Any] = self.power - np.where(flat, 0 * one, product * slope)
        return slope, self.mean - slope * middle, error
