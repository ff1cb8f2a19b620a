"""Verify what qerror has proven: one file, which needs Python and python-flint only.

    python checker.py int8-gaussian.json ...

It proves each statement again, from what stands in its certificate, in balls: whatever is rounded is enclosed. Texts
[x +/- r] are balls; numbers of densities, levels and shift are those of binary64. A certificate states, of

- a scale: of all s > 0, the one in the ball `scale` gives the levels s * l_k the least mean squared error M, which lies
  in `mse`; `minima` are all other local minima up to 1e-12 (relative) above it, and unless `unique` one of these may be
  the least. `cuts` divide (0, inf) into pieces, each with the letter of its kind (lemmas 5 to 8).
- a sample: the same, scale and M being fractions.
- a codebook: near `levels` lies exactly one symmetric codebook of which M has no slope; its M lies in `mse`;
  `optimal`: no codebook of its size has a smaller one.
- a pair: of all scales and shifts together, none has a smaller M than the best of `optima`, whose M lie in `mse`.
- blocks: the expected squared error of a value in a block of n, the scale being s_j where the largest magnitude of the
  block lies between the bounds m_j and m_(j+1), lies in `mse`; scales and bounds are exact.

Each has a section of this file; all but samples rest on the first one, densities.

Lemmas. z is the shift, y = x - z, A = E[y^2], R(p) = E[(x - p)_+], so that R' = -P(x > p) and R'' = f.

1. Nearest: M(s) = A - s k(s), k(s) = E[max_k (2 y l_k - s l_k^2)].
   (y - s l)^2 = y^2 - s (2 y l - s l^2), and rounding to nearest takes the l that makes this least.
2. With l_j any level, g_k = l_(k+1) - l_k and t_k the middle of both: k(s) = 2 E[y] l_j - s l_j^2 + sum of 2 g_k times
   E[(y - s t_k)_+] for k >= j, E[(s t_k - y)_+] for k < j.
   The maximum is convex in y and made of lines: that of l_j, whose slope rises by 2 g_k where y passes s t_k.
3. Stochastic: M(s) = -A + s E[y] (l_j + l_(j+1)) - s^2 l_j l_(j+1) + s S + 2 E[(y - s l_max)_+^2]
   + 2 E[(s l_min - y)_+^2], S the sum of l_(k+1) - l_(k-1) times E[(y - s l_k)_+] for k > j, E[(s l_k - y)_+] for
   k <= j; an l_(k-1) or l_(k+1) that does not exist is l_k.
   Between neighbours a and b the loss is (y - a)(b - y), a line when y^2 is added; the slope of these lines rises by
   the gaps beside a level, and beyond the ends (y - a)^2 + y^2 has second derivative 4.
4. On a piece M is its Taylor polynomial at the middle with the last coefficient taken over the piece, M' and M'' are
   the derivatives of that. Lagrange, term by term; a term that is less smooth there has fewer coefficients.
5. Kind x: M > (1 + 1e-12) min M. Kind m: M' has one sign, so there is no minimum inside. Kind v: M'' > 0, so there is
   one at most: where M' turns from - to + within the ball of a root, or none if M' keeps its sign at one end.
   At a cut there is none either where M' is continuous: everywhere but where s t_k, or s l_k, passes an atom of y (that
   of a rectified x, at 0). v is refused where one passes inside; at a cut where one does, M' left and right tell.
6. Kind s, (0, c]: M(s) >= A - s k(0), k(0) = 2 l_max E[y_+] - 2 l_min E[y_-].
   k falls, as each of its terms does; and no rounding has a smaller loss than nearest.
7. Kind z, [c, inf), 0 is a level: M(s) >= A - E[y^2; |y| > c m / 2], m the least |l| but 0.
   Where |y| <= s m / 2 the nearest level is 0 and the loss y^2; elsewhere it is at least 0.
8. Kind p, [c, inf): M(s) >= A + s^2 h - s (k(c) + c h), h = min l^2 > 0, and this rises from s = (k(c) + c h) / 2 h on.
   k(s) + s h falls, too, as each -s (l^2 - h) does.
9. So all minima lie at the roots of pieces v, and at cuts. There is a least: M is continuous, the ends are excluded.
10. Samples. Between cuts M is no less than a quadratic function of s. Nearest: each y^2 - s k has k convex, below its
    chord. Stochastic: the loss of y between the same neighbours all along is one (lemma 3), that of others at least 0.
    Lemma 7 says M >= A where it leaves out no y.
11. Of values q_1 < q_2 ... that are linear in parameters x_d, lemma 2 with q_k in place of s l_k can be differentiated:
    its gaps and thresholds are linear in x_d, R is smooth, R' = -P(x > p) and R'' = f.
12. Interval Newton: if c - H(X)^-1 M'(c), c the middle of the box X and H(X) all second derivatives over X, lies inside
    of X, then X holds exactly one root of M', and that lies there.
    M'(x) - M'(c) = H (x - c) with an H of H(X), and all of these are regular; Brouwer's theorem gives the root.
13. A log-concave f has one codebook of a size in which each value is the mean of its cell: the best one.
    The best is such a one: M is continuous, values far out are of no use, nor are cells without mass. The mean m(a, b)
    of a cell rises with a and b, and m(a + d, b + d) <= m(a, b) + d for d > 0, as r(x) = f(x + d) / f(x) falls; they
    are equal only if r is constant in the cell. Of two such codebooks with thresholds t and t' let d > 0 be the largest
    t'_k - t_k. The values beside this t'_k exceed those beside t_k by d at most, on average by d: both by d. So d is
    taken at the neighbours of k, too, then everywhere, and r is constant in each cell; as f is continuous inside of its
    support, on the whole line, where no such f has an integral. (More general: Fleischer 1964; Trushkin, IEEE Trans.
    Inf. Theory 28, 1982; Kieffer, IEEE Trans. Inf. Theory 29, 1983.)
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

Lemmas 11 to 17 are about densities that are even about their mean, here 0, of variance 1.
"""

from __future__ import annotations

import json
import math
import re
import sys
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flint import arb, arb_mat, arb_poly, arb_series, ctx, fmpq

WITHIN = fmpq(1, 10**12)
UNIT, SQUARE = arb(0, 1), arb(0.5, 0.5)
EIGHTHS = [arb(fmpq(2 * i - 7, 8), fmpq(1, 8)) for i in range(8)]
# Second derivatives below this are not expanded, which changes M by less.
FLAT = arb("1e-25")
# Of the boxes of scales and shifts.
PAIR_BITS, MOST_BOXES = 64, 60_000


@contextmanager
def arithmetic(bits: int) -> Iterator[None]:
    """Balls of so many bits."""
    before = ctx.prec, ctx.cap
    ctx.prec, ctx.cap = bits, 80
    try:
        yield
    finally:
        ctx.prec, ctx.cap = before


def exact(number: Any) -> fmpq:
    """A Fraction, int, float (what binary64 holds), decimal text or text p/q."""
    if isinstance(number, str):
        form = re.fullmatch(r"-?\d+(\.\d+)?(e-?\d{1,5})?|-?\d+/[1-9]\d*", number)
        ask(form is not None, f"{number!r} is no number of moderate size")
    x = number if isinstance(number, fmpq) else Fraction(number)
    return fmpq(int(x.numerator), int(x.denominator))


def ball(number: Any) -> arb:
    """Enclose an exact number."""
    return arb(number if isinstance(number, fmpq) else exact(number))


def ask(true: bool, otherwise: str) -> None:
    """Refuse the certificate unless `true`."""
    if not true:
        raise ValueError(otherwise)


# -- densities -----------------------------------------------------------------------------------------------------


class Family:
    """T of mean 0 and variance 1, its pdf even and falling with |x|, smooth but for 0 if there is a `cusp`.

    The pdf is that of a ball or a series; above(j, u) = E[T^j; T > u], j <= 2, u >= 0.
    """

    even = True

    def __init__(self, pdf: Callable[[Any], Any], above: Callable[[int, arb], arb], cusp: bool = False) -> None:
        self.pdf, self.above, self.cusp = pdf, above, cusp
        # E[T], E[T^2]; the density of -T.
        self.moments, self.mirror = [arb(0), arb(1)], self

    def around(self, u: arb) -> arb:
        """What the pdf is over the ball u."""
        return self.pdf(u.abs_lower()).union(self.pdf(u.abs_upper()))

    def over(self, u: arb, count: int) -> list[arb]:
        """E[(T - u)_+^j] for j < count, 2 or 3, at a thin ball."""
        if u < 0:
            m = self.over(-u, count)
            return [1 - m[0], m[1] - u, *(1 + u * u - square for square in m[2:])]
        if not u >= 0:  # these fall
            ask(u.is_finite(), "a number is none")
            return [a.union(b) for a, b in zip(self.over(u.lower(), count), self.over(u.upper(), count), strict=True)]
        return about(u, [self.above(j, u) for j in range(count)])

    def expand(self, u: arb, a: arb, count: int) -> list[arb]:
        """The pdf at u + a x, |x| <= 1, in powers of x: at most count coefficients, the last over all x."""
        if u < 0:
            u, a = -u, -a
        whole = u + a * UNIT
        flat = self.around(whole)
        if (self.cusp and not whole > 0) or a * a * flat * abs(whole) < FLAT:
            return [flat]
        middle = self.pdf(arb_series([u, a], prec=count - 1))
        return [*(middle[i] for i in range(count - 1)), self.pdf(arb_series([whole, a], prec=count))[count - 1]]


def about(u: arb, m: list[arb]) -> list[arb]:
    """E[(T - u)^j; T > u] from m_j = E[T^j; T > u]."""
    return [m[0], m[1] - u * m[0], *(square - 2 * u * m[1] + u * u * m[0] for square in m[2:])]


def generalized_gaussian(beta: Any) -> Family:
    """Pdf ~ exp(-(|x| / c)^beta)."""
    power = ball(beta)
    ask(bool(power > 0), "beta must be positive")
    whole = (1 / power).gamma()
    c = (whole / (3 / power).gamma()).sqrt()

    def above(j: int, u: arb) -> arb:
        v, a = (u / c) ** power, (j + 1) / power
        # Where Arb is slow: gamma(a, v) <= v^a exp(-v) for v >= a, 1.
        far = bool(v > 10**6 and v > a)
        return c**j * (v**a * (-v).exp() * SQUARE if far else v.gamma_upper(a)) / (2 * whole)

    def pdf(x: Any) -> Any:
        return (-((x / c) ** power)).exp() * power / (2 * c * whole)

    return Family(pdf, above, exact(beta) not in range(2, 100, 2))


def student_t(df: Any) -> Family:
    """Pdf ~ (1 + x^2 / c)^(-(df + 1) / 2), c = df - 2."""
    n, c, half = ball(df), ball(df) - 2, arb(0.5)
    ask(bool(c > 0), "df must exceed 2")
    peak = ((n + 1) / 2).gamma() / ((n / 2).gamma() * (arb.pi() * c).sqrt())

    def pdf(x: Any) -> Any:
        return (1 + x * x / c) ** (-(n + 1) / 2) * peak

    def above(j: int, u: arb) -> arb:
        if j == 1:
            return (c + u * u) / (n - 1) * pdf(u)
        near = u * u < c  # each side of the incomplete beta function is quick where it is the smaller one
        share = (u * u if near else c) / (c + u * u)
        mass = (1 - share.beta_lower(half, n / 2, 1) if near else share.beta_lower(n / 2, half, 1)) / 2
        return mass if j == 0 else mass + u * (c + u * u) * pdf(u) / c

    return Family(pdf, above)


def logistic() -> Family:
    """P(T > u) = 1 / (1 + exp(c u))."""
    c = arb.pi() / arb(3).sqrt()

    def above(j: int, u: arb) -> arb:
        e = (-c * u).exp()
        mass, over = e / (1 + e), e.log1p() / c
        # E[(T - u)_+^2] = 2 int_u^inf log(1 + exp(-c v)) / c dv, a dilogarithm.
        return mass if j == 0 else over + u * mass if j == 1 else u * (u * mass + 2 * over) - 2 * (-e).polylog(2) / c**2

    def pdf(x: Any) -> Any:
        e = (-c * x).exp()
        return c * e / ((1 + e) * (1 + e))

    return Family(pdf, above)


class Steps:
    """T with a pdf that is constant between edges, of probabilities in the proportion of counts."""

    def __init__(self, edges: list[arb], counts: list[Any], even: bool = False) -> None:
        ask(all(bool(x < y) for x, y in pairwise(edges)), "edges must ascend")
        shares = [ball(n) / ball(sum(counts)) for n in counts]
        heights = [share / (b - a) for share, (a, b) in zip(shares, pairwise(edges), strict=True)]
        ask(all(bool(h >= 0) for h in heights), "no count may be below 0, nor all be 0")
        # heights[i] lies between edges i - 1 and i; beyond[j][i] = E[T^j; T > edge i].
        self.edges, self.counts, self.heights, self.even = edges, counts, [arb(0), *heights, arb(0)], even
        self.beyond = [[arb(0)] for _ in range(3)]
        for height, (a, b) in zip(heights[::-1], list(pairwise(edges))[::-1], strict=True):
            for j, sums in enumerate(self.beyond):
                sums.insert(0, sums[0] + height * (b ** (j + 1) - a ** (j + 1)) / (j + 1))
        self.moments = [sums[0] for sums in self.beyond[1:]]

    @cached_property
    def mirror(self) -> Steps:
        """The density of -T."""
        return Steps([-edge for edge in self.edges[::-1]], self.counts[::-1], self.even)

    def _place(self, u: arb) -> tuple[int, arb]:
        """How many edges are below u for sure, and what the pdf is over u."""
        first, last = bisect_left(self.edges, u), bisect_right(self.edges, u)
        height = self.heights[first]
        for other in self.heights[first + 1 : last + 1]:
            height = height.union(other)
        return first, height

    def around(self, u: arb) -> arb:
        """What the pdf is over the ball u."""
        return self._place(u)[1]

    def over(self, u: arb, count: int) -> list[arb]:
        """E[(T - u)_+^j] for j < count, 2 or 3, at a thin ball."""
        ask(u.is_finite(), "a number is none")
        i, height = self._place(u)
        if i == len(self.edges):
            return [arb(0)] * count
        # Up to edge i, which may be below u by a rounding, and from there on; (x - u)^j has one sign between them.
        gap, rest = self.edges[i] - u, about(u, [sums[i] for sums in self.beyond])
        steps = [gap, gap * gap / 2, gap * gap * gap / 3]
        return [height * step + moment for step, moment in zip(steps[:count], rest, strict=False)]

    def expand(self, u: arb, a: arb, count: int) -> list[arb]:
        """The pdf at u + a x, |x| <= 1: its range."""
        return [self.around(u + a * UNIT)]


FAMILIES: dict[str, Callable[..., Family | Steps]] = {
    "gaussian": lambda: generalized_gaussian(2),
    "laplace": lambda: generalized_gaussian(1),
    "logistic": logistic,
    "uniform": lambda: Steps([-arb(3).sqrt(), arb(3).sqrt()], [1], even=True),
    "student-t": student_t,
    "generalized-gaussian": generalized_gaussian,
}


class Part:
    """X = Y = mean + std T, or the larger of Y and 0 (`floor`)."""

    def __init__(self, weight: arb, family: Family | Steps, mean: fmpq, std: arb, floor: bool) -> None:
        self.weight, self.family, self.mean, self.std, self.floor = weight, family, mean, std, floor
        lean, square = family.moments
        self.moments = [mean + std * lean, mean**2 + 2 * mean * std * lean + std**2 * square]
        if floor:
            self.moments = self.over(fmpq(0), True, 3)[1:]

    def whole(self, p: Any) -> list[arb]:
        """E[(X - p)^j] for j = 0, 1, 2."""
        first, square = self.moments
        return [arb(1), first - p, square - 2 * p * first + p * p]

    def over(self, p: fmpq, up: bool, count: int) -> list[arb]:
        """E[(X - p)_+^j] for j < count; not `up`: of p - X."""
        if self.floor and p < 0:
            return self.whole(p)[:count] if up else [arb(0)] * count
        if self.floor and not up:
            pairs = zip(self.whole(p), self.over(p, True, count), strict=False)
            return [(-1) ** j * (w - m) for j, (w, m) in enumerate(pairs)]
        u, family = arb(p - self.mean) / self.std, self.family if up else self.family.mirror
        return [m * self.std**j for j, m in enumerate(family.over(u if up else -u, count))]

    def series(self, p: fmpq, q: fmpq, up: bool, order: int) -> tuple[arb_poly, bool]:
        """E[(X - p - q x)_+], or of p + q x - X, |x| <= 1, in powers of x; and whether its slope is continuous."""
        if self.floor and p - abs(q) < 0:
            # The atom lies above all of p + q x, or is passed.
            passed = p + abs(q) > 0
            share = self.over(p + abs(q), True, 2)[0].union(1) if passed else arb(1)
            slope = -q * share if up else q * (1 - share)
            return arb_poly([self.over(p, up, 2)[1], slope]), not passed
        upper = up or self.floor
        u, a, family = arb(p - self.mean) / self.std, arb(q) / self.std, self.family if upper else self.family.mirror
        u, a = (u, a) if upper else (-u, -a)
        mass, over = family.over(u, 2)
        value, slope = self.std * over, -self.std * a * mass
        if not up and self.floor:  # p - X = (X - p)_+ - (X - p)
            value, slope = value - self.whole(p)[1], slope + q
        curve = arb_poly(family.expand(u, a, order - 1)) * (self.std * a * a)
        return arb_poly([value, slope]) + curve.integral().integral(), True


def parts_of(density: Any, weight: Any = 1, floor: bool = False) -> list[Part]:
    """A density as a sum of parts."""
    family, numbers = density["family"], {key: value for key, value in density.items() if key != "family"}
    if family == "rectified":
        return parts_of(numbers["of"], weight, True)
    if family == "mixture":
        total = sum(map(Fraction, numbers["weights"]))
        pairs = zip(numbers["weights"], numbers["of"], strict=True)
        return [part for w, of in pairs if w for part in parts_of(of, weight * ball(Fraction(w) / total), floor)]
    mean, std = fmpq(0), arb(1)
    if family == "histogram":
        law: Family | Steps = Steps([ball(edge) for edge in numbers["edges"]], [exact(n) for n in numbers["counts"]])
    else:
        if family == "uniform" and "a" in numbers:
            low, high = exact(numbers.pop("a")), exact(numbers.pop("b"))
            mean, std = (low + high) / 2, arb((high - low) / 2) / arb(3).sqrt()
        else:
            mean, std = exact(numbers.pop("mean")), ball(numbers.pop("std"))
        law = FAMILIES[family](**numbers)
    ask(bool(weight >= 0 and std > 0), f"density has a weight below 0 or a part of no width: {density}")
    return [Part(arb(weight), law, mean, std, floor)]


def exact_levels(levels: list[Any]) -> list[fmpq]:
    """Levels that are numbers and ascend."""
    ask(all(type(level) in (int, float) for level in levels), "levels must be numbers")
    numbers = [exact(level) for level in levels]
    ask(len(numbers) > 1 and all(a < b for a, b in pairwise(numbers)), "levels must ascend")
    return numbers


# -- one scale -----------------------------------------------------------------------------------------------------


class Problem:
    """M(s) of a density, levels, shift and rounding, in balls of so many bits."""

    def __init__(self, density: Any, levels: list[Any], shift: Any, rounding: str) -> None:
        self.levels, self.z, self.parts = exact_levels(levels), exact(shift), parts_of(density)
        wholes = [[p.weight * m for m in p.whole(self.z)] for p in self.parts]
        _, lean, self.power = (sum(column, arb(0)) for column in zip(*wholes, strict=True))
        kinks, self.ends, base = {"nearest": self._nearest, "stochastic": self._stochastic}[rounding]()
        self.base = [base[0] * self.power, base[1] * lean, arb(base[2])]
        self.terms = self._merged(kinks)
        self.nearest = self if rounding == "nearest" else Problem(density, levels, shift, "nearest")

    def _nearest(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Lemma 2: kinks (place, weight, side), no ends, and what A, E[y] s and s^2 are multiplied with."""
        j = min(range(len(self.levels)), key=lambda k: abs(self.levels[k]))
        kinks = [((a + b) / 2, 2 * (a - b), k >= j) for k, (a, b) in enumerate(pairwise(self.levels))]
        return kinks, [], [1, -2 * self.levels[j], self.levels[j] ** 2]

    def _stochastic(self) -> tuple[list[Any], list[Any], list[Any]]:
        """Lemma 3."""
        levels = self.levels
        j = min(max(bisect_right(levels, 0) - 1, 0), len(levels) - 2)
        beside = zip(levels[:1] + levels[:-1], levels[1:] + levels[-1:], strict=True)
        kinks = [(levels[k], above - below, k > j) for k, (below, above) in enumerate(beside)]
        ends = [(part, end, up) for part in self.parts for end, up in ((levels[-1], True), (levels[0], False))]
        return kinks, ends, [-1, levels[j] + levels[j + 1], -levels[j] * levels[j + 1]]

    def _merged(self, kinks: list[Any]) -> list[tuple[arb, Part, fmpq, bool]]:
        """Terms weight * E[(+-(x - z - s t))_+]; of a part that is even about z those of t and -t are one."""
        found: dict[Any, fmpq] = defaultdict(fmpq)
        for t, weight, up in kinks:
            for i, part in enumerate(self.parts):
                turned = not up and part.family.even and not part.floor and part.mean == self.z
                found[i, -t if turned else t, up or turned] += weight
        return [(w * self.parts[i].weight, self.parts[i], t, up) for (i, t, up), w in found.items()]

    def atoms(self) -> set[fmpq]:
        """Scales at which a kink passes an atom."""
        return {-self.z / t for _, part, t, _ in self.terms if part.floor and t * self.z < 0}

    def model(self, low: Any, high: Any, order: int) -> tuple[arb_poly, bool]:
        """M on a piece, x from -1 to 1, in powers of x (lemma 4); and whether M' is continuous inside."""
        s, r = (exact(low) + exact(high)) / 2, (exact(high) - exact(low)) / 2
        total, smooth = arb_poly(), True
        for weight, part, t, up in self.terms:
            series, continuous = part.series(self.z + s * t, r * t, up, order)
            total += series * weight
            smooth = smooth and continuous
        scales = arb_poly([s, r])
        total = scales * (scales * self.base[2] + self.base[1] + total) + self.base[0]
        for part, t, up in self.ends:
            p, q = self.z + s * t, r * t
            once = part.series(p, q, up, order)[0].integral() * (-2 * q if up else 2 * q)
            total += 2 * part.weight * (part.over(p, up, 3)[2] + once)
        return total, smooth

    def at(self, s: Any) -> arb:
        """M at a scale."""
        return self.model(s, s, 3)[0][0]

    def loss_bound(self, kind: str, c: fmpq) -> arb:
        """What M is no less than beyond c: below it (kind s, lemma 6), or above (z, p; lemmas 7 and 8)."""
        least, *others = sorted(map(abs, self.levels))
        if kind == "s":
            over = [sum((p.weight * p.over(self.z, up, 2)[1] for p in self.parts), arb(0)) for up in (True, False)]
            # A line: it lies above the lower of its ends.
            return self.power.min(self.power - 2 * c * (self.levels[-1] * over[0] - self.levels[0] * over[1]))
        if kind == "z" and least == 0:
            m = c * others[0] / 2
            tails = [(p.weight, p.over(self.z + (m if up else -m), up, 3)) for p in self.parts for up in (True, False)]
            return self.power - sum((w * (t[2] + 2 * m * t[1] + m * m * t[0]) for w, t in tails), arb(0))
        ask(kind == "p" and least > 0, f"a tail of kind {kind!r} does not exist here")
        h = least**2
        most = (self.power - self.nearest.at(c)) / c + c * h
        return self.power + c * c * h - c * most if 2 * h * c > most else arb(0)


def excluded(model: arb_poly, limit: arb) -> bool:
    """Kind x."""
    return all(bool(model(x) > limit) for x in EIGHTHS)


def monotone(model: arb_poly) -> bool:
    """Kind m."""
    slopes = [model.derivative()(x) for x in EIGHTHS]
    return all(bool(slope > 0) for slope in slopes) or all(bool(slope < 0) for slope in slopes)


def convex(model: arb_poly) -> bool:
    """The curvature of kind v."""
    return all(bool(model.derivative().derivative()(x) > 0) for x in EIGHTHS)


def turns(model: arb_poly) -> list[int]:
    """The sign of M' at both ends of a piece, 0 where it is not known."""
    slopes = [model.derivative()(arb(x)) for x in (-1, 1)]
    return [bool(slope > 0) - bool(slope < 0) for slope in slopes]


def at_root(problem: Problem, low: fmpq, high: fmpq) -> arb:
    """The least M between low and high, where M' turns from - to +."""
    model, smooth = problem.model(low, high, 4)
    proven = smooth and turns(model) == [-1, 1] and convex(model)
    ask(proven, f"M' does not turn from - to + between {float(low)!r} and {float(high)!r}")
    return model(UNIT)


def beside(text: str) -> tuple[fmpq, fmpq]:
    """The numbers one unit of its last digit below and above a decimal text."""
    digits, _, power = text.partition("e")
    number = exact(text)
    unit = fmpq(10) ** (int(power or 0) - len(digits.partition(".")[2]))
    return number - unit, number + unit


def ascending(text: str) -> list[fmpq]:
    """The cuts."""
    cuts = [exact(cut) for cut in text.split()]
    ask(cuts[0] > 0 and all(a < b for a, b in pairwise(cuts)), "cuts must ascend from above 0")
    return cuts


def verify_scale(certificate: dict[str, Any]) -> None:
    """Lemmas 1 to 9."""
    bits, digits, order = (certificate[key] for key in ("bits", "digits", "order"))
    ask(type(bits) is type(order) is int and 32 <= bits <= 4096 and 4 <= order <= 64, "bits or order out of range")
    statement = [certificate[key] for key in ("density", "levels", "shift", "rounding")]
    ask(type(statement[2]) in (int, float), "shift must be a number")
    cuts, kinds, roots = ascending(certificate["cuts"]), certificate["kinds"], [*map(beside, certificate["roots"])]
    ask(len(kinds) == len(cuts) + 1, "there must be one more piece than cuts")
    with arithmetic(4 * digits + 80):
        problem = Problem(*statement)
        found = [(arb(low).union(arb(high)), at_root(problem, low, high)) for low, high in roots]
        atoms = {cut: problem.at(cut) for cut in problem.atoms().intersection(cuts)}
        limit = min(value.upper() for value in (*atoms.values(), *(value for _, value in found))) * (1 + WITHIN)
    with arithmetic(bits):
        turning = proven_pieces(Problem(*statement), cuts, kinds, roots, limit, order)
    with arithmetic(4 * digits + 80):
        check_minima(certificate, found + [(arb(cut), value) for cut, value in atoms.items() if cut in turning])


def proven_pieces(
    problem: Problem, cuts: list[fmpq], kinds: str, roots: list[Any], limit: arb, order: int
) -> set[fmpq]:
    """Prove the kind of each piece; where M' turns from - to + at a cut."""
    ask(kinds[0] == "s" and kinds[-1] in "zp", "the first piece must be of kind s, the last of z or p")
    for kind, cut in ((kinds[0], cuts[0]), (kinds[-1], cuts[-1])):
        above = bool(problem.loss_bound(kind, cut) > limit)
        ask(above, f"the tail {kind} that ends at {float(cut)} may have a lower MSE")
    # The signs of M' on both sides of each cut. Beside an x M is above the limit: there they do not matter.
    left, right = defaultdict[fmpq, int](int), defaultdict[fmpq, int](int)
    for low, high, kind in zip(cuts[:-1], cuts[1:], kinds[1:-1], strict=True):
        model, smooth = problem.model(low, high, order)
        inside = [root for root in roots if low < root[0] and root[1] < high]
        right[low], left[high] = turns(model)
        if kind == "v":
            one = len(inside) == 1 or (not inside and (right[low] > 0 or left[high] < 0))
            proven = smooth and convex(model) and one
        else:
            proven = not inside and {"x": excluded(model, limit), "m": monotone(model)}[kind]
        ask(proven, f"the piece {kind} from {float(low)} to {float(high)} is not proven")
        if kind == "x":
            right[low], left[high] = -1, 1
        roots = [root for root in roots if root not in inside]
    ask(not roots, "a root lies in no piece of kind v")
    inner = problem.atoms().intersection(cuts[1:-1])
    turning = {cut for cut in inner if left[cut] < 0 < right[cut]}
    known = all(left[cut] > 0 or right[cut] < 0 for cut in inner - turning)
    ask(known, "whether M' turns at a cut is not proven")
    return turning


def check_minima(certificate: dict[str, Any], found: list[tuple[arb, arb]]) -> None:
    """Compare the statement with the enclosures of all candidates, of which those near the least are the minima."""
    claims, digits = [[certificate["scale"], certificate["mse"]], *certificate["minima"]], certificate["digits"]
    lowest = min((value for _, value in found), key=lambda value: value.upper())
    # Whichever of several is the least: none is lower than this.
    least = lowest.union(min(value.lower() for _, value in found))
    near = [(root, value) for root, value in found if not value > lowest * (1 + WITHIN)]
    ask(len(claims) == len(near), "minima are missing or too many")
    for place, (scale, mse) in enumerate(claims):
        held = [one for one in near if arb(scale).contains(one[0])]
        ask(bool(held), f"{scale} does not hold the enclosure of a root, or one that has no claim yet")
        root, value = held[0]
        near.remove(held[0])
        check_ball(scale, root, digits)
        check_ball(mse, value if place else value.union(least), digits)
        if place == 0:
            alone = all(bool(other > value) for _, other in near)
    ask(certificate["unique"] is alone, f"unique must be {alone}")


def check_ball(claim: str, found: arb, digits: int, zero: bool = False) -> None:
    """A ball in decimals must hold what was found, and be no wider than its digits (`zero`: or than 10^-digits)."""
    said = arb(claim)
    narrow = said.rad() <= abs(said) * fmpq(52, 100) / 10 ** (digits - 1)
    ask(bool(narrow) or (zero and bool(said.abs_upper() < fmpq(11, 10**digits * 10))), f"{claim} is too wide")
    ask(said.contains(found), f"{claim} does not hold the enclosure {found.str(40)}")


# -- samples -------------------------------------------------------------------------------------------------------


class Sample:
    """M(s) of a sample in fractions."""

    def __init__(self, density: Any, levels: list[Any], shift: Any, rounding: str) -> None:
        values, weights = ([*map(exact, density[key])] for key in ("values", "weights"))
        ask(sum(weights) > 0 and all(w >= 0 for w in weights), "weights must not be negative, nor all 0")
        self.points = [(x - exact(shift), w / sum(weights)) for x, w in zip(values, weights, strict=True)]
        self.levels, z = exact_levels(levels), fmpq(0)
        self.middles = [(a + b) / 2 for a, b in pairwise(self.levels)]
        self.power = sum((w * y * y for y, w in self.points), z)
        self.rounding, self.loss = rounding, {"nearest": self._nearest, "stochastic": self._stochastic}[rounding]

    def _nearest(self, y: fmpq, a: fmpq, b: fmpq) -> tuple[fmpq, fmpq, fmpq]:
        """Lemma 10: the coefficients of 1, s and s^2 of what the loss of y is no less than from a to b."""
        one, other = (self.levels[bisect_right(self.middles, y / s)] for s in (a, b))
        if one == other:
            return y * y, -2 * y * one, one * one
        low, high = (2 * y * level - s * level * level for s, level in ((a, one), (b, other)))
        slope = (high - low) / (b - a)
        return y * y, slope * a - low, -slope

    def _stochastic(self, y: fmpq, a: fmpq, b: fmpq) -> tuple[fmpq, fmpq, fmpq]:
        """Lemma 10."""
        i = bisect_right(self.levels, 2 * y / (a + b))
        below, above = self.levels[i - 1 : i], self.levels[i : i + 1]
        if any(max(a * level, b * level) > y for level in below) or any(
            min(a * level, b * level) < y for level in above
        ):
            return fmpq(0), fmpq(0), fmpq(0)
        one, other = (below or above)[0], (above or below)[0]
        sign = -1 if below and above else 1
        return sign * y * y, -sign * y * (one + other), sign * one * other

    def bound(self, loss: Any, a: fmpq, b: fmpq) -> list[fmpq]:
        """The coefficients of 1, s and s^2 of what M is no less than from a to b."""
        losses = [[w * c for c in loss(y, a, b)] for y, w in self.points]
        return [sum(column, fmpq(0)) for column in zip(*losses, strict=True)]

    def error(self, s: fmpq) -> fmpq:
        """M."""
        zeroth, first, second = self.bound(self.loss, s, s)
        return zeroth + s * (first + s * second)

    def least(self, a: fmpq, b: fmpq) -> tuple[fmpq, list[fmpq]]:
        """What M is no less than from a to b, and where it may be as low as that."""
        zeroth, first, second = self.bound(self.loss, a, b)
        places = [a, b, *([-first / (2 * second)] if second > 0 else [])]
        values = {s: zeroth + s * (first + s * second) for s in places if a <= s <= b}
        lowest = min(values.values())
        return lowest, [s for s, value in values.items() if value == lowest]

    def ends(self, first: fmpq, last: fmpq) -> tuple[fmpq, fmpq]:
        """What M is no less than up to the first cut (lemma 6), and from the last (lemmas 7 and 8; 0: nothing)."""
        most = sum((2 * w * max(y * self.levels[0], y * self.levels[-1]) for y, w in self.points), fmpq(0))
        low = self.power - max(first * most, fmpq(0))
        h, *others = sorted(level * level for level in self.levels)
        if h == 0:
            return low, self.power if all(last * last * others[0] >= 4 * y * y for y, _ in self.points) else fmpq(0)
        zeroth, one, two = self.bound(self._nearest, last, last)
        most = (self.power - zeroth) / last - one - last * two + last * h
        return low, self.power + last * last * h - last * most if 2 * h * last > most else fmpq(0)


def verify_sample(certificate: dict[str, Any]) -> None:
    """Lemma 10."""
    sample = Sample(*(certificate[key] for key in ("density", "levels", "shift", "rounding")))
    scale, mse, cuts = exact(certificate["scale"]), exact(certificate["mse"]), ascending(certificate["cuts"])
    ask(cuts[0] < scale < cuts[-1] and sample.error(scale) == mse, "mse must be that of the scale, between cuts")
    bounds = [sample.least(a, b) for a, b in pairwise(cuts)]
    bounds += [(bound, [cut]) for bound, cut in zip(sample.ends(cuts[0], cuts[-1]), (cuts[0], cuts[-1]), strict=True)]
    ask(all(bound >= mse for bound, _ in bounds), "there may be a lower MSE")
    alone = all(bound > mse or places == [scale] for bound, places in bounds)
    ask(certificate["unique"] is alone, f"unique must be {alone}")


# -- codebooks, scale and shift ------------------------------------------------------------------------------------


class Jet(NamedTuple):
    """M at the middle of a box, its slopes there, and its second derivatives over the box."""

    value: arb
    slope: list[arb]
    curve: arb_mat


class Values:
    """Values q_k = sum_d x_d w_(k,d) and a density of mean 0 and variance 1 (lemma 11)."""

    def __init__(self, family: Family | Steps, weights: list[dict[int, fmpq]], home: int) -> None:
        self.family, self.home = family, [(d, arb(w)) for d, w in weights[home].items()]
        self.kinks = []
        for k, (one, other) in enumerate(pairwise(weights)):
            pairs = [(d, one.get(d, fmpq(0)), other.get(d, fmpq(0))) for d in sorted({**one, **other})]
            self.kinks.append((k >= home, [(d, arb(b - a), arb((a + b) / 2)) for d, a, b in pairs]))

    def jet(self, x: list[arb], r: list[arb]) -> Jet:
        """M over |x_d - x0_d| <= r_d, x0 thin balls."""
        q = sum((x[d] * w for d, w in self.home), arb(0))
        value, slope = 1 + q * q, [arb(0)] * len(x)
        curve: dict[Any, arb] = defaultdict(arb)
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

    def at(self, x: list[arb]) -> arb:
        """M."""
        return self.jet(x, [arb(0)] * len(x)).value

    def newton(self, box: list[arb]) -> list[arb]:
        """Where the only root of the slopes in the box lies (lemma 12)."""
        x, r = [b.mid() for b in box], [b.rad() for b in box]
        slope, curve = self.jet(x, [arb(0)] * len(x)).slope, self.jet(x, r).curve
        step = curve.solve(arb_mat([[m] for m in slope])).entries()
        inside = all((a * UNIT).contains_interior(d) for a, d in zip(r, step, strict=True))
        ask(inside, "the interval Newton test fails")
        return [a - d for a, d in zip(x, step, strict=True)]


def standard(density: Any) -> tuple[Part, bool]:
    """The one part of a density of mean 0 and variance 1 but for mean and std, and whether it is log-concave."""
    ask(density["family"] in FAMILIES, "the density must be one symmetric family")
    return parts_of(density)[0], density["family"] != "student-t" and bool(ball(density.get("beta", 1)) >= 1)


def symmetric_values(family: Family | Steps, count: int) -> Values:
    """Levels above the mean as parameters, those below opposite; of an odd number, the mean is one."""
    half = count // 2
    above = [{d: fmpq(1)} for d in range(half)]
    below = [{d: fmpq(-1)} for d in reversed(range(half))]
    return Values(family, below + [{}] * (count % 2) + above, half)


def scale_and_shift(family: Family | Steps, levels: list[fmpq]) -> Values:
    """Parameters s and z."""
    home = min(range(len(levels)), key=lambda k: abs(levels[k]))
    return Values(family, [{0: level, 1: fmpq(1)} for level in levels], home)


def verify_codebook(certificate: dict[str, Any]) -> None:
    """Lemmas 11 to 13."""
    claims, digits = certificate["levels"], certificate["digits"]
    with arithmetic(4 * digits + 100):
        part, concave = standard(certificate["density"])
        balls = [(arb(claim) - part.mean) / part.std for claim in claims]
        ask(len(claims) > 1 and all(bool(a < b) for a, b in pairwise(balls)), "levels must ascend")
        values = symmetric_values(part.family, len(claims))
        found = values.newton(balls[-(len(claims) // 2) :])
        odd = [arb(part.mean)] * (len(claims) % 2)
        levels = [part.mean - part.std * x for x in found[::-1]] + odd + [part.mean + part.std * x for x in found]
        for claim, level in zip(claims, levels, strict=True):
            check_ball(claim, level, digits, zero=True)
        check_ball(certificate["mse"], values.at(found) * part.std**2, digits)
    ask(certificate["optimal"] is concave, f"optimal must be {concave}")


def verify_pair(certificate: dict[str, Any]) -> None:
    """Lemmas 11, 12, 14 to 17: boxes are divided until each is excluded, or lies where M is convex about an optimum."""
    levels, digits, optima = exact_levels(certificate["levels"]), certificate["digits"], certificate["optima"]
    with arithmetic(4 * digits + 80):
        part, _ = standard(certificate["density"])
        values = scale_and_shift(part.family, levels)
        roots = [values.newton([arb(s) / part.std, (arb(z) - part.mean) / part.std]) for s, z in optima]
        errors = [values.at(root) for root in roots]
        for (scale, shift), root, error in zip(optima, roots, errors, strict=True):
            check_ball(scale, part.std * root[0], digits)
            check_ball(shift, part.mean + part.std * root[1], digits, zero=True)
            check_ball(certificate["mse"], error * part.std**2, digits)
        ask(all(bool(root[0] > 0) for root in roots), "a scale is not above 0")
        ask(all(a[0].overlaps(b[0]) and not a[1].overlaps(b[1]) for a, b in pairwise(roots)), "optima must be distinct")
        least = min(error.upper() for error in errors)
    with arithmetic(PAIR_BITS):
        family = standard(certificate["density"])[0].family
        Cover(family, levels, least, [[float(x.mid()) for x in root] for root in roots]).run()


class Cover:
    """All scales and shifts, of a density of mean 0 and variance 1."""

    def __init__(self, family: Family | Steps, levels: list[fmpq], least: arb, roots: list[list[float]]) -> None:
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
        reach = last * float(max(abs(self.low), abs(self.high))) * 1.0001
        left = [(first, last, -reach, reach)]
        while left:
            one, self.boxes = left.pop(), self.boxes + 1
            ask(self.boxes <= MOST_BOXES, f"scales and shifts in {one} are left open")
            inside = any(h[0] <= one[0] and one[1] <= h[1] and h[2] <= one[2] and one[3] <= h[3] for h in homes)
            if not inside:
                left += self.rest(one)

    def small(self, s: float) -> arb:
        """Lemma 14."""
        return 2 * self.family.over(ball(s) * (self.high - self.low) / 2, 3)[2]

    def large(self, s: float) -> arb:
        """Lemma 15."""
        u = ball(s) * self.gap / 4
        mass, over, square = self.family.over(u, 3)
        return arb(0.5) - (square + 2 * u * over + u * u * mass)

    def jet(self, one: Any) -> tuple[Jet, list[arb]]:
        """Over a box."""
        s0, s1, z0, z1 = map(exact, one)
        r = [arb((s1 - s0) / 2), arb((z1 - z0) / 2)]
        return self.values.jet([arb((s0 + s1) / 2), arb((z0 + z1) / 2)], r), r

    def rest(self, one: Any) -> list[Any]:
        """What is left of a box: nothing, or its halves across the side that M feels more."""
        s = ball(one[0]).union(ball(one[1]))
        outside = ball(one[2]) + s * self.low > 0 or ball(one[3]) + s * self.high < 0
        if outside:  # lemma 16: M >= 1/2, which is more than lemma 15 ever gives
            return []
        jet, r = self.jet(one)
        x, y = (a * UNIT for a in r)
        ss, sz, zz = jet.curve[0, 0], jet.curve[0, 1], jet.curve[1, 1]
        slopes = jet.slope[0] + ss * x + sz * y, jet.slope[1] + sz * x + zz * y
        bent = (ss * r[0] ** 2 + zz * r[1] ** 2) * SQUARE / 2 + sz * x * y
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


def block_error(density: Any, levels: list[fmpq], scales: list[fmpq], bounds: list[fmpq], n: int) -> arb:
    """Lemma 18, for x > 0 and for -x > 0."""
    parts = parts_of(density)

    def beyond(p: fmpq | None, q: fmpq, up: bool) -> list[arb]:
        """P(x > p) and E[(x - q)^2; x > p], p >= 0, or of -x; None: infinity."""
        tails = [(part.weight, part.over(p if up else -p, up, 3)) for part in parts if p is not None]
        sums = [sum((w * t[j] for w, t in tails), arb(0)) for j in range(3)]
        gap = fmpq(0) if p is None else p - q
        return [sums[0], sums[2] + 2 * gap * sums[1] + gap * gap * sums[0]]

    def inside(s: fmpq, m: fmpq | None) -> arb:
        """P(m)^(n-1) C(m); None: everything."""
        loss = arb(0)
        for up in (True, False):
            values = sorted({s * level if up else -s * level for level in levels})
            edges = [max((a + b) / 2, fmpq(0)) for a, b in pairwise(values)]
            ends = [fmpq(0), *(edge if m is None else min(edge, m) for edge in edges), m]
            for q, (a, b) in zip(values, pairwise(ends), strict=True):
                loss += beyond(a, q, up)[1] - beyond(b, q, up)[1] if a != b else 0
        return (1 - beyond(m, fmpq(0), True)[0] - beyond(m, fmpq(0), False)[0]) ** (n - 1) * loss

    total = arb(0)
    for s, (m, end) in zip(scales, pairwise([fmpq(0), *bounds, None]), strict=True):
        if m != end:
            total += inside(s, end) - (inside(s, m) if m else 0)
    return total


def verify_blocks(certificate: dict[str, Any]) -> None:
    """Lemma 18."""
    scales, bounds, digits = [*map(exact, certificate["scales"])], certificate["bounds"], certificate["digits"]
    bounds = [*map(exact, bounds)]
    ask(all(a <= b for a, b in pairwise([fmpq(0), *bounds])), "bounds must not fall")
    ask(scales[0] >= 0 and all(a < b for a, b in pairwise(scales)), "scales must ascend")
    ask(type(certificate["block_size"]) is int and certificate["block_size"] > 0, "block_size must be a whole number")
    with arithmetic(4 * digits + 100):
        parts = parts_of(certificate["density"])
        ask(not any(part.floor for part in parts), "the density must have no point mass")
        levels = exact_levels(certificate["levels"])
        error = block_error(certificate["density"], levels, scales, bounds, certificate["block_size"])
        check_ball(certificate["mse"], error, digits)


# -- certificates --------------------------------------------------------------------------------------------------

# Who proves a format, and its fields beside `format` and `schema`.
STATEMENTS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "qerror certificate": (
        verify_scale,
        "density levels shift rounding scale mse unique cuts minima digits bits order kinds roots",
    ),
    "qerror certificate of a sample": (verify_sample, "density levels shift rounding scale mse unique cuts"),
    "qerror certificate of a codebook": (verify_codebook, "density levels mse optimal digits"),
    "qerror certificate of a pair": (verify_pair, "density levels optima mse digits"),
    "qerror certificate of blocks": (verify_blocks, "density levels scales bounds block_size mse digits"),
}


def verify(certificate: dict[str, Any]) -> None:
    """Prove what a certificate states, or raise ValueError with what is not so."""
    form = certificate["format"]
    ask(form in STATEMENTS, f"format must be one of {', '.join(STATEMENTS)}, got {form!r}")
    prove, fields = STATEMENTS[form]
    keys = {"format", "schema", *fields.split()}
    ask(set(certificate) == keys, f"the fields must be {', '.join(sorted(keys))}")
    digits = certificate.get("digits", 30)
    ask(certificate["schema"] == 1 and type(digits) is int and 6 <= digits <= 1000, "schema or digits out of range")
    prove(certificate)


def main(paths: list[str]) -> int:
    """Verify files; the number that failed."""
    failed = 0
    for path in paths:
        try:
            certificate = json.loads(Path(path).read_text(encoding="utf-8"))
            verify(certificate)
        except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
            failed += 1
            print(f"{path}: NOT PROVEN: {error}")
            continue
        shown = ("density", "shift", "rounding", "scale", "optima", "mse", "unique", "optimal", "block_size")
        said = {key: certificate[key] for key in shown if key in certificate}
        print(f"{path}: proven: {len(certificate['levels'])} levels, {json.dumps(said)}")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
