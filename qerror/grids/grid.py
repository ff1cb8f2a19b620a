"""The grid: sorted, dimensionless representable values, and what follows from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, NoReturn, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._check import as_float_array, check_finite

T = TypeVar("T", bound=np.generic)
Reserved = Literal["none", "ieee", "fn", "fnuz"]


@dataclass(frozen=True)
class FloatSpec:
    """The layout of a floating-point grid: sign bit, exponent field E, mantissa field M.

    A code with E > 0 stands for ``(1 + M / 2^mantissa_bits) * 2^(E - bias)``, one with E = 0 for
    ``M / 2^mantissa_bits * 2^(1 - bias)``.

    Attributes
    ----------
    exponent_bits, mantissa_bits : int
        Widths of the two fields.
    bias : int
        Exponent bias.
    reserved : {"none", "ieee", "fn", "fnuz"}
        Codes that are not finite values: none; the whole top exponent; the code of all ones; or the code of -0.
    signed : bool
        Whether there is a sign bit.
    subnormals : bool
        False if the codes with E = 0 are powers of two like the others and zero does not exist (OCP's E8M0).
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    reserved: Reserved = "none"
    signed: bool = True
    subnormals: bool = True

    @property
    def bits(self) -> int:
        """Width of a code in bits."""
        return int(self.signed) + self.exponent_bits + self.mantissa_bits


class Grid:
    """Sorted, dimensionless representable values ("levels") of a scalar quantizer.

    With a scale s and a shift z the representable values are ``z + s * levels``; the thresholds between the
    cells are the midpoints ``t_k = (l_k + l_{k+1}) / 2``. A value on a threshold goes to the level whose code
    is even. Grids are immutable; two grids are equal if their levels are.

    Parameters
    ----------
    levels : array_like, shape (K,)
        At least two finite, strictly increasing numbers.
    name : str, optional
        A name for tables and messages.

    Attributes
    ----------
    levels : ndarray, shape (K,)
        The levels, float64 and read-only. Zero is +0.
    thresholds : ndarray, shape (K - 1,)
        Midpoints of neighbouring levels, read-only.
    codes : ndarray of int64, shape (K,)
        The code of each level: the integer itself where the levels are consecutive integers, the bit pattern for
        floating-point formats (that of +0 for zero), else the index.
    bits : int
        Width of a code: that of the format, else ceil(log2 K).
    float_spec : FloatSpec or None
        The layout, for floating-point formats.
    name : str or None
        The name.

    Raises
    ------
    ValueError
        If there are fewer than two levels, or they are not finite or not strictly increasing.

    Examples
    --------
    >>> grid = Grid([-1, 0, 0.5, 1])
    >>> grid.thresholds
    array([-0.5 ,  0.25,  0.75])
    >>> grid
    Grid([-1, 0, 0.5, 1])
    """

    levels: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    codes: NDArray[np.int64]
    bits: int
    float_spec: FloatSpec | None
    name: str | None

    def __init__(self, levels: ArrayLike, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise ValueError(f"name must be a string or None, got {name!r}")
        self._set(_check_levels(levels), name, None, None, None)

    @classmethod
    def _from_parts(
        cls,
        levels: NDArray[np.float64],
        name: str | None,
        codes: NDArray[np.int64] | None = None,
        bits: int | None = None,
        float_spec: FloatSpec | None = None,
    ) -> Grid:
        """Build a grid whose codes and width are those of a format; levels are trusted."""
        self = cls.__new__(cls)
        self._set(levels, name, codes, bits, float_spec)
        return self

    def _set(
        self,
        levels: NDArray[np.float64],
        name: str | None,
        codes: NDArray[np.int64] | None,
        bits: int | None,
        float_spec: FloatSpec | None,
    ) -> None:
        fields = {
            "levels": _frozen(levels),
            "thresholds": _frozen(_midpoints(levels)),
            "codes": _frozen(_default_codes(levels) if codes is None else codes),
            "bits": (levels.size - 1).bit_length() if bits is None else bits,
            "float_spec": float_spec,
            "name": name,
        }
        self.__dict__.update(fields)

    @cached_property
    def min(self) -> float:
        """The lowest level."""
        return float(self.levels[0])

    @cached_property
    def max(self) -> float:
        """The highest level."""
        return float(self.levels[-1])

    @cached_property
    def absmax(self) -> float:
        """The largest magnitude among the levels; ``clip = scale * absmax``."""
        return max(abs(self.min), abs(self.max))

    @cached_property
    def step(self) -> float | None:
        """The distance of neighbouring levels if it is exactly the same everywhere, else None."""
        with np.errstate(over="ignore"):
            gaps = np.diff(self.levels)
        step = float(gaps[0])
        if not math.isfinite(step) or np.any(gaps != step):
            return None
        # Differences are rounded; only where the multiples give the levels back is the grid truly uniform.
        return step if np.array_equal(self.levels, self.levels[0] + step * np.arange(len(self))) else None

    @property
    def consecutive(self) -> bool:
        """Whether the levels are consecutive integers, as zero points need them."""
        return self.step == 1.0 and self.min == np.rint(self.min)

    @cached_property
    def ties_to_lower(self) -> NDArray[np.bool_]:
        """For each threshold k, True if a value exactly on it goes to level k, whose code is then even; (K - 1,)."""
        return _frozen(self.codes[:-1] % 2 == 0)

    @cached_property
    def runs(self) -> NDArray[np.intp]:
        """Maximal runs of exactly equal gaps as rows (first level, last level), in order; shape (R, 2).

        A uniform grid has one run, a floating-point grid about one for each binade and sign.
        """
        with np.errstate(over="ignore"):
            gaps = np.diff(self.levels)
        cuts = np.flatnonzero(gaps[1:] != gaps[:-1]) + 1
        edges = np.concatenate(([0], cuts, [gaps.size]))
        return _frozen(np.stack((edges[:-1], edges[1:]), axis=1).astype(np.intp))

    @cached_property
    def holds_doubles(self) -> bool:
        """Whether twice a level is a level or beyond the ends, which lie on both sides of 0 or at it.

        Where nothing is clipped at s, E(2s) >= E(s) then: every level at 2s is one at s, or farther away than the end.
        """
        twice = 2 * self.levels
        inside = twice[(twice >= self.min) & (twice <= self.max)]
        return bool(self.min <= 0 <= self.max and np.isin(inside, self.levels).all())

    @cached_property
    def half(self) -> Grid | None:
        """The levels >= 0 as a grid, where the others are their mirror image: |x| has the same error on it as x here.

        None for other grids, and where there is but one such level.
        """
        levels = self.levels[self.levels >= 0]
        if levels.size < 2 or not np.array_equal(self.levels, -self.levels[::-1]):
            return None
        spec = None if self.float_spec is None else replace(self.float_spec, signed=False)
        return Grid._from_parts(levels, None, float_spec=spec)

    @cached_property
    def _hash(self) -> int:
        return hash(self.levels.tobytes())

    def __len__(self) -> int:
        """Return the number of levels K."""
        return int(self.levels.size)

    def __eq__(self, other: object) -> bool:
        """Return True if the levels are the same."""
        if not isinstance(other, Grid):
            return NotImplemented
        return self is other or np.array_equal(self.levels, other.levels)

    def __hash__(self) -> int:
        """Return a hash of the levels."""
        return self._hash

    def __setattr__(self, attribute: str, value: Any) -> NoReturn:
        """Refuse: grids are immutable."""
        raise AttributeError(f"Grid is immutable; {attribute!r} cannot be set, make a new Grid instead")

    def __delattr__(self, attribute: str) -> NoReturn:
        """Refuse: grids are immutable."""
        raise AttributeError(f"Grid is immutable; {attribute!r} cannot be deleted")

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the parts."""
        # Pickled arrays come back writeable: rebuild instead.
        return Grid._from_parts, (self.levels, self.name, self.codes, self.bits, self.float_spec)

    def __repr__(self) -> str:
        """Describe the grid in one line."""
        if self.name is None and len(self) <= 8:
            return f"Grid([{', '.join(format(level, '.12g') for level in self.levels)}])"
        label = f"{self.name!r}, " if self.name is not None else ""
        step = f", step {self.step:.12g}" if self.step is not None else ""
        return f"Grid({label}{len(self)} levels from {self.min:.12g} to {self.max:.12g}{step})"


def _frozen(array: NDArray[T]) -> NDArray[T]:
    array = array.view() if array.flags.writeable else array
    array.flags.writeable = False
    return array


def check_affine(grid: Grid) -> None:
    """Refuse grids that have no zero points."""
    if not grid.consecutive:
        known = "a grid of consecutive integers such as uint8 or int4"
        raise ValueError(f"zero_point needs {known}, got {grid.name or repr(grid)}")


def _check_levels(levels: ArrayLike) -> NDArray[np.float64]:
    array = as_float_array("levels", levels)
    if array.ndim != 1 or array.size < 2:
        raise ValueError(f"levels must be a one-dimensional array of at least two values, got shape {array.shape}")
    check_finite("levels", array)
    array = array + 0.0  # a copy of our own, in which -0 has become +0
    falls = np.flatnonzero(array[1:] <= array[:-1])
    if falls.size:
        k = int(falls[0])
        pair = f"{array[k]:.12g}, {array[k + 1]:.12g} at index {k}"
        raise ValueError(f"levels must be strictly increasing, got {pair}; use np.unique(levels) to sort them")
    return array


def _midpoints(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    lower, upper = levels[:-1], levels[1:]
    # Halving first would lose a bit of subnormal levels, adding first overflows for the largest.
    if max(abs(levels[0]), abs(levels[-1])) < 2.0**1022:
        return 0.5 * (lower + upper)
    return 0.5 * lower + 0.5 * upper


def _default_codes(levels: NDArray[np.float64]) -> NDArray[np.int64]:
    index = np.arange(levels.size)
    if levels[0].is_integer() and abs(levels[0]) < 2.0**52 and np.array_equal(levels, levels[0] + index):
        return (index + int(levels[0])).astype(np.int64)
    return index.astype(np.int64)
