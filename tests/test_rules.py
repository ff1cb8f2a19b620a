"""Scale rules: against references of a few lines, against published tables, and against what they promise."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import ndtr

import qerror as qe
from qerror import rules
from qerror.results import Status
from qerror.rules import as_rule

RNG = np.random.default_rng(20250311)
# References add in another order than the library.
SUM_ORDER = 1e-12
# The published ACIQ numbers are solutions by a line search: good to about 1e-6.
ACIQ_PUBLISHED = 1e-6
# Roots and fixed points with 9 and 12 digits, computed apart from the library with mpmath.
OCTAV_DIGITS = 1e-8
ROOT_DIGITS = 1e-13


# These read the extremes: without bounds they have no limit.
BOUNDED = {"minmax", "shrink_search", "ocp", "entropy", "clipping_weighted", "signed_absmax"}


def heavy(shape: tuple[int, ...]) -> np.ndarray:
    return RNG.standard_t(4, shape) * RNG.uniform(0.1, 3.0, (shape[0], *[1] * (len(shape) - 1)))


def rows(x: np.ndarray) -> qe.Empirical:
    return qe.Empirical(x, axis=0)


# -- minmax, percentile, shrink_search, ocp --------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["int4", "uint8", "e2m1", "nf4", "int8_midrise"])
@pytest.mark.parametrize("shift", [0.0, "mean"])
def test_minmax_clips_nothing_and_a_smaller_scale_would(grid: str, shift: float | str) -> None:
    x = np.abs(heavy((20, 301))) if grid == "uint8" else heavy((20, 301))
    levels, found = qe.grid(grid), rules.minmax(rows(x), grid, shift=shift)
    y = x - (0.0 if shift == 0.0 else np.array([math.fsum(row) / row.size for row in x])[:, None])
    clipped = qe.quantization_error(rows(x), grid, found.scale, found.shift).clipping
    if grid == "uint8" and shift == "mean":
        np.testing.assert_allclose(found.scale, y.max(axis=1) / levels.max, rtol=SUM_ORDER)
        return
    assert (clipped == 0).all()
    assert (qe.quantization_error(rows(x), grid, found.scale * 0.999, found.shift).clipping > 0).all()


def test_minmax_asymmetric_puts_the_ends_on_the_ends() -> None:
    x = heavy((5, 100)) + 3
    found = rules.minmax(rows(x), "uint4", shift="optimal")
    np.testing.assert_allclose(found.shift, x.min(axis=1), rtol=SUM_ORDER)
    np.testing.assert_allclose(found.shift + 15 * found.scale, x.max(axis=1), rtol=SUM_ORDER)


def test_minmax_of_a_bounded_density_and_of_an_unbounded_one() -> None:
    assert rules.minmax(qe.Uniform.from_bounds(-2.0, 3.5), "int4").scale == pytest.approx(0.5, rel=1e-15)
    with pytest.raises(ValueError, match="rule minmax needs data or a density of bounded support, got Gaussian"):
        rules.minmax(qe.Gaussian(), "int4")


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.sampled_from([1.5, 33.0, 50.0, 90.0, 99.9, 100.0]))
def test_percentile_is_the_inverted_cdf_of_the_magnitudes(values: list[float], p: float) -> None:
    x = np.array([*values, -150.0, 150.0])
    clip = np.percentile(np.abs(x), p, method="inverted_cdf")
    found = rules.percentile(qe.Empirical(x), "int8_narrow", p=p)
    if clip == 0:
        assert found.status == Status.FALLBACK
        clip = 150.0
    elif clip < 1e-90:
        assert found.scale <= clip
        return
    np.testing.assert_allclose(found.scale * 127, clip, rtol=SUM_ORDER)


def test_percentile_by_rows_and_about_the_mean() -> None:
    x = heavy((7, 211)).astype(np.float32)
    found = rules.percentile(rows(x), "e2m1", p=95, shift="mean")
    y = np.abs(x.astype(np.float64) - x.mean(axis=1, dtype=np.float64)[:, None])
    np.testing.assert_allclose(found.scale * 6, np.percentile(y, 95, axis=1, method="inverted_cdf"), rtol=SUM_ORDER)
    np.testing.assert_array_equal(rules.percentile(rows(x), "int4", p=100).scale, rules.minmax(rows(x), "int4").scale)


def test_percentile_of_a_density() -> None:
    # P(|x| <= 1.959963984540054) = 0.95 for a Gaussian.
    found = rules.percentile(qe.Gaussian(std=[1.0, 3.0]), "int8_narrow", p=95)
    np.testing.assert_allclose(found.scale * 127, np.array([1.0, 3.0]) * 1.959963984540054, rtol=1e-14)


@pytest.mark.parametrize("grid", ["int4", "e2m1", "nf4"])
@pytest.mark.parametrize("shift", [0.0, "optimal"])
def test_shrink_search_is_the_best_of_81(grid: str, shift: float | str) -> None:
    x = heavy((6, 150))
    found, whole = rules.shrink_search(rows(x), grid, shift=shift), rules.minmax(rows(x), grid, shift=shift)
    for i, row in enumerate(x):
        trials = []
        for factor in np.linspace(1.0, 0.2, 81):
            z = factor * whole.shift[i] if shift == "optimal" else 0.0
            q = qe.fake_quantize(row, grid, factor * whole.scale[i], z)
            trials.append((np.mean((row - q) ** 2), factor))
        least, factor = min(trials)
        assert found.scale[i] == pytest.approx(factor * whole.scale[i], rel=SUM_ORDER)
        mine = qe.quantization_error(qe.Empirical(row), grid, found.scale[i], found.shift[i]).mse
        assert mine == pytest.approx(least, rel=SUM_ORDER)


def test_ocp_follows_the_standard() -> None:
    """MX v1.0: the largest power of two <= the largest magnitude, over the largest power of two of the element."""
    x = np.concatenate([heavy((40, 32)) * 10.0 ** np.arange(-20, 20)[:, None], np.zeros((1, 32))]).astype(np.float32)
    x[0, 0] = 1e-42
    powers = {"e2m1": 4.0, "e2m3": 4.0, "e3m2": 16.0, "e4m3fn": 256.0, "e5m2": 32768.0, "int8": 64.0}
    for name, largest_power in powers.items():
        found = rules.ocp(rows(x), name)
        for scale, row in zip(found.scale, x.astype(np.float64), strict=True):
            largest, power = np.abs(row).max(), 2.0**-149
            while 2 * power <= largest:
                power *= 2
            expected = min(max(power / largest_power, 2.0**-127), 2.0**127) if largest > 0 else 2.0**-127
            assert scale == expected


# -- entropy, clipping_weighted --------------------------------------------------------------------------------------


def test_entropy_by_hand() -> None:
    """Bins of width 1 hold (6, 4, 3, 1) values; the first counts as the second: (4, 4, 3, 1) of 12. Two groups.

    2 bins: P (4, 8) / 12, Q (4, 4) / 8: KL 0.0566. 3 bins: P (4, 4, 4) / 12, Q (4, 4, 3) / 11: 0.0089.
    4 bins: P (4, 4, 3, 1) / 12, Q (4, 4, 2, 2) / 12: 0.0436.
    """
    x = np.array([0, 0, 0, 0, 0.5, -0.5, 1.5, 1.5, -1, 1, -2.5, 2.9, 2, -4])
    for scale in (1.0, 0.01):
        found = rules.entropy(qe.Empirical(x * scale), "ternary", bins=4, start_bin=2)
        assert found.scale == pytest.approx(3 * scale, rel=1e-15)
    # The same of a density: 4, 4, 3, 1 as areas, on both sides of a shift.
    density = qe.Histogram([1, 3, 4, 8, 4, 3, 1], [6, 7, 8, 9, 11, 12, 13, 14])
    assert rules.entropy(density, "ternary", shift=10.0, bins=4, start_bin=2).scale == pytest.approx(3.0, rel=1e-15)


def entropy_reference(x: np.ndarray, groups: int, bins: int, start: int) -> float:
    """Migacz's loop over candidates, bin by bin."""
    count, edges = np.histogram(np.abs(x), bins=bins, range=(0, np.abs(x).max()))
    count[0] = count[1]
    found = []
    for i in range(start, bins + 1):
        p, q = count[:i].astype(float), np.zeros(i)
        p[-1] += count[i:].sum()
        for g in range(groups):
            members = [j for j in range(i) if j * groups // i == g and count[j]]
            q[members] = sum(count[j] for j in members) / max(len(members), 1)
        if (q[p > 0] > 0).all():
            p, q = p / p.sum(), q / q.sum()
            found.append((sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0), -i))
    return float(edges[-min(found)[1]])


@pytest.mark.parametrize(("grid", "groups"), [("int4", 8), ("int8", 128), ("uint4", 16), ("int3_midrise", 4)])
def test_entropy_is_its_loop(grid: str, groups: int) -> None:
    x = np.concatenate([heavy((4, 2000)), RNG.laplace(size=(2, 2000)), RNG.uniform(-1, 1, (2, 2000))])
    found = rules.entropy(rows(x), grid, bins=200)
    expected = [entropy_reference(row, groups, 200, 128) for row in x]
    np.testing.assert_allclose(found.scale * qe.grid(grid).max, expected, rtol=SUM_ORDER)
    assert (found.scale < rules.minmax(rows(x), "int8_narrow").scale * 127 / qe.grid(grid).max).any()


def clipping_weighted_reference(x: np.ndarray, levels: np.ndarray, gamma: float, bins: int) -> float:
    start, stop = min(x.min(), 0.0), max(x.max(), 0.0)
    count, _ = np.histogram(x, bins=bins, range=(start, stop))
    width = (stop - start) / bins
    reach = stop if levels[0] == 0 else 2 * max(stop, -start)
    trials = []
    for part in range(1, 102):
        s = part / 100 * reach / (levels[-1] - levels[0])
        first, last = (min(max(math.floor((s * end - start) / width), 0), bins - 1) for end in (levels[0], levels[-1]))
        cost = 0.0
        for i, n in enumerate(count):
            middle = start + width * (i + 0.5)
            if i < first or i >= last:
                cost += gamma * n * (middle - (start + width * ((first if i < first else last) + 0.5))) ** 2
            else:
                cost += n * np.min((middle - s * levels) ** 2)
        trials.append((cost, s))
    least = min(cost for cost, _ in trials)
    return next(s for cost, s in trials if cost <= least * (1 + 1e-12))


@pytest.mark.parametrize("grid", ["int4", "e2m1", "uint4", "nf4", "int8"])
@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_clipping_weighted_is_its_loop(grid: str, gamma: float) -> None:
    x = heavy((5, 500))
    x = np.abs(x) if grid == "uint4" else x
    found = rules.clipping_weighted(rows(x), grid, gamma=gamma, bins=97)
    expected = [clipping_weighted_reference(row, qe.grid(grid).levels, gamma, 97) for row in x]
    np.testing.assert_allclose(found.scale, expected, rtol=SUM_ORDER)


def test_clipping_weighted_clips_less_with_more_weight() -> None:
    """With 1 it is the MSE of 512 bins: its scale is the best of 1 % steps; the heavier clipping, the less of it."""
    x = heavy((6, 4000))
    by_gamma = [rules.clipping_weighted(rows(x), "int4", gamma=gamma).scale for gamma in (1, 3, 30)]
    assert (np.diff(by_gamma, axis=0) >= 0).all()
    assert (by_gamma[2] > by_gamma[0]).all()
    assert (qe.excess_db(rows(x), "int4", by_gamma[0]) < 0.1).all()


@pytest.mark.parametrize("rule", ["entropy", "clipping_weighted"])
def test_histograms_need_bounds_and_are_those_of_bounded_densities(rule: str) -> None:
    with pytest.raises(ValueError, match=f"rule {rule} needs data or a density of bounded support, got Gaussian"):
        rules.as_rule(rule)(qe.Gaussian(), "int4")
    density = qe.Uniform.from_bounds(-1.0, 1.0)
    assert rules.as_rule(rule)(density, "int4").scale == pytest.approx(1 / 7.5, rel=0.08)


# -- analytic, aciq, octav, sawb -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["gaussian", "laplace", "student-t:df=5", "laplace:mean=7,std=0.1"])
def test_analytic_scales_the_familys_own_optimum(family: str) -> None:
    x = heavy((9, 400)) + 0.3
    unit = qe.density(family)
    best = qe.optimal_scale(unit, "int4", shift="mean").scale / unit.std
    centred, about_zero = (rules.analytic(rows(x), "int4", shift=z, family=family) for z in ("mean", 0.0))
    np.testing.assert_allclose(centred.scale, best * x.std(axis=1), rtol=SUM_ORDER)
    np.testing.assert_allclose(centred.shift, x.mean(axis=1), rtol=SUM_ORDER)
    np.testing.assert_allclose(about_zero.scale, best * np.sqrt((x**2).mean(axis=1)), rtol=SUM_ORDER)
    assert (about_zero.shift == 0).all()
    assert centred.note == f"family {unit.name}"


def test_analytic_in_the_limit_is_optimal_on_its_family_and_the_papers_on_request() -> None:
    density = qe.Laplace(mean=2.0, std=3.0)
    found = rules.analytic(density, "int4", shift="mean", family="laplace")
    assert qe.excess_db(density, "int4", found.scale, found.shift) == pytest.approx(0, abs=1e-12)
    # The roots of StatQAT's uniform model, C on a grid of 2^b levels; computed apart from the library.
    for bits, clip in ((2, 1.518168), (3, 2.069278), (4, 2.522539), (5, 2.919537), (8, 3.922340)):
        grid = qe.grid(f"int{bits}_midrise")
        model = rules.analytic(qe.Gaussian(), grid, model="high_resolution")
        assert model.scale * grid.max == pytest.approx(clip, rel=1e-6)


def test_analytic_auto_says_which_family() -> None:
    x = RNG.laplace(size=(8, 4000)) * np.arange(1, 9)[:, None]
    found = rules.analytic(rows(x), "int4", family="auto")
    assert "laplace" in found.note or "generalized-gaussian" in found.note
    by_laplace = rules.analytic(rows(x), "int4", family="laplace")
    np.testing.assert_allclose(found.scale, by_laplace.scale, rtol=0.05)
    assert rules.analytic(qe.Laplace(), "int4", family="auto").note == "family laplace"


def test_aciq_reproduces_the_published_tables() -> None:
    gauss = [1.71063516, 2.1515927, 2.55913642, 2.93620058, 3.28691461, 3.61511418, 3.92403337]
    laplace = [2.83068299, 3.89722946, 5.02864014, 6.20476633, 7.41312622, 8.64561995, 9.89675982]
    for bits, g, l_over_b in zip(range(2, 9), gauss, laplace, strict=True):
        half = 2.0 ** (bits - 1)
        found = rules.aciq(qe.Gaussian(std=2.0), f"int{bits}").scale * half
        assert found == pytest.approx(2 * g, rel=ACIQ_PUBLISHED)
        b = 2.0 / math.sqrt(2)
        found = rules.aciq(qe.Laplace(std=2.0), f"int{bits}_midrise", family="laplace").scale * half
        assert found == pytest.approx(l_over_b * b, rel=ACIQ_PUBLISHED)


def test_aciq_solves_its_own_equation_and_reads_the_sample() -> None:
    # Roots of the model by mpmath, 18 digits.
    for bits, root in ((2, 1.71063516811404367), (4, 2.55913646197533684), (8, 3.92403548988078223)):
        assert rules.aciq(qe.Gaussian(), f"int{bits}").scale * 2 ** (bits - 1) == pytest.approx(root, rel=ROOT_DIGITS)
    x = heavy((5, 300)) + 1
    np.testing.assert_allclose(
        rules.aciq(rows(x), "int4", shift="mean", family="laplace").scale * 8,
        5.02864013623621312 * np.abs(x - x.mean(axis=1)[:, None]).mean(axis=1),
        rtol=SUM_ORDER,
    )


def test_octav_has_the_fixed_points_of_its_recursion() -> None:
    gauss = [1.73883525, 2.16111708, 2.56209026, 2.93707005, 3.28716171, 3.61518309, 3.92405435]
    laplace = [2.87373440, 3.91329297, 5.03409031, 6.20650454, 7.41365767, 8.64577763, 9.89680549]
    for bits, g, l_over_b in zip(range(2, 9), gauss, laplace, strict=True):
        half = 2 ** (bits - 1)
        assert rules.octav(qe.Gaussian(), f"int{bits}").scale * half == pytest.approx(g, rel=OCTAV_DIGITS)
        found = rules.octav(qe.Laplace(std=math.sqrt(2)), f"int{bits}").scale * half
        assert found == pytest.approx(l_over_b, rel=OCTAV_DIGITS)
    # By hand, from the Gaussian's own integrals.
    a = rules.octav(qe.Gaussian(), "int4").scale * 8
    outside = 2 * ndtr(-a)
    tail = 2 * math.exp(-a * a / 2) / math.sqrt(2 * math.pi)
    assert a == pytest.approx(tail / (4.0**-4 / 3 * (1 - outside) + outside), rel=1e-11)


def octav_reference(x: np.ndarray, bits: int, steps: int = 200, start: float | None = None) -> float:
    a = np.mean(np.abs(x)) if start is None else start
    for _ in range(steps):
        beyond = np.abs(x) > a
        a_next = np.abs(x)[beyond].sum() / (4.0**-bits / 3 * (~beyond).sum() + beyond.sum())
        a = a_next
    return float(a)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_octav_reproduces_its_reference(bits: int) -> None:
    x = heavy((6, 500))
    found = rules.octav(rows(x), f"int{bits}")
    expected = [octav_reference(row, bits) for row in x]
    np.testing.assert_allclose(found.scale * 2 ** (bits - 1), expected, rtol=SUM_ORDER)
    small = rules.octav(rows(x * 2.0**-90), f"int{bits}")
    np.testing.assert_array_equal(small.scale, found.scale * 2.0**-90)
    # On few values the recursion may end in a cycle, as its reference does.
    again = [octav_reference(row, bits, steps=1, start=a) for row, a in zip(x, expected, strict=True)]
    at_rest = np.isclose(again, expected, rtol=SUM_ORDER)
    np.testing.assert_array_equal(found.status == Status.RULE, at_rest)
    assert at_rest.any()
    assert rules.octav(rows(x), f"int{bits}", n_iter=1).status.tolist() == [Status.UNCONVERGED] * 6


def test_sawb_on_a_gaussian_and_where_its_clip_is_not_positive() -> None:
    for bits, clip in ((2, 1.473), (3, 2.010), (4, 2.467), (5, 2.867), (8, 3.802)):
        grid = qe.grid(f"int{bits}_midrise")
        # Three decimals are known.
        assert rules.sawb(qe.Gaussian(), grid).scale * grid.max == pytest.approx(clip, abs=6e-4)
    x = heavy((3, 200))
    clip = 12.68 * np.sqrt((x**2).mean(axis=1)) - 12.80 * np.abs(x).mean(axis=1)
    np.testing.assert_allclose(rules.sawb(rows(x), "int4").scale * 15 / 2, clip, rtol=SUM_ORDER)
    mixed = np.stack([x[0], np.full(200, -3.5), np.zeros(200)])
    found = rules.sawb(rows(mixed), "int4")
    assert found.status.tolist() == [Status.RULE, Status.FALLBACK, Status.DEGENERATE]
    assert found.scale[1] == 3.5 / 8
    assert found.scale[2] == 1.0


@pytest.mark.parametrize(
    ("rule", "grid", "words"),
    [
        ("aciq", "e2m1", r"rule aciq is not defined on e2m1; it is on int2 to int16 and int2_midrise to int16_midrise"),
        ("aciq", "uint4", "rule aciq is not defined on uint4"),
        ("octav", "int4_narrow", "rule octav is not defined on int4_narrow"),
        ("sawb", "int6", r"rule sawb is not defined on int6; it is on .* B in \(2, 3, 4, 5, 8\)"),
        ("sawb", "nf4", "rule sawb is not defined on nf4"),
        ("entropy", "e2m1", "rule entropy is not defined on e2m1; it is on grids of equal steps with a level above 0"),
    ],
)
def test_rules_say_where_they_are_not_defined(rule: str, grid: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rules.as_rule(rule)(qe.Gaussian(), grid)


# -- iterative ---------------------------------------------------------------------------------------------------------


def iterative_reference(
    x: np.ndarray, levels: np.ndarray, s: float, z: float, steps: int, free: bool
) -> tuple[float, float]:
    for _ in range(steps):
        index = np.abs((x[:, None] - z) / s - levels).argmin(axis=1)
        l = levels[index]  # noqa: E741
        s = float(((x - z) * l).sum() / (l * l).sum())
        if free:
            z = float((x - s * l).mean())
    return s, z


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("grid", ["int4", "e2m1", "nf4", "uint4", "int8"])
def test_iterative_reproduces_its_reference(grid: str, free: bool) -> None:
    x = heavy((6, 333)) + 0.2
    levels = qe.grid(grid).levels
    start = 2 * x.std(axis=1) / levels[-1]
    for steps in (1, 2, 25):
        shift = "optimal" if free else 0.0
        found = rules.iterative(rows(x), grid, shift=shift, start=start, n_iter=steps, tol=0.0)
        for i, row in enumerate(x):
            z = float(row.mean()) if free else 0.0
            s, z = iterative_reference(row, levels, float(start[i]), z, steps, free)
            assert found.scale[i] == pytest.approx(s, rel=1e-10)
            assert found.shift[i] == pytest.approx(z, rel=1e-10, abs=1e-10 * s)


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["int2", "int4", "e2m1", "e3m0", "nf4", "int8"]),
    st.sampled_from([0.0, "mean", "optimal"]),
)
def test_iterative_never_increases_the_error(seed: int, grid: str, shift: float | str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_t(3, (4, 60)) * np.exp(rng.uniform(-3, 3, (4, 1)))
    found = rules.iterative(rows(x), grid, shift=shift, start=x.std(axis=1) * rng.uniform(0.02, 2))
    assert found.trace.shape[1:] == (4,)
    assert (np.diff(found.trace, axis=0) <= 1e-12 * found.trace[:-1]).all()
    last = qe.quantization_error(rows(x), grid, found.scale, found.shift).mse
    np.testing.assert_allclose(found.trace[-1], last, rtol=1e-6)


def test_iterative_in_the_limit_of_infinite_data() -> None:
    found = rules.iterative(qe.Gaussian(), "int4_midrise", n_iter=2000, tol=1e-13, start=0.2)
    # Max (1960): the step of 16 equal levels.
    assert found.scale == pytest.approx(0.3352006121999727, rel=1e-9)
    assert found.status == Status.RULE
    assert rules.iterative(qe.Gaussian(), "int8", n_iter=3, start=0.05).status == Status.UNCONVERGED


def test_iterative_starts_where_it_is_told() -> None:
    x = heavy((3, 100))
    by_name = rules.iterative(rows(x), "int4", start="minmax", n_iter=0)
    np.testing.assert_array_equal(by_name.scale, rules.minmax(rows(x), "int4").scale)
    free = rules.iterative(rows(x), "int4", start="minmax", shift="optimal", n_iter=0)
    np.testing.assert_array_equal(free.shift, rules.minmax(rows(x), "int4", shift="optimal").shift)


# -- names --------------------------------------------------------------------------------------------------------


def test_rules_by_name_and_as_functions() -> None:
    x = qe.Empirical(heavy((1, 500))[0])
    assert rules.as_rule("percentile:p=90")(x, "int4").scale == rules.percentile(x, "int4", p=90).scale
    named = rules.as_rule("analytic:family=student-t:df=5,model=high_resolution")(x, "int4")
    assert named.scale == rules.analytic(x, "int4", family="student-t:df=5", model="high_resolution").scale
    assert rules.as_rule("iterative:n_iter=2,start=0.25")(x, "int4").trace.shape == (3,)
    assert rules.as_rule(rules.minmax) is rules.minmax
    assert rules.rule_label(rules.minmax) == "minmax"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("minmacks", "unknown rule 'minmacks'; did you mean 'minmax'"),
        ("percentile:q=3", "rule percentile has no option 'q'; it has p"),
        ("minmax:p=3", "rule minmax has no option 'p'; it has include_zero"),
        ("percentile:99", "options of a rule are written as key=value"),
        ("percentile:p=x", "p must be a number >= 0, got 'x'"),
        ("percentile:p=true", "p must be a number >= 0, got True"),
        ("octav:tol=x", "tol must be a number >= 0, got 'x'"),
        ("iterative:tol=-1", "tol must be a number >= 0, got -1"),
        ("aciq:family=cauchy", "family must be 'gaussian' or 'laplace', got 'cauchy'"),
        ("iterative:n_iter=-1", "n_iter must be an integer from 0 to 1000000, got -1"),
        ("entropy:bins=1", "bins must be an integer of at least 2, got 1"),
        ("clipping_weighted:gamma=-1", "gamma must be a number >= 0, got -1"),
        (7, "rule must be a name or a function, got 7"),
    ],
)
def test_bad_rules(rule: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rules.as_rule(rule)(qe.Empirical([1.0, 2.0]), "int4")


@pytest.mark.parametrize(
    "rule", ["percentile", "analytic", "aciq", "octav", "sawb", "ocp", "entropy", "clipping_weighted"]
)
def test_rules_without_a_shift_of_their_own_say_so(rule: str) -> None:
    with pytest.raises(ValueError, match=f"shift must be a number or 'mean' for rule {rule}, got 'optimal'"):
        rules.as_rule(rule)(qe.Empirical([1.0, 2.0]), "int4", shift="optimal")


@pytest.mark.parametrize("rule", rules.RULES)
def test_every_rule_on_constant_rows(rule: str) -> None:
    x = np.stack([np.zeros(50), np.full(50, 2.5)])
    found = rules.as_rule(rule)(rows(x), "int4")
    assert np.isfinite(found.scale).all()
    assert (found.scale > 0).all() or rule == "signed_absmax"


@pytest.mark.parametrize("rule", sorted(set(rules.RULES) - BOUNDED))
def test_every_rule_has_its_limit_on_a_density(rule: str) -> None:
    """On 1e6 Gaussian values each rule is within sampling noise of its own infinite-data limit."""
    x = np.random.default_rng(5).standard_normal(1_000_000)
    on_data, limit = (rules.as_rule(rule)(d, "int4").scale for d in (qe.Empirical(x), qe.Gaussian()))
    # The scale of 1e6 values scatters by about 1e-3; a percentile at 99.9 by about 5e-3.
    assert on_data == pytest.approx(limit, rel=2e-2 if rule == "percentile" else 5e-3)


def test_optimal_is_the_search() -> None:
    x = rows(heavy((4, 100)))
    best = qe.optimal_scale(x, "e2m1", shift="mean")
    found = rules.optimal(x, "e2m1", shift="mean")
    np.testing.assert_array_equal(found.scale, best.scale)
    assert (found.status == Status.EXACT).all()


def test_percentile_at_the_shift_falls_back_to_minmax() -> None:
    """The radius is 0 although there are values: the scale is that of minmax, on data and in any number of rows."""
    x = np.zeros((2, 10_000))
    x[0, :6] = [1, 2, 3, 4, -5, 7]
    found = qe.fit(x, "int4", rule="percentile:p=99.9", axis=0)
    assert found.scale.ravel().tolist() == [1.0, 1.0]
    assert found.status.ravel().tolist() == [Status.FALLBACK, Status.DEGENERATE]
    assert found.error.mse.ravel().tolist() == [0.0, 0.0]
    assert qe.fit(8 * x[0], "int4", rule="percentile:p=99.9").scale == 8.0
    spike = qe.Rectified(qe.Gaussian(-10.0))
    with pytest.raises(
        ValueError, match="percentile, which gives no scale here and falls back to minmax, needs data or"
    ):
        as_rule("percentile:p=99.9")(spike, "int4")


@pytest.mark.parametrize("n_iter", [1, 2, 3])
def test_octav_of_one_magnitude_has_a_scale(n_iter: int) -> None:
    """Nothing is beyond the first clip, E|x|, so its next one is 0: not a reason to take any scale."""
    found = qe.fit([3.0, -3.0, 3.0], "int4", rule=f"octav:n_iter={n_iter}")
    # 3 / 7 of minmax, or 3 / 8 of the clip 3.
    assert found.scale == pytest.approx(3 / 7 if n_iter % 2 else 3 / 8, rel=1e-12)


ON_ANY_GRID = ("optimal", "minmax", "percentile", "analytic", "iterative", "shrink_search", "ocp", "clipping_weighted")


@pytest.mark.parametrize(
    ("grid", "rule"),
    [("uint8", rule) for rule in ON_ANY_GRID]
    + [("int4", rule) for rule in (*ON_ANY_GRID, "aciq", "octav", "sawb", "entropy")],
)
@pytest.mark.parametrize("value", [0.3, -0.3, 0.0])
def test_constant_tensors_keep_their_value_with_integer_zero_points(rule: str, value: float, grid: str) -> None:
    found = qe.fit([value] * 3, grid, rule=rule, zero_point="integer")
    assert found.fake_quantize([value] * 3) == pytest.approx(value, rel=1e-12)
    assert found.status == Status.RULE or rule == "optimal" or value == 0
    stored = qe.fit([value] * 3, grid, rule=rule, zero_point="integer", scale_format="e8m0", measure=False)
    assert stored.fake_quantize([value] * 3) == pytest.approx(value, abs=0.51 * float(stored.scale))


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (
            "percentile:p=0.9999",
            "p must be a percentage above 1 and up to 100, got 0.9999; p is a percentage: write p=99.99",
        ),
        ("percentile:p=1", "p is a percentage: write p=100"),
        ("percentile:p=0", "p must be a percentage above 1 and up to 100, got 0"),
        ("mse", "unknown rule 'mse'; did you mean 'optimal'?"),
        ("amax", "unknown rule 'amax'; did you mean 'absmax'?"),
        ("MAX", "unknown rule 'MAX'; did you mean 'minmax'?"),
        (lambda d, g, z: 0.1, "it is called as rule(density, grid, shift=...)"),
        (lambda d, g, shift: (1.0, 2.0, 3.0), "a rule must return a RuleResult, a scale, or a pair of scale and shift"),
    ],
)
def test_rules_that_are_meant_otherwise(rule: Any, text: str) -> None:
    with pytest.raises(ValueError, match=re.escape(text)):
        qe.fit([1.0, 2.0], "int4", rule=rule)


def test_functions_see_one_tensor_as_one_distribution_of_numbers() -> None:
    x = np.linspace(-1.0, 1.0, 50)
    for options in ({}, {"weights": np.ones(50)}, {"shift": "mean"}, {"zero_point": "integer"}):
        found = qe.fit(x, "int4", rule=lambda d, g, shift: float(d.std) / 7, **options)
        assert found.scale == pytest.approx(np.std(x) / 7, rel=1e-12)
    assert qe.fit(x, "int4", rule=lambda d, g, shift: 0.1).scale == 0.1
