"""Importance of the elements of a checkpoint's tensors, from a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from ..files.checkpoint import open_checkpoint
from ..files.elements import TensorInfo
from ..files.mapping import Checkpoint

# Up to here the weights of all elements are simply read.
_FEW = 1 << 16


@dataclasses.dataclass(frozen=True)
class ElementWeights:
    """A weight for each element of a tensor: as large as it, so that parts are read when they are needed."""

    file: Checkpoint
    key: str
    shape: tuple[int, ...]

    def part(self, begin: int, end: int) -> NDArray[np.float64]:
        """Those of elements `begin` to `end`, flat."""
        return np.asarray(self.file.part(self.key, begin, end), np.float64)

    def whole(self) -> NDArray[np.float64]:
        """All of them."""
        return np.asarray(self.file[self.key], np.float64)


class Weights:
    """Importance of the elements of tensors, from a file: NAME, NAME.weights, or an imatrix (NAME.in_sum2)."""

    def __init__(self, path: str) -> None:
        self._file = open_checkpoint(path)
        self._path = path
        self.stamp = sorted({self._file.stamp(name) for name in self._file})

    def names(self, tensors: Sequence[str]) -> list[str]:
        """Those of the tensors that have weights."""
        return [name for name in tensors if self._key(name)]

    def _key(self, name: str) -> str | None:
        return next((key for key in (f"{name}.weights", f"{name}.in_sum2", name) if key in self._file), None)

    def __call__(self, info: TensorInfo) -> NDArray[Any] | ElementWeights | None:
        """Weights that broadcast to the tensor; None where the file has none for it."""
        key = self._key(info.name)
        if key is None:
            return None
        if self._file.info(key).shape == info.shape and info.size > _FEW and not key.endswith(".in_sum2"):
            return ElementWeights(self._file, key, info.shape)
        found = np.asarray(self._file[key], np.float64)
        if key.endswith(".in_sum2"):
            # Sums over tokens: experts see different ones, elsewhere only ratios matter.
            counts = (
                np.asarray(self._file[f"{info.name}.counts"], np.float64) if f"{info.name}.counts" in self._file else 1
            )
            found = found / np.maximum(counts, 1) if np.ndim(counts) else found
            found = found.reshape(found.shape if found.ndim < 2 or len(info.shape) < 3 else (found.shape[0], 1, -1))
            found = found.reshape(-1) if len(info.shape) < 3 else found
        try:
            fits = np.broadcast_shapes(found.shape, info.shape) == info.shape
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"weights of shape {found.shape} for {shown(info.name, 60)} in {shown(self._path)} must broadcast to "
                f"its shape {info.shape}: one for each column"
            )
        return found
