"""What the scale rules share: their result, and the statistics of a density about the shift."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .._check import check_choice, check_shift, shown
from .._types import Array
from ..densities.base import Density
from ..grids.grid import Grid
from ..results import Status
from ..search.found import any_scale

# Steps of an iteration: more take hours, and nothing moves any more.
MOST_STEPS = 1_000_000
# The rules that understand shift="optimal".
WITH_OWN_SHIFT = ("minmax", "iterative", "shrink_search", "optimal")


@dataclasses.dataclass(frozen=True)
class RuleResult:
    """What a rule chose.

    Attributes
    ----------
    scale, shift : ndarray
        Units of x.
    status : Status or object ndarray of Status
    note : str
        What the rule decided on its way (the family that it fitted).
    trace : ndarray of shape (steps + 1, ...) or None
        MSE before each step of an iteration and after the last; a group that has settled keeps its value.
    """

    scale: Any
    shift: Any
    status: Any
    note: str = ""
    trace: Array | None = None


def as_number(name: str, value: Any) -> float:
    """An option of a rule as a number >= 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not value >= 0:
        raise ValueError(f"{name} must be a number >= 0, got {shown(value)}")
    return float(value)


def is_word(shift: Any, word: str) -> bool:
    """Whether a shift is given by this word."""
    return isinstance(shift, str) and shift == word


def fixed_shift(name: str, density: Density, shift: Any) -> Array:
    """The shift as numbers of the broadcast shape; only some rules choose one themselves."""
    if isinstance(shift, str):
        if shift == "optimal":
            able = ", ".join(WITH_OWN_SHIFT)
            raise ValueError(f"shift must be a number or 'mean' for rule {name}, got 'optimal'; {able} choose one")
        check_choice("shift", shift, ("mean", "optimal"))
        return np.asarray(density.mean, np.float64)
    z = check_shift(shift)
    return np.broadcast_to(z, np.broadcast_shapes(z.shape, density.shape))


def bounds(name: str, density: Density) -> tuple[Array, Array]:
    """Least and greatest value."""
    low, high = (np.asarray(end, np.float64) for end in density.support)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(f"rule {name} needs data or a density of bounded support, got {density!r}")
    return low, high


def rms(density: Density, z: Array) -> Array:
    """Root of E[(x - z)^2]."""
    root: Array = np.hypot(np.asarray(density.std), np.asarray(density.mean) - z)
    return root


def mean_distance(density: Density, z: Array) -> Array:
    """E|x - z|."""
    above: Array = density.moments(z, np.inf, z)[1]
    below: Array = density.moments(-np.inf, z, z)[1]
    return above - below


def settled_result(density: Density, grid: Grid, scale: Any, shift: Any) -> RuleResult:
    """A result in the broadcast shape; where the rule gives no scale (all values at the shift) 1.0 stands for any.

    On a grid without 0 the error then falls with the scale: the least stands for none.
    """
    scale, shift = np.asarray(scale, np.float64), np.asarray(shift, np.float64)
    shape = np.broadcast_shapes(scale.shape, shift.shape, density.shape)
    scale, shift = np.broadcast_to(scale, shape), np.broadcast_to(shift, shape)
    none = ~(np.abs(scale) > 0)
    status = Status.DEGENERATE if 0 in grid.levels else Status.DEGENERATE_NONE
    return RuleResult(np.where(none, any_scale(grid), scale)[()], shift[()], either(none, status, Status.RULE))


def either(condition: ArrayLike, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`: an object array, or one status for one condition."""
    return np.where(condition, np.asarray(yes, object), np.asarray(no, object))[()]
