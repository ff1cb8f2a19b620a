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
# Newton's method: thresholds whose full matrix is solved, iterations before it, steps, and how small the last one is
# (of std; what an error of a threshold costs goes with its square).
_FEW_CELLS, _FIRST, _NEWTON, _STEP = 600, 3, 30, 2e-6
# Shorter parts of a step are not tried; cells of less mass keep their ends.
_SHORTEST, _FAINT = 1e-2, 1e-9


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
    """The best quantizer near one: by Newton's method where that does it, else by Lagrange's iteration."""
    if start.levels.size > 1 and not density.has_atoms:
        found = _newton(density, bits, start)
        if found is not None:
            return min(found, start, key=lambda cells: cells.mse)
    return _iterated(density, bits, start)


def _newton(density: Density, bits: float, start: _Cells) -> _Cells | None:
    """Thresholds of equal slope and the multiplier at once, the entropy met; None where they do not settle."""
    cells, slope = start, _slope(start)
    for _ in range(_FIRST):
        cells = _moved(density, cells, slope)
    goal, std = bits - 0.5 * _MET, float(density.std)
    for _ in range(_NEWTON):
        if cells.levels.size < 2:
            return None
        step, change = _newton_step(density, cells, slope, goal)
        part = 1.0
        while part > _SHORTEST and not (np.diff(cells.thresholds + part * step) > 0).all():
            part *= 0.5
        if part <= _SHORTEST or slope + part * change <= 0:
            return None
        cells, slope = _cells(density, cells.thresholds + part * step), slope + part * change
        if float(np.abs(step).max()) <= _STEP * std:
            return cells if bits - _MET <= cells.bits <= bits and cells.mse <= start.mse else None
    return None


def _newton_step(density: Density, cells: _Cells, slope: float, goal: float) -> tuple[Array, float]:
    """Changes of thresholds and multiplier towards (t - q)^2 - slope log2 P the same on both sides, at the entropy."""
    step = np.zeros(cells.thresholds.size)
    # Thresholds between cells that hold next to nothing, where P is rounding, stay.
    move = np.flatnonzero(np.minimum(cells.mass[1:], cells.mass[:-1]) >= _FAINT)
    if not 0 < move.size <= _FEW_CELLS:
        return np.full(step.size, np.nan), 0.0
    t, f = cells.thresholds[move], np.asarray(density.pdf(cells.thresholds[move]))
    below, above = t - cells.levels[move], t - cells.levels[move + 1]
    longer = np.log2(cells.mass[move]) - np.log2(cells.mass[move + 1])
    # What a threshold does to the mean and to log2 P of the cells below and above it.
    lower, upper = f / cells.mass[move], -f / cells.mass[move + 1]
    to_lower = -2 * below * lower * below - slope / math.log(2) * lower
    to_upper = 2 * above * upper * above + slope / math.log(2) * upper
    matrix = np.zeros((move.size + 1, move.size + 1))
    at, next_to = np.arange(move.size), np.flatnonzero(np.diff(move) == 1)
    matrix[at, at] = 2 * (below - above) + to_lower + to_upper
    # The upper level of a threshold is the lower one of the next.
    i, j = next_to, next_to + 1
    matrix[i, j] = 2 * above[i] * lower[j] * below[j] + slope / math.log(2) * lower[j]
    matrix[j, i] = -2 * below[j] * upper[i] * above[i] - slope / math.log(2) * upper[i]
    matrix[:-1, -1], matrix[-1, :-1] = -longer, -f * longer
    right = np.append(slope * longer - (below**2 - above**2), goal - cells.bits)
    size = np.abs(matrix).max(axis=1)
    if not (size > 0).all():
        return np.full(step.size, np.nan), 0.0
    found = np.linalg.lstsq(matrix / size[:, None], right / size, rcond=None)[0]
    step[move] = found[:-1]
    return step, float(found[-1])


def _slope(cells: _Cells) -> float:
    """-dD / dR of a quantizer with D ~ 2^(-2 R)."""
    return 2 * math.log(2) * max(cells.mse, 1e-300)


def _iterated(density: Density, bits: float, start: _Cells) -> _Cells:
    """Lagrange's iteration, its multiplier chosen so that the entropy is met; never worse than the start."""
    best, cells = start, start
    log_slope, change = math.log(_slope(start)), -0.5 / math.log(2)
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
        new = _moved(density, cells, slope)
        if new.levels.size < 2:
            return new
        now = new.mse + slope * new.bits
        cells = new
        if value - now <= _SETTLED * now:
            break
        value = now
    return cells


def _moved(density: Density, cells: _Cells, slope: float) -> _Cells:
    """The cells of thresholds at which levels and code lengths of neighbours weigh the same."""
    if cells.levels.size < 2:
        return cells
    gap = np.diff(cells.levels)
    longer = -np.diff(np.log2(cells.mass))
    thresholds = 0.5 * (cells.levels[1:] + cells.levels[:-1]) + 0.5 * slope * longer / gap
    return _cells(density, np.unique(np.maximum.accumulate(thresholds)))
