"""The compiled search against NumPy's: same scales bit for bit, errors to 1e-13, same statuses.

The functions are plain Python: uncompiled they are tried everywhere, on few rows. `make test-interop` has numba, and
runs tests/test_exact_samples.py with it as well: all that is held against enumeration there.
"""

from __future__ import annotations

import importlib.util
import math
import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import qerror as qe
from qerror.samples.rows import rows_of
from qerror.search.samples import kernels

# Relative; where sums are exact the scales are the same and so are the errors.
MSE_TOLERANCE = 1e-13
WITH_NUMBA = pytest.mark.skipif(
    importlib.util.find_spec("numba") is None, reason="numba is not installed; test-interop has it"
)
RNG = np.random.default_rng(17)
NORMAL = RNG.standard_normal((3, 200)).astype(np.float32)
HEAVY = RNG.standard_t(2, (2, 200))
ROWS: dict[str, tuple[np.ndarray, str, dict[str, Any]]] = {
    "int8": (NORMAL, "int8", {}),
    "int8-blocks": (NORMAL[:, :64].reshape(-1, 16), "int8", {}),
    "int8-mean": (NORMAL + 3, "int8", {"shift": "mean"}),
    "int8-weights": (NORMAL, "int8", {"weights": RNG.random(NORMAL.shape)}),
    "int8-counts": (NORMAL, "int8", {"weights": RNG.integers(0, 4, NORMAL.shape).astype(float)}),
    "int8-outlier": (np.append(NORMAL[0], np.float32(400.0))[None], "int8", {}),
    "int8-zeros": (np.where(RNG.random((2, 60)) < 0.5, 0, NORMAL[:2, :60]), "int8", {}),
    "int6-midrise": (NORMAL, "int6_midrise", {}),
    "uint6": (np.abs(NORMAL), "uint6", {}),
    "uint6-both-signs": (NORMAL, "uint6", {}),
    "int4": (NORMAL, "int4", {}),
    "e4m3fn": (NORMAL, "e4m3fn", {}),
    "e4m3fn-shifted": (NORMAL, "e4m3fn", {"shift": 0.2}),
    "e4m3fnuz": (HEAVY, "e4m3fnuz", {}),
    "e5m2": (HEAVY, "e5m2", {}),
    "e3m2": (NORMAL, "e3m2", {}),
    "nothing-to-gain": (-np.abs(NORMAL[:2]), "uint6", {}),
    "constant": (np.full((2, 40), 2.5), "int8", {}),
    "tiny": (NORMAL.astype(np.float64) * 2.0**-110, "int8", {}),
    "too-many-octaves": (np.append(NORMAL[0] * 1e-90, 1e90)[None], "int8", {}),
    "codebook": (NORMAL, "nf4", {}),
}


def both(x: np.ndarray, grid: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Any:
    """What NumPy finds, then what the kernels find."""
    fits = []
    for kernel in ("numpy", "numba"):
        monkeypatch.setenv("QERROR_KERNELS", kernel)
        fits.append(qe.fit(x, grid, axis=0, **options))
    return fits


def check(x: np.ndarray, grid: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    reference, found = both(x, grid, options, monkeypatch)
    np.testing.assert_array_equal(found.scale, reference.scale)
    np.testing.assert_array_equal(found.shift, reference.shift)
    np.testing.assert_allclose(found.error.mse, reference.error.mse, rtol=MSE_TOLERANCE)
    assert np.array_equal(found.status, reference.status)


@pytest.mark.parametrize("name", ROWS)
def test_plain_functions_find_what_numpy_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_kernel", lambda name="best_of_rows": getattr(kernels, name))
    x, grid, options = ROWS[name]
    check(x[:1, :60], grid, {key: v[:1, :60] if key == "weights" else v for key, v in options.items()}, monkeypatch)


@WITH_NUMBA
@pytest.mark.parametrize("name", ROWS)
def test_compiled_functions_find_what_numpy_finds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(*ROWS[name], monkeypatch)


@WITH_NUMBA
@pytest.mark.parametrize(("grid", "shape"), [("int8", (24, 4096)), ("e4m3fn", (24, 4096)), ("int8", (2000, 32))])
def test_many_rows(grid: str, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(5).standard_t(5, shape).astype(np.float32)
    check(x, grid, {}, monkeypatch)


ZERO_POINTS: dict[str, tuple[np.ndarray, str, dict[str, Any]]] = {
    "uint8": (NORMAL + 0.5, "uint8", {}),
    "uint4": (np.abs(HEAVY), "uint4", {}),
    "int4-negative": (-np.abs(NORMAL), "int4", {}),
    "uint5-far": (NORMAL + 5, "uint5", {}),
    "uint4-weights": (NORMAL + 0.2, "uint4", {"weights": RNG.random(NORMAL.shape)}),
    "uint3-zeros": (np.where(RNG.random((3, 60)) < 0.5, 0, NORMAL[:, :60]), "uint3", {}),
}


def check_zero_points(
    x: np.ndarray, grid: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...]
) -> None:
    """Several zero points may have one error: which of them is taken is left open."""
    for zero_point in kinds:
        reference, found = both(x, grid, {**options, "zero_point": zero_point}, monkeypatch)
        np.testing.assert_allclose(found.error.mse, reference.error.mse, rtol=1e-12)
        assert np.array_equal(found.status, reference.status)


@pytest.mark.parametrize("name", ["uint4", "uint3-zeros"])
def test_plain_functions_find_zero_points(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_kernel", lambda name="best_of_rows": getattr(kernels, name))
    x, grid, options = ZERO_POINTS[name]
    check_zero_points(x[:1, :24], grid, options, monkeypatch, ("storable",))


@WITH_NUMBA
@pytest.mark.parametrize("name", ZERO_POINTS)
def test_compiled_functions_find_zero_points(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_zero_points(*ZERO_POINTS[name], monkeypatch, ("storable", "integer"))


@WITH_NUMBA
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.sampled_from(["uint2", "uint4", "int3"]))
def test_no_zero_point_is_better(seed: int, n: int, grid: str) -> None:
    """Each code as the zero point, searched alone by NumPy: none has an error below that of the one chosen."""
    rng = np.random.default_rng(seed)
    x = rng.choice([1.0, 0.25]) * rng.standard_t(3, n) + rng.normal() * rng.choice([0.0, 0.5, 4.0])
    x = x if rng.random() < 0.7 else np.rint(4 * x) / 4
    levels = qe.grid(grid).levels
    sample, empirical = qe.Empirical(x[None], axis=0), qe.Empirical(x)
    held = rows_of(sample)
    assert held is not None
    (code,), (proven,) = kernels.zero_points(held[0], qe.grid(grid))
    errors = [float(qe.optimal_scale(empirical, qe.Grid(levels - p)).error.mse) for p in levels]
    assert proven
    assert errors[code] <= min(errors) * (1 + 1e-11) + 1e-15 * float(np.mean(x**2))


@WITH_NUMBA
def test_compiled_sums_keep_what_is_lost_between_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 2^-47 behind 1: plain sums in this order would keep none. Compilers may not reorder them either."""
    scope = kernels._kernel().py_func.__globals__  # type: ignore[attr-defined]
    y, weights, form = np.ones(1280), np.full(1280, 2.0**-62), kernels.Form.of(qe.Grid([0.0, 1.0]))
    weights[:128] = 0.0
    weights[0] = 1.0
    for sums in (kernels._sums, scope["_sums"]):
        assert sums(y, weights, 1.0, form) == 2 * (math.fsum(weights),)


def test_plain_numpy_is_what_runs_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    if "QERROR_KERNELS" not in os.environ:
        assert not kernels.compiled()
    monkeypatch.setenv("QERROR_KERNELS", "fortran")
    with pytest.raises(ValueError, match="QERROR_KERNELS must be 'numpy' or 'numba', got 'fortran'"):
        qe.fit(NORMAL, "int8", axis=0)


def test_a_missing_numba_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QERROR_KERNELS", "numba")
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    for kept in (kernels._kernel, kernels._compiled):
        kept.cache_clear()
    with pytest.raises(ValueError, match=r"needs the package numba: pip install 'qerror\[fast\]'"):
        qe.fit(NORMAL, "int8", axis=0)
