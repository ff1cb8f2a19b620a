"""Which format each tensor of a checkpoint gets: one for all weights, or what a plan says."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .._check import listed, near_names, shown
from ..files.elements import TensorInfo, is_real
from ..files.layouts import quantized_names
from ..files.weight_formats import KEEP, PLAIN, weight_format
from .globs import matches
from .planning import Plan, read_plan

# What runtimes leave in 16 bits, or look up instead of multiplying with, unless it is named.
STAYS = (
    *("*embed*", "*embd*", "*lm_head*", "output.weight", "*wte*", "*wpe*"),
    *("*router*", "*.gate.weight", "*_gate_inp*", "*norm*"),
)


def formats_of(plan: str | os.PathLike[str] | Plan | Mapping[str, str]) -> dict[str, str]:
    """The format of each tensor that a plan, or the file of one, names.

    Raises
    ------
    ValueError
        If the file is no plan, or names a format that export does not know.
    """
    if isinstance(plan, Mapping):
        return dict(plan)
    told = plan if isinstance(plan, Plan) else read_plan(plan)
    return {name: check_format(tensor.format) for name, tensor in told.tensors.items()}


def check_format(text: Any) -> str:
    """A format that export knows, as it is.

    Raises
    ------
    ValueError
        If it is none.
    """
    if text != KEEP and text not in PLAIN:
        weight_format(text)
    return str(text)


def assigned(
    tensors: Iterable[TensorInfo],
    *,
    plan: Mapping[str, str] | None = None,
    format: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    suffix: str = "",
) -> dict[str, str]:
    """The format of every tensor, `KEEP` for those that stay as they are.

    Parameters
    ----------
    tensors : iterable of TensorInfo
    plan : mapping of str to str, optional
        By name; what it does not name stays.
    format : str, optional
        Instead of a plan: the format of all weights (real numbers in two dimensions or more), but for embeddings,
        heads, routers and norms unless `include` names them.
    include, exclude : sequence of str
        Patterns with * and ?, of whole names.
    suffix : str
        How the names of weights end.

    Raises
    ------
    ValueError
        If the plan names a tensor that is not there, or nothing is left to quantize.

    Examples
    --------
    >>> infos = [TensorInfo(name, (2, 2), "F32") for name in ("embed.weight", "up.weight")]
    >>> assigned(infos, format="int8:axis=0")
    {'embed.weight': 'keep', 'up.weight': 'int8:axis=0'}
    """
    every = list(tensors)
    if (plan is None) == (format is None):
        raise ValueError("plan or format must be given, one of them")
    names = {info.name for info in every}
    if plan is not None:
        gone = next((name for name in plan if name not in names), None)
        if gone is not None:
            near = listed(near_names(gone, names)) or "nothing"
            raise ValueError(f"the plan names {shown(gone, 60)}, which the model has not; near it is {near}")
    quantized = quantized_names(every)
    out = {}
    for info in every:
        text = KEEP
        if plan is not None and (not include or matches(info.name, include)):
            text = plan.get(info.name, KEEP)
        elif format is not None and _is_weight(info, include, suffix) and info.name not in quantized:
            text = format
        out[info.name] = KEEP if matches(info.name, exclude) else text
    if all(text == KEEP for text in out.values()):
        raise ValueError(f"include, exclude and the plan leave none of {len(every)} tensors to quantize")
    return out


def _is_weight(info: TensorInfo, include: Sequence[str], suffix: str) -> bool:
    if not is_real(info.dtype) or not info.size:
        return False
    if include:
        return matches(info.name, include)
    stays = matches(info.name.lower(), STAYS)
    return len(info.shape) > 1 and info.name.endswith(suffix) and not stays
