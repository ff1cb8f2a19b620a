"""How a layout stores weights: what is asked of the fit, and what becomes of codes and scales."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from ..casting.cast import quantize
from ..grids.formats import grid as as_grid
from .elements import TensorInfo, known_type, stored_bytes
from .mapping import Checkpoint
from .shards import Entry
from .weight_formats import WeightFormat

Arrays = Mapping[str, NDArray[Any]]


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How a layout stores one weight.

    Attributes
    ----------
    grid : str
        The format as `qerror.fit` takes it.
    options : mapping
        Options of `qerror.fit`.
    stored : tuple of TensorInfo
        What is written in the place of the weight, in this order.
    pack : callable
        Of some rows codes (rows, columns), scale and shift (flat) and, where there is one, tensor_scale -> the stored
        elements of these rows, by name of the stored tensor.
    whole : callable
        Tensor scale (1 without one) -> the stored tensors that are not made of rows, by name.
    kind : str
        What the layout has to say of it beside the tensors.
    shift_format : str or None
        Where shifts are stored, as what: they are chosen with scales of any size, rounded, and the scales then chosen
        for them.
    """

    grid: str
    options: Mapping[str, Any]
    stored: tuple[TensorInfo, ...]
    pack: Callable[[Arrays], dict[str, NDArray[Any]]]
    whole: Callable[[float], dict[str, NDArray[Any]]] = lambda unit: {}
    kind: str = ""
    shift_format: str | None = None

    @property
    def bits(self) -> int:
        """Bits of all that is stored."""
        return 8 * sum(stored_bytes(info.dtype, info.size) for info in self.stored)


class Layout(Protocol):
    """A way of storing quantized weights that some runtime reads."""

    @property
    def name(self) -> str:
        """As users say it."""

    @property
    def together(self) -> tuple[str, ...]:
        """Patterns of tensors that the runtime fuses: they have one format and one tensor scale."""

    @property
    def suffix(self) -> str:
        """How names of weights end."""

    def encoding(self, info: TensorInfo, form: WeightFormat, sign: str | None) -> Encoding:
        """How a weight is stored in a format; ValueError where it cannot be."""

    def check(self, source: Checkpoint, kept: Sequence[TensorInfo], kinds: Mapping[str, str]) -> None:
        """Refuse what cannot be written in the end, before anything is computed: ValueError.

        `kept` are the tensors that stay, with the type that they are to have; `kinds` as in `write`.
        """

    def write(self, folder: Path, entries: Sequence[Entry], source: Checkpoint, kinds: Mapping[str, str]) -> None:
        """Write all files; `kinds` has the `Encoding.kind` of each weight that is quantized, by its own name."""


def check_kept(kept: Sequence[TensorInfo]) -> None:
    """Refuse tensors of types that .safetensors files have not.

    Examples
    --------
    >>> check_kept([TensorInfo("w", (2, 32), "Q4_0")])
    Traceback (most recent call last):
        ...
    ValueError: 'w' of type Q4_0 cannot be kept so; a plan can say bf16 for it
    """
    other = next((info for info in kept if not known_type(info.dtype)), None)
    if other is not None:
        said = f"{shown(other.name, 60)} of type {plain(other.dtype, 20)} cannot be kept so"
        raise ValueError(f"{said}; a plan can say bf16 for it")


SCALES = {"BF16": "bf16", "F16": "fp16"}
"""Scale formats by the element types that files have for them; other scales are float32."""
_CODES = {**SCALES, "F8_E4M3": "e4m3fn", "F8_E5M2": "e5m2", "F8_E8M0": "e8m0"}


def stored_elements(values: NDArray[Any], tag: str) -> NDArray[Any]:
    """Values as elements of a file: themselves where the type has them, else the nearest.

    Examples
    --------
    >>> stored_elements(np.array([1.0, 0.5]), "BF16").tolist(), stored_elements(np.array([448.0]), "F8_E4M3").tolist()
    ([16256, 16128], [126])
    """
    if tag in ("F32", "F64"):
        return values.astype(np.float32 if tag == "F32" else np.float64)
    return quantize(values, as_grid(_CODES[tag]))
