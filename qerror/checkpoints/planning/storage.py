"""What a tensor takes in a format, to the bit: codes, scales, tensor scale."""

from __future__ import annotations

import math
from typing import Any

from ...files.elements import TensorInfo, packed_bits
from ...files.sources import load_extra
from ...grids.block_formats import as_format
from ..recipe import Recipe, split_format
from .plan import KEEP

SCALE_BITS = 32
"""Bits of a scale whose format is not said, and of a tensor scale: those of a float32."""
_CASTS = ("bf16", "fp16")


def is_cast(text: str) -> bool:
    """Whether a format is a plain cast to 16-bit floats, which stores no scale.

    Examples
    --------
    >>> is_cast("bf16"), is_cast("bfloat16"), is_cast("bf16:axis=0"), is_cast("e4m3fn")
    (True, True, False, False)
    """
    name, axis = split_format(text)
    return axis is None and text != KEEP and as_format(name).name in _CASTS


def stored_bits(info: TensorInfo, text: str) -> int:
    """All bits that are stored of a tensor in a format: its codes in whole bytes, and its scales.

    Parameters
    ----------
    info : TensorInfo
    text : str
        A format, or "keep". Scales of grids, and of block formats that do not say what theirs are stored as, count 32
        bits (float32), as do tensor scales. "bf16" and "fp16" are casts without a scale. The last block of a row may be
        shorter, and has a scale all the same.

    Examples
    --------
    >>> stored_bits(TensorInfo("w", (4, 300), "F32"), "int4_g128") == 4 * 300 * 4 + 4 * 3 * 32
    True
    >>> stored_bits(TensorInfo("w", (4, 300), "F32"), "nvfp4") == 4 * 300 * 4 + 4 * 19 * 8 + 32
    True
    >>> stored_bits(TensorInfo("w", (4, 300), "F32"), "int8:axis=0") == 4 * 300 * 8 + 4 * 32
    True
    """
    if text == KEEP:
        return _whole_bytes(_kept_bits(info))
    recipe = Recipe((text,))
    form = recipe.form(text)
    codes = _whole_bytes(info.size * form.grid.bits)
    if is_cast(text):
        return codes
    scales = math.prod(recipe.groups(text, info.shape).scale_shape)
    each = SCALE_BITS if form.scale_format is None else form.scale_format.bits
    return codes + scales * each + (SCALE_BITS if form.full_scale is not None else 0)


def _whole_bytes(bits: int) -> int:
    return -(-bits // 8) * 8


def _kept_bits(info: TensorInfo) -> int:
    if info.stored_bits is not None:
        return info.stored_bits
    try:
        return info.size * packed_bits(info.dtype)
    except KeyError:
        # The blocks of GGUF: their package is there, or the file could not have been read.
        gguf: Any = load_extra("gguf", "gguf", "a .gguf file")
        values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[info.dtype]]
        return -(-info.size // int(values)) * int(size) * 8
