"""Expected errors of block formats against mpmath, casting, limits and published numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import qerror as qe
from qerror.densities.block_maxima import Largest
from qerror.search.block_codebooks import block_codebook

REFERENCE = Path(__file__).parent / "reference"
_DATA = Path(os.environ.get("QERROR_DATA", Path(__file__).parents[2] / "shared" / "data"))
# A second table, made by others: mpmath at 50 digits.
SECOND_TABLE = Path(os.environ.get("QERROR_REFERENCE", _DATA.parent / "reference")) / "blocks_dev.json"
# Relative to the mse: every term is positive. (Measured: 2e-15, and 4e-13 for tensors with their own scale.)
TOLERANCE = 1e-12
# Of std, of sqrt(E[x^2] MSE): what biases and crosses are differences of.
DIFFERENCE = 1e-13


def read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


CASES = read(REFERENCE / "block_errors.json")
ALL_SECOND = read(SECOND_TABLE)
SECOND_CASES = [case for case in ALL_SECOND if "given" not in case["rule"]]
GIVEN = [case for case in ALL_SECOND if "given" in case["rule"]]
_ABSENT = "the folder of reference errors is not there; QERROR_REFERENCE, or QERROR_DATA beside it, names it"
NONE = [pytest.param({}, marks=pytest.mark.skip(reason=_ABSENT), id="none")]


def label(case: dict[str, Any]) -> str:
    names = (
        "density",
        "grid",
        "block_size",
        "rule",
        "scale_format",
        "constant",
        "c",
        "top",
        "scale",
        "unit",
        "N",
        "full",
    )
    return " ".join(str(case[name]) for name in names if name in case)


@pytest.mark.parametrize("case", CASES, ids=label)
def test_terms(case: dict[str, Any]) -> None:
    form = qe.BlockFormat(
        case["grid"], case["block_size"], case["scale_format"], rule=case["rule"], constant=float(case["constant"])
    )
    terms = qe.quantization_error(qe.density(case["density"]), form, float(case["scale"]))
    clipping, rounding, bias, cross = (float(case[name]) for name in ("clipping", "rounding", "bias", "cross"))
    mse = clipping + rounding
    assert terms.mse == pytest.approx(mse, rel=TOLERANCE)
    assert terms.clipping == pytest.approx(clipping, abs=TOLERANCE * mse)
    assert terms.rounding == pytest.approx(rounding, abs=TOLERANCE * mse)
    assert terms.bias == pytest.approx(bias, abs=DIFFERENCE)
    assert terms.cross == pytest.approx(cross, abs=DIFFERENCE)


def form_of(case: dict[str, Any]) -> qe.BlockFormat:
    """The format of a case of the second table, whose constants are of a largest level that it names."""
    rule, size = case["rule"], case["block_size"]
    if rule.startswith("signed"):
        return qe.BlockFormat("int4", size, signed=True)
    if rule.startswith("e8m0"):
        return qe.BlockFormat(case["grid"], size, "e8m0", rule=rule.split()[1])
    if rule == "nvfp4":
        return qe.BlockFormat(case["grid"], size, "e4m3fn", tensor_scale=case["full"])
    if rule == "e4m3fn nearest":
        return qe.BlockFormat(case["grid"], size, "e4m3fn")
    factor = qe.grid(case["grid"]).absmax / float(case["top"])
    if isinstance(case["c"], list):
        return qe.BlockFormat(case["grid"], size, rule="best_of", constant=[float(c) * factor for c in case["c"]])
    return qe.BlockFormat(case["grid"], size, constant=float(case["c"]) * factor)


@pytest.mark.parametrize("case", SECOND_CASES or NONE, ids=label)
def test_second_table(case: dict[str, Any]) -> None:
    options = {"size": case["N"]} if "N" in case else {"scale": float(case.get("unit", 1))}
    terms = qe.quantization_error(qe.density(case["density"]), form_of(case), **options)
    mse = float(case["mse"])
    assert terms.mse == pytest.approx(mse, rel=1e-10 if isinstance(case.get("c"), list) else TOLERANCE)
    for name in {"clipping", "rounding", "maximum"} & case.keys():
        assert getattr(terms, name) == pytest.approx(float(case[name]), abs=TOLERANCE * mse), name


@pytest.mark.parametrize("case", GIVEN or NONE, ids=label)
def test_second_table_given_the_largest_of_the_tensor(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is averaged over the largest value of a tensor, at one."""
    at = np.array([float(case["t"])]), np.ones(1)
    monkeypatch.setattr(Largest, "of_tensor", lambda self, size: at)
    form = qe.BlockFormat(case["grid"], case["block_size"], "e4m3fn", tensor_scale=case["full"])
    terms = qe.quantization_error(qe.density(case["density"]), form, size=case["N"])
    assert terms.mse == pytest.approx(float(case["mse"]), rel=TOLERANCE)


# NF4's error on a Gaussian by block size, and BOF4's: digits of the literature's codebooks, by mpmath (absmax).
NF4 = {16: 0.006534, 32: 0.007623, 64: 0.008460, 128: 0.009136, 256: 0.009729}


@pytest.mark.parametrize("size", NF4)
def test_nf4(size: int) -> None:
    assert round(float(qe.quantization_error(qe.Gaussian(), f"nf4_g{size}").mse), 6) == NF4[size]


# arXiv 2505.06653 prints the levels; the errors are by mpmath. Signed: 0 and 1 fixed; else -1, 0 and 1.
def test_bof4() -> None:
    plain = block_codebook(qe.Gaussian(), 16, 64, fixed=(-1, 0, 1))
    assert plain.mse == pytest.approx(0.007991525668911, rel=1e-12)
    signed = block_codebook(qe.Gaussian(), 16, 64, signed=True, fixed=(0, 1))
    assert signed.mse == pytest.approx(0.007351705199765, rel=1e-12)
    for book, form in ((plain, {}), (signed, {"signed": True})):
        error = qe.quantization_error(qe.Gaussian(), qe.BlockFormat(book.grid, 64, **form))
        assert error.mse == pytest.approx(book.mse, rel=1e-12)
    assert {-1.0, 0.0, 1.0} <= set(plain.grid.levels)


def test_free_codebooks_are_better_and_stationary() -> None:
    free = block_codebook(qe.Gaussian(), 16, 64)
    assert free.mse == pytest.approx(0.0076215368100, rel=1e-10)
    assert free.optima == (0.0,)
    assert np.abs(free.grid.levels + free.grid.levels[::-1]).max() < 1e-12
    blocks = qe.BlockScaled(qe.Gaussian(), qe.BlockFormat(qe.Grid([-1, 1]), 64))
    for k, h in ((0, 1e-4), (5, -1e-4), (12, 1e-4)):
        moved = free.grid.levels.copy()
        moved[k] += h
        assert blocks.weight * float(qe.quantization_error(blocks, qe.Grid(moved), 1.0).mse) > free.mse


# Mean over an octave of std, dB: floor, ceil, even, rceil (computed apart, and cross-checked by sampling).
OCTAVES = {
    ("mxfp4", "gaussian"): (18.7445, 17.0150, 18.9934, 18.6446),
    ("mxfp4", "laplace"): (17.969, 15.413, 18.149, 17.570),
    ("mxfp4", "student-t:df=5"): (17.981, 15.324, 18.153, 17.557),
}


@pytest.mark.parametrize(("name", "density"), OCTAVES)
def test_octave_averages(name: str, density: str) -> None:
    for rule, wanted in zip(("floor", "ceil", "even", "rceil"), OCTAVES[name, density], strict=True):
        found = qe.octave_average(qe.density(density), qe.block_format(name).replace(rule=rule))
        assert abs(float(found.mean.sqnr_db) - wanted) < (5e-5 if density == "gaussian" else 5e-4)
        assert found.least.mse < found.mean.mse < found.greatest.mse


@pytest.mark.parametrize(("mantissa", "decibels"), [(2, 25.5588), (3, 31.5363)])
@pytest.mark.parametrize(("density", "size"), [("gaussian", 32), ("laplace", 8), ("logistic", 64)])
def test_without_clipping_floats_lose_the_same_everywhere(
    mantissa: int, decibels: float, density: str, size: int
) -> None:
    """(1 / ln 2) integral over 1 .. 2 of (u - Q(u))^2 u^-3 du, for every density and block size."""
    grid = qe.float_grid(8, mantissa)
    form = qe.BlockFormat(grid, size, "e8m0", rule="rceil")
    found = qe.octave_average(qe.density(density), form).mean.sqnr_db
    u = 1 + (np.arange(2_000_000) + 0.5) / 2_000_000
    step = 2.0**-mantissa
    loss = ((u - np.rint(u / step) * step) ** 2 / u**3).mean() / np.log(2)
    assert abs(float(found) - decibels) < 5e-5
    assert float(found) == pytest.approx(-10 * np.log10(loss), abs=1e-9)


def test_nvfp4_of_large_tensors() -> None:
    terms = qe.quantization_error(qe.Gaussian(), "nvfp4", size=2**20)
    assert terms.mse == pytest.approx(0.0090445281, abs=5e-11)
    assert terms.bits_per_value == 4.5 + 32 / 2**20


def test_four_over_six_of_large_tensors() -> None:
    """2^20 Gaussian values, scales to 256: MSE .0075615, 0.778 dB less than NVFP4's, by a prototype of its own."""
    form = qe.BlockFormat("e2m1", 16, "e4m3fn", rule="best_of", constant=(1, 1.5), tensor_scale=256)
    mse = qe.quantization_error(qe.Gaussian(), form, size=2**20).mse
    assert mse == pytest.approx(0.0075615, abs=1e-7)
    assert 10 * np.log10(qe.quantization_error(qe.Gaussian(), "nvfp4", size=2**20).mse / mse) == pytest.approx(
        0.778, abs=1e-3
    )


def test_best_constants() -> None:
    """By a scan apart from the library: e2m1 .983, nf4 .967, int4_narrow by 128 .871, by 32 on M / 8 1.024."""
    for name, constant in (("e2m1_g16", 0.983), ("nf4_g64", 0.967), ("int4_narrow_g128", 0.871), ("int4_g32", 1.024)):
        best = qe.optimal_scale(qe.Gaussian(), name)
        assert best.status is qe.Status.EXACT
        assert round(best.constant, 3) == constant
        assert best.error.mse == pytest.approx(best.minima[0].mse, rel=1e-12)
        assert best.error.mse < qe.quantization_error(qe.Gaussian(), name).mse


def test_best_tensor_scale_of_the_better_of_two() -> None:
    form = qe.BlockFormat("e2m1", 32, "e8m0", rule="best_of", constant=(1, 2))
    best = qe.optimal_scale(qe.Gaussian(), form, free="scale")
    scanned = [float(qe.quantization_error(qe.Gaussian(), form, 2.0 ** (k / 24)).mse) for k in range(24)]
    assert best.error.mse <= min(scanned) * (1 + 1e-12)
    assert best.error.mse == pytest.approx(min(scanned), rel=1e-3)
    assert abs(np.log2(best.scale) - np.argmin(scanned) / 24) < 1 / 24
    assert qe.excess_db(qe.Gaussian(), form, best.scale) == pytest.approx(0, abs=1e-6)
    for scale_format in (None, "e4m3fn"):
        with pytest.raises(ValueError, match="free must be 'scale' for rule best_of, whose constants are given"):
            qe.optimal_scale(qe.Gaussian(), form.replace(scale_format=scale_format), free="constant")


def test_best_threshold() -> None:
    best = qe.optimal_scale(qe.Gaussian(), "mxfp4", free="constant")
    assert best.threshold == pytest.approx(7.238, abs=5e-4)
    assert float(best.error.sqnr_db) == pytest.approx(19.0250, abs=5e-5)
    assert best.status is qe.Status.LOCAL


def test_best_tensor_scale() -> None:
    best = qe.optimal_scale(qe.Gaussian(), "nvfp4")
    # Half or twice the scale takes the scales of the next octave: the same, but for subnormal ones.
    for factor in (0.25, 0.5, 2, 4):
        assert qe.quantization_error(qe.Gaussian(), "nvfp4", factor * best.scale).mse > best.error.mse * (1 - 1e-9)
    for factor in (1e-3, 0.9, 0.99, 1.01, 1.1, 3, 1e5):
        assert qe.quantization_error(qe.Gaussian(), "nvfp4", factor * best.scale).mse > best.error.mse
    assert qe.excess_db(qe.Gaussian(), "nvfp4", best.scale) == pytest.approx(0, abs=1e-9)
    # Without a tensor scale of its own a format is compared with the best constant of its rule.
    assert qe.excess_db(qe.Gaussian(), "mxfp4") == pytest.approx(0.2805, abs=1e-4)
    for name in ("int4_g128", "int4_g128_bf16"):
        assert qe.excess_db(qe.Gaussian(), name) == pytest.approx(0.1224, abs=5e-4)


@pytest.mark.parametrize("name", ["e2m1", "int4", "nf4"])
def test_blocks_of_one_are_scaled_values(name: str) -> None:
    """B = 1: each value lies on an end level, but for int4's, which has none at +8."""
    terms = qe.quantization_error(qe.Laplace(), f"{name}_g1")
    assert terms.mse == pytest.approx({"e2m1": 0, "nf4": 0, "int4": 0.5 / 64}[name], abs=1e-15)
    assert terms.maximum == pytest.approx(terms.mse, abs=1e-15)


@pytest.mark.parametrize(
    ("density", "grid", "size"),
    [
        (qe.GeneralizedGaussian(beta=4), "int2", 4096),
        (qe.Uniform(), "e2m1", 32),
        (qe.Gaussian(), "int2", 4096),
        (qe.Laplace(), "e2m1", 32),
    ],
    ids=str,
)
def test_share_of_the_largest_values_by_brute_force(density: qe.Density, grid: str, size: int) -> None:
    """Fine panels between all scales and thresholds, however narrowly large blocks' maxima lie."""
    form = qe.BlockFormat(grid, size, "e8m0", rule="floor")
    scales = 2.0 ** np.arange(-12, 12)
    end = min(float(np.max(density.support)), 300.0)
    # Where the largest value takes the next scale: floor(log2 M) less the exponent of the largest level.
    starts = scales * 2.0 ** np.floor(np.log2(form.grid.max))
    cuts = np.concatenate([starts, np.outer(scales, np.abs(form.grid.thresholds)).ravel(), np.linspace(0, end, 20001)])
    cuts = np.unique(cuts[cuts <= end])
    node, weight = np.polynomial.legendre.leggauss(6)
    half = 0.5 * np.diff(cuts)[:, None]
    m = (cuts[:-1, None] + half * (node + 1)).ravel()
    scale = scales[np.maximum(np.searchsorted(starts, m) - 1, 0)]
    below = (1 - 2 * np.asarray(density.sf(m))) ** (form.block_size - 1)
    loss = sum((x - scale * form.grid.levels[np.searchsorted(form.grid.thresholds, x / scale)]) ** 2 for x in (m, -m))
    expected = ((half * weight).ravel() * below * np.asarray(density.pdf(m)) * loss).sum()
    assert qe.quantization_error(density, form).maximum == pytest.approx(expected, rel=1e-12, abs=0)


def test_large_blocks_have_one_scale() -> None:
    """Of bounded values the largest of many is the end of the support: one scale for all."""
    density = qe.Uniform()
    limit = float(qe.quantization_error(density, "e2m1", np.sqrt(3) / 6).mse)
    errors = [float(qe.quantization_error(density, f"e2m1_g{size}").mse) for size in (2**8, 2**12, 2**16)]
    away = np.abs(np.array(errors) / limit - 1)
    assert (away[1:] < away[:-1]).all()
    assert away[-1] < 1e-4


@given(st.floats(-3, 3), st.sampled_from(["e2m1_g16", "mxfp4", "int4_g8"]), st.floats(0.1, 3))
def test_scaling_law(log_std: float, name: str, scale: float) -> None:
    std = 10**log_std
    one = qe.quantization_error(qe.Gaussian(mean=0.25), name, scale)
    other = qe.quantization_error(qe.Gaussian(mean=0.25 * std, std=std), name, scale * std)
    assert other.mse == pytest.approx(one.mse * std**2, rel=1e-11)


@given(st.floats(-1, 1), st.sampled_from(["e2m1_g16", "mxfp4", "nf4_g32_e4m3fn", "int3_narrow_g4"]))
def test_reflection_law(mean: float, name: str) -> None:
    form = qe.block_format(name)
    mirrored = qe.BlockFormat(
        qe.Grid(-form.grid.levels[::-1]), form.block_size, form.scale_format, rule=form.rule, constant=1.0
    )
    one = qe.quantization_error(qe.Gaussian(mean=mean), form)
    other = qe.quantization_error(qe.Gaussian(mean=-mean), mirrored)
    assert other.mse == pytest.approx(one.mse, rel=1e-11)
    assert other.bias == pytest.approx(-one.bias, abs=1e-12)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_signed_scales_are_odd(rounding: str) -> None:
    """With the largest value on the same level whatever its sign, Q(-x) = -Q(x): no bias but that of the density."""
    form = qe.BlockFormat("int4", 32, signed=True)
    assert abs(qe.quantization_error(qe.Gaussian(), form, rounding=rounding).bias) < 1e-13
    one, other = (qe.quantization_error(qe.Gaussian(mean), form, rounding=rounding) for mean in (0.7, -0.7))
    assert one.bias == pytest.approx(-other.bias, abs=1e-13)
    assert one.mse == pytest.approx(other.mse, rel=1e-12)
    found = qe.simulate(qe.Gaussian(0.7), form, n=3_200_000, rng=1, rounding=rounding)
    assert abs(found.estimate.bias - one.bias) < 4.5 * found.stderr.bias


@pytest.mark.parametrize("density", [qe.Laplace(0.2), qe.Logistic(0.2), qe.Rectified(qe.Laplace(0.2))], ids=str)
def test_scales_without_end(density: qe.Density) -> None:
    """The last of the stored scales holds all values up to infinity."""
    terms = qe.quantization_error(density, "nvfp4", 2.0**-9)
    found = qe.simulate(density, "nvfp4", 2.0**-9, n=1_000_000, rng=1)
    assert abs(found.estimate.bias - terms.bias) < 4.5 * found.stderr.bias


def test_scaled_values_are_a_density() -> None:
    for form, kinks in ((qe.block_format("mxfp4"), 4), (qe.BlockFormat("int4", 16, signed=True), 2)):
        blocks = qe.BlockScaled(qe.Gaussian(mean=0.3), form)
        edges = np.linspace(-9, 9, 40)
        whole = np.concatenate([[-np.inf], edges, [np.inf]])
        mass = blocks.cell_moments(whole, np.zeros(41))[0]
        assert mass.sum() == pytest.approx(1, abs=1e-13)
        beyond, first = blocks.tails(edges)
        above = np.where(edges >= blocks.mean, beyond, 1 + beyond)
        assert above == pytest.approx(np.cumsum(mass[::-1])[::-1][1:], abs=1e-13)
        assert len(blocks.kinks) >= kinks
        # Between jumps the pdf is the derivative of the cdf.
        y = np.array([-3.1, -0.7, 0.2, 0.9])
        inside = y[np.abs(y) < blocks.support[1]]
        slope = (blocks.cdf(inside + 1e-5) - blocks.cdf(inside - 1e-5)) / 2e-5
        assert blocks.pdf(inside) == pytest.approx(slope, rel=1e-6)
        assert (first >= 0).all()


@pytest.mark.parametrize(
    ("name", "scale"), [("mxfp4", 1.0), ("nvfp4", 150.0), ("nf4_g64", 1.0), ("int4_g32_bf16", 1.0)]
)
def test_code_probabilities(name: str, scale: float) -> None:
    form, n = qe.block_format(name), 40_000
    found = qe.code_probabilities(qe.Laplace(), form, scale)
    assert found.sum() == pytest.approx(1, abs=1e-13)
    x = qe.Laplace().sample((n, form.block_size), rng=4)
    # Levels, not codes: -0 has one of its own.
    unit = qe.BlockFormat(form.grid, form.block_size, form.scale_format, rule=form.rule)
    codes = qe.quantize(x, unit, scale)
    level = qe.dequantize(codes.codes, form.grid, dtype=np.float64)
    share = np.array([(level == one).mean(axis=1) for one in form.grid.levels])
    off = np.abs(share.mean(axis=1) - found)
    assert (off <= 5 * share.std(axis=1) / np.sqrt(n) + 1e-9).all()


@pytest.mark.parametrize("density", [qe.Gaussian(), qe.StudentT(3.0), qe.GeneralizedGaussian(0.5), qe.Uniform(1, 2)])
@pytest.mark.parametrize("name", ["e2m1_g1", "e2m1_g2", "int4_g4"])
def test_codes_of_small_blocks(density: qe.Density, name: str) -> None:
    """Every block counts as one, however small its largest value."""
    assert qe.code_probabilities(density, name).sum() == pytest.approx(1, abs=1e-14)


def test_codes_of_blocks_of_two() -> None:
    """The ratio of two Gaussian values is Cauchy, and one of the two is the largest."""
    form = qe.block_format("e2m1_g2")
    ratio = np.clip(form.grid.thresholds / form.grid.absmax, -1, 1)
    inside = np.diff(2 / np.pi * np.arctan(ratio), prepend=-0.5, append=0.5) / 2
    inside[[0, -1]] += 0.25
    assert qe.code_probabilities(qe.Gaussian(), form) == pytest.approx(inside, abs=1e-14)


def test_code_entropies() -> None:
    """Bits a code, by an independent computation: MXFP4 at std 1 3.83, NVFP4 3.90."""
    assert qe.code_entropy(qe.Gaussian(), "mxfp4") == pytest.approx(3.83, abs=0.005)
    assert qe.code_entropy(qe.Gaussian(), "nvfp4") == pytest.approx(3.90, abs=0.005)
    assert qe.code_entropy(qe.Gaussian(), "nvfp4", 1e6) == pytest.approx(0, abs=1e-12)


def test_stochastic_rounding_is_unbiased_inside() -> None:
    terms = qe.quantization_error(qe.Laplace(mean=0.2), "e2m1_g16", rounding="stochastic")
    assert terms.bias == pytest.approx(0, abs=1e-14)
    assert terms.clipping == pytest.approx(0, abs=1e-14)
    nearest = qe.quantization_error(qe.Laplace(mean=0.2), "e2m1_g16")
    assert terms.mse > 1.5 * nearest.mse


SIGNED = {
    "int4 in E4M3 scales": (qe.BlockFormat("int4", 32, "e4m3fn", signed=True), 0.01),
    "int4 in saturated scales": (qe.BlockFormat("int4", 16, "e4m3fn", signed=True), 4e-4),
    "int4 in vanishing scales": (qe.BlockFormat("int4", 16, "e4m3fn", signed=True), 150.0),
    "rounded up": (qe.BlockFormat("int4", 16, "e4m3fn", signed=True, rule="up"), 0.5),
    "nf4": (qe.BlockFormat("nf4", 16, "e4m3fn", signed=True), 0.01),
}


@pytest.mark.parametrize("density", [qe.Laplace(), qe.Gaussian(mean=0.5)], ids=["laplace", "off the centre"])
@pytest.mark.parametrize("name", SIGNED)
def test_signed_scales_that_are_stored(name: str, density: qe.Density) -> None:
    form, unit = SIGNED[name]
    terms = qe.quantization_error(density, form, unit)
    drawn = qe.simulate(density, form, unit, n=1_600_000, rng=5)
    tested = 0
    for term in ("mse", "clipping", "rounding", "bias", "cross"):
        stderr = getattr(drawn.stderr, term)
        if np.isfinite(stderr):
            # Nothing but clipping can be without a standard error: too few blocks are clipped.
            assert abs(getattr(drawn.estimate, term) - getattr(terms, term)) < 4.5 * stderr, term
            tested += 1
    assert tested >= 4
    # A scale of 16 bits is nearly any number.
    if name == "int4 in E4M3 scales":
        fine = qe.quantization_error(density, form.replace(scale_format="bf16"))
        assert fine.mse == pytest.approx(qe.quantization_error(density, form.replace(scale_format=None)).mse, rel=3e-4)


def test_tables_hold_block_formats(tmp_path: Path) -> None:
    table = qe.scale_table(["nf4_g64", "mxfp4", "int4"], ["gaussian"])
    table.save(tmp_path / "scales.json")
    assert qe.load_table(tmp_path / "scales.json").rows == table.rows
    nf4, mxfp4, _ = table.rows
    best = qe.optimal_scale(qe.Gaussian(), "nf4_g64")
    assert (nf4.clip, nf4.mse, nf4.status) == (best.constant, best.error.mse, "EXACT")
    # 1 / (1 / constant) rounds twice.
    assert nf4.scale == pytest.approx(best.constant, rel=4e-16)
    assert 1 / mxfp4.scale == pytest.approx(7.238, abs=1e-3)
    with pytest.raises(ValueError, match=r"grid must have one scale, got the block format 'mxfp4'"):
        table.scale_for([1.0, 2.0], "mxfp4", "gaussian")


BAD = [
    (lambda: qe.quantization_error(qe.Gaussian(), "mxfp4", 1.0, 0.5), "shift must be 0 for a block format"),
    (lambda: qe.quantization_error(qe.Gaussian(), "mxfp4", size=64), "size must be left out for mxfp4"),
    (lambda: qe.quantization_error(qe.Gaussian(), "nvfp4", 1.0, size=64), "scale must be left out with size"),
    (lambda: qe.quantization_error(qe.Gaussian(), "nvfp4", size=40), "size must be a multiple of the block size 16"),
    (
        lambda: qe.quantization_error(qe.Gaussian(), "int4"),
        "scale must be a real number or an array of real numbers, got None",
    ),
    (lambda: qe.quantization_error(qe.Gaussian(), "int4", 1.0, size=64), "size must be left out for a grid"),
    (
        lambda: qe.quantization_error(qe.Gaussian(), qe.block_format("mxfp4").replace(rule="optimal")),
        "form must have a rule other than optimal, whose error is no finite sum; qerror.simulate",
    ),
    (lambda: qe.quantization_error(qe.Empirical([1.0, 2.0]), "mxfp4"), "density must have no point masses but at 0"),
    (
        lambda: qe.quantization_error(qe.Gaussian(), "int4_g128", model="high_resolution"),
        "model must be 'exact' for block scales of any size, got 'high_resolution' and int4_g128",
    ),
    (lambda: qe.octave_average(qe.Gaussian(), "nvfp4"), "form must have power-of-two scales"),
    (lambda: qe.optimal_scale(qe.Gaussian(), "int4_g32", free="scale"), "free must be 'constant' for block scales"),
    (lambda: qe.optimal_scale(qe.Gaussian(), "int4", free="scale"), "free must be left out for a grid"),
    (lambda: qe.lloyd_max(qe.Gaussian(), 4, fixed=(0,)), "fixed must be left out without block_size"),
    (lambda: qe.lloyd_max(qe.Gaussian(), 2, block_size=8, fixed=(-1, 1)), "fixed must hold fewer than 2 levels"),
]


@pytest.mark.parametrize(("call", "message"), BAD)
def test_bad_arguments(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match="must") as caught:
        call()
    assert str(caught.value).startswith(message)
