"""Fake quantization in PyTorch: values to the bit, scales against the library's rules, gradients against the papers."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest

import qerror as qe
from qerror.files.quantized import read_quantized

torch = pytest.importorskip("torch", reason="torch is not installed")

from safetensors import safe_open  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from torch import nn  # noqa: E402

from qerror.training import (  # noqa: E402
    FakeQuantize,
    export,
    freeze,
    load_export,
    prepare,
    quantizers,
    weight_report,
)

RULES = ("minmax", "analytic", "iterative", "octav", "lsq", "optimal")
GRIDS = (
    "int2", "int4", "int8", "uint4", "int16", "int4_midrise", "binary", "ternary", "e2m1", "e3m0", "e2m3", "e4m3fn",
    "e4m3fnuz", "e5m2", "fp16", "bf16", "e8m0", "nf4", "af4", "sf4", "pot4", "apot4",
)  # fmt: skip
# Scales are float32 and found by float32 sums of a few thousand values.
SINGLE = 2e-6


@pytest.fixture(autouse=True)
def repeatable():
    torch.manual_seed(0)
    # Small tensors: threads only wait for one another, the more so where several workers run tests.
    torch.set_num_threads(1)


def fixed(grid, scale, shift=None, **options):
    """A frozen quantizer with a scale (and shifts) given."""
    quantizer = FakeQuantize(grid, "minmax", shift=0.0 if shift is None else "mean", **options)
    state = {"scale": torch.as_tensor(scale), "state": torch.tensor(2, dtype=torch.uint8)}
    quantizer.load_state_dict(state if shift is None else state | {"shift": torch.as_tensor(shift)})
    return quantizer.eval()


def same_bits(a, b):
    assert a.dtype == b.dtype
    kind = {4: np.int32, 8: np.int64}[a.itemsize]
    np.testing.assert_array_equal(a.view(kind), b.view(kind))


def sample(dtype=np.float32, shape=(32, 300)):
    """Values of many magnitudes, of them some exactly on thresholds, zeros of both signs and outliers."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(shape) * np.exp(rng.standard_normal(shape))
    x[:, :40] = np.round(x[:, :40] * 16) / 16
    x[:, 40:44] = [0.0, -0.0, -1e-30, 3e4]
    return x.astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("grid", GRIDS)
def test_values_are_those_of_the_library_to_the_bit(grid, dtype):
    x = sample(dtype)
    for scale in (np.float32(0.25), np.float32(0.3137)):
        same_bits(fixed(grid, scale)(torch.from_numpy(x)).numpy(), qe.fake_quantize(x, grid, scale))
    rows = np.geomspace(0.01, 3, 32, dtype=np.float32)[:, None]
    same_bits(fixed(grid, rows, axis=0)(torch.from_numpy(x)).numpy(), qe.fake_quantize(x, grid, rows))
    shift = np.linspace(-1, 1, 32, dtype=np.float32)[:, None]
    same_bits(fixed(grid, rows, shift, axis=0)(torch.from_numpy(x)).numpy(), qe.fake_quantize(x, grid, rows, shift))
    none = np.zeros_like(shift)
    same_bits(fixed(grid, rows, none, axis=0)(torch.from_numpy(x)).numpy(), qe.fake_quantize(x, grid, rows, none))


@pytest.mark.parametrize("grid", ["int8", "e4m3fn", "nf4"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_within_one_rounding(grid, dtype):
    kind = getattr(torch, dtype)
    x = torch.from_numpy(sample()).to(kind)
    y = fixed(grid, np.float32(0.3137))(x)
    assert y.dtype == kind
    exact = torch.from_numpy(qe.fake_quantize(x.float().numpy(), grid, np.float32(0.3137)))
    assert torch.equal(y, exact.clamp(-torch.finfo(kind).max, torch.finfo(kind).max).to(kind))


GROUPS = ({}, {"axis": 0}, {"axis": (0, 2)}, {"axis": 1}, {"block_size": 7}, {"block_size": 4, "block_axis": 0})


@pytest.mark.parametrize("groups", GROUPS, ids=str)
@pytest.mark.parametrize("rule", RULES)
def test_scales_are_those_of_fit(rule, groups):
    x = np.random.default_rng(2).standard_normal((6, 10, 21)).astype(np.float32)
    options = {"iterative": "iterative:n_iter=3", "octav": "octav", "lsq": "analytic"}
    quantizer = FakeQuantize("e2m1" if rule == "lsq" else "int4", rule, steps=60 if rule == "octav" else 3, **groups)
    y = quantizer(torch.from_numpy(x)).detach().numpy()
    result = qe.fit(x, quantizer.grid, rule=options.get(rule, rule), **groups)
    assert quantizer.scale.shape == np.shape(result.scale)
    np.testing.assert_allclose(quantizer.scale.detach().numpy(), result.scale, rtol=SINGLE)
    held = qe.evaluate(x, quantizer.grid, quantizer.scale.detach().numpy(), **groups)
    same_bits(y, held.fake_quantize(x))


@pytest.mark.parametrize(("rule", "axis"), [("analytic", None), ("analytic", 1), ("iterative", None)])
def test_sums_over_a_large_tensor_keep_their_digits(rule, axis):
    x = torch.randn(1 << 10, 1 << 12)
    quantizer = FakeQuantize("int4", rule, axis=axis)
    quantizer(x)
    expected = qe.fit(x.numpy(), "int4", rule={"iterative": "iterative:n_iter=1"}.get(rule, rule), axis=axis).scale
    np.testing.assert_allclose(quantizer.scale.numpy(), expected, rtol=SINGLE)


@pytest.mark.parametrize("rule", ["minmax", "analytic", "iterative", "optimal"])
def test_shift_at_the_mean(rule):
    x = np.random.default_rng(3).gamma(2.0, size=(5, 400)).astype(np.float32)
    quantizer = FakeQuantize("int4", rule, axis=0, shift="mean", steps=3)
    quantizer(torch.from_numpy(x))
    expected = {"iterative": "iterative:n_iter=3"}.get(rule, rule)
    result = qe.fit(x, "int4", rule=expected, axis=0, shift="mean")
    np.testing.assert_allclose(quantizer.scale.numpy(), result.scale, rtol=1e-5)
    np.testing.assert_allclose(quantizer.shift.numpy(), result.shift, rtol=SINGLE)


@pytest.mark.parametrize(("grid", "steps"), [("int4", 8), ("uint4", 16), ("int3_midrise", 4)])
def test_octav_settles_where_clipping_and_rounding_balance(grid, steps):
    """OCTAV's condition for the clip a: E[|x| - a; |x| > a] = (a / steps^2) / 12 P(|x| <= a), its root scanned for."""
    x = np.abs(np.random.default_rng(4).standard_normal(4000)).astype(np.float32)
    quantizer = FakeQuantize(grid, "octav", steps=50)
    quantizer(torch.from_numpy(x))
    clips = np.linspace(1.0, 4.0, 3001)[:, None]
    beyond = x > clips
    balance = np.where(beyond, x - clips, -clips / (12 * steps**2)).mean(axis=1)
    root = float(clips[np.abs(balance).argmin(), 0])
    # The clips tried are 0.001 apart.
    assert float(quantizer.scale) * qe.grid(grid).step * steps == pytest.approx(root, abs=0.001)


@pytest.mark.parametrize("rule", RULES)
def test_one_number(rule):
    y = FakeQuantize("int4", rule)(torch.tensor(2.0))
    assert y.shape == ()
    assert float(y.detach()) == pytest.approx(2.0, rel=0.5)


def test_lsq_starts_as_in_the_paper():
    x = torch.randn(4, 100)
    quantizer = FakeQuantize("int4", "lsq", axis=0)
    quantizer(x)
    torch.testing.assert_close(quantizer.scale.detach(), 2 * x.abs().mean(1, keepdim=True) / math.sqrt(7))


def test_the_analytic_constant_is_that_of_the_table_and_nothing_is_searched_in_the_loop(monkeypatch):
    quantizer = FakeQuantize("int4", "analytic", family="laplace")
    row = qe.load_table().lookup("int4", "laplace")
    for name in ("optimal_scale", "load_table"):
        monkeypatch.delattr(f"qerror.training.options.{name}")
    monkeypatch.delattr("qerror.training.on_host.fit")
    x = torch.randn(64)
    quantizer(x)
    assert float(quantizer.scale) == pytest.approx(row.scale * float(x.square().mean().sqrt()), rel=SINGLE)


@pytest.mark.parametrize("grid", ["int3", "int8", "e2m1", "e4m3fn"])
def test_minmax_clips_nothing(grid):
    x = torch.randn(2000, 9, requires_grad=True)
    FakeQuantize(grid, "minmax", axis=0)(x).sum().backward()
    assert bool((x.grad == 1).all())


def test_iterative_warm_start_reaches_the_fixed_point():
    x = torch.randn(4, 500)
    quantizer = FakeQuantize("int3", "iterative", axis=0)
    for _ in range(200):
        quantizer(x)
    settled = qe.fit(x.numpy(), "int3", rule="iterative:n_iter=1000", axis=0)
    np.testing.assert_allclose(quantizer.scale.numpy(), settled.scale, rtol=1e-5)


def test_iterative_and_optimal_leave_a_weight_that_starts_at_zero():
    for rule in ("minmax", "analytic", "iterative", "octav", "optimal"):
        quantizer = FakeQuantize("int4", rule)
        zero = torch.zeros(64)
        assert torch.equal(quantizer(zero), zero)
        assert float(quantizer.scale) == 1.0
        small = 1e-3 * torch.randn(64)
        for _ in range(20):
            y = quantizer(small)
        assert float((y - small).square().sum() / small.square().sum()) < 0.05, rule


# Gradients

X = [-3.0, -2.0, -1.9, -0.6, 0.2, 0.5, 0.75, 1.6, 2.5]


def gradient(rule, scale, x=X, upstream=None, grid="int3"):
    """Slopes d (sum of upstream * y) / dx and / ds for int3: levels -4 .. 3."""
    quantizer = FakeQuantize(grid, rule)
    values = torch.tensor(x, requires_grad=True)
    quantizer(values)
    quantizer.scale.data.fill_(scale)
    if rule != "lsq":
        quantizer.freeze()
    y = quantizer(values)
    y.backward(torch.ones_like(y) if upstream is None else torch.tensor(upstream))
    return values.grad.tolist(), quantizer.scale.grad


def test_straight_through_gradient():
    """It is 1 where -4 <= x / s <= 3, with its ends: s = 0.5 gives -2 <= x <= 1.5."""
    by_x, _ = gradient("minmax", 0.5)
    assert by_x == [0, 1, 1, 1, 1, 1, 1, 0, 0]


def test_magnitude_aware_gradient():
    """OCTAV, section 4: 1 inside the clip, clip / |x| beyond it."""
    by_x, _ = gradient("octav", 0.5)
    np.testing.assert_allclose(by_x, [2 / 3, 1, 1, 1, 1, 1, 1, 1.5 / 1.6, 1.5 / 2.5], rtol=1e-6)


def test_lsq_gradient():
    """LSQ, eq. 3: -v/s + round(v/s) inside, -Q_N or Q_P beyond, times 1 / sqrt(N Q_P)."""
    s, g = 0.5, [1.0, -2.0, 0.5, 1.0, 3.0, 1.0, -1.0, 2.0, 1.0]
    by_x, by_s = gradient("lsq", s, upstream=g)
    slope = [-4 if v / s <= -4 else 3 if v / s >= 3 else np.rint(v / s) - v / s for v in X]
    # Its ends count as beyond.
    assert by_x == [0.0, 0.0, *g[2:7], 0.0, 0.0]
    np.testing.assert_allclose(float(by_s), np.dot(slope, g) / math.sqrt(len(X) * 3), rtol=1e-6)


def test_lsq_counts_the_features_of_activations():
    x = torch.randn(8, 5, 3)
    slopes = []
    for batch_axis in (None, 0):
        quantizer = FakeQuantize("int4", "lsq", batch_axis=batch_axis)
        quantizer(x).sum().backward()
        slopes.append(float(quantizer.scale.grad))
    assert slopes[1] == pytest.approx(slopes[0] * math.sqrt(8))


@pytest.mark.parametrize("grid", ["int4", "e2m1", "nf4"])
def test_gradients_against_finite_differences_of_the_smoothed_quantizer(grid):
    """The smooth one is y = s (clip(x / s) + r) with the rounding r frozen."""
    generator = torch.Generator().manual_seed(5)
    x, g = (torch.randn(400, generator=generator, dtype=torch.float64) for _ in range(2))
    levels, scale, h = qe.grid(grid), 0.25, 1e-6
    rounding = torch.from_numpy(qe.fake_quantize(x.numpy(), grid, scale)) / scale
    rounding -= (x / scale).clamp(levels.min, levels.max)

    def smooth(values, s):
        return s * ((values / s).clamp(levels.min, levels.max) + rounding)

    quantizer = FakeQuantize(grid, "lsq")
    values = x.clone().requires_grad_()
    quantizer(values)
    quantizer.scale.data.fill_(scale)
    (quantizer(values) * g).sum().backward()
    by_x = g * (smooth(x + h, scale) - smooth(x - h, scale)) / (2 * h)
    by_scale = (g * (smooth(x, scale + h) - smooth(x, scale - h))).sum() / (2 * h)
    # Differences of float64 numbers around 1 at a distance of 1e-6; the learned scale is float32.
    torch.testing.assert_close(values.grad, by_x, rtol=1e-8, atol=1e-8)
    assert float(quantizer.scale.grad) * math.sqrt(400 * levels.max) == pytest.approx(float(by_scale), rel=1e-6)


def test_blocks_and_half_precision_pass_gradients():
    x = torch.randn(3, 10, dtype=torch.bfloat16, requires_grad=True)
    FakeQuantize("int4", "minmax", block_size=4)(x).backward(torch.full_like(x, 2.0))
    assert x.grad.dtype == torch.bfloat16
    assert bool((x.grad == 2).all())


@pytest.mark.parametrize("rule", RULES)
def test_a_layer_called_twice_before_the_backward_pass(rule):
    quantizer = FakeQuantize("int4", rule, axis=0, shift=0.0 if rule in ("lsq", "octav") else "mean")
    parts = [torch.randn(4, 50, requires_grad=True) for _ in range(2)]
    torch.stack([quantizer(x) for x in parts]).sum().backward()
    assert all(bool(x.grad.count_nonzero()) for x in parts)


# State


def test_running_averages():
    a, b = torch.randn(100), 3 * torch.randn(100)
    scales = []
    for x in (a, b):
        quantizer = FakeQuantize("int4", "minmax")
        quantizer(x)
        scales.append(float(quantizer.scale))
    running = FakeQuantize("int4", "minmax", momentum=0.25)
    running(a), running(b)
    assert float(running.scale) == pytest.approx(0.75 * scales[0] + 0.25 * scales[1], rel=1e-6)
    by_std = FakeQuantize("int4", "analytic", momentum=0.25, observe="std")
    by_std(a), by_std(b)
    square = 0.75 * a.square().mean() + 0.25 * b.square().mean()
    assert float(by_std.scale) == pytest.approx(0.3386083 * math.sqrt(square), rel=1e-5)
    before = float(running.eval().scale)
    running(100 * a)
    assert float(running.scale) == before


def test_scales_can_follow_every_few_calls():
    quantizer = FakeQuantize("int4", "optimal", every=3)
    scales = []
    for factor in (1.0, 2.0, 3.0, 4.0, 5.0):
        quantizer(factor * torch.ones(4))
        scales.append(float(quantizer.scale) / factor)
    assert [round(7 * scale, 5) == 1 for scale in scales] == [True, False, False, True, False]
    with pytest.raises(ValueError, match="x must be finite"):
        quantizer(torch.tensor([math.nan]))


@pytest.mark.parametrize("rule", RULES)
def test_state_dict_brings_the_scale(rule, tmp_path):
    x = torch.randn(4, 30)
    one, other = (FakeQuantize("int4", rule, axis=0, shift="mean" if rule != "lsq" else 0.0) for _ in range(2))
    y = one(x)
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.eval()(x), y)


def test_freeze_keeps_the_scale_in_training():
    quantizer = FakeQuantize("int4")
    quantizer(torch.randn(50))
    before = float(quantizer.freeze().train().scale)
    quantizer(9 * torch.randn(50))
    assert float(quantizer.scale) == before


def test_casting_a_model_keeps_scales_and_levels():
    quantizer = FakeQuantize("nf4").half()
    quantizer(torch.randn(50))
    assert quantizer.half().scale.dtype == torch.float32
    assert quantizer.levels.values.dtype == torch.float64


# Block formats

BLOCK_RULES = ("absmax", "up", "down", "floor", "ceil", "even", "rceil", "best_of", "optimal")
FORMS = {
    form.name: form
    for form in (
        *map(qe.block_format, (*qe.block_formats(), "int4_g128", "int8_g32_fp16", "nf4_g64_fp16", "int4_g32_bf16")),
        *map(qe.block_format, ("e2m1_g16_e4m3fn", "uint4_g32", "int4_midrise_g16_e4m3fn", "e4m3fnuz_g32_pow2")),
        qe.BlockFormat("int4", 32, signed=True, name="signed"),
        qe.BlockFormat("int4", 32, "bf16", signed=True, name="signed_bf16"),
        qe.BlockFormat("nf4", 32, "fp16", signed=True, name="signed_nf4"),
        qe.BlockFormat("e2m1", 16, "e4m3fn", rule="best_of", constant=(1, 1.5), tensor_scale=256, name="four_six"),
        qe.BlockFormat("int4", 16, "e8m0", rule="ceil", tensor_scale=True, name="two_level_e8m0"),
        qe.BlockFormat("e2m1", 16, "e4m3fn", rule="up", tensor_scale=True, constant=1.3, name="constant_up"),
        qe.BlockFormat("int4", 16, "pow2", rule="even", constant=1.7, name="constant_even"),
    )
}


def with_rules():
    for name, form in FORMS.items():
        for rule in BLOCK_RULES:
            try:
                changed = form if rule == form.rule else form.replace(rule=rule)
            except ValueError:
                continue
            if rule != "optimal" or form.scale_format is not None:
                yield pytest.param(changed, id=f"{name}-{rule}")


def block_samples():
    """Ragged blocks of many magnitudes, of zeros of both signs, of subnormals, at the end of float32, on ties."""
    rng = np.random.default_rng(6)
    plain = rng.standard_normal((6, 100)) * np.exp(2 * rng.standard_normal((6, 100)))
    mixed = plain.copy()
    mixed[0], mixed[1, :32], mixed[1, 5] = 0.0, 0.0, -0.0
    # Far below the rest, so that E4M3 scales round to 0.
    mixed[2] *= 1e-6
    mixed[3] *= np.exp2(rng.integers(-30, 30, 100))
    mixed[4, :40] = np.round(mixed[4, :40] * 4) / 4
    huge = np.clip(plain * 1e37, -3.4e38, 3.4e38)
    extremes = np.concatenate([huge[:2], plain[2:4] * 1e-41, plain[4:]])
    shapes = plain[:, :7], plain.reshape(3, 4, 50), np.zeros((2, 40))
    return [x.astype(np.float32) for x in (mixed, huge, plain * 1e-42, extremes, *shapes)]


@pytest.mark.parametrize("form", list(with_rules()))
def test_block_formats_are_those_of_the_library_to_the_bit(form):
    along, down = FakeQuantize(form), FakeQuantize(form, block_axis=0).eval()
    for x in block_samples():
        same_bits(along(torch.from_numpy(x)).numpy(), qe.fake_quantize(x, form))
        same_bits(down(torch.from_numpy(x)).numpy(), qe.fake_quantize(x, form, block_axis=0))
        codes = qe.quantize(x, form)
        np.testing.assert_array_equal(along.scale, codes.scale)
        assert along.tensor_scale is None or float(along.tensor_scale) == codes.tensor_scale
        wide = x.astype(np.float64)
        if form.rule not in ("best_of", "optimal"):
            same_bits(along(torch.from_numpy(wide)).numpy(), qe.fake_quantize(wide, form))
    half = torch.from_numpy(block_samples()[0]).bfloat16()
    y = along(half)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, torch.from_numpy(qe.fake_quantize(half.float().numpy(), form)).bfloat16())


def test_a_rule_by_name_and_scales_of_any_size():
    x = np.random.default_rng(7).standard_normal((4, 70)).astype(np.float32)
    even = FakeQuantize("mxfp4", "even")(torch.from_numpy(x)).numpy()
    same_bits(even, qe.fake_quantize(x, qe.block_format("mxfp4").replace(rule="even")))
    assert "'mxfp4', rule='floor'" in repr(FakeQuantize("mxfp4"))
    best = FakeQuantize("int4_g32", "optimal")
    best(torch.from_numpy(x))
    np.testing.assert_allclose(best.scale, qe.fit(x, "int4_g32").scale, rtol=SINGLE)


def test_block_scales_follow_in_evaluation_until_frozen():
    quantizer, x = FakeQuantize("nvfp4").eval(), torch.randn(3, 40)
    for factor in (1.0, 1e-3, 5.0):
        same_bits(quantizer(factor * x).numpy(), qe.fake_quantize((factor * x).numpy(), "nvfp4"))
    kept = quantizer.freeze().train().used_scale().clone()
    quantizer(100 * x)
    assert torch.equal(quantizer.used_scale(), kept)
    with pytest.raises(ValueError, match=r"x must have the blocks that its quantizer was frozen with: \(3, 3\) scales"):
        quantizer(x[:2])
    every = FakeQuantize("mxfp4", "optimal", every=2)
    scales = [(every(factor * x), every.scale.clone())[1] for factor in (1.0, 8.0, 8.0)]
    assert torch.equal(scales[0], scales[1])
    assert torch.equal(scales[2], 8 * scales[0])


def test_block_formats_clip_the_gradient_of_their_blocks():
    """Of mxfp4 by rule floor max|x| = 7 has scale 1, and 7 lies beyond level 6; 14 has scale 2, where it is 7, too."""
    x = torch.zeros(4, 32, requires_grad=True)
    with torch.no_grad():
        x[0, :4] = torch.tensor([7.0, -6.5, 6.0, 0.1])
        x[1, :3] = torch.tensor([14.0, 7.0, -12.0])
        x[2, :2] = torch.tensor([6.0, -5.0])
    FakeQuantize("mxfp4")(x).backward(torch.full_like(x, 2.0))
    beyond = torch.zeros(4, 32, dtype=torch.bool)
    beyond[0, :2] = beyond[1, 0] = True
    assert torch.equal(x.grad == 0, beyond)
    assert torch.equal(x.grad == 2, ~beyond)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("form", ["int7_narrow_g16", "e2m1_g16_bf16", "nf4_g16", "nvfp4"])
def test_scales_that_cover_a_block_pass_all_gradients(form, dtype):
    """Roundings of the scale, the tensor scale and the quotient clip nothing; blocks of scale 0 are rounded to it."""
    x = torch.randn(2000, 16, dtype=getattr(torch, dtype))
    x[:5] *= 1e-9
    x[5:10] = 0
    form = qe.block_format(form)
    quantizer = FakeQuantize(form, None if form.scale_format is None else "up")
    x.requires_grad_()
    quantizer(x).sum().backward()
    assert x.grad.dtype == x.dtype
    assert bool((x.grad == 1).all())


@pytest.mark.parametrize(
    "form", ["mxfp4", "mxint8", "int4_g32", "nf4_g32_fp16", "int4_midrise_g32", "e4m3fn_g32", "nvfp4"]
)
def test_stochastic_rounding_has_no_bias(form):
    """Of n draws the mean is x within the end levels, and only the two levels around it occur."""
    n = 4000
    x = torch.randn(64) * torch.exp(torch.randn(64))
    quantizer = FakeQuantize(form, rounding="stochastic")
    y = quantizer(x.expand(n, 64).contiguous()).double()
    scale = quantizer.used_scale()[0].repeat_interleave(quantizer.form.block_size)
    levels = torch.tensor(quantizer.grid.levels) * scale[:, None]
    aim = x.double().clamp(levels[:, 0], levels[:, -1])
    above = torch.searchsorted(levels, aim[:, None]).clamp(1, levels.shape[1] - 1)
    a, b = levels.gather(1, above - 1)[:, 0], levels.gather(1, above)[:, 0]
    # Values are rounded to float32.
    assert bool(((y - a).abs() < SINGLE * a.abs() + 1e-30).logical_or((y - b).abs() < SINGLE * b.abs() + 1e-30).all())
    spread = ((aim - a) * (b - aim)).clamp_min(0).sqrt() / math.sqrt(n)
    z = (y.mean(0) - aim) / (spread + SINGLE * aim.abs() + 1e-30)
    # Sixty-four of them: beyond 4.5 by chance in 1 of 2000 runs with other seeds.
    assert float(z.abs().max()) < 4.5
    assert float(z.square().mean()) < 2
    same_bits(quantizer.eval()(x).numpy(), qe.fake_quantize(x.numpy(), form))


def test_stochastic_rounding_of_grids_and_its_generator():
    x = torch.randn(1000)
    quantizer = FakeQuantize("int4", "minmax", rounding="stochastic")
    torch.manual_seed(3)
    first, second = quantizer(x), quantizer(x)
    torch.manual_seed(3)
    assert torch.equal(quantizer(x), first)
    assert not torch.equal(first, second)
    assert float((first - x).abs().max()) < float(quantizer.scale)


@pytest.mark.parametrize("form", ["mxfp4", "nvfp4", "int4_g128", "signed_bf16", "four_six", "constant_even"])
def test_a_network_in_a_block_format_trains_and_round_trips(form, tmp_path):
    form = FORMS[form]
    net = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3), nn.Flatten(), nn.ReLU(), nn.Linear(128, 3))

    def quantized():
        # Along the channels. The only one of the image makes no blocks.
        inputs = FakeQuantize("mxfp8_e4m3", block_axis=1)
        return prepare(net, FakeQuantize(form, block_axis=1), inputs, skip=["0"])

    model = quantized()
    x, target = torch.rand(16, 1, 8, 8), torch.randint(3, (16,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    for row in weight_report(model):
        assert row.grid == form.name
        assert abs(row.measured_db - row.empirical_db) < 0.001
    other = quantized()
    other.load_state_dict(freeze(model).state_dict())
    assert [quantizer.frozen for _, quantizer in quantizers(other)] == [True, False] * 2
    assert torch.equal(other.eval()(x), model.eval()(x))
    export(model, tmp_path / "model.safetensors")
    file = read_quantized(tmp_path / "model.safetensors")
    weight = model[2].parametrizations.weight.original.detach().numpy()
    codes = qe.quantize(weight, form, block_axis=1)
    np.testing.assert_array_equal(file.weights["2.weight"].codes, codes.codes)
    np.testing.assert_array_equal(file.weights["2.weight"].scale, codes.scale)
    same_bits(file.weights["2.weight"].dequantize(), model[2].weight.detach().numpy())
    same_bits(file.inputs["2"].fake_quantize(weight), qe.fake_quantize(weight, "mxfp8_e4m3", block_axis=1))
    restored = load_export(net, tmp_path / "model.safetensors")
    assert torch.equal(restored(x), model(x))
    # Another batch: scales of inputs follow it.
    assert torch.equal(restored(x[:3]), model(x[:3]))
    export(restored, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_an_input_with_frozen_block_scales_is_exported_with_them(tmp_path):
    model, x = prepare(nn.Linear(40, 4), activation=FakeQuantize("nvfp4")), torch.randn(2, 40)
    model(x)
    for _, quantizer in quantizers(model):
        quantizer.freeze()
    export(model.eval(), tmp_path / "model.safetensors")
    restored = load_export(nn.Linear(40, 4), tmp_path / "model.safetensors")
    assert torch.equal(restored(2 * x), model(2 * x))
    same_bits(
        read_quantized(tmp_path / "model.safetensors").inputs[""].fake_quantize(x.numpy()),
        model.input_quantizer(x).numpy(),
    )


def test_exports_of_block_formats_are_refused_where_they_cannot_be_read(tmp_path):
    model = prepare(nn.Linear(40, 4), activation=FakeQuantize("int4_g16", "optimal"))
    model(torch.randn(2, 40))
    with pytest.raises(ValueError, match="whose scales NumPy cannot find; give the format a scale_format"):
        export(model, tmp_path / "input.safetensors")
    assert not list(tmp_path.iterdir())
    path = tmp_path / "weight.safetensors"
    export(prepare(nn.Linear(40, 4), FakeQuantize("nvfp4")), path)
    with safe_open(path, "pt") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["qerror"]  # noqa: SIM118
    without = {name: value for name, value in tensors.items() if name != "weight.tensor_scale"}
    edited = header.replace('"rule": "absmax"', '"rule": "floor"')
    for name, content, said in (("a", without, header), ("b", tensors, edited)):
        save_file(content, tmp_path / name, {"qerror": said})
        with pytest.raises(ValueError, match="is a damaged file of quantized tensors"):
            read_quantized(tmp_path / name)


# Networks


def network():
    head = (nn.Flatten(), nn.Linear(4 * 36, 16), nn.ReLU(), nn.Linear(16, 3))
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *head)


def prepared(rule="analytic", grid="int4", activation="uint8"):
    inputs = None if activation is None else FakeQuantize(activation, "analytic", momentum=0.1)
    return prepare(network(), FakeQuantize(grid, rule, axis=0), inputs)


@pytest.mark.parametrize("rule", RULES)
def test_a_network_trains_and_round_trips(rule, tmp_path):
    model, x, target = prepared(rule), torch.rand(16, 1, 8, 8), torch.randint(3, (16,))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    for row in weight_report(model):
        # What is asked of the library: exact integrals against the tensors that the network uses.
        assert abs(row.measured_db - row.empirical_db) < 0.001
        assert row.optimal_db >= row.empirical_db - 1e-9
        assert math.isfinite(row.gaussian_error_db)
    freeze(model).eval()
    export(model, tmp_path / "model.safetensors")
    restored = load_export(network(), tmp_path / "model.safetensors")
    assert torch.equal(restored(x), model(x))
    export(restored, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "model.safetensors").read_bytes()


def test_numpy_gives_the_outputs_of_an_exported_network(tmp_path):
    model = prepare(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), FakeQuantize("nf4", block_size=24),
                    FakeQuantize("e4m3fn", "minmax", momentum=0.1))  # fmt: skip
    x = torch.randn(20, 64)
    model(x)
    expected = freeze(model).eval()(x).detach().numpy()
    export(model, tmp_path / "model.safetensors")
    file = read_quantized(tmp_path / "model.safetensors")
    assert file.weights["0.weight"].codes.dtype == np.uint8
    out = x.numpy()
    for layer in ("0", "2"):
        out = file.inputs[layer].fake_quantize(out)
        out = out @ file.weights[f"{layer}.weight"].dequantize().T + file.others[f"{layer}.bias"]
        out = np.maximum(out, 0) if layer == "0" else out
    # The order of sums in two matrix products of 64 and 32 terms.
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_parameters_of_other_types(dtype, tmp_path):
    kind = getattr(torch, dtype)
    model = prepare(network().to(kind), FakeQuantize("int4", axis=0), FakeQuantize("int8", "minmax", momentum=0.1))
    x = torch.rand(4, 1, 8, 8, dtype=kind)
    y = model(x)
    assert y.dtype == kind
    y.float().square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    freeze(model).eval()
    export(model, tmp_path / "model.safetensors")
    restored = load_export(network().to(kind), tmp_path / "model.safetensors")
    assert torch.equal(restored(x), model(x))


@pytest.mark.parametrize("groups", [{"axis": 0}, {"block_size": 24}], ids=str)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_measured_is_what_is_predicted_in_every_type(dtype, groups):
    """In bfloat16 the values of int8 are themselves rounded, by 0.1 dB: the prediction knows that."""
    for grid in ("int8", "e4m3fn"):
        layer = nn.Linear(100, 16).to(getattr(torch, dtype))
        (row,) = weight_report(prepare(layer, FakeQuantize(grid, shift="mean", **groups)))
        assert abs(row.measured_db - row.empirical_db) < 0.001


def test_channels_of_zeros():
    for rule in RULES:
        layer = nn.Linear(8, 4, bias=False)
        layer.weight.data[1] = 0
        model = prepare(layer, FakeQuantize("int4", rule, axis=0))
        y = model(torch.ones(2, 8))
        y.sum().backward()
        assert y[:, 1].abs().max() == 0
        assert bool(torch.isfinite(model.parametrizations.weight.original.grad).all())


def test_a_layer_never_called(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.used(x)

    model = prepare(Two(), FakeQuantize("int4"), FakeQuantize("int8", momentum=0.1))
    x = torch.randn(3, 4)
    model(x)
    freeze(model).eval()
    export(model, tmp_path / "model.safetensors")
    assert set(read_quantized(tmp_path / "model.safetensors").inputs) == {"used"}
    assert torch.equal(load_export(Two(), tmp_path / "model.safetensors")(x), model(x))
    with pytest.raises(ValueError, match="input of layer 'unused' has no scale yet"):
        model.unused(x)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("rule", RULES)
def test_a_weight_that_is_not_finite_stops_the_step(rule, value):
    model = prepared(rule, activation=None)
    x = torch.rand(2, 1, 8, 8)
    model(x)
    quantizer = dict(quantizers(model))["3.weight"]
    before = quantizer.scale.detach().clone()
    model[3].parametrizations.weight.original.data[1, 2] = value
    with pytest.raises(ValueError, match=r"parameter '3\.weight' must be finite, got 1 .* at index \(1, 2\)"):
        model(x)
    assert torch.equal(quantizer.scale, before)


def test_a_frozen_quantizer_still_refuses_nan():
    model = freeze(prepared(activation=None))
    model[0].parametrizations.weight.original.data[0] = math.nan
    with pytest.raises(ValueError, match=r"parameter '0\.weight' must be finite"):
        model(torch.rand(2, 1, 8, 8))


def test_export_refuses_nan_and_leaves_no_file(tmp_path):
    model = prepared(activation=None)
    model[3].parametrizations.weight.original.data[1, 2] = math.nan
    with pytest.raises(ValueError, match=r"parameter '3\.weight' must be finite"):
        export(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_network_in_evaluation_mode_can_be_prepared():
    model = prepare(network().eval(), FakeQuantize("int4", axis=0))
    assert not any(module.training for module in model.modules())
    assert all(quantizer.ready for _, quantizer in quantizers(model))
    model(torch.rand(2, 1, 8, 8))


def test_prepare_leaves_the_model_alone_and_skips():
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    quantized = prepare(model, FakeQuantize("int4"), skip=["5"])
    assert [name for name, _ in quantizers(quantized)] == ["0.weight", "3.weight"]
    assert model.state_dict().keys() == before.keys()
    assert torch.equal(quantized[5].weight, model[5].weight)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FakeQuantize("int4", "minmaks"), "unknown rule 'minmaks'; did you mean 'minmax'"),
        (lambda: FakeQuantize("int44"), "unknown grid"),
        (lambda: FakeQuantize("e2m1", "octav"), "rule octav is not defined on e2m1"),
        (lambda: FakeQuantize("int4", axis=0, block_size=8), "axis must be None where block_size is given"),
        (lambda: FakeQuantize("int4", shift="optimal"), "shift must be 'mean'"),
        (lambda: FakeQuantize("int4", momentum=0), "momentum must be above 0"),
        (lambda: FakeQuantize("int4", "minmax", observe="std"), "observe='std' is for rule 'analytic'"),
        (lambda: FakeQuantize("int4", axis=2)(torch.ones(3)), "axis must be from -1 to 0"),
        (lambda: prepare(network(), FakeQuantize("int4"), skip=["4"]), "skip names no layer: '4'"),
        (lambda: FakeQuantize("int4", "minmax", every=2), "every must be 1 but for rule 'optimal', got 2"),
        (lambda: prepare(nn.ReLU(), FakeQuantize("int4")), "model must have layers to quantize"),
        (lambda: prepare(nn.LSTM(3, 4), FakeQuantize("int4"), layers=(nn.LSTM,)), "types with a 'weight', got LSTM"),
        (lambda: prepare(network(), "int4"), "must be a FakeQuantize"),
        (lambda: export(network(), "x.safetensors"), "model must be prepared"),
        (lambda: FakeQuantize("int4").freeze(), "has no scale yet"),
        (lambda: FakeQuantize("int4", axis="0"), "axis must be an integer"),
        (lambda: FakeQuantize("int4")(torch.ones(3, dtype=torch.int32)), "x must be a floating-point tensor"),
        (lambda: FakeQuantize("mxfp4", "minmax"), "unknown rule 'minmax' of block formats"),
        (lambda: FakeQuantize("nvfp4", "floor"), "rule floor chooses powers of two: scale_format must be"),
        (lambda: FakeQuantize("mxfp5"), "unknown"),
        (lambda: FakeQuantize("mxfp4", block_size=16), "block_size must be left out with block format mxfp4, got 16"),
        (lambda: FakeQuantize("mxfp4", axis=0), "axis must be left out with block format mxfp4"),
        (lambda: FakeQuantize("mxfp4", shift="mean"), "shift must be left out with block format mxfp4"),
        (lambda: FakeQuantize("mxfp4", momentum=0.1), "momentum must be left out with block format mxfp4"),
        (lambda: FakeQuantize("mxfp4", every=2), "every must be 1 but for rule 'optimal', got 2"),
        (lambda: FakeQuantize("mxfp4", rounding="up"), "rounding must be"),
        (lambda: prepare(nn.Conv2d(3, 64, 7), FakeQuantize("mxfp4", block_axis=1)), "skip layer '': block_axis 1 of"),
        (lambda: prepare(nn.Linear(64, 4), FakeQuantize("mxfp4", block_axis=2)), "block_axis must be"),
        (lambda: FakeQuantize("int4", "lsq", rounding="stochastic"), "rounding must be 'nearest' for rule 'lsq'"),
        (lambda: FakeQuantize("mxfp4")(torch.tensor([1.0, math.nan])), "x must be finite"),
        (lambda: FakeQuantize("mxfp4").eval()(torch.tensor([1.0, math.inf])), "x must be finite"),
        (lambda: FakeQuantize("nvfp4", "optimal")(torch.tensor([1.0, math.inf])), "x must be finite"),
        (lambda: FakeQuantize("mxfp4").freeze(), "has no scale yet"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# What torch.compile itself does to every autograd.Function.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("rule", ["analytic", "iterative", "lsq", "optimal"])
def test_compiled_in_one_graph_as_in_eager(rule):
    """The whole graph is traced (aot_eager: no C++ compiler needed); the host search is an operator in it."""
    torch.compiler.reset()
    weight = FakeQuantize("int4", rule, axis=0, every=3 if rule == "optimal" else 1)
    eager = prepare(nn.Linear(16, 8), weight, FakeQuantize("int8", "analytic", momentum=0.1))
    compiled = copy.deepcopy(eager)
    step = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    # More calls than the compiler has graphs before it gives up (8).
    for _ in range(10):
        with torch.no_grad():
            for model in (eager, compiled):
                model.parametrizations.weight.original.mul_(1.1)
        x = torch.randn(4, 16)
        a, b = eager(x), step(x)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    a.sum().backward()
    b.sum().backward()
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)
    compiled.parametrizations.weight.original.data[0] = math.nan
    with pytest.raises(ValueError, match="parameter 'weight' must be finite"):
        step(x)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    ("weight", "activation"), [(("nvfp4",), ("mxfp4",)), (("mxfp4", "optimal"), ("int4_g16_fp16", "up"))], ids=str
)
def test_block_formats_compiled_in_one_graph_as_in_eager(weight, activation):
    torch.compiler.reset()
    eager = prepare(nn.Linear(40, 8), FakeQuantize(*weight), FakeQuantize(*activation))
    compiled = copy.deepcopy(eager)
    step = torch.compile(compiled, backend="aot_eager", fullgraph=True)
    for _ in range(10):
        with torch.no_grad():
            for model in (eager, compiled):
                model.parametrizations.weight.original.mul_(1.1)
        x = torch.randn(4, 40)
        a, b = eager(x), step(x)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    a.sum().backward()
    b.sum().backward()
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)
    with pytest.raises(ValueError, match="the input of the model must be finite"):
        step(torch.full((4, 40), math.nan))


def test_autocast():
    model, x = prepared(), torch.rand(4, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(x)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())
    assert all(quantizer.scale.dtype == torch.float32 for _, quantizer in quantizers(model))


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "optimal"])
def test_a_step_never_waits_for_the_device(rule, monkeypatch):
    """On a tensor that is not on the CPU, reading a value is waiting for it: the meta device refuses all of them."""
    monkeypatch.setattr(torch, "_assert_async", lambda *_: None)
    quantizer = FakeQuantize("int4", rule, axis=0).to("meta")
    x = torch.empty(8, 16, device="meta", requires_grad=True)
    for _ in range(2):
        quantizer(x).sum().backward()
    assert quantizer.scale.shape == (8, 1)


@pytest.mark.parametrize("form", ["mxfp4", "nvfp4", "int4_g8", "nf4_g8_fp16", "signed_bf16", "constant_up"])
def test_blocks_never_wait_for_the_device(form, monkeypatch):
    monkeypatch.setattr(torch, "_assert_async", lambda *_: None)
    quantizer = FakeQuantize(FORMS.get(form, form), rounding="stochastic").to("meta")
    x = torch.empty(8, 20, device="meta", requires_grad=True)
    for _ in range(2):
        quantizer(x).sum().backward()
    assert len(quantizer.scale) == 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_tensors_are_read_as_they_are(dtype):
    """Every value of these types is a float32 number; gradients are left alone."""
    tensor = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    values = tensor.float().numpy()
    tensor.requires_grad_(dtype != torch.float8_e4m3fn)
    assert np.array_equal(qe.fit(tensor, "int4", axis=0).scale, qe.fit(values, "int4", axis=0).scale)
    assert np.array_equal(qe.quantize(tensor, "int4", 0.3), qe.quantize(values, "int4", 0.3))
    for form in ("nvfp4", "e2m1"):
        found = qe.fake_quantize(tensor, form)
        assert np.array_equal(found, qe.fake_quantize(values, form).astype(found.dtype))
    assert tensor.requires_grad == (dtype != torch.float8_e4m3fn)


def test_dtypes_are_grids():
    names = {"float8_e4m3fn": "e4m3fn", "float8_e5m2": "e5m2", "float8_e4m3fnuz": "e4m3fnuz", "bfloat16": "bf16"}
    names |= {"half": "fp16", "int8": "int8", "uint8": "uint8", "float8_e8m0fnu": "e8m0"}
    for dtype, name in names.items():
        assert qe.grid(getattr(torch, dtype)).name == name
    with pytest.raises(ValueError, match="unknown grid 'float32'"):
        qe.grid(torch.float32)
