"""How a block gets its scale from its largest magnitude M: the rules in use, as steps of a staircase g(M).

Every rule but "optimal" reads c M, c a constant: "absmax" divides it by the largest level and takes the nearest scale
that can be stored ("up", "down": the next one above or below); "floor", "ceil", "even" and "rceil" are the four
conventions for powers of two, s = 2^k with theta / 2 <= c M / s < theta, which differ in theta alone.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .._types import Array
from .grid import Grid

LINEAR = ("absmax", "up", "down")
OCTAVES = ("floor", "ceil", "even", "rceil")
BLOCK_RULES = (*LINEAR, *OCTAVES, "best_of", "optimal")


class Staircase(NamedTuple):
    """Scales of blocks by their largest magnitude: `scales[j]` for bounds[j] < M < bounds[j + 1].

    Attributes
    ----------
    bounds : ndarray of shape (J + 1,)
        Ascending, from 0 to infinity, units of x.
    scales : ndarray of shape (J,)
        Units of x, ascending; the first may be 0, where blocks vanish.
    """

    bounds: Array
    scales: Array


def octave_end(grid: Grid, rule: str) -> float:
    """Theta of a power-of-two rule: the largest c M / s that it allows.

    With l the largest level and 2^e the power of two below or at it: "floor" 2^(e + 1), so that l itself is reached by
    no exponent below e; "ceil" 2^e; "rceil" l, which clips nothing; "even" what rounds to 2^(e + 1) in the elements'
    precision, half of the last gap below it.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> [octave_end(grid("e2m1"), rule) for rule in OCTAVES]
    [8.0, 4.0, 7.0, 6.0]
    """
    # That of grids without positive levels is reached on the other side.
    largest = grid.max if grid.max > 0 else grid.absmax
    octave = math.ldexp(1.0, math.frexp(largest)[1] - 1)
    gap = float(grid.levels[-1] - grid.levels[-2])
    return {"floor": 2 * octave, "ceil": octave, "even": 2 * octave - 0.5 * gap, "rceil": largest}[rule]


def farthest_is_lowest(grid: Grid) -> bool:
    """Whether the level of largest magnitude, which signed scales send the largest value to, is the lowest one.

    Of two levels equally far it is the upper one.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> farthest_is_lowest(grid("int4")), farthest_is_lowest(grid("nf4"))
    (True, False)
    """
    return grid.max < -grid.min


def stored_scales(scale_format: Grid) -> Array:
    """The scales of a format, ascending: its levels from 0 on.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> stored_scales(grid("e4m3fn"))[:3].tolist()
    [0.0, 0.001953125, 0.00390625]
    """
    return scale_format.levels[scale_format.levels >= 0]


def staircase(grid: Grid, scale_format: Grid, rule: str, constant: float, unit: float = 1.0) -> Staircase:
    """The scales that a rule gives, times the tensor scale `unit`, and between which M it gives each.

    Beyond the end values of the format the end values; blocks of zeros, and those whose scale rounds to 0, have none.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> steps = staircase(grid("e2m1"), grid("e8m0"), "even", 1.0)
    >>> at = np.searchsorted(steps.bounds, [6.9, 7.1]) - 1
    >>> steps.scales[at].tolist()
    [1.0, 2.0]
    """
    values = stored_scales(scale_format)
    if rule in OCTAVES:
        # From theta / 2 on; below the first and above the last nothing is left to choose.
        between, factor = values[1:], 0.5 * octave_end(grid, rule) / constant
    else:
        between = {"absmax": 0.5 * values[1:] + 0.5 * values[:-1], "up": values[:-1], "down": values[1:]}[rule]
        factor = grid.absmax / constant
    with np.errstate(over="ignore"):
        inner, scales = between * (factor * unit), values * unit
    if inner.size and inner[0] == 0:
        # Rounded up, only M = 0 has scale 0.
        inner, scales = inner[1:], scales[1:]
    return Staircase(np.concatenate([[0.0], inner, [np.inf]]), scales)
