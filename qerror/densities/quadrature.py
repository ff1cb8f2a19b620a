"""Integrals of smooth pieces: Gauss-Legendre on panels, doubling panels in the tails.

Nothing here knows a particular density: `Density` says what is read of one.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices
from .._types import Array, Index

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
# Nodes evaluated at a time: three temporaries of this many float64 stay in a core's second-level cache.
_CHUNK = 1 << 14
# Cells and panels cut at a time.
_CUT = 1 << 16
# Tails up to which asking whether anything is left of the pdf costs more than to integrate nothing.
_FEW = 32
# Edges of the panels of a tail, in decay lengths: the mass has gone where twelve nodes no longer resolve it.
DOUBLINGS = 2.0 * (2.0 ** np.arange(64) - 1.0)


class _Density(Protocol):
    """What is read of a density; see `base.Density`."""

    shape: tuple[int, ...]
    nodes: int
    tail_doublings: int
    power_law: bool

    @property
    def mean(self) -> Any: ...
    @property
    def support(self) -> tuple[Any, Any]: ...
    @property
    def atoms(self) -> tuple[Array, Array] | None: ...
    @property
    def has_atoms(self) -> bool: ...
    def panels(self) -> Array: ...
    def pdf_from(self, origin: Any, offset: Any) -> Array: ...
    def decay_length(self, x: Array, sign: Array) -> Array: ...
    def far_moments(self, x: Array, about: Array, sign: Array) -> Array: ...
    def take(self, index: Index) -> Self: ...


class _Rows(NamedTuple):
    """The arguments of `cell_moments`, one row for each entry of their broadcast shape `lead`."""

    lead: tuple[int, ...]
    edges: Array
    about: Array
    origin: Array
    member: Index

    def part(self, rows: slice) -> _Rows:
        return _Rows(self.lead, self.edges[rows], self.about[rows], self.origin[rows], self.member[rows])


def cell_rows(density: _Density, edges: Array, about: Array, origin: Array) -> _Rows:
    """The arguments of `cell_moments` in rows."""
    plain = origin.ndim == 1 and density.shape in {(), origin.shape}
    if plain and edges.shape[:-1] == about.shape[:-1] == origin.shape:
        member = np.arange(origin.size) if density.shape else np.zeros(origin.size, np.intp)
        return _Rows(origin.shape, edges, about, origin, member)
    lead = np.broadcast_shapes(edges.shape[:-1], about.shape[:-1], origin.shape, density.shape)
    cells = about.shape[-1]
    count = math.prod(lead)
    members = np.arange(math.prod(density.shape)).reshape(density.shape)
    return _Rows(
        lead,
        np.broadcast_to(edges, (*lead, cells + 1)).reshape(count, cells + 1),
        np.broadcast_to(about, (*lead, cells)).reshape(count, cells),
        np.broadcast_to(origin, lead).reshape(count),
        np.broadcast_to(members, lead).reshape(count),
    )


def cell_moments(density: _Density, edges: Array, about: Array, origin: Array, last: Array | None = None) -> Array:
    """Moments (3, ..., M) of neighbouring cells about their values; see `Density.cell_moments`."""
    rows = cell_rows(density, edges, about, origin)
    count, cells = rows.about.shape
    panels = density.panels().reshape(math.prod(density.shape), -1)
    step = max(1, _CUT // (cells + panels.shape[-1]))
    if count <= step:
        out = _continuous(density, panels, rows)
    else:
        out = np.empty((3, count, cells))
        for part in chunk_slices(count, step):
            out[:, part] = _continuous(density, panels, rows.part(part))
    if density.has_atoms:
        out += _atoms(density, rows, last)
    return out.reshape(3, *rows.lead, cells)


def atom_moments(density: _Density, edges: Array, about: Array, origin: Array, last: Array | None = None) -> Array:
    """What the point masses add to `cell_moments`."""
    rows = cell_rows(density, edges, about, origin)
    return _atoms(density, rows, last).reshape(3, *rows.lead, about.shape[-1])


class Pieces(NamedTuple):
    """Intervals that no panel edge divides, each of one cell of one row, as a flat list.

    `place` counts the cells of all rows. `start` is the lower end, of a tail (what lies outside of the panels) the end
    near the panels; it and `about`, the value of the cell, are relative to `origin`.
    """

    row: Index
    place: Index
    start: Array
    width: Array
    about: Array
    origin: Array

    def select(self, index: Index | NDArray[np.bool_]) -> Pieces:
        row, place, start, width, about, origin = self
        return Pieces(row[index], place[index], start[index], width[index], about[index], origin[index])

    def join(self, other: Pieces) -> Pieces:
        row, place = np.concatenate([self.row, other.row]), np.concatenate([self.place, other.place])
        return Pieces(row, place, *map(np.concatenate, zip(self[2:], other[2:], strict=True)))


def _continuous(density: _Density, panels: Array, rows: _Rows) -> Array:
    """Cut the cells of each row at the panel edges, integrate the pieces, add them up per cell."""
    if density.shape:
        density, panels = density.take(rows.member), panels[rows.member]
    pieces, tail, sign = cut(density, panels, rows)
    if tail.row.size > _FEW:
        # Where the pdf has underflowed it stays so.
        left = members_of(density, tail.row).pdf_from(tail.origin, tail.start) > 0
        tail, sign = tail.select(left), sign[left]
    beyond = None
    if tail.row.size:
        pieces, beyond = _with_tail(density, pieces, tail, sign)
    sums = add_up(pieces.place, _gauss(density, pieces), rows.about.size)
    if beyond is not None:
        sums += add_up(tail.place, beyond, rows.about.size)
    return sums.reshape(3, *rows.about.shape)


def add_up(place: Index, moments: Array, count: int) -> Array:
    """Sums over the pieces of each cell, for some moments."""
    return np.array([np.bincount(place, weights=part, minlength=count) for part in moments], np.float64)


def members_of(density: _Density, row: Index) -> _Density:
    """The density of each piece."""
    return density.take(row) if density.shape else density


def cut(density: _Density, panels: Array, rows: _Rows) -> tuple[Pieces, Pieces, Array]:
    """The cells between edges, cut at the panels: what lies between these, the tails, and the sides (+-1) of those.

    A piece is placed relative to `origin` (where the cells are exact) or to the mean (where the panels are), whichever
    is nearer: neither a narrow cell far from the mean nor a density far from the origin loses its digits.
    """
    _, edges, about, origin, _ = rows
    cells = about.shape[1]
    mean = np.asarray(density.mean, np.float64)
    relative, offset = panels - origin[:, None], origin - mean
    both, order = _merge(edges, relative)
    size = both.shape[1]
    # Flat from here on: a piece lies between neighbours, but for the last of one row and the first of the next.
    flat = both.ravel()
    wide = flat[:-1] < flat[1:]
    moved = None
    if np.count_nonzero(offset):
        moved = _merge(edges + offset[:, None], panels - mean[..., None], order)[0].ravel()
        wide |= moved[:-1] < moved[1:]
    wide[size - 1 :: size] = False
    at = wide.nonzero()[0]
    row = at // size
    place = (order <= cells).ravel().cumsum()[at] - row
    place -= 1
    lower, upper, value, centre = flat[at], flat[at + 1], about.ravel()[place], origin[row]
    above, below = lower >= relative[:, -1][row], upper <= relative[:, 0][row]
    if moved is not None:
        low, high = moved[at], moved[at + 1]
        nearer = np.minimum(np.abs(low), np.abs(high)) < np.minimum(np.abs(lower), np.abs(upper))
        lower, upper = np.where(nearer, low, lower), np.where(nearer, high, upper)
        centre = np.where(nearer, mean[row] if mean.ndim else mean, centre)
        value = np.where(nearer, value + offset[row], value)
    outside = above | below
    pieces = Pieces(row, place, lower, upper - lower, value, centre)
    inside = pieces.select((~outside).nonzero()[0])
    # The end of a bounded support is the last panel edge: there is nothing beyond it.
    first, last = (math.isinf(end) if isinstance(end, float) else np.isinf(end)[row] for end in density.support)
    if first is not True or last is not True:
        outside = (above & last) | (below & first)
    beyond = outside.nonzero()[0]
    tail = pieces.select(beyond)
    up = above[beyond]
    start = np.where(up, tail.start, upper[beyond])
    return inside, tail._replace(start=start), np.where(up, 1.0, -1.0)


def _merge(edges: Array, panels: Array, order: Index | None = None) -> tuple[Array, Index]:
    """Edges and panels of each row in ascending order (or in the `order` of another merge), edges first where equal."""
    both = np.concatenate([edges, np.minimum(np.maximum(panels, edges[:, :1]), edges[:, -1:])], axis=1)
    if order is None:
        order = both.argsort(axis=1, kind="stable")
    return both[np.arange(len(both))[:, None], order], order


def _with_tail(density: _Density, pieces: Pieces, tail: Pieces, sign: Array) -> tuple[Pieces, Array | None]:
    """Add panels that double from the decay length on; and the moments of what a power law has beyond them."""
    length = members_of(density, tail.row).decay_length(tail.origin + tail.start, sign)
    knots = np.minimum(length[:, None] * DOUBLINGS[: density.tail_doublings + 1], tail.width[:, None])
    width = knots[:, 1:] - knots[:, :-1]
    lower = tail.start[:, None] + np.where(sign[:, None] > 0, knots[:, :-1], -knots[:, 1:])
    # Narrow cells end within the first panels: the others are left out.
    member, panel = (width > 0).nonzero()
    row, place, _, _, about, origin = tail.select(member)
    outer = Pieces(row, place, lower[member, panel], width[member, panel], about, origin)
    return pieces.join(outer), _far(density, tail, sign, knots[:, -1]) if density.power_law else None


def _far(density: _Density, tail: Pieces, sign: Array, end: Array) -> Array | None:
    """Moments (3, n) of what a power law has beyond the distance `end`; 0 for tails that are no longer."""
    rest = (end < tail.width).nonzero()[0]
    if not rest.size:
        return None
    row, _, start, width, about, origin = tail.select(rest)
    members, sign = members_of(density, row), sign[rest]
    beyond = members.far_moments(origin + start + sign * end[rest], origin + about, sign)
    bounded = np.isfinite(width)
    if bounded.any():
        outer = members.far_moments(origin + start + sign * np.where(bounded, width, 0.0), origin + about, sign)
        beyond = beyond - np.where(bounded, outer, 0.0)
    out = np.zeros((3, tail.row.size))
    out[:, rest] = beyond
    return out


def _gauss(density: _Density, pieces: Pieces) -> Array:
    """Moments (3, n) of the pieces by `density.nodes` nodes each."""
    row, _, lower, width, about, origin = pieces
    half = 0.5 * width
    middle = lower + half
    sums = np.empty((3, row.size))
    points, powers = _rule(density.nodes)
    for part in chunk_slices(row.size, _CHUNK // density.nodes):
        # Nodes first: the sums over them then run along the pieces.
        nodes = points * half[part]
        nodes += middle[part]
        f = members_of(density, row[part]).pdf_from(origin[part], nodes)
        np.einsum("ij,jk->ik", powers, f, out=sums[:, part])
    # (x - about) = offset + half * node. The difference of two close numbers is exact, the middle is rounded.
    offset = (lower - about) + half
    sums *= half
    f0, f1, f2 = sums
    f1 *= half
    f2 *= half * half
    f2 += offset * (offset * f0 + 2 * f1)
    f1 += offset * f0
    return sums


@functools.cache
def _rule(count: int) -> tuple[Array, Array]:
    """Nodes, as a column, and their weights for the moments 0, 1, 2."""
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return nodes[:, None], weights * nodes ** np.arange(3)[:, None]


def _atoms(density: _Density, rows: _Rows, last: Array | None) -> Array:
    """Moments (3, rows, M) of a few point masses per row; `last` says what lies on which side of an edge."""
    atoms = density.atoms
    if atoms is None:
        return np.zeros((3, *rows.about.shape))
    points, masses = (a.reshape(math.prod(density.shape), -1)[rows.member] for a in atoms)
    ends = rows.origin[:, None] + rows.edges
    if last is not None:
        ends = np.broadcast_to(last, (*rows.lead, ends.shape[-1])).reshape(ends.shape)
    inside = (points[:, :, None] > ends[:, None, :-1]) & (points[:, :, None] <= ends[:, None, 1:])
    mass = np.where(inside, masses[:, :, None], 0.0)
    distance = np.where(inside, points[:, :, None] - (rows.origin[:, None] + rows.about)[:, None, :], 0.0)
    return np.stack([mass.sum(1), (mass * distance).sum(1), (mass * distance * distance).sum(1)])


def tails(density: _Density, t: Array) -> tuple[Array, Array]:
    """Mass and first moment beyond each of the ascending `t`, by adding up the cells between them."""
    ends = np.full((*t.shape[:-1], 1), np.inf)
    mean = np.asarray(density.mean, np.float64)[..., None]
    edges = np.concatenate([-ends, t, ends], axis=-1)
    about = np.broadcast_to(mean, (*edges.shape[:-1], edges.shape[-1] - 1))
    moments = cell_moments(density, edges, about, np.zeros(()))
    below = np.cumsum(moments[:2, ..., :-1], axis=-1)
    above = np.cumsum(moments[:2, ..., :0:-1], axis=-1)[..., ::-1]
    upper = t >= mean
    return np.where(upper, above[0], -below[0]), np.where(upper, above[1], -below[1])
