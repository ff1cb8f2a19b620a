"""Scale rules on torch tensors: passes over the data on its device, without loops over channels or waiting for it.

Each is a function `rule(x, z, previous, task)` that returns the scale of every group; x is a float32 or float64 tensor
whose groups span the axes `task.dims`, z the shift or None, `previous` the scale of the last call or None.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .levels import Levels, normalized, round_to_levels
from .on_host import best_scale

_PIECE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Task:
    """What a rule knows besides the data.

    Attributes
    ----------
    levels : Levels
    dims : tuple of int
        The axes that share a scale.
    constant : float
        The best scale of the family at unit power (rule "analytic").
    steps : int
        Of an iteration, each call.
    due : Tensor or None
        On the host: whether a search is to be made in this call, where there is a scale from before. None: it is.
    """

    levels: Levels
    dims: tuple[int, ...]
    constant: float
    steps: int
    due: Tensor | None = None

    def count(self, x: Tensor) -> int:
        """Elements of a group."""
        return math.prod([x.shape[d] for d in self.dims])


def power(x: Tensor, z: Tensor | None, task: Task) -> Tensor:
    """E[(x - z)^2] of each group."""
    centred = x if z is None else x - z
    return _square_sum(centred, task.dims) / task.count(x)


def _square_sum(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sum of squares in one pass over x. The norm adds one by one in float32: 16e6 at once would be 0.1 % short."""
    if x.stride(dims[-1]) == 1:
        norm = torch.linalg.vector_norm(x, 2, dims[-1], keepdim=True)
        return torch.linalg.vector_norm(norm, 2, dims, keepdim=True).square()
    # Down the columns the norm takes 20 times as long as a sum.
    return _by_pieces(lambda piece, _: (piece.square().sum(dims, keepdim=True),), x, None, dims)[0]


def _by_pieces(
    sums: Callable[[Tensor, Any], tuple[Tensor, ...]], x: Tensor, scale: Tensor | None, dims: tuple[int, ...]
) -> list[Tensor]:
    """Sums over each group from those of a few rows at a time, whose intermediate results stay in the cache."""
    rows = max(1, _PIECE * x.shape[0] // x.numel())
    pieces = x.split(rows)
    own = scale is not None and scale.ndim == x.ndim and 0 not in dims
    scales = scale.split(rows) if scale is not None and own else [scale] * len(pieces)
    found = zip(*(sums(piece, s) for piece, s in zip(pieces, scales, strict=True)), strict=True)
    return [torch.stack(parts).sum(0) if 0 in dims else torch.cat(parts) for parts in found]


def analytic_scale(of_power: Tensor, task: Task) -> Tensor:
    """The constant times the root of a mean square."""
    return task.constant * of_power.sqrt()


def _minmax(x: Tensor, z: Tensor | None, previous: Tensor | None, task: Task) -> Tensor:
    scale = torch.zeros((), dtype=x.dtype, device=x.device)
    plan = task.levels.plan
    for extreme, level in ((torch.amax, plan.high), (torch.amin, plan.low)):
        if level != 0:
            end = extreme(x, task.dims, keepdim=True)
            reach = end if z is None else end - z
            part = reach / level
            # A quotient rounded down would leave the extreme value itself outside.
            part = torch.where(reach.abs() / part.abs() > abs(level), part.nextafter(part.new_tensor(math.inf)), part)
            scale = torch.maximum(scale, part)
    return scale


def _analytic(x: Tensor, z: Tensor | None, previous: Tensor | None, task: Task) -> Tensor:
    return analytic_scale(power(x, z, task), task)


def _iterative(x: Tensor, z: Tensor | None, previous: Tensor | None, task: Task) -> Tensor:
    """S <- sum (x - z) l / sum l^2 with the cells frozen; from the analytic scale where there is nothing to go by."""
    start = _analytic(x, z, None, task)
    scale = start if previous is None else previous.to(x.dtype)
    plan, tables, dims = task.levels.plan, task.levels.tables(x.dtype), task.dims

    def sums(piece: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        level = round_to_levels(normalized(piece, s, None), plan, *tables).to(x.dtype)
        return _square_sum(level, dims), level.mul_(piece).sum(dims, keepdim=True)

    centred = x if z is None else x - z
    for _ in range(task.steps):
        square, product = _by_pieces(sums, centred, _positive(scale), dims)
        moved = product / square
        # All levels are 0 where the scale is far above the data, such as those of a weight that started at 0.
        scale = torch.where((square == 0) | (moved <= 0), start, moved)
    return scale


def _octav(x: Tensor, z: Tensor | None, previous: Tensor | None, task: Task) -> Tensor:
    """Newton's recursion for the clip a of least clipping plus step^2 / 12; from E|x| at first.

    a <- E[|x| 1(|x| > a)] / ((step / a)^2 / 12 P(|x| <= a) + P(|x| > a)); a holds 2^B steps, half of them if signed.
    """
    size = (x if z is None else x - z).abs()
    plan = task.levels.plan
    steps = plan.size if plan.low == 0 else plan.size / 2
    clip = size.mean(task.dims, keepdim=True) if previous is None else previous.to(x.dtype) * (steps * plan.step)
    inside_cost = 1 / (12 * steps**2)
    for _ in range(task.steps if previous is not None else max(task.steps, 20)):
        # As numbers: PyTorch's sums and products of truth values take several times as long.
        outside = (size > clip).to(size.dtype)
        share = outside.mean(task.dims, keepdim=True)
        beyond = outside.mul_(size).mean(task.dims, keepdim=True)
        moved = beyond / (inside_cost * (1 - share) + share)
        # Far beyond every value nothing is clipped and the recursion would fall to 0: start again from E|x|.
        clip = torch.where(moved == 0, size.mean(task.dims, keepdim=True), moved)
    return clip / (steps * plan.step)


def _lsq(x: Tensor, z: Tensor | None, previous: Tensor | None, task: Task) -> Tensor:
    """LSQ's start: 2 E|x| / sqrt(largest level) on integer grids; the analytic scale on others, which it knows not."""
    if task.levels.plan.step == 0:
        return _analytic(x, z, None, task)
    size = (x if z is None else x - z).abs()
    return 2 * size.mean(task.dims, keepdim=True) / math.sqrt(task.levels.plan.high)


def _optimal(x: Tensor, z: Tensor | None, previous: Tensor | None, task: Task) -> Tensor:
    return best_scale(x if z is None else x - z, task.levels.exact, task.dims, previous, task.due)


def _positive(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, 1.0, scale)


RULES: dict[str, Callable[[Tensor, Tensor | None, Tensor | None, Task], Tensor]] = {
    "minmax": _minmax,
    "analytic": _analytic,
    "iterative": _iterative,
    "octav": _octav,
    "lsq": _lsq,
    "optimal": _optimal,
}
