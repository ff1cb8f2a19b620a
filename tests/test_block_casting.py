"""Block formats as casting stores them: scales against exact fractions, values against ml_dtypes, bytes by hand."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import qerror as qe
from qerror.casting.best_stored import best_of_all
from qerror.casting.block_scales import scales_of
from qerror.grids.block_rules import octave_end, stored_scales
from qerror.results import Status

RNG = np.random.default_rng(20260112)
# Sums of squares in another order.
SAME = 1e-12
FORMS = {
    "absmax e4m3fn": qe.BlockFormat("e2m1", 3, "e4m3fn"),
    "absmax e8m0": qe.BlockFormat("e2m1", 3, "e8m0"),
    "absmax fp16": qe.BlockFormat("int4", 4, "fp16", constant=0.75),
    "absmax bf16": qe.BlockFormat("nf4", 2, "bf16"),
    "absmax pow2": qe.BlockFormat("int4_narrow", 5, "pow2", constant=1.5),
    "absmax of few": qe.BlockFormat("int4", 3, qe.Grid([-2.0, -1.0, 0.0, 1.0, 2.5])),
    "signed": qe.BlockFormat("int4", 4, "fp16", signed=True),
    "signed of a symmetric grid": qe.BlockFormat("e2m1", 3, "e4m3fn", signed=True),
    "up": qe.BlockFormat("e2m1", 3, "e4m3fn", rule="up"),
    "down": qe.BlockFormat("e2m1", 3, "e4m3fn", rule="down"),
    "up e8m0": qe.BlockFormat("e4m3fn", 3, "e8m0", rule="up"),
    "down bf16 signed": qe.BlockFormat("int8", 3, "bf16", rule="down", signed=True),
    **{f"{rule} mxfp4": qe.BlockFormat("e2m1", 4, "e8m0", rule=rule) for rule in ("floor", "ceil", "even", "rceil")},
    **{f"{rule} mxfp8": qe.BlockFormat("e4m3fn", 3, "e8m0", rule=rule) for rule in ("floor", "ceil", "even", "rceil")},
    "mxint8": qe.block_format("mxint8").replace(block_size=3),
    "floor with 0 and gaps": qe.BlockFormat("e2m1", 2, qe.Grid([0.0, 0.25, 1.0, 16.0]), rule="floor"),
    "even with a constant": qe.BlockFormat("int4", 3, "pow2", rule="even", constant=1.5),
}


def exact_scale(block: np.ndarray, form: qe.BlockFormat, unit: float = 1.0) -> Fraction:
    """The scale by the words of the rule, in fractions."""
    first = max(block.tolist(), key=abs)
    largest = Fraction(form.constants[0]) * abs(Fraction(first)) / Fraction(unit)
    octave = form.rule in ("floor", "ceil", "even", "rceil")
    half = Fraction(octave_end(form.grid, form.rule)) / 2 if octave else None
    aim = largest / (half if octave else Fraction(form.grid.absmax))
    every = stored_scales(form.scale_format)
    # Far away nothing is nearest or next.
    place = int(np.searchsorted(every, float(min(aim, Fraction(every[-1])))))
    values = [Fraction(v) for v in every[max(place - 3, 0) : place + 3].tolist()]
    parity = form.scale_format.codes[np.searchsorted(form.scale_format.levels, [float(v) for v in values])] % 2
    odd = dict(zip(values, parity.tolist(), strict=True))
    if form.rule == "absmax":
        scale = min(values, key=lambda v: (abs(v - aim), odd[v]))
    elif form.rule == "up":
        scale = next((v for v in values if v >= aim), values[-1])
    elif form.rule == "down":
        scale = next((v for v in reversed(values) if v <= aim), values[0])
    else:
        beyond = [v for v in values if v > 0 and (v < aim or (v == aim and form.rule not in ("ceil", "rceil")))]
        scale = max(beyond, default=values[0])
    turned = form.signed and (first > 0) == (-form.grid.min > form.grid.max)
    return -scale if turned else scale


def blocks_of(line: np.ndarray, size: int) -> list[np.ndarray]:
    return [line[i : i + size] for i in range(0, line.size, size)]


FLOAT32 = st.one_of(
    st.just(0.0),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.floats(-8, 8, width=32),
    # Ties of scales and ends of octaves.
    st.builds(lambda n, k: float(np.ldexp(n, k)), st.integers(-63, 63), st.integers(-20, 20)),
)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=40)
@given(
    arrays(np.float32, array_shapes(max_dims=2, max_side=9), elements=FLOAT32), st.sampled_from([1.0, 0.0078125, 0.3])
)
def test_scales_are_those_of_the_rule_in_exact_numbers(name: str, x: np.ndarray, unit: float) -> None:
    form, unit = FORMS[name], float(np.float32(unit))
    if unit == np.float32(0.3) and form.constants != (1.0,):
        # Constants times magnitudes over full digits may round.
        unit = 0.5
    found = qe.quantize(x, form, unit)
    lines = x.astype(np.float64).reshape(-1, x.shape[-1])
    expected = [[float(exact_scale(block, form, unit)) for block in blocks_of(line, form.block_size)] for line in lines]
    np.testing.assert_array_equal(found.scale.reshape(len(lines), -1), expected)
    assert found.tensor_scale == unit
    np.testing.assert_array_equal(qe.dequantize(found.scale_codes, form.scale_format, dtype=np.float64), found.scale)


@pytest.mark.parametrize("name", FORMS)
@settings(max_examples=20)
@given(arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 9)), elements=st.floats(-1e300, 1e300)))
def test_scales_of_float64(name: str, x: np.ndarray) -> None:
    form = FORMS[name]
    if form.constants == (1.0,):
        expected = [[float(exact_scale(block, form)) for block in blocks_of(line, form.block_size)] for line in x]
        np.testing.assert_array_equal(qe.quantize(x, form).scale, expected)


def test_the_ends_of_formats() -> None:
    tiny, huge = np.finfo(np.float32).smallest_subnormal, np.finfo(np.float32).max
    x = np.array([[tiny, -tiny], [0.0, 0.0], [huge, 1.0]], np.float32)
    for name, low, high in (("e4m3fn", 0.0, 448.0), ("e8m0", 2.0**-127, 2.0**125), ("fp16", 0.0, 65504.0)):
        found = qe.quantize(x, qe.BlockFormat("e2m1", 2, name))
        # Almost 2^128 / 6, which is 1.33 * 2^125.
        np.testing.assert_array_equal(found.scale, [[low], [low], [high]])
    for rule in ("floor", "ceil", "even", "rceil"):
        form = qe.block_format("mxfp4").replace(block_size=2, rule=rule)
        assert qe.quantize(x, form).scale[1, 0] == 2.0**-127
        assert qe.quantize(np.array([5e-324, 0.0]), form).scale[0] == 2.0**-127
        assert qe.quantize(np.array([1e300, 0.0]), form).scale[0] == 2.0**127
    # Of any size: that of the magnitude, 0 where there is none.
    np.testing.assert_array_equal(qe.quantize(x, "int4_g2").scale, [[float(tiny) / 8], [0.0], [float(huge) / 8]])
    assert qe.quantize(np.array([np.finfo(np.float64).max]), qe.BlockFormat("int4", 1, constant=4)).scale[0] == (
        np.finfo(np.float64).max / 2
    )


def test_blocks_whose_scale_underflows_become_0() -> None:
    x = np.array([[1.0, -6.0, 1e-4, -2e-4]], np.float32)
    form = qe.BlockFormat("e2m1", 2, "e4m3fn")
    found = qe.quantize(x, form)
    assert found.scale.tolist() == [[1.0, 0.0]]
    assert found.codes.tolist() == [[2, 15, 0, 0]]
    np.testing.assert_array_equal(qe.dequantize(found), [[1.0, -6.0, 0.0, 0.0]])
    np.testing.assert_array_equal(qe.fake_quantize(x, form), [[1.0, -6.0, 0.0, 0.0]])
    # Of a grid without 0, too.
    np.testing.assert_array_equal(qe.fake_quantize(np.zeros(3), "binary_g2_fp16"), np.zeros(3))
    np.testing.assert_array_equal(qe.dequantize(qe.quantize(np.zeros(3), "binary_g2_fp16")), np.zeros(3))


@pytest.mark.parametrize("rule", ["floor", "ceil", "even", "rceil"])
@pytest.mark.parametrize("grid", ["e2m1", "e2m3", "e3m2", "e4m3fn", "e5m2", "int8", "int4"])
@given(arrays(np.float32, (5, 7), elements=st.floats(2**-60, 2**60, width=32)))
def test_law_of_the_octaves(rule: str, grid: str, x: np.ndarray) -> None:
    form = qe.BlockFormat(grid, 7, "e8m0", rule=rule)
    theta = octave_end(form.grid, rule)
    ratio = np.abs(x).max(axis=1) / qe.quantize(x, form).scale[:, 0]
    assert (ratio >= theta / 2).all()
    assert (ratio <= theta).all()
    assert (ratio != (theta / 2 if rule in ("ceil", "rceil") else theta)).all()


# -- comparing errors --------------------------------------------------------------------------------------------------


def errors(block: np.ndarray, grid: qe.Grid, scales: np.ndarray) -> np.ndarray:
    """Sum of the squared errors at each scale, by looking the nearest level up."""
    q = block[:, None] / np.where(scales > 0, scales, np.inf)
    nearest = grid.levels[np.searchsorted(grid.thresholds, q)]
    return ((block[:, None] - scales * nearest) ** 2).sum(axis=0)


@pytest.mark.parametrize("grid", ["int4", "e2m1", "nf4", "e4m3fn", "binary", "uint4", "e3m0", "int4_midrise"])
@pytest.mark.parametrize("stored", ["e4m3fn", "e8m0", "fp16", "few"])
def test_the_best_of_all_is_that_of_enumeration(grid: str, stored: str) -> None:
    rows = RNG.standard_t(3, (12, 9)) * 10.0 ** RNG.uniform(-5, 5, (12, 1))
    rows[0] = 0
    rows[1] = np.round(rows[1] / np.abs(rows[1]).max() * 4)
    rows[2, 1:] = 0
    values = np.array([0.0, 0.5, 0.75, 8.0]) if stored == "few" else stored_scales(qe.grid(stored))
    levels = qe.grid(grid)
    found = best_of_all(rows, levels, values)
    for row, scale in zip(rows, found, strict=True):
        every = errors(row, levels, values)
        assert errors(row, levels, np.array([scale]))[0] <= every.min() * (1 + SAME) + 1e-300
        clearly = every <= every.min() * (1 + SAME)
        assert scale >= values[clearly][0]


@settings(max_examples=100)
@given(
    arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 6)), elements=st.integers(-12, 12).map(float)),
    st.sampled_from(["int4", "e2m1", "ternary", "uint3", "binary"]),
    st.sampled_from(["e4m3fn", "e8m0"]),
)
def test_the_smallest_of_equals(rows: np.ndarray, grid: str, stored: str) -> None:
    """Small integers on stored scales of few digits: every sum is exact."""
    levels, values = qe.grid(grid), stored_scales(qe.grid(stored))
    values = values[(values == 0) | ((values > 2**-9) & (values < 2**9))]
    for row, scale in zip(rows, best_of_all(rows, levels, values), strict=True):
        every = errors(row, levels, values)
        assert scale == values[every.argmin()]


def test_best_with_weights_leaves_out_what_has_none() -> None:
    rows, weights = RNG.standard_t(3, (40, 8)), RNG.integers(0, 3, (40, 8)).astype(np.float64)
    weights[:, 0] = 1
    values = stored_scales(qe.grid("e4m3fn"))
    found = best_of_all(rows, qe.grid("int4"), values, 1.0, weights)
    for row, weight, scale in zip(rows, weights, found, strict=True):
        repeated = np.repeat(row, weight.astype(int))
        every = errors(repeated, qe.grid("int4"), values)
        assert errors(repeated, qe.grid("int4"), np.array([scale]))[0] <= every.min() * (1 + SAME)


@pytest.mark.parametrize("stored", ["e4m3fn", None, "e8m0"])
def test_best_of_takes_the_constant_of_least_error(stored: str | None) -> None:
    x = RNG.standard_t(3, (20, 37))
    form = qe.BlockFormat("e2m1", 16, stored, rule="best_of", constant=(1, 1.5, 0.75))
    found = qe.quantize(x, form)
    single = [qe.quantize(x, form.replace(rule="absmax", constant=c)).scale for c in form.constants]
    for i, j in np.ndindex(found.scale.shape):
        scales = np.array([s[i, j] for s in single])
        every = errors(x[i, 16 * j : 16 * j + 16], form.grid, scales)
        assert found.scale[i, j] == scales[every.argmin()]
    # Of equals the first: one value is met by either.
    equals = qe.BlockFormat("int4", 1, rule="best_of", constant=(2.0, 1.0))
    assert qe.quantize([-8.0], equals).scale.tolist() == [2.0]


# -- codes and values --------------------------------------------------------------------------------------------------


def test_mxfp4_is_that_of_ml_dtypes() -> None:
    x = (RNG.standard_t(4, (6, 80)) * 2.0 ** RNG.integers(-40, 40, (6, 1))).astype(np.float32)
    stored = qe.quantize(x, "mxfp4")
    assert stored.scale.shape == (6, 3)
    np.testing.assert_array_equal(stored.scale_codes.view(ml_dtypes.float8_e8m0fnu).astype(np.float64), stored.scale)
    for j in range(3):
        block = x[:, 32 * j : 32 * j + 32]
        scale = 2.0 ** (np.floor(np.log2(np.abs(block).max(axis=1, keepdims=True))) - 2)
        np.testing.assert_array_equal(stored.scale[:, j : j + 1], scale)
        scaled = np.clip(block / scale.astype(np.float32), -6, 6).astype(ml_dtypes.float4_e2m1fn)
        np.testing.assert_array_equal(stored.codes[:, 32 * j : 32 * j + 32], scaled.view(np.uint8))
        values = scaled.astype(np.float32) * scale.astype(np.float32)
        np.testing.assert_array_equal(qe.dequantize(stored)[:, 32 * j : 32 * j + 32], values)


def test_nvfp4_is_that_of_ml_dtypes() -> None:
    x = RNG.standard_t(4, (6, 40)) * np.exp(2 * RNG.standard_normal((6, 1)))
    stored = qe.quantize(x, "nvfp4")
    t = np.float32(np.abs(x).max() / (448 * 6))
    assert stored.tensor_scale == t
    for j in range(3):
        block = x[:, 16 * j : 16 * j + 16]
        scale = np.minimum(np.abs(block).max(axis=1, keepdims=True) / 6 / float(t), 448).astype(ml_dtypes.float8_e4m3fn)
        np.testing.assert_array_equal(stored.scale_codes[:, j : j + 1], scale.view(np.uint8))
        wide = scale.astype(np.float64) * float(t)
        scaled = np.clip(block / wide, -6, 6).astype(ml_dtypes.float4_e2m1fn)
        np.testing.assert_array_equal(stored.codes[:, 16 * j : 16 * j + 16], scaled.view(np.uint8))
        values = qe.dequantize(stored, dtype=np.float64)[:, 16 * j : 16 * j + 16]
        np.testing.assert_array_equal(values, scaled.astype(np.float64) * wide)


@pytest.mark.parametrize("full", [448.0, 256.0])
def test_the_tensor_scale_leaves_the_largest_block_scale_it_names(full: float) -> None:
    x = RNG.standard_normal((4, 64)).astype(np.float32)
    form = qe.block_format("nvfp4").replace(tensor_scale=full)
    stored = qe.quantize(x, form)
    assert stored.scale.max() == full
    assert stored.tensor_scale == float(np.float32(float(np.abs(x).max()) / (full * 6)))
    assert qe.fit(x, form).tensor_scale == stored.tensor_scale
    assert qe.quantize(np.zeros((1, 16)), form).tensor_scale == 1.0
    # A scale that is given is the tensor scale.
    assert qe.quantize(x, form, 0.25).tensor_scale == 0.25
    np.testing.assert_array_equal(qe.quantize(0.25 * x, "mxfp4", 0.25).codes, qe.quantize(x, "mxfp4").codes)


@settings(max_examples=60)
@given(
    arrays(np.float32, array_shapes(max_dims=3, max_side=7), elements=st.floats(-100, 100, width=32)),
    st.sampled_from(["mxfp4", "nvfp4", "int4_g3", "int8_g2_bf16", "nf4_g4_fp16", "e4m3fn_g5_e8m0"]),
    st.data(),
)
def test_there_and_back(x: np.ndarray, name: str, data: st.DataObject) -> None:
    # Of the axis that nobody named, the last, short ones are refused.
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1).filter(lambda at: at != -1))
    before = x.copy()
    stored = qe.quantize(x, name, block_axis=axis)
    values = qe.fake_quantize(x, name, block_axis=axis)
    np.testing.assert_array_equal(x, before)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(qe.dequantize(stored), values)
    form = qe.block_format(name)
    assert stored.scale.shape == tuple(
        -(-n // form.block_size) if i == axis % x.ndim else n for i, n in enumerate(x.shape)
    )
    # Any axis is the last one of the array with its axes moved.
    moved = qe.quantize(np.moveaxis(x, axis, -1), form, block_axis=x.ndim - 1)
    np.testing.assert_array_equal(np.moveaxis(stored.codes, axis, -1), moved.codes)
    np.testing.assert_array_equal(np.moveaxis(stored.scale, axis, -1), moved.scale)
    if form.grid.bits == 4 and x.shape[axis] % 2 == 0:
        packed = qe.quantize(x, form, block_axis=axis, pack=True)
        assert packed.codes.dtype == np.uint8
        assert packed.codes.size == x.size // 2
        np.testing.assert_array_equal(qe.dequantize(packed, form), values)


def test_two_codes_in_a_byte() -> None:
    stored = qe.quantize([1.0, -2.0, 0.5, 6.0], "mxfp4", pack=True)
    # 1 is 0010, -2 is 1100, 0.5 is 0001, 6 is 0111; the first of a pair is the lower half.
    assert stored.codes.tolist() == [0xC2, 0x71]
    integers = qe.quantize([-8.0, 7.0, -1.0, 3.0], "int4_g4", pack=True)
    assert integers.codes.tolist() == [0x78, 0x3F]
    np.testing.assert_array_equal(qe.dequantize(integers), [-8.0, 7.0, -1.0, 3.0])
    columns = qe.quantize(np.array([[1.0, -2.0], [0.5, 6.0]]), "mxfp4", block_axis=0, pack=True)
    # Scales 0.25 and 1: 4 is 0110, 2 is 0100; -2, 6.
    assert columns.codes.tolist() == [[0x46, 0x7C]]
    offset = qe.BlockFormat(qe.Grid(np.arange(-3.0, 13.0)), 16)
    x = np.arange(-3.0, 13.0)
    assert qe.quantize(x, offset, pack=True).codes.tolist()[:2] == [0xED, 0x0F]
    np.testing.assert_array_equal(qe.dequantize(qe.quantize(x, offset, pack=True)), x)


def test_other_dtypes() -> None:
    x = RNG.standard_normal((3, 40))
    for dtype in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e5m2):
        narrow = x.astype(dtype)
        wide = qe.quantize(narrow.astype(np.float32), "mxfp4")
        found = qe.quantize(narrow, "mxfp4")
        np.testing.assert_array_equal(found.scale, wide.scale)
        np.testing.assert_array_equal(found.codes, wide.codes)
        assert qe.fake_quantize(narrow, "mxfp4").dtype == narrow.dtype
    integers = np.array([-128, 3, 64], np.int8)
    assert qe.quantize(integers, "int4_g3").scale.tolist() == [16.0]
    assert qe.fake_quantize(integers, "int4_g3").dtype == np.float64
    empty = qe.quantize(np.empty((0, 5)), "mxfp4")
    assert empty.codes.shape == (0, 5)
    assert qe.dequantize(empty).shape == (0, 5)
    assert qe.fake_quantize(np.empty((5, 0)), "nvfp4").shape == (5, 0)


def test_stochastic_rounding_leaves_the_scales() -> None:
    x = RNG.standard_normal((4, 100))
    nearest = qe.quantize(x, "nvfp4")
    found = [qe.quantize(x, "nvfp4", rounding="stochastic", rng=seed) for seed in range(200)]
    assert all((one.scale == nearest.scale).all() for one in found)
    again = qe.quantize(x, "nvfp4", rounding="stochastic", rng=3)
    np.testing.assert_array_equal(again.codes, found[3].codes)
    mean = np.mean([qe.dequantize(one, dtype=np.float64) for one in found], axis=0)
    steps = np.repeat(nearest.scale * nearest.tensor_scale, 16, axis=1)[:, :100] * 2
    inside = np.abs(x) <= np.repeat(nearest.scale * nearest.tensor_scale, 16, axis=1)[:, :100] * 6
    # A step of at most 2: its standard deviation is at most 1 scale.
    assert (np.abs(mean - x)[inside] < 5 * (0.5 * steps / np.sqrt(200))[inside]).all()


def test_negative_scales_meet_the_level_of_largest_magnitude() -> None:
    form = qe.BlockFormat("int4", 4, signed=True)
    x = np.array([4.0, 1.0, -2.0, 0.0, -4.0, 1.0, 4.0, 0.0, 0.0])
    stored = qe.quantize(x, form)
    assert stored.scale.tolist() == [-0.5, 0.5, 0.0]
    assert stored.codes.tolist() == [-8, -2, 4, 0, -8, 2, 7, 0, 0]
    assert not np.signbit(stored.scale[2])
    rule = qe.fit(x[:4], "int4", rule="signed_absmax")
    assert rule.scale == -0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda x: qe.quantize(x, "mxfp4", shift=1.0), "shift must be left at 0 with mxfp4, which has none, got 1.0"),
        (lambda x: qe.quantize(x, "mxfp4", zero_point=1), "zero_point must be left out with mxfp4"),
        (
            lambda x: qe.quantize(x, "mxfp4", [1.0, 2.0]),
            "scale must be one number, the tensor scale of mxfp4, got shape",
        ),
        (lambda x: qe.quantize(x, "mxfp4", -1.0), "scale must be positive and finite, got -1.0"),
        (lambda x: qe.quantize(x, "mxfp4", block_axis=2), "block_axis must be an integer from -2 to 1, got 2"),
        (lambda x: qe.quantize(1.0, "mxfp4"), "x must have an axis to be cut into blocks"),
        (
            lambda x: qe.quantize(x, "int4", block_axis=0),
            "block_axis must be left out with int4, which has no blocks, got 0",
        ),
        (lambda x: qe.quantize(x, "int4", pack=True), "pack must be left out with int4, which has no blocks"),
        (
            lambda x: qe.quantize(x, "mxfp8_e4m3", pack=True),
            "two codes of 4 bits make a byte, those of mxfp8_e4m3 have 8",
        ),
        (lambda x: qe.quantize(x, "mxfp4", pack=True), "pack must be False for an odd length along block_axis"),
        (lambda x: qe.quantize(x, "mxfp4", rounding="up"), "rounding must be 'nearest' or 'stochastic', got 'up'"),
        (lambda x: qe.quantize(x, qe.BlockFormat("int4", 2, rule="optimal")), "qerror.fit finds the best scale of any"),
        (lambda x: qe.quantize(x, "mxfp44"), "unknown grid 'mxfp44'"),
        (lambda x: qe.dequantize(np.array([1]), "mxfp4"), "codes must be BlockCodes to go back from mxfp4"),
        (
            lambda x: qe.dequantize(qe.quantize(x, "mxfp4"), "nvfp4"),
            "grid must be left out or mxfp4, which the codes are",
        ),
        (
            lambda x: qe.dequantize(qe.quantize(x, "mxfp4"), "int4"),
            "grid must be left out or mxfp4, which the codes are",
        ),
        (lambda x: qe.dequantize(qe.quantize(x, "mxfp4"), scale=2.0), "scale must be left out with codes of mxfp4"),
        (lambda x: qe.dequantize(np.array([1])), "grid must be a name, a dtype or a Grid, got None"),
        (lambda x: qe.BlockFormat("int4", 2, "e8m0", signed=True), "scale_format e8m0, which has no negative values"),
    ],
)
def test_bad_calls(call: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call(np.ones((2, 3)))


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4_g2", "nf4_g2_fp16"])
@pytest.mark.parametrize("rule", ["absmax", "up", "best_of", "optimal"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(name: str, rule: str, bad: float) -> None:
    form = qe.block_format(name)
    if form.scale_format is None and rule in ("up", "optimal"):
        return
    form = form.replace(rule=rule, constant=(1, 1.5) if rule == "best_of" else 1)
    x = np.ones((2, 5), np.float32)
    x[1, 3] = bad
    for verb in (qe.quantize, qe.fake_quantize, qe.fit, qe.evaluate):
        with pytest.raises(
            ValueError, match=r"x must be finite, got 1 .* of 10 values, the first is .* at index \(1, 3\)"
        ):
            verb(x, form)
    assert qe.quantize(np.ones((1, 5)), form).codes.shape == (1, 5)


# -- fitting -----------------------------------------------------------------------------------------------------------

RULES = {
    "absmax": {},
    "up": {},
    "down": {},
    "floor": {},
    "ceil": {},
    "even": {},
    "rceil": {},
    "best_of": {"constant": (1, 1.5)},
    "optimal": {},
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["mxfp4", "mxfp8_e4m3", "nvfp4", "int4_g32", "int4_g32_bf16", "nf4_g64_fp16"])
def test_fit_has_the_scales_of_casting(name: str, rule: str) -> None:
    form = qe.block_format(name)
    octave = rule in ("floor", "ceil", "even", "rceil")
    if (octave and "mx" not in name) or (form.scale_format is None and rule in ("up", "down", "optimal")):
        return
    form = form.replace(rule=rule, **{"constant": 1.0, **RULES[rule]})
    x = (RNG.standard_t(3, (5, 200)) * np.exp(3 * RNG.standard_normal((5, 1)))).astype(np.float32)
    x[0, :64], x[1] = 0, x[1] * 1e-12
    stored, fitted, measured = qe.quantize(x, form), qe.fit(x, form, rule=form.rule), qe.evaluate(x, form)
    np.testing.assert_array_equal(fitted.scale, stored.scale * stored.tensor_scale)
    np.testing.assert_array_equal(measured.scale, fitted.scale)
    np.testing.assert_array_equal(fitted.quantize(x), stored.codes)
    values = qe.fake_quantize(x, form)
    np.testing.assert_array_equal(fitted.fake_quantize(x), values)
    np.testing.assert_array_equal(fitted.dequantize(fitted.quantize(x)), values)
    wide = fitted.fake_quantize(x.astype(np.float64))
    assert fitted.total.mse == pytest.approx(np.mean((x - wide) ** 2), rel=1e-12)
    assert fitted.total.power == pytest.approx(np.mean(x.astype(np.float64) ** 2), rel=1e-12)
    assert measured.form is form
    assert measured.rule == rule
    if rule != "optimal":
        assert (measured.status == Status.RULE).all()
        assert (fitted.excess_db >= 0).all()
    # Scales that are 0 are given as others are.
    again = qe.evaluate(x, form, fitted.scale)
    assert again.total.mse == fitted.total.mse
    assert (again.status == Status.GIVEN).all()


def test_blocks_of_scale_0_are_clipped_to_0() -> None:
    x = np.array([[6.0, 1.0, 1e-9, -2e-9]])
    result = qe.fit(x, qe.BlockFormat("e2m1", 2, "e4m3fn"), rule="absmax")
    assert result.scale.tolist() == [[1.0, 0.0]]
    assert result.error.clipping[0, 1] == pytest.approx((1e-18 + 4e-18) / 2, rel=1e-12)
    assert result.error.rounding.tolist() == [[0.0, 0.0]]
    assert result.error.bias[0, 1] == pytest.approx(0.5e-9, rel=1e-9)
    assert result.clipped_fraction.tolist() == [[0.0, 1.0]]
    with pytest.raises(ValueError, match="x must be finite"):
        result.quantize(np.array([[6.0, 1.0, np.nan, 0.0]]))
    moved = qe.fit(x + 3, "e2m1", block_size=2, scale_format="e8m0", rule="absmax", shift=3.0)
    np.testing.assert_allclose(moved.scale, [[1.0, 2.0**-32]])


def test_options_of_rules() -> None:
    x = RNG.standard_t(3, (8, 64))
    for text, options in (
        ("absmax:constant=0.9", {"rule": "absmax", "constant": 0.9}),
        ("up", {"rule": "up"}),
        ("best_of:constants=1,1.5", {"rule": "best_of", "constant": (1, 1.5)}),
        ("best_of:constants=[1, 1.25, 1.5]", {"rule": "best_of", "constant": (1, 1.25, 1.5)}),
        ("absmax:signed=true,constant=0.9", {"rule": "absmax", "constant": 0.9, "signed": True}),
    ):
        form = qe.BlockFormat("int4", 16, "bf16", **options)
        for base in (qe.BlockFormat("int4", 16, "bf16"), qe.BlockFormat("int4", 16, "bf16", constant=1.1)):
            if base.constants != (1.0,) and text == "up":
                form = form.replace(constant=1.1)
            np.testing.assert_array_equal(qe.fit(x, base, rule=text).scale, qe.quantize(x, form).scale)
    # What is not said is the format's.
    own = qe.BlockFormat("int4", 16, "bf16", rule="best_of", constant=(1, 1.5))
    np.testing.assert_array_equal(qe.fit(x, own, rule="best_of").scale, qe.quantize(x, own).scale)
    np.testing.assert_array_equal(qe.fit(x, own, rule="absmax").scale, qe.quantize(x, "int4_g16_bf16").scale)
    signed = qe.BlockFormat("int4", 16, "bf16", signed=True)
    assert (qe.fit(x, signed, rule="down").scale < 0).any()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("absmax:p=1", "rule absmax has no option 'p'; it has constant, signed"),
        ("even:signed=true", "rule even has no option 'signed'; it has constant"),
        ("best_of", "constant must hold several numbers for rule best_of"),
        ("best_of:constants=1", "constant must hold several numbers for rule best_of"),
        ("absmax:constant=1,2", "constant must be one number for rule absmax"),
        ("absmax:constant=no", "constant must be a real number"),
        ("absmax:constant=-1", "constant must be positive and finite, got -1"),
        ("absmax:signed=1", "signed must be true or false, got 1"),
        ("up", "scale_format must be given for rule up"),
        ("flor", "unknown rule 'flor'; did you mean 'floor'"),
    ],
)
def test_bad_rules(rule: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qe.fit(np.ones((2, 4)), "int4", rule=rule)


def test_rules_on_grids_that_are_no_formats() -> None:
    x = RNG.standard_t(3, (8, 100))
    largest = np.abs(x).max(axis=1, keepdims=True)
    np.testing.assert_array_equal(qe.fit(x, "int4", axis=0, rule="absmax").scale, largest / 8)
    np.testing.assert_array_equal(qe.fit(x, "int4", axis=0, rule="absmax:constant=0.5").scale, 0.5 * largest / 8)
    for rule in ("floor", "ceil", "even", "rceil"):
        scale = qe.fit(x, "e2m1", axis=0, rule=rule).scale
        theta = octave_end(qe.grid("e2m1"), rule)
        assert (np.frexp(scale)[0] == 0.5).all()
        assert ((largest / scale >= theta / 2) & (largest / scale <= theta)).all()
    np.testing.assert_array_equal(
        qe.fit(x, "e2m1", block_size=32, rule="floor").scale, qe.fit(x, "e2m1", block_size=32, rule="ocp").scale
    )
    centred = qe.fit(x + 5, "int4", axis=0, rule="absmax", shift="mean")
    about = np.abs(x + 5 - (x + 5).mean(axis=1, keepdims=True)).max(axis=1, keepdims=True)
    np.testing.assert_allclose(centred.scale, about / 8, rtol=1e-14)
    tiles = qe.fit(x, "int4", block_size=(4, 50), rule="absmax", scale_format="fp16")
    expected = np.abs(x).reshape(2, 4, 2, 50).max(axis=(1, 3)) / 8
    np.testing.assert_array_equal(tiles.scale, expected.astype(np.float16).astype(np.float64))
    with pytest.raises(ValueError, match="zero_point must be left out with rule absmax"):
        qe.fit(x, "int4", rule="absmax", zero_point="integer")
    with pytest.raises(ValueError, match="shift must be a number or 'mean' for rule even"):
        qe.fit(x, "int4", rule="even", shift="optimal")
    with pytest.raises(ValueError, match="rule best_of compares errors of blocks of data"):
        qe.rules.as_rule("best_of:constants=1,2")(qe.Uniform(), "int4")
    assert float(qe.rules.as_rule("absmax")(qe.Uniform.from_bounds(-4, 2), "int4").scale) == 0.5


def test_the_best_of_both_signs_of_stored_scales() -> None:
    x = RNG.standard_t(3, (6, 64))
    levels = qe.grid("int4")
    values = stored_scales(qe.grid("fp16"))
    form = qe.BlockFormat("int4", 16, "fp16", signed=True)
    results = [qe.fit(x, form), qe.fit(x, "int4", block_size=16, scale_format="fp16", sign="either")]
    for result in results:
        assert (result.scale < 0).any()
        assert (result.status == Status.EXACT).all()
        for i, j in ((0, 0), (3, 2)):
            block = x[i, 16 * j : 16 * j + 16]
            every = min(errors(block, levels, values).min(), errors(-block, levels, values).min()) / 16
            assert result.error.mse[i, j] <= every * (1 + 1e-11)
    one = qe.evaluate(x, form)
    assert (one.excess_db >= 0).all()
    assert one.total.mse > results[0].total.mse
    with pytest.raises(ValueError, match="sign must be 'positive' with scale_format, whose scales have no sign"):
        qe.fit(x, "int4", block_size=16, scale_format="e8m0", sign="either")
    one_sided = qe.BlockFormat("uint4", 16, "fp16", signed=True)
    assert (qe.fit(-np.abs(x), one_sided).scale < 0).all()
    assert (qe.fit(-np.abs(x), "uint4", block_size=16, rule="absmax", sign="either").scale < 0).all()


def test_evaluate_needs_a_scale_for_grids() -> None:
    with pytest.raises(ValueError, match="scale must be given for a grid; block formats have a rule of their own"):
        qe.evaluate([1.0], "int4")
    with pytest.raises(ValueError, match="scale must be given with a shift or a zero_point"):
        qe.evaluate([1.0], "mxfp4", shift=1.0)
    with pytest.raises(ValueError, match="scale must be finite and not 0, got 0"):
        qe.evaluate([1.0], "int4", 0.0)


def test_results_say_their_format() -> None:
    x = RNG.standard_normal((2, 64))
    result = qe.fit(x, "nvfp4", rule="absmax")
    assert result.form == qe.block_format("nvfp4")
    assert "nvfp4" in repr(result)
    assert "e2m1 in blocks of 16" in repr(result)
    assert qe.fit(x, "int4").form is None
    shown = repr(qe.quantize(x, "nvfp4", pack=True))
    assert "nvfp4" in shown
    assert "(2, 64), block axis 1, two codes in a byte" in shown


def test_weights_count_in_the_best_of_formats() -> None:
    x, w = RNG.standard_t(3, (4, 32)), RNG.integers(0, 4, (4, 32)).astype(np.float64)
    w[:, ::7] = 1
    values = stored_scales(qe.grid("e8m0"))
    for rule in ("optimal", "best_of:constants=1,1.5"):
        result = qe.fit(x, "mxfp4", rule=rule, weights=w)
        for row, weight, mse, scale in zip(x, w, result.error.mse[:, 0], result.scale[:, 0], strict=True):
            repeated = np.repeat(row, weight.astype(int))
            candidates = values
            if rule != "optimal":
                kept = row[weight > 0]
                both = [
                    scales_of(kept[None], qe.block_format("mxfp4").replace(rule="absmax", constant=c)) for c in (1, 1.5)
                ]
                candidates = np.concatenate(both)
            every = errors(repeated, qe.grid("e2m1"), candidates) / repeated.size
            assert mse == pytest.approx(every.min(), rel=1e-12)
            assert scale in candidates


# -- real tensors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mxfp4", "mxfp8_e4m3", "nvfp4"])
def test_optimal_is_never_above_anything_on_real_tensors(name: str, real_data: Path) -> None:
    form = qe.block_format(name)
    values = stored_scales(form.scale_format)
    checkpoint = qe.files.open_checkpoint(real_data / "stories260k.safetensors")
    matrices = [info.name for info in checkpoint.tensors if len(info.shape) == 2][:6]
    for tensor in matrices:
        x = np.asarray(checkpoint[tensor])[:48]
        best = qe.fit(x, form)
        assert (best.status != Status.SCANNED).all()
        rules = ["absmax", "up", "down", "minmax", "best_of:constants=1,1.5"]
        rules += ["floor", "ceil", "even", "rceil", "ocp"] if "mx" in name else []
        for rule in rules:
            other = qe.fit(x, form, rule=rule)
            assert (best.error.mse <= other.error.mse * (1 + SAME) + 1e-300).all()
        unit = best.tensor_scale or 1.0
        for i, j in zip(RNG.integers(0, best.scale.shape[0], 8), RNG.integers(0, best.scale.shape[1], 8), strict=True):
            block = x[i, form.block_size * j : form.block_size * (j + 1)].astype(np.float64)
            every = errors(block, form.grid, values * unit) / block.size
            assert best.error.mse[i, j] <= every.min() * (1 + SAME)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("name", ["mxfp4", "nvfp4"])
def test_optimal_is_never_above_any_stored_scale_on_all_tensors(name: str, real_data: Path) -> None:
    """Every block of every tensor, rounded at every one of the scales that may matter (126 of E4M3)."""
    form = qe.block_format(name)
    seen = 0
    for file in sorted(real_data.glob("*.safetensors")):
        with qe.files.open_checkpoint(file) as checkpoint:
            for info in checkpoint.tensors:
                x = np.asarray(checkpoint[info.name], np.float32)
                if x.size < form.block_size or x.dtype.kind != "f" or not x.any():
                    continue
                x = x.reshape(-1)[: x.size // form.block_size * form.block_size]
                best = qe.fit(x, form, measure=True)
                unit, values = best.tensor_scale or 1.0, stored_scales(form.scale_format)
                values = values[values > 0] * unit
                blocks = x.reshape(-1, form.block_size).astype(np.float64)
                top = np.abs(blocks).max()
                # Beyond the range of the data a power of two is as good as none.
                values = values[(values <= 4 * max(top, values[0])) & (values >= 2.0**-60 * top)]
                least = (blocks**2).sum(axis=1)
                for value in values:
                    off = blocks - value * form.grid.levels[np.searchsorted(form.grid.thresholds, blocks / value)]
                    np.minimum(least, np.einsum("ij,ij->i", off, off), out=least)
                mse = np.ravel(best.error.mse) * form.block_size
                assert (mse <= least * (1 + 1e-9) + 1e-30 * top**2).all(), info.name
                seen += 1
    assert seen > 30


# -- simulation --------------------------------------------------------------------------------------------------------


def test_simulated_blocks_are_cast_blocks() -> None:
    """The stream of a simulation, drawn and cast here once more."""
    from qerror.evidence.sampling import streams

    form, density = qe.block_format("nvfp4"), qe.Laplace(std=0.5)
    found = qe.simulate(density, form, 0.25, n=1601, rng=7)
    assert found.n == 1616
    (stream,) = streams("pseudo", 101, 7)
    x = density.sample((101, 16), stream.generators()[0])
    error = qe.fake_quantize(x, form, 0.25) - x
    scale = 0.25 * qe.quantize(x, form, 0.25).scale
    outside = np.abs(x) > 6 * scale
    terms = {
        "clipping": np.where(outside, error**2, 0).mean(axis=1),
        "rounding": np.where(outside, 0, error**2).mean(axis=1),
        "mse": (error**2).mean(axis=1),
        "bias": error.mean(axis=1),
        "cross": (x * error).mean(axis=1),
        "power": (x**2).mean(axis=1),
        "mean": x.mean(axis=1),
    }
    for name, means in terms.items():
        assert getattr(found.estimate, name) == pytest.approx(means.mean(), rel=1e-12)
        if name != "clipping" or outside.any(axis=1).sum() >= 30:
            assert getattr(found.stderr, name) == pytest.approx(means.std(ddof=1) / np.sqrt(101), rel=1e-11)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4_g16"])
def test_standard_errors_are_those_of_independent_blocks(name: str) -> None:
    """The scatter of a hundred simulations is what each of them says."""
    runs = [qe.simulate(qe.Gaussian(), name, n=16_000, rng=seed) for seed in range(1000, 1100)]
    for term in ("mse", "power", "cross"):
        values = np.array([getattr(run.estimate, term) for run in runs])
        said = np.mean([getattr(run.stderr, term) for run in runs])
        # The standard deviation of 100 values is known to 7 %.
        assert np.std(values, ddof=1) == pytest.approx(said, rel=0.25)


def test_simulations_of_blocks_broadcast_and_repeat() -> None:
    scales = np.array([[0.5], [1.0]])
    density = qe.Gaussian(std=np.array([1.0, 2.0, 3.0]))
    found = qe.simulate(density, "mxfp4", scales, n=10_000, rng=3)
    assert found.estimate.mse.shape == (2, 3)
    single = qe.simulate(qe.Gaussian(std=2.0), "mxfp4", 0.5, n=10_000, rng=3)
    assert found.estimate.mse[0, 1] == single.estimate.mse
    # Powers of two scale along.
    doubled = qe.simulate(qe.Gaussian(std=2.0), "mxfp4", 1.0, n=10_000, rng=3)
    assert doubled.estimate.mse == pytest.approx(single.estimate.mse, rel=1e-12)
    stochastic = qe.simulate(qe.Gaussian(), "nvfp4", 0.01, n=200_000, rng=3, rounding="stochastic")
    assert abs(stochastic.estimate.bias) < 5 * stochastic.stderr.bias
    assert stochastic.estimate.mse > qe.simulate(qe.Gaussian(), "nvfp4", 0.01, n=200_000, rng=3).estimate.mse
    heavy = qe.simulate(qe.StudentT(3), "mxfp4", n=10_000, rng=1)
    assert np.isnan(heavy.stderr.mse)
    assert "E[x^4] is infinite" in heavy.reason


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": "mxfp4", "n": 3168}, "n must be at least 3200, 100 blocks of 32, got 3168"),
        ({"grid": "mxfp4", "n": 9999, "sampler": "sobol"}, "sampler must be 'pseudo' with mxfp4"),
        ({"grid": "mxfp4", "n": 9999, "shift": 1.0}, "shift must be left at 0 with mxfp4, which has none, got 1.0"),
        ({"grid": "mxfp4", "n": 9999, "scale": -1.0}, "scale must be positive and finite, got -1.0"),
        ({"grid": "int4", "n": 9999}, "scale must be given for a grid"),
    ],
)
def test_bad_simulations(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qe.simulate(qe.Gaussian(), **options)


_DATA = Path(os.environ.get("QERROR_DATA", Path(__file__).parents[2] / "shared" / "data"))
_REFERENCE = Path(os.environ.get("QERROR_REFERENCE", _DATA.parent / "reference")) / "blocks_dev.json"


def form_of(case: dict[str, Any]) -> qe.BlockFormat | None:
    """The format of a case; None for those whose tensor scale is random."""
    rule, size = case["rule"], case["block_size"]
    if rule.startswith("e8m0"):
        return qe.BlockFormat(case["grid"], size, "e8m0", rule=rule.split()[1])
    if rule == "e4m3fn nearest":
        return qe.BlockFormat(case["grid"], size, "e4m3fn")
    if rule == "signed absmax":
        return qe.BlockFormat(case["grid"].removesuffix(" mirrored"), size, signed=True)
    if rule == "absmax":
        return qe.BlockFormat(case["grid"], size, constant=float(case["c"]))
    if rule == "best of two absmax":
        return qe.BlockFormat(case["grid"], size, rule="best_of", constant=[float(c) for c in case["c"]])
    return None


@pytest.mark.skipif(
    not _REFERENCE.exists(),
    reason="the folder of reference errors is not there; QERROR_REFERENCE, or QERROR_DATA beside it, names it",
)
def test_simulations_meet_the_expected_errors_of_blocks() -> None:
    """Expectations by mpmath, from conditional integrals that know nothing of casting."""
    met = 0
    for case in json.loads(_REFERENCE.read_text(encoding="utf-8")):
        form = form_of(case)
        if form is None:
            continue
        density = qe.density(case["density"])
        found = qe.simulate(density, form, float(case.get("unit", 1)), n=200_000, rng=5)
        for term in {"mse", "rounding"} & case.keys():
            distance = getattr(found.estimate, term) - float(case[term])
            # Sums of numbers near 1 are rounded.
            assert abs(distance) <= 4.5 * getattr(found.stderr, term) + 1e-16, (case, term)
        met += 1
    assert met >= 35


def test_kernels_are_no_blocks_of_one():
    with pytest.raises(ValueError, match=r"block_axis 3 of x of shape .* is too short for blocks of 32"):
        qe.quantize(np.ones((16, 128, 64, 1)), "mxfp4")
