"""Files of quantized tensors: integer codes and scales, read without the framework that trained them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._check import plain, shown
from ..casting.verbs import fake_quantize
from ..grids.block_formats import BlockFormat
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..grids.scale_formats import SCALE_FORMATS, scale_grid
from ..tensors.groups import make_groups
from .checkpoint import Checkpoint, open_checkpoint
from .headers import parse_json

FORMAT = "qerror quantized tensors"


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class QuantizedTensor:
    """Codes of one tensor, or only the scales where the tensor comes later (an activation).

    Attributes
    ----------
    grid : Grid
    scale : ndarray
        One entry a group: float32, or float64 where block scales have more digits; of a block format in units of the
        tensor scale. Empty for an input in a block format, whose scales follow the data.
    shift : ndarray of float32
    axis : tuple of int or None
    block_size : int or None
    block_axis : int
    codes : ndarray or None
    form : BlockFormat or None
        Where blocks have their scales by its rule.
    tensor_scale : ndarray of float32, or None
        Of a block format that has one.
    """

    grid: Grid
    scale: NDArray[np.float32]
    shift: NDArray[np.float32]
    axis: tuple[int, ...] | None = None
    block_size: int | None = None
    block_axis: int = -1
    codes: NDArray[Any] | None = None
    form: BlockFormat | None = None
    tensor_scale: NDArray[np.float32] | None = None

    @property
    def used_scale(self) -> NDArray[Any]:
        """What levels are multiplied with: the product of block and tensor scales."""
        return self.scale if self.tensor_scale is None else self.scale.astype(np.float64) * float(self.tensor_scale)

    def dequantize(self, *, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """The values of the codes."""
        if self.codes is None:
            raise ValueError("these are the scales of a tensor that has no codes in the file; use fake_quantize(x)")
        groups = make_groups(self.codes.shape, self.axis, self.block_size, self.block_axis)
        return groups.dequantize(self.codes, self.grid, self.used_scale, self.shift, dtype=dtype)

    def fake_quantize(self, x: NDArray[Any]) -> NDArray[Any]:
        """The values that x is replaced by."""
        if self.form is not None and not self.scale.size:
            return fake_quantize(x, self.form, block_axis=self.block_axis)
        groups = make_groups(x.shape, self.axis, self.block_size, self.block_axis)
        return groups.fake_quantize(x, self.grid, self.used_scale, self.shift)


@dataclasses.dataclass(frozen=True)
class QuantizedFile:
    """What `qerror.training.export` wrote.

    Attributes
    ----------
    weights : dict of str to QuantizedTensor
        By the names of the parameters.
    inputs : dict of str to QuantizedTensor
        Scales of layers' inputs, by the names of the layers.
    others : dict of str to ndarray
        Everything else of the network's state: biases, running statistics; integers as they are.
    """

    weights: dict[str, QuantizedTensor]
    inputs: dict[str, QuantizedTensor]
    others: dict[str, NDArray[Any]]


def read_quantized(path: str | os.PathLike[str]) -> QuantizedFile:
    """Read a file of `qerror.training.export`; NumPy is enough.

    Raises
    ------
    ValueError
        If the file is none of these, or damaged.
    """
    with open_checkpoint(path) as file:
        try:
            header = parse_json(file.metadata["qerror"])
            if header["format"] != FORMAT:
                raise KeyError
            parts = {kind: header[kind] for kind in ("weights", "inputs")}
        except (KeyError, ValueError, TypeError):
            known = "qerror.training.export writes such files"
            raise ValueError(f"{shown(Path(path))} holds no quantized tensors; {known}") from None
        try:
            found = {
                kind: {name: _read(file, name, kind, each) for name, each in parts[kind].items()} for kind in parts
            }
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            reason = plain(str(error), 120)
            raise ValueError(
                f"{shown(Path(path))} is a damaged file of quantized tensors ({reason}); export it again"
            ) from None
        ends = (".scale", ".shift", ".tensor_scale")
        used = {f"{name}{end}" for name in parts["weights"] for end in (".codes", *ends)}
        used |= {f"{name}.input{end}" for name in parts["inputs"] for end in ends}
        others = {info.name: _plain(file, info.name, info.dtype) for info in file.tensors if info.name not in used}
    return QuantizedFile(found["weights"], found["inputs"], others)


def describe_grid(grid: Grid) -> dict[str, Any]:
    """A grid as JSON: its name where that says all, else levels, codes and width."""
    try:
        known = as_grid(grid.name) if grid.name else None
    except ValueError:
        known = None
    if known is not None and known == grid and np.array_equal(known.codes, grid.codes):
        return {"name": grid.name}
    return {"name": grid.name, "levels": grid.levels.tolist(), "codes": grid.codes.tolist(), "bits": grid.bits}


def describe_block_format(form: BlockFormat) -> dict[str, Any]:
    """A block format as JSON: its parameters, grids as by `describe_grid`.

    Examples
    --------
    >>> from qerror.grids.block_formats import block_format
    >>> read_block_format(describe_block_format(block_format("mxint8")))
    BlockFormat('mxint8': int8/64 in blocks of 32, scales e8m0 by rule floor)
    """
    stored = form.scale_format
    named = stored is not None and stored.name in SCALE_FORMATS and scale_grid(stored.name) == stored
    return {
        "name": form.name,
        "grid": describe_grid(form.grid),
        "block_size": form.block_size,
        "scale_format": None if stored is None else stored.name if named else describe_grid(stored),
        "rule": form.rule,
        "constant": form.constant,
        "signed": form.signed,
        "tensor_scale": False if form.full_scale is None else form.full_scale,
    }


def read_block_format(entry: Mapping[str, Any]) -> BlockFormat:
    """The inverse of `describe_block_format`."""
    stored = entry["scale_format"]
    stored = _read_grid(stored) if isinstance(stored, dict) else stored
    return BlockFormat(**{**entry, "grid": _read_grid(entry["grid"]), "scale_format": stored})


def _read_grid(entry: Mapping[str, Any]) -> Grid:
    if "levels" not in entry:
        return as_grid(entry["name"])
    return Grid._from_parts(
        Grid(entry["levels"]).levels, entry["name"], np.array(entry["codes"], np.int64), int(entry["bits"])
    )


def _read(file: Checkpoint, name: str, kind: str, entry: Mapping[str, Any]) -> QuantizedTensor:
    base = name if kind == "weights" else f"{name}.input"
    axis = entry["axis"]
    form = read_block_format(entry["block_format"]) if "block_format" in entry else None
    follows = form is not None and kind == "inputs" and f"{base}.scale" not in file
    has_unit = form is not None and form.tensor_scale and not follows
    unit = np.array(file[f"{base}.tensor_scale"]).reshape(()) if has_unit else None
    return QuantizedTensor(
        _read_grid(entry["grid"]),
        np.empty(0, np.float32) if follows else np.array(file[f"{base}.scale"]),
        np.array(file[f"{base}.shift"]) if f"{base}.shift" in file else np.zeros((), np.float32),
        None if axis is None else tuple(axis),
        entry["block_size"],
        entry["block_axis"],
        _plain(file, f"{base}.codes", file.info(f"{base}.codes").dtype) if kind == "weights" else None,
        form,
        unit,
    )


def _plain(file: Checkpoint, name: str, tag: str) -> NDArray[Any]:
    """Floating tensors as float32 or float64, integers in their own type."""
    if tag[0] in "IU":
        return np.array(file.bits(name)).view(f"{'i' if tag[0] == 'I' else 'u'}{int(tag[1:]) // 8}")
    return np.array(file.bits(name)).view(np.bool_) if tag == "BOOL" else np.array(file[name])
