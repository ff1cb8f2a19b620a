"""Reproduction values and their masses: the convex problem behind a rate-distortion function, by an interior point.

At slope -1 / (2 v) the best masses q of given values y maximize E[log Z(X)], Z(x) = sum_j q_j exp(-(x - y_j)^2 / 2v).
Blahut's iteration q_j <- q_j g(y_j) does that slowly. The kernel has a short reach: Newton's matrices are banded.
"""

from __future__ import annotations

import numpy as np

from .._types import Array, Index

# Standard deviations of the kernel beyond which it is taken as 0 (1e-12 of its peak).
REACH = 7.5
# Of the way to the boundary; of the gap, what a step aims at; 1 - g to begin with.
_STEP, _AIM, _SLACK = 0.97, 0.02, 1e-3
_MOST_STEPS = 80
# Where values move, too: widths of a step at most, and between values that are one; the least curvature of g, which a
# step is sized by; masses that are dropped, as a share of a mean complement; how far g may be above 1, in tolerances;
# the least of Z.
_FAR, _SAME, _FLAT, _NO_MASS, _ABOVE, _REACHED = 0.3, 0.1, 0.02, 1e-3, 1000, 1e-150


class Kernel:
    """exp(-(x - y)^2 / (2 v)) between nodes x, in groups, and the values y within reach.

    Parameters
    ----------
    x : ndarray of shape (n, G)
        Ascending.
    y : ndarray of shape (J,)
        Ascending.
    width : float
        sqrt(v), units of x.
    """

    def __init__(self, x: Array, y: Array, width: float) -> None:
        self.count = y.size
        first = np.searchsorted(y, x[:, 0] - REACH * width)
        reached = np.searchsorted(y, x[:, -1] + REACH * width) - first
        self.band = max(1, int(reached.max()))
        window = np.arange(self.band)
        # What fills up the windows is a value without mass, out of reach.
        self.value = np.where(window < reached[:, None], first[:, None] + window, y.size)
        near = np.append(y, np.inf)[self.value]
        self.distance = (x[:, :, None] - near[:, None, :]) / width
        self.kernel = np.exp(-0.5 * np.square(self.distance))
        self.distance[~np.isfinite(self.distance)] = 0.0

    def mixed(self, q: Array, power: int = 0) -> Array:
        """sum_j q_j ((x - y_j) / width)^power exp(...) at the nodes; Z itself for power 0."""
        kernel = self.kernel if power == 0 else self.kernel * self.distance**power
        z: Array = (kernel @ np.append(q, 0.0)[self.value][:, :, None])[:, :, 0]
        return z

    def gathered(self, r: Array, factor: Array | None = None) -> Array:
        """Sum over the nodes of r times the kernel (times a factor of its shape), at each value."""
        kernel = self.kernel if factor is None else self.kernel * factor
        return self._added(self.value, (r[:, None, :] @ kernel)[:, 0, :])

    def curvature(self, r: Array, q: Array | None = None) -> Array:
        """Sum over the nodes of r times the products of two kernels: the lower band of a symmetric matrix.

        With masses q also of their derivatives q_j d/dy_j, each after its kernel.
        """
        columns, place, each = self.kernel, self.value, 1
        if q is not None:
            moved = self.kernel * self.distance * np.append(q, 0.0)[self.value][:, None, :]
            columns = np.stack([self.kernel, moved], axis=-1).reshape(*moved.shape[:2], -1)
            place, each = (2 * self.value[:, :, None] + np.arange(2)).reshape(len(moved), -1), 2
        products = np.swapaxes(columns * r[:, :, None], 1, 2) @ columns
        band = min(each * self.band, each * self.count)
        out = np.empty((band, each * self.count))
        for k in range(band):
            diagonal = np.diagonal(products, k, 1, 2)
            out[k] = self._added(place[:, : diagonal.shape[1]], diagonal, each)
        return out

    def _added(self, place: Index, values: Array, each: int = 1) -> Array:
        count = each * self.count
        sums = np.bincount(place.ravel(), values.ravel(), count + each)[:count]
        return sums.astype(np.float64, copy=False)


def best_masses(kernel: Kernel, w: Array, q: Array, tolerance: float, others: Array | float = 0.0) -> Array:
    """The masses q >= 0 that maximize sum w log(Z + others) - sum q, by a primal-dual interior point.

    With nothing else (`others`) they add up to the sum of w. They are the best where g_j = sum w K_j / Z is 1 wherever
    q_j > 0, and less than 1 elsewhere.

    Parameters
    ----------
    kernel : Kernel
    w : ndarray of shape (n, G)
        Masses of the nodes.
    q : ndarray of shape (J,)
        Where to start.
    tolerance : float
        On sum q_j (1 - g_j) and on g_j <= 1.
    others : ndarray of shape (n, G)
        What other reproduction values add to Z.

    Examples
    --------
    >>> kernel = Kernel(np.array([[-1.0, 1.0]]), np.array([-1.0, 0.0, 1.0]), 0.5)
    >>> best_masses(kernel, np.array([[0.5, 0.5]]), np.ones(3) / 3, 1e-12).round(6).tolist()
    [0.5, 0.0, 0.5]
    """
    # Loaded by those who ask: importing it takes as long as numpy.
    from scipy.linalg import solveh_banded

    count = kernel.count
    q = np.maximum(q, 1e-4 * q.sum() / count)
    slack = np.full(count, _SLACK)
    for _ in range(_MOST_STEPS):
        z = kernel.mixed(q) + others
        g = kernel.gathered(w / z)
        gap = float((q * slack).sum())
        if gap <= tolerance and np.abs(g + slack - 1).max() <= tolerance:
            break
        target = _AIM * gap / count
        matrix = kernel.curvature(w / np.square(z))
        matrix[0] += slack / q + 1e-13 * matrix[0].max()
        step = solveh_banded(matrix, g - 1 + target / q, lower=True, overwrite_ab=True, check_finite=False)
        other = (target - slack * (q + step)) / q
        q = q + min(1.0, _STEP / max(float((-step / q).max()), _STEP)) * step
        slack = slack + min(1.0, _STEP / max(float((-other / slack).max()), _STEP)) * other
    return q


def best_values(x: Array, w: Array, y: Array, q: Array, width: float, tolerance: float) -> tuple[Array, Array]:
    """Reproduction values and masses near which sum w log Z - sum q is greatest: both move, by the same method.

    Values that come close to each other become one, and those without mass are dropped. The problem is convex in the
    masses alone: what is found is a point where g = 1 and g' = 0 at every value, the best one where g <= 1 elsewhere.

    Parameters
    ----------
    x, w : ndarray of shape (n, G)
        Nodes, ascending, and their masses.
    y, q : ndarray of shape (J,)
        Where to start, y ascending.
    width : float
        sqrt(v), units of x.
    tolerance : float
        On sum q_j (1 - g_j), sum q_j |g_j - 1| and ten times sum q_j (g'_j width)^2.

    Examples
    --------
    >>> x, w = np.array([[-1.0, 1.0]]), np.array([[0.5, 0.5]])
    >>> y, q = best_values(x, w, np.array([-0.9, 0.0, 0.8]), np.ones(3) / 3, 0.5, 1e-12)
    >>> y.round(3).tolist(), q.round(3).tolist()
    ([-0.999, 0.999], [0.5, 0.5])
    """
    # Loaded by those who ask: importing it takes as long as numpy.
    from scipy.linalg import solveh_banded

    started, slack = (y, q), np.full(y.size, _SLACK)
    for _ in range(_MOST_STEPS // 2):
        kernel = Kernel(x, y, width)
        z = kernel.mixed(q)
        if z.min() < _REACHED:
            return started
        r, u = w / z, kernel.distance
        g, slope = kernel.gathered(r), kernel.gathered(r, u)
        gap, miss = float((q * slack).sum()), q @ np.abs(g + slack - 1)
        if max(gap, miss, 10 * float(q @ np.square(slope))) <= tolerance and g.max() <= 1 + _ABOVE * tolerance:
            break
        target = _AIM * gap / y.size
        matrix = kernel.curvature(w / np.square(z), q)
        matrix[0, ::2] += slack / q + 1e-13 * matrix[0, ::2].max()
        matrix[0, 1::2] += q * np.maximum(kernel.gathered(r, 1.0 - np.square(u)), _FLAT)
        rise = np.stack([g - 1 + target / q, q * slope], axis=1).ravel()
        step = solveh_banded(matrix, rise, lower=True, overwrite_ab=True, check_finite=False)
        other = (target - slack * (q + step[::2])) / q
        share = min(1.0, _STEP / max(float((-step[::2] / q).max()), _STEP))
        slack = slack + min(1.0, _STEP / max(float((-other / slack).max()), _STEP)) * other
        y = y + share * width * np.clip(step[1::2], -_FAR, _FAR)
        y, q, slack = _fewer(y, q + share * step[::2], slack, width, _NO_MASS * gap / y.size)
    return y, q


def _fewer(y: Array, q: Array, slack: Array, width: float, least: float) -> tuple[Array, Array, Array]:
    """Values close to each other as one in the middle of their masses; masses below `least` go, no two neighbours'.

    Nodes of the source stay within reach of some value.
    """
    order = np.argsort(y)
    y, q, slack = y[order], q[order], slack[order]
    gone = (q < least) & (np.diff(y, prepend=-np.inf) + np.diff(y, append=np.inf) < 4 * width)
    gone[1::2] = False
    y, q, slack = y[~gone], q[~gone], slack[~gone]
    start = np.flatnonzero(np.diff(y, prepend=-np.inf) > _SAME * width)
    mass = np.add.reduceat(q, start)
    return np.add.reduceat(q * y, start) / mass, mass, np.minimum.reduceat(slack, start)
