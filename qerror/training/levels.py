"""Rounding of torch tensors to the levels of a grid, to the same bits as `qerror.fake_quantize`."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .._types import Array
from ..casting.arithmetic import is_plain_uniform
from ..casting.kernels import last_below
from ..grids.grid import Grid

# Scales for which q = x / s is computed in float32, in the library as here.
_LEAST_SCALE, _LARGEST_SCALE = 2.0**-126, 2.0**126
# Grids that reach farther than this (bf16, e8m0) have their values kept finite one by one, others by their scale.
_WIDE = 2.0**64


class Plan(NamedTuple):
    """How to round to a grid: constants, so that torch.compile can fold them.

    Attributes
    ----------
    kind : {"uniform", "floating", "codebook"}
    low, high : float
        The end levels.
    step : float
        Of a uniform grid, a power of two.
    mantissa_bits : int
        Of a floating-point grid.
    least : float
        Its smallest normal level.
    negative_zero : bool
        Whether the grid has -0.
    single : bool
        Whether float32 holds all levels exactly.
    wide : bool
        Whether scale * level may leave the range of float32.
    size : int
        How many levels there are.
    double : bool
        Whether q is computed in float64 for every type of x: a scale has left the range of float32.
    zeros : bool
        Whether scales may be 0, where all values become 0.
    """

    kind: str
    low: float
    high: float
    step: float
    mantissa_bits: int
    least: float
    negative_zero: bool
    single: bool
    wide: bool
    size: int
    double: bool = False
    zeros: bool = False

    @property
    def absmax(self) -> float:
        """The largest magnitude among the levels."""
        return max(abs(self.low), abs(self.high))

    @classmethod
    def of(cls, grid: Grid) -> Plan:
        """The plan of a grid."""
        spec = grid.float_spec
        # Without mantissa bits ties go by the parity of the exponent: a search among the thresholds knows that.
        floating = spec is not None and spec.signed and spec.subnormals and spec.mantissa_bits > 0
        kind = "floating" if floating else "uniform" if is_plain_uniform(grid) and _whole(grid) else "codebook"
        return cls(
            kind,
            grid.min,
            grid.max,
            grid.step or 0.0,
            spec.mantissa_bits if spec else 0,
            2.0 ** (1 - spec.bias) if spec else 0.0,
            spec is not None and spec.signed and spec.reserved != "fnuz",
            in_single(grid.levels),
            grid.absmax > _WIDE,
            len(grid),
        )


class Levels(nn.Module):
    """The plan of a grid and, for codebooks, its thresholds and levels as buffers that follow the device."""

    bounds: Tensor
    bounds_double: Tensor
    values: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.plan = Plan.of(grid)
        self.exact: tuple[float, ...] = tuple(grid.levels.tolist())
        needed = self.plan.kind == "codebook"
        # For each threshold the largest number that still goes to the level below it, in the type of q.
        tables = {
            "bounds": last_below(grid, np.float32),
            "bounds_double": last_below(grid, np.float64),
            "values": grid.levels,
        }
        for name, table in tables.items():
            self.register_buffer(name, torch.tensor(table if needed else []), persistent=False)

    def tables(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Bounds and levels for q of a type, float64 or what is computed in float32."""
        return (self.bounds_double if dtype == torch.float64 else self.bounds), self.values


def in_single(values: Array) -> bool:
    """Whether float32 holds all values."""
    with np.errstate(over="ignore"):
        return bool((values == values.astype(np.float32)).all())


def _whole(grid: Grid) -> bool:
    return grid.step is not None and float(grid.min / grid.step).is_integer()


def normalized(x: Tensor, scale: Tensor, shift: Tensor | None, *, double: bool = False, zeros: bool = False) -> Tensor:
    """(x - z) / s in the type of the computation: float64 for float64, else float32; never a view of x.

    0 where the scale is, if `zeros`.
    """
    wide = x.double() if double or x.dtype == torch.float64 else x.float()
    if shift is not None:
        wide = wide - shift.to(wide.dtype)
    if zeros:
        scale = torch.where(scale == 0, math.inf, scale)
    return wide / scale.to(wide.dtype)


def round_to_levels(q: Tensor, plan: Plan, bounds: Tensor, values: Tensor, chance: Tensor | None = None) -> Tensor:
    """The level nearest to each q, ties to the even code; may overwrite q.

    Float64 where float32 does not hold the levels, else in the type of q. With `chance`, uniform in [0, 1), the
    neighbour b of a <= q <= b where it is below (q - a) / (b - a).
    """
    if plan.kind == "uniform":
        q = q.clamp_(plan.low, plan.high)
        q = q if plan.step == 1 else q.div_(plan.step)
        # The clamped ends are whole steps. + 0 makes -0, which integers do not have, +0.
        q = _round_whole(q, chance)
        return (q if plan.step == 1 else q.mul_(plan.step)).add_(0.0)
    if plan.kind == "floating":
        return _round_floating(q.clamp_(plan.low, plan.high), plan, chance)
    wide = values if q.dtype == torch.float64 or not plan.single else values.float()
    if chance is None:
        level = wide[torch.bucketize(q.contiguous(), bounds, out_int32=True)]
    else:
        q = q.clamp_(plan.low, plan.high)
        below = (torch.bucketize(q.contiguous(), wide, out_int32=True, right=True) - 1).clamp_(0, plan.size - 2)
        a, b = wide[below], wide[below + 1]
        level = torch.where(chance * (b - a) < q - a, b, a)
    return torch.where(level == 0, torch.copysign(level, q), level) if plan.negative_zero else level


def _round_whole(q: Tensor, chance: Tensor | None) -> Tensor:
    if chance is None:
        return q.round_()
    floor = q.floor()
    return torch.copysign(floor + (chance < q - floor), q)


def _round_floating(q: Tensor, plan: Plan, chance: Tensor | None = None) -> Tensor:
    """Round to whole ulps of the binade of q; division by a power of two is exact."""
    integer, mask = (torch.int64, 0x7FF << 52) if q.dtype == torch.float64 else (torch.int32, 0xFF << 23)
    ulp = q.view(integer).bitwise_and(mask).view(q.dtype)
    ulp = ulp.clamp_min_(plan.least).mul_(2.0**-plan.mantissa_bits)
    level = _round_whole(q.div_(ulp), chance).mul_(ulp)
    return level if plan.negative_zero else level.add_(0.0)


def dequantized(level: Tensor, scale: Tensor, shift: Tensor | None, dtype: torch.dtype, plan: Plan) -> Tensor:
    """Z + s * level, rounded once to float32 or float64; may overwrite `level`.

    16-bit results are rounded to float32 first.
    """
    if shift is None and level.dtype == torch.float32 and dtype != torch.float64:
        # Products of float32 levels and scales are exact in float64: rounding them to float32 is one rounding. Those
        # with float64 scales are computed in that.
        value = level.mul_(scale) if scale.dtype == torch.float32 else level.double().mul_(scale).float()
    else:
        value = level.double() * scale.double()
        if shift is not None:
            # x + (-0.0) is x, also where x is -0: a zero shift leaves values alone, as it does in the library.
            z = shift.double()
            value = value.add_(torch.where((z == 0).all(), -0.0, z))
    if plan.zeros:
        value = value.masked_fill_(scale == 0, 0.0)
    if value.dtype == dtype and not plan.wide:
        return value
    largest = torch.finfo(dtype).max
    return value.clamp_(-largest, largest).to(dtype)


def usable_scale(scale: Tensor, plan: Plan) -> Tensor:
    """Keep a scale where neither x / s nor (but for wide grids) s * level leaves the range of float32."""
    largest = _LARGEST_SCALE if plan.wide else torch.finfo(torch.float32).max / plan.absmax
    return scale.clamp(_LEAST_SCALE, min(_LARGEST_SCALE, largest))
