"""The training of one case, with every seed at once."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn
from torch.nn import functional

from ..._types import Array
from ...densities.base import Density
from ...densities.parametric import Gaussian
from ...densities.rectified import Rectified
from ...errors.quantization import quantization_error
from ...grids.formats import grid as as_grid
from ...samples.empirical import Empirical
from ..exporting import weights_of
from ..fake_quantize import FakeQuantize
from ..preparing import prepare, quantizers
from .networks import LAYERS, digits
from .records import Case, Record

_BATCH = 64
_RATES = {"scratch": 4e-3, "finetune": 1e-3}


def quantized(model: nn.Module, case: Case) -> nn.Module:
    """The network with the quantizers of a case: one scale for a weight or an input, in each copy."""
    if case.grid == "float":
        return model
    # The exact search takes as long as many steps, most of all on 8 bits: three times or once an epoch is enough.
    every = 1 if case.rule != "optimal" else 6 if as_grid(case.grid).bits < 8 else 18
    weight = FakeQuantize(case.grid, case.rule, axis=0, every=every)
    # Images and what comes behind a ReLU are never negative: signed integers would waste half of their codes.
    unsigned = f"u{case.grid}" if case.grid.startswith("int") else case.grid
    activation = None
    if case.activations:
        momentum = None if case.rule == "lsq" else 0.1 if every == 1 else 0.5
        activation = FakeQuantize(unsigned, case.rule, axis=0, every=every, momentum=momentum, batch_axis=1)
    return prepare(model, weight, activation, layers=LAYERS)


def train(model: nn.Module, case: Case, epochs: int, seeds: int) -> tuple[Record, nn.Module]:
    """Train with Adam and a falling rate; batches depend on the seed and the epoch alone."""
    images, labels, *_ = digits()
    network = quantized(model, case)
    optimizer = adam(network, _RATES[case.start])
    steps_per_epoch = len(images) // _BATCH
    losses, accuracies = [], []
    if case.activations:
        # The scales of the inputs before the first step.
        with torch.no_grad():
            network.train()(images[:_BATCH].expand(seeds, -1, -1, -1, -1))
    accuracies.append(_accuracy(network))
    decibels = [_decibels(network, seeds)]
    for epoch in range(epochs):
        orders = torch.stack([_order(1000 * epoch + seed, len(images)) for seed in range(seeds)])
        for number in range(steps_per_epoch):
            done = (epoch * steps_per_epoch + number) / (epochs * steps_per_epoch)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * 0.5 * (1 + math.cos(math.pi * done))
            batch = orders[:, number * _BATCH : (number + 1) * _BATCH]
            losses.append(step(network, optimizer, images[batch], labels[batch]))
        accuracies.append(_accuracy(network))
        decibels.append(_decibels(network, seeds))
    layers = tuple(decibels[0])
    rows = np.array([[epoch[name] for name in layers] for epoch in decibels]).reshape(len(decibels), -1, 3, seeds)
    loss = torch.stack(losses).double().numpy() if losses else np.zeros((0, seeds))
    return Record(case, layers, loss, np.stack(accuracies), *np.moveaxis(rows, 2, 0)), network


def adam(network: nn.Module, rate: float) -> torch.optim.Adam:
    """Adam, whose steps are of the size of the rate: for learned scales it is smaller, as they are than the weights."""
    scales = {q.scale: q.constant for _, q in quantizers(network) if q.rule == "lsq"}
    others = [parameter for parameter in network.parameters() if parameter not in scales]
    groups = [{"params": others, "lr": rate}] + [{"params": [s], "lr": rate * size} for s, size in scales.items()]
    for group in groups:
        group["initial_lr"] = group["lr"]
    return torch.optim.Adam(groups)


def step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> Tensor:
    """One step of every copy; the loss of each."""
    logits = network.train()(images)
    each = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    loss = each.view(labels.shape).mean(1)
    optimizer.zero_grad()
    # The sum: no copy feels the others.
    loss.sum().backward()
    optimizer.step()
    return loss.detach()


def _order(seed: int, count: int) -> Tensor:
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def _accuracy(network: nn.Module) -> Array:
    *_, images, labels = digits()
    seeds = next(network.parameters()).shape[0]
    logits = network.eval()(images.expand(seeds, -1, -1, -1, -1))
    return (logits.argmax(-1) == labels).double().mean(1).numpy()


def _decibels(network: nn.Module, seeds: int) -> dict[str, tuple[Array, Array, Array]]:
    """SQNR of each layer for every seed: measured, predicted from the data, predicted from a fitted density."""
    found = {}
    for name, (signal, quantizer) in (weights_of(network) | _inputs_of(network, seeds)).items():
        with torch.no_grad():
            rounded = quantizer.eval()(signal)
        x, y = (t.double().flatten(1).numpy() for t in (signal, rounded))
        scale = quantizer.used_scale().detach().double().flatten().numpy()
        measured = 10 * np.log10(np.square(x).sum(axis=1) / np.square(x - y).sum(axis=1))
        fitted = _gaussian(x) if name.endswith("weight") else _rectified(x)
        predicted = (quantization_error(density, quantizer.grid, scale) for density in (Empirical(x, axis=0), fitted))
        found[name] = (measured, *(error.sqnr_db for error in predicted))
    return found


@torch.no_grad()
def _inputs_of(network: nn.Module, seeds: int) -> dict[str, tuple[Tensor, FakeQuantize]]:
    """What the quantizers behind a ReLU are given; images, of 17 values, are often represented exactly."""
    inputs = {name: quantizer for name, quantizer in quantizers(network) if name.endswith("input")}
    seen: dict[str, tuple[Tensor, FakeQuantize]] = {}

    def note(quantizer: FakeQuantize, given: tuple[Tensor]) -> None:
        seen[labels[quantizer]] = given[0], quantizer

    labels = {quantizer: name for name, quantizer in list(inputs.items())[1:]}
    handles = [quantizer.register_forward_pre_hook(note) for quantizer in labels]
    if labels:
        network.eval()(digits()[0][:_BATCH].expand(seeds, -1, -1, -1, -1))
    for handle in handles:
        handle.remove()
    return seen


def _gaussian(x: Array) -> Density:
    return Gaussian(x.mean(axis=1), x.std(axis=1))


def _rectified(x: Array) -> Density:
    """The rectified Gaussian that has the zeros and the mean square of each row."""
    # A row without zeros, or of zeros only, counts as having half a zero, or half a value.
    zeros = np.clip((x == 0).mean(axis=1), 0.5 / x.shape[1], 1 - 0.5 / x.shape[1])
    shape = Rectified(Gaussian(-ndtri(zeros), np.ones(len(x))))
    power = shape.moments(0.0, np.inf, 0.0)[2]
    std = np.sqrt(np.maximum(np.square(x).mean(axis=1), 1e-30) / power)
    return Rectified(Gaussian(-ndtri(zeros) * std, std))
