"""Verify certificates of globally optimal quantization scales: one file, which needs Python and python-flint only.

    python checker.py int8-gaussian.json ...

A certificate states: of all scales s > 0, the one in the ball `scale` gives the levels s * l_k the least mean squared
error, which lies in the ball `mse`; `minima` are all other local minima up to 1e-12 (relative) above it, and unless
`unique` one of these may be the least. This program proves that from the density, levels, shift z and rounding that
stand in the certificate, in balls: whatever is rounded is enclosed. Numbers of density, levels and shift are those of
binary64; `cuts` and `roots` are decimals. The cuts divide (0, inf) into pieces, each with the letter of its kind.

Lemmas. y = x - z, A = E[y^2], M(s) the MSE, R(p) = E[(x - p)_+] the stop-loss: R' = -P(x > p), R'' = f.

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

Samples (family empirical, nearest rounding) are proven in fractions; `scale` and `mse` are exact, `cuts` suffice.
10. Between cuts a and b: M(s) >= A - s c(s), c the chord of k from a to b, as k is convex. Beyond the last cut c with
    c m / 2 >= max |y|, 0 a level: M(s) = A, as all goes to 0. The first piece is as in 6, the last without 0 as in 8.
"""

from __future__ import annotations

import json
import sys
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from flint import arb, arb_poly, arb_series, ctx, fmpq

FORMAT, SCHEMA = "qerror certificate", 1
WITHIN = Fraction(1, 10**12)
UNIT = arb(0, 1)
KEYS = {
    *("format", "schema", "density", "levels", "shift", "rounding", "scale", "mse", "unique", "minima"),
    *("digits", "bits", "order", "cuts", "kinds", "roots"),
}
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


class Gaussian:
    """T of mean 0 and variance 1: pdf (of a ball or series), P(T > u) and E[(T - u)_+], E[T^2; T > u] for u >= 0."""

    def __init__(self) -> None:
        self.peak, self.c = 1 / (2 * arb.pi()).sqrt(), arb(2).sqrt()

    def pdf(self, x: Any) -> Any:
        return (-(x * x) / 2).exp() * self.peak

    def smooth(self, u: arb) -> bool:
        """Whether the pdf is smooth over the ball u."""
        return True

    def rough(self, u: arb) -> arb:
        """What the pdf, which falls with |u|, is over the ball u."""
        near, far = abs(u).lower(), abs(u).upper()
        return (self.pdf(near) if near > 0 else self.peak).union(self.pdf(far))

    def tails(self, u: arb) -> tuple[arb, arb]:
        mass = (u / self.c).erfc() / 2
        return mass, self.pdf(u) - u * mass

    def second(self, u: arb) -> arb:
        return u * self.pdf(u) + self.tails(u)[0]


class Laplace(Gaussian):
    def __init__(self) -> None:
        self.c = arb(2).sqrt()
        self.peak = self.c / 2

    def pdf(self, x: Any) -> Any:
        return (-self.c * x).exp() * self.peak

    def smooth(self, u: arb) -> bool:
        return bool(u > 0)

    def tails(self, u: arb) -> tuple[arb, arb]:
        mass = (-self.c * u).exp() / 2
        return mass, mass / self.c

    def second(self, u: arb) -> arb:
        return self.tails(u)[0] * (1 + self.c * u + u * u)


class Logistic(Gaussian):
    def __init__(self) -> None:
        self.c = arb.pi() / arb(3).sqrt()
        self.peak = self.c / 4

    def pdf(self, x: Any) -> Any:
        e = (-self.c * x).exp()
        return self.c * e / ((1 + e) * (1 + e))

    def tails(self, u: arb) -> tuple[arb, arb]:
        e = (-self.c * u).exp()
        return e / (1 + e), e.log1p() / self.c

    def second(self, u: arb) -> arb:
        mass, over = self.tails(u)
        # E[(T - u)_+^2] = 2 int_u^inf log(1 + exp(-c v)) / c dv, a dilogarithm.
        return u * u * mass + 2 * u * over - 2 * (-((-self.c * u).exp())).polylog(2) / self.c**2


class Uniform(Gaussian):
    def __init__(self) -> None:
        self.c = arb(3).sqrt()
        self.peak = 1 / (2 * self.c)

    def pdf(self, x: Any) -> Any:
        return x * 0 + (self.peak if abs(x[0]) < self.c else 0)

    def smooth(self, u: arb) -> bool:
        return bool(abs(u) < self.c) or bool(abs(u) > self.c)

    def rough(self, u: arb) -> arb:
        least = self.peak if abs(u) < self.c else arb(0)
        return least.union(arb(0) if abs(u) > self.c else self.peak)

    def tails(self, u: arb) -> tuple[arb, arb]:
        rest = (self.c - u).nonnegative_part()
        return rest / (2 * self.c), rest * rest / (4 * self.c)

    def second(self, u: arb) -> arb:
        return (self.c - u).nonnegative_part() * (3 + self.c * u + u * u) / (6 * self.c)


class StudentT(Gaussian):
    def __init__(self, df: float) -> None:
        self.df, self.c = ball(df), ball(df) - 2
        if not self.c > 0:
            raise ValueError("df must exceed 2")
        self.peak = ((self.df + 1) / 2).gamma() / ((self.df / 2).gamma() * (arb.pi() * self.c).sqrt())

    def pdf(self, x: Any) -> Any:
        return (1 + x * x / self.c) ** (-(self.df + 1) / 2) * self.peak

    def tails(self, u: arb) -> tuple[arb, arb]:
        share = u * u / (self.c + u * u)
        if share < 0.5:  # each side of the incomplete beta function is quick where it is the smaller one
            mass = (1 - share.beta_lower(arb(0.5), self.df / 2, 1)) / 2
        else:
            mass = (self.c / (self.c + u * u)).beta_lower(self.df / 2, arb(0.5), 1) / 2
        return mass, (self.c + u * u) / (self.df - 1) * self.pdf(u) - u * mass

    def second(self, u: arb) -> arb:
        return u * (self.c + u * u) * self.pdf(u) / self.c + self.tails(u)[0]


class GeneralizedGaussian(Laplace):
    def __init__(self, beta: float) -> None:
        self.beta = ball(beta)
        if not self.beta > 0:
            raise ValueError("beta must be positive")
        self.zeroth = (1 / self.beta).gamma()
        self.c = (self.zeroth / (3 / self.beta).gamma()).sqrt()
        self.peak = self.beta / (2 * self.c * self.zeroth)

    def pdf(self, x: Any) -> Any:
        return (-((x / self.c) ** self.beta)).exp() * self.peak

    def upper(self, power: int, u: arb) -> arb:
        """E[T^power; T > u]."""
        v, a = (u / self.c) ** self.beta if u > 0 else arb(0) if u.is_zero() else arb.nan(), (power + 1) / self.beta
        # Where Arb is slow: gamma(a, v) <= v^a exp(-v) for v >= a, 1.
        far = bool(v > 10**6 and v > a)
        return self.c**power * (v**a * (-v).exp() * arb(0.5, 0.5) if far else v.gamma_upper(a)) / (2 * self.zeroth)

    def tails(self, u: arb) -> tuple[arb, arb]:
        mass = self.upper(0, u)
        return mass, self.upper(1, u) - u * mass

    def second(self, u: arb) -> arb:
        return self.upper(2, u)


FAMILIES: dict[str, Any] = {
    "gaussian": Gaussian,
    "laplace": Laplace,
    "logistic": Logistic,
    "uniform": Uniform,
    "student-t": StudentT,
    "generalized-gaussian": GeneralizedGaussian,
}


class Part:
    """X = Y = mean + std T, or the larger of Y and 0 (`floor`)."""

    def __init__(self, weight: arb, family: Gaussian, mean: Fraction, std: arb, floor: bool) -> None:
        self.weight, self.family, self.centre, self.mean, self.std = weight, family, mean, ball(mean), std
        self.floor, self.first, self.square = False, self.mean, std**2 + self.mean**2
        if floor:
            _, self.first, self.square = self.tail(arb(0), True, True)
            self.floor = True

    def tail(self, p: arb, up: bool, square: bool = False) -> tuple[arb, arb, arb]:
        """P(X > p), E[(X - p)_+] and where asked E[(X - p)_+^2] at a thin ball; not `up`: of p - X."""
        if not self.floor:
            return self._smooth_tail((p - self.mean) / self.std * (1 if up else -1), square)
        if not p >= 0 and not p < 0:
            return hulls(self.tail(p.lower(), up, square), self.tail(p.upper(), up, square))
        lost = arb(1), self.first - p, self.square - 2 * p * self.first + p * p
        above = self._smooth_tail((p - self.mean) / self.std, square) if p >= 0 else lost
        if up:
            return above
        return (1 - above[0], above[1] - lost[1], lost[2] - above[2]) if p > 0 else (arb(0), arb(0), arb(0))

    def _smooth_tail(self, u: arb, square: bool) -> tuple[arb, arb, arb]:
        if u < 0:
            mass, over, second = self._smooth_tail(-u, square)
            return 1 - mass, over - u * self.std, (1 + u * u) * self.std**2 - second
        if not u >= 0:
            return hulls(self._smooth_tail(u.lower(), square), self._smooth_tail(u.upper(), square))
        mass, over = self.family.tails(u)
        second = self.family.second(u) - 2 * u * over - u * u * mass if square else arb(0)
        return mass, over * self.std, second * self.std**2

    def series(self, p: arb, q: arb, order: int, up: bool) -> arb_series:
        """E[(X - p - q x)_+] for |x| <= 1 in powers of x, the last coefficient over all x."""
        whole = p + q * UNIT
        if self.floor and not whole > 0:
            over, mass = self.tail(p, up)[1], self.tail(whole.upper(), True)[0]
            slope = -q * (arb(1) if whole < 0 else mass.union(1)) + (0 if up else q)
            return arb_series([over, slope], prec=order + 1)
        mass, over, _ = self.tail(p, up)
        u, a = (p - self.mean) / self.std, q / self.std
        if u + a * UNIT < 0:  # the pdf is even
            u, a = -u, -a
        # Far below or above 1, two coefficients are as good as many.
        extreme = abs(u) + abs(a) < 1e-10 or abs(u) > 1e10
        if not extreme and self.family.smooth(u + a * UNIT):
            middle = self.family.pdf(arb_series([u, a], prec=order - 2))
            pdf = [middle[i] for i in range(order - 2)]
            pdf.append(self.family.pdf(arb_series([u + a * UNIT, a], prec=order - 1))[order - 2])
        else:
            pdf = [self.family.rough(u + a * UNIT)]
        back = q if up else -q
        lost = mass - arb_series(pdf, prec=order - 1).integral() * (back / self.std)
        return over - lost.integral() * back


def hulls(one: tuple[arb, arb, arb], other: tuple[arb, arb, arb]) -> tuple[arb, arb, arb]:
    """Each ball joined with its partner."""
    return one[0].union(other[0]), one[1].union(other[1]), one[2].union(other[2])


def parts_of(density: Any, weight: Any, floor: bool = False) -> list[Part]:
    """A density as a sum of parts."""
    family, numbers = density["family"], {key: value for key, value in density.items() if key != "family"}
    if family == "rectified":
        return parts_of(numbers["of"], weight, True)
    if family == "mixture":
        total = sum(map(Fraction, numbers["weights"]))
        pairs = zip(numbers["weights"], numbers["of"], strict=True)
        return [part for w, of in pairs for part in parts_of(of, weight * ball(Fraction(w) / total), floor)]
    if family == "histogram":
        counts, edges = ([*map(Fraction, numbers[key])] for key in ("counts", "edges"))
        bins = [{"family": "uniform", "a": a, "b": b} for a, b in pairwise(edges)]
        return parts_of({"family": "mixture", "weights": counts, "of": bins}, weight, floor)
    if "a" in numbers:
        low, high = Fraction(numbers.pop("a")), Fraction(numbers.pop("b"))
        mean, std = (low + high) / 2, ball((high - low) / 2) / arb(3).sqrt()
    else:
        mean, std = Fraction(numbers.pop("mean")), ball(numbers.pop("std"))
    if not weight >= 0 or not std > 0:
        raise ValueError(f"density has a weight below 0 or a part of no width: {density}")
    return [Part(weight, FAMILIES[family](**numbers), mean, std, floor)]


class Problem:
    """M(s) of a density, levels, shift and rounding, in balls of so many bits."""

    def __init__(self, density: Any, levels: list[Any], shift: Any, rounding: str) -> None:
        self.levels, self.shift, self.rounding = [Fraction(level) for level in levels], Fraction(shift), rounding
        if any(a >= b for a, b in pairwise(self.levels)) or len(levels) < 2:
            raise ValueError("levels must ascend")
        self.parts = parts_of(density, arb(1))
        z = ball(shift)
        self.power = sum((p.weight * (p.square - 2 * z * p.first + z * z) for p in self.parts), arb(0))
        self.lean = sum((p.weight * (p.first - z) for p in self.parts), arb(0))
        self.base, self.ends = {"nearest": self._nearest, "stochastic": self._stochastic}[rounding]()
        self.nearest = self if rounding == "nearest" else Problem(density, levels, shift, "nearest")

    def _home(self) -> int:
        return min(range(len(self.levels)), key=lambda k: abs(self.levels[k]))

    def _nearest(self) -> tuple[list[arb], list[Any]]:
        """Lemma 2."""
        levels, j = self.levels, self._home()
        kinks = [((a + b) / 2, 2 * (a - b), k >= j) for k, (a, b) in enumerate(pairwise(levels))]
        self.terms = self._merged(kinks)
        return [self.power, -2 * self.lean * ball(levels[j]), ball(levels[j] ** 2)], []

    def _stochastic(self) -> tuple[list[arb], list[Any]]:
        """Lemma 3."""
        levels = self.levels
        j = min(max(sum(level <= 0 for level in levels) - 1, 0), len(levels) - 2)
        beside = zip(levels[:1] + levels[:-1], levels[1:] + levels[-1:], strict=True)
        self.terms = self._merged([(levels[k], above - below, k > j) for k, (below, above) in enumerate(beside)])
        pair = levels[j], levels[j + 1]
        base = [-self.power, self.lean * ball(sum(pair)), -ball(pair[0] * pair[1])]
        sides = (levels[-1], True), (levels[0], False)
        return base, [(part, ball(end), up) for part in self.parts for end, up in sides]

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
        total, z, smooth = arb_series([0], prec=order + 1), ball(self.shift), True
        for weight, part, t, up in self.terms:
            p, q = z + s * t, r * t
            total += part.series(p, q, order, up) * weight
            smooth = smooth and not (part.floor and not q.is_zero() and (p + q * UNIT).contains(0))
        line = arb_series([s, r], prec=order + 2)
        total = line * (line * self.base[2] + self.base[1] + total) + self.base[0]
        for part, t, up in self.ends:
            p, q = z + s * t, r * t
            square = part.tail(p, up, True)[2] - part.series(p, q, order, up).integral() * (2 * q if up else -2 * q)
            total += square * 2 * part.weight
        return arb_poly(total.coeffs()), smooth

    def loss_bound(self, kind: str, c: arb) -> arb:
        """What M is no less than beyond c: below it (kind s, lemma 6), or above (z, p; lemmas 7 and 8)."""
        z, levels = ball(self.shift), self.levels
        sides = [(part.weight, part, up) for part in self.parts for up in (True, False)]
        if kind == "s":
            over = [sum((w * p.tail(z, side)[1] for w, p, side in sides if side == up), arb(0)) for up in (True, False)]
            # A line: it lies above the lower of its ends.
            return self.power.min(self.power - 2 * c * (ball(levels[-1]) * over[0] - ball(levels[0]) * over[1]))
        if kind == "z" and 0 in levels:
            reach = c * ball(min(abs(level) for level in levels if level)) / 2
            tails = [(w, p.tail(z + reach if up else z - reach, up, True)) for w, p, up in sides]
            terms = (w * (square + 2 * reach * over + reach**2 * mass) for w, (mass, over, square) in tails)
            return self.power - sum(terms, arb(0))
        if kind == "p" and 0 not in levels:
            h = ball(min(level**2 for level in levels))
            most = (self.power - self.nearest.model(c, arb(0), 3)[0][0]) / c + c * h
            return self.power + c * c * h - c * most if 2 * h * c > most else arb(0)
        raise ValueError(f"a tail of kind {kind!r} does not exist here")


class Sample:
    """M(s) of a sample in fractions."""

    def __init__(self, density: Any, levels: list[Any], shift: Any, rounding: str) -> None:
        ask(rounding == "nearest", "samples are proven for rounding to nearest only")
        pairs = sorted(zip(map(Fraction, density["values"]), map(Fraction, density["weights"]), strict=True))
        total, z = sum(w for _, w in pairs), Fraction(shift)
        ask(total > 0 and all(w >= 0 for _, w in pairs), "weights must not be negative, nor all 0")
        self.levels, self.y = [*map(Fraction, levels)], [x - z for x, _ in pairs]
        ask(all(a < b for a, b in pairwise(self.levels)), "levels must ascend")
        self.middles = [(a + b) / 2 for a, b in pairwise(self.levels)]
        masses = [w / total for _, w in pairs]
        self.mass = [Fraction(0), *accumulate(masses)]
        self.first = [Fraction(0), *accumulate(w * y for w, y in zip(masses, self.y, strict=True))]
        self.power = sum((w * y * y for w, y in zip(masses, self.y, strict=True)), Fraction(0))

    def k(self, s: Fraction) -> Fraction:
        """Lemma 1."""
        edges = [0, *(bisect_right(self.y, s * t) for t in self.middles), len(self.y)]
        cells = zip(self.levels, edges[:-1], edges[1:], strict=True)
        terms = (
            2 * level * (self.first[b] - self.first[a]) - s * level**2 * (self.mass[b] - self.mass[a])
            for level, a, b in cells
            if a < b
        )
        return sum(terms, Fraction(0))

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
        upper = sum((w * y for w, y in self.weighted() if y > 0), Fraction(0))
        lower = self.first[-1] - upper
        return min(self.power, self.power - 2 * c * (self.levels[-1] * upper + self.levels[0] * lower))

    def last_piece(self, c: Fraction) -> Fraction:
        """Lemma 10 where 0 is a level, else 8."""
        least = min(abs(level) for level in self.levels)
        if least == 0:
            reach = c * min(abs(level) for level in self.levels if level) / 2
            return self.power if reach >= max(abs(self.y[0]), abs(self.y[-1])) else Fraction(0)
        most = self.k(c) + c * least**2
        return self.power + c * c * least**2 - c * most if 2 * least**2 * c > most else Fraction(0)

    def weighted(self) -> Any:
        """Masses and values."""
        return ((b - a, y) for (a, b), y in zip(pairwise(self.mass), self.y, strict=True))


def verify_sample(certificate: dict[str, Any]) -> None:
    """Prove a certificate of a sample."""
    keys = {"format", "schema", "density", "levels", "shift", "rounding", "scale", "mse", "unique", "cuts"}
    ask(set(certificate) == keys, f"the fields must be {', '.join(sorted(keys))}")
    sample = Sample(*(certificate[key] for key in ("density", "levels", "shift", "rounding")))
    scale, mse, cuts = Fraction(certificate["scale"]), Fraction(certificate["mse"]), certificate["cuts"].split()
    ends = [about(cut)[1] for cut in cuts]
    ask(ends[0] > 0 and all(a < b for a, b in pairwise(ends)), "cuts must ascend from above 0")
    ask(scale not in ends, "no cut may be the scale")
    ask(ends[0] < scale < ends[-1] and sample.error(scale) == mse, "mse must be that of the scale, between cuts")
    bounds = [(ends[0], sample.first_piece(ends[0])), *(sample.chord(a, b) for a, b in pairwise(ends))]
    bounds.append((ends[-1], sample.last_piece(ends[-1])))
    ask(all(bound >= mse for _, bound in bounds), "there may be a lower MSE")
    alone = all(bound > mse or at == scale for at, bound in bounds)
    ask(certificate["unique"] is alone, f"unique must be {alone}")


def excluded(model: arb_poly, limit: arb) -> bool:
    """Kind x."""
    return all(bool(model(x) > limit) for x in EIGHTHS)


def monotone(model: arb_poly) -> bool:
    """Kind m."""
    slopes = [model.derivative()(x) for x in EIGHTHS]
    return all(bool(slope > 0) for slope in slopes) or all(bool(slope < 0) for slope in slopes)


def convex(model: arb_poly) -> bool:
    """The curvature of kind v."""
    curvature = model.derivative().derivative()
    return all(bool(curvature(x) > 0) for x in EIGHTHS)


def at_root(problem: Problem, low: Fraction, high: Fraction) -> arb:
    """The least M between low and high, where M' turns from - to +."""
    model, smooth = problem.model(ball((low + high) / 2), ball((high - low) / 2), 4)
    slope = model.derivative()
    if not (smooth and slope(arb(-1)) < 0 and slope(arb(1)) > 0 and convex(model)):
        raise ValueError(f"M' does not turn from - to + between {float(low)!r} and {float(high)!r}")
    return model(UNIT)


def about(text: str) -> tuple[Fraction, Fraction, Fraction]:
    """A decimal text, between the numbers one unit of its last digit below and above."""
    digits, _, power = text.partition("e")
    ask(len(power) < 6, f"{text} is no decimal of moderate size")
    unit = Fraction(10) ** (int(power or 0) - len(digits.partition(".")[2]))
    middle = Fraction(text)
    return middle - unit, middle, middle + unit


def verify(certificate: dict[str, Any]) -> None:
    """Prove what a certificate states, or raise ValueError with what is not so."""
    if certificate["density"]["family"] == "empirical":
        verify_sample(certificate)
        return
    ask(set(certificate) == KEYS, f"the fields must be {', '.join(sorted(KEYS))}")
    ask((certificate["format"], certificate["schema"]) == (FORMAT, SCHEMA), f"it must be a {FORMAT} of schema {SCHEMA}")
    bits, digits, order = (certificate[key] for key in ("bits", "digits", "order"))
    ask(all(type(n) is int for n in (bits, digits, order)), "bits, digits and order must be whole numbers")
    ask(32 <= bits <= 4096 and 3 <= order <= 64 and 6 <= digits <= 1000, "bits, digits or order out of range")
    statement = [certificate[key] for key in ("density", "levels", "shift", "rounding")]
    ask(all(type(n) in (int, float) for n in (*statement[1], statement[2])), "levels and shift must be numbers")
    cuts, kinds = [about(cut)[1] for cut in certificate["cuts"].split()], certificate["kinds"]
    roots = [(low, high) for low, _, high in map(about, certificate["roots"])]
    ask(len(kinds) == len(cuts) + 1 and cuts[0] > 0, "there must be one more piece than cuts above 0")
    ask(all(a < b for a, b in pairwise(cuts)), "cuts must ascend")
    with arithmetic(4 * digits + 80):
        exact = Problem(*statement)
        values = [at_root(exact, *root) for root in roots]
        limit = min(value.upper() for value in values) * (1 + ball(WITHIN))
        check_claims(certificate, roots, values)
    with arithmetic(bits):
        problem = Problem(*statement)
        ask(kinds[0] == "s" and kinds[-1] in "zp", "the first piece must be of kind s, the last of z or p")
        for kind, cut in ((kinds[0], cuts[0]), (kinds[-1], cuts[-1])):
            above = bool(problem.loss_bound(kind, ball(cut)) > limit)
            ask(above, f"the tail {kind} that ends at {float(cut)} may have a lower MSE")
        left = check_pieces(problem, order, limit, cuts, kinds[1:-1], roots)
    ask(not left, "a root lies in no piece of kind v")


def check_pieces(
    problem: Problem, order: int, limit: arb, cuts: list[Fraction], kinds: str, roots: list[Any]
) -> list[Any]:
    """Prove each piece between cuts; the roots that no piece has used."""
    for low, high, kind in zip(cuts[:-1], cuts[1:], kinds, strict=True):
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
    return roots


def check_claims(certificate: dict[str, Any], roots: list[Any], values: list[arb]) -> None:
    """Compare the statement with the enclosures of all candidates."""
    claims = [[certificate["scale"], certificate["mse"]], *certificate["minima"]]
    order = sorted(range(len(values)), key=lambda i: values[i].mid())
    least = values[order[0]]
    near = [i for i in order if not values[i] > least * (1 + ball(WITHIN))]
    ask(len(claims) == len(near), "minima are missing or too many")
    # Whichever of several is the least: none is lower than this.
    values[order[0]] = least.union(min(value.lower() for value in values))
    for (scale, mse), i in zip(claims, near, strict=True):
        check_claim(scale, ball(roots[i][0]).union(ball(roots[i][1])), certificate["digits"])
        check_claim(mse, values[i], certificate["digits"])
    alone = all(bool(values[i] > least) for i in order[1:])
    ask(certificate["unique"] is alone, f"unique must be {alone}")


def check_claim(claim: str, found: arb, digits: int) -> None:
    """A ball in decimals must hold what was found, and be no wider than its digits."""
    said = arb(claim)
    ask(bool(said.rad() <= abs(said) * ball(Fraction(52, 100) / 10 ** (digits - 1))), f"{claim} has too few digits")
    ask(said.contains(found), f"{claim} does not hold the enclosure {found.str(40)}")


def ask(true: bool, otherwise: str) -> None:
    """Refuse the certificate unless `true`."""
    if not true:
        raise ValueError(otherwise)


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
        said = {key: certificate[key] for key in ("density", "shift", "rounding", "scale", "mse", "unique")}
        print(f"{path}: proven: {len(certificate['levels'])} levels, {json.dumps(said)}")
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
