"""How a tensor is divided into groups that have a scale each: kept axes or blocks of one axis, as rows and back."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_int, shown
from ..casting.cast import dequantize, fake_quantize, quantize
from ..grids.grid import Grid


@dataclasses.dataclass(frozen=True)
class Groups:
    """The groups of a tensor of one shape.

    Attributes
    ----------
    shape : tuple of int
        Of the tensor.
    axis : tuple of int
        The axes that keep a scale of their own; () with blocks, or where the tensor is one group.
    block_size : int or None
        Elements in a block of `block_axis`; the last one may be shorter.
    block_axis : int
    scale_shape : tuple of int
        One entry a group: (), keepdims, or the tensor's shape with the number of blocks on `block_axis`.
    """

    shape: tuple[int, ...]
    axis: tuple[int, ...] = ()
    block_size: int | None = None
    block_axis: int = 0

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Shape of an array with one entry a group."""
        if self.block_size is not None:
            blocks = -(-self.shape[self.block_axis] // self.block_size)
            return (*self.shape[: self.block_axis], blocks, *self.shape[self.block_axis + 1 :])
        return tuple(n if i in self.axis else 1 for i, n in enumerate(self.shape)) if self.axis else ()

    @property
    def _whole(self) -> int:
        """Elements of the block axis that are in full blocks."""
        length = self.shape[self.block_axis]
        return length - length % (self.block_size or 1)

    def rows(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """The groups of `x` as rows, in parts whose rows are of one length: full blocks, then the ragged ones."""
        if self.block_size is None:
            if not self.axis:
                return [x.reshape(1, -1)]
            front = np.moveaxis(x, self.axis, range(len(self.axis)))
            return [front.reshape(math.prod(x.shape[i] for i in self.axis), -1)]
        last = np.moveaxis(x, self.block_axis, -1)
        parts = []
        if self._whole:
            parts.append(last[..., : self._whole].reshape(-1, self.block_size))
        if self._whole < last.shape[-1]:
            parts.append(last[..., self._whole :].reshape(-1, last.shape[-1] - self._whole))
        return parts

    def split(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """An array with one entry a group as one flat array for each part of `rows`."""
        full = np.broadcast_to(values, self.scale_shape)
        if self.block_size is None:
            return [full.ravel()]
        last, blocks = np.moveaxis(full, self.block_axis, -1), self._whole // self.block_size
        return [part.ravel() for part in (last[..., :blocks], last[..., blocks:]) if part.size]

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        """The inverse of `split`; a scalar where there is one group for the whole tensor."""
        if self.block_size is None:
            return parts[0].reshape(self.scale_shape)[()]
        lead = (*self.shape[: self.block_axis], *self.shape[self.block_axis + 1 :])
        last = np.concatenate([part.reshape(*lead, -1) for part in parts], axis=-1)
        return np.moveaxis(last, -1, self.block_axis)

    def quantize(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        """`qerror.quantize` with one scale and shift (or zero point) a group."""
        return self._cast(quantize, *arguments, **options)

    def dequantize(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        """`qerror.dequantize` with one scale and shift (or zero point) a group."""
        return self._cast(dequantize, *arguments, **options)

    def fake_quantize(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        """`qerror.fake_quantize` with one scale and shift (or zero point) a group."""
        return self._cast(fake_quantize, *arguments, **options)

    def _cast(
        self,
        cast: Callable[..., NDArray[Any]],
        values: ArrayLike,
        grid: Grid,
        scale: Any,
        shift: Any = 0.0,
        zero_point: Any = None,
        **options: Any,
    ) -> NDArray[Any]:
        """Call `cast` with the entry of each group broadcast over the group's elements."""
        name, shift = ("shift", shift) if zero_point is None else ("zero_point", zero_point)

        def function(part: NDArray[Any], s: Any, z: Any) -> NDArray[Any]:
            return cast(part, grid, s, **{name: z}, **options)

        x = np.asarray(values)
        if x.shape != self.shape:
            raise ValueError(f"x must have the shape {self.shape} of the fit, got {x.shape}")
        if self.block_size is None:
            return function(x, scale, shift)
        last, cut = np.moveaxis(x, self.block_axis, -1), self._whole
        spread = [
            np.moveaxis(np.broadcast_to(v, self.scale_shape), self.block_axis, -1)[..., None] for v in (scale, shift)
        ]
        blocks, done = cut // self.block_size, []
        if cut:
            full = last[..., :cut].reshape(*last.shape[:-1], blocks, self.block_size)
            done.append(function(full, *(v[..., :blocks, :] for v in spread)).reshape(*last.shape[:-1], cut))
        if cut < last.shape[-1]:
            done.append(function(last[..., cut:], *(v[..., blocks, :] for v in spread)))
        return np.moveaxis(done[0] if len(done) == 1 else np.concatenate(done, axis=-1), -1, self.block_axis)


@dataclasses.dataclass(frozen=True)
class Grouped:
    """A tensor, the weights of its elements (or none), and its groups."""

    values: NDArray[Any]
    weights: NDArray[np.float64] | None
    groups: Groups

    def parts(self) -> list[tuple[NDArray[Any], NDArray[np.float64] | None]]:
        """Rows and their weights, in the parts of `Groups.rows`."""
        rows = self.groups.rows(self.values)
        weights = [None] * len(rows) if self.weights is None else self.groups.rows(self.weights)
        return list(zip(rows, weights, strict=True))


def make_groups(
    shape: tuple[int, ...], axis: int | tuple[int, ...] | None, block_size: int | None, block_axis: int = -1
) -> Groups:
    """Check and normalize how a tensor is to be divided.

    Parameters
    ----------
    shape : tuple of int
        Of the tensor.
    axis : int, tuple of int or None
        The axis or axes that keep their own scale. None: one group, or blocks.
    block_size : int or None
        Elements that share a scale along `block_axis`.
    block_axis : int

    Raises
    ------
    ValueError
        For axes that do not exist, axis together with block_size, or a tensor without elements.

    Examples
    --------
    >>> make_groups((3, 172), None, 32).scale_shape
    (3, 6)
    """
    if 0 in shape:
        raise ValueError(f"x must have at least one value in every group, got shape {shape}")
    if block_size is None:
        return Groups(shape, () if axis is None else _axes("axis", axis, shape))
    if axis is not None:
        raise ValueError(
            f"axis must be None where block_size is given, got axis={shown(axis)}, block_size={block_size}"
        )
    return Groups(shape, (), as_int("block_size", block_size, 1), _axes("block_axis", block_axis, shape)[0])


def _axes(name: str, axis: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        return tuple(sorted(np.lib.array_utils.normalize_axis_tuple(axis, len(shape))))
    except (TypeError, ValueError):
        dims = len(shape)
        known = f"an integer from {-dims} to {dims - 1}" if dims else "left out for a single number"
        raise ValueError(f"{name} must be {known}, got {shown(axis)} for x of shape {shape}") from None
