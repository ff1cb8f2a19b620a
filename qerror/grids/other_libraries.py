"""Formats as other libraries write them: dtypes of NumPy, ml_dtypes and PyTorch, and gfloat's FormatInfo."""

from __future__ import annotations

from typing import Any, Protocol, TypeGuard

import numpy as np

from .families import FLOATS, MAX_BITS, spec_grid
from .grid import Grid


class TorchDType(Protocol):
    """A dtype of PyTorch, as far as a type checker is told here."""

    @property
    def is_floating_point(self) -> bool:
        """Whether it holds fractions."""

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""


class FormatInfo(Protocol):
    """A format of gfloat: fields of a sign, of an exponent and of the precision - 1 bits of a significand.

    Codes at the top of either sign are NaN (`num_high_nans` of them), the one below infinite (`domain` Extended).
    Without `has_nz` that of -0 is NaN.
    """

    name: str
    k: int
    precision: int
    bias: int
    is_signed: bool
    domain: Any
    has_nz: bool
    num_high_nans: int
    has_subnormals: bool
    is_twos_complement: bool


_FIELDS = tuple(FormatInfo.__annotations__)


def dtype_name(dtype: Any) -> str:
    """The name of a dtype, "" where it is none.

    Examples
    --------
    >>> dtype_name(np.float16), dtype_name(3)
    ('float16', '')
    """
    if type(dtype).__module__ == "torch" and type(dtype).__name__ == "dtype":
        return str(dtype).removeprefix("torch.")
    try:
        return "" if dtype is None else np.dtype(dtype).name
    except (TypeError, ValueError):
        return ""


def is_format_info(value: object) -> TypeGuard[FormatInfo]:
    """Whether an object has the fields of a `FormatInfo`."""
    return all(hasattr(value, field) for field in _FIELDS)


def grid_of_info(info: FormatInfo) -> Grid:
    """The grid of the finite values of a format, with its codes.

    Raises
    ------
    ValueError
        If it is wider than 16 bits.
    """
    if info.k > MAX_BITS:
        raise ValueError(f"grid must have at most {MAX_BITS} bits, got {info.name!r} with {info.k}")
    codes, values = _integers(info) if info.is_twos_complement else _floats(info)
    order = np.argsort(values)
    found = Grid._from_parts(values[order], info.name, codes[order], info.k)
    for name, spec in FLOATS.items():
        if spec.bits == info.k and _agree(known := spec_grid(spec, name), found):
            return known
    return found


def _agree(one: Grid, other: Grid) -> bool:
    return np.array_equal(one.levels, other.levels) and np.array_equal(one.codes, other.codes)


def _integers(info: FormatInfo) -> tuple[Any, Any]:
    half = 1 << (info.k - 1)
    codes = np.arange(-half, half) if info.is_signed else np.arange(2 * half)
    return codes, np.ldexp(codes.astype(np.float64), 2 - info.bias - info.precision)


def _floats(info: FormatInfo) -> tuple[Any, Any]:
    t, sign = info.precision - 1, 1 << (info.k - 1)
    top = sign if info.is_signed else 2 * sign
    top -= info.num_high_nans + (getattr(info.domain, "name", "") == "Extended")
    codes = np.arange(top)
    field, significand = codes >> t, codes & ((1 << t) - 1)
    # Without significand and subnormals there is no zero, and each exponent is a value.
    has_zero = info.precision > 1 or info.has_subnormals
    zero = (codes == 0) & has_zero
    normal = ~zero & ((field > 0) | (not info.has_subnormals))
    values = np.ldexp((significand + (normal << t)).astype(np.float64), np.where(normal, field, 1) - info.bias - t)
    if info.is_signed:
        # -0 is no level of its own.
        negative = codes[1:] if has_zero else codes
        codes = np.concatenate((negative + sign, codes))
        values = np.concatenate((-values[len(values) - len(negative) :], values))
    return codes, values
