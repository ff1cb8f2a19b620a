"""Quantization-aware training in PyTorch: fake quantization whose scales come from this library's rules.

Needs PyTorch (``pip install 'qerror[torch]'``); nothing else in the library does.

Examples
--------
>>> import torch
>>> from qerror.training import FakeQuantize, prepare
>>> model = prepare(torch.nn.Linear(8, 2), weight=FakeQuantize("int4", rule="analytic", axis=0))
>>> model(torch.zeros(3, 8)).shape
torch.Size([3, 2])
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(f"qerror.training needs PyTorch: pip install 'qerror[torch]' ({error})") from error

from .exporting import export, load_export
from .fake_quantize import FakeQuantize
from .preparing import freeze, prepare, quantizers
from .report import LayerReport, weight_report

__all__ = [
    "FakeQuantize",
    "LayerReport",
    "export",
    "freeze",
    "load_export",
    "prepare",
    "quantizers",
    "weight_report",
]
