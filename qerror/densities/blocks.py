"""The values of a block over the scale of their block: a density like any other, which carries block formats.

With x one of B independent values and g(M) the scale that the block's largest magnitude M gives, y = x / g(M) weighted
with g(M)^2 has a density w(y), and E[(x - g Q(x / g))^2] = E[g^2] times the error of w on the grid of the elements.
Errors, best constants and best codebooks of blocks are those of w.
"""

from __future__ import annotations

import copy
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from .._check import as_int, check_positive, shown
from .._threads import chunk_slices
from .._types import Array
from ..grids.block_formats import BlockFormat, block_format
from . import quadrature
from .base import Density, check_density
from .block_maxima import Largest
from .block_shells import Shells, shells_of

# Cells in flight.
_CHUNK = 1 << 17
# What turning x around makes of its moments.
_MIRROR = np.array([1.0, -1.0, 1.0])[:, None, None]


class BlockScaled(Density):
    """Independent values in blocks, each divided by the scale of its block and weighted with the square of that.

    w(y) = E[g^3 f(g y)] / E[g^2], g = g(M) for the largest magnitude M of the block that y is in.

    Parameters
    ----------
    density : Density
        Of the values x, of shape (); without point masses but at 0.
    form : BlockFormat or str
        Of its rule g; not "best_of" and "optimal", which look at more than M.
    scale : float or sequence of float
        The tensor scale, units of x; of several each is met as often (but for scales of any size, which have none).
    size : int, optional
        Number of values of a tensor that has its own scale: expectations are then over its largest magnitude, too.

    Attributes
    ----------
    weight : float
        E[g^2].
    lost : ndarray of shape (3,)
        Moments about 0 of the x whose block has scale 0.
    largest : Largest
    shells, tops : Shells, Tops
        Which scales a value meets, and how often; the largest values of blocks that their scale follows.

    Raises
    ------
    ValueError
        For what is no density or has point masses, an unknown format, a scale that is not positive.

    References
    ----------
    E[loss] = E[loss(x, g(max(|x|, M')))], M' the largest magnitude of the other values, which x does not depend on.

    Examples
    --------
    >>> import qerror as qe
    >>> blocks = qe.BlockScaled(qe.Gaussian(), "nf4_g64")
    >>> round(blocks.weight * float(qe.quantization_error(blocks, "nf4", 1.0).mse), 12)
    0.008460052907
    """

    tail_doublings = 0

    def __init__(
        self, density: Density, form: BlockFormat | str, scale: ArrayLike = 1.0, *, size: int | None = None
    ) -> None:
        check_density(density)
        if density.shape:
            raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
        points = density.atoms
        if points is not None and (points[0][points[1] > 0] != 0).any():
            raise ValueError("density must have no point masses but at 0; qerror.fit takes the blocks of data")
        self.base, self.form, self._order = density, block_format(form), 2
        self.unit, self.size = check_positive("scale", scale), _check_size(self.form, size)
        self.largest = Largest(density, self.form.block_size)
        self.symmetric = density.symmetric and not np.any(density.mean) and not self.form.signed
        self.status = density.status
        # Sums of differences of tails, on both sides of 0 where the density is not symmetric. (Measured: 50 and 360.)
        self.tails_error = density.tails_error + (64 if self.symmetric else 1024) * np.finfo(np.float64).eps
        self.shells, self.tops = shells_of(self.largest, self.form, self.unit, self.size)
        self._shells = self.shells.select(self.shells.scale > 0)

    def reweighted(self, order: int) -> Self:
        """The same with another power of g to weigh with: 1 for biases, 0 for probabilities."""
        new = copy.copy(self)
        for name in ("weight", "_masses", "mean", "std"):
            new.__dict__.pop(name, None)
        new._order = order
        return new

    def of_sign(self, turned: bool) -> Self:
        """Of the blocks whose scales are positive, or of those whose scales are negative, by their magnitude."""
        new = self.reweighted(self._order)
        shells, tops = self.shells, self.tops
        share, part = (s if turned else 1.0 - s for s in (shells.turned, np.asarray(tops.turned)))
        fields = {name: getattr(shells, name) * share for name in ("within", "around", "own")}
        new.shells = shells._replace(**fields, turned=np.full(share.shape, float(turned)))
        new._shells = new.shells.select(new.shells.scale > 0)
        new.tops = tops._replace(lower=tops.lower * part, upper=tops.upper * part)
        return new

    @cached_property
    def weight(self) -> float:
        """E[g^order], blocks of scale 0 left out."""
        shells = self._shells
        inside = np.exp(self.largest.log_inside(shells.inner)) * shells.within
        ring = shells.around > 0
        inside[ring] += (self.largest.ring(shells.inner[ring], shells.outer[ring])) * shells.around[ring]
        return float((shells.scale**self._order * inside).sum() + self.tops.masses(self._order).sum())

    @property
    def _norm(self) -> float:
        """What the density is divided by; 1 where all blocks have scale 0."""
        return self.weight or 1.0

    @cached_property
    def lost(self) -> Array:
        """Moments about 0 of the x whose block has scale 0."""
        shells = self.shells.select(self.shells.scale == 0)
        ends = np.stack([-shells.outer, -shells.inner, shells.inner, shells.outer], axis=-1)
        moments = self.base.cell_moments(ends, np.zeros((shells.scale.size, 3)))
        share = np.stack([shells.around, shells.within, shells.around], axis=-1)
        return np.asarray((moments * share).sum(axis=(1, 2)) + self.tops.lost())

    @property
    def lost_size(self) -> float:
        """E|x| of the x whose block has scale 0."""
        shells = self.shells.select(self.shells.scale == 0)
        zero = np.zeros(shells.scale.size)
        ends = np.stack([-shells.outer, -shells.inner, zero, shells.inner, shells.outer], axis=-1)
        first = np.abs(self.base.cell_moments(ends, np.zeros((zero.size, 4)))[1])
        share = np.stack([shells.around, shells.within, shells.within, shells.around], axis=-1)
        none = self.tops.scale == 0
        return float((first * share).sum() + (self.tops.x * (self.tops.lower + self.tops.upper))[none].sum())

    @cached_property
    def _masses(self) -> Array:
        """Point masses at the lower and at the upper ends."""
        return self.tops.masses(self._order) / self._norm

    @cached_property
    def mean(self) -> float:
        return 0.0 if self.symmetric else float(self.moments(-np.inf, np.inf, 0.0)[1])

    @cached_property
    def std(self) -> float:
        return float(np.sqrt(self.moments(-np.inf, np.inf, self.mean)[2]))

    @property
    def name(self) -> str:
        return f"{self.base.name} in blocks of {self.form.block_size}"

    @property
    def support(self) -> tuple[float, float]:
        """The end of the grid where scales follow the largest value, else what a rule lets a value reach."""
        if self._exact:
            reach = float(self.tops.end)
        else:
            shells = self._shells
            reach = float((np.minimum(shells.outer, np.max(np.abs(self.base.support))) / shells.scale).max())
        low, high = self.base.support
        both = self.form.signed
        return (-reach if low < 0 or both else 0.0), (reach if high > 0 or both else 0.0)

    @property
    def atoms(self) -> tuple[Array, Array] | None:
        """The largest values of the blocks, where scales follow them."""
        at = np.broadcast_to(self.tops.end, self.tops.scale.shape)
        masses = self._masses
        if self._exact:
            at, masses = at[:1], masses.sum(axis=1, keepdims=True)
        points, masses = np.concatenate([-at, at]), masses.ravel()
        held = masses > 0
        return (points[held], masses[held]) if held.any() else None

    @property
    def _exact(self) -> bool:
        """Whether all largest values lie at one multiple of their scale."""
        return np.ndim(self.tops.end) == 0 and bool(np.isfinite(self.tops.end))

    @property
    def kinks(self) -> Array:
        """Where the pdf jumps: the ends of what each scale holds."""
        shells = self._shells
        if self.form.scale_format is None:
            return float(self.tops.end) * np.array([-1.0, 1.0])
        ends = np.unique(np.concatenate([shells.inner / shells.scale, shells.outer / shells.scale]))
        ends = ends[np.isfinite(ends) & (ends > 0)]
        return np.concatenate([-ends[::-1], ends])

    def panels(self) -> Array:
        """0 and the jumps; none where there are but point masses."""
        return np.unique(np.append(self.kinks, 0.0)) if self._shells.scale.size else np.empty(0)

    def pdf(self, x: ArrayLike) -> Array:
        y, shells = np.asarray(x, np.float64), self._shells
        out = np.empty(y.size)
        for part in chunk_slices(y.size, max(1, _CHUNK // max(1, shells.scale.size))):
            value = shells.scale * y.ravel()[part, None]
            size = np.abs(value)
            share = np.where(size <= shells.inner, shells.within, np.where(size <= shells.outer, shells.around, 0.0))
            f = np.asarray(self.base.pdf(value))
            if shells.turned.any():
                f = (1 - shells.turned) * f + shells.turned * np.asarray(self.base.pdf(-value))
            out[part] = (share * f) @ shells.scale ** (self._order + 1)
        result: Array = (out / self._norm).reshape(y.shape)[()]
        return result

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """Sums over the scales of the moments of x, each about its value."""
        start = np.asarray(origin, np.float64)
        lead = np.broadcast_shapes(edges.shape[:-1], about.shape[:-1], start.shape)
        cells = about.shape[-1]
        ends = np.broadcast_to(edges + start[..., None], (*lead, cells + 1)).reshape(-1, cells + 1)
        values = np.broadcast_to(about + start[..., None], (*lead, cells)).reshape(-1, cells)
        out = np.zeros((3, len(ends), cells))
        if self._shells.scale.size:
            for part in chunk_slices(len(ends), max(1, _CHUNK // (self._shells.scale.size * (cells + 2)))):
                out[:, part] = self._cells(ends[part], values[part])
        out = (out / self._norm).reshape(3, *lead, cells)
        return out + quadrature.atom_moments(self, edges, about, start, last) if self.has_atoms else out

    def _cells(self, ends: Array, values: Array) -> Array:
        """Moments (3, L, M), not yet divided by the weight, of the continuous part."""
        shells = self._shells
        if self.symmetric and np.array_equal(ends, -ends[:, ::-1]) and np.array_equal(values, -values[:, ::-1]):
            half = values.shape[1] // 2
            above = np.concatenate([np.zeros((len(ends), 1)), ends[:, half + 1 :]], axis=1)
            upper = self._summed(shells, np.ones(shells.scale.size), above, values[:, half:])
            lower = upper[..., ::-1] * _MIRROR
            if values.shape[1] % 2:
                # The cell in the middle is made of both.
                upper[..., 0] += lower[..., -1]
                lower = lower[..., :-1]
            return np.concatenate([lower, upper], axis=-1)
        out = self._summed(shells, 1 - shells.turned, ends, values)
        if shells.turned.any():
            # x / -g lies in a cell where x / g lies in its mirror image.
            out += self._summed(shells, shells.turned, -ends[:, ::-1], -values[:, ::-1])[..., ::-1] * _MIRROR
        return out

    def _summed(self, shells: Shells, share: Array, ends: Array, values: Array) -> Array:
        """Sums over the rows, each by its share."""
        g, inner, outer = (a[:, None, None] for a in (shells.scale, shells.inner, shells.outer))
        x, about = np.clip(g * ends, -outer, outer), g * values
        ring = shells.around.any()
        if ring:
            # The inner circle cuts cells in two: its ends are edges, too.
            cut = np.clip(np.concatenate([-inner, inner], axis=-1), x[..., :1], x[..., -1:])
            both = np.concatenate([x, cut], axis=-1)
            order = both.argsort(axis=-1, kind="stable")
            x = np.take_along_axis(both, order, axis=-1)
            cell = np.minimum((order < ends.shape[1]).cumsum(axis=-1)[..., :-1] - 1, values.shape[1] - 1)
            about = np.take_along_axis(about, cell, axis=-1)
        moments = self.base.cell_moments(x, about)
        weight = (share * shells.within)[:, None, None]
        if ring:
            inside = np.maximum(np.abs(x[..., 1:]), np.abs(x[..., :-1])) <= inner
            weight = np.where(inside, weight, (share * shells.around)[:, None, None])
        moments *= weight * g ** (self._order - np.arange(3)[:, None, None, None])
        if not ring:
            return np.asarray(moments.sum(axis=1))
        place = (np.arange(len(values))[:, None] * values.shape[1] + cell).ravel()
        sums = [np.bincount(place, part.ravel(), values.size).reshape(values.shape) for part in moments]
        return np.stack(sums)

    def tails(self, t: Array) -> tuple[Array, Array]:
        """Mass and first moment beyond t, from those of x."""
        flat = np.asarray(t, np.float64).ravel()
        mass, first = np.empty(flat.size), np.empty(flat.size)
        for part in chunk_slices(flat.size, max(1, _CHUNK // max(1, self._shells.scale.size))):
            mass[part], first[part] = self._beyond(flat[part])
        points = self.atoms
        if points is not None:
            above = points[0][:, None] > flat
            mass += (above * points[1][:, None]).sum(axis=0)
            first += (above * (points[0] * points[1])[:, None]).sum(axis=0)
        first -= self.mean * mass
        mass = np.where(flat >= self.mean, mass, mass - 1.0)
        return mass.reshape(np.shape(t)), np.maximum(first, 0.0).reshape(np.shape(t))

    def _beyond(self, t: Array) -> tuple[Array, Array]:
        """P(Y > t) and E[Y; Y > t] of the continuous part."""
        shells = self._shells
        g, inner, outer, within, around = (column[:, None] for column in shells[:5])
        mass, first = np.zeros(t.size), np.zeros(t.size)
        for sign, share in ((1.0, 1 - shells.turned), (-1.0, shells.turned)):
            if not share.any():
                continue
            x = np.clip(sign * g * t, -outer, outer)
            above = around * (_upper(self.base, np.maximum(x, inner)) - _upper(self.base, outer))
            above += within * (_upper(self.base, np.clip(x, -inner, inner)) - _upper(self.base, inner))
            above += around * (_upper(self.base, np.minimum(x, -inner)) - _upper(self.base, -inner))
            if sign < 0:
                # Of the mirrored ones what lies below -t.
                whole = around * (_upper(self.base, -outer) - _upper(self.base, -inner))
                whole += around * (_upper(self.base, inner) - _upper(self.base, outer))
                whole += within * (_upper(self.base, -inner) - _upper(self.base, inner))
                above = whole - above
            mass += np.einsum("jt,j->t", above[0], share * shells.scale**self._order)
            first += sign * np.einsum("jt,j->t", above[1], share * shells.scale ** (self._order - 1))
        return mass / self._norm, first / self._norm

    def cdf(self, x: ArrayLike) -> Array:
        return np.asarray(1.0 - self.sf(x))[()]

    def sf(self, x: ArrayLike) -> Array:
        x = np.asarray(x, np.float64)
        mass, _ = self.tails(x)
        return np.asarray(np.where(x >= self.mean, mass, 1.0 + mass))[()]


def _upper(density: Density, x: Array) -> Array:
    """P(X > x) and E[X; X > x], stacked."""
    signed, first = density.tails(x)
    mean = np.asarray(density.mean)
    mass = np.where(x >= mean, signed, 1.0 + signed)
    return np.stack([mass, first + mean * mass])


def _check_size(form: BlockFormat, size: int | None) -> int | None:
    if size is None:
        return None
    if not form.tensor_scale:
        raise ValueError(f"size must be left out for {form.name}, which has no tensor scale, got {shown(size)}")
    count = as_int("size", size, form.block_size)
    if count % form.block_size:
        raise ValueError(f"size must be a multiple of the block size {form.block_size}, got {count}")
    return count
