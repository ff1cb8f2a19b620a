"""Casting: bit-equal to ml_dtypes, exact at every threshold, unbiased when stochastic, honest on bad input."""

from __future__ import annotations

from fractions import Fraction

import gfloat
import gfloat.formats as gf
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qerror.casting.cast import dequantize, fake_quantize, quantize
from qerror.casting.ties import last_below
from qerror.grids.block_formats import block_format
from qerror.grids.families import float_grid
from qerror.grids.formats import formats, grid
from qerror.grids.grid import Grid

ML_DTYPES = {
    "e2m1": ml_dtypes.float4_e2m1fn,
    "e2m3": ml_dtypes.float6_e2m3fn,
    "e3m2": ml_dtypes.float6_e3m2fn,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "e4m3_ieee": ml_dtypes.float8_e4m3,
    "e5m2": ml_dtypes.float8_e5m2,
    "e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "e3m4": ml_dtypes.float8_e3m4,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
}

# One format of every kernel and of every rule of codes, for the tests that do not depend on more.
KINDS = ["int4", "uint3", "int4_midrise", "binary", "e2m1", "e3m0", "e4m3fnuz", "e5m2", "fp16", "bf16", "e8m0", "nf4"]

# Float layouts whose range goes beyond float32, or beyond what double arithmetic on exponents covers.
WIDE = [
    float_grid(9, 2),
    float_grid(11, 4, reserved="ieee"),
    float_grid(4, 3, bias=300),
    float_grid(3, 2, bias=-200),
    float_grid(4, 2, bias=1070),
]


def every_float16() -> np.ndarray:
    x = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return x[np.isfinite(x)]


def million_float32() -> np.ndarray:
    """Half of them random bits, half of the size of weights and activations."""
    rng = np.random.default_rng(20240607)
    bits = rng.integers(0, 1 << 32, 505_000, dtype=np.uint32).view(np.float32)
    normal = rng.standard_normal(500_000) * rng.choice([1e-7, 1e-3, 0.1, 1, 10, 300], 500_000)
    x = np.concatenate((bits[np.isfinite(bits)], normal.astype(np.float32)))[:1_000_000]
    assert x.size == 1_000_000
    return x


@pytest.mark.parametrize("name", ML_DTYPES)
@pytest.mark.parametrize("source", [every_float16, million_float32])
def test_bit_equal_to_ml_dtypes_with_saturation(name, source):
    x = source()
    g, dtype = grid(name), ML_DTYPES[name]
    saturated = np.clip(x.astype(np.float32), np.float32(g.min), np.float32(g.max)).astype(dtype)
    codes = quantize(x, name)
    assert codes.dtype == (np.uint16 if g.bits == 16 else np.uint8)
    assert np.array_equal(codes, saturated.view(codes.dtype))
    values = dequantize(codes, name)
    assert values.dtype == np.float32
    assert np.array_equal(values.view(np.uint32), saturated.astype(np.float32).view(np.uint32))


def every_upper_half() -> np.ndarray:
    """Every finite float32 by its upper 16 bits, with lower bits at, beside and far from the tie of bf16."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    x = (upper[:, None] | np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], dtype=np.uint32)).view(np.float32).ravel()
    return x[np.isfinite(x)]


@pytest.mark.parametrize("name", ["bf16", "fp16", "e5m2"])
def test_every_upper_half_of_float32_equals_ml_dtypes(name):
    test_bit_equal_to_ml_dtypes_with_saturation(name, every_upper_half)


SCALES = [1.0, 2.0**-3, 0.3, -0.7, 1e-30, 3e30, *np.exp(np.random.default_rng(8).normal(0, 9, 3))]


@pytest.mark.parametrize("name", ["bf16", "fp16", "e5m2"])
@pytest.mark.parametrize("scale", [*SCALES, "by row"])
@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_casting_of_float32_equals_casting_of_the_same_quotients_in_float64(name, scale, shift):
    g, x = grid(name), every_upper_half()
    if scale == "by row":
        x, scale = x.reshape(6, -1), np.array(SCALES[:6])[:, None]
    with np.errstate(over="ignore", under="ignore"):
        q = (x - np.float32(shift)) / np.asarray(scale, dtype=np.float32)
        expected = quantize(np.clip(q, -g.absmax, g.absmax).astype(np.float64), name)
    codes = quantize(x, name, scale, shift)
    assert np.array_equal(codes, expected)
    known = np.zeros(1 << g.bits)
    known[g.codes], known[1 << (g.bits - 1)] = g.levels, -0.0
    for dtype in (np.float16, np.float32, np.float64):
        limit = float(np.finfo(dtype).max)
        with np.errstate(over="ignore", under="ignore"):
            product = known[codes] * scale
            values = np.clip(product + shift if shift else product, -limit, limit).astype(dtype)
        assert dequantize(codes, name, scale, shift, dtype=dtype).tobytes() == values.tobytes()
        if dtype == np.float32:
            assert fake_quantize(x, name, scale, shift).tobytes() == values.tobytes()


@pytest.mark.parametrize("dtype", [np.uint16, ">u2", np.int32, np.uint64])
def test_codes_of_bf16_are_checked_in_every_dtype(dtype):
    good = np.sort(np.append(grid("bf16").codes, 0x8000))
    values = dequantize(good.astype(dtype), "bf16")
    assert np.array_equal(values.view(np.uint32), good.astype(np.uint32) << 16)
    for bad in (0x7F80, 0x7FFF, 0xFF80, 0xFFFF) + ((-1, 1 << 16) if dtype == np.int32 else ()):
        with pytest.raises(ValueError, match=rf"got {bad} at index 1 \(1 of 3 is none\)"):
            dequantize(np.array([0, bad, 0xFF7F]).astype(dtype), "bf16")


def test_e8m0_equal_to_ml_dtypes_except_for_ties():
    # ml_dtypes sends the tie of two powers of two up; by the rule of this library it goes to the even code.
    x = np.concatenate((every_float16().astype(np.float32), million_float32()))
    x = x[(x >= 2.0**-126) & (x <= 2.0**127)]
    tie = np.isin(x, grid("e8m0").thresholds)
    theirs = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    ours = quantize(x, "e8m0")
    assert 10 < np.count_nonzero(tie) < x.size
    assert np.array_equal(ours[~tie], theirs[~tie])
    assert np.array_equal(ours[tie], theirs[tie] & 0xFE)
    assert quantize([0.0, -3.0, 1e-60, 1e60], "e8m0").tolist() == [0, 0, 0, 254]


@pytest.mark.parametrize("name", ["e2m1", "e4m3fn", "e5m2fnuz", "e3m0", "e8m0", "e1m2"])
def test_table_and_arithmetic_kernels_agree(name):
    # Small arrays are rounded arithmetically, large ones through a table.
    x = np.resize(np.concatenate((every_float16().astype(np.float32), million_float32())), 1_200_000)
    whole = quantize(x, name)
    assert np.array_equal(whole, np.concatenate([quantize(part, name) for part in np.array_split(x, 30)]))


def around_thresholds(g: Grid, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Values on and beside the thresholds and on the levels, with the levels that they go to by definition."""
    t = g.thresholds.astype(dtype)
    k = np.flatnonzero(t.astype(np.float64) == g.thresholds)
    t = t[k]
    tie = np.where(g.codes[k] % 2 == 0, k, k + 1)
    below, above = np.nextafter(t, dtype(-np.inf)), np.nextafter(t, dtype(np.inf))
    levels = g.levels.astype(dtype)
    exact = np.flatnonzero(levels.astype(np.float64) == g.levels)
    x = np.concatenate((t, below, above, levels[exact]))
    return x, np.concatenate((tie, k, k + 1, exact))


@pytest.mark.parametrize("g", [*map(grid, formats()), *WIDE, block_format("mxint8").grid], ids=lambda g: g.name)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_every_threshold_is_exact(g, dtype):
    with np.errstate(over="ignore", under="ignore"):
        x, expected = around_thresholds(g, dtype)
    codes = quantize(x, g)
    wanted = g.codes[expected]
    spec = g.float_spec
    if spec is not None and spec.signed and spec.reserved != "fnuz":
        wanted = np.where((g.levels[expected] == 0) & np.signbit(x), 1 << (spec.bits - 1), wanted)
    assert np.array_equal(codes, wanted)
    assert np.array_equal(dequantize(codes, g, dtype=np.float64), g.levels[expected])


def test_float64_is_not_rounded_through_float32():
    x = np.array([1 + 2.0**-4 + 2.0**-40, 2.5 + 2.0**-40, 1.75 - 2.0**-50])
    assert fake_quantize(x[:1], "e4m3fn").tolist() == [1.125]
    assert fake_quantize(x[1:], "e2m1").tolist() == [3.0, 1.5]
    # What is to be avoided: on the way through float32 the first becomes a tie and goes down.
    assert x[:1].astype(ml_dtypes.float8_e4m3fn).astype(np.float64).tolist() == [1.0]


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("e2m1", gf.format_info_ocp_e2m1),
        ("e3m2", gf.format_info_ocp_e3m2),
        ("e4m3fn", gf.format_info_ocp_e4m3),
        ("e5m2", gf.format_info_ocp_e5m2),
        ("fp16", gf.format_info_binary16),
        ("bf16", gf.format_info_bfloat16),
    ],
)
def test_float64_equals_gfloat(name, info):
    rng = np.random.default_rng(5)
    g = grid(name)
    # Near thresholds by relative distances down to one float64 ulp, where rounding twice would show.
    t = rng.choice(g.thresholds, 20_000) * (1 + rng.choice([-1, 0, 1], 20_000) * 2.0 ** -rng.integers(20, 53, 20_000))
    x = np.concatenate((t, rng.standard_normal(20_000) * g.absmax / 3))
    theirs = gfloat.round_ndarray(info, x, sat=True)
    assert np.array_equal(fake_quantize(x, name), theirs)


def nearest_by_definition(x: float, g: Grid) -> int:
    """The code of the nearest level in exact arithmetic, the even one of two."""
    distances = [abs(Fraction(x) - Fraction(level)) for level in g.levels]
    best = [k for k, distance in enumerate(distances) if distance == min(distances)]
    return int(next(g.codes[k] for k in best if len(best) == 1 or g.codes[k] % 2 == 0))


# Multiples of 2^-20 have exact midpoints in float64, so that the thresholds are those of exact arithmetic.
EXACT = st.integers(-(2**24), 2**24).map(lambda n: n * 2.0**-20)


@given(
    levels=st.lists(EXACT, min_size=2, max_size=50, unique=True),
    x=st.lists(EXACT | st.floats(-20, 20, width=32), min_size=1, max_size=20),
    pick=st.lists(st.integers(0, 48), max_size=5),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_codebooks_by_definition(levels, x, pick, dtype):
    g = Grid(sorted(levels))
    x = np.array(x + [g.thresholds[k % len(g.thresholds)] for k in pick]).astype(dtype)
    assert quantize(x, g).tolist() == [nearest_by_definition(float(value), g) for value in x]


@given(
    first=st.integers(-40, 40),
    half=st.booleans(),
    exponent=st.integers(-70, 70),
    n_levels=st.integers(2, 40),
    data=st.data(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_uniform_grids_by_definition(first, half, exponent, n_levels, data, dtype):
    step = 2.0**exponent
    g = Grid((first + 0.5 * half + np.arange(n_levels)) * step)
    multiples = data.draw(st.lists(st.floats(-100, 100, width=32) | EXACT, min_size=1, max_size=20))
    x = (np.array([*multiples, first + 0.5, 0.0, 5e-324]) * step).astype(dtype)
    assert quantize(x, g).tolist() == [nearest_by_definition(float(value), g) for value in x]


@given(
    # Every finite float16 by its code: 0x7C00 of them to a sign.
    codes=st.lists(st.integers(0, 2 * 0x7C00 - 1), min_size=12, max_size=12),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    name=st.sampled_from(KINDS),
    scale=st.floats(2.0**-10, 2.0**10, width=32),
)
def test_casting_twice_changes_nothing(codes, dtype, name, scale):
    codes = np.array(codes)
    x = np.where(codes < 0x7C00, codes, codes - 0x7C00 + 0x8000).astype(np.uint16).view(np.float16).astype(dtype)
    once = fake_quantize(x.astype(np.float64), name, scale)
    assert np.array_equal(fake_quantize(once, name, scale), once)
    assert np.array_equal(
        dequantize(quantize(x, name, scale), name, scale, dtype=x.dtype), fake_quantize(x, name, scale)
    )


def test_formula_and_dtypes_of_the_division():
    x = np.array([0.1, 0.35, -0.7, 2.0])
    assert quantize(x, "int4", 0.1, 0.05).tolist() == np.rint((x - 0.05) / 0.1).clip(-8, 7).tolist()
    # The quotient is that of the dtype of x: in float32 this one is the tie 2.5, in float64 it is above.
    assert quantize(np.array([0.25], dtype=np.float32), "int4", 0.1).tolist() == [2]
    assert quantize(np.array([0.25 + 1e-12]), "int4", 0.1).tolist() == [3]
    # float16 is computed in float32: 60000 - (-60000) and its quotient do not overflow.
    assert quantize(np.array([60000], dtype=np.float16), "int8", 1000, -60000).tolist() == [120]
    assert quantize(np.array([7, -9, 3]), "int4", 2).tolist() == [4, -4, 2]
    assert quantize([True, False], "int4").tolist() == [1, 0]
    bf16 = np.array([1.5, -300.0], dtype=ml_dtypes.bfloat16)
    assert fake_quantize(bf16, "e4m3fn", 0.5).dtype == ml_dtypes.bfloat16
    assert fake_quantize(bf16, "e4m3fn", 0.5).astype(float).tolist() == [1.5, -224.0]
    assert fake_quantize([1, 5], "e2m1").dtype == np.float64


CODE_DTYPES = {
    "int4": np.int8, "int8": np.int8, "uint8": np.uint8, "int9": np.int16, "int16": np.int16, "uint16": np.uint16,
    "int8_midrise": np.uint8, "int9_midrise": np.uint16, "e2m1": np.uint8, "e5m2": np.uint8, "fp16": np.uint16,
    "bf16": np.uint16, "e8m0": np.uint8, "nf4": np.uint8, "binary": np.uint8, "ternary": np.int8,
}  # fmt: skip


@pytest.mark.parametrize("name", CODE_DTYPES)
def test_codes_have_the_smallest_dtype(name):
    codes = quantize(grid(name).levels, name)
    assert codes.dtype == CODE_DTYPES[name]
    assert np.array_equal(codes, grid(name).codes)


def test_codes_of_own_integer_grids():
    assert quantize([100.4, 400.0], Grid(range(100, 301))).tolist() == [100, 300]
    assert quantize([100.4, 400.0], Grid(range(100, 301))).dtype == np.uint16
    assert quantize([-1.0, 300.0], Grid(range(-1, 301))).tolist() == [-1, 300]
    for end in (2**40, -(2**40)):
        far = Grid(float(end) + np.arange(3))
        codes = quantize([end + 1.2], far)
        assert codes.tolist() == [end + 1]
        assert codes.dtype == (np.uint64 if end > 0 else np.int64)
        assert dequantize(codes, far, dtype=np.float64).tolist() == [end + 1.0]


def test_negative_zero():
    assert quantize([-0.0, -1e-9, 0.0], "e2m1").tolist() == [8, 8, 0]
    assert quantize([-0.0, -1e-9, 0.0], "e4m3fnuz").tolist() == [0, 0, 0]
    assert np.signbit(fake_quantize(np.array([-0.0, 0.0]), "e4m3fn", 0.3)).tolist() == [True, False]
    assert np.signbit(dequantize([128, 0], "e4m3fn", [[0.3]])).tolist() == [[True, False]]


def test_extreme_scales_and_values():
    tiny = np.array([3.2e-40, -9e-40, 0.0])
    assert quantize(tiny, "int4", 1e-40).tolist() == [3, -8, 0]
    assert fake_quantize(tiny, "int4", 1e-40).tolist() == [3 * 1e-40, -8 * 1e-40, 0.0]
    # A scale that float32 holds badly or not at all is not rounded to float32.
    assert quantize(tiny.astype(np.float32), "int4", 1e-40).tolist() == [3, -8, 0]
    assert quantize(np.float32([1e-45, 0.0, -1e-45]), "int4", 1e-60).tolist() == [7, 0, -8]
    assert quantize(np.float32([3e38, -3e38]), "int8", 1e300).tolist() == [0, 0]
    # Overflow of the quotient, or of x - z, saturates.
    assert quantize(np.float32([3e38, -3e38]), "e4m3fn", 1e-5).tolist() == [0x7E, 0xFE]
    assert quantize(np.array([1.7e308]), "int4", 1e308, -1.7e308).tolist() == [7]
    assert quantize(np.float32([3e38]), "int4", 1e38, -3e38).tolist() == [6]
    # Subnormal x, and subnormal codes from them.
    smallest = np.float32(2.0**-149)
    assert quantize(np.float32([smallest, 3 * smallest]), "int4", 2.0**-126).tolist() == [0, 0]
    assert quantize(np.array([smallest, -smallest]), "binary").tolist() == [1, 0]
    assert quantize(np.array([5e-324, -5e-324]), "int8_midrise").tolist() == [128, 127]
    assert quantize(np.float32([2.0**-133, 2.0**-134, 3 * 2.0**-135]), "bf16").tolist() == [1, 0, 1]


def test_nothing_finite_becomes_infinite():
    top = np.array([65504, -65504], dtype=np.float16)
    assert fake_quantize(top, "fp16").tolist() == [65504, -65504]
    assert fake_quantize(top, "bf16").tolist() == [65504, -65504]  # its value is 65536, beyond float16
    assert fake_quantize(top, "int4", 10000).tolist() == [65504, -65504]
    assert fake_quantize(top, "e5m2").tolist() == [57344, -57344]
    assert fake_quantize(np.float32([3.4e38]), "int4", [3e38]).tolist() == [np.float32(3e38)]
    assert dequantize([7, -8], "int4", 1e38).tolist() == [np.finfo(np.float32).max, -np.finfo(np.float32).max]
    assert dequantize([7, -8], "int4", [[1e38]]).tolist() == [[np.finfo(np.float32).max, -np.finfo(np.float32).max]]
    assert dequantize([7], "int4", 1e308, dtype=np.float64).tolist() == [np.finfo(np.float64).max]


BROADCASTS = [
    ((4, 6), (), ()),
    ((4, 6), (4, 1), ()),
    ((4, 6), (6,), (4, 1)),
    ((4, 6), (4, 6), (6,)),
    ((2, 3, 8), (2, 3, 1), (1, 1, 8)),
    ((3,), (2, 1), ()),
    ((), (3,), ()),
    ((1,), (1, 1), (1,)),
    ((0, 4), (4,), ()),
    ((4, 0), (4, 1), (4, 1)),
    ((), (), ()),
]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("shape", "scales", "shifts"), BROADCASTS)
def test_scale_and_shift_broadcast(name, shape, scales, shifts):
    rng = np.random.default_rng(3)
    x = rng.standard_normal(shape) * 3
    s, z = rng.uniform(0.2, 2, scales), rng.standard_normal(shifts)
    codes = quantize(x, name, s, z)
    values = dequantize(codes, name, s, z, dtype=np.float64)
    assert codes.shape == values.shape == np.broadcast_shapes(shape, scales, shifts)
    for xi, si, zi, code, value in zip(*(a.ravel() for a in np.broadcast_arrays(x, s, z, codes, values)), strict=True):
        assert quantize(xi, name, si, zi) == code
        assert dequantize(code, name, si, zi, dtype=np.float64) == value
    assert np.array_equal(fake_quantize(x, name, s, z), values)


def test_float32_products_are_rounded_once():
    rng = np.random.default_rng(1)
    codes = quantize(rng.standard_normal((300, 40)), "e4m3fn")
    for scale in (rng.uniform(1e-3, 2, (300, 1)), rng.uniform(1e-3, 2, (300, 1)).astype(np.float32)):
        exact = dequantize(codes, "e4m3fn", 1.0, dtype=np.float64) * scale.astype(np.float64)
        assert np.array_equal(dequantize(codes, "e4m3fn", scale), exact.astype(np.float32))
        one = float(scale[7, 0])
        assert np.array_equal(dequantize(codes[7], "e4m3fn", one), dequantize(codes, "e4m3fn", scale)[7])


def memory_layouts():
    base = np.random.default_rng(0).standard_normal((30, 40)).astype(np.float32)
    read_only = base.copy()
    read_only.flags.writeable = False
    yield "transposed", base.T
    yield "strided", base[::3, ::-2]
    yield "read-only", read_only
    yield "fortran", np.asfortranarray(base)
    yield "big-endian", base.astype(">f4")
    yield "broadcast", np.broadcast_to(base[:1], (5, 40))
    yield "list", base[:2].tolist()
    yield "empty", base[:0]
    yield "scalar", base[0, 0]
    yield "unaligned", np.frombuffer(b"\0" + base.tobytes(), dtype=np.float32, offset=1)


@pytest.mark.parametrize("name", ["int4", "e4m3fn", "nf4", "bf16"])
@pytest.mark.parametrize(
    ("layout", "x"), list(memory_layouts()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_any_memory_layout_works_and_x_is_not_changed(name, layout, x):
    before = np.array(x)
    plain = np.ascontiguousarray(before, dtype=before.dtype.newbyteorder("=")).reshape(before.shape)
    for scale in (1.0, 0.3):
        codes = quantize(x, name, scale)
        assert np.array_equal(codes, quantize(plain, name, scale)), layout
        assert np.array_equal(fake_quantize(x, name, scale), dequantize(codes, name, scale, dtype=before.dtype))
    assert np.array_equal(np.asarray(x), before)
    codes = np.asarray(codes)
    assert np.array_equal(dequantize(codes.T, name), dequantize(codes, name).T)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("name", ["int4", "e4m3fn", "nf4", "fp16"])
def test_result_does_not_depend_on_the_number_of_threads(monkeypatch, name, rounding):
    x = np.random.default_rng(0).standard_normal((1250, 2000)).astype(np.float32)
    results = []
    for threads in ("1", "2", "5"):
        monkeypatch.setenv("QERROR_NUM_THREADS", threads)
        results.append(quantize(x, name, 0.4, rounding=rounding, rng=9))
        results.append(quantize(np.asfortranarray(x), name, 0.4, rounding=rounding, rng=9))
    assert all(np.array_equal(results[0], other) for other in results[1:])


def test_long_rows_and_many_small_blocks_are_cut_alike():
    x = np.random.default_rng(0).standard_normal(3 * 2**18).astype(np.float32)
    flat = quantize(x, "e2m1", 0.5)
    for shape in [(3, -1), (-1, 3), (3, 2**9, 2**9), (2**13, 3, 32), (1, -1, 1)]:
        assert np.array_equal(quantize(x.reshape(shape), "e2m1", 0.5).ravel(), flat)


def lower_and_upper(q: np.ndarray, g: Grid) -> tuple[np.ndarray, np.ndarray]:
    q = np.clip(q, g.min, g.max)
    lower = np.clip(np.searchsorted(g.levels, q, side="right") - 1, 0, len(g) - 2)
    return g.levels[lower], g.levels[lower + 1]


# Of a right prediction |z| > 5 has probability 6e-7.
Z_LIMIT = 5.0


@pytest.mark.parametrize("name", KINDS)
def test_stochastic_rounding_is_unbiased_between_neighbours(name):
    g = grid(name)
    rng = np.random.default_rng(11)
    n = 200_000
    gaps = rng.integers(0, len(g) - 1, 8)
    points = g.levels[gaps] + rng.uniform(0, 1, 8) * (g.levels[gaps + 1] - g.levels[gaps])
    for x in points:
        rounded = fake_quantize(np.full(n, x), g, rounding="stochastic", rng=rng)
        lower, upper = lower_and_upper(x, g)
        assert np.all((rounded == lower) | (rounded == upper))
        p = (x - lower) / (upper - lower)
        share = np.mean(rounded == upper)
        sigma = np.sqrt(p * (1 - p) / n)
        assert abs(share - p) <= Z_LIMIT * sigma + 1e-12
        # The same count rejects a probability that is wrong by five percentage points.
        assert abs(share - p - 0.05) > Z_LIMIT * sigma


def test_stochastic_rounding_rejects_an_error_of_one_percent():
    n = 4_000_000
    mean = quantize(np.full(n, 2.5, dtype=np.float32), "int4", rounding="stochastic", rng=2).mean()
    sigma = 0.5 / np.sqrt(n)
    assert abs(mean - 2.5) < Z_LIMIT * sigma < abs(mean - 1.01 * 2.5)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stochastic_rounding_leaves_levels_and_saturated_values(name, dtype):
    g = grid(name)
    levels = g.levels[g.levels == g.levels.astype(dtype)].astype(dtype)
    stays = np.concatenate((levels, [g.min, g.max])).astype(dtype)
    assert np.array_equal(fake_quantize(np.tile(levels, 3), g, rounding="stochastic", rng=0), np.tile(levels, 3))
    with np.errstate(over="ignore"):
        beyond = np.clip(4.0 * stays, -np.finfo(dtype).max, np.finfo(dtype).max).astype(dtype)
    outside = beyond[(beyond <= g.min) | (beyond >= g.max)]
    assert np.array_equal(
        fake_quantize(outside, g, rounding="stochastic", rng=0), np.clip(outside, g.min, g.max).astype(dtype)
    )


def test_stochastic_rounding_takes_seeds_and_generators():
    x = np.linspace(-3, 3, 1000)
    one = quantize(x, "int4", rounding="stochastic", rng=7)
    assert np.array_equal(one, quantize(x, "int4", rounding="stochastic", rng=7))
    assert np.array_equal(one, quantize(x, "int4", rounding="stochastic", rng=np.random.default_rng(7)))
    assert not np.array_equal(one, quantize(x, "int4", rounding="stochastic", rng=8))
    generator = np.random.default_rng(7)
    quantize(x, "int4", rounding="stochastic", rng=generator)
    assert not np.array_equal(one, quantize(x, "int4", rounding="stochastic", rng=generator))


@pytest.mark.parametrize("name", [*KINDS, "e2m5", "pot4", "int16"])
def test_the_floating_point_settings_of_the_user_do_not_matter(name):
    x = np.float32([1e-45, 3e38, -1e-40, 0, 1])
    with np.errstate(all="raise"):
        for scale in (1.0, 1e-30, 1e30, [1e-30]):
            codes = quantize(x, name, scale, 1e-300)
            assert np.isfinite(dequantize(codes, name, scale, 1e-300)).all()
            assert np.isfinite(fake_quantize(x, name, scale, rounding="stochastic", rng=0)).all()
            assert np.isfinite(fake_quantize(x.astype(np.float64), name, scale, 0.5)).all()


NAN, INF = np.nan, np.inf
BAD_CALLS = [
    (
        lambda: quantize([0, NAN, 2, INF], "int4"),
        "x must be finite, got 1 NaN and 1 infinite of 4 values, the first is nan at index 1; remove or replace them",
    ),
    (
        lambda: quantize(np.full((2, 2), -INF, dtype=np.float16), "e2m1"),
        "x must be finite, got 4 infinite of 4 values, the first is -inf at index (0, 0); remove or replace them",
    ),
    (lambda: fake_quantize(NAN, "nf4"), "x must be finite, got 1 NaN of 1 value; remove or replace them"),
    (
        lambda: quantize(np.array([1, NAN], dtype=ml_dtypes.bfloat16), "bf16", rounding="stochastic"),
        "x must be finite, got 1 NaN of 2 values, the first is nan at index 1; remove or replace them",
    ),
    (lambda: quantize([1.0], "int4", 0.0), "scale must be finite and not 0, got 0.0"),
    (lambda: quantize([1.0], "int4", [1.0, np.inf]), "scale must be finite and not 0, got inf at index 1"),
    (lambda: dequantize([1], "int4", NAN), "scale must be finite and not 0, got nan"),
    (lambda: quantize([1.0], "int4", 1.0, INF), "shift must be finite, got inf"),
    (lambda: quantize(["a"], "int4"), "x must be an array of real numbers, got dtype <U1"),
    (lambda: quantize([1j], "int4"), "x must be an array of real numbers, got dtype complex128"),
    (lambda: quantize(None, "int4"), "x must be an array of real numbers, got dtype object"),
    (lambda: quantize(np.zeros(2, dtype="V3"), "int4"), "x must be an array of real numbers"),
    (lambda: quantize([[1.0], [1.0, 2.0]], "int4"), "x must be an array of real numbers"),
    (lambda: quantize([1.0], "int44"), "unknown grid 'int44'; did you mean"),
    (lambda: quantize([1.0], "int4", rounding="up"), "rounding must be 'nearest' or 'stochastic', got 'up'"),
    (lambda: quantize([1.0], "int4", rounding="stochastic", rng=-1), "rng must be a non-negative integer"),
    (
        lambda: quantize(np.zeros((2, 3)), "int4", [1.0, 2.0]),
        "scale of shape (2,) and shift of shape () must broadcast against x of shape (2, 3); "
        "one scale a row is scale[:, None]",
    ),
    (lambda: dequantize([1.0], "int4"), "codes must be integers, got dtype float64"),
    (
        lambda: dequantize([0, 8, -9], "int4"),
        "codes must be codes of Grid('int4', 16 levels from -8 to 7, step 1), from -8 to 7, got 8 at index 1 "
        "(2 of 3 are none)",
    ),
    (
        lambda: dequantize([[0], [0x7F]], "e4m3fn"),
        "codes must be codes of Grid('e4m3fn', 253 levels from -448 to 448), from 0 to 254 without 127, got 127 at "
        "index 1, 0 (1 of 2 is none)",
    ),
    (lambda: dequantize(0x80, "e4m3fnuz"), "codes must be codes of Grid('e4m3fnuz'"),
    (lambda: dequantize([0x7D], "e5m2", [0.5, 0.7]), "codes must be codes of Grid('e5m2'"),
    (lambda: dequantize(np.array([2**64 - 1], dtype=np.uint64), "int4"), "codes must be codes of Grid('int4'"),
    (lambda: dequantize([1], "int4", dtype=np.int32), "dtype must be a floating-point dtype such as numpy.float32"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=r"must|unknown") as caught:
        call()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("where", [0, 262_144, 1_500_000, 2_099_999])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_among_millions_is_found(where, bad):
    x = np.ones(2_100_000, dtype=np.float32)
    x[where] = bad
    with pytest.raises(ValueError, match=f"of 2100000 values, the first is {bad} at index {where};"):
        quantize(x, "e4m3fn")


def test_finite_values_whose_extremes_overflow_are_accepted():
    x = np.array([np.finfo(np.float32).max, -np.finfo(np.float32).max], dtype=np.float32)
    assert quantize(x, "int4").tolist() == [7, -8]
    assert quantize(x.astype(np.float64) * 5e269, "int4").tolist() == [7, -8]


@pytest.mark.parametrize("size", [2, 1 << 18])
@pytest.mark.parametrize("name", KINDS)
def test_quotients_of_finite_values_that_overflow_saturate(name, size):
    g, most = grid(name), np.finfo(np.float32).max
    x = np.resize(np.array([most, -most], dtype=np.float32), size)
    assert np.array_equal(quantize(x, name, 0.1), np.resize(g.codes[[-1, 0]], size))


# -- zero points and negative scales -----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["int4", "uint4", "int8", "uint8", "int2", "uint16"]),
    st.integers(0, 2**32 - 1),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_zero_points_are_those_of_integer_runtimes(name: str, seed: int, dtype: type, by_row: bool) -> None:
    """ONNX's QuantizeLinear: saturate(round(x / s) + p), ties to even before p is added; and back (q - p) * s."""
    rng, low, high = np.random.default_rng(seed), grid(name).min, grid(name).max
    x = (rng.standard_normal((5, 60)) * 8).astype(dtype)
    # Lattices have exact ties.
    x[::2] = np.rint(2 * x[::2]) / 2
    scale = np.full((5, 1), 0.5) if rng.random() < 0.5 else rng.uniform(0.01, 3, (5, 1)).astype(np.float32)
    scale = scale if by_row else scale[0, 0]
    zero_point = rng.integers(low, high + 1, (5, 1) if by_row else ())
    codes = quantize(x, name, scale, zero_point=zero_point)
    q = np.rint(x / np.asarray(scale, dtype)).astype(np.float64) + zero_point
    expected = np.clip(q, low, high)
    np.testing.assert_array_equal(codes, expected)
    back = dequantize(codes, name, scale, zero_point=zero_point)
    np.testing.assert_array_equal(back, ((expected - zero_point) * np.asarray(scale, np.float64)).astype(np.float32))
    np.testing.assert_array_equal(
        fake_quantize(x, name, scale, zero_point=zero_point),
        dequantize(codes, name, scale, zero_point=zero_point, dtype=dtype),
    )


def test_zero_points_with_stochastic_rounding_keep_the_mean() -> None:
    x = np.full(400_000, 1.3)
    codes = quantize(x, "uint8", 0.5, zero_point=7, rounding="stochastic", rng=1)
    assert set(np.unique(codes)) == {9, 10}
    # 2.6 steps: the share of the upper neighbour, by its standard error.
    assert abs((codes == 10).mean() - 0.6) < 5 * np.sqrt(0.24 / x.size)


def test_integers_stay_where_they_are_in_stochastic_rounding_with_a_zero_point() -> None:
    # 100 + r of float32 rounds up to 101 once in 2^18 r.
    codes = quantize(np.full(1 << 22, 100, np.float32), "uint8", 1.0, zero_point=3, rounding="stochastic", rng=0)
    assert (codes == 103).all()


def test_codes_of_zero_points_are_those_of_the_grid() -> None:
    """A grid of consecutive integers whose codes are a sign and a magnitude."""
    signs = float_grid(1, 2, bias=-1)
    codes = quantize([-2.2, 0.4, 2.4, 50.0], signs, zero_point=-1)
    # Levels -3, -1, 1, 7.
    assert codes.tolist() == [8 + 3, 8 + 1, 1, 7]
    np.testing.assert_array_equal(dequantize(codes, signs, zero_point=-1), [-2, 0, 2, 8])


def test_far_zero_points_of_float32_data_are_exact() -> None:
    x = np.random.default_rng(4).uniform(3001.1, 3001.6, 5000).astype(np.float32)
    step, zero_point = Fraction(0.00123), -2_440_000
    expected = [min(max(round(Fraction(v) / step) + zero_point, 0), 255) for v in x.tolist()]
    np.testing.assert_array_equal(quantize(x, "uint8", 0.00123, zero_point=zero_point), expected)


@pytest.mark.parametrize("name", ["int4", "e2m1", "nf4", "uint8", "int4_midrise"])
def test_a_negative_scale_turns_the_grid_around(name: str) -> None:
    x = np.random.default_rng(0).standard_normal(1000)
    turned = Grid(-grid(name).levels[::-1])
    np.testing.assert_allclose(fake_quantize(x, name, -0.3, 0.1), fake_quantize(x, turned, 0.3, 0.1), rtol=1e-15)
    codes = quantize(x, name, -0.3, 0.1)
    back = dequantize(codes, name, -0.3, 0.1, dtype=float)
    np.testing.assert_array_equal(back, fake_quantize(x, name, -0.3, 0.1))
    np.testing.assert_array_equal(codes, quantize(-x, name, 0.3, -0.1))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grid": "e2m1", "zero_point": 0}, "zero_point needs a grid of consecutive integers such as uint8 or int4"),
        ({"grid": "int4", "zero_point": 0.5}, "zero_point must be integers, got 0.5"),
        ({"grid": "int4", "zero_point": 1, "shift": 0.5}, "shift must be left at 0 where zero_point is given, got 0.5"),
        ({"grid": "int4", "scale": 0.0}, "scale must be finite and not 0, got 0.0"),
    ],
)
def test_bad_zero_points_and_scales(options: dict, words: str) -> None:
    for function, argument in ((quantize, [1.0]), (dequantize, [1]), (fake_quantize, [1.0])):
        with pytest.raises(ValueError, match=words):
            function(argument, **options)


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-8, 8), st.floats(1e-3, 1e3), st.sampled_from([0.0, 1.0, -1e3, 1e9, -1e15]), st.booleans(), st.booleans()
)
def test_last_below_is_the_last_below(threshold: float, scale: float, shift: float, tie: bool, to_lower: bool) -> None:
    """By its definition, float by float; ties are made where the threshold and the scale are short numbers."""
    if tie:
        threshold, scale = round(2 * threshold) / 2, 2.0 ** round(np.log2(scale))

    def below(x: float) -> bool:
        q = (np.float64(x) - shift) / scale
        return bool(q < threshold or (q == threshold and to_lower))

    last = float(last_below(np.array(threshold), np.array(to_lower), np.array(scale), np.array(shift)))
    assert below(last)
    assert not below(np.nextafter(last, np.inf))
