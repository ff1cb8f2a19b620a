"""Memory that the workers of a cast use again and again."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

Buffer = NDArray[Any]


class Scratch:
    """Memory that the steps of one worker use again and again, so that it stays in the cache.

    Parameters
    ----------
    size : int
        Elements of the longest buffer, of at most eight bytes each.

    Attributes
    ----------
    rng : numpy.random.Generator or None
        The stream of the chunk at work, for stochastic rounding.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._slots: dict[str, NDArray[np.uint8]] = {}
        self.rng: np.random.Generator | None = None

    def take(self, slot: str, dtype: Any, size: int) -> Buffer:
        """Return a buffer of `size` elements of a dtype; the same slot is the same memory."""
        if slot not in self._slots:
            self._slots[slot] = np.empty(8 * self._size, dtype=np.uint8)
        return self._slots[slot][: size * np.dtype(dtype).itemsize].view(dtype)


class ScratchPool:
    """One Scratch for each thread that asks, alive as long as the pool.

    Parameters
    ----------
    size : int
        Elements of the longest buffer.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._local = threading.local()

    def of_thread(self, rng: np.random.Generator | None = None) -> Scratch:
        """Return the scratch memory of the calling thread, with the stream of its present chunk."""
        scratch: Scratch | None = getattr(self._local, "scratch", None)
        if scratch is None:
            scratch = self._local.scratch = Scratch(self._size)
        scratch.rng = rng
        return scratch
