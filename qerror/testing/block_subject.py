"""A kernel of a block format under test, and kernels that it may agree with, right and wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .._types import Array
from ..casting.blocks import block_scales
from ..grids.block_formats import BlockFormat
from .subject import SLACK, called, given_as

Mask = NDArray[np.bool_]
# Of the values that are not the reference's, what a kernel must explain at first sight to be looked at closely.
_HOPELESS = 0.3


class Kernel(NamedTuple):
    """What may stand behind the outputs.

    Attributes
    ----------
    scales : callable
        From x (rows, columns) to the scale of each value, the tensor scale included; nan where outputs would be.
    elements : callable
        From x over its scale to levels that are right: one, or several of which each will do.
    change : callable
        Of the outputs.
    """

    scales: Callable[[Array], Array]
    elements: Callable[[Array], Sequence[Array]]
    change: Callable[[Array], Array] = lambda out: out


@dataclasses.dataclass(frozen=True)
class Probe:
    """Values and what the kernel made of them; `exact` where its arithmetic has nothing to round."""

    name: str
    x: Array
    out: Array
    unit: float
    exact: bool


@dataclasses.dataclass(frozen=True)
class BlockSubject:
    """A function under test, and the format that it claims to cast to."""

    function: Callable[[Any], Any]
    form: BlockFormat
    scale: float
    rounding: str
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """Of the arrays that it is given: whole blocks along either axis, where that is not too much."""
        size = self.form.block_size
        return (size * max(1, 256 // size) if size <= 256 else 16), 8 * size

    def inputs(self, x: Array) -> Array:
        """Values as the function can be given them."""
        return given_as(x, self.dtype)

    def probe(self, name: str, x: Array, *, exact: bool = False) -> Probe:
        """Call the function."""
        with np.errstate(all="ignore"):
            out, unit = called(self.function, x, self.dtype)
        return Probe(name, x, out, unit, exact)

    def agreeing(self, kernel: Kernel, probe: Probe, wanted: Mask | None = None) -> Mask:
        """Where the outputs can be those of a kernel, whose arithmetic may round.

        Where it explains few of the `wanted` values at first sight, arithmetic is not looked at.
        """
        least = float(np.finfo(self.dtype).smallest_subnormal)
        blur = SLACK * float(np.finfo(self.dtype).eps)
        sides = (1.0,) if probe.exact else (1.0, 1.0 - blur, 1.0 + blur)
        good = np.zeros(probe.x.shape, bool)
        for side in sides:
            scale = kernel.scales(probe.x * side)
            for other in sides:
                for value in _values(kernel, probe.x * other, scale):
                    with np.errstate(invalid="ignore"):
                        near = np.abs(probe.out - value) <= SLACK * probe.unit * np.abs(value) + least
                    good |= near | (~np.isfinite(value) & ~np.isfinite(probe.out))
                if good.all():
                    return good
                if side == other == 1.0 and wanted is not None and (~good).sum() > _HOPELESS * wanted.sum():
                    return good
        return good


def scales_along(form: BlockFormat, unit: float, axis: int = -1) -> Callable[[Array], Array]:
    """The scales of a format, for each value."""

    def scales(x: Array) -> Array:
        found = unit * block_scales(x, form, unit, axis)
        spread = np.repeat(found, form.block_size, axis=axis)
        return spread[: x.shape[0], : x.shape[1]]

    return scales


def _values(kernel: Kernel, x: Array, scale: Array) -> list[Array]:
    with np.errstate(invalid="ignore", over="ignore"):
        q = np.where(scale == 0, 0.0, x / np.where(scale == 0, 1.0, scale))
        good = np.isfinite(q)
        levels = kernel.elements(np.where(good, q, 0.0))
        return [kernel.change(np.where(good, level * scale, np.nan)) for level in levels]
