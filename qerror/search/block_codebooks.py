"""The best codebook for the scaled values of blocks, some of whose levels may be fixed."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._check import as_float_array, as_int, check_finite, shown
from .._types import Array
from ..densities.base import Density, check_density
from ..densities.blocks import BlockScaled
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from .codebook_cells import Cells, cells_of, solve_tridiagonal
from .loss_codebooks import descend, loss_cells

_MOST_LEVELS = 256
# Steps of Newton's method, and when it has settled.
_STEPS, _SETTLED = 100, 1e-13
# How far the numbers of free levels between fixed ones may be from those of the first guess; random starts beside it.
_AROUND, _RANDOM = 1, 3
# Relative differences of errors that make two codebooks one.
_SAME = 1e-10
# Places at which the density of the scaled values is looked at for a first guess.
_LOOKED_AT = 400


class Codebook(NamedTuple):
    """A codebook for scaled blocks.

    Attributes
    ----------
    grid : Grid
        Levels between -1 and 1: values over the largest magnitude of their block.
    mse : float
        E[(x - g Q(x / g))^2], units of x squared.
    optima : tuple of float
        The different local minima that the starts ended at, as shares above the least: (0.0,) where all agree. (Levels
        do not pass fixed ones: each way to share them out has a minimum of its own.)
    starts : int
    """

    grid: Grid
    mse: float
    optima: tuple[float, ...]
    starts: int


def block_codebook(
    density: Density,
    n_levels: int,
    block_size: int,
    *,
    signed: bool = False,
    fixed: Sequence[float] = (),
    power: float = 2.0,
) -> Codebook:
    """The levels of least error for values divided by the largest magnitude of their block; see `lloyd_max`.

    Newton's method on the free levels of the density of scaled values (`qerror.BlockScaled`), from several starts: the
    points of a high-resolution codebook (their density goes with the cube root of that of the values), shared out
    between the fixed levels in several ways, and random ones.

    Parameters
    ----------
    density : Density
        Of shape (), without point masses but at 0.
    n_levels, block_size : int
        At least 2.
    signed : bool
        Divide by the value of largest magnitude with its sign, which then lies at 1.
    fixed : sequence of float
        Levels that stay, such as (-1, 0, 1).
    power : float
        2, or 1 for the absolute error, E[g |x / g - Q(x / g)|]: `mse` is then that.

    Raises
    ------
    ValueError
        For too few or too many levels, or fixed ones beyond -1 .. 1.

    References
    ----------
    BOF4, arXiv 2505.06653: 16 levels, -1, 0 and 1 fixed, of a Gaussian.

    Examples
    --------
    >>> import qerror as qe
    >>> book = block_codebook(qe.Gaussian(), 16, 64, fixed=(-1, 0, 1))
    >>> round(book.mse, 12), len(book.optima)
    (0.007991525669, 2)
    """
    check_density(density)
    count = as_int("n_levels", n_levels, 2, _MOST_LEVELS)
    stays = np.unique(as_float_array("fixed", fixed))
    check_finite("fixed", stays)
    if stays.size >= count or (np.abs(stays) > 1).any():
        raise ValueError(f"fixed must hold fewer than {count} levels, from -1 to 1, got {shown(fixed)}")
    form = BlockFormat(Grid([-1.0, 1.0]), as_int("block_size", block_size, 2), signed=signed)
    if power not in (1.0, 2.0):
        raise ValueError(f"loss must be 'squared' or 'absolute' for blocks, got {power:g}")
    blocks = BlockScaled(density, form)
    blocks = blocks if power == 2.0 else blocks.reweighted(1)
    found = [_settled(blocks, start, stays, power) for start in _starts(blocks, count, stays)]
    mse = np.array([error for _, error in found])
    order = np.argsort(mse)
    best = mse[order[0]]
    away = np.sort(mse / best - 1)
    optima = away[np.insert(np.diff(away) > _SAME, 0, True)]
    # Of mirror images that are equally good the one with more levels above 0.
    equal = [found[i][0] for i in order if mse[i] <= best * (1 + _SAME)]
    level = max(equal, key=lambda q: (int((q > 0).sum()), float(q.sum())))
    grid = Grid(level, name=f"block-codebook-{count}-g{block_size}")
    return Codebook(grid, float(blocks.weight * best), tuple(float(a) for a in optima), len(found))


def _starts(blocks: BlockScaled, count: int, stays: Array) -> list[Array]:
    """Levels to start from, the fixed ones among them."""
    y = (np.arange(_LOOKED_AT) + 0.5) / _LOOKED_AT * 2 - 1
    dense = np.cumsum(np.cbrt(np.asarray(blocks.pdf(y))))
    dense = np.concatenate([[0.0], dense / dense[-1]])
    edges = np.linspace(-1, 1, _LOOKED_AT + 1)
    cuts = np.concatenate([[0.0], np.interp(stays, edges, dense), [1.0]])
    gaps = np.diff(cuts)
    share = gaps * (count - stays.size)
    room = share > 1e-9
    first = np.where(room, np.floor(share), 0).astype(int)
    for i in np.argsort(first - share)[: count - stays.size - first.sum()]:
        first[i] += 1
    splits = {tuple(first.tolist())}
    for i in np.flatnonzero(room):
        for j in np.flatnonzero(room):
            moved = first.copy()
            moved[i] += _AROUND
            moved[j] -= _AROUND
            if moved.min() >= 0:
                splits.add(tuple(moved.tolist()))
    rng = np.random.default_rng(0)

    def placed(split: Sequence[int], places: Callable[[int], Array]) -> Array:
        parts = [low + gap * places(n) for n, low, gap in zip(split, cuts[:-1], gaps, strict=True)]
        return np.sort(np.concatenate([stays, np.interp(np.concatenate(parts), dense, edges)]))

    even = [placed(split, lambda n: (np.arange(n) + 0.5) / max(n, 1)) for split in sorted(splits)]
    return even + [placed(first.tolist(), rng.random) for _ in range(_RANDOM)]


def _settled(blocks: BlockScaled, start: Array, stays: Array, power: float) -> tuple[Array, float]:
    if power == 2.0:
        return _newton(blocks, start, stays)
    free = ~np.isin(start, stays)
    return descend(functools.partial(loss_cells, blocks, p=power), start, 1.0, free)


def _newton(blocks: BlockScaled, levels: Array, stays: Array) -> tuple[Array, float]:
    """Newton's method on the first moments of the free cells; Lloyd's step where it does not lower the error."""
    free = ~np.isin(levels, stays)
    now = cells_of(blocks, levels)
    for _ in range(_STEPS):
        step = _newton_step(now, free)
        new = cells_of(blocks, levels + step) if (np.diff(levels + step) > 0).all() else None
        if new is None or new.mse > now.mse * (1 + 1e-14):
            step = np.where(free, now.first / now.mass, 0.0)
            new = cells_of(blocks, levels + step)
        levels, now = levels + step, new
        if np.abs(step).max() <= _SETTLED:
            break
    return levels, now.mse


def _newton_step(now: Cells, free: NDArray[np.bool_]) -> Array:
    """The step of the free levels; the others have none."""
    diagonal = np.where(free, now.above + now.below - now.mass, 1.0)
    beside = np.where(free[:-1] & free[1:], now.above[:-1], 0.0)
    return solve_tridiagonal(diagonal, beside, np.where(free, -now.first, 0.0))
