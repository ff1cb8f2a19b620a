"""Samples in fractions: the best scale is exact, and chords between enough scales prove it."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Any

from ..densities.base import Density
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from .certificate import FORMAT, SCHEMA, Certificate, OpenError
from .checker import Sample
from .pieces import decimal_text, short_decimal
from .statement import short_numbers

_MOST_CUTS = 20_000


def is_sample(density: Density) -> bool:
    """Whether all mass is in points."""
    return density.has_atoms and density.panels().shape[-1] == 0


def certify_sample(density: Density, grid: Grid, shift: float) -> Certificate:
    """The certificate of a sample: its scale and MSE are fractions."""
    points, masses = (array.ravel().tolist() for array in density.atoms or ())
    weights = [1] * len(masses) if len(set(masses)) == 1 else masses
    about: dict[str, Any] = {
        "density": {"family": "empirical", "values": short_numbers(points), "weights": short_numbers(weights)},
        "levels": short_numbers(grid.levels.tolist()),
        "shift": short_numbers(shift),
        "rounding": "nearest",
    }
    sample = Sample(**about)
    start = optimal_scale(density, grid, shift=shift)
    scale = _settled(sample, Fraction(float(start.scale)))
    cuts, better = _cuts(sample, scale)
    while better is not None:
        scale = _settled(sample, better)
        cuts, better = _cuts(sample, scale)
    mse = sample.error(scale)
    bounds = [sample.chord(a, b) for a, b in pairwise(cuts)]
    ends = min(sample.first_piece(cuts[0]), sample.last_piece(cuts[-1]))
    content = {
        "format": f"{FORMAT} of a sample",
        "schema": SCHEMA,
        **about,
        "scale": str(scale),
        "mse": str(mse),
        "unique": ends > mse and all(bound > mse or at == scale for at, bound in bounds),
        "cuts": " ".join(map(decimal_text, cuts)),
    }
    return Certificate(content)


def _settled(sample: Sample, scale: Fraction) -> Fraction:
    """The bottom of the parabola that the MSE is about a scale, and of the next as long as that falls."""
    while True:
        near = scale * Fraction(1, 10**12)
        slope = (sample.k(scale + near) - sample.k(scale)) / near
        lead = sample.k(scale) - slope * scale
        bottom = -lead / (2 * slope) if slope < 0 else scale
        if bottom <= 0 or sample.error(bottom) >= sample.error(scale):
            return scale
        scale = bottom


def _cuts(sample: Sample, scale: Fraction) -> tuple[list[Fraction], Fraction | None]:
    """Cuts whose chords prove that the MSE is nowhere below that at `scale`; or a scale where it is."""
    mse = sample.error(scale)
    first, last = _ends(sample, scale, mse)
    cuts, left = [first], [(first, last)]
    while left:
        low, high = left.pop()
        _, bound = sample.chord(low, high)
        if bound >= mse:
            cuts.append(high)
            continue
        third = (high - low) * Fraction(2, 5)
        cut = short_decimal(low + third, high - third)
        if cut == scale:
            cut = short_decimal(low + third, cut - third / 100)
        if sample.error(cut) < mse:
            return cuts, cut
        if len(cuts) + len(left) > _MOST_CUTS:
            raise OpenError(f"the scales from {float(low)!r} to {float(high)!r} are left open: the sample is too large")
        left += [(cut, high), (low, cut)]
    return cuts, None


def _ends(sample: Sample, scale: Fraction, mse: Fraction) -> tuple[Fraction, Fraction]:
    first = last = scale
    while first == scale or sample.first_piece(first) <= mse:
        first = short_decimal(first / 2, first * Fraction(3, 4))
    while last == scale or sample.last_piece(last) <= mse:
        last = short_decimal(last * Fraction(4, 3), last * 2)
        if last > scale * 10**9:
            raise OpenError("no scale is better than another: nothing to prove")
    return first, last
