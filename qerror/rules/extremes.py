"""Scale rules that look at the extreme values: minmax and what is derived from it."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._threads import chunk_slices
from .._types import Array
from ..densities.base import Density
from ..errors.exact import error_sums, flatten
from ..errors.on_samples import mse_of_rows
from ..grids.block_rules import farthest_is_lowest
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..results import Status
from .base import RuleResult, as_number, bounds, either, fixed_shift, is_word, rms, settled_result

SHRINK = np.linspace(1.0, 0.2, 81)
"""The line search of today's calibrators: minmax times these."""
# Scales of few rows that are tried together.
_AT_ONCE = 256
# Powers of two that an E8M0 scale can be, on either side of 1.
_MX_EXPONENT = 127


def minmax(density: Density, grid: Grid | str, *, shift: Any = 0.0, include_zero: bool = False) -> RuleResult:
    """The smallest scale that clips nothing.

    s = max((max x - z) / l_{K-1}, (min x - z) / l_0); with shift "optimal" l_0 -> min x and l_{K-1} -> max x. Many
    libraries divide max|x| by l_{K-1} (7 at int4) or by 2^(b-1) - 1/2 (7.5) instead, whichever side the maximum is on.
    A side of z on which the grid has no levels is left out.

    Parameters
    ----------
    density : Density
        Of bounded support: a sample, or Uniform and the like.
    grid : Grid or str
    shift : array_like, "mean" or "optimal"
    include_zero : bool
        Of shift "optimal": whether the range has 0 in it, as that of PyTorch's observers.

    Raises
    ------
    ValueError
        If the support is not bounded.

    Examples
    --------
    >>> import qerror as qe
    >>> float(minmax(qe.Empirical([-4.0, 1.0, 2.1]), "int4").scale)
    0.5
    """
    levels = as_grid(grid)
    low, high = bounds("minmax", density)
    if is_word(shift, "optimal"):
        if include_zero:
            low, high = np.minimum(low, 0.0), np.maximum(high, 0.0)
        scale = (high - low) / (levels.max - levels.min)
        return settled_result(density, levels, scale, low - scale * levels.min)
    z = fixed_shift("minmax", density, shift)
    return settled_result(density, levels, _covering(levels, z, low, high), z)


def signed_absmax(density: Density, grid: Grid | str, *, shift: Any = 0.0) -> RuleResult:
    """The value of largest magnitude goes to the level of largest magnitude, sign and all: llama.cpp's Q4_0.

    s = m / l, m the value farthest from z and l the level farthest from 0 (-8 of int4): negative where their signs
    differ, which turns the grid around. Without rounding of s to float16, as Q4_0 stores it.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal".

    Examples
    --------
    >>> import qerror as qe
    >>> float(signed_absmax(qe.Empirical([-1.0, 0.5, 4.0]), "int4").scale)
    -0.5
    """
    levels, z = as_grid(grid), fixed_shift("signed_absmax", density, shift)
    low, high = bounds("signed_absmax", density)
    farthest = np.where(high - z > z - low, high - z, low - z)
    return settled_result(density, levels, farthest / (levels.min if farthest_is_lowest(levels) else levels.max), z)


def percentile(density: Density, grid: Grid | str, *, shift: Any = 0.0, p: float = 99.9) -> RuleResult:
    """The smallest scale that clips nothing within c of the shift, c the p-th percentile of |x - z|.

    c = min{c: P(|x - z| <= c) >= p / 100} (the inverted cdf: on data always a value of it); p = 100 is minmax.
    Where c is 0 but not all values are at the shift (mostly zeros): that of minmax, status FALLBACK.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal", the support need not be bounded.
    p : float
        Percent, 1 < p <= 100.

    Examples
    --------
    >>> import qerror as qe
    >>> float(percentile(qe.Empirical([-1.0, 1.4, 3.5, 90.0]), "int4", p=75).scale)
    0.5
    """
    if not 1 < as_number("p", p) <= 100:
        remedy = f"; p is a percentage: write p={100 * p:g}" if 0 < p <= 1 else ""
        raise ValueError(f"p must be a percentage above 1 and up to 100, got {p!r}{remedy}")
    levels, z = as_grid(grid), fixed_shift("percentile", density, shift)
    low, high = density.support
    radius = _radius(density, z, p / 100)
    scale = _covering(levels, z, np.maximum(low, z - radius), np.minimum(high, z + radius))
    return with_fallback("percentile", settled_result(density, levels, scale, z), density, levels)


def shrink_search(density: Density, grid: Grid | str, *, shift: Any = 0.0, include_zero: bool = False) -> RuleResult:
    """The line search of today's calibrators: the best of minmax times 1.00, 0.99, ... 0.20.

    With shift "optimal" both ends shrink (z with s); otherwise the shift stays.

    Parameters
    ----------
    density, grid, shift, include_zero
        As in `minmax`.

    Examples
    --------
    >>> import qerror as qe
    >>> x = qe.Empirical(np.linspace(-1, 1, 99) ** 3)
    >>> round(float(shrink_search(x, "int4").scale / minmax(x, "int4").scale), 12)
    0.9
    """
    levels, whole = as_grid(grid), minmax(density, grid, shift=shift, include_zero=include_zero)
    members, scale, z, shape = flatten(density, whole.scale, whole.shift)
    moves = is_word(shift, "optimal")
    tried = scale[:, None] * SHRINK, z[:, None] * (SHRINK if moves else np.ones(SHRINK.size))
    mse = mse_of_rows(members, levels, *tried)
    best = SHRINK[(_mse(members, levels, *tried) if mse is None else mse).argmin(axis=1)]
    # Where nothing depends on the scale, what stands for all is left alone.
    best = np.where(np.ravel(whole.status) == Status.RULE, best, 1.0)
    shifts = (z * best if moves else z).reshape(shape)[()]
    return RuleResult((best * scale).reshape(shape)[()], shifts, whole.status)


def _mse(density: Density, grid: Grid, scale: Array, shift: Array) -> Array:
    """The MSE of each member at several scales and shifts, some at a time."""
    out = np.empty(scale.shape)
    for some in chunk_slices(scale.shape[1], max(1, _AT_ONCE // len(scale))):
        columns = scale[:, some].shape
        row = np.repeat(np.arange(len(scale)), columns[1])
        copies = density.take(row) if density.shape else density
        sums = error_sums(copies, grid, scale[:, some].ravel(), shift[:, some].ravel())
        out[:, some] = sums.mse.reshape(columns)
    return out


def ocp(density: Density, grid: Grid | str, *, shift: Any = 0.0) -> RuleResult:
    """The MX standard's power of two: 2^(floor(log2 max|x - z|) - emax), emax = floor(log2 l_{K-1}).

    emax is the exponent of the largest power of two that a level reaches on both sides: 0 for MXINT8, whose levels go
    from -2 to 127 / 64. The scale's exponent is clamped to +-127; where all values are 0 it is -127. Values may exceed
    the last level, which clips them.

    Parameters
    ----------
    density, grid, shift
        As in `minmax`; shift not "optimal".

    References
    ----------
    OCP Microscaling Formats (MX) Specification v1.0, conversion from scalar formats.

    Examples
    --------
    >>> import qerror as qe
    >>> float(ocp(qe.Empirical([0.1, -7.9]), "e2m1").scale)
    1.0
    """
    levels, z = as_grid(grid), fixed_shift("ocp", density, shift)
    low, high = bounds("ocp", density)
    largest = np.maximum(np.abs(high - z), np.abs(low - z))
    # frexp gives 0.5 <= m < 1: its exponent is floor(log2) + 1, exactly, for subnormal numbers too.
    exponent = np.frexp(largest)[1] - np.frexp(levels.max if levels.max > 0 else levels.absmax)[1]
    exponent = np.where(largest == 0, -_MX_EXPONENT, np.clip(exponent, -_MX_EXPONENT, _MX_EXPONENT))
    status = np.full(np.shape(largest), Status.RULE, object)[()]
    return RuleResult(np.ldexp(1.0, exponent)[()], np.broadcast_to(z, np.shape(largest))[()], status)


def with_fallback(name: str, result: RuleResult, density: Density, grid: Grid) -> RuleResult:
    """The same; where a rule gave no scale although values are off the shift, minmax has one: status FALLBACK."""
    degenerate = (result.status == Status.DEGENERATE) | (result.status == Status.DEGENERATE_NONE)
    lost = degenerate & (rms(density, result.shift) > 0)
    if not np.any(lost):
        return result
    bounds(f"{name}, which gives no scale here and falls back to minmax,", density)
    instead = minmax(density, grid, shift=result.shift)
    fallback = either(instead.status == Status.RULE, Status.FALLBACK, instead.status)
    scale = np.where(lost, instead.scale, result.scale)[()]
    return dataclasses.replace(result, scale=scale, status=either(lost, fallback, result.status))


def _covering(grid: Grid, z: Array, low: Array, high: Array) -> Array:
    """The smallest scale whose end values reach `low` and `high`, on the sides of z where there are levels."""
    scale = np.zeros(np.broadcast_shapes(z.shape, np.shape(low)))
    for sign, end, level in ((1.0, high, grid.max), (-1.0, low, grid.min)):
        if sign * level <= 0:
            continue
        part = np.maximum((end - z) / level, 0.0)
        hair = np.spacing(np.maximum(np.abs(end), np.abs(z))) / abs(level)
        for _ in range(3):
            # Rounding may leave the end value a hair inside.
            short = (part > 0) & (sign * (z + part * level - end) < 0)
            part = np.where(short, np.maximum(part + hair, np.nextafter(part, np.inf)), part)
        scale = np.maximum(scale, part)
    return scale


def _radius(density: Density, z: Array, share: float) -> Array:
    """The smallest c with P(|x - z| <= c) >= share, by bisection down to neighbouring floats."""
    least = np.zeros(z.shape)
    most = np.maximum(rms(density, z), np.finfo(np.float64).tiny)

    def reached(c: Array) -> NDArray[np.bool_]:
        outside = density.sf(z + c) + density.cdf(np.nextafter(z - c, -np.inf))
        # The relative slack keeps p = k / n at its k-th value when p * n rounds up.
        return np.asarray(1.0 - outside >= share * (1 - 1e-15))

    while not (enough := reached(most)).all():
        most = np.where(enough, most, 2 * most)
    at_zero = reached(least)
    # Bit patterns of positive floats are in their order: 63 halvings leave two neighbours.
    low, high = least.view(np.int64), most.view(np.int64)
    while (high - low > 1).any():
        middle = low + (high - low) // 2
        enough = reached(middle.view(np.float64))
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
    return np.where(at_zero, 0.0, high.view(np.float64))
