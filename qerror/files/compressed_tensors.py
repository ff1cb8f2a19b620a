"""The layout of compressed-tensors, which transformers and vLLM load: names, types and shapes, and the configuration.

Of a weight M.weight with O rows (outputs) and I columns (inputs), w = code * scale:

=====================  ==================================================================================
int4, int8             M.weight_packed I32 (O, I * bits / 32), codes + 2^(bits-1), the first one lowest;
                       M.weight_scale (O, I / group) or (O, 1); M.weight_shape I64 (2)
e4m3fn by channel      M.weight F8_E4M3 (O, I); M.weight_scale (O, 1)
nvfp4                  M.weight_packed U8 (O, I/2), the even column low; M.weight_scale F8_E4M3 (O, I/16);
                       M.weight_global_scale F32 (1), a divisor
mxfp4                  M.weight_packed U8 (O, I/2); M.weight_scale U8 (O, I/32), log2(scale) + 127
mxfp8_e4m3             M.weight F8_E4M3 (O, I); M.weight_scale U8 (O, I/32)
=====================  ==================================================================================

Scales without a type of their own have that of the weight, which is what runtimes cast them to. nvfp4 and mxfp4 are
decompressed to bfloat16 by transformers on a CPU, also in a float32 model, which then cannot multiply.
Source: compressed_tensors/compressors/{pack_quantized,naive_quantized,nvfp4,mxfp4,mxfp8}/base.py of version 0.20.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .companions import copy_companions, home_of, read_config, write_config
from .elements import TensorInfo
from .encodings import SCALES, Arrays, Encoding, check_kept, stored_elements
from .mapping import Checkpoint
from .packing import pack_nibbles, pack_words, words_for
from .shards import Entry, write_model
from .weight_formats import WeightFormat

# What runtimes put into one matrix: its parts have one format, and of NVFP4 one tensor scale.
FUSED = (
    *("*.{q,k,v}_proj.weight", "*.{gate,up}_proj.weight", "*.{q_a_proj,kv_a_proj_with_mqa}.weight"),
    *("*.{wq,wk,wv}.weight", "*.{w1,w3}.weight", "*.{wq_a,wkv_a}.weight", "*.self.{query,key,value}.weight"),
    *("*Attention.{q,k,v}.weight", "*.{wi_0,wi_1}.weight"),
)
# Last parts of the names of modules that are tables of embeddings.
EMBEDDINGS = (
    *("embed_tokens", "tok_embeddings", "word_embeddings", "position_embeddings", "token_type_embeddings"),
    *("embed_in", "embed_positions", "wte", "wpe", "shared"),
)
# Block formats of 4 and 8 bits that are known by their name alone.
_MICROSCALED = {"nvfp4": ("e2m1", 16, "e4m3fn"), "mxfp4": ("e2m1", 32, "e8m0"), "mxfp8": ("e4m3fn", 32, "e8m0")}
_SCALE_DTYPES = {"nvfp4": "torch.float8_e4m3fn", "mxfp4": "torch.uint8", "mxfp8": "torch.uint8"}
_FILE_FORMATS = {
    "nvfp4": "nvfp4-pack-quantized",
    "mxfp4": "mxfp4-pack-quantized",
    "mxfp8": "mxfp8-quantized",
    "int4": "pack-quantized",
    "int8": "pack-quantized",
    "e4m3fn": "float-quantized",
}
KNOWN = "int4_gB, int4:axis=0, int8_gB, int8:axis=0, e4m3fn:axis=0, nvfp4, mxfp4, mxfp8_e4m3"


class CompressedTensors:
    """The layout as the export asks it."""

    name = "compressed-tensors"
    together = FUSED
    suffix = ".weight"

    def encoding(self, info: TensorInfo, form: WeightFormat, sign: str | None) -> Encoding:
        """How a weight is stored in a format; see the module."""
        kind = microscaled(form)
        if kind is not None:
            return _microscaled(info, module_of(info), kind)
        known = form.elements in ("int4", "int8", "e4m3fn") and (form.block_size or form.axis in (0, -2))
        if not known or (form.elements == "e4m3fn" and form.block_size):
            raise ValueError(f"compressed-tensors has no {form.text}; it has {KNOWN}")
        tag, options = own_scale(info, form)
        options |= {"axis": 0} if form.block_size is None else {"block_size": form.block_size}
        options |= {"sign": "either"} if sign == "either" and form.elements != "e4m3fn" else {}
        return _by_groups(info, module_of(info), form, tag, options)

    def check(self, source: Checkpoint, kept: Sequence[TensorInfo], kinds: Mapping[str, str]) -> None:
        """Refuse tensors that cannot be kept, and a configuration that cannot be read."""
        check_kept(kept)
        read_config(home_of(source))

    def write(self, folder: Path, entries: Sequence[Entry], source: Checkpoint, kinds: Mapping[str, str]) -> None:
        """Shards, their index, what lies beside the model, and its configuration."""
        home = home_of(source)
        config = read_config(home)
        write_model(folder, entries)
        copy_companions(home, folder)
        left = [entry.info for entry in entries if entry.info.name in source and entry.info.name not in kinds]
        kept = [info.name for info in left if len(info.shape) == 2]
        write_config(folder, {**config, "quantization_config": quantization_config(kinds, kept)})


def module_of(info: TensorInfo) -> str:
    """The module of a weight that a linear layer can have.

    Raises
    ------
    ValueError
        If the tensor is none.
    """
    if len(info.shape) == 3:
        raise ValueError(
            f"experts stacked in one tensor of shape {info.shape} have no place in a layout with a module for each; "
            "split them into MODULE.N.weight first"
        )
    if not info.name.endswith(".weight") or len(info.shape) != 2:
        raise ValueError(f"only MODULE.weight of two dimensions can be stored so, not one of shape {info.shape}")
    module = info.name.removesuffix(".weight")
    if module.rpartition(".")[2] in EMBEDDINGS:
        raise ValueError("it is looked up, not multiplied with, and runtimes load such tables as floats alone")
    return module


def microscaled(form: WeightFormat) -> str | None:
    """Which block format of a name of its own a format is; None for others."""
    said = (form.elements, form.block_size, form.scale_format)
    scaled = {"nvfp4": True}
    return next((k for k, v in _MICROSCALED.items() if v == said and scaled.get(k, False) == form.tensor_scale), None)


def own_scale(info: TensorInfo, form: WeightFormat) -> tuple[str, dict[str, Any]]:
    """Element type of scales, which is that of the weight, and the option of the fit that makes them fit into it.

    Of weights that are quantized now it is bfloat16.
    """
    tag = info.dtype if info.dtype in SCALES else "F32" if info.dtype in ("F32", "F64") else "BF16"
    if form.scale_format not in (None, SCALES.get(tag)):
        raise ValueError(f"scales are stored in the type of the weight, {tag}, which {form.text} is not for")
    return tag, {"scale_format": SCALES[tag]} if tag in SCALES else {}


def _microscaled(info: TensorInfo, module: str, kind: str) -> Encoding:
    block = _MICROSCALED[kind][1]
    rows, columns = info.shape
    if columns % block:
        raise ValueError(f"{kind} needs rows of whole blocks of {block}, got {columns} columns")
    name = "mxfp8_e4m3" if kind == "mxfp8" else kind
    tag = "F8_E4M3" if kind == "nvfp4" else "U8"
    scale = TensorInfo(f"{module}.weight_scale", (rows, columns // block), tag)
    if kind == "mxfp8":
        codes = TensorInfo(f"{module}.weight", info.shape, "F8_E4M3")
        return Encoding(name, {}, (codes, scale), functools.partial(byte_rows, codes, scale), kind=kind)
    packed = TensorInfo(f"{module}.weight_packed", (rows, columns // 2), "U8")
    pack = functools.partial(nibble_rows, packed, scale)
    if kind == "mxfp4":
        return Encoding(name, {}, (packed, scale), pack, kind=kind)
    unit = TensorInfo(f"{module}.weight_global_scale", (1,), "F32")
    whole = functools.partial(_divisor, unit)
    return Encoding(name, {}, (packed, scale, unit), pack, whole, kind)


def _by_groups(info: TensorInfo, module: str, form: WeightFormat, tag: str, options: dict[str, Any]) -> Encoding:
    """Scales of channels or of groups, in the type of the weight."""
    rows, columns = info.shape
    if columns % (form.block_size or 1):
        raise ValueError(f"{form.text} needs rows of whole blocks, got {columns} columns")
    scale = TensorInfo(f"{module}.weight_scale", (rows, columns // (form.block_size or columns)), tag)
    kind = f"{form.elements}:{form.block_size or 'channel'}"
    if form.elements == "e4m3fn":
        codes = TensorInfo(f"{module}.weight", info.shape, "F8_E4M3")
        pack = functools.partial(byte_rows, codes, scale)
        return Encoding(form.elements, options, (codes, scale), pack, kind=kind)
    bits = form.grid.bits
    packed = TensorInfo(f"{module}.weight_packed", (rows, words_for(columns, bits)), "I32")
    shape = TensorInfo(f"{module}.weight_shape", (2,), "I64")
    pack = functools.partial(_word_rows, packed, scale, bits)
    return Encoding(form.elements, options, (packed, scale, shape), pack, functools.partial(_shape, shape, info), kind)


def _word_rows(packed: TensorInfo, scale: TensorInfo, bits: int, found: Arrays) -> dict[str, NDArray[Any]]:
    # Modulo 256, as two's complement has it.
    unsigned = found["codes"].view(np.uint8) + np.uint8(1 << bits - 1)
    return {packed.name: pack_words(unsigned, bits), scale.name: stored_elements(found["scale"], scale.dtype)}


def byte_rows(weight: TensorInfo, scale: TensorInfo, found: Arrays) -> dict[str, NDArray[Any]]:
    """Codes of a byte each, and scales."""
    scales = stored_elements(found["scale"], _scale_tag(scale))
    return {weight.name: found["codes"].astype(np.uint8), scale.name: scales}


def nibble_rows(packed: TensorInfo, scale: TensorInfo, found: Arrays) -> dict[str, NDArray[Any]]:
    """Codes of e2m1 two in a byte, and scales of one byte in units of the tensor scale."""
    own = found["scale"] / float(found.get("tensor_scale", 1.0))
    return {packed.name: pack_nibbles(found["codes"]), scale.name: stored_elements(own, _scale_tag(scale))}


def _scale_tag(scale: TensorInfo) -> str:
    """Exponents are stored as plain bytes."""
    return "F8_E8M0" if scale.dtype == "U8" else scale.dtype


def _shape(stored: TensorInfo, info: TensorInfo, unit: float) -> dict[str, NDArray[Any]]:
    return {stored.name: np.array(info.shape, np.int64)}


def _divisor(stored: TensorInfo, unit: float) -> dict[str, NDArray[Any]]:
    return {stored.name: np.array([1 / unit], np.float32)}


def quantization_config(kinds: Mapping[str, str], kept: Iterable[str]) -> dict[str, Any]:
    """What config.json says of the weights.

    Parameters
    ----------
    kinds : mapping of str to str
        `Encoding.kind` of each quantized weight, by its name.
    kept : iterable of str
        Names of the weights of two dimensions that are none.

    Examples
    --------
    >>> found = quantization_config({"m.0.weight": "int4:128"}, ["head.weight"])
    >>> found["format"], found["config_groups"]["group_0"]["targets"], found["ignore"]
    ('pack-quantized', ['Linear'], ['head', 'lm_head'])
    """
    groups: dict[str, Any] = {}
    several = len(set(kinds.values())) > 1
    for number, kind in enumerate(dict.fromkeys(kinds.values())):
        names = [name.removesuffix(".weight") for name, own in kinds.items() if own == kind]
        groups[f"group_{number}"] = {
            "targets": names if several else ["Linear"],
            "weights": _arguments(kind),
            "input_activations": None,
            "output_activations": None,
            "format": _FILE_FORMATS[kind.partition(":")[0]],
        }
    formats = {group["format"] for group in groups.values()}
    ignored = [name.removesuffix(".weight") for name in kept if name.endswith(".weight")]
    # A head that shares its weight with the embedding is a linear layer without a tensor in the files.
    ignored += [] if "lm_head" in ignored or "lm_head.weight" in kinds else ["lm_head"]
    return {
        "quant_method": "compressed-tensors",
        "format": formats.pop() if len(formats) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": groups,
        "ignore": ignored,
        "kv_cache_scheme": None,
        "global_compression_ratio": None,
    }


def _arguments(kind: str) -> dict[str, Any]:
    elements, _, group = kind.partition(":")
    float_, bits = elements not in ("int4", "int8"), 8 if elements in ("int8", "e4m3fn", "mxfp8") else 4
    size = _MICROSCALED[elements][1] if elements in _MICROSCALED else None if group == "channel" else int(group)
    strategy = "tensor_group" if elements == "nvfp4" else "channel" if size is None else "group"
    said: dict[str, Any] = {"num_bits": bits, "type": "float" if float_ else "int", "strategy": strategy}
    said |= {"group_size": size, "symmetric": True, "dynamic": False}
    if elements in _SCALE_DTYPES:
        said["scale_dtype"] = _SCALE_DTYPES[elements]
    return said
