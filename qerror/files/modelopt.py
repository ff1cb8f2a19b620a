"""The layout of NVIDIA's ModelOpt, which vLLM and TensorRT-LLM load: names, types and shapes, and the configuration.

NVFP4: M.weight U8 (O, I/2), the even column low; M.weight_scale F8_E4M3 (O, I/16); M.weight_scale_2 F32 (), a factor,
w = code * scale * scale_2. MXFP8: M.weight F8_E4M3 (O, I); M.weight_scale U8 (O, I/32), log2(scale) + 127.
Source: modelopt/torch/export/{unified_export_hf,quant_utils,convert_hf_config}.py. FP8 of theirs wants scales of
activations, which need data.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._files import atomic_open
from .._version import __version__
from .companions import copy_companions, home_of, read_config, write_config
from .compressed_tensors import FUSED, byte_rows, microscaled, module_of, nibble_rows
from .elements import TensorInfo
from .encodings import Encoding, check_kept
from .mapping import Checkpoint
from .shards import Entry, write_model
from .weight_formats import WeightFormat

_ALGORITHMS = {"nvfp4": ("W4A16_NVFP4", 16), "mxfp8": ("MXFP8", 32)}


class ModelOpt:
    """The layout as the export asks it."""

    name = "modelopt"
    together = FUSED
    suffix = ".weight"

    def encoding(self, info: TensorInfo, form: WeightFormat, sign: str | None) -> Encoding:
        """How a weight is stored in a format; see the module."""
        kind, module = microscaled(form), module_of(info)
        if kind not in _ALGORITHMS:
            raise ValueError(f"modelopt has nvfp4 and mxfp8_e4m3 without scales of activations, not {form.text}")
        rows, columns = info.shape
        block = _ALGORITHMS[kind][1]
        if columns % block:
            raise ValueError(f"{form.text} needs rows of whole blocks of {block}, got {columns} columns")
        if kind == "mxfp8":
            codes = TensorInfo(info.name, info.shape, "F8_E4M3")
            scale = TensorInfo(f"{module}.weight_scale", (rows, columns // block), "U8")
            return Encoding("mxfp8_e4m3", {}, (codes, scale), functools.partial(byte_rows, codes, scale), kind=kind)
        codes = TensorInfo(info.name, (rows, columns // 2), "U8")
        scale = TensorInfo(f"{module}.weight_scale", (rows, columns // block), "F8_E4M3")
        unit = TensorInfo(f"{module}.weight_scale_2", (), "F32")
        pack = functools.partial(nibble_rows, codes, scale)
        return Encoding("nvfp4", {}, (codes, scale, unit), pack, functools.partial(_factor, unit), kind)

    def check(self, source: Checkpoint, kept: Sequence[TensorInfo], kinds: Mapping[str, str]) -> None:
        """Refuse tensors that cannot be kept, and several formats."""
        check_kept(kept)
        read_config(home_of(source))
        if len(set(kinds.values())) > 1:
            raise ValueError("modelopt has one format for all weights that it quantizes; use compressed-tensors")

    def write(self, folder: Path, entries: Sequence[Entry], source: Checkpoint, kinds: Mapping[str, str]) -> None:
        """Shards, their index, what lies beside the model, hf_quant_config.json and config.json."""
        home = home_of(source)
        config = read_config(home)
        write_model(folder, entries)
        copy_companions(home, folder)
        left = [each.info for each in entries if each.info.name in source and each.info.name not in kinds]
        kept = [info.name.removesuffix(".weight") for info in left if len(info.shape) == 2]
        kept += [] if "lm_head" in kept or "lm_head.weight" in kinds else ["lm_head"]
        algorithm, block = _ALGORITHMS[next(iter(kinds.values()))]
        said = {"quant_algo": algorithm, "kv_cache_quant_algo": None, "group_size": block}
        producer = {"name": "qerror", "version": __version__}
        with atomic_open(folder / "hf_quant_config.json", "w") as out:
            out.write(json.dumps({"producer": producer, "quantization": {**said, "exclude_modules": kept}}, indent=2))
        own: dict[str, Any] = {"quant_method": "modelopt", **said, "ignore": kept, "producer": producer}
        if algorithm == "W4A16_NVFP4":
            # As convert_hf_quant_config_format of theirs makes it of the other file.
            weights = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": block}
            own["config_groups"] = {"group_0": {"weights": weights, "targets": ["Linear"]}}
        write_config(folder, {**config, "quantization_config": own})


def _factor(stored: TensorInfo, unit: float) -> dict[str, NDArray[Any]]:
    return {stored.name: np.asarray(unit, np.float32)}
