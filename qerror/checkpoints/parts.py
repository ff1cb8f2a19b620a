"""What remains of fitted rows: sums and scales, and parts of a tensor as one."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .moments import Moments, joined


@dataclasses.dataclass
class FormatPart:
    """What one format costs on some rows.

    Attributes
    ----------
    mse : dict of str to float
        By rule: the sum of squared errors, weighted.
    power, weight : float
        Sums of squares and of weights.
    groups : int
    unusual : dict of str to dict of str to int
        By rule: how many groups have a status that needs words.
    arrays : dict of str to ndarray
        Of the first rule: scale, shift, and where there are such zero_point, tensor_scale and codes.
    wanted : tuple of str
        The rules that were asked for ("optimal" is measured in any case), and "given".
    """

    mse: dict[str, float]
    power: float
    weight: float
    groups: int
    unusual: dict[str, dict[str, int]]
    arrays: dict[str, NDArray[Any]]
    wanted: tuple[str, ...] = ()


@dataclasses.dataclass
class Part:
    """Rows `begin` to `end` of a tensor, fitted: the moments of their values, and what each format costs."""

    name: str
    begin: int
    end: int
    moments: Moments
    formats: dict[str, FormatPart]


def joined_parts(parts: Sequence[Part]) -> Part:
    """Parts of one tensor, in their order, as one."""
    formats = {}
    for grid in parts[0].formats:
        mine = [part.formats[grid] for part in parts]
        rules = [rule for rule in mine[0].mse if all(rule in each.mse for each in mine)]
        formats[grid] = FormatPart(
            {rule: math.fsum(each.mse[rule] for each in mine) for rule in rules},
            math.fsum(each.power for each in mine),
            math.fsum(each.weight for each in mine),
            sum(each.groups for each in mine),
            {rule: _summed([each.unusual.get(rule, {}) for each in mine]) for rule in mine[0].unusual},
            {name: _concatenated([each.arrays[name] for each in mine], name) for name in mine[0].arrays},
            mine[0].wanted,
        )
    moments = joined(part.moments for part in parts)
    return Part(parts[0].name, parts[0].begin, parts[-1].end, moments, formats)


def _summed(tables: Sequence[Mapping[str, int]]) -> dict[str, int]:
    names = dict.fromkeys(name for table in tables for name in table)
    return {name: sum(table.get(name, 0) for table in tables) for name in names}


def _concatenated(arrays: Sequence[NDArray[Any]], name: str) -> NDArray[Any]:
    """One after the other, flat; what the whole tensor has once stays so."""
    if name == "tensor_scale" or len(arrays) == 1:
        return arrays[0]
    return np.concatenate([array.reshape(-1) for array in arrays])
