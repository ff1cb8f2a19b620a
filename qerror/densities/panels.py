"""Panels for a pdf of which nothing else is known: halve until twelve nodes and twice twelve agree."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices
from .._types import Array
from .quadrature import NODES, WEIGHTS

Pdf = Callable[[Array], Array]

# Samples at a time: some thirty temporaries of this many float64 stay in the second-level cache.
_CHUNK = 4096
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
    pdf: Pdf,
    edges: Array,
    *,
    relative: float = 1e-13,
    absolute: float = 2e-16,
    floor: float = 0.0,
    depth: int = 40,
    limit: int = 4000,
) -> tuple[Array, float]:
    """Halve the panels between `edges` until twelve nodes resolve the pdf on each.

    A panel is accepted when both rules agree within `relative` times its own mass (or `floor` times the whole) and
    within `absolute` times the whole mass: the first keeps tails and small cells accurate, the second the sums.

    Parameters
    ----------
    pdf : callable
        Takes an array of any shape.
    edges : ndarray of shape (P,)
        Ascending; cusps and jumps of the pdf are among them, or are approached by halving.
    relative, absolute, floor : float
        Tolerances on the mass and the two higher moments of a panel.
    depth : int
        Halvings at most.
    limit : int
        New panels at most.

    Returns
    -------
    edges : ndarray
        Refined edges.
    error : float
        What the panels that could not be halved any further still disagree by, in units of the pdf's own mass.
    """
    lower, upper = edges[:-1], edges[1:]
    whole = _moments(pdf, lower, upper)
    mass = float(whole[0].sum())
    found, error, count = [edges], 0.0, 0
    for level in range(depth + 1):
        gap, left, right = _disagreement(pdf, lower, upper, whole)
        own = left[0] + right[0]
        # Nodes are rounded: far from zero a narrow panel cannot be integrated better than this.
        rounding = 4.0 * np.spacing(np.maximum(np.abs(lower), np.abs(upper))) / (upper - lower)
        bad = (gap > relative * own + floor * mass) | (gap > absolute * mass)
        split = bad & (gap > rounding * own)
        count += int(split.sum())
        last = level == depth or count > limit
        error += float(gap[bad if last else bad & ~split].sum())
        if last or not split.any():
            break
        lower, upper = lower[split], upper[split]
        middle = lower + 0.5 * (upper - lower)
        found.append(middle)
        mass += float((left[0] + right[0] - whole[0])[split].sum())
        lower, upper = np.concatenate([lower, middle]), np.concatenate([middle, upper])
        whole = np.concatenate([left[:, split], right[:, split]], axis=1)
    return np.unique(np.concatenate(found)), error


def coarsen(pdf: Pdf, edges: Array, keep: Array, *, relative: float, absolute: float) -> Array:
    """Join neighbouring panels that twelve nodes resolve as well together; edges in `keep` stay."""
    for turn in range(24):
        parity = turn % 2
        left, middle, right = (edges[parity + k :: 2] for k in range(3))
        n = right.size
        left, middle = left[:n], middle[:n]
        parts = (_moments(pdf, left, middle), _moments(pdf, middle, right))
        halves = 0.5 * (middle - left), 0.5 * (right - middle)
        half = halves[0] + halves[1]
        shifts = left + halves[0] - (left + half), middle + halves[1] - (left + half)
        joint = sum(_moved(part, h / half, c / half) for part, h, c in zip(parts, halves, shifts, strict=True))
        gap = np.abs(_moments(pdf, left, right) - joint).max(axis=0)
        own = parts[0][0] + parts[1][0]
        join = (gap <= relative * own) & (gap <= absolute) & ~np.isin(middle, keep)
        if not join.any() and parity:
            break
        edges = np.setdiff1d(edges, middle[join], assume_unique=True)
    return edges


def _moved(moments: Array, h: Array, c: Array) -> Array:
    """Moments in the unit of a wider panel: u -> h u + c."""
    m0, m1, m2 = moments
    return np.stack([m0, h * m1 + c * m0, h * h * m2 + c * (2 * h * m1 + c * m0)])


def total_mass(pdf: Pdf, edges: Array) -> float:
    """Integral of the pdf over resolved panels."""
    return math.fsum(_moments(pdf, edges[:-1], edges[1:])[0])


class Cumulative:
    """Mass and first moment below and above any point inside resolved panels, at twelve pdf values each.

    Parameters
    ----------
    pdf : callable
    edges : ndarray of shape (P + 1,)
        Panels that twelve nodes resolve.
    """

    def __init__(self, pdf: Pdf, edges: Array) -> None:
        self._pdf, self.edges = pdf, edges
        half = 0.5 * np.diff(edges)
        moments, middle = _moments(pdf, edges[:-1], edges[1:]), edges[:-1] + half
        self.total = math.fsum(moments[0])
        largest = middle[np.argmax(moments[0])] if moments.size else 0.0
        self.mean = float(largest + math.fsum(moments[0] * (middle - largest) + half * moments[1]) / self.total)
        c = middle - self.mean
        spread = half**2 * moments[2] + c * (2 * half * moments[1] + c * moments[0])
        self.shares = spread / math.fsum(spread)
        self.std = math.sqrt(math.fsum(spread) / self.total)
        both = np.stack([moments[0], half * moments[1] + c * moments[0]])
        start = np.zeros((2, 1))
        self._below = np.concatenate([start, np.cumsum(both, axis=1)], axis=1)
        self._above = np.concatenate([np.cumsum(both[:, ::-1], axis=1)[:, ::-1], start], axis=1)

    def below(self, x: Array) -> Array:
        """Mass and first moment about the mean, (2, ...), between the first edge and x."""
        i = self._panel(x)
        return self._below[:, i] + self._part(self.edges[i], x)

    def above(self, x: Array) -> Array:
        """Mass and first moment about the mean, (2, ...), between x and the last edge."""
        i = self._panel(x)
        return self._above[:, i + 1] + self._part(x, self.edges[i + 1])

    def _panel(self, x: Array) -> NDArray[np.intp]:
        return np.clip(np.searchsorted(self.edges, x, side="right") - 1, 0, self.edges.size - 2)

    def _part(self, lower: Array, upper: Array) -> Array:
        """Twelve nodes between points inside a panel."""
        shape = np.broadcast_shapes(lower.shape, upper.shape)
        lower, upper = np.broadcast_to(lower, shape).ravel(), np.broadcast_to(upper, shape).ravel()
        m0, m1, _ = _moments(self._pdf, lower, upper)
        half = 0.5 * (upper - lower)
        return np.stack([m0, half * m1 + (lower + half - self.mean) * m0]).reshape(2, *shape)


class InverseCdf:
    """The inverse of the cdf of resolved panels, for sampling: polynomials on quarters of panels, Newton steps.

    Parameters
    ----------
    pdf : callable
    edges : ndarray of shape (P + 1,)
        Panels that twelve nodes resolve.
    """

    def __init__(self, pdf: Pdf, edges: Array) -> None:
        quarters = edges[:-1, None] + np.diff(edges)[:, None] * np.linspace(0.0, 1.0, 5)[:-1]
        cuts = np.append(quarters.ravel(), edges[-1])
        half = 0.5 * np.diff(cuts)
        middle = cuts[:-1] + half
        values = pdf(middle[:, None] + half[:, None] * NODES)
        mass = half * (values @ WEIGHTS)
        filled = mass > 0
        self._middle, self._half = middle[filled], half[filled]
        # Coefficients of the mass between -1 and u, in units of the half width.
        slope = (values[filled] @ np.linalg.inv(np.vander(NODES, increasing=True)).T).T
        terms = slope / np.arange(1, NODES.size + 1)[:, None]
        start = (terms * (-1.0) ** np.arange(NODES.size)[:, None]).sum(axis=0)
        self._terms = np.concatenate([start[None], terms])
        self._below = np.concatenate([[0.0], np.cumsum(mass[filled])])

    def __call__(self, uniform: Array) -> Array:
        """The x below which the share `uniform` of the mass lies, within 1e-12 of a quarter panel."""
        flat = uniform.ravel()
        parts = [self._solve(flat[part]) for part in chunk_slices(flat.size, _CHUNK)]
        return np.concatenate([np.empty(0), *parts]).reshape(uniform.shape)

    def _solve(self, uniform: Array) -> Array:
        goal = uniform * self._below[-1]
        cell = np.clip(np.searchsorted(self._below, goal, side="right") - 1, 0, self._half.size - 1)
        rest = (goal - self._below[cell]) / self._half[cell]
        terms = self._terms[:, cell]
        low, high = np.full(goal.shape, -1.0), np.full(goal.shape, 1.0)
        u = np.zeros(goal.shape)
        for _ in range(60):
            value, slope = terms[-1].copy(), np.zeros(goal.shape)
            for term in terms[-2::-1]:
                slope = slope * u + value
                value = value * u + term
            low, high = np.where(value <= rest, u, low), np.where(value <= rest, high, u)
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = u - (value - rest) / slope
            moved = np.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
            done = np.abs(moved - u).max(initial=0.0) < 1e-12
            u = moved
            if done:
                break
        return np.asarray(self._middle[cell] + self._half[cell] * u)
