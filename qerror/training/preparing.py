"""A network with quantizers in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from .._check import shown, suggest
from ..tensors.groups import make_groups
from .fake_quantize import FakeQuantize

INPUT = "input_quantizer"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)

Choice = FakeQuantize | Callable[[str, nn.Module], FakeQuantize | None] | None


def prepare(
    model: nn.Module,
    weight: Choice = None,
    activation: Choice = None,
    *,
    skip: Sequence[str] = (),
    layers: tuple[type[nn.Module], ...] = _LAYERS,
) -> nn.Module:
    """A copy of a network whose layers quantize their weights, their inputs, or both.

    Weights are parametrized (`torch.nn.utils.parametrize`), inputs pass a quantizer of their own first. Each layer gets
    its own copy of the quantizer given. Make the optimizer from the copy: it has its own parameters.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    weight, activation : FakeQuantize or callable, optional
        A quantizer that has seen no data, or a function (name of the layer, layer) that returns one or None. For
        activations give it a `momentum`, or a block format.
    skip : sequence of str
        Names of layers to leave alone; "block.*" works.
    layers : tuple of types
        Which layers have a "weight" and one input to quantize.

    Raises
    ------
    ValueError
        If `skip` names no layer, there is nothing to quantize, a layer has no weight, or a weight is not finite or too
        short along the block axis of a block format.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> quantized = prepare(model, weight=FakeQuantize("e2m1", axis=0), skip=["2"])
    >>> [name for name, _ in quantizers(quantized)]
    ['0.weight']
    >>> mx = prepare(model, weight=FakeQuantize("mxfp4"), activation=FakeQuantize("mxfp8_e4m3"))
    """
    network = copy.deepcopy(model)
    found = {name: layer for name, layer in network.named_modules() if isinstance(layer, layers)}
    chosen = {name: layer for name, layer in found.items() if not _skipped(name, skip, list(found))}
    if not chosen:
        raise ValueError(f"model must have layers to quantize, got {len(found)} of which skip leaves out all")
    for pattern in skip:
        if not any(fnmatchcase(name, pattern) for name in found):
            raise ValueError(f"skip names no layer: {pattern!r}{suggest(pattern, found)}")
    for name, layer in chosen.items():
        if not isinstance(getattr(layer, "weight", None), Tensor):
            raise ValueError(f"layers must be types with a 'weight', got {type(layer).__name__} (layer {name!r})")
        prefix = f"{name}." if name else ""
        if (quantizer := _own(weight, name, layer, f"parameter '{prefix}weight'")) is not None:
            _check_blocks(quantizer, name, layer.weight)
            # In training mode, which PyTorch gives on to the quantizer, the weight gives it its first scale.
            training = layer.training
            parametrize.register_parametrization(layer.train(), "weight", quantizer.to(layer.weight.device))
            layer.train(training)
        label = f"the input of layer '{name}'" if name else "the input of the model"
        if (quantizer := _own(activation, name, layer, label)) is not None:
            if quantizer.batch_axis is None:
                quantizer.batch_axis = 0
            layer.add_module(INPUT, quantizer.to(layer.weight.device).train(layer.training))
            layer.register_forward_pre_hook(_quantize_input)
    return network


def quantizers(model: nn.Module) -> Iterator[tuple[str, FakeQuantize]]:
    """The quantizers of a prepared network with the names "layer.weight" and "layer.input".

    Yields
    ------
    tuple of str and FakeQuantize
    """
    for path, module in model.named_modules():
        if isinstance(module, FakeQuantize):
            name = path.replace(INPUT, "input")
            layer, parametrized, rest = name.rpartition("parametrizations.")
            yield (layer + rest.partition(".")[0] if parametrized else name), module


def freeze(model: nn.Module) -> nn.Module:
    """Keep all scales from now on, and return the model.

    Quantizers that have seen no data are left as they are, and those of inputs in block formats, whose scales belong to
    the data: each has its own `freeze`.
    """
    for name, quantizer in quantizers(model):
        if quantizer.ready and (quantizer.form is None or not name.endswith("input")):
            quantizer.freeze()
    return model


def _quantize_input(layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return (getattr(layer, INPUT)(inputs[0]), *inputs[1:])


def _check_blocks(quantizer: FakeQuantize, name: str, weight: Tensor) -> None:
    """Refuse at once what could be trained, but neither reported nor exported."""
    if quantizer.form is None:
        return
    try:
        make_groups(tuple(weight.shape), None, quantizer.layout.block_size, quantizer.layout.block_axis)
    except ValueError as error:
        raise ValueError(f"give the weight another block_axis, or skip layer {name!r}: {error}") from None


def _own(choice: Choice, name: str, layer: nn.Module, label: str) -> FakeQuantize | None:
    """A layer's own quantizer."""
    if callable(choice) and not isinstance(choice, FakeQuantize):
        choice = choice(name, layer)
    if choice is None:
        return None
    if not isinstance(choice, FakeQuantize):
        raise ValueError(f"the choice for layer {name!r} must be a FakeQuantize or None, got {shown(choice)}")
    quantizer = copy.deepcopy(choice)
    quantizer.name = label
    return quantizer


def _skipped(name: str, skip: Sequence[str], known: list[str]) -> bool:
    if isinstance(skip, str):
        raise ValueError(f"skip must be a list of names, got {skip!r}; put it in brackets")
    return any(fnmatchcase(name, pattern) for pattern in skip)
