"""A proven lower bound of a rate-distortion function, from any reproduction distribution.

For every slope -1 / (2 v) and every lambda(x) >= 0 with E[lambda(X) exp(-(X - y)^2 / (2 v))] <= 1 for all y,
R(D) >= E[log lambda(X)] - D / (2 v) (Csiszar 1974). Here lambda = 1 / (Z G): Z of the reproduction, and G(x) no less
than g(y) = E[exp(-(X - y)^2 / (2 v)) / Z(X)] for every y within reach of x. Where g is above 1 costs only there.
"""

from __future__ import annotations

import functools
import math

import numpy as np

from .._threads import chunk_slices
from .._types import Array
from .reproduction import REACH, Kernel

# Points at which g is computed, a kernel width, and parts of an interval between them that are bounded one by one.
_POINTS = 6
_PARTS = 16
# |g^(6)| v^3 <= 720 sqrt(e) max g: |He6(u)| <= 720 cosh(u), and cosh(u) exp(-u^2 / 2) is sqrt(e) / 2 times two kernels
# moved by one width. The quintic through values and two derivatives at both ends errs by h^6 / (6! 2^6) of it.
_QUINTIC = math.sqrt(math.e) / 64 * _POINTS**-6.0
# What kernels without their far ends may leave out of g and its derivatives, as a share of max g.
_CUT = 1e-9
_CHUNK = 1 << 21
_NEWTON = 4


def dual_bound(x: Array, w: Array, z: Array, width: float, beyond: float) -> tuple[float, Array]:
    """The least E[log lambda(X)] - E[-log Z(X)], nats, and where reproduction values are missing.

    Parameters
    ----------
    x, w : ndarray of shape (n, G)
        Nodes of the source and their masses.
    z : ndarray of shape (n, G)
        Z at the nodes.
    width : float
        sqrt(v), units of x.
    beyond : float
        Mass of the source that lies elsewhere: lambda is 1 there.

    Returns
    -------
    cost : float
        Not positive where the reproduction is the best one (up to 1e-8).
    missing : ndarray
        The y of the local maxima of g above 1.
    """
    spacing = width / _POINTS
    index = _indices(x, spacing)
    y = x[0, 0] + spacing * index
    g = _derivatives(x, w / z, y, width)
    highest = np.zeros(y.size)
    # Between neighbours on the lattice; beyond reach of all nodes there is nothing.
    highest[:-1] = np.where(np.diff(index) == 1, _greatest(*g, spacing), g[0][:-1])
    supremum = float(highest.max()) / (1 - _QUINTIC - _CUT)
    reach = math.ceil(REACH * _POINTS) + 2
    bound = _greatest_near(highest, reach) + (_QUINTIC + _CUT) * supremum
    place = np.searchsorted(y, x, side="right") - 1
    cost = math.fsum((w * np.log(bound[place])).ravel()) + math.log1p(beyond + _CUT)
    return cost, _maxima(x, w / z, y, highest, g, width)


def _indices(x: Array, spacing: float) -> Array:
    """Which points of the lattice from the first node on are within reach of a node (and inside of the nodes)."""
    reach = math.ceil(REACH * _POINTS) + 2
    steps = (x.ravel() - x[0, 0]) / spacing
    low = np.maximum(np.floor(steps) - reach, 0)
    high = np.minimum(np.ceil(steps) + reach, math.ceil(steps[-1]) + 1)
    low[1:] = np.maximum(low[1:], np.maximum.accumulate(high)[:-1] + 1)
    count = np.maximum(high - low + 1, 0).astype(np.intp)
    within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    found: Array = np.repeat(low, count) + within
    return found


def _derivatives(x: Array, r: Array, y: Array, width: float) -> tuple[Array, Array, Array]:
    """g, g' and g'' at the points y, for g(y) = sum r exp(-(x - y)^2 / (2 v))."""
    sums = np.zeros((3, y.size))
    for part in chunk_slices(len(x), max(1, _CHUNK // (x.shape[1] * 16 * _POINTS))):
        first = max(int(np.searchsorted(y, x[part][0, 0] - REACH * width)), 0)
        last = int(np.searchsorted(y, x[part][-1, -1] + REACH * width))
        kernel = Kernel(x[part], y[first:last], width)
        u = kernel.distance
        sums[0, first:last] += kernel.gathered(r[part])
        sums[1, first:last] += kernel.gathered(r[part], u)
        sums[2, first:last] += kernel.gathered(r[part], np.square(u) - 1.0)
    return sums[0], sums[1] / width, sums[2] / width**2


def _greatest(g: Array, slope: Array, curvature: Array, spacing: float) -> Array:
    """No less than the quintic through values and two derivatives at both ends, between neighbours: its Bezier net."""
    one, two = spacing / 5 * slope, spacing**2 / 20 * curvature
    left = [g, g + one, g + 2 * one + two]
    right = [g - 2 * one + two, g - one, g]
    net = np.stack([*(row[:-1] for row in left), *(row[1:] for row in right)])
    out = np.full(net.shape[1], -np.inf)
    for matrix in _parts():
        np.maximum(out, (matrix @ net).max(axis=0), out=out)
    return out


@functools.cache
def _parts() -> tuple[Array, ...]:
    """Matrices from the net of an interval to those of its parts, by de Casteljau's halving."""
    parts = [np.eye(6)]
    while len(parts) < _PARTS:
        parts = [half for net in parts for half in _halves(net)]
    return tuple(parts)


def _halves(net: Array) -> tuple[Array, Array]:
    first, last = [net[0]], [net[-1]]
    while len(net) > 1:
        net = 0.5 * (net[1:] + net[:-1])
        first.append(net[0])
        last.append(net[-1])
    return np.array(first), np.array(last[::-1])


def _greatest_near(values: Array, reach: int) -> Array:
    """The greatest of the values up to `reach` places away: windows that double."""
    padded = np.pad(values, reach, constant_values=-np.inf)
    size, length = 1, 2 * reach + 1
    while 2 * size <= length:
        padded = np.maximum(padded[:-size], padded[size:])
        size *= 2
    return np.maximum(padded[: values.size], padded[length - size : length - size + values.size])


def _maxima(x: Array, r: Array, y: Array, highest: Array, g: tuple[Array, Array, Array], width: float) -> Array:
    """Local maxima of g above 1, by Newton's method from the highest points of the lattice."""
    value, slope, curvature = g
    padded, above = np.pad(value, 1), np.pad(highest, (1, 0)) > 1 + 1e-9
    at = np.flatnonzero((value >= padded[:-2]) & (value > padded[2:]) & (above[1:] | above[:-1]))
    found, slope, curvature = y[at], slope[at], curvature[at]
    for again in range(_NEWTON):
        step = np.where(curvature < 0, -slope / np.where(curvature < 0, curvature, 1.0), 0.0)
        found = np.sort(found + np.clip(step, -width / _POINTS, width / _POINTS))
        if again + 1 < _NEWTON:
            _, slope, curvature = _derivatives(x, r, found, width)
    return found
