"""Files of tensors: what their formats look like; reading and writing only."""

from .checkpoint import Checkpoint, example_checkpoint, list_tensors, open_checkpoint, read_tensor
from .elements import TensorInfo
from .quantized import QuantizedFile, QuantizedTensor, read_quantized
from .quantized_weights import dequantized

__all__ = [
    "Checkpoint",
    "QuantizedFile",
    "QuantizedTensor",
    "TensorInfo",
    "dequantized",
    "example_checkpoint",
    "list_tensors",
    "open_checkpoint",
    "read_quantized",
    "read_tensor",
]
