"""Optimal scales of samples against exact enumeration of every piece of the error (tests/reference/brute_force.py)."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror.samples.rows import Rows
from qerror.search.samples import interval
from qerror.search.samples.cells import Cells
from qerror.search.samples.lattice import undecided
from qerror.search.samples.rounding import Rounding

# Relative, on the MSE at the returned scale and at the true one.
MSE_TOLERANCE = 1e-12
# Float64 rounds the values z + s l by this part of the largest |x|: felt where the error is a millionth of the data.
VALUE_ROUNDING = 2 * np.finfo(np.float64).eps


def load(name: str) -> Any:
    """A script of tests/reference as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "reference" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


brute_force = load("brute_force")


def allowed(mse: float, x: np.ndarray) -> float:
    rounding = VALUE_ROUNDING * float(np.abs(x).max())
    return MSE_TOLERANCE * mse + rounding * np.sqrt(mse) + rounding**2


def check(best: Any, x: np.ndarray, grid: qe.Grid, weights: np.ndarray | None, row: int | None = None) -> None:
    """One row of a result is the enumerated optimum, and says that it is."""
    scale, shift, mse, status = (
        np.asarray(v)[() if row is None else row] for v in (best.scale, best.shift, best.error.mse, best.status)
    )
    counted = x if weights is None else x[weights > 0]
    # A mean of equal values may be off by its rounding: then there may be nothing left to scale.
    constant = np.abs(counted - shift).max() <= VALUE_ROUNDING * np.abs(counted).max()
    if constant and status in {qe.Status.DEGENERATE, qe.Status.DEGENERATE_NONE}:
        return
    try:
        expected = brute_force.best_scale(x, grid.levels, float(shift), weights)
    except ValueError:
        assert status in {qe.Status.DEGENERATE, qe.Status.DEGENERATE_NONE}
        return
    assert status == qe.Status.EXACT
    here = brute_force.direct_mse(x, grid.levels, float(scale), float(shift), weights)
    # The scale is optimal, and the error said to be there is there.
    assert here <= expected.mse + allowed(expected.mse, x)
    assert abs(mse - expected.mse) <= allowed(expected.mse, x)
    minima = best.minima if row is None else best.minima[row]
    true = np.array([at for at, _ in expected.minima])
    for minimum in minima:
        value = brute_force.direct_mse(x, grid.levels, minimum.scale, float(shift), weights)
        assert abs(minimum.mse - value) <= allowed(value, x)
        assert minimum.mse <= 1.01 * mse + allowed(mse, x)
        # Near enough to a true one that its parabola has not risen.
        assert np.abs(true / minimum.scale - 1).min() < 1e-6


RNG = np.random.default_rng(20250107)
NORMAL = RNG.standard_normal(300)
HEAVY = RNG.standard_t(1.5, 200)
OUTLIER = np.append(RNG.standard_normal(60), 1e4)
FIXED: dict[str, tuple[np.ndarray, str, Any, np.ndarray | None]] = {
    "normal-int4": (NORMAL, "int4", 0.0, None),
    "normal-e2m1": (NORMAL, "e2m1", 0.0, None),
    "normal-e2m3": (NORMAL[:150], "e2m3", 0.0, None),
    "normal-e3m2": (NORMAL[:150], "e3m2", "mean", None),
    "normal-nf4-shifted": (NORMAL[:120], "nf4", 0.3, None),
    "normal-midrise": (NORMAL[:120], "int4_midrise", 0.0, None),
    "normal-midrise-mean": (NORMAL[:100] + 5, "int4_midrise", "mean", None),
    "normal-ternary": (NORMAL, "ternary", 0.0, None),
    "normal-binary": (NORMAL, "binary", 0.0, None),
    "one-sided": (np.abs(NORMAL[:100]), "uint4", 0.0, None),
    "one-sided-both-signs": (NORMAL[:50], "uint4", 0.0, None),
    "heavy-int4": (HEAVY, "int4", 0.0, None),
    "heavy-e3m0": (HEAVY, "e3m0", 0.0, None),
    "one-outlier": (OUTLIER, "int4", 0.0, None),
    "one-outlier-float": (OUTLIER, "e2m1", 0.0, None),
    "lattice": (RNG.integers(-20, 21, 120) * 0.25, "int4", 0.0, None),
    "lattice-on-the-grid": (RNG.integers(-8, 8, 80) * 0.125, "int4", 0.0, None),
    "lattice-of-thirds": (RNG.integers(-9, 10, 80) / 3, "e2m1", 0.0, None),
    "lattice-ties": (RNG.integers(-6, 7, 90) + 0.5, "int3", 0.0, None),
    "two-points": (np.array([1.0, -2.5]), "int3", 0.0, None),
    "two-points-repeated": (np.repeat([0.7, -0.3], [30, 11]), "e2m1", 0.0, None),
    "two-points-far-apart": (np.array([1e-9, 1.0]), "int4", 0.0, None),
    "one-point": (np.array([3.7]), "int4", 0.0, None),
    "one-point-negative": (np.array([-3.7]), "int2", 0.0, None),
    "one-sided-reached-by-one": (np.array([-5.0, 1.0, -0.2]), "uint4", 0.0, None),
    "duplicates": (np.repeat(NORMAL[:20], 9), "int4", 0.0, None),
    "zeros-among": (np.where(RNG.random(90) < 0.5, 0.0, NORMAL[:90]), "e3m0", 0.0, None),
    "constant-mean": (np.full(9, 2.5), "int4_midrise", "mean", None),
    "weights": (NORMAL[:90], "int4", 0.0, RNG.random(90)),
    "weights-integer": (NORMAL[:90], "e2m1", 0.0, RNG.integers(0, 5, 90).astype(float)),
    "weights-extreme": (NORMAL[:60], "int3", 0.0, 10.0 ** RNG.uniform(-8, 8, 60)),
    "weights-mean": (NORMAL[:60], "nf4", "mean", RNG.random(60)),
    "tiny": (NORMAL[:60] * 2.0**-110, "int4", 0.0, None),
    "huge": (NORMAL[:60] * 2.0**100, "e2m1", 0.0, None),
    "octaves": (2.0 ** np.arange(-20, 21), "e3m0", 0.0, None),
    "octaves-of-e4m3": (np.append(3.0 ** np.arange(-6, 7), -1.0), "e2m3", 0.0, None),
}


@pytest.mark.parametrize("name", FIXED)
def test_fixed_samples(name: str) -> None:
    x, grid, shift, weights = FIXED[name]
    best = qe.optimal_scale(qe.Empirical(x, weights=weights), grid, shift=shift)
    check(best, x, qe.grid(grid), weights)


@pytest.mark.parametrize("grid", ["int4", "e2m1", "int3_midrise", "uint4"])
@pytest.mark.parametrize("shift", [0.0, "mean"])
def test_rows(grid: str, shift: Any) -> None:
    """Rows of all kinds in one call, each the same optimum as alone; weights by row."""
    lattice, tiny = RNG.integers(-5, 6, 40) / 2, 1e-20 * NORMAL[40:80]
    x = np.stack([NORMAL[:40], HEAVY[:40], np.repeat(NORMAL[:4], 10), tiny, lattice])
    weights = RNG.random(x.shape)
    for w in (None, weights):
        best = qe.optimal_scale(qe.Empirical(x, weights=w, axis=0), grid, shift=shift)
        assert np.shape(best.scale) == (len(x),)
        for row in range(len(x)):
            check(best, x[row], qe.grid(grid), None if w is None else w[row], row)


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
def test_axis(axis: int) -> None:
    x = RNG.standard_normal((3, 4, 5))
    best = qe.optimal_scale(qe.Empirical(x, axis=axis), "int3")
    rows = np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1)
    assert np.shape(best.scale) == (len(rows),)
    for row, values in enumerate(rows):
        check(best, values, qe.grid("int3"), None, row)


INTEGER_GRIDS = ["int2", "int3", "int4", "int3_narrow", "int4_narrow", "int2_midrise", "int4_midrise", "uint2", "uint4"]
GRIDS = st.sampled_from([*INTEGER_GRIDS, "binary", "ternary", "e2m1", "e3m0", "nf4"])


@st.composite
def samples(draw: st.DrawFn) -> np.ndarray:
    """Lattices, two points, heavy tails, repeated values, or whatever Hypothesis comes up with."""
    kind = draw(st.sampled_from(["lattice", "two", "heavy", "repeated", "normal", "any"]))
    if kind == "any":
        values = st.floats(-1e6, 1e6, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-6)
        return np.array(draw(st.lists(values, min_size=1, max_size=12)))
    n, seed = draw(st.integers(1, 40)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    step = draw(st.sampled_from([1.0, 0.1, 1 / 3, 2.0**-70, 3e20]))
    return (
        step
        * {
            "lattice": lambda: rng.integers(-12, 13, n).astype(float),
            "two": lambda: rng.choice(rng.standard_normal(2), n),
            "heavy": lambda: rng.standard_cauchy(n),
            "repeated": lambda: rng.choice(rng.standard_normal(5), n),
            "normal": lambda: rng.standard_normal(n) + rng.normal(),
        }[kind]()
    )


SHIFTS = st.sampled_from(["zero", "mean", "own"])
WEIGHTINGS = st.sampled_from([None, "random", "counts"])


@settings(max_examples=150, deadline=None)
@given(samples(), GRIDS, SHIFTS, WEIGHTINGS, st.data())
def test_any_sample(x: np.ndarray, grid: str, where: str, weighting: str | None, data: st.DataObject) -> None:
    shift: Any = 0.0 if where == "zero" else "mean"
    if where == "own":
        shift = data.draw(st.floats(-1, 1)) * float(np.abs(x).max())
    weights = None
    if weighting is not None:
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
        weights = rng.random(x.size) + 1e-3 if weighting == "random" else rng.integers(0, 4, x.size).astype(float)
        weights[0] += 1
    best = qe.optimal_scale(qe.Empirical(x, weights=weights), grid, shift=shift)
    check(best, x, qe.grid(grid), weights)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(-64, 64), min_size=2, max_size=9, unique=True),
    st.integers(0, 2**32 - 1),
)
def test_any_grid(levels: list[int], seed: int) -> None:
    grid = qe.Grid(np.sort(np.array(levels)) / 8)
    x = np.random.default_rng(seed).standard_normal(25)
    check(qe.optimal_scale(qe.Empirical(x), grid), x, grid, None)


@settings(max_examples=100, deadline=None)
@given(samples(), st.one_of(GRIDS, st.sampled_from(["int8", "e4m3fn", "e5m2"])), st.sampled_from([0.0, 0.3, -70.0]))
@example(np.random.default_rng(0).standard_normal(40), "binary", 0.0)
@example(1000 + np.random.default_rng(0).standard_normal(40), "uint4", 0.0)
@example(np.random.default_rng(3).standard_normal(40), "e4m3fn", 0.0)
def test_no_scale_inside_the_interval_loses_more_than_one_percent(x: np.ndarray, grid: str, offset: float) -> None:
    """Between the crossings the error is convex: what no crossing and no end exceeds, nothing inside does."""
    shift = offset * float(np.median(np.abs(x)))
    best = qe.optimal_scale(qe.Empirical(x), grid, shift=shift)
    low, high = best.interval_1pct
    if not best.minima or best.error.mse <= 1e-20 * best.error.power:
        return
    assert low <= best.scale <= high
    levels = qe.grid(grid).levels
    thresholds = (levels[1:] + levels[:-1]) / 2
    kinks = np.divide.outer(x - shift, thresholds[thresholds != 0]).ravel()
    ends = [end for end in (low, high) if 0 < end < math.inf]
    kinks = kinks[(kinks > max(low, 1e-6 * best.scale)) & (kinks < min(high, 1e6 * best.scale))]
    mse = np.array([least_distance(x - shift, levels, s) for s in [*kinks[:: 1 + kinks.size // 4000], *ends]])
    # Sums of the search are right to some units of float64 of the power about the shift.
    slack = 64 * np.finfo(float).eps * float(np.mean((x - shift) ** 2)) + allowed(best.error.mse, np.append(x, shift))
    assert mse.max(initial=0.0) <= 1.01 * best.error.mse + slack
    if high > low:
        np.testing.assert_allclose(mse[mse.size - len(ends) :], 1.01 * best.error.mse, rtol=1e-8, atol=slack)
    # Where the interval does not end, the error does not rise.
    far = least_distance(x - shift, levels, 1e9 * best.scale) if high == math.inf else 0.0
    assert far <= 1.01 * best.error.mse + slack


@pytest.mark.parametrize(("grid", "row"), [("e2m1", 147), ("e3m0", 102), ("nf4", 195), ("int3", 172)])
def test_minima_that_differ_by_a_ten_thousandth(grid: str, row: int) -> None:
    """Rows of many whose best minimum is met last: a search that prunes what is 0.1 % worse loses it."""
    x = np.random.default_rng(5).standard_t(5, (300, 300))
    best = qe.fit(x, grid, axis=0)
    expected = brute_force.best_scale(x[row], qe.grid(grid).levels).mse
    assert best.error.mse[row, 0] == pytest.approx(expected, rel=MSE_TOLERANCE)


def test_a_gain_of_a_thousandth_is_the_best_of_all() -> None:
    """Half of the values are out of reach and leave nearly all of the power: no scale differs by 0.1 % from another."""
    x = np.append(np.full(100, -1.0), 2.0**-5 * np.abs(np.random.default_rng(1).standard_t(3, 100)))
    expected = brute_force.best_scale(x, qe.grid("uint4").levels)
    assert expected.mse > 0.99 * np.mean(x**2)
    best = qe.fit(x, "uint4")
    assert best.scale == pytest.approx(expected.scale, rel=1e-12)
    assert best.status == qe.Status.EXACT


def test_the_best_scale_of_three_levels_is_a_third_of_the_largest() -> None:
    """Uniform data: scale 2/3, a third of the largest at which any value leaves 0."""
    x = np.arange(-750, 751) / 750
    expected = brute_force.best_scale(x, qe.grid("ternary").levels)
    assert expected.scale == pytest.approx(2 / 3, rel=2e-3)
    best = qe.optimal_scale(qe.Empirical(x), "ternary")
    assert (best.scale, best.error.mse) == pytest.approx((expected.scale, expected.mse), rel=1e-12)
    assert best.status == qe.Status.EXACT


@pytest.mark.parametrize(("grid", "n"), [("int4", 1200), ("e3m0", 300), ("nf4", 300)])
def test_all_minima_within_one_percent_are_listed(grid: str, n: int) -> None:
    """Of rows too long for a look at every piece: those of the enumeration."""
    x = np.random.default_rng(7).integers(-3000, 3001, n) / 1000
    found = qe.optimal_scale(qe.Empirical(x), grid).minima
    expected = brute_force.best_scale(x, qe.grid(grid).levels).minima
    expected = [minimum for minimum in expected if minimum[1] <= 1.01 * expected[0][1]]
    assert len(expected) > 1
    np.testing.assert_allclose([(m.scale, m.mse) for m in found], expected, rtol=MSE_TOLERANCE)


@pytest.mark.parametrize(
    ("outlier", "weight", "n"),
    [
        *((outlier, 1e-11, n) for outlier in (1e7, 1e9, 1e12, 1e16) for n in (40, 3000)),
        # Sums of weights are off by what costs more than all other values; no gain is seen at all.
        *((4e10, 4.2e-13, 3000), (3e11, 1.5e-13, 3000)),
    ],
)
def test_what_float64_cannot_resolve_is_not_proven(outlier: float, weight: float, n: int) -> None:
    """A value far out with hardly any weight: sums of weights know it to an ulp of them all, the error needs more."""
    x = 3 * np.random.default_rng(0).standard_normal(n)
    weights = np.ones(n)
    x[5], weights[5] = outlier, weight
    for grid in ("int4", "ternary"):
        scale = qe.fit(x, grid, weights=weights).scale
        exact = outlier / np.arange(1, 1 + qe.grid(grid).max)
        here, *others = (np.sum(weights * (qe.fake_quantize(x, grid, s) - x) ** 2) for s in (scale, *exact))
        assert here <= min(others) * (1 + 1e-9)
    best = qe.optimal_scale(qe.Empirical(x, weights), "e2m3")
    assert best.status == qe.Status.SCANNED
    # What it finds is no worse for that than the scales that represent the outlier exactly.
    levels = qe.grid("e2m3").levels
    here, *exact = (
        np.sum(weights * (qe.fake_quantize(x, "e2m3", s) - x) ** 2) for s in (best.scale, *outlier / levels[levels > 0])
    )
    assert here <= min(exact) * (1 + 1e-9)
    weights[5] = 0.37
    x[5] = 30.0
    assert qe.optimal_scale(qe.Empirical(x, weights), "e2m3").status == qe.Status.EXACT


@pytest.mark.parametrize("budget", [interval._BUDGET, 0])
def test_the_interval_of_two_points(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """MSE = 1 - (2 s - s^2) / 50 up to scale 2: 1.01 times the least, 0.98, at 1 - 0.7 and 1 + 0.7; also by ladder."""
    monkeypatch.setattr(interval, "_BUDGET", budget)
    best = qe.optimal_scale(qe.Empirical(np.append(1.0, np.full(49, -1.0))), qe.Grid([0.0, 1.0]))
    assert best.scale == 1.0
    assert best.interval_1pct == pytest.approx((0.3, 1.7), rel=1e-8)


def least_distance(y: np.ndarray, levels: np.ndarray, scale: float) -> float:
    """Mean square distance of each value to the nearest of all levels."""
    values = scale * levels
    above = np.clip(np.searchsorted(values, y), 1, levels.size - 1)
    return float((np.minimum(np.abs(y - values[above - 1]), np.abs(y - values[above])) ** 2).mean())


@settings(max_examples=60, deadline=None)
@given(samples(), GRIDS, st.floats(-4, 2), st.floats(-1, 1))
def test_error_is_that_of_the_quantized_sample(x: np.ndarray, grid: str, octave: float, offset: float) -> None:
    size = float(np.abs(x).max()) or 1.0
    scale, shift = size * 2.0**octave / qe.grid(grid).absmax, offset * size
    error = qe.quantization_error(qe.Empirical(x), grid, scale, shift)
    expected = brute_force.direct_mse(x, qe.grid(grid).levels, scale, shift)
    ends = max(size, abs(shift) + scale * qe.grid(grid).absmax)
    assert abs(error.mse - expected) <= allowed(expected, np.array([ends]))


@settings(max_examples=120, deadline=None)
@given(
    st.lists(st.integers(-40, 40), min_size=1, max_size=9),
    st.sampled_from([1.0, 0.1, 1 / 3, 1e-20, 3e7]),
    st.sampled_from(["int2", "uint2", "int3", "int4", "uint4", "int2_narrow"]),
    st.sampled_from(["storable", "integer", "either sign", "positive"]),
    st.sampled_from([np.float64, np.float32]),
    st.sampled_from(["random", "counts", None]),
    st.integers(0, 2**32 - 1),
)
def test_any_fit(
    steps: list[int], unit: float, grid: str, kind: str, dtype: type, weighting: str | None, seed: int
) -> None:
    """Scales of either sign and pairs with a zero point, against enumeration over all signs and zero points."""
    rng = np.random.default_rng(seed)
    x = (unit * np.array(steps) + (0 if seed % 2 else unit * rng.standard_normal(len(steps)))).astype(dtype)
    weights = {None: None, "random": rng.random(x.size) + 0.1, "counts": rng.integers(1, 5, x.size).astype(float)}[
        weighting
    ]
    levels, options = qe.grid(grid).levels, {}
    if kind in ("storable", "integer"):
        options = {"zero_point": kind}
        reach = 0 if kind == "storable" else 40
        tried = [levels - p for p in range(int(levels[0]) - reach, int(levels[-1]) + reach + 1)]
    else:
        options = {"sign": "either" if kind == "either sign" else "positive"}
        tried = [levels, -levels[::-1]][: 1 + (kind == "either sign")]
    result = qe.fit(x, grid, weights=weights, **options)
    values = x.astype(float)
    # Where no scale gains anything, all of the power is left.
    left = 1.0 if weights is None else weights
    least = float(np.sum(left * values**2) / np.sum(left * np.ones_like(values)))
    for some in tried:
        with contextlib.suppress(ValueError):
            least = min(least, brute_force.best_scale(values, some, 0.0, weights).mse)
    slack = allowed(least, np.array([np.abs(values).max() + float(np.abs(result.shift))]))
    assert result.total.mse <= least + slack
    if result.status == qe.Status.EXACT:
        assert result.total.mse >= least - slack or kind == "integer"
    if kind == "storable":
        assert levels[0] <= result.zero_point <= levels[-1]


def test_the_enumeration_against_a_dense_scan() -> None:
    """The oracle itself: no scale of a dense scan is better, and its minima are those that the scan sees."""
    x = NORMAL[:15]
    levels = qe.grid("e2m1").levels
    best = brute_force.best_scale(x, levels)
    scales = best.scale * np.exp(np.arange(-3, 3, 2e-4))
    values = scales[:, None, None] * levels
    mse = (np.abs(x[:, None] - values).min(axis=2) ** 2).mean(axis=1)
    assert mse.min() >= best.mse * (1 - MSE_TOLERANCE)
    inside = np.flatnonzero((mse[1:-1] < mse[:-2]) & (mse[1:-1] <= mse[2:])) + 1
    seen = [at for at, _ in best.minima if scales[0] < at < scales[-1]]
    assert len(inside) == len(seen)
    np.testing.assert_allclose(np.sort(seen), scales[inside], rtol=2e-4)


def test_a_scale_beside_the_optimum_is_noticed() -> None:
    x, grid = NORMAL[:50], qe.grid("int4")
    expected = brute_force.best_scale(x, grid.levels)
    beside = brute_force.direct_mse(x, grid.levels, expected.scale * (1 + 1e-5))
    assert beside > expected.mse + allowed(expected.mse, x)


# -- what the searches rest on ---------------------------------------------------------------------------------------

DOUBLING = {
    "int2",
    "int4",
    "int4_narrow",
    "uint4",
    "int8",
    "ternary",
    "binary",
    "e2m1",
    "e3m0",
    "e4m3fn",
    "e5m2",
    "apot4",
}
NOT_DOUBLING = {"int4_midrise", "nf4"}


@pytest.mark.parametrize("name", sorted(DOUBLING | NOT_DOUBLING))
def test_which_grids_hold_their_doubles(name: str) -> None:
    assert qe.grid(name).holds_doubles == (name in DOUBLING)


@given(st.sampled_from(sorted(DOUBLING)), st.floats(0.6, 3.0), st.integers(0, 2**32))
def test_twice_a_scale_that_clips_nothing_is_no_better(name: str, part: float, seed: int) -> None:
    grid = qe.grid(name)
    x = np.random.default_rng(seed).standard_normal(9)
    x = np.abs(x) if grid.min == 0 else x
    sides = [x.max() / grid.max] + ([x.min() / grid.min] if grid.min < 0 else [])
    scale = max(1.0, part) * max(sides)
    errors = [brute_force.direct_mse(x, grid.levels, s) for s in (scale, 2 * scale)]
    assert errors[1] >= errors[0] * (1 - 1e-13)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", ["int8", "uint8", "int5_midrise", "e4m3fn", "e5m2", "e2m3"])
def test_rounding_every_value_and_looking_thresholds_up_agree(name: str, weighted: bool) -> None:
    """B and C by either route: far within the noise that the search allows for."""
    rng = np.random.default_rng(3)
    values = np.sort(rng.standard_t(3, (5, 700)), axis=1)
    weights = rng.uniform(0.5, 2, values.shape) if weighted else None
    rows, grid, shift = Rows(values, weights, np.full(5, 700)), qe.grid(name), rng.normal(0, 0.1, 5)
    row, scale = np.arange(40) % 5, np.geomspace(0.3, 8, 40) / grid.absmax
    cells = Cells(rows, grid, shift)
    b, c = Rounding(rows, grid, shift).sums(row, scale)
    expected_b, expected_c, _ = cells._from_thresholds(row, scale)
    power = cells.power[row]
    np.testing.assert_allclose(scale * b, scale * expected_b, rtol=0, atol=1e-14 * power.max())
    np.testing.assert_allclose(scale**2 * c, scale**2 * expected_c, rtol=1e-14)


@given(
    st.lists(st.integers(-40, 40), min_size=2, max_size=9),
    st.sampled_from(["uint2", "int3", "int4", "uint4"]),
    st.floats(1.0, 1.5),
)
def test_no_code_that_is_the_best_zero_point_is_ruled_out(values: list[int], name: str, over: float) -> None:
    """Against the exact optimum at every zero point; `over` is how far above the best the known error lies."""
    grid, x = qe.grid(name), np.sort(np.array(values, np.float64))
    if not x.any():
        return
    best = {}
    for p in range(int(grid.min), int(grid.max) + 1):
        with contextlib.suppress(ValueError):
            best[p] = brute_force.best_scale(x, grid.levels - p).mse
    least = min(best.values())
    left = undecided(Rows(x[None], None, np.array([x.size])), grid, np.array([over * least + 1e-9]))[0]
    assert any(left[p - int(grid.min)] for p, mse in best.items() if mse <= least * (1 + MSE_TOLERANCE) + 1e-13)
