"""Lloyd-Max grids: published ones, stationarity and local optimality, and brute force on samples."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qerror as qe

# The same numbers to the digits printed: half a unit of the last place, and the roundings of a table.
HALF_UNIT = 0.51
# A stationary point is promised to this; the cusp of the Laplace density lies on a threshold.
LEVEL_TOLERANCE = 1e-8
# Newton ends at the last digit of the levels; first moments are then roundings.
STATIONARY = 1e-12
# Means of runs from prefix sums in extended precision.
SAMPLE_TOLERANCE = 1e-12

GAUSSIAN = "gaussian"
LAPLACE = "laplace"
# Computed in float64 closed forms and again in mpmath: MSE by number of levels.
MSE = {
    GAUSSIAN: {
        2: ".363380", 3: ".19017403925", 4: ".1174818478293", 5: ".07994112708828", 6: ".05797765371507",
        7: ".04400038249862", 8: ".0345477607885", 16: ".009501008008192", 32: ".00250466836",
    },
    LAPLACE: {4: ".176194881054", 8: ".05447598791395", 16: ".01537252705987", 32: ".00410217999"},
}  # fmt: skip
# The positive levels, from the same source; N = 4 also in Max 1960, Table I, to four digits.
LEVELS = {
    (GAUSSIAN, 4): ".4527800346 1.5104176085",
    (GAUSSIAN, 8): ".2450941789 .7560052812 1.3439092785 2.1519457045",
    (GAUSSIAN, 16): (
        ".1283950299 .3880482995 .6567591185 .9423404565 1.2562311973 1.618046386 2.0690172265 2.732589571"
    ),
    (LAPLACE, 4): ".4197557398 1.8339693021",
}


def unit(text: str) -> float:
    return 10.0 ** -len(text.partition(".")[2])


@pytest.mark.parametrize(("name", "n"), [(name, n) for name, table in MSE.items() for n in table])
def test_published_mse(name: str, n: int) -> None:
    density = qe.density(name)
    mse = qe.quantization_error(density, qe.lloyd_max(density, n), 1.0).mse
    text = MSE[name][n]
    assert abs(mse - float(text)) <= HALF_UNIT * unit(text)


@pytest.mark.parametrize(("name", "n"), list(LEVELS))
def test_published_levels(name: str, n: int) -> None:
    levels = qe.lloyd_max(qe.density(name), n).levels
    for level, text in zip(levels[n // 2 :], LEVELS[name, n].split(), strict=True):
        assert abs(level - float(text)) <= max(HALF_UNIT * unit(text), LEVEL_TOLERANCE)
    np.testing.assert_allclose(levels, -levels[::-1], rtol=LEVEL_TOLERANCE)


def test_closed_forms() -> None:
    """Two levels at +-sqrt(2 / pi) (Gaussian) and +-1 / sqrt(2) (Laplace); three of a Laplace: MSE 1 - 2 / e."""
    level = math.sqrt(2 / math.pi)
    np.testing.assert_allclose(qe.lloyd_max(qe.Gaussian(), 2).levels, [-level, level], rtol=1e-12)
    np.testing.assert_allclose(qe.lloyd_max(qe.Laplace(), 2).levels, [-math.sqrt(0.5), math.sqrt(0.5)], rtol=1e-7)
    three = qe.lloyd_max(qe.Laplace(), 3)
    assert qe.quantization_error(qe.Laplace(), three, 1.0).mse == pytest.approx(1 - 2 / math.e, rel=1e-12)
    uniform = qe.lloyd_max(qe.Uniform.from_bounds(0, 1), 5)
    np.testing.assert_allclose(uniform.levels, np.arange(0.1, 1, 0.2), rtol=1e-12)


DENSITIES = {
    "gaussian": qe.Gaussian(),
    "gaussian-in-other-units": qe.Gaussian(3e-6, 1e-6),
    "student-t-3": qe.StudentT(3),
    "logistic": qe.Logistic(),
    "generalized-gaussian-4": qe.GeneralizedGaussian(4.0),
    "two-hills": qe.Mixture([qe.Gaussian(-1, 1.0), qe.Gaussian(2, 0.5)], [0.5, 0.5]),
    "histogram": qe.Histogram([1, 3, 4, 2], [0.0, 1.0, 1.5, 3.0, 5.0]),
}


@pytest.mark.parametrize("n", [2, 3, 8, 31])
@pytest.mark.parametrize("name", DENSITIES)
def test_stationary_and_locally_best(name: str, n: int) -> None:
    """Every level is the mean of its cell, and moving any one a little either way costs."""
    density = DENSITIES[name]
    grid = qe.lloyd_max(density, n)
    edges = np.concatenate([[-np.inf], grid.thresholds, [np.inf]])
    mass, first, _ = density.cell_moments(edges, grid.levels)
    std = float(density.std)
    assert (np.abs(first) <= STATIONARY * std).all()
    assert (mass > 0).all()
    best = qe.quantization_error(density, grid, 1.0).mse
    for k in range(n):
        for sign in (-1, 1):
            moved = grid.levels.copy()
            moved[k] += sign * 1e-3 * std
            if (np.diff(moved) > 0).all():
                assert qe.quantization_error(density, qe.Grid(moved), 1.0).mse > best


def test_better_than_any_named_grid() -> None:
    best = qe.quantization_error(qe.Gaussian(), qe.lloyd_max(qe.Gaussian(), 16), 1.0).mse
    for name in ("int4_midrise", "nf4", "sf4"):
        assert best < qe.optimal_scale(qe.Gaussian(), name).error.mse


# -- samples ---------------------------------------------------------------------------------------------------------


def brute_force(x: np.ndarray, w: np.ndarray, n: int) -> float:
    """Least squared error over all ways to cut the sorted distinct values into n runs."""
    order = np.argsort(x)
    x, w = x[order], w[order]
    best = math.inf
    for cuts in itertools.combinations(range(1, x.size), n - 1):
        total = 0.0
        for a, b in itertools.pairwise((0, *cuts, x.size)):
            if w[a:b].sum() > 0:
                mean = np.average(x[a:b], weights=w[a:b])
                total += float((w[a:b] * (x[a:b] - mean) ** 2).sum())
        best = min(best, total)
    return best / float(w.sum())


@given(
    st.integers(0, 2**32 - 1), st.integers(2, 5), st.sampled_from(["normal", "lattice", "heavy", "far"]), st.booleans()
)
def test_samples_by_brute_force(seed: int, n: int, kind: str, weighted: bool) -> None:
    rng = np.random.default_rng(seed)
    size = int(rng.integers(n, 12))
    x = {
        "normal": lambda: rng.standard_normal(size),
        "lattice": lambda: rng.permutation(40)[:size] / 8,
        "heavy": lambda: rng.standard_cauchy(size),
        "far": lambda: 1e4 + rng.standard_normal(size),
    }[kind]()
    w = rng.integers(1, 5, size).astype(float) if weighted else np.ones(size)
    sample = qe.Empirical(x, weights=w if weighted else None)
    grid = qe.lloyd_max(sample, n)
    assert len(grid) == n
    mse = qe.quantization_error(sample, grid, 1.0).mse
    expected = brute_force(x, w, n)
    rounding = (4e-16 * np.abs(x).max()) ** 2
    assert abs(mse - expected) <= SAMPLE_TOLERANCE * (expected + float(sample.std) ** 2) + rounding


def test_repeated_values_and_many() -> None:
    """Duplicates count as weights; as many levels as values leave no error."""
    x = np.repeat([0.0, 1.0, 5.0, 5.5], [3, 1, 2, 2])
    np.testing.assert_allclose(qe.lloyd_max(qe.Empirical(x), 2).levels, [0.25, 5.25], rtol=1e-14)
    np.testing.assert_array_equal(qe.lloyd_max(qe.Empirical(x), 4).levels, [0.0, 1.0, 5.0, 5.5])
    with pytest.raises(ValueError, match="n_levels must be at most the number of distinct values, 4, got 5"):
        qe.lloyd_max(qe.Empirical(x), 5)
    ignored = qe.lloyd_max(qe.Empirical([0.0, 1.0, 9.0], weights=[1, 1, 0]), 2)
    np.testing.assert_array_equal(ignored.levels, [0.0, 1.0])


def test_large_samples_approach_the_density() -> None:
    x = np.random.default_rng(9).standard_normal(20_000)
    sample = qe.Empirical(x)
    grid = qe.lloyd_max(sample, 8)
    own = qe.quantization_error(sample, grid, 1.0).mse
    # No other 8 levels do better on this sample, the density's among them; and they are near.
    other = qe.quantization_error(sample, qe.lloyd_max(qe.Gaussian(), 8), 1.0).mse
    assert own <= other
    assert own == pytest.approx(float(MSE[GAUSSIAN][8]), rel=0.03)


def test_no_level_is_wasted() -> None:
    """Two narrow modes: the third level splits one of them instead of standing between them."""
    density = qe.Mixture([qe.Gaussian(-3, 0.1), qe.Gaussian(3, 0.1)], [0.5, 0.5])
    two, three = (qe.quantization_error(density, qe.lloyd_max(density, n), 1.0).mse for n in (2, 3))
    assert three < 0.9 * two


def test_no_saddle() -> None:
    """The symmetric solution of two modes and three levels is stationary, and no minimum."""
    density = qe.Mixture([qe.Gaussian(-2, 0.5), qe.Gaussian(2, 0.5)], [0.5, 0.5])
    levels = qe.lloyd_max(density, 3).levels
    moved = levels + np.array([0, 0.002, 0])
    least, beside = (qe.quantization_error(density, qe.Grid(v), 1.0).mse for v in (levels, moved))
    assert beside >= least * (1 - 1e-12)


def test_far_from_zero() -> None:
    levels = qe.lloyd_max(qe.Gaussian(5.0, 1e-6), 3).levels
    # Levels near 5 are multiples of 9e-16, 9e-10 of the std.
    assert (levels[2] - 5.0) / 1e-6 == pytest.approx(qe.lloyd_max(qe.Gaussian(), 3).levels[2], abs=5e-9)
