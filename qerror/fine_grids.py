"""The same error on grids of thousands of levels, by product quadrature.

Over m neighbouring gaps of equal width the squared error of rounding is a periodic function of x. Where the pdf is
smooth, 16 nodes with weights that integrate (that periodic function) x (a polynomial) exactly replace 12 nodes in
every cell. The weights follow from the Euler-Maclaurin formula, whose series ends for a polynomial:

    integral of p(x) B_r(x / w mod 1) dx = sum_i (-1)^i w^(i+1) r! / (r+i+1)! B_(r+i+1) [p^(i)]

over whole periods; the values at half periods give the sawtooth and the parabola of rounding to nearest.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .densities.base import Density
from .grids.grid import Grid

Array = NDArray[np.float64]

_COUNT = 16
_NODES, _GAUSS = np.polynomial.legendre.leggauss(_COUNT)
# Fewer levels than this are faster cell by cell.
_FEWEST_LEVELS = 1024
# Pieces of fewer gaps are integrated gap by gap: the series would cancel, and nothing is gained.
_FEWEST_GAPS = 24


def pays(density: Density, grid: Grid) -> bool:
    """Whether product quadrature is the faster route: a smooth density, and long runs of equal gaps."""
    return len(grid.levels) >= _FEWEST_LEVELS > 8 * len(grid.runs) and density.panels().shape[-1] > 0


def error_row(density: Density, grid: Grid, scale: float, shift: float, rounding: str) -> tuple[float, ...]:
    """The fields of `error.ErrorSums` for one density, scale and shift."""
    values = scale * grid.levels
    bounds = _cut(density, grid, values, shift)
    gaps = np.diff(bounds)
    long = gaps >= _FEWEST_GAPS
    parts = [_product(density, values, bounds[:-1][long], gaps[long], shift, rounding)]
    short = np.flatnonzero(~long)
    if short.size:
        low = np.repeat(bounds[short], gaps[short])
        low += np.arange(low.size) - np.repeat(np.cumsum(gaps[short]) - gaps[short], gaps[short])
        parts.append(_by_gap(density, values, low, shift, rounding))
    loss, first, lever = np.sum(parts, axis=0)
    ends = np.array([-np.inf, values[0], values[-1], np.inf])
    about = np.array([values[0], 0.0, values[-1]])
    _, end_first, end_second = density.cell_moments(ends, about, shift)[..., [0, 2]].reshape(3, 2)
    clipping, pull = float(end_second.sum()), float((end_first * values[[0, -1]]).sum())
    drift = float(end_first.sum())
    # E[y e] over the tails, y = x - shift = e + end value.
    if rounding == "nearest":
        bias, cross = -(first + drift), -(lever + clipping + pull + shift * (first + drift))
        by_scale, by_shift = -2 * (lever - loss + pull) / scale, -2 * (first + drift)
    else:
        bias, cross = -drift, -(clipping + pull + shift * drift)
        by_scale, by_shift = (2 * (loss + lever) - 2 * pull) / scale, 2 * (first - drift)
    return clipping, loss, bias, cross, by_scale, by_shift


def _cut(density: Density, grid: Grid, values: Array, shift: float) -> NDArray[np.intp]:
    """Level indices that bound pieces: equal gaps inside, and every panel edge in a gap of its own."""
    panels = density.panels().ravel() - shift
    knots = [panels]
    for end, sign in ((panels[0], -1.0), (panels[-1], 1.0)):
        reach = sign * (values[0 if sign < 0 else -1] - end)
        length = float(density.decay_length(np.array([end + shift]), np.array([sign])).ravel()[0])
        doublings = min(64, max(0, math.ceil(math.log2(reach / length)))) if reach > length else 0
        knots.append(end + sign * length * 2.0 ** np.arange(doublings))
    edges = np.concatenate(knots)
    edges = edges[(edges > values[0]) & (edges < values[-1])]
    gap = np.searchsorted(values, edges, side="right") - 1
    return np.unique(np.concatenate([grid.runs.ravel(), gap, gap + 1]))


def _product(
    density: Density, values: Array, start: NDArray[np.intp], gaps: NDArray[np.intp], shift: float, rounding: str
) -> Array:
    """Loss, first moment of the error e, and E[y e], summed over long pieces."""
    half = 0.5 * (values[start + gaps] - values[start])
    y = (values[start] + half)[:, None] + half[:, None] * _NODES
    f = density.pdf(shift + y)
    width = 2.0 / gaps
    powers = width[:, None] ** np.arange(_COUNT)
    saw, parabola, mean = _series()[rounding]
    by_node = np.einsum("ij,jk->ik", powers, saw) * (width * half)[:, None] ** 2
    curved = np.einsum("ij,jk->ik", powers, parabola) * width[:, None] + mean * _GAUSS
    loss = np.einsum("ij,ij,i->", curved, f, width**2 * half**3)
    return np.array([loss, np.einsum("ij,ij->", by_node, f), np.einsum("ij,ij,ij->", by_node, f, y)])


def _by_gap(density: Density, values: Array, low: NDArray[np.intp], shift: float, rounding: str) -> Array:
    """The same over single gaps, each half about its own end."""
    a, b = values[low], values[low + 1]
    edges = np.stack([a, 0.5 * (a + b), b], axis=1)
    mass, first, second = density.cell_moments(edges, edges[:, ::2], np.full(low.shape, shift))
    if rounding == "nearest":
        return np.array([second.sum(), first.sum(), (second + edges[:, ::2] * first).sum()])
    # e is the distance from the middle of the gap: from the ends, less half a gap with its sign.
    gap = b - a
    side = gap[:, None] * np.array([0.5, -0.5])
    loss = (gap * (first[:, 0] - first[:, 1])).sum() - second.sum()
    centred = first - side * mass
    return np.array([loss, centred.sum(), (second + (edges[:, ::2] - side) * first - side * edges[:, ::2] * mass).sum()])


def _bernoulli(order: int) -> list[Fraction]:
    numbers = [Fraction(1)]
    for n in range(1, order + 1):
        numbers.append(-sum((math.comb(n + 1, k) * numbers[k] for k in range(n)), Fraction(0)) / (n + 1))
    return numbers


@functools.cache
def _series() -> dict[str, tuple[Array, Array, float]]:
    """For each rounding: weights (16 powers of the gap width w = 2 / m, 16 nodes) on pieces scaled to [-1, 1].

    The sawtooth (x - nearest level, or x - middle of the gap) starts at w^2. The loss (its square, or
    (x - a)(b - x)) is its mean w^2 / 12 or w^2 / 6 under Gauss weights plus a parabola that starts at w^3.
    """
    numbers = _bernoulli(_COUNT + 3)
    halves = [(Fraction(2) ** (1 - n) - 1) * b for n, b in enumerate(numbers)]
    jump = np.array([[_jump(n, i) for n in range(_COUNT)] for i in range(_COUNT)])
    legendre = np.polynomial.legendre.legvander(_NODES, _COUNT - 1) * (np.arange(_COUNT) + 0.5)
    project = (legendre * _GAUSS[:, None]).T
    out = {}
    for rounding, bernoulli, sign, mean in (("nearest", halves, 1, 1 / 12), ("stochastic", numbers, -1, 1 / 6)):
        saw = [float((-1) ** i * bernoulli[i + 2] / math.factorial(i + 2)) for i in range(_COUNT)]
        curve = [float(sign * (-1) ** i * 2 * bernoulli[i + 3] / math.factorial(i + 3)) for i in range(_COUNT)]
        out[rounding] = (np.array(saw)[:, None] * jump @ project, np.array(curve)[:, None] * jump @ project, mean)
    return out


def _jump(n: int, i: int) -> float:
    """The i-th derivative of the Legendre polynomial P_n at 1 minus that at -1."""
    if i > n or (n + i) % 2 == 0:
        return 0.0
    return 2.0 * math.factorial(n + i) / (2**i * math.factorial(i) * math.factorial(n - i))
