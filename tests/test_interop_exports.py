"""Exports as others load them: transformers with compressed-tensors, gguf, ONNX Runtime. Run by `make test-interop`."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import qerror as qe
from qerror.checkpoints import evaluate, export
from qerror.checkpoints.planning import Plan, PlannedTensor, Point
from qerror.checkpoints.planning.outputs import as_config_groups, as_tensor_types
from qerror.files import open_checkpoint
from qerror.files.quantized_weights import dequantized
from qerror.search.samples.affine_blocks import affine_blocks

RNG = np.random.default_rng(5)


def needs(module: str) -> Any:
    return pytest.importorskip(module, reason=f"{module} is not installed; `make test-interop` has it")


# -- transformers and compressed-tensors -------------------------------------------------------------------------------

quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama with random weights, in bfloat16 and in shards."""
    torch, transformers = needs("torch"), needs("transformers")
    needs("compressed_tensors")
    folder = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=96,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        initializer_range=0.1,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    model.save_pretrained(folder, max_shard_size="200KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    return folder


def logits(folder: Path, weights: dict[str, Any] | None = None) -> Any:
    """Of a model, with other weights if there are any."""
    torch, transformers = needs("torch"), needs("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    if weights is not None:
        missing = model.load_state_dict(weights)
        assert not missing.missing_keys
        assert not missing.unexpected_keys
    with torch.no_grad():
        return model(torch.arange(24)[None]).logits, model


def ours(folder: Path) -> Iterator[tuple[str, Any]]:
    """The dequantized weights, in bfloat16."""
    torch = needs("torch")
    with dequantized(open_checkpoint(folder)) as found:
        for name in found:
            yield name, torch.from_numpy(np.array(found[name])).to(torch.bfloat16)


MIXED = {"self_attn": "int4_g128", "gate_proj": "nvfp4", "up_proj": "nvfp4", "down_proj": "e4m3fn:axis=0"}


@quiet
@pytest.mark.parametrize(
    ("form", "options", "kind"),
    [
        ("int4_g128", {}, "pack-quantized"),
        ("int4_g32", {"sign": "either"}, "pack-quantized"),
        ("int4:axis=0", {}, "pack-quantized"),
        ("int8:axis=0", {}, "pack-quantized"),
        ("e4m3fn:axis=0", {}, "float-quantized"),
        ("nvfp4", {}, "nvfp4-pack-quantized"),
        ("mxfp4", {}, "mxfp4-pack-quantized"),
        ("mxfp8_e4m3", {}, "mxfp8-quantized"),
        ("mixed", {}, "mixed-precision"),
        ("planned", {}, "mixed-precision"),
    ],
)
def test_transformers_computes_what_our_weights_give(
    form: str, options: dict[str, Any], kind: str, llama: Path, tmp_path: Path
) -> None:
    torch = needs("torch")
    if form == "mixed":
        names = [info.name for info in qe.files.list_tensors(llama) if ".layers." in info.name and len(info.shape) > 1]
        options = {"plan": {name: next(form for part, form in MIXED.items() if part in name) for name in names}}
    elif form == "planned":
        # The head, too; of embeddings transformers loads floats alone.
        told = qe.checkpoints.plan(
            llama, ["int4_g128", "nvfp4", "int8:axis=0"], bits=6, together=["fused"], keep=["*embed*"]
        )
        assert len(told.counts()) > 2
        options = {"plan": told}
    else:
        options = {**options, "format": form}
    done = export(llama, tmp_path / "out", **options)
    assert sum(each.format != "keep" for each in done) == (15 if form == "planned" else 14)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]["format"] == kind
    found, model = logits(tmp_path / "out")
    weights = dict(ours(tmp_path / "out"))
    expected, _ = logits(llama, weights)
    # Weight by weight, and what comes out: the same bits, for each product of code and scales is a bfloat16 or rounds
    # to one in one step.
    for name, value in model.state_dict().items():
        if name in weights and value.dtype == torch.bfloat16:
            assert torch.equal(value, weights[name]), name
    assert torch.equal(found, expected)
    original, _ = logits(llama)
    assert not torch.equal(found, original)


@quiet
def test_a_checkpoint_of_compressed_tensors_is_evaluated(llama: Path, tmp_path: Path) -> None:
    """Their own quantization of a weight: read back to the bit, and what its scales lose."""
    torch = needs("torch")
    needs("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from compressed_tensors.quantization.utils import calculate_qparams
    from safetensors.torch import load_file, save_file

    arguments = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=128, symmetric=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=arguments)
    tensors = {name: array for file in llama.glob("*.safetensors") for name, array in load_file(file).items()}
    name = "model.layers.0.mlp.down_proj"
    weight = tensors[f"{name}.weight"]
    groups = weight.reshape(weight.shape[0], -1, 128)
    scale, zero = calculate_qparams(groups.amin(-1), groups.amax(-1), arguments)
    state = {"weight": weight, "weight_scale": scale, "weight_zero_point": zero}
    packed = PackedQuantizationCompressor.compress(state, scheme)
    (tmp_path / "q").mkdir()
    save_file({f"{name}.{key}": value.contiguous() for key, value in packed.items()}, tmp_path / "q" / "m.safetensors")
    theirs = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
    assert torch.equal(dict(ours(tmp_path / "q"))[f"{name}.weight"], theirs)
    (found,) = evaluate(tmp_path / "q", llama)
    error = (weight.double() - theirs.double()).square().mean().item()
    # Theirs are rounded to bfloat16 once more.
    assert found.mse["stored"] == pytest.approx(error, rel=1e-2)
    assert found.mse["stored"] > found.optimum * 1.05


def plan_of(folder: Path, forms: list[str]) -> Any:
    """Formats in turn for the weights of a model, one of them bf16, and the embedding as it is."""
    infos = [info for info in qe.files.list_tensors(folder) if len(info.shape) == 2 and "embed" not in info.name]
    tensors = {
        info.name: PlannedTensor(forms[k % len(forms)], info.shape, info.dtype, 1) for k, info in enumerate(infos)
    }
    tensors["model.embed_tokens.weight"] = PlannedTensor("keep", (96, 128), "BF16", 1)
    return Plan("m", tuple(forms), {}, tensors, Point(1, 1.0, 1.0, 1.0), 1.0, True)


@quiet
def test_compressed_tensors_takes_the_groups_of_a_plan(llama: Path) -> None:
    """Their configuration is made of ours, and gives each module of a model the scheme of its planned format."""
    transformers = needs("transformers")
    needs("compressed_tensors")
    from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

    asked = {
        "int4_g128": (4, "int", "group", 128),
        "int8:axis=0": (8, "int", "channel", None),
        "e4m3fn:axis=0": (8, "float", "channel", None),
        "nvfp4": (4, "float", "tensor_group", 16),
        "mxfp4": (4, "float", "group", 32),
        "mxfp8_e4m3": (8, "float", "group", 32),
        "bf16": None,
    }
    told = plan_of(llama, list(asked))
    groups = json.loads(json.dumps(as_config_groups(told)))
    config = QuantizationConfig.model_validate({"quant_method": "compressed-tensors", **groups})
    model = transformers.AutoModelForCausalLM.from_pretrained(llama)
    apply_quantization_config(model, config)
    seen = 0
    for name, module in model.named_modules():
        each = told.tensors.get(f"{name}.weight")
        if each is None or name == "model.embed_tokens":
            assert getattr(module, "quantization_scheme", None) is None
            continue
        scheme, seen = getattr(module, "quantization_scheme", None), seen + 1
        weights = None if scheme is None else scheme.weights
        found = weights and (weights.num_bits, weights.type, weights.strategy, weights.group_size)
        assert found == asked[each.format], name
        assert scheme is None or (weights.symmetric and scheme.input_activations is None)
    assert seen == len(told.tensors) - 1 == 15


def test_llama_quantize_takes_the_lines_of_a_plan(llama: Path) -> None:
    """As its parser reads them: a type of GGML, and a pattern in lower case that is found in one name alone."""
    gguf = needs("gguf")
    forms = {"int8_g32_fp16": "Q8_0", "int4_g32_fp16": "Q4_0", "mxfp4": "MXFP4", "bf16": "BF16", "fp16": "F16"}
    told = plan_of(llama, list(forms))
    names = gguf.TensorNameMap(gguf.MODEL_ARCH.LLAMA, 2)
    expected = {
        names.get_name(name, try_suffixes=(".weight",)): forms[each.format]
        for name, each in told.tensors.items()
        if each.format != "keep"
    }
    lines = as_tensor_types(told)
    assert len(lines) == len(expected) == 15
    options = []
    for line in lines:
        (option, argument) = shlex.split(line)
        assert option == "--tensor-type"
        pattern, _, kind = argument.partition("=")
        options.append((re.compile(pattern.lower()), gguf.GGMLQuantizationType[kind.upper()].name))
    for name, kind in expected.items():
        assert [found for pattern, found in options if pattern.search(name)] == [kind]
    # That of the head would else be found in blk.0.attn_output.weight.
    assert not any(pattern.search("blk.7.attn_output.weight") for pattern, _ in options)


@quiet
@pytest.mark.parametrize("form", ["nvfp4", "mxfp8_e4m3"])
def test_modelopt_dequantizes_our_codes_to_our_values(form: str, llama: Path, tmp_path: Path) -> None:
    """Where it is installed (pip install --no-deps nvidia-modelopt, and what its import asks for)."""
    torch = needs("torch")
    pytest.importorskip("modelopt", reason="modelopt is not installed; `make test-interop` does without it")
    from modelopt.torch.export.convert_hf_config import convert_hf_quant_config_format
    from modelopt.torch.quantization.qtensor import MXFP8QTensor, NVFP4QTensor
    from safetensors.torch import load_file

    done = export(llama, tmp_path / "out", format=form, layout="modelopt")
    tensors = {
        name: array for file in (tmp_path / "out").glob("*.safetensors") for name, array in load_file(file).items()
    }
    quantized = [each.info for each in done if each.format != "keep"]
    assert len(quantized) == 14
    with dequantized(open_checkpoint(tmp_path / "out")) as ours:
        for info in quantized:
            codes, scale = tensors[info.name], tensors[f"{info.name}_scale"]
            if form == "nvfp4":
                packed = NVFP4QTensor(torch.Size(info.shape), torch.float32, codes)
                unit = tensors[f"{info.name}_scale_2"]
                theirs = packed.dequantize(torch.float32, scale=scale, double_scale=unit, block_sizes={-1: 16})
            else:
                theirs = MXFP8QTensor(torch.Size(info.shape), torch.float32, codes).dequantize(
                    torch.float32, scale=scale
                )
            np.testing.assert_array_equal(theirs.numpy(), ours[info.name])
    own = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    theirs = convert_hf_quant_config_format(json.loads((tmp_path / "out" / "hf_quant_config.json").read_text()))
    assert theirs.items() <= own.items()


# -- gguf --------------------------------------------------------------------------------------------------------------


def gguf_model(path: Path) -> dict[str, np.ndarray[Any, Any]]:
    gguf = needs("gguf")
    kinds = gguf.GGMLQuantizationType
    x = (RNG.standard_t(5, (48, 64)) * 0.1).astype(np.float32)
    x[3, :32], x[4, :32] = 0, 0.7
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_string("general.name", "made up")
    writer.add_array("tokenizer.ggml.tokens", [f"t{i}" for i in range(50)])
    writer.add_uint32("llama.block_count", 1)
    writer.add_float32("llama.attention.layer_norm_rms_epsilon", 1e-5)
    writer.add_tensor("token_embd.weight", gguf.quants.quantize(x, kinds.Q8_0), raw_dtype=kinds.Q8_0)
    writer.add_tensor("blk.0.attn_norm.weight", x[0])
    writer.add_tensor("blk.0.attn_q.weight", x.astype(np.float16))
    writer.add_tensor("blk.0.ffn_up.weight", x.astype(ml_dtypes.bfloat16).view(np.uint8), raw_dtype=kinds.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open_checkpoint(path) as checkpoint:
        return {name: np.array(checkpoint[name]) for name in checkpoint}


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "Q4_1", "MXFP4"])
def test_gguf_dequantizes_our_blocks_to_our_values(kind: str, tmp_path: Path) -> None:
    gguf = needs("gguf")
    before = gguf_model(tmp_path / "in.gguf")
    done = export(tmp_path / "in.gguf", tmp_path / "out", format=kind.lower(), layout="gguf")
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    quantized = ("blk.0.attn_q.weight", "blk.0.ffn_up.weight")
    assert kinds == {**dict.fromkeys(quantized, kind), "blk.0.attn_norm.weight": "F32", "token_embd.weight": "Q8_0"}
    said = {name: field.contents() for name, field in reader.fields.items()}
    assert said["general.name"] == "made up"
    assert said["general.architecture"] == "llama"
    assert said["tokenizer.ggml.tokens"] == [f"t{i}" for i in range(50)]
    assert said["general.file_type"] == {"Q8_0": 7, "Q4_0": 2, "Q4_1": 3, "MXFP4": 38}[kind]
    for tensor in reader.tensors:
        theirs = gguf.quants.dequantize(tensor.data, tensor.tensor_type).reshape(before[tensor.name].shape)
        if tensor.name not in quantized:
            np.testing.assert_array_equal(theirs, before[tensor.name])
            continue
        x = before[tensor.name]
        np.testing.assert_array_equal(theirs, expected_blocks(x, kind))
        mse = np.mean((x.astype(np.float64) - theirs) ** 2)
        assert mse == pytest.approx(next(each.mse for each in done if each.info.name == tensor.name), rel=1e-9)
        own = gguf.GGMLQuantizationType[kind]
        rule = gguf.quants.dequantize(gguf.quants.quantize(x, own), own)
        assert mse < np.mean((x.astype(np.float64) - rule) ** 2)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "MXFP4"])
def test_what_their_rules_lose_is_found_in_their_files(kind: str, tmp_path: Path) -> None:
    gguf = needs("gguf")
    before = gguf_model(tmp_path / "in.gguf")
    name, own = "blk.0.attn_q.weight", gguf.GGMLQuantizationType[kind]
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_tensor(name, gguf.quants.quantize(before[name], own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    export(tmp_path / "in.gguf", tmp_path / "ours", format=kind.lower(), layout="gguf")
    (theirs,) = evaluate(tmp_path / "theirs.gguf", tmp_path / "in.gguf")
    (ours,) = evaluate(tmp_path / "ours", tmp_path / "in.gguf", include=[name])
    values = gguf.quants.dequantize(gguf.quants.quantize(before[name], own), own)
    x = before[name].astype(np.float64)
    assert theirs.mse["stored"] == pytest.approx(float(np.mean((x - values) ** 2)), rel=1e-9)
    assert ours.mse["stored"] == pytest.approx(ours.optimum, rel=1e-9)
    # Theirs of Q4_0 have either sign, as ours do.
    assert theirs.optimum == pytest.approx(ours.optimum, rel=1e-9)
    assert theirs.mse["stored"] > 1.05 * theirs.optimum
    assert theirs.mse["nearest"] <= theirs.mse["stored"] * (1 + 1e-9)


def expected_blocks(x: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """What `fit` and `dequantize` give."""
    if kind == "Q4_1":
        _, shift = affine_blocks(x.reshape(-1, 32), 15)
        stored = shift.reshape(len(x), -1).astype(np.float16).astype(np.float64)
        found = qe.fit(x, "uint4", block_size=32, shift=stored, scale_format="fp16")
        proven = qe.fit(x, "uint4", block_size=32, shift="optimal").total.mse
        assert proven <= found.total.mse <= 1.002 * proven
    else:
        grid = {"Q8_0": "int8_g32_fp16", "Q4_0": "int4_g32_fp16", "MXFP4": "mxfp4"}[kind]
        found = qe.fit(x, grid, sign="either" if kind == "Q4_0" else "positive")
    return np.asarray(found.dequantize(found.quantize(x)))


def test_a_model_of_other_files_becomes_gguf_with_its_own_names(tmp_path: Path) -> None:
    gguf = needs("gguf")
    tensors = {"layers.0.weight": RNG.standard_normal((4, 64)), "layers.0.bias": RNG.standard_normal(4)}
    source = tmp_path / "in.npz"
    np.savez(source, **{name: array.astype(np.float32) for name, array in tensors.items()})
    export(source, tmp_path / "out", format="q8_0", layout="gguf", include=["layers.?.weight"])
    reader = gguf.GGUFReader(tmp_path / "out" / "model.gguf")
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert found["layers.0.weight"].tensor_type.name == "Q8_0"
    with open_checkpoint(source) as before, open_checkpoint(tmp_path / "out") as after:
        assert set(before) == set(after)
        np.testing.assert_array_equal(before["layers.0.bias"], after["layers.0.bias"])
    np.savez(source, labels=np.arange(3, dtype=np.uint8), **{"l.weight": np.eye(32, dtype=np.float32)})
    with pytest.raises(ValueError, match=r"GGUF has no type for 'labels' of U8"):
        export(source, tmp_path / "other", format="q8_0", layout="gguf")
    with pytest.raises(ValueError, match=r"onnx-qdq changes a model in ONNX; .* is none"):
        export(source, tmp_path / "other", format="int8:axis=0", layout="onnx-qdq")
    assert not (tmp_path / "other").exists()


def test_zero_points_of_onnx_are_read_where_they_are_zeros(tmp_path: Path) -> None:
    onnx = needs("onnx")
    codes, scale = RNG.integers(-128, 128, (4, 6)).astype(np.int8), np.full(4, 0.5, np.float32)
    for zero in (0, 3):
        arrays = {"q": codes, "s": scale, "z": np.full(4, zero, np.int8)}
        node = onnx.helper.make_node("DequantizeLinear", list(arrays), ["w"], axis=0)
        initializers = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
        graph = onnx.helper.make_graph([node], "g", [], [], initializers)
        onnx.save(onnx.helper.make_model(graph), tmp_path / f"{zero}.onnx")
        with dequantized(open_checkpoint(tmp_path / f"{zero}.onnx")) as found:
            assert ("w" in found) == (zero == 0)
    with dequantized(open_checkpoint(tmp_path / "0.onnx")) as found:
        assert found.info("w").dtype == "INT8_CHANNEL"
        np.testing.assert_array_equal(found["w"], codes * np.float32(0.5))


# -- ONNX --------------------------------------------------------------------------------------------------------------


def onnx_model(path: Path, opset: int, dtype: Any, beside: bool) -> dict[str, np.ndarray[Any, Any]]:
    onnx = needs("onnx")
    tensors = {
        "w1": RNG.standard_normal((64, 96)).astype(dtype),
        "w2": RNG.standard_normal((32, 96)).astype(dtype),
        "b": RNG.standard_normal(32).astype(dtype),
    }
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w1"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("Gemm", ["r", "w2", "b"], ["y"], transB=1),
    ]
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    ends = [[onnx.helper.make_tensor_value_info(name, kind, ["n", size])] for name, size in (("x", 64), ("y", 32))]
    initializers = [onnx.numpy_helper.from_array(array, name) for name, array in tensors.items()]
    graph = onnx.helper.make_graph(nodes, "g", *ends, initializers)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path, save_as_external_data=beside, location="in.data", size_threshold=0)
    return tensors


@pytest.mark.parametrize(("opset", "dtype", "beside"), [(13, np.float32, False), (21, np.float16, True)])
@pytest.mark.parametrize("form", ["int8:axis=0", "int8:axis=1", "int4_g32", "e4m3fn:axis=0", "int8"])
def test_onnxruntime_computes_with_our_weights(form: str, opset: int, dtype: Any, beside: bool, tmp_path: Path) -> None:
    onnx, runtime = needs("onnx"), needs("onnxruntime")
    tensors = onnx_model(tmp_path / "in.onnx", opset, dtype, beside)
    done = export(tmp_path / "in.onnx", tmp_path / "out", format=form, layout="onnx-qdq")
    path = tmp_path / "out" / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    # The weights themselves as outputs: what DequantizeLinear gives.
    model = onnx.load(path)
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, kind, tensors[name].shape) for name in ("w1", "w2")
    )
    x = RNG.standard_normal((5, 64)).astype(dtype)
    session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    w1, w2, y = session.run(["w1", "w2", "y"], {"x": x})
    stored = runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    np.testing.assert_allclose(stored.astype(np.float64), y.astype(np.float64), rtol=1e-2, atol=1e-2)
    grid, _, axis = form.partition(":axis=")
    options: dict[str, Any] = {"axis": int(axis)} if axis else {}
    if form == "int4_g32":
        grid, options = "int4", {"block_size": 32}
    if dtype == np.float16:
        options["scale_format"] = "fp16"
    for name, theirs in (("w1", w1), ("w2", w2)):
        weight = tensors[name].astype(np.float32)
        own = qe.fit(weight, grid, **options)
        expected = own.dequantize(own.quantize(weight)).astype(dtype)
        # float32 scales are those of float64, rounded.
        np.testing.assert_allclose(theirs, expected, rtol=2e-7 if dtype == np.float32 else 0)
        mse = np.mean((weight.astype(np.float64) - theirs) ** 2)
        measured = next(each.mse for each in done if each.info.name == name)
        assert mse == pytest.approx(measured, rel=1e-6 if dtype == np.float32 else 1e-2)
    with dequantized(open_checkpoint(tmp_path / "out")) as back:
        assert set(back) == set(tensors)
        for name, theirs in (("w1", w1), ("w2", w2)):
            np.testing.assert_array_equal(back[name].astype(dtype), theirs)
            np.testing.assert_array_equal(back.part(name, 7, 399).astype(dtype), theirs.ravel()[7:399])
    for each in evaluate(tmp_path / "out", tmp_path / "in.onnx"):
        assert each.mse["stored"] == pytest.approx(each.optimum, rel=1e-9 if dtype == np.float16 else 1e-6)
    hidden = np.maximum(x.astype(np.float64) @ w1.astype(np.float64), 0)
    exact = hidden @ w2.T.astype(np.float64) + tensors["b"]
    np.testing.assert_allclose(y, exact, atol=1e-3 if dtype == np.float32 else 0.2)
