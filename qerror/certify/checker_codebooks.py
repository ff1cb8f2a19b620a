"""Verify what qerror has proven of whole codebooks: this file, `checker.py` beside it, and python-flint.

    python checker_codebooks.py lloyd-max.json ...

It verifies every certificate of qerror, those of `checker.py` too. All texts of numbers are balls. One states:

- a codebook: near `levels` lies exactly one symmetric codebook of which the mean squared error M has no slope; its M
  lies in `mse`; `optimal`: no codebook of its size has a smaller one.
- a pair: of all scales and shifts together, none has a smaller M than the best of `optima`, whose M lie in `mse`.
- blocks: the expected squared error of a value in a block of n, the scale being s_j where the largest magnitude of the
  block lies between the bounds m_j and m_(j+1), lies in `mse`; scales and bounds are exact.

Lemmas, which go on from those of `checker.py`; densities of codebooks and pairs are even about their mean, here 0.

11. Of values q_1 < q_2 ... that are linear in parameters x_d, lemma 2 with q_k in place of s l_k can be differentiated:
    its gaps and thresholds are linear in x_d, R is smooth, R' = -P(x > p) and R'' = f.
12. Interval Newton: if c - H(X)^-1 M'(c), c the middle of the box X and H(X) all second derivatives over X, lies inside
    of X, then X holds exactly one root of M', and that lies there.
    M'(x) - M'(c) = H (x - c) with an H of H(X), and all of these are regular; Brouwer's theorem gives the root.
13. A log-concave density has only one codebook of a size without slope, and that is the best one, and symmetric as its
    mirror image is another. Not proven here: J. C. Kieffer, "Uniqueness of locally optimal quantizer for log-concave
    density and convex error weighting function", IEEE Trans. Inf. Theory 29 (1), 42-47, 1983.
14. Small scales: all values lie in an interval of width 2 u = s (l_max - l_min), so M >= E[dist(x, interval)^2]; this
    is convex and even in the place of the interval, hence least about 0: M >= 2 E[(x - u)_+^2].
15. Large scales: with d = s min g_k there is at most one value in (-d/2, d/2). If it is not below 0, each x of
    (-d/4, 0) is at least |x| from it and d/4 from the others; else look at (0, d/4). So M >= E[x^2; 0 < x < d/4].
16. If all values are above 0, or all below, M >= E[x^2; x < 0] = 1/2.
17. Over a box of scales and shifts M > least, or a slope is not 0, by Taylor with all second derivatives over the box;
    or the second derivatives are positive definite, so that it holds one root at most.
18. Blocks: with P(m) = P(|x| <= m) and C_j(m) the loss at scale s_j where |x| <= m, the error is the sum over j of
    P(m_(j+1))^(n-1) C_j(m_(j+1)) - P(m_j)^(n-1) C_j(m_j).
    That no magnitude of a block is above m takes x and the n - 1 others, which are independent.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from flint import arb, arb_mat

if TYPE_CHECKING or __package__:
    from . import checker
    from .checker import UNIT, Family, Part, arithmetic, ask, ball, check_ball, exact_levels, parts_of
else:  # a script beside the other
    import checker
    from checker import UNIT, Family, Part, arithmetic, ask, ball, check_ball, exact_levels, parts_of

PAIR_BITS, MOST_BOXES = 64, 60_000


class Jet(NamedTuple):
    """M at the middle of a box, its slopes there, and its second derivatives over the box."""

    value: arb
    slope: list[arb]
    curve: arb_mat


class Values:
    """Values q_k = sum_d x_d w_(k,d) and a density of mean 0 and variance 1 (lemma 11)."""

    def __init__(self, family: Family, weights: list[dict[int, Fraction]], home: int) -> None:
        self.family, self.home = family, [(d, ball(w)) for d, w in weights[home].items()]
        self.kinks = []
        for k, (one, other) in enumerate(pairwise(weights)):
            pairs = [(d, one.get(d, Fraction(0)), other.get(d, Fraction(0))) for d in sorted({**one, **other})]
            self.kinks.append((k >= home, [(d, ball(b - a), ball((a + b) / 2)) for d, a, b in pairs]))

    def jet(self, x: list[arb], r: list[arb]) -> Jet:
        """M over |x_d - x0_d| <= r_d, x0 thin balls."""
        q = sum((x[d] * w for d, w in self.home), arb(0))
        value, slope = 1 + q * q, [arb(0)] * len(x)
        curve: dict[Any, arb] = defaultdict(lambda: arb(0))
        for d, w in self.home:
            slope[d] += 2 * w * q
            for e, v in self.home:
                curve[d, e] += 2 * w * v
        for up, entries in self.kinks:
            gap, wide, p, reach = (arb(0) for _ in range(4))
            for d, g, b in entries:
                gap, wide = gap + g * x[d], wide + g * (x[d] + r[d] * UNIT)
                p, reach = p + b * x[d], reach + abs(b) * r[d] * UNIT
            mass, over = self.family.over(p if up else -p, 2)
            fall, pdf = -mass if up else mass, self.family.around(p + reach)
            value -= 2 * gap * over
            for d, g, b in entries:
                slope[d] -= 2 * (g * over + gap * b * fall)
                for e, h, c in entries:
                    curve[d, e] -= 2 * ((g * c + h * b) * (fall + pdf * reach) + wide * b * c * pdf)
        n = range(len(x))
        return Jet(value, slope, arb_mat([[curve[d, e] for e in n] for d in n]))

    def newton(self, box: list[arb]) -> list[arb]:
        """Where the only root of the slopes in the box lies (lemma 12)."""
        x, r = [b.mid() for b in box], [b.rad() for b in box]
        slope, curve = self.jet(x, [arb(0)] * len(x)).slope, self.jet(x, r).curve
        step = curve.solve(arb_mat([[m] for m in slope])).entries()
        inside = all((a * UNIT).contains_interior(d) for a, d in zip(r, step, strict=True))
        ask(inside, "the interval Newton test fails")
        return [a - d for a, d in zip(x, step, strict=True)]


def standard(density: Any) -> tuple[Part, bool]:
    """The one part of a density, and whether it is log-concave."""
    parts = parts_of(density)
    ask(len(parts) == 1 and not parts[0].floor, "the density must be one symmetric family")
    return parts[0], density["family"] != "student-t" and density.get("beta", 1) >= 1


def verify_codebook(certificate: dict[str, Any]) -> None:
    """Lemmas 11 to 13."""
    claims, digits = certificate["levels"], certificate["digits"]
    with arithmetic(4 * digits + 100):
        part, concave = standard(certificate["density"])
        balls = [(arb(claim) - part.mean) / part.std for claim in claims]
        ask(len(claims) > 1 and all(bool(a < b) for a, b in pairwise(balls)), "levels must ascend")
        half = len(claims) // 2
        found = symmetric_values(part.family, len(claims)).newton(balls[-half:])
        mse = symmetric_values(part.family, len(claims)).jet(found, [arb(0)] * half).value
        odd = [part.mean] * (len(claims) % 2)
        values = [part.mean - part.std * x for x in found[::-1]] + odd + [part.mean + part.std * x for x in found]
        for claim, value in zip(claims, values, strict=True):
            check_ball(claim, value, digits, zero=True)
        check_ball(certificate["mse"], mse * part.std**2, digits)
    ask(certificate["optimal"] is concave, f"optimal must be {concave}")


def symmetric_values(family: Family, count: int) -> Values:
    """Levels above the mean as parameters, those below opposite; of an odd number, the mean is one."""
    half = count // 2
    above = [{d: Fraction(1)} for d in range(half)]
    below = [{d: Fraction(-1)} for d in reversed(range(half))]
    return Values(family, below + [{}] * (count % 2) + above, half)


def verify_pair(certificate: dict[str, Any]) -> None:
    """Lemmas 11, 12, 14 to 16: boxes are divided until each is excluded, or lies where M is convex about an optimum."""
    levels, digits, optima = exact_levels(certificate["levels"]), certificate["digits"], certificate["optima"]
    with arithmetic(4 * digits + 80):
        part, _ = standard(certificate["density"])
        exact = scale_and_shift(part.family, levels)
        boxes = [[arb(s) / part.std, (arb(z) - part.mean) / part.std] for s, z in optima]
        roots = [exact.newton(box) for box in boxes]
        values = [exact.jet(root, [arb(0)] * 2).value for root in roots]
        for (scale, shift), root, value in zip(optima, roots, values, strict=True):
            check_ball(scale, part.std * root[0], digits)
            check_ball(shift, part.mean + part.std * root[1], digits, zero=True)
            check_ball(certificate["mse"], value * part.std**2, digits)
        ask(all(bool(root[0] > 0) for root in roots), "a scale is not above 0")
        least = min(value.upper() for value in values)
        ask(all(a[0].overlaps(b[0]) and not a[1].overlaps(b[1]) for a, b in pairwise(roots)), "optima must be distinct")
    with arithmetic(PAIR_BITS):
        family = standard(certificate["density"])[0].family
        Cover(family, levels, least, [[float(x.mid()) for x in root] for root in roots]).run()


def scale_and_shift(family: Family, levels: list[Fraction]) -> Values:
    """Parameters s and z."""
    home = min(range(len(levels)), key=lambda k: abs(levels[k]))
    return Values(family, [{0: level, 1: Fraction(1)} for level in levels], home)


class Cover:
    """All scales and shifts, of a density of mean 0 and variance 1."""

    def __init__(self, family: Family, levels: list[Fraction], least: arb, roots: list[list[float]]) -> None:
        self.family, self.least, self.values = family, least, scale_and_shift(family, levels)
        self.low, self.high, self.gap = levels[0], levels[-1], min(b - a for a, b in pairwise(levels))
        self.roots, self.boxes = roots, 0

    def run(self) -> None:
        """Exclude all boxes but those about the optima."""
        first = last = self.roots[0][0]
        for _ in range(200):
            first *= 1 if self.small(first) > self.least else 0.8
            last *= 1 if self.large(last) > self.least else 1.25
        open_ends = not self.small(first) > self.least or not self.large(last) > self.least
        ask(not open_ends, f"scales below {first:.3g} or above {last:.3g} are left open")
        homes = [self.home(*root) for root in self.roots]
        reach = last * float(max(abs(self.low), abs(self.high)))
        left = [(first, last, -reach, reach)]
        while left:
            one, self.boxes = left.pop(), self.boxes + 1
            ask(self.boxes <= MOST_BOXES, f"scales and shifts in {one} are left open")
            inside = any(h[0] <= one[0] and one[1] <= h[1] and h[2] <= one[2] and one[3] <= h[3] for h in homes)
            if not inside:
                left += self.rest(one)

    def small(self, s: float) -> arb:
        """Lemma 14."""
        return 2 * self.family.over(ball(s) * ball(self.high - self.low) / 2, 3)[2]

    def large(self, s: float) -> arb:
        """Lemma 15."""
        return arb(0.5) - self.family.above(2, ball(s) * ball(self.gap) / 4)

    def jet(self, one: Any) -> tuple[Jet, list[arb]]:
        """Over a box."""
        s0, s1, z0, z1 = map(Fraction, one)
        r = [ball((s1 - s0) / 2), ball((z1 - z0) / 2)]
        return self.values.jet([ball((s0 + s1) / 2), ball((z0 + z1) / 2)], r), r

    def rest(self, one: Any) -> list[Any]:
        """What is left of a box: nothing, or its halves across the side that M feels more."""
        s = ball(one[0]).union(ball(one[1]))
        outside = ball(one[2]) + s * ball(self.low) > 0 or ball(one[3]) + s * ball(self.high) < 0
        if outside:  # lemma 16: M >= 1/2, which is more than lemma 15 ever gives
            return []
        jet, r = self.jet(one)
        x, y = (a * UNIT for a in r)
        ss, sz, zz = jet.curve[0, 0], jet.curve[0, 1], jet.curve[1, 1]
        slopes = jet.slope[0] + ss * x + sz * y, jet.slope[1] + sz * x + zz * y
        square = arb(0.5, 0.5)
        bent = (ss * r[0] ** 2 + zz * r[1] ** 2) * square / 2 + sz * x * y
        value = jet.value + jet.slope[0] * x + jet.slope[1] * y + bent
        if value > self.least or not all(slope.contains(0) for slope in slopes):
            return []
        felt = [(a * (abs(m) + a * abs(c))).upper() for a, m, c in zip(r, jet.slope, (ss, zz), strict=True)]
        if felt[0] > felt[1]:
            middle = math.sqrt(one[0] * one[1])
            return [(one[0], middle, *one[2:]), (middle, *one[1:])]
        middle = (one[2] + one[3]) / 2
        return [(*one[:3], middle), (*one[:2], middle, one[3])]

    def home(self, s: float, z: float) -> Any:
        """A box about an optimum over which all second derivatives are positive definite: it holds no other."""
        width = 0.2
        while width > 1e-9:
            one = (s * (1 - width), s * (1 + width), z - s * width, z + s * width)
            curve = self.jet(one)[0].curve
            if curve[0, 0] > 0 and curve[0, 0] * curve[1, 1] - curve[0, 1] * curve[1, 0] > 0:
                return one
            width *= 0.8
        raise ValueError(f"M is not seen to be convex about scale {s!r} and shift {z!r}")


# -- blocks --------------------------------------------------------------------------------------------------------


def block_error(density: Any, levels: list[Fraction], scales: list[Fraction], bounds: list[Fraction], n: int) -> arb:
    """Lemma 18."""
    parts, middles = parts_of(density), [(a + b) / 2 for a, b in pairwise(levels)]

    def beyond(p: Fraction | None, q: Fraction, up: bool) -> tuple[arb, arb]:
        """P(x > p) and E[(x - q)^2; x > p], or of x < p; None: infinity."""
        if p is None:
            return arb(0), arb(0)
        gap, tails = ball(p - q if up else q - p), [(part.weight, part.over(ball(p), up, 3)) for part in parts]
        mass = sum((w * t[0] for w, t in tails), arb(0))
        return mass, sum((w * (t[2] + 2 * gap * t[1] + gap * gap * t[0]) for w, t in tails), arb(0))

    def cell(a: Fraction | None, b: Fraction | None, q: Fraction) -> arb:
        """E[(x - q)^2; a < x < b], by the tails that are small."""
        if a is not None and a >= 0:
            return beyond(a, q, True)[1] - beyond(b, q, True)[1]
        if b is not None and b <= 0:
            return beyond(b, q, False)[1] - beyond(a, q, False)[1]
        whole = sum((part.weight * part.whole(ball(q))[2] for part in parts), arb(0))
        return whole - beyond(a, q, False)[1] - beyond(b, q, True)[1]

    def inside(s: Fraction, m: Fraction | None) -> arb:
        """P(m)^(n-1) C(m); None: everything."""
        values, edges = ([s * level for level in levels], [s * t for t in middles]) if s else ([s], [])
        ends = [-m, *(max(min(edge, m), -m) for edge in edges), m] if m is not None else [None, *edges, None]
        pairs = zip(values, pairwise(ends), strict=True)
        loss = sum((cell(a, b, q) for q, (a, b) in pairs if a is None or a != b), arb(0))
        share = 1 if m is None else 1 - beyond(-m, Fraction(0), False)[0] - beyond(m, Fraction(0), True)[0]
        return share ** (n - 1) * loss

    total = arb(0)
    for s, (m, end) in zip(scales, pairwise([Fraction(0), *bounds, None]), strict=True):
        if m != end:
            total += inside(s, end) - (inside(s, m) if m else 0)
    return total


def verify_blocks(certificate: dict[str, Any]) -> None:
    """Lemma 17."""
    scales, bounds, digits = [*map(Fraction, certificate["scales"])], certificate["bounds"], certificate["digits"]
    bounds = [*map(Fraction, bounds)]
    ask(all(a <= b for a, b in pairwise([Fraction(0), *bounds])), "bounds must not fall")
    ask(scales[0] >= 0 and all(a < b for a, b in pairwise(scales)), "scales must ascend")
    ask(type(certificate["block_size"]) is int and certificate["block_size"] > 0, "block_size must be a whole number")
    with arithmetic(4 * digits + 100):
        levels = exact_levels(certificate["levels"])
        error = block_error(certificate["density"], levels, scales, bounds, certificate["block_size"])
        check_ball(certificate["mse"], error, digits)


# -- certificates --------------------------------------------------------------------------------------------------

STATEMENTS: dict[str, checker.Statement] = {
    **checker.STATEMENTS,
    "qerror certificate of a codebook": (verify_codebook, "density levels mse optimal digits"),
    "qerror certificate of a pair": (verify_pair, "density levels optima mse digits"),
    "qerror certificate of blocks": (verify_blocks, "density levels scales bounds block_size mse digits"),
}


def verify(certificate: dict[str, Any]) -> None:
    """Prove what a certificate states, or raise ValueError with what is not so."""
    checker.verify(certificate, STATEMENTS)


if __name__ == "__main__":
    sys.exit(min(checker.main(sys.argv[1:], STATEMENTS), 1))
