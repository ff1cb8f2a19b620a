"""What the scales of blocks can be stored as."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._check import check_choice
from .formats import grid as as_grid
from .grid import Grid

SCALE_FORMATS = ("fp16", "bf16", "e4m3fn", "e8m0", "pow2")


def scale_grid(name: str | Grid) -> Grid:
    """The grid of a scale format; "pow2" are all powers of two of a float64.

    Examples
    --------
    >>> scale_grid("pow2").absmax == 2.0**1022
    True
    """
    if isinstance(name, Grid):
        if name.max <= 0:
            raise ValueError(f"scale_format must have positive values, got {name!r}")
        return name
    name = scale_name(name)
    return Grid(np.exp2(np.arange(-1022.0, 1023.0)), "pow2") if name == "pow2" else as_grid(name)


def powers_of_two(stored: Grid) -> bool:
    """Whether all scales of a format are powers of two.

    Examples
    --------
    >>> powers_of_two(as_grid("e8m0")), powers_of_two(as_grid("fp16"))
    (True, False)
    """
    return bool((np.frexp(stored.levels[stored.levels > 0])[0] == 0.5).all())


def scale_name(name: Any) -> str:
    """The name of a scale format in `SCALE_FORMATS`; also of a dtype (bfloat16, float8_e4m3fn), in any case.

    Examples
    --------
    >>> scale_name("Float16"), scale_name(np.float16)
    ('fp16', 'fp16')
    """
    said = name.strip().lower() if isinstance(name, str) else name
    if said == "pow2":
        return "pow2"
    try:
        found = as_grid(said).name
    except ValueError:
        found = None
    return check_choice("scale_format", found if found in SCALE_FORMATS else name, SCALE_FORMATS)
