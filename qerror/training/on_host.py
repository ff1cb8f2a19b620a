"""What runs as NumPy beside a compiled graph: the exact search, and the check for NaN."""

import functools
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._check import check_finite
from .._types import Values
from ..casting.block_scales import scales_of
from ..files.quantized import read_block_format
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from ..tensors.fitting import fit


def best_scale(
    x: Tensor,
    levels: tuple[float, ...],
    dims: tuple[int, ...],
    previous: Tensor | None,
    due: Tensor | None,
    form: str = "",
    unit: Tensor | None = None,
) -> Tensor:
    """The exact best scale of each group that spans the axes `dims`, with these axes kept as length 1.

    The search is the library's, on the host: data on another device are copied. NaN where x is not finite; the
    previous scale, if there is one, where no search is due. With `form`, a block format as JSON, the scale by its rule,
    in float64 and units of the tensor scale `unit`.
    """
    if torch.compiler.is_compiling():
        found: Tensor = _best_scale_op(x, list(levels), list(dims), previous, due, form, unit)
        return found
    return _best_scale(x, levels, dims, previous, due, form, unit)


def checked(value: Tensor, x: Tensor, name: str) -> Tensor:
    """`value`, derived from x, if it is finite; else an error that names x.

    On the CPU it is raised at once. On other devices nothing waits for the result: the device's own assertion fires.
    """
    if torch.compiler.is_compiling():
        same: Tensor = _checked_op(value, x, name)
        return same
    _check(value, x, name)
    return value


def _best_scale(
    x: Tensor,
    levels: Sequence[float],
    dims: Sequence[int],
    previous: Tensor | None,
    due: Tensor | None,
    form: str,
    unit: Tensor | None,
) -> Tensor:
    array = x.detach().cpu().numpy()
    dtype = torch.float64 if form else x.dtype
    shape = [1 if d in dims else n for d, n in enumerate(array.shape)]
    # The minimum and the maximum are finite only where all between them is.
    if not np.isfinite(array.min()) or not np.isfinite(array.max()):
        return torch.full(shape, torch.nan, dtype=dtype, device=x.device)
    if previous is not None and due is not None and not due and previous.numel() == math.prod(shape):
        return previous.to(dtype, copy=True).reshape(shape)
    kept = tuple(d for d in range(array.ndim) if d not in dims)
    if form:
        scale: Values = scales_of(array, _form_of(form), 1.0 if unit is None else float(unit))
    else:
        scale = fit(array, _grid_of(tuple(levels)), axis=kept or None).scale
    return torch.from_numpy(np.array(np.reshape(scale, shape))).to(device=x.device, dtype=dtype)


def _check(value: Tensor, x: Tensor, name: str) -> None:
    if value.device.type != "cpu":
        torch._assert_async(torch.isfinite(value).all(), f"{name} must be finite")
    elif not torch.isfinite(value).all():
        check_finite(name, x.detach().double().numpy())
        raise ValueError(f"{name} is too large for its scale: the squares of its values overflow")


@functools.lru_cache(maxsize=16)
def _grid_of(levels: tuple[float, ...]) -> Grid:
    return Grid(levels)


@functools.lru_cache(maxsize=16)
def _form_of(text: str) -> BlockFormat:
    return read_block_format(json.loads(text))


@torch.library.custom_op("qerror::best_scale", mutates_args=())
def _best_scale_op(
    x: Tensor,
    levels: Sequence[float],
    dims: Sequence[int],
    previous: Tensor | None,
    due: Tensor | None,
    form: str,
    unit: Tensor | None,
) -> Tensor:
    return _best_scale(x, levels, dims, previous, due, form, unit)


@_best_scale_op.register_fake
def _(x: Tensor, levels: Any, dims: Any, previous: Any, due: Any, form: str, unit: Any) -> Tensor:
    shape = [1 if d in dims else n for d, n in enumerate(x.shape)]
    return x.new_empty(shape, dtype=torch.float64 if form else x.dtype)


@torch.library.custom_op("qerror::checked", mutates_args=())
def _checked_op(value: Tensor, x: Tensor, name: str) -> Tensor:
    _check(value, x, name)
    return value.clone()


@_checked_op.register_fake
def _(value: Tensor, x: Tensor, name: str) -> Tensor:
    return torch.empty_like(value)
