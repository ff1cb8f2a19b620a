"""The inverse of a cdf: bracketed Newton steps on the logarithm of the smaller tail."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array
from .._threads import chunk_slices
from .._types import Array

# From so many probabilities of one density on, these many of them are solved first, and bracket the others.
_MANY, _KNOTS = 2048, 512
# Roots sought at a time: a dozen temporaries of this many stay in the cache.
_CHUNK = 1 << 14


class _Density(Protocol):
    """What is read of a density; see `base.Density`."""

    shape: tuple[int, ...]

    @property
    def mean(self) -> Any: ...
    @property
    def std(self) -> Any: ...
    @property
    def support(self) -> tuple[Any, Any]: ...
    @property
    def has_atoms(self) -> bool: ...
    def pdf(self, x: Any) -> Array: ...
    def cdf(self, x: Any) -> Array: ...
    def sf(self, x: Any) -> Array: ...
    def take(self, index: NDArray[np.intp]) -> Self: ...
    def spread(self, shape: tuple[int, ...]) -> Self: ...


def probability(p: ArrayLike) -> Array:
    """`p` as an array of probabilities, or a ValueError."""
    values = as_float_array("p", p)
    good = (values >= 0) & (values <= 1)
    if not good.all():
        raise ValueError(f"p must lie between 0 and 1, got {float(values[~good].flat[0])!r}")
    return values


def solve_quantile(density: _Density, p: Array, *, upper: bool) -> Array:
    """The smallest x with cdf(x) >= p, or with sf(x) <= p, solved on the side of the smaller probability."""
    p = probability(p)
    shape = np.broadcast_shapes(p.shape, density.shape)
    p = np.broadcast_to(p, shape).ravel()
    members = density.spread(shape)
    low, high = (np.broadcast_to(end, p.shape) for end in members.support)
    beyond = np.where(p < 0.5, p, 1.0 - p)
    above = (p < 0.5) == upper
    x = np.where(above, high, low).astype(np.float64)
    for side in (False, True):
        row = np.flatnonzero((beyond > 0.0) & (above == side))
        if row.size:
            x[row] = _invert(members.take(row) if density.shape else density, beyond[row], side)
    result: Array = x.reshape(shape)[()]
    return result


def _invert(density: _Density, p: Array, above: bool) -> Array:
    """The x beyond which (above or below it) lies the probability `p`: one for each member, or any number of one."""
    knots = np.empty(0)
    if density.shape == () and p.size >= _MANY:
        # Where the probabilities are, and at most some decades apart.
        knots = np.unique(np.concatenate([p[:: p.size // _KNOTS], np.geomspace(p.min(), p.max(), _KNOTS // 4)]))
    if knots.size < 3:
        low, high = _bracket(density, p, above)
        return _refine(density, p, above, low, high, 0.5 * low + 0.5 * high)
    x = _invert(density, knots, above)
    with np.errstate(all="ignore"):
        slope = (-1.0 if above else 1.0) * knots / density.pdf(x)
    table = knots, np.log(knots), x, slope
    pieces = [p[part] for part in chunk_slices(p.size, _CHUNK)]
    return np.concatenate([_refine(density, piece, above, *_interpolate(table, piece)) for piece in pieces])


def _interpolate(table: tuple[Array, Array, Array, Array], p: Array) -> tuple[Array, Array, Array]:
    """Bracket and guess between solved knots: by cubics in log p that have the right slopes x' = p / pdf."""
    knots, log_knots, x, slope = table
    i = np.clip(np.searchsorted(knots, p, side="right") - 1, 0, knots.size - 2)
    first, last, gap = x[i], x[i + 1], log_knots[i + 1] - log_knots[i]
    with np.errstate(all="ignore"):
        s = (np.log(p) - log_knots[i]) / gap
        straight = last - first
        bend = (1.0 - s) * (slope[i] * gap - straight) - s * (slope[i + 1] * gap - straight)
        guess = first + s * (straight + (1.0 - s) * bend)
    low, high = np.minimum(first, last), np.maximum(first, last)
    # Room for the roots that are knots themselves.
    low, high = low - 8.0 * np.spacing(np.abs(low)), high + 8.0 * np.spacing(np.abs(high))
    inside = (guess > low) & (guess < high)
    return low, high, np.where(inside, guess, 0.5 * low + 0.5 * high)


def _refine(density: _Density, p: Array, above: bool, low: Array, high: Array, x: Array) -> Array:
    """Bracketed Newton steps on log P(beyond x) = log p, bisection where they leave the bracket or stall."""
    # Roots near 0 are found to 2^-104 std: relative precision there would take a thousand halvings.
    tiny = np.broadcast_to(2.0**-104 * np.asarray(density.std), p.shape)
    ends, members = np.stack([low, high]), density
    left, state = np.arange(p.size), np.stack([p, np.log(p), tiny, low, high, x, high - low])
    for step in range(200):
        p_left, log_p, tiny, low, high, x, before = state
        tail, enough = _tail(members, p_left, above, x)
        width = high - low
        low, high = np.where(enough, low, x), np.where(enough, x, high)
        with np.errstate(all="ignore"):
            newton = (1.0 if above else -1.0) * (np.log(tail) - log_p) * tail / members.pdf(x)
            newton = _crossing(x, newton, before, width)
            # Newton's way from one side does not shrink the bracket: as long as its steps do, they may go on.
            quick = (high - low <= 0.6 * width) | ((np.abs(newton - x) <= 0.5 * before) & (step < 16))
            usable = (newton > low) & (newton < high) & (quick | (step < 4))
        middle = 0.5 * low + 0.5 * high
        # A probability met within its rounding is met; at the end of a jump that would be beyond the point mass.
        met = (np.abs(tail - p_left) <= 1e-15 * p_left) & (not density.has_atoms)
        ends[:, left] = np.where(met, x, [low, high])
        going_on = ~(met | (middle <= low) | (middle >= high) | (high - low <= tiny))
        if not going_on.any():
            break
        x_next = np.where(usable, newton, middle)
        state = np.stack([p_left, log_p, tiny, low, high, x_next, np.abs(x_next - x)])[:, going_on]
        left = left[going_on]
        members = members.take(np.flatnonzero(going_on)) if density.shape else density
    low, high = ends
    at_zero = (low < 0.0) & (high > 0.0) & (high - low <= 2.0**-103 * np.asarray(density.std))
    return np.where(at_zero & _tail(density, p, above, np.zeros_like(high))[1], 0.0, high)


def _crossing(x: Array, newton: Array, before: Array, width: Array) -> Array:
    """The point that a Newton step leads to; once it is short, a little beyond the root, which closes the bracket."""
    length, point = np.abs(newton), x + newton
    # Beyond by a few times the step that would come next.
    beyond = np.minimum(0.1, 4.0 * np.square(length / before)) * length
    beyond = np.maximum(beyond, 2.0 * np.spacing(np.abs(point)))
    crossing: Array = point + np.where(newton < 0.0, -beyond, beyond) * (length < 1e-3 * width)
    return crossing


def _tail(density: _Density, p: Array, above: bool, x: Array) -> tuple[Array, NDArray[np.bool_]]:
    """The probability above or below `x`, and whether the root for `p` is reached."""
    tail = density.sf(x) if above else density.cdf(x)
    return tail, tail <= p if above else tail >= p


def _bracket(density: _Density, p: Array, above: bool) -> tuple[Array, Array]:
    """Finite ends: not yet reached at the lower one, reached at the upper one."""
    low, high, mean, std = (np.broadcast_to(v, p.shape) for v in (*density.support, density.mean, density.std))
    down, up = np.nextafter(np.maximum(low, mean - 2 * std), -np.inf), np.minimum(high, mean + 2 * std)
    # Doubling first, squaring later: a power-law tail at p = 1e-300 lies beyond 1e100 std.
    reaches = 2.0 ** np.array([min(k if k < 12 else k * k / 12, 1000.0) for k in range(2, 111)])
    for reach in reaches:
        short = ~_tail(density, p, above, up)[1]
        if not short.any():
            break
        down, up = np.where(short, up, down), np.where(short, np.minimum(high, mean + reach * std), up)
    for reach in reaches:
        over = _tail(density, p, above, down)[1]
        if not over.any():
            break
        further = np.nextafter(np.maximum(low, mean - reach * std), -np.inf)
        up, down = np.where(over, down, up), np.where(over, further, down)
    return down, up
