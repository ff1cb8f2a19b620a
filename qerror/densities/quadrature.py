"""Integrals of smooth pieces: Gauss-Legendre on panels, doubling panels in the tails, product rules on fine grids.

Nothing here knows a particular density: it reads `pdf`, `panels`, `decay_length` and `atoms`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .base import Density

Array = NDArray[np.float64]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)
_WEIGHTS_1 = WEIGHTS * NODES
_WEIGHTS_2 = WEIGHTS * NODES * NODES
# Nodes evaluated at a time: three temporaries of this many float64 stay in a core's second-level cache.
_CHUNK = 1 << 15


def cell_moments(
    density: Density, edges: Array, about: Array, origin: Array, ties_to_lower: NDArray[np.bool_] | None = None
) -> Array:
    """Moments (3, ..., M) of neighbouring cells about their values; see `Density.cell_moments`."""
    lead = np.broadcast_shapes(edges.shape[:-1], about.shape[:-1], origin.shape, density.shape)
    cells = about.shape[-1]
    rows = int(np.prod(lead, dtype=np.intp))
    edges = np.broadcast_to(edges, (*lead, cells + 1)).reshape(rows, cells + 1)
    about = np.broadcast_to(about, (*lead, cells)).reshape(rows, cells)
    origin = np.broadcast_to(origin, lead).reshape(rows, 1)
    size = int(np.prod(density.shape, dtype=np.intp))
    member = np.broadcast_to(np.arange(size).reshape(density.shape), lead).reshape(rows, 1)
    panels = density.panels().reshape(size, -1)
    out = np.empty((3, rows, cells))
    step = max(1, _CHUNK // (NODES.size * (cells + panels.shape[-1])))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        out[:, part] = _continuous(
            density.take(member[part]), panels[member[part, 0]] - origin[part], edges[part], about[part], origin[part]
        )
    if density.atoms is not None:
        points, masses = (a.reshape(size, -1)[member[:, 0]] for a in density.atoms)
        out += _atoms(points, masses, edges, about, origin, ties_to_lower)
    return out.reshape(3, *lead, cells)


def _continuous(density: Density, panels: Array, edges: Array, about: Array, origin: Array) -> Array:
    """Cut the cells of each row at the panel edges, integrate the pieces, add them up per cell."""
    rows, cells = about.shape
    inner = np.clip(panels, edges[:, :1], edges[:, -1:])
    both = np.concatenate([edges, inner], axis=1)
    order = np.argsort(both, axis=1, kind="stable")
    both = np.take_along_axis(both, order, axis=1)
    owner = np.minimum(np.cumsum(order <= cells, axis=1)[:, :-1] - 1, cells - 1)
    lower, upper = both[:, :-1], both[:, 1:]
    outside = ((lower >= panels[:, -1:]) | (upper <= panels[:, :1])) & (lower < upper)
    value = np.take_along_axis(about, owner, axis=1)
    width = np.where(outside, 0.0, np.subtract(upper, lower, where=~outside, out=np.zeros_like(lower)))
    start = np.where(outside, value, lower)
    pieces = _gauss(density, start, width, value, origin)
    if outside.any():
        row, column = np.nonzero(outside)
        beyond = lower[row, column] >= panels[row, -1]
        near = np.where(beyond, lower[row, column], upper[row, column])
        far = np.where(beyond, upper[row, column], lower[row, column])
        sign = np.where(beyond, 1.0, -1.0)
        members = density.take(row) if density.shape else density
        pieces[:, row, column] = _tail(members, near, far, sign, value[row, column], origin[row, 0])
    flat = (np.arange(rows)[:, None] * cells + owner).ravel()
    out = np.empty((3, rows, cells))
    for j in range(3):
        out[j] = np.bincount(flat, weights=pieces[j].ravel(), minlength=rows * cells).reshape(rows, cells)
    return out


def _gauss(density: Density, lower: Array, width: Array, about: Array, origin: Array) -> Array:
    """Moments over lower..lower+width by 12 nodes, for arrays whose shape broadcasts with `origin`."""
    half = 0.5 * width
    middle = lower + half
    x = (origin + middle)[..., None] + half[..., None] * NODES
    members = density.take(np.arange(density.shape[0]).reshape(-1, *(1,) * (x.ndim - 1))) if density.shape else density
    f = members.pdf(x)
    f0 = np.einsum("...k,k->...", f, WEIGHTS)
    f1 = np.einsum("...k,k->...", f, _WEIGHTS_1)
    f2 = np.einsum("...k,k->...", f, _WEIGHTS_2)
    # (x - about) = offset + half * node: an offset of zero (an uncut cell) leaves nothing to cancel.
    offset = middle - about
    out = np.empty((3, *f0.shape))
    out[0] = half * f0
    out[1] = half * (offset * f0 + half * f1)
    out[2] = half * (offset * (offset * f0 + 2 * half * f1) + half * half * f2)
    return out


def _tail(density: Density, near: Array, far: Array, sign: Array, about: Array, origin: Array) -> Array:
    """Moments between `near` and `far` outside the panels, by panels that double from the decay length on."""
    length = density.decay_length(origin + near, sign)
    grow = np.concatenate([[0.0], 2.0 ** np.arange(density.tail_doublings)])
    reach = np.abs(far - near)
    knots = np.minimum(length[:, None] * grow, reach[:, None])
    lower = np.where(sign[:, None] > 0, near[:, None] + knots[:, :-1], near[:, None] - knots[:, 1:])
    out = _gauss(density, lower, np.diff(knots, axis=1), about[:, None], origin[:, None]).sum(axis=-1)
    end = knots[:, -1]
    rest = density.far_moments(origin + near + sign * end, origin + about, sign)
    if rest is not None:
        beyond = density.far_moments(origin + np.where(np.isfinite(far), far, 0.0), origin + about, sign)
        assert beyond is not None
        out += np.where(end < reach, rest - np.where(np.isfinite(far), beyond, 0.0), 0.0)
    return out


def _atoms(
    points: Array, masses: Array, edges: Array, about: Array, origin: Array, ties: NDArray[np.bool_] | None
) -> Array:
    """Moments of a few point masses per row; ties on an edge go where `ties` says."""
    ends = origin + edges
    if ties is not None:
        ends = np.where(ties, ends, np.nextafter(ends, -np.inf))
    inside = (points[:, :, None] > ends[:, None, :-1]) & (points[:, :, None] <= ends[:, None, 1:])
    mass = np.where(inside, masses[:, :, None], 0.0)
    distance = np.where(inside, points[:, :, None] - (origin + about)[:, None, :], 0.0)
    return np.stack([mass.sum(1), (mass * distance).sum(1), (mass * distance * distance).sum(1)])


def tails(density: Density, t: Array) -> tuple[Array, Array]:
    """Mass and first moment beyond each of the ascending `t`, by adding up the cells between them."""
    ends = np.full((*t.shape[:-1], 1), np.inf)
    mean = np.asarray(density.mean, np.float64)[..., None]
    edges = np.concatenate([-ends, t, ends], axis=-1)
    moments = cell_moments(density, edges, np.broadcast_to(mean, (*edges.shape[:-1], edges.shape[-1] - 1)), np.zeros(()))
    below = np.cumsum(moments[:2, ..., :-1], axis=-1)
    above = np.cumsum(moments[:2, ..., :0:-1], axis=-1)[..., ::-1]
    upper = t >= mean
    return np.where(upper, above[0], -below[0]), np.where(upper, above[1], -below[1])
