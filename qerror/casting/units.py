"""How an array is cut for casting: into units for the cache, and units into chunks for the threads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._threads import CHUNK

# Elements that one NumPy call works on: a few such buffers fit the second-level cache, and the calls are long enough
# that threads seldom meet at the interpreter lock, whose hand-over costs as much as 10 000 elements.
UNIT = 1 << 18

# NumPy holds the interpreter lock while it looks values up in a table, which is about half of the work: a third thread
# gains nothing on an idle machine and loses on a busy one.
TABLE_THREADS = 2


@dataclass(frozen=True)
class Unit:
    """A block of consecutive elements: as an index of the shaped arrays and as a slice of the flat ones."""

    index: tuple[Any, ...]
    start: int
    size: int

    @property
    def flat(self) -> slice:
        """The unit in the flattened array."""
        return slice(self.start, self.start + self.size)


def cut(shape: tuple[int, ...]) -> list[list[Unit]]:
    """Cut an array into units, and put units together to chunks of about CHUNK elements; both by the shape alone.

    Examples
    --------
    >>> [unit.index for unit in cut((2, 3))[0]]
    [(slice(0, 2, None),)]
    """
    chunks: list[list[Unit]] = []
    filled = CHUNK
    for unit in _units(shape):
        if filled >= CHUNK:
            chunks.append([])
            filled = 0
        chunks[-1].append(unit)
        filled += unit.size
    return chunks


def longest(chunks: list[list[Unit]]) -> int:
    """The size of the longest unit of the chunks that ``cut`` made."""
    return max((unit.size for units in chunks for unit in units), default=0)


def _units(shape: tuple[int, ...]) -> Iterator[Unit]:
    if 0 in shape:
        return
    # The axis to cut is the first one whose trailing block fits a unit; axes before it are walked one by one.
    axis = next((a for a in range(len(shape)) if math.prod(shape[a + 1 :]) <= UNIT), 0)
    if not shape:
        yield Unit((...,), 0, 1)
        return
    inner = math.prod(shape[axis + 1 :])
    rows = max(1, UNIT // inner)
    start = 0
    for lead in np.ndindex(shape[:axis]):
        for row in range(0, shape[axis], rows):
            stop = min(row + rows, shape[axis])
            yield Unit((*lead, slice(row, stop)), start, (stop - row) * inner)
            start += (stop - row) * inner
