"""Scales of block formats on torch tensors, to the same bits as `qerror.fake_quantize` finds them."""

from __future__ import annotations

import json
import math

import numpy as np
import torch
from torch import Tensor, nn

from ..files.quantized import describe_block_format
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import OCTAVES, farthest_is_lowest, octave_end, stored_scales
from .levels import Levels, Plan, in_single, round_to_levels
from .on_host import best_scale

# Scales with which the library computes q = x / s in float32.
_LEAST, _BEYOND = 2.0**-126, 2.0**127
_LARGEST = float(np.finfo(np.float64).max)


class BlockScales(nn.Module):
    """The scale of each block by the rule of a format; its tables are buffers that follow the device.

    Parameters
    ----------
    form : BlockFormat
    """

    values: Tensor

    def __init__(self, form: BlockFormat) -> None:
        super().__init__()
        self.form = form
        stored = form.scale_format
        self.stored = None if stored is None or form.rule != "absmax" else Levels(stored)
        values = np.zeros(0) if stored is None else stored_scales(stored)
        self.register_buffer("values", torch.tensor(values), persistent=False)
        # What the search on the host is told: without a scale format it knows grids alone.
        self.text = "" if form.rule == "optimal" and stored is None else json.dumps(describe_block_format(form))
        self.levels: tuple[float, ...] = tuple(form.grid.levels.tolist())
        self.zeros = int(values.size > 0 and values[0] == 0)
        # Numbers, which a compiler takes for constants.
        self.absmax, self.turned_above = form.grid.absmax, farthest_is_lowest(form.grid)
        self.end = octave_end(form.grid, form.rule) if form.rule in OCTAVES else math.nan
        # Whether float32 holds all scales, so that products with float32 levels need no float64.
        self.single = stored is not None and not form.tensor_scale and in_single(values)

    def tensor_scale(self, x: Tensor) -> Tensor | None:
        """The float32 with which the largest magnitude of x needs the largest scale; None for formats without."""
        if self.form.full_scale is None:
            return None
        low, high = torch.aminmax(x)
        largest = torch.maximum(-low, high).double()
        range_ = torch.finfo(torch.float32)
        unit = (largest / (self.form.full_scale * self.absmax)).clamp(range_.tiny, range_.max)
        return torch.where(largest == 0, 1.0, unit).float()

    def forward(self, blocks: Tensor, unit: Tensor | None, previous: Tensor | None, due: Tensor | None) -> Tensor:
        """Scales in units of the tensor scale, float64, of blocks along the last axis, which becomes 1 long.

        NaN where values are not finite. The rules best_of and optimal run on the host, where `due` (see `best_scale`).
        """
        form = self.form
        if form.rule in ("best_of", "optimal"):
            wide = blocks if blocks.dtype == torch.float64 else blocks.float()
            found = best_scale(wide, self.levels, (blocks.ndim - 1,), previous, due, self.text, unit)
            return found.double()
        size = blocks.abs()
        largest = size.amax(-1, keepdim=True).double()
        t = largest.new_ones(()) if unit is None else unit.double()
        scale = torch.where(torch.isfinite(largest), self._by_largest(largest, t), math.nan)
        if not form.signed:
            return scale
        value = blocks.gather(-1, size.argmax(-1, keepdim=True))
        turned = (value > 0) if self.turned_above else (value < 0)
        return torch.where(turned & (scale != 0), -scale, scale)

    def _by_largest(self, largest: Tensor, unit: Tensor) -> Tensor:
        form, c, absmax = self.form, self.form.constants[0], self.absmax
        if form.rule in OCTAVES:
            return self._power_of_two(largest, unit)
        if form.rule in ("up", "down"):
            bounds, up = self.values * (absmax * unit), form.rule == "up"
            place = torch.searchsorted(bounds, (c * largest).contiguous(), right=not up) - (0 if up else 1)
            return self.values[place.clamp(0, len(self.values) - 1)]
        quotient = (c * largest / (absmax * unit)).clamp(max=_LARGEST)
        if self.stored is None:
            return quotient
        # What is not finite is put aside: the scale is NaN there anyway.
        found = round_to_levels(quotient.nan_to_num(), self.stored.plan, *self.stored.tables(torch.float64))
        return torch.maximum(found.double(), self.values[0])

    def _power_of_two(self, largest: Tensor, unit: Tensor) -> Tensor:
        """2^k with theta / 2 <= c M / 2^k < theta, by mantissas and exponents; see `qerror.casting.block_scales`."""
        form = self.form
        (part, power), (end, end_power) = torch.frexp(unit), math.frexp(self.end)
        mantissa, exponent = torch.frexp(largest.nan_to_num())
        mantissa, more = torch.frexp(mantissa * (form.constants[0] / part))
        beyond = mantissa > end if form.rule in ("ceil", "rceil") else mantissa >= end
        k = (exponent + more - power - end_power + beyond).to(torch.int64)
        exponents = torch.frexp(self.values[self.zeros :])[1].to(torch.int64) - 1
        place = torch.searchsorted(exponents, k.contiguous(), right=True) + (self.zeros - 1)
        place = torch.where(largest > 0, place.clamp(0, len(self.values) - 1), 0)
        return self.values[place]

    def usable(self, scale: Tensor, x: Tensor, plan: Plan) -> tuple[Tensor, Plan]:
        """The product of block and tensor scales for the blocks x, and the plan of casting with it.

        As in the library, q is computed in float64 where any scale is below 2^-126 or not below 2^127. That is looked
        up on the CPU alone, where nothing waits for it; else such small scales become 0, such large ones 2^127.
        """
        size = scale.detach().abs()
        if x.dtype == torch.float64:
            return scale, plan._replace(zeros=True)
        if torch.compiler.is_compiling() or x.device.type != "cpu":
            scale = torch.where(size < _LEAST, 0.0, scale.clamp(-_BEYOND, _BEYOND))
            return (scale.float() if self.single else scale), plan._replace(zeros=True, wide=True)
        zero = size == 0
        low, high = (float(end) for end in torch.aminmax(torch.where(zero, 1.0, size)))
        double = low < _LEAST or high >= _BEYOND
        wide = plan.wide or high * plan.absmax > torch.finfo(x.dtype).max
        plan = plan._replace(double=double, wide=wide, zeros=bool(zero.any()))
        return (scale.float() if self.single and not double else scale), plan
