"""Quantized layouts by the names of their tensors: which are codes, and which are scales and no weights."""

from __future__ import annotations

from collections.abc import Iterable

from .elements import TensorInfo

# Ends of names beside a weight MODULE.weight. Those that no float network has are enough by themselves.
_SURE = (
    *("weight_scale", "weight_scale_inv", "weight_scale_2", "weight_global_scale", "weight_packed", "weight_shape"),
    *("weight_zero_point", "weight_g_idx", "qweight", "qzeros", "_weight_qdata", "_weight_scale", "_weight_zero_point"),
    *("weight.absmax", "weight.nested_absmax", "weight.quant_map", "weight.nested_quant_map"),
    *("weight_quant_state", "weight_format", "SCB", "weight.SCB"),
)
# These are only beside one of them.
_BESIDE = (
    *("weight", "scales", "g_idx", "zeros", "scale", "zero_point", "input_scale", "output_scale", "input_global_scale"),
    *("input_zero_point", "k_scale", "v_scale", "q_scale", "pre_quant_scale", "scale_inv"),
)
_FLOATS = ("F64", "F32", "F16", "BF16")


def quantized_names(tensors: Iterable[TensorInfo]) -> frozenset[str]:
    """Names of the tensors that are codes of a quantized weight, its scales, or what else belongs to them.

    Known are compressed-tensors (weight_packed, weight_scale, weight_global_scale), ModelOpt (weight_scale_2),
    DeepSeek's blocks (weight_scale_inv), GPT-OSS (NAME_blocks and NAME_scales), GPTQ and AWQ (qweight, scales),
    bitsandbytes (weight.absmax), torchao (_weight_qdata) and files of `qerror fit --codes` (NAME.codes and NAME.scale).
    A weight in a float type of 16 bits or more is none, whatever lies beside it.

    Examples
    --------
    >>> infos = [TensorInfo("q.weight", (2, 2), "F8_E4M3"), TensorInfo("q.weight_scale", (2, 1), "F32")]
    >>> sorted(quantized_names([*infos, TensorInfo("norm.weight", (2,), "BF16")]))
    ['q.weight', 'q.weight_scale']
    """
    infos = {info.name: info for info in tensors}
    found: set[str] = set()
    modules: set[str] = set()
    for name in infos:
        end = next((end for end in _SURE if name == end or name.endswith("." + end)), None)
        # Of bitsandbytes the kind of codes is part of the name.
        end = end or ("weight.quant_state" if ".weight.quant_state." in name else None)
        if end is not None:
            found.add(name)
            modules.add(name.split(".weight.quant_state.")[0] if end == "weight.quant_state" else _module(name, end))
        elif name.endswith("_blocks") and f"{name[:-7]}_scales" in infos:
            found |= {name, f"{name[:-7]}_scales"}
        elif name.endswith(".codes") and f"{name[:-6]}.scale" in infos:
            ends = ("codes", "scale", "shift", "zero_point", "tensor_scale")
            found |= {f"{name[:-6]}.{end}" for end in ends} & infos.keys()
    for module in modules:
        dot = f"{module}." if module else ""
        near = {f"{dot}{end}" for end in _BESIDE} & infos.keys()
        found |= {name for name in near if not (name == f"{dot}weight" and infos[name].dtype in _FLOATS)}
    return frozenset(found)


def _module(name: str, end: str) -> str:
    return name[: -len(end)].rstrip(".")
