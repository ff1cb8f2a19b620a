"""Quantized weights as NumPy arrays: NAME.codes, NAME.scale and what else belongs to them, in one .npz file.

w = tensor_scale * scale * level(code), where a scale holds for a channel or a block. The array "qerror" has the format
of each weight as JSON. Codes are those of `qerror.quantize`, one in a byte or two: all that `qerror.dequantize` needs.
Tensors that are kept stand there under their own names, bfloat16 as two bytes of no type, float8 as bytes.
"""

from __future__ import annotations

import functools
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from .._files import atomic_open
from ..casting.cast import quantize
from ..tensors.groups import make_groups
from .elements import TensorInfo, dtype_tag, numpy_dtype
from .encodings import Arrays, Encoding, check_kept
from .mapping import Checkpoint
from .shards import Entry
from .weight_formats import WeightFormat

# Written as what NumPy's files have for them.
_NUMPY = {"BF16": "<V2", "F8_E5M2": "|u1", "F8_E4M3": "|u1"}


class Npz:
    """The layout as the export asks it."""

    name = "npz"
    together: tuple[str, ...] = ()
    suffix = ""

    def encoding(self, info: TensorInfo, form: WeightFormat, sign: str | None) -> Encoding:
        """Any format that `qerror.fit` knows."""
        options: dict[str, Any] = {"axis": form.axis} if form.axis is not None else {}
        options |= {"sign": "either"} if sign == "either" and form.scale_format != "e8m0" else {}
        scales = make_groups(info.shape, form.axis, form.block_size, -1).scale_shape
        tag = dtype_tag(quantize(np.zeros(1), form.grid).dtype)
        stored = [TensorInfo(f"{info.name}.codes", info.shape, tag), TensorInfo(f"{info.name}.scale", scales, "F32")]
        pack = functools.partial(_rows, stored[0], stored[1])
        if not form.tensor_scale:
            return Encoding(form.name, options, tuple(stored), pack, kind=form.text)
        unit = TensorInfo(f"{info.name}.tensor_scale", (), "F32")
        return Encoding(form.name, options, (*stored, unit), pack, functools.partial(_unit, unit), form.text)

    def check(self, source: Checkpoint, kept: Sequence[TensorInfo], kinds: Mapping[str, str]) -> None:
        """Refuse tensors that cannot be kept."""
        check_kept(kept)
        other = next((info for info in kept if numpy_dtype(info.dtype) is None), None)
        if other is not None:
            raise ValueError(
                f"NumPy has no type for {shown(other.name, 60)} of {other.dtype}; a plan can say fp32 for it"
            )

    def write(self, folder: Path, entries: Sequence[Entry], source: Checkpoint, kinds: Mapping[str, str]) -> None:
        """model.npz, which appears when it is whole."""
        with atomic_open(folder / "model.npz") as out, zipfile.ZipFile(out, "w", allowZip64=True) as archive:
            for entry in entries:
                with archive.open(f"{entry.info.name}.npy", "w", force_zip64=True) as member:
                    _header(member, entry.info)
                    for piece in entry.pieces():
                        member.write(piece.data if piece.size else b"")
            with archive.open("qerror.npy", "w") as member:
                np.lib.format.write_array(member, np.array(json.dumps({"formats": dict(kinds)})))


def _header(member: Any, info: TensorInfo) -> None:
    dtype = numpy_dtype(info.dtype)
    described = _NUMPY.get(info.dtype, "" if dtype is None else dtype.str)
    table = {"descr": described, "fortran_order": False, "shape": info.shape}
    np.lib.format.write_array_header_1_0(member, table)


def _rows(codes: TensorInfo, scale: TensorInfo, found: Arrays) -> dict[str, NDArray[Any]]:
    own = found["scale"] / float(found.get("tensor_scale", 1.0))
    kind = numpy_dtype(codes.dtype)
    return {codes.name: found["codes"].astype(kind), scale.name: own.astype(np.float32)}


def _unit(stored: TensorInfo, unit: float) -> dict[str, NDArray[Any]]:
    return {stored.name: np.asarray(unit, np.float32)}
