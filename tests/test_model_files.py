"""Checkpoints of many files: folders, indices, patterns; parts of tensors; types and layouts that others write."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner

import qerror as qe
from qerror.cli.commands import qerror_command
from qerror.files import TensorInfo, list_tensors, open_checkpoint, read_tensor
from qerror.files.elements import REAL, packed_bits
from qerror.files.layouts import quantized_names

RNG = np.random.default_rng(5)


def shards(folder: Path, count: int = 3, index: bool = True) -> dict[str, np.ndarray[Any, Any]]:
    """Write a sharded model; return its tensors."""
    every, places = {}, {}
    for number in range(1, count + 1):
        tensors = {
            f"l.{number}.weight": RNG.standard_normal((6, 40)).astype(np.float16),
            f"l.{number}.bias": RNG.standard_normal(6).astype(np.float32),
        }
        file = f"model-{number:05d}-of-{count:05d}.safetensors"
        safetensors.numpy.save_file(tensors, folder / file)
        every |= tensors
        places |= dict.fromkeys(tensors, file)
    if index:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return every


def assert_holds(path: Any, tensors: dict[str, np.ndarray[Any, Any]]) -> None:
    with open_checkpoint(path) as checkpoint:
        assert set(checkpoint) == set(tensors)
        for name, values in tensors.items():
            np.testing.assert_array_equal(checkpoint[name], values)
            np.testing.assert_array_equal(checkpoint.part(name, 3, 6), values.ravel()[3:6])


@pytest.mark.parametrize("index", [True, False])
def test_every_way_to_name_the_files_of_a_model(tmp_path: Path, index: bool) -> None:
    tensors = shards(tmp_path, index=index)
    files = sorted(tmp_path.glob("*.safetensors"))
    ways: list[Any] = [tmp_path, str(tmp_path), files, str(tmp_path / "model-*.safetensors"), [str(f) for f in files]]
    for way in [*ways, *([tmp_path / "model.safetensors.index.json"] if index else [])]:
        assert_holds(way, tensors)
    assert list_tensors(files[:1]) == list_tensors(files[0])


def test_a_folder_that_lacks_a_shard_is_no_whole_model(tmp_path: Path) -> None:
    tensors = shards(tmp_path, index=False)
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    words = r"has 2 of 3 files 'model-\*-of-00003\.safetensors'; fetch the others, or name the files that you mean"
    with pytest.raises(ValueError, match=words):
        open_checkpoint(tmp_path)
    del tensors["l.2.weight"], tensors["l.2.bias"]
    assert_holds(tmp_path / "model-*.safetensors", tensors)


def test_an_index_goes_before_the_files_beside_it(tmp_path: Path) -> None:
    tensors = shards(tmp_path)
    safetensors.numpy.save_file({"l.1.weight": np.ones((2, 2), np.float32)}, tmp_path / "consolidated.safetensors")
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "b.bin"}}')
    assert_holds(tmp_path, tensors)
    (tmp_path / "adapter.safetensors.index.json").write_text('{"weight_map": {"a": "b.safetensors"}}')
    with pytest.raises(ValueError, match=r"has several indices, 'adapter.safetensors.index.json', 'model"):
        open_checkpoint(tmp_path)


def test_what_is_wrong_with_a_model_of_many_files(tmp_path: Path) -> None:
    shards(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    good = json.loads(index.read_text())

    def refused(words: str, **places: str) -> None:
        index.write_text(json.dumps({"weight_map": {**good["weight_map"], **places}}))
        with pytest.raises(ValueError, match=words) as caught:
            open_checkpoint(tmp_path)
        assert len(str(caught.value)) < 300

    file = "model-00001-of-00003.safetensors"
    refused("names tensor 'l.9.weight', which 'model-00001-of-00003.safetensors' has not", **{"l.9.weight": file})
    refused("1 of 4 files that .* names are not there, such as 'gone.safetensors'", **{"x": "gone.safetensors"})
    for outside in ("../x.safetensors", "/etc/passwd", "a/b.safetensors", ".."):
        refused("which is no file beside it", x=outside)
    for content in ('{"weight_map": {}}', '{"weight_map": [1]}', '{"weight_map": {"a": 3}}', "[]", "{", '{"a": 1}'):
        index.write_text(content)
        with pytest.raises(ValueError, match="is no index: it has no weight_map of texts"):
            open_checkpoint(tmp_path)
    index.unlink()
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / file).read_bytes())
    with pytest.raises(ValueError, match=r"tensor 'l.1.bias' is in 'copy.safetensors' and 'model-00001-of"):
        open_checkpoint(tmp_path)
    with pytest.raises(ValueError, match="no file matches"):
        open_checkpoint(str(tmp_path / "*.gguf"))
    with pytest.raises(ValueError, match="at least one file, got an empty list"):
        open_checkpoint([])


def test_an_index_of_chance_is_refused_in_one_line(tmp_path: Path) -> None:
    """Fuzzed: never another error, never another file than one beside it."""
    shards(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    text, chance = index.read_bytes(), random.Random(3)
    for _ in range(300):
        content = bytearray(text)
        for _ in range(chance.randint(1, 4)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        index.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        try:
            open_checkpoint(tmp_path).close()
        except ValueError as error:
            assert str(error).isprintable()  # noqa: PT017 - of many some are sound
            assert len(str(error)) < 300  # noqa: PT017


@pytest.mark.parametrize("tag", sorted(REAL))
def test_parts_of_every_type_are_the_whole_ones_parts(tmp_path: Path, tag: str) -> None:
    size = 40
    content = RNG.integers(0, 256, size * packed_bits(tag) // 8, np.uint8).tobytes()
    if tag in ("F64", "F32"):
        content = RNG.standard_normal(size).astype(f"<f{packed_bits(tag) // 8}").tobytes()
    entry = {"dtype": tag, "shape": [4, 10], "data_offsets": [0, len(content)]}
    text = json.dumps({"w": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    with open_checkpoint(path) as checkpoint:
        whole = checkpoint["w"].ravel()
        for begin, end in ((0, 40), (0, 1), (3, 17), (39, 40), (5, 5), (7, 8)):
            np.testing.assert_array_equal(checkpoint.part("w", begin, end), whole[begin:end])


PACKED = {"F4": ml_dtypes.float4_e2m1fn, "F6_E2M3": ml_dtypes.float6_e2m3fn, "F6_E3M2": ml_dtypes.float6_e3m2fn}


@pytest.mark.parametrize("tag", PACKED)
def test_every_code_of_less_than_a_byte(tmp_path: Path, tag: str) -> None:
    """Packed bit by bit, lowest first, and looked up by ml_dtypes."""
    bits = packed_bits(tag)
    codes = np.arange(1 << bits, dtype=np.uint8)
    content = np.packbits((codes[:, None] >> np.arange(bits) & 1).astype(np.uint8).ravel(), bitorder="little").tobytes()
    entry = {"dtype": tag, "shape": [codes.size], "data_offsets": [0, len(content)]}
    text = json.dumps({"w": entry}).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)
    expected = codes.view(PACKED[tag]).astype(np.float32)
    values = read_tensor(path)
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(np.signbit(values), np.signbit(expected))


def test_types_of_ml_dtypes_in_files_of_numpy(tmp_path: Path) -> None:
    x = RNG.standard_normal((3, 4))
    np.save(tmp_path / "b.npy", x.astype(ml_dtypes.bfloat16))
    np.save(tmp_path / "e.npy", x.astype(ml_dtypes.float8_e5m2))
    np.savez(tmp_path / "both.npz", b=x.astype(ml_dtypes.bfloat16), e=x.astype(ml_dtypes.float8_e5m2))
    for name, dtype, tag in (("b", ml_dtypes.bfloat16, "BF16"), ("e", ml_dtypes.float8_e5m2, "F8_E5M2")):
        expected = x.astype(dtype).astype(np.float32)
        assert list_tensors(tmp_path / f"{name}.npy")[0].dtype == tag
        np.testing.assert_array_equal(read_tensor(tmp_path / f"{name}.npy"), expected)
        np.testing.assert_array_equal(read_tensor(tmp_path / "both.npz", name), expected)
    np.save(tmp_path / "v.npy", x.astype(ml_dtypes.float8_e4m3fn))
    with pytest.raises(ValueError, match=r"one byte whose type NumPy's files do not say .*safetensors"):
        read_tensor(tmp_path / "v.npy")


LAYOUTS = {
    "compressed-tensors int4": ("m.weight_packed:I32 m.weight_scale:BF16 m.weight_shape:I64", ""),
    "compressed-tensors int8": ("m.weight:I8 m.weight_scale:BF16", "m.bias:BF16 n.weight:BF16"),
    "compressed-tensors nvfp4": ("m.weight_packed:U8 m.weight_scale:F8_E4M3 m.weight_global_scale:F32", ""),
    "ModelOpt": ("m.weight:U8 m.weight_scale:F8_E4M3 m.weight_scale_2:F32 m.input_scale:F32", "o.input_scale:F32"),
    "DeepSeek": ("m.weight:F8_E4M3 m.weight_scale_inv:F32", "norm.weight:BF16"),
    "GPT-OSS": ("m.down_proj_blocks:U8 m.down_proj_scales:U8", "m.down_proj_bias:BF16"),
    "GPTQ": ("m.qweight:I32 m.qzeros:I32 m.scales:F16 m.g_idx:I32", "norm.scales:F16"),
    "bitsandbytes": (
        "m.weight:U8 m.weight.absmax:U8 m.weight.quant_map:F32 m.weight.quant_state.bitsandbytes__nf4:U8",
        "head.weight:BF16",
    ),
    "torchao": ("m._weight_qdata:I8 m._weight_scale:F32", ""),
    "qerror": ("m.codes:I8 m.scale:F32 m.shift:F32", "n.scale:F32"),
    "a float weight beside a scale": ("m.weight_scale:F32", "m.weight:BF16"),
    "float8 alone": ("", "m.weight:F8_E4M3"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_quantized_layouts_are_recognized(layout: str) -> None:
    quantized, others = (text.split() for text in LAYOUTS[layout])
    infos = [TensorInfo(*pair[:1], (2, 2), pair[1]) for pair in (each.split(":") for each in [*quantized, *others])]
    assert quantized_names(infos) == {each.split(":")[0] for each in quantized}


def test_scales_are_never_fitted_as_weights(tmp_path: Path) -> None:
    x = RNG.standard_normal((4, 8)).astype(np.float32)
    tensors = {"m.weight": np.ones((4, 8), np.int8), "m.weight_scale": x, "n.weight": x}
    safetensors.numpy.save_file(tensors, tmp_path / "m.safetensors")
    result = CliRunner().invoke(qerror_command, ["fit", str(tmp_path / "m.safetensors"), "--grid", "int4"])
    assert result.exit_code == 1
    assert "quantized, not fitted: m.weight_scale, m.weight\n" in result.stdout
    only = CliRunner().invoke(
        qerror_command, ["fit", str(tmp_path / "m.safetensors"), "--grid", "int4", "--include", "n*"]
    )
    assert only.exit_code == 0


def test_a_total_over_a_folder_is_that_of_its_files(tmp_path: Path) -> None:
    shards(tmp_path)
    whole = [fit for fit in qe.checkpoints.fit(tmp_path, "int4", axis=0) if fit.mse]
    parts = [fit for file in sorted(tmp_path.glob("*.safetensors")) for fit in qe.checkpoints.fit(file, "int4", axis=0)]
    assert {fit.info.name: fit.mse for fit in whole} == {fit.info.name: fit.mse for fit in parts if fit.mse}
