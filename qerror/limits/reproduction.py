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

    def curvature(self, r: Array) -> Array:
        """Sum over the nodes of r times the products of two kernels: the lower band of a symmetric matrix."""
        products = np.swapaxes(self.kernel * r[:, :, None], 1, 2) @ self.kernel
        band = min(self.band, self.count)
        out = np.empty((band, self.count))
        for k in range(band):
            out[k] = self._added(self.value[:, : self.band - k], np.diagonal(products, k, 1, 2))
        return out

    def _added(self, place: Index, values: Array) -> Array:
        sums = np.bincount(place.ravel(), values.ravel(), self.count + 1)[: self.count]
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
