"""ONNX files: the initializers of a model, in the file itself or in data beside it."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .elements import StoredTensor, TensorInfo, as_array, is_shape, numpy_dtype, packed_bits, stored_bytes
from .sources import LocalFile, Source, load_extra

# Names of ONNX's element types that other programs have, too.
_TAGS = {
    **{"FLOAT": "F32", "FLOAT16": "F16", "BFLOAT16": "BF16", "DOUBLE": "F64", "BOOL": "BOOL"},
    **{f"{kind}INT{bits}": f"{kind or 'I'}{bits}" for kind in ("", "U") for bits in (8, 16, 32, 64)},
    **{"FLOAT8E4M3FN": "F8_E4M3", "FLOAT8E5M2": "F8_E5M2", "FLOAT8E4M3FNUZ": "F8_E4M3FNUZ"},
    **{"FLOAT8E5M2FNUZ": "F8_E5M2FNUZ", "FLOAT8E8M0": "F8_E8M0", "FLOAT4E2M1": "F4"},
    **{"COMPLEX64": "C64", "COMPLEX128": "C128"},
}


def read_onnx(file: Source) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read the initializers of an ONNX model; of those beside it only the places.

    Raises
    ------
    ValueError
        If the file is none of ONNX's or damaged, or the package onnx is missing.
    """
    onnx = load_extra("onnx", "onnx", f"reading {shown(file.name)}")
    try:
        model = onnx.ModelProto.FromString(file.read(0, file.size).tobytes())
        initializers = list(model.graph.initializer)
    except Exception as error:
        # Of the message classes of whatever protobuf is installed.
        raise _broken(file, plain(str(error) or type(error).__name__, 80)) from None
    if not model.ir_version or not (initializers or model.graph.node):
        raise _broken(file, "it has neither nodes nor initializers")
    tensors: dict[str, StoredTensor] = {}
    for each in initializers:
        shape = tuple(int(count) for count in each.dims)
        if each.name in tensors or not is_shape(shape):
            raise _broken(file, f"initializer {shown(each.name, 40)} is there twice or has no possible shape")
        kind = _kind(onnx, each.data_type)
        tensors[each.name] = _tensor(onnx, file, each, TensorInfo(each.name, shape, kind))
    producer = {"producer": model.producer_name} if model.producer_name else {}
    nodes = _dequantized(model.graph, tensors)
    return tensors, {**producer, **({"DequantizeLinear": json.dumps(nodes)} if nodes else {})}


def _dequantized(graph: Any, tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    """The nodes that make weights of codes and scales in the file, by what comes out of them."""
    found = {}
    for node in graph.node:
        sound = node.op_type == "DequantizeLinear" and len(node.input) >= 2 and len(node.output) == 1
        if not sound or not all(name in tensors for name in node.input if name):
            continue
        codes, scale, *zero = node.input
        attributes = {each.name: int(each.i) for each in node.attribute}
        found[node.output[0]] = {
            "codes": codes,
            "scale": scale,
            "zero_point": zero[0] if zero else "",
            "axis": attributes.get("axis", 1),
            "block_size": attributes.get("block_size", 0),
        }
    return found


def _kind(onnx: Any, number: int) -> str:
    try:
        name = onnx.TensorProto.DataType.Name(number)
    except ValueError:
        name = f"type {number}"
    return _TAGS.get(name, f"ONNX {name}")


def _tensor(onnx: Any, file: Source, each: Any, info: TensorInfo) -> StoredTensor:
    if info.dtype in ("ONNX INT4", "ONNX UINT4"):
        # Two in a byte, which `dequantize_linear` reads; by themselves they are no numbers.
        halves = _tensor(onnx, file, _bytes_of(onnx, each), TensorInfo(info.name, (-(-info.size // 2),), "U8"))
        return dataclasses.replace(halves, info=info, read=None)
    if info.dtype not in _TAGS.values():
        return StoredTensor(info, functools.partial(_refuse, file, info), None, file)
    if each.data_location == onnx.TensorProto.EXTERNAL:
        return _beside(file, info, {entry.key: entry.value for entry in each.external_data})
    if each.HasField("raw_data"):
        content = np.frombuffer(each.raw_data, np.uint8)
        if content.size != stored_bytes(info.dtype, info.size):
            raise _broken(file, f"initializer {shown(info.name, 40)} has {content.size} bytes of data")
        return StoredTensor(info, functools.partial(_shaped, content, info), None, file)

    def load() -> NDArray[Any]:
        array = np.asarray(onnx.numpy_helper.to_array(each))
        dtype = numpy_dtype(info.dtype)
        if dtype is None:
            # Two elements of 4 bits a byte, the first one low.
            codes = np.append(array.view(np.uint8).ravel(), np.zeros(info.size % 2, np.uint8))
            return codes[::2] & 15 | codes[1::2] << 4
        return array.view(dtype) if array.dtype.itemsize == dtype.itemsize else array.astype(dtype)

    return StoredTensor(info, load, None, file)


def _bytes_of(onnx: Any, each: Any) -> Any:
    """An initializer of four bits as one of bytes."""
    if each.data_location == onnx.TensorProto.EXTERNAL or each.HasField("raw_data"):
        return each
    return onnx.TensorProto(name=each.name, raw_data=bytes(np.array(each.int32_data, np.uint8)))


def _beside(file: Source, info: TensorInfo, place: dict[str, str]) -> StoredTensor:
    """A tensor in a file beside the model."""
    name = place.get("location", "")
    if not isinstance(file, LocalFile):
        raise ValueError(f"{shown(file.name)} has its data in {shown(name, 40)} beside it; fetch both")
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise _broken(file, f"the data of {shown(info.name, 40)} should be in {shown(name, 40)}, outside of its folder")
    data = LocalFile(file.path.parent / Path(*path.parts))
    try:
        start, available = int(place.get("offset") or 0), data.size
    except (ValueError, OSError):
        raise ValueError(
            f"{shown(file.name)} needs {shown(name, 60)} beside it, which is not there; fetch it"
        ) from None
    needed = stored_bytes(info.dtype, info.size)
    if start < 0 or start + needed > available:
        raise ValueError(f"{shown(data.name)} is truncated: {shown(info.name, 40)} ends behind it; fetch it again")
    dtype, bits = numpy_dtype(info.dtype), packed_bits(info.dtype)

    def read(begin: int, end: int) -> NDArray[Any]:
        content = data.read(start + begin * bits // 8, start - (-end * bits // 8))
        return content if dtype is None else content.view(dtype)

    def load() -> NDArray[Any]:
        return read(0, math.prod(info.shape)) if dtype is None else read(0, info.size).reshape(info.shape)

    return StoredTensor(info, load, read, data)


def _shaped(content: NDArray[np.uint8], info: TensorInfo) -> NDArray[Any]:
    dtype = numpy_dtype(info.dtype)
    return content if dtype is None else as_array(content, dtype, info.shape)


def _refuse(file: Source, info: TensorInfo) -> NDArray[Any]:
    raise ValueError(f"tensor {shown(info.name, 40)} of {shown(file.name)} has the element type {info.dtype}")


def _broken(file: Source, what: str) -> ValueError:
    return ValueError(f"{shown(file.name)} is no sound ONNX model: {what}; fetch it again")
