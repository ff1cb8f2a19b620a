"""How the groups of a torch tensor lie: as views in which a scale broadcasts, and back."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which elements share a scale; the axes as in `qerror.fit`.

    Attributes
    ----------
    axis : tuple of int or None
        The axes that keep their own scale. None: one for the tensor, or blocks.
    block_size : int or None
    block_axis : int
    """

    axis: tuple[int, ...] | None = None
    block_size: int | None = None
    block_axis: int = -1

    @property
    def whole(self) -> bool:
        """Whether a tensor is one group."""
        return self.axis is None and self.block_size is None

    def views(self, x: Tensor) -> list[tuple[Tensor, tuple[int, ...]]]:
        """Parts of x, each with the axes that its groups span: x itself, or full blocks and the ragged ones."""
        if self.block_size is None:
            kept = {self._index(axis, x) for axis in self.axis or ()}
            return [(x, tuple(d for d in range(x.ndim) if d not in kept))]
        last = x.movedim(self._index(self.block_axis, x), -1)
        cut = last.shape[-1] - last.shape[-1] % self.block_size
        parts = []
        if cut:
            parts.append(last[..., :cut].unflatten(-1, (-1, self.block_size)))
        if cut < last.shape[-1]:
            parts.append(last[..., cut:].unflatten(-1, (1, -1)))
        return [(part, (part.ndim - 1,)) for part in parts]

    def join(self, parts: list[Tensor], x: Tensor) -> Tensor:
        """The inverse of `views`, for parts of the same shapes."""
        if self.block_size is None:
            return parts[0]
        return torch.cat([part.flatten(-2) for part in parts], -1).movedim(-1, self.block_axis)

    def join_scales(self, parts: list[Tensor]) -> Tensor:
        """One entry a group, in the shape that `qerror.fit` gives scales, from those with the axes of the views."""
        if self.block_size is None:
            return parts[0].reshape(()) if self.axis is None else parts[0]
        return torch.cat([part.squeeze(-1) for part in parts], -1).movedim(-1, self.block_axis)

    def blocks_of(self, x: Tensor) -> tuple[int, ...]:
        """The shape of the scales of all blocks of x."""
        axis, size = self._index(self.block_axis, x), self.block_size or 1
        return tuple(-(-n // size) if d == axis else n for d, n in enumerate(x.shape))

    def split_scales(self, scale: Tensor, x: Tensor) -> list[Tensor]:
        """The inverse of `join_scales`: what broadcasts against each view of x."""
        if self.block_size is None:
            return [scale]
        last = scale.movedim(self.block_axis, -1)
        full = x.shape[self.block_axis] // self.block_size
        parts = [last[..., :full], last[..., full:]]
        return [part.unsqueeze(-1) for part in parts if part.shape[-1]]

    def _index(self, axis: int, x: Tensor) -> int:
        if not -x.ndim <= axis < x.ndim:
            raise ValueError(f"axis must be from {-x.ndim} to {x.ndim - 1} for x of shape {tuple(x.shape)}, got {axis}")
        return axis % x.ndim
