"""Verdicts: true predictions pass, false ones are named, and the report says what it could not have seen."""

from __future__ import annotations

import itertools
import json
import re

import numpy as np
import pytest
import scipy.stats
from click.testing import CliRunner

import qerror as qe
from qerror.cli.commands import qerror_command
from qerror.evidence import verification

PREDICT = verification.predict


def wrong_by(monkeypatch, term, factor):
    """Make the library predict one term wrongly."""

    def predict(*args):
        terms = PREDICT(*args)
        return {**terms, term: terms[term] * factor}

    monkeypatch.setattr(verification, "predict", predict)


def test_true_predictions_hold():
    report = qe.verify(["int3", "e2m1", "nf4"], ["laplace", "uniform", qe.Gaussian(0.3)], n=100_000, rng=1)
    assert report.passed
    assert report.failures == ()
    assert len(report.rows) == 3 * 3 * 3 * 2
    assert report.tested == 7 * len(report.rows)
    assert "all 378 predictions hold" in report.statement
    assert {row.place for row in report.rows} == {"below", "at", "above"}
    assert {row.rounding for row in report.rows} == {"nearest", "stochastic"}
    row = next(row for row in report.rows if row.place == "above")
    assert row.scale == pytest.approx(2 * qe.optimal_scale(qe.density(row.density), row.grid).scale)


def test_nothing_on_both_sides_agrees():
    """A uniform density well inside the range: no clipping, predicted or simulated."""
    report = qe.verify("int4", qe.Uniform(), n=100_000, rng=1)
    none = [row.terms["clipping"] for row in report.rows if row.place == "above"]
    assert all(found.predicted == found.simulated == found.stderr == found.z == 0 for found in none)
    assert report.passed


@pytest.fixture
def remembered(monkeypatch):
    """Simulations that are asked for again are not run again: predictions alone are changed between reports."""
    known = {}

    def simulate(density, grid, scales, **options):
        key = (density.name, grid.name, tuple(scales), *sorted(options.items()))
        if key not in known:
            known[key] = qe.simulate(density, grid, scales, **options)
        return known[key]

    monkeypatch.setattr(verification, "simulate", simulate)


@pytest.mark.slow
@pytest.mark.nightly
def test_one_percent_is_rejected_at_ten_million(monkeypatch, remembered):
    assert qe.verify(["int4", "e2m1"], "gaussian", n=10_000_000, rng=0).passed
    for term, factor in itertools.product(["clipping", "rounding", "mse"], [0.99, 1.01]):
        wrong_by(monkeypatch, term, factor)
        report = qe.verify(["int4", "e2m1"], "gaussian", n=10_000_000, rng=0)
        assert not report.passed
        assert {found for _, found in report.failures} == {term}
        assert len(report.failures) == len(report.rows)
        assert report.power[term] < 0.01
        assert f"{term} predicted" in repr(report)


@pytest.mark.parametrize("factor", [np.nan, np.inf])
def test_a_prediction_that_is_no_number_is_rejected(monkeypatch, factor):
    wrong_by(monkeypatch, "clipping", factor)
    # With so heavy a tail nothing could be said about a finite one.
    for density in ("gaussian", "student-t:df=2.05"):
        report = qe.verify("int4", density, n=100_000, rng=0)
        assert {term for _, term in report.failures} == {"clipping"}
        assert len(report.failures) == len(report.rows)
        assert "|z| at most inf" in report.statement


def test_threshold_keeps_the_family_of_tests():
    report = qe.verify("int4", "gaussian", n=100_000, rng=1)
    assert 2 * report.tested * scipy.stats.norm.sf(report.threshold) == pytest.approx(1e-7, rel=1e-6)


@pytest.mark.slow
def test_deviations_of_the_stated_size_are_caught(monkeypatch, remembered):
    stated = qe.verify("e2m1", "gaussian", n=100_000, rng=0).power
    for term in ("clipping", "rounding", "mse"):
        wrong_by(monkeypatch, term, 1 + 1.05 * stated[term])
        runs = [qe.verify("e2m1", "gaussian", n=100_000, rng=seed) for seed in range(1, 31)]
        # Three rows and two modes in each; the worst row misses one in a thousand.
        caught = sum(len(run.failures) for run in runs)
        assert caught >= 6 * 30 - 3


def test_seeds_repeat():
    first, again, other = (qe.verify("int4", "gaussian", n=100_000, rng=seed) for seed in (3, 3, 4))
    assert first == again
    assert first != other
    row = first.rows[1]
    found = qe.simulate(qe.Gaussian(), "int4", row.scale, n=100_000, rng=row.rng, sampler="stratified")
    assert found.estimate.mse == row.terms["mse"].simulated


def test_what_cannot_be_tested_is_said():
    report = qe.verify("int4", qe.StudentT(2.05), n=100_000, rng=1)
    assert report.passed
    assert report.tested == 3 * len(report.rows)
    assert "(24 more could not be tested: the tail of student-t:df=2.05 falls as" in report.statement
    assert "clipping untested, rounding" in report.statement
    assert "too far out" in report.rows[0].reason


def test_bad_input():
    cases = [
        ({"n": 1000}, "n must be an integer from 100000 to 1099511627776, got 1000"),
        ({"grids": "int44"}, "int44"),
        ({"grids": []}, "grids must name at least one grid, got none"),
        ({"densities": []}, "densities must name at least one density, got none"),
        ({"densities": "gausian"}, "did you mean 'gaussian'?"),
        ({"densities": qe.Gaussian([0.0, 1.0])}, "densities must each have shape (), got Gaussian(mean=[0, 1])"),
        ({"rng": "x"}, "rng must be a non-negative integer"),
    ]
    for changed, text in cases:
        with pytest.raises(ValueError, match=re.escape(text)):
            qe.verify(**{"grids": "int4", "densities": "gaussian", "n": 100_000, **changed})


# -- the command -------------------------------------------------------------------------------------------------------


def run(*args, status=0):
    result = CliRunner().invoke(qerror_command, ["verify", "--density", "gaussian", "--grid", "int4", "e2m1", *args])
    assert result.exit_code == status, result.output
    return result


def test_command_prints_the_report():
    text = run("--n", "1e5", "--seed", "3").stdout
    report = qe.verify(["int4", "e2m1"], "gaussian", n=100_000, rng=3)
    assert report.statement in text
    assert text.count("stochastic") == 6
    assert f"{report.rows[0].terms['clipping'].z:+.2f}" in text


def test_command_prints_json():
    content = json.loads(run("--n", "100000", "--json").stdout)
    report = qe.verify(["int4", "e2m1"], "gaussian", n=100_000, rng=0)
    assert content["passed"] is True
    assert content["n"] == 100_000
    assert [row["terms"]["mse"]["z"] for row in content["rows"]] == [row.terms["mse"].z for row in report.rows]
    assert content["rows"][0]["rng"] == report.rows[0].rng


def test_command_fails_where_a_prediction_fails(monkeypatch):
    wrong_by(monkeypatch, "rounding", 1.1)
    assert "rejected: rounding" in run("--n", "1e5", status=1).stdout
    assert json.loads(run("--n", "1e5", "--json", status=1).stdout)["passed"] is False


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--n", "1.5"), "--n must be a whole number such as 1e7, got '1.5'"),
        (("--n", "many"), "--n must be a whole number such as 1e7, got 'many'"),
        (("--n", "1e3"), "n must be an integer from 100000 to 1099511627776, got 1000"),
        (("--seed", "-1"), "--seed"),
    ],
)
def test_command_with_bad_input(args, text):
    assert text in run(*args, status=2).output
