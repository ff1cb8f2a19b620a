"""A function under test, the grid that it claims to round to, and what is found to be wrong with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._types import Array, Index
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid

# Rounding of values by the subject: a product and a sum in its type, either way.
SLACK = 8.0


class Finding(NamedTuple):
    """What is wrong, and what that looks like (empty where it may have many causes)."""

    text: str
    cause: str = ""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A function under test, and the grid that it claims to round to."""

    function: Callable[[Any], Any]
    grid: Grid
    scale: float
    shift: float
    dtype: np.dtype[Any]

    @property
    def values(self) -> Array:
        """The representable values."""
        values: Array = self.shift + self.scale * self.grid.levels
        return values

    @property
    def thresholds(self) -> Array:
        """Where the nearest value changes."""
        thresholds: Array = self.shift + self.scale * self.grid.thresholds
        return thresholds

    def inputs(self, x: Array) -> Array:
        """Values as the function can be given them."""
        return given_as(x, self.dtype)

    def __call__(self, x: Array) -> tuple[Array, float]:
        """What the function returns for `x`, and the unit of rounding of its type."""
        result, unit = called(self.function, x, self.dtype)
        if not np.isfinite(result).all():
            i = int(np.argmin(np.isfinite(result)))
            many = int(np.count_nonzero(~np.isfinite(result)))
            where = f"fn must return finite values, got {result[i]} for x = {x[i]:.9g}"
            raise ValueError(f"{where} ({many} of {result.size}); a quantizer saturates")
        return result, unit

    def levels(self, x: Array) -> tuple[Index, NDArray[np.bool_], Array]:
        """Index of the value nearest to each output, whether the output is that value, and the output."""
        out, unit = self(x)
        index = np.clip(np.searchsorted(self.thresholds, out), 0, len(self.grid) - 1)
        size = np.abs(self.scale * self.grid.levels) + abs(self.shift)
        good = np.abs(out - self.values[index]) <= SLACK * unit * size[index]
        return index, good, out

    def nearest(self, x: Array) -> Index:
        """Index of the value nearest to `x` (away from ties)."""
        return np.searchsorted(self.thresholds, x)

    def blur(self, x: Array) -> Array:
        """How far (x - shift) / scale may be off when computed in the function's own type, units of x."""
        return SLACK * float(np.finfo(self.dtype).eps) * (np.abs(x) + abs(self.shift))


def given_as(x: Array, dtype: np.dtype[Any]) -> Array:
    """Values that a function of this type can be given: within its range, and rounded to it."""
    with np.errstate(over="ignore", under="ignore"):
        limit = float(np.finfo(dtype).max)
        return np.clip(x, -limit, limit).astype(dtype).astype(np.float64)


def called(function: Callable[[Any], Any], x: Array, dtype: np.dtype[Any]) -> tuple[Array, float]:
    """What a function returns for a copy of x in its type, and the unit of rounding of either type."""
    given = x.astype(dtype)
    raw = np.asarray(function(given.copy()))
    if raw.shape != given.shape:
        raise ValueError(f"fn must return an array of the shape it is given, {given.shape}, got {raw.shape}")
    try:
        result = raw.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"fn must return an array of real numbers, got dtype {raw.dtype}") from None
    return result, max(unit_of(raw.dtype), float(np.finfo(dtype).eps))


def unit_of(dtype: np.dtype[Any]) -> float:
    """Distance from 1 to the next number of a type, also of those of ml_dtypes; 0 for integers."""
    if dtype.kind == "f":
        return float(np.finfo(dtype).eps)
    spec = as_grid(dtype).float_spec if dtype.kind == "V" else None
    return 2.0**-spec.mantissa_bits if spec is not None else 0.0
