"""What is trained, and what came out."""

from __future__ import annotations

import dataclasses

import numpy as np

from ..._types import Array


@dataclasses.dataclass(frozen=True, order=True)
class Case:
    """One setting, trained with every seed at once.

    Attributes
    ----------
    model : {"mlp", "cnn"}
    start : {"scratch", "finetune"}
        From the seeds' initial weights, or from the networks trained in full precision.
    activations : bool
        Whether the inputs of the layers are quantized beside the weights.
    grid : str
        "float" is full precision.
    rule : str
    """

    model: str
    start: str
    activations: bool
    grid: str
    rule: str


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """The training of a case; the last axis of every array is the seed.

    Attributes
    ----------
    case : Case
    layers : tuple of str
        What is quantized: "name.weight" and, for layers behind a ReLU, "name.input".
    loss : ndarray of shape (steps, seeds)
        Training loss of each step.
    accuracy : ndarray of shape (epochs + 1, seeds)
        Share of the test images that are right, before training and after each epoch.
    measured_db, empirical_db, fitted_db : ndarray of shape (epochs + 1, layers, seeds)
        SQNR: of the tensors used, predicted from their distribution, predicted from a fitted density (a Gaussian for
        weights, a rectified one for inputs).
    """

    case: Case
    layers: tuple[str, ...]
    loss: Array
    accuracy: Array
    measured_db: Array
    empirical_db: Array
    fitted_db: Array

    def final_sqnr(self, kind: str) -> Array:
        """SQNR of the "weight" or the "input" of the layers after training, dB, their mean for each seed."""
        found: Array = self.measured_db[-1, [name.endswith(f".{kind}") for name in self.layers]].mean(axis=0)
        return found

    def roughness(self) -> Array:
        """How much the loss jumps from step to step, in its second half: RMS of second differences / sqrt(6).

        For white noise upon a smooth curve this is the standard deviation of the noise; the curve itself drops out.
        The order of the batches is the same under all rules, and so is what it contributes.
        """
        half = self.loss[len(self.loss) // 2 :]
        jumps = np.diff(half, 2, axis=0)
        found: Array = np.sqrt(np.square(jumps).mean(axis=0) / 6)
        return found
