"""Panels for a pdf of which nothing else is known: halve until twelve nodes and twice twelve agree."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .quadrature import NODES, WEIGHTS, Array

Pdf = Callable[[Array], Array]

_ROWS = np.stack([WEIGHTS, WEIGHTS * NODES, WEIGHTS * NODES * NODES])


def _moments(pdf: Pdf, lower: Array, upper: Array) -> Array:
    """Moments (3, n) about the middle of each panel, in units of its half width: all of the size of its mass."""
    half = 0.5 * (upper - lower)
    values = pdf((lower + half)[:, None] + half[:, None] * NODES)
    return np.asarray(half * np.einsum("jk,nk->jn", _ROWS, values))


def _disagreement(pdf: Pdf, lower: Array, upper: Array, whole: Array) -> tuple[Array, Array, Array]:
    """Largest difference of `whole` from its two halves; the moments of these halves."""
    middle = lower + 0.5 * (upper - lower)
    left, right = _moments(pdf, lower, middle), _moments(pdf, middle, upper)
    # Nodes of a half sit at (u -+ 1) / 2 of the whole.
    both = np.stack(
        [
            left[0] + right[0],
            0.5 * (left[1] - left[0] + right[1] + right[0]),
            0.25 * (left[2] - 2 * left[1] + left[0] + right[2] + 2 * right[1] + right[0]),
        ]
    )
    return np.abs(both - whole).max(axis=0), left, right


def resolve(
    pdf: Pdf, edges: Array, *, relative: float = 1e-13, absolute: float = 2e-16, depth: int = 40, limit: int = 4000
) -> tuple[Array, float]:
    """Halve the panels between `edges` until twelve nodes resolve the pdf on each.

    A panel is accepted when both rules agree within `relative` times its own mass and within `absolute` times the
    whole mass: the first keeps tails and small cells accurate, the second the sums.

    Parameters
    ----------
    pdf : callable
        Takes an array of any shape.
    edges : ndarray of shape (P,)
        Ascending; cusps and jumps of the pdf must be among them, or are approached by halving.
    relative, absolute : float
        Tolerances on the mass and the two higher moments of a panel.
    depth : int
        Halvings at most.
    limit : int
        Panels at most.

    Returns
    -------
    edges : ndarray
        Refined edges.
    error : float
        What the panels that reached `depth` or `limit` still disagree by, in units of the pdf's own mass.
    """
    lower, upper = edges[:-1], edges[1:]
    whole = _moments(pdf, lower, upper)
    mass = float(np.abs(whole[0]).sum())
    found, error, count = [edges], 0.0, edges.size
    for level in range(depth + 1):
        gap, left, right = _disagreement(pdf, lower, upper, whole)
        split = ~((gap <= relative * np.abs(left[0] + right[0])) & (gap <= absolute * mass))
        split &= upper - lower > 1e-300
        count += int(split.sum())
        if not split.any():
            break
        if level == depth or count > limit:
            error = float(gap[split].sum())
            break
        lower, upper = lower[split], upper[split]
        middle = lower + 0.5 * (upper - lower)
        found.append(middle)
        lower, upper = np.concatenate([lower, middle]), np.concatenate([middle, upper])
        whole = np.concatenate([left[:, split], right[:, split]], axis=1)
        mass = max(mass, float(np.abs(whole[0]).sum()))
    return np.unique(np.concatenate(found)), error
