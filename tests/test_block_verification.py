"""Predicted errors of block formats against simulations of whole blocks: a matrix of formats, and `verify`."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pytest
from click.testing import CliRunner

import qerror as qe
from qerror.cli.commands import qerror_command
from qerror.evidence import block_cases, verification

OCTAVES = ("floor", "ceil", "even", "rceil")
DENSITIES = {
    "gaussian": qe.Gaussian(),
    "off-centre": qe.Gaussian(mean=0.7),
    "laplace": qe.Laplace(),
    "uniform": qe.Uniform(),
    "logistic": qe.Logistic(),
    "two humps": qe.Mixture([qe.Gaussian(-1.0, 0.3), qe.Gaussian(1.5, 0.8)], [0.6, 0.4]),
    "peaked": qe.GeneralizedGaussian(0.8),
    "rectified": qe.Rectified(qe.Gaussian(0.5)),
}


def matrix():
    """Formats by element, scales, rule and block size, each with three densities, tensor scales between octaves."""
    forms = [
        qe.BlockFormat(grid, size, "e8m0", rule=rule)
        for rule in (*OCTAVES, "absmax")
        for grid, size in (("e2m1", 32), ("e2m3", 8), ("e3m2", 16), ("int4", 32), ("e4m3fn", 4))
    ]
    forms += [
        qe.BlockFormat(grid, size, stored, rule=rule)
        for rule in ("absmax", "up", "down")
        for stored in ("e4m3fn", "fp16", "bf16")
        for grid, size in (("e2m1", 16), ("int4", 8), ("nf4", 64))
    ]
    forms += [qe.BlockFormat("e2m1", 16, "e4m3fn", rule=r, tensor_scale=True) for r in ("absmax", "up", "down")]
    forms += [
        qe.BlockFormat(grid, size, constant=c)
        for grid, size, c in itertools.product(("int4", "int3_narrow", "nf4", "e2m1"), (2, 16, 128), (1.0, 0.9))
    ]
    forms += [qe.BlockFormat("int4", size, stored, signed=True) for size in (4, 32) for stored in (None, "bf16")]
    forms += [qe.BlockFormat("e2m1", size, rule="best_of", constant=(1.0, 1.5)) for size in (8, 16)]
    names = list(DENSITIES)
    return [
        (form, _quick(form, names[(i + 3 * j) % len(names)]), 1.0 + (0.37 * i + 0.29 * j) % 1.0, rounding)
        for i, form in enumerate(forms)
        for j, rounding in enumerate(("nearest", "nearest", "stochastic"))
        if block_cases.is_predicted(form)
    ]


def _quick(form, name):
    """With ten thousands of scales functions as slow as the incomplete gamma take a quarter of a minute."""
    many = form.scale_format is not None and len(form.scale_format) > 1000
    return "logistic" if many and name == "peaked" else name


MATRIX = matrix()


def label(case):
    form, density, scale, rounding = case
    return f"{form.name} {density} {scale:.2f} {rounding}"


def hold(case, blocks):
    """Every term that is honest lies within 4.5 standard errors of its prediction; how many there were."""
    form, name, scale, rounding = case
    density = DENSITIES[name]
    if form.tensor_scale:
        scale *= 2.0**-9
    found = qe.simulate(density, form, scale, n=blocks * form.block_size, rng=11, rounding=rounding)
    found = block_cases.only_honest(density, found)
    predicted = verification.predict(density, form, np.array([scale]), rounding)
    terms = verification._compare(
        {term: float(value[0]) for term, value in predicted.items()},
        type(found)(*(_one(getattr(found, key)) for key in ("estimate", "stderr")), found.n, found.rng, found.reason),
        0,
    )
    scores = {term: compared.z for term, compared in terms.items() if not math.isnan(compared.z)}
    assert max(map(abs, scores.values())) < 4.5, scores
    return len(scores)


def _one(terms):
    return type(terms)(**{key: np.atleast_1d(value) for key, value in vars(terms).items()})


@pytest.mark.parametrize("case", MATRIX[::19], ids=label)
def test_some_formats(case):
    assert hold(case, 20_000) >= 6


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("case", MATRIX, ids=label)
def test_all_formats(case):
    """A hundred thousand blocks each, a million where they are small."""
    assert hold(case, 1_000_000 if case[0].block_size <= 4 else 100_000) >= 6


def test_the_matrix_is_large():
    assert len(MATRIX) >= 200


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_takes_block_formats():
    report = qe.verify(["mxfp4", "nvfp4", "int4_g32", "e2m1"], ["gaussian", "uniform"], n=150_000, rng=1)
    assert report.passed, report
    assert len(report.rows) == 2 * 2 * (3 + 3 + 1 + 3)
    places = {name: [row.place for row in report.rows if row.grid == name] for name in ("mxfp4", "nvfp4", "int4_g32")}
    assert set(places["mxfp4"]) == {"octave", "octave + 1/3", "octave + 2/3"}
    assert set(places["nvfp4"]) == {"half", "own", "double"}
    assert set(places["int4_g32"]) == {"any"}
    row = next(row for row in report.rows if row.grid == "nvfp4" and row.rounding == "stochastic")
    found = qe.simulate(qe.Gaussian(), "nvfp4", row.scale, n=150_000, rng=row.rng, rounding="stochastic")
    assert found.estimate.mse == pytest.approx(row.terms["mse"].simulated, rel=1e-12)
    assert row.scale == pytest.approx(qe.Gaussian().isf(2.0**-20) / (448 * 6) / 2)


def test_formats_that_names_do_not_tell_are_told():
    even = qe.block_format("mxfp4").replace(rule="even")
    report = qe.verify(even, "gaussian", n=150_000, rng=1)
    assert {row.grid for row in report.rows} == {"e2m1_g32_e8m0:even"}


def test_the_better_of_two_scales_is_predicted():
    report = qe.verify(qe.BlockFormat("e2m1", 16, rule="best_of", constant=(1, 1.5)), "gaussian", n=150_000, rng=1)
    assert report.passed
    assert [row.rounding for row in report.rows] == ["nearest", "stochastic"]


@pytest.mark.parametrize("term", ["clipping", "rounding", "mse", "cross", "bias"])
def test_wrong_predictions_are_rejected(monkeypatch, term):
    predict = verification.predict

    def wrong(*args):
        terms = predict(*args)
        return {**terms, term: terms[term] * 1.5 + (0.01 if term == "bias" else 0.0)}

    monkeypatch.setattr(verification, "predict", wrong)
    report = qe.verify("mxfp4", "gaussian", n=300_000, rng=1)
    assert {name for _, name in report.failures} == {term}
    assert len(report.failures) == 6
    assert "gaussian, mxfp4, tensor scale (1.25992), nearest: " + term in repr(report)


def test_what_blocks_cannot_know_is_not_tested():
    report = qe.verify("mxfp4", "student-t:df=5", n=150_000, rng=1)
    assert report.passed
    assert report.tested == 2 * 6
    assert "E[x^8] is infinite" in report.statement
    # One in thousands of blocks is clipped: too few to be normal six standard errors out.
    rare = qe.verify("nvfp4", "laplace", n=150_000, rng=1)
    assert "too few blocks were clipped" in rare.statement


def test_clipping_by_the_last_digit_is_nothing():
    report = qe.verify("e2m1_g16", "gaussian", n=150_000, rng=1)
    assert report.passed
    assert not any(abs(row.terms["clipping"].z) > 1e-3 for row in report.rows)
    assert math.isnan(report.power["clipping"])


def test_bad_input():
    cases = [
        ({"n": 100_000}, "n must be at least 131072 with mxfp4, 4096 blocks of 32, got 100000"),
        ({"grids": ["int4", "mxfp44"]}, "mxfp44"),
        (
            {"grids": qe.BlockFormat("e2m1", 16, "e8m0", rule="optimal")},
            "grids must have rules whose error",
        ),
    ]
    for changed, text in cases:
        with pytest.raises(ValueError, match=re.escape(text)):
            qe.verify(**{"grids": "mxfp4", "densities": "gaussian", "n": 150_000, **changed})


def test_the_command_prints_aligned_columns():
    args = ["verify", "--n", "270000", "--density", "gaussian", "laplace", "--grids", "mxfp4", "nvfp4", "int4_g64"]
    result = CliRunner().invoke(qerror_command, args)
    assert result.exit_code == 0, result.output
    head, _, *lines = result.stdout.splitlines()[1:]
    rows = [line for line in lines if re.match(r" ?(gaussian|laplace) ", line)]
    assert len(rows) == 2 * 2 * 7
    for title in ("format", "rounding", "scale is"):
        at = head.index(title)
        assert all(line[at - 1] == " " != line[at] for line in rows)
    assert "nan" not in result.stdout
    end = head.index("z bias") + len("z bias")
    assert all(re.search(r"[+-]\d\.\d\d$", line[:end]) for line in rows)
