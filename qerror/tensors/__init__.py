"""Real tensors: reading them from files."""

from .checkpoints import Checkpoint, TensorInfo, example_checkpoint, list_tensors, open_checkpoint, read_tensor

__all__ = ["Checkpoint", "TensorInfo", "example_checkpoint", "list_tensors", "open_checkpoint", "read_tensor"]
