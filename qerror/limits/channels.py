"""Points of a rate-distortion function: a channel that reaches one, and a line that no code is below."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from ..densities.base import Density
from .dual_bound import dual_bound
from .reproduction import Kernel, best_masses, best_values
from .source import ENTROPY, WIDE, Source, distinct, source_of

# Rounds of new reproduction values at most.
_ROUNDS = 14
# Widths around a missing value in which masses change.
_AROUND = 12.0
# Values that are few and far between are moved together, so many at most.
_MOVABLE = 400
# What is dropped before new values come: masses of that share of the greatest among so many on either side.
_NOTHING, _NEIGHBOURS = 1e-4, 4
_DB = 10.0 / math.log(10.0)


@dataclasses.dataclass(frozen=True)
class Point:
    """What is known of the function at one slope.

    Attributes
    ----------
    source : Source
    width : float
        sqrt(v), units of x: the slope is -1 / (2 v), nats.
    y, q : ndarray
        Reproduction values and their masses.
    rate, mse : float
        Of the channel q_j exp(-(x - y_j)^2 / (2 v)) / Z(x): R(mse) <= rate, nats.
    line : float
        R(D) >= line - D / (2 v) for every D.
    missing : ndarray
        Reproduction values that would lower the rate.
    """

    source: Source
    width: float
    y: Array
    q: Array
    rate: float
    mse: float
    line: float
    missing: Array

    @property
    def gap(self) -> float:
        """Nats between the channel and the line at its distortion, in dB of the distortion."""
        slope = 0.5 * self.mse / self.width**2
        return _DB * (self.rate - self.line + slope) / slope if slope > 0 else math.inf


def solve(density: Density, width: float, aim: float, start: Point | None = None) -> Point:
    """The function at slope -1 / (2 width^2), to `aim` dB or as near as rounds of new reproduction values bring it.

    Parameters
    ----------
    density : Density
        Of shape ().
    width, aim : float
    start : Point, optional
        Of a width not far from this one.

    Examples
    --------
    >>> import qerror as qe
    >>> point = solve(qe.Uniform(), 0.3, 1e-4)
    >>> round(point.rate, 4), round(point.mse, 4), point.gap < 1e-4
    (1.1077, 0.0851, True)
    """
    if start is None:
        source = source_of(density, width)
        y = _lattice(density, source, width)
        q = _masses(density, y)
    else:
        source, y, q = start.source, start.y, start.q
    # Shannon's bound is a line, too, and at high rates a good one: as far as quadrature knows the entropy.
    shannon = math.log(2) * float(density.entropy) - 0.5 * math.log(2 * math.pi * width**2) - ENTROPY
    best = found = _point(source, width, y, q, aim, shannon)
    movable = width > WIDE * float(density.std)
    for trial in range(_ROUNDS):
        if best.gap <= aim:
            break
        # The first masses are the density's own: flat but for some places, or nowhere yet.
        uneven = found.y[np.abs(_evenness(found) - 1) > 0.1 * aim / _DB] if trial == 0 else np.empty(0)
        if uneven.size + found.missing.size == 0:
            break
        kept = _in_use(found.y, found.q, width)
        y, order = np.unique(np.append(found.y[kept], found.missing), return_index=True)
        q = np.append(found.q[kept], np.full(found.missing.size, 1e-3 / found.q.size))[order]
        if movable and y.size <= _MOVABLE:
            y, q = best_values(source.x, source.w / source.inside, y, q, width, aim / _DB / 100)
        else:
            q = _improved(source, width, y, q, np.append(uneven, found.missing), aim)
        found = _point(source, width, y, q, aim, shannon)
        best = min(best, found, key=lambda point: point.gap)
    return best


def _in_use(y: Array, q: Array, width: float) -> NDArray[np.bool_]:
    """Which masses are not next to nothing beside their neighbours', or the greatest within a width."""
    around = np.lib.stride_tricks.sliding_window_view(np.pad(q, _NEIGHBOURS), 2 * _NEIGHBOURS + 1).max(axis=1)
    cell = np.floor((y - y[0]) / width)
    start = np.flatnonzero(np.diff(cell, prepend=-1.0))
    greatest = np.repeat(np.maximum.reduceat(q, start), np.diff(np.append(start, q.size)))
    used: NDArray[np.bool_] = (q > _NOTHING * around) | (q == greatest)
    return used


def _evenness(point: Point) -> Array:
    """What is 1 at every reproduction value of the best channel."""
    kernel = Kernel(point.source.x, point.y, point.width)
    return kernel.gathered(point.source.w / kernel.mixed(point.q))


def _improved(source: Source, width: float, y: Array, q: Array, where: Array, aim: float) -> Array:
    """Better masses near the places `where`; the others stay."""
    ends = np.searchsorted(y, np.sort(where)[:, None] + _AROUND * width * np.array([-1.0, 1.0]))
    np.add.at(steps := np.zeros(y.size + 1, np.intp), ends[:, 0], 1)
    np.add.at(steps, ends[:, 1], -1)
    free = np.cumsum(steps)[:-1] > 0
    kernel = Kernel(source.x, y, width)
    rows = np.append(free, False)[kernel.value].any(axis=1)
    w = source.w[rows] / source.inside
    others = kernel.mixed(np.where(free, 0.0, q))[rows]
    # Masses spread about a value count as missing ones: little of the aim is left to them.
    tolerance = aim / _DB / 100
    out = q.copy()
    out[free] = best_masses(Kernel(source.x[rows], y[free], width), w, q[free], tolerance, others)
    return out


def channel(source: Source, width: float, y: Array, q: Array) -> tuple[float, float, Array]:
    """Rate (nats) and mse of a channel, and Z at the nodes.

    What lies beyond the nodes is told apart from the rest and coded as the worst source of its spread, a Gaussian:
    H(P) + P log(spread / mse) / 2.
    """
    kernel = Kernel(source.x, y, width)
    z = kernel.mixed(q)
    square = float((source.w / z * kernel.mixed(q, 2)).sum())
    rate = source.inside * math.log(q.sum()) - float((source.w * np.log(z)).sum()) - 0.5 * square
    mse = square * width**2 / source.inside
    p = source.beyond
    if p > 0:
        rate -= p * math.log(p) + (1 - p) * math.log1p(-p)
        rate += p * max(0.0, 0.5 * math.log(source.spread / mse))
    return rate, mse, z


def _point(source: Source, width: float, y: Array, q: Array, aim: float, line: float) -> Point:
    """A channel, and the better of a line that is known and, where that is not near enough, the one of its dual."""
    rate, mse, z = channel(source, width, y, q)
    point = Point(source, width, y, q, rate, mse, line, np.empty(0))
    if point.gap <= aim:
        return point
    cost, missing = dual_bound(source.x, source.w, z, width, source.beyond)
    dual = -math.fsum((source.w * np.log(z)).ravel()) - cost
    return dataclasses.replace(point, line=max(dual, line), missing=missing)


def _lattice(density: Density, source: Source, width: float) -> Array:
    """Reproduction values to begin with: a lattice, or the values of a sample where they are fewer."""
    low, high = float(source.x[0, 0]), float(source.x[-1, -1])
    steps = math.ceil((high - low) / width)
    # An even number: a cusp in the middle gets a value.
    steps += steps % 2
    if source.discrete:
        values, _ = distinct(density)
        if values.size <= steps:
            return values
    return np.linspace(low, high, max(steps, 2) + 1)


def _masses(density: Density, y: Array) -> Array:
    """The mass nearest to each value, from the side on which it does not cancel."""
    middle = 0.5 * (y[1:] + y[:-1])
    below, above = np.asarray(density.cdf(middle)), np.asarray(density.sf(middle))
    lower, upper = np.diff(below, prepend=0.0, append=1.0), -np.diff(above, prepend=1.0, append=0.0)
    return np.maximum(np.where(y <= density.mean, lower, upper), 1e-300)
