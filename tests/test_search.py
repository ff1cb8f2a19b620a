"""The search over the scale: global against dense scans of another route, proofs that can fail, shapes and corners."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

import qerror as qe
from qerror.errors import high_resolution
from qerror.errors.exact import error_sums
from qerror.search.densities import bounds, minima, scan
from qerror.search.densities.doubles import ceiling
from qerror.search.densities.objective import Objective
from qerror.search.found import RESOLUTION
from qerror.search.samples import best_scale, branch_and_bound, scale_and_shift
from qerror.tensors import zero_points

# A scan and the search end at the same minimum up to the width of the last bracket, squared.
SCAN_TOLERANCE = 1e-9
# The MSE of an optimum is promised to this.
MSE_TOLERANCE = 1e-12
# The ends of the interval are roots bracketed to 1e-6, then one secant step more.
INTERVAL_TOLERANCE = 1e-8
# |dMSE/ds| s / MSE at a minimum known to 1e-8 in the scale.
STATIONARY = 1e-6
# Scales where the minimum is sharp.
SCALE_TOLERANCE = 1e-8
SCANNED_SCALES = 20_000
FEWER_SCALES = 4_000

RNG = np.random.default_rng(20250213)


def mse_at(density: qe.Density, grid: qe.Grid, shift: float, **options: Any) -> Callable[[np.ndarray], np.ndarray]:
    """The MSE by summation of every cell, which the search does not use."""
    return lambda scale: np.asarray(qe.quantization_error(density, grid, scale, shift, **options).mse)


def scanned_best(f: Callable[[np.ndarray], np.ndarray], low: float, high: float, count: int) -> float:
    """Least value of f over a dense scan, its best dips refined by golden sections."""
    s = np.geomspace(low, high, count)
    values = f(s)
    dips = np.flatnonzero((values[1:-1] <= values[:-2]) & (values[1:-1] <= values[2:])) + 1
    dips = dips[np.argsort(values[dips])[:4]]
    a, b, ratio = s[dips - 1], s[dips + 1], (math.sqrt(5) - 1) / 2
    for _ in range(40 if dips.size else 0):
        left, right = b - ratio * (b - a), a + ratio * (b - a)
        lower = f(left) < f(right)
        a, b = np.where(lower, a, left), np.where(lower, right, b)
    refined = f(0.5 * (a + b)) if dips.size else values
    return float(min(values.min(), refined.min()))


def power_about(density: qe.Density, shift: float) -> float:
    return float(np.square(density.std) + (density.mean - shift) ** 2)


def worthwhile(density: qe.Density, grid: qe.Grid, shift: float) -> tuple[float, float]:
    """Scales from where clipping leaves all of the signal to where the smallest level lies beyond it."""
    rms = math.sqrt(power_about(density, shift))
    return 1e-3 * rms / grid.absmax, 20 * rms / np.abs(grid.levels[grid.levels != 0]).min()


# -- the global minimum ----------------------------------------------------------------------------------------------

PART = st.sampled_from([
    lambda m, s: qe.Gaussian(m, s), lambda m, s: qe.Laplace(m, s), lambda m, s: qe.Logistic(m, s),
    lambda m, s: qe.StudentT(2.2, m, s), lambda m, s: qe.StudentT(5, m, s),
    lambda m, s: qe.GeneralizedGaussian(0.5, m, s), lambda m, s: qe.GeneralizedGaussian(5.0, m, s),
    lambda m, s: qe.Uniform(m, s),
    lambda m, s: qe.Histogram([2, 0, 7, 5, 1], m + s * np.array([-2.0, -1.0, -0.9, 0.1, 1.0, 2.5])),
])  # fmt: skip


@st.composite
def densities(draw: st.DrawFn) -> qe.Density:
    """One family, a mixture of two, or either rectified."""

    def one() -> qe.Density:
        return draw(PART)(draw(st.sampled_from([0.0, 0.0, 0.4, -1.0, 2.0])), draw(st.sampled_from([0.1, 1.0, 3.0])))

    kind = draw(st.sampled_from(["one", "mixture", "rectified", "with-atom"]))
    if kind == "mixture":
        return qe.Mixture([one(), one()], [0.3, 0.7])
    if kind == "rectified":
        return qe.Rectified(qe.Laplace(draw(st.floats(-0.5, 1)), 1.0))
    if kind == "with-atom":
        return qe.Mixture([qe.Rectified(qe.Gaussian()), one()], [0.5, 0.5])
    return one()


NAMED = [
    *("int2", "int3", "int4", "int6", "uint3", "uint4", "int4_narrow", "int4_midrise", "binary", "ternary"),
    *("e2m1", "e3m0", "e1m2", "e2m3", "e3m2", "nf4", "sf4", "pot4", "apot4"),
]


@st.composite
def grids(draw: st.DrawFn) -> qe.Grid:
    """Named, or any levels: without 0, one-sided upwards, over many magnitudes."""
    if draw(st.booleans()):
        return qe.grid(draw(st.sampled_from(NAMED)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size = draw(st.integers(2, 18))
    levels = {
        "scattered": lambda: 3 * rng.standard_normal(size),
        "upwards": lambda: np.append(0.0, np.abs(rng.standard_normal(size)) + 0.05),
        "magnitudes": lambda: np.append(10.0 ** rng.uniform(-3, 1, size) * rng.choice([-1, 1], size), [0.0, 8.0, -8.0]),
    }[draw(st.sampled_from(["scattered", "upwards", "magnitudes"]))]()
    return qe.Grid(np.unique(levels))


def check_global(
    density: qe.Density, grid: qe.Grid, shift: float, count: int = SCANNED_SCALES, **options: Any
) -> qe.ScaleResult:
    best = qe.optimal_scale(density, grid, shift=shift, **options)
    f = mse_at(density, grid, shift, **options)
    if best.status in {qe.Status.DEGENERATE, qe.Status.DEGENERATE_NONE}:
        # No scale is better than a vanishing one.
        assert scanned_best(f, *worthwhile(density, grid, shift), count) >= power_about(density, shift) * (1 - 1e-12)
        return best
    assert best.error.mse <= scanned_best(f, *worthwhile(density, grid, shift), count) * (1 + SCAN_TOLERANCE)
    assert f(best.scale) == pytest.approx(best.error.mse, rel=MSE_TOLERANCE)
    return best


# Narrow densities far from the shift: minima in a row, each sharp.
@example(qe.Laplace(mean=-1.0, std=0.1), qe.grid("int6"), 0.0)
@example(qe.GeneralizedGaussian(0.7, mean=2.0, std=0.0177), qe.grid("int7"), 0.0)
@settings(max_examples=20)
@given(densities(), grids(), st.sampled_from([0.0, 0.0, 0.3]))
def test_global_minimum(density: qe.Density, grid: qe.Grid, shift: float) -> None:
    best = check_global(density, grid, shift)
    if best.minima:
        check_minima(best, density, grid, shift)


def check_minima(best: qe.ScaleResult, density: qe.Density, grid: qe.Grid, shift: float) -> None:
    """Sorted, stationary, each with its own MSE; the first is the answer."""
    scale, mse = (np.array([getattr(m, name) for m in best.minima]) for name in ("scale", "mse"))
    assert (scale[0], mse[0]) == (best.scale, best.error.mse)
    assert (np.diff(mse) >= 0).all()
    sums = error_sums(density, grid, scale, np.full(scale.size, shift))
    np.testing.assert_allclose(sums.mse, mse, rtol=MSE_TOLERANCE)
    assert (np.abs(sums.by_scale) * scale <= STATIONARY * mse).all()
    assert all(m.shift == shift for m in best.minima)


def check_interval(best: qe.ScaleResult, density: qe.Density, grid: qe.Grid, shift: float) -> None:
    """1.01 times the best at both ends, below that in between."""
    f, goal = mse_at(density, grid, shift), 1.01 * best.error.mse
    low, high = best.interval_1pct
    assert low <= best.scale <= high
    for end in (low, high):
        if 0 < end < math.inf:
            assert f(np.array([end]))[0] == pytest.approx(goal, rel=INTERVAL_TOLERANCE)
    least, most = worthwhile(density, grid, shift)
    inside = np.linspace(max(low, least), min(high, most), 500)
    assert (f(inside) <= goal * (1 + INTERVAL_TOLERANCE)).all()


@pytest.mark.parametrize("name", ["int8", "e4m3fn", "e5m2"])
@pytest.mark.parametrize("density", ["gaussian", "laplace", "student-t:df=2.2", "uniform"])
def test_eight_bits(density: str, name: str) -> None:
    members, grid = qe.density(density), qe.grid(name)
    best = qe.optimal_scale(members, grid)
    f = mse_at(members, grid, 0.0)
    # Copies an octave apart: the scan covers the octaves about the optimum.
    s = best.scale * np.geomspace(1 / 8, 8, 3000)
    assert best.error.mse <= f(s).min() * (1 + SCAN_TOLERANCE)
    check_minima(best, members, grid, 0.0)
    check_interval(best, members, grid, 0.0)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(("df", "name"), [(2.3, "e8m0"), (2.6, "e8m1"), (3.0, "e8m0"), (3.5, "e6m1")])
def test_chains_of_copies(df: float, name: str, rounding: Any) -> None:
    """Each octave is within 1e-12 of the next; the answer is within 1e-12 of the best of all, over two hundred."""
    found = qe.optimal_scale(qe.StudentT(df), name, rounding=rounding, certify=False)
    scales = found.scale * np.exp2(np.arange(-60.0, 200.0))
    least = qe.quantization_error(qe.StudentT(df), name, scales, rounding=rounding).mse.min()
    assert found.error.mse <= least * (1 + 1e-12)


@pytest.mark.parametrize(
    ("density", "name", "shift"),
    [
        ("gaussian:mean=2,std=0.1", "int4", 0.37),
        ("gaussian:mean=2,std=0.1", "uint4", 0.0),
        ("laplace:mean=2,std=0.03", "int5", 0.0),
        ("student-t:df=3,mean=4,std=0.3", "int5", 0.0),
    ],
)
def test_minima_of_a_density_far_from_the_shift(density: str, name: str, shift: float) -> None:
    """As many, and where, as a dense scan shows: more in an octave than the search scans at first."""
    members, grid = qe.density(density), qe.grid(name)
    found = np.sort([m.scale for m in qe.optimal_scale(members, grid, shift=shift).minima])
    s = np.geomspace(0.8 * found[0], 1.2 * found[-1], 20_001)
    mse = mse_at(members, grid, shift)(s)
    dips = 1 + np.flatnonzero((mse[1:-1] < mse[:-2]) & (mse[1:-1] < mse[2:]))
    np.testing.assert_allclose(found, s[dips], rtol=s[1] / s[0] - 1)


@pytest.mark.parametrize(
    ("density", "name", "shift", "rounding", "ratio"),
    [
        ("laplace", "e4m3_ieee", 0.8, "nearest", 1.056),
        ("laplace", "e4m3fnuz", 1.4, "nearest", 1.059),
        ("laplace", "e4m3b11fnuz", -0.464, "nearest", 1.059),
        ("generalized-gaussian:beta=0.56", "e5m2fnuz", 0.945, "stochastic", 2.3),
    ],
)
def test_a_cusp_divides_dips(density: str, name: str, shift: float, rounding: Any, ratio: float) -> None:
    """Where a cusp away from the shift meets thresholds: two minima so near that a ladder of scales shows one."""
    members, grid = qe.density(density), qe.grid(name)
    found = qe.optimal_scale(members, grid, shift=shift, rounding=rounding, certify=False)
    scales = found.scale * np.geomspace(1 / ratio**1.1, ratio**1.1, 257)
    least = qe.quantization_error(members, grid, scales, shift, rounding=rounding).mse.min()
    assert found.error.mse <= least * (1 + 1e-12)


@pytest.mark.parametrize(("name", "count"), [("e3m0", 4), ("e2m1", 1), ("e3m2", 3), ("e2m3", 1), ("int4", 1)])
def test_number_of_minima_of_a_gaussian(name: str, count: int) -> None:
    """As counted by a dense scan."""
    grid = qe.grid(name)
    assert len(qe.optimal_scale(qe.Gaussian(), grid).minima) == count
    values = mse_at(qe.Gaussian(), grid, 0.0)(np.geomspace(0.2, 50, SCANNED_SCALES) / grid.absmax)
    assert np.count_nonzero((values[1:-1] < values[:-2]) & (values[1:-1] <= values[2:])) == count


@pytest.mark.parametrize("grid", ["int2", "int4", "uint4", "e2m1", "e3m0", "e3m2", "nf4", "binary", "int4_midrise"])
@pytest.mark.parametrize(
    "density",
    [
        *(qe.Gaussian(), qe.Gaussian(0.4, 0.1), qe.Laplace(-0.3), qe.StudentT(2.2), qe.GeneralizedGaussian(0.5)),
        *(qe.Uniform(), qe.Rectified(qe.Laplace(0.2))),
        qe.Mixture([qe.Gaussian(-2, 0.1), qe.Uniform(1.0)], [0.3, 0.7]),
    ],
    ids=lambda d: d.name,
)
def test_interval(density: qe.Density, grid: str) -> None:
    best = qe.optimal_scale(density, grid)
    check_interval(best, density, qe.grid(grid), 0.0)
    # Wide enough to matter, and never the whole line.
    assert 0 < best.interval_1pct[0] < best.scale < best.interval_1pct[1] < math.inf


def test_the_interval_is_connected() -> None:
    """Scales within 1 % of the best of E3M0 lie in two pieces: the interval is the one of the answer."""
    best = qe.optimal_scale(qe.Gaussian(), "e3m0")
    second = best.minima[1]
    assert second.mse < 1.01 * best.error.mse
    assert not best.interval_1pct[0] <= second.scale <= best.interval_1pct[1]


# -- the other objectives --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("grid", ["e4m3fn", "e5m2", "int8"])
@pytest.mark.parametrize("density", [qe.Gaussian(), qe.Laplace(), qe.Logistic(mean=0.1), qe.Uniform()], ids=str)
def test_what_a_proof_leaves_out_above_is_no_better(density: qe.Density, grid: str) -> None:
    """A hundred scales an octave, over all octaves from the ceiling on, by direct evaluation."""
    best = qe.optimal_scale(density, grid, certify=True)
    objective = Objective(density, qe.grid(grid), np.zeros(1), "nearest", "exact")
    end = float(ceiling(objective, np.array([best.error.mse]))[0])
    assert math.isfinite(end)
    above = end * 2.0 ** np.linspace(0, 24, 2401)
    assert qe.quantization_error(density, grid, above).mse.min() >= best.error.mse * (1 - 1e-12)


def test_nothing_is_left_out_where_tails_have_an_error() -> None:
    numeric = qe.from_scipy(stats.norm())
    assert numeric.tails_error > 0
    objective = Objective(numeric, qe.grid("e4m3fn"), np.zeros(1), "nearest", "exact")
    assert ceiling(objective, np.array([7e-4]))[0] == math.inf


SMOOTH = [qe.Gaussian(), qe.Laplace(0.2), qe.StudentT(2.2), qe.GeneralizedGaussian(0.5)]


@pytest.mark.parametrize("density", SMOOTH, ids=lambda d: d.name)
@pytest.mark.parametrize("grid", ["int4", "e2m1", "e3m0", "nf4", "uint4", "int2_midrise"])
@pytest.mark.parametrize(
    "options", [{"rounding": "stochastic"}, {"model": "high_resolution"}], ids=["stochastic", "high-resolution"]
)
def test_global_minimum_of_other_objectives(density: qe.Density, grid: str, options: dict[str, str]) -> None:
    best = check_global(density, qe.grid(grid), 0.0, FEWER_SCALES, **options)
    sums = error_sums if "rounding" in options else high_resolution.error_sums
    rounding = options.get("rounding", "nearest")
    scale = np.array([m.scale for m in best.minima])
    by_scale = sums(density, qe.grid(grid), scale, np.zeros(scale.size), rounding)[4 if "rounding" in options else 2]
    assert (np.abs(by_scale) * scale <= STATIONARY * np.array([m.mse for m in best.minima])).all()


def test_both_at_once() -> None:
    options = {"rounding": "stochastic", "model": "high_resolution"}
    check_global(qe.Gaussian(), qe.grid("e3m0"), 0.0, FEWER_SCALES, **options)


def test_models_differ() -> None:
    """E3M0: the model picks another basin than the truth."""
    exact, model = (qe.optimal_scale(qe.Gaussian(), "e3m0", model=m).scale for m in ("exact", "high_resolution"))
    assert abs(math.log2(exact / model)) > 0.4


# -- proofs ----------------------------------------------------------------------------------------------------------


@given(densities(), grids(), st.sampled_from(["nearest", "stochastic"]), st.integers(0, 2**32 - 1))
def test_bounds_hold(density: qe.Density, grid: qe.Grid, rounding: str, seed: int) -> None:
    """Between two evaluated scales no MSE lies below the bound; it is close where they are."""
    objective = Objective(density, grid, np.zeros(1), rounding, "exact")
    s0 = math.sqrt(power_about(density, 0.0)) / grid.absmax
    rng = np.random.default_rng(seed)
    low = s0 * math.exp(rng.uniform(-3, 3))
    high = low * (1 + 10.0 ** rng.uniform(-4, 0))
    ends = objective(np.zeros(2, np.intp), np.array([low, high]))
    left, right = ends.select(np.array([0])), ends.select(np.array([1]))
    bound = float(bounds.lower_bounds(objective, left, right)[0])
    least = mse_at(density, grid, 0.0, rounding=rounding)(np.linspace(low, high, 200)).min()
    power = power_about(density, 0.0)
    assert bound <= least + RESOLUTION * (power + least)
    # Of second order in the spacing for densities, of first where an atom crosses a threshold.
    assert bound >= least - 2 * power * (high / low - 1)


@pytest.mark.parametrize("name", ["int2", "int8", "e2m1", "e3m2", "nf4"])
@pytest.mark.parametrize("density", ["gaussian", "laplace", "uniform", "t:df=3", "generalized-gaussian:beta=0.5"])
def test_parabolas_are_close(density: str, name: str) -> None:
    """A falling pdf bounds the curvature: a gap of third order in the spacing, where that of chords is of second."""
    objective = Objective(qe.density(density), qe.grid(name), np.zeros(1), "nearest", "exact")
    mse = mse_at(qe.density(density), qe.grid(name), 0.0)
    assert objective.bounded
    for width in (1e-1, 1e-2, 1e-3):
        scale = np.geomspace(0.05, 1.5, 40) / qe.grid(name).absmax * 4
        ends = [objective(np.zeros(40, np.intp), scale), objective(np.zeros(40, np.intp), scale * (1 + width))]
        bound = bounds._above_parabolas(objective, *ends)
        least = mse(np.geomspace(scale, scale * (1 + width), 50)).min(axis=0)
        assert (bound <= least + RESOLUTION).all()
        # A jump of the pdf at a threshold adds a term of second order.
        gap = (least - bound) / width ** (2 if density == "uniform" else 3)
        assert gap.max() < 2.0


def test_a_wrong_bound_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that never exclude anything must not end in EXACT: the status is proven, not assumed."""
    monkeypatch.setattr(bounds, "_below_chord", lambda objective, left, right: np.full(left.row.size, -np.inf))
    monkeypatch.setattr(bounds, "_above_parabolas", lambda objective, left, right: np.full(left.row.size, -np.inf))
    assert qe.optimal_scale(qe.Gaussian(), "int4").status == qe.Status.SCANNED


def test_a_wrong_minimum_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the refinement disabled, what is returned is a point of the scan or a better one, or not EXACT."""
    honest = qe.optimal_scale(qe.Gaussian(), "e3m0")
    found = qe.optimal_scale(qe.Gaussian(), "e3m0", certify=False)
    assert honest.status == qe.Status.EXACT
    assert found.status == qe.Status.SCANNED
    assert found.error.mse == pytest.approx(honest.error.mse, rel=MSE_TOLERANCE)


def test_a_proof_of_what_was_not_returned_is_withdrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where following the dips fails, the proof knows better scales than the one returned: it is not EXACT."""
    monkeypatch.setattr(minima, "rising_roots", lambda evaluate, curves, low, high: low.scale)
    found = qe.optimal_scale(qe.Gaussian(), "int4")
    honest = qe.optimal_scale(qe.Empirical([1.0, 2.0, 4.5]), "int4")
    assert found.status == qe.Status.SCANNED
    assert honest.status == qe.Status.EXACT


# Every cap, budget and window that ends a search: forced small, the status falls.
CAPS = {
    "cheap proof": (scan, "_CHEAP_PROOF", 1, lambda: qe.optimal_scale(qe.Gaussian(), "int6").status),
    "proof asked for": (scan, "_ASKED_PROOF", 1, lambda: qe.optimal_scale(qe.Laplace(), "int6", certify=True).status),
    "proof of a sample, stochastic": (
        scan, "_DEAR_PROOF", 1, lambda: qe.optimal_scale(NORMAL_SAMPLE, "int6", rounding="stochastic").status,
    ),
    "cells and crossings": (branch_and_bound, "BUDGET", 1e-3, lambda: qe.optimal_scale(NORMAL_SAMPLE, "int8").status),
    "rectangles": (
        scale_and_shift, "_BUDGET", 1, lambda: qe.optimal_scale(NORMAL_SAMPLE, "int3", shift="optimal").status,
    ),
    "levels of rectangles": (
        scale_and_shift, "_LEVELS", 1, lambda: qe.optimal_scale(NORMAL_SAMPLE, "int3", shift="optimal").status,
    ),
    "zero points tried": (zero_points, "_MOST_TRIED", 1, lambda: qe.fit(OFFSET, "uint3", zero_point="integer").status),
    "window of zero points": (zero_points, "_MOST", 1, lambda: qe.fit(OFFSET, "uint3", zero_point="integer").status),
    "weights that sums resolve": (best_scale, "_SEEN", 0.0, lambda: qe.optimal_scale(WEIGHTED, "int6").status),
}  # fmt: skip
NORMAL_SAMPLE = qe.Empirical(np.random.default_rng(1).standard_normal(500))
WEIGHTED = qe.Empirical(np.random.default_rng(1).standard_normal(500), np.random.default_rng(2).random(500))
OFFSET = np.random.default_rng(3).standard_normal(60) + 3


@pytest.mark.parametrize("name", CAPS)
def test_a_search_that_is_cut_short_claims_no_proof(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, cap, value, status = CAPS[name]
    assert status() == qe.Status.EXACT
    monkeypatch.setattr(module, cap, value)
    assert status() in {qe.Status.SCANNED, qe.Status.LOCAL}


def test_certified_on_request() -> None:
    """E4M3 has minima an octave apart that differ by 1e-12: proven only where asked for."""
    best = qe.optimal_scale(qe.Gaussian(), "e4m3fn", certify=True)
    assert best.status == qe.Status.EXACT
    # Computed for shared constants: 6.98749480250e-4 at clip 9.129.
    assert best.error.mse == pytest.approx(6.987494802e-4, rel=1e-9)


@pytest.mark.parametrize("name", ["int2", "int4", "int6", "e2m1", "e3m0", "e2m3", "nf4"])
@pytest.mark.parametrize("density", ["gaussian", "laplace", "logistic", "student-t:df=5"])
def test_cheap_proofs_come_unasked(density: str, name: str) -> None:
    assert qe.optimal_scale(qe.density(density), name).status == qe.Status.EXACT


def test_high_resolution_is_not_called_exact() -> None:
    assert qe.optimal_scale(qe.Gaussian(), "int4", model="high_resolution").status == qe.Status.SCANNED


# -- shifts ----------------------------------------------------------------------------------------------------------


def test_mean_shift() -> None:
    density = qe.Laplace(3.0, 0.5)
    best, centred = qe.optimal_scale(density, "int4", shift="mean"), qe.optimal_scale(qe.Laplace(0.0, 0.5), "int4")
    assert best.shift == 3.0
    assert best.scale == pytest.approx(centred.scale, rel=SCALE_TOLERANCE)
    assert best.error.mse == pytest.approx(centred.error.mse, rel=MSE_TOLERANCE)
    rows = qe.optimal_scale(qe.Laplace([0.0, 3.0], 0.5), "int4", shift="mean")
    np.testing.assert_allclose(rows.scale, centred.scale, rtol=SCALE_TOLERANCE)


def test_arrays_of_shifts_and_densities() -> None:
    """Everything broadcasts; each element is what it is alone."""
    density = qe.Gaussian(0.0, np.array([0.5, 1.0, 20.0]))
    shift = np.array([[0.0], [0.25]])
    for options in ({}, {"rounding": "stochastic"}, {"model": "high_resolution"}):
        many = qe.optimal_scale(density, "e3m0", shift=shift, **options)
        assert many.scale.shape == many.error.mse.shape == many.status.shape == many.minima.shape == (2, 3)
        for i, j in np.ndindex(2, 3):
            one = qe.optimal_scale(qe.Gaussian(0.0, density.std[j]), "e3m0", shift=shift[i, 0], **options)
            assert many.scale[i, j] == pytest.approx(one.scale, rel=SCALE_TOLERANCE)
            assert many.error.mse[i, j] == pytest.approx(one.error.mse, rel=MSE_TOLERANCE)
            assert many.status[i, j] == one.status
            assert len(many.minima[i, j]) == len(one.minima)
            for end in (0, 1):
                assert many.interval_1pct[end][i, j] == pytest.approx(one.interval_1pct[end], rel=1e-7)
                assert many.range[end][i, j] == pytest.approx(one.range[end], rel=1e-7)


def test_fields_follow_from_the_scale() -> None:
    best = qe.optimal_scale(qe.Gaussian(0.1), "int4", shift=0.05)
    grid = qe.grid("int4")
    assert best.clip == best.scale * grid.absmax
    assert best.range == (best.shift + best.scale * grid.min, best.shift + best.scale * grid.max)
    error = qe.quantization_error(qe.Gaussian(0.1), grid, best.scale, best.shift)
    assert all(getattr(best.error, f.name) == getattr(error, f.name) for f in dataclasses.fields(error))


@pytest.mark.parametrize(
    ("bits", "fraction", "mse"),
    [
        (2, 0.2695153328, 0.194461916681003),
        (4, 0.1524832724, 0.0251482143704779),
        (8, 0.08620542889, 0.000301357706889065),
    ],
)
def test_laplace_twins(bits: int, fraction: float, mse: float) -> None:
    """Free shift, two's complement: twin optima at z/s and 1 - z/s (computed in closed form, again in mpmath)."""
    best = qe.optimal_scale(qe.Laplace(), f"int{bits}", shift="optimal")
    assert best.status == qe.Status.LOCAL
    assert best.error.mse == pytest.approx(mse, rel=2e-12)
    found = best.shift / best.scale % 1
    assert min(found, 1 - found) == pytest.approx(fraction, abs=2e-9)


@pytest.mark.parametrize("grid", ["int3", "e2m1", "nf4"])
@pytest.mark.parametrize(
    "density",
    [qe.Gaussian(0.7, 2.0), qe.Laplace(-1, 0.3), qe.Rectified(qe.Gaussian()), qe.StudentT(5, 0.3)],
    ids=lambda d: d.name,
)
def test_optimal_shift_against_a_coarse_scan(density: qe.Density, grid: str) -> None:
    levels = qe.grid(grid)
    best = qe.optimal_scale(density, levels, shift="optimal")
    assert best.status == qe.Status.LOCAL
    mean, std = float(density.mean), float(density.std)
    shift = mean + std * np.linspace(-5, 5, 161)[:, None]
    scale = np.geomspace(0.1, 10, 200) * std / levels.absmax
    scanned = qe.quantization_error(density, levels, scale, shift).mse
    assert best.error.mse <= scanned.min()
    fixed = qe.optimal_scale(density, levels, shift="mean")
    assert best.error.mse <= fixed.error.mse * (1 + MSE_TOLERANCE)
    sums = error_sums(density, levels, np.atleast_1d(best.scale), np.atleast_1d(best.shift))
    assert abs(sums.by_scale[0]) * best.scale <= STATIONARY * best.error.mse
    assert abs(sums.by_shift[0]) * best.scale <= STATIONARY * best.error.mse


def test_optimal_shift_of_samples() -> None:
    """A fixed point of least squares, better than the mean; uniform data on the grid leave no error."""
    x = RNG.standard_normal(400) ** 2
    best = qe.optimal_scale(qe.Empirical(x), "int3", shift="optimal")
    assert best.error.mse <= qe.optimal_scale(qe.Empirical(x), "int3", shift="mean").error.mse
    values = best.shift + best.scale * qe.grid("int3").levels
    nearest = values[np.abs(x[:, None] - values).argmin(axis=1)]
    slope, intercept = np.polyfit((nearest - best.shift) / best.scale, x, 1)
    assert (slope, intercept) == pytest.approx((best.scale, best.shift), rel=1e-9)


# -- units -----------------------------------------------------------------------------------------------------------


def hills(c: float) -> qe.Density:
    return qe.Mixture([qe.Gaussian(0, c), qe.Uniform(2 * c, c)], [0.5, 0.5])


@pytest.mark.parametrize("c", [1e-30, 3e-7, 1e5, 1e30])
@pytest.mark.parametrize("grid", ["int4", "e3m0", "e4m3fn"])
def test_the_scale_follows_the_unit(grid: str, c: float) -> None:
    """optimal_scale(c X) = c optimal_scale(X), for formulas, mixtures and samples."""
    x = RNG.standard_normal(50)
    for one, other in (
        (qe.Laplace(0.1, 1.0), qe.Laplace(0.1 * c, c)),
        (qe.Empirical(x), qe.Empirical(c * x)),
        (hills(1.0), hills(c)),
    ):
        a, b = qe.optimal_scale(one, grid), qe.optimal_scale(other, grid)
        assert b.error.mse / c / c == pytest.approx(a.error.mse, rel=MSE_TOLERANCE * 4)
        if grid != "e4m3fn":
            # Copies an octave apart may change places, and be too dear to prove.
            assert len(b.minima) == len(a.minima)
            assert b.status == a.status
            assert b.scale / c == pytest.approx(a.scale, rel=SCALE_TOLERANCE)


# -- excess ----------------------------------------------------------------------------------------------------------


@given(densities(), grids(), st.floats(-3, 3), st.sampled_from([0.0, 0.3]))
def test_excess(density: qe.Density, grid: qe.Grid, octaves: float, shift: float) -> None:
    best = qe.optimal_scale(density, grid, shift=shift)
    excess = qe.excess_db(density, grid, best.scale * 2.0**octaves, shift)
    assert excess >= 0
    if best.minima:
        assert qe.excess_db(density, grid, best.scale, shift) <= 1e-10
        here = float(mse_at(density, grid, shift)(np.array([best.scale * 2.0**octaves]))[0])
        assert excess == pytest.approx(max(0.0, 10 * math.log10(here / best.error.mse)), abs=1e-9)


def test_excess_in_numbers() -> None:
    """Twice the optimal scale of int4 costs what the two errors say; options are passed on."""
    for options in ({}, {"rounding": "stochastic"}, {"model": "high_resolution"}):
        best = qe.optimal_scale(qe.Gaussian(), "int4", **options)
        here = qe.quantization_error(qe.Gaussian(), "int4", 2 * best.scale, **options).mse
        loss = qe.excess_db(qe.Gaussian(), "int4", 2 * best.scale, **options)
        assert loss == pytest.approx(10 * math.log10(here / best.error.mse), rel=1e-10)
        assert loss > 1
    assert qe.excess_db(qe.Empirical([0.0, 0.0]), "int4", 1.0) == 0.0


# -- samples in the corners ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "grid", "status", "mse"),
    [
        ([0.0, 0.0], "int4", qe.Status.DEGENERATE, 0.0),
        ([0.0], "e2m1", qe.Status.DEGENERATE, 0.0),
        ([0.0, 0.0], "int4_midrise", qe.Status.DEGENERATE_NONE, None),
        ([-1.0, -2.0], "uint4", qe.Status.DEGENERATE, 2.5),
        ([-1.0, -2.0], [0.5, 1.0, 2.0], qe.Status.DEGENERATE_NONE, None),
        ([2.5, 2.5, 2.5], "int4", qe.Status.EXACT, 0.0),
        ([-0.3], "int2", qe.Status.EXACT, 0.0),
        ([1.0, -2.5], "int3", qe.Status.EXACT, None),
        ([-3.0, 1.0], "binary", qe.Status.EXACT, 1.0),
    ],
)
def test_corners(x: list[float], grid: Any, status: qe.Status, mse: float | None) -> None:
    best = qe.optimal_scale(qe.Empirical(x), qe.Grid(grid) if isinstance(grid, list) else grid)
    assert best.status == status
    if status in {qe.Status.DEGENERATE, qe.Status.DEGENERATE_NONE}:
        assert best.scale == (1.0 if status == qe.Status.DEGENERATE else 2.0**-126)
        assert best.minima == ()
        assert all(math.isnan(end) for end in best.interval_1pct)
    if mse is not None:
        assert best.error.mse == pytest.approx(mse, abs=1e-30)


def test_texts_of_the_statuses() -> None:
    """The message says whether any scale is optimal or none is."""
    assert "any is optimal" in str(qe.optimal_scale(qe.Empirical([0.0]), "int4").status)
    assert "no scale is optimal" in str(qe.optimal_scale(qe.Empirical([0.0]), "int4_midrise").status)
    assert str(qe.optimal_scale(qe.Gaussian(), "int4").status).startswith("proven")
    assert "certify=True" in str(qe.optimal_scale(qe.Gaussian(), "int4", certify=False).status)
    assert "proven" in repr(qe.optimal_scale(qe.Gaussian(), "int4"))


def test_constant_data_about_their_mean() -> None:
    best = qe.optimal_scale(qe.Empirical([2.5] * 9), "int4", shift="mean")
    assert best.status == qe.Status.DEGENERATE
    assert best.error.mse == 0.0
    free = qe.optimal_scale(qe.Empirical([2.5] * 9), "int4_midrise", shift="optimal")
    assert free.error.mse <= 1e-30


def test_rows_of_all_magnitudes() -> None:
    """Rows around 1e-32 and 1e+30 beside rows of 1, zeros and constants: each as alone."""
    base = RNG.standard_normal((7, 64))
    unit = np.array([1.0, 1e-32, 1e30, 0.0, 1.0, 1e-32, 1.0])[:, None]
    x = base * unit
    x[4] = 3.0
    for grid in ("int4", "e2m1", "e3m0", "int4_midrise"):
        many = qe.optimal_scale(qe.Empirical(x, axis=0), grid)
        for row in range(7):
            one = qe.optimal_scale(qe.Empirical(x[row]), grid)
            assert many.status[row] == one.status
            assert many.scale[row] == pytest.approx(one.scale, rel=1e-12)
            assert many.error.mse[row] == pytest.approx(one.error.mse, rel=MSE_TOLERANCE)
            if unit[row] > 0 and row != 4:
                alone = qe.optimal_scale(qe.Empirical(base[row]), grid)
                assert many.scale[row] / unit[row, 0] == pytest.approx(alone.scale, rel=1e-12)


@pytest.mark.parametrize("kind", ["heavy", "lattice", "duplicates", "float32", "bfloat16-like"])
@pytest.mark.parametrize("grid", ["int4", "e2m1", "e3m0", "int8", "nf4"])
def test_samples_against_a_dense_scan(kind: str, grid: str) -> None:
    """Exact on samples of thousands: no scale of a scan is better than what is called proven."""
    x = {
        "heavy": lambda: RNG.standard_cauchy(3000),
        "lattice": lambda: RNG.integers(-30, 31, 3000) / 10,
        "duplicates": lambda: RNG.choice(RNG.standard_normal(50), 3000),
        "float32": lambda: RNG.standard_normal(3000).astype(np.float32),
        "bfloat16-like": lambda: (RNG.standard_normal(20_000).astype(np.float32).view(np.uint32) & 0xFFFF0000).view(
            np.float32
        ),
    }[kind]()
    best = qe.optimal_scale(qe.Empirical(x), grid)
    assert best.status == qe.Status.EXACT
    f = mse_at(qe.Empirical(x), qe.grid(grid), 0.0)
    s = best.scale * np.concatenate([np.geomspace(0.1, 10, 1500), 1 + np.linspace(-1e-3, 1e-3, 500)])
    assert best.error.mse <= f(s).min() * (1 + MSE_TOLERANCE)
    for minimum in best.minima:
        assert minimum.mse <= 1.01 * best.error.mse * (1 + MSE_TOLERANCE)
        assert f(np.array([minimum.scale]))[0] == pytest.approx(minimum.mse, rel=MSE_TOLERANCE)
        beside = f(minimum.scale * (1 + np.array([-1e-9, 1e-9])))
        assert (beside >= minimum.mse * (1 - MSE_TOLERANCE)).all()


def test_real_tensors(real_data: Any) -> None:
    """Every row of real weights is proven, and no line search over fractions of its maximum does better."""
    from qerror.files import list_tensors, read_tensor

    path = real_data / "stories260k_bf16.safetensors"
    name = next(t.name for t in list_tensors(path) if len(t.shape) == 2)
    w = np.asarray(read_tensor(path, name))[:64]
    for grid in ("int4", "e2m1"):
        best = qe.optimal_scale(qe.Empirical(w, axis=0), grid)
        assert (best.status == qe.Status.EXACT).all()
        tops = np.abs(w).max(axis=1).astype(np.float64)
        for share in np.linspace(0.3, 1.2, 91):
            tried = qe.quantization_error(qe.Empirical(w, axis=0), grid, share * tops / qe.grid(grid).absmax).mse
            assert (best.error.mse <= tried * (1 + MSE_TOLERANCE)).all()


@pytest.mark.parametrize("mean", [-2.5, -3, -3.5, -4, -5])
@pytest.mark.parametrize("grid", ["uint4", "uint8"])
def test_small_gains(mean: float, grid: str) -> None:
    """Most of the mass out of a one-sided grid's reach: the best scale gains 1e-2 to 1e-10 of the power."""
    density = qe.Gaussian(mean)
    scales = np.geomspace(1e-5, 10, 20001)
    best = qe.optimal_scale(density, grid)
    # The difference of two errors of size 1 + mean^2 is known to their rounding.
    assert best.error.mse <= qe.quantization_error(density, grid, scales).mse.min() * (1 + 1e-12) + 2e-14


@pytest.mark.parametrize("mean", [-3, -4, -5, -6])
def test_the_best_scale_of_a_small_gain(mean: float) -> None:
    """Levels 0 and 1: the best scale is the mean of what lies beyond half of it, E[x; x > s/2] (mpmath)."""
    with mpmath.workdps(30):
        expected = mpmath.findroot(
            lambda s: mpmath.npdf(s / 2 - mean) / (mpmath.erfc((s / 2 - mean) / mpmath.sqrt(2)) / 2) + mean - s, 0.4
        )
    best = qe.optimal_scale(qe.Gaussian(mean), qe.Grid([0.0, 1.0]))
    assert best.scale == pytest.approx(float(expected), rel=SCALE_TOLERANCE)


@pytest.mark.parametrize("share", [0.01, 0.02, 0.05])
def test_few_large_values_decide_on_the_scale(share: float) -> None:
    """A core that goes to 0, and a share uniform in [1, 2], whose best scale is its mean: far beyond the rms of all."""
    density = qe.Mixture([qe.Uniform(1.5, 12**-0.5), qe.Gaussian(0, 0.01)], [share, 1 - share])
    best = qe.optimal_scale(density, qe.Grid([0.0, 1.0]))
    assert best.scale == pytest.approx(1.5, rel=SCALE_TOLERANCE)
    assert best.error.mse == pytest.approx(share / 12 + (1 - share) * 1e-4, rel=MSE_TOLERANCE)
    assert best.status == qe.Status.EXACT


@pytest.mark.parametrize("model", ["exact", "high_resolution"])
def test_a_small_gain_without_a_level_at_zero(model: str) -> None:
    density, grid = qe.Laplace(-0.97, 0.6), qe.Grid([0.0769, 1, 2, 3.9])
    scales = np.geomspace(1e-5, 10, 20001)
    best = qe.optimal_scale(density, grid, model=model)
    assert best.error.mse <= qe.quantization_error(density, grid, scales, model=model).mse.min() * (1 + 1e-9)


def test_a_free_shift_is_never_worse_than_none() -> None:
    density = qe.Rectified(qe.Gaussian())
    free, fixed = qe.optimal_scale(density, "uint4", shift="optimal"), qe.optimal_scale(density, "uint4")
    assert free.error.mse <= fixed.error.mse * (1 + 1e-12)


@pytest.mark.parametrize("levels", [[0, 1.0], [0, 0.175730221093, 0.182104863291]])
def test_interval_of_a_one_sided_grid(levels: list[float]) -> None:
    """Everywhere in the interval the error is within 1 % of the best, down to a lower end of 0."""
    density, grid = qe.Gaussian(-1), qe.Grid(levels)
    best = qe.optimal_scale(density, grid)
    low, high = best.interval_1pct
    scales = np.geomspace(max(low, 1e-6), high, 1001)
    assert qe.quantization_error(density, grid, scales).mse.max() <= 1.01 * best.error.mse * (1 + 1e-8)


SEARCHED = {
    "a pdf": lambda: qe.from_pdf(lambda x: np.exp(-x * x / 2) / np.sqrt(2 * np.pi), (-np.inf, np.inf)),
    "scipy's t": lambda: qe.from_scipy(stats.t(5)),
    "scipy's gennorm": lambda: qe.from_scipy(stats.gennorm(2.5)),
    "scipy's gamma": lambda: qe.from_scipy(stats.gamma(2.2)),
    "generalized Gaussian": lambda: qe.GeneralizedGaussian(1.5),
    "blocks": lambda: qe.BlockScaled(qe.StudentT(5), "nvfp4"),
    "blocks of integers": lambda: qe.BlockScaled(qe.Gaussian(mean=0.3), "int4_g128"),
    "rectified": lambda: qe.Rectified(qe.Gaussian(mean=0.2)),
}


@pytest.mark.parametrize("name", SEARCHED)
def test_what_a_search_sees_is_within_its_noise(name: str) -> None:
    """MSE = A - 2 s B + s^2 C from tails, which proofs rest on, against the sum of moments about the levels."""
    density = SEARCHED[name]()
    for grid in map(qe.grid, ("int2", "int4", "e2m1", "nf4")):
        scale = np.geomspace(0.05, 9, 60) * float(density.std) / grid.absmax
        objective = Objective(density, grid, np.zeros(1), "nearest", "exact")
        seen = objective(np.zeros(scale.size, np.intp), scale).mse
        assert (np.abs(seen - qe.quantization_error(density, grid, scale).mse) <= objective.noise).all()
