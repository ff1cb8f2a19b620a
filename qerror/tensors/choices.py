"""What is asked of every group of a tensor, and what is chosen for each."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from ..grids.block_formats import BlockFormat
from ..grids.grid import Grid
from ..rules import Rule
from .scale_formats import Stored


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is asked of every group.

    Attributes
    ----------
    grid : Grid
    rule : callable
    label : str
        What the rule is called.
    shift : "mean", "optimal" or ndarray
        The shift of every group, or how it is chosen.
    zero_point : {None, "integer", "storable"}
        Whether -shift / scale must be an integer, or one of the codes; the shift is then chosen.
    stored : Stored or None
        The scales that can be stored.
    either_sign : bool
        Whether scales may be negative, which turns the grid around.
    form : BlockFormat or None
        The block format that was asked for: its scales are those of casting, where 0 may be stored, too.
    """

    grid: Grid
    rule: Rule
    label: str
    shift: Any
    zero_point: str | None = None
    stored: Stored | None = None
    either_sign: bool = False
    form: BlockFormat | None = None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Flat arrays, one entry a row."""

    scale: Array
    shift: Array
    status: NDArray[np.object_]
    zero_point: NDArray[np.int64] | None = None


def flat(count: int, scale: Any, shift: Any, status: Any) -> Choice:
    """A choice of one entry a row, from arrays or numbers."""
    if not {np.size(scale), np.size(shift)} <= {1, count}:
        wanted = f"one scale and shift, or one for each of the {count} groups that it was given"
        raise ValueError(f"a rule must return {wanted}, got {np.size(scale)} and {np.size(shift)}")
    columns = [np.broadcast_to(np.ravel(np.asarray(value, np.float64)), count) for value in (scale, shift)]
    return Choice(columns[0], columns[1], np.broadcast_to(np.ravel(np.asarray(status, object)), count))
