"""The symbolic layer against three routes of its own: error.py, mpmath on the bare pdf, and textbook forms by hand."""

from __future__ import annotations

import functools
from typing import Any

import mpmath
import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror import symbolic

# error.py promises 1e-12 (clipping 1e-10) relative; the expressions are evaluated with 30 digits.
TERM_TOLERANCE = 1e-12
CLIPPING_TOLERANCE = 1e-10
# mpmath on the pdf and the closed form, both with 30 digits and more.
DIGITS_TOLERANCE = 1e-28
POINTS = settings(max_examples=30)

s, C, sigma, b = sp.symbols("s C sigma b", positive=True)
NAMES = [
    "gaussian:std=1",
    "laplace:std=1",
    "uniform:std=1",
    "logistic:std=1",
    "student-t:df=5,std=1",
    "student-t:df=2.5,std=1",
    "generalized-gaussian:beta=1.5,std=1",
    "generalized-gaussian:beta=0.5,std=1",
    "mixture(0.9*gaussian:std=1; 0.1*laplace:std=4)",
]
ROUNDINGS = ["nearest", "stochastic"]
MODELS = ["exact", "high_resolution"]


@functools.cache
def compiled(kind: str, name: str, grid: Any, model: str = "exact", rounding: str = "nearest") -> Any:
    """An expression in s, evaluated by mpmath."""
    make = getattr(symbolic, kind)
    expression = make(name, grid, s) if kind == "bias" else make(name, grid, s, model, rounding=rounding)
    return sp.lambdify(s, expression.doit(), "mpmath")


def value(function: Any, at: float) -> mpmath.mpf:
    with mpmath.workdps(30):
        return mpmath.re(function(mpmath.mpf(at)))


def close(found: Any, expected: Any, relative: float) -> bool:
    return bool(abs(found - expected) <= relative * abs(expected))


def at_clip(grid: str, clip: float) -> float:
    return clip / qe.grid(grid).absmax


# -- against error.py and high_resolution.py ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@POINTS
@given(st.sampled_from(["int3", "e2m1"]), st.floats(0.3, 6.0), st.sampled_from(ROUNDINGS), st.sampled_from(MODELS))
def test_rounding_is_that_of_the_library(name: str, grid: str, clip: float, rounding: str, model: str) -> None:
    scale = at_clip(grid, clip)
    error = qe.quantization_error(qe.density(name), grid, scale, model=model, rounding=rounding)
    found = value(compiled("rounding_error", name, grid, model, rounding), scale)
    assert close(found, error.rounding, TERM_TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
@POINTS
@given(st.floats(0.01, 20.0))
def test_clipping_is_that_of_the_library(name: str, clip: float) -> None:
    error = qe.quantization_error(qe.density(name), "binary", clip)
    assert close(value(clipping(name), clip), error.clipping, CLIPPING_TOLERANCE)


@functools.cache
def clipping(name: str) -> Any:
    return sp.lambdify(s, symbolic.clipping_error(name, s).doit(), "mpmath")


@pytest.mark.parametrize(
    ("name", "grid"),
    [
        ("laplace:std=1", "uint4"),
        ("laplace:std=1", "e4m3fn"),
        ("gaussian:std=1", "nf4"),
        ("gaussian:std=1", "int8"),
        ("student-t:df=3,std=1", "e3m0"),
        ("uniform:std=1", "int4_midrise"),
    ],
)
@POINTS
@given(st.floats(0.3, 6.0))
def test_mse_and_bias_are_those_of_the_library(name: str, grid: str, clip: float) -> None:
    scale = at_clip(grid, clip)
    error = qe.quantization_error(qe.density(name), grid, scale)
    assert close(value(compiled("mse", name, grid), scale), error.mse, TERM_TOLERANCE)
    assert abs(value(compiled("bias", name, grid), scale) - error.bias) <= TERM_TOLERANCE


@pytest.mark.parametrize("name", ["gaussian:std=1,mean=0.3", "uniform:std=1,mean=-0.2", "student-t:df=4,std=1,mean=1"])
@POINTS
@given(st.floats(0.3, 6.0), st.floats(-1, 1))
def test_shift_and_mean_are_those_of_the_library(name: str, clip: float, shift: float) -> None:
    function = shifted(name)
    error = qe.quantization_error(qe.density(name), "int2", clip, shift)
    with mpmath.workdps(30):
        assert close(function(mpmath.mpf(clip), mpmath.mpf(shift)), error.mse, TERM_TOLERANCE)


@functools.cache
def shifted(name: str) -> Any:
    z = sp.Symbol("z", real=True)
    return sp.lambdify((s, z), symbolic.mse(name, "int2", s, shift=z).doit(), "mpmath")


@pytest.mark.parametrize("name", ["gaussian:std=1", "uniform:std=1", "logistic:std=1", "student-t:df=5,std=1"])
@pytest.mark.parametrize("model", MODELS)
def test_derivatives_are_those_of_the_closed_form(name: str, model: str) -> None:
    """Under the integrals, with the terms of the moving ends, against SymPy's derivative of the closed form."""
    for grid in ("ternary", "e2m0", "int2_midrise"):
        closed = symbolic.mse(name, grid, s, model).doit()
        for at in (sp.Rational(7, 10), sp.Rational(2)):
            slope = symbolic.stationarity(name, grid, s, model).doit().subs(s, at)
            bend = symbolic.curvature(name, grid, s, model).doit().subs(s, at)
            assert abs((slope - sp.diff(closed, s).subs(s, at)).evalf(30)) < DIGITS_TOLERANCE
            assert abs((bend - sp.diff(closed, s, 2).subs(s, at)).evalf(30)) < DIGITS_TOLERANCE


# -- generated NumPy source --------------------------------------------------------------------------------------------

# To 8 std the tail of a Gaussian is erfc(z) times z^4: 64 eps from rounding z, times 2000 from the closed form.
TAIL_TOLERANCE = 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_compiled_source_gives_the_same_numbers(name: str) -> None:
    rng = np.random.default_rng(5)
    for grid in ("int8", "e2m1"):
        compiled_error = symbolic.to_numpy(symbolic.rounding_error(name, grid, s), [s])
        scale = np.exp(rng.uniform(np.log(0.2), np.log(20), 30)) / qe.grid(grid).absmax
        expected = qe.quantization_error(qe.density(name), grid, scale).rounding
        np.testing.assert_allclose(compiled_error(scale), expected, rtol=TERM_TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_compiled_tails_keep_their_digits(name: str) -> None:
    clip = np.linspace(0.01, 8.0, 40)
    tail = symbolic.to_numpy(symbolic.clipping_error(name, s).doit(), [s])
    expected = [float(value(clipping(name), c)) for c in clip]
    np.testing.assert_allclose(tail(clip), expected, rtol=TAIL_TOLERANCE)
    near = clip < 3.5
    np.testing.assert_allclose(tail(clip[near]), np.array(expected)[near], rtol=TERM_TOLERANCE)


def test_source_stands_alone() -> None:
    """The text needs nothing but NumPy and SciPy, says erfc, and is the callable."""
    error = symbolic.to_numpy(symbolic.mse("gaussian", "int4", s), [s, sigma], name="mse")
    assert "erfc" in error.source
    assert "erf(" not in error.source.replace("erfc(", "")
    assert "qerror" not in error.source
    scope: dict[str, Any] = {}
    exec(error.source, scope)
    scales = np.array([0.2, 0.3])
    np.testing.assert_array_equal(scope["mse"](scales, 1.0), error(scales, 1.0))
    assert error.arguments == ("s", "sigma")
    with pytest.raises(ValueError, match=r"arguments must name all free symbols, sigma missing"):
        symbolic.to_numpy(symbolic.mse("gaussian", "int4", s), [s])
