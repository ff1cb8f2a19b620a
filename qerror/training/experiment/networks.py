"""Digits, and small networks of which one module holds as many copies as there are seeds.

The copies share nothing but the time that a call costs: the first axis of weights and signals is the seed.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..._check import check_choice

# A third of the images, the same for all seeds, is never trained on.
_SPLIT_SEED, _TEST_SHARE = 7, 3


@functools.cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images (n, 1, 8, 8) with pixels from 0 to 1 and labels to train on, then those to test on."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"the digits come with scikit-learn: pip install 'qerror[data]' ({error})") from error
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).div_(16).unsqueeze_(1)
    labels = torch.tensor(data.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(_SPLIT_SEED))
    test, train = order[: len(order) // _TEST_SHARE], order[len(order) // _TEST_SHARE :]
    return images[train], labels[train], images[test], labels[test]


class ManyLinear(nn.Module):
    """`seeds` linear layers: (seeds, batch, inputs) to (seeds, batch, outputs)."""

    def __init__(self, seeds: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_start(seeds, outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(seeds, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """All of them at once."""
        return torch.baddbmm(self.bias, x, self.weight.transpose(1, 2))


class ManyConv2d(nn.Module):
    """`seeds` 3 x 3 convolutions: (seeds, batch, channels, h, w), as one grouped convolution."""

    def __init__(self, seeds: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(_start(seeds, outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(seeds, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """All of them at once."""
        seeds, batch, channels, height, width = x.shape
        merged = x.transpose(0, 1).reshape(batch, seeds * channels, height, width)
        out = functional.conv2d(merged, self.weight.flatten(0, 1), self.bias.flatten(), padding=1, groups=seeds)
        return out.view(batch, seeds, -1, height, width).transpose(0, 1)


LAYERS = (ManyLinear, ManyConv2d)


def _start(seeds: int, *shape: int) -> Tensor:
    """He's initial weights, each seed and shape from a generator of its own."""
    scale, size = math.sqrt(2 / math.prod(shape[1:])), math.prod(shape)
    drawn = [torch.randn(shape, generator=torch.Generator().manual_seed(10**6 * seed + size)) for seed in range(seeds)]
    return scale * torch.stack(drawn)


class _Pool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


def network(model: str, seeds: int) -> nn.Sequential:
    """An MLP 64-48-32-10 or a CNN of two convolutions and one linear layer."""
    check_choice("model", model, ("mlp", "cnn"))
    if model == "mlp":
        return nn.Sequential(
            nn.Flatten(2), ManyLinear(seeds, 64, 48), nn.ReLU(), ManyLinear(seeds, 48, 32), nn.ReLU(),
            ManyLinear(seeds, 32, 10),
        )  # fmt: skip
    return nn.Sequential(
        ManyConv2d(seeds, 1, 8), nn.ReLU(), _Pool(), ManyConv2d(seeds, 8, 16), nn.ReLU(), _Pool(), nn.Flatten(2),
        ManyLinear(seeds, 64, 10),
    )  # fmt: skip
