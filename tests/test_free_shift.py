"""Scale and shift of samples together: against enumeration of all assignments, and what the proof promises."""

from __future__ import annotations

from itertools import combinations_with_replacement

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror.results import Status
from qerror.search import free_shift

# The proof resolves 1e-12, and the enumeration sums in another order.
SAME = 1e-11


def best_by_enumeration(x: np.ndarray, w: np.ndarray, levels: np.ndarray) -> float:
    """Least MSE over scale and shift: least squares on every way of giving ascending values ascending levels."""
    order = np.argsort(x)
    x, w = x[order], w[order] / w.sum()
    l = levels[list(combinations_with_replacement(range(levels.size), x.size))]  # noqa: E741
    mean, centre = w @ x, l @ w
    square = ((l - centre[:, None]) ** 2) @ w
    cross = ((l - centre[:, None]) * (x - mean)) @ w
    scale = np.divide(cross, square, out=np.zeros_like(cross), where=square > 0)
    e = x - mean - scale[:, None] * (l - centre[:, None])
    return float((e**2 @ w).min())


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("grid", ["binary", "ternary", "uint2", "int2_midrise", "e2m0", "nf4", "pot4"])
def test_the_least_of_all_assignments(grid: str, weighted: bool) -> None:
    levels = qe.grid(grid).levels
    n = 5 if levels.size > 8 else 8
    rng = np.random.default_rng(7)
    x = np.concatenate([rng.standard_t(3, (12, n)), np.round(rng.uniform(5, 9, (12, n)) * 2) / 2])
    w = rng.uniform(0.1, 3.0, x.shape) if weighted else np.ones(x.shape)
    best = qe.optimal_scale(qe.Empirical(x, w if weighted else None, axis=0), grid, shift="optimal")
    for i, row in enumerate(x):
        expected = best_by_enumeration(row, w[i], levels)
        assert best.error.mse[i] == pytest.approx(expected, rel=SAME, abs=1e-28 * float(np.mean(row**2)))
        assert best.status[i] == Status.EXACT
        assert best.minima[i][0].mse == pytest.approx(expected, rel=SAME, abs=1e-15 * float(np.var(row)))


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["int3", "e2m1", "uint4", "int5"]))
def test_no_scale_and_shift_of_a_dense_scan_is_better(seed: int, grid: str) -> None:
    rng = np.random.default_rng(seed)
    x = rng.standard_t(4, 30) + rng.choice([0.0, 20.0])
    levels = qe.grid(grid)
    best = qe.optimal_scale(qe.Empirical(x), levels, shift="optimal")
    width = np.ptp(x) / (levels.max - levels.min)
    scale = width * np.geomspace(0.3, 3, 60)[:, None]
    middle = x.min() + np.ptp(x) * np.linspace(0, 1, 80)
    shift = middle - scale * 0.5 * (levels.min + levels.max)
    assert best.error.mse <= qe.quantization_error(qe.Empirical(x), levels, scale, shift).mse.min() * (1 + SAME)
    assert best.status == Status.EXACT


@pytest.mark.parametrize("seed", [3, 18, 35, 36])
def test_no_integer_zero_point_is_better(seed: int) -> None:
    """Uniform data far from 0, where many pairs of scale and shift are nearly as good (seeds that starts had lost)."""
    x = np.random.default_rng(seed).uniform(20.0, 21.0, 30)
    best = qe.fit(x, "uint4", shift="optimal")
    assert best.status == Status.EXACT
    points = np.arange(-345, -300)
    scale = np.ptp(x) / 15 * np.linspace(0.7, 1.2, 801)
    errors = qe.quantization_error(qe.Empirical(x), "uint4", scale, -points[:, None] * scale).mse
    assert best.error.mse <= errors.min() * (1 + SAME)


def test_rows_are_searched_as_alone() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((70, 40)) * 10.0 ** rng.integers(-30, 30, (70, 1))
    x[3], x[4], x[5] = 0.0, 2.5, np.repeat([1.0, 7.0], 20)
    rows = qe.optimal_scale(qe.Empirical(x, axis=0), "int3", shift="optimal")
    for i in (0, 3, 4, 5, 31, 69):
        alone = qe.optimal_scale(qe.Empirical(x[i]), "int3", shift="optimal")
        assert rows.status[i] == alone.status
        assert rows.error.mse[i] == pytest.approx(alone.error.mse, rel=SAME, abs=1e-30 * float(np.mean(x[i] ** 2)))
    assert rows.status[3] == Status.DEGENERATE
    assert (rows.error.mse[[4, 5]] <= 1e-28).all()


def test_grids_too_fine_for_the_proof_say_so() -> None:
    x = np.random.default_rng(6).standard_normal(1000)
    best = qe.optimal_scale(qe.Empirical(x), "int10", shift="optimal")
    assert best.status == Status.LOCAL
    assert best.error.mse <= qe.optimal_scale(qe.Empirical(x), "int10", shift="mean").error.mse * (1 + SAME)


def test_a_whole_tensor_of_repeated_values() -> None:
    """16-bit values are counted: the proof looks at sums over them, not at each."""
    x = np.random.default_rng(8).standard_normal(100_000).astype(np.float16)
    best = qe.fit(x, "int4", shift="optimal")
    assert best.status == Status.EXACT
    assert best.error.mse <= qe.fit(x, "int4_midrise").error.mse


@pytest.mark.parametrize("grid", ["int4", "int5", "e2m1"])
def test_shifts_of_fine_histograms_are_compared_by_many_scales(grid: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answer as where every minimum at every shift is looked for, on what is about smooth."""
    counts, edges = np.histogram(np.random.default_rng(9).gamma(3.0, size=100_000), 40)
    density = qe.Histogram(counts, edges)
    expected = qe.optimal_scale(density, grid, shift="optimal")
    monkeypatch.setattr(free_shift, "_MOST_KINKS", 0)
    best = qe.optimal_scale(density, grid, shift="optimal")
    assert best.error.mse == pytest.approx(expected.error.mse, rel=SAME)
