"""Reference quantization errors to 20 digits: mpmath integrates the pdf cell by cell. Shares no code with the package.

Grids, densities and the quantizer are restated here from their definitions. Every value is computed twice:

1. Gauss-Legendre panels on the pdf at 45 digits. Cells are cut at cusps, at symmetry points, at the ends of the support
   and at panels as long as the density is smooth there (its decay length, its distance to singularities), whatever the
   scale of the quantizer; power-law tails end in one panel of the variable x^-(df-2).
2. Closed forms of the tail moments (erfc, incomplete gamma and beta functions, dilogarithm) at 90 digits, differenced.
   The digits cover the cancellation, at most about 40 of them.

A case is written only when both agree to 1e-18 relative. `python make_errors.py` writes errors.json again (six minutes
on two processes); `--only TEXT` computes the cases whose row contains TEXT and prints them.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from mpmath import inf, mp, mpf

QUADRATURE_DIGITS = 45
CLOSED_FORM_DIGITS = 90
AGREEMENT = mpf("1e-18")
# Bias and cross may vanish by symmetry: then they must agree to this part of sqrt(E[x^2] MSE), their natural bound.
SYMMETRIC_ZERO = mpf("1e-30")
# Below this a term is written as 0.0: no float64 can tell. It also spares both routes exponents beyond exp(-2000).
NEGLIGIBLE = mpf("1e-330")
EXPONENT_LIMIT = 2000

Number = Any  # mpf or Fraction; mpmath ships no types
Spec = str | dict[str, Any]


# Grids, from their definitions.

NF4 = (
    "-1 -.6961928009986877 -.5250730514526367 -.39491748809814453 -.28444138169288635 -.18477343022823334 "
    "-.09105003625154495 0 .07958029955625534 .16093020141124725 .24611230194568634 .33791524171829224 "
    ".44070982933044434 .5626170039176941 .7229568362236023 1"
)


def integers(bits: int, kind: str) -> list[Fraction]:
    """Levels of an integer grid: "", "unsigned", "narrow" or "midrise"."""
    half = 2 ** (bits - 1)
    if kind == "unsigned":
        return [Fraction(k) for k in range(2 * half)]
    if kind == "midrise":
        return [Fraction(2 * k + 1, 2) for k in range(-half, half)]
    return [Fraction(k) for k in range(-half + (kind == "narrow"), half)]


def floats(exponent_bits: int, mantissa_bits: int, reserved: str = "") -> list[Fraction]:
    """Levels of a floating grid; ``reserved`` is "", "top" (the last code is NaN) or "ieee" (the last exponent is)."""
    bias = 2 ** (exponent_bits - 1) - 1
    codes = 2 ** (exponent_bits + mantissa_bits)
    codes -= {"": 0, "top": 1, "ieee": 2**mantissa_bits}[reserved]
    positive = set()
    for code in range(codes):
        exponent, mantissa = divmod(code, 2**mantissa_bits)
        significand = Fraction(mantissa, 2**mantissa_bits) + (exponent > 0)
        positive.add(significand * Fraction(2) ** (max(exponent, 1) - bias))
    return sorted(positive | {-v for v in positive})


FLOATS = {
    "e2m1": (2, 1),
    "e3m0": (3, 0),
    "e2m3": (2, 3),
    "e3m2": (3, 2),
    "e4m3fn": (4, 3, "top"),
    "e5m2": (5, 2, "ieee"),
    "fp16": (5, 10, "ieee"),
    "bf16": (8, 7, "ieee"),
}


def levels(name: str) -> list[Fraction]:
    """Exact levels of a grid by name, ascending."""
    if name in FLOATS:
        return floats(*FLOATS[name])
    if name == "nf4":
        return [Fraction(float(v)) for v in NF4.split()]
    if name in {"binary", "ternary"}:
        return [Fraction(k) for k in ((-1, 1) if name == "binary" else (-1, 0, 1))]
    unsigned = name.startswith("uint")
    bits, _, kind = name.removeprefix("u").removeprefix("int").partition("_")
    return integers(int(bits), "unsigned" if unsigned else kind)


# Families in standard form: y = |x - mean| / std >= 0, unit variance. `pdf(y)` is the density of y on either side,
# `width(y)` a length over which 30 nodes integrate it, `tail(c)` the integrals of (y - c)^j over y > c, j = 0, 1, 2.


class Family:
    """A symmetric density of unit variance."""

    support = inf
    graded = False  # a branch point at 0: panels double away from it

    def tail(self, c: Number) -> tuple[Number, Number, Number]:
        raise NotImplementedError

    def exponent(self, y: Number) -> Number:
        """-log of the pdf, roughly; 0 for power laws."""
        return mpf(0)


class Gaussian(Family):
    def pdf(self, y: Number) -> Number:
        return mp.exp(-y * y / 2) / mp.sqrt(2 * mp.pi)

    def exponent(self, y: Number) -> Number:
        return y * y / 2

    def width(self, y: Number) -> Number:
        return mp.sqrt(y * y + 16) - y

    def tail(self, c: Number) -> tuple[Number, Number, Number]:
        mass, density = mp.erfc(c / mp.sqrt(2)) / 2, self.pdf(c)
        return mass, density - c * mass, (1 + c * c) * mass - c * density


class Laplace(Family):
    def pdf(self, y: Number) -> Number:
        return mp.exp(-y * mp.sqrt(2)) / mp.sqrt(2)

    def exponent(self, y: Number) -> Number:
        return y * mp.sqrt(2)

    def width(self, y: Number) -> Number:
        return mpf(6)

    def tail(self, c: Number) -> tuple[Number, Number, Number]:
        b = 1 / mp.sqrt(2)
        mass = mp.exp(-c / b) / 2
        return mass, b * mass, 2 * b * b * mass


class Uniform(Family):
    @property
    def support(self) -> Number:
        return mp.sqrt(3)

    def pdf(self, y: Number) -> Number:
        return 1 / (2 * mp.sqrt(3))

    def width(self, y: Number) -> Number:
        return mpf(4)

    def tail(self, c: Number) -> tuple[Number, Number, Number]:
        length, density = max(self.support - c, mpf(0)), self.pdf(c)
        return density * length, density * length**2 / 2, density * length**3 / 3


class Logistic(Family):
    def pdf(self, y: Number) -> Number:
        h = mp.sqrt(3) / mp.pi
        decay = mp.exp(-y / h)
        return decay / (h * (1 + decay) ** 2)

    def exponent(self, y: Number) -> Number:
        return y * mp.pi / mp.sqrt(3)

    def width(self, y: Number) -> Number:
        return mpf(1)  # poles at i pi h = 1.73i

    def tail(self, c: Number) -> tuple[Number, Number, Number]:
        h = mp.sqrt(3) / mp.pi
        decay = mp.exp(-c / h)
        return decay / (1 + decay), h * mp.log1p(decay), -2 * h * h * mp.polylog(2, -decay).real


@dataclass(frozen=True)
class StudentT(Family):
    df: float

    def pdf(self, y: Number) -> Number:
        nu = mpf(self.df)
        return self.peak() * (1 + y * y / (nu - 2)) ** (-(nu + 1) / 2)

    def peak(self) -> Number:
        nu = mpf(self.df)
        return mp.gamma((nu + 1) / 2) / (mp.gamma(nu / 2) * mp.sqrt((nu - 2) * mp.pi))

    def width(self, y: Number) -> Number:
        nu = mpf(self.df)
        pole = mp.hypot(y, mp.sqrt(nu - 2))  # distance to those at +-i sqrt(nu - 2)
        # With many degrees of freedom the pdf falls within that distance as a Gaussian does.
        return min(pole / 2, 4 * pole / mp.sqrt(nu + 1), 8 * pole**2 / ((nu + 1) * max(y, mpf(1))))

    def tail(self, c: Number) -> tuple[Number, Number, Number]:
        nu = mpf(self.df)
        c2 = c * c / (nu - 2)
        first = self.pdf(c) * (1 + c2) * (nu - 2) / (nu - 1)
        if c2 < 1:
            # From the centre: y F(1/2, p; 3/2; -c^2), with y^2 = (nu - 2) ((1 + y^2/(nu-2)) - 1) for the second moment.
            def near(p: Number) -> Number:
                return self.peak() * c * mp.hyp2f1(mpf(1) / 2, p, mpf(3) / 2, -c2)

            inside = near((nu + 1) / 2)
            mass, second = mpf(1) / 2 - inside, mpf(1) / 2 - (nu - 2) * (near((nu - 1) / 2) - inside)
        else:
            x = 1 / (1 + c2)
            mass = mp.betainc(nu / 2, mpf(1) / 2, 0, x, regularized=True) / 2
            second = mp.betainc(nu / 2 - 1, mpf(3) / 2, 0, x, regularized=True) / 2
        return mass, first - c * mass, second - 2 * c * first + c * c * mass


@dataclass(frozen=True)
class GeneralizedGaussian(Family):
    beta: float

    @property
    def graded(self) -> bool:
        return self.beta % 2 != 0

    def alpha(self) -> Number:
        return mp.sqrt(mp.gamma(1 / mpf(self.beta)) / mp.gamma(3 / mpf(self.beta)))

    def pdf(self, y: Number) -> Number:
        beta = mpf(self.beta)
        return beta * mp.exp(-self.exponent(y)) / (2 * self.alpha() * mp.gamma(1 / beta))

    def exponent(self, y: Number) -> Number:
        return (y / self.alpha()) ** mpf(self.beta)

    def width(self, y: Number) -> Number:
        beta, alpha = mpf(self.beta), self.alpha()
        width = alpha * ((y / alpha) ** beta + 4) ** (1 / beta) - y
        if self.graded:
            return min(width, y)
        return min(width, max(y, alpha) / 4)

    def tail(self, c: Number) -> tuple[Number, Number, Number]:
        beta, alpha = mpf(self.beta), self.alpha()
        exponent = self.exponent(c)
        mass, first, second = (
            alpha**j * mp.gammainc((j + 1) / beta, exponent) / (2 * mp.gamma(1 / beta)) for j in range(3)
        )
        return mass, first - c * mass, second - 2 * c * first + c * c * mass


FAMILIES = {
    "gaussian": Gaussian,
    "laplace": Laplace,
    "uniform": Uniform,
    "logistic": Logistic,
    "student-t": StudentT,
    "generalized-gaussian": GeneralizedGaussian,
}


@dataclass(frozen=True)
class Part:
    """weight times a family at mean and std, cut to x > lower."""

    family: Family
    mean: float
    std: float
    weight: float = 1.0
    lower: float | None = None


def parts(spec: Spec) -> list[Part]:
    """The parts of a density: a name, {"mixture": [{"weight", "density"}]} or {"rectified": name}."""
    if isinstance(spec, str):
        name, _, text = spec.partition(":")
        said = {key: float(value) for key, _, value in (item.partition("=") for item in text.split(",") if item)}
        mean, std = said.pop("mean", 0.0), said.pop("std", 1.0)
        return [Part(FAMILIES[name](**said), mean, std)]
    if "mixture" in spec:
        return [
            Part(part.family, part.mean, part.std, item["weight"])
            for item in spec["mixture"]
            for part in parts(item["density"])
        ]
    return [Part(part.family, part.mean, part.std, part.weight, 0.0) for part in parts(spec["rectified"])]


# Route 1: quadrature. Each route returns, for 0 <= a < b <= inf, the integrals over a < y < b of pdf, (y - q) pdf and
# (y - p)(y - q) pdf.


@functools.cache
def gauss_legendre(n: int) -> tuple[tuple[Number, Number], ...]:
    """Nodes and weights on (0, 1) at the quadrature's precision, by Newton's method on the Legendre recurrence."""
    rule = []
    with mp.workdps(QUADRATURE_DIGITS + 10):
        for k in range(n):
            x = mp.cos(mp.pi * (k + mpf(3) / 4) / (n + mpf(1) / 2))
            for _ in range(8):
                before, here = mpf(1), x
                for j in range(2, n + 1):
                    before, here = here, ((2 * j - 1) * x * here - (j - 1) * before) / j
                slope = n * (x * here - before) / (x * x - 1)
                x -= here / slope
            rule.append(((1 + x) / 2, 1 / ((1 - x * x) * slope**2)))
    return tuple(rule)


Triple = tuple[Number, Number, Number]


def panel(family: Family, a: Number, b: Number, p: Number, q: Number, n: int) -> Triple:
    zeroth = first = second = mpf(0)
    for node, weight in gauss_legendre(n):
        y = a + (b - a) * node
        mass = weight * family.pdf(y)
        zeroth += mass
        first += mass * (y - q)
        second += mass * (y - p) * (y - q)
    return zeroth * (b - a), first * (b - a), second * (b - a)


def power_law_end(family: StudentT, a: Number, p: Number, q: Number) -> Triple:
    """Integrals over y > a >> 1, p, q: in w = (y/a)^-(nu-2) the integrand of the second moment is constant to 1e-40."""
    nu = mpf(family.df)
    totals = [mpf(0)] * 3
    for w, weight in gauss_legendre(30):
        y = a * w ** (-1 / (nu - 2))
        mass = weight * family.pdf(y) * y / ((nu - 2) * w)
        for j, factor in enumerate((1, y - q, (y - p) * (y - q))):
            totals[j] += mass * factor
    return totals[0], totals[1], totals[2]


def by_quadrature(family: Family, a: Number, b: Number, p: Number, q: Number) -> Triple:
    b = min(b, family.support)
    totals = [mpf(0)] * 3
    if a >= b or family.exponent(a) > EXPONENT_LIMIT:
        return totals[0], totals[1], totals[2]
    y = a
    power_law = isinstance(family, StudentT)
    while y < b:
        if power_law and b == inf and y > mpf(2) ** 140 * (1 + a + abs(p) + abs(q)):
            added = power_law_end(family, y, p, q)
            y = b
        else:
            # The first panel at a branch point is so short that its error is beyond the digits.
            width = family.width(y) if y > 0 or not family.graded else mpf(2) ** -170 * min(b, mpf(1))
            end = min(b, y + width)
            share = (end - y) / width
            n = 30 if share > 0.25 else 16 if share > 0.03 else 10
            added = panel(family, y, end, p, q, n)
            y = end
        totals = [total + more for total, more in zip(totals, added, strict=True)]
        if (
            not power_law
            and b - y > y - a
            and all(abs(more) <= mpf("1e-50") * abs(total) for total, more in zip(totals, added, strict=True))
        ):
            break
    return totals[0], totals[1], totals[2]


# Route 2: closed forms.


@functools.lru_cache(maxsize=200_000)
def cached_tail(family: Family, c: Number, digits: int) -> Triple:
    if c >= family.support or family.exponent(c) > EXPONENT_LIMIT:
        return mpf(0), mpf(0), mpf(0)
    return family.tail(c)


def by_closed_form(family: Family, a: Number, b: Number, p: Number, q: Number) -> Triple:
    def beyond(c: Number) -> Triple:
        if c == inf:
            return mpf(0), mpf(0), mpf(0)
        mass, first, second = cached_tail(family, c, mp.dps)
        return (
            mass,
            first + (c - q) * mass,
            second + ((c - p) + (c - q)) * first + (c - p) * (c - q) * mass,
        )

    return tuple(near - far for near, far in zip(beyond(a), beyond(b), strict=True))


# The quantizer: cells as (a, b, p, q, q(x) = q or, between p and q at random, x on average).


def integrate(part: Part, a: Number, b: Number, p: Number, q: Number, route: Any) -> Triple:
    """Integrals over a < x < b of f, (x - q) f and (x - p)(x - q) f, for one part of a density."""
    mean, std = mpf(part.mean), mpf(part.std)
    if part.lower is not None:
        a = max(a, mpf(part.lower))
    totals = [mpf(0)] * 3
    if a >= b:
        return totals[0], totals[1], totals[2]
    low, high, p, q = ((value - mean) / std for value in (a, b, p, q))
    for sign, start, end in ((1, max(low, mpf(0)), high), (-1, max(-high, mpf(0)), -low)):
        if start < end:
            found = route(part.family, start, end, sign * p, sign * q)
            for j, power in enumerate((1, sign, 1)):
                totals[j] += part.weight * power * std**j * found[j]
    return totals[0], totals[1], totals[2]


def cells(values: list[Number], rounding: str) -> list[tuple[Number, Number, Number, Number]]:
    """Cells inside the range: nearest ones end at midpoints, stochastic ones at the values."""
    if rounding == "stochastic":
        return [(a, b, a, b) for a, b in itertools.pairwise(values)]
    middles = [(a + b) / 2 for a, b in itertools.pairwise(values)]
    edges = [values[0], *middles, values[-1]]
    return [(a, b, v, v) for a, b, v in zip(edges[:-1], edges[1:], values, strict=True)]


def relevant(part: Part, found: list[tuple[Number, ...]], shift: Number) -> list[tuple[Number, ...]]:
    """Leave out cells of 16-bit grids whose share of any result is below 1e-20.

    Beyond 15 std of a Gaussian, 82 of a Laplace density the mass is below 1e-49. The cells within 2^-40 std of the
    shift have errors below half a gap, 2^-9 of that, over a mass below 2^-39: 1e-39 of a mean square, 1e-26 of a bias.
    """
    if len(found) < 1000:
        return found
    reach = {Gaussian: 15, Laplace: 82, Uniform: 2}[type(part.family)] * part.std
    hole = mpf(2) ** -40 * part.std
    return [
        cell
        for cell in found
        if cell[0] < part.mean + reach
        and cell[1] > part.mean - reach
        and max(abs(cell[0] - shift), abs(cell[1] - shift)) > hole
    ]


FIELDS = ("clipping", "rounding", "mse", "bias", "cross", "power", "mean")
# "rounding" of a case is its kind, nearest or stochastic.
KEYS = {field: "rounding_error" if field == "rounding" else field for field in FIELDS}


def terms(case: dict[str, Any], route: Any) -> dict[str, Number]:
    """All fields of a case by one route, at the current precision."""
    scale, shift = mpf(case["scale"]), mpf(case["shift"])
    grid = [mpf(v.numerator) / v.denominator for v in levels(case["grid"])]
    values = [shift + scale * v for v in grid]
    inner = cells(values, case["rounding"])
    total = dict.fromkeys(FIELDS, mpf(0))
    for part in parts(case["density"]):
        ends = ((-inf, values[0], values[0], values[0]), (values[-1], inf, values[-1], values[-1]))
        for kind, group in (("clipping", ends), ("rounding", relevant(part, inner, shift))):
            for a, b, p, q in group:
                _, first, second = integrate(part, a, b, p, q, route)
                if p == q:
                    total[kind] += second
                    total["bias"] -= first
                    total["cross"] -= second + q * first
                else:
                    # E[(x - Q)^2] = (x - p)(q - x), E[Q] = x: nothing is added to bias and cross.
                    total[kind] -= second
        mass, mean, power = integrate(part, -inf, inf, mpf(0), mpf(0), route)
        total["mean"] += mean
        total["power"] += power
        if part.lower is not None:
            add_atom(total, case, 1 - mass, mpf(part.lower), list(zip(values, range(len(values)), strict=True)))
    total["mse"] = total["clipping"] + total["rounding"]
    return total


def add_atom(total: dict[str, Number], case: dict[str, Any], mass: Number, x: Number, values: list[Any]) -> None:
    """Add a point mass at x. A tie goes to the even index (the table has ties on index-coded grids only)."""
    value, _ = min(values, key=lambda item: (abs(item[0] - x), item[1] % 2))
    inside = values[0][0] <= x <= values[-1][0]
    if case["rounding"] == "stochastic" and inside:
        above = min(v for v, _ in values if v >= x)
        below = max(v for v, _ in values if v <= x)
        total["rounding"] += mass * (x - below) * (above - x)
        return
    total["rounding" if inside else "clipping"] += mass * (x - value) ** 2
    total["bias"] += mass * (value - x)
    total["cross"] += mass * x * (value - x)


def compute(case: dict[str, Any]) -> dict[str, Any]:
    """A finished case, or one with the key "refused"."""
    started = time.perf_counter()
    cached_tail.cache_clear()
    with mp.workdps(CLOSED_FORM_DIGITS):
        closed = terms(case, by_closed_form)
    with mp.workdps(QUADRATURE_DIGITS):
        direct = terms(case, by_quadrature)
        natural = mp.sqrt(direct["power"] * direct["mse"]), mp.sqrt(direct["mse"])
        result = dict(case)
        for field in FIELDS:
            value, check = direct[field], closed[field]
            if abs(value) < NEGLIGIBLE and abs(check) < NEGLIGIBLE:
                value = check = mpf(0)
            zero = {"cross": natural[0], "bias": natural[1], "mean": mp.sqrt(direct["power"])}.get(field)
            if zero is not None and max(abs(value), abs(check)) <= SYMMETRIC_ZERO * zero:
                value = check = mpf(0)
            if abs(value - check) > AGREEMENT * abs(check):
                result["refused"] = f"{field}: {mp.nstr(value, 25)} by quadrature, {mp.nstr(check, 25)} in closed form"
            result[KEYS[field]] = mp.nstr(value, 20)
    result["seconds"] = time.perf_counter() - started
    return result


# The table: density; grid; scales; shift; rounding. Scales and shifts are the float64 of their text, exactly.

MIXTURE = {
    "mixture": [
        {"weight": 0.75, "density": "gaussian:mean=-0.5,std=0.25"},
        {"weight": 0.25, "density": "gaussian:mean=1.5,std=2"},
    ]
}
OUTLIERS = {
    "mixture": [
        {"weight": 0.984375, "density": "gaussian"},
        {"weight": 0.015625, "density": "gaussian:mean=0,std=16"},
    ]
}
RELU = {"rectified": "gaussian"}
RELU_SHIFTED = {"rectified": "gaussian:mean=-0.5,std=1.5"}
RELU_LAPLACE = {"rectified": "laplace:mean=0.25,std=1"}
N, S = "nearest", "stochastic"

SWEEPS: list[tuple[Spec, str, str, float, str]] = [
    # Gaussian: every grid, all scales, shifts until only a tail is inside or outside.
    ("gaussian", "int4", "1e-6 1e-3 0.05 0.3386079357151854 1 30 1e6", 0, N),
    ("gaussian", "int4", "1e-6 1e-3 0.05 0.3386079357151854 1 30 1e6", 0.125, S),
    ("gaussian", "int4", "0.01 0.3 2.5", -3.0, N),
    ("gaussian", "int4", "0.25 1e-4", 12.0, N),
    ("gaussian", "int4", "0.25", 30.0, N),
    ("gaussian", "int4", "0.001", 36.5, S),
    ("gaussian", "int8", "1e-6 0.004 0.0307655785427688 0.1 0.29 1e3", 0, N),
    ("gaussian", "int8", "0.0307655785427688", 0.01, S),
    ("gaussian", "int8", "0.25", -4.6, N),
    ("gaussian", "int8_narrow", "0.0308700860403491", 0, N),
    ("gaussian", "uint8", "0.02 0.15", -2.5, N),
    ("gaussian", "binary", "0.7978845608028654 1e-3", 0, N),
    ("gaussian", "binary", "0.7978845608028654", 0, S),
    ("gaussian", "ternary", "1.224006361925 1e-6", 0.2, N),
    ("gaussian", "int2", "1.048385262485013 5", 0, N),
    ("gaussian", "int3", "0.6018242266853021", 0.3009, N),
    ("gaussian", "int4_narrow", "0.3534113155714074 2", 0, N),
    ("gaussian", "int4_midrise", "0.3352006121999727 1e6", 0, N),
    ("gaussian", "uint4", "0.2", -1.5, N),
    ("gaussian", "uint4", "0.2", 0, N),
    ("gaussian", "e2m1", "0.4870791785622826 1e-5 3", 0, N),
    ("gaussian", "e2m1", "0.4870791785622826", 0.1, S),
    ("gaussian", "e3m0", "0.2621012295678631 0.95 2.3", 0, N),
    ("gaussian", "e2m3", "0.4996720287637542", 0, N),
    ("gaussian", "e3m2", "0.1622057024202131 1.3", 0, N),
    ("gaussian", "e4m3fn", "0.0203771871586 0.08 1e3", 0, N),
    ("gaussian", "e4m3fn", "0.0203771871586", -0.75, S),
    ("gaussian", "e5m2", "3.15186e-4 0.02", 0, N),
    ("gaussian", "nf4", "2.863063 1e-2", 0, N),
    ("gaussian", "nf4", "2.863063", 0.5, S),
    ("gaussian:mean=1,std=2", "e2m1", "0.9 6", 0.37, N),
    ("gaussian:mean=1,std=2", "int8", "0.06", 1.0, N),
    ("gaussian:mean=1000,std=0.0009765625", "int8", "3e-5", 1000.0, N),
    ("gaussian:mean=1000,std=0.0009765625", "int4", "3e-4", 1000.0001220703125, N),
    ("gaussian:mean=0,std=1e-30", "int4", "3e-31", 0, N),
    ("gaussian", "int16", "1.5e-4", 0, N),
    ("gaussian", "int16", "1.5e-4", 0, S),
    ("gaussian", "fp16", "2e-4", 0, N),
    ("gaussian", "bf16", "1", 0, N),
    ("gaussian:mean=0.5,std=1", "bf16", "1e-37", 0, N),
    # Laplace.
    ("laplace", "int4", "1e-6 1e-3 0.05 0.4676469708354303 3 80 1e6", 0, N),
    ("laplace", "int4", "0.4676469708354303", 0.0713, N),
    ("laplace", "int4", "0.45 1e4", 0.0713, S),
    ("laplace", "int4", "0.5", 200.0, N),
    ("laplace", "int4", "0.5", -25.0, N),
    ("laplace", "int2", "1.214126469660696", 0.3272, N),
    ("laplace", "int3", "0.762452471215868", 0, N),
    ("laplace", "int8", "0.0548511466641668 1e-5 3.5", 0, N),
    ("laplace", "int8", "0.0548511466641668", 0.0047, S),
    ("laplace", "ternary", "1.4142135623730951", 0, N),
    ("laplace", "uint8", "0.05", -1.0, N),
    ("laplace", "e2m1", "0.6911410910959451 100", 0, N),
    ("laplace", "e3m0", "0.3899173852467379", 0, N),
    ("laplace", "e3m2", "0.3454893531484268", 0.25, N),
    ("laplace", "e4m3fn", "0.0664924073273", 0, N),
    ("laplace", "e5m2", "1e-3", 0, S),
    ("laplace", "nf4", "3.5", -0.1, N),
    ("laplace:mean=-2,std=0.5", "int4_midrise", "0.2", -2.125, N),
    ("laplace:mean=0,std=1e30", "e2m1", "7e29", 0, N),
    ("laplace", "int16", "5e-4", 0, N),
    ("laplace", "bf16", "1e-3", 0, N),
    # Uniform: both ends inside, one outside, both outside.
    ("uniform", "int4", "1e-6 1e-3 0.1 0.22 0.26 1 1e6", 0, N),
    ("uniform", "int4", "0.1 0.3", 0.7, S),
    ("uniform", "int4_narrow", "0.25", 0.1, N),
    ("uniform", "int8", "0.0135 0.1", 0, N),
    ("uniform", "int8", "0.01", 2.0, N),
    ("uniform", "e2m1", "0.31", 0, N),
    ("uniform", "e2m3", "0.23 1e-3", 0, N),
    ("uniform", "e4m3fn", "0.0039", 0, N),
    ("uniform:mean=3,std=0.5", "nf4", "1.1", 2.9, N),
    ("uniform:mean=3,std=0.5", "uint4", "0.27", 0, N),
    ("uniform", "fp16", "3e-5", 0, N),
    # Logistic.
    ("logistic", "int4", "1e-6 1e-3 0.05 0.4 3 50 1e6", 0, N),
    ("logistic", "int8", "0.04", 0.013, N),
    ("logistic", "int8", "0.04", 0.013, S),
    ("logistic", "int4", "0.5", 40.0, N),
    ("logistic", "e2m1", "0.58", 0, N),
    ("logistic", "e4m3fn", "0.04", 0, N),
    ("logistic:mean=0.5,std=3", "nf4", "8", 0.25, N),
    ("logistic", "uint4", "0.3", -2.0, S),
    # Student's t, down to the edge of a variance.
    ("student-t:df=2.001", "int4", "1e-6 1e-3 0.02 0.3 10 1e3 1e6", 0, N),
    ("student-t:df=2.001", "int8", "0.004 1", 0.01, N),
    ("student-t:df=2.001", "e4m3fn", "0.05", 0, N),
    ("student-t:df=2.001", "e2m1", "0.5", 3.0, S),
    ("student-t:df=2.5", "int4", "1e-3 0.5 1e6", 0, N),
    ("student-t:df=2.5", "int8", "0.05", -0.4, N),
    ("student-t:df=2.5", "e3m0", "0.3", 0, S),
    ("student-t:df=3", "int4", "1e-3 0.5 1e4", 0, N),
    ("student-t:df=3", "e2m1", "0.6", 0.2, N),
    ("student-t:df=3,mean=1,std=2", "int8", "0.15", 1.0, N),
    ("student-t:df=5", "int4", "1e-6 0.05 0.42 20 1e6", 0, N),
    ("student-t:df=5", "int4", "0.42", 1e3, N),
    ("student-t:df=5", "int8", "0.06", 0, S),
    ("student-t:df=5", "e4m3fn", "0.03", 0, N),
    ("student-t:df=5", "nf4", "3.2", -0.3, N),
    ("student-t:df=10", "int4", "0.37 1e2", 0.1, N),
    ("student-t:df=10", "e5m2", "1e-3", 0, N),
    ("student-t:df=100", "int4", "0.35 1.7", 0.05, N),
    ("student-t:df=100", "e4m3fn", "0.02", 0, S),
    # Generalized Gaussian: cusps, singular second derivatives, flat tops.
    ("generalized-gaussian:beta=0.3", "int4", "1e-6 1e-3 0.3 2 100 1e6", 0, N),
    ("generalized-gaussian:beta=0.3", "int8", "0.05 0.5", 0.02, N),
    ("generalized-gaussian:beta=0.3", "e2m1", "1.5", 0, S),
    ("generalized-gaussian:beta=0.3", "e4m3fn", "0.1", 0, N),
    ("generalized-gaussian:beta=0.5", "int4", "1e-6 0.1 0.8 1e4", 0, N),
    ("generalized-gaussian:beta=0.5", "int8", "0.1", -0.5, N),
    ("generalized-gaussian:beta=0.5", "nf4", "6", 0, S),
    ("generalized-gaussian:beta=1.5", "int4", "1e-4 0.37 9", 0, N),
    ("generalized-gaussian:beta=1.5", "e2m1", "0.55", 0.3, N),
    ("generalized-gaussian:beta=1.5,mean=-1,std=0.5", "int8", "0.02", -1.0, N),
    ("generalized-gaussian:beta=2", "int4", "0.3386079357151854 4.8", 0, N),
    ("generalized-gaussian:beta=4", "int4", "1e-6 0.26 1e6", 0, N),
    ("generalized-gaussian:beta=4", "e2m1", "0.4", -0.2, N),
    ("generalized-gaussian:beta=8", "int4", "1e-3 0.24 0.5", 0, N),
    ("generalized-gaussian:beta=8", "e4m3fn", "0.004", 0, S),
    ("generalized-gaussian:beta=8", "uint4", "0.1", 1.5, N),
    # The whole mass far from the value of its cell, or from the range, by many times its own width.
    ("gaussian", "int4", "1e6", 3e5, N),
    ("laplace", "int4", "1e6", 3e5, N),
    ("laplace", "int4", "1e4", 3e3, S),
    ("uniform", "int4", "1e6", 3e5, N),
    ("logistic", "int4", "1e6", 3e5, N),
    ("student-t:df=5", "int4", "1e5", 3e4, N),
    ("student-t:df=5", "int4", "1e3", 3e2, N),
    ("student-t:df=4", "uint8", "4e3", 5887.5, N),
    ("student-t:df=2.001", "int4", "0.077", -260.5, N),
    ("student-t:df=2.001", "int8", "7.7e4", 5.2e4, N),
    ("generalized-gaussian:beta=0.3", "int3", "2e4", 2400.0, N),
    ("generalized-gaussian:beta=4", "e3m0", "4e5", 1.2e5, N),
    (MIXTURE, "int4", "1e6", 3e5, N),
    (RELU, "int4", "1e6", 3e5, N),
    # Mixtures and rectified densities (an atom at zero).
    (MIXTURE, "int4", "1e-6 0.02 0.4 8 1e6", 0, N),
    (MIXTURE, "int8", "0.05", -0.5, N),
    (MIXTURE, "e2m1", "0.8", 0.3, S),
    (MIXTURE, "nf4", "4", 0, N),
    (OUTLIERS, "int4", "0.35 2", 0, N),
    (OUTLIERS, "int8", "0.2", 0, N),
    (OUTLIERS, "e4m3fn", "0.05", 0.1, N),
    (RELU, "uint4", "1e-6 0.17 1e6", 0, N),
    (RELU, "int4", "0.3", 0.07, N),
    (RELU, "int4", "0.3", 0.07, S),
    (RELU, "int4_midrise", "0.3", 0, N),
    (RELU, "uint8", "0.0125", 0.001, N),
    (RELU_SHIFTED, "uint4", "0.25", 0, N),
    (RELU_SHIFTED, "e2m1", "0.7", 0, N),
    (RELU_SHIFTED, "int4", "0.25", 3.0, N),
    (RELU_LAPLACE, "uint4", "0.22 40", 0, N),
    (RELU_LAPLACE, "uint8", "0.03", -0.02, S),
    (RELU_LAPLACE, "nf4", "3", 0.05, N),
]


def cases() -> list[dict[str, Any]]:
    return [
        {"density": density, "grid": grid, "scale": float(scale), "shift": float(shift), "rounding": rounding}
        for density, grid, scales, shift, rounding in SWEEPS
        for scale in scales.split()
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="compute and print the cases that contain this text; write nothing")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    table = [case for case in cases() if options.only in json.dumps(case)]
    started = time.perf_counter()
    with ProcessPoolExecutor(options.processes) as pool:
        done = []
        for result in pool.map(compute, table):
            seconds = result.pop("seconds")
            if options.only or "refused" in result or seconds > 20:
                print(json.dumps(result), f"{seconds:.1f} s", flush=True)
            done.append(result)
    refused = [result for result in done if "refused" in result]
    print(f"{len(done)} cases, {len(refused)} refused, {time.perf_counter() - started:.0f} s")
    if refused or options.only:
        return int(bool(refused))
    text = "[\n" + ",\n".join(json.dumps(result) for result in done) + "\n]\n"
    Path(__file__).with_name("errors.json").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
