"""Expected errors of block formats to 20 digits, from their definition: writes `block_errors.json`.

x is one of B independent values, M' the largest magnitude of the others: P(M' <= m) = P(|x| <= m)^(B - 1). The block
scale is g(max(|x|, M')). For stored scales s_j, given for m_j < M <= m_{j+1},

    P(s_j | x) = P(M' <= m_{j+1}) - P(M' <= m_j) where |x| <= m_j, P(M' <= m_{j+1}) where m_j < |x| <= m_{j+1}, else 0,

and what is expected is the sum over j of integrals of f(x) P(s_j | x) times the loss. For scales of any size c M / l
the sum is an integral over M', and the largest value itself is counted apart. Integrals of f times polynomials over
cells are closed forms in erf and exp.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import NamedTuple

from mpmath import mp, mpf

mp.dps = 40


class Density(NamedTuple):
    """A pdf, and the integrals of x^k times it from a to b, k = 0, 1, 2."""

    pdf: object
    moments: object


def gaussian(mean: mpf) -> Density:
    def pdf(x):
        return mp.exp(-((x - mean) ** 2) / 2) / mp.sqrt(2 * mp.pi)

    def moments(a, b):
        a, b = a - mean, b - mean
        flat = (mp.erfc(a / mp.sqrt(2)) - mp.erfc(b / mp.sqrt(2))) / 2
        if a < 0 and b <= 0:
            flat = (mp.erfc(-b / mp.sqrt(2)) - mp.erfc(-a / mp.sqrt(2))) / 2
        p, q = (mp.exp(-(t**2) / 2) / mp.sqrt(2 * mp.pi) for t in (a, b))
        first, second = p - q, flat + (a * p if mp.isfinite(a) else 0) - (b * q if mp.isfinite(b) else 0)
        return flat, first + mean * flat, second + 2 * mean * first + mean**2 * flat

    return Density(pdf, moments)


def laplace() -> Density:
    rate = mp.sqrt(2)

    def beyond(t):
        """Integrals of x^k f over x > t >= 0."""
        if mp.isinf(t):
            return mpf(0), mpf(0), mpf(0)
        e = mp.exp(-rate * t) / 2
        return e, e * (t + 1 / rate), e * (t**2 + 2 * t / rate + 2 / rate**2)

    def moments(a, b):
        if a < 0 < b:
            return tuple(u + v for u, v in zip(moments(a, mpf(0)), moments(mpf(0), b), strict=True))
        if b <= 0:
            zero, one, two = moments(-b, -a)
            return zero, -one, two
        return tuple(u - v for u, v in zip(beyond(a), beyond(b), strict=True))

    return Density(lambda x: rate / 2 * mp.exp(-rate * abs(x)), moments)


DENSITIES = {"gaussian": gaussian(mpf(0)), "gaussian:mean=0.5": gaussian(mpf(1) / 2), "laplace": laplace()}

E2M1 = [mpf(v) for v in ["-6", "-4", "-3", "-2", "-1.5", "-1", "-0.5", "0", "0.5", "1", "1.5", "2", "3", "4", "6"]]
GRIDS = {
    "e2m1": E2M1,
    "int4": [mpf(v) for v in range(-8, 8)],
    "int4_narrow": [mpf(v) for v in range(-7, 8)],
    "int2_midrise": [mpf(v) / 2 for v in (-3, -1, 1, 3)],
}
# Largest M / s of power-of-two rules on these grids.
ENDS = {
    "e2m1": {"floor": 8, "even": 7, "rceil": 6, "ceil": 4},
    "int4": {"floor": 8, "even": mpf(15) / 2, "rceil": 7, "ceil": 4},
}


def e4m3() -> list[mpf]:
    """Levels of E4M3 from 0 on: 2^-9 to 448, without NaN."""
    out = [mpf(m) / 8 * mpf(2) ** -6 for m in range(8)]
    out += [(1 + mpf(m) / 8) * mpf(2) ** (e - 7) for e in range(1, 16) for m in range(8)]
    return out[:-1]


def staircase(case: dict) -> tuple[list[mpf], list[mpf]]:
    """Bounds of M and the scales between them."""
    levels, unit, c = GRIDS[case["grid"]], mpf(case["scale"]), mpf(case["constant"])
    top = max(abs(v) for v in levels)
    if case["scale_format"] == "e8m0":
        powers = [mpf(2) ** k for k in range(-40, 41)]
        theta = mpf(ENDS[case["grid"]][case["rule"]])
        return [mpf(0)] + [theta / 2 / c * p * unit for p in powers[1:]] + [mp.inf], [p * unit for p in powers]
    values = e4m3()
    pairs = list(itertools.pairwise(values))
    middle = {"absmax": [(a + b) / 2 for a, b in pairs], "up": [a for a, _ in pairs], "down": [b for _, b in pairs]}
    bounds = [m * top / c * unit for m in middle[case["rule"]]]
    return [mpf(0), *bounds, mp.inf], [v * unit for v in values]


def cells(levels: list[mpf], scale: mpf, low: mpf, high: mpf):
    """The pieces of low .. high that go to one value each; whether the value is an end that clips them."""
    if scale == 0:
        yield low, high, mpf(0), True
        return
    middle = [(a + b) / 2 for a, b in itertools.pairwise(levels)]
    edges = [-mp.inf, levels[0], *middle, levels[-1], mp.inf]
    values = [levels[0], *levels, levels[-1]]
    for i, value in enumerate(values):
        a, b = max(low, scale * edges[i]), min(high, scale * edges[i + 1])
        if a < b:
            yield a, b, scale * value, i in (0, len(values) - 1)


def terms(density: Density, levels: list[mpf], scale: mpf, low: mpf, high: mpf):
    """Integrals over low .. high: loss clipped, loss between, Q - x, x (Q - x)."""
    out = [mpf(0)] * 4
    for a, b, q, clips in cells(levels, scale, low, high):
        zero, one, two = density.moments(a, b)
        out[0 if clips else 1] += two - 2 * q * one + q * q * zero
        out[2] += q * zero - one
        out[3] += q * one - two
    return out


def inside(density: Density, m: mpf) -> mpf:
    return density.moments(-m, m)[0] if mp.isfinite(m) else mpf(1)


def stored(case: dict) -> list[mpf]:
    density, levels, others = DENSITIES[case["density"]], GRIDS[case["grid"]], case["block_size"] - 1
    bounds, scales = staircase(case)
    total = [mpf(0)] * 4
    below = [inside(density, m) ** others if m > 0 else mpf(others == 0) for m in bounds]
    for j, scale in enumerate(scales):
        low, high = bounds[j], bounds[j + 1]
        parts = [(below[j + 1] - below[j], -low, low), (below[j + 1], low, high), (below[j + 1], -high, -low)]
        for weight, a, b in parts:
            if weight > mpf(10) ** -60 and a < b:
                total = [t + weight * v for t, v in zip(total, terms(density, levels, scale, a, b), strict=True)]
    return total


def exact(case: dict) -> list[mpf]:
    density, levels, n = DENSITIES[case["density"]], GRIDS[case["grid"]], case["block_size"] - 1
    factor = mpf(case["constant"]) / max(abs(v) for v in levels)

    def integrand(log_m, k):
        m = mp.exp(log_m)
        all_inside = inside(density, m)
        density_of_others = n * all_inside ** (n - 1) * (density.pdf(m) + density.pdf(-m)) if n else mpf(0)
        found = density_of_others * terms(density, levels, factor * m, -m, m)[k] if n else mpf(0)
        for x in (m, -m):
            (_a, _b, q, clips) = next(c for c in cells(levels, factor * m, -mp.inf, mp.inf) if c[0] <= x <= c[1])
            value = ((x - q) ** 2 * clips, (x - q) ** 2 * (not clips), q - x, x * (q - x))[k]
            found += all_inside**n * density.pdf(x) * value
        return found * m

    panels = [mpf(k) / 2 for k in range(-40, 9)]
    return [mp.quad(lambda t, k=k: integrand(t, k), panels) for k in range(4)]


NAMES = ("grid", "scale_format", "rule", "density", "block_size", "scale", "constant")
SITES = (("gaussian", 32, "1"), ("laplace", 16, "1.3"), ("gaussian:mean=0.5", 8, "0.7"))
E4M3 = (
    *(("absmax", "1", "1"), ("absmax", "0.0018", "1"), ("absmax", "16", "1"), ("up", "0.01", "1")),
    *(("down", "0.01", "1"), ("absmax", "60", "0.875"), ("absmax", "0.0003", "1")),
)
EXACT = (("e2m1", "1"), ("int4", "0.96875"), ("int4_narrow", "0.875"), ("int2_midrise", "0.75"))


def cases():
    """Power-of-two scales by four rules, E4M3 scales from vanishing to saturated, scales of any size."""
    for grid in ("e2m1", "int4"):
        for rule in ("floor", "even", "rceil", "ceil"):
            for density, size, scale in SITES:
                yield dict(zip(NAMES, (grid, "e8m0", rule, density, size, scale, "1"), strict=True))
    for rule, scale, constant in E4M3:
        for density, size in (("gaussian", 16), ("laplace", 64), ("gaussian:mean=0.5", 1)):
            yield dict(zip(NAMES, ("e2m1", "e4m3fn", rule, density, size, scale, constant), strict=True))
    for grid, constant in EXACT:
        for density, size in (("gaussian", 32), ("laplace", 8), ("gaussian:mean=0.5", 16)):
            yield dict(zip(NAMES, (grid, None, "absmax", density, size, "1", constant), strict=True))


if __name__ == "__main__":
    rows = []
    for case in cases():
        found = exact(case) if case["scale_format"] is None else stored(case)
        names = ("clipping", "rounding", "bias", "cross")
        rows.append({**case, **{name: mp.nstr(v, 20) for name, v in zip(names, found, strict=True)}})
        print(rows[-1], flush=True)
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    (Path(__file__).parent / "block_errors.json").write_text(text, encoding="utf-8")
