"""Samples: every term equals that of the directly quantized values, whatever the type, the size and the weights."""

from __future__ import annotations

import dataclasses
import itertools
import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qerror as qe
from qerror.errors import on_samples as sample_error
from qerror.samples import double_double as dd
from qerror.samples import rows
from qerror.samples.bins import Bins
from qerror.search.samples.cells import Cells

# Promised against math.fsum over the quantized sample, relative; at int16 for a million values.
DIRECT_TOLERANCE = 1e-12
FINE_TOLERANCE = 1e-9
# Sums in pairs of 4100 rounded squares.
SQUARES_TOLERANCE = 4e-15
# Bias, mean and cross are sums of terms of both signs: of the root mean square, of the power.
SIGNED_TOLERANCE = 1e-12
RNG = np.random.default_rng(20250212)


def direct(x: Any, grid: qe.Grid, scale: float, shift: float = 0.0, weights: Any = None) -> qe.ErrorTerms:
    """All terms of the directly quantized sample, by fsum."""
    w = np.ones(np.size(x)) if weights is None else np.ravel(weights)
    x = np.asarray(x).astype(np.float64).ravel()
    level = qe.dequantize(qe.quantize(x, grid, scale, shift), grid, dtype=np.float64)
    total = math.fsum(w)
    outside = (x < shift + scale * grid.min) | (x > shift + scale * grid.max)

    def mean(values: np.ndarray) -> float:
        return math.fsum(w * values) / total

    # Where values lie very near their levels, the rounding of shift + scale * level would show in their distance.
    long = np.longdouble
    e = (long(shift) + (scale * level).astype(long) - x.astype(long)).astype(np.float64)
    square = e * e
    clipping, rounding = np.where(outside, square, 0.0), np.where(outside, 0.0, square)
    return qe.ErrorTerms(mean(clipping), mean(rounding), mean(e), mean(x * e), mean(x * x), mean(x))


def assert_equal(found: qe.ErrorTerms, expected: qe.ErrorTerms, tolerance: float = DIRECT_TOLERANCE) -> None:
    root = math.sqrt(expected.power)
    for field in ("clipping", "rounding", "power"):
        value = getattr(expected, field)
        assert abs(getattr(found, field) - value) <= tolerance * value, field
    assert abs(found.bias - expected.bias) <= SIGNED_TOLERANCE * root
    assert abs(found.mean - expected.mean) <= SIGNED_TOLERANCE * root
    assert abs(found.cross - expected.cross) <= SIGNED_TOLERANCE * expected.power


DTYPES = [np.float16, np.float32, np.float64, ml_dtypes.bfloat16]
GRIDS = ["int4", "uint4", "int4_midrise", "e2m1", "e4m3fn", "nf4", "int8"]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
@pytest.mark.parametrize("size", [257, 40_000])
def test_every_type(size: int, dtype: Any, grid: str) -> None:
    """Sorted (the smaller ones) and counted by bit pattern (40 000 values of 16 bits)."""
    x = (RNG.standard_normal(size) * 1.3 + 0.1).astype(dtype)
    levels = qe.grid(grid)
    for clip, shift in ((1.7, 0.0), (3.3, 0.21)):
        scale = clip / levels.absmax
        found = qe.quantization_error(qe.Empirical(x), levels, scale, shift)
        assert_equal(found, direct(x, levels, scale, shift))


def test_a_shift_of_one_percent_is_noticed() -> None:
    x = RNG.standard_normal(500)
    found = qe.quantization_error(qe.Empirical(x), "int4", 0.3 * 1.01)
    with pytest.raises(AssertionError):
        assert_equal(found, direct(x, qe.grid("int4"), 0.3))


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int64, bool, ">f4", ">f8"])
def test_other_types(dtype: Any) -> None:
    x = RNG.integers(0, 2 if dtype is bool else 100, 60).astype(dtype)
    assert_equal(qe.quantization_error(qe.Empirical(x), "int4", 1.5), direct(x, qe.grid("int4"), 1.5))


@pytest.mark.parametrize(("dtype", "weighted"), [(np.float32, False), (np.float64, True)], ids=["plain", "weighted"])
@pytest.mark.parametrize("size", [1_000_000, 1_100_000])
def test_a_million(size: int, dtype: Any, weighted: bool) -> None:
    """Below and above the size from which values are summed in blocks."""
    x = RNG.standard_normal(size).astype(dtype)
    weights = RNG.random(size) if weighted else None
    density = qe.Empirical(x, weights=weights)
    assert density._sums.rows.block == (1 if size <= rows._SMALL else rows.RUN)
    for grid, tolerance in (("int8", DIRECT_TOLERANCE), ("int16", FINE_TOLERANCE)):
        levels = qe.grid(grid)
        scale = 4.5 / levels.absmax
        expected = direct(x, levels, scale, 0.01, weights)
        assert_equal(qe.quantization_error(density, levels, scale, 0.01), expected, tolerance)


@pytest.mark.parametrize("block", [1, rows.RUN])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("few", [0, 8])
def test_blocks(monkeypatch: pytest.MonkeyPatch, block: int, weighted: bool, few: int) -> None:
    """Small rows by sums and value by value: ends of rows and blocks, cells inside one block, empty cells."""
    monkeypatch.setattr(sample_error, "_FEW", few)
    monkeypatch.setattr(rows, "_SMALL", 1 << 20 if block == 1 else 0)
    for size in (1, 2, block - 1 or 3, block, block + 1, 2 * block - 1, 2 * block, 1000):
        x = RNG.standard_normal(size)
        weights = RNG.random(size) + 0.01 if weighted else None
        density = qe.Empirical(x, weights=weights)
        assert density._sums.rows.block == block
        for grid in ("int2", "int8", "e3m0"):
            levels = qe.grid(grid)
            for clip in (0.01, 1.0, 100.0):
                scale = clip / levels.absmax
                expected = direct(x, levels, scale, 0.05, weights)
                assert_equal(qe.quantization_error(density, levels, scale, 0.05), expected)


@pytest.mark.parametrize("block", [1, rows.RUN])
@pytest.mark.parametrize("axis", [0, 1, 2, -1, (0, 2), (2, 0), (0, 1, 2)])
def test_rows(monkeypatch: pytest.MonkeyPatch, axis: Any, block: int) -> None:
    """Axes that keep a distribution of their own, in the order given; weights go along."""
    monkeypatch.setattr(rows, "_SMALL", 1 << 20 if block == 1 else 0)
    x, weights = RNG.standard_normal((3, 4, 5)), RNG.random((3, 4, 5))
    kept = tuple(a % 3 for a in np.atleast_1d(axis))
    for w in (None, weights):
        density = qe.Empirical(x, weights=w, axis=axis)
        assert density.shape == tuple(x.shape[a] for a in kept)
        found = qe.quantization_error(density, "int3", 0.4, 0.1)
        for index in np.ndindex(density.shape):
            place = [slice(None)] * 3
            for a, i in zip(kept, index, strict=True):
                place[a] = i
            one = qe.ErrorTerms(*(getattr(found, f.name)[index] for f in dataclasses.fields(found)))
            part = tuple(place)
            assert_equal(one, direct(x[part], qe.grid("int3"), 0.4, 0.1, None if w is None else w[part]))


def test_weights_broadcast_and_count() -> None:
    """Integer weights are repetitions; weights for one axis broadcast."""
    x, times = RNG.standard_normal(50), RNG.integers(0, 4, 50)
    weighted = qe.quantization_error(qe.Empirical(x, weights=times), "int4", 0.3, 0.1)
    assert_equal(weighted, direct(np.repeat(x, times), qe.grid("int4"), 0.3, 0.1))
    table, column = RNG.standard_normal((6, 4)), RNG.random(4)
    assert_equal(
        qe.quantization_error(qe.Empirical(table, weights=column), "int4", 0.3),
        direct(table, qe.grid("int4"), 0.3, 0.0, np.broadcast_to(column, table.shape)),
    )


# -- ties ------------------------------------------------------------------------------------------------------------

TIE_GRIDS = ["int4", "int4_narrow", "uint4", "int4_midrise", "e2m1", "e3m0", "e4m3fn", "ternary", "binary", "pot4"]


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("grid", TIE_GRIDS)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.5, 0.0), (2.0**-20, 0.0), (0.25, 3.0), (4.0, -0.5)])
def test_ties_go_where_casting_sends_them(grid: str, scale: float, shift: float, axis: int | None) -> None:
    """Values exactly on thresholds and levels: the same codes, hence the same bias, in every row."""
    levels = qe.grid(grid)
    x = shift + scale * np.concatenate([levels.thresholds, levels.levels, RNG.choice(levels.thresholds, 40)])
    codes = qe.dequantize(qe.quantize(x, levels, scale, shift), levels, dtype=np.float64)
    counts = np.array([np.count_nonzero(codes == level) for level in levels.levels])
    density = qe.Empirical(x if axis is None else np.stack([x, x]), axis=axis)
    p = qe.code_probabilities(density, levels, scale, shift)
    np.testing.assert_allclose(p * x.size, np.broadcast_to(counts, p.shape), rtol=0, atol=1e-9)
    found = qe.quantization_error(density, levels, scale, shift)
    bias = math.fsum(shift + scale * codes - x) / x.size
    np.testing.assert_allclose(found.bias, bias, rtol=0, atol=SIGNED_TOLERANCE * np.abs(x).max())


def test_a_tie_the_wrong_way_is_seen_in_the_bias() -> None:
    """0.5, 1.5 and 2.5 go to 0, 2 and 2; always up or always down would have a bias of 1/2."""
    assert qe.quantization_error(qe.Empirical([0.5, 1.5, 2.5]), "int4", 1.0).bias == pytest.approx(-0.5 / 3, abs=1e-15)


def test_ties_of_an_atom() -> None:
    """The point mass of a rectified density, on a threshold of the shifted grid, goes to the even code as well."""
    relu = qe.Rectified(qe.Gaussian())
    for shift, level in ((-0.5, 0), (-1.5, 2), (0.5, 0)):
        p = qe.code_probabilities(relu, "int4", 1.0, shift)
        assert p[8 + level] >= 0.5


# -- stochastic rounding ---------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from(["int3", "int8", "e2m1", "nf4", "uint4"]), st.floats(-1, 1))
def test_stochastic_rounding_of_samples(seed: int, grid: str, shift: float) -> None:
    """E[loss] = (x - a)(b - x) between neighbours a and b, as it is written."""
    rng = np.random.default_rng(seed)
    x, levels = rng.standard_normal(60) * 2, qe.grid(grid)
    scale = 2.0 / levels.absmax
    values = shift + scale * levels.levels
    inside = (x >= values[0]) & (x <= values[-1])
    k = np.clip(np.searchsorted(values, x, side="right") - 1, 0, values.size - 2)
    a, b = values[k], values[k + 1]
    loss = np.where(inside, (x - a) * (b - x), (x - np.clip(x, values[0], values[-1])) ** 2)
    drift = np.where(inside, 0.0, np.clip(x, values[0], values[-1]) - x)
    found = qe.quantization_error(qe.Empirical(x), levels, scale, shift, rounding="stochastic")
    expected = qe.ErrorTerms(
        math.fsum(loss[~inside]) / 60, math.fsum(loss[inside]) / 60, math.fsum(drift) / 60,
        math.fsum(x * drift) / 60, math.fsum(x * x) / 60, math.fsum(x) / 60,
    )  # fmt: skip
    assert_equal(found, expected)
    up = np.where(inside, (x - a) / (b - a), x > values[-1])
    p = np.bincount(k, 1 - up, values.size) + np.bincount(k + 1, up, values.size)
    given_p = qe.code_probabilities(qe.Empirical(x), levels, scale, shift, rounding="stochastic")
    np.testing.assert_allclose(given_p, p / 60, rtol=0, atol=1e-14)


# -- the sample as a density -----------------------------------------------------------------------------------------


@given(st.lists(st.integers(-20, 20), min_size=1, max_size=30), st.booleans())
def test_distribution(values: list[int], weighted: bool) -> None:
    """cdf, sf and quantile count; moments are those of the values in lower < x <= upper."""
    x = np.array(values) / 4
    w = np.arange(1.0, x.size + 1) if weighted else np.ones(x.size)
    density = qe.Empirical(x, weights=w if weighted else None)
    at = np.unique(np.concatenate([x, x + 0.125, [-100.0]]))
    cdf = np.array([w[x <= t].sum() for t in at]) / w.sum()
    np.testing.assert_allclose(density.cdf(at), cdf, rtol=0, atol=1e-15)
    np.testing.assert_allclose(density.sf(at), 1 - cdf, rtol=0, atol=1e-15)
    for p in (0.01, 0.25, 0.5, 0.75, 0.99, 1.0):
        smallest = min(t for t in x if w[x <= t].sum() >= p * w.sum() * (1 - 1e-14))
        assert density.quantile(p) == smallest
    low, high = np.sort(RNG.choice(at, 2))
    inside = (x > low) & (x <= high)
    for j, moment in enumerate(density.moments(low, high, 0.3)):
        assert moment == pytest.approx((w * (x - 0.3) ** j)[inside].sum() / w.sum(), rel=1e-13, abs=1e-15)
    assert density.support == (x.min(), x.max())
    assert density.count == x.size


def test_it_keeps_no_reference_and_changes_nothing() -> None:
    for dtype in (np.float64, np.float32, np.float16):
        x = RNG.standard_normal(100).astype(dtype)
        before = x.copy()
        density = qe.Empirical(x)
        np.testing.assert_array_equal(x, before)
        mean = float(density.mean)
        x[:] = 1e4
        assert float(density.mean) == mean
        assert float(density.quantile(1.0)) < 100


def test_atoms_are_the_sample() -> None:
    x = RNG.choice(RNG.standard_normal(7), 30)
    points, masses = qe.Empirical(x).atoms
    values, counts = np.unique(x, return_counts=True)
    for value, count in zip(values, counts, strict=True):
        assert masses[points == value].sum() == pytest.approx(count / 30, rel=1e-14)


def test_counted_values_are_the_sorted_ones() -> None:
    """float16, bfloat16, and bfloat16 inside float32: counted above 16 384 values, with -0 and subnormals."""
    x = np.concatenate([RNG.standard_normal(20_000), [0.0, -0.0, 6e-8, -6e-8, 1e-40]]).astype(np.float32)
    for kept in (x.astype(np.float16), x.astype(ml_dtypes.bfloat16), x.astype(ml_dtypes.bfloat16).astype(np.float32)):
        counted, plain = qe.Empirical(kept), qe.Empirical(np.asarray(kept).astype(np.float64))
        assert counted._sums.rows.values.size < x.size
        assert counted.count == plain.count == x.size
        assert float(counted.mean) == pytest.approx(float(plain.mean), rel=1e-14)
        assert float(counted.std) == pytest.approx(float(plain.std), rel=1e-14)
        assert_equal(qe.quantization_error(counted, "int8", 0.02), direct(kept, qe.grid("int8"), 0.02))
        np.testing.assert_array_equal(counted.quantile([0.01, 0.5, 0.99]), plain.quantile([0.01, 0.5, 0.99]))


@pytest.mark.parametrize("size", [2.0**-110, 1e-32, 1e30, 2.0**100])
def test_extreme_magnitudes(size: float) -> None:
    x = RNG.standard_normal(80)
    rows = qe.Empirical(np.stack([x, size * x, x]), axis=0)
    found = qe.quantization_error(rows, "int4", np.array([0.3, 0.3 * size, 0.3]))
    one = direct(x, qe.grid("int4"), 0.3)
    for i, unit in enumerate((1.0, size, 1.0)):
        assert found.mse[i] / unit / unit == pytest.approx(one.mse, rel=DIRECT_TOLERANCE)
        assert rows.std[i] / unit == pytest.approx(x.std(), rel=1e-13)


def test_a_large_mean_costs_no_digits() -> None:
    """Values around 1e6 with a spread of 1: errors about the values, not about 0."""
    x = 1e6 + RNG.standard_normal(2000)
    density = qe.Empirical(x)
    assert float(density.std) == pytest.approx(float(np.std(x - 1e6)), rel=1e-12)
    found = qe.quantization_error(density, "int8", 0.03, 1e6)
    # The values z + s l carry a rounding of 1e-10 each, in both computations the same.
    assert found.mse == pytest.approx(direct(x, qe.grid("int8"), 0.03, 1e6).mse, rel=1e-9)


# -- sums in twice the precision -------------------------------------------------------------------------------------

PAIRS = st.floats(-1e100, 1e100, allow_subnormal=False).filter(lambda v: v == 0 or abs(v) > 1e-100)


@given(PAIRS, PAIRS)
def test_two_sum_and_two_product_are_exact(a: float, b: float) -> None:
    total, error = dd.two_sum(np.float64(a), np.float64(b))
    assert Fraction(float(total)) + Fraction(float(error)) == Fraction(a) + Fraction(b)
    product, error = dd.two_product(np.float64(a), np.float64(b))
    assert Fraction(float(product)) + Fraction(float(error)) == Fraction(a) * Fraction(b)


@given(st.integers(0, 2**32 - 1))
def test_prefix_sums(seed: int) -> None:
    """Within 1e-30 of the sums of magnitudes, where float64 alone has 1e-16."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(200) * 10.0 ** rng.uniform(-8, 8, 200)
    high, low = dd.prefix_sums(*dd.two_product(x, x))
    exact = [Fraction(0)]
    for v in x:
        exact.append(exact[-1] + Fraction(float(v)) ** 2)
    for h, part, e in zip(high, low, exact, strict=True):
        assert abs(Fraction(float(h)) + Fraction(float(part)) - e) <= Fraction(1e-28) * exact[-1]


@given(st.integers(0, 2**32 - 1))
def test_arithmetic_of_pairs(seed: int) -> None:
    """Sum, difference and multiple to twice the precision of float64."""
    rng = np.random.default_rng(seed)
    x, y = (dd.two_sum(v, 1e-17 * w) for v, w in rng.standard_normal((2, 2)))
    factor = rng.standard_normal()
    exact_x, exact_y = (Fraction(float(v[0])) + Fraction(float(v[1])) for v in (x, y))
    for found, expected in (
        (dd.add(x, y), exact_x + exact_y),
        (dd.subtract(x, y), exact_x - exact_y),
        (dd.scale(x, np.float64(factor)), exact_x * Fraction(factor)),
    ):
        unit = abs(exact_x) + abs(exact_y)
        assert abs(Fraction(float(found[0])) + Fraction(float(found[1])) - expected) <= Fraction(1e-30) * unit


@pytest.mark.parametrize("scale", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("grid", ["int4", "int4_midrise", "e2m1", "uint4"])
def test_ties_at_any_scale(grid: str, scale: float) -> None:
    """Values on thresholds go where `quantize` sends them, by the rounding of (x - z) / s."""
    levels = qe.grid(grid)
    x = scale * levels.thresholds
    sent = qe.dequantize(qe.quantize(x, levels, scale), levels, dtype=np.float64)
    p = qe.code_probabilities(qe.Empirical(x), levels, scale)
    np.testing.assert_allclose(p * x.size, [np.count_nonzero(sent == v) for v in levels.levels], atol=1e-9)
    bias = math.fsum(scale * sent - x) / x.size
    assert abs(qe.quantization_error(qe.Empirical(x), levels, scale).bias - bias) < 1e-13


@pytest.mark.parametrize("size", [1e-95, 1e95])
@pytest.mark.parametrize("weight", [None, 1e-99, 1e97])
@pytest.mark.parametrize("grid", ["int4", "e2m1", "e8m0"])
def test_values_of_any_size(grid: str, size: float, weight: float | None) -> None:
    """Within 1e-100 to 1e+100 nothing over- or underflows, and units do not matter."""
    x = np.random.default_rng(3).standard_normal(100)
    unit = 2.0 ** round(math.log2(size))
    weights = None if weight is None else np.full(x.size, weight)
    best = qe.optimal_scale(qe.Empirical(unit * x, weights=weights), grid)
    alone = qe.optimal_scale(qe.Empirical(x), grid)
    assert best.status == alone.status
    assert best.scale / unit == pytest.approx(alone.scale, rel=1e-12)
    assert best.error.mse / unit**2 == pytest.approx(alone.error.mse, rel=1e-12)


@pytest.mark.parametrize("weight", [1e-90, 1e6, 1e12, 1e18, 1e90])
@pytest.mark.parametrize("mean", [0.0, 5.0, 1000.0])
def test_units_of_weights_do_not_matter(mean: float, weight: float) -> None:
    """Rows long enough for tables of sums, about 0 and far from it: a weight that all values share changes nothing."""
    x = RNG.standard_normal((3, 1000)) + mean
    weights = np.full(x.shape, 2.0 ** round(math.log2(weight)))
    held, one = (qe.Empirical(x, w, axis=0).sorted_rows[0] for w in (weights, np.ones(x.shape)))
    np.testing.assert_allclose(held.second_moment, one.second_moment, 1e-14)
    np.testing.assert_allclose(one.second_moment, x.var(axis=1), 1e-14)
    for grid in ("int4", "int8"):
        found, expected = (qe.fit(x, grid, axis=0, shift="mean", weights=w) for w in (weights, None))
        # The mean, which is the shift, is rounded: far from 0 that is more of a step.
        np.testing.assert_allclose(found.error.mse, expected.error.mse, DIRECT_TOLERANCE * max(1.0, mean / 100))


@pytest.mark.parametrize("largest", [1e6, 3.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", [1, 31, 511, 512, 4100])
def test_ranks_and_prefix_sums(size: int, weighted: bool, largest: float) -> None:
    """By bisection, from 512 values on in bins or, with outliers, among every 16th first: against NumPy, exact sums."""
    x = RNG.standard_normal((3, size)).astype(np.float32)
    x[1] = np.round(x[1], 1 if largest > 9 else 3)
    x[2, 0] = largest
    weights = RNG.random(x.shape) if weighted else None
    held, _ = qe.Empirical(x, weights, axis=0).sorted_rows
    assert size < 512 or (held._bins is None) == (largest > 9)
    for row, values in enumerate(held.values):
        t = np.concatenate([RNG.standard_normal(64), values[:: max(1, size // 20)], [-1e9, 1e9, 0.0, -0.0]])
        rank = held.rank(np.full(t.shape, row), t)
        np.testing.assert_array_equal(rank, np.searchsorted(values, t, side="right"))
        w = np.ones(size) if held.weights is None else held.weights[row]
        exact = [(Fraction(a), Fraction(float(b))) for a, b in zip(w, values, strict=True)]
        mean = sum(a * b for a, b in exact) / sum(a for a, _ in exact)
        terms = [a * (b - mean) for a, b in exact]
        sums = list(itertools.accumulate(terms, initial=Fraction(0)))
        found = held.first_of(np.full(rank.shape, row), rank, held.mass_of(np.full(rank.shape, row), rank))
        slack = 2.0**-51 * float(sum(map(abs, terms)))
        if weighted or row == 2:
            # float32 values are whole units, but for products and for values far below the largest one: 2^-51 of that
            # for each, as for the weight of all and for the way to the mean.
            slack += (size + 2) * 2.0**-51 * float(np.abs(values - held.mean[row]).max() * w.max())
        assert max(abs(a - float(sums[r])) for a, r in zip(found, rank, strict=True)) <= slack
        second = float(sum(term * term / Fraction(a) for term, a in zip(terms, w, strict=True) if a))
        # About a mean that is rounded.
        rest = float(w.sum()) * (2.0**-52 * float(mean)) ** 2
        np.testing.assert_allclose(held.second_moment[row] * held.total[row], second, SQUARES_TOLERANCE, rest)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [4096, 60000, 70000])
def test_outliers_cost_no_digits(n: int, dtype: type) -> None:
    """Rows with a value of up to 1e12 standard deviations, at every scale: right to a few roundings of the power."""
    rng = np.random.default_rng(n)
    x = np.stack([rng.standard_normal(n), np.rint(3 * rng.standard_normal(n)) / 10]).repeat(5, axis=0).astype(dtype)
    x[:, 7] *= np.tile([1.0, 10.0, 1e3, 1e6, 1e12], 2)
    held, _ = qe.Empirical(x, axis=0).sorted_rows
    for name in ("int4", "e2m1", "int8"):
        grid = qe.grid(name)
        cells = Cells(held, grid, np.zeros(len(x)))
        for row, values in enumerate(held.values.astype(np.longdouble)):
            scale = np.geomspace(0.01, 2 * float(np.abs(values).max()), 20) / grid.max
            b, c, _ = cells.evaluate(np.full(scale.size, row), scale)
            found = cells.power[row] - scale.astype(np.longdouble) * (2 * b - scale * c)
            level = grid.levels[np.searchsorted(grid.thresholds, held.values[row] / scale[:, None])]
            mse = np.square(values - scale[:, None].astype(np.longdouble) * level).mean(axis=1)
            assert np.abs(found - mse).max() <= 2.0**-47 * np.square(values).mean(), (name, row)


def test_round_down() -> None:
    around = RNG.standard_normal(500) * 10.0 ** RNG.integers(-46, 37, 500)
    t = np.concatenate([around, around.astype(np.float32), [0.0, -0.0, 1e-60, -1e-60, 1e39, -1e39, np.inf, -np.inf]])
    key = rows.round_down(t, np.dtype(np.float32))
    assert key.dtype == np.float32
    assert (key <= t).all()
    inner = np.abs(key) < np.finfo(np.float32).max
    assert (np.nextafter(key[inner], np.float32(np.inf)) > t[inner]).all()
    np.testing.assert_array_equal(key[-4:], [np.finfo(np.float32).max, -np.inf, np.inf, -np.inf])


def test_keys_far_beyond_a_row_of_float32() -> None:
    """Their bin is beyond the range of the type; the suite would fail at a warning."""
    bins = Bins.of(np.linspace(0, 1e-30, 600, dtype=np.float32)[None])
    key = np.array([[-3e38, -1e10, 0.0, 1e10, 3e38]], np.float32)
    assert bins.start_of(np.zeros((1, 1), np.intp), key).tolist()[0][3:] == [599, 599]
