"""Product quadrature over thousands of levels against the sum over every single cell."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import qerror as qe
from qerror.densities.quadrature import cell_moments
from qerror.errors import exact as error
from qerror.errors import fine_grids

# The terms of either route are promised within 1e-12 (clipping 1e-10, by formulas of its own on both).
TOLERANCE = 2e-12
# Bias and derivatives are sums of both signs: of the rms error (times the rms of the lever for the cross term).
SIGNED_TOLERANCE = 1e-12
# By differences of fourth order.
GRADIENT_TOLERANCE = 1e-8

DENSITIES: dict[str, qe.Density] = {
    "gaussian": qe.Gaussian(),
    "gaussian-off-centre": qe.Gaussian(0.7, 0.3),
    "laplace": qe.Laplace(),
    "laplace-off-centre": qe.Laplace(0.1, 1.0),
    "logistic": qe.Logistic(),
    "student-t-5": qe.StudentT(5),
    "student-t-2.2": qe.StudentT(2.2),
    "generalized-gaussian-0.5": qe.GeneralizedGaussian(0.5),
    "uniform": qe.Uniform(0.2, 1.0),
    "rectified": qe.Rectified(qe.Gaussian(0.3, 1.0)),
    "histogram": qe.Histogram([1, 5, 2, 0, 3], [-2.0, -1.1, 0.3, 0.35, 1.0, 3.0]),
    "mixture": qe.Mixture([qe.Gaussian(-1, 0.1), qe.Laplace(1, 0.7)], [0.3, 0.7]),
}
GRIDS = {
    "int12": qe.grid("int12"),
    "uint12": qe.grid("uint12"),
    "e5m6": qe.grid("e5m6"),
    "e8m3": qe.grid("e8m3"),
    "e3m8": qe.grid("e3m8"),
    # Runs of equal gaps between jumps of the gap by 3.
    "three-runs": qe.Grid(
        np.concatenate([np.arange(-1500, 0) * 3.0, np.arange(0, 900), 900 + np.arange(0, 600) * 0.5])
    ),
}


WITH_ATOMS = {
    "rectified": qe.Rectified(qe.Gaussian()),
    "rectified-and-smooth": qe.Mixture([qe.Rectified(qe.Gaussian()), qe.Laplace(0.3, 0.5)], [0.4, 0.6]),
    "sample-and-smooth": qe.Mixture([qe.Gaussian(), qe.Empirical([0.3, -0.77, 1e-3])], [0.5, 0.5]),
}


def by_cell(density: qe.Density, grid: qe.Grid, scale: np.ndarray, shift: np.ndarray, rounding: str) -> error.ErrorSums:
    route: Callable[..., error.ErrorSums] = error._nearest if rounding == "nearest" else error._stochastic
    return route(density, grid, scale, shift)


def assert_same(
    found: error.ErrorSums, expected: error.ErrorSums, grid: qe.Grid, scale: np.ndarray, size: float
) -> None:
    rms = np.sqrt(expected.mse)
    np.testing.assert_allclose(found.rounding, expected.rounding, rtol=TOLERANCE, atol=1e-300)
    np.testing.assert_allclose(found.clipping, expected.clipping, rtol=1e-10, atol=1e-300)
    # What cancels in both routes is of the size of one step's error times what it is multiplied with.
    for name, lever in (("bias", 1.0), ("cross", size), ("by_shift", 1.0), ("by_scale", size / scale)):
        allowed = SIGNED_TOLERANCE * rms * lever
        difference = np.abs(getattr(found, name) - getattr(expected, name))
        assert (difference <= allowed + 1e-300).all(), (name, difference / allowed)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", DENSITIES)
def test_same_as_cell_by_cell(name: str, grid: str, rounding: str) -> None:
    density, levels = DENSITIES[name], GRIDS[grid]
    assert fine_grids.pays(density, levels)
    clip = np.array([1e-3, 0.4, 1.7, 5.0, 38.0, 5e3])
    scale = clip / levels.absmax
    # Stochastic rounding has a kink where an atom meets a level: no derivative there.
    for shift in (0.031 if density.has_atoms else 0.0, 0.123):
        shifts = np.full(scale.size, shift)
        found = error.ErrorSums(*fine_grids.error_rows(density, levels, scale, shifts, rounding))
        expected = by_cell(density, levels, scale, shifts, rounding)
        assert_same(found, expected, levels, scale, float(density.std) + abs(float(density.mean)) + 1)


@pytest.mark.parametrize("grid", ["int16", "fp16", "bf16"])
@pytest.mark.parametrize("name", ["gaussian", "laplace-off-centre", "student-t-5", "rectified"])
def test_sixteen_bits(name: str, grid: str) -> None:
    """The largest grids, at one scale in use and one where everything lies among the smallest levels."""
    density, levels = DENSITIES[name], qe.grid(grid)
    scale, shift = np.array([5.0, 2e5]) / levels.absmax, np.array([0.05, 0.01])
    for rounding in ("nearest", "stochastic"):
        found = error.ErrorSums(*fine_grids.error_rows(density, levels, scale, shift, rounding))
        assert_same(found, by_cell(density, levels, scale, shift, rounding), levels, scale, 2.0)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
def test_arrays_of_densities(rounding: str) -> None:
    """More rows than one chunk, each with its own density, scale and shift."""
    n = 2 * fine_grids._CHUNK_ROWS + 5
    rng = np.random.default_rng(5)
    density = qe.Laplace(rng.normal(0, 0.2, n), rng.uniform(0.5, 2, n))
    levels = GRIDS["e5m6"]
    scale, shift = 10.0 ** rng.uniform(-1, 1, n) / levels.absmax, rng.normal(0, 0.3, n)
    found = error.ErrorSums(*fine_grids.error_rows(density, levels, scale, shift, rounding))
    assert_same(found, by_cell(density, levels, scale, shift, rounding), levels, scale, 3.0)
    for i in (0, 15, 16, n - 1):
        alone = fine_grids.error_rows(density.take(np.array(i)), levels, scale[i : i + 1], shift[i : i + 1], rounding)
        np.testing.assert_allclose(alone[1, 0], found.rounding[i], rtol=1e-13)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize("grid", ["int12", "e5m6", "three-runs"])
@pytest.mark.parametrize("name", ["gaussian-off-centre", "student-t-5", "logistic"])
def test_gradient(name: str, grid: str, rounding: str) -> None:
    density, levels = DENSITIES[name], GRIDS[grid]
    steps = np.array([-2.0, -1.0, 1.0, 2.0])
    weights = np.array([1.0, -8.0, 8.0, -1.0]) / 12
    for clip in (0.8, 2.5):
        s, z = clip / levels.absmax, 0.11
        h = 1e-4
        one = error.ErrorSums(*fine_grids.error_rows(density, levels, np.array([s]), np.array([z]), rounding))
        scales = fine_grids.error_rows(density, levels, s * (1 + h * steps), np.full(4, z), rounding)
        shifts = fine_grids.error_rows(density, levels, np.full(4, s), z + h * steps, rounding)
        by_scale, by_shift = ((m[0] + m[1]) @ weights / h for m in (scales, shifts))
        assert abs(by_scale - one.by_scale[0] * s) <= GRADIENT_TOLERANCE * abs(by_scale)
        assert abs(by_shift - one.by_shift[0]) <= GRADIENT_TOLERANCE * (abs(by_shift) + abs(by_scale))
        assert abs(by_scale) > 1e-9


def test_used_by_the_public_function() -> None:
    """int12 goes this way, int8 and samples do not; both ways tell the same."""
    assert fine_grids.pays(qe.Gaussian(), qe.grid("bf16"))
    assert not fine_grids.pays(qe.Gaussian(), qe.grid("int8"))
    assert not fine_grids.pays(qe.Empirical([1.0, 2.0]), qe.grid("int16"))
    public = qe.quantization_error(qe.Gaussian(), "int12", 0.002)
    cells = by_cell(qe.Gaussian(), qe.grid("int12"), np.array([0.002]), np.zeros(1), "nearest")
    assert public.rounding == pytest.approx(cells.rounding[0], rel=TOLERANCE)
    assert public.rounding != cells.rounding[0]


def test_a_wrong_weight_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison fails when the parabola beyond its mean is left out."""
    series = {k: (saw, 0 * parabola, mean) for k, (saw, parabola, mean) in fine_grids._series().items()}
    monkeypatch.setattr(fine_grids, "_series", lambda: series)
    levels, scale = GRIDS["int12"], np.array([0.8]) / 2048
    found = error.ErrorSums(*fine_grids.error_rows(qe.Gaussian(), levels, scale, np.zeros(1), "nearest"))
    with pytest.raises(AssertionError):
        assert_same(found, by_cell(qe.Gaussian(), levels, scale, np.zeros(1), "nearest"), levels, scale, 2.0)


def test_generic_moments_agree() -> None:
    """The cells of the reference route are those of the generic quadrature, too."""
    levels = GRIDS["int12"].levels * 0.002
    edges = np.concatenate([[-np.inf], 0.5 * (levels[1:] + levels[:-1]), [np.inf]])
    own = qe.Gaussian().cell_moments(edges, levels)
    np.testing.assert_allclose(
        own[2].sum(), cell_moments(qe.Gaussian(), edges, levels, np.zeros(()), None)[2].sum(), rtol=1e-13
    )


# With stochastic rounding the error has a corner where a point mass lies on a level: no derivative to compare there.
SHIFTS = [("nearest", z) for z in (0.0, 0.37, 0.5, -0.5, 1.5, 3.2)] + [("stochastic", z) for z in (0.37, 3.2)]


@pytest.mark.parametrize(("rounding", "steps"), SHIFTS)
@pytest.mark.parametrize("name", ["int12", "int16", "fp16"])
@pytest.mark.parametrize("kind", WITH_ATOMS)
def test_point_masses(kind: str, name: str, steps: float, rounding: str) -> None:
    """Anywhere between two levels, on a threshold included, and away from every panel."""
    density, grid = WITH_ATOMS[kind], qe.grid(name)
    assert fine_grids.pays(density, grid)
    scale = np.array([0.02, 1.0, 50.0]) * 4 / grid.absmax
    found = error.error_sums(density, grid, scale, steps * scale, rounding)
    expected = by_cell(density, grid, scale, steps * scale, rounding)
    assert_same(found, expected, grid, scale, 1.0)


def test_a_sample_of_many_values_is_not_cut_to_pieces() -> None:
    x = np.random.default_rng(1).standard_normal(1000)
    assert not fine_grids.pays(qe.Mixture([qe.Gaussian(), qe.Empirical(x)], [0.5, 0.5]), qe.grid("int12"))
