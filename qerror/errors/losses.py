"""Other losses than the square: E|x - Q(x)|^p, the weight that an error has.

Rounding to the nearest value is the best for each of them, so that thresholds stay; levels are cut points as well,
because the sign of the error changes there. p = 1 needs the masses and first moments of these half cells alone, which
every density and every sample knows exactly. Other powers are integrated (`densities.powers`), of samples summed.
"""

from __future__ import annotations

import functools
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .._check import broadcast_shape, check_positive, shown
from .._threads import chunk_slices
from .._types import Array
from ..densities.base import Density, check_density
from ..densities.blocks import BlockScaled
from ..densities.powers import power_moments
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from ..results import LossTerms
from .exact import flatten, member

Loss = Literal["squared", "absolute"] | float
_NAMED = {"squared": 2.0, "absolute": 1.0}
_GREATEST = 4.0
# Half cells, and values of a sample, in flight.
_CHUNK_CELLS, _CHUNK_VALUES = 1 << 18, 1 << 17


class LossSums(NamedTuple):
    """Terms of E|x - Q|^p and its derivative by the scale, one flat array each."""

    clipping: Array
    rounding: Array
    by_scale: Array

    @property
    def loss(self) -> Array:
        """Clipping and rounding."""
        return self.clipping + self.rounding


def exponent_of(loss: Loss) -> float:
    """The p of a loss: "squared" is 2, "absolute" 1, a number from 1 to 4 itself.

    Examples
    --------
    >>> exponent_of("absolute"), exponent_of(2.4)
    (1.0, 2.4)
    """
    if isinstance(loss, str) and loss in _NAMED:
        return _NAMED[loss]
    try:
        p = float(np.nan if isinstance(loss, str | bool) else loss)
    except (TypeError, ValueError):
        p = np.nan
    if not 1.0 <= p <= _GREATEST:
        raise ValueError(f"loss must be 'squared', 'absolute' or a power from 1 to {_GREATEST:g}, got {shown(loss)}")
    return p


def expected_loss(density: Density, grid: Grid, scale: ArrayLike | None, shift: ArrayLike, p: float) -> LossTerms:
    """`quantization_error` of another loss.

    Examples
    --------
    >>> import qerror as qe
    >>> terms = expected_loss(qe.Gaussian(), qe.grid("binary"), 1.0, 0.0, 1.0)
    >>> round(float(terms.loss), 12)
    0.535377321548
    """
    members, flat_scale, flat_shift, shape = flatten(density, scale, shift)
    sums = loss_sums(members, grid, flat_scale, flat_shift, p)
    size = size_of(members, np.zeros(flat_scale.size), p)
    clipping, rounding, moment = (a.reshape(shape)[()] for a in (sums.clipping, sums.rounding, size))
    return LossTerms(clipping, rounding, moment, p)


def block_loss(density: Density, form: BlockFormat, scale: ArrayLike, p: float) -> LossTerms:
    """`quantization_error` of a block format by the absolute error: that of the scaled values, weighted with g.

    Examples
    --------
    >>> import qerror as qe
    >>> terms = block_loss(qe.Gaussian(), qe.block_format("nf4_g64"), 1.0, 1.0)
    >>> round(float(terms.loss), 12)
    0.07279553196
    """
    if p != 1.0:
        raise ValueError(f"loss must be 'squared' or 'absolute' for a block format, got {p:g}")
    check_density(density)
    units = check_positive("scale", scale)
    shape = broadcast_shape(density.shape, scale=units)
    members, out, one = density.spread(shape), [], np.ones(1)
    for i, unit in enumerate(np.broadcast_to(units, shape).ravel()):
        base = member(members, np.array(i))
        blocks = BlockScaled(base, form, float(unit))
        single = blocks.reweighted(1)
        sums = loss_sums(single, form.grid, one, 0 * one, p)
        clipping, rounding = (single.weight * float(a[0]) for a in (sums.clipping, sums.rounding))
        out.append((clipping + blocks.lost_size, rounding, float(size_of(base, 0 * one, p)[0])))
    terms = np.array(out).reshape(*shape, 3)
    return LossTerms(terms[..., 0][()], terms[..., 1][()], terms[..., 2][()], p)


def only_nearest(rounding: str, model: str) -> None:
    """Refuse what is known of the squared error alone.

    Examples
    --------
    >>> only_nearest("nearest", "exact")
    """
    for name, value, known in (("rounding", rounding, "nearest"), ("model", model, "exact")):
        if value != known:
            raise ValueError(f"{name} must be {known!r} for another loss than 'squared', got {value!r}")


def size_of(density: Density, about: Array, p: float) -> Array:
    """E|x - about|^p: the loss of a quantizer that knows one value."""
    out = np.empty(about.size)
    for i in range(about.size):
        one, at = member(density, slice(i, i + 1)), about[i : i + 1]
        out[i] = _powers(one, np.array([[-np.inf, 0.0, np.inf]]), np.zeros((1, 2)), at, p)[0].sum()
    return out


def loss_sums(density: Density, grid: Grid, scale: Array, shift: Array, p: float) -> LossSums:
    """Terms and derivative for flat `scale` and `shift`; density.shape is () or that of `scale`."""
    parts = chunk_slices(scale.size, max(1, _CHUNK_CELLS // (2 * len(grid)))) or [slice(0, 0)]
    sums = [_sums(member(density, part), grid, scale[part], shift[part], p) for part in parts]
    return LossSums(*(np.concatenate(column) for column in zip(*sums, strict=True)))


def is_sample(density: Density) -> bool:
    """Whether there are but point masses."""
    return density.has_atoms and density.panels().shape[-1] == 0


@functools.lru_cache(maxsize=128)
def _half_cells(grid: Grid) -> tuple[Array, Array]:
    """The ends of the half cells, levels and thresholds in turn, and the level of each, in units of the scale."""
    inner = np.empty(2 * len(grid) - 1)
    inner[::2], inner[1::2] = grid.levels, grid.thresholds
    return np.concatenate([[-np.inf], inner, [np.inf]]), np.repeat(grid.levels, 2)


def _sums(density: Density, grid: Grid, scale: Array, shift: Array, p: float) -> LossSums:
    if p != 1.0 and is_sample(density):
        return _of_values(density, grid, scale, shift, p)
    ends, level = _half_cells(grid)
    value, edges = scale[:, None] * level, scale[:, None] * ends
    powers, lower = _powers(density, edges, value, shift, p)
    # Below their level errors are negative: the loss grows with the level.
    slope = np.where(np.arange(level.size) % 2 == 0, level, -level)
    return LossSums(powers[:, 0] + powers[:, -1], powers[:, 1:-1].sum(axis=1), p * np.vecdot(lower, slope))


def _powers(density: Density, edges: Array, about: Array, origin: Array, p: float) -> tuple[Array, Array]:
    """E[|x - q|^p] and E[|x - q|^(p - 1)] over cells on one side of their q."""
    if p == 1.0:
        mass, first, _ = density.cell_moments(edges, about, origin)
        return np.abs(first), mass
    out = np.zeros((2, *about.shape))
    if density.panels().shape[-1]:
        out[1], out[0] = power_moments(density, edges, about, origin, p - 1.0, 2)
    atoms = density.atoms
    if atoms is not None:
        points, masses = (np.reshape(a, (-1, a.shape[-1])) for a in atoms)
        x = np.subtract(points, origin[:, None])[:, :, None]
        inside = (x > edges[:, None, :-1]) & (x <= edges[:, None, 1:])
        weight = np.where(inside, np.broadcast_to(masses, x.shape[:2])[:, :, None], 0.0)
        size = np.where(inside, np.abs(x - about[:, None, :]), 0.0)
        out += np.stack([(weight * size**p).sum(axis=1), (weight * size ** (p - 1.0)).sum(axis=1)])
    return out[0], out[1]


def _of_values(density: Density, grid: Grid, scale: Array, shift: Array, p: float) -> LossSums:
    """The values of samples one by one."""
    atoms = density.atoms
    assert atoms is not None
    points, masses = (np.reshape(a, (-1, a.shape[-1])) for a in atoms)
    out = np.zeros((3, scale.size))
    for i, (s, z) in enumerate(zip(scale, shift, strict=True)):
        row = i if len(points) > 1 else 0
        for part in chunk_slices(points.shape[1], _CHUNK_VALUES):
            y, weight = points[row, part] - z, masses[row, part]
            level = grid.levels[np.searchsorted(s * grid.thresholds, y)]
            error = s * level - y
            size = np.abs(error)
            lower = weight * size ** (p - 1.0)
            loss = lower * size
            beyond = (y < s * grid.min) | (y > s * grid.max)
            clipped = float(loss[beyond].sum())
            by_scale = p * float(np.copysign(lower, error) @ level)
            out[:, i] += clipped, float(loss.sum()) - clipped, by_scale
    return LossSums(*out)
