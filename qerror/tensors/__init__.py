"""Real tensors: reading them from files."""

from .checkpoints import Checkpoint, TensorInfo, example_checkpoint, list_tensors, open_checkpoint, read_tensor
from .quantized import QuantizedFile, QuantizedTensor, read_quantized

__all__ = [
    "Checkpoint",
    "QuantizedFile",
    "QuantizedTensor",
    "TensorInfo",
    "example_checkpoint",
    "list_tensors",
    "open_checkpoint",
    "read_quantized",
    "read_tensor",
]
