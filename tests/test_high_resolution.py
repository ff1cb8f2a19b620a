"""The high-resolution model is StatQAT's: its SNR formulas, derived here without the package."""

from __future__ import annotations

import math
from collections.abc import Iterator

import mpmath
import numpy as np
import pytest

import qerror as qe
from qerror.errors import high_resolution

# Both sides are closed forms or moments within 1e-14.
FORMULA_TOLERANCE = 1e-12
# By differences of fourth order.
GRADIENT_TOLERANCE = 1e-9
# The model of grids fine enough is the truth, up to this.
FINE_TOLERANCE = 1e-4


def tail(x: float) -> mpmath.mpf:
    """Q(x) of the Gaussian."""
    return mpmath.erfc(mpmath.mpf(x) / mpmath.sqrt(2)) / 2


def overload(z: float) -> float:
    """Clipping of a zero-mean Gaussian at +-C over its variance, z = C^2 / sigma^2 (StatQAT, arXiv 2605.17745)."""
    z = mpmath.mpf(z)
    return float(2 * (1 + z) * tail(mpmath.sqrt(z)) - mpmath.sqrt(2 * z / mpmath.pi) * mpmath.exp(-z / 2))


def uniform_inverse_snr(n: int, z: float) -> float:
    """1 / SNR of n uniform levels that end at +-C."""
    return overload(z) + z / (3 * (n - 1) ** 2)


def regions(levels: list[float]) -> Iterator[tuple[float, float, float]]:
    """Regions of constant step of a floating grid as (lower, upper, step)."""
    start = 0
    for i in range(1, len(levels)):
        step = levels[i] - levels[i - 1]
        if i + 1 == len(levels) or levels[i + 1] - levels[i] != step:
            yield levels[start], levels[i], step
            start = i


def floating_inverse_snr(levels: list[float], scale: float, sigma: float) -> float:
    """1 / SNR of a floating grid: sum over regions of constant step v of (s v)^2 P / (12 sigma^2)."""
    granular = mpmath.mpf(0)
    for low, high, step in regions(levels):
        p = mpmath.ncdf(scale * high / sigma) - mpmath.ncdf(scale * low / sigma)
        granular += (scale * step) ** 2 * p / (12 * sigma**2)
    return overload((scale * levels[-1] / sigma) ** 2) + float(granular)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("sigma", [1.0, 0.02])
def test_uniform_snr(bits: int, sigma: float) -> None:
    n = 2**bits
    for grid in (qe.grid(f"int{bits}_midrise"), qe.Grid(np.linspace(-1, 1, n))):
        for z in (0.3, 4.0, 25.0):
            scale = sigma * math.sqrt(z) / grid.max
            if grid.step is None:
                continue
            error = qe.quantization_error(qe.Gaussian(0, sigma), grid, scale, model="high_resolution")
            assert error.mse / sigma**2 == pytest.approx(uniform_inverse_snr(n, z), rel=FORMULA_TOLERANCE)
            assert error.clipping / sigma**2 == pytest.approx(overload(z), rel=1e-10)
            assert error.sqnr_db == pytest.approx(-10 * math.log10(uniform_inverse_snr(n, z)), abs=1e-11)


@pytest.mark.parametrize("name", ["e2m1", "e3m0", "e2m3", "e3m2", "e4m3fn", "e5m2"])
@pytest.mark.parametrize("sigma", [1.0, 3.0])
def test_floating_snr(name: str, sigma: float) -> None:
    grid = qe.grid(name)
    for clip in (0.7, 3.0, 20.0):
        scale = sigma * clip / grid.max
        error = qe.quantization_error(qe.Gaussian(0, sigma), grid, scale, model="high_resolution")
        expected = floating_inverse_snr(grid.levels.tolist(), scale, sigma)
        assert error.mse / sigma**2 == pytest.approx(expected, rel=FORMULA_TOLERANCE)


def test_a_wrong_snr_is_noticed() -> None:
    """N instead of N - 1 steps, or the exact error, is not the model."""
    error = qe.quantization_error(qe.Gaussian(), "int4_midrise", 0.3, model="high_resolution")
    assert error.mse != pytest.approx(uniform_inverse_snr(17, (0.3 * 7.5) ** 2), rel=1e-3)
    assert qe.quantization_error(qe.Gaussian(), "int4_midrise", 0.3).mse != pytest.approx(error.mse, rel=1e-3)


@pytest.mark.parametrize("grid", ["int4", "uint4", "int4_midrise", "ternary"])
def test_uniform_rounding_is_on_the_whole_line(grid: str) -> None:
    """step^2 / 12 (stochastic: / 6), whatever is clipped, with no bias or cross term."""
    for rounding, part in (("nearest", 12), ("stochastic", 6)):
        error = qe.quantization_error(qe.Laplace(0.4), grid, 0.6, 0.1, rounding=rounding, model="high_resolution")
        assert error.rounding == pytest.approx(0.36 / part, rel=1e-15)
        assert error.bias == error.cross == 0.0
        exact = qe.quantization_error(qe.Laplace(0.4), grid, 0.6, 0.1, rounding=rounding)
        assert error.clipping == pytest.approx(exact.clipping, rel=FORMULA_TOLERANCE)


@pytest.mark.parametrize("density", ["laplace:mean=0.2", "student-t:df=3", "uniform", "gaussian:std=0.5"])
def test_other_grids_sum_over_gaps(density: str) -> None:
    """gap^2 / 12 P(gap) from the cdf."""
    members, grid = qe.density(density), qe.grid("nf4")
    values = 0.1 + 1.7 * grid.levels
    expected = (np.diff(values) ** 2 / 12 * np.diff(members.cdf(values))).sum()
    for rounding, factor in (("nearest", 1), ("stochastic", 2)):
        error = qe.quantization_error(members, grid, 1.7, 0.1, rounding=rounding, model="high_resolution")
        assert error.rounding == pytest.approx(factor * expected, rel=1e-12)


@pytest.mark.parametrize("grid", ["int8", "e2m1", "e4m3fn", "nf4", "uint4"])
@pytest.mark.parametrize("density", ["gaussian:mean=0.3", "student-t:df=4", "logistic"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_gradient(grid: str, density: str, rounding: str) -> None:
    members, levels = qe.density(density), qe.grid(grid)
    steps, weights = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([1.0, -8.0, 8.0, -1.0]) / 12
    h = 2e-4
    for clip, z in ((1.3, 0.0), (3.7, -0.4)):
        s = clip / levels.absmax
        scale = np.concatenate([[s], s * (1 + h * steps), np.full(4, s)])
        shift = np.concatenate([np.full(5, z), z + h * steps])
        clipping, rounding_error, by_scale, by_shift = high_resolution.error_sums(
            members, levels, scale, shift, rounding
        )
        mse = clipping + rounding_error
        assert abs(mse[1:5] @ weights / h - by_scale[0] * s) <= GRADIENT_TOLERANCE
        assert abs(mse[5:] @ weights / h - by_shift[0]) <= GRADIENT_TOLERANCE
        assert abs(by_scale[0] * s) > 100 * GRADIENT_TOLERANCE


def test_fine_steps_are_the_truth() -> None:
    for grid in ("int12", "e5m6"):
        scale = 8.0 / qe.grid(grid).absmax
        for rounding in ("nearest", "stochastic"):
            model, exact = (
                qe.quantization_error(qe.Gaussian(), grid, scale, rounding=rounding, model=m).mse
                for m in ("high_resolution", "exact")
            )
            assert model == pytest.approx(exact, rel=FINE_TOLERANCE)


@pytest.mark.parametrize(
    "density",
    [
        qe.Empirical([1.0, 2.0]),
        qe.Rectified(qe.Gaussian()),
        qe.Mixture([qe.Gaussian(), qe.Rectified(qe.Laplace())], [0.5, 0.5]),
    ],
    ids=["sample", "rectified", "mixture"],
)
def test_point_masses_are_refused(density: qe.Density) -> None:
    match = r"model='high_resolution' needs a density without point masses, got .*; use 'exact'"
    with pytest.raises(ValueError, match=match):
        qe.quantization_error(density, "int4", 0.3, model="high_resolution")
    with pytest.raises(ValueError, match=match):
        qe.optimal_scale(density, "int4", model="high_resolution")


def test_many_scales_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    scale, std = np.geomspace(0.1, 2, 31), np.linspace(0.5, 2, 31)
    for density in (qe.Gaussian(), qe.Gaussian(0, std)):
        whole = qe.quantization_error(density, "e2m1", scale, model="high_resolution").mse
        monkeypatch.setattr(high_resolution, "_CHUNK_CELLS", 40)
        np.testing.assert_array_equal(qe.quantization_error(density, "e2m1", scale, model="high_resolution").mse, whole)
        monkeypatch.undo()


@pytest.mark.parametrize("grid", ["e2m1", "sf4", "e3m0", "pot4", "apot4"])
@pytest.mark.parametrize(
    "density",
    [qe.Uniform(), qe.Histogram([7, 2, 1, 4, 5, 5], [-4.0, -2.76, -2.05, -1.46, -0.8, 0.05, 0.8])],
    ids=["uniform", "histogram"],
)
def test_edges_of_the_error_are_found(density: qe.Density, grid: str) -> None:
    """Where a jump of the pdf meets a level the approximated error has an edge: no smooth minimum leads to it."""
    best = qe.optimal_scale(density, grid, model="high_resolution")
    near = best.scale * (1 + np.linspace(-1e-4, 1e-4, 2001))
    least = qe.quantization_error(density, grid, near, model="high_resolution").mse.min()
    assert best.error.mse <= least * (1 + 1e-9)
