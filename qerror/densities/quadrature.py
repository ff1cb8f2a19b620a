"""Integrals of smooth pieces: Gauss-Legendre on panels, doubling panels in the tails, product rules on fine grids.

Nothing here knows a particular density: it reads `pdf`, `panels`, `decay_length` and `atoms`. The inverse of a cdf is
found here, too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array

if TYPE_CHECKING:
    from collections.abc import Callable

    from .base import Density

Array = NDArray[np.float64]
Index = NDArray[np.intp]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
_WEIGHTS_1 = WEIGHTS * NODES
_WEIGHTS_2 = WEIGHTS * NODES * NODES
# Nodes evaluated at a time: three temporaries of this many float64 stay in a core's second-level cache.
_CHUNK = 1 << 14


class _Rows(NamedTuple):
    """The arguments of `cell_moments`, one row for each entry of their broadcast shape `lead`."""

    lead: tuple[int, ...]
    edges: Array
    about: Array
    origin: Array
    member: NDArray[np.intp]


def _rows(density: Density, edges: Array, about: Array, origin: Array) -> _Rows:
    lead = np.broadcast_shapes(edges.shape[:-1], about.shape[:-1], origin.shape, density.shape)
    cells = about.shape[-1]
    count = math.prod(lead)
    if len(lead) == 1 and lead == edges.shape[:-1] == about.shape[:-1] == origin.shape and density.shape in {(), lead}:
        member = np.zeros(count, np.intp) if density.shape == () else np.arange(count)
        return _Rows(lead, edges, about, origin, member)
    members = np.arange(math.prod(density.shape)).reshape(density.shape)
    return _Rows(
        lead,
        np.broadcast_to(edges, (*lead, cells + 1)).reshape(count, cells + 1),
        np.broadcast_to(about, (*lead, cells)).reshape(count, cells),
        np.broadcast_to(origin, lead).reshape(count),
        np.broadcast_to(members, lead).reshape(count),
    )


def cell_moments(density: Density, edges: Array, about: Array, origin: Array, last: Array | None = None) -> Array:
    """Moments (3, ..., M) of neighbouring cells about their values; see `Density.cell_moments`."""
    rows = _rows(density, edges, about, origin)
    count, cells = rows.about.shape
    panels = density.panels().reshape(math.prod(density.shape), -1)
    out = np.empty((3, count, cells))
    step = max(1, _CHUNK // (NODES.size * (cells + panels.shape[-1])))
    for start in range(0, count, step):
        part = slice(start, start + step)
        member, shift = rows.member[part], rows.origin[part]
        out[:, part] = _continuous(density.take(member), panels[member], rows.edges[part], rows.about[part], shift)
    if density.has_atoms:
        out += _atoms(density, rows, last)
    return out.reshape(3, *rows.lead, cells)


def atom_moments(density: Density, edges: Array, about: Array, origin: Array, last: Array | None = None) -> Array:
    """What the point masses add to `cell_moments`."""
    rows = _rows(density, edges, about, origin)
    return _atoms(density, rows, last).reshape(3, *rows.lead, about.shape[-1])


class _Pieces(NamedTuple):
    """Intervals that no panel edge divides: a flat list, each for one cell of one row.

    `lower` and `about`, the value of the cell, are relative to `origin`.
    """

    row: Index
    cell: Index
    lower: Array
    width: Array
    about: Array
    origin: Array

    def join(self, other: _Pieces) -> _Pieces:
        row, cell = np.concatenate([self.row, other.row]), np.concatenate([self.cell, other.cell])
        return _Pieces(row, cell, *map(np.concatenate, zip(self[2:], other[2:], strict=True)))


class _Tail(NamedTuple):
    """Intervals outside of the panels, from their end near these to the other, upwards or downwards."""

    row: Index
    cell: Index
    near: Array
    far: Array
    about: Array
    origin: Array
    above: NDArray[np.bool_]

    def select(self, index: Index | NDArray[np.bool_]) -> _Tail:
        near, far, about, origin = (value[index] for value in self[2:6])
        return _Tail(self.row[index], self.cell[index], near, far, about, origin, self.above[index])


def _continuous(density: Density, panels: Array, edges: Array, about: Array, origin: Array) -> Array:
    """Cut the cells of each row at the panel edges, integrate the pieces, add them up per cell.

    `density`, `origin` have shape (rows,) (or (), the density).
    """
    rows, cells = about.shape
    pieces, tail = _cut(density, panels, edges, about, origin)
    beyond = None
    if tail.row.size:
        # Where the pdf has underflowed it stays so.
        members = density.take(tail.row) if density.shape else density
        left = members.pdf_from(tail.origin, tail.near) > 0
        tail = tail.select(left)
        outer, beyond = _tail_pieces(density, tail)
        pieces = pieces.join(outer)
    moments = _gauss(density, pieces)
    place = pieces.row * cells + pieces.cell
    if beyond is not None:
        place, moments = np.append(place, tail.row * cells + tail.cell), np.append(moments, beyond, axis=1)
    sums = [np.bincount(place, weights=part, minlength=rows * cells) for part in moments]
    out: Array = np.array(sums, np.float64).reshape(3, rows, cells)
    return out


def _cut(density: Density, panels: Array, edges: Array, about: Array, origin: Array) -> tuple[_Pieces, _Tail]:
    """The cells between edges, cut at the panels: what lies between these, and what outside.

    A piece is placed relative to `origin` (where the cells are exact) or to the mean (where the panels are), whichever
    is nearer: neither a narrow cell far from the mean nor a density far from the origin loses its digits.
    """
    cells = about.shape[1]
    mean = np.broadcast_to(np.asarray(density.mean, np.float64), origin.shape)
    both, order = _merge(edges, panels - origin[:, None])
    wide = both[:, :-1] < both[:, 1:]
    moved = both
    if (mean != origin).any():
        offset = (origin - mean)[:, None]
        moved, _ = _merge(edges + offset, panels - mean[:, None], order)
        wide |= moved[:, :-1] < moved[:, 1:]
    row, column = np.nonzero(wide)
    cell = np.cumsum(order <= cells, axis=1)[row, column] - 1
    lower, upper, centre, value = both[row, column], both[row, column + 1], origin[row], about[row, cell]
    first, last = (panels[:, [0, -1]] - origin[:, None]).T
    above, below = lower >= last[row], upper <= first[row]
    if moved is not both:
        low, high = moved[row, column], moved[row, column + 1]
        nearer = np.minimum(np.abs(low), np.abs(high)) < np.minimum(np.abs(lower), np.abs(upper))
        lower, upper = np.where(nearer, low, lower), np.where(nearer, high, upper)
        centre, value = np.where(nearer, mean[row], centre), np.where(nearer, value + offset[row, 0], value)
    inside = ~(above | below)
    # The end of a bounded support is the last panel edge: there is nothing beyond it.
    low, high = (np.isinf(end) if np.ndim(end) == 0 else np.isinf(end)[row] for end in density.support)
    outside = (above & high) | (below & low)
    pieces = _Pieces(
        row[inside], cell[inside], lower[inside], upper[inside] - lower[inside],
        value[inside], centre[inside],
    )  # fmt: skip
    row, cell, lower, upper, value, centre, above = (
        part[outside] for part in (row, cell, lower, upper, value, centre, above)
    )
    near, far = np.where(above, lower, upper), np.where(above, upper, lower)
    return pieces, _Tail(row, cell, near, far, value, centre, above)


def _merge(edges: Array, panels: Array, order: Index | None = None) -> tuple[Array, Index]:
    """Edges and panels of each row in ascending order (or in the `order` of another merge), edges first where equal."""
    both = np.concatenate([edges, np.minimum(np.maximum(panels, edges[:, :1]), edges[:, -1:])], axis=1)
    if order is None:
        order = np.argsort(both, axis=1, kind="stable")
    return both.ravel()[order + (np.arange(both.shape[0]) * both.shape[1])[:, None]], order


def _tail_pieces(density: Density, tail: _Tail) -> tuple[_Pieces, Array | None]:
    """Panels that double from the decay length on, and the moments of what a power law has beyond them."""
    members = density.take(tail.row) if density.shape else density
    reach = np.abs(tail.far - tail.near)
    length = members.decay_length(tail.origin + tail.near, np.where(tail.above, 1.0, -1.0))
    # Widths 2, 4, 8, ... decay lengths: the mass has gone where twelve nodes no longer resolve it.
    grow = 2.0 * (2.0 ** np.arange(density.tail_doublings + 1) - 1.0)
    knots = np.minimum(length[:, None] * grow, reach[:, None])
    width = knots[:, 1:] - knots[:, :-1]
    near = tail.near[:, None]
    lower = np.where(tail.above[:, None], near + knots[:, :-1], near - knots[:, 1:])
    # Narrow cells end within the first panels: the others are left out.
    place, panel = np.nonzero(width > 0)
    pieces = _Pieces(
        tail.row[place],
        tail.cell[place],
        lower[place, panel],
        width[place, panel],
        tail.about[place],
        tail.origin[place],
    )
    return pieces, _far(density, tail, knots[:, -1], reach)


def _far(density: Density, tail: _Tail, end: Array, reach: Array) -> Array | None:
    """Moments (3, n) of what a power law has beyond the distance `end`; 0 for tails that are no longer."""
    rest = np.flatnonzero(end < reach)
    if not rest.size:
        return None
    row, _, near, far, about, origin, above = tail.select(rest)
    sign = np.where(above, 1.0, -1.0)
    members = density.take(row) if density.shape else density
    beyond = members.far_moments(origin + near + sign * end[rest], origin + about, sign)
    if beyond is None:
        return None
    bounded = np.isfinite(far)
    if bounded.any():
        outer = members.far_moments(np.where(bounded, origin + far, origin + near), origin + about, sign)
        assert outer is not None
        beyond = beyond - np.where(bounded, outer, 0.0)
    out = np.zeros((3, tail.row.size))
    out[:, rest] = beyond
    return out


def _gauss(density: Density, pieces: _Pieces) -> Array:
    """Moments (3, n) of the pieces by 12 nodes each."""
    half = 0.5 * pieces.width
    nodes = half[:, None] * NODES
    nodes += (pieces.lower + half)[:, None]
    members = density.take(pieces.row[:, None]) if density.shape else density
    f = members.pdf_from(pieces.origin[:, None], nodes)
    f0, f1, f2 = (np.einsum("ij,j->i", f, weights) for weights in (WEIGHTS, _WEIGHTS_1, _WEIGHTS_2))
    # (x - about) = offset + half * node. The difference of two close numbers is exact, the middle is rounded.
    offset = (pieces.lower - pieces.about) + half
    first = half * f1
    out: Array = half * np.array([f0, offset * f0 + first, offset * (offset * f0 + 2 * first) + half * half * f2])
    return out


def _atoms(density: Density, rows: _Rows, last: Array | None) -> Array:
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


def tails(density: Density, t: Array) -> tuple[Array, Array]:
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


def probability(p: ArrayLike) -> Array:
    """`p` as an array of probabilities, or a ValueError."""
    values = as_float_array("p", p)
    good = (values >= 0) & (values <= 1)
    if not good.all():
        raise ValueError(f"p must lie between 0 and 1, got {float(values[~good].flat[0])!r}")
    return values


def solve_quantile(density: Density, p: Array, *, upper: bool) -> Array:
    """The smallest x with cdf(x) >= p, or with sf(x) <= p, solved on the side of the smaller probability."""
    p = probability(p)
    shape = np.broadcast_shapes(p.shape, density.shape)
    p = np.broadcast_to(p, shape).ravel()
    index = np.arange(math.prod(density.shape)).reshape(density.shape)
    members = density.take(np.broadcast_to(index, shape).ravel()) if density.shape else density
    low, high = (np.broadcast_to(end, p.shape) for end in members.support)
    beyond = np.where(p < 0.5, p, 1.0 - p)
    above = (p < 0.5) == upper
    inside = beyond > 0.0
    x = np.where(above, high, low).astype(np.float64)
    if inside.any():
        row = np.flatnonzero(inside)
        chosen = members.take(row) if density.shape else density
        x[row] = _invert(chosen, beyond[row], above[row], low[row], high[row])
    result: Array = x.reshape(shape)[()]
    return result


def _invert(density: Density, p: Array, above: NDArray[np.bool_], low: Array, high: Array) -> Array:
    """Bracketed Newton steps on log P(beyond x) = log p, bisection where they leave the bracket or stall."""
    log_p = np.log(p)

    def reached(x: Array) -> tuple[Array, NDArray[np.bool_]]:
        tail = np.where(above, density.sf(x), density.cdf(x))
        return tail, np.where(above, tail <= p, tail >= p)

    low, high = _bracket(density, reached, low, high)
    # Roots near 0 are found to 2^-104 std: relative precision there would take a thousand halvings.
    tiny = np.broadcast_to(2.0**-104 * np.asarray(density.std), low.shape)
    x = 0.5 * low + 0.5 * high
    for step in range(200):
        tail, enough = reached(x)
        x_was, width = x, high - low
        low, high = np.where(enough, low, x), np.where(enough, x, high)
        with np.errstate(all="ignore"):
            newton = x + np.where(above, 1.0, -1.0) * (np.log(tail) - log_p) * tail / density.pdf(x)
            # Newton approaches from one side; a step beyond the root closes the bracket from the other.
            beyond = np.maximum(2.0 * np.spacing(np.abs(newton)), 0.1 * np.abs(newton - x))
            newton += np.where(newton < x, -beyond, beyond) * (np.abs(newton - x) < 1e-3 * width)
            usable = (newton > low) & (newton < high) & ((high - low <= 0.6 * width) | (step < 4))
        middle = 0.5 * low + 0.5 * high
        x = np.where(usable, newton, middle)
        done = (middle <= low) | (middle >= high) | (high - low <= tiny)
        # A probability met within its rounding is met; at the end of a jump that would be beyond the point mass.
        met = (np.abs(tail - p) <= 1e-15 * p) & (not density.has_atoms)
        low, high = np.where(met, x_was, low), np.where(met, x_was, high)
        done |= met
        if done.all():
            break
        x = np.where(done, high, x)
    zero = np.zeros_like(high)
    return np.where((low < 0.0) & (high > 0.0) & (high - low <= 2.0 * tiny) & reached(zero)[1], zero, high)


def _bracket(
    density: Density, reached: Callable[[Array], tuple[Array, NDArray[np.bool_]]], low: Array, high: Array
) -> tuple[Array, Array]:
    """Finite ends: not yet reached at the lower one, reached at the upper one."""
    mean, std = np.broadcast_to(density.mean, low.shape), np.broadcast_to(density.std, low.shape)
    down, up = np.nextafter(np.maximum(low, mean - 2 * std), -np.inf), np.minimum(high, mean + 2 * std)
    for k in range(2, 1024):
        short, over = ~reached(up)[1], reached(down)[1]
        if not (short.any() or over.any()):
            break
        # Doubling first, squaring later: a power-law tail at p = 1e-300 lies beyond 1e100 std.
        reach = std * 2.0 ** min(k if k < 12 else k * k / 12, 1000)
        down = np.where(over, np.nextafter(np.maximum(low, mean - reach), -np.inf), down)
        up = np.where(short, np.minimum(high, mean + reach), up)
        if k * k / 12 > 1000:
            break
    return down, up
