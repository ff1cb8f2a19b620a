"""One quantized weight: its codes and scales, read rows by rows, and the values that they stand for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ..grids.grid import Grid
from ..tensors.groups import make_groups
from .elements import TensorInfo

# Scale formats by the element types of scales.
STORED = {"BF16": "bf16", "F16": "fp16", "F8_E4M3": "e4m3fn", "U8": "e8m0", "F8_E8M0": "e8m0"}


def grouping(shape: tuple[int, ...], axis: int | None, block_size: int | None) -> tuple[int, int] | None:
    """Rows and columns of (rows, last axis) that share a scale; None where an axis between first and last has its own.

    Examples
    --------
    >>> grouping((8, 3, 5, 5), 0, None), grouping((64, 96), 1, None), grouping((64, 96), None, 32)
    ((15, 5), (64, 1), (1, 32))
    """
    columns = shape[-1]
    rows = math.prod(shape[:-1])
    if block_size is not None:
        return 1, block_size
    if axis is None:
        return rows, columns
    if axis % len(shape) == len(shape) - 1:
        return rows, 1
    return (rows // shape[0], columns) if axis % len(shape) == 0 else None


def format_tag(grid: Grid, block: tuple[int, int], shape: tuple[int, int], stored: str | None) -> str:
    """How a format is called where element types stand: of (rows, columns) with so large blocks.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> format_tag(grid("int4"), (1, 128), (64, 512), "bf16"), format_tag(grid("e4m3fn"), (1, 512), (64, 512), None)
    ('INT4_G128', 'FP8_CHANNEL')
    """
    named = {("e2m1", "e4m3fn"): "NVFP4", ("e2m1", "e8m0"): "MXFP4", ("e4m3fn", "e8m0"): "MXFP8"}
    if (grid.name, stored) in named:
        return named[str(grid.name), str(stored)]
    element = "FP8" if grid.name == "e4m3fn" else str(grid.name or f"{len(grid)}_LEVELS").upper().replace("/", "_")
    if block == shape:
        return f"{element}_TENSOR"
    if block[0] > 1:
        return f"{element}_{block[0]}X{block[1]}"
    return f"{element}_CHANNEL" if block[1] == shape[1] else f"{element}_G{block[1]}"


@dataclasses.dataclass(frozen=True)
class Codes:
    """Some rows of a quantized weight.

    Attributes
    ----------
    codes : ndarray of shape (rows, columns)
    scale : ndarray of float64, shape (rows, groups)
        What levels are multiplied with, tensor scale and all.
    """

    grid: Grid
    codes: NDArray[Any]
    scale: NDArray[np.float64]
    block: int

    def dequantize(self, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """The values: code * scale, rounded once."""
        groups = make_groups(self.codes.shape, None, self.block, -1)
        return groups.dequantize(self.codes, self.grid, self.scale, dtype=dtype)


@dataclasses.dataclass(frozen=True)
class QuantizedWeight:
    """A weight that a checkpoint has as codes and scales.

    Attributes
    ----------
    info : TensorInfo
        Name and shape of the weight; its format as the element type: "INT4_G128", "FP8_CHANNEL", "NVFP4".
    members : tuple of str
        The tensors that it is made of.
    grid : Grid
    block : tuple of (int, int)
        Rows and columns that share a scale.
    scale_format : str or None
        What scales are stored as.
    codes : callable
        Rows begin to end, as (rows, columns).
    scales : callable
        Of the rows of scales begin to end, in units of the tensor scale.
    unit : callable
        The tensor scale; 1 without one.
    transposed : bool
        Whether the model itself keeps the last two axes the other way around.
    """

    info: TensorInfo
    members: tuple[str, ...]
    grid: Grid
    block: tuple[int, int]
    scale_format: str | None
    codes: Callable[[int, int], NDArray[Any]]
    scales: Callable[[int, int], NDArray[np.float64]]
    unit: Callable[[], float] = lambda: 1.0
    transposed: bool = False

    @property
    def columns(self) -> int:
        """Length of the last axis."""
        return self.info.shape[-1]

    @property
    def format(self) -> str | None:
        """The format as `qerror.fit` and plans take it, scales of any size; None for tiles."""
        named = {("e2m1", "e4m3fn"): "nvfp4", ("e2m1", "e8m0"): "mxfp4", ("e4m3fn", "e8m0"): "mxfp8_e4m3"}
        grid = str(self.grid.name)
        if (grid, self.scale_format) in named:
            return named[grid, str(self.scale_format)]
        if self.block == (self.rows, self.columns):
            return grid
        if self.block[0] > 1:
            return None
        return f"{grid}:axis=0" if self.block[1] == self.columns else f"{grid}_g{self.block[1]}"

    @property
    def rows(self) -> int:
        """All other axes as one."""
        return self.info.size // self.columns

    def part(self, begin: int, end: int) -> Codes:
        """Rows `begin` to `end`."""
        height = self.block[0]
        first, last = begin // height, -(-end // height)
        scale = self.scales(first, last) * self.unit()
        if height > 1:
            scale = scale[np.arange(begin, end) // height - first]
        return Codes(self.grid, self.codes(begin, end), scale, self.block[1])

    def values(self, begin: int, end: int) -> NDArray[np.float32]:
        """Elements `begin` to `end` in C order."""
        first, last = begin // self.columns, -(-end // self.columns)
        found = self.part(first, last).dequantize().reshape(-1)
        return found[begin - first * self.columns : end - first * self.columns]
