"""Scalar quantizers whose codes an ideal lossless coder packs: the least error at an entropy."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable

import numpy as np

from .._check import check_positive, shown
from .._types import Array
from ..densities.base import Density, check_density
from ..results import EntropyCoded, Status

_LEAST_BITS, _MOST_BITS = 0.01, 12.0
# Mass of each tail that is one cell; cells at most.
_TAIL = 1e-13
_MOST_CELLS = 1 << 16
# Cells with less are left to their neighbours.
_NOTHING = 1e-15
_STEPS, _FOLLOWED, _TRIALS = 80, 20, 16
# Cells moved in all while a multiplier settles: of many cells, whose thresholds are next to uniform, few rounds.
_MOVES = 1 << 17
# Bits below the rate asked for that are near enough, and the relative change of the Lagrangian that ends an iteration.
_MET, _SETTLED = 1e-7, 1e-12


@dataclasses.dataclass(frozen=True)
class _Cells:
    """A quantizer: thresholds, the means and masses of its cells, entropy (bits) and mse."""

    thresholds: Array
    levels: Array
    mass: Array
    bits: float
    mse: float


def entropy_coded(density: Density, *, bits: float) -> EntropyCoded:
    """The scalar quantizer of least mean squared error whose codes have an entropy of so many bits.

    Minimizes sum_k E[(x - q_k)^2; cell k] subject to -sum P_k log2 P_k <= bits, for any number of levels. Each level is
    the mean of its cell; a threshold lies where (x - q_k)^2 - slope log2 P_k is the same on both sides (Chou,
    Lookabaugh, Gray 1989), which is iterated from uniform thresholds, around the mean and from the ends of a bounded
    support. At high rates that is pi e / 6 (1.53 dB, or 0.25
    bit) from Shannon's limit.

    Parameters
    ----------
    density : Density
        Of shape (); of a sample the entropy moves in steps, and is the nearest found that is not above `bits`.
    bits : float
        Bits a value, 0.01 to 12.

    Returns
    -------
    EntropyCoded
        With the best of the quantizers with uniform thresholds beside it.

    Raises
    ------
    ValueError
        For bits outside of that range, for an array of densities.

    References
    ----------
    H. Gish, J. Pierce, "Asymptotically efficient quantizing" (1968); N. Farvardin, J. Modestino, "Optimum quantizer
    performance for a class of non-Gaussian memoryless sources" (1984); A. György, T. Linder, "Optimal entropy-
    constrained scalar quantization of a uniform source" (2000).

    Examples
    --------
    >>> import qerror as qe
    >>> found = entropy_coded(qe.Gaussian(), bits=2)
    >>> round(found.sqnr_db, 3), round(found.uniform_sqnr_db, 3)
    (10.51, 10.509)
    """
    check_density(density)
    if density.shape:
        raise ValueError(f"density must have shape (), got {density.shape}; take one member after the other")
    rate = check_positive("bits", bits)
    if rate.ndim or not _LEAST_BITS <= rate <= _MOST_BITS:
        raise ValueError(f"bits must be one number from {_LEAST_BITS} to {_MOST_BITS:g}, got {shown(bits)}")
    mean, (low, high) = float(density.mean), _reach(density)
    middle = [functools.partial(_thresholds, first=mean, shift=shift, low=low, high=high) for shift in (0.0, 0.5)]
    uniform = min((_uniform(density, float(rate), place) for place in middle), key=lambda cells: cells.mse)
    best = _least(density, float(rate), uniform)
    # All cells but one of one length, from an end of a bounded support on: the best of a uniform density, at any rate.
    for end in density.support:
        if np.isfinite(end):
            place = functools.partial(_thresholds, first=float(end), shift=0.5, low=low, high=high)
            start = _uniform(density, float(rate), place)
            best = min(best, start, _least(density, float(rate), start), key=lambda cells: cells.mse)
    power = float(density.std) ** 2 + float(density.mean) ** 2
    # Thresholds of equal slope are necessary, not sufficient.
    return EntropyCoded(
        best.bits, best.mse, best.levels, best.thresholds, uniform.bits, uniform.mse, power, Status.LOCAL
    )


def _cells(density: Density, thresholds: Array) -> _Cells:
    """Means, masses, entropy and error of the cells between thresholds; cells that hold nothing are dropped."""
    ends = np.concatenate([[-np.inf], thresholds, [np.inf]])
    middle = np.concatenate([thresholds[:1], 0.5 * (thresholds[1:] + thresholds[:-1]), thresholds[-1:]])
    middle = middle if thresholds.size else np.array([float(density.mean)])
    mass, first, second = density.cell_moments(ends, middle)
    held = mass > _NOTHING
    if not held.all():
        # A threshold between two cells that stay is the lower end of the upper one.
        return _cells(density, ends[:-1][held][1:])
    mean = first / mass
    mse = float((second - first * mean).sum())
    return _Cells(thresholds, middle + mean, mass, -float((mass * np.log2(mass)).sum()), mse)


def _uniform(density: Density, bits: float, place: Callable[[float], Array]) -> _Cells:
    """Uniform thresholds, which `place` gives for a step, of the entropy asked for, or just below."""
    # The entropy falls by a bit with every doubling of the step.
    step = float(density.std) * math.sqrt(12) * 2.0**-bits
    inside: _Cells | None = None
    small, large = 0.0, math.inf
    for trial in range(_STEPS):
        cells = _cells(density, place(step))
        if cells.bits <= bits:
            large = step
            if inside is None or cells.mse < inside.mse:
                inside = cells
            if cells.bits >= bits - _MET:
                break
        else:
            small = step
        new = step * 2.0 ** (cells.bits - bits)
        # Not the step that meets it exactly, but one whose entropy is a hair below.
        new *= 1 + 0.5 * _MET
        if trial < _FOLLOWED and small < new < large:
            step = new
        else:
            # Next to the entropy of equal cells it hardly depends on the step.
            step = 0.5 * (small + large) if math.isfinite(large) else 1.1 * step
    # A threshold on the mean costs a bit at once.
    return inside or _cells(density, np.empty(0))


def _reach(density: Density) -> tuple[float, float]:
    low, high = (float(end) for end in density.support)
    return max(low, float(density.quantile(_TAIL))), min(high, float(density.isf(_TAIL)))


def _thresholds(step: float, first: float, shift: float, low: float, high: float) -> Array:
    """All of first + (k + 1/2 + shift) step between both ends."""
    start, stop = math.ceil((low - first) / step - 0.5 - shift), math.floor((high - first) / step - 0.5 - shift)
    half = _MOST_CELLS // 2
    start, stop = max(start, -half), min(stop, half)
    return np.asarray(first + step * (np.arange(start, max(stop, start) + 1) + 0.5 + shift), np.float64)


def _least(density: Density, bits: float, start: _Cells) -> _Cells:
    """Lagrange's iteration, its multiplier chosen so that the entropy is met; never worse than the start."""
    best, cells = start, start
    # dD / dR of a quantizer with D ~ 2^(-2 R).
    log_slope, change = math.log(2 * math.log(2) * max(start.mse, 1e-300)), -0.5 / math.log(2)
    before: tuple[float, float] | None = None
    small, large = -math.inf, math.inf
    for _ in range(_TRIALS):
        cells = _settled(density, cells if cells.levels.size > 1 else start, math.exp(log_slope))
        if cells.bits <= bits + 1e-12 and cells.mse < best.mse:
            best = cells
        miss = cells.bits - bits
        if -_MET <= miss <= 0 or large - small < 1e-13:
            break
        if miss > 0:
            small = log_slope
        else:
            large = log_slope
        if before is not None and before[0] != log_slope:
            change = min((miss - before[1]) / (log_slope - before[0]), -1e-3)
        before = (log_slope, miss)
        new = log_slope - (miss + 0.5 * _MET) / change
        if not small < new < large:
            new = 0.5 * (max(small, log_slope - 2) + min(large, log_slope + 2))
        log_slope = new
    return best


def _settled(density: Density, cells: _Cells, slope: float) -> _Cells:
    """Thresholds and cells in turn until D + slope R no longer falls."""
    value = cells.mse + slope * cells.bits
    for _ in range(max(_MOVES // cells.mass.size, 8)):
        gap = np.diff(cells.levels)
        longer = -np.diff(np.log2(cells.mass))
        thresholds = 0.5 * (cells.levels[1:] + cells.levels[:-1]) + 0.5 * slope * longer / gap
        thresholds = np.maximum.accumulate(thresholds)
        new = _cells(density, np.unique(thresholds))
        if new.levels.size < 2:
            return new
        now = new.mse + slope * new.bits
        cells = new
        if value - now <= _SETTLED * now:
            break
        value = now
    return cells
