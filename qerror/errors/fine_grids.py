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
from typing import NamedTuple

import numpy as np

from .._threads import chunk_slices
from .._types import Array, Index
from ..casting.ties import last_below
from ..densities.base import Density
from ..grids.grid import Grid

_COUNT = 16
_NODES, _GAUSS = np.polynomial.legendre.leggauss(_COUNT)
# Fewer levels than this are faster cell by cell.
_FEWEST_LEVELS = 1024
# Pieces of fewer gaps are integrated gap by gap: the series would cancel, and nothing is gained.
_FEWEST_GAPS = 24
# Edges beyond the panels of a density on a float grid: an exponential tail needs seven, a power law hardly any.
_FLOAT_KNOTS = 8
# Rows (scales) in flight: their pieces and nodes stay in cache.
_CHUNK_ROWS = 16


def pays(density: Density, grid: Grid) -> bool:
    """Whether product quadrature is the faster route: a smooth density, and long runs of equal gaps."""
    levels, extra = len(grid.levels), density.atom_count
    return levels >= max(_FEWEST_LEVELS, 8 * len(grid.runs), 8 * extra) and density.panels().shape[-1] > 0


def error_rows(density: Density, grid: Grid, scale: Array, shift: Array, rounding: str) -> Array:
    """The fields of `error.ErrorSums`, shape (6, n), for flat `scale` and `shift`."""
    out = [np.empty((6, 0))]
    for part in chunk_slices(scale.size, _CHUNK_ROWS):
        members = density.take(np.arange(scale.size)[part]) if density.shape else density
        out.append(_chunk(members, grid, scale[part], shift[part], rounding))
    return np.concatenate(out, axis=1)


def _chunk(density: Density, grid: Grid, scale: Array, shift: Array, rounding: str) -> Array:
    row, low, gaps = _pieces(density, grid, scale, shift)
    long = gaps >= _FEWEST_GAPS
    values = _Values(density, grid, scale, shift, rounding)
    sums = _product(values, row[long], low[long], gaps[long])
    count = gaps[~long]
    if count.size:
        first = np.repeat(low[~long], count)
        first += np.arange(first.size) - np.repeat(np.cumsum(count) - count, count)
        sums = sums + _by_gap(values, np.repeat(row[~long], count), first)
    loss, error, lever = sums
    ends = scale[:, None] * np.array([-np.inf, grid.min, grid.max, np.inf])
    about = scale[:, None] * np.array([grid.min, 0.0, grid.max])
    _, end_error, end_second = density.cell_moments(ends, about, shift)[..., ::2]
    # E[y e] over the tails, y = x - shift = e + end value.
    clipping, drift, pull = end_second.sum(axis=1), end_error.sum(axis=1), (end_error * about[:, ::2]).sum(axis=1)
    if rounding == "nearest":
        bias, cross = -(error + drift), -(lever + clipping + pull + shift * (error + drift))
        by_scale, by_shift = -2 * (lever - loss + pull) / scale, -2 * (error + drift)
    else:
        bias, cross = -drift, -(clipping + pull + shift * drift)
        by_scale, by_shift = (2 * (loss + lever) - 2 * pull) / scale, 2 * (error - drift)
    return np.array([clipping, loss, bias, cross, by_scale, by_shift])


class _Values(NamedTuple):
    """What a piece needs to know of its row."""

    density: Density
    grid: Grid
    scale: Array
    shift: Array
    rounding: str

    def at(self, row: Index, level: Index) -> Array:
        return self.scale[row] * self.grid.levels[level]

    def add_up(self, row: Index, terms: tuple[Array, Array, Array]) -> Array:
        """Sums of the three terms over the pieces of each row."""
        return np.array([np.bincount(row, weights=term, minlength=self.scale.size) for term in terms])


def _pieces(density: Density, grid: Grid, scale: Array, shift: Array) -> tuple[Index, Index, Index]:
    """Runs of equal gaps, as (row, first level, number of gaps): cut so that every panel edge has a gap of its own."""
    panels = np.broadcast_to(density.panels(), (scale.size, density.panels().shape[-1])) - shift[:, None]
    edges = np.concatenate([panels, *_tail_knots(density, grid, panels, scale, shift)], axis=1)
    if density.atoms is not None:
        points = density.atoms[0]
        edges = np.concatenate(
            [edges, np.broadcast_to(points, (scale.size, points.shape[-1])) - shift[:, None]], axis=1
        )
    gap = np.searchsorted(grid.levels, edges / scale[:, None], side="right") - 1
    last = len(grid.levels) - 1
    inside = (gap >= 0) & (gap < last)
    cuts = [np.where(inside, gap, 0), np.where(inside, gap + 1, 0)]
    bounds = np.sort(np.concatenate([np.broadcast_to(grid.runs.ravel(), (scale.size, grid.runs.size)), *cuts], axis=1))
    gaps = np.diff(bounds, axis=1)
    values = scale[:, None] * grid.levels[bounds]
    # Runs far inside the innermost panel (the low binades of a float grid) hold less than 1e-20 of the error.
    innermost = np.where(panels == 0, np.inf, np.abs(panels)).min(axis=1)
    inner = 2.0**-24 * np.minimum(innermost, np.abs(values[:, [0, -1]]).max(axis=1))[:, None]
    members = density.take(np.arange(scale.size)[:, None]) if density.shape else density
    # Nor is there anything where the pdf has underflowed.
    present = members.pdf_from(shift[:, None], values) > 0
    felt = np.maximum(np.abs(values[:, :-1]), np.abs(values[:, 1:])) > inner
    felt &= present[:, :-1] | present[:, 1:] | (gaps == 1)
    row, place = np.nonzero(felt & (gaps > 0))
    return row, bounds[row, place], gaps[row, place]


def _tail_knots(density: Density, grid: Grid, panels: Array, scale: Array, shift: Array) -> list[Array]:
    """Edges beyond the panels, that double until the tail or the grid ends."""
    out = []
    for column, sign, level in ((0, -1.0, grid.min), (-1, 1.0, grid.max)):
        end = panels[:, column]
        length = np.broadcast_to(density.decay_length(end + shift, np.full(end.shape, sign)), end.shape)
        # The binades of a float grid double by themselves; other grids need a power law cut to their end.
        most = 64 if density.power_law else density.tail_doublings + 2
        most = most if grid.float_spec is None else min(most, _FLOAT_KNOTS)
        reach = float(np.max(sign * (scale * level - end) / length, initial=1.0))
        doublings = min(most, math.ceil(math.log2(max(reach, 1.0))))
        out.append(end[:, None] + sign * length[:, None] * 2.0 ** np.arange(doublings))
    return out


def _product(values: _Values, row: Index, low: Index, gaps: Index) -> Array:
    """Loss, first moment of the error e, and E[y e] of each row over long pieces."""
    start = values.at(row, low)
    half = 0.5 * (values.at(row, low + gaps) - start)
    y = (start + half)[:, None] + half[:, None] * _NODES
    density = values.density.take(row[:, None]) if values.density.shape else values.density
    f = density.pdf_from(values.shift[row][:, None], y)
    width = 2.0 / gaps
    powers = width[:, None] ** np.arange(_COUNT)
    saw, parabola, mean = _series()[values.rounding]
    by_node = np.einsum("ij,jk->ik", powers, saw) * ((width * half) ** 2)[:, None] * f
    curved = np.einsum("ij,jk->ik", powers, parabola) * width[:, None] + mean * _GAUSS
    loss = np.einsum("ij,ij->i", curved, f) * width**2 * half**3
    return values.add_up(row, (loss, by_node.sum(axis=1), np.einsum("ij,ij->i", by_node, y)))


def _by_gap(values: _Values, row: Index, low: Index) -> Array:
    """The same over single gaps, each half about its own end."""
    a, b = values.at(row, low), values.at(row, low + 1)
    edges = np.stack([a, 0.5 * (a + b), b], axis=1)
    about = edges[:, ::2]
    density = values.density.take(row) if values.density.shape else values.density
    last = None
    if density.has_atoms:
        last = values.shift[row, None] + edges
        grid = values.grid
        last[:, 1] = last_below(grid.thresholds[low], grid.ties_to_lower[low], values.scale[row], values.shift[row])
    mass, first, second = density.cell_moments(edges, about, values.shift[row], last)
    if values.rounding == "nearest":
        lever = second + about * first
        return values.add_up(row, (second.sum(axis=1), first.sum(axis=1), lever.sum(axis=1)))
    # e is the distance from the middle of the gap: from the ends, less half a gap with its sign.
    gap = b - a
    side = gap[:, None] * np.array([0.5, -0.5])
    loss = gap * (first[:, 0] - first[:, 1]) - second.sum(axis=1)
    lever = second + (about - side) * first - side * about * mass
    return values.add_up(row, (loss, (first - side * mass).sum(axis=1), lever.sum(axis=1)))


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
    return 2.0 * (math.factorial(n + i) / (math.factorial(i) * math.factorial(n - i) << i))
