"""Casting to block formats: scales by the format's own rule, codes, values, and two codes of 4 bits in a byte."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._check import as_int, as_rng, check_choice, check_finite, check_positive, shown
from .._threads import chunk_slices, thread_map
from .._types import Array
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from ..results import BlockCodes
from .block_scales import own_tensor_scale, scales_of
from .cast import Rounding, as_real, code_dtype, dequantize, fake_quantize, quantize
from .decoding import check_codes
from .units import UNIT

# An axis so many times shorter than a block is none to cut.
_SHORT = 10


def cast_at(
    cast: Callable[..., NDArray[Any]], x: NDArray[Any], grid: Grid, scale: Array, shift: ArrayLike = 0.0, **options: Any
) -> NDArray[Any]:
    """`quantize`, `dequantize` or `fake_quantize` with scales that may be 0, where all values become the shift.

    Their codes are those of 0.

    Examples
    --------
    >>> x, scale = np.array([[3.0, 1.0], [3.0, 1.0]]), np.array([[0.5], [0.0]])
    >>> from qerror.grids.formats import grid
    >>> cast_at(fake_quantize, x, grid("int4"), scale).tolist()
    [[3.0, 1.0], [0.0, 0.0]]
    """
    none = np.equal(scale, 0)
    if not none.any():
        return cast(x, grid, scale, shift, **options)
    if cast is not dequantize:
        # What is put aside must be numbers, too.
        check_finite("x", x if x.dtype.kind != "V" else x.astype(np.float64))
        x = np.where(none, np.broadcast_to(shift, np.broadcast_shapes(np.shape(shift), x.shape)).astype(x.dtype), x)
    out = cast(x, grid, np.where(none, 1.0, scale), shift, **options)
    if cast is not quantize:
        np.copyto(out, shift, where=none, casting="unsafe")
    return out


def block_scales(x: NDArray[Any], form: BlockFormat, unit: float, block_axis: int = -1) -> Array:
    """The scales of all blocks along an axis, in units of the tensor scale; see `scales_of`.

    Examples
    --------
    >>> from qerror.grids.block_formats import block_format
    >>> block_scales(np.array([[8.0, 1.0, 0.5]]), block_format("int4_g2"), 1.0).tolist()
    [[1.0, 0.0625]]
    """
    layout = _Layout(x.shape, block_axis, form.block_size)
    lines = layout.lines(x)
    out = np.empty((len(lines), layout.n_blocks))

    def work(piece: tuple[slice, slice, NDArray[Any]]) -> None:
        row, column, blocks = piece
        out[row, column] = scales_of(blocks, form, unit)

    thread_map(work, [(r, c, part) for r, c, part in layout.pieces(lines)])
    if not np.isfinite(out).all():
        check_finite("x", x if x.dtype.kind != "V" else x.astype(np.float64))
    return layout.back(out)


@dataclasses.dataclass(frozen=True)
class _Layout:
    """An array of some shape as lines along its block axis, each cut into blocks, the last of which may be shorter."""

    shape: tuple[int, ...]
    axis: int
    block_size: int

    @property
    def length(self) -> int:
        return self.shape[self.axis]

    @property
    def n_blocks(self) -> int:
        return -(-self.length // self.block_size)

    def lines(self, x: NDArray[Any]) -> NDArray[Any]:
        """Two-dimensional; a view where that can be."""
        moved = np.moveaxis(x, self.axis, -1)
        return moved.reshape(math.prod(moved.shape[:-1]), moved.shape[-1])

    def back(self, lines: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `lines`, for lines of any length."""
        others = np.delete(self.shape, self.axis).tolist()
        return np.ascontiguousarray(np.moveaxis(lines.reshape(*others, lines.shape[1]), -1, self.axis))

    def regions(self, lines: NDArray[Any]) -> list[tuple[slice, slice, NDArray[Any]]]:
        """Columns, columns of the scales and blocks (lines, blocks, values): the full blocks, then the short ones."""
        whole = self.length - self.length % self.block_size
        sides = [(slice(0, whole), self.block_size), (slice(whole, self.length), self.length - whole)]
        parts = []
        for columns, size in sides:
            if columns.stop > columns.start and len(lines):
                first = columns.start // self.block_size
                count = (columns.stop - columns.start) // size
                blocks = lines[:, columns].reshape(len(lines), count, size)
                parts.append((columns, slice(first, first + count), blocks))
        return parts

    def pieces(self, lines: NDArray[Any]) -> list[tuple[slice, slice, NDArray[Any]]]:
        """Rows and columns of the scales, and their blocks: pieces that fit the cache."""
        out = []
        for _, place, blocks in self.regions(lines):
            rows, count, size = blocks.shape
            for row in chunk_slices(rows, max(1, UNIT // (count * size))):
                for some in chunk_slices(count, max(1, UNIT // size)):
                    columns = slice(place.start + some.start, place.start + some.stop)
                    out.append((row, columns, blocks[row, some]))
        return out

    def cast(
        self, cast: Callable[..., NDArray[Any]], x: NDArray[Any], grid: Grid, scale: Array, **options: Any
    ) -> NDArray[Any]:
        """Call `cast` with the scale of each block on its values."""
        lines, scales = self.lines(x), self.lines(scale)
        if "rng" in options:
            # One stream after the other, not the same numbers for the short blocks.
            options["rng"] = as_rng(options["rng"])
        done = [
            (columns, cast_at(cast, blocks, grid, scales[:, place, None], **options))
            for columns, place, blocks in self.regions(lines)
        ]
        if not done:
            return cast(x, grid, **options)
        if len(done) == 1:
            return self.back(done[0][1].reshape(lines.shape))
        out = np.empty(lines.shape, done[0][1].dtype)
        for columns, part in done:
            out[:, columns] = part.reshape(len(lines), -1)
        return self.back(out)


def check_block_axis(shape: tuple[int, ...], at: int, size: int) -> None:
    """Refuse blocks that an axis much shorter than they are would make of a few elements (kernels of convolutions)."""
    longest = int(np.argmax(shape))
    if _SHORT * shape[at] <= size and shape[at] < shape[longest] and math.prod(shape) >= 2 * size:
        remedy = f"give block_axis={longest}, which has {shape[longest]}, or reshape x, as in x.reshape(len(x), -1)"
        raise ValueError(f"block_axis {at} of x of shape {shape} is too short for blocks of {size}; {remedy}")


def _layout(shape: tuple[int, ...], form: BlockFormat, block_axis: Any) -> _Layout:
    if not shape:
        raise ValueError("x must have an axis to be cut into blocks, got a single number; give np.atleast_1d(x)")
    axis = as_int("block_axis", block_axis, -len(shape), len(shape) - 1) % len(shape)
    if block_axis == -1:
        # Another axis was chosen on purpose.
        check_block_axis(shape, axis, form.block_size)
    return _Layout(shape, axis, form.block_size)


def _scaled(x: NDArray[Any], form: BlockFormat, scale: ArrayLike | None, layout: _Layout) -> tuple[Array, float]:
    """The block scales of x and its tensor scale."""
    unit = own_tensor_scale(x, form.grid, form.full_scale) if scale is None and form.full_scale is not None else 1.0
    if scale is not None:
        given = check_positive("scale", scale)
        if given.size != 1:
            raise ValueError(f"scale must be one number, the tensor scale of {form.name}, got shape {given.shape}")
        unit = float(given.reshape(()))
    if form.rule in ("best_of", "optimal") or not math.isfinite(unit):
        check_finite("x", x if x.dtype.kind != "V" else x.astype(np.float64))
    return block_scales(x, form, unit, layout.axis), unit


def quantize_blocks(
    x: ArrayLike,
    form: BlockFormat,
    scale: ArrayLike | None = None,
    *,
    rounding: Rounding = "nearest",
    rng: int | np.random.Generator | None = None,
    block_axis: int = -1,
    pack: bool = False,
) -> BlockCodes:
    """`qerror.quantize` to a block format."""
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    array = as_real("x", x)
    layout = _layout(array.shape, form, block_axis)
    if pack:
        _check_packable(form, layout)
    scales, unit = _scaled(array, form, scale, layout)
    codes = layout.cast(quantize, array, form.grid, unit * scales, rounding=rounding, rng=rng)
    stored = form.scale_format
    scale_codes = None if stored is None else quantize(scales, stored)
    codes = layout.back(_packed(layout.lines(codes))) if pack else codes
    return BlockCodes(form, codes, scales, scale_codes, unit, array.shape, layout.axis, bool(pack))


def dequantize_blocks(codes: BlockCodes, *, dtype: DTypeLike = np.float32) -> NDArray[Any]:
    """`qerror.dequantize` of the codes of a block format."""
    form, layout = codes.form, _layout(codes.shape, codes.form, codes.block_axis)
    lines: NDArray[Any] = check_codes(codes.codes, form.grid)
    length = layout.length // 2 if codes.packed else layout.length
    expected = tuple(length if i == layout.axis else n for i, n in enumerate(codes.shape))
    if lines.shape != expected:
        raise ValueError(f"codes must have shape {expected}, got {lines.shape}")
    if codes.packed:
        lines = layout.back(_unpacked(layout.lines(lines), form.grid, code_dtype(form.grid)))
    return layout.cast(dequantize, lines, form.grid, codes.tensor_scale * codes.scale, dtype=dtype)


def fake_quantize_blocks(
    x: ArrayLike,
    form: BlockFormat,
    scale: ArrayLike | None = None,
    *,
    rounding: Rounding = "nearest",
    rng: int | np.random.Generator | None = None,
    block_axis: int = -1,
) -> NDArray[Any]:
    """`qerror.fake_quantize` to a block format."""
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    array = as_real("x", x)
    layout = _layout(array.shape, form, block_axis)
    scales, unit = _scaled(array, form, scale, layout)
    return layout.cast(fake_quantize, array, form.grid, unit * scales, rounding=rounding, rng=rng)


def _check_packable(form: BlockFormat, layout: _Layout) -> None:
    if form.grid.bits != 4 or code_dtype(form.grid).itemsize != 1:
        said = f"two codes of 4 bits make a byte, those of {form.name} have {form.grid.bits}"
        raise ValueError(f"pack must be False here: {said}")
    if layout.length % 2:
        raise ValueError(f"pack must be False for an odd length along block_axis, got x of shape {shown(layout.shape)}")


def _packed(codes: NDArray[Any]) -> NDArray[Any]:
    """Two codes in a byte along the last axis: that of even index in the lower half."""
    bits = codes.view(np.uint8)
    return np.asarray((bits[:, 0::2] & np.uint8(0xF)) | (bits[:, 1::2] << np.uint8(4)))


def _unpacked(packed: NDArray[Any], grid: Grid, dtype: Any) -> NDArray[Any]:
    """The inverse of `_packed`: of the codes with these four last bits those from the least code on."""
    if packed.dtype != np.uint8:
        raise ValueError(f"codes that are packed must be bytes, got dtype {packed.dtype}")
    base = np.uint8(int(grid.codes.min()) & 0xFF)
    out = np.empty((len(packed), 2 * packed.shape[1]), np.uint8)
    out[:, 0::2], out[:, 1::2] = packed, packed >> np.uint8(4)
    # Modulo 256, where the codes of bytes are.
    out -= base
    out &= np.uint8(0xF)
    out += base
    return out.view(dtype)
