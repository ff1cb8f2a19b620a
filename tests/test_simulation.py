"""The simulator: unbiased, with honest error bars, the same for any number of threads, and of one mind with nothing."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import qerror as qe
from qerror.casting.scratch import Scratch
from qerror.evidence import blocks, estimation, sampling, simulation
from qerror.evidence.estimation import Cast
from qerror.results import ErrorTerms, SimulatedTerms

GAUSSIAN = qe.Gaussian()
TERMS = estimation.TERMS
SMALL = [name for bits in range(1, 9) for name in qe.formats(bits)]
# Under a fixed rng nothing is left to chance; five standard errors are passed once in two million.
LIMIT = 5.0


def z_scores(found: SimulatedTerms, exact: ErrorTerms) -> dict[str, np.ndarray]:
    """Distances in standard errors, 0 where both sides agree to the last bit of the samples.

    A density that ends a few bits beyond the last level is clipped by about (eps x)^2: samples have no such bits.
    """
    scores = {}
    for term in TERMS:
        distance = np.asarray(getattr(found.estimate, term)) - np.asarray(getattr(exact, term))
        with np.errstate(divide="ignore", invalid="ignore"):
            alike = np.abs(distance) <= np.finfo(np.float64).eps ** 2 * np.asarray(exact.power)
            scores[term] = np.where(alike, 0.0, distance / getattr(found.stderr, term))
    return scores


def assert_agree(found: SimulatedTerms, exact: ErrorTerms) -> None:
    for term, z in z_scores(found, exact).items():
        assert np.all(np.abs(z) < LIMIT), (term, z, found.reason)


def test_simulation_knows_no_formula():
    """What is under test must not choose the strata, the sample sizes or anything else."""
    for module in (sampling, estimation, simulation, blocks):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        named = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
        words = {word for name in named if name for word in name.split(".")}
        assert not words & {"error", "search", "fine_grids", "high_resolution", "quadrature"}
        text = Path(module.__file__).read_text(encoding="utf-8")
        assert not any(f".{method}(" in text for method in ("pdf", "moments", "cell_moments", "tails", "panels"))


@pytest.mark.parametrize("name", [*SMALL, "int16", "fp16", "bf16"])
def test_cast_is_fake_quantize_to_the_last_digit(name):
    grid = qe.grid(name)
    rng = np.random.default_rng(1)
    for scale, shift in ((1.0, 0.0), (0.37, -0.21), (2.0**-9, 0.5)):
        x = scale * np.concatenate(
            [grid.levels, grid.thresholds, rng.standard_normal(1000), rng.uniform(1.2, 3.0, 50) * grid.absmax, [-0.0]]
        )
        x += shift
        out, work = np.empty(x.size), np.empty((2, x.size))
        Cast(grid, scale, shift, "nearest")(x, out, work, Scratch(x.size))
        np.testing.assert_array_equal(out, qe.fake_quantize(x, grid, scale, shift))


# -- agreement with the exact integrals --------------------------------------------------------------------------------

DENSITIES = {
    "gaussian": GAUSSIAN,
    "gaussian off centre": qe.Gaussian(3.0, 0.5),
    "laplace": qe.Laplace(),
    "logistic": qe.Logistic(),
    "uniform": qe.Uniform(),
    "rectified": qe.Rectified(GAUSSIAN),
    "histogram": qe.Histogram([1, 5, 9, 4, 0, 2], [-2.0, -1.0, -0.3, 0.2, 1.0, 1.5, 4.0]),
    "empirical": qe.Empirical(np.random.default_rng(7).laplace(size=5000)),
    "student-t:df=5": qe.StudentT(5),
    "generalized gaussian": qe.GeneralizedGaussian(0.5),
    "student-t:df=4.2": qe.StudentT(4.2),
    "mixture": qe.density("mixture(0.9*gaussian; 0.1*gaussian:std=4)"),
    "pdf": qe.from_pdf(lambda x: 1 - np.abs(x), (-1, 1), kinks=[0]),
    "scipy": qe.from_scipy(scipy.stats.gamma(2.0)),
}
SOME = ["ternary", "uint4", "int8", "e2m1", "e5m2"]
# Quantiles of a microsecond, or optimal scales that take a second each on fine grids.
SLOW = ("mixture", "pdf", "scipy", "student-t:df=4.2")
# Half as slow: a third of the formats each.
SHARES = ("empirical", "student-t:df=5", "generalized gaussian")


def check_formats(density, names, n):
    for name in names:
        scales = np.array([0.5, 1.0, 2.0]) * float(qe.optimal_scale(density, name).scale)
        found = qe.simulate(density, name, scales, n=n, rng=2024, sampler="stratified")
        assert_agree(found, qe.quantization_error(density, name, scales))
        assert found.reason == ""


@pytest.mark.slow
@pytest.mark.parametrize("name", DENSITIES)
def test_formats_stratified(name):
    """Every format on few samples, one on many (the whole matrix takes an hour)."""
    names = SMALL[SHARES.index(name) :: len(SHARES)] if name in SHARES else SMALL
    check_formats(DENSITIES[name], SOME if name in SLOW else names, 20_000)
    check_formats(DENSITIES[name], ["e2m1"], 200_000 if name in SLOW else 1_000_000)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("sampler", simulation.SAMPLERS)
@pytest.mark.parametrize("name", ["int4", "e2m1", "nf4"])
def test_every_sampler_and_rounding(name, sampler, rounding):
    scales = np.array([0.2, 0.4])
    found = qe.simulate(GAUSSIAN, name, scales, 0.1, n=300_000, rng=5, sampler=sampler, rounding=rounding)
    assert_agree(found, qe.quantization_error(GAUSSIAN, name, scales, 0.1, rounding=rounding))


def test_a_distant_mean_costs_no_digits():
    density = qe.Gaussian(1e6, 1.0)
    for sampler in simulation.SAMPLERS:
        found = qe.simulate(density, "int4", 0.3, 1e6, n=200_000, rng=3, sampler=sampler)
        exact = qe.quantization_error(density, "int4", 0.3, 1e6)
        for term in ("clipping", "rounding", "bias", "cross"):
            assert abs(z_scores(found, exact)[term]) < LIMIT
        assert found.estimate.mean == pytest.approx(1e6, abs=5 * found.stderr.mean)
        assert 1e-5 < found.stderr.mean < 4e-3


def test_arrays_of_densities_scales_and_shifts():
    density = qe.Gaussian([0.0, 1.0], [1.0, 2.0])
    scale, shift = np.array([0.2, 0.25, 0.3])[:, None, None], np.array([0.0, 0.2])[:, None]
    for sampler in simulation.SAMPLERS:
        found = qe.simulate(density, "int4", scale, shift, n=50_000, rng=1, sampler=sampler)
        assert found.estimate.mse.shape == found.stderr.bias.shape == (3, 2, 2)
        assert_agree(found, qe.quantization_error(density, "int4", scale, shift))


# -- honest standard errors --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "n"), [("pseudo", 1 << 17), pytest.param("stratified", 1 << 14, marks=pytest.mark.nightly)]
)
def test_scores_over_a_thousand_seeds_are_normal(sampler, n):
    scale = 0.34
    exact = qe.quantization_error(GAUSSIAN, "int4", scale)
    runs = [qe.simulate(GAUSSIAN, "int4", scale, n=n, rng=seed, sampler=sampler) for seed in range(1000)]
    for term in TERMS:
        z = np.array([z_scores(run, exact)[term] for run in runs])
        # Seven terms, two samplers: one in seventy choices of the thousand seeds would be below.
        assert scipy.stats.kstest(z, "norm").pvalue > 1e-3, term
        assert_seldom_beyond_three(z, term)


def assert_seldom_beyond_three(z, term):
    beyond = int(np.count_nonzero(np.abs(z) > 3))
    assert scipy.stats.binomtest(beyond, z.size, 2 * scipy.stats.norm.sf(3)).pvalue > 1e-4, (term, beyond)


@pytest.mark.slow
def test_scores_beyond_three_where_tails_are_exponential_and_rounding_is_random():
    density, scale = qe.Laplace(), 0.41
    exact = qe.quantization_error(density, "int4", scale, rounding="stochastic")
    options = {"n": 100_000, "rounding": "stochastic", "sampler": "stratified"}
    runs = [qe.simulate(density, "int4", scale, rng=seed, **options) for seed in range(300)]
    for term in TERMS:
        assert_seldom_beyond_three(np.array([z_scores(run, exact)[term] for run in runs]), term)


def test_rare_clipping_is_resolved_by_strata():
    scale = float(qe.optimal_scale(GAUSSIAN, "int8").scale)
    found = qe.simulate(GAUSSIAN, "int8", scale, n=1_000_000, rng=0, sampler="stratified")
    assert found.stderr.clipping < 0.005 * found.estimate.clipping
    assert found.stderr.rounding < 0.005 * found.estimate.rounding
    plain = qe.simulate(GAUSSIAN, "int8", scale, n=2_000_000, rng=0)
    assert 0.1 < plain.stderr.clipping / plain.estimate.clipping < 0.3


def test_sobol_points_beat_chance_where_the_error_is_smooth():
    plain, sobol = (qe.simulate(GAUSSIAN, "int4", 0.4, n=1 << 18, rng=1, sampler=s) for s in ("pseudo", "sobol"))
    assert sobol.stderr.rounding < 0.05 * plain.stderr.rounding
    assert sobol.n == 1 << 18


def test_heavy_tails():
    heavy = qe.StudentT(3)
    plain = qe.simulate(heavy, "int4", 0.4, n=100_000, rng=1)
    for term in ("clipping", "mse", "cross", "power"):
        assert np.isnan(getattr(plain.stderr, term))
        assert np.isfinite(getattr(plain.estimate, term))
    assert np.isfinite([plain.stderr.rounding, plain.stderr.bias, plain.stderr.mean]).all()
    assert "E[x^4] is infinite" in plain.reason
    strata = qe.simulate(heavy, "int4", 0.4, n=100_000, rng=1, sampler="stratified")
    assert_agree(strata, qe.quantization_error(heavy, "int4", 0.4))
    assert strata.stderr.clipping < 0.01 * strata.estimate.clipping
    assert strata.reason == ""


def test_a_tail_too_heavy_to_be_drawn_promises_nothing():
    found = qe.simulate(qe.StudentT(2.05), "int4", 0.4, n=50_000, rng=1, sampler="stratified")
    assert np.isnan(found.stderr.clipping)
    assert "too far out" in found.reason
    exact = qe.quantization_error(qe.StudentT(2.05), "int4", 0.4)
    assert abs(found.estimate.rounding - exact.rounding) < LIMIT * found.stderr.rounding


@pytest.mark.parametrize(
    ("density", "index"), [(qe.StudentT(5), 0.2), (qe.StudentT(2.5), 0.4), (GAUSSIAN, 0.0), (qe.Laplace(4.0), 0.0)]
)
def test_tail_index(density, index):
    # A Gaussian's slope between the two probabilities is 0.0026, an exponential's 0.005.
    assert sampling.tail_index(density) == pytest.approx(index, abs=0.006)


def test_unseen_clipping_has_no_standard_error():
    found = qe.simulate(GAUSSIAN, "int8", [0.03, 0.06], n=10_000, rng=1)
    assert np.isnan(found.stderr.clipping).all()
    assert "fewer than 30" in found.reason
    inside = qe.simulate(qe.Uniform(), "int8", 0.06, n=10_000, rng=1)
    assert inside.estimate.clipping == inside.stderr.clipping == 0
    assert inside.reason == ""


@pytest.mark.parametrize("sampler", simulation.SAMPLERS)
def test_unseen_stochastic_rounding_has_no_standard_error(sampler):
    """Values next to a level: one in a million should go a whole step further, and carries all of the error."""
    near, options = qe.Gaussian(0.0, 1e-6), {"rng": 1, "rounding": "stochastic", "sampler": sampler}
    few, many = (qe.simulate(near, "int4", scale, n=1_000_000, **options) for scale in (1.0, 1e-3))
    assert np.isnan([few.stderr.rounding, few.stderr.mse, few.stderr.bias, few.stderr.cross]).all()
    assert np.isfinite(few.stderr.mean)
    assert "stochastic rounding sends fewer than 30 values to the farther neighbour" in few.reason
    assert "stochastic" not in many.reason
    exact = qe.quantization_error(near, "int4", 1e-3, rounding="stochastic")
    assert max(abs(z_scores(many, exact)[term]) for term in ("rounding", "mse", "bias", "cross")) < LIMIT


def test_clipping_at_thirty_six_standard_deviations():
    """Probabilities of 1e-284, whose squares are no doubles."""
    found = qe.simulate(GAUSSIAN, "int4_narrow", 36.0 / 7, n=20_000, rng=1, sampler="stratified")
    exact = qe.quantization_error(GAUSSIAN, "int4_narrow", 36.0 / 7)
    assert 0 < exact.clipping < 1e-280
    assert_agree(found, exact)


# -- reproducible ------------------------------------------------------------------------------------------------------


def fields(found: SimulatedTerms) -> list[float]:
    return [
        value
        for part in (found.estimate, found.stderr)
        for value in np.concatenate([np.ravel(getattr(part, f.name)) for f in dataclasses.fields(part)]).tolist()
    ]


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("sampler", simulation.SAMPLERS)
def test_same_result_for_any_number_of_threads(sampler, rounding, monkeypatch):
    results = []
    for threads in ("1", "3"):
        monkeypatch.setenv("QERROR_NUM_THREADS", threads)
        found = qe.simulate(GAUSSIAN, "e2m1", [0.4, 0.5], n=2_500_000, rng=9, sampler=sampler, rounding=rounding)
        results.append(fields(found))
    assert results[0] == results[1]


@pytest.mark.parametrize("sampler", simulation.SAMPLERS)
def test_a_scale_does_not_change_another(sampler):
    both = qe.simulate(GAUSSIAN, "int4", [0.3, 0.5], n=10_000, rng=9, sampler=sampler, rounding="stochastic")
    one = qe.simulate(GAUSSIAN, "int4", 0.5, n=10_000, rng=9, sampler=sampler, rounding="stochastic")
    assert both.estimate.mse[1] == one.estimate.mse
    assert both.stderr.bias[1] == one.stderr.bias


def test_the_seed_reproduces():
    first = qe.simulate(GAUSSIAN, "int4", 0.2, n=10_000, rng=np.random.default_rng(4))
    fresh = qe.simulate(GAUSSIAN, "int4", 0.2, n=10_000)
    for found in (first, fresh):
        assert fields(qe.simulate(GAUSSIAN, "int4", 0.2, n=10_000, rng=found.rng)) == fields(found)
    assert fields(first) != fields(fresh)


@pytest.mark.parametrize("sampler", simulation.SAMPLERS)
@pytest.mark.parametrize("n", [4096, 5000, 123_457, (1 << 20) + 5])
def test_every_sample_is_counted(sampler, n):
    parts = sampling.streams(sampler, n, 0)
    plan = sampling.make_plan(sampler, GAUSSIAN, parts[-1].stop, -2.0, 2.0)
    drawn = sum(x.size for part in parts for _, x, _ in plan.blocks(part))
    assert drawn == parts[-1].stop == qe.simulate(GAUSSIAN, "int4", 0.3, n=n, rng=0, sampler=sampler).n
    assert drawn == n if sampler != "sobol" else 0.96 * n < drawn <= n


# -- bad input ---------------------------------------------------------------------------------------------------------


def simulate(**changed):
    return qe.simulate(**{"density": GAUSSIAN, "grid": "int4", "scale": 0.3, "n": 1000, **changed})


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"n": 99}, "n must be at least 100 for the sampler 'pseudo', got 99"),
        ({"n": 4095, "sampler": "sobol"}, "n must be at least 4096 for the sampler 'sobol', got 4095"),
        ({"n": 1e6}, "n must be an integer of at most 1099511627776, got 1000000.0"),
        ({"sampler": "latin"}, "sampler must be 'pseudo', 'sobol' or 'stratified', got 'latin'"),
        ({"rounding": "up"}, "rounding must be 'nearest' or 'stochastic', got 'up'"),
        ({"rng": -1}, "rng must be a non-negative integer, a numpy.random.Generator or None, got -1"),
        ({"rng": 1.5}, "rng must be a non-negative integer, a numpy.random.Generator or None, got 1.5"),
        ({"rng": np.random.RandomState(1)}, "rng must be a non-negative integer"),
        ({"density": "gaussian"}, "qerror.density('gaussian') makes one"),
        ({"scale": -1.0}, "scale must be positive and finite, got -1.0"),
        ({"scale": [0.1, 0.2], "shift": [0, 1, 2]}, "do not broadcast against the density"),
        ({"shift": np.nan}, "shift must be finite"),
        ({"grid": "int44"}, "int44"),
    ],
)
def test_bad_input(changed, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        simulate(**changed)


def test_readable():
    text = repr(simulate(rng=3))
    assert "+-" in text
    assert re.search(r"rng +3\b", text)
