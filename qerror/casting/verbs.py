"""The verbs of casting as users call them, for grids and for block formats alike."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from .._check import shown
from ..grids.block_formats import BlockFormat, BlockFormatLike, FormatLike, GridLike, as_format
from ..grids.grid import Grid
from ..results import BlockCodes
from . import cast
from .blocks import dequantize_blocks, fake_quantize_blocks, quantize_blocks
from .cast import Rounding


@overload
def quantize(
    x: ArrayLike, grid: GridLike, scale: ArrayLike | None = ..., *args: Any, **options: Any
) -> NDArray[Any]: ...
@overload
def quantize(
    x: ArrayLike, grid: BlockFormatLike, scale: ArrayLike | None = ..., *args: Any, **options: Any
) -> BlockCodes: ...
@overload
def quantize(x: ArrayLike, grid: str, scale: ArrayLike | None = ..., *args: Any, **options: Any) -> Any: ...
def quantize(
    x: ArrayLike,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    zero_point: ArrayLike | None = None,
    rounding: Rounding = "nearest",
    rng: int | np.random.Generator | None = None,
    block_axis: int = -1,
    pack: bool = False,
) -> Any:
    """Return the codes of the levels nearest to (x - shift) / scale; to a block format, with the scales of its rule.

    With q = (x - z) / s, by division in the dtype of x (16-bit floats in float32, integers in float64; in float64 too
    where s or z leave the range of float32), the code is that of the level nearest to q; of two equally near
    levels the one with the even code. Values beyond the end levels saturate. Stochastic rounding takes the neighbour
    b of a <= q <= b with probability (q - a) / (b - a), so that its mean is q.

    With a zero point p, as integer runtimes have it, the code is round(x / s) + p (ties of x / s to even), saturated.

    Parameters
    ----------
    x : array_like
        Finite values, any shape; never changed. A tensor of PyTorch may have gradients, and be on any device.
    grid : Grid, BlockFormat, str, dtype or FormatInfo
        The grid or block format, or its name; a dtype of NumPy, ml_dtypes or PyTorch, a format of gfloat.
    scale : array_like, optional
        Scale s, not 0 (a negative one turns the grid around), in units of x; broadcasts against x. 1 by default. Of a
        block format the tensor scale, one number: by default the float32 max|x| / (f max|l|) where the format has one
        (f its largest stored scale, or the one it names), else 1.
    shift : array_like, optional
        Shift z in units of x, broadcast like the scale. Not with block formats.
    zero_point : array_like of int, optional
        In place of the shift: the code that stands for 0, on grids of consecutive integers.
    rounding : {"nearest", "stochastic"}, optional
        How to round; scales of blocks follow from their rule alone.
    rng : int or numpy.random.Generator, optional
        Source of randomness for stochastic rounding. The result depends on it and on the shape, not on the number of
        threads.
    block_axis : int, optional
        Of a block format: the axis that is cut into blocks, the last of which may be shorter.
    pack : bool, optional
        Of a block format with elements of 4 bits: two codes in a byte along the block axis, the one of even index in
        the lower half, as the MX formats and NVFP4 are stored. The length must be even.

    Returns
    -------
    ndarray or BlockCodes
        Codes in the broadcast shape, in the smallest integer dtype that holds all codes of the grid: the integer, the
        bit pattern of a float (-0 is kept), the index in a codebook. Of a block format these with the block scales and
        the tensor scale; a block whose scale is 0 (no scale so small is stored) becomes 0.

    Raises
    ------
    ValueError
        If x has NaN or infinite elements, scale is 0 or not finite, shift is not finite, a zero point is no integer or
        does not fit the grid, the shapes do not broadcast, the grid is unknown, or an option is not one of grids (or of
        block formats).

    Examples
    --------
    >>> quantize([-1.0, 0.3, 0.75, 9.0], "int4", scale=0.5)
    array([-2,  1,  2,  7], dtype=int8)
    >>> stored = quantize([0.25, 1.5, -12.0, 0.0], "mxfp4", pack=True)
    >>> stored.scale.tolist(), stored.scale_codes.tolist(), stored.codes.tolist()
    ([2.0], [128], [32, 15])
    """
    form = as_format(grid)
    if not isinstance(form, BlockFormat):
        _of_blocks(form, block_axis=(block_axis, -1), pack=(pack, False))
        at = 1.0 if scale is None else scale
        return cast.quantize(x, form, at, shift, zero_point=zero_point, rounding=rounding, rng=rng)
    _of_grids(form, shift, zero_point)
    return quantize_blocks(x, form, scale, rounding=rounding, rng=rng, block_axis=block_axis, pack=pack)


def dequantize(
    codes: ArrayLike | BlockCodes,
    grid: FormatLike | None = None,
    scale: ArrayLike = 1.0,
    shift: ArrayLike = 0.0,
    *,
    zero_point: ArrayLike | None = None,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Return the values shift + scale * level of codes, or scale * (level - zero_point).

    Computed in float64 and rounded to `dtype` once; what lies beyond the largest finite value of `dtype` becomes that
    value.

    Parameters
    ----------
    codes : array_like of int, or BlockCodes
        Codes of the grid, any shape; or what `quantize` made of an array in a block format, which needs no more.
    grid : Grid or str
        The grid or its name. May be left out with BlockCodes, which know their format.
    scale, shift : array_like, optional
        Scale s, not 0, and shift z; they broadcast against the codes.
    zero_point : array_like of int, optional
        As in ``quantize``.
    dtype : dtype, optional
        Floating-point type of the result.

    Returns
    -------
    ndarray
        Values in the broadcast shape; in that of the array that was quantized.

    Raises
    ------
    ValueError
        If an element is not a code of the grid, scale is 0 or not finite, shift is not finite, or the shapes do not
        broadcast.

    Examples
    --------
    >>> dequantize([-2, 1, 7], "int4", scale=0.5)
    array([-1. ,  0.5,  3.5], dtype=float32)
    >>> dequantize(quantize([0.25, 1.5, -12.0, 0.0], "mxfp4"))
    array([  0.,   2., -12.,   0.], dtype=float32)
    """
    if isinstance(codes, BlockCodes):
        own = codes.form
        form = own if grid is None else as_format(grid)
        if not isinstance(form, BlockFormat) or _stored_as(form) != _stored_as(own):
            raise ValueError(f"grid must be left out or {own.name}, which the codes are of, got {shown(grid)}")
        if np.any(np.not_equal(scale, 1)):
            raise ValueError(f"scale must be left out with codes of {own.name}, which have theirs, got {shown(scale)}")
        _of_grids(own, shift, zero_point)
        return dequantize_blocks(codes, dtype=dtype)
    if grid is None:
        raise ValueError("grid must be a name, a dtype or a Grid, got None; only BlockCodes know their format")
    form = as_format(grid)
    if isinstance(form, BlockFormat):
        remedy = "give what quantize returned, which has the scales too"
        raise ValueError(f"codes must be BlockCodes to go back from {form.name}, got {shown(codes)}; {remedy}")
    return cast.dequantize(codes, form, scale, shift, zero_point=zero_point, dtype=dtype)


def fake_quantize(
    x: ArrayLike,
    grid: FormatLike,
    scale: ArrayLike | None = None,
    shift: ArrayLike = 0.0,
    *,
    zero_point: ArrayLike | None = None,
    rounding: Rounding = "nearest",
    rng: int | np.random.Generator | None = None,
    block_axis: int = -1,
) -> NDArray[Any]:
    """Return the values that x is replaced by: ``dequantize(quantize(x))`` in the dtype of x.

    Parameters
    ----------
    x, grid, scale, shift, zero_point, rounding, rng, block_axis
        As in ``quantize``, errors too.

    Returns
    -------
    ndarray
        Values in the broadcast shape and the dtype of x; float64 if x has an integer dtype, float32 if it is a tensor
        of PyTorch whose dtype NumPy has not. A value beyond the range of that dtype becomes its largest finite one.

    Examples
    --------
    >>> fake_quantize([-1.0, 0.3, 0.75, 9.0], "int4", scale=0.5)
    array([-1. ,  0.5,  1. ,  3.5])
    >>> fake_quantize([0.25, 1.5, -12.0, 0.0], "mxfp4")
    array([  0.,   2., -12.,   0.])
    """
    form = as_format(grid)
    if not isinstance(form, BlockFormat):
        _of_blocks(form, block_axis=(block_axis, -1))
        at = 1.0 if scale is None else scale
        return cast.fake_quantize(x, form, at, shift, zero_point=zero_point, rounding=rounding, rng=rng)
    _of_grids(form, shift, zero_point)
    return fake_quantize_blocks(x, form, scale, rounding=rounding, rng=rng, block_axis=block_axis)


def _stored_as(form: BlockFormat) -> tuple[Any, ...]:
    """What of a format is needed to go back: not how its scales were chosen."""
    return form.grid, form.block_size, form.scale_format


def _of_blocks(grid: Grid, **given: tuple[Any, Any]) -> None:
    """Refuse what only block formats have."""
    for name, (value, default) in given.items():
        if value != default:
            said = f"{name} must be left out with {grid.name or repr(grid)}, which has no blocks"
            raise ValueError(f"{said}, got {shown(value)}")


def _of_grids(form: BlockFormat, shift: ArrayLike, zero_point: ArrayLike | None) -> None:
    """Refuse what block formats have not."""
    if zero_point is not None:
        raise ValueError(f"zero_point must be left out with {form.name}, which has none, got {shown(zero_point)}")
    if np.any(np.not_equal(shift, 0)):
        raise ValueError(f"shift must be left at 0 with {form.name}, which has none, got {shown(shift)}")
