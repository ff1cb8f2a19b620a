"""Checkpoints that others quantized: read back exactly, refused where more is needed, and held against the original."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

import qerror as qe
from qerror.checkpoints import evaluate, export
from qerror.cli.commands import qerror_command
from qerror.files import open_checkpoint
from qerror.files.quantized_weights import dequantized, quantized_weights

RNG = np.random.default_rng(20)
E4M3, BF16 = ml_dtypes.float8_e4m3fn, ml_dtypes.bfloat16
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])


def float8(*shape: int) -> np.ndarray[Any, Any]:
    return (RNG.standard_normal(shape) * 100).astype(E4M3)


def nibbles(codes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return (codes[..., ::2] | codes[..., 1::2] << 4).astype(np.uint8)


def words(codes: np.ndarray[Any, Any], bits: int) -> np.ndarray[Any, Any]:
    """One after the other, by shifting Python's integers."""
    rows = []
    for row in codes.tolist():
        row += [0] * (-len(row) % (32 // bits))
        groups = [row[at : at + 32 // bits] for at in range(0, len(row), 32 // bits)]
        rows.append([sum(code << bits * place for place, code in enumerate(group)) for group in groups])
    return np.array(rows, np.uint32).view(np.int32)


def spread(scale: np.ndarray[Any, Any], shape: tuple[int, ...], tile: tuple[int, int]) -> np.ndarray[Any, Any]:
    whole = np.repeat(np.repeat(np.asarray(scale, np.float64), tile[0], axis=-2), tile[1], axis=-1)
    return whole[..., : shape[-2], : shape[-1]]


def deepseek() -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    """Tiles of 128 x 128, the last ones smaller."""
    codes, scale = float8(300, 200), RNG.uniform(0.001, 0.1, (3, 2)).astype(np.float32)
    values = codes.astype(np.float64) * spread(scale, codes.shape, (128, 128))
    return {"m.weight": codes, "m.weight_scale_inv": scale}, values, "FP8_128X128"


def channel8() -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes, scale = float8(6, 10), RNG.uniform(0.001, 0.1, (6, 1)).astype(np.float32)
    return {"m.weight": codes, "m.weight_scale": scale}, codes.astype(np.float64) * scale, "FP8_CHANNEL"


def tensor8() -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes, scale = float8(6, 10), np.float32(0.03125)
    tensors = {"m.weight": codes, "m.weight_scale": np.array(scale), "m.input_scale": np.array(np.float32(2))}
    return tensors, codes.astype(np.float64) * float(scale), "FP8_TENSOR"


def integers() -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes, scale = RNG.integers(-128, 128, (6, 10)).astype(np.int8), RNG.uniform(0.1, 1, (6, 1)).astype(BF16)
    return {"m.weight": codes, "m.weight_scale": scale}, codes * scale.astype(np.float64), "INT8_CHANNEL"


def packed(bits: int, columns: int, group: int) -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes = RNG.integers(0, 1 << bits, (5, columns))
    scale = (RNG.uniform(0.1, 1, (5, columns // group)) * RNG.choice([-1, 1], (5, columns // group))).astype(BF16)
    tensors = {
        "m.weight_packed": words(codes, bits),
        "m.weight_scale": scale,
        "m.weight_shape": np.array([5, columns], np.int64),
    }
    values = (codes - (1 << bits - 1)) * spread(scale, codes.shape, (1, group))
    return tensors, values, f"INT{bits}_{'CHANNEL' if group == columns else f'G{group}'}"


def nvfp4(end: str) -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes, scale, unit = RNG.integers(0, 16, (4, 64)), np.abs(float8(4, 4)), np.float32(0.0123)
    names = {
        "weight_global_scale": ("m.weight_packed", np.array([unit])),
        "weight_scale_2": ("m.weight", np.array(unit)),
    }
    name, stored = names[end]
    factor = 1 / float(unit) if end == "weight_global_scale" else float(unit)
    values = E2M1[codes] * spread(scale, codes.shape, (1, 16)) * factor
    return {name: nibbles(codes), "m.weight_scale": scale, f"m.{end}": stored}, values, "NVFP4"


def microscaled() -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes, exponent = RNG.integers(0, 16, (4, 64)), RNG.integers(110, 140, (4, 2)).astype(np.uint8)
    values = E2M1[codes] * spread(2.0 ** (exponent - 127.0), codes.shape, (1, 32))
    return {"m.weight_packed": nibbles(codes), "m.weight_scale": exponent}, values, "MXFP4"


def microscaled8() -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes, exponent = float8(4, 64), RNG.integers(110, 140, (4, 2)).astype(np.uint8)
    values = codes.astype(np.float64) * spread(2.0 ** (exponent - 127.0), codes.shape, (1, 32))
    return {"m.weight": codes, "m.weight_scale": exponent}, values, "MXFP8"


def experts() -> tuple[dict[str, Any], np.ndarray[Any, Any], str]:
    codes, exponent = RNG.integers(0, 16, (3, 6, 64)), RNG.integers(110, 140, (3, 6, 2)).astype(np.uint8)
    values = E2M1[codes] * spread(2.0 ** (exponent - 127.0), codes.shape, (1, 32))
    return {"m.weight_blocks": nibbles(codes).reshape(3, 6, 2, 16), "m.weight_scales": exponent}, values, "MXFP4"


READ = {
    "DeepSeek": deepseek,
    "FP8 by channel": channel8,
    "FP8, one scale": tensor8,
    "int8": integers,
    "int4 in groups": lambda: packed(4, 64, 16),
    "int4 by channel, odd": lambda: packed(4, 11, 11),
    "int8 packed": lambda: packed(8, 12, 4),
    "NVFP4 of compressed-tensors": lambda: nvfp4("weight_global_scale"),
    "NVFP4 of ModelOpt": lambda: nvfp4("weight_scale_2"),
    "MXFP4": microscaled,
    "MXFP8": microscaled8,
    "GPT-OSS": experts,
}


@pytest.mark.parametrize("layout", READ)
def test_values_are_codes_times_scales_rounded_once(layout: str, tmp_path: Path) -> None:
    tensors, values, tag = READ[layout]()
    safetensors.numpy.save_file({**tensors, "norm.weight": np.ones(3, BF16)}, tmp_path / "m.safetensors")
    with dequantized(open_checkpoint(tmp_path)) as found:
        assert set(found) == {"m.weight", "norm.weight"}
        assert found.info("m.weight").shape == values.shape
        assert found.info("m.weight").dtype == tag
        np.testing.assert_array_equal(found["m.weight"], values.astype(np.float32))
        for begin, end in ((0, 1), (7, 50), (values.size - 13, values.size)):
            np.testing.assert_array_equal(
                found.part("m.weight", begin, end), values.astype(np.float32).ravel()[begin:end]
            )
    fits = {fit.info.name: fit for fit in qe.checkpoints.fit(tmp_path, "int8", axis=0)}
    own = qe.fit(values.astype(np.float32), "int8", axis=0)
    assert fits["m.weight"].mse["optimal"] == pytest.approx(float(own.total.mse), rel=1e-12)


LEFT: dict[str, dict[str, Any]] = {
    "zero points": {**packed(4, 64, 16)[0], "m.weight_zero_point": np.zeros((1, 4), np.int32)},
    "an order of columns": {**packed(4, 64, 16)[0], "m.weight_g_idx": np.zeros(64, np.int32)},
    "scales of a shape that says nothing": {"m.weight": float8(6, 10), "m.weight_scale": np.ones((3, 7), np.float32)},
    "block scales without the tensor scale": {
        "m.weight_packed": np.zeros((4, 8), np.uint8),
        "m.weight_scale": np.ones((4, 1), E4M3),
    },
    "words of no such width": {**packed(4, 64, 16)[0], "m.weight_shape": np.array([5, 100], np.int64)},
}


@pytest.mark.parametrize("what", LEFT)
def test_what_needs_more_is_named_and_left(what: str, tmp_path: Path) -> None:
    safetensors.numpy.save_file({**LEFT[what], "n.weight": np.ones((2, 2), np.float32)}, tmp_path / "m.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        assert quantized_weights(checkpoint) == {}
    result = CliRunner().invoke(qerror_command, ["fit", str(tmp_path), "--grid", "int4"])
    assert result.exit_code == 1
    assert "quantized, not fitted: " in result.stdout
    result = CliRunner().invoke(qerror_command, ["evaluate", str(tmp_path), "--against", str(tmp_path)])
    assert result.exit_code == 1
    assert "quantized, not fitted: " in result.stdout


def test_texts_and_arrays_of_such_names_from_elsewhere_mean_nothing(tmp_path: Path) -> None:
    x = np.ones((2, 2), np.float32)
    for text in ("no JSON", "[1]", '{"w": {"codes": "gone"}}', '{"w": 3}'):
        safetensors.numpy.save_file({"x": x}, tmp_path / "m.safetensors", metadata={"DequantizeLinear": text})
        with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
            assert quantized_weights(checkpoint) == {}
    for about in ("no JSON", "{}", '{"formats": {"x": "int4"}}', '{"formats": {"x": "int44"}}', '{"formats": [1]}'):
        np.savez(tmp_path / "m.npz", x=x, qerror=np.array(about))
        with open_checkpoint(tmp_path / "m.npz") as checkpoint:
            assert quantized_weights(checkpoint) == {}
    empty = {"m.weight": np.zeros((0, 8), E4M3), "m.weight_scale": np.zeros((0, 1), np.float32)}
    safetensors.numpy.save_file(empty, tmp_path / "m.safetensors")
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        assert quantized_weights(checkpoint) == {}


def test_codes_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    codes = float8(4, 8).view(np.uint8)
    codes[1, 2] = 0x7F
    tensors = {"m.weight": codes.view(E4M3), "m.weight_scale": np.ones((4, 1), np.float32)}
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
    (fit,) = qe.checkpoints.fit(tmp_path, "int8")
    assert "code" in fit.failed


# -- how good a quantized checkpoint is --------------------------------------------------------------------------------


def saved(folder: Path, tensors: dict[str, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "m.safetensors")
    return folder


@pytest.mark.parametrize(
    ("form", "rule", "grid", "options"),
    [
        ("int4_g32", "minmax", "int4", {"block_size": 32, "scale_format": "bf16"}),
        ("int8:axis=0", "minmax", "int8", {"axis": 0, "scale_format": "bf16"}),
        ("e4m3fn:axis=0", "minmax", "e4m3fn", {"axis": 0, "scale_format": "bf16"}),
        ("mxfp4", "floor", "mxfp4", {}),
        ("nvfp4", "absmax", "nvfp4", {}),
    ],
)
def test_what_a_rule_lost_is_found_in_its_file(
    form: str, rule: str, grid: str, options: dict[str, Any], tmp_path: Path
) -> None:
    weight = (RNG.standard_t(5, (48, 64)) * 0.1).astype(BF16)
    source = saved(tmp_path / "in", {"q.weight": weight})
    export(source, tmp_path / "out", format=form, rule=rule)
    (found,) = evaluate(tmp_path / "out", source)
    wide = weight.astype(np.float32)
    if grid == "nvfp4":
        largest = float(np.abs(wide).max())
        options = {"tensor_scale": 2.0 ** np.ceil(np.log2(largest / (6 * 448)))}
    own, best = qe.fit(wide, grid, rule=rule, **options), qe.fit(wide, grid, **options)
    assert found.mse["stored"] == pytest.approx(float(own.total.mse), rel=1e-6)
    assert found.mse["nearest"] == pytest.approx(float(own.total.mse), rel=1e-6)
    assert found.optimum == pytest.approx(float(best.total.mse), rel=1e-9)
    assert found.power == pytest.approx(float(np.mean(wide.astype(np.float64) ** 2)), rel=1e-12)
    assert found.mse["stored"] > 1.01 * found.optimum


def test_codes_that_are_not_nearest_are_told_from_scales_that_are_not_best(tmp_path: Path) -> None:
    weight = RNG.standard_normal((300, 200)).astype(np.float32)
    scale = np.full((3, 2), 0.01, np.float32)
    codes = (weight / 0.01).astype(E4M3)
    moved = codes.view(np.uint8).copy()
    moved[::2] ^= 1
    original = saved(tmp_path / "in", {"m.weight": weight})
    (sound,) = evaluate(saved(tmp_path / "one", {"m.weight": codes, "m.weight_scale_inv": scale}), original)
    (other,) = evaluate(saved(tmp_path / "two", {"m.weight": moved.view(E4M3), "m.weight_scale_inv": scale}), original)
    values = codes.astype(np.float64) * float(np.float32(0.01))
    assert sound.mse["stored"] == pytest.approx(float(np.mean((weight - values) ** 2)), rel=1e-6)
    assert sound.mse["nearest"] == pytest.approx(sound.mse["stored"], rel=1e-3)
    assert other.mse["stored"] > 2 * sound.mse["stored"]
    assert other.mse["nearest"] == sound.mse["nearest"]
    assert other.optimum == sound.optimum < sound.mse["nearest"]
    # Tile by tile, the ragged ones by themselves.
    tiles = [weight[a : a + 128, b : b + 128] for a in (0, 128, 256) for b in (0, 128)]
    best = sum(float(qe.fit(tile, "e4m3fn").total.mse) * tile.size for tile in tiles) / weight.size
    assert sound.optimum == pytest.approx(best, rel=1e-9)


def test_experts_are_compared_with_the_transpose_that_the_model_keeps(tmp_path: Path) -> None:
    """GPT-OSS keeps (experts, inputs, outputs), in files of blocks (experts, outputs, inputs)."""
    tensors, values, _ = experts()
    tensors = {name.replace("m.weight", "mlp.down_proj"): array for name, array in tensors.items()}
    original = {"mlp.down_proj": np.ascontiguousarray(values.swapaxes(1, 2)).astype(np.float32)}
    (found,) = evaluate(saved(tmp_path / "q", tensors), saved(tmp_path / "o", original))
    assert not found.failed
    assert found.mse == {"stored": 0.0, "nearest": 0.0}
    wrong = {"mlp.down_proj": values.astype(np.float32)}
    (found,) = evaluate(tmp_path / "q", saved(tmp_path / "w", wrong))
    assert "the original has shape (3, 6, 64)" in found.failed


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    tensors, _, _ = channel8()
    quantized = saved(tmp_path / "q", tensors)
    plain = saved(tmp_path / "p", {"n.weight": np.ones((2, 2), np.float32)})
    (found,) = evaluate(quantized, plain)
    assert found.skipped == "not in the original"
    with pytest.raises(ValueError, match="has no quantized weights to evaluate"):
        evaluate(plain, plain)
    with pytest.raises(ValueError, match="leave none of 1 quantized weights"):
        evaluate(quantized, plain, include=["x*"])
    result = CliRunner().invoke(qerror_command, ["evaluate", str(quantized), "--against", str(plain), "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["left_out"][0]["skipped"] == "not in the original"


@pytest.mark.parametrize(
    ("form", "grid", "options"),
    [
        ("int4_g32", "int4", {"block_size": 32, "scale_format": "bf16"}),
        ("e4m3fn:axis=0", "e4m3fn", {"axis": 0, "scale_format": "bf16"}),
        ("mxfp4", "mxfp4", {}),
    ],
)
def test_fit_against_the_original_in_the_format_of_the_file(
    form: str, grid: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Scales by each rule on the original's values, and the best of them in a file."""
    weight = (RNG.standard_t(5, (48, 64)) * 0.1).astype(BF16)
    source = saved(tmp_path / "in", {"q.weight": weight, "norm.weight": np.ones(64, BF16)})
    export(source, tmp_path / "out", format=form, rule="minmax")
    wide = weight.astype(np.float32)
    args = ["fit", str(tmp_path / "out"), "--against", str(source), "--rule", "optimal", "--rule", "percentile"]
    result = CliRunner().invoke(qerror_command, [*args, "--json", "-o", str(tmp_path / "best.safetensors")])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(result.stdout)["rows"]
    best, percentile = (qe.fit(wide, grid, rule=rule, **options) for rule in ("optimal", "percentile"))
    assert set(row["mse"]) == {"stored", "nearest", "percentile"}
    assert row["mse"]["percentile"] == pytest.approx(float(percentile.total.mse), rel=1e-9)
    (alone,) = evaluate(tmp_path / "out", source)
    assert row["mse"]["stored"] == alone.mse["stored"]
    assert row["optimal_sqnr_db"] == pytest.approx(best.total.sqnr_db, rel=1e-9)
    scales = safetensors.numpy.load_file(tmp_path / "best.safetensors")
    np.testing.assert_array_equal(scales["q.weight.scale"].ravel(), np.asarray(best.scale, np.float32).ravel())
    (found,) = qe.checkpoints.fit(tmp_path / "out", against=source, rule="percentile")
    assert found.mse == row["mse"]


def test_fit_against_the_original_in_another_format(tmp_path: Path) -> None:
    weight = (RNG.standard_t(5, (48, 64)) * 0.1).astype(BF16)
    source = saved(tmp_path / "in", {"q.weight": weight, "n.weight": weight[:4]})
    export(source, tmp_path / "out", format="int4_g32", include=["q.weight"])
    done = qe.checkpoints.fit(tmp_path / "out", ["nvfp4", "int8"], against=source, rule=["minmax", "optimal"])
    fits = {(each.info.name, each.grid): each for each in done}
    (stored,) = evaluate(tmp_path / "out", source)
    for grid in ("nvfp4", "int8"):
        found = fits["q.weight", grid]
        assert list(found.mse) == ["stored", "minmax", "optimal"]
        assert found.mse["stored"] == stored.mse["stored"]
        assert found.optimum == pytest.approx(float(qe.fit(weight.astype(np.float32), grid).total.mse), rel=1e-9)
        assert fits["n.weight", grid].skipped == "not quantized in the model"
    args = ["fit", str(tmp_path / "out"), "--against", str(source)]
    assert "stored" in CliRunner().invoke(qerror_command, [*args, "--grid", "nvfp4"]).stdout
    for more, said in {
        ("--axis", "0"): "--axis must be left out",
        ("--shard", "1/2"): "--shard must be left out",
        ("--grid", "int4", "-o", str(tmp_path / "folder")): "--against needs a file to write to",
    }.items():
        assert said in CliRunner().invoke(qerror_command, [*args, *more]).output
    assert "Missing option '--grid'" in CliRunner().invoke(qerror_command, ["fit", str(source)]).output


def test_scan_and_plan_take_codes_and_scales_as_the_values_that_they_stand_for(tmp_path: Path) -> None:
    tensors, values, _ = deepseek()
    source = saved(tmp_path / "q", {**tensors, "norm.weight": np.ones(4, BF16)})
    wide = values.astype(np.float32)
    result = CliRunner().invoke(qerror_command, ["scan", str(source), "-o", str(tmp_path / "s.safetensors")])
    assert result.exit_code == 0, result.output
    assert "FP8_128X128: values of the codes and scales in the file" in result.stdout
    sketch = qe.checkpoints.load_sketch(tmp_path / "s.safetensors")
    assert set(sketch) == {"m.weight", "norm.weight"}
    best = float(qe.fit(wide, "int4").total.mse)
    (found,) = sketch.ask("int4", include=["m.weight"])
    assert found.optimum <= best <= found.mse["optimal"]
    ask = ["ask", str(tmp_path / "s.safetensors"), "--grid", "int4", "--include", "m.*", "--json"]
    result = CliRunner().invoke(qerror_command, [*ask, "--exact", str(source)])
    assert json.loads(result.stdout)["rows"][0]["mse"]["optimal"] == pytest.approx(best, rel=1e-9)
    told = qe.checkpoints.plan(source, ["int4_g32", "mxfp4"], bits=5)
    own = qe.fit(wide, told.tensors["m.weight"].format)
    assert told.tensors["m.weight"].mse == pytest.approx(float(own.total.mse), rel=1e-9)
    assert set(told.tensors) == {"m.weight", "norm.weight"}
    # What is kept takes what its codes and scales take.
    kept = qe.checkpoints.plan(source, ["int4_g32", "keep"], bits=20)
    assert kept.tensors["m.weight"].bits == 8 * (300 * 200 + 3 * 2 * 4)


def test_memory_is_kept_or_refused(tmp_path: Path) -> None:
    weight = RNG.standard_normal((3000, 1000)).astype(np.float32)
    tensors = {"m.weight": (weight * 30).astype(E4M3), "m.weight_scale": np.array(np.float32(1 / 30))}
    quantized, original = saved(tmp_path / "q", tensors), saved(tmp_path / "o", {"m.weight": weight})
    (found,) = evaluate(quantized, original, memory=231e6)
    assert found.failed == "its groups take about 270MB; allow them, as in --memory 270MB"


def test_a_quantized_checkpoint_is_exported_anew(tmp_path: Path) -> None:
    tensors, values, _ = deepseek()
    source = saved(tmp_path / "in", {**tensors, "norm.weight": np.ones(4, BF16)})
    export(source, tmp_path / "out", format="int8:axis=0")
    with open_checkpoint(tmp_path / "out") as found:
        assert [info.dtype for info in found.tensors if info.name == "m.weight_scale"] == ["BF16"]
    own = qe.fit(values.astype(np.float32), "int8", axis=0, scale_format="bf16")
    with dequantized(open_checkpoint(tmp_path / "out")) as found:
        expected = own.fake_quantize(values.astype(np.float32))
        np.testing.assert_array_equal(found["m.weight"], expected)
