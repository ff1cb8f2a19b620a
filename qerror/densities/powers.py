"""Integrals of powers of the distance, |x - q|^a f(x), over cells on one side of q: for other losses than the square.

At q the power is not smooth: there Gauss-Jacobi rules take it in as their weight. Elsewhere pieces are cut so that no
piece is much wider than its distance from q, and Gauss-Legendre rules do.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import roots_jacobi

from .._threads import chunk_slices
from .._types import Array, Index
from .base import Density
from .quadrature import DOUBLINGS, Pieces, add_up, cell_rows, cut, members_of

_NODES = 16
# A piece ends at most so many times as far from q as it begins.
_RATIO = 3.0
# Doublings of a tail that falls like a power of x, and how near its index may be to a moment that is still taken.
_LONG = 62
_LEAST = 1e-6
# Pieces that begin so near to q, in parts of their width, begin there.
_TOUCHES = 1e-13
# Pieces in flight.
_CHUNK = 1 << 12

_Rule = Callable[[float, int], tuple[Array, Array, bool]]


def power_moments(density: Density, edges: Array, about: Array, origin: Array, least: float, count: int) -> Array:
    """Integrals of |x - q|^(least + j) f(x) of the continuous part over cells, j = 0 .. count - 1.

    Parameters
    ----------
    density : Density
        Of shape (), or of that of `origin`.
    edges : ndarray of shape (R, M + 1)
        Ascending, relative to `origin`; may be infinite.
    about : ndarray of shape (R, M)
        The q of each cell, relative to `origin`: not inside of it.
    origin : ndarray of shape (R,)
    least : float
        Above -1.
    count : int

    Returns
    -------
    ndarray of shape (count, R, M)
        Infinite where a tail is too heavy.

    Examples
    --------
    >>> import qerror as qe
    >>> edges, about = np.array([[-np.inf, 0.0, np.inf]]), np.zeros((1, 2))
    >>> power_moments(qe.Laplace(std=2**0.5), edges, about, np.zeros(1), 1.5, 1).round(12).tolist()
    [[[0.66467019409, 0.66467019409]]]
    """
    rows = cell_rows(density, edges, about, origin)
    panels = density.panels().reshape(-1, density.panels().shape[-1])
    member = density.take(rows.member) if density.shape else density
    pieces, tail, sign = cut(member, panels[rows.member] if density.shape else panels, rows)
    out = np.zeros((count, rows.about.size))
    if tail.row.size:
        doubled, beyond = _tail(member, tail, sign, least, count)
        pieces = pieces.join(doubled)
        out += add_up(tail.place, beyond, rows.about.size)
    sides = _Sides.of(pieces)
    touching = sides.near <= _TOUCHES * sides.width
    for some, rule in ((sides.select(touching), _jacobi), (sides.select(~touching).divided(), _legendre)):
        out += add_up(some.place, _integrals(member, some, least, count, rule), rows.about.size)
    return out.reshape(count, *rows.about.shape)


def _tail(density: Density, tail: Pieces, sign: Array, least: float, count: int) -> tuple[Pieces, Array]:
    """Panels that double from the decay length on, and what a power law leaves beyond them."""
    length = members_of(density, tail.row).decay_length(tail.origin + tail.start, sign)
    doublings = _LONG if density.power_law else density.tail_doublings
    knots = np.minimum(length[:, None] * DOUBLINGS[: doublings + 1], tail.width[:, None])
    width = knots[:, 1:] - knots[:, :-1]
    lower = tail.start[:, None] + np.where(sign[:, None] > 0, knots[:, :-1], -knots[:, 1:])
    cell, panel = (width > 0).nonzero()
    row, place, _, _, about, origin = tail.select(cell)
    doubled = Pieces(row, place, lower[cell, panel], width[cell, panel], about, origin)
    beyond = np.zeros((count, tail.row.size))
    if density.power_law:
        end = knots[:, -1]
        x = tail.origin + tail.start + sign * end
        member = density.take(tail.row) if density.shape else density
        with np.errstate(divide="ignore", invalid="ignore"):
            f, further = member.pdf(x), member.pdf(x + sign * end)
            index = np.nan_to_num(np.log2(f / further), nan=np.inf) - 1.0
            for j in range(count):
                moment = index - (least + j)
                rest = np.where(moment > _LEAST, f * end ** (least + j + 1) / moment, np.inf)
                beyond[j] = np.where((f > 0) & (end < tail.width), rest, 0.0)
    return doubled, beyond


class _Sides(NamedTuple):
    """Pieces by their distance from q: from `near` to near + width, above (side 1) or below it (-1)."""

    row: Index
    place: Index
    near: Array
    width: Array
    side: Array
    about: Array
    origin: Array

    @classmethod
    def of(cls, pieces: Pieces) -> _Sides:
        row, place, start, width, about, origin = pieces
        above = start + 0.5 * width >= about
        near = np.where(above, start - about, about - (start + width))
        return cls(row, place, np.maximum(near, 0.0), width, np.where(above, 1.0, -1.0), about, origin)

    def select(self, index: Index | NDArray[np.bool_] | slice) -> _Sides:
        row, place, near, width, side, about, origin = self
        return _Sides(row[index], place[index], near[index], width[index], side[index], about[index], origin[index])

    def divided(self) -> _Sides:
        """The same in parts of which none ends more than `_RATIO` times as far from q as it begins."""
        parts = np.maximum(np.ceil(np.log1p(self.width / self.near) / math.log(_RATIO)), 1).astype(np.intp)
        if parts.max(initial=1) == 1:
            return self
        owner = np.repeat(np.arange(parts.size), parts)
        rank = np.arange(owner.size) - np.repeat(np.cumsum(parts) - parts, parts)
        some, share = self.select(owner), parts[owner]
        ends = (some.near * (1.0 + some.width / some.near) ** (k / share) for k in (rank, rank + 1))
        near, far = ends
        return some._replace(near=near, width=far - near)


def _integrals(density: Density, sides: _Sides, least: float, count: int, rule: _Rule) -> Array:
    """Integrals (count, n) by one rule: nodes in (0, 1), their weights, and whether these hold the power."""
    sums = np.empty((count, sides.row.size))
    nodes, weights, weighted = rule(least, count)
    for part in chunk_slices(sides.row.size, _CHUNK):
        row, _, near, width, side, about, origin = sides.select(part)
        step = width * nodes
        f = members_of(density, row).pdf_from(origin, about + side * (near + step))
        if weighted:
            sums[:, part] = (weights @ f) * width ** (least + 1.0 + np.arange(count)[:, None])
        else:
            distance = near + step
            f = f * distance**least * width
            for j in range(count):
                sums[j, part] = weights[0] @ f
                f = f * distance
    return sums


@functools.lru_cache(maxsize=64)
def _jacobi(least: float, count: int) -> tuple[Array, Array, bool]:
    """Nodes in (0, 1) as a column, and weights for y^(least + j) f, j = 0 .. count - 1."""
    node, weight = roots_jacobi(_NODES, 0.0, least)
    y = 0.5 * (node + 1.0)
    return y[:, None], weight * 0.5 ** (least + 1.0) * y ** np.arange(count)[:, None], True


@functools.lru_cache(maxsize=1)
def _legendre(least: float, count: int) -> tuple[Array, Array, bool]:
    node, weight = np.polynomial.legendre.leggauss(_NODES)
    return 0.5 * (node[:, None] + 1.0), 0.5 * weight[None], False
