"""float32 values into bins, and the second look at those few that decide between the scales that bins leave."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from .._threads import thread_map
from ..files.elements import TensorInfo
from ..files.mapping import Checkpoint
from ..grids.grid import Grid
from ..results import Status
from ..tensors.fitting import fit
from .bins import BITS, Bins

# Values that are looked at together, and how many times that before what they hold is added up.
_STEP, _TOGETHER = 1 << 20, 16
# Bytes for each different undecided value (measured: 32 in the search, 16 for value and weight, 12 to count them).
_UNDECIDED_COST = 72.0


def count_bins(
    checkpoint: Checkpoint,
    info: TensorInfo,
    bits: int = BITS,
    progress: Callable[[int], None] | None = None,
    part: tuple[int, int] | None = None,
) -> Bins:
    """Count the values of a float32 tensor, or its elements from one to another, by their leading bits."""
    low, (begin, end) = 32 - bits, part or (0, info.size)
    # Sums of so many squares of `low` bits are exact in float64.
    step = min(_STEP, 1 << (53 - 2 * low))
    starts = range(begin, end, step)
    total = np.zeros((3, 1 << bits), np.int64)
    ends = [np.inf, -np.inf]

    def work(start: int) -> tuple[Any, ...]:
        last = min(start + step, end)
        word = checkpoint.part_bits(info.name, start, last)
        value = word.view(np.float32)
        if not np.isfinite(value).all():
            nan = int(np.isnan(value).sum())
            raise ValueError(
                f"x must be finite, got {nan} NaN and {int(np.isinf(value).sum())} infinite of values {start} to {last}"
            )
        key, rest = (word >> np.uint32(low)).astype(np.intp), (word & np.uint32((1 << low) - 1)).astype(np.float64)
        sums: list[Any] = [np.bincount(key, w, 1 << bits) for w in (None, rest, rest * rest)]
        if progress:
            progress(4 * (last - start))
        return (*sums, np.array([value.min(), value.max()], np.float64))

    every = list(starts)
    for some in range(0, len(every), 4):
        for *sums, pair in thread_map(work, every[some : some + 4]):
            for row, more in zip(total, sums, strict=True):
                row += more.astype(np.int64)
            ends = [min(ends[0], pair[0]), max(ends[1], pair[1])]
    keys = np.flatnonzero(total[0])
    counts, first, second = total[:, keys]
    return Bins(bits, keys, counts, first, second, float(ends[0]), float(ends[1]))


def exact_best(
    checkpoint: Checkpoint,
    info: TensorInfo,
    bins: Bins,
    grid: Grid,
    shift: float = 0.0,
    *,
    memory: float = math.inf,
) -> tuple[float, float, Status]:
    """The best scale of all values and its error, from the bins and a second look at the undecided values alone.

    In a bin that no threshold meets all values go to one level at every scale that may be the best: their count and sum
    are all that counts. The least error of the other values themselves and these means is at the best scale of all.

    Raises
    ------
    MemoryError
        If there are more different undecided values than `memory` bytes have room for.
    """
    open_ = bins.undecided(grid, shift)
    raw, times = _undecided(checkpoint, info, bins, open_, memory)
    if times.sum() != bins.counts[open_].sum():
        raise ValueError(f"the values of {shown(info.name, 60)} have changed since they were counted; scan them again")
    values, mass = bins.means()
    x = np.concatenate([values[~open_], raw.view(np.float32).astype(np.float64)])
    weights = np.concatenate([mass[~open_], times / bins.size])
    sample = fit(x, grid, weights=weights, shift=shift, measure=False)
    status: Status = sample.status.item() if np.ndim(sample.status) else sample.status
    return float(sample.scale), float(sample.total.mse) + bins.within(~open_), status


def _undecided(
    checkpoint: Checkpoint, info: TensorInfo, bins: Bins, open_: NDArray[np.bool_], memory: float
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The different values in some bins, and how often each is there."""
    low = 32 - bins.bits
    wanted = np.zeros(1 << bins.bits, np.bool_)
    wanted[bins.keys[open_]] = True

    def work(start: int) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
        word = checkpoint.part_bits(info.name, start, min(start + _STEP, info.size))
        return np.unique(word[wanted[word >> np.uint32(low)]], return_counts=True)

    raw, times = np.empty(0, np.uint32), np.empty(0, np.int64)
    starts = range(0, info.size, _STEP)
    for some in range(0, len(starts), _TOGETHER):
        parts = [(raw, times), *thread_map(work, starts[some : some + _TOGETHER])]
        raw, place = np.unique(np.concatenate([part for part, _ in parts]), return_inverse=True)
        total = np.zeros(raw.size, np.int64)
        np.add.at(total, place, np.concatenate([count for _, count in parts]))
        times = total
        if raw.size * _UNDECIDED_COST > memory:
            most = min(int(bins.counts[open_].sum()), int(open_.sum()) << low)
            raise MemoryError(
                f"{shown(info.name, 60)}: up to {most / 1e6:.0f} million values decide, which take about "
                f"{most * _UNDECIDED_COST / 1e9:.1f} GB; allow them, as in --memory "
                f"{math.ceil(most * _UNDECIDED_COST / 1e9)}GB, or scan with more --bits"
            )
    return raw, times
