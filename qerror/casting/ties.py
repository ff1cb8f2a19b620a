"""Where casting sends what lies on a threshold, to the last bit: point masses must go the same way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .._types import Array


def last_below(threshold: Array, to_lower: NDArray[np.bool_], scale: Array, shift: Array) -> Array:
    """The greatest x that casting sends below each threshold: (x - z) / s in float64 is less, or ties that way.

    `to_lower`: whether a tie goes to the level below. All four broadcast.

    Examples
    --------
    >>> threshold, one = np.array([0.5, 1.5]), np.ones(1)
    >>> last_below(threshold, np.array([True, False]), one, 0 * one) < threshold
    array([False,  True])
    """

    def below(x: Array) -> NDArray[np.bool_]:
        q = (x - shift) / scale
        under: NDArray[np.bool_] = (q < threshold) | ((q == threshold) & to_lower)
        return under

    middle: Array = shift + scale * threshold
    # Next to 0 quotients underflow.
    slack = 4 * np.spacing(np.maximum(np.abs(middle), np.abs(shift))) + 2.0**-1072 * scale
    low: Array = middle - slack
    high: Array = middle + slack
    while True:
        middle = low + 0.5 * (high - low)
        open_ = (middle > low) & (middle < high)
        if not open_.any():
            return low
        under = below(middle)
        low, high = np.where(open_ & under, middle, low), np.where(open_ & ~under, middle, high)
