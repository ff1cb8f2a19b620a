"""Scales in equal ratios, for each row its own."""

from __future__ import annotations

import numpy as np

from ..._types import Array, Index
from ..points import numbered

# Scales an octave: enough to separate the minima of every named format on a smooth density.
PER_OCTAVE = 8


def ladder(rows: Index, low: Array, first: Array, last: Array, per_octave: int = PER_OCTAVE) -> tuple[Index, Array]:
    """Steps `first` to `last` of each row's ladder low * 2^(step / per_octave)."""
    count = np.maximum(last - first + 1, 0).astype(np.intp)
    owner, place = numbered(count)
    return rows[owner], low[owner] * np.exp2((place + first[owner]) / per_octave)
