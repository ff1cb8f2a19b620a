"""The named formats: integers, floating point, codebooks."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np

from .._check import as_int, suggest
from .codebooks import CODEBOOKS
from .families import FLOATS, MAX_BITS, float_grid, int_grid, spec_grid
from .grid import Grid
from .names import GridName
from .other_libraries import FormatInfo, TorchDType, dtype_name, grid_of_info, is_format_info

# The plain eXmY that formats() lists: those in use at each width. Any other resolves by its name too.
_PLAIN_FLOATS = ("e2m0", "e1m2", "e2m1", "e3m0", "e2m2", "e3m1", "e2m3", "e3m2", "e2m4", "e3m3", "e4m2", "e2m5")

# Names of NumPy and ml_dtypes dtypes. As a dtype, float8_e4m3 is not ambiguous: ml_dtypes means the IEEE layout.
_ALIASES = {
    "float16": "fp16",
    "half": "fp16",
    "bfloat16": "bf16",
    "float4_e2m1fn": "e2m1",
    # PyTorch has two of them in a byte.
    "float4_e2m1fn_x2": "e2m1",
    "float6_e2m3fn": "e2m3",
    "float6_e3m2fn": "e3m2",
    "float8_e3m4": "e3m4",
    "float8_e4m3": "e4m3_ieee",
    "float8_e4m3fn": "e4m3fn",
    "float8_e4m3fnuz": "e4m3fnuz",
    "float8_e4m3b11fnuz": "e4m3b11fnuz",
    "float8_e5m2": "e5m2",
    "float8_e5m2fnuz": "e5m2fnuz",
    "float8_e8m0fnu": "e8m0",
}

_AMBIGUOUS = {
    "e4m3": ("e4m3fn", "e4m3fnuz", "e4m3_ieee"),
    "fp8": ("e4m3fn", "e5m2", "e4m3fnuz", "e5m2fnuz"),
    "fp6": ("e2m3", "e3m2"),
    "fp4": ("e2m1", "e3m0", "nf4"),
}

# Blocks of these with a scale each: see `block_formats`.
BLOCK_NAMES = ("mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvfp4")
_BLOCK_NAME = re.compile(r".+_g[1-9][0-9]*(_.+)?")
_INT_NAME = re.compile(r"(u?)int([1-9][0-9]?)(?:_(narrow|midrise))?")
# Integers of computers and of accumulators, which look like misspelt names.
_TOO_WIDE = re.compile(r"u?int(24|32|48|64|128)")
_FLOAT_NAME = re.compile(r"e([1-9][0-9]?)m([0-9][0-9]?)")


def grid(name: GridName | str | Grid | np.dtype[Any] | type[Any] | TorchDType | FormatInfo) -> Grid:
    """Return the grid of a name, a dtype or another library's format; a Grid is returned as it is.

    Parameters
    ----------
    name : str, dtype, FormatInfo or Grid
        A name in any case (``qe.formats()`` lists them; every other ``eXmY`` up to 16 bits works too), a dtype of
        NumPy, ml_dtypes or PyTorch, or a format of gfloat (its finite values).

    Raises
    ------
    ValueError
        If the name is unknown (near matches are shown), ambiguous, or that of a block format.

    Examples
    --------
    >>> grid("int4")
    Grid('int4', 16 levels from -8 to 7, step 1)
    >>> grid(np.float16).absmax
    65504.0
    """
    if isinstance(name, Grid):
        return name
    if isinstance(name, str):
        return _resolve(name.strip().lower())
    if is_format_info(name):
        return grid_of_info(name)
    said = dtype_name(name)
    if not said:
        raise ValueError(
            f"grid must be a name, a dtype or a Grid, got {name!r}; qe.Grid(levels) takes levels of your own"
        )
    return _resolve(said)


def formats(bits: int | None = None) -> list[str]:
    """Return the names of the formats, by width and in each width integers, floats and codebooks in this order.

    Parameters
    ----------
    bits : int, optional
        Only the formats of this width.

    Raises
    ------
    ValueError
        If `bits` is no positive integer.

    Examples
    --------
    >>> formats(bits=6)
    ['int6', 'int6_narrow', 'uint6', 'int6_midrise', 'e2m3', 'e3m2']
    """
    if bits is not None:
        bits = as_int("bits", bits, 1)
    return [name for name, width in _listed() if bits is None or width == bits]


def aliases(name: str) -> list[str]:
    """The other names of a format: those of dtypes.

    Examples
    --------
    >>> aliases("fp16"), aliases("int4")
    (['float16', 'half'], [])
    """
    return [alias for alias, meant in _ALIASES.items() if meant == name]


@lru_cache(maxsize=1)
def _listed() -> tuple[tuple[str, int], ...]:
    names = [form.format(b) for b in range(2, 17) for form in ("int{}", "int{}_narrow", "uint{}", "int{}_midrise")]
    names += [*_PLAIN_FLOATS, *FLOATS, *CODEBOOKS]
    return tuple(sorted(((name, grid(name).bits) for name in names), key=lambda item: item[1]))


@lru_cache(maxsize=1024)
def _resolve(name: str) -> Grid:
    name = _ALIASES.get(name, name)
    if name in CODEBOOKS:
        return Grid(CODEBOOKS[name], name)
    if name in FLOATS:
        return spec_grid(FLOATS[name], name)
    if name in _AMBIGUOUS:
        raise ValueError(f"grid name {name!r} is ambiguous, say which of {', '.join(_AMBIGUOUS[name])}")
    if name in BLOCK_NAMES or _BLOCK_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is a block format, not a grid, which is what is wanted here")
    if (match := _INT_NAME.fullmatch(name)) and int(match[2]) <= MAX_BITS:
        return int_grid(int(match[2]), signed=not match[1], narrow=match[3] == "narrow", midrise=match[3] == "midrise")
    if (match := _FLOAT_NAME.fullmatch(name)) and 1 + int(match[1]) + int(match[2]) <= MAX_BITS:
        return float_grid(int(match[1]), int(match[2]))
    if _TOO_WIDE.fullmatch(name):
        raise ValueError(f"unknown grid {name!r}: grids have at most {MAX_BITS} bits, as int16, uint16, fp16 and bf16")
    known = [listed for listed, _ in _listed()] + [*_ALIASES, *BLOCK_NAMES]
    raise ValueError(f"unknown grid {name!r}{suggest(name, known) or '; qe.formats() lists the names'}")
