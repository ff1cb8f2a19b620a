"""A row of the shipped table beside its proof."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction

from ..certify.certificate import Certificate
from .row import ScaleRow


@dataclasses.dataclass(frozen=True)
class CertifiedRow:
    """A row of a table beside what is proven.

    Attributes
    ----------
    row : ScaleRow
        As the search in float64 found it.
    certificate : Certificate
        Of the grid, density and rounding of the row.
    """

    row: ScaleRow
    certificate: Certificate

    @property
    def scale(self) -> str:
        """The optimal scale to 30 digits, as a ball."""
        return self.certificate.scale

    @property
    def mse(self) -> str:
        """The least mean squared error to 30 digits, as a ball."""
        return self.certificate.mse

    @property
    def unique(self) -> bool:
        """Whether no other scale is as good."""
        return self.certificate.unique

    @property
    def copies(self) -> int:
        """How many other local minima are less than 1e-12 (relative) worse: on floating grids, octaves away."""
        return len(self.certificate.minima) - 1

    @property
    def scale_digits(self) -> int:
        """Right digits of `row.scale` as the argmin, at most 16; 0 where it is the place of a copy."""
        return right_digits(self.row.scale, self.scale)

    @property
    def mse_digits(self) -> int:
        """Right digits of `row.mse`, at most 16."""
        return right_digits(self.row.mse, self.mse)


def right_digits(value: float, proven: str) -> int:
    """Digits in which a number agrees with the middle of a ball.

    Examples
    --------
    >>> right_digits(0.33861, "[0.338607935715185372044019938670 +/- 5.1e-31]")
    5
    """
    true = Fraction(proven.strip("[]").split(" ")[0])
    off = abs(Fraction(value) - true) / abs(true)
    return 16 if off < Fraction(1, 10**16) else max(0, math.floor(-math.log10(off)))
