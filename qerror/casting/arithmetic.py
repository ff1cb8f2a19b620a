"""Rounding of normalized values q = (x - z) / s by arithmetic: uniform and floating-point grids, to codes or levels.

Everything is computed in the type of q and never rounded twice: the tie of two levels is decided on q itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..grids.grid import FloatSpec, Grid
from .scratch import Buffer, Scratch

Round = Callable[[Buffer, Buffer, "Scratch"], None]
"""Called with a flat buffer of q, which it may overwrite, the codes to write, and scratch memory."""

LevelRound = Callable[[Buffer, Buffer, "Scratch"], None]
"""Called with a flat buffer of q, to be overwritten by the levels, two rows as long to work in, and scratch memory."""


@dataclass(frozen=True)
class Layout:
    """Bits of a binary floating-point type of the machine."""

    dtype: Any
    integer: Any
    mantissa_bits: int
    bias: int
    sign_shift: int


SINGLE = Layout(np.float32, np.int32, 23, 127, 31)
DOUBLE = Layout(np.float64, np.int64, 52, 1023, 63)


def round_integers(y: Buffer, stochastic: bool, scratch: Scratch) -> None:
    """Round y to integers, in place."""
    if not stochastic:
        np.rint(y, out=y)
        return
    rng = scratch.rng
    if rng is None:
        raise TypeError("stochastic rounding needs a random stream")
    floor = np.floor(y, out=scratch.take("floor", y.dtype, y.size))
    y -= floor
    up = np.less(rng.random(y.size), y, out=scratch.take("up", np.bool_, y.size))
    np.add(floor, up, out=y)


def is_plain_uniform(grid: Grid) -> bool:
    """Tell whether levels / step are consecutive integers or half-integers that can be computed without rounding."""
    step = grid.step
    if step is None or not 2.0**-60 <= step <= 2.0**60 or np.frexp(step)[0] != 0.5:
        return False
    first, last = grid.min / step, grid.max / step
    if max(abs(first), abs(last)) > 2.0**22:
        return False
    if first.is_integer():
        return int(first) % 2 == int(grid.codes[0]) % 2
    # Around a threshold at 0 the scaling must not underflow, so it may only enlarge.
    return (2 * first).is_integer() and step <= 1 and int(grid.codes[0]) == 0


def _uniform_index(grid: Grid, stochastic: bool) -> Callable[[Buffer, Scratch], None]:
    """Replace q by level / step, in place; for grids of half-integers by the index."""
    step, lowest, highest = float(grid.step or 0.0), grid.min, grid.max
    first = lowest / step
    midrise = not first.is_integer()

    def index(q: Buffer, scratch: Scratch) -> None:
        np.clip(q, lowest, highest, out=q)
        if step != 1.0:
            q *= 1.0 / step
        if midrise and not stochastic:
            # floor + ceil is 2q only on the integers, which are the thresholds: there alone a half is left for rint,
            # which then picks the even index. Adding the offset to q first would round q onto the threshold.
            floor = np.floor(q, out=scratch.take("floor", q.dtype, q.size))
            np.ceil(q, out=q)
            q += floor
            q *= 0.5
        if midrise:
            q -= first
        round_integers(q, stochastic, scratch)

    return index


def uniform_round(grid: Grid, stochastic: bool) -> Round:
    """Return what writes the codes of a uniform grid; see `is_plain_uniform`."""
    index = _uniform_index(grid, stochastic)
    first, first_code = grid.min / float(grid.step or 0.0), int(grid.codes[0])
    offset = first_code - first if first.is_integer() else 0.0

    def write_codes(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        index(q, scratch)
        if offset:
            q += offset
        np.copyto(codes, q, casting="unsafe")

    return write_codes


def covers(layout: Layout, grid: Grid) -> bool:
    """Tell whether the powers of two of the binades and the reciprocals of their ulps are normal numbers."""
    spec = grid.float_spec
    if spec is None:
        return False
    lowest = (1 if spec.subnormals else 0) - spec.bias
    highest = int(np.frexp(grid.absmax)[1]) - 1
    exponents = (lowest, highest, spec.mantissa_bits - lowest, spec.mantissa_bits - highest)
    return all(1 <= exponent + layout.bias <= 2 * layout.bias for exponent in exponents)


def _to_ulps(spec: FloatSpec, layout: Layout) -> Callable[[Buffer, Buffer, Buffer], Buffer]:
    """Make q count ulps of the grid, in place: write the binade's exponent field, return (in `work`) the factor.

    With 2^e the binade of q, or the lowest one of the grid, the factor 2^(m - e) is exact.
    """
    integer = layout.integer
    exponent_mask = integer(((1 << (layout.sign_shift - layout.mantissa_bits)) - 1) << layout.mantissa_bits)
    least = integer(((1 if spec.subnormals else 0) - spec.bias + layout.bias) << layout.mantissa_bits)
    # Subtracting the exponent field of 2^e from this leaves that of 2^(m - e); the difference wraps as intended.
    mirror = np.array((2 * layout.bias + spec.mantissa_bits) << layout.mantissa_bits).astype(integer)

    def scale(q: Buffer, field: Buffer, work: Buffer) -> Buffer:
        np.bitwise_and(q.view(integer), exponent_mask, out=field)
        np.maximum(field, least, out=field)
        factor: Buffer = np.subtract(mirror, field, out=work).view(layout.dtype)
        q *= factor
        return factor

    return scale


def floating_round(grid: Grid, layout: Layout, stochastic: bool) -> Round:
    """Return what writes the codes of a floating-point grid, for a buffer of a type that `covers` it."""
    spec = grid.float_spec
    if spec is None:
        raise TypeError("the grid has no floating-point layout")
    m, integer = spec.mantissa_bits, layout.integer
    lowest, highest = grid.min, grid.max
    drop = layout.mantissa_bits - m
    offset = integer((layout.bias - spec.bias + 1) << m)
    sign_code = integer(1 << (spec.bits - 1))
    to_ulps = _to_ulps(spec, layout)

    def write_codes(q: Buffer, codes: Buffer, scratch: Scratch) -> None:
        code = codes if codes.dtype == integer else scratch.take("code", integer, q.size)
        field = scratch.take("field", integer, q.size)
        if spec.signed:
            sign = np.right_shift(q.view(integer), layout.sign_shift, out=scratch.take("sign", integer, q.size))
            sign &= sign_code
            np.abs(q, out=q)
        np.clip(q, 0.0 if spec.signed else lowest, highest, out=q)
        to_ulps(q, field, code)
        tie = q == 1.5 if m == 0 and not stochastic else None
        round_integers(q, stochastic, scratch)
        np.copyto(code, q, casting="unsafe")
        field >>= drop
        field -= offset
        if tie is not None:
            # Without mantissa bits the parity of a code is that of its exponent, which rint does not see.
            code -= tie & (field & 1).astype(np.bool_)
        code += field
        if spec.signed:
            code |= sign
            if spec.reserved == "fnuz":
                code *= code != sign_code
        if code is not codes:
            np.copyto(codes, code, casting="unsafe")

    return write_codes


def level_round(grid: Grid, *, stochastic: bool = False) -> LevelRound | None:
    """What replaces a buffer of float64 by its levels, in half the steps that codes take.

    The levels are those of the codes that `kernels.make_kernel` writes. None for codebooks, and where ties need codes.
    """
    spec = grid.float_spec
    if spec is None:
        return _uniform_levels(grid, stochastic) if is_plain_uniform(grid) else None
    if not covers(DOUBLE, grid) or (spec.mantissa_bits == 0 and not stochastic):
        return None
    return _floating_stochastic(grid, spec) if stochastic else _floating_nearest(grid, spec)


def _floating_nearest(grid: Grid, spec: FloatSpec) -> LevelRound:
    """Add and subtract 1.5 * 2^52 ulps of the binade: what float64 then rounds to are the levels."""
    lowest, highest, mantissa_bits = grid.min, grid.max, DOUBLE.mantissa_bits
    exponent_mask = np.int64(0x7FF << mantissa_bits)
    least = np.int64(((1 if spec.subnormals else 0) - spec.bias + DOUBLE.bias) << mantissa_bits)
    to_constant = np.int64(((mantissa_bits - spec.mantissa_bits) << mantissa_bits) + (1 << (mantissa_bits - 1)))

    def floating(q: Buffer, work: Buffer, scratch: Scratch) -> None:
        np.clip(q, lowest, highest, out=q)
        constant = work[0]
        field = constant.view(np.int64)
        np.bitwise_and(q.view(np.int64), exponent_mask, out=field)
        np.maximum(field, least, out=field)
        field += to_constant
        q += constant
        q -= constant

    return floating


def _floating_stochastic(grid: Grid, spec: FloatSpec) -> LevelRound:
    lowest, highest, to_ulps = grid.min, grid.max, _to_ulps(spec, DOUBLE)

    def floating(q: Buffer, work: Buffer, scratch: Scratch) -> None:
        np.clip(q, lowest, highest, out=q)
        factor = to_ulps(q, *work.view(np.int64))
        round_integers(q, True, scratch)
        q /= factor

    return floating


def _uniform_levels(grid: Grid, stochastic: bool) -> LevelRound:
    index = _uniform_index(grid, stochastic)
    step = float(grid.step or 0.0)
    first = grid.min / step
    start = 0.0 if first.is_integer() else first

    def uniform(q: Buffer, work: Buffer, scratch: Scratch) -> None:
        index(q, scratch)
        if start:
            q += start
        if step != 1.0:
            q *= step

    return uniform
