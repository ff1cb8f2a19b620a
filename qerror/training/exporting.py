"""Trained networks as integer codes and scales in a file, and back."""

from __future__ import annotations

import copy
import json
import os
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._check import check_finite
from .._files import atomic_open
from .._version import __version__
from ..files.quantized import FORMAT, QuantizedTensor, describe_block_format, describe_grid, read_quantized
from ..grids.block_formats import BlockFormat
from ..tensors.groups import make_groups
from .fake_quantize import FakeQuantize
from .preparing import INPUT, prepare, quantizers


def weights_of(model: nn.Module) -> dict[str, tuple[Tensor, FakeQuantize]]:
    """What each weight quantizer of a prepared network is given, and the quantizer, by the name of the parameter."""
    found: dict[str, tuple[Tensor, FakeQuantize]] = {}
    with torch.no_grad():
        for path, layer in model.named_modules():
            if not parametrize.is_parametrized(layer):
                continue
            for name, chain in layer.parametrizations.items():
                if isinstance(last := chain[-1], FakeQuantize):
                    # Whatever comes before it (weight norm and the like) is already in what it sees.
                    seen: list[Tensor] = []
                    handle = last.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
                    training = last.training
                    last.eval()
                    getattr(layer, name)
                    last.train(training)
                    handle.remove()
                    found[f"{path}.{name}" if path else name] = seen[0].detach(), last
    return found


def export(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a prepared network as one .safetensors file: codes and scales of weights, scales of inputs, the rest.

    `qerror.files.read_quantized` reads it without PyTorch, `load_export` puts it back into a network. The scales
    are those that the network has in evaluation mode; of weights in block formats those of each block, and the tensor
    scale. A layer that was never called has none for its input: it is left out. Inputs in block formats, whose scales
    follow the data, are the name and the parts of the format.

    Parameters
    ----------
    model : nn.Module
        Of `prepare`.
    path : path-like
        Appears only when it is complete.

    Raises
    ------
    ValueError
        If nothing in the model is quantized, a weight is not finite, an input is in a block format that NumPy cannot
        cast to, or the folder does not exist.
    """
    weights = weights_of(model)
    inputs = {
        name.removesuffix(".input").removesuffix("input"): quantizer
        for name, quantizer in quantizers(model)
        if name.endswith("input") and quantizer.ready
    }
    if not weights and not inputs:
        raise ValueError("model must be prepared: qerror.training.prepare puts quantizers into it")
    tensors = {
        name: value.detach().cpu().clone().contiguous()
        for name, value in model.state_dict().items()
        if "parametrizations." not in name and INPUT not in name
    }
    for name, (weight, quantizer) in weights.items():
        tensors |= _stored(name, quantizer) | {f"{name}.codes": torch.from_numpy(_codes(name, weight, quantizer))}
    for name, quantizer in inputs.items():
        if quantizer.form is not None and not quantizer.frozen:
            _check_castable(name, quantizer.form)
            continue
        tensors |= _stored(f"{name}.input" if name else ".input", quantizer)
    header = {
        "format": FORMAT,
        "version": __version__,
        "weights": {name: _described(quantizer) for name, (_, quantizer) in weights.items()},
        "inputs": {name: _described(quantizer) for name, quantizer in inputs.items()},
    }
    content = save(tensors, {"qerror": json.dumps(header)})
    with atomic_open(path) as file:
        file.write(content)


def load_export(model: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """A copy of an unprepared network with the quantized weights and frozen scales of an exported file.

    Parameters
    ----------
    model : nn.Module
        Of the architecture that was exported; its own weights do not matter.
    path : path-like

    Returns
    -------
    nn.Module
        In evaluation mode; its outputs are those of the network that was exported.

    Raises
    ------
    ValueError
        If the file is no export, or one of another architecture.
    """
    stored = read_quantized(path)
    network = copy.deepcopy(model)
    state = {name: torch.from_numpy(value) for name, value in stored.others.items()}
    state |= {name: torch.from_numpy(weight.dequantize(dtype=np.float64)) for name, weight in stored.weights.items()}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{str(path)!r} was exported from another architecture: {error}") from None
    layers = {name.rpartition(".")[0]: weight for name, weight in stored.weights.items()}
    kinds = {type(layer) for name, layer in network.named_modules() if name in {*layers, *stored.inputs}}
    network = prepare(
        network,
        lambda name, _: _quantizer(layers.get(name)),
        lambda name, _: _quantizer(stored.inputs.get(name)),
        layers=tuple(kinds),
    )
    found = {"weight": layers, "input": stored.inputs}
    for name, quantizer in quantizers(network):
        layer, _, which = name.rpartition(".")
        _load(quantizer, found[which][layer])
    return network.eval()


def _described(quantizer: FakeQuantize) -> dict[str, Any]:
    layout = quantizer.layout
    groups = {"axis": layout.axis, "block_size": layout.block_size, "block_axis": layout.block_axis}
    form = {} if quantizer.form is None else {"block_format": describe_block_format(quantizer.form)}
    return {"grid": describe_grid(quantizer.grid), **groups, **form}


def _check_castable(name: str, form: BlockFormat) -> None:
    if form.rule == "optimal" and form.scale_format is None:
        remedy = "give the format a scale_format, as in int4_g128_fp16"
        raise ValueError(f"the input of layer '{name}' is in {form!r}, whose scales NumPy cannot find; {remedy}")


def _stored(name: str, quantizer: FakeQuantize) -> dict[str, Tensor]:
    held = {"shift": quantizer.shift, "tensor_scale": quantizer.tensor_scale}
    held["scale"] = quantizer.used_scale() if quantizer.form is None else _narrowed(quantizer.scale)
    return {f"{name}.{end}": t.detach().cpu().clone().contiguous() for end, t in held.items() if t is not None}


def _narrowed(scale: Tensor) -> Tensor:
    """Block scales as float32, where that holds them all."""
    narrow = scale.float()
    return narrow if torch.equal(narrow.double(), scale) else scale


def _codes(name: str, weight: Tensor, quantizer: FakeQuantize) -> Any:
    """The codes by the library's own casting."""
    layout = quantizer.layout
    values = weight.cpu()
    array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
    check_finite(f"parameter '{name}'", array)
    groups = make_groups(array.shape, layout.axis, layout.block_size, layout.block_axis)
    shift = 0.0 if quantizer.shift is None else quantizer.shift.cpu().numpy()
    return groups.quantize(array, quantizer.grid, quantizer.used_scale().detach().cpu().numpy(), shift)


def _quantizer(stored: QuantizedTensor | None) -> FakeQuantize | None:
    if stored is None:
        return None
    if stored.form is not None:
        return FakeQuantize(stored.form, block_axis=stored.block_axis)
    shift: Any = "mean" if stored.shift.ndim else float(stored.shift)
    return FakeQuantize(
        stored.grid, "minmax", axis=stored.axis, block_size=stored.block_size, block_axis=stored.block_axis, shift=shift
    )


def _load(quantizer: FakeQuantize, stored: QuantizedTensor) -> None:
    if stored.form is not None and not stored.scale.size:
        return
    state = {"scale": torch.from_numpy(stored.scale), "state": torch.tensor(2, dtype=torch.uint8)}
    if quantizer.tensor_scale is not None:
        state["tensor_scale"] = torch.from_numpy(stored.tensor_scale)
    if quantizer.shift is not None:
        state["shift"] = torch.from_numpy(stored.shift)
    quantizer.load_state_dict(state)
