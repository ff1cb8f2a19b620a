"""Optimal scales, shifts and codebooks against 20 digits (tests/reference/make_optima.py)."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qerror as qe

ROWS = json.loads((Path(__file__).parent / "reference" / "optima.json").read_text(encoding="utf-8"))
FLOATING = ("e2m1", "e3m0", "e2m3", "e3m2", "e4m3fn")

# Relative; the MSE is flat at its minimum, so that it is as accurate as the error itself.
MSE_TOLERANCE = 1e-12
# Relative, of a stationary point: the slope is accurate to 1e-15 of what it changes by over this distance.
SCALE_TOLERANCE = 1e-8
# Relative, of the levels of a codebook that is symmetric about 0.
LEVEL_TOLERANCE = 1e-14
# Minima that are this close, relative, are counted as one by the interface.
EQUAL = 1e-12


def label(row: dict[str, Any]) -> str:
    return f"{row['density']}-{row.get('grid', row.get('n_levels'))}"


def of_kind(kind: str) -> Any:
    rows = [row for row in ROWS if row["kind"] == kind]
    return pytest.mark.parametrize("row", rows, ids=label)


@functools.cache
def optimum(density: str, grid: str, shift: Any = 0.0) -> qe.ScaleResult:
    return qe.optimal_scale(qe.density(density), grid, shift=shift)


def close(value: float, expected: str, tolerance: float) -> bool:
    return abs(value - float(expected)) <= tolerance * abs(float(expected))


def test_the_table_is_complete() -> None:
    assert {row["density"] for row in ROWS} == {"gaussian", "laplace", "logistic", "uniform", "student-t:df=5"}
    assert {row["grid"] for row in ROWS if row["kind"] == "scale"} >= {*FLOATING, "nf4", "int2", "int8"}
    # The counts that DESIGN.md and the literature know.
    counts = {(row["density"], row.get("grid")): len(row.get("minima", ())) for row in ROWS if row["kind"] == "scale"}
    assert counts["gaussian", "e3m0"] == 4
    assert counts["uniform", "e2m3"] == 16
    assert counts["gaussian", "e2m1"] == counts["gaussian", "int4"] == 1


@of_kind("scale")
def test_best_scale(row: dict[str, Any]) -> None:
    best = optimum(row["density"], row["grid"])
    assert close(best.error.mse, row["mse"], MSE_TOLERANCE)
    # Copies an octave apart may differ in the last digits only: on floating grids the MSE is what counts.
    if row["grid"] not in FLOATING:
        assert close(best.scale, row["scale"], SCALE_TOLERANCE)


@of_kind("scale")
def test_all_minima(row: dict[str, Any]) -> None:
    if "minima" not in row:
        assert row["grid"] == "e4m3fn"
        return
    expected = [float(mse) for _, mse in row["minima"]]
    distinct = [mse for i, mse in enumerate(expected) if i == 0 or mse > expected[i - 1] * (1 + EQUAL)]
    found = optimum(row["density"], row["grid"]).minima
    assert len(found) == len(distinct)
    for minimum, mse in zip(found, distinct, strict=True):
        assert abs(minimum.mse - mse) <= MSE_TOLERANCE * mse


@of_kind("shift")
def test_free_shift(row: dict[str, Any]) -> None:
    best = optimum(row["density"], row["grid"], "optimal")
    assert close(best.error.mse, row["mse"], MSE_TOLERANCE)
    assert any(
        close(best.scale, twin["scale"], SCALE_TOLERANCE)
        and abs(best.shift - float(twin["shift"])) <= SCALE_TOLERANCE * best.scale
        for twin in row["optima"]
    )


@of_kind("lloyd_max")
def test_lloyd_max(row: dict[str, Any]) -> None:
    density = qe.density(row["density"])
    codebook = qe.lloyd_max(density, row["n_levels"])
    assert close(qe.quantization_error(density, codebook, 1.0).mse, row["mse"], MSE_TOLERANCE)
    levels = np.array([float(v) for v in row["levels"]])
    np.testing.assert_allclose(codebook.levels, levels, rtol=LEVEL_TOLERANCE, atol=0)


def test_a_wrong_optimum_is_noticed() -> None:
    row = next(row for row in ROWS if row["density"] == "gaussian" and row.get("grid") == "int4")
    best = optimum("gaussian", "int4")
    assert not close(best.error.mse * (1 + 1e-11), row["mse"], MSE_TOLERANCE)
    assert not close(best.scale * (1 + 1e-7), row["scale"], SCALE_TOLERANCE)
    # 1e-4 beside the optimum costs 1e-8 of MSE.
    beside = qe.quantization_error(qe.Gaussian(), "int4", best.scale * 1.0001)
    assert not close(beside.mse, row["mse"], MSE_TOLERANCE)
