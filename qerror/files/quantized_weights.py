"""Quantized weights of other programs' checkpoints, from the names, types and shapes of their tensors.

Read are, of a weight w = code * scale: compressed-tensors (`files.compressed_tensors` has the table), ModelOpt (NVFP4
with weight_scale_2, a factor; FP8), DeepSeek's FP8 (weight_scale_inv, a factor for each 128 x 128), the experts of
GPT-OSS in MXFP4 (NAME_blocks, NAME_scales), DequantizeLinear of ONNX models, .npz files of `export`, and Q8_0, Q4_0 and
MXFP4 of GGUF. Everything else that `layouts.quantized_names` knows is left as it is: with zero points, orders of
columns or codebooks.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from .coded_arrays import coded_weights
from .dequantize_linear import linear_weights
from .elements import REAL, StoredTensor, TensorInfo, is_real, known_type, stored_bytes, values_of_codes
from .gguf_blocks import block_weights
from .layouts import quantized_names
from .mapping import Checkpoint
from .packing import unpack_nibbles, unpack_words
from .quantized_weight import STORED, QuantizedWeight, format_tag

# Beside a weight these say that more is needed than codes and scales.
_MORE = ("weight_zero_point", "weight_g_idx")
_TILE = 128
_FLOAT_TAGS = ("F64", "F32", "F16", "BF16")


def quantized_weights(checkpoint: Checkpoint) -> dict[str, QuantizedWeight]:
    """The quantized weights of a checkpoint that can be read, by the name of the weight.

    Codes and scales are read when they are asked for.
    """
    infos = {info.name: info for info in checkpoint.tensors}
    found = {**linear_weights(checkpoint), **coded_weights(checkpoint), **block_weights(checkpoint)}
    for name in infos:
        weight = None
        if name.endswith("weight_packed") or name.endswith(".weight") or name == "weight":
            weight = _of_module(checkpoint, infos, name)
        elif name.endswith("_blocks") and f"{name[:-7]}_scales" in infos:
            weight = _experts(checkpoint, infos, name)
        if weight is not None:
            found[weight.info.name] = weight
    return found


def dequantized(checkpoint: Checkpoint) -> Checkpoint:
    """The same checkpoint with the weights in the place of their codes and scales, computed when they are read.

    Quantized weights that cannot be read stay as they are. A checkpoint without any is returned as it is.

    Examples
    --------
    >>> import tempfile, qerror as qe
    >>> folder = tempfile.mkdtemp()
    >>> _ = qe.checkpoints.export(qe.files.example_checkpoint(), folder, format="mxfp4", include=["layers.0.weight"])
    >>> with dequantized(qe.files.open_checkpoint(folder)) as checkpoint:
    ...     checkpoint.info("layers.0.weight"), checkpoint["layers.0.weight"].dtype
    (TensorInfo(name='layers.0.weight', shape=(96, 64), dtype='MXFP4'), dtype('float32'))
    """
    weights = quantized_weights(checkpoint)
    if not weights:
        return checkpoint
    at = {each.members[0]: each for each in weights.values()}
    gone = {member for each in weights.values() for member in each.members}
    # Scales of activations belong to what has been read.
    gone |= {name for name in quantized_names(checkpoint.tensors) if _of(name, weights)}
    tensors: dict[str, StoredTensor] = {}
    for info in checkpoint.tensors:
        if info.name in at:
            weight = at[info.name]
            tensors[weight.info.name] = _as_stored(weight, checkpoint)
        elif info.name not in gone:
            tensors[info.name] = checkpoint.stored(info.name)
    return Checkpoint(checkpoint.path, tensors, checkpoint.metadata, checkpoint.close, checkpoint.skipped)


def as_floats(checkpoint: Checkpoint) -> Checkpoint:
    """The same with what is stored as codes and scales of any kind called F32, as which it is read."""
    named = {info.name: info for info in checkpoint.tensors if is_real(info.dtype) and info.dtype not in REAL}
    if not named:
        return checkpoint
    tensors = {name: checkpoint.stored(name) for name in checkpoint}
    for name, info in named.items():
        floats = dataclasses.replace(info, dtype="F32")
        tensors[name] = dataclasses.replace(tensors[name], info=floats, blocks=None)
    return Checkpoint(checkpoint.path, tensors, checkpoint.metadata, checkpoint.close, checkpoint.skipped)


def _of(name: str, weights: Mapping[str, QuantizedWeight]) -> bool:
    module, _, end = name.rpartition(".")
    return end.startswith(("input_", "output_")) and f"{module}.weight" in weights


def _as_stored(weight: QuantizedWeight, checkpoint: Checkpoint) -> StoredTensor:
    def load() -> NDArray[Any]:
        return weight.values(0, weight.info.size).reshape(weight.info.shape)

    members = [checkpoint.info(name) for name in weight.members]
    known = all(known_type(each.dtype) for each in members)
    size = 8 * sum(stored_bytes(each.dtype, each.size) for each in members) if known else None
    info = dataclasses.replace(weight.info, stored_bits=size)
    return StoredTensor(info, load, weight.values, checkpoint.stored(weight.members[0]).file)


def _of_module(checkpoint: Checkpoint, infos: Mapping[str, TensorInfo], name: str) -> QuantizedWeight | None:
    """A weight with its scales beside it."""
    module = name.removesuffix("weight_packed").removesuffix("weight")
    near = {end: infos.get(f"{module}{end}") for end in ("weight_scale", "weight_scale_inv", "weight_shape", *_MORE)}
    scale = near["weight_scale"] or near["weight_scale_inv"]
    if scale is None or any(near[end] is not None for end in _MORE) or infos[name].dtype in _FLOAT_TAGS:
        return None
    shaped = _shape_and_codes(checkpoint, infos[name], near["weight_shape"], scale)
    if shaped is None:
        return None
    shape, grid, codes = shaped
    inverse = near["weight_scale"] is None
    block = _block(shape, scale.shape, tiles=inverse)
    if block is None:
        return None
    units = [infos.get(f"{module}{end}") for end in ("weight_global_scale", "weight_scale_2")]
    unit = next((info for info in units if info is not None), None)
    if (scale.dtype == "F8_E4M3") != (unit is not None):
        return None
    members = [name, scale.name, *(info.name for info in (unit, near["weight_shape"]) if info is not None)]
    stored = STORED.get(scale.dtype)
    return QuantizedWeight(
        TensorInfo(f"{module}weight", shape, format_tag(grid, block, shape, stored)),
        tuple(members),
        grid,
        block,
        stored,
        codes,
        functools.partial(_scales, checkpoint, scale, -(-shape[1] // block[1])),
        lambda: 1.0 if unit is None else _unit(checkpoint, unit),
    )


def _shape_and_codes(
    checkpoint: Checkpoint, info: TensorInfo, shape: TensorInfo | None, scale: TensorInfo
) -> tuple[tuple[int, int], Grid, Callable[[int, int], NDArray[Any]]] | None:
    """Shape of the weight, its grid, and what reads rows of codes; None for other types and shapes."""
    if len(info.shape) != 2 or not info.size:
        return None
    rows, stored = info.shape

    def read(begin: int, end: int) -> NDArray[Any]:
        return checkpoint.part_bits(info.name, begin * stored, end * stored).reshape(end - begin, stored)

    if info.dtype == "F8_E4M3":
        return (rows, stored), as_grid("e4m3fn"), read
    if info.dtype == "I8":
        return (rows, stored), as_grid("int8"), lambda begin, end: read(begin, end).view(np.int8)
    if info.dtype == "U8" and scale.dtype in ("F8_E4M3", "U8", "F8_E8M0"):
        return (rows, 2 * stored), as_grid("e2m1"), lambda begin, end: unpack_nibbles(read(begin, end))
    if info.dtype != "I32" or shape is None or shape.shape != (2,):
        return None
    _, columns = (int(count) for count in checkpoint.bits(shape.name))
    bits = next((bits for bits in (4, 8) if -(-columns // (32 // bits)) == stored), None)
    if bits is None:
        return None
    half = 1 << bits - 1

    def words(begin: int, end: int) -> NDArray[Any]:
        return (unpack_words(read(begin, end), bits, columns).astype(np.int16) - half).astype(np.int8)

    return (rows, columns), as_grid(f"int{bits}"), words


def _block(shape: tuple[int, int], scale: tuple[int, ...], *, tiles: bool) -> tuple[int, int] | None:
    """Rows and columns that share a scale; None where the shape of the scales does not say it."""
    rows, columns = shape
    if np.prod(scale) == 1:
        return rows, columns
    if scale in ((rows,), (rows, 1)):
        return 1, columns
    if len(scale) != 2:
        return None
    if scale == (-(-rows // _TILE), -(-columns // _TILE)) and (tiles or scale[0] != rows):
        return _TILE, _TILE
    whole = scale[0] == rows and 0 < scale[1] < columns and columns % scale[1] == 0 and not tiles
    return (1, columns // scale[1]) if whole else None


def _scales(checkpoint: Checkpoint, info: TensorInfo, per_row: int, begin: int, end: int) -> NDArray[np.float64]:
    """Rows of scales, exactly."""
    begin, end = begin * per_row, end * per_row
    if info.dtype == "U8":
        found = values_of_codes("F8_E8M0")[checkpoint.part_bits(info.name, begin, end)]
    else:
        found = checkpoint.part(info.name, begin, end)
    wide: NDArray[np.float64] = found.astype(np.float64).reshape(-1, per_row)
    return wide


def _unit(checkpoint: Checkpoint, info: TensorInfo) -> float:
    """The tensor scale: compressed-tensors stores a divisor."""
    stored = float(checkpoint[info.name].reshape(-1)[0])
    return 1 / stored if info.name.endswith("weight_global_scale") else stored


def _experts(checkpoint: Checkpoint, infos: Mapping[str, TensorInfo], name: str) -> QuantizedWeight | None:
    """GPT-OSS: blocks (experts, outputs, inputs / 32, 16) of two codes a byte, scales without the last axis."""
    blocks, scale = infos[name], infos[f"{name[:-7]}_scales"]
    sound = blocks.dtype == scale.dtype == "U8" and blocks.shape[-1:] == (16,) and blocks.shape[:-1] == scale.shape
    if not sound or len(scale.shape) < 2 or not blocks.size:
        return None
    shape = (*scale.shape[:-1], scale.shape[-1] * 32)
    stored = shape[-1] // 2

    def codes(begin: int, end: int) -> NDArray[Any]:
        return unpack_nibbles(checkpoint.part_bits(name, begin * stored, end * stored).reshape(end - begin, stored))

    read = functools.partial(_scales, checkpoint, scale, scale.shape[-1])
    info = TensorInfo(name[:-7], shape, "MXFP4")
    return QuantizedWeight(info, (name, scale.name), as_grid("e2m1"), (1, 32), "e8m0", codes, read, transposed=True)
