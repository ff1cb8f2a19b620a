"""The two families of grids that follow from a few numbers: integers and floating point."""

from __future__ import annotations

from typing import get_args

import numpy as np

from .._check import as_int, check_choice
from .grid import FloatSpec, Grid, Reserved

MAX_BITS = 16
"""The widest format: 65 536 levels still fit tables and caches."""
# Beyond, no value of any layout is a float64.
_MOST_BIAS = 1 << 16

# Encodings as ml_dtypes has them; fp16 and bf16 are IEEE 754 binary16 and its 8-bit-exponent sibling. A plain
# eXmY that is not listed here has no reserved codes. FN: no infinity, one NaN. FNUZ: also no negative zero.
FLOATS: dict[str, FloatSpec] = {
    "e4m3fn": FloatSpec(4, 3, 7, "fn"),
    "e4m3fnuz": FloatSpec(4, 3, 8, "fnuz"),
    "e4m3b11fnuz": FloatSpec(4, 3, 11, "fnuz"),
    "e4m3_ieee": FloatSpec(4, 3, 7, "ieee"),
    "e5m2": FloatSpec(5, 2, 15, "ieee"),
    "e5m2fnuz": FloatSpec(5, 2, 16, "fnuz"),
    "e3m4": FloatSpec(3, 4, 3, "ieee"),
    "fp16": FloatSpec(5, 10, 15, "ieee"),
    "bf16": FloatSpec(8, 7, 127, "ieee"),
    # OCP Microscaling Formats (MX) v1.0, section 5.4.1: no sign, no zero, the code of all ones is NaN.
    "e8m0": FloatSpec(8, 0, 127, "fn", signed=False, subnormals=False),
}


def int_grid(bits: int, *, narrow: bool = False, signed: bool = True, midrise: bool = False) -> Grid:
    """Return the grid of the integers of a width.

    The levels are -2^(b-1) .. 2^(b-1) - 1; 0 .. 2^b - 1 unsigned; -(2^(b-1) - 1) .. 2^(b-1) - 1 narrow;
    -(2^b - 1)/2 .. (2^b - 1)/2 in steps of 1 midrise, the symmetric grid of Max (1960) that has no zero.

    Parameters
    ----------
    bits : int
        Width b, 1 to 16.
    narrow : bool, optional
        Leave out the lowest level, so that the grid is symmetric.
    signed : bool, optional
        Two's complement rather than unsigned.
    midrise : bool, optional
        Put the levels halfway between the integers.

    Raises
    ------
    ValueError
        If `bits` is outside 1 .. 16 or the options exclude each other.

    Examples
    --------
    >>> int_grid(2).levels
    array([-2., -1.,  0.,  1.])
    >>> int_grid(2, midrise=True).levels
    array([-1.5, -0.5,  0.5,  1.5])
    """
    bits = as_int("bits", bits, 1, MAX_BITS)
    if narrow + midrise + (not signed) > 1:
        raise ValueError(f"narrow, midrise and signed=False exclude each other, got {narrow=}, {midrise=}, {signed=}")
    if narrow and bits == 1:
        raise ValueError("bits must be at least 2 for a narrow grid, got 1; it would have one level")
    half = 1 << (bits - 1)
    name = f"{'' if signed else 'u'}int{bits}{'_narrow' if narrow else ''}{'_midrise' if midrise else ''}"
    if midrise:
        return Grid._from_parts(np.arange(0.5 - half, half), name, bits=bits)
    start = -half + narrow if signed else 0
    codes = np.arange(start, half if signed else 2 * half, dtype=np.int64)
    return Grid._from_parts(codes.astype(np.float64), name, codes, bits)


def float_grid(
    exponent_bits: int,
    mantissa_bits: int,
    *,
    bias: int | None = None,
    reserved: Reserved = "none",
    signed: bool = True,
) -> Grid:
    """Return the grid of the finite values of a floating-point layout.

    A code with exponent field E and mantissa field M stands for (1 + M / 2^m) 2^(E - bias), or with E = 0 for
    M / 2^m 2^(1 - bias). The levels with their codes are all finite values; +0 and -0 are one level.

    Parameters
    ----------
    exponent_bits : int
        Width of the exponent field, at least 1.
    mantissa_bits : int
        Width m of the mantissa field, at least 0. All fields together have at most 16 bits.
    bias : int, optional
        Exponent bias; by default 2^(exponent_bits - 1) - 1, for "fnuz" one more.
    reserved : {"none", "ieee", "fn", "fnuz"}, optional
        Codes that are not finite values: none; those of the top exponent (infinities and NaN); the code of all ones
        (with either sign); the code of -0.
    signed : bool, optional
        Whether there is a sign bit.

    Raises
    ------
    ValueError
        If a width is out of bounds or the values are not exact float64 numbers.

    Examples
    --------
    >>> float_grid(2, 1).levels[7:]
    array([0. , 0.5, 1. , 1.5, 2. , 3. , 4. , 6. ])
    """
    exponent_bits = as_int("exponent_bits", exponent_bits, 1, MAX_BITS - 1)
    mantissa_bits = as_int("mantissa_bits", mantissa_bits, 0, MAX_BITS - signed - exponent_bits)
    check_choice("reserved", reserved, get_args(Reserved))
    if reserved == "fnuz" and not signed:
        raise ValueError("reserved='fnuz' takes the code of -0 away and so needs signed=True, got signed=False")
    if bias is None:
        bias = (1 << (exponent_bits - 1)) - (0 if reserved == "fnuz" else 1)
    spec = FloatSpec(
        exponent_bits, mantissa_bits, as_int("bias", bias, -_MOST_BIAS, _MOST_BIAS), reserved, bool(signed)
    )
    return spec_grid(spec, _float_name(spec))


def _float_name(spec: FloatSpec) -> str:
    """The short name of a layout if it has one, else the call that makes it."""
    for name, known in FLOATS.items():
        if known == spec:
            return name
    plain = f"e{spec.exponent_bits}m{spec.mantissa_bits}"
    default_bias = (1 << (spec.exponent_bits - 1)) - (0 if spec.reserved == "fnuz" else 1)
    if spec.reserved == "none" and spec.signed and spec.bias == default_bias and plain not in ("e4m3", *FLOATS):
        return plain
    options = f", bias={spec.bias}" if spec.bias != default_bias else ""
    options += f", reserved={spec.reserved!r}" if spec.reserved != "none" else ""
    options += "" if spec.signed else ", signed=False"
    return f"float_grid({spec.exponent_bits}, {spec.mantissa_bits}{options})"


def spec_grid(spec: FloatSpec, name: str) -> Grid:
    """The grid of a layout.

    Examples
    --------
    >>> spec_grid(FloatSpec(2, 1, 1), "e2m1").max
    6.0
    """
    m, top = spec.mantissa_bits, 1 << (spec.exponent_bits + spec.mantissa_bits)
    count = {"none": top, "ieee": top - (1 << m), "fn": top - 1, "fnuz": top}[spec.reserved]
    codes = np.arange(count, dtype=np.int64)
    field = codes >> m
    normal = field > 0 if spec.subnormals else np.ones(count, dtype=bool)
    significand = (codes & ((1 << m) - 1)) + (normal.astype(np.int64) << m)
    exponent = np.where(normal, field, 1) - spec.bias - m
    # Below 2^-1074 and from 2^1024 on, float64 would round the levels themselves.
    if count < 2 or exponent[0] < -1074 or int(exponent[-1]) + m > 1023:
        raise ValueError(
            f"exponent_bits, mantissa_bits and bias must give at least two values, all within float64 "
            f"(2^-1074 to 2^1024), got {spec}; use fewer exponent bits or another bias"
        )
    levels = np.ldexp(significand.astype(np.float64), exponent)
    if spec.signed:
        levels = np.concatenate((-levels[:0:-1], levels))
        codes = np.concatenate((codes[:0:-1] + top, codes))
    return Grid._from_parts(levels, name, codes, spec.bits, spec)
