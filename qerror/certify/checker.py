"""Verify certificates of optimal quantization scales: one file, which needs Python and python-flint only.

    python checker.py int8-gaussian.json ...

A certificate states: of all scales s > 0, the one in the ball `scale` gives the levels s * l_k the least mean squared
error, which lies in the ball `mse`; `minima` are all other local minima up to 1e-12 (relative) above it, and unless
`unique` one of these may be the least. This program proves that from the density, levels, shift z and rounding that
stand in the certificate, in balls: whatever is rounded is enclosed. Numbers of density, levels and shift are those of
binary64; `cuts` and `roots` are decimals. The cuts divide (0, inf) into pieces, each with the letter of its kind.

Lemmas. y = x - z, A = E[y^2], M the mean squared error, R(p) = E[(x - p)_+], so that R' = -P(x > p) and R'' = f.

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
5. Kind x: M > (1 + 1e-12) min M. Kind m: M' is not 0, so there is no local minimum. Kind v: M'' > 0, so there is one at
   most: where M' turns from - to + within the ball of a root, or none if M' > 0 at the left or M' < 0 at the right end.
   M' is continuous but where s t_k passes an atom of y. Nearest rounding: M' falls there, which makes no minimum;
   stochastic: it rises, but m asks for one sign of all slopes, and v is refused.
6. Kind s, (0, c]: M(s) >= A - s k(0), k(0) = 2 l_max E[y_+] - 2 l_min E[y_-].
   k falls, as each of its terms does; and no rounding has a smaller loss than nearest.
7. Kind z, [c, inf), 0 is a level: M(s) >= A - E[y^2; |y| > c m / 2], m the least |l| but 0.
   Where |y| <= s m / 2 the nearest level is 0 and the loss y^2; elsewhere it is at least 0.
8. Kind p, [c, inf): M(s) >= A + s^2 h - s (k(c) + c h), h = min l^2 > 0, and this rises from s = (k(c) + c h) / 2 h on.
   k(s) + s h falls, too, as each -s (l^2 - h) does.
9. So all minima lie at the roots of pieces v. There is a least: M is continuous, and the ends are excluded.
10. Samples. Between cuts a and b: M(s) >= A - s c(s), c the chord of k from a to b, as k is convex. Beyond the last cut
    c with c m / 2 >= max |y|, 0 a level: M(s) = A, as all goes to 0. The first piece is as in 6, the last without 0
    as in 8.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from flint import arb, arb_poly, arb_series, ctx, fmpq

WITHIN = Fraction(1, 10**12)
UNIT = arb(0, 1)
EIGHTHS = [arb(fmpq(2 * i - 7, 8), fmpq(1, 8)) for i in range(8)]


@contextmanager
def arithmetic(bits: int) -> Iterator[None]:
    """Balls of so many bits."""
    before = ctx.prec, ctx.cap
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec, ctx.cap = before


def ball(number: Any) -> arb:
    """Enclose an exact number: Fraction, int, float (what binary64 holds) or decimal text."""
    x = Fraction(number)
    return arb(fmpq(x.numerator, x.denominator))


def ask(true: bool, otherwise: str) -> None:
    """Refuse the certificate unless `true`."""
    if not true:
        raise ValueError(otherwise)


# -- densities -----------------------------------------------------------------------------------------------------


class Family(NamedTuple):
    """T of mean 0 and variance 1, its pdf even and falling with |x|.

    The pdf is that of a ball or, unless `rough` over a ball, a series; above(j, u) = E[T^j; T > u], j <= 2, u >= 0.
    """

    pdf: Callable[[Any], Any]
    above: Callable[[int, arb], arb]
    rough: Callable[[arb], bool] = lambda u: False

    def around(self, u: arb) -> arb:
        """What the pdf is over the ball u."""
        return self.pdf(u.abs_lower()).union(self.pdf(u.abs_upper()))

    def over(self, u: arb, count: int) -> list[arb]:
        """E[(T - u)_+^j] for j < count, 3 at most, at a thin ball."""
        if u < 0:
            m = self.over(-u, count)
            return [1 - m[0], m[1] - u, *(1 + u * u - square for square in m[2:])]
        if not u >= 0:
            ask(u.is_finite(), "a number is none")
            return hulls(self.over(u.lower(), count), self.over(u.upper(), count))
        m = [self.above(j, u) for j in range(count)]
        return [m[0], m[1] - u * m[0], *(square - 2 * u * m[1] + u * u * m[0] for square in m[2:])]


def hulls(one: list[arb], other: list[arb]) -> list[arb]:
    """Each ball joined with its partner: what falls or rises lies between its values at two ends."""
    return [a.union(b) for a, b in zip(one, other, strict=True)]


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
        return c**j * (v**a * (-v).exp() * arb(0.5, 0.5) if far else v.gamma_upper(a)) / (2 * whole)

    def pdf(x: Any) -> Any:
        return (-((x / c) ** power)).exp() * power / (2 * c * whole)

    return Family(pdf, above, lambda u: Fraction(beta) % 2 != 0 and u.contains(0))


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


def uniform() -> Family:
    """Pdf = 1 / 2c up to c."""
    c = arb(3).sqrt()

    def pdf(x: arb) -> arb:
        return (arb(1) if x < c else arb(0) if x > c else arb(0.5, 0.5)) / (2 * c)

    def above(j: int, u: arb) -> arb:
        return arb(0) if u > c else (c ** (j + 1) - u.min(c) ** (j + 1)) / (2 * c * (j + 1))

    # Constant on both sides of c: its range is as good as its series.
    return Family(pdf, above, lambda u: True)


FAMILIES: dict[str, Callable[..., Family]] = {
    "gaussian": lambda: generalized_gaussian(2),
    "laplace": lambda: generalized_gaussian(1),
    "logistic": logistic,
    "uniform": uniform,
    "student-t": student_t,
    "generalized-gaussian": generalized_gaussian,
}


class Part:
    """X = Y = mean + std T, or the larger of Y and 0 (`floor`)."""

    def __init__(self, weight: arb, family: Family, mean: Fraction, std: arb, floor: bool) -> None:
        self.weight, self.family, self.centre, self.mean, self.std = weight, family, mean, ball(mean), std
        self.floor, self.moments = False, [arb(1), self.mean, std**2 + self.mean**2]
        if floor:
            self.moments[1:] = self.over(arb(0), True, 3)[1:]
            self.floor = True

    def whole(self, p: arb) -> list[arb]:
        """E[(X - p)^j] for j = 0, 1, 2."""
        _, first, square = self.moments
        return [arb(1), first - p, square - 2 * p * first + p * p]

    def over(self, p: arb, up: bool, count: int = 2) -> list[arb]:
        """E[(X - p)_+^j] for j < count at a thin ball; not `up`: of p - X."""
        if self.floor and p < 0:
            return self.whole(p)[:count] if up else [arb(0)] * count
        if self.floor and not p >= 0:
            return hulls(self.over(p.lower(), up, count), self.over(p.upper(), up, count))
        u = (p - self.mean) / self.std
        found = self.family.over(u if up or self.floor else -u, count)
        found = [m * self.std**j for j, m in enumerate(found)]
        if up or not self.floor:
            return found
        return [(-1) ** j * (w - m) for j, (w, m) in enumerate(zip(self.whole(p), found, strict=False))]

    def series(self, p: arb, q: arb, order: int, up: bool) -> arb_series:
        """E[(X - p - q x)_+], or of p + q x - X, for |x| <= 1 in powers of x, the last coefficient over all x."""
        whole, back = p + q * UNIT, q if up else -q
        if self.floor and not whole > 0:
            lost = arb(1) if whole < 0 else self.over(whole.upper(), True)[0].union(1)
            return arb_series([self.over(p, up)[1], -q * lost + (0 if up else q)], prec=order + 1)
        mass, over = self.over(p, up)
        u, a = (p - self.mean) / self.std, q / self.std
        if u + a * UNIT < 0:  # the pdf is even
            u, a = -u, -a
        # Far below or above 1, two coefficients are as good as many.
        extreme = abs(u) + abs(a) < 1e-10 or abs(u) > 1e10
        if extreme or self.family.rough(u + a * UNIT):
            pdf = [self.family.around(u + a * UNIT)]
        else:
            middle = self.family.pdf(arb_series([u, a], prec=order - 2))
            pdf = [middle[i] for i in range(order - 2)]
            pdf.append(self.family.pdf(arb_series([u + a * UNIT, a], prec=order - 1))[order - 2])
        fall = mass - arb_series(pdf, prec=order - 1).integral() * (back / self.std)
        return over - fall.integral() * back


def parts_of(density: Any, weight: Any = 1, floor: bool = False) -> list[Part]:
    """A density as a sum of parts."""
    family, numbers = density["family"], {key: value for key, value in density.items() if key != "family"}
    if family == "rectified":
        return parts_of(numbers["of"], weight, True)
    if family == "mixture":
        total = sum(map(Fraction, numbers["weights"]))
        pairs = zip(numbers["weights"], numbers["of"], strict=True)
        return [part for w, of in pairs if w for part in parts_of(of, weight * ball(Fraction(w) / total), floor)]
    if family == "histogram":
        counts, edges = ([*map(Fraction, numbers[key])] for key in ("counts", "edges"))
        bins = [{"family": "uniform", "a": a, "b": b} for a, b in pairwise(edges)]
        return parts_of({"family": "mixture", "weights": counts, "of": bins}, weight, floor)
    if "a" in numbers:
        low, high = Fraction(numbers.pop("a")), Fraction(numbers.pop("b"))
        mean, std = (low + high) / 2, ball((high - low) / 2) / arb(3).sqrt()
    else:
        mean, std = Fraction(numbers.pop("mean")), ball(numbers.pop("std"))
    ask(bool(weight >= 0 and std > 0), f"density has a weight below 0 or a part of no width: {density}")
    return [Part(arb(weight), FAMILIES[family](**numbers), mean, std, floor)]


def exact_levels(levels: list[Any]) -> list[Fraction]:
    """Levels that are numbers and ascend."""
    ask(all(type(level) in (int, float) for level in levels), "levels must be numbers")
    exact = [Fraction(level) for level in levels]
    ask(len(exact) > 1 and all(a < b for a, b in pairwise(exact)), "levels must ascend")
    return exact


# -- one scale -----------------------------------------------------------------------------------------------------


class Problem:
    """M(s) of a density, levels, shift and rounding, in balls of so many bits."""

    def __init__(self, density: Any, levels: list[Any], shift: Any, rounding: str) -> None:
        self.levels, self.shift, self.z = exact_levels(levels), Fraction(shift), ball(shift)
        self.parts = parts_of(density)
        whole = [[p.weight * m for m in p.whole(self.z)] for p in self.parts]
        _, lean, self.power = (sum(column, arb(0)) for column in zip(*whole, strict=True))
        kinks, self.ends, base = {"nearest": self._nearest, "stochastic": self._stochastic}[rounding]()
        self.base = [base[0] * self.power, ball(base[1]) * lean, ball(base[2])]
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
        ends = [(part, ball(end), up) for part in self.parts for end, up in ((levels[-1], True), (levels[0], False))]
        return kinks, ends, [-1, levels[j] + levels[j + 1], -levels[j] * levels[j + 1]]

    def _merged(self, kinks: list[Any]) -> list[tuple[arb, Part, arb, bool]]:
        """Terms weight * E[(+-(x - z - s t))_+]; of a part that is symmetric about z those of t and -t are one."""
        found: dict[Any, Fraction] = defaultdict(Fraction)
        for t, weight, up in kinks:
            for i, part in enumerate(self.parts):
                mirror = not up and not part.floor and part.centre == self.shift
                found[i, -t if mirror else t, up or mirror] += weight
        return [(ball(w) * self.parts[i].weight, self.parts[i], ball(t), up) for (i, t, up), w in found.items()]

    def model(self, s: arb, r: arb, order: int) -> tuple[arb_poly, bool]:
        """M(s + r x) for |x| <= 1 in powers of x (lemma 4), and whether M' is continuous there."""
        ctx.cap = order + 3
        total, smooth = arb_series([0], prec=order + 1), True
        for weight, part, t, up in self.terms:
            p, q = self.z + s * t, r * t
            total += part.series(p, q, order, up) * weight
            smooth = smooth and not (part.floor and not q.is_zero() and (p + q * UNIT).contains(0))
        line = arb_series([s, r], prec=order + 2)
        total = line * (line * self.base[2] + self.base[1] + total) + self.base[0]
        for part, t, up in self.ends:
            p, q = self.z + s * t, r * t
            square = part.over(p, up, 3)[2] - part.series(p, q, order, up).integral() * (2 * q if up else -2 * q)
            total += square * 2 * part.weight
        return arb_poly(total.coeffs()), smooth

    def loss_bound(self, kind: str, c: arb) -> arb:
        """What M is no less than beyond c: below it (kind s, lemma 6), or above (z, p; lemmas 7 and 8)."""
        low, *_, high = map(ball, self.levels)
        least, *others = sorted(map(abs, self.levels))
        if kind == "s":
            over = [sum((p.weight * p.over(self.z, up)[1] for p in self.parts), arb(0)) for up in (True, False)]
            # A line: it lies above the lower of its ends.
            return self.power.min(self.power - 2 * c * (high * over[0] - low * over[1]))
        if kind == "z" and least == 0:
            m = c * ball(others[0]) / 2
            tails = [(p.weight, p.over(self.z + (m if up else -m), up, 3)) for p in self.parts for up in (True, False)]
            return self.power - sum((w * (t[2] + 2 * m * t[1] + m * m * t[0]) for w, t in tails), arb(0))
        ask(kind == "p" and least > 0, f"a tail of kind {kind!r} does not exist here")
        h = ball(least**2)
        most = (self.power - self.nearest.model(c, arb(0), 3)[0][0]) / c + c * h
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


def at_root(problem: Problem, low: Fraction, high: Fraction) -> arb:
    """The least M between low and high, where M' turns from - to +."""
    model, smooth = problem.model(ball((low + high) / 2), ball((high - low) / 2), 4)
    slope = model.derivative()
    turns = smooth and bool(slope(arb(-1)) < 0 and slope(arb(1)) > 0) and convex(model)
    ask(turns, f"M' does not turn from - to + between {float(low)!r} and {float(high)!r}")
    return model(UNIT)


def about(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """A decimal text, between the numbers one unit of its last digit below and above."""
    digits, _, power = text.partition("e")
    ask(len(power) < 6, f"{text} is no decimal of moderate size")
    unit = Fraction(10) ** (int(power or 0) - len(digits.partition(".")[2]))
    return Fraction(text) - unit, Fraction(text), Fraction(text) + unit


def ascending(text: str) -> list[Fraction]:
    """The cuts."""
    cuts = [about(cut)[1] for cut in text.split()]
    ask(cuts[0] > 0 and all(a < b for a, b in pairwise(cuts)), "cuts must ascend from above 0")
    return cuts


def verify_scale(certificate: dict[str, Any]) -> None:
    """Lemmas 1 to 9."""
    bits, digits, order = (certificate[key] for key in ("bits", "digits", "order"))
    ask(type(bits) is type(order) is int and 32 <= bits <= 4096 and 3 <= order <= 64, "bits or order out of range")
    statement = [certificate[key] for key in ("density", "levels", "shift", "rounding")]
    ask(type(statement[2]) in (int, float), "shift must be a number")
    cuts, kinds = ascending(certificate["cuts"]), certificate["kinds"]
    roots = [(low, high) for low, _, high in map(about, certificate["roots"])]
    ask(len(kinds) == len(cuts) + 1, "there must be one more piece than cuts")
    with arithmetic(4 * digits + 80):
        exact = Problem(*statement)
        values = [at_root(exact, *root) for root in roots]
        limit = min(value.upper() for value in values) * (1 + ball(WITHIN))
        check_minima(certificate, roots, values)
    with arithmetic(bits):
        problem = Problem(*statement)
        ask(kinds[0] == "s" and kinds[-1] in "zp", "the first piece must be of kind s, the last of z or p")
        for kind, cut in ((kinds[0], cuts[0]), (kinds[-1], cuts[-1])):
            above = bool(problem.loss_bound(kind, ball(cut)) > limit)
            ask(above, f"the tail {kind} that ends at {float(cut)} may have a lower MSE")
        for low, high, kind in zip(cuts[:-1], cuts[1:], kinds[1:-1], strict=True):
            model, smooth = problem.model(ball((low + high) / 2), ball((high - low) / 2), order)
            inside = [root for root in roots if low < root[0] and root[1] < high]
            if kind == "v":
                slope = model.derivative()
                ends = bool(slope(arb(-1)) > 0) or bool(slope(arb(1)) < 0)
                proven = smooth and convex(model) and (len(inside) == 1 or (not inside and ends))
            else:
                proven = not inside and {"x": excluded(model, limit), "m": monotone(model)}[kind]
            ask(proven, f"the piece {kind} from {float(low)} to {float(high)} is not proven")
            roots = [root for root in roots if root not in inside]
    ask(not roots, "a root lies in no piece of kind v")


def check_minima(certificate: dict[str, Any], roots: list[Any], values: list[arb]) -> None:
    """Compare the statement with the enclosures of all candidates, of which those near the least are the minima."""
    claims, digits = [[certificate["scale"], certificate["mse"]], *certificate["minima"]], certificate["digits"]
    lowest = min(values, key=lambda value: value.upper())
    # Whichever of several is the least: none is lower than this.
    least = lowest.union(min(value.lower() for value in values))
    found = [(ball(low).union(ball(high)), value) for (low, high), value in zip(roots, values, strict=True)]
    near = [(root, value) for root, value in found if not value > lowest * (1 + ball(WITHIN))]
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
    narrow = said.rad() <= abs(said) * ball(Fraction(52, 100) / 10 ** (digits - 1))
    ask(bool(narrow) or (zero and bool(said.abs_upper() < ball(Fraction(11, 10**digits * 10)))), f"{claim} is too wide")
    ask(said.contains(found), f"{claim} does not hold the enclosure {found.str(40)}")


# -- samples -------------------------------------------------------------------------------------------------------


class Sample:
    """M(s) of a sample in fractions, to nearest."""

    def __init__(self, density: Any, levels: list[Any], shift: Any, rounding: str) -> None:
        ask(rounding == "nearest", "samples are proven for rounding to nearest only")
        values, weights = ([*map(Fraction, density[key])] for key in ("values", "weights"))
        ask(sum(weights) > 0 and all(w >= 0 for w in weights), "weights must not be negative, nor all 0")
        self.points = [(x - Fraction(shift), w / sum(weights)) for x, w in zip(values, weights, strict=True)]
        self.levels = exact_levels(levels)
        self.middles = [(a + b) / 2 for a, b in pairwise(self.levels)]
        self.power = sum((w * y * y for y, w in self.points), Fraction(0))

    def k(self, s: Fraction) -> Fraction:
        """Lemma 1."""
        sent = ((y, w, self.levels[bisect_right(self.middles, y / s)]) for y, w in self.points)
        return sum((w * level * (2 * y - s * level) for y, w, level in sent), Fraction(0))

    def error(self, s: Fraction) -> Fraction:
        """M."""
        return self.power - s * self.k(s)

    def chord(self, a: Fraction, b: Fraction) -> tuple[Fraction, Fraction]:
        """Where the bound of lemma 10 between two scales is least, and what it is there."""
        low, high = self.k(a), self.k(b)
        slope = (high - low) / (b - a)
        lead = low - slope * a
        at = min(max(-lead / (2 * slope), a), b) if slope < 0 else b if lead > 0 else a
        return at, self.power - at * (lead + slope * at)

    def first_piece(self, c: Fraction) -> Fraction:
        """Lemma 6."""
        most = sum((2 * w * max(y * self.levels[0], y * self.levels[-1]) for y, w in self.points), Fraction(0))
        return self.power - max(c * most, Fraction(0))

    def last_piece(self, c: Fraction) -> Fraction:
        """Lemma 10 where 0 is a level, else 8; 0 where they say nothing."""
        least, *others = sorted(map(abs, self.levels))
        if least == 0:
            return self.power if all(c * others[0] / 2 >= abs(y) for y, _ in self.points) else Fraction(0)
        most = self.k(c) + c * least**2
        return self.power + c * c * least**2 - c * most if 2 * least**2 * c > most else Fraction(0)


def verify_sample(certificate: dict[str, Any]) -> None:
    """Lemma 10."""
    sample = Sample(*(certificate[key] for key in ("density", "levels", "shift", "rounding")))
    scale, mse, cuts = Fraction(certificate["scale"]), Fraction(certificate["mse"]), ascending(certificate["cuts"])
    ask(scale not in cuts, "no cut may be the scale")
    ask(cuts[0] < scale < cuts[-1] and sample.error(scale) == mse, "mse must be that of the scale, between cuts")
    bounds = [sample.chord(a, b) for a, b in pairwise(cuts)]
    bounds += [(cuts[0], sample.first_piece(cuts[0])), (cuts[-1], sample.last_piece(cuts[-1]))]
    ask(all(bound >= mse for _, bound in bounds), "there may be a lower MSE")
    alone = all(bound > mse or at == scale for at, bound in bounds)
    ask(certificate["unique"] is alone, f"unique must be {alone}")


# -- certificates --------------------------------------------------------------------------------------------------

# Who proves a format, and its fields beside `format` and `schema`.
Statement = tuple[Callable[[dict[str, Any]], None], str]
STATEMENTS: dict[str, Statement] = {
    "qerror certificate": (
        verify_scale,
        "density levels shift rounding scale mse unique cuts minima digits bits order kinds roots",
    ),
    "qerror certificate of a sample": (verify_sample, "density levels shift rounding scale mse unique cuts"),
}


def verify(certificate: dict[str, Any], statements: dict[str, Statement] = STATEMENTS) -> None:
    """Prove what a certificate states, or raise ValueError with what is not so."""
    form = certificate["format"]
    ask(form in statements, f"format must be one of {', '.join(statements)}, got {form!r}")
    prove, fields = statements[form]
    keys = {"format", "schema", *fields.split()}
    ask(set(certificate) == keys, f"the fields must be {', '.join(sorted(keys))}")
    digits = certificate.get("digits", 30)
    ask(certificate["schema"] == 1 and type(digits) is int and 6 <= digits <= 1000, "schema or digits out of range")
    prove(certificate)


def main(paths: list[str], statements: dict[str, Statement] = STATEMENTS) -> int:
    """Verify files; the number that failed."""
    failed = 0
    for path in paths:
        try:
            certificate = json.loads(Path(path).read_text(encoding="utf-8"))
            verify(certificate, statements)
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
