"""The values of a block over the scale of their block: a density like any other, which carries block formats.

With x one of B independent values and g(M) the scale that the block's largest magnitude M gives, y = x / g(M) weighted
with g(M)^2 has a density w(y), and E[(x - g Q(x / g))^2] = E[g^2] times the error of w on the grid of the elements.
Errors, best constants and best codebooks of blocks are those of w.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_positive
from .._threads import chunk_slices
from .._types import Array
from ..grids.block_formats import BlockFormat, block_format
from ..grids.block_rules import staircase
from ..grids.grid import Grid
from . import quadrature
from .base import Density, check_density
from .block_maxima import Largest, Shells, ends_of, stored_shells

# Cells in flight.
_CHUNK = 1 << 17
# Cuts of the integral over the largest magnitude that are worth their panels.
_MOST_CUTS = 2000


class BlockScaled(Density):
    """Independent values in blocks, each divided by the scale of its block and weighted with the square of that.

    w(y) = E[g^3 f(g y)] / E[g^2], g = g(M) for the largest magnitude M of the block that y is in.

    Parameters
    ----------
    density : Density
        Of the values x, of shape (); without point masses but at 0.
    form : BlockFormat or str
        Of its rule g; not "best_of" and "optimal", which look at more than M.
    scale : float
        The tensor scale, units of x.
    order : int
        Another power of g to weigh with: 1 for biases, 0 for probabilities.

    Attributes
    ----------
    weight : float
        E[g^order; g > 0].
    lost : ndarray of shape (3,)
        Moments about 0 of the x whose block has scale 0.

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

    def __init__(self, density: Density, form: BlockFormat | str, scale: ArrayLike = 1.0, *, order: int = 2) -> None:
        check_density(density)
        if density.shape:
            raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
        points = density.atoms
        if points is not None and (points[0][points[1] > 0] != 0).any():
            raise ValueError("density must have no point masses but at 0; qerror.fit takes the blocks of data")
        self.base, self.form, self.order = density, block_format(form), order
        self.unit = float(check_positive("scale", scale))
        self.largest = Largest(density, self.form.block_size)
        self.symmetric = density.symmetric and not np.any(density.mean) and not self.form.signed
        self.status = density.status
        self._atoms = np.zeros(2)
        self.weight, self.lost = 1.0, np.zeros(3)
        self._shells, self._mirrored = self._make_shells()
        whole = self._cells(np.array([[-np.inf, np.inf]]), np.zeros((1, 1)))[:, 0, 0]
        if self._atoms.any():
            ends = self.end * np.array([-1.0, 1.0])
            whole += np.array([self._atoms.sum(), self._atoms @ ends, self._atoms @ ends**2])
        self.weight = float(whole[0])
        self._atoms = self._atoms / self.weight
        self._mean = 0.0 if self.symmetric else float(whole[1] / whole[0])
        self._std = float(np.sqrt(whole[2] / whole[0] - self._mean**2))

    def _make_shells(self) -> tuple[Shells, Array]:
        """Rows of scales, and the probability that x has changed its sign in each."""
        form, constant = self.form, _only(self.form)
        if form.scale_format is None:
            return self._any_scale(constant / form.grid.absmax)
        if form.signed:
            raise ValueError("signed block scales that are stored have no expected error here; qerror.simulate has one")
        self.end = np.inf
        self._steps = staircase(form.grid, form.scale_format, form.rule, constant, self.unit)
        shells = stored_shells(self.largest, *self._steps)
        none = shells.scale == 0
        if none.any():
            self.lost = _lost(self.base, shells.select(none))
        shells = shells.select(~none)
        return shells, np.zeros(shells.scale.size)

    def _any_scale(self, constant: float) -> tuple[Shells, Array]:
        """Scales that follow M: nodes of the integral over M', and the largest value itself at the end."""
        largest, n = self.largest, self.largest.others
        self.end = 1.0 / constant
        cuts = np.empty(0)
        kinks = np.abs(self.base.kinks.ravel())
        if kinks.size * len(self.form.grid) <= _MOST_CUTS:
            # Where a threshold meets a jump of the pdf, the loss as a function of M has a kink.
            t = np.abs(self.form.grid.thresholds) * constant
            cuts = (kinks[:, None] / t[t > 0]).ravel()
        m, dm = largest.nodes(cuts)
        own = largest.below(m) * dm
        up, down = np.asarray(self.base.pdf(m)), np.asarray(self.base.pdf(-m))
        atoms = np.array(
            [(own * down * (constant * m) ** self.order).sum(), (own * up * (constant * m) ** self.order).sum()]
        )
        self._atoms = np.array([0.0, atoms.sum()]) if self.form.signed else atoms
        within = np.zeros(0)
        if n:
            with np.errstate(divide="ignore", invalid="ignore"):
                within = np.nan_to_num(n * np.exp((n - 1) * largest.log_inside(m)) * (up + down) * dm)
        used = within > 0 if n else np.zeros(m.size, np.bool_)
        m, within = m[used], within[used[: within.size]]
        turned = np.zeros(m.size)
        if self.form.signed:
            with np.errstate(divide="ignore", invalid="ignore"):
                turned = np.nan_to_num((down / (up + down))[used])
            if self.form.grid.max < -self.form.grid.min:
                # The largest value meets the lowest level.
                turned, self._atoms = 1.0 - turned, self._atoms[::-1]
        return Shells(constant * m, m, m, within, np.zeros(m.size)), turned

    def largest_values(self, grid: Grid) -> tuple[Array, Array, Array]:
        """Values x that are the largest of their block, what each counts, and its scale: nodes of an integral.

        The counts add up to 1 / B. Between nodes of a panel x / scale meets neither level nor threshold of `grid`.
        """
        if self.exact:
            held = self._atoms > 0
            y, mass = self.end * np.array([-1.0, 1.0])[held], self._atoms[held] * self.weight
            return y, mass, np.ones(y.size)
        steps = self._steps
        low, high = self.largest.range()
        points = np.abs(np.concatenate([grid.levels, grid.thresholds]))
        inside = (steps.bounds[1:] > low) & (steps.bounds[:-1] < high)
        cuts = [
            (steps.scales[inside][:, None] * points).ravel(),
            steps.bounds,
            np.abs(ends_of(self.base.panels(), self.base.kinks)),
        ]
        x, weight = self.largest.nodes(np.unique(np.concatenate(cuts)), step=0.25)
        scale = steps.scales[np.searchsorted(steps.bounds, x) - 1]
        weight = weight * self.largest.below(x)
        x, scale = np.concatenate([-x, x]), np.tile(scale, 2)
        return x, np.tile(weight, 2) * np.asarray(self.base.pdf(x)), scale

    @property
    def exact(self) -> bool:
        """Whether scales follow the largest magnitude exactly: it then lies at `end` times its scale."""
        return self.form.scale_format is None

    @property
    def name(self) -> str:
        return f"{self.base.name} in blocks of {self.form.block_size}"

    @property
    def mean(self) -> float:
        return self._mean

    @property
    def std(self) -> float:
        return self._std

    @property
    def support(self) -> tuple[float, float]:
        """The end of the grid at exact scales; what the rule lets a value reach over its scale at stored ones."""
        reach = self._reach
        low, high = self.base.support
        return (-reach if low < 0 or self.form.signed else 0.0), (reach if high > 0 or self.form.signed else 0.0)

    @property
    def _reach(self) -> float:
        if self.exact:
            return float(self.end)
        shells = self._shells
        return float((np.minimum(shells.outer, np.max(np.abs(self.base.support))) / shells.scale).max())

    @property
    def atoms(self) -> tuple[Array, Array] | None:
        """The largest values of the blocks, where scales follow them exactly."""
        held = self._atoms > 0
        return (self.end * np.array([-1.0, 1.0])[held], self._atoms[held]) if held.any() else None

    @property
    def kinks(self) -> Array:
        """Where the pdf jumps: the ends of what each stored scale holds."""
        if self.exact:
            return np.array([-self.end, self.end])
        shells = self._shells
        ends = np.concatenate([shells.inner / shells.scale, shells.outer / shells.scale])
        ends = np.unique(ends[np.isfinite(ends) & (ends > 0)])
        return np.concatenate([-ends[::-1], ends])

    def panels(self) -> Array:
        """0 and the jumps; none where there are but point masses."""
        return np.unique(np.append(self.kinks, 0.0)) if self._shells.scale.size else np.empty(0)

    def pdf(self, y: ArrayLike) -> Array:
        y = np.asarray(y, np.float64)
        out = np.empty(y.size)
        shells = self._shells
        for part in chunk_slices(y.size, max(1, _CHUNK // max(1, shells.scale.size))):
            x = shells.scale * y.ravel()[part, None]
            size = np.abs(x)
            share = np.where(size <= shells.inner, shells.within, np.where(size <= shells.outer, shells.around, 0.0))
            f = np.asarray(self.base.pdf(x))
            if self._mirrored.any():
                f = (1 - self._mirrored) * f + self._mirrored * np.asarray(self.base.pdf(-x))
            out[part] = (share * f) @ shells.scale ** (self.order + 1)
        result: Array = (out / self.weight).reshape(y.shape)[()]
        return result

    def cell_moments(self, edges: Array, about: Array, origin: ArrayLike = 0.0, last: Array | None = None) -> Array:
        """Sums over the shells of the moments of x, each about its value."""
        start = np.asarray(origin, np.float64)
        lead = np.broadcast_shapes(edges.shape[:-1], about.shape[:-1], start.shape)
        cells = about.shape[-1]
        ends = np.broadcast_to(edges + start[..., None], (*lead, cells + 1)).reshape(-1, cells + 1)
        values = np.broadcast_to(about + start[..., None], (*lead, cells)).reshape(-1, cells)
        out = np.zeros((3, len(ends), cells))
        if self._shells.scale.size:
            for part in chunk_slices(len(ends), max(1, _CHUNK // (self._shells.scale.size * (cells + 2)))):
                out[:, part] = self._cells(ends[part], values[part])
        out /= self.weight
        out = out.reshape(3, *lead, cells)
        return out + quadrature.atom_moments(self, edges, about, start, last) if self.has_atoms else out

    def _cells(self, ends: Array, values: Array) -> Array:
        """Moments (3, L, M), not yet divided by the weight, of the continuous part."""
        straight, turned = self._mirrored < 1, self._mirrored > 0
        out = np.zeros((3, *values.shape))
        if straight.any():
            out += self._summed(self._shells.select(straight), 1 - self._mirrored[straight], ends, values)
        if turned.any():
            # x / -g lies in a cell where x / g lies in its mirror image.
            shells, share = self._shells.select(turned), self._mirrored[turned]
            mirrored = self._summed(shells, share, -ends[:, ::-1], -values[:, ::-1])[..., ::-1]
            out += mirrored * np.array([1.0, -1.0, 1.0])[:, None, None]
        return out

    def _summed(self, shells: Shells, share: Array, ends: Array, values: Array) -> Array:
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
            middle = np.maximum(np.abs(x[..., 1:]), np.abs(x[..., :-1]))
            weight = np.where(middle <= inner, weight, (share * shells.around)[:, None, None])
        moments *= weight * g ** (self.order - np.arange(3)[:, None, None, None])
        if not ring:
            return np.asarray(moments.sum(axis=1))
        out = np.zeros((3, *values.shape))
        place = (np.arange(len(values))[:, None] * values.shape[1] + cell).ravel()
        for total, part in zip(out, moments, strict=True):
            total[...] = np.bincount(place, part.ravel(), values.size).reshape(values.shape)
        return out

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
        first -= self._mean * mass
        mass = np.where(flat >= self._mean, mass, mass - 1.0)
        return mass.reshape(np.shape(t)), np.maximum(first, 0.0).reshape(np.shape(t))

    def _beyond(self, t: Array) -> tuple[Array, Array]:
        """P(Y > t) and E[Y; Y > t] of the continuous part."""
        g, inner, outer, within, around = (column[:, None] for column in self._shells)
        mass, first = np.zeros(t.size), np.zeros(t.size)
        for sign, share in ((1.0, 1 - self._mirrored), (-1.0, self._mirrored)):
            if not share.any():
                continue
            # Of the mirrored ones what lies below -t.
            x = np.clip(sign * g * t, -outer, outer)
            above = around * (_upper(self.base, np.maximum(x, inner)) - _upper(self.base, outer))
            above += within * (_upper(self.base, np.clip(x, -inner, inner)) - _upper(self.base, inner))
            above += around * (_upper(self.base, np.minimum(x, -inner)) - _upper(self.base, -inner))
            if sign < 0:
                whole = around * (_upper(self.base, -outer) - _upper(self.base, -inner))
                whole = whole + around * (_upper(self.base, inner) - _upper(self.base, outer))
                whole = whole + within * (_upper(self.base, -inner) - _upper(self.base, inner))
                above = whole - above
            mass += np.einsum("jt,j->t", above[0], share * self._shells.scale**self.order)
            first += sign * np.einsum("jt,j->t", above[1], share * self._shells.scale ** (self.order - 1))
        return mass / self.weight, first / self.weight

    def cdf(self, x: ArrayLike) -> Array:
        return np.asarray(1.0 - self.sf(x))[()]

    def sf(self, x: ArrayLike) -> Array:
        x = np.asarray(x, np.float64)
        mass, _ = self.tails(x)
        return np.asarray(np.where(x >= self._mean, mass, 1.0 + mass))[()]


def _upper(density: Density, x: Array) -> Array:
    """P(X > x) and E[X; X > x], stacked."""
    signed, first = density.tails(x)
    mean = np.asarray(density.mean)
    mass = np.where(x >= mean, signed, 1.0 + signed)
    return np.stack([mass, first + mean * mass])


def _only(form: BlockFormat) -> float:
    if form.rule in ("best_of", "optimal"):
        raise ValueError(f"form must have a rule that reads the largest magnitude alone, got rule {form.rule}")
    return form.constants[0]


def _lost(density: Density, shells: Shells) -> Array:
    """Moments about 0 of x in blocks of these shells."""
    ends = np.stack([-shells.outer, -shells.inner, shells.inner, shells.outer], axis=-1)
    moments = density.cell_moments(ends, np.zeros((shells.scale.size, 3)))
    weight = np.stack([shells.around, shells.within, shells.around], axis=-1)
    total: Array = (moments * weight).sum(axis=(1, 2))
    return total
