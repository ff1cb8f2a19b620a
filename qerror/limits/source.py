"""A density as some nodes with masses: what the integrals of a rate-distortion function are summed over."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from .._threads import chunk_slices
from .._types import Array, Index
from ..densities.base import Density

# Nodes that share a window of reproduction values.
GROUP = 6
# Nats by which a differential entropy may be off.
ENTROPY = 1e-9
# The kernel's width, in standard deviations, above which reproduction values are few and far between.
WIDE = 0.3
# What is left out of infinite tails on each side: less at low rates, where more is cheap and needed, and of densities
# whose parts may lie so far apart that the rate hardly falls while the error grows a thousandfold. How many kernel
# widths are kept at most.
_TAIL, _LOW_RATE_TAIL, _FINE_TAIL = 4e-8, 4e-9, 1e-13
_MOST_WIDTHS = 2e5
# Nodes of a cell that stand for the values of a sample in it.
_GAUSS = 6
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(GROUP)


@dataclasses.dataclass(frozen=True)
class Source:
    """Nodes x and masses w, (n, GROUP) in ascending order, with E[p(X); inside] = sum w p(x) for p smooth on a scale.

    Attributes
    ----------
    x, w : ndarray of shape (n, GROUP)
        Groups are no wider than 1.5 of the width; masses 0 fill them up.
    beyond : float
        Mass that lies outside of the nodes.
    spread : float
        Mean square distance of that mass from the mean.
    discrete : bool
        Whether the nodes are all there is: point masses alone.
    width : float
        The scale for which the nodes were chosen.
    """

    x: Array
    w: Array
    beyond: float
    spread: float
    discrete: bool
    width: float

    @property
    def inside(self) -> float:
        """The mass of the nodes."""
        return 1.0 - self.beyond


def source_of(density: Density, width: float) -> Source:
    """Nodes that resolve functions which are smooth on the scale `width`: one Gauss rule a piece of that length.

    Point masses are nodes; where a sample has many in a cell of that length, those of the Gauss rule of the cell's
    masses, which integrates polynomials of degree 11 exactly and has positive weights.

    Parameters
    ----------
    density : Density
        Of shape ().
    width : float
        The kernel's standard deviation, units of x.

    Examples
    --------
    >>> import qerror as qe
    >>> source = source_of(qe.Gaussian(), 0.5)
    >>> bool(abs((source.w * source.x**2).sum() - 1) < 1e-5), source.beyond < 1e-7
    (True, True)
    """
    parts = [_points(density, width)] if density.has_atoms else []
    discrete = density.panels().shape[-1] == 0
    beyond = spread = 0.0
    if not discrete:
        low, high = _ends(density, width)
        parts.append(_pieces(density, width, low, high))
        mean = float(density.mean)
        # Point masses on the ends are inside.
        mass, _, second = density.moments([-np.inf, high], [np.nextafter(low, -np.inf), np.inf], mean)
        beyond = float(mass.sum())
        spread = float(second.sum()) / beyond if beyond > 0 else 0.0
    x, w = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(x, kind="stable")
    x, w = _grouped(x[order], w[order] * ((1.0 - beyond) / w.sum()), width)
    return Source(x, w, beyond, spread, discrete, width)


def _grouped(x: Array, w: Array, width: float) -> tuple[Array, Array]:
    """Nodes in groups that are nowhere much wider than `width`; masses 0 fill them up."""
    cell = np.floor((x - x[0]) / (1.5 * width))
    start = np.flatnonzero(np.diff(cell, prepend=-1.0))
    count = np.diff(np.append(start, x.size))
    groups = -(-count // GROUP)
    rank = np.arange(x.size) - np.repeat(start, count)
    row = np.repeat(np.cumsum(groups) - groups, count) + rank // GROUP
    last = np.flatnonzero(np.diff(row, append=row[-1] + 1))
    places = np.repeat(x[last][:, None], GROUP, axis=1)
    masses = np.zeros(places.shape)
    places[row, rank % GROUP], masses[row, rank % GROUP] = x, w
    return places, masses


def _ends(density: Density, width: float) -> tuple[float, float]:
    """What is kept of the support."""
    low, high = (float(end) for end in density.support)
    few = width > WIDE * float(density.std) and not density.power_law
    tail = _FINE_TAIL if not (density.unimodal or density.power_law) else _LOW_RATE_TAIL if few else _TAIL
    low, high = max(low, float(density.quantile(tail))), min(high, float(density.isf(tail)))
    mean, reach = float(density.mean), 0.5 * _MOST_WIDTHS * width
    low, high = max(low, mean - reach), min(high, mean + reach)
    if density.has_atoms:
        points, _ = distinct(density)
        low, high = min(low, float(points[0])), max(high, float(points[-1]))
    return low, high


def _pieces(density: Density, width: float, low: float, high: float) -> tuple[Array, Array]:
    """Gauss-Legendre nodes between the edges of panels and of pieces no longer than `width`."""
    count = math.ceil((high - low) / min(width, 0.5 * float(density.std)))
    edges = [np.linspace(low, high, count + 1), density.panels(), np.ravel(density.kinks)]
    cuts = np.unique(np.clip(np.concatenate(edges), low, high))
    half = 0.5 * np.diff(cuts)[:, None]
    x = cuts[:-1, None] + half * (_NODES + 1.0)
    w = half * _WEIGHTS * density.pdf(x)
    held = (w > 0).any(axis=1)
    return x[held].ravel(), w[held].ravel()


def _points(density: Density, width: float) -> tuple[Array, Array]:
    """Point masses, those of a crowded cell gathered into the nodes of its Gauss rule."""
    x, mass = distinct(density)
    cell = np.floor((x - x[0]) / width)
    start = np.flatnonzero(np.diff(cell, prepend=-1.0))
    count = np.diff(np.append(start, x.size))
    crowded = count > _GAUSS
    if not crowded.any():
        return x, mass
    few = np.repeat(~crowded, count)
    parts = [(x[few], mass[few])]
    for part in chunk_slices(int(crowded.sum()), 1 << 14):
        rows = np.flatnonzero(crowded)[part]
        members = np.repeat(rows, count[rows])
        at = np.arange(members.size) - np.repeat(np.cumsum(count[rows]) - count[rows], count[rows]) + start[members]
        parts.append(_gauss_rules(x[at], mass[at], np.repeat(np.arange(rows.size), count[rows]), rows.size))
    xs, ws = (np.concatenate(column) for column in zip(*parts, strict=True))
    return xs, ws


def distinct(density: Density) -> tuple[Array, Array]:
    """Point masses of a density in ascending order, equal points as one.

    Examples
    --------
    >>> import qerror as qe
    >>> [column.tolist() for column in distinct(qe.Empirical([2.0, 1.0, 2.0, 2.0]))]
    [[1.0, 2.0], [0.25, 0.75]]
    """
    atoms = density.atoms
    if atoms is None:
        raise ValueError(f"density must have point masses, got {density!r}")
    x, mass = (np.asarray(column, np.float64)[atoms[1] > 0] for column in atoms)
    start = np.flatnonzero(np.diff(x, prepend=-np.inf))
    return x[start], np.add.reduceat(mass, start)


def _gauss_rules(x: Array, mass: Array, cell: Index, cells: int) -> tuple[Array, Array]:
    """Gauss rules of the masses of each cell by Stieltjes' recurrence: nodes and weights of all of them."""

    def total(values: Array) -> Array:
        return np.bincount(cell, values, cells).astype(np.float64, copy=False)

    whole = total(mass)
    centre = total(mass * x) / whole
    size = np.sqrt(total(mass * (x - centre[cell]) ** 2) / whole)
    t = (x - centre[cell]) / size[cell]
    before, now = np.zeros(x.size), 1.0 / np.sqrt(whole)[cell]
    matrix = np.zeros((cells, _GAUSS, _GAUSS))
    for k in range(_GAUSS):
        matrix[:, k, k] = total(mass * t * now * now)
        if k + 1 < _GAUSS:
            step = matrix[:, k, k - 1][cell] if k else 0.0
            after = (t - matrix[:, k, k][cell]) * now - step * before
            norm = np.sqrt(total(mass * after * after))
            matrix[:, k, k + 1] = matrix[:, k + 1, k] = norm
            before, now = now, after / norm[cell]
    nodes, vectors = np.linalg.eigh(matrix)
    return (centre[:, None] + size[:, None] * nodes).ravel(), (whole[:, None] * vectors[:, 0] ** 2).ravel()
