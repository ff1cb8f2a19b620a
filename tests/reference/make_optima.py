"""Reference optimal scales, shifts and codebooks to 20 digits, independent of the package.

With the moments of each cell in closed form (make_errors.py, 60 digits) a scale is optimal where
sum_k l_k * (first moment of cell k about s l_k) = 0, and a shift where the sum without l_k is. The zeros of the first
are bracketed by a float64 scan of 256 scales an octave, polished in mpmath, and their MSE is checked by quadrature. For
the uniform density the MSE is a cubic in s between the scales where a threshold passes the end of the support: there
all minima are found without a scan. Lloyd-Max codebooks are Newton's method on the centroid conditions.

`python make_optima.py` writes optima.json again (several minutes on two processes).
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import make_errors as reference
import numpy as np
from mpmath import inf, mp, mpf
from scipy import optimize, special

DIGITS = 60
AGREEMENT = mpf("1e-18")  # between closed form and quadrature, as in make_errors.py
SCANS_PER_OCTAVE = 256

DENSITIES = ("gaussian", "laplace", "logistic", "uniform", "student-t:df=5")
INTEGERS = tuple(f"int{b}{kind}" for kind in ("", "_narrow", "_midrise") for b in range(2, 9))
FLOATS = ("e2m1", "e3m0", "e2m3", "e3m2", "e4m3fn", "nf4")
# Copies of one minimum an octave apart, up to 1e-9 of each other: only the best is kept.
BEST_ONLY = ("e4m3fn",)
FREE_SHIFT = tuple(itertools.product(("gaussian", "laplace", "logistic", "student-t:df=5"), ("int2", "int4", "int8")))
LLOYD_MAX = tuple(itertools.product(("gaussian", "laplace"), (*range(2, 17), 32)))

Number = Any


def family(name: str) -> reference.Family:
    return reference.parts(name)[0].family


def exact_levels(grid: str) -> list[Number]:
    return [mpf(v.numerator) / v.denominator for v in reference.levels(grid)]


def cell_moments(density: str, values: list[Number], route: Callable[..., Any]) -> list[tuple[Number, Number, Number]]:
    """Moments of each nearest-rounding cell, the end cells reaching to infinity, about its own value."""
    edges = [-inf, *((a + b) / 2 for a, b in itertools.pairwise(values)), inf]
    part = reference.parts(density)[0]
    return [reference.integrate(part, a, b, v, v, route) for a, b, v in zip(edges[:-1], edges[1:], values, strict=True)]


def gradient(density: str, levels: list[Number], scale: Number, shift: Number) -> tuple[Number, Number]:
    """-1/2 of dMSE/ds and of dMSE/dz."""
    moments = cell_moments(density, [shift + scale * v for v in levels], reference.by_closed_form)
    return sum(v * m[1] for v, m in zip(levels, moments, strict=True)), sum(m[1] for m in moments)


def mse(density: str, values: list[Number]) -> Number:
    """The MSE in closed form; raises if quadrature disagrees."""
    closed = sum(m[2] for m in cell_moments(density, values, reference.by_closed_form))
    with mp.workdps(reference.QUADRATURE_DIGITS):
        direct = sum(m[2] for m in cell_moments(density, values, reference.by_quadrature))
    if abs(closed - direct) > AGREEMENT * closed:
        raise ArithmeticError(f"{density}: MSE {mp.nstr(closed, 25)} in closed form, {mp.nstr(direct, 25)} integrated")
    return closed


# The float64 scan: P(X > c) and E[X; X > c], an even function of c.


def _laplace(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    decay = np.exp(-np.sqrt(2) * np.abs(c)) / 2
    return np.where(c > 0, decay, 1 - decay), (np.abs(c) + 1 / np.sqrt(2)) * decay


def _logistic(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    h = np.sqrt(3) / np.pi
    mass, t = special.expit(-c / h), np.abs(c)
    return mass, t * special.expit(-t / h) + h * np.log1p(np.exp(-t / h))


def _student(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    peak = float(reference.StudentT(5.0).peak())
    return special.stdtr(5, -c * np.sqrt(5 / 3)), peak * (1 + c * c / 3) ** -2 * 3 / 4


def _gaussian(c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return special.ndtr(-c), np.exp(-c * c / 2) / np.sqrt(2 * np.pi)


TAILS = {"gaussian": _gaussian, "laplace": _laplace, "logistic": _logistic, "student-t:df=5": _student}


def scan_cells(density: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mass and integral of x over the cell of each value, float64; one quantizer a row."""
    mass, first = TAILS[density]((values[:, 1:] + values[:, :-1]) / 2)
    one = np.ones((len(values), 1))
    return -np.diff(np.hstack([one, mass, 0 * one])), -np.diff(np.hstack([0 * one, first, 0 * one]))


def scan_slopes(density: str, levels: np.ndarray, scales: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Float64 twin of `gradient` for many scales; the shift is part of the levels."""
    values = scales[:, None] * levels
    mass, first = scan_cells(density, values)
    moment = first - values * mass
    return moment @ levels, moment.sum(axis=1)


def scan_mse(density: str, levels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """MSE = 1 - 2 s B + s^2 C, to about 1e-9 relative."""
    values = scales[:, None] * levels
    mass, first = scan_cells(density, values)
    return 1 + (values * (values * mass - 2 * first)).sum(axis=1)


def scanned_minima(density: str, grid: str) -> list[Number]:
    """Scales of all local minima at zero shift that the scan resolves (BEST_ONLY: of those that may win)."""
    levels = exact_levels(grid)
    sizes = sorted({abs(float(v)) for v in levels} - {0.0})
    low, high = np.log2(0.05 / sizes[-1]), np.log2(64 / sizes[0])
    scales = 2.0 ** np.arange(low, high, 1 / SCANS_PER_OCTAVE)
    plain = np.array([float(v) for v in levels])
    slope, _ = scan_slopes(density, plain, scales)
    brackets = np.flatnonzero((slope[:-1] > 0) & (slope[1:] <= 0))
    if grid in BEST_ONLY:
        # Copies of the best differ by less than 1e-5, as does a minimum from its bracket's end; other minima by more.
        height = scan_mse(density, plain, scales[brackets])
        brackets = brackets[height < height.min() * 1.00002]
    found = []
    for i in brackets:
        bracket = mpf(scales[i]), mpf(scales[i + 1])

        def equation(s: Number) -> Number:
            return gradient(density, levels, s, mpf(0))[0]

        if equation(bracket[0]) > 0 > equation(bracket[1]):  # else rounding noise of the scan
            found.append(mp.findroot(equation, bracket, solver="anderson", tol=mpf("1e-90")))
    return found


def uniform_minima(grid: str) -> list[Number]:
    """All local minima for the uniform density, from the exact pieces of the MSE."""
    levels = exact_levels(grid)
    end = mp.sqrt(3)
    thresholds = [(a + b) / 2 for a, b in itertools.pairwise(levels)]
    breaks = sorted({end / abs(t) for t in thresholds if t != 0})
    pieces = itertools.pairwise([mpf(0), *breaks, 2 * breaks[-1] + 1000])
    inner, left, right = [], [], []
    for low, high in pieces:
        for s in falling_then_rising(uniform_piece(levels, thresholds, (low + high) / 2)):
            # A minimum on a break is one only if both pieces have it there: the MSE is once differentiable.
            if abs(s - high) < mpf("1e-40") * high:
                left.append(high)
            elif abs(s - low) < mpf("1e-40") * high:
                right.append(low)
            elif low < s < high:
                inner.append(s)
    return sorted([*inner, *(s for s in left if s in right)])


def uniform_piece(levels: list[Number], thresholds: list[Number], scale: Number) -> list[Number]:
    """Coefficients of the MSE, times 6 sqrt 3, as a cubic in s near `scale`, constant first.

    The sum over cells of [(x - s l)^3] with x = s t at inner edges and x = +-end at outer ones.
    """
    end = mp.sqrt(3)
    cubic = [mpf(0)] * 4
    for level, lower, upper in zip(levels, [-inf, *thresholds], [*thresholds, inf], strict=True):
        if lower * scale >= end or upper * scale <= -end:
            continue
        for edge, sign, outside in ((upper, 1, upper * scale > end), (lower, -1, lower * scale < -end)):
            if outside:
                terms = (sign * end**3, -3 * end**2 * level, sign * 3 * end * level**2, -(level**3))
                cubic = [c + sign * term for c, term in zip(cubic, terms, strict=True)]
            else:
                cubic[3] += sign * (edge - level) ** 3
    return cubic


def falling_then_rising(cubic: list[Number]) -> list[Number]:
    """Local minima of a cubic given by its coefficients, constant first."""
    _, b, c, d = cubic
    if abs(d) < mpf("1e-45"):
        return [-b / (2 * c)] if c > mpf("1e-45") else []
    discriminant = c * c - 3 * b * d
    return [(-c + mp.sqrt(discriminant)) / (3 * d)] if discriminant > 0 else []


def digits(value: Number) -> str:
    return mp.nstr(value, 20)


def best_scale(density: str, grid: str) -> dict[str, Any]:
    scales = uniform_minima(grid) if density == "uniform" else scanned_minima(density, grid)
    levels = exact_levels(grid)
    minima = sorted((mse(density, [s * v for v in levels]), s) for s in scales)
    if grid in BEST_ONLY:
        return {"scale": digits(minima[0][1]), "mse": digits(minima[0][0])}
    return {
        "scale": digits(minima[0][1]),
        "mse": digits(minima[0][0]),
        "minima": [[digits(s), digits(value)] for value, s in minima],
    }


def best_shift(density: str, grid: str) -> dict[str, Any]:
    """Scale and shift free: zeros of the slope by the shift along the scales that are best for each shift / scale.

    Shifts run to 2 std on either side, and in 1/80 of a step around the centre of the grid; the mean stays well inside
    the range, outside of it no scale is best.
    """
    levels = exact_levels(grid)
    plain = np.array([float(v) for v in levels])
    scale0 = float(best_scale(density, grid)["scale"])

    def best_for(ratio: float) -> float:
        def slope(s: float) -> float:
            return float(scan_slopes(density, plain + ratio, np.array([s]))[0][0])

        return optimize.brentq(slope, scale0 / 20, scale0 * 8, xtol=1e-15)

    def across(ratio: float) -> float:
        return float(scan_slopes(density, plain + ratio, np.array([best_for(ratio)]))[1][0])

    centre = -np.mean(plain)
    ratios = np.sort(np.concatenate([centre + np.linspace(-1.51, 1.49, 241), np.linspace(-2, 2, 161) / scale0]))
    ratios = ratios[(plain[0] + ratios < -0.7) & (plain[-1] + ratios > 0.7)]
    slopes = np.array([across(ratio) for ratio in ratios])
    found = []
    for i in np.flatnonzero((slopes[:-1] > 0) & (slopes[1:] <= 0)):
        ratio = optimize.brentq(across, ratios[i], ratios[i + 1], xtol=1e-13)
        s, z = stationary(density, levels, mpf(best_for(ratio)), mpf(best_for(ratio) * ratio))
        found.append((mse(density, [z + s * v for v in levels]), s, z))
    least = min(found)[0]
    best = sorted((item for item in found if item[0] < least * (1 + mpf("1e-18"))), key=lambda item: item[2])
    return {
        "mse": digits(least),
        "optima": [{"scale": digits(s), "shift": digits(z), "shift_over_scale": digits(z / s)} for _, s, z in best],
    }


def stationary(density: str, levels: list[Number], scale: Number, shift: Number) -> tuple[Number, Number]:
    """Newton's method on both slopes, with differences over 1e-25 for their derivatives."""
    h = scale * mpf("1e-25")
    for _ in range(12):
        here = gradient(density, levels, scale, shift)
        by_scale = gradient(density, levels, scale + h, shift)
        by_shift = gradient(density, levels, scale, shift + h)
        jacobian = mp.matrix([[(by_scale[i] - here[i]) / h, (by_shift[i] - here[i]) / h] for i in range(2)])
        step = mp.lu_solve(jacobian, mp.matrix([-v for v in here]))
        scale, shift = scale + step[0], shift + step[1]
        if mp.norm(step, inf) < mpf("1e-35") * scale:
            return scale, shift
    raise ArithmeticError(f"{density}: no stationary point near scale {scale}, shift {shift}")


def lloyd_max(density: str, n: int) -> dict[str, Any]:
    # Panter-Dite: levels as dense as pdf^(1/3), the same family stretched by sqrt 3 (Gaussian) or 3 (Laplace).
    p = (np.arange(n) + 0.5) / n
    if density == "gaussian":
        start = special.ndtri(p) * np.sqrt(3)
    else:
        start = np.sign(p - 0.5) * -np.log(1 - abs(2 * p - 1)) * 3 / np.sqrt(2)
    values = [mpf(v) for v in lloyd(density, start)]
    for _ in range(12):
        moments = cell_moments(density, values, reference.by_closed_form)
        change = centroid_step(density, values, moments)
        values = [v + c for v, c in zip(values, change, strict=True)]
        if max(abs(c) for c in change) < mpf("1e-45"):
            levels = [mpf(0) if abs(v) < mpf("1e-40") else v for v in values]
            return {"mse": digits(mse(density, values)), "levels": [digits(v) for v in levels]}
    raise ArithmeticError(f"Lloyd-Max: {density} with {n} levels did not converge")


def lloyd(density: str, values: np.ndarray) -> np.ndarray:
    """Lloyd's falling iteration in float64, close enough for Newton's."""
    for _ in range(20_000):
        values = (values - values[::-1]) / 2
        mass, first = scan_cells(density, values[None])
        before = values
        values = first[0] / mass[0]
        if np.abs(values - before).max() < 1e-8:
            break
    return (values - values[::-1]) / 2


def centroid_step(density: str, values: list[Number], moments: list[Any]) -> list[Number]:
    """Newton step of the centroid conditions, the first moment of each cell about its value is zero, kept symmetric.

    Without the symmetry the Jacobian is singular for Laplace and even n: an exponential has no memory, so the halves of
    the codebook may move with the edge between them, to first order.
    """
    part = family(density)
    n, edges = len(values), [-inf, *((a + b) / 2 for a, b in itertools.pairwise(values)), inf]
    jacobian = mp.zeros(n)
    for k, value in enumerate(values):
        jacobian[k, k] = -moments[k][0]
        for j, edge in ((k - 1, edges[k]), (k + 1, edges[k + 1])):
            if 0 <= j < n:
                push = abs(edge - value) * part.pdf(abs(edge)) / 2
                jacobian[k, k] += push
                jacobian[k, j] += push
    half = n // 2
    folded = mp.matrix(half)
    for k, j in itertools.product(range(half), repeat=2):
        folded[k, j] = jacobian[k, j] - jacobian[k, n - 1 - j]
    lower = list(mp.lu_solve(folded, mp.matrix([-m[1] for m in moments[:half]])))
    return [*lower, *[mpf(0)] * (n % 2), *(-c for c in reversed(lower))]


TASKS = [
    *(("scale", density, grid) for density in DENSITIES for grid in (*INTEGERS, *FLOATS)),
    *(("shift", density, grid) for density, grid in FREE_SHIFT),
    *(("lloyd_max", density, n) for density, n in LLOYD_MAX),
]


def compute(task: tuple[str, str, Any]) -> dict[str, Any]:
    kind, density, what = task
    reference.cached_tail.cache_clear()
    started = time.perf_counter()
    with mp.workdps(DIGITS):
        result = {"scale": best_scale, "shift": best_shift, "lloyd_max": lloyd_max}[kind](density, what)
    key = "n_levels" if kind == "lloyd_max" else "grid"
    return {"kind": kind, "density": density, key: what, **result, "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="compute and print the tasks that contain this text; write nothing")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    tasks = [task for task in TASKS if options.only in " ".join(map(str, task))]
    started = time.perf_counter()
    done = []
    with ProcessPoolExecutor(options.processes) as pool:
        for result in pool.map(compute, tasks):
            seconds = result.pop("seconds")
            if options.only or seconds > 30:
                print(json.dumps(result), f"{seconds:.1f} s", flush=True)
            done.append(result)
    print(f"{len(done)} optima, {time.perf_counter() - started:.0f} s")
    if not options.only:
        text = "[\n" + ",\n".join(json.dumps(result) for result in done) + "\n]\n"
        Path(__file__).with_name("optima.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
