"""Known answers through the public interface: the table with its sources is tests/reference/known_answers.py."""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import qerror as qe

# What the library promises of an optimum, for numbers that are known to more digits: relative, dB absolute.
PROMISED = {"mse": 1e-12, "sqnr_db": 1e-11, "scale": 1e-8, "step": 1e-8, "clip": 1e-8, "clip_over_b": 1e-8}
# A shift is a stationary point, as a scale is.
PROMISED["shift_over_scale"] = 1e-8


def load(name: str) -> Any:
    """A script of tests/reference as a module."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / "reference" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


known = load("known_answers")


def grid_of(spec: Any) -> qe.Grid:
    if isinstance(spec, str):
        return qe.grid(spec)
    kind, *numbers = spec
    if kind == "float":
        return qe.float_grid(*numbers)
    return qe.Grid(np.arange(numbers[0]) - (numbers[0] - 1) / 2)


@functools.cache
def optimum(density: str, grid: Any, options: tuple[tuple[str, Any], ...]) -> qe.ScaleResult:
    return qe.optimal_scale(qe.density(density), grid_of(grid), **dict(options))


def tolerance(expected: str, units: float, promised: float) -> float:
    """Units in the last place printed, or the promise where more is printed than promised."""
    last_place = 10.0 ** Decimal(expected).as_tuple().exponent
    return max(units * last_place, promised * abs(float(expected)))


def found(row: Any) -> float:
    best = optimum(row.density, row.grid, tuple(row.options.items()))
    grid = grid_of(row.grid)
    # Mirrored optima are equally good; the table has the one below half a step.
    fraction = best.shift / best.scale % 1
    return {
        "scale": best.scale,
        "clip": best.clip,
        "clip_over_b": best.clip * math.sqrt(2),
        "step": best.scale * (grid.step or math.nan),
        "mse": best.error.mse,
        "sqnr_db": best.error.sqnr_db,
        "shift_over_scale": min(fraction, 1 - fraction),
    }[row.what]


def row_label(row: Any) -> str:
    grid = row.grid if isinstance(row.grid, str) else "-".join(map(str, row.grid))
    return f"{row.density}-{grid}-{row.what}-{row.source.partition(',')[0].partition(':')[0]}"


@pytest.mark.parametrize("row", known.OPTIMA, ids=row_label)
def test_optimum(row: Any) -> None:
    assert abs(found(row) - float(row.expected)) <= tolerance(row.expected, row.units, PROMISED[row.what]), row.source


@pytest.mark.parametrize("row", known.ERRORS, ids=lambda row: f"{row.grid}-at-{row.clip[:6]}")
def test_error_at_a_published_clip(row: Any) -> None:
    grid = grid_of(row.grid)
    error = qe.quantization_error(qe.Gaussian(), grid, float(row.clip) / grid.absmax)
    assert abs(error.mse - float(row.mse)) <= tolerance(row.mse, row.units, PROMISED["mse"]), row.source


@pytest.mark.parametrize("row", known.CODEBOOKS, ids=lambda row: f"{row.density}-{row.n_levels}-{row.source[:8]}")
def test_lloyd_max(row: Any) -> None:
    density = qe.density(row.density)
    codebook = qe.lloyd_max(density, row.n_levels)
    assert len(codebook.levels) == row.n_levels
    mse = qe.quantization_error(density, codebook, 1.0).mse
    assert abs(mse - float(row.mse)) <= tolerance(row.mse, row.units, PROMISED["mse"]), row.source
    positive = codebook.levels[codebook.levels > 1e-8][: len(row.positive)]
    for level, expected in zip(positive, row.positive, strict=True):
        assert abs(level - float(expected)) <= tolerance(expected, row.units, PROMISED["scale"]), row.source


def test_four_minima_of_e3m0() -> None:
    minima = qe.optimal_scale(qe.Gaussian(), "e3m0").minima
    assert len(minima) == len(known.E3M0_MINIMA)
    for minimum, (clip, mse) in zip(minima, known.E3M0_MINIMA, strict=True):
        assert abs(minimum.scale * 16 - float(clip)) <= tolerance(clip, 1, 0)
        assert abs(minimum.mse - float(mse)) <= tolerance(mse, 1, 0)


def test_e4m3_copies_an_octave_apart() -> None:
    """Clip 9.129 has MSE 6.987494803e-4, clip 18.258 has ...805e-4: the difference is resolved, and the former wins."""
    best = qe.optimal_scale(qe.Gaussian(), "e4m3fn")
    assert abs(best.clip - 9.129) < 1e-3
    copy = qe.quantization_error(qe.Gaussian(), "e4m3fn", 2 * best.scale)
    assert abs(best.error.mse - 6.987494803e-4) <= 1e-13
    assert abs(copy.mse - 6.987494805e-4) <= 1e-13


def test_the_model_picks_the_wrong_basin_of_e3m0() -> None:
    """The high-resolution optimum of E3M0 reaches 14.13 dB where 14.23 is possible."""
    scale = qe.optimal_scale(qe.Gaussian(), "e3m0", model="high_resolution").scale
    assert abs(qe.quantization_error(qe.Gaussian(), "e3m0", scale).sqnr_db - 14.13) <= 0.01


@pytest.mark.parametrize(("bits", "loss", "excess"), [(2, 0.0009, 0.084), (3, 0.0004, 0.028), (4, 0.00008, 0.009)])
def test_the_model_finds_the_uniform_scale_but_not_the_error(bits: int, loss: float, excess: float) -> None:
    """StatQAT's scale costs .09%, .04% and .008% of MSE; the model's MSE is 8.4%, 2.8% and 0.9% too high."""
    model = qe.optimal_scale(qe.Gaussian(), f"int{bits}_midrise", model="high_resolution")
    exact = qe.optimal_scale(qe.Gaussian(), f"int{bits}_midrise")
    there = qe.quantization_error(qe.Gaussian(), f"int{bits}_midrise", model.scale).mse
    assert there / exact.error.mse - 1 == pytest.approx(loss, rel=0.1)
    assert model.error.mse / there - 1 == pytest.approx(excess, rel=0.06)


def test_a_wrong_table_is_noticed() -> None:
    """A step of Max wrong by one in the fourth digit, and an MSE wrong by 1e-11, are outside the tolerances."""
    best = optimum("gaussian", "int4_midrise", ())
    assert abs(best.scale - 0.3354) > tolerance("0.3354", 1, PROMISED["step"])
    mse = float(best.error.mse)
    wrong = repr(mse * (1 + 1e-11))
    assert abs(mse - float(wrong)) > tolerance(wrong, 1, PROMISED["mse"])
