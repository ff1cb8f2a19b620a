"""One plan for all groups of a tensor: checked arguments, chunks of rows, costs."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array, check_choice, check_finite, check_shift, shown
from .._threads import thread_map
from ..densities.named import fit_density
from ..densities.parametric import Gaussian
from ..densities.samples import as_values
from ..grids.formats import BlockFormat, block_format, block_formats
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .choosing import Choice, Plan, choose
from .costs import Costs, GroupCosts
from .groups import Groups
from .measure import measure
from .rules import optimal
from .stored_scales import Stored, scale_grid
from .unsorted import Unsorted

__all__ = ["Task", "as_array", "as_weights", "resolve_format", "shift_policy", "spread", "with_family"]

Array = NDArray[np.float64]

# Elements whose rows are fitted together: a quarter of the tensor, within limits. Smaller parts keep threads waiting
# for the interpreter lock; a search for the scale alone needs little memory for each, and may have more of them.
_FEWEST, _CHUNK, _SEARCH_CHUNK = 1 << 19, 1 << 20, 1 << 22
# The search for stored scales remembers all that it has looked at: its rows are fitted in smaller parts.
_STORED_CHUNK = 1 << 17
# The limit of the values themselves: squares stay within float64.
_LARGEST = 1e100
# Values to which family="auto" is fitted, evenly spread over the tensor.
_POOLED = 1 << 22


@dataclasses.dataclass(frozen=True)
class Task:
    """The same plan for every group of a tensor."""

    groups: Groups
    plan: Plan
    shift: Any

    def run(self, values: NDArray[Any], weights: Array | None) -> list[Choice]:
        """Choose for every group: one `Choice` for each part of the rows."""
        try:
            return [
                _joined(thread_map(lambda chunk: choose(*chunk, self.plan), chunks))
                for chunks in self._chunks(values, weights)
            ]
        except ValueError:
            # What a chunk says of NaN counts within that chunk.
            check_finite("x", values)
            raise

    def _chunks(
        self, values: NDArray[Any], weights: Array | None
    ) -> list[list[tuple[NDArray[Any], Array | None, Any]]]:
        parts = self.groups.rows(values)
        weighted = [None] * len(parts) if weights is None else self.groups.rows(weights)
        fixed = not isinstance(self.shift, str)
        search = fixed and self.plan.rule is optimal and not self.plan.integer
        most = _STORED_CHUNK if self.plan.stored is not None else _SEARCH_CHUNK if search else _CHUNK
        shifts = self.groups.split(self.shift) if fixed else [self.shift] * len(parts)
        out = []
        for rows, weight, shift in zip(parts, weighted, shifts, strict=True):
            step = max(1, min(max(rows.size // 4, _FEWEST), most) // rows.shape[1])
            cuts = [slice(i, i + step) for i in range(0, rows.shape[0], step)]
            out.append([(rows[c], None if weight is None else weight[c], shift[c] if fixed else shift) for c in cuts])
        return out

    def measured(self, chosen: list[Choice], values: NDArray[Any], weights: Array | None) -> GroupCosts:
        """Costs of what was chosen, by quantizing."""
        rows = self.groups.rows(values)
        weighted = [None] * len(rows) if weights is None else self.groups.rows(weights)
        found = [
            measure(x, w, self.plan.grid, part.scale, part.shift)
            for x, w, part in zip(rows, weighted, chosen, strict=True)
        ]
        terms, clipped = [f.sums / f.weight for f in found], [f.clipped / f.weight for f in found]
        return GroupCosts(terms, [f.weight for f in found], clipped)

    def costs(self, chosen: list[Choice], x: Any, weights: Any, *, best: bool) -> Costs:
        """The costs of what was chosen, to be measured later; `best` where it is the optimum itself."""

        def measure_from(x: Any, weights: Any) -> GroupCosts:
            return self.measured(chosen, as_array(x), as_weights(weights, self.groups))

        def optimum_from(x: Any, weights: Any) -> GroupCosts:
            values, weight = as_array(x), as_weights(weights, self.groups)
            task = dataclasses.replace(self, plan=dataclasses.replace(self.plan, rule=optimal))
            return task.measured(task.run(values, weight), values, weight)

        return Costs(self.groups, (x, weights), measure_from, None if best else optimum_from)


def _joined(parts: list[Choice]) -> Choice:
    if len(parts) == 1:
        return parts[0]
    scale, shift, status = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("scale", "shift", "status")
    )
    integers = [part.zero_point for part in parts if part.zero_point is not None]
    zero_point = np.concatenate(integers) if integers else None
    return Choice(scale, shift, status, zero_point)


def as_array(x: ArrayLike) -> NDArray[Any]:
    """Values as float16, float32 or float64; see `fit`."""
    try:
        return as_values(x)
    except (TypeError, RuntimeError) as error:
        # What torch raises for bfloat16, for gradients and for other devices.
        remedy = "of a torch tensor give x.detach().float().cpu().numpy()"
        raise ValueError(f"x cannot be read as an array: {error}; {remedy}") from None


def as_weights(weights: ArrayLike | None, groups: Groups) -> Array | None:
    """Weights broadcast to the tensor, none negative, no group without any."""
    if weights is None:
        return None
    array = as_float_array("weights", weights)
    check_finite("weights", array)
    if (array < 0).any():
        raise ValueError(f"weights must be >= 0, got {array.min():g}")
    try:
        spread = np.broadcast_to(array, groups.shape)
    except ValueError:
        raise ValueError(f"weights of shape {array.shape} must broadcast to x of shape {groups.shape}") from None
    if not all((rows.sum(axis=1) > 0).all() for rows in groups.rows(spread)):
        raise ValueError("weights must not all be 0 in a group; leave such groups out")
    return spread


@dataclasses.dataclass(frozen=True)
class Format:
    """A grid, the size of its blocks, what scales are stored as, and whether a tensor scale multiplies those."""

    grid: Grid
    block_size: int | None
    scale_format: Grid | None
    tensor_scale: bool

    def stored(self, values: NDArray[Any]) -> Stored | None:
        """The scales that a tensor can be given; None for all positive numbers."""
        if self.scale_format is None:
            return None
        return Stored(
            self.scale_format, _tensor_scale(values, self.grid, self.scale_format) if self.tensor_scale else 1.0
        )


def resolve_format(grid: Any, block_size: int | None, scale_format: str | Grid | None) -> Format:
    """The format that a grid, a block format or the name of either stands for."""
    name = grid.strip().lower() if isinstance(grid, str) else None
    if not isinstance(grid, BlockFormat) and name not in block_formats():
        stored = None if scale_format is None else scale_grid(scale_format)
        return Format(as_grid(grid), block_size, stored, scale_format == "e4m3fn")
    form = block_format(grid)
    for argument, given in (("block_size", block_size), ("scale_format", scale_format)):
        if given is not None:
            raise ValueError(f"{argument} must be left out with {form.name}, which brings its own, got {shown(given)}")
    return Format(form.grid, form.block_size, form.scale_format, form.tensor_scale)


def _tensor_scale(values: NDArray[Any], grid: Grid, stored: Grid) -> float:
    """The float32 scale with which the largest magnitude needs the largest stored scale; 1 for all zeros."""
    largest = max(abs(float(values.max())), abs(float(values.min())))
    if not np.isfinite(largest):
        check_finite("x", values)
    range_ = np.finfo(np.float32)
    scale = np.clip(largest / (stored.max * grid.absmax), range_.tiny, range_.max)
    return float(np.float32(scale)) if largest else 1.0


def shift_policy(shift: Any, groups: Groups) -> Any:
    """A word, or the shift of every group."""
    if isinstance(shift, str):
        return check_choice("shift", shift, ("mean", "optimal"))
    values = check_shift(shift)
    if np.abs(values).max(initial=0.0) > _LARGEST:
        raise ValueError(f"shift must be at most {_LARGEST:g} in magnitude, got {shown(shift)}")
    return spread("shift", values, groups)


def spread(name: str, values: Array, groups: Groups) -> Array:
    """One entry a group of what may be given more shortly."""
    try:
        return np.broadcast_to(values, groups.scale_shape)
    except ValueError:
        known = f"the groups of x have shape {groups.scale_shape}; axis or block_size says which groups x has"
        raise ValueError(f"{name} of shape {values.shape} does not fit: {known}") from None


def with_family(task: Task, label: str, values: NDArray[Any]) -> tuple[Task, str]:
    """Replace family="auto" by what fits the whole tensor: its groups pooled, each standardized."""
    rule = task.plan.rule
    if not (isinstance(rule, partial) and rule.keywords.get("family") == "auto"):
        return task, label
    check_finite("x", values)
    # An odd step meets all columns of a matrix whose length is a power of two.
    step, pooled = 1 if values.size <= _POOLED else values.size // _POOLED | 1, []
    for rows in (chunk[0] for part in task._chunks(values, None) for chunk in part):
        members = Unsorted(rows, None)
        used = members.std > 0
        some = rows[used, ::step].astype(np.float64)
        some -= members.mean[used, None]
        some /= members.std[used, None]
        pooled.append(some.ravel())
    sample = np.concatenate(pooled)
    family = fit_density(sample) if sample.size else Gaussian()
    fixed = partial(rule.func, **{**rule.keywords, "family": family})
    options = {**rule.keywords, "family": family.name}
    label = f"{label.partition(':')[0]}:" + ",".join(f"{key}={value}" for key, value in options.items())
    return dataclasses.replace(task, plan=dataclasses.replace(task.plan, rule=fixed)), label
