"""The scales in use, of a quantized checkpoint or of a file of scales: where they lie, and what they cost."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..._check import shown
from ...casting.cast import fake_quantize
from ...files.elements import TensorInfo
from ...files.quantized_weight import QuantizedWeight
from ...tensors.fitting import fit
from ...tensors.groups import Groups, make_groups
from ..planning.plan import KEEP
from ..recipe import Recipe

# Of the scales of all groups.
_QUANTILES = (0.1, 0.5, 0.9)


@dataclasses.dataclass(frozen=True)
class Present:
    """The scales in use, on the rows that a profile looks at.

    Attributes
    ----------
    format : str
    mse : float
        Of what is stored: codes of a quantized checkpoint as they are, values nearest to levels for a file of scales.
    ratio : tuple of float
        10 %, median and 90 % over the groups: the scale in use over that of minmax.
    """

    format: str
    mse: float
    ratio: tuple[float, float, float]


# Rows of a tensor, by number and as values -> its scales in use; None where there are none.
Finder = Callable[[TensorInfo, NDArray[np.intp], NDArray[Any]], Present | None]


def of_quantized(weights: Mapping[str, QuantizedWeight]) -> Finder:
    """Codes and scales of a quantized checkpoint, of weights that the model keeps the same way around."""

    def find(info: TensorInfo, chosen: NDArray[np.intp], x: NDArray[Any]) -> Present | None:
        weight = weights.get(info.name)
        if weight is None or weight.transposed or weight.info.shape != info.shape:
            return None
        height, width = weight.block
        whole = weight.block == (weight.rows, weight.columns)
        if height > 1 and len(chosen) < weight.rows and not whole:
            # Tiles of which some rows were not looked at.
            return None
        parts = [weight.part(begin, end) for begin, end in _runs(chosen)]
        back = np.concatenate([part.dequantize(np.float64) for part in parts])
        scale = np.concatenate([part.scale for part in parts])[::height]
        groups = make_groups(x.shape, None, None if whole else (height, width))
        return _present(weight.info.dtype, x, back, weight.grid, groups, scale)

    return find


def check_scales(given: Mapping[str, NDArray[Any]], formats: Sequence[str], infos: Sequence[TensorInfo]) -> None:
    """Refuse scales that belong to none of the tensors, or to no format of the report."""
    known = [info for info in infos if f"{info.name}.scale" in given]
    if not known:
        raise ValueError(f"scales has no NAME.scale of any tensor of the report, such as {shown(infos[0].name, 60)}")
    for info in known:
        _format_of(given, formats, info)


def _format_of(given: Mapping[str, NDArray[Any]], formats: Sequence[str], info: TensorInfo) -> str:
    """The first format whose scales have the shape of those given."""
    shape = np.shape(given[f"{info.name}.scale"])
    form = next((text for text in formats if text != KEEP and _groups(text, info).scale_shape == shape), None)
    if form is None:
        raise ValueError(
            f"{shown(info.name, 60)} has scales of shape {shape}, which no format of the report has; name theirs "
            "as the first of formats"
        )
    return form


def of_scales(given: Mapping[str, NDArray[Any]], formats: Sequence[str]) -> Finder:
    """A file of `qerror fit`: NAME.scale, NAME.shift and NAME.tensor_scale, in the first format of that shape."""

    def find(info: TensorInfo, chosen: NDArray[np.intp], x: NDArray[Any]) -> Present | None:
        if f"{info.name}.scale" not in given:
            return None
        scale = np.asarray(given[f"{info.name}.scale"], np.float64)
        form = _format_of(given, formats, info)
        groups, grid = _groups(form, info), Recipe((form,)).form(form).grid
        if not groups.whole and any(tile != 1 for tile in groups.tile[:-1]):
            return None
        here = Groups(x.shape, x.shape) if groups.whole else Groups(x.shape, (1, groups.tile[-1]))
        unit = float(given.get(f"{info.name}.tensor_scale", 1.0))
        shift = np.broadcast_to(given.get(f"{info.name}.shift", 0.0), scale.shape)
        scale, shift = ((each.reshape(1, 1) if groups.whole else each.reshape(math.prod(info.shape[:-1]), -1)[chosen])
                        for each in (scale * unit, shift))  # fmt: skip
        back = fake_quantize(x.astype(np.float64), grid, here.spread(scale), here.spread(shift))
        return _present(form, x, back, grid, here, scale)

    return find


def _groups(text: str, info: TensorInfo) -> Groups:
    return Recipe((text,)).groups(text, info.shape)


def _present(text: str, x: NDArray[Any], back: NDArray[Any], grid: Any, groups: Groups, scale: NDArray[Any]) -> Present:
    tile = groups.tile
    layout: dict[str, Any] = {"block_size": tile} if tile != x.shape else {}
    own = np.asarray(fit(x, grid, rule="minmax", measure=False, **layout).scale)
    ratio = np.abs(scale).ravel() / own.ravel()
    low, middle, high = (float(each) for each in np.quantile(ratio[np.isfinite(ratio)], _QUANTILES))
    return Present(text, float(np.mean(np.square(back - x.astype(np.float64)))), (low, middle, high))


def _runs(chosen: NDArray[np.intp]) -> list[tuple[int, int]]:
    """Numbers of rows as runs of neighbours, begin to end."""
    cuts = np.flatnonzero(np.diff(chosen) != 1) + 1
    return [(int(run[0]), int(run[-1]) + 1) for run in np.split(chosen, cuts)]
