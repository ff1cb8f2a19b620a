"""The inverse of a cdf: bracketed Newton steps on the logarithm of the smaller tail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from .base import Density

Array = NDArray[np.float64]


def probability(p: ArrayLike) -> Array:
    """`p` as an array of probabilities, or a ValueError."""
    values = as_float_array("p", p)
    good = (values >= 0) & (values <= 1)
    if not good.all():
        raise ValueError(f"p must lie between 0 and 1, got {float(values[~good].flat[0])!r}")
    return values


def solve_quantile(density: Density, p: Array, *, upper: bool) -> Array:
    """The smallest x with cdf(x) >= p, or with sf(x) <= p, solved on the side of the smaller probability."""
    p = probability(p)
    shape = np.broadcast_shapes(p.shape, density.shape)
    p = np.broadcast_to(p, shape).ravel()
    index = np.arange(math.prod(density.shape)).reshape(density.shape)
    members = density.take(np.broadcast_to(index, shape).ravel()) if density.shape else density
    low, high = (np.broadcast_to(end, p.shape) for end in members.support)
    beyond = np.where(p < 0.5, p, 1.0 - p)
    above = (p < 0.5) == upper
    inside = beyond > 0.0
    x = np.where(above, high, low).astype(np.float64)
    if inside.any():
        row = np.flatnonzero(inside)
        chosen = members.take(row) if density.shape else density
        x[row] = _invert(chosen, beyond[row], above[row], low[row], high[row])
    result: Array = x.reshape(shape)[()]
    return result


def _invert(density: Density, p: Array, above: NDArray[np.bool_], low: Array, high: Array) -> Array:
    """Bracketed Newton steps on log P(beyond x) = log p, bisection where they leave the bracket or stall."""
    log_p = np.log(p)

    def reached(x: Array) -> tuple[Array, NDArray[np.bool_]]:
        tail = np.where(above, density.sf(x), density.cdf(x))
        return tail, np.where(above, tail <= p, tail >= p)

    low, high = _bracket(density, reached, low, high)
    # Roots near 0 are found to 2^-104 std: relative precision there would take a thousand halvings.
    tiny = np.broadcast_to(2.0**-104 * np.asarray(density.std), low.shape)
    x = 0.5 * low + 0.5 * high
    for step in range(200):
        tail, enough = reached(x)
        x_was, width = x, high - low
        low, high = np.where(enough, low, x), np.where(enough, x, high)
        with np.errstate(all="ignore"):
            newton = x + np.where(above, 1.0, -1.0) * (np.log(tail) - log_p) * tail / density.pdf(x)
            # Newton approaches from one side; a step beyond the root closes the bracket from the other.
            beyond = np.maximum(2.0 * np.spacing(np.abs(newton)), 0.1 * np.abs(newton - x))
            newton += np.where(newton < x, -beyond, beyond) * (np.abs(newton - x) < 1e-3 * width)
            usable = (newton > low) & (newton < high) & ((high - low <= 0.6 * width) | (step < 4))
        middle = 0.5 * low + 0.5 * high
        x = np.where(usable, newton, middle)
        done = (middle <= low) | (middle >= high) | (high - low <= tiny)
        # A probability met within its rounding is met; at the end of a jump that would be beyond the point mass.
        met = (np.abs(tail - p) <= 1e-15 * p) & (not density.has_atoms)
        low, high = np.where(met, x_was, low), np.where(met, x_was, high)
        done |= met
        if done.all():
            break
        x = np.where(done, high, x)
    zero = np.zeros_like(high)
    return np.where((low < 0.0) & (high > 0.0) & (high - low <= 2.0 * tiny) & reached(zero)[1], zero, high)


def _bracket(
    density: Density, reached: Callable[[Array], tuple[Array, NDArray[np.bool_]]], low: Array, high: Array
) -> tuple[Array, Array]:
    """Finite ends: not yet reached at the lower one, reached at the upper one."""
    mean, std = np.broadcast_to(density.mean, low.shape), np.broadcast_to(density.std, low.shape)
    down, up = np.nextafter(np.maximum(low, mean - 2 * std), -np.inf), np.minimum(high, mean + 2 * std)
    for k in range(2, 1024):
        short, over = ~reached(up)[1], reached(down)[1]
        if not (short.any() or over.any()):
            break
        # Doubling first, squaring later: a power-law tail at p = 1e-300 lies beyond 1e100 std.
        reach = std * 2.0 ** min(k if k < 12 else k * k / 12, 1000)
        down = np.where(over, np.nextafter(np.maximum(low, mean - reach), -np.inf), down)
        up = np.where(short, np.minimum(high, mean + reach), up)
        if k * k / 12 > 1000:
            break
    return down, up
