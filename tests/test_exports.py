"""Exports: bytes as the layouts' documents have them, what is read back, what is kept, resumed and refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result

import qerror as qe
from qerror.checkpoints import encoding as encoding_module
from qerror.checkpoints import evaluate, export
from qerror.cli.commands import qerror_command
from qerror.files import list_tensors, open_checkpoint
from qerror.files.quantized_weights import dequantized

RNG = np.random.default_rng(19)
BF16, E4M3_TYPE = ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn


def run(*args: Any, status: int = 0) -> Result:
    result = CliRunner().invoke(qerror_command, list(map(str, args)))
    assert result.exit_code == status, (result.output, result.exception)
    return result


def model(folder: Path, tensors: dict[str, np.ndarray[Any, Any]], **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    return folder


def stored(folder: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of each tensor, read without the library."""
    out = {}
    for file in sorted(folder.glob("*.safetensors")):
        content = file.read_bytes()
        length = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + length])
        assert header.pop("__metadata__") == {"format": "pt"}
        for name, entry in header.items():
            begin, end = (8 + length + place for place in entry["data_offsets"])
            out[name] = entry["dtype"], tuple(entry["shape"]), content[begin:end]
    return out


# -- bytes, written out by hand from the tables of the layouts ---------------------------------------------------------

# Two rows of 16 whose best scale is known, because it makes no error: all codes of int4, in order and turned around.
INT4 = np.stack([np.arange(-8, 8), np.arange(-8, 8)[::-1]]).astype(np.float32)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.5, -1, -1.5, -2, -3, -4, -6, 0], np.float32)
E2M1_BYTES = "10325476" + "a9cbed" + "0f"
INT8 = np.array([[-128, 127, 1, -1, 0, 2, -2, 64]], np.float32)
E4M3 = np.array([[448, 2.0**-9, -448, 1.125, -(2.0**-6), 0, 208, -3.5]], np.float32)

BY_HAND: dict[str, tuple[np.ndarray[Any, Any], str, dict[str, tuple[str, tuple[int, ...], str]]]] = {
    "int4 in groups": (
        (INT4 * [[0.5], [3.0]]).astype(BF16),
        "int4_g16",
        {
            # Codes + 8, eight in a word, the first one in the lowest bits; the machine is little-endian.
            "weight_packed": ("I32", (2, 2), "10325476" + "98badcfe" + "efcdab89" + "67452301"),
            # 0.5 and 3 in bfloat16: 0x3f00, 0x4040.
            "weight_scale": ("BF16", (2, 1), "003f" + "4040"),
            "weight_shape": ("I64", (2,), "0200000000000000" + "1000000000000000"),
        },
    ),
    "int4 by channel, in float32": (
        INT4[:1] * np.float32(0.3125),
        "int4:axis=0",
        {
            "weight_packed": ("I32", (1, 2), "10325476" + "98badcfe"),
            # 0.3125 in float32: 0x3ea00000.
            "weight_scale": ("F32", (1, 1), "0000a03e"),
            "weight_shape": ("I64", (2,), "0100000000000000" + "1000000000000000"),
        },
    ),
    "int8 by channel": (
        (INT8 * 0.25).astype(np.float16),
        "int8:axis=0",
        {
            # Codes + 128.
            "weight_packed": ("I32", (1, 2), "00ff817f" + "80827ec0"),
            # 0.25 in float16: 0x3400.
            "weight_scale": ("F16", (1, 1), "0034"),
            "weight_shape": ("I64", (2,), "0100000000000000" + "0800000000000000"),
        },
    ),
    "e4m3fn by channel": (
        (E4M3 * 4).astype(BF16),
        "e4m3fn:axis=0",
        {
            # Sign, four bits of exponent (bias 7), three of mantissa: 448 is 0 1111 110, 2^-9 is 0 0000 001.
            "weight": ("F8_E4M3", (1, 8), "7e" + "01" + "fe" + "39" + "88" + "00" + "75" + "c6"),
            "weight_scale": ("BF16", (1, 1), "8040"),
        },
    ),
    "mxfp4": (
        (np.concatenate([E2M1, -E2M1])[None] * 0.25).astype(BF16),
        "mxfp4",
        {
            # The sign of -0 is kept. 2^-2 as an exponent with bias 127.
            "weight_packed": ("U8", (1, 16), E2M1_BYTES + "98badcfe" + "214365" + "87"),
            "weight_scale": ("U8", (1, 1), "7d"),
        },
    ),
    "nvfp4": (
        # The largest magnitude, 6 * 448 / 2^10, asks for a tensor scale of 2^-10; scales are 448 and 3 * 2^-9.
        np.concatenate([E2M1 * 448, E2M1 * 3 * 2.0**-9])[None].astype(np.float32) * np.float32(2.0**-10),
        "nvfp4",
        {
            "weight_packed": ("U8", (1, 16), E2M1_BYTES * 2),
            "weight_scale": ("F8_E4M3", (1, 2), "7e" + "03"),
            # A divisor: 1024 in float32.
            "weight_global_scale": ("F32", (1,), "00008044"),
        },
    ),
    "mxfp8": (
        (np.tile(E4M3, 4) * 0.5).astype(BF16),
        "mxfp8_e4m3",
        {"weight": ("F8_E4M3", (1, 32), "7e01fe39880075c6" * 4), "weight_scale": ("U8", (1, 1), "7e")},
    ),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_bytes_are_those_of_the_documents(case: str, tmp_path: Path) -> None:
    weight, form, expected = BY_HAND[case]
    source = model(tmp_path / "in", {"m.q.weight": weight, "m.norm.weight": weight[0]})
    done = export(source, tmp_path / "out", format=form)
    assert [each.mse for each in done if each.format != "keep"] == [0.0]
    found = stored(tmp_path / "out")
    kept = found.pop("m.norm.weight")
    assert kept[2] == weight[0].tobytes()
    assert {name: (kind, shape, content.hex()) for name, (kind, shape, content) in found.items()} == {
        f"m.q.{end}": entry for end, entry in expected.items()
    }
    with dequantized(open_checkpoint(tmp_path / "out")) as back:
        np.testing.assert_array_equal(back["m.q.weight"], weight.astype(np.float32))


def test_modelopt_says_the_tensor_scale_as_a_factor(tmp_path: Path) -> None:
    weight, form, expected = BY_HAND["nvfp4"]
    export(model(tmp_path / "in", {"m.q.weight": weight}), tmp_path / "out", format=form, layout="modelopt")
    assert {
        name: (kind, shape, content.hex()) for name, (kind, shape, content) in stored(tmp_path / "out").items()
    } == {
        "m.q.weight": expected["weight_packed"],
        "m.q.weight_scale": expected["weight_scale"],
        # 2^-10 in float32.
        "m.q.weight_scale_2": ("F32", (), "0000803a"),
    }
    said = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]
    assert said == {
        "quant_algo": "W4A16_NVFP4",
        "kv_cache_quant_algo": None,
        "group_size": 16,
        "exclude_modules": ["lm_head"],
    }
    with dequantized(open_checkpoint(tmp_path / "out")) as back:
        np.testing.assert_array_equal(back["m.q.weight"], weight)


@pytest.mark.parametrize("form", ["nvfp4", "mxfp8_e4m3"])
def test_modelopt_is_decoded_by_its_published_layout(form: str, tmp_path: Path) -> None:
    """ModelOpt's NVFP4QTensor and MXFP8QTensor in a few lines of NumPy; `make test-interop` asks ModelOpt itself."""
    weight = (RNG.standard_t(4, (24, 96)) * 0.05).astype(BF16)
    export(model(tmp_path / "in", {"m.q.weight": weight}), tmp_path / "out", format=form, layout="modelopt")
    found = {name: np.frombuffer(content, np.uint8) for name, (_, _, content) in stored(tmp_path / "out").items()}
    codes, scale = found["m.q.weight"], found["m.q.weight_scale"]
    if form == "nvfp4":
        half = np.stack([codes & 15, codes >> 4], axis=-1).reshape(24, 6, 16)
        magnitude = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)[half & 7]
        elements = np.where(half & 8, -magnitude, magnitude)
        factor = (scale.view(E4M3_TYPE).astype(np.float32) * found["m.q.weight_scale_2"].view(np.float32)).reshape(
            24, 6, 1
        )
    else:
        elements = codes.view(E4M3_TYPE).astype(np.float32).reshape(24, 3, 32)
        factor = (2.0 ** (scale.astype(np.float32) - 127)).reshape(24, 3, 1)
    values = (elements * factor).reshape(24, 96)
    unit = {"tensor_scale": float(found["m.q.weight_scale_2"].view(np.float32)[0])} if form == "nvfp4" else {}
    own = qe.fit(weight.astype(np.float32), form, **unit)
    assert np.mean((values - weight.astype(np.float64)) ** 2) == pytest.approx(own.total.mse, rel=1e-9)
    with dequantized(open_checkpoint(tmp_path / "out")) as back:
        np.testing.assert_array_equal(back["m.q.weight"], values)


# -- what is read back is what the fit says ----------------------------------------------------------------------------

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "int4_g32": ("int4", {"block_size": 32}),
    "int4:axis=0": ("int4", {"axis": 0}),
    "int8_g64": ("int8", {"block_size": 64}),
    "int8:axis=0": ("int8", {"axis": 0}),
    "e4m3fn:axis=0": ("e4m3fn", {"axis": 0}),
    "mxfp4": ("mxfp4", {}),
    "mxfp8_e4m3": ("mxfp8_e4m3", {}),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16])
@pytest.mark.parametrize("form", FORMATS)
def test_what_is_read_back_is_what_dequantize_gives(form: str, dtype: Any, tmp_path: Path) -> None:
    weight = (RNG.standard_t(5, (24, 64)) * 0.1).astype(dtype)
    weight[3, :32] = 0
    done = export(model(tmp_path / "in", {"q.weight": weight}), tmp_path / "out", format=form)
    grid, options = FORMATS[form]
    if not grid.startswith("mx") and dtype != np.float32:
        options = {**options, "scale_format": "fp16" if dtype == np.float16 else "bf16"}
    own = qe.fit(weight.astype(np.float32), grid, **options)
    with dequantized(open_checkpoint(tmp_path / "out")) as back:
        values = back["q.weight"]
        np.testing.assert_array_equal(back.part("q.weight", 5, 700), values.ravel()[5:700])
        assert back.info("q.weight").shape == weight.shape
    expected = own.dequantize(own.quantize(weight.astype(np.float32)))
    if grid.startswith("mx") or dtype != np.float32:
        np.testing.assert_array_equal(values, expected)
    else:
        # Scales are float32 in the file and float64 in the fit.
        np.testing.assert_allclose(values, expected, rtol=1.2e-7)
    measured = float(np.mean((weight.astype(np.float64) - values) ** 2))
    assert measured == pytest.approx(done[0].mse, rel=1e-6)
    assert done[0].power == pytest.approx(float(np.mean(weight.astype(np.float64) ** 2)), rel=1e-12)


def test_tensor_scales_are_powers_of_two_and_cost_nothing(tmp_path: Path) -> None:
    weight = (RNG.standard_t(5, (64, 512)) * 0.02).astype(BF16)
    done = export(model(tmp_path / "in", {"q.weight": weight}), tmp_path / "out", format="nvfp4")
    (divisor,) = np.frombuffer(stored(tmp_path / "out")["q.weight_global_scale"][2], "<f4")
    largest = float(np.abs(weight.astype(np.float64)).max())
    assert np.log2(divisor) == np.floor(np.log2(6 * 448 / largest))
    usual = qe.fit(weight.astype(np.float32), "nvfp4")
    # In either direction: where the values of E4M3 lie in an octave is chance.
    assert abs(10 * np.log10(done[0].mse / float(usual.total.mse))) < 0.03


# -- fused weights -----------------------------------------------------------------------------------------------------


def attention(dtype: Any = np.float32) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"l.{layer}.{name}_proj.weight": (
            RNG.standard_normal((16, 32)) * 2.0**layer * (3 if name == "v" else 1)
        ).astype(dtype)
        for layer in (0, 1)
        for name in "qkvo"
    }


def test_fused_weights_share_the_tensor_scale_and_the_format(tmp_path: Path) -> None:
    source = model(tmp_path / "in", attention())
    export(source, tmp_path / "out", format="nvfp4")
    unit = {name: content for name, (_, _, content) in stored(tmp_path / "out").items() if "global" in name}
    for layer in (0, 1):
        q, k, v, o = (unit[f"l.{layer}.{name}_proj.weight_global_scale"] for name in "qkvo")
        assert q == k == v != o
    with pytest.raises(ValueError, match=r"k_proj\.weight' is keep and .* runtimes make one matrix of them"):
        export(source, tmp_path / "x", format="nvfp4", exclude=["*.k_proj.weight"])
    assert not (tmp_path / "x").exists()
    export(source, tmp_path / "x", format="nvfp4", exclude=["*.k_proj.weight"], together=())
    found = stored(tmp_path / "x")
    assert found["l.0.q_proj.weight_global_scale"] != found["l.0.v_proj.weight_global_scale"]


def test_a_plan_of_several_formats(tmp_path: Path) -> None:
    tensors = {**attention(BF16), "embed.weight": RNG.standard_normal((8, 32)).astype(np.float32)}
    source = model(tmp_path / "in", tensors, torch_dtype="bfloat16")
    formats = dict.fromkeys((f"l.0.{name}_proj.weight" for name in "qkv"), "int4_g32")
    formats |= {"l.0.o_proj.weight": "int8:axis=0", "l.1.o_proj.weight": "keep", "embed.weight": "bf16"}
    plan = {
        "schema": "qerror.plan",
        "version": 1,
        "model": "m",
        "tensors": {n: {"format": f} for n, f in formats.items()},
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = export(source, tmp_path / "out", plan=tmp_path / "plan.json")
    assert {each.info.name: each.format for each in done if each.format != "keep"} == {
        name: form for name, form in formats.items() if form != "keep"
    }
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "llama"
    said = config["quantization_config"]
    assert said["format"] == "pack-quantized"
    targets = [sorted(group["targets"]) for group in said["config_groups"].values()]
    assert sorted(targets) == [["l.0.k_proj", "l.0.q_proj", "l.0.v_proj"], ["l.0.o_proj"]]
    assert sorted(said["ignore"]) == ["embed", *(f"l.1.{name}_proj" for name in "koqv"), "lm_head"]
    found = stored(tmp_path / "out")
    assert found["embed.weight"] == ("BF16", (8, 32), tensors["embed.weight"].astype(BF16).tobytes())
    for text, words in (
        ('{"schema": "other"}', "is no plan"),
        (json.dumps({**plan, "version": 2}), "has version 2, and this qerror reads 1"),
        (json.dumps({**plan, "tensors": {"embed.weight": {"format": "int44"}}}), "'embed.weight': unknown"),
        (json.dumps({**plan, "tensors": {"embed.weigth": {"format": "int4"}}}), "near it is 'embed.weight'"),
        ("[]", "is no plan"),
    ):
        (tmp_path / "plan.json").write_text(text)
        with pytest.raises(ValueError, match=words):
            export(source, tmp_path / "other", plan=tmp_path / "plan.json")
    with pytest.raises(ValueError, match="does not exist"):
        export(source, tmp_path / "other", plan=tmp_path / "nothing.json")
    assert not (tmp_path / "other").exists()


# -- whole checkpoints -------------------------------------------------------------------------------------------------


def sharded(folder: Path) -> Path:
    """Two shards, everything that may lie beside them, and tensors of types that nobody fits."""
    folder.mkdir()
    first = {"l.0.up.weight": RNG.standard_normal((48, 32)).astype(BF16), "l.0.norm.weight": np.ones(32, BF16)}
    second = {
        "l.1.up.weight": RNG.standard_normal((48, 32)).astype(BF16),
        "l.1.ids": np.arange(7, dtype=np.int64),
        "l.1.mask": np.array([True, False, True]),
        "l.1.float8": RNG.standard_normal((3, 5)).astype(ml_dtypes.float8_e5m2),
        "lm_head.weight": RNG.standard_normal((9, 32)).astype(BF16),
    }
    index = {}
    for number, tensors in enumerate((first, second), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        safetensors.numpy.save_file(tensors, folder / name)
        index |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text(json.dumps({"is": name}))
    (folder / "old.gguf").write_text("not looked at")
    (folder / ".hidden").write_text("")
    return folder


def test_other_tensors_are_copied_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = sharded(tmp_path / "in")
    monkeypatch.setattr("qerror.files.shards.write_model.__defaults__", (1800,))
    export(source, tmp_path / "out", format="int8:axis=0")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    shards = {f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)}
    assert names == {*shards, "model.safetensors.index.json", "config.json", "tokenizer.json", "qerror_export.json"}
    before, after = ({i.name: i for i in list_tensors(folder)} for folder in (source, tmp_path / "out"))
    assert {"l.0.up.weight", "l.1.up.weight"} == before.keys() - after.keys()
    with open_checkpoint(source) as one, open_checkpoint(tmp_path / "out") as two:
        for name in before.keys() & after.keys():
            assert before[name] == after[name]
            np.testing.assert_array_equal(one.bits(name), two.bits(name))
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == shards
    assert index["metadata"]["total_size"] == sum(len(content) for _, _, content in stored(tmp_path / "out").values())
    with safetensors.safe_open(tmp_path / "out" / "model-00001-of-00003.safetensors", "np") as other:
        assert set(other.keys()) == {name for name, file in index["weight_map"].items() if "00001" in file}


def test_an_interrupted_export_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding_module, "TASK_BYTES", 1024)
    monkeypatch.setattr("qerror.checkpoints.recipe.PIECE", 512)
    source = sharded(tmp_path / "in")
    export(source, tmp_path / "whole", format="int4_g32")

    class KilledError(Exception):
        pass

    def killed(name: str, size: int, total: int) -> None:
        if name == "l.1.up.weight":
            raise KilledError

    with pytest.raises(KilledError):
        export(source, tmp_path / "out", format="int4_g32", progress=killed)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".qerror_parts"]
    parts = list((tmp_path / "out" / ".qerror_parts").iterdir())
    assert len(parts) == 3
    made: list[int] = []
    real = encoding_module.open_scales
    monkeypatch.setattr(encoding_module, "open_scales", lambda *args: made.append(1) or real(*args))
    heard: list[int] = []
    export(source, tmp_path / "out", format="int4_g32", progress=lambda name, size, total: heard.append(size))
    assert len(made) == 3
    assert sum(heard) == 2 * 48 * 32 * 2
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert not (tmp_path / "out" / ".qerror_parts").exists()
    # Finished: nothing is done again, and nothing else is written over it.
    again = export(source, tmp_path / "out", format="int4_g32", progress=killed)
    assert [each.format for each in again].count("int4_g32") == 2
    with pytest.raises(ValueError, match=r"holds another export \(other 'formats'\); name another folder"):
        export(source, tmp_path / "out", format="int8:axis=0")


def test_embeddings_are_refused_where_runtimes_look_them_up(tmp_path: Path) -> None:
    """Of transformers an embedding has no weight to look up in where it is packed."""
    weight = RNG.standard_normal((8, 64)).astype(BF16)
    source = model(tmp_path / "in", {"model.embed_tokens.weight": weight, "lm_head.weight": weight})
    told = {"model.embed_tokens.weight": "nvfp4", "lm_head.weight": "nvfp4"}
    for layout in ("compressed-tensors", "modelopt"):
        with pytest.raises(ValueError, match=r"embed_tokens\.weight' cannot be stored: it is looked up"):
            export(source, tmp_path / "out", plan=told, layout=layout)
        with pytest.raises(ValueError, match="it is looked up"):
            export(source, tmp_path / "out", format="nvfp4", include=["*"], layout=layout)
    assert not (tmp_path / "out").exists()
    export(source, tmp_path / "out", plan=told, exclude=["*embed*"])
    assert "--keep leaves them: model.embed_tokens.weight" in run("plan", source, "--bits", "6").stdout


def test_stacked_experts_are_refused_with_what_to_do(tmp_path: Path) -> None:
    tensors = {"m.experts.down_proj": RNG.standard_normal((3, 32, 64)), "m.q.weight": RNG.standard_normal((8, 64))}
    source = model(tmp_path / "in", {name: array.astype(BF16) for name, array in tensors.items()})
    told = {"m.experts.down_proj": "mxfp4", "m.q.weight": "mxfp4"}
    with pytest.raises(
        ValueError, match=r"'m\.experts\.down_proj' cannot be stored: experts stacked .*; in a plan --keep"
    ):
        export(source, tmp_path / "out", plan=told)
    said = run("export", source, "--format", "mxfp4", "-o", tmp_path / "out").stdout
    assert "of these as they were, BF16, 0.0123 MB in all: m.experts.down_proj\n" in said
    # They can be planned, and stored as NumPy's arrays.
    (found,) = (each for each in export(source, tmp_path / "npz", plan=told, layout="npz") if len(each.info.shape) == 3)
    assert found.mse == pytest.approx(
        float(qe.fit(tensors["m.experts.down_proj"].astype(BF16).astype(np.float32), "mxfp4").total.mse), rel=1e-9
    )


KILLED = """
import os, signal, sys
import qerror.checkpoints.encoding, qerror.checkpoints.exporting as exporting
qerror.checkpoints.encoding.TASK_BYTES = 1024
left = int(sys.argv[3])
def dying(real):
    def call(*args):
        global left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args)
    return call
if sys.argv[4] == "fitting":
    qerror.checkpoints.encoding.open_scales = dying(qerror.checkpoints.encoding.open_scales)
else:
    exporting.content = dying(exporting.content)
exporting.export(sys.argv[1], sys.argv[2], format="int4_g32")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a process cannot be killed so here; see test-interop")
def test_a_killed_export_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while it fits, and while it writes a file, half of which then lies about."""
    monkeypatch.setattr(encoding_module, "TASK_BYTES", 1024)
    source, out = sharded(tmp_path / "in"), tmp_path / "out"
    export(source, tmp_path / "whole", format="int4_g32")
    for left, when in (("1", "fitting"), ("4", "writing")):
        done = subprocess.run([sys.executable, "-c", KILLED, source, out, left, when], check=False)
        assert done.returncode == -signal.SIGKILL
    assert (out / ".qerror_parts" / "export.claim").exists()
    assert list(out.glob(".model*.part"))
    export(source, out, format="int4_g32")
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in (tmp_path / "whole").iterdir())
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_two_at_a_time_do_not_spoil_each_others_files(tmp_path: Path) -> None:
    source, out = sharded(tmp_path / "in"), tmp_path / "out"
    export(source, tmp_path / "whole", format="int4_g32")
    refused = []

    def other(name: str, size: int, total: int) -> None:
        with pytest.raises(ValueError, match=r"another process exports into .*; wait for it, or name another folder"):
            export(source, out, format="int4_g32")
        refused.append(name)

    export(source, out, format="int4_g32", progress=other)
    assert refused
    for path in (tmp_path / "whole").iterdir():
        assert (out / path.name).read_bytes() == path.read_bytes()


def test_what_is_there_is_never_written_over(tmp_path: Path) -> None:
    source = sharded(tmp_path / "in")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    with pytest.raises(ValueError, match="must not be the folder of the model itself"):
        export(source, source, format="int4_g32")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"has other files, such as 'thesis\.txt'; name an empty folder"):
        export(source, tmp_path / "full", format="int4_g32")
    with pytest.raises(ValueError, match="must name a folder, got the file"):
        export(source, tmp_path / "full" / "thesis.txt", format="int4_g32")
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before


REFUSED = {
    "e2m1:axis=0": r"cannot be stored: compressed-tensors has no e2m1:axis=0; it has int4_gB",
    "int8": r"compressed-tensors has no int8; it has",
    "int8:axis=1": r"compressed-tensors has no int8:axis=1",
    "int4_g48": r"needs rows of whole blocks, got 32 columns",
    "int4_g32_fp16": r"scales are stored in the type of the weight, BF16, which int4_g32_fp16 is not for",
    "int4_g32:axis=0": r"must be int4_g32 without an axis",
    "int44": r"unknown",
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_cannot_be_stored_is_said_before_anything_is_written(form: str, tmp_path: Path) -> None:
    source = sharded(tmp_path / "in")
    with pytest.raises(ValueError, match=REFUSED[form]):
        export(source, tmp_path / "out", format=form)
    assert not (tmp_path / "out").exists()


def test_nan_is_refused_with_its_place(tmp_path: Path) -> None:
    weight = np.ones((4, 32), np.float32)
    weight[2, 3] = np.nan
    source = model(tmp_path / "in", {"q.weight": weight})
    with pytest.raises(ValueError, match=r"^'q\.weight': .*1 NaN"):
        export(source, tmp_path / "out", format="int4_g32")
    assert not (tmp_path / "out" / "config.json").exists()


def test_npz_has_codes_and_scales(tmp_path: Path) -> None:
    weight = RNG.standard_normal((6, 32)).astype(np.float32)
    tensors = {"a": weight, "b": weight[0].astype(BF16)}
    source = model(tmp_path / "in", tensors)
    for form in ("nf4:axis=0", "nvfp4", "int16:axis=1", "uint4_g8_fp16"):
        out = tmp_path / form.replace(":", "_")
        done = export(source, out, format=form, layout="npz")
        with np.load(out / "model.npz") as found:
            assert json.loads(str(found["qerror"])) == {"formats": {"a": form}}
            scale, codes = found["a.scale"].astype(np.float64), found["a.codes"]
            scale = scale * float(found["a.tensor_scale"]) if "a.tensor_scale" in found else scale
            grid = {"nvfp4": "e2m1"}.get(form, form.partition(":")[0].partition("_")[0])
            spread = np.repeat(scale, 32 // scale.shape[1], axis=1) if form[0] in "nu" and scale.shape[1] > 1 else scale
            spread = np.where(spread == 0, 1, spread)
            values = qe.dequantize(codes, grid, spread)
            assert float(np.mean((weight - values) ** 2)) == pytest.approx(done[0].mse, rel=1e-6)
        with dequantized(open_checkpoint(out)) as back:
            np.testing.assert_array_equal(back["b"], tensors["b"].astype(np.float32))
            np.testing.assert_array_equal(back["a"], values)
            assert set(back) == {"a", "b"}
        (found,) = evaluate(out, source)
        assert found.mse["stored"] == pytest.approx(done[0].mse, rel=1e-6)
        # At int16 the rounding of scales to float32 is seen.
        assert found.mse["stored"] == pytest.approx(found.optimum, rel=1e-3 if "int16" in form else 1e-6)


def test_what_else_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    tensors = {"q.weight": np.eye(32, dtype=np.float32), "q.weight_shape": np.ones(2, np.int64)}
    twice, plain = model(tmp_path / "twice", tensors), model(tmp_path / "in", {"q.weight": tensors["q.weight"]})
    with pytest.raises(ValueError, match=r"'q\.weight_shape' is there already"):
        export(twice, tmp_path / "out", format="int4_g32")
    with pytest.raises(ValueError, match=r"'q\.weight': .*scale_format"):
        export(plain, tmp_path / "out", format="int4_g32", rule="up")
    with pytest.raises(ValueError, match=r"unknown rule .best."):
        export(plain, tmp_path / "out", format="int4_g32", rule="best")
    with pytest.raises(ValueError, match="layout must be"):
        export(plain, tmp_path / "out", format="int4_g32", layout="awq")
    safetensors.numpy.save_file({"other": np.ones(32)}, tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="has none for any tensor to quantize"):
        export(plain, tmp_path / "out", format="int4_g32", weights=tmp_path / "weights.safetensors")
    with pytest.raises(ValueError, match="leave none of 1 tensors to quantize"):
        export(plain, tmp_path / "out", format="int4_g32", exclude=["*"])
    wide = model(tmp_path / "wide", {"a": np.ones((3000, 1500), np.float32)})
    with pytest.raises(ValueError, match=r"'a': groups that reach over 4 million values .* --memory"):
        export(wide, tmp_path / "out", format="int8:axis=1", layout="npz", memory=240e6)
    assert not (tmp_path / "out").exists()


def test_weights_of_columns_are_those_of_fit(tmp_path: Path) -> None:
    weight = RNG.standard_normal((8, 64)).astype(np.float32)
    importance = RNG.uniform(0.1, 3, 64)
    safetensors.numpy.save_file({"q.weight": importance}, tmp_path / "weights.safetensors")
    source = model(tmp_path / "in", {"q.weight": weight})
    (done,) = export(source, tmp_path / "out", format="mxfp4", weights=tmp_path / "weights.safetensors")
    own = qe.fit(weight, "mxfp4", weights=importance)
    assert done.mse == pytest.approx(float(own.total.mse), rel=1e-12)
    with dequantized(open_checkpoint(tmp_path / "out")) as back:
        np.testing.assert_array_equal(back["q.weight"], own.fake_quantize(weight))


def test_a_model_that_changes_meanwhile_is_not_exported(tmp_path: Path) -> None:
    source = model(tmp_path / "in", {"q.weight": np.eye(32, dtype=np.float32)})

    def replaced(*_: Any) -> None:
        model(source, {"q.weight": 2 * np.eye(32, dtype=np.float32)})

    with pytest.raises(ValueError, match="has changed while it was read; export it again"):
        export(source, tmp_path / "out", format="int4_g32", progress=replaced)
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.parametrize("layout", ["gguf", "onnx-qdq"])
def test_a_missing_package_costs_one_line(layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = layout.partition("-")[0]
    monkeypatch.setitem(__import__("sys").modules, package, None)
    source = model(tmp_path / "in", {"q.weight": np.eye(32, dtype=np.float32)})
    with pytest.raises(ValueError, match=rf"needs the package {package}: pip install 'qerror\[{package}\]'"):
        export(source, tmp_path / "out", format="int4_g32", layout=layout)


def test_commands(tmp_path: Path) -> None:
    source = sharded(tmp_path / "in")
    text = run("export", source, "--format", "int4_g32", "-o", tmp_path / "out").stdout
    assert "2 tensors quantized, 5 kept, " in text
    assert "of these as they were, BF16/F8_E5M2, 0.000591 MB in all: lm_head.weight, l.1.float8\n" in text
    table = [line for line in text.splitlines() if not line.startswith("of these")]
    assert max(map(len, table[:-1])) <= 80
    found = json.loads(run("export", source, "--format", "int4_g32", "-o", tmp_path / "out", "--json").stdout)
    assert [row["tensor"] for row in found["rows"]] == ["l.0.up.weight", "l.1.up.weight"]
    assert found["total"]["bits"] == pytest.approx(4.5 + 8 * 16 / (48 * 32))
    words = run("export", source, "-o", tmp_path / "x", status=2).stderr
    assert words == "qerror: plan or format must be given, one of them\n"
    text = run("fit", tmp_path / "out", "--grid", "int8", "--include", "*.up.weight").stdout
    assert "INT4_CHANNEL: values of the codes and scales in the file; `qerror fit MODEL --against ORIGINAL`" in text
    text = run("evaluate", tmp_path / "out", "--against", source).stdout
    assert "total" in text
    found = json.loads(run("evaluate", tmp_path / "out", "--against", source, "--json").stdout)
    for row in found["rows"]:
        assert row["mse"]["stored"] == pytest.approx(row["mse"]["nearest"], rel=1e-12)
        assert row["lost_db"]["stored"] == pytest.approx(0, abs=1e-9)
