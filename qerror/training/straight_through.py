"""The fake quantizer as one differentiable function, with the gradients of the literature."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .levels import Plan, dequantized, normalized, round_to_levels

GRADIENTS = ("straight_through", "magnitude_aware", "learned_scale", "within_blocks")
# By so much the scale of a block, its tensor scale and the quotient, each rounded to float32, may move q = x / s.
_ROUNDING = 2.0**-22


class _FakeQuantized(torch.autograd.Function):
    """y = z + s * (the level nearest to (x - z) / s); see `fake_quantized`."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor | None,
        bounds: Tensor,
        values: Tensor,
        plan: tuple[Any, ...],
        gradient: str,
        factor: float,
        chance: Tensor | None,
    ) -> Tensor:
        ctx.save_for_backward(x, scale, shift, bounds, values)
        ctx.plan, ctx.gradient, ctx.factor = plan, gradient, factor
        constants = Plan(*plan)
        q = normalized(x, scale, shift, double=constants.double, zeros=constants.zeros)
        level = round_to_levels(q, constants, bounds, values, chance)
        return dequantized(level, scale, shift, x.dtype, constants)

    @staticmethod
    def backward(ctx: Any, *upstream: Any) -> Any:
        x, scale, shift, bounds, values = ctx.saved_tensors
        plan = Plan(*ctx.plan)
        q = normalized(x, scale, shift, double=plan.double, zeros=plan.zeros)
        g = upstream[0].to(q.dtype)
        if ctx.gradient == "magnitude_aware":
            end = q.clamp(plan.low, plan.high)
            by_x = torch.where(q == end, g, g * end / q)
        else:
            slack = _ROUNDING if ctx.gradient == "within_blocks" else 0.0
            by_x = _inside(g, q, plan, closed=ctx.gradient != "learned_scale", slack=slack)
        by_scale = None
        if ctx.gradient == "learned_scale" and ctx.needs_input_grad[1]:
            by_scale = _by_scale(g, q, scale, plan, bounds, values) * ctx.factor
        return by_x.to(x.dtype), by_scale, None, None, None, None, None, None, None


def _inside(g: Tensor, q: Tensor, plan: Plan, *, closed: bool, slack: float = 0.0) -> Tensor:
    """The gradient where q lies between the end levels (on them too if `closed`), 0 elsewhere, in one pass."""
    low, high = plan.low - slack * abs(plan.low), plan.high + slack * abs(plan.high)
    if closed:
        # The kernel leaves out its ends, so they are moved out to the next numbers of the type of q.
        low, high = _neighbour(low, -math.inf, q.dtype), _neighbour(high, math.inf, q.dtype)
    inside: Tensor = torch.ops.aten.hardtanh_backward(g, q, low, high)
    return inside


def _neighbour(value: float, toward: float, dtype: torch.dtype) -> float:
    kind = np.float64 if dtype == torch.float64 else np.float32
    return float(np.nextafter(kind(value), kind(toward)))


def _by_scale(g: Tensor, q: Tensor, scale: Tensor, plan: Plan, bounds: Tensor, values: Tensor) -> Tensor:
    """LSQ's d y / d s, the end level beyond it and level - q inside, summed over each scale; overwrites q."""
    kept = _inside(q, q, plan, closed=False)
    slope = round_to_levels(q, plan, bounds, values).to(g.dtype).sub_(kept).mul_(g)
    return slope.sum_to_size(scale.shape).to(scale.dtype)


def fake_quantized(
    x: Tensor,
    scale: Tensor,
    shift: Tensor | None,
    tables: tuple[Tensor, Tensor],
    plan: Plan,
    gradient: str = "straight_through",
    factor: float = 1.0,
    chance: Tensor | None = None,
) -> Tensor:
    """Replace x by the nearest representable values; what the rounding does to the gradient is one of four rules.

    With q = (x - z) / s and the end levels l, h: "straight_through" has dy/dx = 1 where l <= q <= h and 0 beyond;
    "magnitude_aware" has h / q and l / q beyond the ends instead of 0; "learned_scale" is straight-through in x and
    has dy/ds = factor * (level - q inside, h or l beyond); in both the ends count as beyond, as in the paper.
    "within_blocks" is straight-through, where what the rounding of scales to float32 moved beyond an end is inside.

    Parameters
    ----------
    x : Tensor
    scale, shift : Tensor
        Broadcast against x; shift None is 0.
    tables : pair of Tensor
        Of `Levels.tables`.
    plan : Plan
    gradient : {"straight_through", "magnitude_aware", "learned_scale", "within_blocks"}
    factor : float
        LSQ's gradient scale.
    chance : Tensor, optional
        Uniform in [0, 1), in the shape of x: round stochastically.

    Returns
    -------
    Tensor
        In the shape and dtype of x.

    References
    ----------
    Bengio et al., arXiv 1308.3432 (straight-through); Sakr et al., ICML 2022, arXiv 2206.06501 (magnitude-aware
    differentiation); Esser et al., ICLR 2020, arXiv 1902.08153, eq. 3 (learned step size).
    """
    y: Tensor = _FakeQuantized.apply(x, scale, shift, *tables, tuple(plan), gradient, factor, chance)
    return y
