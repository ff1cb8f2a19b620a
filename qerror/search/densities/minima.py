"""Local minima over the scale: which dips the evaluated scales show, and where exactly they are lowest."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..._types import Array, Index
from ...results import Minimum
from ..found import RESOLUTION, TOLERANCE, any_scale, distinct
from ..points import Points, first_of_each, join
from ..roots import Slope, rising_roots
from .explored import Explored
from .objective import SHARP

# Slope of a minimum, relative to its MSE, that is as good as none.
_FLAT = 1e-7
# What a chain of copies, each an octave above the one before, may lose from its first to its last.
_CHAIN = 0.1 * TOLERANCE
# How often minima are made sharper at most.
_TURNS = 4
# Ratio of neighbours between which no further dip is looked for.
_NARROW = 1.001


def candidates(search: Explored) -> Points:
    """Sharp points at the local minima; for rows without any, at the best scale known."""
    found = _lowest(search)
    for _ in range(_TURNS):
        if not _rough(search, found):
            break
        found = _lowest(search)
    if search.objective.sample and search.objective.grid.float_spec is not None and found.row.size:
        found = join(found, _octaves_below(search, found))
    lacking = np.ones(search.rows, bool)
    lacking[found.row] = False
    if np.count_nonzero(lacking):
        found = join(found, search.objective.sharp(*_least_known(search, lacking.nonzero()[0])))
    return found


def dips(search: Explored) -> tuple[Index, Index]:
    """Neighbouring evaluated scales (index of both) between which the slope turns from - to +."""
    points = search.points
    accurate = search.objective.accurate
    noise = 4 * (RESOLUTION * points.mse if accurate else search.objective.noise[points.row]) / points.scale
    # A slope of zero tells nothing: where a jump of the pdf meets a threshold it may be a point of inflection.
    steep = (np.abs(points.slope) > noise).nonzero()[0]
    first, second = steep[:-1], steep[1:]
    dip = (points.row[first] == points.row[second]) & (points.slope[first] < 0) & (points.slope[second] > 0)
    if np.count_nonzero(dip) > 1:
        dip &= ~_copies(points)[first]
    return first[dip], second[dip]


def hidden(search: Explored) -> tuple[Index, Array]:
    """Scales to look at between neighbours whose slopes have one sign while the MSE changes the other way: a dip."""
    points = search.points
    row, change, ratio = points.row[1:], np.diff(points.mse), points.scale[1:] / points.scale[:-1]
    noise = search.objective.noise[row] + 4 * RESOLUTION * points.mse[1:]
    signs = np.sign(points.slope)
    inside = (row == points.row[:-1]) & (signs[1:] == signs[:-1]) & (change * signs[1:] < -noise) & (ratio > _NARROW)
    return row[inside], np.sqrt(points.scale[1:] * points.scale[:-1])[inside]


def chosen(search: Explored, found: Points) -> tuple[Points, list[tuple[Minimum, ...]]]:
    """The best candidate of each row; and all, equal ones once: the smallest scale stands for them."""
    row, scale, mse = found.row, found.scale, found.mse
    minima, first = [], np.empty(search.rows, np.intp)
    order = np.lexsort((scale, mse, row))
    start = row[order].searchsorted(np.arange(search.rows + 1)).tolist()
    for member in range(search.rows):
        # Together with what the chains of `_copies` may lose: 1e-12.
        kept = distinct(order[start[member] : start[member + 1]], scale, mse, equal=TOLERANCE - _CHAIN)
        first[member] = kept[0]
        shift = float(search.objective.shift[member])
        minima.append(tuple(Minimum(float(scale[i]), shift, float(mse[i])) for i in kept if search.live[member]))
    return found.select(first), minima


def _lowest(search: Explored) -> Points:
    """The lowest scale of each dip, a root of the slope."""
    place, after = dips(search)
    if not place.size:
        return Points.none(SHARP)
    low, high = search.points.select(place), search.points.select(after)
    row = low.row
    scale = rising_roots(lambda index, s: search.evaluate(row[index], s), [Slope()] * row.size, low, high)
    new = search.objective.sharp(row, scale)
    if search.objective.kinks.shape[-1]:
        # At a jump of the pdf the MSE may have an edge instead of a smooth minimum.
        near = np.minimum(low.mse, high.mse) < new.mse + search.objective.noise[row]
        if np.count_nonzero(near):
            edge = search.objective.sharp(row[near], np.where(low.mse < high.mse, low.scale, high.scale)[near])
            new.table[:, near] = np.where(edge.mse < new.mse[near], edge.table, new.table[:, near])
    search.remember(new)
    return new


def _rough(search: Explored, found: Points) -> bool:
    """Whether a minimum is not as sharp as it could be: a density far from the shift makes for many in a row."""
    if not search.objective.convex:
        return False
    slope = np.abs(found.slope) * found.scale
    rough = (slope > _FLAT * found.mse) & (slope > 8 * search.objective.noise[found.row])
    return bool(np.count_nonzero(rough))


def _copies(points: Points) -> NDArray[np.bool_]:
    """Intervals whose ends have the MSEs of the ends half their scale: the same minimum, an octave up.

    Floating grids repeat themselves; the smallest scale stands for minima within 1e-12 of each other.
    """
    key = np.round(np.log2(points.scale) * 2**20).astype(np.int64) + points.row * 2**40
    below = np.minimum(np.searchsorted(key, key - 2**20), key.size - 1)
    change = np.abs(points.mse - points.mse[below]) / points.mse
    # One octave after the other: what each may lose adds up along a chain of copies.
    chain = np.lexsort((key, key % 2**20))
    linked = key[below] == key - 2**20
    number = np.empty(key.size, np.intp)
    number[chain] = alike(np.where(linked, change, np.inf)[chain])
    same = linked & (number == number[below])
    copies: NDArray[np.bool_] = same[:-1] & same[1:] & (below[1:] == below[:-1] + 1)
    return copies


def alike(change: Array) -> Index:
    """Number runs of values by the relative change before each: over a run they add up to `_CHAIN` at most."""
    return np.asarray(np.cumsum(np.minimum(change / _CHAIN, 2.0)), np.intp)


def _octaves_below(search: Explored, found: Points) -> Points:
    """On a sample, floating grids give the very same error at half the scale, until they clip."""
    best = found.select(first_of_each(found.row, found.mse))
    octaves = np.arange(1, 1 + int(np.ceil(np.log2(best.scale.max() / search.points.scale.min()))))
    row, scale = np.repeat(best.row, octaves.size), (best.scale[:, None] * 2.0**-octaves).ravel()
    below = search.objective.sharp(row, scale)
    return below.select(below.mse <= np.repeat(best.mse, octaves.size) * (1 + TOLERANCE))


def _least_known(search: Explored, rows: Index) -> tuple[Index, Array]:
    """The best evaluated scale of each of the `rows`; where there was nothing to evaluate, what stands for any."""
    points, live = search.points, search.live[rows]
    scale = np.full(rows.size, any_scale(search.objective.grid))
    order = np.lexsort((points.mse, points.row))
    scale[live] = points.scale[order[points.row.searchsorted(rows[live])]]
    return rows, scale
