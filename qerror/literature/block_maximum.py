"""Codebooks for Gaussian values divided by the largest magnitude of their block.

Given the largest magnitude m of a block, the other values are independent Gaussians cut at +-m; m itself has the
density I (2 Phi(m) - 1)^(I - 1) 2 phi(m). What remains is an integral over m of Gaussian moments of cells.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from .._check import as_int, check_choice
from .._types import Array

# Exponent of the error, and of the block maximum that weighs it: errors of the normalized values, or of x itself.
CRITERIA = {"absolute": (1, 0), "weighted absolute": (1, 1), "weighted squared": (2, 2)}
# In longer blocks the maximum of a Gaussian is seen too seldom within what is integrated over.
_LONGEST = 1 << 20
_LARGEST = 9.5  # standard deviations: beyond it lies 2e-21 of the values
_NODES = 120  # 400 give the same levels within 1e-14
_SETTLED = 1e-13  # a step shrinks by 0.96 each time: the levels are then right to 3e-12


class _Blocks(NamedTuple):
    """Nodes m, and their weights: the density of m, over the mass of a value within +-m, times m^power."""

    m: Array
    weight: Array


def block_maximum_codebook(block_size: int, criterion: str, *, signed: bool = False, zero_added: bool = False) -> Array:
    """The 16 levels of least error: 0 and 1 among them, -1 too unless values are divided by the signed maximum.

    Lloyd's iteration on the density of the normalized values: each level is the mean of its cell where errors are
    squared, the median where they are absolute.

    Parameters
    ----------
    block_size : int
        Values that share a maximum, at least 2.
    criterion : {"absolute", "weighted absolute", "weighted squared"}
        Mean of |u - Q(u)|, of m |u - Q(u)| or of (m (u - Q(u)))^2 for the normalized value u = x / m.
    signed : bool
        Whether m has the sign of the largest value, which is then always at +1.
    zero_added : bool
        Whether the levels of each half are found without 0 among them, which is put in afterwards.

    Returns
    -------
    ndarray, shape (16,)

    References
    ----------
    BOF4, arXiv 2505.06653; AF4, arXiv 2306.06965.

    Examples
    --------
    >>> block_maximum_codebook(64, "weighted squared")[8].round(6).item()
    0.088764
    """
    check_choice("criterion", criterion, tuple(CRITERIA))
    exponent, power = CRITERIA[criterion]
    blocks = _blocks(as_int("block_size", block_size, 2, _LONGEST), power)
    positive = _half(blocks, exponent, 7, fixed_end=True, zero_added=zero_added)
    negative = _half(blocks, exponent, 7 if signed else 6, fixed_end=not signed, zero_added=zero_added)
    return np.concatenate([-negative[:0:-1], positive])


def block_maximum_error(levels: Array, block_size: int, criterion: str) -> float:
    """The mean error of a codebook by `criterion`, over values that are not the maximum of their block.

    Parameters
    ----------
    levels : ndarray, shape (K,)
        Within -1 .. 1.
    block_size, criterion
        As in `block_maximum_codebook`.

    Examples
    --------
    >>> best = block_maximum_codebook(64, "absolute")
    >>> round(block_maximum_error(best, 64, "absolute"), 4)
    0.0288
    """
    exponent, power = CRITERIA[criterion]
    blocks = _blocks(as_int("block_size", block_size, 2, _LONGEST), power)
    middle = 0.5 * (levels[1:] + levels[:-1])
    # Cut at the levels as well: on each half cell the sign of the error is known.
    edges = np.concatenate([[-1.0], np.insert(middle, np.arange(middle.size), levels[:-1]), levels[-1:], [1.0]])
    about = np.repeat(levels, 2)
    mass, first = _mass_and_first(blocks, edges)
    if exponent == 1:
        return float(np.abs(first - about * mass).sum())
    t = edges[:, None] * blocks.m
    second = _gather(blocks, np.diff(ndtr(t) - t * _phi(t), axis=0) / blocks.m**2)
    return float((second - 2 * about * first + about**2 * mass).sum())


@cache
def _blocks(block_size: int, power: int) -> _Blocks:
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    m = 0.5 * _LARGEST * (node + 1)
    inside = 2 * ndtr(m) - 1
    # One power of `inside` less: the density of a value within +-m is divided by its mass.
    density = block_size * inside ** (block_size - 2) * 2 * _phi(m)
    return _Blocks(m, 0.5 * _LARGEST * weight * density * m**power)


def _half(blocks: _Blocks, exponent: int, n_free: int, *, fixed_end: bool, zero_added: bool) -> Array:
    """Levels from 0 outwards: 0, `n_free` free ones, and 1 where the end is fixed."""
    levels = np.linspace(0.0, 1.0, n_free + 2)
    levels = levels if fixed_end else levels[:-1]
    for _ in range(20_000):
        middle = 0.5 * (levels[1:] + levels[:-1])
        if zero_added:
            middle[0] = 0.0
        edges = middle if fixed_end else np.append(middle, 1.0)
        free = levels[1 : n_free + 1]
        moved = _means(blocks, edges) if exponent == 2 else _towards_medians(blocks, edges, free)
        change = np.abs(moved - free).max()
        levels[1 : n_free + 1] = moved
        if change <= _SETTLED:
            break
    return levels


def _means(blocks: _Blocks, edges: Array) -> Array:
    mass, first = _mass_and_first(blocks, edges)
    return np.divide(first, mass)


def _towards_medians(blocks: _Blocks, edges: Array, levels: Array) -> Array:
    """One step of Newton's method for equal masses on both sides of each level."""
    cut = np.insert(edges, np.arange(1, edges.size), levels)
    mass, _ = _mass_and_first(blocks, cut)
    density = _gather(blocks, _phi(levels[:, None] * blocks.m) * blocks.m)
    return np.add(levels, 0.5 * (mass[1::2] - mass[::2]) / density)


def _mass_and_first(blocks: _Blocks, edges: Array) -> tuple[Array, Array]:
    """Mass and first moment of the normalized values in the cells between `edges`."""
    t = edges[:, None] * blocks.m
    return _gather(blocks, np.diff(ndtr(t), axis=0)), _gather(blocks, -np.diff(_phi(t), axis=0) / blocks.m)


def _gather(blocks: _Blocks, of_each: Array) -> Array:
    gathered: Array = np.einsum("km,m->k", of_each, blocks.weight)
    return gathered


def _phi(t: Array) -> Array:
    return np.exp(-0.5 * np.square(t)) / math.sqrt(2 * math.pi)
