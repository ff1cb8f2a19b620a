"""B and C of rows at scales by rounding every value, which is faster than looking many thresholds up in short rows."""

from __future__ import annotations

import numpy as np

from ..._threads import chunk_slices
from ..._types import Array, Index
from ...casting.arithmetic import level_round
from ...casting.scratch import Scratch
from ...grids.grid import Grid
from ...samples.rows import Rows

# Values that are rounded together: they stay in the second-level cache.
_PIECE = 1 << 15
# So many values are rounded in the time that one threshold is looked up.
_VALUES = 8


def pays(n: int, grid: Grid) -> bool:
    """Whether rows of n values are rounded faster, by arithmetic, than the thresholds of a grid are looked up.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> [pays(512, grid(name)) for name in ("int4", "int8", "nf4")]
    [False, True, False]
    """
    return n <= _VALUES * grid.thresholds.size and level_round(grid) is not None


class Rounding:
    """Rows, a grid that is rounded to by arithmetic, and the shift of each row.

    Parameters
    ----------
    rows : Rows
    grid : Grid
    shift : ndarray of shape (R,)
    """

    def __init__(self, rows: Rows, grid: Grid, shift: Array) -> None:
        round_ = level_round(grid)
        if round_ is None:
            raise TypeError("the grid is not rounded to by arithmetic")
        self.rows, self.grid, self.shift, self._round = rows, grid, shift, round_

    def sums(self, row: Index, scale: Array) -> tuple[Array, Array]:
        """B = E[y l] and C = E[l^2] for pairs of a row and a scale, within 24 roundings of the sums of magnitudes."""
        n = self.rows.n
        step = max(1, _PIECE // n)
        work, scratch = np.empty((4, min(step, row.size) * n)), Scratch(step * n)
        b, c = np.empty(row.size), np.empty(row.size)
        for part in chunk_slices(row.size, step):
            b[part], c[part] = self._of_part(row[part], scale[part], work, scratch)
        total = self.rows.total.take(row)
        return b / total, c / total

    def _of_part(self, row: Index, scale: Array, work: Array, scratch: Scratch) -> tuple[Array, Array]:
        shape = row.size, self.rows.n
        flat = work[:, : row.size * self.rows.n]
        y, level, product, _ = (one.reshape(shape) for one in flat)
        np.subtract(self.rows.values.take(row, axis=0), self.shift.take(row)[:, None], out=y)
        np.multiply(y, (1.0 / scale)[:, None], out=level)
        self._round(flat[1], flat[2:], scratch)
        weights = self.rows.weights
        weighted = level if weights is None else level * weights.take(row, axis=0)
        # Sums in pairs, as `sum` has them: of thousands of terms no more than 24 roundings.
        return (
            np.multiply(weighted, y, out=product).sum(axis=1),
            np.multiply(weighted, level, out=product).sum(axis=1),
        )

    def crossed(self, scale: Array, size: Array) -> Index:
        """How many thresholds values cross below a scale, about: at most so many more between two scales.

        Parameters
        ----------
        scale : ndarray of shape (N,)
        size : ndarray of shape (N,)
            E|y| of their rows.
        """
        n, spec = self.rows.n, self.grid.float_spec
        if spec is not None:
            # In each octave as many as it has mantissas.
            passed = n * 2.0**spec.mantissa_bits * np.log2(scale / size)
        else:
            passed = -n * size / (scale * float(self.grid.step or 1.0))
        return np.asarray(np.rint(passed), np.intp)
