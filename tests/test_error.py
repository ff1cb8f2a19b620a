"""Laws of the error: what holds for every density, grid, scale and shift, and how far float64 keeps it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qerror as qe
from qerror.errors.exact import error_sums

# The terms are promised within 1e-12 (clipping 1e-10) of the true integral: a law relates two or three of them.
TERM_TOLERANCE = {"clipping": 1e-10, "rounding": 1e-12, "power": 1e-13}
# Bias and mean are absolute: of max(std, |bias|, rms of Q(x)); cross, a product, of the square of that.
ABSOLUTE_TOLERANCE = 1e-12
# Sums of positive terms in another order.
SUM_TOLERANCE = 1e-13
# Differences of fourth order with steps of 1e-3: truncation about h^4, rounding eps / h.
GRADIENT_TOLERANCE = 1e-9
# A law must see an error of one term that is wrong by this.
WRONG = 0.01

RNG = np.random.default_rng(20250211)
SAMPLE = RNG.standard_normal(200)
WEIGHTS = RNG.random(200)
COUNTS = np.array([1, 0, 4, 9, 2, 2, 5])
EDGES = np.array([-3.0, -2.0, -1.5, -0.2, 0.1, 0.9, 2.0, 4.5])


def histogram(a: float, b: float) -> qe.Density:
    edges = a * EDGES + b
    return qe.Histogram(COUNTS, edges) if a > 0 else qe.Histogram(COUNTS[::-1], edges[::-1])


# A density of a X + b for each kind of X; a may be negative.
FAMILIES: dict[str, Callable[[float, float], qe.Density]] = {
    "gaussian": lambda a, b: qe.Gaussian(b, abs(a)),
    "laplace": lambda a, b: qe.Laplace(0.3 * a + b, abs(a)),
    "logistic": lambda a, b: qe.Logistic(b, abs(a)),
    "student-t-2.2": lambda a, b: qe.StudentT(2.2, b, abs(a)),
    "student-t-5": lambda a, b: qe.StudentT(5, b - a, abs(a)),
    "generalized-gaussian-0.5": lambda a, b: qe.GeneralizedGaussian(0.5, b, abs(a)),
    "generalized-gaussian-4": lambda a, b: qe.GeneralizedGaussian(4.0, b, abs(a)),
    "uniform": lambda a, b: qe.Uniform(b, abs(a)),
    "histogram": histogram,
    "mixture": lambda a, b: qe.Mixture([qe.Gaussian(b, abs(a)), qe.Laplace(2 * a + b, 0.2 * abs(a))], [0.75, 0.25]),
    "sample": lambda a, b: qe.Empirical(a * SAMPLE + b),
    "weighted-sample": lambda a, b: qe.Empirical(a * SAMPLE + b, weights=WEIGHTS),
}
# Rectifying fixes the origin and the sign.
ANCHORED: dict[str, Callable[[float], qe.Density]] = {
    "rectified": lambda a: qe.Rectified(qe.Gaussian(0.2 * a, a)),
    "mixture-with-atom": lambda a: qe.Mixture([qe.Rectified(qe.Laplace(0, a)), qe.Gaussian(-a, a)], [0.5, 0.5]),
}
EVERY: dict[str, Callable[[float], qe.Density]] = {
    **{name: (lambda a, make=make: make(a, 0.0)) for name, make in FAMILIES.items()},
    **ANCHORED,
}
GRIDS = [
    *("int2", "int3", "int4", "int8", "uint4", "int4_narrow", "int4_midrise", "binary", "ternary"),
    *("e2m1", "e3m0", "e2m3", "e4m3fn", "nf4", "pot4", "apot4"),
]
ROUNDINGS = ["nearest", "stochastic"]


@st.composite
def grids(draw: st.DrawFn) -> qe.Grid:
    """A named grid, or levels of any kind: one-sided, without 0, unevenly spaced."""
    if draw(st.booleans()):
        return qe.grid(draw(st.sampled_from(GRIDS)))
    levels = draw(st.lists(st.integers(-1000, 1000), min_size=2, max_size=12, unique=True))
    return qe.Grid(np.sort(np.array(levels)) / draw(st.sampled_from([8.0, 100.0, 300.0])))


def log_floats(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(math.log(low), math.log(high)).map(math.exp)


def spread(grid: qe.Grid, clip: float) -> float:
    """The scale that puts the largest level at `clip`."""
    return clip / grid.absmax


def terms(density: qe.Density, grid: qe.Grid, scale: float, shift: float, **options: Any) -> dict[str, float]:
    error = qe.quantization_error(density, grid, scale, shift, **options)
    return {field.name: float(getattr(error, field.name)) for field in dataclasses.fields(error)}


def assert_same(found: dict[str, float], expected: dict[str, float], unit: float) -> None:
    """Two sets of terms agree as far as the library promises; `unit` is the largest of std, |x|, |Q(x)| in play."""
    for name, value in expected.items():
        if name in TERM_TOLERANCE:
            # Below 1e-16 of the unit squared only the rounding of the values themselves is left.
            allowed = 2 * TERM_TOLERANCE[name] * abs(value) + 1e-32 * unit**2
        else:
            allowed = ABSOLUTE_TOLERANCE * unit ** (2 if name == "cross" else 1)
        assert abs(found[name] - value) <= allowed, (name, found[name], value)


def extent(grid: qe.Grid, scale: float, shift: float) -> float:
    return max(abs(shift + scale * grid.min), abs(shift + scale * grid.max), abs(shift))


# -- scale, reflection, sign -----------------------------------------------------------------------------------------


@given(
    st.sampled_from(sorted(EVERY)), grids(), log_floats(0.03, 30), st.floats(-2, 2), log_floats(1e-30, 1e30),
    st.sampled_from(ROUNDINGS),
)  # fmt: skip
def test_units_do_not_matter(name: str, grid: qe.Grid, clip: float, shift: float, c: float, rounding: str) -> None:
    """E(c X; c s, c z) = c^2 E(X; s, z), by any c and exactly so by powers of two."""
    scale = spread(grid, clip)
    one = terms(EVERY[name](1.0), grid, scale, shift, rounding=rounding)
    power = {"bias": 1, "mean": 1}
    expected = {field: value * c ** power.get(field, 2) for field, value in one.items()}
    found = terms(EVERY[name](c), grid, c * scale, c * shift, rounding=rounding)
    # Values on a threshold in one unit and beside it in the other carry their own error of rounding.
    assert_same(found, expected, c * (extent(grid, scale, shift) + 5))


@given(st.sampled_from(sorted(FAMILIES)), grids(), log_floats(0.03, 30), st.floats(-2, 2), st.sampled_from(ROUNDINGS))
def test_reflection(name: str, grid: qe.Grid, clip: float, shift: float, rounding: str) -> None:
    """Density, grid and shift turned round together: the same error, bias and mean with the other sign."""
    scale = spread(grid, clip)
    one = terms(FAMILIES[name](1.0, 0.25), grid, scale, shift, rounding=rounding)
    mirrored = qe.Grid(-grid.levels[::-1])
    two = terms(FAMILIES[name](-1.0, -0.25), mirrored, scale, -shift, rounding=rounding)
    two |= {"bias": -two["bias"], "mean": -two["mean"]}
    assert_same(two, one, extent(grid, scale, shift) + 5)


@given(st.sampled_from(sorted(EVERY)), grids(), log_floats(1e-3, 1e3), st.floats(-3, 3), st.sampled_from(ROUNDINGS))
def test_terms_are_not_negative(name: str, grid: qe.Grid, clip: float, shift: float, rounding: str) -> None:
    found = qe.quantization_error(EVERY[name](1.0), grid, spread(grid, clip), shift, rounding=rounding)
    assert found.clipping >= 0
    assert found.rounding >= 0
    assert found.mse == found.clipping + found.rounding


# -- order -----------------------------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(EVERY)), grids(), log_floats(0.03, 30), st.floats(-2, 2), st.floats(-1.5, 1.5))
def test_another_level_never_hurts(name: str, grid: qe.Grid, clip: float, shift: float, place: float) -> None:
    level = round(place * grid.absmax, 6)
    more = qe.Grid(np.unique(np.append(grid.levels, level)))
    scale = spread(grid, clip)
    before, after = (float(qe.quantization_error(EVERY[name](1.0), g, scale, shift).mse) for g in (grid, more))
    assert after <= before * (1 + 2 * TERM_TOLERANCE["rounding"])


def test_another_level_helps() -> None:
    """The law above can fail: taking a level away raises the error by more than its tolerance."""
    fewer = qe.Grid(np.delete(qe.grid("int4").levels, 9))
    full, less = (qe.quantization_error(qe.Gaussian(), g, 0.3).mse for g in ("int4", fewer))
    assert less > full * (1 + WRONG)


@given(st.sampled_from(sorted(EVERY)), grids(), log_floats(1e-3, 1e3), st.floats(-2, 2))
def test_rounding_to_nearest_is_better_than_zero(name: str, grid: qe.Grid, clip: float, shift: float) -> None:
    """MSE <= E[(x - z)^2] wherever 0 is a level: Q(x) = z is one of the choices."""
    grid = qe.Grid(np.unique(np.append(grid.levels, 0.0)))
    error = qe.quantization_error(EVERY[name](1.0), grid, spread(grid, clip), shift)
    distance = error.power - 2 * shift * error.mean + shift**2
    assert error.mse <= distance * (1 + 1e-12)


@given(st.sampled_from(sorted(EVERY)), grids(), log_floats(1e-2, 1e2), st.floats(-2, 2))
def test_stochastic_is_never_better(name: str, grid: qe.Grid, clip: float, shift: float) -> None:
    """E[(x - Q)^2 | x] is the variance over both neighbours: at least the squared distance of the nearer one."""
    density, scale = EVERY[name](1.0), spread(grid, clip)
    nearest, stochastic = (terms(density, grid, scale, shift, rounding=r) for r in ROUNDINGS)
    assert stochastic["rounding"] >= nearest["rounding"] * (1 - 1e-12)
    # Beyond the end levels there is one choice.
    assert abs(stochastic["clipping"] - nearest["clipping"]) <= 1e-12 * nearest["clipping"]


# -- convexity -------------------------------------------------------------------------------------------------------


def convex_excess(
    density: qe.Density, grid: qe.Grid, u: np.ndarray, shift: float, rounding: str, wrong: float
) -> float:
    """How far the middle of three points lies above the chord of its neighbours, in units of its own size.

    h(u) = A u^2 - u^2 MSE(1/u) for rounding to nearest, (MSE + A) u^2 for stochastic rounding.
    """
    error = qe.quantization_error(density, grid, 1 / u, shift, rounding=rounding)
    sign = -1.0 if rounding == "nearest" else 1.0
    mse = error.mse * np.array([1.0, 1.0 + sign * wrong, 1.0])
    power = float(error.power[0]) - 2 * shift * float(error.mean[0]) + shift**2
    h = u**2 * (power + sign * mse)
    share = (u[1] - u[0]) / (u[2] - u[0])
    return float((h[1] - (1 - share) * h[0] - share * h[2]) / (u[1] ** 2 * (power + mse[1])))


@given(
    st.sampled_from(sorted(EVERY)), grids(), log_floats(0.02, 50), log_floats(1e-4, 1), log_floats(1e-4, 1),
    st.floats(-2, 2), st.sampled_from(ROUNDINGS),
)  # fmt: skip
def test_convex_in_the_inverse_scale(
    name: str, grid: qe.Grid, clip: float, left: float, right: float, shift: float, rounding: str
) -> None:
    u = (1 / spread(grid, clip)) * np.array([1.0, 1.0 + left, (1.0 + left) * (1.0 + right)])
    assert convex_excess(EVERY[name](1.0), grid, u, shift, rounding, 0.0) <= 4e-15


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_convexity_notices_a_wrong_error(rounding: str) -> None:
    u = (1 / 0.3) * np.array([1.0, 1.001, 1.002])
    assert convex_excess(qe.Gaussian(), qe.grid("int4"), u, 0.0, rounding, 0.0) <= 4e-15
    assert convex_excess(qe.Gaussian(), qe.grid("int4"), u, 0.0, rounding, WRONG) > 4e-15


# -- gradients -------------------------------------------------------------------------------------------------------

STENCIL = np.array([1 / 12, -8 / 12, 8 / 12, -1 / 12])
SMOOTH = ["gaussian", "laplace", "logistic", "student-t-2.2", "student-t-5", "generalized-gaussian-4", "mixture"]
JUMPS = ["uniform", "histogram", "sample", "weighted-sample", "rectified", "mixture-with-atom"]


def differences(f: Callable[[np.ndarray], np.ndarray], at: float, step: float) -> float:
    return float(f(at + step * np.array([-2.0, -1.0, 1.0, 2.0])) @ STENCIL / step)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("grid", ["int3", "int8", "uint4", "e2m1", "e3m2", "nf4", "int4_midrise", "binary"])
@pytest.mark.parametrize("name", SMOOTH)
def test_gradient(name: str, grid: str, rounding: str) -> None:
    density, levels = FAMILIES[name](1.0, 0.1), qe.grid(grid)
    for clip, shift in ((0.7, 0.0), (2.9, 0.35), (9.0, -1.2)):
        scale = spread(levels, clip)
        found = error_sums(density, levels, np.array([scale]), np.array([shift]), rounding)
        h = 2e-4 * min(scale, 1.0)

        def by_scale(s: np.ndarray, shift: float = shift) -> np.ndarray:
            return np.asarray(qe.quantization_error(density, levels, s, shift, rounding=rounding).mse)

        def by_shift(z: np.ndarray, scale: float = scale) -> np.ndarray:
            return np.asarray(qe.quantization_error(density, levels, scale, z, rounding=rounding).mse)

        # A cusp of the pdf inside a step costs a power of it.
        cusp = 1e-2 if name in {"laplace", "mixture"} else 1.0
        allowed = GRADIENT_TOLERANCE / cusp * (1.0 + float(found.mse[0]))
        assert abs(differences(by_scale, scale, h) - found.by_scale[0]) * scale <= allowed
        assert abs(differences(by_shift, shift, h) - found.by_shift[0]) * scale <= allowed
        # There was something to compare.
        assert max(abs(found.by_scale[0]), abs(found.by_shift[0])) * scale > 100 * allowed


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", JUMPS)
def test_gradient_beside_jumps(name: str, rounding: str) -> None:
    """Where the pdf jumps or has atoms the MSE is smooth between the events: a step that meets none."""
    density, levels = EVERY[name](1.0), qe.grid("e2m1")
    scale, shift = 0.4321, 0.1357
    found = error_sums(density, levels, np.array([scale]), np.array([shift]), rounding)
    h = 1e-7

    def mse(s: Any, z: Any) -> np.ndarray:
        return np.asarray(qe.quantization_error(density, levels, s, z, rounding=rounding).mse)

    assert abs(differences(lambda s: mse(s, shift), scale, h) - found.by_scale[0]) <= 1e-7
    assert abs(differences(lambda z: mse(scale, z), shift, h) - found.by_shift[0]) <= 1e-7
    assert abs(found.by_scale[0]) > 1e-3


# -- mixtures --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.sampled_from(sorted(EVERY)), min_size=2, max_size=3), st.integers(0, 2**32 - 1), grids(),
    log_floats(0.03, 30), st.floats(-2, 2), st.sampled_from(ROUNDINGS),
)  # fmt: skip
def test_mixtures_are_linear(
    names: list[str], seed: int, grid: qe.Grid, clip: float, shift: float, rounding: str
) -> None:
    rng = np.random.default_rng(seed)
    parts = [EVERY[name](float(a)) for name, a in zip(names, 10.0 ** rng.uniform(-1, 1, len(names)), strict=True)]
    weights = rng.dirichlet(np.ones(len(parts)))
    scale = spread(grid, clip)
    each = [terms(part, grid, scale, shift, rounding=rounding) for part in parts]
    expected = {field: sum(w * t[field] for w, t in zip(weights, each, strict=True)) for field in each[0]}
    found = terms(qe.Mixture(parts, weights), grid, scale, shift, rounding=rounding)
    assert_same(found, expected, extent(grid, scale, shift) + 50)


# -- probabilities of the codes --------------------------------------------------------------------------------------


@given(st.sampled_from(sorted(EVERY)), grids(), log_floats(1e-2, 1e2), st.floats(-2, 2), st.sampled_from(ROUNDINGS))
def test_code_probabilities(name: str, grid: qe.Grid, clip: float, shift: float, rounding: str) -> None:
    """They are not negative, sum to 1, and their mean is E[Q(x)] = mean + bias."""
    density, scale = EVERY[name](1.0), spread(grid, clip)
    p = qe.code_probabilities(density, grid, scale, shift, rounding=rounding)
    assert p.shape == grid.levels.shape
    assert (p >= 0).all()
    assert abs(p.sum() - 1) <= SUM_TOLERANCE * 10
    values = shift + scale * grid.levels
    error = qe.quantization_error(density, grid, scale, shift, rounding=rounding)
    assert abs(p @ values - (error.mean + error.bias)) <= 1e-11 * (1 + np.abs(values).max())


@given(st.sampled_from(sorted(EVERY)), grids(), log_floats(1e-2, 1e2), st.floats(-2, 2))
def test_terms_tell_the_second_moment_of_the_values(name: str, grid: qe.Grid, clip: float, shift: float) -> None:
    """E[Q^2] = E[x^2] + 2 E[x (Q - x)] + MSE: the cross term against the probabilities of the codes."""
    density, scale = EVERY[name](1.0), spread(grid, clip)
    error = qe.quantization_error(density, grid, scale, shift)
    values = shift + scale * grid.levels
    second = qe.code_probabilities(density, grid, scale, shift) @ values**2
    told = error.power + 2 * error.cross + error.mse
    assert abs(second - told) <= 1e-11 * (error.power + np.abs(values).max() ** 2)


@given(st.sampled_from(sorted(EVERY)), grids(), log_floats(1e-2, 1e2), st.sampled_from(ROUNDINGS))
def test_entropy(name: str, grid: qe.Grid, clip: float, rounding: str) -> None:
    density, scale = EVERY[name](1.0), spread(grid, clip)
    p = qe.code_probabilities(density, grid, scale, rounding=rounding)
    entropy = qe.code_entropy(density, grid, scale, rounding=rounding)
    assert abs(entropy + sum(v * math.log2(v) for v in p if v > 0)) <= 1e-12
    assert -1e-12 <= entropy <= math.log2(len(grid)) + 1e-12


def test_entropy_of_even_codes() -> None:
    """A uniform density over the cells of int4 uses every code equally often: 4 bits."""
    assert abs(qe.code_entropy(qe.Uniform.from_bounds(-8.5, 7.5), "int4", 1.0) - 4.0) <= SUM_TOLERANCE
    assert qe.code_entropy(qe.Empirical([1.0, 1.0]), "int4", 1.0) == 0.0


def test_stochastic_keeps_the_mean_between_the_levels() -> None:
    uniform = qe.Uniform.from_bounds(-8, 7)
    assert abs(qe.quantization_error(uniform, "int4", 1.0, rounding="stochastic").bias) <= SUM_TOLERANCE
    # P of an inner code: a hat function of width 2 over a density of 1 / 15.
    p = qe.code_probabilities(uniform, "int4", 1.0, rounding="stochastic")
    np.testing.assert_allclose(p, np.array([0.5, *np.ones(14), 0.5]) / 15, rtol=0, atol=SUM_TOLERANCE)


# -- cross term of coarse grids --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(EVERY))
@pytest.mark.parametrize("clip", [5.0, 50.0, 5e3])
def test_cross_of_coarse_grids(name: str, clip: float) -> None:
    """E[x (Q - x)] by brute quadrature over the quantiles, where the error exceeds the signal."""
    density, scale = EVERY[name](1.0), clip
    error = qe.quantization_error(density, "binary", scale)
    assume_coarse = error.mse > error.power
    # binary: Q = s sign(x), so E[x Q] = s E|x|.
    mass = density.moments([-np.inf, 0.0], [0.0, np.inf], 0.0)
    expected = scale * float(np.abs(mass[1]).sum()) - float(error.power)
    assert assume_coarse
    assert abs(error.cross - expected) <= 1e-12 * max(abs(expected), float(error.power))


# -- errors near the rounding of the levels ----------------------------------------------------------------------------


def check_resolution(error: qe.ErrorTerms, mse: Fraction, shift: float) -> None:
    """The root of the error is that of the exact one to 2^-52 of sqrt(power) + |shift|."""
    with mpmath.workdps(50):
        root = mpmath.sqrt(mpmath.mpf(mse.numerator) / mse.denominator)
        off = abs(mpmath.sqrt(mpmath.mpf(float(error.mse))) - root)
        assert off <= 2.0**-52 * (math.sqrt(error.power) + abs(shift)) + TERM_TOLERANCE["rounding"] * root


@pytest.mark.parametrize("ulps", [0, 1, 4, 1000])
@pytest.mark.parametrize("shift", [0.0, 0.7, -1e6, 1e10])
def test_errors_of_values_that_almost_lie_on_levels(shift: float, ulps: int) -> None:
    """Against fractions; value by value and, with many scales, by sums over cells."""
    rng = np.random.default_rng(ulps)
    levels = qe.grid("int4").levels
    for scale in (0.1, 1 / 3, 7e-4, 250.0):
        x = (shift + scale * rng.choice(levels, 5)) * (1 + rng.integers(-ulps, ulps + 1, 5) * 2.0**-52)
        values = [Fraction(shift) + Fraction(scale) * int(level) for level in levels]
        exact = sum(min((Fraction(v) - q) ** 2 for q in values) for v in x.tolist()) / Fraction(5)
        alone = qe.quantization_error(qe.Empirical(x), "int4", scale, shift)
        many = qe.quantization_error(qe.Empirical(x), "int4", np.full(40, scale), shift)
        check_resolution(alone, exact, shift)
        check_resolution(qe.ErrorTerms(*(getattr(many, f.name)[7] for f in dataclasses.fields(many))), exact, shift)


@pytest.mark.parametrize("family", [qe.Gaussian, qe.Laplace, qe.Uniform])
@pytest.mark.parametrize(
    ("mean", "scale", "shift"),
    [(0.3, 0.1, 0.0), (-0.7, 0.1, 0.0), (2.1, 0.3, 0.0), (1e6 + 0.3, 0.1, 1e6), (5.0, 5.0, 0.0)],
)
@pytest.mark.parametrize("std", [1e-3, 1e-12, 1e-16, 1e-20])
def test_errors_of_densities_that_almost_lie_on_a_level(
    family: Callable[..., qe.Density], mean: float, scale: float, shift: float, std: float
) -> None:
    """All in one cell: the error is std^2 + (mean - value)^2."""
    density = family(mean, std)
    value = min((Fraction(shift) + Fraction(scale) * k for k in range(-8, 8)), key=lambda q: abs(q - Fraction(mean)))
    exact = Fraction(std) ** 2 + (Fraction(mean) - value) ** 2
    check_resolution(qe.quantization_error(density, "int4", scale, shift), exact, shift)


def test_an_error_that_is_lost_in_the_rounding_of_levels() -> None:
    """0.1 is 3602879701896397 / 2^55, three times that no float64: what is nearest has an error, of which 0 is left."""
    x = 3 * 0.1
    exact = (Fraction(x) - 3 * Fraction(0.1)) ** 2
    assert exact == Fraction(1, 2**55) ** 2
    assert float(exact) < 5e-32 * x * x
    assert qe.quantization_error(qe.Empirical([x]), "int4", 0.1).mse == 0


# -- shapes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("model", ["exact", "high_resolution"])
def test_everything_broadcasts(rounding: str, model: str) -> None:
    """Arrays of densities, scales and shifts give what each gives alone."""
    std = np.array([0.5, 1.0, 2.0])
    scale, shift = np.array([[0.2], [0.7]]), np.array([[[0.0]], [[0.3]]])
    for grid in ("int3", "e2m1"):
        many = qe.quantization_error(qe.Laplace(0.1, std), grid, scale, shift, rounding=rounding, model=model)
        assert many.mse.shape == (2, 2, 3)
        for i, j, k in np.ndindex(2, 2, 3):
            one = qe.quantization_error(
                qe.Laplace(0.1, std[k]), grid, scale[j, 0], shift[i, 0, 0], rounding=rounding, model=model
            )
            for field in dataclasses.fields(many):
                value = np.broadcast_to(getattr(many, field.name), many.mse.shape)[i, j, k]
                assert abs(value - getattr(one, field.name)) <= SUM_TOLERANCE
        p = qe.code_probabilities(qe.Laplace(0.1, std), grid, scale, shift)
        assert p.shape == (2, 2, 3, len(qe.grid(grid)))


def test_scalars_come_back_as_scalars() -> None:
    error = qe.quantization_error(qe.Gaussian(), "int4", 0.3)
    assert all(np.ndim(getattr(error, field.name)) == 0 for field in dataclasses.fields(error))
    assert isinstance(float(error.sqnr_db), float)


@pytest.mark.parametrize("rounding", ROUNDINGS)
def test_many_scales_in_chunks(monkeypatch: pytest.MonkeyPatch, rounding: str) -> None:
    """More cells than one chunk holds: bit for bit what one chunk gives."""
    scale = np.geomspace(0.05, 2, 41)
    for density in (qe.Gaussian(), qe.Gaussian(0.0, np.linspace(0.5, 2.0, 41)), qe.Empirical(SAMPLE)):
        whole = qe.quantization_error(density, "int4", scale, rounding=rounding)
        monkeypatch.setattr("qerror.errors.exact._CHUNK_CELLS", 100)
        cut = qe.quantization_error(density, "int4", scale, rounding=rounding)
        monkeypatch.undo()
        for field in dataclasses.fields(whole):
            np.testing.assert_array_equal(getattr(cut, field.name), getattr(whole, field.name))


def test_sqnr() -> None:
    error = qe.quantization_error(qe.Gaussian(), "int4", 0.3)
    assert error.sqnr_db == pytest.approx(10 * math.log10(error.power / error.mse), rel=1e-15)
    assert qe.quantization_error(qe.Empirical([1.0, 2.0]), "int4", 1.0).sqnr_db == math.inf
    assert math.isnan(qe.quantization_error(qe.Empirical([0.0, 0.0]), "int4", 1.0).sqnr_db)
