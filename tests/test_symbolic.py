"""The symbolic layer against three routes of its own: error.py, mpmath on the bare pdf, and textbook forms by hand."""

from __future__ import annotations

import functools
import inspect
import itertools
import json
import math
import time
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror import symbolic
from qerror.cli.commands import qerror_command
from qerror.errors import exact as library_error
from qerror.errors import high_resolution

# error.py promises 1e-12 relative; the expressions are evaluated with 30 digits.
TERM_TOLERANCE = 1e-12
# mpmath on the pdf and the closed form, both with 30 digits and more.
DIGITS_TOLERANCE = 1e-28

s, C, sigma, b = sp.symbols("s C sigma b", positive=True)
NAMES = [
    "gaussian:std=1",
    "laplace:std=1",
    "uniform:std=1",
    "logistic:std=1",
    "student-t:df=5,std=1",
    "student-t:df=2.5,std=1",
    "generalized-gaussian:beta=1.5,std=1",
    "generalized-gaussian:beta=0.5,std=1",
    "mixture(0.9*gaussian:std=1; 0.1*laplace:std=4)",
]


def value(function: Any, at: float) -> mpmath.mpf:
    with mpmath.workdps(30):
        return mpmath.re(function(mpmath.mpf(at)))


def close(found: Any, expected: Any, relative: float) -> bool:
    return bool(abs(found - expected) <= relative * abs(expected))


# -- against error.py and high_resolution.py ---------------------------------------------------------------------------

# One grid of each kind: uniform from 0, floating (a sum over binades), a codebook, N uniform levels around 0.
N = sp.Symbol("N", even=True, positive=True)
CODEBOOK = qe.Grid([-1.25, 0.25, 2.0], name="codebook")
GRIDS = ["uint2", "e2m0", CODEBOOK, N]
MODELS = [("exact", "nearest"), ("exact", "stochastic"), ("high_resolution", "nearest")]
# Each example is a vector of points: an expression is checked at 30 of them and more.
POINTS = 30
VECTORS = settings(max_examples=2)
# With 30 digits a vector costs half a second.
ONE_VECTOR = settings(max_examples=1)


def vector(least: float, most: float) -> st.SearchStrategy[np.ndarray]:
    return st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).uniform(least, most, POINTS))


def concrete(grid: Any) -> qe.Grid:
    return qe.Grid(np.arange(6) - 2.5) if grid is N else qe.grid(grid)


@functools.cache
def source(kind: str, name: str, grid: Any, model: str = "exact", rounding: str = "nearest") -> Any:
    """An expression in s as NumPy source."""
    make = getattr(symbolic, kind)
    expression = make(name, grid, s) if kind == "bias" else make(name, grid, s, model, rounding=rounding)
    compiled = symbolic.to_numpy(expression, [s, N])
    return lambda scale: compiled(scale, 6)


def assert_within(found: Any, expected: Any, size: Any, relative: float = TERM_TOLERANCE) -> None:
    """|found - expected| <= relative * size, everywhere."""
    np.testing.assert_array_less(np.abs(found - expected), relative * np.asarray(size) + 1e-300)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@VECTORS
@given(clip=vector(0.3, 6.0))
def test_errors_are_those_of_the_library(name: str, grid: Any, clip: np.ndarray) -> None:
    scale = clip / concrete(grid).absmax
    for model, rounding in MODELS:
        error = qe.quantization_error(qe.density(name), concrete(grid), scale, model=model, rounding=rounding)
        found = source("rounding_error", name, grid, model, rounding)(scale)
        np.testing.assert_allclose(found, error.rounding, rtol=TERM_TOLERANCE)
    error = qe.quantization_error(qe.density(name), concrete(grid), scale)
    np.testing.assert_allclose(source("mse", name, grid)(scale), error.mse, rtol=TERM_TOLERANCE)
    # The bias is 0 on symmetric grids; it is at most the root of the MSE.
    assert_within(source("bias", name, grid)(scale), error.bias, np.sqrt(error.mse))
    # A relative error of the MSE in decibels.
    np.testing.assert_allclose(source("sqnr", name, grid)(scale), error.sqnr_db, rtol=0, atol=DECIBEL * TERM_TOLERANCE)


DECIBEL = 10 / math.log(10)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("name", NAMES)
@VECTORS
@given(clip=vector(0.3, 6.0))
def test_derivatives_are_those_of_the_library(name: str, grid: Any, clip: np.ndarray) -> None:
    """The first that of error.py, the second one from probabilities and values of the pdf by hand.

    Where they cross 0: relative to 2 MSE / s (the slope of a parabola) and to the sum of what is added up.
    """
    density, levels = qe.density(name), concrete(grid)
    scale = clip / levels.absmax
    for model, rounding in MODELS:
        mse = qe.quantization_error(density, levels, scale, model=model, rounding=rounding).mse
        sums = library_error if model == "exact" else high_resolution
        slope = sums.error_sums(density, levels, scale, np.zeros(POINTS), rounding)[-2]
        found = source("stationarity", name, grid, model, rounding)(scale)
        assert_within(found, slope, np.abs(slope) + 2 * mse / scale)
        terms = bend(name, levels, scale, model, rounding)
        found = source("curvature", name, grid, model, rounding)(scale)
        assert_within(found, sum(terms), sum(map(np.abs, terms)))


def bend(name: str, grid: qe.Grid, scale: np.ndarray, model: str, rounding: str) -> list[np.ndarray]:
    """Terms of the second derivative of the MSE by the scale.

    Nearest, with tau half-way between the levels a, b: 2 l^2 P(cell) and -2 s (b - a) tau^2 f(s tau). Stochastic:
    -2 a b P(gap) + s (b - a) (a^2 f(s a) + b^2 f(s b)). High-resolution: (b - a)^2 / 12 (s^2 P(gap))'', on a uniform
    grid step^2 / 12 (s^2)''. Beyond the ends 2 l^2 P.
    """
    density, low, high = qe.density(name), grid.levels[:-1], grid.levels[1:]
    s, gap, tau = scale[:, None], high - low, (low + high) / 2

    def probability(lower: Any, upper: Any) -> np.ndarray:
        return density.moments(*np.broadcast_arrays(lower, upper), 0.0)[0]

    if (model, rounding) == ("exact", "nearest"):
        cuts = s * np.concatenate([[-np.inf], tau, [np.inf]])
        cells = 2 * grid.levels**2 * probability(cuts[:, :-1], cuts[:, 1:])
        return [*cells.T, *(-2 * s * gap * tau**2 * density.pdf(s * tau)).T]
    ends = [2 * grid.min**2 * probability(-np.inf, scale * grid.min)]
    ends += [2 * grid.max**2 * probability(scale * grid.max, np.inf)]
    inside = probability(s * low, s * high)
    at = [(level, density.pdf(s * level)) for level in (low, high)]
    if rounding == "stochastic":
        return [*ends, *(-2 * low * high * inside).T, *sum(s * gap * level**2 * f for level, f in at).T]
    if grid.step is not None:
        return [*ends, np.full(scale.size, grid.step**2 / 6)]
    square = gap**2 / 12
    moving = [
        sign * (4 * s * level * f + (s * level) ** 2 * steepness(name, s * level))
        for sign, (level, f) in zip((-1, 1), at, strict=True)
    ]
    return [*ends, *(square * 2 * inside).T, *(square * moving[0]).T, *(square * moving[1]).T]


def steepness(name: str, x: np.ndarray) -> np.ndarray:
    """Derivative of the pdf by a complex step: nothing cancels. 0 in the middle, where it is multiplied by 0."""
    pdf = sp.lambdify(symbolic.X, symbolic.named(name).half_pdf, "numpy")
    inside = (x != 0) & (qe.density(name).pdf(x) > 0)
    step = 1e-30
    return np.where(inside, np.sign(x) * np.imag(pdf(np.where(inside, np.abs(x), 1.0) + 1j * step)) / step, 0.0)


@pytest.mark.parametrize("name", NAMES)
@ONE_VECTOR
@given(start=vector(0.01, 20.0))
def test_tails_are_those_of_the_library(name: str, start: np.ndarray) -> None:
    density = qe.density(name)
    for k, moment in enumerate(density.moments(start, np.full(POINTS, np.inf), 0.0)):
        assert_digits(tail("partial_moment", name, k), start, moment)
    assert_digits(tail("clipping_error", name), start, qe.quantization_error(density, "binary", start).clipping)


@functools.cache
def tail(kind: str, name: str, *order: int) -> Any:
    return sp.lambdify(s, getattr(symbolic, kind)(name, *order, s).doit(), "mpmath")


def assert_digits(function: Any, points: np.ndarray, expected: np.ndarray) -> None:
    """The closed form with 30 digits, against the library; beyond a support they leave its rounding."""
    for at, one in zip(points, expected, strict=True):
        assert abs(value(function, at) - one) <= TERM_TOLERANCE * abs(one) + DIGITS_TOLERANCE


CLOSED = [
    ("rounding_error", "e2m0", "exact", "nearest"),
    ("rounding_error", "uint2", "exact", "stochastic"),
    ("mse", "int2_midrise", "high_resolution", "nearest"),
    ("stationarity", "uint2", "exact", "nearest"),
    ("curvature", "e2m0", "exact", "nearest"),
]


@pytest.mark.parametrize("name", NAMES)
@ONE_VECTOR
@given(clip=vector(0.3, 6.0))
def test_closed_forms_are_their_integrals(name: str, clip: np.ndarray) -> None:
    """Unfolded and evaluated with 30 digits, against the source of the folded expression."""
    for kind, grid, *options in CLOSED:
        scale = clip / qe.grid(grid).absmax
        closed = unfolded(kind, name, grid, *options)
        found = np.array([float(value(closed, at)) for at in scale])
        expected = source(kind, name, grid, *options)(scale)
        size = np.abs(expected)
        if kind in ("stationarity", "curvature"):
            size += 2 * source("mse", name, grid)(scale) / scale
        assert_within(found, expected, size)


@functools.cache
def unfolded(kind: str, name: str, grid: str, model: str, rounding: str) -> Any:
    return sp.lambdify(s, getattr(symbolic, kind)(name, grid, s, model, rounding=rounding).doit(), "mpmath")


@pytest.mark.parametrize("name", ["gaussian:std=1,mean=0.3", "uniform:std=1,mean=-0.2", "student-t:df=4,std=1,mean=1"])
@VECTORS
@given(clip=vector(0.3, 6.0), shift=vector(-1, 1))
def test_shift_and_mean_are_those_of_the_library(name: str, clip: np.ndarray, shift: np.ndarray) -> None:
    error = qe.quantization_error(qe.density(name), "int2", clip, shift)
    np.testing.assert_allclose(shifted(name)(clip, shift), error.mse, rtol=TERM_TOLERANCE)


@functools.cache
def shifted(name: str) -> Any:
    z = sp.Symbol("z", real=True)
    return symbolic.to_numpy(symbolic.mse(name, "int2", s, shift=z), [s, z])


@pytest.mark.parametrize("name", ["uniform:std=1", "student-t:df=5,std=1"])
@pytest.mark.parametrize("model", ["exact", "high_resolution"])
def test_derivatives_are_those_of_the_closed_form(name: str, model: str) -> None:
    """Under the integrals, with the terms of the moving ends, against SymPy's derivative of the closed form."""
    for grid in ("e2m0", "int2_midrise"):
        closed = symbolic.mse(name, grid, s, model).doit()
        slope = symbolic.stationarity(name, grid, s, model).doit() - sp.diff(closed, s)
        bend = symbolic.curvature(name, grid, s, model).doit() - sp.diff(closed, s, 2)
        for at in (sp.Rational(7, 10), sp.Rational(2)):
            assert abs(slope.subs(s, at).evalf(30)) < DIGITS_TOLERANCE
            assert abs(bend.subs(s, at).evalf(30)) < DIGITS_TOLERANCE
    rounding = symbolic.derivation("rounding", name, "e2m0", model=model)
    slope = rounding["derivative"].right - sp.diff(rounding["closed form"].right, s)
    assert abs(slope.subs(s, sp.Rational(7, 10)).evalf(30)) < DIGITS_TOLERANCE


# -- generated NumPy source --------------------------------------------------------------------------------------------

# To 8 std the tail of a Gaussian is erfc(z) times z^4: 64 eps from rounding z, times 2000 from the closed form.
TAIL_TOLERANCE = 1e-10
NAMED = [grid for bits in range(1, 9) for grid in qe.formats(bits=bits) if grid != "e8m0"]


@pytest.mark.parametrize(("name", "grid"), list(zip(itertools.cycle(NAMES), NAMED, strict=False)))
def test_compiled_source_gives_the_same_numbers(name: str, grid: str) -> None:
    """Cells and their sums on every grid to 8 bits; e8m0 below, where its scales are."""
    rng = np.random.default_rng(5)
    scale = np.exp(rng.uniform(np.log(0.1), np.log(30), POINTS)) / qe.grid(grid).absmax
    expected = qe.quantization_error(qe.density(name), grid, scale).rounding
    np.testing.assert_allclose(source("rounding_error", name, grid)(scale), expected, rtol=TERM_TOLERANCE)


@pytest.mark.parametrize(("name", "grid"), list(zip(NAMES, itertools.cycle(["int2", "e2m0", "int3"]), strict=False)))
def test_closed_forms_compile_to_their_integrals(name: str, grid: str) -> None:
    """Written out by `.doit()`, cells would cancel to 1e-10 at a tenth of a std; a number in front changes nothing."""
    scale = np.exp(np.random.default_rng(6).uniform(np.log(0.1), np.log(30), POINTS)) / qe.grid(grid).absmax
    error = qe.quantization_error(qe.density(name), grid, scale)
    for expression, expected in (
        (-3 * symbolic.rounding_error(name, grid, s).doit(), -3 * error.rounding),
        (symbolic.derivation("rounding", name, grid)["closed form"].right, error.rounding),
    ):
        assert not expression.has(sp.Integral)
        np.testing.assert_allclose(symbolic.to_numpy(expression, [s])(scale), expected, rtol=TERM_TOLERANCE)
    decibel = symbolic.to_numpy(symbolic.sqnr(name, grid, s).doit(), [s])(scale)
    np.testing.assert_allclose(decibel, error.sqnr_db, rtol=0, atol=DECIBEL * TERM_TOLERANCE)


@pytest.mark.parametrize("name", ["gaussian", "student-t:df=5"])
def test_unfolded_sums_compile_to_their_integrals(name: str) -> None:
    """Closed, the narrow cells of int8 would cancel to 1e-4; substituting does not lose them."""
    scale = np.geomspace(0.1, 30, POINTS) / 128
    density = qe.density(f"{name},std=1.5" if ":" in name else f"{name}:std=1.5")
    expected = qe.quantization_error(density, "int8", scale).rounding
    closed = symbolic.derivation("rounding", name, "int8")["closed form"].right
    assert not closed.has(sp.Integral)
    one = symbolic.to_numpy(closed, [s, sigma])(scale, 1.5)
    two = symbolic.to_numpy(closed.subs(sigma, sp.Rational(3, 2)), [s])(scale)
    for found in (one, two):
        np.testing.assert_allclose(found, expected, rtol=TERM_TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_tails_keep_their_digits(name: str) -> None:
    clip = np.linspace(0.01, 8.0, 40)
    compiled = symbolic.to_numpy(symbolic.clipping_error(name, s).doit(), [s])
    expected = [float(value(tail("clipping_error", name), c)) for c in clip]
    np.testing.assert_allclose(compiled(clip), expected, rtol=TAIL_TOLERANCE)
    near = clip < 3.5
    np.testing.assert_allclose(compiled(clip[near]), np.array(expected)[near], rtol=TERM_TOLERANCE)


def test_compiled_source_broadcasts() -> None:
    """Also a symbol that is in an integrand alone: below the lowest level of e8m0 both ends are numbers."""
    scales = np.geomspace(1e-38, 1e-37, 84)
    error = symbolic.to_numpy(symbolic.mse("uniform:std=1", "e8m0", s), [s])
    expected = qe.quantization_error(qe.Uniform(), "e8m0", scales).mse
    np.testing.assert_allclose(error(scales), expected, rtol=TERM_TOLERANCE)
    two = symbolic.to_numpy(symbolic.mse("laplace", "uint2", s), [s, sigma])
    np.testing.assert_array_equal(two(scales, [[1.0], [2.0]])[1], two(scales, 2.0))


def test_source_takes_one_number_of_levels() -> None:
    error = symbolic.to_numpy(symbolic.mse("laplace:std=1", N, s), [s, N])
    expected = qe.quantization_error(qe.Laplace(), "int4_midrise", [0.2, 0.3]).mse
    np.testing.assert_allclose(error([0.2, 0.3], 16), expected, rtol=TERM_TOLERANCE)
    for wrong in (15, [8, 16]):
        with pytest.raises(ValueError, match="levels must be one whole number, even or odd as its symbol is, got a"):
            error(0.2, wrong)


def test_names_of_symbols_do_not_matter() -> None:
    """Those inside of the package are others; words of Python get an underscore."""
    expected = symbolic.to_numpy(symbolic.mse("gaussian", "uint2", s), [s, sigma])(0.3, 2.0)
    for name in ("t", "a", "w", "k", "lambda"):
        scale, std = sp.Symbol(name, positive=True), sp.Symbol("u" if name == "t" else "t", positive=True)
        folded = symbolic.mse(symbolic.gaussian(std), "uint2", scale)
        assert symbolic.to_numpy(folded, [scale, std])(0.3, 2.0) == expected
        assert symbolic.to_numpy(folded.doit().subs(std, 2), [scale])(0.3) == pytest.approx(expected, rel=1e-10)


def test_source_stands_alone() -> None:
    """The text needs nothing but NumPy and SciPy, says erfc, and is the callable."""
    error = symbolic.to_numpy(symbolic.mse("gaussian", "int4", s), [s, sigma], name="mse")
    assert "erfc" in error.source
    assert "erf(" not in error.source.replace("erfc(", "")
    assert "qerror" not in error.source
    scope: dict[str, Any] = {}
    exec(error.source, scope)
    scales = np.array([0.2, 0.3])
    np.testing.assert_array_equal(scope["mse"](scales, 1.0), error(scales, 1.0))
    assert error.arguments == ("s", "sigma")
    with pytest.raises(ValueError, match=r"arguments must name all free symbols, sigma missing"):
        symbolic.to_numpy(symbolic.mse("gaussian", "int4", s), [s])


# -- textbook forms, written by hand here and nowhere else -------------------------------------------------------------

t = sp.Symbol("t", positive=True)
alpha = sp.Symbol("alpha", positive=True)
Q = sp.erfc(t / sp.sqrt(2)) / 2
PHI = sp.exp(-(t**2) / 2) / sp.sqrt(2 * sp.pi)
M = sp.Symbol("M", integer=True, positive=True)
EVEN = sp.Symbol("N", even=True, positive=True)


def same(found: Any, expected: Any) -> bool:
    return bool(sp.simplify(sp.expand(found - expected)) == 0)


def test_partial_moments_of_the_textbooks() -> None:
    unit = [symbolic.partial_moment("gaussian:std=1", k, t).doit() for k in range(4)]
    for found, expected in zip(unit, [Q, PHI, Q + t * PHI, (t**2 + 2) * PHI], strict=True):
        assert same(found, expected)
    laplace = [symbolic.partial_moment(symbolic.laplace(b=b), k, t).doit() for k in range(3)]
    for found, power in zip(laplace, [1, t + b, t**2 + 2 * b * t + 2 * b**2], strict=True):
        assert same(found, power * sp.exp(-t / b) / 2)
    a = sp.pi / sp.sqrt(3)
    assert same(symbolic.partial_moment("logistic:std=1", 0, t).doit(), 1 / (1 + sp.exp(a * t)))
    student = symbolic.partial_moment("student-t:df=5,std=1", 1, t).doit()
    assert same(
        student, 8 / (3 * sp.sqrt(3) * sp.pi) * sp.Rational(3, 4) * 3 / 2 * (1 + t**2 / 3) ** -2 / sp.Rational(3, 2)
    )
    beta = symbolic.partial_moment("generalized-gaussian:std=1", 0, t).doit()
    order = sp.Symbol("beta", positive=True)
    inside = (t * sp.sqrt(sp.gamma(3 / order) / sp.gamma(1 / order))) ** order
    assert same(
        sp.powdenest(beta, force=True),
        sp.powdenest(sp.uppergamma(1 / order, inside) / (2 * sp.gamma(1 / order)), force=True),
    )


def test_clipping_errors_of_the_textbooks() -> None:
    assert same(symbolic.clipping_error("gaussian:std=1", t).doit(), 2 * ((1 + t**2) * Q - t * PHI))
    assert same(symbolic.clipping_error(symbolic.laplace(b=b), t).doit(), 2 * b**2 * sp.exp(-t / b))
    inside = sp.sqrt(3) - t
    uniform = symbolic.clipping_error("uniform:std=1", t).doit().subs(sp.Min(t, sp.sqrt(3)), t)
    assert same(uniform, inside**3 / (3 * sp.sqrt(3)))
    third = sp.exp(-sp.pi * t / sp.sqrt(3))
    assert same(symbolic.clipping_error("logistic:std=1", t).doit(), -12 / sp.pi**2 * sp.polylog(2, -third))


def test_ternary_logistic_error() -> None:
    """E[x^2] - 4 s int_(s / 2) S, S the survival function: a closed form in which nothing is left to cancel."""
    closed = symbolic.derivation("mse", "logistic", 3)["closed form"].right
    a = sp.pi / (sp.sqrt(3) * sigma)
    assert sp.simplify(closed - (sigma**2 - 4 * s / a * sp.log(1 + sp.exp(-a * s / 2)))) == 0
    assert closed.count_ops() < 30


def test_geometric_sum_of_the_laplace_error() -> None:
    """N levels on a Laplace density: the cells are a geometric series."""
    closed = symbolic.mse("laplace:std=1", EVEN, s).doit()
    assert not closed.has(sp.Sum)
    for levels in (2, 4, 16, 256):
        grid = qe.grid(f"int{levels.bit_length() - 1}_midrise") if levels > 2 else qe.Grid([-0.5, 0.5])
        expected = qe.quantization_error(qe.Laplace(), grid, 0.31).mse
        assert close(closed.subs({EVEN: levels, s: sp.Float("0.31", 30)}).evalf(30), expected, TERM_TOLERANCE)


def beyond(pdf: Any, loss: Any, start: mpmath.mpf, end: mpmath.mpf, power_law: bool) -> mpmath.mpf:
    """Integral of loss * pdf from start to end; power laws in log v, where they decay exponentially."""
    steps = (0, 0.5, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
    edges = [*(start + v for v in steps if start + v < end), end]
    if not power_law:
        return mpmath.quad(lambda v: loss(v) * pdf(v), edges)
    logs = [mpmath.log(start) + (v - start) for v in edges]
    return mpmath.quad(lambda u: mpmath.exp(u) * loss(mpmath.exp(u)) * pdf(mpmath.exp(u)), logs)


@pytest.mark.parametrize("name", NAMES)
def test_integrals_of_the_pdf(name: str) -> None:
    """Partial moments, and the MSE of the levels 0 .. 3, against mpmath on the numeric pdf."""
    found = symbolic.named(name)
    power_law = name.startswith("student")
    with mpmath.workdps(34):
        pdf = sp.lambdify(symbolic.X, found.half_pdf, "mpmath")
        start, end = mpmath.mpf(7) / 5, mpmath.sqrt(3) if found.end != sp.oo else mpmath.inf
        tails = [beyond(pdf, lambda v, k=k: v**k, start, end, power_law) for k in range(3)]
        for k, direct in enumerate(tails):
            closed = symbolic.partial_moment(found, k, sp.Rational(7, 5)).doit().evalf(34)
            assert abs(mpmath.mpf(str(closed)) - direct) <= DIGITS_TOLERANCE * direct
        # The last level is at 7/5. The half of the density below 0 is clipped to 0.
        step, middle = start / 3, start / 6
        edges = [0, middle, 3 * middle, 5 * middle, start]
        direct = 2 * tails[2] - 2 * start * tails[1] + start**2 * tails[0]
        for q, ends in enumerate(itertools.pairwise(edges)):
            direct += mpmath.quad(lambda v, q=q: ((v - q * step) ** 2 + v**2) * pdf(v), ends)
        closed = symbolic.mse(found, "uint2", s).doit().subs(s, sp.Rational(7, 15)).evalf(34)
        assert abs(mpmath.mpf(str(closed)) - direct) <= DIGITS_TOLERANCE * direct
    assert float(found.half_pdf.subs(symbolic.X, 1.1)) == pytest.approx(float(qe.density(name).pdf(1.1)), rel=1e-14)


# -- optima, models, limits --------------------------------------------------------------------------------------------


def test_closed_form_optima() -> None:
    """Max (1960) for two levels; Laplace with two and three levels: sqrt(2) sigma."""
    assert same(symbolic.derivation("optimum", "gaussian", 2).result, 2 * sp.sqrt(2 / sp.pi) * sigma)
    assert same(symbolic.derivation("optimum", "laplace", 2).result, sp.sqrt(2) * sigma)
    three = symbolic.derivation("optimum", "laplace", 3)
    assert same(three.result, sp.sqrt(2) * sigma)
    assert three["second derivative"].right.is_positive
    assert same(three["closed form"].right.subs(s, three.result), sigma**2 * (1 - 2 / sp.E))
    nu = sp.Symbol("nu", positive=True)
    peak = sp.gamma((nu + 1) / 2) / sp.gamma(nu / 2) / sp.sqrt(sp.pi * (nu - 2)) / sigma
    student = symbolic.derivation("optimum", "student-t", 2).result
    assert same(sp.expand_func(student - 4 * peak * sigma**2 * (nu - 2) / (nu - 1)), 0)


@pytest.mark.parametrize(
    ("name", "grid", "published"),
    # Max (1960), Table II, to its four digits; e2m1 from QuEST's notebook, which searched to 1e-6.
    [("gaussian", 4, 0.9957), ("gaussian", "int4_midrise", 0.3352), ("gaussian", "e2m1", 0.487079483934662)],
)
def test_numeric_optima(name: str, grid: Any, published: float) -> None:
    found = float((symbolic.derivation("optimum", name, grid).result / sigma).evalf(20))
    assert found == pytest.approx(published, abs=5e-5 if grid != "e2m1" else 1e-6)
    concrete = qe.Grid(np.arange(4) - 1.5) if grid == 4 else grid
    assert found == pytest.approx(float(qe.optimal_scale(qe.Gaussian(), concrete).scale), rel=1e-8)


@pytest.mark.parametrize(
    ("name", "grid"),
    # Four minima; far out in a power law; with kinks.
    [("gaussian", "e3m0"), ("student-t:df=2.5", "int4"), ("uniform", 3), ("logistic", "uint4")],
)
def test_numeric_optima_are_those_of_the_search(name: str, grid: Any) -> None:
    scale = float(symbolic.derivation("optimum", name, grid).result / sigma)
    density = qe.density(f"{name},std=1" if ":" in name else f"{name}:std=1")
    concrete = "ternary" if grid == 3 else grid
    best = qe.optimal_scale(density, concrete).error.mse
    assert qe.quantization_error(density, concrete, scale).mse == pytest.approx(best, rel=TERM_TOLERANCE)


def test_optima_without_a_number_say_where_it_is() -> None:
    long = symbolic.derivation("optimum", "gaussian", 66).steps[-1]
    assert long.right == 0
    assert "qerror.optimal_scale has its number" in long.note
    crowded = symbolic.derivation("optimum", "laplace", "int2", model="high_resolution")  # two exponentials
    assert crowded.result.has(sp.Float)
    free = symbolic.derivation("optimum", "student-t", "ternary").steps[-1]
    assert "give numbers for all shape parameters" in free.note


def test_aciq() -> None:
    """Alpha = b W(3 4^M); for the Gaussian phi(a) - a Q(a) = a / (6 4^M)."""
    assert same(symbolic.aciq(symbolic.laplace(b=b)).result, b * sp.LambertW(3 * 4**M))
    balance = symbolic.aciq("gaussian:std=1")["balance"]
    assert same(balance.left.subs(alpha, t), PHI - t * Q)
    assert same(balance.right, alpha / (6 * 4**M))


def test_octav() -> None:
    """Equation 6 of the paper, and the term that freezing the indicator drops."""
    found = symbolic.octav("gaussian:std=1")
    c = sp.Symbol("c", positive=True)
    above, beyond = PHI.subs(t, c), 2 * Q.subs(t, c)
    iteration = found["iteration"].right.doit()
    assert same(sp.simplify(iteration), 2 * above / (sp.Integer(4) ** -M / 3 * (1 - beyond) + beyond))
    dropped = 2 * sp.Integer(4) ** -M / 3 * s**2 * PHI.subs(t, s)
    assert same(found["dropped boundary term"].right, dropped)
    # Fixed points at 4 and 8 bits by mpmath: shared with no code of this package.
    for bits, fixed in ((4, 2.56209026), (8, 3.92405435)):
        assert float(iteration.subs({M: bits, c: fixed})) == pytest.approx(fixed, rel=1e-7)


def test_statqat_uniform_snr() -> None:
    z = sp.Symbol("z", positive=True)
    tail = sp.erfc(sp.sqrt(z / 2)) / 2
    overload = 2 * (1 + z) * tail - sp.sqrt(2 * z / sp.pi) * sp.exp(-z / 2)
    found = symbolic.statqat_snr(EVEN)["inverse SNR"].right
    assert same(found, overload + z / (3 * (EVEN - 1) ** 2))


@pytest.mark.parametrize("grid", ["e2m1", "e3m2", "e4m3fn"])
def test_statqat_floating_snr(grid: str) -> None:
    """Overload, and v^2 / 12 P for each region of constant step v."""
    z = sp.Symbol("z", positive=True)
    found = symbolic.statqat_snr(grid)["inverse SNR"].right
    for at in (1.3, 9.0):
        scale = math.sqrt(at) / qe.grid(grid).max
        expected = qe.quantization_error(qe.Gaussian(), grid, scale, model="high_resolution").mse
        assert close(found.subs(z, sp.Float(at, 30)).evalf(30), expected, TERM_TOLERANCE)
    tail = sp.erfc(sp.sqrt(z / 2)) / 2
    overload = 2 * (1 + z) * tail - sp.sqrt(2 * z / sp.pi) * sp.exp(-z / 2)
    if grid == "e2m1":
        at_level = [sp.erfc(sp.sqrt(z / 72) * level) for level in (0, 2, 4, 6)]
        steps = [sp.Rational(1, 2), 1, 2]
        regions = [v**2 * (at_level[i] - at_level[i + 1]) for i, v in enumerate(steps)]
        assert same(found, overload + z / 36 / 12 * sp.Add(*regions))


def test_high_rate_limits() -> None:
    assert same(symbolic.panter_dite("gaussian").result, sp.sqrt(3) * sp.pi / 2 * sigma**2)
    assert same(symbolic.panter_dite("laplace").result, sp.Rational(9, 2) * sigma**2)
    assert same(symbolic.panter_dite("uniform").result, sigma**2)
    for name in ("gaussian", "laplace", "uniform"):
        assert same(symbolic.entropy_coded(name).result, sp.pi * sp.E / 6)
    levels = 128
    limit = float(symbolic.panter_dite("gaussian:std=1").result)
    found = qe.optimal_scale(qe.Gaussian(), qe.lloyd_max(qe.Gaussian(), levels)).error.mse
    assert found * levels**2 == pytest.approx(limit, rel=0.03)


def test_growth_of_the_gaussian_clip() -> None:
    """Hui and Neuhoff (2001): 4 ln N - 3 ln ln N - ln(32 pi / 9); what is dropped falls with N."""
    n = sp.Symbol("N", positive=True)
    expected = 4 * sp.log(n) - 3 * sp.log(sp.log(n)) - sp.log(32 * sp.pi / 9)
    assert same(sp.expand_log(symbolic.clip_growth().result - expected, force=True), 0)
    errors = [symbolic.clip_growth_error(levels) for levels in (2**4, 2**8, 2**16, 2**32)]
    first = [abs(one / root - 1) for root, one, _ in errors]
    second = [abs(two / root - 1) for root, _, two in errors]
    assert first == sorted(first, reverse=True)
    assert second == sorted(second, reverse=True)
    assert second[0] < 0.08 < 0.2 < first[0]
    assert second[-1] < 0.003 < 0.05 < first[-1]
    # The model's clip is that of the best scale, of midrise grids (N levels, half a step beyond the last).
    for bits, (root, _, _) in zip((4, 8), errors[:2], strict=True):
        best = qe.optimal_scale(qe.Gaussian(), f"int{bits}_midrise").scale * 2 ** (bits - 1)
        assert root == pytest.approx(float(best), rel=0.06)


# -- samples -----------------------------------------------------------------------------------------------------------


# Eight roundings of prefix sums.
SUM_TOLERANCE = 8 * np.finfo(float).eps


def on_sample(expression: Any, x: np.ndarray, scale: Any) -> Any:
    """Numbers for ranks and prefix sums."""
    prefix = [np.concatenate([[0.0], np.cumsum(x**k)]) for k in range(3)]
    rank = {"Rank": lambda edge: np.searchsorted(x, edge, side="right")}
    arguments = (s, symbolic.empirical().n, *symbolic.PREFIX_SUMS)
    return sp.lambdify(arguments, expression, [rank, "numpy"])(scale, x.size, *prefix)


@pytest.mark.parametrize("grid", ["int3", "e2m1"])
@VECTORS
@given(scale=vector(0.2, 1.0), seed=st.integers(0, 2**32 - 1))
def test_sample_errors_are_those_of_the_library(grid: str, scale: np.ndarray, seed: int) -> None:
    x = np.sort(np.random.default_rng(seed).standard_normal(60))
    found = symbolic.derivation("optimum", "empirical", grid)
    parts = (symbolic.derivation(quantity, "empirical", grid) for quantity in ("clipping", "rounding"))
    clipping, rounding = (part["closed form"].right for part in parts)
    error = qe.quantization_error(qe.Empirical(x), grid, scale)
    # Prefix sums cancel to eps E[x^2] n.
    size = 60 * np.mean(x**2)
    assert_within(on_sample(found["closed form"].right, x, scale), error.mse, size, SUM_TOLERANCE)
    assert_within(on_sample(clipping, x, scale), error.clipping, size, SUM_TOLERANCE)
    assert_within(on_sample(rounding, x, scale), error.rounding, size, SUM_TOLERANCE)
    best = float(qe.optimal_scale(qe.Empirical(x), grid).scale)
    assert on_sample(found.result, x, best) == pytest.approx(best, rel=TERM_TOLERANCE)


@pytest.mark.parametrize("quantity", ["clipping", "rounding", "mse"])
def test_sample_derivatives_are_those_of_a_parabola(quantity: str) -> None:
    """A central difference is exact on the parabola between two breakpoints, but for its own rounding."""
    x = np.sort(np.random.default_rng(5).standard_normal(9))
    found = symbolic.derivation(quantity, "empirical", "ternary")
    step = 2.0**-20
    for scale in (0.5, 1.25):
        ends = [on_sample(found["closed form"].right, x, scale + sign * step) for sign in (-1, 1)]
        slope = on_sample(found["derivative"].right, x, scale)
        assert slope == pytest.approx((ends[1] - ends[0]) / (2 * step), abs=1e-9)


def test_sample_with_a_symbolic_number_of_levels() -> None:
    x = np.sort(np.random.default_rng(6).standard_normal(40))
    found = symbolic.derivation("optimum", "empirical", EVEN)
    assert found["closed form"].right.has(symbolic.LevelSum)
    best = qe.optimal_scale(qe.Empirical(x), "int3_midrise")
    concrete = {EVEN: 8}
    error = found["closed form"].right.subs(concrete).doit()
    assert on_sample(error, x, float(best.scale)) == pytest.approx(float(best.error.mse), rel=1e-11)
    assert on_sample(found.result.subs(concrete).doit(), x, float(best.scale)) == pytest.approx(best.scale)


# -- derivations, user densities, refusals -----------------------------------------------------------------------------


def test_derivation_renders() -> None:
    found = symbolic.derivation("optimum", "gaussian", "ternary")
    names = [step.name for step in found.steps]
    assert names == ["density", "integral", "closed form", "derivative", "optimality condition", "optimum"]
    assert found.latex().count(r"\\" + "\n") == len(names) - 1
    assert found.markdown().count("$$") == 2 * len(names)
    assert len(json.loads(found.notebook())["cells"]) == len(names) + 1
    assert found is symbolic.derivation("optimum", "gaussian", "ternary")
    with pytest.raises(KeyError, match="no step 'proof'; there are 'density'"):
        found["proof"]


# Seconds of a processor; a third of it where nothing else runs.
LONGEST_DERIVATION = 5.0


def test_derivations_take_seconds() -> None:
    """Two components with functions of their own, thirty cells, a numeric optimum."""
    start = time.process_time()
    found = symbolic.derivation("optimum", "mixture(0.5*laplace:std=1; 0.5*logistic:std=2)", "nf4")
    assert len(found.markdown()) > 1000
    assert time.process_time() - start < LONGEST_DERIVATION


x = sp.Symbol("x", real=True)
USER = {
    "triangle": (1 - sp.Abs(x), (-1, 1), "closed form"),
    "gamma": (x * sp.exp(-x), (0, sp.oo), "closed form"),
    "gaussian": (sp.exp(-(x**2) / 2) / sp.sqrt(2 * sp.pi), (-sp.oo, sp.oo), "closed form"),
    "step": (sp.Piecewise((sp.Rational(1, 2), x < 1), (sp.exp(1 - x) / 2, True)), (0, sp.oo), "closed form"),
    "any symbol": (sp.Max(0, 1 - sp.Abs(sp.Symbol("x"))), (-2, 2), "closed form"),
    "arcsine": (1 / (sp.pi * sp.sqrt(1 - x**2)), (-1, 1), "quadrature"),
    "hyperbolic secant": (1 / (2 * sp.cosh(sp.pi * x / 2)), (-sp.oo, sp.oo), "quadrature"),
}


@pytest.mark.parametrize("name", USER)
def test_user_density(name: str) -> None:
    pdf, support, route = USER[name]
    variable = next(iter(pdf.free_symbols))
    found = symbolic.density(pdf, variable, support, time_limit=0.0 if route == "quadrature" else 30.0)
    assert found.route.startswith(route)
    ends = [float(end) for end in support]
    kinks = {"triangle": [0.0], "step": [1.0], "any symbol": [-1.0, 0.0, 1.0]}.get(name, [])
    plain = sp.lambdify(variable, pdf)
    expected = qe.from_pdf(lambda at: np.broadcast_to(plain(at), np.shape(at)), (ends[0], ends[1]), kinks=kinks)
    # from_pdf promises 1e-8 and usually keeps 1e-10.
    assert float(found.std) == pytest.approx(float(expected.std), rel=1e-9)
    for scale in (0.02, 0.2, 1.0):
        for field in ("clipping", "rounding"):
            one, two = (getattr(qe.quantization_error(d, "int4", scale), field) for d in (found, expected))
            assert one == pytest.approx(two, rel=1e-9, abs=1e-30)
    if name == "gaussian":
        exact = qe.quantization_error(qe.Gaussian(), "int8", 0.03)
        assert qe.quantization_error(found, "int8", 0.03).mse == pytest.approx(exact.mse, rel=1e-11)
        assert float(qe.optimal_scale(found, "int4").scale) == pytest.approx(
            float(qe.optimal_scale(qe.Gaussian(), "int4").scale), rel=1e-7
        )


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: symbolic.density(x, x, (0, 1)), r"pdf must integrate to 1 over the support \(0.0, 1.0\), got 0.5"),
        (lambda: symbolic.density(-sp.exp(-x), x, (0, sp.oo)), "pdf must be finite and >= 0"),
        (lambda: symbolic.density(sp.exp(-x / b) / b, x, (0, sp.oo)), "no symbol but x, got b; substitute numbers"),
        (lambda: symbolic.density(sp.DiracDelta(x), x), r"without point masses.*qerror.Mixture\(\[qerror.Empirical"),
        (lambda: symbolic.density(sp.I * sp.exp(-x), x, (0, sp.oo)), "pdf must be real"),
        (lambda: symbolic.density("exp(-x)", "x", (0, sp.oo)), "x must be the Symbol that pdf is a function of"),
        (lambda: symbolic.density(sp.exp(-s), x, (0, sp.oo)), "no symbol but x, got s"),
        (
            lambda: symbolic.density(sp.exp(-sp.Symbol("x")), x, (0, sp.oo)),
            "another symbol named x, with other assumptions",
        ),
        (lambda: symbolic.named("histogram:counts=1"), "no symbolic density 'histogram'.*qerror.density has it"),
        (lambda: symbolic.named("gausian"), "did you mean 'gaussian'"),
        (lambda: symbolic.mse("gaussian", sp.Symbol("N"), s), "known to be even or odd, got N; use sympy.Symbol"),
        (lambda: symbolic.mse("gaussian", 1, s), "grid must have a whole number of levels, at least 2, got 1"),
        (lambda: symbolic.named("mixture(gaussian)"), r"written as mixture\(weight\*name; weight\*name\)"),
        (lambda: symbolic.named("mixture(-1*gaussian;2*gaussian)"), "weights must be >= 0 and not all 0, got -1, 2"),
        (lambda: symbolic.named("laplace:std=1,std=2"), "a parameter is given twice"),
        (lambda: symbolic.to_numpy(symbolic.mse("empirical", 3, s)), r"qerror.Empirical\(x\) has its numbers"),
        (lambda: symbolic.derivation("mse", "gaussian"), "grid is needed for mse: a name such as 'int4'"),
        (lambda: symbolic.stationarity("gaussian", 2, 0.5), "scale must be a Symbol to differentiate by"),
        (lambda: symbolic.gaussian(sp.Symbol("v")), "std must be positive, got v; use sympy.Symbol"),
        (lambda: symbolic.student_t(2), "df must be larger than 2"),
        (lambda: symbolic.clipping_error("gaussian", symbolic.X), "x is what integrals and sums here are over"),
        (lambda: symbolic.mse("gaussian", "e2m1", sp.Symbol("j", positive=True)), "j is what integrals and sums here"),
        (lambda: symbolic.laplace(b=symbolic.X), "b must not contain x, the variable of the pdf"),
        (lambda: symbolic.to_numpy(sp.Symbol("s^{*}")), r"names that a function can take, got s\^\*"),
        (
            lambda: symbolic.to_numpy(sp.Sum(s, (sp.Symbol("k in 1, #"), 1, 2))),
            "names that a function can take, got k in",
        ),
        (lambda: symbolic.to_numpy(s, name="f(s): pass #"), "name must be one that a function can have"),
        (
            lambda: symbolic.gaussian(mean="sigma"),
            "mean must be a SymPy expression or a number, got 'sigma'; text is not",
        ),
        (lambda: symbolic.gaussian(mean=float("nan")), "mean must be a number, got nan"),
        (lambda: symbolic.gaussian(True), "std must be a SymPy expression or a number, got True"),
        (lambda: symbolic.named("gaussian:std=1e999999999"), "std must be a number such as 2, 0.5, 1e-3 or 1/3, got"),
        (lambda: symbolic.named("gaussian:std=1/0"), "std must be a number such as"),
        (lambda: symbolic.named("gaussian:std=" + "9" * 2000), "std must be a number such as"),
        (lambda: symbolic.partial_moment("gaussian", 10**9, s), "k must be an integer from 0 to 64, got 1000000000"),
        (lambda: symbolic.clip_growth_error(1), "levels must be an integer from 2 to"),
        (lambda: symbolic.panter_dite("logistic"), "has no closed form here; evaluate .* with evalf"),
        (lambda: symbolic.derivation("mse", SECANT, 4), "have no closed form that is known here; symbolic.density"),
    ],
)
def test_refusals_say_what_can_be_asked(call: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        call()


# What every parameter of the public names may be, where text is tried in the place of another one.
FINE: dict[str, Any] = {
    **{"std": 1, "mean": 0, "df": 5, "beta": 2, "components": [symbolic.gaussian(1)], "weights": [1], "bits": 4},
    **{"density": "gaussian:std=1", "grid": 3, "scale": s, "model": "exact", "rounding": "nearest", "shift": 0},
    **{"clip": C, "k": 0, "t": C, "levels": 16, "quantity": "clipping", "name": "gaussian", "n": 8, "title": "t"},
    **{"pdf": sp.Rational(1, 2), "x": sp.Symbol("x"), "support": (-1, 1), "time_limit": 0.0, "half_pdf": sp.exp(-C)},
    **{"end": sp.oo, "left": s, "right": s, "note": "", "steps": (), "expression": s, "arguments": [s]},
    **{"lower": 0, "upper": 1, "loss": symbolic.X},
}
SUMMED = (s, (sp.Symbol("k", integer=True), 1, 2))
# Classes of SymPy take what SymPy's take.
POSITIONAL = {symbolic.Rank: (s,), symbolic.HalfLineIntegral: (symbolic.X, (symbolic.X, 0, 1))}
POSITIONAL |= {symbolic.LevelSum: SUMMED, symbolic.SampleSum: SUMMED}
# Text that is shown, and never read: a label. Sources are run by `to_numpy`, before there is an object that has them.
LABELS = {("SymbolicDensity", "name"), ("SymbolicSample", "name"), ("Step", "name"), ("Step", "note")}
LABELS |= {("Derivation", "title"), ("Derivation", "steps")}
# Words of this library: SymPy's own error is a ValueError too.
REFUSED = r" must be | needs one weight |^unknown |^no symbolic density "
MADE_BY_FUNCTIONS = {"CompiledExpression", "FromExpression"}


def entries() -> dict[str, Any]:
    """Every public function, class, and method that takes expressions, with arguments that it takes."""
    found: dict[str, Any] = {name: getattr(symbolic, name) for name in symbolic.__all__}
    found = {name: entry for name, entry in found.items() if callable(entry) and name not in MADE_BY_FUNCTIONS}
    for made in (symbolic.gaussian(1), symbolic.empirical()):
        for method in ("integral", "pdf", "masses"):
            if hasattr(made, method):
                found[f"{type(made).__name__}.{method}"] = getattr(made, method)
    return found


def arguments_of(entry: Any) -> dict[Any, Any]:
    if entry in POSITIONAL:
        return dict(enumerate(POSITIONAL[entry]))
    kinds = inspect.signature(entry).parameters
    names = [name for name, parameter in kinds.items() if parameter.kind is not parameter.VAR_KEYWORD]
    # A new parameter has a place in FINE: KeyError until it has.
    return {name: FINE[name] for name in names if (getattr(entry, "__name__", ""), name) not in {("laplace", "b")}}


@pytest.mark.parametrize("name", entries())
def test_text_is_never_run(name: str, tmp_path: Any) -> None:
    """SymPy's sympify runs text as Python: no parameter of a public name may reach it with text."""
    trace = tmp_path / "was_here"
    evil = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    entry = entries()[name]
    arguments = arguments_of(entry)

    def call(given: dict[Any, Any]) -> Any:
        return entry(*given.values()) if entry in POSITIONAL else entry(**given)

    call(arguments)
    for key, fine in arguments.items():
        nested = [(fine[0], evil), [evil]] if isinstance(fine, tuple | list) and fine else []
        for text in (evil, *nested):
            if (name, key) in LABELS:
                call({**arguments, key: text})
            else:
                with pytest.raises(ValueError, match=REFUSED):
                    call({**arguments, key: text})
            assert not trace.exists(), f"{name} runs text given as {key}"
    if name == "laplace":
        with pytest.raises(ValueError, match="b must be a SymPy expression or a number"):
            symbolic.laplace(b=evil)
    if name == "sqnr":
        with pytest.raises(ValueError, match="shift must be a SymPy expression or a number"):
            symbolic.sqnr("gaussian", 3, s, shift=evil)
    assert not trace.exists()


def test_names_and_the_command_line_run_no_text(tmp_path: Any) -> None:
    trace = tmp_path / "was_here"
    evil = f"__import__('pathlib').Path({str(trace)!r}).touch()"
    for name in (f"gaussian:std={evil}", f"mixture({evil}*gaussian)", f"student-t:df={evil}", evil):
        with pytest.raises(ValueError, match=REFUSED):
            symbolic.named(name)
        for option in ("--density", "--grid"):
            found = CliRunner().invoke(qerror_command, ["derive", "mse", "--grid", "3", option, name])
            assert found.exit_code == 2, found.output
    assert not trace.exists()


class Disguised:
    """What SymPy would ask for text and read."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text

    def _sympy_(self) -> str:
        return self.text


class Printed(Disguised):
    """The same without a conversion of its own: SymPy reads what it prints."""

    _sympy_ = None  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [Disguised, Printed])
def test_objects_are_not_read_as_text(kind: Any) -> None:
    for call in (symbolic.gaussian, symbolic.student_t, symbolic.empirical, symbolic.Rank, symbolic.symbolic_levels):
        with pytest.raises(ValueError, match=REFUSED):
            call(kind("1 + 1"))


SECANT = symbolic.SymbolicDensity("secant", 1 / (2 * sp.cosh(sp.pi * symbolic.X / 2)))


def test_without_closed_form_expressions_stay_folded() -> None:
    folded = symbolic.clipping_error(SECANT, sp.Integer(1))
    assert folded.doit().has(sp.Integral)
    direct = mpmath.quad(lambda v: (v - 1) ** 2 * mpmath.sech(mpmath.pi * v / 2), [1, 3, 10, mpmath.inf])
    assert float(folded.evalf(15)) == pytest.approx(float(direct), rel=1e-12)


def test_folded_until_asked() -> None:
    error = symbolic.mse("gaussian", EVEN, s)
    assert error.has(symbolic.LevelSum)
    assert error.has(symbolic.HalfLineIntegral)
    assert not error.has(sp.erfc)
    assert not error.doit().has(sp.Integral)
    assert symbolic.mse("gaussian", "e5m2", s).atoms(sp.Sum)
    point = {s: sp.Rational(1, 3), sigma: 1}
    concrete = symbolic.rounding_error("gaussian", "ternary", s)
    folded, closed = (expression.subs(point).evalf(20) for expression in (concrete, concrete.doit()))
    assert abs(folded - closed) < mpmath.mpf(10) ** -18
