"""Lloyd-Max grids: published ones, stationarity and local optimality, and brute force on samples."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mpmath import mpf

import qerror as qe
from qerror.search import partition

# The same numbers to the digits printed: half a unit of the last place, and the roundings of a table.
HALF_UNIT = 0.51
# Relative, of the levels of symmetric codebooks: a few roundings.
LEVEL_TOLERANCE = 1e-14
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
        assert abs(level - float(text)) <= HALF_UNIT * unit(text)
    np.testing.assert_array_equal(levels, -levels[::-1])


def test_closed_forms() -> None:
    """Two levels at +-sqrt(2 / pi) (Gaussian) and +-1 / sqrt(2) (Laplace); three of a Laplace: MSE 1 - 2 / e."""
    level = math.sqrt(2 / math.pi)
    np.testing.assert_allclose(qe.lloyd_max(qe.Gaussian(), 2).levels, [-level, level], rtol=1e-12)
    np.testing.assert_allclose(
        qe.lloyd_max(qe.Laplace(), 2).levels, [-math.sqrt(0.5), math.sqrt(0.5)], rtol=LEVEL_TOLERANCE
    )
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


# Mass and first moment beyond x >= 0 and the pdf, in standard form and closed form.


def gaussian(x: mpf) -> list[mpf]:
    return [mpmath.erfc(x / mpmath.sqrt(2)) / 2, mpmath.npdf(x), mpmath.npdf(x)]


def laplace(x: mpf) -> list[mpf]:
    b = 1 / mpmath.sqrt(2)
    e = mpmath.exp(-x / b) / 2
    return [e, e * (x + b), e / b]


def logistic(x: mpf) -> list[mpf]:
    k = mpmath.pi / mpmath.sqrt(3)
    e = mpmath.exp(-k * x)
    return [e / (1 + e), x * e / (1 + e) + mpmath.log1p(e) / k, k * e / (1 + e) ** 2]


def uniform(x: mpf) -> list[mpf]:
    end = mpmath.sqrt(3)
    return [(end - x) / (2 * end), (3 - x * x) / (4 * end), 1 / (2 * end)]


def student_5(x: mpf) -> list[mpf]:
    # With x = sqrt(3) tan(a) the pdf is 8 cos(a)^6 / (3 pi sqrt(3)).
    a = mpmath.atan(x / mpmath.sqrt(3))
    mass = mpf(1) / 2 - (12 * a + 8 * mpmath.sin(2 * a) + mpmath.sin(4 * a)) / (12 * mpmath.pi)
    peak = 8 / (3 * mpmath.pi * mpmath.sqrt(3))
    return [mass, peak * 3 / 4 * mpmath.cos(a) ** 4, peak * mpmath.cos(a) ** 6]


def exponential_power(beta: str) -> Callable[[mpf], list[mpf]]:
    b = mpf(beta)

    def tail(x: mpf) -> list[mpf]:
        g = mpmath.gamma(1 / b)
        alpha = mpmath.sqrt(g / mpmath.gamma(3 / b))
        v = (x / alpha) ** b
        mass, first = (alpha**j * mpmath.gammainc((j + 1) / b, v) / (2 * g) for j in range(2))
        return [mass, first, b * mpmath.exp(-v) / (2 * alpha * g)]

    return tail


TAILS: dict[str, Callable[[mpf], list[mpf]]] = {
    "gaussian": gaussian,
    "laplace": laplace,
    "logistic": logistic,
    "uniform": uniform,
    "student-t:df=5": student_5,
    "generalized-gaussian:beta=0.5": exponential_power("0.5"),
    "generalized-gaussian:beta=1.5": exponential_power("1.5"),
}


def newton_step(tail: Callable[[mpf], list[mpf]], levels: list[mpf], start: list[mpf]) -> tuple[list[mpf], mpf]:
    """One step for levels whose first cell begins at `start` (fixed, or half of the first level), and the MSE.

    From levels that are right to d it ends within some d^2 of the solution.
    """
    ends = [*start, *((a + b) / 2 for a, b in itertools.pairwise(levels))]
    parts = [tail(abs(t)) if mpmath.isfinite(t) else [mpf(0)] * 3 for t in ends] + [[mpf(0)] * 3]
    above = [mass if t >= 0 else 1 - mass for t, (mass, _, _) in zip(ends, parts, strict=False)] + [mpf(0)]
    mass = [a - b for a, b in itertools.pairwise(above)]
    first = [a[1] - b[1] for a, b in itertools.pairwise(parts)]
    flow = [(b - a) / 4 * part[2] for (a, b), part in zip(itertools.pairwise(levels), parts[1:], strict=False)]
    size = len(levels)
    system = mpmath.matrix(size, size)
    for k in range(size):
        system[k, k] = -mass[k]
    for k, f in enumerate(flow):
        for i, j in itertools.product((k, k + 1), repeat=2):
            system[i, j] += f
    # A half whose first cell begins midway between 0 and its level: the level at 0 stays.
    if start[0] == levels[0] / 2:
        system[0, 0] += levels[0] / 4 * parts[0][2]
    step = mpmath.lu_solve(system, mpmath.matrix([q * m - f for q, m, f in zip(levels, mass, first, strict=True)]))
    error = sum(f * f / m for f, m in zip(first, mass, strict=True))
    return [q + d for q, d in zip(levels, step, strict=True)], 1 - error * (1 if start[0] < 0 else 2)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.3, 0.7), (-5e3, 4e-3)])
@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 9, 33, 64])
@pytest.mark.parametrize("name", TAILS)
def test_levels_are_those_of_mpmath(name: str, n: int, mean: float, std: float) -> None:
    density = qe.density(f"{name}{',' if ':' in name else ':'}mean={mean!r},std={std!r}")
    levels = qe.lloyd_max(density, n).levels
    with mpmath.workdps(30):
        unit_levels = [(mpf(v) - mpf(mean)) / mpf(std) for v in levels.tolist()]
        half = unit_levels[(n + 1) // 2 :]
        folded = mpf(0) if n % 2 == 0 else half[0] / 2
        want, mse = newton_step(TAILS[name], half, [folded])
        want, mse = newton_step(TAILS[name], want, [mpf(0) if n % 2 == 0 else want[0] / 2])
        places, least_size = list(zip(unit_levels[-len(half) :], want, strict=True)), mpf(0)
        if name == "generalized-gaussian:beta=0.5" and n % 2 == 0:
            # The pdf is steepest at its mean: a threshold there is a saddle.
            want, least = newton_step(TAILS[name], unit_levels, [-mpmath.inf])
            assert least < mse * (1 - mpf("1e-4"))
            # One level of these lies close to the mean, by no symmetry: its digits are those of its neighbours.
            places, least_size = list(zip(unit_levels, want, strict=True)), mpf("0.1")
        else:
            # To the last bit about 0, else to the rounding of mean + q and mean - q.
            above, below = levels[: -(n // 2) - 1 : -1] - mean, mean - levels[: n // 2]
            np.testing.assert_allclose(above, below, rtol=0, atol=np.spacing(np.abs(levels).max()) if mean else 0)
        # A level far from 0 is rounded to what is there.
        rounding = mpf(2) ** -52 * abs(mpf(mean)) / mpf(std)
        for got, exact in places:
            assert abs(got - exact) <= LEVEL_TOLERANCE * max(abs(exact), least_size) + rounding


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
    hardly = qe.lloyd_max(qe.Empirical(np.arange(9000.0), weights=1e-40 + (np.arange(9000) < 4)), 4)
    np.testing.assert_allclose(hardly.levels, [0.0, 1.0, 2.0, 3.0], rtol=0, atol=1e-9)
    ignored = qe.lloyd_max(qe.Empirical([0.0, 1.0, 9.0], weights=[1, 1, 0]), 2)
    np.testing.assert_array_equal(ignored.levels, [0.0, 1.0])


def exact_costs(x: list[Fraction], w: list[int]) -> list[Fraction]:
    """Least squared error of all partitions of sorted values into 1, 2, ... runs, by trying every last cut."""
    sums = [[Fraction(0), *itertools.accumulate(a * b**k for a, b in zip(w, x, strict=True))] for k in range(3)]
    cost = {}
    for i, j in itertools.combinations(range(len(x) + 1), 2):
        zero, one, two = (s[j] - s[i] for s in sums)
        cost[i, j] = two - one * one / zero
    least = [{j: cost[0, j] for j in range(1, len(x) + 1)}]
    for k in range(2, len(x) + 1):
        before = least[-1]
        least.append({j: min(before[i] + cost[i, j] for i in range(k - 1, j)) for j in range(k, len(x) + 1)})
    return [best[len(x)] for best in least]


@pytest.mark.parametrize("slots", [2, 5, 2048])
@pytest.mark.parametrize("kind", ["normal", "lattice", "heavy", "far", "modes", "equal-gaps"])
def test_samples_in_fractions(kind: str, slots: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ties and counts, far offsets, 2 levels to all values, with windows narrowed from few slots and with none."""
    monkeypatch.setattr(partition, "_SLOTS", slots)
    monkeypatch.setattr(partition, "_SLOTS_PER_RUN", 1)
    rng = np.random.default_rng(list(kind.encode()))
    draws = {
        "normal": rng.standard_normal(40),
        "lattice": rng.integers(-20, 20, 120) / 8,
        "heavy": rng.standard_cauchy(40),
        "far": 1e6 + rng.standard_normal(40),
        "modes": np.concatenate([rng.standard_normal(20), 1e3 + rng.standard_normal(20)]),
        "equal-gaps": np.repeat(np.arange(40.0), 3),
    }[kind]
    values, counts = np.unique(draws, return_counts=True)
    x, w = [Fraction(v) for v in values.tolist()], counts.tolist()
    exact = exact_costs(x, w)
    for n in (2, 3, 7, 16, values.size - 1, values.size):
        levels = [Fraction(v) for v in qe.lloyd_max(qe.Empirical(draws), n).levels.tolist()]
        got = sum(c * min((v - q) ** 2 for q in levels) for c, v in zip(w, x, strict=True))
        # Levels are rounded to float64: that much beside the means of runs.
        rounding = draws.size * Fraction(float(np.spacing(np.abs(draws).max()))) ** 2
        best = exact[n - 1]
        assert best <= got <= best * (1 + Fraction(SAMPLE_TOLERANCE)) + rounding


# By the dynamic program over all cuts of all values, without windows: MSE of n levels on 20 000 draws of seed 7.
WITHOUT_WINDOWS = {
    ("normal", 2): 0.35897465544988244,
    ("normal", 5): 0.0786647930935075,
    ("normal", 16): 0.009218473491453199,
    ("heavy", 2): 2898.979398654544,
    ("heavy", 5): 731.28551029845,
    ("heavy", 16): 55.711040650761724,
    ("lattice", 2): 3818391.9697578843,
    ("lattice", 5): 915711.6773725064,
    ("lattice", 16): 113041.639382236,
    ("modes", 2): 0.9848787883392263,
    ("modes", 5): 0.2714738985244739,
    ("modes", 16): 0.03365566090546388,
}


@pytest.mark.parametrize(("kind", "n"), list(WITHOUT_WINDOWS))
def test_windows_lose_nothing(kind: str, n: int) -> None:
    x = thousands_of(kind)
    levels = qe.lloyd_max(qe.Empirical(x), n).levels
    error = x - levels[np.searchsorted(0.5 * (levels[1:] + levels[:-1]), x)]
    assert float(np.mean(error**2)) == pytest.approx(WITHOUT_WINDOWS[kind, n], rel=SAMPLE_TOLERANCE)


def thousands_of(kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    return {
        "normal": lambda: rng.standard_normal(20_000).astype(np.float32).astype(np.float64),
        "heavy": lambda: rng.standard_cauchy(20_000),
        "lattice": lambda: np.round(2000 * rng.laplace(size=20_000)),
        "modes": lambda: np.concatenate([rng.standard_normal(10_000), 1e3 + rng.standard_normal(10_000)]),
    }[kind]()


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
