"""Work on whole checkpoints, tensor by tensor."""

from .fitting import TensorFit, checkpoint_total, fit_tensors, select_tensors

__all__ = ["TensorFit", "checkpoint_total", "fit_tensors", "select_tensors"]
