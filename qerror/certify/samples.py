"""Samples in fractions: the best scale is exact, and quadratic bounds between enough scales prove it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import pairwise
from typing import Any

from flint import fmpq

from ..densities.base import Density
from ..errors.exact import Rounding
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from .certificate import FORMAT, SCHEMA, Certificate, OpenError
from .checker import Sample, exact
from .pieces import cut_text, fraction, short_decimal
from .statement import short_numbers

_MOST_CUTS = 20_000
# Relative, where the scale of float64 is near the exact one, and how narrow pieces become to tell ties apart.
_NEAR, _TIE = fmpq(1, 10**8), fmpq(1, 10**5)


def is_sample(density: Density) -> bool:
    """Whether all mass is in points."""
    return density.has_atoms and density.panels().shape[-1] == 0


def certify_sample(density: Density, grid: Grid, shift: float, rounding: Rounding) -> Certificate:
    """The certificate of a sample: its scale and MSE are fractions."""
    points, masses = (array.ravel().tolist() for array in density.atoms or ())
    weights = [1] * len(masses) if len(set(masses)) == 1 else masses
    about: dict[str, Any] = {
        "density": {"family": "empirical", "values": short_numbers(points), "weights": short_numbers(weights)},
        "levels": short_numbers(grid.levels.tolist()),
        "shift": short_numbers(shift),
        "rounding": rounding,
    }
    sample = Sample(**about)
    scale = _settled(sample, exact(float(optimal_scale(density, grid, shift=shift, rounding=rounding).scale)))
    cuts, better = _cuts(sample, scale)
    while better is not None:
        scale = _settled(sample, better)
        cuts, better = _cuts(sample, scale)
    mse = sample.error(scale)
    bounds = [sample.least(a, b) for a, b in pairwise(cuts)]
    content = {
        "format": f"{FORMAT} of a sample",
        "schema": SCHEMA,
        **about,
        "scale": str(scale),
        "mse": str(mse),
        "unique": min(sample.ends(cuts[0], cuts[-1])) > mse
        and all(bound > mse or places == [scale] for bound, places in bounds),
        "cuts": " ".join(cut_text(fraction(cut)) for cut in cuts),
    }
    return Certificate(content)


def _settled(sample: Sample, scale: fmpq) -> fmpq:
    """The best scale near another: the bottom of the parabola that the MSE is there, or a kink of it."""
    while True:
        places = {scale, *_kinks(sample, scale * (1 - _NEAR), scale * (1 + _NEAR))}
        for s in tuple(places):
            _, first, second = sample.bound(sample.loss, s, s)
            if second > 0 and first < 0:
                places.add(-first / (2 * second))
        best = min(places, key=sample.error)
        if sample.error(best) == sample.error(scale):
            return scale
        scale = best


def _kinks(sample: Sample, low: fmpq, high: fmpq) -> list[fmpq]:
    """Scales between two at which a value lies on a level: with stochastic rounding minima may."""
    if sample.rounding == "nearest":
        return []
    found = set()
    for y, _ in sample.points:
        first, last = sorted((y / low, y / high))
        inside = sample.levels[bisect_right(sample.levels, first) : bisect_left(sample.levels, last)]
        found |= {y / level for level in inside if level != 0}
    return sorted(found)


def _cuts(sample: Sample, scale: fmpq) -> tuple[list[fmpq], fmpq | None]:
    """Cuts whose bounds prove that the MSE is nowhere below that at `scale`; or a scale where it is."""
    mse = sample.error(scale)
    first, last = _ends(sample, scale, mse)
    cuts, left = [first], [(scale, last), (first, scale)]
    while left:
        low, high = left.pop()
        bound, places = sample.least(low, high)
        if bound > mse or (bound == mse and (places == [scale] or high - low < low * _TIE)):
            cuts.append(high)
            continue
        kinks = _kinks(sample, low, high)
        third = fraction((high - low) * fmpq(2, 5))
        cut = exact(short_decimal(fraction(low) + third, fraction(high) - third))
        # Where kinks are as good as the scale no other cut can be proven.
        cut = kinks[len(kinks) // 2] if 0 < len(kinks) < 4 else cut
        if sample.error(cut) < mse:
            return cuts, cut
        if len(cuts) + len(left) > _MOST_CUTS:
            where = f"the scales from {float(low)!r} to {float(high)!r} are left open"
            raise OpenError(f"{where}: the sample is too large")
        left += [(cut, high), (low, cut)]
    return cuts, None


def _ends(sample: Sample, scale: fmpq, mse: fmpq) -> tuple[fmpq, fmpq]:
    first, last = scale / 2, scale * 2
    while sample.ends(first, last)[0] <= mse and first * 10**9 > scale:
        first /= 2
    while sample.ends(first, last)[1] <= mse and last < scale * 10**9:
        last *= 2
    if min(sample.ends(first, last)) <= mse:
        raise OpenError("no scale is better than all others: nothing to prove")
    low, high = (exact(short_decimal(fraction(s * 3 / 4), fraction(s))) for s in (first, last * fmpq(3, 2)))
    return low, high
