"""The scales that lose at most 1 % of MSE: where the MSE first exceeds 1.01 times the best on either side."""

from __future__ import annotations

import numpy as np

from ..._types import Array, Index
from ..points import Points
from ..roots import Excess, rising_roots
from .explored import Explored
from .ladder import PER_OCTAVE, ladder

# Scales evaluated at most to find where the interval ends.
_MOST = 8_000


def one_percent(search: Explored, best: Points) -> Array:
    """Ends of the interval around the best point of each row, shape (2, rows); 0 or infinity where it has none."""
    live, mse, goal = search.live, best.mse, 1.01 * best.mse
    ends = np.empty((2, live.size))
    ends[0], ends[1] = 0.0, np.inf
    wide = live & (mse > 0)
    if np.count_nonzero(wide) < live.size:
        # Within 1 % of no error at all there is only the best scale.
        ends[:, ~wide] = np.where(live, best.scale, np.nan)[~wide]
        if not search.some:
            return ends
    _fence(search, goal)
    at = _locate(search, best.scale)
    points = search.points
    over = (points.mse > goal[points.row]).nonzero()[0]
    owner, low, curves = [], [], []
    row_of, left_of, places = points.row[over].tolist(), over.searchsorted(at).tolist(), over.tolist()
    for row in wide.nonzero()[0].tolist():
        # The nearest evaluated scale on each side that is above, and its neighbour towards the best one.
        for side, k in enumerate((left_of[row] - 1, left_of[row])):
            if 0 <= k < len(places) and row_of[k] == row:
                owner.append((side, row))
                low.append(places[k] - side)
                curves.append(Excess(float(mse[row]), 2 * side - 1))
    if owner:
        sides, rows = np.array(owner).T
        left = np.array(low)
        ends[sides, rows] = rising_roots(
            lambda index, s: search.evaluate(rows[index], s), curves, points.select(left), points.select(left + 1)
        )
    return ends


def _locate(search: Explored, scale: Array) -> Index:
    """Where the points have `scale[row]`, for each row; evaluated now if they have it not."""
    points = search.points
    start = points.row.searchsorted(np.arange(scale.size + 1))
    below = (points.scale < scale[points.row]).nonzero()[0]
    at: Index = start[:-1] + np.bincount(points.row[below], minlength=scale.size)
    lacking = search.live & ((at == start[1:]) | (points.scale.take(at, mode="clip") != scale))
    if np.count_nonzero(lacking):
        search.evaluate(lacking.nonzero()[0], scale[lacking])
        return _locate(search, scale)
    return at


def _fence(search: Explored, goal: Array) -> None:
    """Evaluate outwards where no known scale on one side of the scan exceeds `goal`, but some scale must."""
    points, power = search.points, search.objective.power
    rows = search.live.nonzero()[0]
    for end, sign in ((points.row.searchsorted(rows), -1.0), (points.row.searchsorted(rows, "right") - 1, 1.0)):
        end = end[points.mse[end] <= goal[points.row[end]]]
        if not end.size:
            continue
        row = points.row[end]
        # A - MSE <= 2 s reach; and beyond `largest_scale` every MSE is larger.
        far = (
            0.49 * (power - goal) / np.where(search.live, search.reach.slope, 1.0)
            if sign < 0
            else 1.01 * search.reach.largest_scale(goal)
        )[row]
        there = (far > 0) & np.isfinite(far)
        row, from_ = row[there], points.scale[end][there]
        steps = np.ceil(sign * PER_OCTAVE * np.log2(far[there] / from_))
        member, scale = ladder(row, from_, np.ones(row.size), np.clip(steps, 0, _MOST))
        # A ladder climbs: downwards it is mirrored at its start.
        base = from_[np.searchsorted(row, member)]
        search.evaluate(member, base * (scale / base) ** sign)
