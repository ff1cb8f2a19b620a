"""The testing kit: good quantizers pass, every sabotage is caught and named."""

from __future__ import annotations

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

import qerror as qe
from qerror.testing import check_quantizer, densities, grids, scales, tensors

GAUSSIAN = qe.Gaussian()
N = 300_000


def check(fn, grid="int4", scale=0.34, shift=0.0, *, density=GAUSSIAN, n=N, **options):
    return check_quantizer(fn, grid, density, scale, shift, n=n, **options)


def caught(cause, fn, *args, **options):
    """The check fails, and names the cause; returns the message."""
    with pytest.raises(AssertionError, match=re.escape("looks like " + cause)) as failure:
        check(fn, *args, **options)
    return str(failure.value)


# -- good ones ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("name", "scale", "shift"),
    [
        *(("int4", s, z) for s, z in ((0.34, 0.0), (0.25, 0.0), (0.25, 0.125), (0.3, 0.07))),
        ("int4_midrise", 0.25, 0.0),
        *(
            (name, s, 0.0)
            for name in ("binary", "ternary", "uint4", "int8", "e2m1", "e3m0", "nf4")
            for s in (0.5, 0.21)
        ),
        ("e4m3fn", 0.0204, 0.0),
        ("e4m3fnuz", 2.0**-6, 0.0),
        ("e5m2", 0.001, 0.0),
        ("int12", 0.002, 0.0),
    ],
)
def test_ours(name, scale, shift, dtype):
    found = check(lambda x: qe.fake_quantize(x, name, scale, shift), name, scale, shift, dtype=dtype)
    exact = qe.quantization_error(GAUSSIAN, name, scale, shift)
    assert abs(found.estimate.mse - exact.mse) < 5 * found.stderr.mse


@pytest.mark.parametrize("scale", [0.25, 0.31])
@pytest.mark.parametrize("name", ["int4", "e2m1", "nf4", "int8"])
def test_ours_stochastic(name, scale):
    rng = np.random.default_rng(1)
    options = {"rounding": "stochastic", "rng": rng}
    check(lambda x: qe.fake_quantize(x, name, scale, **options), name, scale, n=1_000_000, rounding="stochastic")


def test_half_precision():
    check(lambda x: qe.fake_quantize(x, "int4", 0.25), dtype=np.float16, scale=0.25)
    # Its values are rounded to 8 bits: that is no error of the quantizer.
    check(lambda x: qe.fake_quantize(x, "int4", 0.34).astype(ml_dtypes.bfloat16))


@pytest.mark.parametrize("density", [qe.Laplace(0.3), qe.Uniform(), qe.StudentT(3), qe.Rectified(GAUSSIAN)])
def test_other_densities(density):
    check(lambda x: qe.fake_quantize(x, "e2m1", 0.5), "e2m1", 0.5, density=density)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("e4m3fn", ml_dtypes.float8_e4m3fn),
        ("e5m2", ml_dtypes.float8_e5m2),
        ("e2m1", ml_dtypes.float4_e2m1fn),
        ("e2m3", ml_dtypes.float6_e2m3fn),
        ("int4", ml_dtypes.int4),
    ],
)
def test_ml_dtypes(name, dtype):
    grid = qe.grid(name)

    def cast(x):
        q = np.clip(x / np.float32(0.25), grid.min, grid.max)
        q = np.rint(q) if name == "int4" else q
        return q.astype(dtype).astype(np.float32) * np.float32(0.25)

    check(cast, name, 0.25)


def test_torch_as_in_training():
    torch = pytest.importorskip("torch", reason="torch is not installed")

    def cast(x):
        return torch.fake_quantize_per_tensor_affine(torch.from_numpy(x), 0.25, 0, -8, 7).numpy()

    check(cast, "int4", 0.25)


# -- sabotaged ones ----------------------------------------------------------------------------------------------------


def integer(rounding, low=-8, high=7, scale=0.34):
    return lambda x: (np.clip(rounding(x / np.float32(scale)), low, high) * scale).astype(np.float32)


def test_truncation():
    message = caught("truncation (rounding down)", integer(np.floor))
    assert re.search(r"rounding error (3\.99|4\.0\d)x predicted", message)
    assert re.search(r"bias -0\.(49|5)\d* step where -0\.0054 is predicted", message)
    caught("truncation (rounding toward zero)", integer(np.trunc))
    caught("rounding up", integer(np.ceil))


@pytest.mark.parametrize(
    ("rule", "cause"),
    [
        (lambda q: np.trunc(q + np.copysign(np.float32(0.5), q)), "ties away from zero"),
        (lambda q: np.floor(q + np.float32(0.5)), "ties up"),
        (lambda q: np.ceil(q - np.float32(0.5)), "ties down"),
    ],
)
def test_ties(rule, cause):
    message = caught(cause, integer(rule, scale=0.25), scale=0.25)
    assert "ties do not go to the even code" in message
    # With a scale that is no power of two no value lies on a threshold: the documented limit.
    check(integer(rule))


@pytest.mark.parametrize("name", ["int4", "e2m1", "nf4"])
@pytest.mark.parametrize(
    ("narrow", "cause"),
    [(np.float16, "11 significant bits (float16)"), (ml_dtypes.bfloat16, "8 significant bits (bfloat16)")],
)
def test_double_rounding(name, narrow, cause):
    def cast(x):
        q = (x / np.float32(0.34)).astype(narrow).astype(np.float32)
        return qe.fake_quantize(q, name) * np.float32(0.34)

    caught(f"double rounding through a number of {cause}", cast, name)


def test_clip_wrong_by_one_level():
    caught("a clip that is wrong by one level (short of the end)", integer(np.rint, high=6))
    caught("a clip that is wrong by one level (short of the end)", integer(np.rint, low=-7))
    caught("a clip that is wrong by one level (beyond the end)", integer(np.rint, high=8))
    caught("a missing clip", integer(np.rint, high=1000))
    caught("integers that wrap around", lambda x: (((np.rint(x / 0.34) + 8) % 16 - 8) * 0.34).astype(np.float32))


@pytest.mark.parametrize(("name", "scale"), [("e2m1", 0.48), ("e4m3fn", 0.0204), ("e5m2", 0.001)])
def test_missing_subnormals(name, scale):
    grid = qe.grid(name)
    normal = 2.0 ** (1 - grid.float_spec.bias) * scale

    def cast(x):
        out = qe.fake_quantize(x, name, scale)
        return np.where(np.abs(out) < normal * 0.999, np.float32(0.0), out)

    caught("missing subnormals", cast, name, scale)


@pytest.mark.parametrize(
    ("bits", "shift_up", "n"),
    [(4, 0.0, 300_000), (4, 0.5, 300_000), (8, 0.0, 1_000_000), (8, 0.5, 1_000_000), (10, 0.0, 4_000_000)],
)
def test_few_random_bits(bits, shift_up, n):
    rng = np.random.default_rng(5)

    def cast(x):
        q = np.clip(x / np.float32(0.25), -8, 7)
        r = (rng.integers(0, 1 << bits, x.size) + shift_up) / (1 << bits)
        return (np.clip(np.floor(q + r), -8, 7) * 0.25).astype(np.float32)

    caught(f"stochastic rounding with a {bits}-bit random number", cast, scale=0.25, n=n, rounding="stochastic")


def test_nearest_is_not_stochastic():
    caught("deterministic rounding", lambda x: qe.fake_quantize(x, "int4", 0.34), rounding="stochastic")
    rng = np.random.default_rng(1)
    caught("stochastic rounding", lambda x: qe.fake_quantize(x, "int4", 0.34, rounding="stochastic", rng=rng))


def affine(quantizing=1.0, dequantizing=1.0, zero_in=0.0, zero_out=0.0):
    """Of 4 bits at scale 0.34, with wrong factors and zero points."""

    def cast(x):
        code = np.clip(np.rint(x / np.float32(0.34 * quantizing) + np.float32(zero_in)), -8, 7)
        return ((code - np.float32(zero_out)) * np.float32(0.34 * dequantizing)).astype(np.float32)

    return cast


@pytest.mark.parametrize(
    ("wrong", "cause"),
    [
        ({"quantizing": 1.005, "dequantizing": 1.005}, "a scale that is 1.005 times the right one\n"),
        ({"quantizing": 1.005}, "a scale that is 1.005 times the right one in quantizing"),
        ({"dequantizing": 0.995}, "a scale that is 0.995 times the right one in dequantizing"),
        ({"zero_in": 0.3}, "a zero point that is off by 0.300 steps in quantizing"),
        ({"zero_out": 0.5}, "a zero point that is off by 0.500 steps in dequantizing"),
        ({"zero_out": -1.0}, "a zero point that is off by 1.00 steps in dequantizing"),
        ({"zero_in": 0.25, "zero_out": 0.25}, "a zero point that is off by 0.250 steps"),
    ],
)
def test_wrong_scales_and_zero_points(wrong, cause):
    caught(cause, affine(**wrong), n=100_000)


@pytest.mark.parametrize("name", ["int8", "e4m3fn", "nf4"])
def test_a_wrong_scale_on_other_grids(name):
    scale = float(qe.optimal_scale(GAUSSIAN, name).scale)
    fn = lambda x: qe.fake_quantize(x / np.float32(1.005), name, scale)  # noqa: E731
    caught("a scale that is 1.005 times the right one in quantizing", fn, name, scale, n=100_000)


def test_wrong_tables():
    levels = qe.grid("nf4").levels
    thresholds = (levels[1:] + levels[:-1]) / 2
    one_off = thresholds + 0.004 * (np.arange(15) == 3)
    caught("wrong thresholds in a table\n", lambda x: levels[np.searchsorted(one_off, x)], "nf4", 1.0, n=100_000)
    other = levels + 0.01 * (np.arange(16) == 5)
    caught("wrong values in a table\n", lambda x: other[np.searchsorted(thresholds, x)], "nf4", 1.0, n=100_000)


def test_outputs_that_depend_on_their_place():
    def swapped(x):
        out = qe.fake_quantize(x, "int4", 0.34)
        pairs = out[: x.size // 2 * 2].reshape(-1, 2)
        pairs[:] = pairs[:, ::-1].copy()
        return out

    def tail_lost(x):
        out = qe.fake_quantize(x, "int4", 0.34)
        out[x.size // 8 * 8 :] = 0.0
        return out

    for fn in (swapped, tail_lost):
        caught("outputs that depend on their neighbours or their place", fn, n=100_000)


def test_random_numbers_that_are_not_uniform():
    rng = np.random.default_rng(5)

    def cast(x):
        q = np.clip(x / np.float32(0.25), -8, 7)
        return (np.clip(np.floor(q + 0.02 + 0.98 * rng.random(x.size)), -8, 7) * 0.25).astype(np.float32)

    caught("random numbers that are not uniform", cast, scale=0.25, rounding="stochastic")


def test_other_defects_are_told():
    for fn, text in (
        (lambda x: qe.fake_quantize(x, "int4", 0.35), "are no values of the grid"),
        (lambda x: np.where(x > 0, 1, -1) * qe.fake_quantize(x, "int4", 0.34), "goes to"),
        (lambda x: qe.fake_quantize(x * np.float32(1.01), "int4", 0.34), "points next to thresholds go wrong"),
        (lambda x: np.where(x > 3.0, 0.0, qe.fake_quantize(x, "int4", 0.34)), "goes to 2.38 to 0\n"),
    ):
        with pytest.raises(AssertionError, match=text):
            check(fn)


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"fn": lambda x: x[:-1]}, "fn must return an array of the shape it is given"),
        ({"fn": lambda x: x.sum()}, "got ()"),
        ({"fn": lambda x: x * np.nan}, "fn must return finite values, got nan for x = "),
        ({"fn": lambda x: ["a"] * x.size}, "fn must return an array of real numbers"),
        ({"fn": 3}, "fn must be a function from array to array, got 3"),
        ({"scale": [0.1, 0.2]}, "scale and shift must be single numbers"),
        ({"scale": 0.0}, "scale must be positive and finite"),
        ({"density": qe.Gaussian([0.0, 1.0])}, "density must have shape ()"),
        ({"density": "gaussian"}, "makes one"),
        ({"dtype": np.int8}, "dtype must be a floating-point dtype of NumPy"),
        ({"n": 10}, "n must be an integer from 4096 to 1099511627776, got 10"),
        ({"rounding": "down"}, "rounding must be 'nearest' or 'stochastic'"),
        ({"rng": -3}, "rng must be a non-negative integer"),
    ],
)
def test_bad_input(changed, text):
    arguments = {"fn": lambda x: x, "grid": "int4", "density": GAUSSIAN, "scale": 0.3, "n": 5000}
    with pytest.raises(ValueError, match=re.escape(text)):
        check_quantizer(**{**arguments, **changed})


def test_a_function_that_changes_its_input_is_harmless():
    def cast(x):
        x[:] = qe.fake_quantize(x, "int4", 0.34)
        return x

    check(cast)


# -- strategies --------------------------------------------------------------------------------------------------------


@given(densities(), grids(), scales(0.05, 5.0))
def test_strategies_give_what_the_library_takes(density, grid, scale):
    error = qe.quantization_error(density, grid, scale)
    assert error.clipping >= 0
    assert error.rounding >= 0
    assert np.isfinite(error.mse)


@given(grids(4), scales(2.0**-4, 2.0**4), tensors())
def test_fake_quantized_tensors_stay(grid, scale, x):
    once = qe.fake_quantize(x.astype(np.float64), grid, scale)
    np.testing.assert_array_equal(qe.fake_quantize(once, grid, scale), once)


@given(tensors(np.float16, max_dims=2))
def test_tensors_are_finite_and_of_their_type(x):
    assert x.dtype == np.float16
    assert np.isfinite(x).all()
    assert 1 <= x.ndim <= 2


# -- block formats -----------------------------------------------------------------------------------------------------

F4, F8, E5 = ml_dtypes.float4_e2m1fn, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2
TENSOR_SCALE = 2.0**-9


def largest(x, size):
    """Blocks, and their largest magnitudes."""
    blocks = x.reshape(-1, size)
    return blocks, np.abs(blocks).max(axis=1, keepdims=True)


def e2m1(q):
    return np.clip(q, -6, 6).astype(F4).astype(np.float32)


def power_of_two(top):
    """Of blocks with top 2^(k - 1) <= M < top 2^k: 2^k."""

    def scale(m):
        with np.errstate(divide="ignore"):
            e = np.where(m > 0, np.floor(np.log2(m.astype(np.float64) * 2 / top)), -127)
        return np.ldexp(np.float32(1), e.astype(int)).astype(ml_dtypes.float8_e8m0fnu).astype(np.float32)

    return scale


def mxfp4(scale=power_of_two(8), element=e2m1, size=32, change=lambda out: out):  # noqa: B008
    def kernel(x):
        blocks, m = largest(x, size)
        s = scale(m)
        return change((element(blocks / s) * s).reshape(x.shape))

    return kernel


def e4m3(s):
    return np.minimum(s, np.float32(448)).astype(F8).astype(np.float32)


def nvfp4(tensor=TENSOR_SCALE, stored=e4m3, element=e2m1, inner=None, outer=None, size=16):
    """The tensor scale as the block scales, the elements and dequantizing see it."""
    tensor, inner, outer = (np.float32(tensor if t is None else t) for t in (tensor, inner, outer))

    def kernel(x):
        blocks, m = largest(x, size)
        s = stored(m / np.float32(6) / tensor)
        safe = np.where(s == 0, np.float32(1), s)
        return (np.where(s == 0, 0, element(blocks / (safe * inner))) * s * outer).reshape(x.shape)

    return kernel


def int4(x, divisor=8, low=-8, size=128):
    blocks, m = largest(x, size)
    s = (m / np.float32(divisor)).astype(ml_dtypes.bfloat16).astype(np.float32)
    q = np.rint(blocks / np.where(s == 0, np.float32(1), s))
    return (np.clip(q, low, 7) * s).reshape(x.shape)


BLOCKS = {"mxfp4": ("mxfp4", None), "nvfp4": ("nvfp4", TENSOR_SCALE), "int4": ("int4_g128_bf16", None)}


def check_block(fn, name, density=GAUSSIAN, **options):
    form, scale = BLOCKS.get(name, (name, None))
    return check_quantizer(fn, form, density, options.pop("scale", scale), **{"n": 100_000, **options})


@pytest.mark.parametrize("density", [GAUSSIAN, qe.Laplace(0.2), qe.Uniform(), qe.StudentT(5)])
@pytest.mark.parametrize(("fn", "name"), [(mxfp4(), "mxfp4"), (nvfp4(), "nvfp4"), (int4, "int4")])
def test_kernels_of_blocks(fn, name, density):
    found = check_block(fn, name, density)
    exact = qe.quantization_error(density, *BLOCKS[name])
    assert np.isnan(found.stderr.mse) or abs(found.estimate.mse - exact.mse) < 5 * found.stderr.mse


@pytest.mark.parametrize("tensor", [0.0023, 1.0, 3e-5])
def test_tensor_scales_of_any_size(tensor):
    check_block(nvfp4(tensor), "nvfp4", scale=tensor)
    check_block(lambda x: nvfp4(tensor)(x).astype(ml_dtypes.bfloat16), "nvfp4", scale=tensor)


@pytest.mark.parametrize(
    "form",
    [
        *("mxfp6_e2m3", "mxfp8_e4m3", "mxint8", "nf4_g64", "e2m1_g16", "int3_g8_fp16", "e4m3fn_g600"),
        *(qe.block_format("mxfp4").replace(rule=rule) for rule in ("ceil", "even", "rceil", "absmax", "optimal")),
        qe.BlockFormat("int4", 32, signed=True),
        qe.BlockFormat("int4", 32, "bf16", signed=True),
        qe.BlockFormat("e2m1", 16, "e4m3fn", rule="best_of", constant=(1, 1.5)),
        qe.BlockFormat("e2m1", 16, "e4m3fn", rule="up"),
    ],
    ids=str,
)
def test_ours_of_blocks(form):
    check_block(lambda x: qe.fake_quantize(x, form), form)


def test_ours_of_blocks_in_other_types():
    for dtype in (np.float16, np.float64):
        check_block(lambda x: qe.fake_quantize(x, "mxfp4"), "mxfp4", dtype=dtype)
        check_block(lambda x: qe.fake_quantize(x, "nvfp4", 2.0**-9), "nvfp4", dtype=dtype)


@pytest.mark.parametrize("name", ["mxfp4", "nvfp4", "int4"])
def test_ours_of_blocks_stochastic(name):
    form, scale = BLOCKS[name]
    rng = np.random.default_rng(1)
    check_block(lambda x: qe.fake_quantize(x, form, scale, rounding="stochastic", rng=rng), name, rounding="stochastic")


def half_away(q):
    """E2M1 with ties away from zero."""
    levels = qe.grid("e2m1").levels[7:]
    edges = (levels[1:] + levels[:-1]) / 2
    return np.copysign(levels[np.searchsorted(edges, np.abs(q), side="right")], q).astype(np.float32)


def truncated(q):
    levels = qe.grid("e2m1").levels[7:]
    return np.copysign(levels[np.searchsorted(levels, np.abs(q), side="right") - 1], q).astype(np.float32)


def unclipped(q):
    return np.where(np.abs(q) > 7, np.copysign(np.float32(8), q), e2m1(q))


def pairs_swapped(out):
    return out.reshape(-1, 2)[:, ::-1].reshape(out.shape)


def rounded_up(s):
    """The next E4M3 number above."""
    return of_levels(s, "up")


def of_levels(s, side):
    levels = qe.grid("e4m3fn").levels
    levels = levels[levels >= 0]
    place = np.searchsorted(levels, s, side="left" if side == "up" else "right") - (side == "down")
    return levels[np.clip(place, 0, levels.size - 1)].astype(np.float32)


NORMAL = np.float32(2.0**-6)
WRONG_BLOCKS = [
    ("mxfp4", mxfp4(power_of_two(4)), "rule ceil instead of floor"),
    ("mxfp4", mxfp4(power_of_two(7)), "rule even instead of floor"),
    ("mxfp4", mxfp4(power_of_two(6)), "rule rceil instead of floor"),
    ("mxfp4", mxfp4(lambda m: np.where(m > 0, m / np.float32(6), 1)), "block scales that are not rounded to e8m0"),
    ("mxfp4", mxfp4(element=truncated), "elements truncated (rounding toward zero)"),
    ("mxfp4", mxfp4(element=half_away), "ties of elements away from zero"),
    ("mxfp4", mxfp4(element=unclipped), "a missing clip of elements"),
    (
        "mxfp4",
        mxfp4(element=lambda q: np.where(np.abs(q) > 6, np.float32(np.nan), e2m1(q))),
        "NaN or infinity where elements",
    ),
    ("mxfp4", mxfp4(element=lambda q: np.where(np.abs(e2m1(q)) < 1, 0, e2m1(q))), "elements without subnormals"),
    ("mxfp4", mxfp4(element=lambda q: e2m1(q.astype(np.float16))), "double rounding of elements through fp16"),
    ("mxfp4", mxfp4(element=lambda q: e2m1(q) + np.float32(0)), "a lost sign of -0"),
    ("mxfp4", mxfp4(element=lambda q: np.abs(e2m1(q))), "elements without their sign"),
    ("mxfp4", lambda x: x, "elements that are not rounded at all"),
    ("mxfp4", mxfp4(change=pairs_swapped), "nibbles swapped"),
    ("mxfp4", mxfp4(size=16), "blocks of 16 instead of 32"),
    ("mxfp4", mxfp4(size=64), "blocks of 64 instead of 32"),
    ("mxfp4", lambda x: np.ascontiguousarray(mxfp4()(np.ascontiguousarray(x.T)).T), "blocks along the first axis"),
    ("mxfp4", lambda x: mxfp4(size=x.shape[1])(x), "one scale for each row"),
    ("mxfp4", lambda x: mxfp4(size=x.size)(x), "one scale for the whole array"),
    ("mxfp4", mxfp4(power_of_two(4), truncated), "rule ceil instead of floor; elements truncated"),
    ("nvfp4", nvfp4(stored=rounded_up), "block scales rounded up to the next e4m3fn instead of to the nearest"),
    ("nvfp4", nvfp4(stored=lambda s: of_levels(s, "down")), "block scales rounded down to the next e4m3fn instead of"),
    ("nvfp4", nvfp4(stored=lambda s: s), "block scales that are not rounded to e4m3fn"),
    ("nvfp4", nvfp4(stored=lambda s: np.where(e4m3(s) < NORMAL, 0, e4m3(s))), "block scales below the least normal of"),
    ("nvfp4", nvfp4(stored=lambda s: np.maximum(e4m3(s), NORMAL)), "block scales that are clamped to the least normal"),
    ("nvfp4", nvfp4(stored=lambda s: s.astype(F8).astype(np.float32)), "NaN or infinity where the largest scale of"),
    ("nvfp4", nvfp4(stored=lambda s: np.where(s > 448, s, e4m3(s))), "block scales that do not saturate at 448"),
    ("nvfp4", nvfp4(stored=lambda s: np.where(s > 464, 0, e4m3(s))), "block scales of 0 where 448 belongs"),
    ("nvfp4", nvfp4(stored=lambda s: np.where(e4m3(s) == 0, np.nan, e4m3(s))), "a division by block scales of 0"),
    (
        "nvfp4",
        nvfp4(stored=lambda s: np.minimum(s, 57344).astype(E5).astype(np.float32)),
        "block scales that are stored",
    ),
    (
        "nvfp4",
        nvfp4(stored=lambda s: np.exp2(np.floor(np.log2(s + np.float32(1e-30))))),
        "block scales that are powers",
    ),
    ("nvfp4", nvfp4(1.0), "a missing tensor scale"),
    ("nvfp4", nvfp4(outer=1.0), "a tensor scale that is missing in dequantizing"),
    ("nvfp4", nvfp4(outer=TENSOR_SCALE**2), "a tensor scale that is applied twice"),
    ("nvfp4", lambda x: qe.fake_quantize(x, "nvfp4"), "a tensor scale that it finds itself"),
    ("nvfp4", nvfp4(size=32), "blocks of 32 instead of 16"),
    ("nvfp4", nvfp4(element=truncated), "elements truncated (rounding toward zero)"),
    ("nvfp4", nvfp4(element=half_away), "ties of elements away from zero"),
    ("int4", lambda x: int4(x, divisor=7, low=-8), "largest magnitudes that are sent to 7 where 8 belongs"),
    ("int4", lambda x: int4(x, low=-7), "a clip of elements one level short at the bottom"),
    ("int4", lambda x: int4(x, size=64), "blocks of 64 instead of 128"),
    ("int4", lambda x: qe.fake_quantize(x, "int4_g128"), "block scales that are not rounded to bf16"),
]


@pytest.mark.parametrize(("name", "fn", "cause"), WRONG_BLOCKS, ids=[f"{n}-{c}" for n, _, c in WRONG_BLOCKS])
def test_wrong_kernels_of_blocks(name, fn, cause):
    with pytest.raises(AssertionError, match=re.escape("looks like " + cause)):
        check_block(fn, name)


def test_blocks_with_another_rule_are_told_whatever_is_claimed():
    """Each of the power-of-two rules for each other."""
    rules = ("floor", "ceil", "even", "rceil")
    for claimed in rules:
        form = qe.block_format("mxfp4").replace(rule=claimed)
        for done in set(rules) - {claimed}:
            other = form.replace(rule=done)
            with pytest.raises(AssertionError, match=f"looks like rule {done} instead of {claimed}\n"):
                check_block(lambda x, other=other: qe.fake_quantize(x, other), form)


def test_stochastic_blocks_gone_wrong():
    options = {"rounding": "stochastic"}
    rng = np.random.default_rng(1)
    with pytest.raises(AssertionError, match="looks like deterministic rounding"):
        check_block(mxfp4(), "mxfp4", **options)
    with pytest.raises(AssertionError, match="looks like stochastic rounding"):
        check_block(lambda x: qe.fake_quantize(x, "mxfp4", rng=rng, **options), "mxfp4")
    even = qe.block_format("mxfp4").replace(rule="even")
    with pytest.raises(AssertionError, match="looks like rule even instead of floor"):
        check_block(lambda x: qe.fake_quantize(x, even, rng=rng, **options), "mxfp4", **options)


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"fn": lambda x: x[:-1]}, "fn must return an array of the shape it is given, (256, 256)"),
        ({"fn": lambda x: np.full(x.shape, "a")}, "fn must return an array of real numbers"),
        ({"fn": 3}, "fn must be a function from array to array, got 3"),
        ({"grid": "nvfp4"}, "scale must be given, got None: the tensor scale that the kernel multiplies the block"),
        ({"grid": "int4"}, "scale must be given for a grid; qerror.optimal_scale finds the best one"),
        ({"scale": [1.0, 2.0]}, "scale must be a single number"),
        ({"scale": -1.0}, "scale must be positive and finite"),
        ({"shift": 0.5}, "shift must be 0 for a block format, got 0.5"),
        ({"density": qe.Gaussian([0.0, 1.0])}, "density must have shape ()"),
        ({"dtype": np.int8}, "dtype must be a floating-point dtype of NumPy"),
        ({"rounding": "down"}, "rounding must be 'nearest' or 'stochastic'"),
    ],
)
def test_bad_input_of_blocks(changed, text):
    arguments = {"fn": lambda x: x, "grid": "mxfp4", "density": GAUSSIAN, "n": 5000}
    with pytest.raises(ValueError, match=re.escape(text)):
        check_quantizer(**{**arguments, **changed})
