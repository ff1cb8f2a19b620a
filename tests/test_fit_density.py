"""Fitted densities: the parameters that made the data, the likeliest family, and honest refusals."""

from __future__ import annotations

import math
import time
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import qerror as qe

# Standard errors by which a fitted parameter may miss under a fixed rng.
Z_LIMIT = 4.0
# Likelihood per value by which a fit may miss what scipy.optimize finds: a condensed sample costs less than this.
LIKELIHOOD_TOLERANCE = 1e-7
N = 50_000

TRUTHS = {
    "gaussian": qe.Gaussian(3.0, 0.5),
    "laplace": qe.Laplace(-1.0, 2.0),
    "uniform": qe.Uniform.from_bounds(-0.25, 0.75),
    "logistic": qe.Logistic(10.0, 3.0),
    "student-t": qe.StudentT(4.0, 0.1, 1.5),
    "generalized-gaussian": qe.GeneralizedGaussian(0.7, 0.0, 1.0),
}


def log_likelihood(density: qe.Density, x: np.ndarray) -> float:
    return float(np.mean(np.log(density.pdf(x))))


@pytest.mark.parametrize("family", TRUTHS)
def test_parameters_are_found(family: str) -> None:
    truth = TRUTHS[family]
    x = truth.sample(N, 7)
    found = qe.fit_density(x, family)
    assert found.name.split(":")[0] == family
    # The maximum is at least as likely as the truth, and by about 1 / N at most.
    gain = log_likelihood(found, x) - log_likelihood(truth, x)
    assert -LIKELIHOOD_TOLERANCE <= gain < 20 / N
    root = math.sqrt(N)
    assert abs(found.mean - truth.mean) < Z_LIMIT * truth.std / root
    for shape, error in (("df", 0.15), ("beta", 0.01)):
        if hasattr(truth, shape):
            assert getattr(found, shape) == pytest.approx(getattr(truth, shape), abs=Z_LIMIT * error)
    # Relative standard errors of the std: 0.7 / sqrt(N) for a Gaussian, larger for heavy tails.
    assert abs(found.std / truth.std - 1) < (0.06 if family == "student-t" else Z_LIMIT * 1.5 / root)


@pytest.mark.parametrize("family", ["logistic", "student-t", "generalized-gaussian"])
def test_likelihood_is_the_largest(family: str) -> None:
    x = TRUTHS[family].sample(3000, 11)
    found = qe.fit_density(x, family)

    def loss(theta: np.ndarray) -> float:
        name = {"logistic": "", "student-t": "df", "generalized-gaussian": "beta"}[family]
        shape = f"{name}={2.05 + math.exp(theta[2]) if name == 'df' else math.exp(theta[2])!r}," if name else ""
        return -log_likelihood(qe.density(f"{family}:{shape}mean={float(theta[0])!r},std={math.exp(theta[1])!r}"), x)

    shape = getattr(found, "df", getattr(found, "beta", 1.0))
    start = [found.mean, math.log(found.std), math.log(shape - 2.05) if family == "student-t" else math.log(shape)]
    best = scipy.optimize.minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    assert log_likelihood(found, x) >= -best.fun - LIKELIHOOD_TOLERANCE


@pytest.mark.parametrize("family", TRUTHS)
def test_auto_says_the_family(family: str) -> None:
    x = TRUTHS[family].sample(N, 3)
    assert qe.fit_density(x).name.split(":")[0] == family


def test_rectified_gaussian() -> None:
    truth = qe.Rectified(qe.Gaussian(-0.5, 2.0))
    x = truth.sample(N, 5)
    found = qe.fit_density(x)
    assert found.name.startswith("rectified(gaussian")
    assert found.name == qe.fit_density(x, "rectified-gaussian").name
    assert found.base.mean == pytest.approx(-0.5, abs=Z_LIMIT * 0.02)
    assert found.base.std == pytest.approx(2.0, abs=Z_LIMIT * 0.015)
    # Pruned weights have exact zeros, too, but are negative elsewhere.
    pruned = np.where(np.abs(x - 1.0) < 0.5, 0.0, x - 1.0)
    assert not qe.fit_density(pruned).name.startswith("rectified")


@pytest.mark.parametrize("family", [*TRUTHS, "rectified-gaussian"])
@pytest.mark.parametrize("unit", [2.0**-100, 2.0**100])
def test_units_do_not_matter(family: str, unit: float) -> None:
    x = TRUTHS.get(family, qe.Rectified(qe.Gaussian())).sample(2000, 1)
    one, scaled = qe.fit_density(x, family), qe.fit_density(unit * x, family)
    assert scaled.mean == pytest.approx(unit * one.mean, rel=1e-9)
    assert scaled.std == pytest.approx(unit * one.std, rel=1e-9)


def test_tails_without_variance_are_clamped() -> None:
    found = qe.fit_density(np.random.default_rng(0).standard_cauchy(20_000), "student-t")
    assert found.df == 2.05


def test_two_values_and_heavy_ties() -> None:
    for x in ([0.0, 1.0], [-1.0, -1.0, -1.0, 2.0], np.r_[np.zeros(900) + 3, np.ones(100)]):
        for family in TRUTHS:
            found = qe.fit_density(x, family)
            assert np.isfinite(found.mean)
            assert found.std > 0
            assert np.isfinite(found.std)


def test_input_types_and_memory() -> None:
    x = np.random.default_rng(1).normal(size=(40, 50)).astype(np.float32)
    before = x.copy()
    assert qe.fit_density(x, "gaussian").std == pytest.approx(float(x.std()), rel=1e-6)
    assert np.array_equal(x, before)
    assert qe.fit_density([1, 2, 3, 4], "uniform").support == (1.0, 4.0)


def test_large_samples_are_fast() -> None:
    x = np.random.default_rng(2).standard_t(5, 1_000_000)
    start = time.perf_counter()
    found = qe.fit_density(x)
    # Measured 0.14 s; the bound leaves room for slow machines.
    assert time.perf_counter() - start < 3.0
    df, _, scale = scipy.stats.t.fit(x[:20_000])
    assert found.df == pytest.approx(df, rel=0.1)
    assert found.std == pytest.approx(scale * math.sqrt(df / (df - 2)), rel=0.05)


@pytest.mark.parametrize(
    ("x", "family", "text"),
    [
        ([], "auto", "x must hold at least two different values, got no values"),
        ([3.0, 3.0, 3.0], "auto", r"x must hold at least two different values, got only 3.0; .* use Empirical\(x\)"),
        ([1.0, math.nan], "auto", "x must be finite, got 1 NaN of 2 values"),
        ([1.0, 2.0], "cauchy", "family must be 'auto', 'gaussian', .* got 'cauchy'"),
        ([-1.0, 0.0, 2.0], "rectified-gaussian", "x must be >= 0 with some exact zeros .* the smallest value -1.0"),
        ([1.0, 2.0], "rectified-gaussian", "x must be >= 0 with some exact zeros .* no value that is exactly 0"),
        (["a", "b"], "auto", "x must be a real number or an array of real numbers"),
    ],
)
def test_bad_data(x: Any, family: str, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        qe.fit_density(x, family)
