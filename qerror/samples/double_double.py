"""Sums in twice float64 precision: a value is a pair (high, low) with |low| <= half an ulp of high.

Prefix sums of squares lose what a fine grid leaves of them: at 16 bits the error of rounding is 1e-9 of the power.
The error-free transformations are Knuth's two-sum and Dekker's product (Dekker 1971, Numer. Math. 18).
"""

from __future__ import annotations

import numpy as np

from .._types import Array

Pair = tuple[Array, Array]

_SPLIT = 134217729.0  # 2^27 + 1 cuts 53 bits into two halves whose products are exact


def two_sum(a: Array, b: Array) -> Pair:
    """Sum a + b and its rounding error, exactly."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def two_product(a: Array, b: Array) -> Pair:
    """Product a * b and its rounding error, exactly (short of over- and underflow)."""
    product = a * b
    high_a, high_b = _SPLIT * a, _SPLIT * b
    high_a, high_b = high_a - (high_a - a), high_b - (high_b - b)
    low_a, low_b = a - high_a, b - high_b
    return product, ((high_a * high_b - product) + high_a * low_b + low_a * high_b) + low_a * low_b


def add(x: Pair, y: Pair) -> Pair:
    """Sum of two pairs."""
    high, low = two_sum(x[0], y[0])
    low = low + (x[1] + y[1])
    return two_sum(high, low)


def scale(x: Pair, factor: Array) -> Pair:
    """A pair times a float64."""
    high, low = two_product(x[0], factor)
    return two_sum(high, low + x[1] * factor)


def multiply(x: Pair, y: Pair) -> Pair:
    """Product of two pairs."""
    high, low = two_product(x[0], y[0])
    return two_sum(high, low + (x[0] * y[1] + x[1] * y[0]))


def subtract(x: Pair, y: Pair) -> Pair:
    """Difference of two pairs."""
    return add(x, (-y[0], -y[1]))


def prefix_sums(high: Array, low: Array | None = None) -> Pair:
    """Sums of the first 0, 1, 2, ... elements along the last axis, of `high` (+ `low`)."""
    sums = np.zeros((*high.shape[:-1], high.shape[-1] + 1))
    np.cumsum(high, axis=-1, out=sums[..., 1:])
    error = two_sum(sums[..., :-1], high)[1]
    if low is not None:
        error += low
    rest = np.zeros_like(sums)
    np.cumsum(error, axis=-1, out=rest[..., 1:])
    return sums, rest
