"""The best grid of N levels: Lloyd-Max quantizers of densities, and exactly optimal ones of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .._check import as_int
from .._types import Array
from ..densities.base import Density, check_density
from ..errors.losses import Loss, exponent_of
from ..grids.grid import Grid
from .block_codebooks import block_codebook
from .codebook_cells import Cells, cells_of, solve_tridiagonal
from .loss_codebooks import best_medians, loss_levels
from .partition import best_partition

# The widest formats have 16 bits. Cells of a density get so narrow that beyond 12 bits their moments do not settle.
_MOST_OF_SAMPLES, _MOST_OF_DENSITIES = 1 << 16, 1 << 12


def lloyd_max(
    density: Density,
    n_levels: int,
    *,
    block_size: int | None = None,
    signed: bool = False,
    fixed: Sequence[float] = (),
    loss: Loss = "squared",
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
    loss : {"squared", "absolute"} or float
        What an error e counts: e^2, |e| (each level is the median of its cell), or |e|^p for a power p from 1 to 4. Of
        blocks and of samples e^2 and |e|; of samples the global optimum again (in time n log n a level). Of densities
        followed from the levels of the least squared error.

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
    >>> qe.lloyd_max(qe.Gaussian(), 3, loss="absolute").levels.round(10).tolist()
    [-1.0290963745, 0.0, 1.0290963745]
    """
    check_density(density)
    p = exponent_of(loss)
    if block_size is not None:
        return block_codebook(density, n_levels, block_size, signed=signed, fixed=fixed, power=p).grid
    if signed or len(fixed):
        given = "signed" if signed else "fixed"
        raise ValueError(f"{given} must be left out without block_size, whose blocks it speaks of")
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; call lloyd_max for each member")
    is_sample = density.panels().shape[-1] == 0
    count = as_int("n_levels", n_levels, 2, _MOST_OF_SAMPLES if is_sample else _MOST_OF_DENSITIES)
    if p == 2.0:
        levels = _partition(density, count) if is_sample else _best_levels(density, count)
    else:
        levels = _medians(density, count, p) if is_sample else loss_levels(density, _best_levels(density, count), p)
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
    return best_partition(x, mass[held][order], count)


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
    return best_partition(x, weight, count)


def _medians(density: Density, count: int, p: float) -> Array:
    if p != 1.0:
        raise ValueError(f"loss must be 'squared' or 'absolute' for a sample, got {p:g}")
    x, weight = _distinct_values(density)
    if x.size < count:
        raise ValueError(f"n_levels must be at most the number of distinct values, {x.size}, got {count}")
    return best_medians(x, weight, count)


def _distinct_values(density: Density) -> tuple[Array, Array]:
    points, masses = density.atoms  # type: ignore[misc]
    points, masses = points[masses > 0], masses[masses > 0]
    start = np.flatnonzero(np.diff(points, prepend=-np.inf))
    return points[start], np.add.reduceat(masses, start)
