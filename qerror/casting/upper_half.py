"""Codes that are the upper half of a float32, as those of bf16: cast by integer arithmetic on its bits."""

from __future__ import annotations

import numpy as np

from ..grids.grid import FloatSpec, Grid
from .scratch import Buffer, Scratch

_SPEC = FloatSpec(exponent_bits=8, mantissa_bits=7, bias=127, reserved="ieee")
_HALF = np.uint32(16)


def is_upper_half(grid: Grid) -> bool:
    """Tell whether each code of the grid is the upper half of its level as a float32."""
    return grid.float_spec == _SPEC


def upper_half_round(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
    """Write the codes of a buffer of float32 within the levels, and leave it as it was."""
    bits = q.view(np.uint32)
    # Add half of the last place that is kept, or one less where the code is even, so that a tie goes to the even code.
    key = np.right_shift(bits, _HALF, out=scratch.take("key", np.uint32, q.size))
    key &= np.uint32(1)
    key += np.uint32(0x7FFF)
    key += bits
    key >>= _HALF
    np.copyto(codes, key, casting="unsafe")


def read_upper_half(codes: Buffer, values: Buffer, scratch: Scratch) -> bool:
    """Write the levels of integer codes into an array of float32 or float64; tell whether all are codes."""
    halves = codes
    if codes.dtype != np.uint16:
        if int(codes.min()) < 0 or int(codes.max()) > 0xFFFF:
            return False
        halves = scratch.take("halves", np.uint16, codes.size).reshape(codes.shape)
        np.copyto(halves, codes, casting="unsafe")
    direct = values.dtype == np.float32
    single = values if direct else scratch.take("single", np.float32, codes.size).reshape(codes.shape)
    bits = single.view(np.uint32)
    np.copyto(bits, halves)
    bits <<= _HALF
    if not direct:
        np.copyto(values, single)
    # As int16 the codes of negative values are the smaller ones, as uint16 the larger ones; infinity is behind either.
    return bool(halves.view(np.int16).max() < 0x7F80 and halves.max() < 0xFF80)
