"""The scales around the best one of a sample that lose at most 1 % of MSE, up to the first that loses more.

MSE(s) <= A - 2 s B + s^2 C with the B and C of any other scale: what the same levels cost at s. From a scale that loses
less than 1 %, no scale loses more before its own parabola does. Steps from parabola to parabola never pass the first
crossing, and end at it as Newton's method would.
"""

from __future__ import annotations

import numpy as np

from ..._types import Array, Index
from ..points import Points
from ..roots import Excess, rising_roots
from .cells import Cells

# Scales tried at a time, and how far apart, in lengths of a parabola: neighbours of them must meet.
_AT_ONCE, _APART = 8, 1.7
# The crossing is found when a step is shorter than this part of the scale.
_SETTLED = 1e-12
# Steps at most; and cells of a row that may be looked at, then wider steps are taken for granted.
_TURNS, _BUDGET = 10_000, 20_000_000
# The width of such steps, and how many are tried at a time.
_STEP, _LADDER = 2.0**0.125, 4
# What 1 % of the error must be of the power for sums to resolve it; below it errors are added up value by value.
_RESOLVED = 1e-10


def one_percent(cells: Cells, row: Index, scale: Array, mse: Array) -> Array:
    """Ends (2, n) of the interval around `scale[i]`, whose error is `mse[i]`, of row `row[i]`: 0 or inf without any."""
    ends = np.array([scale, scale])
    # Within 1 % of no error at all there is only the best scale.
    for by_sums in (False, True):
        some = np.flatnonzero((mse > 0) & ((0.01 * mse > _RESOLVED * cells.power[row]) == by_sums))
        for side, sign in enumerate((-1, 1)):
            if some.size:
                ends[side, some] = _march(cells, row[some], scale[some], mse[some], sign, by_sums)
    return ends


def _evaluate(cells: Cells, row: Index, scale: Array, by_sums: bool) -> Points:
    if by_sums:
        b, c, _ = cells.evaluate(row, scale)
        return Points.of(row, scale, cells.power[row], b, c)
    mse, slope, c = cells.direct(row, scale)
    return Points(row, np.array([scale, mse, slope, scale * c - 0.5 * slope, c]))


def _march(cells: Cells, row: Index, scale: Array, mse: Array, sign: int, by_sums: bool) -> Array:
    """The first scale on one side that loses 1 %."""
    goal, at, end = 1.01 * mse, scale.copy(), np.empty(scale.size)
    # A - MSE <= 2 s reach; beyond the largest scale no value changes its cell.
    least = np.maximum(0.5 * (cells.power[row] - goal) / cells.reach[row], 0.0)
    length = _length(_evaluate(cells, row, at, by_sums), goal, sign)
    left, spent = np.arange(row.size), 0
    for _ in range(_TURNS):
        done = ~(length[left] > _SETTLED * at[left]) | np.isinf(length[left])
        end[left[done]] = np.maximum(at + sign * length, 0.0)[left[done]]
        left = left[~done]
        if sign < 0:
            # Where all of the power is within 1 % the error never exceeds it on the way to 0.
            gone = (least[left] == 0) & (at[left] < 2.0**-60 * scale[left])
            end[left[gone]] = 0.0
            left = left[~gone]
        spent += left.size * _AT_ONCE * cells.effort
        if not left.size or spent > _BUDGET * row.size:
            break
        offsets = length[left, None] * (1 + _APART * np.arange(_AT_ONCE))
        tried = at[left, None] + sign * offsets
        inside = tried > 0
        tried = np.where(inside, tried, at[left, None])
        owner = np.repeat(left, _AT_ONCE)
        points = _evaluate(cells, row[owner], tried.ravel(), by_sums)
        back, ahead = (_length(points, goal[owner], s).reshape(tried.shape) for s in (-sign, sign))
        below = points.mse.reshape(tried.shape) <= goal[left, None]
        # The end of a parabola is within 1 % itself, but for roundings.
        below[:, 0] = True
        reached = np.abs(tried - at[left, None])
        meets = np.ones(tried.shape, bool)
        meets[:, 1:] = reached[:, 1:] - back[:, 1:] <= reached[:, :-1] + ahead[:, :-1]
        last = np.argmin(np.column_stack([below & meets & inside, np.zeros(left.size, bool)]), axis=1) - 1
        moved = np.flatnonzero(last >= 0)
        stopped = left[last < 0]
        end[stopped] = at[stopped] + sign * length[stopped]
        at[left[moved]], length[left[moved]] = tried[moved, last[moved]], ahead[moved, last[moved]]
        left = left[moved]
    if left.size:
        end[left] = _on_ladder(cells, row[left], at[left], mse[left], least[left], sign)
    return end


def _length(points: Points, goal: Array, sign: int) -> Array:
    """How far the parabola of each point stays at or below the goal, 0 where the point itself is above."""
    rest, rise = np.maximum(goal - points.mse, 0.0), sign * points.slope
    root = np.sqrt(rise * rise + 4 * points.c * rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        length = np.where(rise > 0, 2 * rest / (rise + root), (root - rise) / (2 * points.c))
    # A constant never reaches the goal.
    return np.where((points.c > 0) | (rise > 0), length, np.inf)


def _on_ladder(cells: Cells, row: Index, at: Array, mse: Array, least: Array, sign: int) -> Array:
    """The same where parabolas are too short to look at all: what lies between the steps of a ladder is not seen."""
    goal, inner, end = 1.01 * mse, at.copy(), np.full(row.size, np.inf if sign > 0 else 0.0)
    limit = least if sign < 0 else 4 * cells.largest_scale[row]
    outer = np.full(row.size, np.nan)
    left: Index = np.flatnonzero(sign * (limit - inner) > 0)
    while left.size:
        steps = inner[left, None] * _STEP ** (sign * np.arange(1, _LADDER + 1))
        owner = np.repeat(left, _LADDER)
        above = (_evaluate(cells, row[owner], steps.ravel(), True).mse > goal[owner]).reshape(steps.shape)
        first = np.where(above.any(axis=1), above.argmax(axis=1), _LADDER)
        some = first > 0
        inner[left[some]] = steps[some, first[some] - 1]
        above_one = first < _LADDER
        outer[left[above_one]] = steps[above_one, first[above_one]]
        left = left[~above_one]
        left = left[sign * (limit[left] - inner[left]) > 0]
    met = np.flatnonzero(np.isfinite(outer))
    start, stop = np.sort([inner[met], outer[met]], axis=0)
    end[met] = rising_roots(
        lambda i, s: _evaluate(cells, row[met[i]], s, True),
        [Excess(value, sign) for value in mse[met].tolist()],
        *(_evaluate(cells, row[met], scale, True) for scale in (start, stop)),
    )
    return end
