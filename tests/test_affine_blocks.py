"""Scale and shift of many short rows, searched: against the proven pairs, and against enumeration of codes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import qerror as qe
from qerror.search.samples.affine_blocks import affine_blocks


def error(
    x: np.ndarray, scale: np.ndarray, shift: np.ndarray, last: int, weights: np.ndarray | None = None
) -> np.ndarray:
    codes = np.clip(np.rint((x - shift[:, None]) / scale[:, None]), 0, last)
    away = np.square(shift[:, None] + scale[:, None] * codes - x)
    return np.average(away, axis=1, weights=weights)


@pytest.mark.parametrize("kind", ["gaussian", "laplace", "uniform", "one far away"])
def test_little_is_lost_to_the_proven_pair(kind: str) -> None:
    rng = np.random.default_rng(1)
    x = {"gaussian": rng.standard_normal, "laplace": rng.laplace, "uniform": rng.uniform}.get(
        kind, rng.standard_normal
    )(size=(60, 32))
    if kind == "one far away":
        x[:, 0] += 8
    x = (3 + x).astype(np.float32)
    best = np.asarray(qe.fit(x, "uint4", axis=0, shift="optimal").error.mse).ravel()
    found = error(x.astype(np.float64), *affine_blocks(x, 15), 15)
    # Proven within 1e-12, the search computes in single precision.
    assert np.all(found >= best * (1 - 1e-6))
    assert 10 * np.log10(found.mean() / best.mean()) < 0.02
    assert 10 * np.log10(np.median(found / best)) < 1e-3


def test_two_bits_against_all_assignments_of_codes() -> None:
    """Codes rise with sorted values: each of the C(7 + 3, 3) ways to cut seven values into four runs, by regression."""
    rng = np.random.default_rng(2)
    x = rng.standard_normal((20, 7))
    weights = rng.uniform(0.2, 2, x.shape)
    for own in (None, weights):
        found = error(x, *affine_blocks(x, 3, own), 3, own)
        for row, w, mse in zip(x, weights if own is not None else np.ones_like(x), found, strict=True):
            order = np.argsort(row)
            least = np.inf
            for cuts in itertools.combinations_with_replacement(range(8), 3):
                codes = np.empty(7)
                codes[order] = np.searchsorted(cuts, np.arange(7), side="right")
                design = np.sqrt(w)[:, None] * np.stack([np.ones(7), codes], axis=1)
                away = design @ np.linalg.lstsq(design, np.sqrt(w) * row, rcond=None)[0] - np.sqrt(w) * row
                least = min(least, float(away @ away) / w.sum())
            assert least * (1 - 1e-5) <= mse <= least * 1.5


def test_constant_and_two_valued_rows_are_exact() -> None:
    x = np.array([[0.7] * 32, [0.0] * 32, [1.0, 4.0] * 16], np.float32)
    scale, shift = affine_blocks(x, 15)
    np.testing.assert_allclose(error(x.astype(np.float64), scale, shift, 15), 0, atol=1e-12)
    assert (scale > 0).all()
    assert affine_blocks(np.empty((0, 32)), 15)[0].shape == (0,)
