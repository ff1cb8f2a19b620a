"""Scale and shift together: boxes of both, over which the error is above the least, slopes, or is convex about a root.

Lemmas, for a symmetric density of mean 0 and variance 1, M(s, z) the MSE of the values z + s l_k, R as in `checker`.

1. M = 1 + z^2 + 2 z s l_j + s^2 l_j^2 - s sum of 2 g_k times R(p_k) for k >= j, R(-p_k) for k < j, p_k = z + s t_k.
   Lemmas 1 and 2 of `checker` with y = x - z.
2. Small s: all values lie in an interval of width 2 u = s (l_max - l_min), so M >= E[dist(x, interval)^2]. That is
   convex in the place of the interval and symmetric, hence least about 0: M >= 2 E[(x - u)_+^2].
3. Large s: with d = s min g_k there is at most one value in (-d/2, d/2). If it is not below 0, each x in (-d/4, 0) is
   at least |x| from it and d/4 from the others; else look at (0, d/4). So M >= E[x^2; 0 < x < d/4].
4. If all values are above 0, or all below, M >= E[x^2; x < 0] = 1/2.
"""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from flint import arb

from .._check import as_int
from ..densities.base import Density
from ..densities.named import density as as_density
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..search.optimal import optimal_scale
from .certificate import OpenError
from .checker import UNIT, Gaussian, arithmetic, ball, parts_of
from .proof import claim
from .statement import density_data

_BITS, _MOST_BOXES = 64, 60_000
_SPARE, _STEPS = 8, 12
# Half width of the box about an optimum that is tried first, relative to the scale.
_WIDEST = 0.2


@dataclasses.dataclass(frozen=True)
class CertifiedPair:
    """The globally optimal scale and shift, as balls in decimals.

    Attributes
    ----------
    optima : tuple of (scale, shift)
        The pairs of least error: one, or two that mirror one another (uniform grids and others with a centre).
    mse : str
        Their mean squared error, which no other scale and shift reach.
    boxes : int
        How many boxes the proof took.
    """

    optima: tuple[tuple[str, str], ...]
    mse: str
    boxes: int


class Jet(NamedTuple):
    """M at the middle of a box, its slopes there, and its second derivatives over the box."""

    value: arb
    by_s: arb
    by_z: arb
    ss: arb
    sz: arb
    zz: arb


Box = tuple[float, float, float, float]


def certify_pair(density: Density | str, grid: Grid | str, *, digits: int = 30) -> CertifiedPair:
    """Prove which scale and shift together are globally optimal: for grids of up to about 4 bits, in seconds.

    Parameters
    ----------
    density : Density or str
        Gaussian, Laplace, Logistic, StudentT or GeneralizedGaussian, of shape (); nearest rounding.
    grid : Grid or str
    digits : int
        Correct digits, 6 to 1000.

    Raises
    ------
    ValueError
        For other densities.
    OpenError
        If boxes are left open.

    Examples
    --------
    >>> from qerror.certify import certify_pair
    >>> certify_pair("gaussian", "int2", digits=10).optima    # Max (1960): step 0.9957
    (('[0.9956866859 +/- 5.1e-11]', '[0.4978433430 +/- 5.1e-11]'),)
    """
    member, levels = as_density(density), as_grid(grid)
    digits, said = as_int("digits", digits, 6, 1000), density_data(member)
    if said["family"] in ("mixture", "rectified", "histogram", "uniform"):
        raise ValueError(f"density must be a symmetric family on the whole line, got {member.name!r}")
    found = optimal_scale(member, levels, shift="optimal")
    mean, std = float(member.mean), float(member.std)
    scale, shift = float(found.scale) / std, (float(found.shift) - mean) / std
    starts, mirrored = [(scale, shift)], -shift - scale * (levels.min + levels.max)
    sums = levels.levels + levels.levels[::-1]
    if (sums == sums[0]).all() and abs(mirrored - shift) > 1e-6 * scale:
        starts.append((scale, mirrored))
    unit = {**said, "mean": 0, "std": 1}
    with arithmetic(4 * digits + 80):
        (part,) = parts_of(said, arb(1))
        exact = _Plane(parts_of(unit, arb(1))[0].family, levels)
        roots = [_enclosed(exact, ball(s), ball(z), digits) for s, z in starts]
        least = min(exact.jet(s, s.rad(), z, z.rad()).value for s, z in roots)
        optima = tuple((claim(part.std * s, digits), _about(part.mean + part.std * z, digits)) for s, z in roots)
        mse = claim(part.std**2 * least, digits)
    with arithmetic(_BITS):
        plane = _Plane(parts_of(unit, arb(1))[0].family, levels)
        boxes = _cover(plane, least.upper(), starts)
    return CertifiedPair(optima, mse, boxes)


def _about(number: arb, digits: int) -> str:
    return f"[+/- 1e-{digits}]" if number.contains(0) else claim(number, digits)


class _Plane:
    """M of a density of mean 0 and variance 1 (lemma 1)."""

    def __init__(self, family: Gaussian, grid: Grid) -> None:
        self.family = family
        levels = [Fraction(level) for level in grid.levels.tolist()]
        j = min(range(len(levels)), key=lambda k: abs(levels[k]))
        self.low, self.high, self.home = ball(levels[0]), ball(levels[-1]), ball(levels[j])
        self.gap = ball(min(b - a for a, b in pairwise(levels)))
        self.kinks = [
            (2 * ball(b - a), ball((a + b) / 2), 1 if k >= j else -1) for k, (a, b) in enumerate(pairwise(levels))
        ]

    def jet(self, s: arb, r: arb, z: arb, w: arb) -> Jet:
        """M over scales s +- r and shifts z +- w."""
        h, value, slope, lever = self.home, arb(0), arb(0), arb(0)
        wide, wide_lever, f0, f1, f2 = (arb(0) for _ in range(5))
        for gap, t, side in self.kinks:
            p, reach = z + s * t, (w + r * abs(t)) * UNIT
            mass, over = self._tail(p * side)
            pdf = self._pdf(p + reach)
            # d/dp of R(p) is -P(x > p), of R(-p) it is P(x < p).
            fall = -side * mass
            spread = gap * (fall + pdf * reach)
            value, slope, lever = value + gap * over, slope + gap * fall, lever + gap * t * fall
            wide, wide_lever = wide + spread, wide_lever + t * spread
            f0, f1, f2 = f0 + gap * pdf, f1 + gap * t * pdf, f2 + gap * t * t * pdf
        whole = s + r * UNIT
        return Jet(
            1 + z * z + s * h * (2 * z + s * h) - s * value,
            2 * h * (z + s * h) - value - s * lever,
            2 * (z + s * h) - s * slope,
            2 * h * h - 2 * wide_lever - whole * f2,
            2 * h - wide - whole * f1,
            2 - whole * f0,
        )

    def _tail(self, u: arb) -> tuple[arb, arb]:
        if u >= 0:
            return self.family.tails(u)
        if u < 0:
            mass, over = self.family.tails(-u)
            return 1 - mass, over - u
        (a, b), (c, d) = self._tail(u.lower()), self._tail(u.upper())
        return a.union(c), b.union(d)

    def _pdf(self, u: arb) -> arb:
        return self.family.rough(u)

    def small(self, s: float) -> arb:
        """Lemma 2."""
        u = ball(s) * (self.high - self.low) / 2
        mass, over = self.family.tails(u)
        return 2 * (self.family.second(u) - 2 * u * over - u * u * mass)

    def large(self, s: float) -> arb:
        """Lemma 3."""
        return arb(0.5) - self.family.second(ball(s) * self.gap / 4)


def _enclosed(plane: _Plane, s: arb, z: arb, digits: int) -> tuple[arb, arb]:
    """The root of both slopes near (s, z): Newton's method, then the interval Newton test."""
    zero = arb(0)
    for _ in range(_STEPS):
        ds, dz = _newton(plane.jet(s, zero, z, zero))
        s, z = (s - ds).mid(), (z - dz).mid()
    radius = s * ball(Fraction(1, 10 ** (digits + _SPARE)))
    at, over = plane.jet(s, zero, z, zero), plane.jet(s, radius, z, radius)
    ds, dz = _newton(over._replace(by_s=at.by_s, by_z=at.by_z))
    if not all((radius * UNIT).contains_interior(step) for step in (ds, dz)):
        raise OpenError("the interval Newton test failed")
    return s - ds, z - dz


def _newton(jet: Jet) -> tuple[arb, arb]:
    determinant = jet.ss * jet.zz - jet.sz * jet.sz
    return (jet.zz * jet.by_s - jet.sz * jet.by_z) / determinant, (jet.ss * jet.by_z - jet.sz * jet.by_s) / determinant


def _cover(plane: _Plane, least: arb, starts: list[tuple[float, float]]) -> int:
    """Exclude all scales and shifts but boxes about the optima, where M is convex; how many boxes that took."""
    low = high = starts[0][0]
    while not plane.small(low) > least:
        low *= 0.8
    while not plane.large(high) > least:
        high *= 1.25
    homes = [_convex_box(plane, s, z) for s, z in starts]
    reach = high * max(abs(float(plane.low)), abs(float(plane.high)))
    left: list[Box] = [(low, high, -reach, reach)]
    count = 0
    while left:
        one = left.pop()
        count += 1
        if count > _MOST_BOXES:
            raise OpenError(
                f"scales {one[0]:.6g} .. {one[1]:.6g} with shifts {one[2]:.6g} .. {one[3]:.6g} are left open"
            )
        if _outside(plane, one) or any(_within(one, home) for home in homes):
            continue
        jet, r, w = _jet_of(plane, one)
        if _excluded(jet, r, w, least):
            continue
        # The longer side, as the error sees it.
        if r * (abs(jet.by_s) + r * abs(jet.ss)).upper() > w * (abs(jet.by_z) + w * abs(jet.zz)).upper():
            middle = math.sqrt(one[0] * one[1])
            left += [(one[0], middle, *one[2:]), (middle, one[1], *one[2:])]
        else:
            middle = 0.5 * (one[2] + one[3])
            left += [(*one[:2], one[2], middle), (*one[:2], middle, one[3])]
    return count


def _jet_of(plane: _Plane, one: Box) -> tuple[Jet, arb, arb]:
    s0, s1, z0, z1 = (Fraction(end) for end in one)
    sides = ball((s0 + s1) / 2), ball((s1 - s0) / 2), ball((z0 + z1) / 2), ball((z1 - z0) / 2)
    return plane.jet(*sides), sides[1], sides[3]


def _excluded(jet: Jet, r: arb, w: arb, least: arb) -> bool:
    """Whether M > least over the box, or a slope is not 0."""
    x, y = r * UNIT, w * UNIT
    by_s, by_z = jet.by_s + jet.ss * x + jet.sz * y, jet.by_z + jet.sz * x + jet.zz * y
    if not by_s.contains(0) or not by_z.contains(0):
        return True
    curved = (jet.ss * r * r * _SQUARE + jet.zz * w * w * _SQUARE) / 2 + jet.sz * x * y
    return bool(jet.value + jet.by_s * x + jet.by_z * y + curved > least)


# Squares of numbers from -1 to 1.
_SQUARE = arb(0.5, 0.5)


def _outside(plane: _Plane, one: Box) -> bool:
    """Lemma 4: with the scales of the box, all values are above 0, or all below."""
    s, low, high = ball(one[0]).union(ball(one[1])), ball(one[2]), ball(one[3])
    return bool(low + s * plane.low > 0) or bool(high + s * plane.high < 0)


def _within(one: Box, home: Box) -> bool:
    return home[0] <= one[0] and one[1] <= home[1] and home[2] <= one[2] and one[3] <= home[3]


def _convex_box(plane: _Plane, s: float, z: float) -> Box:
    """A box about an optimum over which the matrix of second derivatives is positive: it holds no other."""
    width = _WIDEST
    while width > 1e-9:
        one = (s * (1 - width), s * (1 + width), z - s * width, z + s * width)
        jet, _, _ = _jet_of(plane, one)
        if jet.ss > 0 and jet.ss * jet.zz - jet.sz * jet.sz > 0:
            return one
        width *= 0.8
    raise OpenError(f"the error is not seen to be convex about scale {s!r} and shift {z!r}")
