"""The loss of a value at one scale less that at each other, d: linear in x on each cell of all scales' thresholds.

Integrals of e^(i w d(x)) f(x) over a cell are those of Legendre polynomials: spherical Bessel functions.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from ..densities.base import Density
from ..grids.grid import Grid

Mask = NDArray[np.bool_]
Rounding = Literal["nearest", "stochastic"]
Scales = tuple[float, ...]

# Legendre polynomials for the pdf on a cell, and nodes for e^(i k t) times one of them where |k| is below their number.
DEGREES = 12
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(DEGREES)
_FIT = (_WEIGHTS * np.polynomial.legendre.legvander(_NODES, DEGREES - 1).T).T * (2 * np.arange(DEGREES) + 1)
_FINE, _FINE_WEIGHTS = (half[DEGREES:] for half in np.polynomial.legendre.leggauss(2 * DEGREES))
_FINE_FIT = _FINE_WEIGHTS * np.polynomial.legendre.legvander(_FINE, DEGREES - 1).T
# Share of the whole that the last two polynomials may hold; halvings before and after cells are cut at panels of the
# pdf, unless there are too many.
_UNRESOLVED, _HALVINGS, _MOST_CUTS = 1e-11, 4, 4000
# Candidates that agree to this are equal: m / 6 * 3 and m / 4 * 2 differ by an ulp, and d would seem to vary.
_EQUAL = 1e-12


class Cells(NamedTuple):
    """Where d is linear, in units of a size that scales go with; cells above 0 alone stand for those below, too.

    Attributes
    ----------
    edges : ndarray of shape (C + 1,)
    values : ndarray of shape (K, C)
        What each candidate sends a cell to.
    clipped : ndarray of shape (K, C)
        Whether that is an end value and the cell beyond it.
    around : ndarray of shape (2, K, C), optional
        The levels below and above a cell, of each candidate: between them values are rounded stochastically.
    """

    edges: Array
    values: Array
    clipped: Mask
    around: Array | None = None

    @property
    def middle(self) -> Array:
        """The middle of each cell."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])

    @property
    def half(self) -> Array:
        """Half its width."""
        return 0.5 * np.diff(self.edges)

    @property
    def folded(self) -> bool:
        """Whether all cells lie above 0: pdf and grid are even."""
        return bool(self.edges[0] == 0)

    @property
    def apart(self) -> Mask:
        """Where each other candidate gives another value than the first: (K - 1, C)."""
        return np.asarray(np.abs(self.values[1:] - self.values[0]) > _EQUAL * np.abs(self.values).max(axis=0))

    @property
    def differs(self) -> Mask:
        """Where not all candidates give the same value."""
        return np.asarray(self.apart.any(axis=0))

    @property
    def weights(self) -> int:
        """How many changes there are of each candidate."""
        return 3 if self.around is None else 4

    @property
    def slope(self) -> Array:
        """The slope of d: (K - 1, C)."""
        return np.where(self.apart, 2 * (self.values[1:] - self.values[0]), 0.0)

    @property
    def level(self) -> Array:
        """The value of d in the middle of each cell: (K - 1, C)."""
        return np.asarray(self.slope * (self.middle - 0.5 * (self.values[1:] + self.values[0])))

    def roots(self, offset: Array) -> Array:
        """Where two candidates have lost as much, with what else the first has lost more than each other, (K - 1,)."""
        lost, found = np.append(0.0, -offset), []
        for i, j in combinations(range(len(self.values)), 2):
            one, two = self.values[[i, j]]
            with np.errstate(divide="ignore", invalid="ignore"):
                root = 0.5 * (one + two) + 0.5 * (lost[i] - lost[j]) / (one - two)
            found.append(root[self.differs & (root > self.edges[:-1]) & (root < self.edges[1:])])
        return np.concatenate(found)

    def changes(self, x: Array) -> Array:
        """Clipping, bias and cross term (3, K - 1, C, N) at each other candidate less those at the first.

        Of stochastic rounding the expected loss, too (4, K - 1, C, N).
        """
        off, beyond = self.values[:, :, None] - x, self.clipped[:, :, None]
        clipped = np.where(beyond, off**2, 0.0)
        loss = []
        if self.around is not None:
            below, above = self.around[..., None]
            both = np.where(beyond, off**2, (x - below) * (above - x))
            loss = [both[1:] - both[0]]
            off = np.where(beyond, off, 0.0)
        change = off[1:] - off[0]
        return np.stack([clipped[1:] - clipped[0], 0.0 * change if self.folded else change, x * change, *loss])

    def some(self, index: Any) -> Cells:
        """The same with the values of some of the cells."""
        around = None if self.around is None else self.around[:, :, index]
        return Cells(self.edges, self.values[:, index], self.clipped[:, index], around)

    def at_end(self, sign: float) -> tuple[Array, Array]:
        """The values of d (K - 1,) and of the changes (W, K - 1) at the outer edge above 0 or below."""
        last = -1 if sign > 0 else 0
        x = self.edges[last]
        one = self.some([last])._replace(edges=np.array([0.0 if self.folded else x, x]))
        return one.loss(x)[:, 0], one.changes(x.reshape(1, 1))[:, :, 0, 0]

    def loss(self, x: Array) -> Array:
        """The values of d at a place in each cell: (K - 1, C)."""
        first, others = self.values[0], self.values[1:]
        beyond = 2 * x - first - others
        # What lies midway between two values is as far from both, in spite of rounding.
        return np.where(self.apart & (np.abs(beyond) > _EQUAL * np.abs(x)), (others - first) * beyond, 0.0)


class Rows(NamedTuple):
    """Conditions of one shape: x = size * u with |u| <= reach, of which there is `mass`; each of shape (R,)."""

    size: Array
    reach: Array
    mass: Array


def loss_change(grid: Grid, scales: Scales, x: Array, rounding: Rounding) -> Array:
    """Values of d at single places, and the expected loss at each other scale less that at the first: (2, K - 1, N)."""
    low, high = -float(np.abs(x).max()) - 1, float(np.abs(x).max()) + 1
    cells = joint_cells(grid, scales, low, high, np.empty(0), rounding)
    cells = cells.some(np.searchsorted(cells.edges, x) - 1)
    d = cells.loss(x)
    return np.stack([d, -d if cells.around is None else cells.changes(x[:, None])[3, :, :, 0]])


def joint_cells(
    grid: Grid, scales: Scales, low: float, high: float, cuts: Array, rounding: Rounding = "nearest"
) -> Cells:
    """Cells of [low, high] for several scales.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> cells = joint_cells(grid("e2m1"), (1 / 6, 1 / 4), -1.0, 1.0, np.empty(0))
    >>> cells.values[:, -1].tolist(), bool(cells.differs[-1])
    ([1.0, 1.0], False)
    """
    stochastic = rounding == "stochastic"
    marks = np.concatenate([grid.levels if stochastic else [grid.min, grid.max], grid.thresholds])
    edges = np.concatenate([[low], *(scale * marks for scale in scales), cuts, [high]])
    return _cut(grid, scales, edges, low, high, stochastic)


def cut(grid: Grid, scales: Scales, cells: Cells, cuts: Array) -> Cells:
    """The same cells, and cut at further places."""
    low, high = cells.edges[[0, -1]].tolist()
    return _cut(grid, scales, np.concatenate([cells.edges, cuts]), low, high, cells.around is not None)


def _cut(grid: Grid, scales: Scales, edges: Array, low: float, high: float, stochastic: bool) -> Cells:
    edges = np.unique(edges[(edges >= low) & (edges <= high)])
    edges = edges[np.append(np.diff(edges) > 1e-13 * high, True)]
    edges[0] = low
    middle = 0.5 * (edges[1:] + edges[:-1])
    shape = (len(scales), middle.size)
    values, clipped = np.zeros(shape), np.ones(shape, np.bool_)
    around = np.zeros((2, *shape)) if stochastic else None
    for row, scale in enumerate(scales):
        if scale > 0:
            values[row] = scale * grid.levels[np.searchsorted(grid.thresholds, middle / scale)]
            clipped[row] = (middle < scale * grid.min) | (middle > scale * grid.max)
            if around is not None:
                above = np.clip(np.searchsorted(grid.levels, middle / scale), 1, len(grid) - 1)
                around[:, row] = scale * grid.levels[above - 1], scale * grid.levels[above]
    return Cells(edges, values, clipped, around)


def resolved(density: Density, grid: Grid, scales: Scales, cells: Cells, rows: Rows) -> Cells:
    """Cells on which the pdf of every row is a polynomial, where that matters."""
    points = np.unique(np.concatenate([density.panels().ravel(), density.kinks.ravel()]))
    points = (points / rows.size[:, None]).ravel()
    # Errors count by the square of the size.
    power = float(density.std) ** 2 + float(density.mean) ** 2
    limit = _UNRESOLVED * rows.mass * np.minimum(1.0, power / (rows.size * cells.edges[-1]) ** 2)
    for turn in range(2 * _HALVINGS):
        coarse = (_rest(coefficients(density, cells, rows)) > limit[:, None]).any(axis=0)
        if not coarse.any():
            break
        more = cells.middle[coarse]
        if turn == _HALVINGS:
            # Halving meets no jump or cusp: some must be left.
            at = np.clip(np.searchsorted(cells.edges, points) - 1, 0, coarse.size - 1)
            inside = points[coarse[at] & (points > cells.edges[0]) & (points < cells.edges[-1])]
            more = inside if 0 < inside.size <= _MOST_CUTS else more
        cells = cut(grid, scales, cells, more)
    return cells


def unresolved(parts: Array) -> Array:
    """By row the mass that the last polynomials hold."""
    return np.asarray(_rest(parts).sum(axis=-1))


def _rest(parts: Array) -> Array:
    return np.asarray(np.abs(parts[0, ..., -2:]).sum(axis=-1))


def coefficients(density: Density, cells: Cells, rows: Rows, *, changes: bool = False) -> Array:
    """What each Legendre polynomial has of f on each cell, and of f times each of the changes: (1 + W, R, C, 12).

    0 on cells where the candidates agree. W counts the changes of the first other candidate, of the next, and so on.
    """
    used = cells.differs
    u = (cells.middle[:, None] + cells.half[:, None] * _NODES)[used]
    inside = (np.abs(cells.middle) < rows.reach[:, None])[:, used, None]
    x = rows.size[:, None, None] * u
    f = np.where(inside, np.asarray(density.pdf(x)) * rows.size[:, None, None], 0.0) * cells.half[used, None]
    f *= 2 if cells.folded else 1
    count = cells.weights * (len(cells.values) - 1)
    out = np.zeros(((1 + count) if changes else 1, rows.size.size, used.size, DEGREES))
    out[0, :, used] = (f @ _FIT).swapaxes(0, 1)
    if changes:
        for part, change in zip(out[1:], _by_candidate(cells.some(used).changes(u)), strict=True):
            part[:, used] = (f * change) @ _FIT
    return out


def changes_of_equals(density: Density, cells: Cells, rows: Rows) -> Array:
    """The integrals of f times each of the changes over the cells where all candidates agree: (W, R)."""
    inner = np.where(cells.middle < 0, cells.edges[1:], cells.edges[:-1])
    outer = np.where(cells.middle < 0, cells.edges[:-1], cells.edges[1:])
    # Parabolas, from three places: about the end next to 0, where much of f may be.
    step = 0.5 * (outer - inner)
    at = _by_candidate(cells.changes(inner[:, None] + step[:, None] * np.arange(3)))
    powers = [at[..., 0], -1.5 * at[..., 0] + 2 * at[..., 1] - 0.5 * at[..., 2], at @ np.array([0.5, -1.0, 0.5])]
    some = np.flatnonzero(~cells.differs & (at != 0).any(axis=(0, 2)))
    edges = np.sort(np.stack([inner, outer], axis=-1)[some], axis=-1)
    edges = np.clip(edges, -rows.reach[:, None, None], rows.reach[:, None, None]) * rows.size[:, None, None]
    moments = density.cell_moments(edges, rows.size[:, None, None] * inner[some, None])[..., 0]
    moments /= (rows.size[:, None] * step[some]) ** np.arange(3)[:, None, None]
    found = np.einsum("pwc,prc->wr", np.stack(powers)[..., some], moments)
    return np.asarray(found * (2 if cells.folded else 1))


def _by_candidate(changes: Array) -> Array:
    """(W, K - 1, C, N) as ((K - 1) W, C, N)."""
    return changes.swapaxes(0, 1).reshape(-1, *changes.shape[2:])


def waves(k: Array) -> NDArray[np.complex128]:
    """Half the integral of e^(i k t) P_n(t) over [-1, 1], i^n j_n(k), for n < 12: shape (12, *k.shape)."""
    size = np.abs(k)
    bessel = np.empty((DEGREES, *k.shape))
    near = size < DEGREES
    angle = _FINE[:, None] * size[near]
    even, odd = _FINE_FIT[0::2] @ np.cos(angle), _FINE_FIT[1::2] @ np.sin(angle)
    bessel[0::2, near], bessel[1::2, near] = even, odd
    far = size[~near]
    rows = np.empty((DEGREES, far.size))
    rows[0] = np.sin(far) / far
    rows[1] = (rows[0] - np.cos(far)) / far
    for n in range(1, DEGREES - 1):
        rows[n + 1] = (2 * n + 1) / far * rows[n] - rows[n - 1]
    rows[2::4] *= -1
    rows[3::4] *= -1
    bessel[:, ~near] = rows
    bessel[1::2] *= np.sign(k)
    out = np.zeros(bessel.shape, np.complex128)
    out.real[0::2], out.imag[1::2] = bessel[0::2], bessel[1::2]
    return out
