"""Bad input: a ValueError that names the argument, shows the value and says the fix."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import qerror as qe
from qerror.literature.block_maximum import block_maximum_codebook, block_maximum_error
from qerror.testing import check_quantizer

NAN, INF = float("nan"), float("inf")
GAUSSIAN = qe.Gaussian()
SAMPLE = qe.Empirical([0.5, -1.0, 2.0])
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "quantization_error": qe.quantization_error,
    "code_probabilities": qe.code_probabilities,
    "code_entropy": qe.code_entropy,
    "excess_db": qe.excess_db,
}


def refuses(text: str, function: Callable[..., Any], *args: Any, **options: Any) -> None:
    """`function` raises ValueError with exactly this text in it."""
    with pytest.raises(ValueError, match=re.escape(text)):
        function(*args, **options)


@pytest.mark.parametrize("density", [GAUSSIAN, SAMPLE], ids=["density", "sample"])
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("scale", "text"),
    [
        (0.0, "scale must be positive and finite, got 0.0"),
        (-0.5, "scale must be positive and finite, got -0.5"),
        (NAN, "scale must be positive and finite, got nan"),
        (INF, "scale must be positive and finite, got inf"),
        ([0.1, -1.0, 0.0], "scale must be positive and finite, got -1.0 at index 1 (2 such values of 3)"),
        ("0.5", "scale must be a real number or an array of real numbers, got '0.5'"),
        (None, "scale must be a real number or an array of real numbers, got None"),
        (1j, "scale must be a real number or an array of real numbers, got 1j"),
    ],
)
def test_scale(name: str, density: qe.Density, scale: Any, text: str) -> None:
    refuses(text, FUNCTIONS[name], density, "int4", scale)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize(
    ("shift", "text"),
    [(NAN, "shift must be finite, got"), (-INF, "shift must be finite, got"), ([0.0, NAN], "nan at index 1")],
)
def test_shift(name: str, shift: Any, text: str) -> None:
    refuses(text, FUNCTIONS[name], GAUSSIAN, "int4", 0.5, shift)


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("shift", ["half", [None], 1j])
def test_shift_that_is_no_number(name: str, shift: Any) -> None:
    refuses("shift must be", FUNCTIONS[name], GAUSSIAN, "int4", 0.5, shift)


@pytest.mark.parametrize(
    ("shift", "text"),
    [
        (NAN, "shift must be finite, got"),
        ([0.0, INF], "inf at index 1"),
        ("median", "shift must be 'mean' or 'optimal', got 'median'"),
        ([None], "shift must be"),
        (1j, "shift must be"),
    ],
)
def test_shift_of_a_search(shift: Any, text: str) -> None:
    refuses(text, qe.optimal_scale, GAUSSIAN, "int4", shift=shift)


@pytest.mark.parametrize("name", [*FUNCTIONS, "optimal_scale"])
@pytest.mark.parametrize(
    ("grid", "text"),
    [
        ("int5_", "'int5_'"),
        ("int44", "'int44'"),
        ("e4m3", "'e4m3' is ambiguous, say which of e4m3fn, e4m3fnuz, e4m3_ieee"),
        ("mxpf4", "mxfp4"),
        ("", "''"),
        (4, "4"),
        ([0.0, 1.0], "[0.0, 1.0]"),
    ],
)
def test_grid(name: str, grid: Any, text: str) -> None:
    arguments = (GAUSSIAN, grid) if name == "optimal_scale" else (GAUSSIAN, grid, 0.5)
    refuses(text, FUNCTIONS.get(name, qe.optimal_scale), *arguments)


def test_texts_of_grids() -> None:
    refuses("did you mean 'int4'", qe.grid, "itn4")
    refuses("'mxfp4' is a block format, not a grid", qe.grid, "mxfp4")


@pytest.mark.parametrize(
    ("levels", "text"),
    [
        ([1.0, 0.0], "levels must be strictly increasing, got 1, 0 at index 0; use np.unique(levels) to sort them"),
        ([0.0, 1.0, 1.0], "levels must be strictly increasing, got 1, 1 at index 1"),
        ([0.0, NAN], "levels must be finite, got 1 NaN of 2 values, the first is nan at index 1"),
        ([0.0, INF], "levels must be finite, got 1 infinite of 2 values"),
        ([0.0], "levels must be a one-dimensional array of at least two values, got shape (1,)"),
        ([], "levels must be a one-dimensional array of at least two values, got shape (0,)"),
        ([[0.0, 1.0]], "levels must be a one-dimensional array of at least two values, got shape (1, 2)"),
        (["0", "1"], "levels must be"),
    ],
)
def test_levels(levels: Any, text: str) -> None:
    refuses(text, qe.Grid, levels)


@pytest.mark.parametrize("name", [*FUNCTIONS, "optimal_scale"])
def test_rounding(name: str) -> None:
    arguments = (GAUSSIAN, "int4") if name == "optimal_scale" else (GAUSSIAN, "int4", 0.5)
    text = "rounding must be 'nearest' or 'stochastic', got 'up'"
    refuses(text, FUNCTIONS.get(name, qe.optimal_scale), *arguments, rounding="up")


def test_model() -> None:
    text = "model must be 'exact' or 'high_resolution', got 'statqat'"
    refuses(text, qe.quantization_error, GAUSSIAN, "int4", 0.5, model="statqat")
    refuses(text, qe.optimal_scale, GAUSSIAN, "int4", model="statqat")
    refuses(text, qe.excess_db, GAUSSIAN, "int4", 0.5, model="statqat")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_shapes_that_do_not_fit(name: str) -> None:
    function = FUNCTIONS[name]
    refuses("scale (2,) and shift (3,) do not broadcast", function, GAUSSIAN, "int4", [0.1, 0.2], [0.0, 0.1, 0.2])
    density = qe.Gaussian(0, [1.0, 2.0])
    refuses("do not broadcast against the density (2,); add axes of length 1", function, density, "int4", [0.1] * 3)


def test_shapes_that_do_not_fit_a_search() -> None:
    density = qe.Gaussian(0, [1.0, 2.0])
    text = "shift (3,) does not broadcast against the density (2,); add axes of length 1"
    refuses(text, qe.optimal_scale, density, "int4", shift=[0.0, 0.1, 0.2])
    refuses("density (2,); add axes of length 1", qe.excess_db, density, "int4", 0.5, [0.0, 0.1, 0.2])


@pytest.mark.parametrize("name", [*FUNCTIONS, "optimal_scale", "lloyd_max"])
@pytest.mark.parametrize(
    ("density", "text"),
    [
        ("gaussian", "density must be a Density, got 'gaussian'; qerror.density('gaussian') makes one"),
        (None, "density must be a Density, got None; qerror.Empirical(x) makes one of data"),
        ([1.0, 2.0], "density must be a Density, got [1.0, 2.0]; qerror.Empirical(x) makes one of data"),
        (np.zeros(3), "qerror.Empirical(x) makes one of data, qerror.density(name) of a name"),
    ],
    ids=["name", "none", "list", "array"],
)
def test_what_is_no_density(name: str, density: Any, text: str) -> None:
    """A name or raw data in the place of the density: the text says what makes one of it."""
    if name == "lloyd_max":
        refuses(text, qe.lloyd_max, density, 4)
    elif name == "optimal_scale":
        refuses(text, qe.optimal_scale, density, "int4")
    else:
        refuses(text, FUNCTIONS[name], density, "int4", 0.5)


@pytest.mark.parametrize(
    ("x", "options", "text"),
    [
        ([], {}, "x must have at least one value, got shape (0,)"),
        (np.zeros((3, 0)), {"axis": 0}, "x must have at least one value, got shape (3, 0)"),
        ([1.0, NAN], {}, "x must be finite, got 1 NaN of 2 values, the first is nan at index 1"),
        ([[1.0, INF], [NAN, 2.0]], {}, "x must be finite, got 1 NaN and 1 infinite of 4 values"),
        ([[1.0, 2.0], [-INF, 2.0]], {"axis": 0}, "the first is -inf at index (1, 0)"),
        (np.full(20_000, NAN, np.float16), {}, "x must be finite, got 20000 NaN of 20000 values"),
        (np.full(20_000, INF, np.float32), {}, "x must be finite, got 20000 infinite of 20000 values"),
        ("text", {}, "x must be"),
        (["1.0"], {}, "x must be"),
        ([1j], {}, "x must be real numbers, got dtype complex128, [1j]; convert it first"),
        ([[1.0], [1.0, 2.0]], {}, "x must be numbers in one shape, got [[1.0], [1.0, 2.0]]; rows of different lengths"),
        ([1e200, 1.0], {}, "so that squares stay within float64, got 1e+200; multiply it by a power of two"),
        ([[1.0, 1.0], [0.0, 1e-200]], {"axis": 0}, "x must have its largest between 1e-100 and 1e+100"),
        ([1.0, 2.0], {"weights": [1e200, 1.0]}, "weights must have its largest between 1e-100 and 1e+100"),
        ([1.0, 2.0], {"weights": "heavy"}, "weights must be a real number or an array of real numbers, got 'heavy'"),
        ([1.0, 2.0], {"weights": [[1.0], [1.0, 2.0]]}, "weights must be an array of real numbers with one shape"),
        ([1.0, 2.0], {"axis": 7}, "axis must be an integer from -1 to 0, or several different ones, got 7"),
        ([1.0, 2.0], {"axis": "rows"}, "axis must be an integer from -1 to 0, or several different ones, got 'rows'"),
        ([1.0, 2.0], {"axis": 0.5}, "axis must be an integer from -1 to 0, or several different ones, got 0.5"),
        ([[1.0, 2.0]], {"axis": (0, 0)}, "axis must be an integer from -2 to 1, or several different ones, got (0, 0)"),
        (3.0, {"axis": 0}, "axis must be None for one number, got 0"),
        ([None], {}, "x must be"),
        ([1.0, 2.0], {"weights": [1.0, -1.0]}, "weights must be >= 0, got -1"),
        ([1.0, 2.0], {"weights": [0.0, 0.0]}, "weights must not all be 0"),
        ([[1.0, 2.0], [3.0, 4.0]], {"weights": [[1.0, 1.0], [0.0, 0.0]], "axis": 0}, "weights must not all be 0"),
        ([1.0, 2.0], {"weights": [1.0, NAN]}, "weights must be finite, got 1 NaN of 2 values"),
        ([1.0, 2.0], {"weights": [1.0, INF]}, "weights must be finite, got 1 infinite of 2 values"),
        ([1.0, 2.0], {"weights": [1.0, 1.0, 1.0]}, "weights of shape (3,) must broadcast to x of shape (2,)"),
    ],
)
def test_data(x: Any, options: dict[str, Any], text: str) -> None:
    refuses(text, qe.Empirical, x, **options)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: qe.Gaussian(std=0.0), "std must be positive and finite, got 0.0"),
        (lambda: qe.Laplace(std=-1.0), "std must be positive and finite, got -1.0"),
        (lambda: qe.Gaussian(mean=NAN), "mean must be finite, got"),
        (lambda: qe.StudentT(2.0), "df must be"),
        (lambda: qe.StudentT(1.5), "1.5"),
        (lambda: qe.StudentT(NAN), "df must be"),
        (lambda: qe.GeneralizedGaussian(0.0), "beta must be"),
        (lambda: qe.Mixture([GAUSSIAN, GAUSSIAN], [0.5, -0.5]), "weights must be finite, >= 0 and not all 0"),
        (lambda: qe.Mixture([GAUSSIAN], [1.0, 2.0]), "weights must hold one number for each of 1 components"),
        (lambda: qe.Mixture([], []), "components must hold at least one density"),
        (lambda: qe.Rectified(SAMPLE), "base must"),
        (lambda: qe.density("gausian"), "did you mean 'gaussian'"),
        (lambda: qe.density("student-t:df=2"), "df must be"),
    ],
)
def test_densities(make: Callable[[], Any], text: str) -> None:
    refuses(text, make)


@pytest.mark.parametrize("n", [1, 0, -4, 2.5, "4", True])
def test_n_levels(n: Any) -> None:
    refuses(f"n_levels must be an integer from 2 to 4096, got {n!r}", qe.lloyd_max, GAUSSIAN, n)


SIDE = (GAUSSIAN, "int4", 0.3)
TERMS = qe.quantization_error(GAUSSIAN, "int4", 0.3)
HUGE = 10**400


@pytest.mark.parametrize("size", [2**53, 10**30, HUGE])
@pytest.mark.parametrize(
    ("call", "limit"),
    [
        (lambda n: qe.simulate(*SIDE, n=n, rng=0), "n must be an integer of at most 1099511627776"),
        (lambda n: qe.simulate(*SIDE, n=n, rng=0, sampler="sobol"), "n must be an integer of at most 1099511627776"),
        (lambda n: qe.simulate_dot_product(SIDE, SIDE, n=n, rng=0), "n must be an integer from 100 to 274877906944"),
        (
            lambda n: qe.simulate_dot_product(SIDE, SIDE, n=n, length=2**20, rng=0),
            "n must be an integer from 100 to 1048576",
        ),
        (lambda n: qe.simulate_dot_product(SIDE, SIDE, n=100, length=n, rng=0), "length must be an integer from 1 to"),
        (lambda n: qe.verify("int4", "gaussian", n=n, rng=0), "to 1099511627776"),
        (lambda n: check_quantizer(abs, "int4", GAUSSIAN, 0.3, n=n), "to 1099511627776"),
        (lambda n: GAUSSIAN.sample(n, 0), "size must be an integer from 0 to 17179869184"),
        (lambda n: SAMPLE.sample((2, n), 0), "size must be an integer from 0 to 17179869184"),
        (lambda n: qe.lloyd_max(GAUSSIAN, n), "n_levels must be an integer from 2 to 4096"),
        (lambda n: qe.lloyd_max(SAMPLE, n), "n_levels must be an integer from 2 to 65536"),
        (lambda n: qe.int_grid(n), "bits must be an integer from 1 to 16"),
        (lambda n: qe.float_grid(n, 1), "exponent_bits must be an integer from 1 to 15"),
        (lambda n: qe.float_grid(2, n), "mantissa_bits must be an integer from 0 to 13"),
        (lambda n: qe.float_grid(2, 1, bias=n), "bias must be an integer from -65536 to 65536"),
        (lambda n: qe.scale_table([f"int{n}"], ["gaussian"]), "unknown grid"),
        (lambda n: qe.dot_product_error(TERMS, TERMS, length=n + 1), "to 9007199254740992"),
        (lambda n: qe.fit([1.0, 2.0], "int4", rule=f"octav:n_iter={n}"), "n_iter must be an integer from 1 to 1000000"),
        (
            lambda n: qe.fit([1.0, 2.0], "int4", rule=f"iterative:n_iter={n}"),
            "n_iter must be an integer from 0 to 1000000",
        ),
        (lambda n: qe.fit([1.0, 2.0], "int4", axis=n), "axis must be an integer from -1 to 0"),
        (lambda n: qe.fit([1.0, 2.0], "int4", block_size=2, block_axis=n), "block_axis must be an integer from"),
        (lambda n: qe.Empirical([1.0, 2.0], axis=n), "axis must be an integer from -1 to 0"),
        (lambda n: block_maximum_codebook(n, "absolute"), "block_size must be an integer from 2 to 1048576"),
        (lambda n: block_maximum_error(np.arange(-1.0, 2.0), n, "absolute"), "block_size must be an integer from 2 to"),
    ],
)
def test_absurd_sizes(call: Callable[[int], Any], limit: str, size: int) -> None:
    """The text names the limit, before any memory is asked for."""
    refuses(limit, call, size)


@pytest.mark.parametrize("size", [(2**20, 2**20), [2**30, 2**30]])
def test_sample_of_too_many_values_in_all(size: Any) -> None:
    refuses("size must ask for at most 17179869184 values in all, got shape", GAUSSIAN.sample, size, 0)
    refuses("size must ask for at most", qe.Gaussian(0, np.ones(2**10)).sample, 2**30, 0)


@pytest.mark.parametrize("size", ["10", 2.5, -1, True, None, (3, -1)])
def test_sample_of_no_size(size: Any) -> None:
    refuses("size must be an integer", GAUSSIAN.sample, size, 0)


def test_lloyd_max_of_an_array() -> None:
    refuses(
        "density must have shape (), got (2,); call lloyd_max for each member", qe.lloyd_max, qe.Gaussian(0, [1, 2]), 4
    )


def test_high_resolution_of_samples() -> None:
    refuses("use 'exact'", qe.quantization_error, SAMPLE, "int4", 0.5, model="high_resolution")


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: qe.Gaussian(sigma=2), r"Gaussian takes mean, std, .*unexpected keyword argument 'sigma'"),
        (lambda: qe.Gaussian(0.0, 1.0, 2.0), "Gaussian takes mean, std, where std is the standard deviation: too many"),
        (lambda: qe.Laplace(b=2), r"Laplace takes mean, std, .*sqrt\(2\) b of a Laplace scale b"),
        (lambda: qe.Logistic(scale=2), "Logistic takes mean, std, .*'scale'"),
        (lambda: qe.Uniform(a=0, b=1), r"Uniform takes mean, std, .*qerror.Uniform.from_bounds\(a, b\) takes the ends"),
        (lambda: qe.StudentT(nu=5), "StudentT takes df, mean, std, "),
        (lambda: qe.StudentT(), "StudentT takes df, mean, std, .*missing a required argument: 'df'"),
        (lambda: qe.GeneralizedGaussian(2, sigma=1), "GeneralizedGaussian takes beta, mean, std, .*'sigma'"),
    ],
)
def test_parameters_of_families_by_other_names(make: Callable[[], Any], text: str) -> None:
    """The text names the family, not the class that it inherits its constructor from."""
    with pytest.raises(TypeError, match="^" + text):
        make()


@pytest.mark.parametrize("name", ["int32", "int64", "uint32", "INT64", "int128"])
def test_grids_of_too_many_bits(name: str) -> None:
    refuses(
        f"unknown grid {name.lower()!r}: grids have at most 16 bits, as int16, uint16, fp16 and bf16", qe.grid, name
    )


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda x: qe.fit(x, "int4", axis=0), "axis must be None for a single number, got 0"),
        (lambda x: qe.load_table().scale_for(x, "int4", "gaussian", axis=0), "axis must be None for a single number"),
        (lambda x: qe.fit(x, "int4", block_size=2), "got a single number; give np.atleast_1d(x)"),
        (lambda x: qe.fit(x, "nvfp4"), "got a single number; give np.atleast_1d(x)"),
        (
            lambda x: qe.evaluate(x, "int4", [0.1]),
            "scale of shape (1,) does not fit: the groups of x have shape (); for ",
        ),
    ],
)
def test_hints_for_one_number_work(call: Callable[[Any], Any], text: str) -> None:
    refuses(text, call, 3.0)
    assert qe.fit(3.0, "int4", axis=None).scale == pytest.approx(3 / 7)
    assert qe.fit(np.atleast_1d(3.0), "nvfp4").scale.shape == (1,)
    assert qe.evaluate(3.0, "int4", 0.1).scale == 0.1
