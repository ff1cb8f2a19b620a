"""How a tensor is divided into groups that have a scale each: kept axes, blocks, tiles; as rows and back."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_int, as_rng, readable, shown
from ..casting.blocks import cast_at, check_block_axis
from ..casting.cast import dequantize, fake_quantize, quantize
from ..grids.grid import Grid


@dataclasses.dataclass(frozen=True)
class Groups:
    """The groups of a tensor of one shape: it is cut into tiles, each of which has a scale.

    Attributes
    ----------
    shape : tuple of int
        Of the tensor.
    tile : tuple of int
        Length of a group along each axis: 1 where the axis keeps a scale for each index, its length where it has one
        for all, between them where it is cut into blocks, the last of which may be shorter.
    whole : bool
        Whether the tensor is one group, whose scale is a number.
    """

    shape: tuple[int, ...]
    tile: tuple[int, ...]
    whole: bool = False

    @property
    def scale_shape(self) -> tuple[int, ...]:
        """Shape of an array with one entry a group: () where the tensor is one."""
        return () if self.whole else self._count

    @property
    def _count(self) -> tuple[int, ...]:
        return tuple(-(-n // t) for n, t in zip(self.shape, self.tile, strict=True))

    def _parts(self) -> list[tuple[list[slice], list[slice], tuple[int, ...]]]:
        """Regions whose tiles are of one size, full ones first: of the elements, of the groups, and that size."""
        choices = []
        for n, t in zip(self.shape, self.tile, strict=True):
            whole = n - n % t
            sides = [(slice(0, whole), slice(0, n // t), t), (slice(whole, n), slice(n // t, None), n - whole)]
            choices.append([side for side in sides if side[0].stop > side[0].start])
        parts = []
        for chosen in itertools.product(*choices):
            elements, groups, sizes = zip(*chosen, strict=True) if chosen else ((), (), ())
            parts.append((list(elements), list(groups), tuple(sizes)))
        return parts

    def _tiled(self, x: NDArray[Any], elements: list[slice], sizes: tuple[int, ...]) -> NDArray[Any]:
        """A region with two axes for each of its own: which tile, and where in it."""
        region = x[tuple(elements)]
        pairs = zip(region.shape, sizes, strict=True)
        return region.reshape(tuple(itertools.chain(*((n // t, t) for n, t in pairs))))

    def rows(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """The groups of `x` as rows, in parts whose rows are of one length: full blocks, then the ragged ones."""
        order = (*range(0, 2 * x.ndim, 2), *range(1, 2 * x.ndim, 2))
        return [
            self._tiled(x, elements, sizes).transpose(order).reshape(-1, math.prod(sizes))
            for elements, _, sizes in self._parts()
        ]

    def split(self, values: NDArray[Any]) -> list[NDArray[Any]]:
        """An array with one entry a group as one flat array for each part of `rows`."""
        full = self._of_groups(values)
        return [full[tuple(groups)].ravel() for _, groups, _ in self._parts()]

    def _of_groups(self, values: Any) -> NDArray[Any]:
        """One entry a group, with all axes."""
        return np.broadcast_to(np.broadcast_to(values, self.scale_shape), self._count)

    def join(self, parts: Sequence[NDArray[Any]]) -> Any:
        """The inverse of `split`; a scalar where there is one group for the whole tensor."""
        out = np.empty(self._count, parts[0].dtype)
        for part, (_, groups, _) in zip(parts, self._parts(), strict=True):
            index: Any = (*groups, ...)
            region = out[index]
            region[...] = part.reshape(region.shape)
        return out.reshape(self.scale_shape)[()]

    def quantize(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        """`qerror.quantize` with one scale and shift (or zero point) a group."""
        return self._cast(quantize, *arguments, **options)

    def dequantize(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        """`qerror.dequantize` with one scale and shift (or zero point) a group."""
        return self._cast(dequantize, *arguments, **options)

    def fake_quantize(self, *arguments: Any, **options: Any) -> NDArray[Any]:
        """`qerror.fake_quantize` with one scale and shift (or zero point) a group."""
        return self._cast(fake_quantize, *arguments, **options)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """An array with one entry a group as one with an entry for each element."""
        out = self._of_groups(values)
        for at, (n, t) in enumerate(zip(self.shape, self.tile, strict=True)):
            out = np.repeat(out, t, axis=at).take(range(n), axis=at) if t > 1 else out
        return out

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
        x = np.asarray(readable("x", values))
        name, at = ("shift", shift) if zero_point is None else ("zero_point", zero_point)
        if x.shape != self.shape:
            raise ValueError(f"x must have the shape {self.shape} of the fit, got {x.shape}")
        if all(t in (1, n) for n, t in zip(self.shape, self.tile, strict=True)):
            return cast_at(cast, x, grid, scale, **{name: at}, **options)
        if "rng" in options:
            # One stream after the other, not the same numbers for the short blocks.
            options["rng"] = as_rng(options["rng"])
        s, z = self._of_groups(scale), self._of_groups(at)
        inside, done = tuple(range(1, 2 * x.ndim, 2)), []
        for elements, groups, sizes in self._parts():
            spread = [np.expand_dims(v[tuple(groups)], inside) for v in (s, z)]
            cut = cast_at(cast, self._tiled(x, elements, sizes), grid, spread[0], **{name: spread[1]}, **options)
            done.append((tuple(elements), cut))
        if len(done) == 1:
            return done[0][1].reshape(self.shape)
        out = np.empty(self.shape, done[0][1].dtype)
        for region, cut in done:
            out[region] = cut.reshape(out[region].shape)
        return out


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
    shape: tuple[int, ...],
    axis: int | tuple[int, ...] | None,
    block_size: int | tuple[int, ...] | None,
    block_axis: int | tuple[int, ...] = -1,
) -> Groups:
    """Check and normalize how a tensor is to be divided; see `fit`.

    Examples
    --------
    >>> make_groups((3, 172), None, 32).scale_shape, make_groups((300, 172), None, (128, 128)).scale_shape
    ((3, 6), (3, 2))
    >>> make_groups((4, 300, 172), 0, 32).scale_shape
    (4, 1, 6)
    """
    if 0 in shape:
        raise ValueError(f"x must have at least one value in every group, got shape {shape}")
    kept = () if axis is None else _axes("axis", axis, shape)
    tile = [1 if i in kept else n for i, n in enumerate(shape)]
    if block_size is not None and not shape:
        raise ValueError("x must have an axis to be cut into blocks, got a single number; give np.atleast_1d(x)")
    if block_size is not None:
        sizes = block_size if isinstance(block_size, tuple | list) else (block_size,)
        if block_axis == -1 and len(sizes) > 1:
            block_axis = tuple(range(-len(sizes), 0))
        blocks = _axes("block_axis", block_axis, shape, ordered=True)
        if len(sizes) != len(blocks) or set(blocks) & set(kept):
            taken = f"block_size={shown(block_size)}, block_axis={shown(block_axis)}, axis={shown(axis)}"
            raise ValueError(f"block_size needs one size for each block_axis, none of them among axis, got {taken}")
        if axis is None:
            # Without kept axes every line along the blocks has its own.
            tile = [1] * len(shape)
        for at, size in zip(blocks, sizes, strict=True):
            tile[at] = min(as_int("block_size", size, 1), shape[at])
            check_block_axis(shape, at, size)
    return Groups(shape, tuple(tile), axis is None and block_size is None)


def _axes(name: str, axis: Any, shape: tuple[int, ...], *, ordered: bool = False) -> tuple[int, ...]:
    try:
        axes = np.lib.array_utils.normalize_axis_tuple(axis, len(shape))
        return axes if ordered else tuple(sorted(axes))
    except (TypeError, ValueError, OverflowError):
        dims = len(shape)
        known = f"an integer from {-dims} to {dims - 1}" if dims else "None for a single number"
        raise ValueError(f"{name} must be {known}, got {shown(axis)} for x of shape {shape}") from None
