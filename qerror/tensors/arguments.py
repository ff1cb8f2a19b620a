"""What may be given to `fit` and `evaluate`, checked and in one form."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import check_choice, check_finite, check_positive, check_shift, shown
from .._types import Array
from ..casting.block_scales import own_tensor_scale
from ..grids.block_formats import BlockFormat, as_format
from ..grids.grid import Grid
from ..grids.scale_formats import scale_grid, scale_name
from ..samples.intake import as_values, as_weights, first_weighted
from .groups import Grouped, Groups, make_groups
from .scale_formats import Stored

# The limit of the values themselves: squares stay within float64.
_LARGEST = 1e100


def grouped(
    x: ArrayLike,
    weights: ArrayLike | None,
    axis: int | tuple[int, ...] | None,
    block_size: int | tuple[int, ...] | None,
    block_axis: int | tuple[int, ...],
) -> Grouped:
    """Values as float16, float32 or float64 with their weights, cut into groups; see `fit`."""
    values = as_values(x)
    groups = make_groups(values.shape, axis, block_size, block_axis)
    tensor = Grouped(values, None if weights is None else as_weights(weights, values.shape), groups)
    if not all(w is None or (w.sum(axis=1) > 0).all() for _, w in tensor.parts()):
        raise ValueError("weights must not all be 0 in a group; leave such groups out")
    if tensor.weights is None or tensor.weights.all():
        return tensor
    # Elements of weight 0 do not exist: one of their group that does stands for them.
    stand_in = tensor.groups.join([first_weighted(rows, w) for rows, w in tensor.parts() if w is not None])
    values = np.where(tensor.weights > 0, values, tensor.groups.spread(np.asarray(stand_in)))
    return dataclasses.replace(tensor, values=values)


@dataclasses.dataclass(frozen=True)
class Format:
    """A grid, the size of its blocks, what scales are stored as, and the largest of these that a tensor scale leaves.

    `form` is the block format, if one was asked for.
    """

    grid: Grid
    block_size: int | tuple[int, ...] | None
    scale_format: Grid | None
    full_scale: float | None
    form: BlockFormat | None = None

    def stored(self, values: NDArray[Any], tensor_scale: float | None = None) -> Stored | None:
        """The scales that a tensor can be given; None for all positive numbers."""
        if tensor_scale is not None:
            if self.full_scale is None:
                raise ValueError(
                    f"tensor_scale must be left out where block scales have no second one, got {shown(tensor_scale)}; "
                    "scale_format='e4m3fn' and nvfp4 have it"
                )
            if np.size(tensor_scale) != 1:
                raise ValueError(f"tensor_scale must be one number, got {shown(tensor_scale)}")
            tensor_scale = float(np.reshape(check_positive("tensor_scale", tensor_scale), ()))
        if self.scale_format is None:
            return None
        unit = 1.0 if self.full_scale is None else tensor_scale
        unit = own_tensor_scale(values, self.grid, self.full_scale or 1.0) if unit is None else unit
        if not np.isfinite(unit):
            check_finite("x", values)
        return Stored(self.scale_format, unit)


def resolve_format(grid: Any, axis: Any, block_size: Any, scale_format: str | Grid | None) -> Format:
    """The format that a grid, a block format or the name of either stands for."""
    form = as_format(grid)
    if not isinstance(form, BlockFormat):
        if scale_format is None or isinstance(scale_format, Grid):
            return Format(form, block_size, None if scale_format is None else scale_grid(scale_format), None)
        said = scale_name(scale_format)
        stored = scale_grid(said)
        return Format(form, block_size, stored, stored.max if said == "e4m3fn" else None)
    for argument, given in (("axis", axis), ("block_size", block_size), ("scale_format", scale_format)):
        if given is not None:
            raise ValueError(f"{argument} must be left out with {form.name}, which brings its own, got {shown(given)}")
    return Format(form.grid, form.block_size, form.scale_format, form.full_scale, form)


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
        known = f"the groups of x have shape {groups.scale_shape}; "
        known += "axis or block_size says which groups x has" if groups.shape else f"for one number give one {name}"
        raise ValueError(f"{name} of shape {values.shape} does not fit: {known}") from None
