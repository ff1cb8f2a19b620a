"""The best grid of N levels: Lloyd-Max quantizers of densities, and exactly optimal ones of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import as_int
from .._types import Array
from ..densities.base import Density, check_density
from ..grids.grid import Grid
from .block_codebooks import block_codebook
from .codebook_cells import Cells, cells_of, solve_tridiagonal

# The widest formats have 16 bits. Cells of a density get so narrow that beyond 12 bits their moments do not settle.
_MOST_OF_SAMPLES, _MOST_OF_DENSITIES = 1 << 16, 1 << 12


def lloyd_max(
    density: Density,
    n_levels: int,
    *,
    block_size: int | None = None,
    signed: bool = False,
    fixed: Sequence[float] = (),
) -> Grid:
    """The levels, in units of x, that minimize the mean squared error of rounding to the nearest of them.

    Each level is the mean of its cell, each threshold the midpoint of its neighbours (Max 1960, Lloyd 1957). For a
    log-concave density this has one solution (Trushkin 1982). Newton's method finds it from the best grid for the
    density gathered into some thousand cells, which settles the choice where there are several. On a sample: the global
    optimum, by dynamic programming over the sorted values (Wu 1991).

    For a symmetric density the half is solved, too, and taken unless its error is the larger one: its levels are
    mean - q and mean + q, with a level (odd n_levels) or a threshold (even) at the mean. Where the pdf has a high cusp
    (`GeneralizedGaussian` below beta 1, even n_levels) the best levels are not symmetric: a level beside the cusp is
    better than a threshold on it, and one of the two mirror images is returned.

    Parameters
    ----------
    density : Density
        Of shape (); a sample is `Empirical(x)`.
    n_levels : int
        At least 2, at most 4096 (256 for blocks); of a sample at most 65536 and the number of its distinct values.
    block_size : int, optional
        Levels for values in blocks of this many, each divided by the largest magnitude of its block: those of least
        E[(x - g Q(x / g))^2] for the grid of a `BlockFormat` whose scales have any size. The best of several starts;
        `qerror.search.block_codebooks.block_codebook` says what they ended at.
    signed : bool
        Of blocks: divide by the value of largest magnitude with its sign (`BlockFormat(..., signed=True)`).
    fixed : sequence of float
        Of blocks: levels that stay, such as (-1, 0, 1).

    Returns
    -------
    Grid
        To be used with scale 1 and shift 0, or as the elements of blocks.

    Raises
    ------
    ValueError
        For n_levels < 2, an array of densities, or too few distinct values.

    Examples
    --------
    >>> import qerror as qe
    >>> qe.lloyd_max(qe.Gaussian(), 4).levels.round(10).tolist()
    [-1.5104176085, -0.4527800346, 0.4527800346, 1.5104176085]
    >>> qe.lloyd_max(qe.Gaussian(), 4, block_size=64, fixed=(-1, 1)).levels.round(10).tolist()
    [-1.0, -0.2437346844, 0.2437346844, 1.0]
    """
    check_density(density)
    if block_size is not None:
        return block_codebook(density, n_levels, block_size, signed=signed, fixed=fixed).grid
    if signed or len(fixed):
        given = "signed" if signed else "fixed"
        raise ValueError(f"{given} must be left out without block_size, whose blocks it speaks of")
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; call lloyd_max for each member")
    is_sample = density.panels().shape[-1] == 0
    count = as_int("n_levels", n_levels, 2, _MOST_OF_SAMPLES if is_sample else _MOST_OF_DENSITIES)
    levels = _partition(density, count) if is_sample else _best_levels(density, count)
    return Grid(levels, name=f"lloyd-max-{count}")


def _best_levels(density: Density, count: int) -> Array:
    levels = _newton(lambda q: cells_of(density, q), _coarse(density, count), float(density.std))
    if not density.symmetric:
        return levels
    # At a cusp the whole has a singular Hessian (Laplace: halves slide at no cost), its half has not.
    mean, positive = float(density.mean), count // 2
    start = 0.5 * (levels[-positive:] - levels[:positive][::-1])
    half = _newton(lambda q: _half(density, q, count), start, float(density.std))
    # An error is right to 1e-14: levels that are better by less are symmetric ones that lost digits.
    if cells_of(density, levels).mse < _half(density, half, count).mse * (1 - 1e-12):
        return levels
    return np.concatenate([mean - half[::-1], [mean] * (count % 2), mean + half])


def _newton(cells: Callable[[Array], Cells], levels: Array, std: float) -> Array:
    """Newton on F_k = first moment of cell k about its level.

    The Jacobian is tridiagonal. Lloyd's step (each level to the mean of its cell) is the fallback: it never fails.
    """
    now, last = cells(levels), np.inf
    for _ in range(200):
        step = solve_tridiagonal(now.above + now.below - now.mass, now.above[:-1], -now.first)
        new = cells(levels + step) if (np.diff(levels + step) > 0).all() else None
        if new is None or new.mse > now.mse * (1 + 1e-14):
            step = now.first / now.mass
            new = cells(levels + step)
        size = float(np.abs(step).max())
        if size <= 1e-12 * std and size >= 0.5 * last:
            break
        levels, now, last = levels + step, new, size
    return levels


def _coarse(density: Density, count: int) -> Array:
    """The best levels for the density gathered into cells, by the dynamic program for samples."""
    cells = min(max(1024, 16 * count), 4096)
    p = np.linspace(0, 1, cells // 2 + 1)[1:-1]
    low, high = float(density.quantile(1e-9)), float(density.isf(1e-9))
    # Equal masses resolve the bulk, equal widths the tails.
    edges = np.unique(np.concatenate([density.quantile(p), np.linspace(low, high, cells // 2)]))
    ends = np.concatenate([[-np.inf], edges, [np.inf]])
    centre = np.concatenate([edges[:1], 0.5 * (edges[1:] + edges[:-1]), edges[-1:]])
    mass, first, _ = density.cell_moments(ends, centre)
    held = mass > 1e-14
    x, order = np.unique(centre[held] + first[held] / mass[held], return_index=True)
    return _best_partition(x, mass[held][order], count)


def _half(density: Density, levels: Array, count: int) -> Cells:
    """The cells above the mean, of levels relative to it."""
    mean = float(density.mean)
    if count % 2 == 0:
        # The innermost cells meet at the mean, whatever their levels are.
        cells = cells_of(density, levels, mean, -levels[:1])
        cells.below[0] = 0.0
        return cells._replace(mse=2 * cells.mse)
    cells = cells_of(density, levels, mean, np.zeros(1))
    # Half of the cell of the level at the mean.
    middle = density.cell_moments(np.array([0.0, 0.5 * levels[0]]), np.zeros(1), mean)[2, 0]
    return cells._replace(mse=2 * (cells.mse + float(middle)))


def _partition(density: Density, count: int) -> Array:
    x, weight = _distinct_values(density)
    if x.size < count:
        raise ValueError(f"n_levels must be at most the number of distinct values, {x.size}, got {count}")
    return _best_partition(x, weight, count)


def _best_partition(x: Array, weight: Array, count: int) -> Array:
    """Means of the optimal cut of sorted values into `count` runs."""
    cost = _Runs(x, weight)
    best = cost.between(np.zeros(x.size, np.intp), np.arange(1, x.size + 1))
    cuts = []
    for used in range(2, count + 1):
        best, cut = _layer(cost, best, used)
        cuts.append(cut)
    ends = [x.size]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1] - 1]))
    bounds = np.array([*ends, 0])[::-1]
    return cost.means(bounds[:-1], bounds[1:])


def _distinct_values(density: Density) -> tuple[Array, Array]:
    points, masses = density.atoms  # type: ignore[misc]
    points, masses = points[masses > 0], masses[masses > 0]
    start = np.flatnonzero(np.diff(points, prepend=-np.inf))
    return points[start], np.add.reduceat(masses, start)


class _Runs:
    """Squared error of sending the values i <= k < j to their mean, from prefix sums about the overall mean."""

    def __init__(self, x: Array, weight: Array) -> None:
        self.centre = float(np.average(x, weights=weight))
        y = (x - self.centre).astype(np.longdouble)
        self.sums = [np.concatenate([[0], np.cumsum(weight * y**j)]) for j in range(3)]

    def _between(self, start: NDArray[np.intp], stop: NDArray[np.intp]) -> list[Any]:
        return [s[stop] - s[start] for s in self.sums]

    def between(self, start: NDArray[np.intp], stop: NDArray[np.intp]) -> Array:
        zero, one, two = self._between(start, stop)
        cost: Array = np.maximum(two - one * one / zero, 0.0).astype(np.float64)
        return cost

    def means(self, start: NDArray[np.intp], stop: NDArray[np.intp]) -> Array:
        zero, one, _ = self._between(start, stop)
        means: Array = self.centre + (one / zero).astype(np.float64)
        return means


def _layer(cost: _Runs, before: Array, used: int) -> tuple[Array, NDArray[np.intp]]:
    """One more run: best[j] = min over i of before[i] + cost(i, j), for prefixes of j + 1 values.

    The best cut moves right with j, so the prefixes in the middle of what is decided bound each other's cuts: all
    middles of one depth are solved in one sweep over at most 2 n candidates.
    """
    n = before.size
    best, cut = np.full(n, np.inf), np.zeros(n, np.intp)
    low, high = np.array([used - 1]), np.array([n - 1])
    least, most = np.array([used - 1]), np.array([n - 1])
    while low.size:
        middle = (low + high) // 2
        width = np.minimum(most, middle) - least + 1
        owner = np.repeat(np.arange(middle.size), width)
        first = np.cumsum(width) - width
        i = np.arange(owner.size) - first[owner] + least[owner]
        value = before[i - 1] + cost.between(i, middle[owner] + 1)
        best[middle] = np.minimum.reduceat(value, first)
        hit = np.flatnonzero(value == best[middle][owner])
        chosen = i[hit[np.searchsorted(owner[hit], np.arange(middle.size))]]
        cut[middle] = chosen
        left, right = low < middle, middle < high
        low, high, least, most = (
            np.concatenate([low[left], middle[right] + 1]),
            np.concatenate([middle[left] - 1, high[right]]),
            np.concatenate([least[left], chosen[right]]),
            np.concatenate([chosen[left], most[right]]),
        )
    return best, cut
