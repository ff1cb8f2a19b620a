"""Scales of tensors: groups, optimality against every rule and a dense scan, costs, edge cases."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import weakref
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import qerror as qe
from qerror.files import open_checkpoint
from qerror.results import Status
from qerror.rules import RULES, RuleResult, as_rule
from qerror.tensors import fitting, plans

RNG = np.random.default_rng(20250405)
# The library and a test add float64 numbers in different orders.
SUM_ORDER = 1e-12
# The promise of rule "optimal" against 20 000 scales.
SCAN = 1e-9
GRIDS = ["int4", "e2m1", "e3m0", "nf4", "int8"]


def heavy(shape: tuple[int, ...]) -> np.ndarray:
    return RNG.standard_t(4, shape) * np.exp(RNG.standard_normal((shape[0], *[1] * (len(shape) - 1))))


def groups_of(x: np.ndarray, **how: Any) -> list[tuple[tuple[int, ...], np.ndarray]]:
    """Index into the scales and elements of every group, by plain loops."""
    axes, sizes = how.get("axis"), how.get("block_size")
    if axes is None and sizes is None:
        return [((), x)]
    kept = {a % x.ndim for a in (axes if isinstance(axes, tuple) else () if axes is None else (axes,))}
    sizes = sizes if isinstance(sizes, tuple) else () if sizes is None else (sizes,)
    at = how.get("block_axis", tuple(range(-len(sizes), 0)))
    cut = {a % x.ndim: size for a, size in zip(at if isinstance(at, tuple) else (at,), sizes, strict=True)}
    lines = [[slice(i, i + 1) for i in range(n)] for n in x.shape]
    for axis, n in enumerate(x.shape):
        if axis in cut:
            lines[axis] = [slice(i, i + cut[axis]) for i in range(0, n, cut[axis])]
        elif axis not in kept and axes is not None:
            lines[axis] = [slice(None)]
    return [
        (index, x[tuple(line[i] for line, i in zip(lines, index, strict=True))])
        for index in np.ndindex(*map(len, lines))
    ]


LAYOUTS: list[dict[str, Any]] = [
    {},
    {"axis": 0},
    {"axis": -1},
    {"axis": (0, 2)},
    {"axis": (-1, 1)},
    {"block_size": 5},
    {"block_size": 4, "block_axis": 1},
    {"block_size": 100},
    {"block_size": (4, 5)},
    {"block_size": (2, 8), "block_axis": (0, 2)},
    {"axis": 0, "block_size": 5},
    {"axis": 1, "block_size": 2, "block_axis": 0},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("rule", ["optimal", "minmax", "percentile:p=90", "iterative"])
def test_every_group_is_fitted_by_itself(layout: dict[str, Any], rule: str) -> None:
    x = heavy((3, 6, 13)).astype(np.float32)
    result = qe.fit(x, "int4", rule=rule, shift="mean", **layout)
    pieces = groups_of(x, **layout)
    assert np.size(result.scale) == len(pieces)
    q = result.fake_quantize(x.astype(np.float64))
    for (index, part), (_, rounded) in zip(pieces, groups_of(q, **layout), strict=True):
        expected = as_rule(rule)(qe.Empirical(part), "int4", shift="mean")
        if rule != "optimal":
            assert result.scale[index] == pytest.approx(expected.scale, rel=SUM_ORDER)
        # Of few values several scales may be as good as the best.
        there = float(qe.quantization_error(qe.Empirical(part), "int4", expected.scale, expected.shift).mse)
        # x - Q(x) is known to a few ulp of x.
        power = float(np.mean(part.astype(np.float64) ** 2))
        rounding = 1e-15 * np.sqrt(power * there) + 1e-30 * power
        assert result.error.mse[index] == pytest.approx(there, rel=SUM_ORDER, abs=rounding)
        assert result.shift[index] == pytest.approx(expected.shift, rel=SUM_ORDER)
        direct = float(np.mean((part - rounded) ** 2))
        # A value that is itself representable comes back within an ulp.
        assert result.error.mse[index] == pytest.approx(direct, rel=SUM_ORDER, abs=1e-30 * float(np.mean(part**2)))


def test_shapes_of_the_scales() -> None:
    x = heavy((3, 6, 13))
    shapes = [
        (),
        (3, 1, 1),
        (1, 1, 13),
        (3, 1, 13),
        (1, 6, 13),
        (3, 6, 3),
        (3, 2, 13),
        (3, 6, 1),
        (3, 2, 3),
        (2, 6, 2),
        (3, 1, 3),
        (2, 6, 1),
    ]
    for layout, shape in zip(LAYOUTS, shapes, strict=True):
        result = qe.fit(x, "int4", rule="minmax", **layout)
        assert np.shape(result.scale) == shape
        for field in ("shift", "clipped_fraction", "excess_db", "status"):
            assert np.shape(getattr(result, field)) == shape
        assert np.shape(result.error.cross) == shape
        assert np.shape(result.total.cross) == ()


def test_rows_of_172_in_blocks_of_32() -> None:
    x = heavy((7, 172)).astype(np.float32)
    result = qe.fit(x, "e2m1", block_size=32)
    assert result.scale.shape == (7, 6)
    last = qe.optimal_scale(qe.Empirical(x[:, 160:], axis=0), "e2m1")
    np.testing.assert_allclose(result.error.mse[:, 5], last.error.mse, rtol=SUM_ORDER)
    np.testing.assert_allclose(result.total.mse, np.mean((x - result.fake_quantize(x)) ** 2), rtol=1e-6)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("rule", ["optimal", "minmax"])
def test_costs_are_those_of_the_quantized_tensor(rule: str, weighted: bool) -> None:
    x = heavy((5, 172))
    w = RNG.uniform(0, 2, x.shape) if weighted else np.ones(x.shape)
    result = qe.fit(x, "int4", rule=rule, block_size=32, shift=0.01, weights=w if weighted else None)
    q = result.fake_quantize(x)
    e, s = q - x, np.repeat(result.scale, 32, axis=1)[:, :172]
    outside = (x < 0.01 - 8 * s) | (x > 0.01 + 7 * s)
    total, mass = result.total, w.sum()
    # Sums of terms of both signs are known to rounding of the sum of their magnitudes.
    for value, terms in (
        (total.clipping, np.where(outside, e**2, 0)),
        (total.rounding, np.where(outside, 0, e**2)),
        (total.bias, e),
        (total.cross, x * e),
        (total.power, x * x),
        (total.mean, x),
    ):
        limit = SUM_ORDER * (w * np.abs(terms)).sum() / mass
        assert value == pytest.approx((w * terms).sum() / mass, rel=0, abs=limit)
    starts = range(0, 172, 32)
    np.testing.assert_allclose(
        result.clipped_fraction,
        np.add.reduceat(w * outside, starts, axis=1) / np.add.reduceat(w, starts, axis=1),
        atol=1e-15,
    )


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("shift", [0.0, "mean"])
def test_optimal_beats_every_rule_and_a_scan(grid: str, shift: float | str) -> None:
    x = heavy((12, 90))
    best = qe.fit(x, grid, axis=0, shift=shift)
    assert (best.status == Status.EXACT).all()
    either = qe.fit(x, grid, axis=0, shift=shift, sign="either")
    for rule in RULES:
        try:
            other = qe.fit(x, grid, rule=rule, axis=0, shift=shift)
        except ValueError as error:
            assert "is not defined on" in str(error)  # noqa: PT017
            continue
        # Scales of either sign are compared with the best of either.
        least = (either if (other.scale < 0).any() else best).error.mse
        assert (least <= other.error.mse * (1 + SUM_ORDER)).all(), rule
        lost = 10 * np.log10(other.error.mse / least)
        np.testing.assert_allclose(other.excess_db, np.maximum(lost, 0), atol=1e-9)
    assert_beats_scan(x, qe.grid(grid), best)


def assert_beats_scan(x: np.ndarray, grid: qe.Grid, best: qe.FitResult, scales: int = 20_000) -> None:
    """MSE of each row at log-spaced scales from far below to far above, by looking the nearest level up."""
    for row, z, mse in zip(x, np.ravel(best.shift), np.ravel(best.error.mse), strict=True):
        y = row - z
        top = np.abs(y).max() / np.abs(grid.levels[grid.levels != 0]).min()
        low = 1e-4 * np.abs(y).max() / grid.absmax
        for part in np.array_split(np.geomspace(low, 3 * top, scales), 20):
            t = y[:, None] / part
            found = ((y[:, None] - part * grid.levels[np.searchsorted(grid.thresholds, t)]) ** 2).mean(axis=0)
            assert mse <= found.min() * (1 + SCAN)


@pytest.mark.slow
def test_optimal_on_real_tensors(real_data: Any) -> None:
    """Every tensor of every file: sampled rows, sampled blocks and the whole, against every rule and the scan."""
    rng = np.random.default_rng(3)
    for path in sorted(real_data.glob("*.safetensors")):
        with open_checkpoint(path) as checkpoint:
            for number, (name, values) in enumerate(checkpoint.items()):
                x = np.array(values, np.float64).reshape(values.shape[0], -1)
                picked = x[rng.permutation(len(x))[:2]]
                grid = GRIDS[number % len(GRIDS)]
                for layout in ({"axis": 0}, {"block_size": 32})[: 1 + (number % 4 == 0)]:
                    best = qe.fit(picked, grid, **layout)
                    for rule in RULES:
                        if rule in ("aciq", "octav", "sawb", "entropy") and grid not in ("int4", "int8"):
                            continue
                        other = qe.fit(picked, grid, rule=rule, measure=False, **layout)
                        least = qe.fit(picked, grid, sign="either", **layout) if (other.scale < 0).any() else best
                        bound = other.error.mse * (1 + SUM_ORDER) + 1e-30
                        assert (least.error.mse <= bound).all(), (path.name, name, rule)
                    proven = np.isin(best.status, [Status.EXACT, Status.DEGENERATE])
                    assert proven.all(), (path.name, name)
                live = np.abs(picked).max(axis=1) > 0
                if live.any() and number % 5 == 0:
                    assert_beats_scan(picked[live], qe.grid(grid), qe.fit(picked[live], grid, axis=0), 20_000)


@pytest.mark.parametrize("grid", ["e2m1", "e3m0", "int4_midrise"])
def test_magnitudes_on_half_a_grid_are_as_good_as_values_on_the_whole(grid: str) -> None:
    for length in (32, 3000):
        x = heavy((4, length))
        whole = qe.optimal_scale(qe.Empirical(x, axis=0), grid)
        result = qe.fit(x, grid, axis=0)
        np.testing.assert_allclose(result.error.mse[:, 0], whole.error.mse, rtol=SUM_ORDER)
        assert {status.name for status in result.status.ravel()} == {"EXACT"}


@pytest.mark.parametrize("grid", ["int8", "e4m3fn", "e2m1"])
def test_rows_far_from_zero(grid: str) -> None:
    # Up to a scale of 80 or more no value leaves level 0, and what sums say of it there is rounding.
    x = (50 + RNG.standard_normal((4, 1000))).astype(np.float32)
    result = qe.fit(x, grid, axis=0)
    scales = np.geomspace(0.05, 100, 500)
    errors = [qe.quantization_error(qe.Empirical(row), grid, scales).mse.min() for row in x]
    assert (result.error.mse[:, 0] <= np.array(errors) * (1 + SCAN)).all()


def test_evaluate_prices_scales_that_exist() -> None:
    x = heavy((6, 64))
    best = qe.fit(x, "int4", axis=0, shift="mean")
    again = qe.evaluate(x, "int4", best.scale, best.shift, axis=0)
    np.testing.assert_allclose(again.error.mse, best.error.mse, rtol=SUM_ORDER)
    np.testing.assert_allclose(again.excess_db, 0, atol=1e-9)
    assert (again.status == Status.GIVEN).all()
    worse = qe.evaluate(x, "int4", 2 * best.scale, best.shift, axis=0)
    expected = [
        qe.excess_db(qe.Empirical(row), "int4", 2 * s, z)
        for row, s, z in zip(x, best.scale.ravel(), best.shift.ravel(), strict=True)
    ]
    np.testing.assert_allclose(worse.excess_db.ravel(), expected, atol=1e-9)
    assert np.shape(qe.evaluate(x, "int4", 0.3, block_size=16).error.mse) == (6, 4)
    with pytest.raises(ValueError, match=r"scale of shape \(6, 1\) does not fit: the groups of x have shape \(\)"):
        qe.evaluate(x, "int4", best.scale)


def test_a_callable_is_a_rule() -> None:
    x = heavy((4, 50))

    def three_sigma(density: Any, grid: Any, *, shift: Any) -> Any:
        return 3 * density.std / 7

    result = qe.fit(x, "int4", rule=three_sigma, axis=0)
    np.testing.assert_allclose(result.scale[:, 0], 3 * x.std(axis=1) / 7, rtol=SUM_ORDER)
    assert result.rule == "three_sigma"
    pair = qe.fit(x, "int4", rule=lambda d, g, shift: (d.std, d.mean), axis=0)
    np.testing.assert_allclose(pair.shift[:, 0], x.mean(axis=1), rtol=1e-10)
    full = qe.fit(x, "int4", rule=lambda d, g, shift: RuleResult(d.std, 0.0, Status.RULE), axis=0)
    np.testing.assert_array_equal(full.scale, pair.scale)


def test_analytic_auto_fits_one_family_to_the_whole_tensor() -> None:
    x = np.random.default_rng(8).laplace(size=(40, 200)) * np.arange(1, 41)[:, None]
    result = qe.fit(x, "int4", rule="analytic:family=auto", axis=0)
    assert result.rule.startswith(("analytic:family=laplace", "analytic:family=generalized-gaussian"))
    assert (result.excess_db >= 0).all()


@pytest.mark.parametrize("axis", [None, 0])
def test_shift_optimal_is_no_worse_than_the_mean(axis: int | None) -> None:
    x = np.abs(heavy((2, 40))) + 1
    free, centred = (qe.fit(x, "uint4", axis=axis, shift=z) for z in ("optimal", "mean"))
    assert (np.asarray(free.error.mse) <= np.asarray(centred.error.mse) * (1 + 1e-9)).all()
    assert np.all(np.asarray(free.status) == Status.EXACT)


# -- edge cases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", sorted(RULES))
@pytest.mark.parametrize("x", [3.5, -2.0, 0.0, [1.25], [[[-7.0]]]], ids=str)
def test_one_element(x: Any, rule: str) -> None:
    result = qe.fit(x, "int4", rule=rule)
    assert result.scale > 0 or rule == "signed_absmax"
    assert np.isfinite(result.scale)
    if rule in ("optimal", "minmax", "percentile"):
        assert result.error.mse <= 1e-30 * np.max(np.square(x))


@pytest.mark.parametrize("rule", sorted(RULES))
def test_all_zero_rows_beside_others(rule: str) -> None:
    x = heavy((3, 40)).astype(np.float32)
    x[1] = 0
    result = qe.fit(x, "int4", rule=rule, axis=0)
    assert result.error.mse[1, 0] == 0
    assert result.excess_db[1, 0] == 0
    assert result.scale[1, 0] == (2.0**-127 if rule == "ocp" else 1.0)
    assert (result.fake_quantize(x)[1] == 0).all()
    alone = qe.fit(x[[0, 2]], "int4", rule=rule, axis=0)
    np.testing.assert_allclose(result.scale[[0, 2]], alone.scale, rtol=SUM_ORDER)


@pytest.mark.parametrize("rule", sorted(set(RULES) - {"ocp"}))
def test_tiny_rows_beside_rows_at_one(rule: str) -> None:
    x = heavy((4, 64)).astype(np.float32)
    tiny = 2.0**-106
    both = np.concatenate([x, x * np.float32(tiny)])
    result = qe.fit(both, "int4", rule=rule, axis=0)
    # A power of two commutes with every step of every rule, up to the order of sums.
    np.testing.assert_allclose(result.scale[4:], result.scale[:4] * tiny, rtol=1e-9)
    np.testing.assert_allclose(result.error.mse[4:], result.error.mse[:4] * tiny**2, rtol=1e-9)


def test_subnormals() -> None:
    x = (RNG.integers(-1000, 1000, (3, 50)) * 2.0**-149).astype(np.float32)
    result = qe.fit(x, "int8", axis=0)
    np.testing.assert_allclose(result.scale, qe.fit(x.astype(np.float64) * 2.0**149, "int8", axis=0).scale * 2.0**-149)
    assert np.abs(result.fake_quantize(x)).max() > 0


def test_float16_near_its_maximum() -> None:
    x = np.array([[65504, -65504, 60000, 3.0], [1.0, 2.0, -65504, 6e-8]], np.float16)
    for rule in sorted(RULES):
        result = qe.fit(x, "int8", rule=rule, axis=0)
        wide = qe.fit(x.astype(np.float64), "int8", rule=rule, axis=0)
        np.testing.assert_allclose(result.scale, wide.scale, rtol=1e-6)
        assert np.isfinite(result.fake_quantize(x)).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, np.int8, ">f4"])
def test_types(dtype: Any) -> None:
    x = (heavy((3, 40)) * 9).astype(dtype)
    result = qe.fit(x, "int4", axis=0)
    np.testing.assert_allclose(result.scale, qe.fit(x.astype(np.float64), "int4", axis=0).scale, rtol=SUM_ORDER)
    assert result.fake_quantize(x).dtype == (np.float64 if dtype == np.int8 else np.dtype(dtype))


def test_layouts_in_memory_do_not_matter_and_x_is_never_changed() -> None:
    x = heavy((6, 8, 10)).astype(np.float32)
    x.flags.writeable = False
    before = x.copy()
    views = [x, np.asfortranarray(x), np.repeat(x, 2, axis=1)[:, ::2], x[::-1][::-1]]
    for layout in LAYOUTS:
        for rule in ("optimal", "minmax", "octav") if layout == {"axis": 0} else ("minmax", "octav"):
            results = [qe.fit(view, "int4", rule=rule, **layout).scale for view in views]
            for other in results[1:]:
                np.testing.assert_allclose(other, results[0], rtol=SUM_ORDER)
    np.testing.assert_array_equal(x, before)


def test_negative_axes_are_the_same_axes() -> None:
    x = heavy((4, 5, 6))
    for positive, negative in ((0, -3), (1, -2), (2, -1)):
        np.testing.assert_array_equal(
            qe.fit(x, "int4", rule="minmax", axis=positive).scale, qe.fit(x, "int4", rule="minmax", axis=negative).scale
        )
        np.testing.assert_array_equal(
            qe.fit(x, "int4", rule="minmax", block_size=2, block_axis=positive).scale,
            qe.fit(x, "int4", rule="minmax", block_size=2, block_axis=negative).scale,
        )


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (np.empty((3, 0)), {"axis": 0}, r"x must have at least one value in every group, got shape \(3, 0\)"),
        (np.empty((0, 4)), {}, "x must have at least one value in every group"),
        ([1.0, np.nan], {}, "x must be finite, got 1 NaN of 2 values"),
        ([1.0, np.inf], {"rule": "minmax"}, "x must be finite, got 1 infinite of 2 values"),
        ([[1.0, np.nan]], {"rule": "minmax", "axis": 0}, "x must be finite, got 1 NaN"),
        ([1j], {}, "x must be real numbers, got dtype complex128"),
        ([1.0], {"axis": 1}, r"axis must be an integer from -1 to 0, got 1 for x of shape \(1,\)"),
        (1.0, {"axis": 0}, "axis must be None for a single number, got 0"),
        (
            [1.0],
            {"axis": 0, "block_size": 2},
            "block_size needs one size for each block_axis, none of them among axis, got block_size=2",
        ),
        ([1.0], {"block_size": 0}, "block_size must be an integer of at least 1, got 0"),
        ([1.0], {"block_size": 2, "block_axis": 3}, "block_axis must be an integer from -1 to 0, got 3"),
        ([1.0], {"rule": "best"}, "unknown rule 'best'"),
        ([1.0], {"shift": "median"}, "shift must be 'mean' or 'optimal', got 'median'"),
        ([1.0], {"shift": [1.0, 2.0]}, r"shift of shape \(2,\) does not fit: the groups of x have shape \(\)"),
        ([1.0], {"shift": np.nan}, "shift must be finite, got nan"),
        ([1.0], {"shift": 1e200}, "shift must be at most 1e\\+100 in magnitude, got 1e\\+200"),
        ([1.0], {"scale_format": qe.Grid([-2, -1])}, "scale_format must have positive values"),
        ([1.0], {"weights": [-1.0]}, "weights must be >= 0, got -1"),
        ([1.0], {"weights": [1.0, 2.0]}, r"weights of shape \(2,\) must broadcast to x of shape \(1,\)"),
        ([[1.0], [2.0]], {"weights": [[1.0], [0.0]], "axis": 0}, "weights must not all be 0 in a group"),
    ],
)
def test_bad_input(x: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qe.fit(x, "int4", **options)


@pytest.mark.parametrize("rule", sorted({*RULES, "analytic:family=auto"}))
@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_nan_is_found_by_every_rule_where_it_is(rule: str, bad: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are fitted in parts, and a comparison with NaN is false: neither may hide it."""
    monkeypatch.setattr(plans, "_CHUNK", 1000)
    x = heavy((70, 100)).astype(np.float32)
    x[60, 7] = bad
    with pytest.raises(ValueError, match=r"x must be finite, got 1 .* of 7000 values, .* at index \(60, 7\)"):
        qe.fit(x, "int4", rule=rule, axis=0, measure=False)
    with pytest.raises(ValueError, match=r"x must be finite, .* at index \(60, 7\)"):
        qe.evaluate(x, "int4", 1.0, measure=False)


@pytest.mark.parametrize("shape", [(16, 128, 64, 1), (8, 8, 3)])
def test_blocks_on_an_axis_too_short_for_them(shape: tuple[int, ...]) -> None:
    """Kernels of convolutions: blocks of one element would cost 20 bits a value, and no error."""
    with pytest.raises(
        ValueError, match=r"is too short for blocks of 32; give block_axis=\d, which has \d+, or reshape"
    ):
        qe.fit(np.ones(shape, np.float32), "int4", block_size=32)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (-1.0, "scale must be positive and finite, got -1.0"),
        (None, "scale must be a real number or an array of real numbers, got None"),
        (np.ones(3), "a rule must return one scale and shift, or one for each of the 2 groups that it was given"),
        ((1.0, np.nan), "shift must be finite, got nan"),
    ],
)
def test_what_a_callable_must_return(answer: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        qe.fit(np.ones((2, 4)), "int4", rule=lambda d, g, shift: answer, axis=0)


class Tensor:
    """What a torch.bfloat16 tensor with a gradient lets one do (test_training has the true ones)."""

    is_floating_point = True

    def __init__(self, values: Any, *, free: bool = False) -> None:
        self.values, self.free = values, free

    def __array__(self, *args: Any, **kwargs: Any) -> np.ndarray:
        raise RuntimeError("Can't call numpy() on Tensor that requires grad")

    def detach(self) -> Tensor:
        return Tensor(self.values, free=True)

    def cpu(self) -> Tensor:
        return self

    resolve_conj = resolve_neg = cpu

    def numpy(self) -> np.ndarray:
        if not self.free:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        raise TypeError("Got unsupported ScalarType BFloat16")

    def float(self) -> Any:
        if self.values is None:
            raise RuntimeError("no such type")
        return SimpleNamespace(numpy=lambda: self.values)


def test_tensors_with_gradients_are_read_as_their_values() -> None:
    x = heavy((4, 32)).astype(np.float32)
    assert np.array_equal(qe.fit(Tensor(x), "int4", axis=0).scale, qe.fit(x, "int4", axis=0).scale)
    for form in ("int4", "mxfp4"):
        assert np.array_equal(qe.fake_quantize(Tensor(x), form), qe.fake_quantize(x, form))
    assert np.array_equal(qe.quantize(Tensor(x), "int4"), qe.quantize(x, "int4"))
    assert qe.Empirical(Tensor(x)).std == qe.Empirical(x).std
    for cast in (qe.fake_quantize, qe.quantize, qe.fit):
        with pytest.raises(ValueError, match="x cannot be read as an array: no such type; give its values as a dense"):
            cast(Tensor(None), "int4")


def test_quantize_wants_the_fitted_shape() -> None:
    result = qe.fit(heavy((4, 10)), "int4", axis=0)
    with pytest.raises(ValueError, match=r"x must have the shape \(4, 10\) of the fit, got \(10,\)"):
        result.quantize(np.zeros(10))


# -- what a result holds -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "measure", "held"), [(4, None, False), (3000, None, True), (3000, True, False)])
def test_x_is_held_until_all_is_measured(rows: int, measure: bool | None, held: bool) -> None:
    """Also an array that only the call names, as what a torch tensor is converted to."""
    x = np.random.default_rng(1).standard_normal((rows, 100)).astype(np.float32)
    results = [qe.fit(x, "int4", rule=rule, axis=0, measure=measure) for rule in ("minmax", "optimal")]
    alive = weakref.ref(x)
    del x
    gc.collect()
    assert (alive() is not None) == held
    assert results[1].total.mse > 0
    assert (results[1].excess_db == 0).all()
    assert (results[0].excess_db >= 0).all()
    gc.collect()
    assert alive() is None


def test_large_tensors_are_measured_when_asked_while_x_is_there() -> None:
    x = np.random.default_rng(1).standard_normal((3000, 100)).astype(np.float32)
    result = qe.fit(x, "int4", rule="minmax", axis=0)
    assert "not measured yet" in repr(result)
    part = qe.fit(x[:5], "int4", rule="minmax", axis=0)
    np.testing.assert_allclose(result.excess_db[:5], part.excess_db, atol=1e-9)
    np.testing.assert_allclose(result.error.mse[:5], part.error.mse, rtol=SUM_ORDER)
    changed = qe.fit(x, "int4", rule="minmax", axis=0)
    _ = changed.error
    x *= 2
    with pytest.raises(ValueError, match="x has changed since it was fitted"):
        _ = changed.excess_db


def test_small_tensors_may_change_before_they_are_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    searched = []
    own = fitting.choose
    monkeypatch.setattr(fitting, "choose", lambda tensor, plan: searched.append(plan.label) or own(tensor, plan))
    x, weights = heavy((4, 10)), np.random.default_rng(3).uniform(0, 1, (4, 10))
    known = qe.fit(x, "int4", rule="minmax", axis=0, weights=weights, measure=True)
    assert len(searched) == 2
    results = [qe.fit(x, "int4", rule="minmax", axis=0, weights=weights) for _ in range(3)]
    # The optimum is searched for when it is asked for, in the values that there were.
    assert len(searched) == 5
    x *= 2
    weights[:] = 1
    later, stored, copied = results[0], pickle.loads(pickle.dumps(results[1])), copy.deepcopy(results[2])
    for result in (later, stored, copied):
        np.testing.assert_array_equal(result.excess_db, known.excess_db)
        np.testing.assert_array_equal(result.error.mse, known.error.mse)
    assert "sqnr_db" in repr(qe.fit(x, "int4", rule="minmax"))


def test_results_are_values() -> None:
    result = qe.fit(heavy((4, 10)), "int4", rule="minmax", axis=0)
    again = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(again.excess_db, result.excess_db)
    np.testing.assert_array_equal(again.error.mse, result.error.mse)
    with pytest.raises(AttributeError):
        result.scale = 1.0
    text = repr(result)
    for word in ("int4", "minmax", "scale", "sqnr_db", "a rule's scale"):
        assert word in text


def test_results_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(2).standard_normal((600, 2000)).astype(np.float32)
    found = []
    for threads in ("1", "3"):
        monkeypatch.setenv("QERROR_NUM_THREADS", threads)
        result = qe.fit(x, "e2m1", rule="minmax", axis=0)
        whole = qe.fit(x, "e2m1", rule="analytic")
        found.append((result.scale, result.error.mse, result.total.cross, whole.scale, whole.total.mse))
    for one, three in zip(*found, strict=True):
        np.testing.assert_array_equal(one, three)


# -- elements that do not exist ----------------------------------------------------------------------------------------

ABSENT = [np.nan, np.inf, -np.inf, 1e200, 50.0]


def with_absent(shape: tuple[int, ...], dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray]:
    """Values and weights; a third of the elements are absurd ones of weight 0."""
    generator = np.random.default_rng(5)
    x, w = generator.standard_normal(shape).astype(dtype), generator.random(shape) + 0.1
    gone = generator.random(shape) < 1 / 3
    # Every group, the short last ones among them, keeps some.
    gone[-1] = gone[..., -1] = False
    w[gone] = 0.0
    with np.errstate(over="ignore"):
        x[gone] = np.resize(ABSENT, int(gone.sum())).astype(dtype)
    return x, w


ABSENT_LAYOUTS: list[dict[str, Any]] = [{}, {"axis": 0}, {"block_size": 7}, {"block_size": 7, "block_axis": 0}]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(
    ("rule", "layout"),
    [
        *((rule, layout) for rule in (*RULES, "analytic:family=laplace") for layout in ABSENT_LAYOUTS),
        ("analytic:family=auto", {}),  # the family is one for all groups
    ],
    ids=str,
)
def test_elements_of_weight_0_do_not_exist(rule: str, layout: dict[str, Any], dtype: Any) -> None:
    """Each group is as without them, whatever they are: NaN, infinite, too large."""
    x, w = with_absent((15, 17), dtype)
    before = x.copy()
    result = qe.fit(x, "int4", rule=rule, weights=w, **layout)
    given = qe.evaluate(x, "int4", 0.25, weights=w, **layout)
    np.testing.assert_array_equal(x, before)
    for (index, some), (_, weight) in zip(groups_of(x, **layout), groups_of(w, **layout), strict=True):
        some, weight = some[weight > 0], weight[weight > 0]
        alone = qe.fit(some, "int4", rule=rule, weights=weight)
        assert result.scale[index] == pytest.approx(alone.scale, rel=1e-9)
        assert result.status[index] == alone.status if layout else result.status == alone.status
        assert result.clipped_fraction[index] == pytest.approx(alone.clipped_fraction, rel=SUM_ORDER)
        assert result.excess_db[index] == pytest.approx(alone.excess_db, abs=1e-9)
        for found, kept in ((result, alone), (given, qe.evaluate(some, "int4", 0.25, weights=weight))):
            for term, value in vars(kept.error).items():
                there = np.asarray(getattr(found.error, term))[index]
                assert there == pytest.approx(float(value), rel=1e-9, abs=SUM_ORDER), term


@pytest.mark.parametrize(
    "options",
    [
        {"shift": "mean"},
        {"shift": "optimal"},
        {"zero_point": "integer"},
        {"scale_format": "e4m3fn"},
        {"measure": False},
    ],
    ids=str,
)
def test_elements_of_weight_0_and_other_choices(options: dict[str, Any]) -> None:
    x, w = with_absent((3, 40))
    result, alone = qe.fit(x, "int4", weights=w, **options), qe.fit(x[w > 0], "int4", weights=w[w > 0], **options)
    assert (result.scale, result.shift) == pytest.approx((alone.scale, alone.shift), rel=1e-12)
    assert result.tensor_scale == alone.tensor_scale
    assert result.error.mse == pytest.approx(alone.error.mse, rel=SUM_ORDER)


def test_samples_without_elements_of_weight_0() -> None:
    x, w = with_absent((4, 50))
    members = qe.Empirical(x, w, axis=0)
    for row, (some, weight) in enumerate(zip(x, w, strict=True)):
        alone = qe.Empirical(some[weight > 0], weight[weight > 0])
        found = {name: np.asarray(getattr(members, name))[row] for name in ("mean", "std")}
        assert found == pytest.approx({"mean": alone.mean, "std": alone.std}, rel=SUM_ORDER)
        assert (members.support[0][row], members.support[1][row]) == alone.support
        p = np.array([0.01, 0.3, 0.99])
        np.testing.assert_array_equal(qe.Empirical(some, weight).quantile(p), alone.quantile(p))
    with pytest.raises(ValueError, match="weights must not all be 0"):
        qe.Empirical([np.nan, 1.0], [0.0, 0.0])
    with pytest.raises(ValueError, match=r"x must be finite, got 1 NaN of 3 values, the first is nan at index 1"):
        qe.Empirical([np.inf, np.nan, 1.0], [0.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"x must be finite, got 1 NaN of 3 values, the first is nan at index 1"):
        qe.fit([np.inf, np.nan, 1.0], "int4", weights=[0.0, 1.0, 1.0])


MASKED = np.ma.masked_array([0.5, np.nan, -1.0], mask=[False, True, False])
TABLE = qe.fit([0.5, 1.0, -1.0], "int4")


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda m: qe.Empirical(m), "x"),
        (lambda m: qe.Empirical([m, m]), "x"),
        (lambda m: qe.Empirical([1.0, np.ma.masked]), "x"),
        (lambda m: qe.fit(m, "int4"), "x"),
        (lambda m: qe.evaluate(m, "int4", 0.1), "x"),
        (lambda m: qe.evaluate([1.0, 2.0, 3.0], "int4", 0.1, m, axis=0), "shift"),
        (lambda m: qe.fit([1.0, 2.0, 3.0], "int4", weights=m), "weights"),
        (lambda m: qe.fit_density(m), "x"),
        (lambda m: qe.quantize(m, "int4"), "x"),
        (lambda m: qe.fake_quantize(m, "int4"), "x"),
        (lambda m: qe.fake_quantize(1.0, "int4", m), "scale"),
        (lambda m: qe.dequantize(np.ma.masked_equal([1, 2], 2), "int4"), "codes"),
        (lambda m: TABLE.quantize(m), "x"),
        (lambda m: qe.load_table().scale_for(m, "int4", "gaussian"), "x"),
        (lambda m: qe.Histogram(m, [0, 1, 2, 3]), "counts"),
        (lambda m: qe.Gaussian(m), "mean"),
        (lambda m: qe.Laplace(std=m), "std"),
        (lambda m: qe.Uniform.from_bounds(m, 2.0), "a"),
        (lambda m: qe.StudentT(np.ma.masked), "df"),
        (lambda m: qe.Grid(m), "levels"),
        (lambda m: qe.quantization_error(qe.Gaussian(), "int4", m), "scale"),
    ],
)
def test_masked_arrays_are_not_read_without_their_mask(call: Any, name: str) -> None:
    remedy = r"x.compressed\(\), or x.data with weights=~x.mask" if name == "x" else rf"{name}.filled\(...\)"
    with pytest.raises(ValueError, match=rf"{name} must have no masked elements, got \d of \d+; give {remedy}"):
        call(MASKED)


def test_the_remedies_for_masked_arrays() -> None:
    alone = qe.fit([0.5, -1.0], "int4")
    assert qe.fit(MASKED.compressed(), "int4").scale == alone.scale
    assert qe.fit(MASKED.data, "int4", weights=~MASKED.mask).scale == alone.scale
    # Nothing is lost where nothing is masked.
    assert qe.fit(np.ma.masked_array([0.5, -1.0]), "int4").scale == alone.scale


def test_short_blocks_round_by_random_numbers_of_their_own() -> None:
    x = np.full((1, 1024), 0.5)
    result = qe.evaluate(x, "int4", 1.0, block_size=600)
    codes = result.quantize(x, rounding="stochastic", rng=0)[0]
    np.testing.assert_array_equal(codes, result.quantize(x, rounding="stochastic", rng=0)[0])
    # 424 fair coins agree with 424 others 212 times, give or take 10.3.
    assert 150 < np.count_nonzero(codes[600:] == codes[:424]) < 274


def test_a_sign_is_proven_only_with_the_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The better sign EXACT and the other one weaker: the weaker word counts."""
    from qerror.tensors import plans

    real = plans._best
    for word in (qe.Status.SCANNED, qe.Status.LOCAL):

        def mirrored_is_weaker(rows: Any, weights: Any, shift: Any, plan: Any, word: qe.Status = word) -> Any:
            choice = real(rows, weights, shift, plan)
            weaker = np.full(choice.scale.size, word, object)
            return dataclasses.replace(choice, status=weaker) if plan.grid.max == 8 else choice

        monkeypatch.setattr(plans, "_best", mirrored_is_weaker)
        # -8 of 8 is reached by the positive scale.
        assert qe.fit([-8.0, 7.0, 1.0, 2.0], "int4", sign="either").status == word
