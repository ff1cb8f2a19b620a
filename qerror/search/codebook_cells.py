"""The cells of a codebook on a density, and the step of Newton's method that they give."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .._types import Array
from ..densities.base import Density
from ..samples.double_double import two_sum

_NONE = np.empty(0)
# Systems that are solved in less time than SciPy's solver takes to load.
_SMALL = 128


class Cells(NamedTuple):
    """Of every cell: first moment about its level, mass, and the flows (q_k+1 - q_k) f(t_k) / 4 across its ends."""

    first: Array
    mse: float
    mass: Array
    below: Array
    above: Array


def cells_of(density: Density, levels: Array, origin: float = 0.0, beside: Array = _NONE) -> Cells:
    """The cells of levels relative to `origin`; `beside` is the level below the first, if there is one."""
    inner, outermost = np.append(beside, levels), 1 - beside.size
    thresholds, lost = (0.5 * part for part in two_sum(inner[1:], inner[:-1]))
    flow = 0.25 * np.diff(inner) * density.pdf_from(origin, thresholds)
    edges, flow, lost = (
        np.concatenate([[low] * outermost, part, [high]])
        for part, low, high in ((thresholds, -np.inf, np.inf), (flow, 0.0, 0.0), (lost, 0.0, 0.0))
    )
    mass, first, second = density.cell_moments(edges, levels, origin)
    # Far out a threshold is rounded by more than the inner levels may be wrong: what that moves is flow times distance.
    moved = 2 * flow * lost
    first += moved[1:] + moved[:-1]
    return Cells(first, float(second.sum()), np.maximum(mass, 1e-300), flow[:-1], flow[1:])


def solve_tridiagonal(diagonal: Array, beside: Array, right: Array) -> Array:
    """Solve the symmetric tridiagonal system of these entries."""
    # Least squares for few levels: of the Laplace density with two the Jacobian is singular at the solution.
    if right.size <= 8:
        jacobian = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        return np.asarray(np.linalg.lstsq(jacobian, right, rcond=1e-9)[0], np.float64)
    if right.size <= _SMALL:
        return _eliminated(diagonal.tolist(), beside.tolist(), right.tolist())
    # Imported here: only many levels need it. A full matrix would cost 100 times as much where BLAS threads wait.
    from scipy.linalg import solve_banded

    bands = np.stack([np.insert(beside, 0, 0.0), diagonal, np.append(beside, 0.0)])
    return np.asarray(solve_banded((1, 1), bands, right), np.float64)


def _eliminated(d: list[float], beside: list[float], x: list[float]) -> Array:
    """Gauss's elimination with exchange of neighbouring rows, operation by operation that of LAPACK's gtsv."""
    n, lower, upper, beyond = len(d), list(beside), list(beside), [0.0] * len(d)
    for i in range(n - 1):
        if abs(d[i]) >= abs(lower[i]):
            factor = lower[i] / d[i]
            d[i + 1] -= factor * upper[i]
            x[i + 1] -= factor * x[i]
        else:
            factor, d[i] = d[i] / lower[i], lower[i]
            upper[i], d[i + 1] = d[i + 1], upper[i] - factor * d[i + 1]
            x[i], x[i + 1] = x[i + 1], x[i] - factor * x[i + 1]
            if i < n - 2:
                beyond[i], upper[i + 1] = upper[i + 1], -factor * upper[i + 1]
    for i in range(n - 1, -1, -1):
        for column, value in ((1, upper), (2, beyond)):
            if i + column < n:
                x[i] -= value[i] * x[i + column]
        x[i] /= d[i]
    return np.array(x)
