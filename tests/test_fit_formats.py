"""Scales that a format stores, integer zero points, block formats: against enumeration of everything."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror.grids.block_formats import block_formats
from qerror.results import Status
from qerror.rules import RULES

RNG = np.random.default_rng(20250507)
# The best error of an enumeration may differ from the library's by rounding, and ties may go either way.
SAME = 1e-11
STORED = {
    "fp16": np.arange(1, 0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64),
    "bf16": (np.arange(1, 0x7F80, dtype=np.uint32) << 16).view(np.float32).astype(np.float64),
    "e4m3fn": np.arange(1, 0x7F, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float64),
    "e8m0": 2.0 ** np.arange(-127, 128),
    "pow2": 2.0 ** np.arange(-300, 301),
}


def heavy(shape: tuple[int, ...]) -> np.ndarray:
    return RNG.standard_t(4, shape) * np.exp(RNG.standard_normal((shape[0], *[1] * (len(shape) - 1))))


def errors(row: np.ndarray, levels: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """MSE at each scale, by looking the nearest level up."""
    thresholds = (levels[1:] + levels[:-1]) / 2
    found = []
    for part in np.array_split(scales, max(1, scales.size * row.size // 500_000)):
        nearest = levels[np.searchsorted(thresholds, row[:, None] / part)]
        found.append(((row[:, None] - part * nearest) ** 2).mean(axis=0))
    return np.concatenate(found)


# -- stored scales -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("grid", ["int4", "e2m1", "nf4", "e3m0", "int8", "binary", "uint4"])
def test_the_stored_scale_is_the_best_of_all(grid: str, form: str) -> None:
    x = heavy((6, 40)) * 10.0 ** RNG.integers(-3, 3, (6, 1))
    levels = qe.grid(grid).levels
    result = qe.fit(x, grid, axis=0, scale_format=form)
    unit = 1.0
    if form == "e4m3fn":
        unit = float(np.float32(np.abs(x).max() / (448 * np.abs(levels).max())))
        assert result.tensor_scale == unit
    else:
        assert result.tensor_scale is None
    for row, scale, mse in zip(x, result.scale[:, 0], result.error.mse[:, 0], strict=True):
        assert scale / unit in STORED[form]
        every = errors(row, levels, STORED[form] * unit)
        assert mse <= every.min() * (1 + SAME)
    assert (result.status == Status.EXACT).all()


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["int2", "e2m1", "ternary", "int4_midrise"]))
def test_stored_scales_of_a_few_values(seed: int, grid: str) -> None:
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal((4, rng.integers(1, 6))) * 4) / 4
    levels = qe.grid(grid).levels
    for form in ("fp16", "e8m0"):
        result = qe.fit(x, grid, axis=0, scale_format=form, shift=0.0)
        for row, mse in zip(x, result.error.mse[:, 0], strict=True):
            assert mse <= errors(row, levels, STORED[form]).min() * (1 + SAME) + 1e-30


@pytest.mark.parametrize("form", STORED)
def test_stored_scales_far_outside_of_the_format_and_of_zeros(form: str) -> None:
    x = np.stack([np.full(8, 1e30), np.full(8, 1e-30), np.zeros(8), np.arange(8.0)])
    result = qe.fit(x, "int4", axis=0, scale_format=form)
    assert (result.scale > 0).all()
    unit = result.tensor_scale or 1.0
    assert np.isin(result.scale / unit, STORED[form]).all()
    assert result.status[2, 0] == Status.DEGENERATE
    for row, mse in zip(x[:2], result.error.mse[:2, 0], strict=True):
        assert mse <= errors(row, qe.grid("int4").levels, STORED[form] * unit).min() * (1 + SAME)


def test_minmax_takes_the_smallest_stored_scale_that_clips_nothing() -> None:
    x = heavy((30, 32))
    free = qe.fit(x, "e2m1", rule="minmax", axis=0).scale
    for form in ("fp16", "bf16", "e8m0", "pow2"):
        result = qe.fit(x, "e2m1", rule="minmax", axis=0, scale_format=form)
        expected = [[STORED[form][STORED[form] >= scale].min()] for scale in free[:, 0]]
        np.testing.assert_array_equal(result.scale, expected)
        assert (result.clipped_fraction == 0).all()


@pytest.mark.parametrize("form", ["fp16", "bf16", "e8m0", "pow2"])
def test_minmax_keeps_a_scale_that_can_be_stored(form: str) -> None:
    x = np.array([[6.0, -1.0], [-12.0, 5.0], [0.75, 0.5]])
    np.testing.assert_array_equal(
        qe.fit(x, "e2m1", rule="minmax", axis=0, scale_format=form).scale[:, 0], [1.0, 2.0, 0.125]
    )


def test_the_best_stored_scale_near_the_largest_that_gains() -> None:
    """Uniform data on three levels: scale 2/3, a third of the largest at which any value leaves 0."""
    x = np.arange(-750, 751) / 750
    every = errors(x, qe.grid("ternary").levels, STORED["bf16"][(STORED["bf16"] > 0.1) & (STORED["bf16"] < 2)])
    result = qe.fit(x, "ternary", scale_format="bf16")
    assert result.scale == pytest.approx(2 / 3, rel=1e-2)
    assert result.total.mse == pytest.approx(every.min(), rel=SAME)


@pytest.mark.parametrize("rule", ["percentile:p=100", "analytic", "iterative"])
def test_other_rules_take_the_nearest_stored_scale(rule: str) -> None:
    x = heavy((30, 32))
    free = qe.fit(x, "e2m1", rule=rule, axis=0).scale
    for form in ("fp16", "bf16", "e8m0", "pow2"):
        stored = qe.fit(x, "e2m1", rule=rule, axis=0, scale_format=form).scale
        every = STORED[form]
        np.testing.assert_array_equal(np.abs(stored - free), np.abs(every - free).min(axis=1, keepdims=True))
    if rule == "analytic":
        np.testing.assert_array_equal(
            qe.fit(x, "e2m1", rule=rule, axis=0, scale_format="fp16").scale, free.astype(np.float16).astype(np.float64)
        )


def test_excess_is_against_the_best_stored_scales() -> None:
    x = heavy((200, 64))
    best, other = (qe.fit(x, "e2m1", rule=r, block_size=32, scale_format="e8m0") for r in ("optimal", "ocp"))
    lost = 10 * np.log10(other.error.mse / best.error.mse)
    np.testing.assert_allclose(other.excess_db, np.maximum(lost, 0), atol=1e-9)
    assert (other.excess_db > 0).any()
    given_ones = qe.evaluate(x, "e2m1", other.scale, block_size=32, scale_format="e8m0")
    np.testing.assert_allclose(given_ones.excess_db, other.excess_db, atol=1e-9)


def test_stored_scales_with_a_shift() -> None:
    x = heavy((5, 50)) + 2
    centred = qe.fit(x, "int4", axis=0, shift="mean", scale_format="bf16")
    for row, z, mse in zip(x, centred.shift[:, 0], centred.error.mse[:, 0], strict=True):
        assert mse <= errors(row - z, qe.grid("int4").levels, STORED["bf16"]).min() * (1 + SAME)
    assert (centred.status == Status.EXACT).all()
    free = qe.fit(x[:2, :20], "int4", axis=0, shift="optimal", scale_format="bf16")
    assert (free.status == Status.LOCAL).all()
    assert np.isin(free.scale, STORED["bf16"]).all()


# -- block formats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", block_formats())
@pytest.mark.parametrize("rule", ["optimal", "ocp", "minmax"])
def test_block_formats(name: str, rule: str) -> None:
    x = heavy((4, 172)).astype(np.float32)
    result = qe.fit(x, name, rule=rule)
    size = 16 if name == "nvfp4" else 32
    assert result.scale.shape == (4, -(-172 // size))
    unit = result.tensor_scale or 1.0
    assert (result.tensor_scale is not None) == (name == "nvfp4")
    assert np.isin(result.scale / unit, STORED["e4m3fn" if name == "nvfp4" else "e8m0"]).all()
    q = result.fake_quantize(x.astype(np.float64))
    assert result.total.mse == pytest.approx(np.mean((x - q) ** 2), rel=1e-12)
    np.testing.assert_array_equal(result.dequantize(result.quantize(x), dtype=np.float64), q)
    if rule == "optimal":
        levels = result.grid.levels
        for block in range(result.scale.shape[1]):
            part = x[0, block * size : (block + 1) * size].astype(np.float64)
            every = errors(part, levels, STORED["e4m3fn" if name == "nvfp4" else "e8m0"] * unit)
            assert result.error.mse[0, block] <= every.min() * (1 + SAME)
    else:
        assert (result.excess_db >= 0).all()


def test_ocp_on_mxfp4_follows_the_standard() -> None:
    """MX v1.0: X = 2^(floor(log2 max) - 2) for E2M1, elements rounded to nearest even and saturated."""
    x = (heavy((8, 64)) * 2.0 ** RNG.integers(-30, 30, (8, 1))).astype(np.float32)
    result = qe.fit(x, "mxfp4", rule="ocp")
    for i, j in np.ndindex(8, 2):
        block = x[i, 32 * j : 32 * j + 32]
        scale = 2.0 ** (np.floor(np.log2(np.abs(block).max())) - 2)
        assert result.scale[i, j] == scale
        scaled = np.clip(block / np.float32(scale), -6, 6)
        expected = scaled.astype(ml_dtypes.float4_e2m1fn).view(np.uint8)
        np.testing.assert_array_equal(result.quantize(x)[i, 32 * j : 32 * j + 32], expected)


def test_nvfp4_tensor_scale() -> None:
    x = heavy((3, 64)).astype(np.float32)
    result = qe.fit(x, "nvfp4")
    assert result.tensor_scale == float(np.float32(float(np.abs(x).max()) / (448 * 6)))
    # Beyond what a float32 tensor scale reaches everything is clipped.
    assert qe.fit(np.array([1e50, 1.0]), "nvfp4").tensor_scale == np.finfo(np.float32).max
    zeros = qe.fit(np.zeros((2, 32), np.float32), "nvfp4")
    assert zeros.tensor_scale == 1.0
    assert (zeros.error.mse == 0).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": "mxfp4", "block_size": 16}, "block_size must be left out with mxfp4, which brings its own, got 16"),
        ({"grid": "nvfp4", "scale_format": "fp16"}, "scale_format must be left out with nvfp4"),
        ({"grid": "mxfp4", "axis": 0}, "axis must be left out with mxfp4, which brings its own, got 0"),
        ({"grid": "int4", "scale_format": "fp8"}, "scale_format must be 'fp16', 'bf16', 'e4m3fn', 'e8m0' or 'pow2'"),
        ({"grid": "e2m1", "zero_point": "integer"}, "zero_point needs a grid of consecutive integers"),
        ({"grid": "int4_midrise", "zero_point": "integer"}, "needs a grid of consecutive integers"),
        ({"grid": "int4", "zero_point": "float"}, "zero_point must be 'integer' or 'storable', got 'float'"),
        ({"grid": "int4", "sign": "minus"}, "sign must be 'positive' or 'either', got 'minus'"),
        ({"grid": "int4", "sign": "either", "zero_point": "storable"}, "sign must be 'positive' with zero_point"),
        ({"grid": "int4", "sign": "either", "scale_format": "e8m0"}, "sign must be 'positive' with scale_format"),
        (
            {"grid": "int4", "rule": "signed_absmax", "scale_format": "bf16"},
            "does not store its scales; rule='absmax:signed=true' does",
        ),
        ({"grid": "int4", "zero_point": "integer", "shift": "mean"}, "shift must be left at 0 with zero_point"),
        ({"grid": "mxfp5"}, "unknown grid 'mxfp5'; did you mean"),
    ],
)
def test_bad_formats(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qe.fit(np.ones((2, 32)), **options)


# -- integer zero points -----------------------------------------------------------------------------------------------


def best_by_enumeration(x: np.ndarray, grid: qe.Grid, most: int = 30) -> np.ndarray:
    """Least MSE of each row over integer zero points far beyond the codes, each by the exact search."""
    found, rows = np.full(len(x), np.inf), qe.Empirical(x, axis=0)
    for p in range(int(grid.min) - most, int(grid.max) + most + 1):
        best = qe.optimal_scale(rows, qe.Grid(grid.levels - p))
        known = np.isin(best.status, [Status.EXACT, Status.SCANNED])
        found = np.where(known, np.minimum(found, best.error.mse), found)
    return found


@pytest.mark.parametrize("grid", ["uint2", "int2", "int3", "uint4"])
@pytest.mark.parametrize("offset", [0.0, 0.4, 3.0, -9.0])
def test_the_zero_point_is_the_best_of_all_integers(grid: str, offset: float) -> None:
    x = RNG.standard_t(4, (3, 25)) + offset
    result = qe.fit(x, grid, axis=0, zero_point="integer")
    assert result.zero_point.dtype == np.int64
    np.testing.assert_allclose(result.shift, -result.zero_point * result.scale, rtol=1e-15)
    assert (result.status == Status.EXACT).all()
    assert (result.error.mse[:, 0] <= best_by_enumeration(x, qe.grid(grid)) * (1 + SAME)).all()


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1))
def test_zero_points_of_a_few_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = np.round(rng.standard_normal((2, rng.integers(1, 7))) * 3) + rng.integers(-4, 5)
    result = qe.fit(x, "uint2", axis=0, zero_point="integer")
    limit = best_by_enumeration(x, qe.grid("uint2"), 25) * (1 + SAME) + 1e-28
    assert (result.error.mse[:, 0] <= limit)[x.any(axis=1)].all()


def test_data_far_from_zero_need_a_zero_point_beyond_the_codes() -> None:
    x = np.random.default_rng(0).uniform(20.0, 21.0, (1, 30))
    result = qe.fit(x, "uint4", zero_point="integer")
    assert result.zero_point < -15
    assert result.status == Status.EXACT
    # No better than any shift, and nearly as good.
    free = qe.fit(x, "uint4", shift="optimal").error.mse
    assert free * (1 - 1e-9) <= result.error.mse <= 1.2 * free


def test_a_zero_point_beyond_the_codes_whose_error_is_all_clipping() -> None:
    """Two levels for 27 and 28, most of the weight: by least squares on every zero point and every split of x."""
    x, weights, found = np.array([21.0, 27.0, 28.0, 34.0]), np.array([1.0, 80.0, 80.0, 1.0]), {}
    for p in range(-200, 200):
        for split in range(5):
            level = np.where(np.arange(4) < split, -p, 1 - p)
            scale = (weights @ (x * level)) / max(weights @ level**2, 1)
            if scale > 0:
                found[weights @ (x - scale * level) ** 2 / weights.sum()] = p, scale
    least = min(found)
    result = qe.fit(x, qe.Grid([0.0, 1.0]), weights=weights, zero_point="integer")
    assert (result.zero_point, result.scale) == pytest.approx(found[least], rel=1e-12)
    assert result.zero_point == -23
    assert result.total.mse == pytest.approx(least, rel=SAME)
    assert result.status == Status.EXACT


@pytest.mark.parametrize("unit", [2.0**-60, 2.0**60])
def test_zero_points_do_not_depend_on_the_unit(unit: float) -> None:
    x = np.random.default_rng(2).uniform(3.0, 4.0, (2, 20))
    one, other = (qe.fit(some, "uint2", axis=0, zero_point="integer") for some in (x, unit * x))
    assert (one.zero_point < -3).all()
    np.testing.assert_array_equal(other.zero_point, one.zero_point)
    np.testing.assert_array_equal(other.scale, unit * one.scale)


def test_one_sided_data_and_ordinary_data_get_what_runtimes_give() -> None:
    relu = np.maximum(RNG.standard_normal(400), 0)
    best = qe.fit(relu, "uint8", zero_point="integer")
    assert 0 <= best.zero_point < 16
    assert best.error.mse <= qe.fit(relu, "uint8").error.mse * (1 + SAME)
    by_minmax = qe.fit(RNG.standard_normal(400) + 1, "uint8", rule="minmax", zero_point="integer")
    assert 0 < by_minmax.zero_point < 255
    assert by_minmax.excess_db >= 0


def test_zero_point_of_constant_data_is_exact() -> None:
    result = qe.fit(np.full((1, 9), -2.5), "uint4", zero_point="integer")
    assert result.error.mse <= 1e-30
    zeros = qe.fit(np.zeros(9), "uint4", zero_point="integer")
    assert zeros.status == Status.DEGENERATE
    assert zeros.error.mse == 0


@pytest.mark.parametrize(
    ("x", "grid", "least"),
    [
        # Far from 0: scale 2/3 with shift 3000 is zero point -4500. By brute force over 4 000 to 5 000.
        ([3000, 3000.6, 3001.4, 3002], "uint2", 0.0020000020791),
        ([1400, 1401, 1402.5, 1403.1, 1404.7], "uint4", 0.000757954885375),
    ],
)
def test_data_very_far_from_zero_are_not_called_proven(x: list[float], grid: str, least: float) -> None:
    result = qe.fit(x, grid, zero_point="integer")
    assert result.total.mse == pytest.approx(least, rel=1e-9)
    assert result.status == qe.Status.SCANNED


@pytest.mark.parametrize("grid", ["uint2", "uint4", "int8"])
@pytest.mark.parametrize(("base", "step"), [(1e15, 0.125), (1e15, 8.0), (-1e15, 0.125), (1e12, 0.5), (-1e10, 2.0**-16)])
def test_values_that_only_far_zero_points_tell_apart(base: float, step: float, grid: str) -> None:
    """Scale `step` and zero point -base / step leave no error: what leaves some is not proven to be the least."""
    x, p = [base, base + step], -Fraction(base) / Fraction(step)
    assert p.denominator == 1
    assert [Fraction(step) * (level - p) for level in (0, 1)] == [Fraction(value) for value in x]
    result = qe.fit(x, grid, zero_point="integer")
    lost = [Fraction(value) - Fraction(found) for value, found in zip(x, result.fake_quantize(x).tolist(), strict=True)]
    # The root of an error is known to 2^-52 max|x|.
    root = float(sum(e * e for e in lost) / 2) ** 0.5
    assert result.total.mse**0.5 == pytest.approx(root, rel=0, abs=2.0**-52 * abs(base))
    assert (result.status == Status.EXACT) == (result.total.mse == 0)


@pytest.mark.parametrize("form", STORED)
@pytest.mark.parametrize("grid", ["uint4", "int4_narrow", "int8"])
def test_constants_get_the_nearest_multiple_of_a_stored_scale(grid: str, form: str) -> None:
    levels, constants = qe.grid(grid).levels, np.array([0.1, -0.1, 2.5, -7.3, 3e-9, 1e6])
    x = np.repeat(constants[:, None], 5, axis=1)
    for kind, most in (("storable", int(np.ptp(levels))), ("integer", 1 << 50)):
        result = qe.fit(x, grid, axis=0, zero_point=kind, scale_format=form)
        scales = STORED[form] * (result.tensor_scale or 1.0)
        assert np.isin(result.scale, scales).all()
        assert (result.status == Status.EXACT).all()
        for c, s, p in zip(constants, result.scale[:, 0], result.zero_point[:, 0].tolist(), strict=True):
            if kind == "storable":
                assert p in levels
                least = np.abs(np.multiply.outer(np.arange(-most, most + 1), scales) - c).min()
            else:
                steps = np.clip(np.add.outer(np.arange(-1, 3), np.floor(c / scales)), -most, most)
                least = np.abs(steps * scales - c).min()
            assert np.abs(s * (levels - p) - c).min() == least


@pytest.mark.parametrize("rule", ["optimal", "minmax", "percentile", "shrink_search", "analytic", "iterative"])
@pytest.mark.parametrize("zero_point", ["integer", "storable"])
@pytest.mark.parametrize("grid", ["uint8", "int4", "uint2", "int4_narrow"])
def test_constant_groups_are_represented_exactly(rule: str, zero_point: str, grid: str) -> None:
    x = RNG.standard_normal((5, 40))
    x[1], x[3] = 0.1, -7.3
    result = qe.fit(x, grid, rule=rule, axis=0, zero_point=zero_point)
    np.testing.assert_array_equal(result.fake_quantize(x)[[1, 3]], x[[1, 3]])
    assert qe.grid(grid).min <= result.zero_point[[1, 3]].min() <= result.zero_point[[1, 3]].max() <= qe.grid(grid).max
    assert {status.name for status in result.status[[1, 3], 0]} == {"EXACT" if rule == "optimal" else "RULE"}


@pytest.mark.parametrize("shift", ["mean", "optimal"])
@pytest.mark.parametrize("rule", ["optimal", "minmax", "iterative", "shrink_search"])
@pytest.mark.parametrize("grid", ["uint4", "int4", "int4_midrise", "binary", "e2m1", "nf4"])
def test_a_constant_group_with_a_shift_is_represented_exactly(shift: str, rule: str, grid: str) -> None:
    """0.1: the mean of three is not 0.1 in float64."""
    x = RNG.standard_normal((3, 3))
    x[1] = 0.1
    result = qe.fit(x, grid, rule=rule, axis=0, shift=shift)
    np.testing.assert_array_equal(result.fake_quantize(x)[1], x[1])
    assert result.total.mse < x.var() + x.mean() ** 2


@pytest.mark.parametrize(
    ("grid", "rule"),
    [(g, r) for g in ("int4_midrise", "binary") for r in ("optimal", "minmax", "percentile", "analytic")]
    + [("int4_midrise", "octav"), ("int2_midrise", "sawb"), ("int4_midrise", "aciq")],
)
def test_zero_groups_on_grids_without_zero(rule: str, grid: str) -> None:
    """The error falls with the scale: the least one, not 1, stands for none; totals are those of the other rows."""
    x = RNG.standard_normal((4, 64))
    x[2] = 0.0
    result = qe.fit(x, grid, rule=rule, axis=0)
    assert result.status[2, 0] == qe.Status.DEGENERATE_NONE
    assert result.scale[2, 0] == np.finfo(np.float32).tiny
    others = qe.fit(x[[0, 1, 3]], grid, rule=rule, axis=0)
    assert result.total.mse == pytest.approx(0.75 * others.total.mse, rel=1e-14)


@pytest.mark.parametrize("grid", ["uint2", "int2", "uint3"])
@pytest.mark.parametrize("offset", [0.0, 2.0, -5.0])
def test_the_storable_zero_point_is_the_best_of_all_codes(grid: str, offset: float) -> None:
    x = RNG.standard_normal((3, 20)) + offset
    result = qe.fit(x, grid, axis=0, zero_point="storable")
    levels = qe.grid(grid).levels
    assert set(result.zero_point.ravel()) <= set(levels)
    assert (result.status == qe.Status.EXACT).all()
    for row, mse in zip(x, result.error.mse[:, 0], strict=True):
        each = [qe.optimal_scale(qe.Empirical(row), qe.Grid(levels - p)).error.mse for p in levels]
        assert mse == pytest.approx(min(each), rel=1e-12)
    # With 0 in the range minmax has a zero point among the codes, and nothing is clipped by more than its rounding.
    by_minmax = qe.fit(x, grid, rule="minmax", axis=0, zero_point="storable")
    span = np.maximum(x.max(1), 0) - np.minimum(x.min(1), 0)
    np.testing.assert_allclose(by_minmax.scale[:, 0], span / (levels[-1] - levels[0]), rtol=1e-14)


def test_the_better_sign_of_the_scale() -> None:
    """Against trying both signs row by row; int4 turned around reaches +8."""
    x = RNG.standard_normal((40, 32))
    result = qe.fit(x, "int4", axis=0, sign="either")
    turned = qe.Grid(-qe.grid("int4").levels[::-1])
    for row, scale, mse, status in zip(x, result.scale, result.error.mse[:, 0], result.status[:, 0], strict=True):
        plus, minus = (qe.optimal_scale(qe.Empirical(row), g).error.mse for g in ("int4", turned))
        assert mse == pytest.approx(min(plus, minus), rel=1e-12)
        assert (scale[0] < 0) == (minus < plus * (1 - 1e-12))
        assert status == qe.Status.EXACT
    np.testing.assert_allclose(np.mean((result.fake_quantize(x) - x) ** 2), result.total.mse, rtol=1e-12)
    given = qe.evaluate(x, "int4", result.scale, axis=0)
    np.testing.assert_allclose(given.error.mse, result.error.mse, rtol=1e-12)
    assert (given.excess_db == 0).all()
    # On a symmetric grid the sign changes nothing.
    np.testing.assert_array_equal(qe.fit(x, "e2m1", axis=0, sign="either").scale, qe.fit(x, "e2m1", axis=0).scale)


def test_the_rule_of_q4_0() -> None:
    """As llama.cpp writes it: d = (the value of largest magnitude) / -8, codes by rounding x / d."""
    x = RNG.standard_normal((50, 32))
    result = qe.fit(x, "int4", rule="signed_absmax", block_size=32)
    d = x[np.arange(50), np.abs(x).argmax(axis=1)] / -8
    np.testing.assert_array_equal(result.scale[:, 0], d)
    codes = np.clip(np.rint(x / d[:, None]), -8, 7)
    np.testing.assert_array_equal(result.quantize(x), codes)
    np.testing.assert_allclose(result.error.mse[:, 0], np.mean((codes * d[:, None] - x) ** 2, axis=1), rtol=1e-12)
    # Lost against the best scale of either sign.
    assert (result.excess_db >= 0).all()
    assert 0 < result.total_excess_db < 1


@pytest.mark.parametrize("grid", ["int4", "uint8"])
def test_pairs_are_compared_with_pairs(grid: str) -> None:
    x = RNG.standard_normal((6, 50)) + 0.7
    best = qe.fit(x, grid, axis=0, zero_point="storable")
    given = qe.evaluate(x, grid, best.scale, axis=0, zero_point=best.zero_point)
    np.testing.assert_array_equal(given.zero_point, best.zero_point)
    np.testing.assert_allclose(given.error.mse, best.error.mse, rtol=1e-12)
    assert (given.excess_db == 0).all()
    by_minmax = qe.fit(x, grid, axis=0, rule="minmax", zero_point="storable")
    again = qe.evaluate(x, grid, by_minmax.scale, axis=0, zero_point=by_minmax.zero_point)
    np.testing.assert_allclose(again.excess_db, by_minmax.excess_db, rtol=1e-12, atol=1e-12)
    assert (by_minmax.excess_db > 0).all()


@pytest.mark.parametrize("scale_format", ["pow2", "bf16"])
@pytest.mark.parametrize("boost", [0.1, 1.0])
def test_the_best_stored_scale_far_below_the_first_guess(scale_format: str, boost: float) -> None:
    """Thirty octaves of equal power: three levels gain less than half of it, and each octave has its own minimum."""
    x, weights = 2.0 ** np.arange(30), 4.0 ** -np.arange(30)
    weights[:2] *= 1 + boost
    result = qe.fit(x, "ternary", weights=weights, scale_format=scale_format)
    scales = 2.0 ** np.arange(-5, 32) if scale_format == "pow2" else np.geomspace(0.1, 2.0**31, 4000)
    scales = scales.astype(ml_dtypes.bfloat16).astype(float)
    level = np.abs(x[:, None]) > 0.5 * scales
    mse = (weights[:, None] * (x[:, None] - scales * level) ** 2).sum(axis=0) / weights.sum()
    assert result.total.mse <= mse.min() * (1 + 1e-12)
    assert result.status == qe.Status.EXACT


@pytest.mark.parametrize(("kind", "most"), [("integer", 60), ("storable", 0)])
@pytest.mark.parametrize("form", ["e8m0", "bf16"])
def test_zero_points_with_stored_scales(form: str, kind: str, most: int) -> None:
    """bf16 has scales close enough for bounds, e8m0 only one an octave."""
    rng = np.random.default_rng(11)
    x = rng.standard_t(5, (12, 30)) * np.exp2(rng.uniform(0, 1, (12, 1))) + rng.uniform(-3, 3, (12, 1))
    result = qe.fit(x, "uint3", axis=0, zero_point=kind, scale_format=form)
    levels, scales = qe.grid("uint3").levels, STORED[form]
    scales = scales[(scales > 1e-3) & (scales < 1e3)]
    for row, mse in zip(x, result.error.mse[:, 0], strict=True):
        every = [errors(row, levels - p, scales).min() for p in range(-most, 8 + most)]
        assert mse <= min(every) * (1 + SAME)
    assert np.isin(result.scale, scales).all()
    assert (result.status == Status.EXACT).all()


@pytest.mark.parametrize("turn", [1, -1])
def test_zero_points_with_stored_scales_that_clip_everything(turn: int) -> None:
    """Of two scales the one that gains is tiny: the best zero point has the farthest level, and others nearly it."""
    x, grid = turn * np.array([-1.0, -1.0, -0.5, 0.9, 0.9, 0.5]), qe.grid("uint2")
    result = qe.fit(x, grid, zero_point="storable", scale_format=qe.Grid([2.0**-6, 64.0]))
    tried = {p: errors(x, grid.levels - p, np.array([2.0**-6, 64.0])).min() for p in range(4)}
    assert result.zero_point == min(tried, key=lambda p: tried[p]) == (3 if turn > 0 else 0)
    assert result.scale == 2.0**-6
    assert result.total.mse == pytest.approx(tried[int(result.zero_point)], rel=SAME)


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_under_every_constraint(rule: str) -> None:
    x = heavy((3, 64)).astype(np.float32)
    for options in ({"zero_point": "integer"}, {"scale_format": "bf16"}, {"scale_format": "e4m3fn"}):
        best = qe.fit(x, "int4", axis=0, **options)
        other = qe.fit(x, "int4", rule=rule, axis=0, **options)
        assert (best.error.mse <= other.error.mse * (1 + SAME)).all()
        assert (other.excess_db >= 0).all()
        codes = other.quantize(x)
        assert np.abs(other.dequantize(codes) - other.fake_quantize(x)).max() <= 1e-6 * np.abs(x).max()


@pytest.mark.parametrize(
    ("given", "name"),
    [
        *((form, "fp16") for form in ("float16", "FP16", "half", np.float16, np.dtype(np.float16))),
        *((form, "bf16") for form in ("bfloat16", "BF16", ml_dtypes.bfloat16)),
        *((form, "e4m3fn") for form in ("float8_e4m3fn", "E4M3FN", ml_dtypes.float8_e4m3fn)),
        *((form, "e8m0") for form in ("E8M0", "float8_e8m0fnu", " e8m0 ")),
        ("POW2", "pow2"),
    ],
)
def test_scale_formats_by_the_names_of_dtypes(given: Any, name: str) -> None:
    x = np.random.default_rng(3).standard_normal((4, 32))
    found, expected = (qe.fit(x, "int4", axis=0, scale_format=form) for form in (given, name))
    np.testing.assert_array_equal(found.scale, expected.scale)
    assert found.tensor_scale == expected.tensor_scale
    for wrong in ("float32", "fp8", "int8", 3, ["fp16"]):
        with pytest.raises(ValueError, match="scale_format must be 'fp16', 'bf16', 'e4m3fn', 'e8m0' or 'pow2', got"):
            qe.fit(x, "int4", scale_format=wrong)
