"""How often each bit pattern of a narrow type is there: all that a distribution of such values is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .._threads import thread_map
from ..files.elements import TensorInfo, packed_bits, values_of_codes
from ..files.mapping import Checkpoint
from .moments import Moments, moments_of, sorted_values

_NARROW = ("F16", "BF16", "F8_E4M3", "F8_E5M2", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "F8_E8M0")
# Elements that one thread counts at a time.
_STEP = 1 << 22
# Up to so many elements sorting takes less than a table of 65 536 counts.
_SORTED = 1 << 13


@dataclasses.dataclass(frozen=True)
class Patterns:
    """Counts of bit patterns.

    Attributes
    ----------
    dtype : str
        The type of the elements, as in `TensorInfo`.
    codes : ndarray of uint16
        The patterns that are there, ascending.
    counts : ndarray of int64
    """

    dtype: str
    codes: NDArray[np.uint16]
    counts: NDArray[np.int64]

    @property
    def size(self) -> int:
        """How many elements were counted."""
        return int(self.counts.sum())

    def values(self, *, folded: bool = False) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """The values, ascending (0 and -0 apart), and how often each is there; `folded`: of their magnitudes.

        Raises
        ------
        ValueError
            For NaN or infinity among them.
        """
        values = values_of_codes(self.dtype)[self.codes]
        if not np.isfinite(values).all():
            bad = ~np.isfinite(values)
            nan, total = int(self.counts[np.isnan(values)].sum()), self.size
            inf = int(self.counts[bad].sum()) - nan
            found = " and ".join(text for text, n in ((f"{nan} NaN", nan), (f"{inf} infinite", inf)) if n)
            raise ValueError(f"x must be finite, got {found} of {total} values")
        return sorted_values(values, self.counts, folded=folded)

    def moments(self) -> Moments:
        """Moments of all values."""
        return moments_of(*self.values())

    def merged(self, other: Patterns) -> Patterns:
        """The counts of both, exactly, in any order."""
        if other.dtype != self.dtype:
            raise ValueError(f"sketches must be of one type to be merged, got {self.dtype} and {other.dtype}")
        codes, place = np.unique(np.concatenate([self.codes, other.codes]), return_inverse=True)
        counts = np.zeros(codes.size, np.int64)
        np.add.at(counts, place, np.concatenate([self.counts, other.counts]))
        return Patterns(self.dtype, codes, counts)


def countable(dtype: str) -> bool:
    """Whether elements have few enough bit patterns to be counted."""
    return dtype in _NARROW


def patterns_of(dtype: str, bits: NDArray[np.integer]) -> Patterns:
    """Count the bit patterns of some elements."""
    if bits.size <= _SORTED:
        found, times = np.unique(bits, return_counts=True)
        return Patterns(dtype, found.astype(np.uint16), times)
    total = np.bincount(bits, minlength=1 << packed_bits(dtype))
    codes = np.flatnonzero(total)
    return Patterns(dtype, codes.astype(np.uint16), total[codes])


def count_patterns(
    checkpoint: Checkpoint,
    info: TensorInfo,
    progress: Callable[[int], None] | None = None,
    part: tuple[int, int] | None = None,
) -> Patterns:
    """Count the bit patterns of a tensor, or of its elements from one to another."""
    bits, (begin, end) = packed_bits(info.dtype), part or (0, info.size)
    if end - begin <= _SORTED:
        found = patterns_of(info.dtype, checkpoint.part_bits(info.name, begin, end))
        if progress:
            progress((end - begin) * bits // 8)
        return found

    def work(start: int) -> NDArray[np.int64]:
        last = min(start + _STEP, end)
        found = np.bincount(checkpoint.part_bits(info.name, start, last), minlength=1 << bits)
        if progress:
            progress((last - start) * bits // 8)
        return found

    total = np.zeros(1 << bits, np.int64)
    starts = list(range(begin, end, _STEP))
    # A few at a time: their tables are added up in between.
    for some in range(0, len(starts), 64):
        total += np.sum(thread_map(work, starts[some : some + 64]), axis=0)
    codes = np.flatnonzero(total)
    return Patterns(info.dtype, codes.astype(np.uint16), total[codes])
