"""The error of a sample value by value: what casting gives, with nothing to cancel and nothing prepared.

For a few scales this is cheaper than sums over cells, whose prefix sums must first be made.
"""

from __future__ import annotations

import numpy as np

from .._threads import chunk_slices, thread_map
from .._types import Array, Index
from ..casting.arithmetic import level_round
from ..casting.cast import dequantize, quantize
from ..casting.losses import PIECE, Losses
from ..casting.scratch import Scratch
from ..densities.base import Density
from ..grids.grid import Grid
from ..samples.double_double import two_sum
from ..samples.rows import Rows, rows_of

# Scales a row up to which its values are rounded one by one, and the row length from which sums over blocks are kept.
_FEW = 8
_LONG = 1 << 20
# Shift in scales up to which the rounding of x - z does not show in the error.
_FAR = 1 << 9
# Values in flight.
_CHUNK = 1 << 17


def pays(density: Density, scale: Array, shift: Array) -> bool:
    """Whether these scales of a density are evaluated faster value by value, and as accurately."""
    held = rows_of(density)
    if held is None or held[0].n > _LONG or scale.size > _FEW * held[0].values.shape[0]:
        return False
    return bool((np.abs(shift) <= _FAR * scale).all())


def error_rows(density: Density, grid: Grid, scale: Array, shift: Array) -> Array:
    """Clipping, rounding, bias, cross and the derivatives by scale and shift, shape (6, n), rounding to nearest."""
    held = rows_of(density)
    assert held is not None
    rows, source = held
    source = np.broadcast_to(source, scale.shape)
    out = np.empty((6, scale.size))

    def work(part: slice) -> None:
        out[:, part] = _terms(rows, source[part], grid, scale[part], shift[part])

    thread_map(work, chunk_slices(scale.size, max(1, _CHUNK // rows.n)))
    return out


def mse_of_rows(density: Density, grid: Grid, scale: Array, shift: Array) -> Array | None:
    """The MSE of each member of a sample at several scales and shifts, shape (R, F); None where this does not pay.

    Every value is rounded at every scale, in the caches.
    """
    held = rows_of(density)
    if held is None or held[0].n > _LONG or not (np.abs(shift) <= _FAR * scale).all():
        return None
    rows, source = held
    source, out = np.broadcast_to(source, scale.shape[:1]), np.empty(scale.shape)
    step = max(1, PIECE // rows.n)

    def work(part: slice) -> None:
        some = rows.select(source[part])
        x = np.asarray(some.values, np.float64)
        loss = Losses(grid, x.size)
        for k, (s, z) in enumerate(zip(scale[part].T, shift[part].T, strict=True)):
            out[part, k] = loss(x - z[:, None] if z.any() else x, s, some.weights) / some.total

    thread_map(work, chunk_slices(len(scale), step))
    return out


def _terms(rows: Rows, source: Index, grid: Grid, scale: Array, shift: Array) -> Array:
    some, s = rows.select(source), scale[:, None]
    # In one piece of memory, written over again: fresh pages would cost more than what is done with them.
    work = np.empty((4, *some.values.shape))
    level, error, x, _ = work
    x[:] = some.values
    round_ = level_round(grid)
    if round_ is None:
        level[:] = dequantize(quantize(x, grid, s, shift[:, None]), grid, dtype=np.float64)
    else:
        # As casting divides; what it would refuse is far from any scale of a search.
        with np.errstate(over="ignore", under="ignore"):
            np.divide(np.subtract(x, shift[:, None], out=level) if shift.any() else x, s, out=level)
        flat = work.reshape(4, -1)
        round_(flat[0], flat[1::2], Scratch(level.size))
    # A value very near its level keeps the digits of its distance.
    y, lost = two_sum(x, -shift[:, None]) if shift.any() else (x, None)
    np.multiply(s, level, out=error)
    error -= y
    if lost is not None:
        error -= lost
    weighted = error if some.weights is None else error * some.weights
    bias = weighted.sum(axis=1)
    cross, by_scale = (np.einsum("ij,ij->i", weighted, a) for a in (x, level))
    beyond = y < s * grid.min
    beyond |= y > s * grid.max
    np.multiply(weighted, error, out=error)
    clipped = np.multiply(error, beyond, out=level)
    error -= clipped
    sums = np.array([clipped.sum(axis=1), error.sum(axis=1), bias, cross, 2 * by_scale, 2 * bias])
    sums /= some.total
    return sums
