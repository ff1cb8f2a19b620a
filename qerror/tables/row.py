"""One row of a table of optimal scales."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

Shift = float | Literal["mean", "optimal"]


@dataclasses.dataclass(frozen=True)
class ScaleRow:
    """One optimum, as plain text and numbers.

    Attributes
    ----------
    grid, density, rounding : str
        What it is the optimum of.
    std : float
        Standard deviation of the density; scale, shift and clip are in the same units.
    scale, shift, clip : float
        Representable values are shift + scale * levels; clip = scale * max(abs(levels)). Of a block format: the block
        scale over the block's largest magnitude before it is stored (with a power-of-two rule the least), 0, and the
        constant of its rule; errors with power-of-two scales are means over an octave of std.
    clipping_error, rounding_error, mse : float
        Mean squared error beyond the end levels, between them, and their sum.
    power : float
        E[x^2] of the density.
    status : str
        Name of the `qe.Status`.
    """

    grid: str
    density: str
    rounding: str
    std: float
    scale: float
    shift: float
    clip: float
    clipping_error: float
    rounding_error: float
    mse: float
    power: float
    status: str

    @property
    def sqnr_db(self) -> float:
        """10 log10(power / mse), inf where nothing is lost."""
        return math.inf if self.mse == 0 else 10 * math.log10(self.power / self.mse)
