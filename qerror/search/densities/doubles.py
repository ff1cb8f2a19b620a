"""Scales that repeat what half of them reach: nothing above is looked at again by a proof."""

from __future__ import annotations

import numpy as np

from ..._types import Array
from ..found import TOLERANCE
from .objective import Objective

# Ends of the grid that are tried, in rms of y.
_ENDS = 2.0 ** np.arange(0.0, 6.0, 0.125)
# What all octaves above may clip together, of the tolerance; their number at most.
_SHARE, _OCTAVES = 1e-3, 64


def ceiling(objective: Objective, best: Array) -> Array:
    """The scale from which on no MSE is below `best` if none below it is, within a thousandth of the tolerance.

    Where the levels at 2s are levels at s or lie beyond the grid's ends, E(s) <= E(2s) + clip(s), clip(s) being the
    clipping error: each value inside the ends is nearer to some level at s. Clipping falls with s, so E is at least its
    minimum over an octave, less what all octaves above that may clip. Inf where the grid does not hold its doubles, the
    tails are too heavy, or known with an error.

    Parameters
    ----------
    objective : Objective
    best : ndarray of shape (R,)
        The least MSE known.
    """
    grid, found = objective.grid, np.full(best.size, np.inf)
    # Tails that are only known to a few digits of all mass do not show what little they clip.
    if not (objective.convex and grid.holds_doubles) or objective.density.tails_error:
        return found
    rows = np.arange(best.size)
    members, shift = objective.members(rows[:, None]), objective.shift[:, None]
    scale = np.sqrt(objective.power)[:, None] * _ENDS / grid.absmax
    clip = np.zeros(scale.shape)
    for end, low, high in ((grid.max, None, np.inf), (grid.min, -np.inf, None)):
        at = shift + scale * end
        if end:
            clip += members.moments(at if low is None else low, at if high is None else high, at)[2]
    enough = clip * _OCTAVES <= _SHARE * TOLERANCE * best[:, None]
    first = enough.argmax(axis=1)
    some = enough.any(axis=1)
    found[some] = 2 * scale[rows[some], first[some]] * (1 + 1e-12)
    return found
