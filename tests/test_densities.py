"""Every density keeps one contract, and the formulas of the parametric ones are those of mpmath.

The references are closed forms of the raw tail moments (erfc, dilogarithm, incomplete beta and gamma functions) at
60 digits, which cover the cancellation of differences; `test_closed_forms_are_the_integrals_of_the_pdf` holds them
against mpmath's quadrature of the pdf.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from mpmath import mp, mpf

import qerror as qe
from qerror.densities import quadrature
from qerror.search.densities.objective import Objective

INF = math.inf

# Of the integral of |x - about|^j f: twelve nodes on resolved panels, and the rounding of the nodes themselves.
CELL_TOLERANCE = 1e-14
# Relative, down to 1e-300: one rounding of the argument moves exp(-690) by 690 eps, a pdf of power 100 by more.
TAIL_TOLERANCE = 1e-11
# Of 1 and of std: `tails` promises absolute accuracy.
TAILS_TOLERANCE = 2e-15
# Densities known by a pdf alone promise this.
NUMERIC_TOLERANCE = 1e-8
# Sums of cells in another order.
SUM_TOLERANCE = 1e-13
# Largest z-score accepted among some 500 under fixed rngs: passed by chance with probability above 0.999.
Z_LIMIT = 5.0
# A prediction wrong by this relative amount must be seen by the same samples.
SEEN = 0.01


# -- closed forms ----------------------------------------------------------------------------------------------------


def _gaussian(x: mpf) -> list[mpf]:
    f, s = mpmath.npdf(x), mpmath.erfc(x / mpmath.sqrt(2)) / 2
    return [s, f, x * f + s]


def _laplace(x: mpf) -> list[mpf]:
    b = 1 / mpmath.sqrt(2)
    e = mpmath.exp(-x / b) / 2
    return [e, e * (x + b), e * (x * x + 2 * b * x + 2 * b * b)]


def _logistic(x: mpf) -> list[mpf]:
    k = mpmath.pi / mpmath.sqrt(3)
    s, logs = 1 / (1 + mpmath.exp(k * x)), mpmath.log1p(mpmath.exp(-k * x)) / k
    rest = -mpmath.polylog(2, -mpmath.exp(-k * x)) / k**2
    return [s, x * s + logs, x * x * s + 2 * x * logs + 2 * rest]


def _student(df: float) -> Callable[[mpf], list[mpf]]:
    def tail(x: mpf) -> list[mpf]:
        v = mpf(df)
        w = mpmath.sqrt(v - 2)
        peak = mpmath.gamma((v + 1) / 2) / (mpmath.gamma(v / 2) * mpmath.sqrt(mpmath.pi) * w)
        y = 1 / (1 + (x / w) ** 2)
        first = peak * w * w / (v - 1) * y ** ((v - 1) / 2)
        mass = peak * w / 2 * mpmath.betainc(v / 2, mpf(1) / 2, 0, y)
        return [mass, first, peak * w**3 / 2 * mpmath.betainc(v / 2 - 1, mpf(3) / 2, 0, y)]

    return tail


def _exponential_power(beta: float) -> Callable[[mpf], list[mpf]]:
    def tail(x: mpf) -> list[mpf]:
        b = mpf(beta)
        alpha = mpmath.sqrt(mpmath.gamma(1 / b) / mpmath.gamma(3 / b))
        v = (x / alpha) ** b
        return [alpha**j * mpmath.gammainc((j + 1) / b, v) / (2 * mpmath.gamma(1 / b)) for j in range(3)]

    return tail


def _uniform(x: mpf) -> list[mpf]:
    end = mpmath.sqrt(3)
    return [(end ** (j + 1) - min(x, end) ** (j + 1)) / (2 * (j + 1) * end) for j in range(3)]


FORMULAS: dict[str, Callable[[mpf], list[mpf]]] = {
    "gaussian": _gaussian,
    "laplace": _laplace,
    "logistic": _logistic,
    **{f"student-t:df={df}": _student(df) for df in (2.001, 2.5, 5, 30, 1000)},
    **{
        f"generalized-gaussian:beta={b}": _exponential_power(b)
        for b in (0.15, 0.3, 0.5, 0.7, 1, 1.5, 2, 2.5, 3, 7.3, 8)
    },
}
MIXED = {
    "mixture": [("gaussian", 0.9, 0.0, 1.0), ("student-t:df=2.001", 0.08, 1.0, 5.0), ("laplace", 0.02, -3.0, 0.01)]
}


def upper_moments(name: str, x: float | mpf) -> list[mpf]:
    """Integrals of t^j f from x to infinity in standard form, any sign of x."""
    x = mpf(x)
    tail = FORMULAS[name](abs(x)) if mpmath.isfinite(x) else [mpf(0)] * 3
    return tail if x >= 0 else [1 - tail[0], tail[1], 1 - tail[2]]


def exact(name: str, lower: float, upper: float, about: float, mean: float = 0.0, std: float = 1.0) -> list[mpf]:
    """Moments of a cell about `about`, by differences at 60 digits."""
    if name in MIXED:
        parts = [(w, exact(n, lower, upper, about, m, s)) for n, w, m, s in MIXED[name]]
        total = mpmath.fsum(mpf(w) for w, _ in parts)
        return [mpmath.fsum(mpf(w) * part[j] for w, part in parts) / total for j in range(3)]
    low, high, q = ((mpf(value) - mpf(mean)) / mpf(std) for value in (lower, upper, about))
    # From the side where both are small.
    if low < 0 and high <= 0:
        a, b, c = (high * -1, low * -1, q * -1)
        sign = -1
    else:
        a, b, c, sign = low, high, q, 1
    m0, m1, m2 = (u - v for u, v in zip(upper_moments(name, a), upper_moments(name, b), strict=True))
    return [m0, sign * mpf(std) * (m1 - c * m0), mpf(std) ** 2 * (m2 - 2 * c * m1 + c * c * m0)]


def build(name: str) -> qe.Density:
    if name not in MIXED:
        return qe.density(name)
    parts = MIXED[name]
    families = [qe.density(f"{n}{',' if ':' in n else ':'}mean={m},std={s}") for n, _, m, s in parts]
    return qe.Mixture(families, [w for _, w, _, _ in parts])


def worst(got: Any, want: list[mpf]) -> float:
    """Largest error of the three moments in units of the integral of |x - about|^j f."""
    scales = [want[0], mpmath.sqrt(want[0] * want[2]), want[2]]
    return float(max(abs(mpf(float(g)) - w) / s for g, w, s in zip(got, want, scales, strict=True)))


CELLS = [
    (-0.3, 0.2, 0.0),
    (-1e-6, 1e-6, 0.0),
    (1e-6, 3e-6, 2e-6),
    (-3e-4, 1e-3, 2e-4),
    (0.7, 1.9, 1.25),
    (-2.5, -1.0, -2.0),
    (-9.0, 20.0, 0.5),
    (2.0, 40.0, 3.0),
    (5.0, 5.0625, 5.03125),
    (30.0, 31.0, 30.5),
    (-5e5, 5e5, 0.0),
    (2.0, INF, 1.875),
    (-INF, -4.0, -4.0),
    (12.0, INF, 16.0),
]


@pytest.fixture(autouse=True)
def _digits() -> Any:
    with mp.workdps(60):
        yield


@pytest.mark.parametrize("name", [*FORMULAS, *MIXED])
def test_cell_moments_are_those_of_mpmath(name: str) -> None:
    density = build(name)
    for lower, upper, about in CELLS:
        want = exact(name, lower, upper, about)
        if want[2] > 1e-290 and want[0] > 1e-290:
            deep = want[2] < 1e-16
            error = worst(density.moments(lower, upper, about), want)
            assert error <= (TAIL_TOLERANCE if deep else CELL_TOLERANCE), (lower, upper, about)


@pytest.mark.parametrize("name", [*FORMULAS, *MIXED])
@pytest.mark.parametrize("p", [1e-3, 1e-20, 1e-100, 1e-250])
def test_tail_moments_are_those_of_mpmath(name: str, p: float) -> None:
    density = build(name)
    x = float(density.isf(p))
    if float(density.pdf(x)) < 1e-290:
        # On a power law 1e-250 of the mass lies so far out that the pdf itself is no float64 any more.
        p = 1e-60
        x = float(density.isf(p))
    for about in (x, 1.02 * x):
        want = exact(name, x, INF, about)
        assert worst(density.moments(x, INF, about), want) <= TAIL_TOLERANCE
    assert abs(float(mpf(float(density.sf(x))) / want[0] - 1)) <= TAIL_TOLERANCE
    assert abs(float(want[0] / mpf(p) - 1)) <= TAIL_TOLERANCE


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("count", [40, 400])
def test_tails_are_those_of_mpmath(name: str, count: int) -> None:
    density = build(name)
    generator = np.random.default_rng(count)
    t = np.sort(np.concatenate([generator.normal(0, 3, count // 2), 10 ** generator.uniform(-16, 2, count // 2)]))
    mass, first = density.tails(t)
    for i in range(0, count, count // 40):
        tail = FORMULAS[name](abs(mpf(float(t[i]))))
        assert abs(mpf(float(abs(mass[i]))) - tail[0]) <= TAILS_TOLERANCE
        assert abs(mpf(float(first[i])) - tail[1]) <= TAILS_TOLERANCE
        assert np.signbit(mass[i]) == (t[i] < 0)


# Clips in std at which gammaincc is worst, and at which a threshold is near the end of a bounded support.
WORST_CLIPS = (6.461, 5.2974, 2.6841, 3.4)


@pytest.mark.parametrize(("mean", "std", "shift"), [(0.0, 1.0, 0.0), (-330.0, 0.7, -330.0), (-330.0, 0.7, -329.9)])
@pytest.mark.parametrize("name", [*FORMULAS, "uniform"])
def test_sums_of_the_search_are_those_of_mpmath(name: str, mean: float, std: float, shift: float) -> None:
    """B and C of MSE = A - 2 s B + s^2 C are as exact as the proofs of the least MSE take them for."""
    mp.dps = 25
    formula = functools.cache(_uniform if name == "uniform" else FORMULAS[name])
    density = qe.density(f"{name}{',' if ':' in name else ':'}mean={mean!r},std={std!r}")
    rng = np.random.default_rng(20)
    offset = mpf(mean) - mpf(shift)
    power = mpf(std) ** 2 + offset**2
    # Of A, and of the rounding of thresholds where these are far from 0 and not counted from the mean.
    noise = 8 * np.finfo(np.float64).eps * (power + (abs(shift) * mpmath.sqrt(power) if offset else 0))
    for grid in map(qe.grid, ("int2", "ternary", "int3_midrise")):
        scales = np.array([*WORST_CLIPS, *np.exp(rng.uniform(np.log(0.3), np.log(9), 2))]) * std / grid.absmax
        objective = Objective(density, grid, np.array([shift]), "nearest", "exact")
        points = objective(np.zeros(scales.size, np.intp), scales)
        levels = [mpf(v) for v in grid.levels.tolist()]
        for s, got_b, got_c in zip(scales.tolist(), points.b.tolist(), points.c.tolist(), strict=True):
            b, c = levels[0] * offset, levels[0] ** 2
            for low, high in itertools.pairwise(levels):
                u = (s * (low + high) / 2 - offset) / mpf(std)
                side, first, _ = formula(abs(u))
                mass = side if u >= 0 else 1 - side
                b += (high - low) * (first * mpf(std) + offset * mass)
                c += (high**2 - low**2) * mass
            assert abs(2 * s * (mpf(got_b) - b)) <= noise
            assert abs(mpf(s) ** 2 * (mpf(got_c) - c)) <= noise
        assert objective.noise[0] == pytest.approx(float(noise), rel=1e-14)


@pytest.mark.parametrize("name", FORMULAS)
def test_unimodal(name: str) -> None:
    """Proofs of minima rest on it: the pdf nowhere rises with the distance from the mean (but for rounding)."""
    density = qe.density(name)
    t = np.concatenate([[0.0], np.geomspace(1e-12, 1e3, 4000)])
    pdf = density.pdf_from(0.0, t)
    assert density.unimodal
    assert (pdf[1:] <= pdf[:-1] * (1 + 1e-14)).all()


@pytest.mark.parametrize("name", FORMULAS)
def test_closed_forms_are_the_integrals_of_the_pdf(name: str) -> None:
    with mp.workdps(30):
        pdf = PDFS[name.split(":")[0]](name)
        for lower, upper, about in [(0.3, 1.1, 0.5), (1.5, 4.0, 2.0)]:
            points = mpmath.linspace(lower, upper, 5)
            for j, want in enumerate(exact(name, lower, upper, about)):
                got = mpmath.quad(lambda x, j=j, about=about: (x - about) ** j * pdf(x), points)
                assert abs(got - want) <= mpf("1e-20") * abs(want)


def _mp_pdf_student(name: str) -> Callable[[mpf], mpf]:
    v = mpf(float(name.split("=")[1]))
    peak = mpmath.gamma((v + 1) / 2) / (mpmath.gamma(v / 2) * mpmath.sqrt(mpmath.pi * (v - 2)))
    return lambda x: peak * (1 + x * x / (v - 2)) ** (-(v + 1) / 2)


def _mp_pdf_power(name: str) -> Callable[[mpf], mpf]:
    b = mpf(float(name.split("=")[1]))
    alpha = mpmath.sqrt(mpmath.gamma(1 / b) / mpmath.gamma(3 / b))
    return lambda x: b / (2 * alpha * mpmath.gamma(1 / b)) * mpmath.exp(-((abs(x) / alpha) ** b))


PDFS: dict[str, Callable[[str], Callable[[mpf], mpf]]] = {
    "gaussian": lambda name: mpmath.npdf,
    "laplace": lambda name: lambda x: mpmath.exp(-mpmath.sqrt(2) * abs(x)) / mpmath.sqrt(2),
    "logistic": lambda name: lambda x: mpmath.pi / mpmath.sqrt(48) / mpmath.cosh(mpmath.pi * x / mpmath.sqrt(12)) ** 2,
    "student-t": _mp_pdf_student,
    "generalized-gaussian": _mp_pdf_power,
}


@pytest.mark.parametrize("name", FORMULAS)
def test_pdf_is_that_of_mpmath(name: str) -> None:
    pdf, density = PDFS[name.split(":")[0]](name), qe.density(name)
    for x in (-7.0, -1.5, 1e-9, 0.4, 3.0, 12.0):
        want = pdf(mpf(x))
        if want < 1e-290:
            continue
        assert abs(float(mpf(float(density.pdf(x))) / want - 1)) <= 2e-15 * max(1.0, float(-mpmath.log(want)))


# -- the contract ----------------------------------------------------------------------------------------------------


def _triangle(x: np.ndarray) -> np.ndarray:
    return np.maximum(1.0 - np.abs(x), 0.0)


def _steps(x: np.ndarray) -> np.ndarray:
    return np.where(x < 0.3, 0.5, 0.85 / 0.7)


CONTRACT: dict[str, Callable[[], qe.Density]] = {
    "gaussian": lambda: qe.Gaussian(0.5, 2.0),
    "laplace": lambda: qe.Laplace(-3.0, 0.1),
    "logistic": qe.Logistic,
    "uniform": lambda: qe.Uniform(1.0, 2.0),
    "uniform bounds": lambda: qe.Uniform.from_bounds(-0.1, 0.7),
    "student 2.1": lambda: qe.StudentT(2.1),
    "student 5": lambda: qe.StudentT(5, 1.0, 3.0),
    "power 0.5": lambda: qe.GeneralizedGaussian(0.5),
    "power 3": lambda: qe.GeneralizedGaussian(3.0, -1.0, 0.5),
    "mixture": lambda: qe.Mixture([qe.Gaussian(), qe.StudentT(3, 2.0, 10.0), qe.Uniform(1.0, 0.1)], [5, 2, 1]),
    "rectified": lambda: qe.Rectified(qe.Gaussian(-0.5, 2.0)),
    "rectified mixture": lambda: qe.Rectified(qe.Mixture([qe.Laplace(), qe.Logistic(3.0, 0.2)], [0.7, 0.3])),
    "mixed with an atom": lambda: qe.Mixture([qe.Rectified(qe.Laplace(std=3.0)), qe.Gaussian(-2.0)], [0.5, 0.5]),
    "histogram": lambda: qe.Histogram([3, 0, 1, 8, 2], [-2.0, -1.0, 0.0, 0.25, 0.5, 4.0]),
    "scipy gamma": lambda: qe.from_scipy(scipy.stats.gamma(2.5, scale=3.0)),
    "scipy chi2(1)": lambda: qe.from_scipy(scipy.stats.chi2(1)),
    "scipy skewnorm": lambda: qe.from_scipy(scipy.stats.skewnorm(4.0)),
    "pdf triangle": lambda: qe.from_pdf(_triangle, (-1, 1)),
    "pdf steps": lambda: qe.from_pdf(_steps, (0, 1), kinks=[0.3]),
    "pdf lognormal": lambda: qe.from_pdf(scipy.stats.lognorm(0.8).pdf, (0, INF)),
}
# E[x^4] is infinite: the variance of a sample has no z-score.
NO_FOURTH_MOMENT = {"student 2.1", "mixture"}
NUMERIC = [name for name in CONTRACT if name.startswith(("pdf", "scipy"))]


@pytest.fixture(scope="module")
def densities() -> dict[str, qe.Density]:
    return {name: make() for name, make in CONTRACT.items()}


@pytest.fixture(params=CONTRACT)
def case(request: Any, densities: dict[str, qe.Density]) -> tuple[str, qe.Density]:
    return request.param, densities[request.param]


def spread(density: qe.Density, count: int = 13) -> np.ndarray:
    """Edges over the density, on no round numbers, some beyond its support."""
    return float(density.mean) + float(density.std) * np.linspace(-4.1, 5.3, count)


def tolerance(name: str) -> float:
    return NUMERIC_TOLERANCE if name in NUMERIC else SUM_TOLERANCE


def test_whole_line(case: tuple[str, qe.Density]) -> None:
    name, density = case
    mass, first, second = density.moments(-INF, INF, density.mean)
    assert abs(mass - 1) <= tolerance(name)
    assert abs(first) <= tolerance(name) * density.std
    assert second == pytest.approx(density.std**2, rel=tolerance(name))
    assert density.status == ""


def test_atoms_and_pdf_share_the_mass(case: tuple[str, qe.Density]) -> None:
    _, density = case
    points, masses = density.atoms if density.has_atoms else (np.empty(0), np.empty(0))
    assert density.has_atoms == (points.size > 0)
    assert (masses >= 0).all()
    cuts = np.unique(np.concatenate([density.panels(), density.kinks, spread(density)]))
    inside = math.fsum(
        scipy.integrate.quad(density.pdf, a, b, epsabs=1e-11, epsrel=1e-9)[0] for a, b in itertools.pairwise(cuts)
    )
    outside = density.cdf(cuts[0]) + density.sf(cuts[-1])
    assert inside + outside + masses.sum() == pytest.approx(1.0, abs=1e-9)
    for point, mass in zip(points, masses, strict=True):
        assert density.cdf(point) - density.cdf(np.nextafter(point, -INF)) == pytest.approx(mass, abs=1e-14)


def test_cells_against_adaptive_quadrature(case: tuple[str, qe.Density]) -> None:
    name, density = case
    edges = spread(density, 8)
    about = 0.5 * (edges[1:] + edges[:-1]) + 0.1 * np.diff(edges)
    points, masses = density.atoms if density.has_atoms else (np.empty(0), np.empty(0))
    for low, high, q in zip(edges[:-1], edges[1:], about, strict=True):
        cuts = np.concatenate([density.panels(), density.kinks])
        cuts = np.unique(np.concatenate([[low, high], cuts[(cuts > low) & (cuts < high)]]))
        inside = (points > low) & (points <= high)
        got = density.moments(low, high, q)
        for j in range(3):
            want = (masses * (points - q) ** j)[inside].sum() + math.fsum(
                scipy.integrate.quad(lambda x, j=j, q=q: (x - q) ** j * density.pdf(x), a, b, epsrel=1e-10)[0]
                for a, b in itertools.pairwise(cuts)
            )
            assert got[j] == pytest.approx(want, rel=1e-9, abs=tolerance(name) * (high - low) ** j)


def test_cells_add_up(case: tuple[str, qe.Density]) -> None:
    name, density = case
    edges = np.concatenate([[-INF], spread(density), [INF]])
    parts = density.cell_moments(edges, np.full(edges.size - 1, 0.25))
    whole = density.moments(-INF, INF, 0.25)
    power = density.std**2 + (density.mean - 0.25) ** 2
    assert parts.shape == (3, edges.size - 1)
    for j in range(3):
        assert abs(parts[j].sum() - whole[j]) <= 10 * SUM_TOLERANCE * power ** (j / 2)
    assert (parts[0] >= 0).all()
    assert (parts[2] >= 0).all()
    single = density.moments(edges[3], edges[4], 0.25)
    np.testing.assert_allclose(parts[:, 3], single, rtol=1e-12, atol=1e-15)
    # `origin` moves edges and values together.
    moved = density.cell_moments(edges - 0.5, np.full(edges.size - 1, -0.25), 0.5)
    np.testing.assert_allclose(moved, parts, rtol=1e-11, atol=tolerance(name) * max(1.0, power))


def test_symmetry_and_unimodality_are_claimed_by_those_that_have_them(case: tuple[str, qe.Density]) -> None:
    """Searches trust both: a false claim of symmetry gives a wrong scale."""
    _, density = case
    t = float(density.std) * np.geomspace(1e-6, 30.0, 500)
    above, below = (density.pdf_from(density.mean, sign * t) for sign in (1.0, -1.0))
    if density.symmetric:
        np.testing.assert_allclose(above, below, rtol=1e-12, atol=1e-300)
    if density.unimodal:
        assert all((side[1:] <= side[:-1] * (1 + 1e-13)).all() for side in (above, below))


def test_ties_go_where_they_are_sent() -> None:
    density = qe.Rectified(qe.Gaussian())
    edges, about = np.array([-1.0, 0.0, 1.0]), np.array([0.0, 0.0])
    lower = density.cell_moments(edges, about, 0.0, edges)
    upper = density.cell_moments(edges, about, 0.0, np.array([-1.0, np.nextafter(0.0, -1.0), 1.0]))
    np.testing.assert_allclose(lower[0], [0.5, 0.5 - float(density.sf(1.0))], rtol=1e-14)
    np.testing.assert_allclose(upper[0], [0.0, 1.0 - float(density.sf(1.0))], rtol=1e-14)


def test_limits(case: tuple[str, qe.Density]) -> None:
    name, density = case
    assert float(density.cdf(-INF)) == pytest.approx(0.0, abs=tolerance(name))
    assert float(density.cdf(INF)) == pytest.approx(1.0, abs=tolerance(name))
    assert float(density.sf(-INF)) == pytest.approx(1.0, abs=tolerance(name))
    assert float(density.sf(INF)) == pytest.approx(0.0, abs=tolerance(name))
    x = spread(density)
    np.testing.assert_allclose(density.cdf(x) + density.sf(x), 1.0, atol=tolerance(name))
    assert (np.diff(density.cdf(x)) >= 0).all()
    assert (np.asarray(density.pdf(x)) >= 0).all()
    low, high = density.support
    assert float(density.cdf(np.nextafter(low, -INF))) == 0.0
    assert float(density.sf(high)) == 0.0
    assert np.asarray(density.quantile(0.0)) == low
    assert np.asarray(density.isf(0.0)) == high


def test_tails_agree_with_the_moments(case: tuple[str, qe.Density]) -> None:
    name, density = case
    t = np.concatenate([spread(density, 33), density.mean + density.std * np.array([6.0, 1e3])])
    mass, first = density.tails(t)
    slow_mass, slow_first = quadrature.tails(density, t)
    np.testing.assert_allclose(mass, slow_mass, atol=max(TAILS_TOLERANCE, 0.01 * tolerance(name)), rtol=0)
    np.testing.assert_allclose(first, slow_first, atol=10 * tolerance(name) * density.std, rtol=0)
    upper = t >= density.mean
    np.testing.assert_allclose(mass, np.where(upper, density.sf(t), -density.cdf(t)), atol=tolerance(name), rtol=0)
    assert (first >= 0).all()


def test_quantiles(case: tuple[str, qe.Density]) -> None:
    name, density = case
    p = np.array([1e-12, 1e-5, 0.01, 0.2, 0.5, 0.77, 0.999, 1 - 1e-9])
    for solve, reached, sign in ((density.quantile, density.cdf, 1.0), (density.isf, density.sf, -1.0)):
        x = np.asarray(solve(p))
        slack, rounding = (1e-9, 1e-13) if name in NUMERIC else (1e-12, 1e-15)
        step = 4e-15 * (np.abs(x) + 1e-3 * density.std)
        # At a point mass the probability steps over p, elsewhere both sides are p.
        low, high = np.asarray(reached(x - sign * step)), np.asarray(reached(x + sign * step))
        assert (low <= p + slack * np.minimum(p, 1 - p) + rounding).all()
        assert (high >= p - slack * np.minimum(p, 1 - p) - rounding).all()
    for bad in (-0.1, 1.5, math.nan):
        if name not in NUMERIC:
            with pytest.raises(ValueError, match="p must lie between 0 and 1, got"):
                density.quantile(bad)


@pytest.mark.parametrize(
    "name",
    [
        "gaussian",
        "laplace",
        "logistic",
        "student-t:df=2.1",
        "student-t:df=30",
        "generalized-gaussian:beta=0.4",
        "mixture(0.5*gaussian; 0.5*laplace:mean=3)",
        "rectified(logistic)",
    ],
)
def test_quantiles_far_out(name: str) -> None:
    density = qe.density(name)
    for p in (1e-30, 1e-300):
        assert float(density.sf(density.isf(p))) == pytest.approx(p, rel=1e-11)
        if not density.has_atoms:
            assert float(density.cdf(density.quantile(p))) == pytest.approx(p, rel=1e-11)


@pytest.mark.parametrize(
    "density",
    [
        qe.density("mixture(0.9*gaussian; 0.1*gaussian:std=4)"),
        qe.density("mixture(0.5*student-t:df=3; 0.5*uniform:mean=50)"),
        qe.Mixture([qe.Gaussian(), qe.Empirical([0.0, 1.0, 2.0])], [0.5, 0.5]),
        qe.Mixture([qe.Uniform(-5.0, 0.1), qe.Uniform(5.0, 0.1)], [0.3, 0.7]),
        qe.from_pdf(lambda x: 1 - np.abs(x), (-1, 1), kinks=[0]),
    ],
    ids=["tails", "far parts", "atoms", "gap", "pdf"],
)
def test_many_quantiles_are_those_of_one_by_one(density: qe.Density) -> None:
    """Thousands of probabilities are solved with the help of each other."""
    rng = np.random.default_rng(3)
    p = np.concatenate([rng.random(4000), 0.06 * rng.random(2000) ** 4, 10.0 ** (-300.0 * rng.random(500)), [0.5] * 9])
    for solve, reached in ((density.quantile, density.cdf), (density.isf, density.sf)):
        many, some = solve(p), slice(None, None, 301)
        # Probabilities are met within 1e-15: at 0, where the pdf may be small, that is no relative precision of x.
        np.testing.assert_allclose(many[some], [float(solve(q)) for q in p[some]], rtol=1e-11, atol=1e-13 * density.std)
        if not density.has_atoms:
            # Neighbouring numbers x have other probabilities.
            slack = 1e-11 * np.minimum(p, 1.0 - p) + 1e-15 + np.spacing(np.abs(many)) * density.pdf(many)
            assert (np.abs(reached(many) - p) <= slack).all()


def test_samples(case: tuple[str, qe.Density]) -> None:
    name, density = case
    n = 200_000
    x = density.sample(n, 20240229)
    assert x.shape == (n,)
    assert np.array_equal(x, density.sample(n, np.random.default_rng(20240229)))
    assert density.sample((2, 3), 1).shape == (2, 3)
    root = math.sqrt(n)

    def z_mean(mean: float) -> float:
        return abs(x.mean() - mean) / x.std() * root

    if name not in NO_FOURTH_MOMENT:
        assert z_mean(density.mean) < Z_LIMIT
        assert z_mean(density.mean + 4 * SEEN * density.std) > Z_LIMIT
        square = (x - density.mean) ** 2
        assert abs(square.mean() - density.std**2) / square.std() * root < Z_LIMIT
    edges = np.unique(density.quantile(np.linspace(0.05, 0.95, 19)))
    expected = np.asarray(density.cdf(edges))
    found = (x[:, None] <= edges).mean(axis=0)
    error = np.sqrt(np.maximum(expected * (1 - expected), 1e-12) / n)
    assert (np.abs(found - expected) / error < Z_LIMIT).all()
    assert (np.abs(found - (expected + 2 * SEEN * (1 - expected))) / error > Z_LIMIT).any()


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMULAS)),
    exponent=st.floats(-30, 30),
    mean=st.floats(-3, 3),
    cut=st.tuples(st.floats(-6, 6), st.floats(0.01, 5)),
    about=st.floats(-6, 6),
)
def test_scaling_and_reflection(
    name: str, exponent: float, mean: float, cut: tuple[float, float], about: float
) -> None:
    scale = 10.0**exponent
    low, high = cut[0], cut[0] + cut[1]
    join = "," if ":" in name else ":"
    plain = qe.density(f"{name}{join}mean={mean!r}")
    scaled = qe.density(f"{name}{join}mean={mean * scale!r},std={scale!r}")
    mirrored = qe.density(f"{name}{join}mean={-mean!r}")
    one = plain.moments(low, high, about)
    two = scaled.moments(low * scale, high * scale, about * scale)
    three = mirrored.moments(-high, -low, -about)
    bound = np.array([one[0], math.sqrt(one[0]) * math.sqrt(one[2]), one[2]])
    # Rounding of the ends moves the mass of a narrow cell.
    slack = 1e-11 * bound + 1e-300
    assert (np.abs(two / scale ** np.arange(3) - one) <= slack).all()
    assert (np.abs(three * [1, -1, 1] - one) <= slack).all()


# -- arrays of parameters --------------------------------------------------------------------------------------------

ARRAYS: dict[str, tuple[qe.Density, Callable[[int], qe.Density]]] = {
    "gaussian": (qe.Gaussian([0.0, 1.0, -2.0], [1.0, 3.0, 0.5]), lambda i: qe.Gaussian([0, 1, -2][i], [1, 3, 0.5][i])),
    "student": (qe.StudentT(3.0, 0.5, [1.0, 2.0, 3.0]), lambda i: qe.StudentT(3.0, 0.5, i + 1.0)),
    "uniform": (
        qe.Uniform.from_bounds([0.0, -1.0, 2.0], [1.0, 5.0, 2.5]),
        lambda i: qe.Uniform.from_bounds([0, -1, 2][i], [1, 5, 2.5][i]),
    ),
    "mixture": (
        qe.Mixture([qe.Laplace([0.0, 1.0, 2.0]), qe.Gaussian(std=0.1)], [0.5, 0.5]),
        lambda i: qe.Mixture([qe.Laplace(float(i)), qe.Gaussian(std=0.1)], [0.5, 0.5]),
    ),
    "rectified": (qe.Rectified(qe.Logistic([0.0, 1.0, 2.0])), lambda i: qe.Rectified(qe.Logistic(float(i)))),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_hold_their_members(name: str) -> None:
    many, one = ARRAYS[name]
    assert many.shape == (3,)
    assert np.shape(many.mean) == np.shape(many.std) == (3,)
    index = np.array([[2, 0], [1, 1]])
    taken = many.take(index)
    assert taken.shape == (2, 2)
    x = np.linspace(-3.0, 6.0, 7)
    p = np.array([0.1, 0.5, 0.9])
    for i in range(3):
        single = one(i)
        exactly = {"rtol": 1e-12, "atol": 1e-15}
        for method in ("pdf", "cdf", "sf"):
            got = getattr(many, method)(x[:, None])
            np.testing.assert_allclose(got[:, i], getattr(single, method)(x), **exactly)
        np.testing.assert_allclose(many.quantile(p[:, None])[:, i], single.quantile(p), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(many.moments(-1.0, 2.5, 0.3)[:, i], single.moments(-1.0, 2.5, 0.3), **exactly)
        np.testing.assert_allclose(many.tails(x)[0][i], single.tails(x)[0], **exactly)
        np.testing.assert_allclose(many.tails(x)[1][i], single.tails(x)[1], **exactly)
        np.testing.assert_allclose(many.mean[i], single.mean, **exactly)
        np.testing.assert_allclose(many.std[i], single.std, **exactly)
        row, column = np.argwhere(index == i)[0]
        moments = taken.moments(0.0, 2.0, 1.0)[:, row, column]
        np.testing.assert_allclose(moments, single.moments(0.0, 2.0, 1.0), **exactly)
        np.testing.assert_allclose(taken.mean[row, column], single.mean, **exactly)
    assert many.sample((5, 2), 0).shape == (5, 2, 3)
    assert np.array_equal(many.sample(4, 7), many.sample(4, 7))


# -- names, values, errors -------------------------------------------------------------------------------------------

NAMES = [
    *FORMULAS,
    "gaussian:mean=0.1,std=3e-30",
    "uniform:a=-0.1,b=0.7",
    "uniform:mean=3",
    "mixture(0.9*gaussian; 0.1*student-t:df=3,std=10)",
    "mixture(0.25*rectified(laplace:mean=-1); 0.75*mixture(0.5*gaussian; 0.5*logistic))",
    "rectified(generalized-gaussian:beta=0.7)",
    "histogram:counts=[1,2.5],edges=[0,1,3]",
    "laplace:mean=[0,1],std=[1,2.5]",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_round_trip(name: str) -> None:
    density = qe.density(name)
    again = qe.density(density.name)
    assert again.name == density.name == name
    assert type(again) is type(density)
    assert np.array_equal(again.moments(-1.0, 0.7, 0.2), density.moments(-1.0, 0.7, 0.2))
    assert qe.density(density) is density


def test_names_are_forgiving() -> None:
    assert qe.density(" Student_T : DF = 5 ").name == "student-t:df=5"
    assert qe.density("normal").name == "gaussian"


@pytest.mark.parametrize(
    "text",
    [
        "Gaussian()",
        "Laplace(mean=0.5, std=2)",
        "StudentT(df=2.5)",
        "GeneralizedGaussian(beta=0.5)",
        "Gaussian(std=[1, 2])",
    ],
)
def test_short_ones_show_what_makes_them_again(text: str) -> None:
    assert repr(eval("qe." + text)) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gausian", "unknown density 'gausian'; did you mean 'gaussian'?"),
        ("cauchy", "unknown density 'cauchy'; known: gaussian, laplace"),
        ("student-t", "student-t needs df, as in 'student-t:df=5'"),
        ("student-t:dof=5", "student-t has no parameter 'dof'; it takes df, mean, std"),
        ("gaussian:std", "parameters are written as key=value, separated by commas, got 'std'"),
        ("gaussian:std=big", "std must be a number or a list of numbers in brackets, got 'big'"),
        ("gaussian:std=1,std=2", "std is given twice"),
        ("mixture(gaussian; laplace)", "a mixture is written as weight\\*name; weight\\*name"),
        ("rectified(gaussian; laplace)", "rectified takes one density"),
        (3.0, "density must be a Density or a name such as 'gaussian:std=2', got 3.0"),
    ],
)
def test_bad_names(name: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        qe.density(name)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: qe.StudentT(2.0), "df must be larger than 2 .* got 2.0"),
        (lambda: qe.StudentT(math.nan), "df must be larger than 2 .* got nan"),
        (lambda: qe.StudentT(INF), "df must be larger than 2 .* got inf"),
        (lambda: qe.StudentT([3.0, 4.0]), r"df must be a single number, got shape \(2,\); make one density for each"),
        (lambda: qe.GeneralizedGaussian(0.0), "beta must be at least 0.15 and at most 100"),
        (lambda: qe.Gaussian(std=0.0), "std must be positive and finite, got 0.0"),
        (lambda: qe.Gaussian(std=[1.0, -2.0]), "std must be positive and finite, got"),
        (lambda: qe.Laplace(std=math.nan), "std must be positive and finite, got nan"),
        (lambda: qe.Laplace(mean=INF), "mean must be finite, got inf"),
        (lambda: qe.Uniform.from_bounds(1.0, 1.0), "a and b must be finite with a < b, got a=1.0, b=1.0"),
        (lambda: qe.Mixture([], []), "components must hold at least one density, got none"),
        (lambda: qe.Mixture(["gaussian"], [1]), "components must be densities, got 'gaussian' at index 0"),
        (lambda: qe.Mixture([qe.Gaussian()], [1, 2]), "weights must hold one number for each of 1 components"),
        (
            lambda: qe.Mixture([qe.Gaussian()] * 2, [1, -1]),
            r"weights must be finite, >= 0 and not all 0, got \[1.0, -1.0\]",
        ),
        (lambda: qe.Mixture([qe.Gaussian()], [0]), "weights must be finite, >= 0 and not all 0"),
        (lambda: qe.Rectified(qe.Rectified(qe.Gaussian())), "base must not have point masses"),
        (lambda: qe.Rectified("gaussian"), "base must be a density, got 'gaussian'"),
        (lambda: qe.Histogram([1, -2], [0, 1, 2]), "counts must be >= 0, got -2.0 at index 1"),
        (lambda: qe.Histogram([0, 0], [0, 1, 2]), "counts must not all be 0"),
        (lambda: qe.Histogram([1, math.nan], [0, 1, 2]), "counts must be finite, got 1 NaN"),
        (lambda: qe.Histogram([1, 2], [0, 2, 1]), "edges must ascend, got 2.0 before 1.0 at index 1"),
        (lambda: qe.Histogram([0, 1, 2], [1, 2]), "edges must hold one value more than counts"),
        (lambda: qe.from_scipy(scipy.stats.poisson(3)), "must be continuous, got the discrete .* use Empirical"),
        (lambda: qe.from_scipy(scipy.stats.cauchy()), "must have a finite variance, got std nan"),
        (lambda: qe.from_scipy(scipy.stats.norm), "must be a frozen distribution such as scipy.stats.gamma"),
        (lambda: qe.from_scipy(scipy.stats.norm([0.0, 1.0])), "must be one distribution, got array parameters"),
        (lambda: qe.from_pdf(lambda x: np.exp(-x * x), (-INF, INF)), "must integrate to 1 .*, got 1.77245385"),
        (lambda: qe.from_pdf(lambda x: -np.exp(-x * x), (-INF, INF)), "pdf must be finite and >= 0, got -"),
        (lambda: qe.from_pdf(lambda x: 1.0, (0, 1)), r"pdf must return an array of the shape it is given, got \(\)"),
        (lambda: qe.from_pdf(scipy.stats.cauchy.pdf, (-INF, INF)), "pdf must have a finite variance"),
        (lambda: qe.from_pdf(_triangle, (1, -1)), r"support must ascend, got \(1, -1\)"),
        (lambda: qe.from_pdf(_triangle, 1), r"support must be a pair \(lower, upper\), got 1"),
        (lambda: qe.from_pdf(_triangle, (-1, 1), kinks=[2]), r"kinks must lie inside the support \(-1, 1\), got \[2\]"),
    ],
)
def test_bad_arguments(make: Callable[[], Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make()


def test_values_do_not_change() -> None:
    mean = np.array([0.0, 1.0])
    density = qe.Gaussian(mean, 2.0)
    counts = np.array([1.0, 2.0])
    histogram = qe.Histogram(counts, [0.0, 1.0, 2.0])
    before = histogram.mean
    mean[0], counts[0] = 7.0, 9.0
    assert density.mean.tolist() == [0.0, 1.0]
    assert qe.Histogram([1.0, 2.0], [0.0, 1.0, 2.0]).mean == before == histogram.mean
    with pytest.raises(ValueError, match="read-only"):
        density.mean[0] = 3.0
    with pytest.raises(ValueError, match="read-only"):
        histogram.edges[0] = 3.0


# -- densities from a pdf --------------------------------------------------------------------------------------------

SCIPY = {
    "expon": scipy.stats.expon(),
    "beta": scipy.stats.beta(2, 3),
    "gamma(0.5)": scipy.stats.gamma(0.5, scale=3.0),
    "lognorm": scipy.stats.lognorm(1.0),
    "narrow, far from 0": scipy.stats.norm(1000.0, 0.01),
    "tiny": scipy.stats.norm(0.0, 1e-20),
    "t(3)": scipy.stats.t(3.0),
    "pareto(3)": scipy.stats.pareto(3.0),
    "gumbel": scipy.stats.gumbel_r(),
}


@pytest.mark.parametrize("name", SCIPY)
@pytest.mark.parametrize("route", ["from_scipy", "from_pdf"])
def test_densities_from_a_pdf(name: str, route: str) -> None:
    rv = SCIPY[name]
    density = qe.from_scipy(rv) if route == "from_scipy" else qe.from_pdf(rv.pdf, rv.support())
    assert density.status == ""
    assert density.quadrature_error <= NUMERIC_TOLERANCE
    assert density.mean == pytest.approx(rv.mean(), rel=NUMERIC_TOLERANCE, abs=NUMERIC_TOLERANCE * rv.std())
    assert density.std == pytest.approx(rv.std(), rel=NUMERIC_TOLERANCE)
    x = rv.ppf([1e-4, 0.1, 0.5, 0.9, 0.9999])
    mass = density.moments(-INF, x, x)[0]
    np.testing.assert_allclose(mass, [1e-4, 0.1, 0.5, 0.9, 0.9999], rtol=NUMERIC_TOLERANCE)
    np.testing.assert_allclose(density.sf(x), rv.sf(x), rtol=NUMERIC_TOLERANCE)
    far = float(rv.isf(1e-15))
    if far < rv.support()[1]:
        assert density.moments(far, INF, far)[0] == pytest.approx(1e-15, rel=1e-6)


def test_unreached_accuracy_is_said() -> None:
    # The pole at 1 holds 6e-9 of the mass within the last float64 below 1.
    density = qe.from_scipy(scipy.stats.beta(0.5, 0.5))
    assert density.quadrature_error > NUMERIC_TOLERANCE
    assert "quadrature of scipy:beta(0.5, 0.5) reached 1." in density.status
    assert "not 1e-08" in qe.Mixture([density, qe.Gaussian()], [1, 1]).status


def test_a_peak_that_no_scan_finds_is_named() -> None:
    peak = scipy.stats.norm(1e6, 1e-3).pdf
    with pytest.raises(ValueError, match=r"got 0.0; .* put its place into kinks"):
        qe.from_pdf(peak, (-INF, INF))
    assert qe.from_pdf(peak, (-INF, INF), kinks=[1e6]).std == pytest.approx(1e-3, rel=1e-6)
