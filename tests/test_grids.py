"""Grids: levels, codes and thresholds of every name, against ml_dtypes, gfloat, printed tables and definitions."""

from __future__ import annotations

import copy
import pickle
import threading
from fractions import Fraction

import gfloat
import gfloat.formats as gf
import ml_dtypes
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qerror as qe
from qerror._check import (
    as_float_array,
    as_int,
    as_rng,
    check_choice,
    check_finite,
    check_positive,
    check_scale,
    check_shift,
    suggest,
)
from qerror._threads import cached_property, chunk_slices, num_threads, thread_map
from qerror.grids.block_formats import BlockFormat, as_format, block_format, block_formats
from qerror.grids.block_rules import octave_end, staircase
from qerror.grids.families import float_grid, int_grid
from qerror.grids.formats import formats, grid
from qerror.grids.grid import FloatSpec, Grid

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
    "e8m0": ml_dtypes.float8_e8m0fnu,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "int2": ml_dtypes.int2,
    "int4": ml_dtypes.int4,
    "int8": np.int8,
    "int16": np.int16,
    "uint2": ml_dtypes.uint2,
    "uint4": ml_dtypes.uint4,
    "uint8": np.uint8,
    "uint16": np.uint16,
}

GFLOAT = {
    "e2m1": gf.format_info_ocp_e2m1,
    "e2m3": gf.format_info_ocp_e2m3,
    "e3m2": gf.format_info_ocp_e3m2,
    "e4m3fn": gf.format_info_ocp_e4m3,
    "e5m2": gf.format_info_ocp_e5m2,
    "e8m0": gf.format_info_ocp_e8m0,
    "fp16": gf.format_info_binary16,
    "bf16": gf.format_info_bfloat16,
}

DEFINITIONS = {
    "int2": [-2, -1, 0, 1],
    "int3_narrow": [-3, -2, -1, 0, 1, 2, 3],
    "uint2": [0, 1, 2, 3],
    "int2_midrise": [-1.5, -0.5, 0.5, 1.5],
    "int1": [-1, 0],
    "uint1": [0, 1],
    "binary": [-1, 1],
    "ternary": [-1, 0, 1],
    "e2m1": [-6, -4, -3, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 3, 4, 6],
    "e3m0": [-16, -8, -4, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 4, 8, 16],
    "e1m2": [-3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5],
    "e2m0": [-4, -2, -1, 0, 1, 2, 4],
    "pot4": [k * 2.0**-6 for k in (-64, -32, -16, -8, -4, -2, -1, 0, 1, 2, 4, 8, 16, 32, 64)],
    "apot4": [-1, -0.8, -0.6, -0.4, -0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1],
}


def all_codes(bits: int) -> np.ndarray:
    return np.arange(1 << bits, dtype=np.uint8 if bits <= 8 else np.uint16)


def test_levels_and_codes_equal_ml_dtypes():
    for name, dtype in ML_DTYPES.items():
        g = grid(name)
        if name.startswith(("int", "uint")):
            info = ml_dtypes.iinfo(dtype)
            assert np.array_equal(g.levels, np.arange(int(info.min), int(info.max) + 1)), name
            assert np.array_equal(g.codes, g.levels), name
            continue
        codes = all_codes(g.bits)
        with np.errstate(invalid="ignore"):  # NaN codes
            values = codes.view(dtype).astype(np.float64)
        finite = np.isfinite(values) & ~((values == 0) & np.signbit(values))
        order = np.argsort(values[finite])
        assert np.array_equal(g.levels, values[finite][order]), name
        assert np.array_equal(g.codes, codes[finite][order]), name


def test_levels_and_codes_equal_gfloat():
    for name, info in GFLOAT.items():
        g = grid(name)
        values = np.array([gfloat.decode_float(info, code).fval for code in range(1 << g.bits)])
        finite = np.isfinite(values) & ~((values == 0) & np.signbit(values))
        order = np.argsort(values[finite])
        assert np.array_equal(g.levels, values[finite][order]), name
        assert np.array_equal(g.codes, np.flatnonzero(finite)[order]), name
    int8 = block_format("mxint8").grid
    values = [gfloat.decode_float(gf.format_info_ocp_int8, code % 256).fval for code in range(-128, 128)]
    assert int8.levels.tolist() == values
    assert int8.codes.tolist() == list(range(-128, 128))


INFOS = [info for name, info in vars(gf).items() if name.startswith("format_info_") and getattr(info, "k", 99) <= 16]
INFOS += [gf.format_info_p3109(8, p) for p in (1, 2, 3, 5, 7)]


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.name)
def test_formats_of_gfloat_are_grids(info):
    g = grid(info)
    values = np.array([gfloat.decode_float(info, code).fval for code in range(1 << info.k)])
    finite = np.isfinite(values) & ~((values == 0) & np.signbit(values))
    order = np.argsort(values[finite])
    assert np.array_equal(g.levels, values[finite][order])
    assert np.array_equal(g.codes & ((1 << info.k) - 1), np.flatnonzero(finite)[order])
    assert g.bits == info.k
    known = {id(gf.format_info_ocp_e4m3): "e4m3fn", id(gf.format_info_binary16): "fp16"}
    assert g.name == known.get(id(info), g.name)


def test_formats_of_gfloat_have_at_most_16_bits():
    with pytest.raises(ValueError, match="grid must have at most 16 bits, got 'binary32' with 32"):
        grid(gf.format_info_binary32)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_levels_by_definition(name):
    assert grid(name).levels.tolist() == DEFINITIONS[name]


@pytest.mark.parametrize(
    "spec",
    [
        FloatSpec(3, 2, 3),
        FloatSpec(3, 2, -4, "ieee"),
        FloatSpec(1, 3, 0),
        FloatSpec(4, 0, 7, "fn"),
        FloatSpec(3, 3, 4, "fnuz"),
        FloatSpec(5, 3, 20, "none", signed=False),
        FloatSpec(2, 5, 1, "fn", signed=False),
    ],
)
def test_float_grid_against_the_formula_in_exact_arithmetic(spec):
    m, magnitudes = spec.mantissa_bits, 1 << (spec.exponent_bits + spec.mantissa_bits)
    value_of = {}
    for code in range(1 << spec.bits):
        negative, rest = divmod(code, magnitudes)
        exponent, mantissa = divmod(rest, 1 << m)
        reserved = {
            "none": False,
            "ieee": exponent == (1 << spec.exponent_bits) - 1,
            "fn": rest == magnitudes - 1,
            "fnuz": negative and rest == 0,
        }[spec.reserved]
        if not reserved and not (negative and rest == 0):
            value = (Fraction(mantissa, 1 << m) + (exponent > 0)) * Fraction(2) ** (max(exponent, 1) - spec.bias)
            value_of[code] = -value if negative else value
    pairs = sorted((value, code) for code, value in value_of.items())
    g = float_grid(spec.exponent_bits, spec.mantissa_bits, bias=spec.bias, reserved=spec.reserved, signed=spec.signed)
    assert [Fraction(level) for level in g.levels] == [value for value, _ in pairs]
    assert g.codes.tolist() == [code for _, code in pairs]
    assert (g.bits, g.float_spec) == (spec.bits, spec)


def test_float_grid_defaults_and_names():
    assert float_grid(4, 3, reserved="fn") == grid("e4m3fn")
    assert float_grid(4, 3, reserved="fnuz") == grid("e4m3fnuz")
    assert float_grid(5, 10, reserved="ieee") == grid("fp16")
    assert float_grid(4, 3, reserved="fn").name == "e4m3fn"
    assert float_grid(2, 3).name == "e2m3"
    assert float_grid(4, 3).name == "float_grid(4, 3)"
    assert float_grid(3, 4, bias=5, signed=False).name == "float_grid(3, 4, bias=5, signed=False)"
    assert grid("e6m9") == float_grid(6, 9)
    assert float_grid(11, 4, reserved="ieee").absmax == (2 - 2.0**-4) * 2.0**1023


# Printed to six digits in the table of llm-datatypes (weight_only.py, "sf4" at 5 degrees of freedom).
SF4_PRINTED = (-1, -0.627781, -0.454736, -0.334331, -0.237434, -0.152899, -0.074982, 0)
SF4_PRINTED += (0.065513, 0.132965, 0.204661, 0.283835, 0.375805, 0.491076, 0.656781, 1)


def quantile_codebook(quantile):
    """The recipe of NF4 and SF4 in mpmath: 7 and 8 even steps of probability on either side of one half."""
    with mpmath.workdps(30):
        top = 1 - (mpmath.mpf(1) / 32 + mpmath.mpf(1) / 30) / 2
        half = mpmath.mpf(1) / 2
        negative = [quantile(half + (top - half) * k / 7) for k in range(7, 0, -1)]
        positive = [quantile(half + (top - half) * k / 8) for k in range(1, 9)]
        levels = [-v for v in negative] + [mpmath.mpf(0)] + positive
        return np.array([float(v / positive[-1]) for v in levels])


def student_quantile(p):
    def excess(t):
        return 1 - mpmath.betainc(2.5, 0.5, 0, 5 / (5 + t * t), regularized=True) / 2 - p

    return mpmath.findroot(excess, (0.1, 3), solver="anderson")


def test_codebooks_follow_their_recipes():
    # bitsandbytes computes in float32 with the offset .9677083, so that its digits agree to 5e-7 only.
    nf4 = quantile_codebook(lambda p: mpmath.sqrt(2) * mpmath.erfinv(2 * p - 1))
    assert np.abs(grid("nf4").levels - nf4).max() < 5e-7
    assert np.array_equal(grid("nf4").levels, grid("nf4").levels.astype(np.float32))
    assert np.abs(grid("sf4").levels - quantile_codebook(student_quantile)).max() <= 2.0**-53
    assert tuple(np.round(grid("sf4").levels, 6)) == SF4_PRINTED
    assert grid("af4").levels[[1, 8, 14]].tolist() == [-0.69441008, 0.04273164, 0.72424863]
    assert [len(grid(name)) for name in ("nf4", "af4", "sf4", "pot4", "apot4")] == [16, 16, 16, 15, 15]


def test_formats_are_complete_distinct_and_sorted_by_width():
    names = formats()
    assert len(names) == len(set(names))
    widths = [grid(name).bits for name in names]
    assert widths == sorted(widths)
    assert all(grid(name).name == name for name in names)
    for bits in range(2, 17):
        for name in (f"int{bits}", f"int{bits}_narrow", f"uint{bits}", f"int{bits}_midrise"):
            assert name in formats(bits)
    assert formats(4) == (
        ["int4", "int4_narrow", "uint4", "int4_midrise", "e1m2", "e2m1", "e3m0", "nf4", "af4", "sf4", "pot4", "apot4"]
    )
    assert formats(1) == ["binary"]
    assert formats(9) == ["int9", "int9_narrow", "uint9", "int9_midrise"]


@pytest.mark.parametrize("name", formats())
def test_invariants_of_every_format(name):
    g = grid(name)
    assert g.levels.dtype == np.float64
    assert np.all(np.diff(g.levels) > 0)
    assert len(g.thresholds) == len(g) - 1
    assert np.array_equal(2 * g.thresholds, g.levels[:-1] + g.levels[1:])
    assert len(set(g.codes.tolist())) == len(g)
    assert 2 ** (g.bits - 1) < len(g) <= 2**g.bits
    # Neighbouring codes differ in parity, so that "the even code" decides every tie.
    assert np.all((g.codes[1:] + g.codes[:-1]) % 2 == 1)
    assert np.array_equal(g.ties_to_lower, g.codes[:-1] % 2 == 0)
    assert (g.min, g.max, g.absmax) == (g.levels[0], g.levels[-1], np.abs(g.levels).max())
    zero = g.levels[g.levels == 0]
    assert not np.signbit(zero).any()
    gaps = np.diff(g.levels)
    assert g.runs[0, 0] == 0
    assert g.runs[-1, 1] == len(g) - 1
    assert np.array_equal(g.runs[1:, 0], g.runs[:-1, 1])
    assert all(np.all(gaps[a:b] == gaps[a]) for a, b in g.runs)
    assert np.all(gaps[g.runs[1:, 0]] != gaps[g.runs[1:, 0] - 1])
    assert g.step == (gaps[0] if len(g.runs) == 1 else None)


def test_step_and_runs():
    assert grid("int8").step == 1.0
    assert grid("e1m2").step == 0.5
    assert grid("binary").step == 2.0
    assert grid("e2m1").step is None
    assert grid("e2m1").runs.tolist() == [[0, 1], [1, 3], [3, 11], [11, 13], [13, 14]]
    # Differences round to the same number here, yet the levels are not equally spaced.
    assert Grid([-1e16, 1, 1e16]).step is None
    assert Grid([0.1, 0.2, 0.30000000000000004]).step is None
    assert Grid([-1.7e308, 1.7e308]).step is None
    assert Grid([-1.7e308, 1.7e308]).thresholds.tolist() == [0.0]
    assert Grid([0.0, 5e-324]).levels.tolist() == [0.0, 5e-324]


@pytest.mark.parametrize("name", qe.formats())
def test_half_of_a_grid_that_is_its_own_mirror_image(name):
    levels, half = qe.grid(name).levels, qe.grid(name).half
    positive = levels[levels >= 0]
    if half is None:
        assert positive.size < 2 or set(levels) != set(-levels)
        return
    assert set(levels) == set(half.levels) | set(-half.levels)
    x = np.random.default_rng(5).standard_normal(200) * levels.max()
    magnitudes = np.abs(qe.fake_quantize(x, name))
    np.testing.assert_array_equal(qe.fake_quantize(np.abs(x), half), magnitudes)


def test_codes_and_bits_of_own_grids():
    assert Grid([3, 4, 5]).codes.tolist() == [3, 4, 5]
    assert Grid([0, 2, 4]).codes.tolist() == [0, 1, 2]
    assert Grid([-0.5, 0.5]).codes.tolist() == [0, 1]
    assert [Grid(range(k)).bits for k in (2, 3, 4, 5, 256, 257)] == [1, 2, 2, 3, 8, 9]
    assert grid("int3").ties_to_lower.tolist() == [True, False, True, False, True, False, True]
    assert grid("int2_midrise").ties_to_lower.tolist() == [True, False, True]


def test_grids_are_immutable_values():
    levels = np.array([-1.0, -0.0, 1.0])
    g = Grid(levels, name="mine")
    levels[2] = 7.0
    assert g.levels.tolist() == [-1.0, 0.0, 1.0]
    assert not np.signbit(g.levels[1])
    for array in (g.levels, g.thresholds, g.codes, g.runs, g.ties_to_lower):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(AttributeError, match="Grid is immutable; 'name' cannot be set"):
        g.name = "other"
    with pytest.raises(AttributeError, match="cannot be deleted"):
        del g.levels
    assert g == grid("ternary")
    assert hash(g) == hash(grid("ternary"))
    assert g != grid("int2")
    assert g != "ternary"
    assert len({g, grid("ternary"), grid("binary")}) == 2
    for other in (pickle.loads(pickle.dumps(grid("e4m3fn"))), copy.deepcopy(grid("e4m3fn"))):
        assert other == grid("e4m3fn")
        assert (other.bits, other.float_spec, other.name) == (8, grid("e4m3fn").float_spec, "e4m3fn")
        assert np.array_equal(other.codes, grid("e4m3fn").codes)
        assert not other.levels.flags.writeable


def test_reprs_are_one_line():
    assert repr(grid("int4")) == "Grid('int4', 16 levels from -8 to 7, step 1)"
    assert repr(grid("e2m1")) == "Grid('e2m1', 15 levels from -6 to 6)"
    assert repr(Grid([-1, 0.5])) == "Grid([-1, 0.5])"
    assert repr(Grid(range(9))) == "Grid(9 levels from 0 to 8, step 1)"
    assert repr(block_format("nvfp4")) == (
        "BlockFormat('nvfp4': e2m1 in blocks of 16, scales e4m3fn by rule absmax, a tensor scale)"
    )


def test_names_dtypes_and_grids_resolve():
    assert grid("  E4M3FN ") is grid("e4m3fn")
    own = Grid([0, 1, 5])
    assert grid(own) is own
    for name, dtype in ML_DTYPES.items():
        assert grid(dtype) == grid(np.dtype(dtype)) == grid(np.dtype(dtype).name) == grid(name)
    assert grid("half") == grid("fp16")


BAD_NAMES = [
    ("e4m3", "grid name 'e4m3' is ambiguous, say which of e4m3fn, e4m3fnuz, e4m3_ieee"),
    ("FP8", "grid name 'fp8' is ambiguous, say which of e4m3fn, e5m2, e4m3fnuz, e5m2fnuz"),
    ("mxfp4", "'mxfp4' is a block format, not a grid, which is what is wanted here"),
    ("nvfp4", "'nvfp4' is a block format, not a grid, which is what is wanted here"),
    ("int4_narow", "unknown grid 'int4_narow'; did you mean 'int4_narrow', 'int14_narrow' or 'int9_narrow'?"),
    ("int17", "unknown grid 'int17'; did you mean"),
    ("e9m9", "unknown grid 'e9m9'"),
    ("xyzzy", "unknown grid 'xyzzy'; qe.formats() lists the names"),
    (np.float32, "unknown grid 'float32'; did you mean 'float16'"),
    (None, "grid must be a name, a dtype or a Grid, got None; qe.Grid(levels) takes levels of your own"),
    ([0, 1], "grid must be a name, a dtype or a Grid, got [0, 1]"),
    (block_format("mxfp4"), "grid must be a name, a dtype or a Grid, got BlockFormat('mxfp4'"),
]


@pytest.mark.parametrize(("name", "message"), BAD_NAMES, ids=lambda value: str(value)[:12])
def test_names_that_do_not_resolve(name, message):
    with pytest.raises(ValueError, match="grid") as caught:
        grid(name)
    assert str(caught.value).startswith(message)


BAD_LEVELS = [
    ([1], "levels must be a one-dimensional array of at least two values, got shape (1,)"),
    ([[1, 2]], "levels must be a one-dimensional array of at least two values, got shape (1, 2)"),
    ([1, 0, 2], "levels must be strictly increasing, got 1, 0 at index 0; use np.unique(levels) to sort them"),
    ([0, 1, 1], "levels must be strictly increasing, got 1, 1 at index 1"),
    ([0, np.nan, 1], "levels must be finite, got 1 NaN of 3 values, the first is nan at index 1"),
    ([0, np.inf], "levels must be finite, got 1 infinite of 2 values, the first is inf at index 1"),
    (["a", "b"], "levels must be a real number or an array of real numbers, got ['a', 'b']"),
    ([0, 1j], "levels must be a real number or an array of real numbers"),
    ([[1], [1, 2]], "levels must be an array of real numbers with one shape"),
]


@pytest.mark.parametrize(("levels", "message"), BAD_LEVELS)
def test_bad_levels(levels, message):
    with pytest.raises(ValueError, match="levels") as caught:
        Grid(levels)
    assert str(caught.value).startswith(message)


BAD_CALLS = [
    (lambda: Grid([0, 1], name=3), "name must be a string or None, got 3"),
    (lambda: int_grid(0), "bits must be an integer from 1 to 16, got 0"),
    (lambda: int_grid(4.0), "bits must be an integer from 1 to 16, got 4.0"),
    (lambda: int_grid(4, narrow=True, signed=False), "narrow, midrise and signed=False exclude each other"),
    (lambda: int_grid(1, narrow=True), "bits must be at least 2 for a narrow grid, got 1"),
    (lambda: float_grid(0, 3), "exponent_bits must be an integer from 1 to 15, got 0"),
    (lambda: float_grid(8, 8), "mantissa_bits must be an integer from 0 to 7, got 8"),
    (lambda: float_grid(4, 3, reserved="nan"), "reserved must be 'none', 'ieee', 'fn' or 'fnuz', got 'nan'"),
    (lambda: float_grid(4, 3, bias=0.5), "bias must be an integer from -65536 to 65536, got 0.5"),
    (lambda: float_grid(11, 4), "exponent_bits, mantissa_bits and bias must give at least two values"),
    (lambda: float_grid(4, 3, bias=1100), "exponent_bits, mantissa_bits and bias must give at least two values"),
    (lambda: float_grid(1, 0, reserved="ieee"), "exponent_bits, mantissa_bits and bias must give at least two"),
    (lambda: float_grid(4, 3, reserved="fnuz", signed=False), "reserved='fnuz' takes the code of -0 away"),
    (lambda: formats(0), "bits must be an integer of at least 1, got 0"),
    (lambda: block_format("mxfp5"), "unknown block format 'mxfp5'; did you mean 'mxfp4'"),
    (lambda: block_format(4), "block format must be a name or a BlockFormat, got 4"),
    (lambda: block_format("int4_g"), "unknown block format 'int4_g'; known are mxfp4, mxfp6_e2m3"),
    (lambda: block_format("int4_g0"), "unknown block format 'int4_g0'"),
    (lambda: as_format("nvpf4"), "unknown grid 'nvpf4'; did you mean 'nvfp4'"),
    (lambda: BlockFormat("int4", 0), "block_size must be an integer of at least 1"),
    (lambda: BlockFormat("int4", 32, rule="max"), "rule must be 'absmax', 'up'"),
    (lambda: BlockFormat("int4", 32, "fp16", rule="floor"), "rule floor chooses powers of two: scale_format must be"),
    (lambda: BlockFormat("int4", 32, rule="up"), "scale_format must be given for rule up"),
    (lambda: BlockFormat("int4", 32, constant=0), "constant must be positive"),
    (lambda: BlockFormat("int4", 32, constant=(1, 2)), "constant must be one number for rule absmax"),
    (lambda: BlockFormat("int4", 32, rule="best_of"), "constant must hold several numbers for rule best_of"),
    (lambda: BlockFormat("int4", 32, "e8m0", rule="even", signed=True), "signed must be False for rule even"),
    (lambda: BlockFormat("e2m1", 16, "e4m3fn", tensor_scale=1000), "tensor_scale must be at most the largest stored"),
    (lambda: BlockFormat("int4", 32, tensor_scale=True), "tensor_scale must be False without a scale_format"),
]


@pytest.mark.parametrize(("call", "message"), BAD_CALLS)
def test_bad_arguments_of_constructors(call, message):
    with pytest.raises(ValueError, match=r"must|unknown|exclude|takes") as caught:
        call()
    assert str(caught.value).startswith(message)


def test_block_formats():
    assert block_formats() == (["mxfp4", "mxfp6_e2m3", "mxfp6_e3m2", "mxfp8_e4m3", "mxfp8_e5m2", "mxint8", "nvfp4"])
    for name in block_formats():
        block = block_format(name.upper())
        assert block_format(block) is block
        assert isinstance(block, BlockFormat)
        assert block.block_size == (16 if name == "nvfp4" else 32)
        assert block.scale_format == grid("e4m3fn" if name == "nvfp4" else "e8m0")
        assert block.tensor_scale is (name == "nvfp4")
    # MX v1.0: the largest normal numbers of the element types.
    largest = {"mxfp4": 6, "mxfp6_e2m3": 7.5, "mxfp6_e3m2": 28, "mxfp8_e4m3": 448, "mxfp8_e5m2": 57344}
    assert {name: block_format(name).grid.max for name in largest} == largest
    assert block_format("mxint8").grid.max == 1 + 63 / 64


def test_block_formats_of_any_parts():
    form = block_format("NF4_G64_fp16")
    assert (form.grid, form.block_size, form.scale_format) == (grid("nf4"), 64, grid("fp16"))
    assert form == BlockFormat("nf4", 64, "float16", name="mine")
    assert as_format("int4_narrow_g128").grid == grid("int4_narrow")
    assert as_format("int4") == grid("int4")
    assert BlockFormat("e2m1", 16, "e4m3fn").name == "e2m1_g16_e4m3fn"
    # 4 + 8 / 32; 4 + 8 / 16, and 32 for the tensor; 4 + 32 / 128: any positive number is a float32.
    assert block_format("mxfp4").bits_per_value() == 4.25
    assert block_format("nvfp4").bits_per_value(160) == 4.5 + 32 / 160
    assert block_format("int4_g128").bits_per_value() == 4.25
    # Two blocks for 33 values.
    assert block_format("mxfp4").bits_per_value(33) == 4 + 16 / 33
    assert block_format("mxfp4").replace(rule="even") != block_format("mxfp4")
    # No two formats have one name.
    assert block_format("mxfp4").replace(rule="even").name == "e2m1_g32_e8m0:even"
    assert BlockFormat("int4", 32, "fp16", signed=True, constant=0.9).name == "int4_g32_fp16:c=0.9:signed"
    six = block_format("nvfp4").replace(rule="best_of", constant=(1, 1.5), tensor_scale=256)
    assert repr(six) == (
        "BlockFormat('e2m1_g16_e4m3fn:best_of:c=1,1.5:t=256': e2m1 in blocks of 16, "
        "scales e4m3fn by rule best_of, constant (1.0, 1.5), "
        "a tensor scale to 256)"
    )


# Largest c M / s: where the sources' code changes the exponent. torchao's EVEN adds half a unit of the element's
# mantissa and truncates: 7 for e2m1, 7.75 for e2m3, 30 for e3m2, 496 for e4m3fn, 61440 for e5m2.
OCTAVE_ENDS = {
    "mxfp4": (8, 4, 7, 6),
    "mxfp6_e2m3": (8, 4, 7.75, 7.5),
    "mxfp6_e3m2": (32, 16, 30, 28),
    "mxfp8_e4m3": (512, 256, 496, 448),
    "mxfp8_e5m2": (65536, 32768, 61440, 57344),
    "mxint8": (2, 1, 2 - 1 / 128, 127 / 64),
}


@pytest.mark.parametrize("name", OCTAVE_ENDS)
def test_ends_of_octaves(name):
    form = block_format(name)
    assert tuple(octave_end(form.grid, rule) for rule in ("floor", "ceil", "even", "rceil")) == OCTAVE_ENDS[name]


def test_staircases():
    e2m1, e4m3 = grid("e2m1"), grid("e4m3fn")
    # Of M / 6 the nearest of 0, 2^-9, 2^-8, ...: halfway at 2^-10, 1.5 * 2^-9.
    bounds, scales = staircase(e2m1, e4m3, "absmax", 1.0)
    assert bounds[:3].tolist() == [0, 6 * 2**-10, 6 * 1.5 * 2**-9]
    assert scales[:2].tolist() == [0, 2**-9]
    assert (bounds[-2], scales[-1]) == (6 * (416 + 448) / 2, 448)
    up, down = (staircase(e2m1, e4m3, rule, 1.0) for rule in ("up", "down"))
    assert (up.bounds[0], up.bounds[1], up.scales[0]) == (0, 6 * 2**-9, 2**-9)
    assert (down.bounds[1], down.scales[0], down.scales[1]) == (6 * 2**-9, 0, 2**-9)
    # A constant moves the bounds, a tensor scale both.
    scaled = staircase(e2m1, e4m3, "absmax", 1.5, 2.0)
    assert np.array_equal(scaled.bounds[1:-1], bounds[1:-1] / 1.5 * 2)
    assert np.array_equal(scaled.scales, 2 * scales)
    # E8M0 has no 0: small blocks have its least scale.
    floor = staircase(e2m1, grid("e8m0"), "floor", 1.0)
    assert (floor.bounds[0], floor.bounds[1], floor.scales[0]) == (0, 4 * 2.0**-126, 2.0**-127)


@given(st.lists(st.floats(-1e300, 1e300), min_size=2, max_size=40, unique_by=lambda v: v + 0.0))
def test_any_sorted_levels_make_a_grid(values):
    g = Grid(sorted(values))
    assert np.all(g.levels[:-1] <= g.thresholds)
    assert np.all(g.thresholds <= g.levels[1:])
    assert g == Grid(g.levels)
    if g.step is not None:
        # Between levels far apart in size the step itself is a rounded number.
        slack = Fraction(2) ** -52 * Fraction(g.absmax)
        assert all(abs(Fraction(x) - Fraction(g.min) - k * Fraction(g.step)) <= slack for k, x in enumerate(g.levels))


CHECKS = [
    (lambda: check_scale(-0.5), "scale must be positive and finite, got -0.5"),
    (lambda: check_scale([1, 0, np.nan]), "scale must be positive and finite, got 0.0 at index 1 (2 such values of 3)"),
    (lambda: check_scale([[1.0, np.inf]]), "scale must be positive and finite, got inf at index (0, 1)"),
    (lambda: check_scale(None), "scale must be a real number or an array of real numbers, got None"),
    (lambda: check_scale("1"), "scale must be a real number or an array of real numbers, got '1'"),
    (lambda: check_shift([0, np.inf]), "shift must be finite, got inf at index 1"),
    (lambda: check_positive("std", 0), "std must be positive and finite, got 0.0"),
    (lambda: check_finite("x", np.array(np.nan)), "x must be finite, got 1 NaN of 1 value; remove or replace them"),
    (
        lambda: check_finite("x", np.array([[0, np.inf], [np.nan, -np.inf]])),
        "x must be finite, got 1 NaN and 2 infinite of 4 values, the first is inf at index (0, 1); "
        "remove or replace them",
    ),
    (lambda: as_int("n", True), "n must be an integer, got True"),
    (lambda: as_int("n", 3, None, 2), "n must be an integer of at most 2, got 3"),
    (lambda: check_choice("model", "exat", ["exact", "fast"]), "model must be 'exact' or 'fast', got 'exat'"),
    (lambda: as_rng(-1), "rng must be a non-negative integer, a numpy.random.Generator or None, got -1"),
    (lambda: as_rng("seed"), "rng must be a non-negative integer, a numpy.random.Generator or None, got 'seed'"),
]


@pytest.mark.parametrize(("call", "message"), CHECKS)
def test_texts_of_checks(call, message):
    with pytest.raises(ValueError, match="must") as caught:
        call()
    assert str(caught.value) == message


def test_checks_that_pass():
    x = np.array([1.0, 2.0])
    assert as_float_array("x", x) is x
    assert as_float_array("x", np.array([1.5], dtype=ml_dtypes.bfloat16)).tolist() == [1.5]
    check_finite("x", np.array([], dtype=np.float32))
    assert check_scale([[1e-320]]).shape == (1, 1)
    assert as_int("n", np.uint8(3), 1, 3) == 3
    generator = np.random.default_rng(0)
    assert as_rng(generator) is generator
    assert as_rng(np.int64(5)).integers(1 << 60) == as_rng(5).integers(1 << 60)
    assert as_rng(None).random() != as_rng(None).random()
    assert suggest("zzz", ["int4"]) == ""
    assert suggest("INT4x", ["int4"]) == "; did you mean 'int4'?"


def test_threads(monkeypatch):
    assert chunk_slices(0) == []
    for text in ("0", "-1", "two", "1.5"):
        monkeypatch.setenv("QERROR_NUM_THREADS", text)
        with pytest.raises(ValueError, match=f"QERROR_NUM_THREADS must be a positive integer, got '{text}'"):
            num_threads()
    monkeypatch.setenv("QERROR_NUM_THREADS", "3")
    assert num_threads() == 3
    assert thread_map(lambda k: k * k, range(50)) == [k * k for k in range(50)]
    assert len(set(thread_map(lambda _: threading.get_ident(), range(50), at_most=1))) == 1
    # A map inside a worker of a map is serial: it sees its own thread only.
    nested = thread_map(lambda _: set(thread_map(lambda _: threading.get_ident(), range(8))), range(4))
    assert all(len(idents) == 1 for idents in nested)
    with pytest.raises(ZeroDivisionError):
        thread_map(lambda k: 1 // k, [1, 0, 2])
    monkeypatch.delenv("QERROR_NUM_THREADS")
    assert num_threads() >= 1


def test_cached_properties_of_two_objects_are_computed_side_by_side(monkeypatch):
    monkeypatch.setenv("QERROR_NUM_THREADS", "2")
    both = threading.Barrier(2, timeout=20)

    class Slow:
        @cached_property
        def value(self):
            """It waits for the other one."""
            both.wait()
            return object()

    one, two = Slow(), Slow()
    found = thread_map(lambda slow: slow.value, [one, two])
    assert found == [one.value, two.value]
    assert Slow.value.__doc__ == "It waits for the other one."
