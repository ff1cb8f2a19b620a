"""Means and standard errors of the terms of the error, from blocks of values and what a quantizer makes of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from ..casting.arithmetic import level_round
from ..casting.cast import dequantize, quantize
from ..casting.kernels import make_kernel
from ..casting.scratch import Scratch
from ..grids.grid import Grid
from .sampling import BLOCK, Plan

TERMS = ("clipping", "rounding", "mse", "bias", "cross", "power", "mean")
# Sums of a block are those of its rows rounding, cross, power, error, and of the offset: in this order bias, cross,
# power and mean.
_ROWS, _OTHERS = 4, [3, 1, 2, 4]
# Elements of the longest buffer of a worker.
SCRATCH_SIZE = _ROWS * BLOCK


class Cast:
    """`fake_quantize` in float64 at one scale and shift, prepared once for many blocks."""

    def __init__(self, grid: Grid, scale: float, shift: float, rounding: str) -> None:
        self._scale, self._shift = scale, shift
        codes = quantize(np.append(grid.levels, -0.0), grid).astype(np.intp)
        values = dequantize(codes, grid, scale, shift, dtype=np.float64)
        self.lower, self.upper = float(values.min()), float(values.max())
        self.neighbours = np.unique(values) if rounding == "stochastic" else None
        self._levels = level_round(grid, stochastic=rounding == "stochastic")
        if self._levels is None:
            self._kernel = make_kernel(grid, np.float64, stochastic=rounding == "stochastic")
            self._least_code = int(codes.min())
            # A code that is none of the grid's would show: its value is not a number.
            self._values = np.full(int(codes.max()) - self._least_code + 1, np.nan)
            self._values[codes - self._least_code] = values

    def __call__(self, x: Array, out: Array, work: Array, scratch: Scratch) -> None:
        """Write the values that replace `x`; `work` holds two rows to overwrite."""
        q = out
        if self._shift:
            np.divide(np.subtract(x, self._shift, out=q), self._scale, out=q)
        else:
            np.divide(x, self._scale, out=q)
        if self._levels is not None:
            self._levels(q, work, scratch)
            q *= self._scale
            if self._shift:
                q += self._shift
            return
        codes = work[0].view(np.intp)
        self._kernel.round(q, codes, scratch)
        if self._least_code:
            codes -= self._least_code
        # The codes are in range; "clip" only spares NumPy a buffer.
        np.take(self._values, codes, out=out, mode="clip")


class Quantizer(Protocol):
    """What replaces values by those of a grid between `lower` and `upper`; by random neighbours, if there are any."""

    lower: float
    upper: float
    neighbours: Array | None

    def __call__(self, x: Array, out: Array, work: Array, scratch: Scratch) -> None:
        """Write the values that replace `x`; `work` holds two rows to overwrite."""


class BlockSums(NamedTuple):
    """Sums of one block: of the rows rounding, cross, power, bias and mean, and of what was clipped.

    `farther` is how many values stochastic rounding should send to the farther of their neighbours.
    """

    size: int
    total: Array
    square: Array
    n_clipped: int
    clipped_total: float
    clipped_square: float
    farther: float


def block_sums(cast: Quantizer, x: Array, weight: Array | None, centre: float, scratch: Scratch) -> BlockSums:
    """Sums, and sums of squared deviations from the block's own mean, of every term.

    `mean` and `power` are counted from `centre` and its square, so that a distant mean costs no digits.
    """
    rows = scratch.take("rows", np.float64, _ROWS * x.size).reshape(_ROWS, x.size)
    rounding, cross, power, error = rows
    # Memory is used again at once: what the threads have in flight must fit the cache that they share.
    cast(x, error, rows[:2], scratch)
    error -= x
    np.multiply(error, error, out=rounding)
    np.multiply(x, error, out=cross)
    offset = x - centre if centre else x
    np.multiply(offset, x + centre if centre else x, out=power)
    clipped = np.less(x, cast.lower, out=scratch.take("low", np.bool_, x.size))
    clipped |= np.greater(x, cast.upper, out=scratch.take("high", np.bool_, x.size))
    outside = np.flatnonzero(clipped)
    lost = rounding[outside]
    rounding[outside] = 0.0
    if weight is not None:
        rows *= weight
        lost *= weight[outside]
        offset = offset * weight
    total = np.array([*rows.sum(axis=1), offset.sum()])
    sum_c = float(lost.sum())
    # einsum and not a matrix product: its last bits depend on nobody's threads.
    if weight is None:
        raw = np.einsum("ij,ij->i", rows[:3], rows[:3])
        # What was squared before need not be squared again.
        raw = np.array([*raw, total[0] + sum_c, total[2] - 2.0 * centre * total[4]])
    else:
        raw = np.array([*np.einsum("ij,ij->i", rows, rows), np.einsum("i,i->", offset, offset)])
    square = raw - total * total / x.size
    if (square < 1e-6 * raw).any():
        square = np.array([np.square(row - row.mean()).sum() for row in (*rows, offset)])
    mean_c = sum_c / x.size
    square_c = float(np.square(lost - mean_c).sum()) + (x.size - lost.size) * mean_c * mean_c
    farther = _farther(cast.neighbours, x) if cast.neighbours is not None else np.inf
    return BlockSums(x.size, total, square, outside.size, sum_c, square_c, farther)


def _farther(values: Array, x: Array) -> float:
    """Sum of the probabilities of the farther neighbour."""
    inside = x[(x > values[0]) & (x < values[-1])]
    above = np.searchsorted(values, inside)
    high, gap = values[above], np.diff(values)[above - 1]
    return float((np.minimum(high - inside, gap - (high - inside)) / gap).sum())


class Tally(NamedTuple):
    """Sizes, means and sums of squared deviations of all terms: (..., 1) and (..., terms)."""

    size: Array
    mean: Array
    m2: Array
    clipped: NDArray[np.int64]
    farther: Array


def tally(blocks: Sequence[BlockSums]) -> Tally:
    """The moments of neighbouring blocks as one."""
    size = np.array([[block.size] for block in blocks], np.float64)
    total, square = (np.array([getattr(block, name) for block in blocks]) for name in ("total", "square"))
    total_c = np.array([[block.clipped_total] for block in blocks])
    square_c = np.array([[block.clipped_square] for block in blocks])
    rounding, others = total[:, :1], total[:, _OTHERS]
    # No value is both clipped and rounded: the products of the two vanish.
    square_mse = np.maximum(square_c + square[:, :1] - 2.0 * total_c * rounding / size, 0.0)
    mean = np.concatenate([total_c, rounding, total_c + rounding, others], axis=1) / size
    m2 = np.concatenate([square_c, square[:, :1], square_mse, square[:, _OTHERS]], axis=1)
    clipped, farther = (np.array([[getattr(block, name)] for block in blocks]) for name in ("n_clipped", "farther"))
    return merged(Tally(size, mean, m2, clipped, farther))


def merged(parts: Tally) -> Tally:
    """The parts along the first axis as one sample (Chan, Golub and LeVeque, 1983)."""
    size = parts.size.sum(axis=0)
    mean = (parts.size * parts.mean).sum(axis=0) / np.maximum(size, 1.0)
    m2 = parts.m2.sum(axis=0) + (parts.size * np.square(parts.mean - mean)).sum(axis=0)
    return Tally(size, mean, m2, parts.clipped.sum(axis=0), parts.farther.sum(axis=0))


EMPTY = Tally(np.zeros(1), np.zeros(len(TERMS)), np.zeros(len(TERMS)), np.zeros(1, np.int64), np.zeros(1))


def stacked(tallies: Sequence[Tally]) -> Tally:
    """Tallies along a new first axis."""
    return Tally(*(np.stack(column) for column in zip(*tallies, strict=True)))


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimates and standard errors, (rows, terms), how many values were clipped and what varied by clipping.

    `farther` as in `BlockSums`; infinite for rounding to nearest.
    """

    value: Array
    stderr: Array
    clipped: NDArray[np.int64]
    farther: Array
    share: Array


def combine(plan: Plan, parts: Tally) -> Estimate:
    """Put streams together, (streams, rows, groups, ...): as parts of each stratum, or as replicates."""
    if plan.replicates:
        means = parts.mean[:, :, 0]
        value = means.mean(axis=0)
        scatter = np.square(means - value).sum(axis=0)
        stderr = np.sqrt(scatter / (len(means) * (len(means) - 1.0)))
    else:
        whole = merged(parts)
        mass = plan.mass[:, None]
        value = (mass * whole.mean).sum(axis=1)
        stderr = _norm(mass * np.sqrt(whole.m2 / np.maximum(whole.size * (whole.size - 1.0), 1.0)))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.nan_to_num(np.square(stderr[:, 0] / stderr[:, 2]))
    return Estimate(value, stderr, parts.clipped.sum(axis=(0, 2, 3)), parts.farther.sum(axis=(0, 2, 3)), share)


def _norm(own: Array) -> Array:
    """Root of the sum of squares over the groups, also of numbers whose squares underflow."""
    top = own.max(axis=1, keepdims=True)
    unit = np.where(top > 0.0, top, 1.0)
    scaled: Array = unit[:, 0] * np.sqrt(np.square(own / unit).sum(axis=1))
    return scaled
