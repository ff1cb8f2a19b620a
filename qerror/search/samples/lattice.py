"""All zero points of a grid of consecutive integers at once.

At scale s every zero point has levels of the one lattice s Z, from some m <= 0 to m + K - 1: the B and C of all of
them are sums over the lattice's thresholds, from 0 outwards. So evaluating a scale for all zero points costs about as
much as for two, and the chords of all of them rule out most (see `chords`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..._threads import chunk_slices
from ..._types import Array, Index
from ...grids.grid import Grid
from ...samples.rows import Rows
from ..found import RESOLUTION, TOLERANCE
from ..points import numbered
from .chords import chord

# Thresholds in flight, and values of B and C that are kept of some rows.
_CHUNK, _KEPT = 1 << 17, 1 << 18
# Scales an octave to begin with; how often, and into how many parts, intervals are divided.
_PER_OCTAVE, _ROUNDS, _PARTS = 8, 6, 4
# So few zero points are sooner searched than ruled out.
_FEW = 2


def undecided(rows: Rows, grid: Grid, least: Array) -> NDArray[np.bool_]:
    """Which zero points may have a smaller error at some scale than the least known, the most promising one included.

    Parameters
    ----------
    rows : Rows
    grid : Grid
        Of K consecutive integers, 0 among them.
    least : ndarray of shape (R,)
        Errors that are reached.

    Returns
    -------
    ndarray of shape (R, K)
        For each code as the zero point.

    Examples
    --------
    >>> from qerror.grids.formats import grid
    >>> rows = Rows(np.array([[0.0, 0.5, 1.0, 3.0]]), None, np.array([4]))
    >>> undecided(rows, grid("uint2"), np.array([0.5])).tolist()
    [[True, False, False, False]]
    """
    lattice, out = _Lattice(rows, grid), np.zeros((least.size, len(grid)), np.bool_)
    for part in chunk_slices(least.size, max(1, _KEPT // (4 * len(grid) * _PER_OCTAVE))):
        out[part] = _Search(lattice, np.arange(part.start, part.stop), least[part]).run()
    return out


class _Lattice:
    """Sums over the cells of s Z for rows of a sample."""

    def __init__(self, rows: Rows, grid: Grid) -> None:
        self.rows, self.count = rows, len(grid)
        self.power = rows.second_moment + rows.mean**2
        up = np.arange(1, self.count) - 0.5
        self._thresholds = np.concatenate([-up, up])

    def evaluate(self, row: Index, scale: Array) -> tuple[Array, Array]:
        """B and C of the levels 0 .. K - 1, then of -1 .. K - 2, and so on: by code as the zero point, (N, K)."""
        b, c = np.empty((2, row.size, self.count))
        for part in chunk_slices(row.size, max(1, _CHUNK // self._thresholds.size)):
            b[part], c[part] = self._of_part(row[part], scale[part])
        return b, c

    def _of_part(self, row: Index, scale: Array) -> tuple[Array, Array]:
        row_, k = row[:, None], self.count - 1
        rank = self.rows.rank(row_, scale[:, None] * self._thresholds)
        below = self.rows.mass_of(row_, rank)
        first = self.rows.first_of(row_, rank, below)
        total, mean = self.rows.total.take(row)[:, None], self.rows.mean.take(row)[:, None]
        # Mass and first moment beyond each threshold, away from 0. About the mean, those above are minus those below.
        mass = np.concatenate([below[:, :k], total - below[:, k:]], axis=1) / total
        moment = -first / total
        moment[:, :k] -= mean * mass[:, :k]
        moment[:, k:] += mean * mass[:, k:]
        sums = np.zeros((2, 2, row.size, k + 1))
        for side, some in enumerate((slice(0, k), slice(k, None))):
            np.cumsum(moment[:, some], axis=1, out=sums[0, side, :, 1:])
            np.cumsum(mass[:, some] * np.arange(1, 2 * k, 2), axis=1, out=sums[1, side, :, 1:])
        # With j levels below 0 there are K - 1 - j above.
        b, c = sums[:, 0] + sums[:, 1, :, ::-1]
        return b, c


class _Search:
    """Intervals between evaluated scales of some rows, with B and C of all zero points at both ends."""

    def __init__(self, lattice: _Lattice, row: Index, least: Array) -> None:
        self.lattice, self.row = lattice, row
        self.power, self.goal = lattice.power[row], least.copy()
        # The zero point by which the goal is reached.
        self.best = np.full(row.size, -1)

    def run(self) -> NDArray[np.bool_]:
        """The zero points that are not ruled out, (R, K)."""
        low, high = self._window()
        own = np.flatnonzero(low < high)
        steps = np.ceil(_PER_OCTAVE * np.log2(high[own] / low[own])).astype(np.intp)
        of, step = numbered(steps + 1)
        scale = low[own[of]] * (high / low)[own[of]] ** (step / steps[of])
        b, c = self._evaluate(own[of], scale)
        left = np.flatnonzero(step < steps[of])
        owner, ends = own[of[left]], np.stack([scale[left], scale[left + 1]])
        b, c = (np.stack([a[left], a[left + 1]]) for a in (b, c))
        found = np.zeros((self.row.size, self.lattice.count), np.bool_)
        for round_ in range(_ROUNDS + 1):
            goal = self.goal - np.maximum(TOLERANCE * self.goal, 2 * RESOLUTION * self.power)
            open_ = chord(self.power[owner, None], ends[..., None], b, c) < goal[owner, None]
            here = np.zeros(found.shape, np.bool_)
            np.logical_or.at(here, owner, open_)
            few = (here.sum(axis=1) <= _FEW) | (round_ == _ROUNDS)
            found[few] |= here[few]
            kept = np.flatnonzero(open_.any(axis=1) & ~few[owner])
            if not kept.size:
                break
            owner, ends, b, c = self._divide(owner[kept], ends[:, kept], b[:, kept], c[:, kept])
        known = np.flatnonzero(self.best >= 0)
        found[known, self.best[known]] = True
        return found

    def _window(self) -> tuple[Array, Array]:
        """Scales that no bound on all zero points excludes."""
        rows, k, least = self.lattice.rows, self.lattice.count - 1, self.goal
        below, above = np.minimum(rows.least[self.row], 0.0), np.maximum(rows.greatest[self.row], 0.0)
        # With both ends clipped by t together, one is by t / 2 at least, or each by so much that the squares add up.
        lightest = 1.0 if rows.weights is None else rows.weights[self.row][:, [0, -1]].min(axis=1)
        low = (above - below - np.sqrt(2 * least * rows.total[self.row] / lightest)) / k
        # A - MSE <= 2 s K E|y|.
        size = np.sqrt(self.power)
        low = np.maximum(low, 0.5 * (self.power - least) / (k * size)) * (1 - 1e-9)
        # At more than twice the largest value all goes to 0; and where one step more than the range leaves nothing
        # clipped at some zero point, twice the scale is no better.
        high = 2 * np.maximum(above, -below)
        if k > 1:
            high = np.minimum(high, 2 * (above - below) / (k - 1))
        return low, np.maximum(high * (1 + 1e-9), 2 * low)

    def _evaluate(self, owner: Index, scale: Array) -> tuple[Array, Array]:
        b, c = self.lattice.evaluate(self.row[owner], scale)
        with np.errstate(divide="ignore", invalid="ignore"):
            gain = np.where((b > 0) & (c > 0), b * b / c, 0.0)
        most = gain.argmax(axis=1)
        error = self.power[owner] - gain[np.arange(owner.size), most]
        order = np.lexsort((error, owner))
        first = order[np.append(True, owner[order][1:] != owner[order][:-1])]
        better = first[error[first] < self.goal[owner[first]]]
        self.goal[owner[better]], self.best[owner[better]] = np.maximum(error[better], 0.0), most[better]
        return b, c

    def _divide(self, owner: Index, ends: Array, b: Array, c: Array) -> tuple[Index, Array, Array, Array]:
        """Each interval in parts of equal ratios."""
        share = np.arange(1, _PARTS) / _PARTS
        inner = ends[0, :, None] * (ends[1] / ends[0])[:, None] ** share
        new = self._evaluate(np.repeat(owner, share.size), inner.ravel())
        columns = []
        for both, between in ((ends, inner), *zip((b, c), new, strict=True)):
            shape = (owner.size, share.size, *both.shape[2:])
            points = np.concatenate([both[0][:, None], np.reshape(between, shape), both[1][:, None]], axis=1)
            parts = np.stack([points[:, :-1], points[:, 1:]])
            columns.append(parts.reshape(2, -1, *both.shape[2:]))
        return np.repeat(owner, _PARTS), columns[0], columns[1], columns[2]
