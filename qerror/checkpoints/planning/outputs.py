"""A plan for other programs: CSV, config_groups and ignore of llm-compressor, --tensor-type lines of llama.cpp."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..._check import listed
from ...grids.block_formats import BlockFormat, as_format
from ...grids.grid import Grid
from ..recipe import split_format
from .plan import KEEP, Plan
from .storage import is_cast

_COLUMNS = ("tensor", "format", "bits_per_value", "mse", "sqnr_db", "power", "bits", "shape", "dtype", "why")


def as_csv(plan: Plan) -> str:
    """A line a tensor, with all digits."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for name, each in plan.tensors.items():
        shape = "x".join(map(str, each.shape))
        numbers = [repr(value) for value in (each.bits_per_value, each.mse, each.sqnr_db, each.power)]
        writer.writerow([name, each.format, *numbers, each.bits, shape, each.dtype, each.why])
    return out.getvalue()


def as_config_groups(plan: Plan) -> dict[str, Any]:
    """`config_groups` and `ignore` for a QuantizationModifier of llm-compressor: weights alone are quantized.

    Raises
    ------
    ValueError
        If a format has no scheme in compressed-tensors.
    """
    groups: dict[str, Any] = {}
    ignored: list[str] = []
    weights = {form: _scheme(form) for form in plan.counts() if form != KEEP and not is_cast(form)}
    _check(weights, "scheme of compressed-tensors", "int4_g128, int8:axis=0, e4m3fn:axis=0, nvfp4, mxfp4, mxfp8_e4m3")
    for name, each in plan.tensors.items():
        module = name.removesuffix(".weight")
        if each.format in weights:
            groups.setdefault(each.format, []).append(module)
        elif module != name and len(each.shape) == 2:
            ignored.append(module)
    config = {
        f"group_{number}": {"targets": targets, "weights": weights[form], "input_activations": None}
        for number, (form, targets) in enumerate(groups.items())
    }
    return {"config_groups": config, "ignore": ignored}


def _check(found: Mapping[str, Any], what: str, known: str) -> None:
    missing = [form for form, each in found.items() if each is None]
    if missing:
        raise ValueError(f"{listed(missing)} has no {what}; plan with formats among {known}")


def _scheme(text: str) -> dict[str, Any] | None:
    """The arguments of compressed-tensors for weights in a format; None where there are none."""
    name, axis = split_format(text)
    form = as_format(name)
    if not isinstance(form, BlockFormat):
        return None if axis not in (0, None) else _elements(form, {"strategy": "tensor" if axis is None else "channel"})
    fixed = {"nvfp4": {"strategy": "tensor_group", "scale_dtype": "torch.float8_e4m3fn"}}
    fixed |= {key: {"strategy": "group", "scale_dtype": "torch.uint8"} for key in ("mxfp4", "mxfp8_e4m3")}
    plain = form.scale_format is None or form.scale_format.name in ("bf16", "fp16")
    how = fixed.get(form.name, {"strategy": "group"} if plain else None)
    return None if how is None else _elements(form.grid, {**how, "group_size": form.block_size})


def _elements(grid: Grid, how: dict[str, Any]) -> dict[str, Any] | None:
    kinds = {"int4": (4, "int"), "int8": (8, "int"), "e4m3fn": (8, "float"), "e2m1": (4, "float")}
    if grid.name not in kinds or (grid.name == "e2m1" and "scale_dtype" not in how):
        return None
    bits, kind = kinds[grid.name]
    return {"num_bits": bits, "type": kind, "symmetric": True, "dynamic": False, **how}


# Names of weights in a GGUF file for those of models like Llama, after "model.layers.N." and before ".weight".
_GGUF_NAMES = {
    **{f"self_attn.{one}_proj": f"attn_{one}" for one in "qkv"},
    "self_attn.o_proj": "attn_output",
    **{f"mlp.{one}_proj": f"ffn_{one}" for one in ("gate", "up", "down")},
}
_GGUF_WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "lm_head.weight": "output.weight"}
_GGUF_TYPES = {"int8_g32": "q8_0", "int8_g32_fp16": "q8_0", "int4_g32": "q4_0", "int4_g32_fp16": "q4_0"}
_GGUF_TYPES |= {"mxfp4": "mxfp4", "bf16": "bf16", "fp16": "f16"}


def as_tensor_types(plan: Plan) -> list[str]:
    r"""Options of llama-quantize: --tensor-type '^blk\.0\.attn_q\.weight$=q8_0' for each planned tensor.

    What stands before "=" is a regular expression (ECMAScript, searched anywhere in the name, lower case), of several
    that match the first or, in older versions, the last counts: so each matches one whole name. It wants a quantized
    type for all others, no --pure, and neither --token-embedding-type nor --output-tensor-type, which go first. Names
    of models like Llama become those of a GGUF file. Q8_0 and Q4_0 store their scales as fp16. Source:
    tools/quantize/quantize.cpp (parse_tensor_type), src/llama-quant.cpp (llama_tensor_get_type).

    Raises
    ------
    ValueError
        If a format is no type of GGUF.
    """
    types = {form: _GGUF_TYPES.get(as_format(form).name or "") if split_format(form)[1] is None else None
             for form in plan.counts() if form != KEEP}  # fmt: skip
    _check(types, "type in GGUF", "int8_g32_fp16, int4_g32_fp16, mxfp4, bf16, fp16")
    planned = [(name, each.format) for name, each in plan.tensors.items() if each.format != KEEP]
    return [f"--tensor-type '^{re.escape(gguf_name(name))}$={types[form]}'" for name, form in planned]


def gguf_name(name: str) -> str:
    """The name of a tensor in a GGUF file; others than those of models like Llama stay.

    Examples
    --------
    >>> gguf_name("model.layers.3.self_attn.q_proj.weight"), gguf_name("blk.3.attn_q.weight")
    ('blk.3.attn_q.weight', 'blk.3.attn_q.weight')
    """
    match = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.weight", name)
    if match and match[2] in _GGUF_NAMES:
        return f"blk.{match[1]}.{_GGUF_NAMES[match[2]]}.weight"
    return _GGUF_WHOLE.get(name, name)


OUTPUTS: dict[str, Callable[[Plan], Any]] = {"llm-compressor": as_config_groups, "llama.cpp": as_tensor_types}
"""Other programs that a plan can be written for."""
