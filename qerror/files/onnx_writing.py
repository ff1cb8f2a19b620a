"""Quantized weights inside of an ONNX model: DequantizeLinear in the place of each of them.

An initializer W becomes W_quantized, W_scale and a node DequantizeLinear whose output is called W, so that the rest of
the graph stays as it is. Scales are those of channels (`axis`) or of blocks along the last axis (`block_size`), in
the type of the weight. Source: the operator's specification, onnx/defs/quantization of version 1.18.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .._files import atomic_open
from ..tensors.groups import make_groups
from .compressed_tensors import own_scale
from .elements import TensorInfo
from .encodings import Arrays, Encoding, stored_elements
from .mapping import Checkpoint
from .packing import pack_nibbles
from .shards import Entry
from .sources import load_extra
from .weight_formats import WeightFormat

# Element types by grid, and the opset that DequantizeLinear has them since.
_TYPES = {"int8": ("INT8", 13), "int4": ("INT4", 21), "e4m3fn": ("FLOAT8E4M3FN", 19), "e5m2": ("FLOAT8E5M2", 19)}
_SCALE_TYPES = {"F32": "FLOAT", "F16": "FLOAT16", "BF16": "BFLOAT16"}
_BLOCKED, _IR = 21, 10
# Tensors of fewer bytes stay inside of the model, where programs that look at constants see them.
_INSIDE, _ALIGNED = 1024, 64
_DATA = "model.onnx.data"


class OnnxQdq:
    """The layout as the export asks it."""

    name = "onnx-qdq"
    together: tuple[str, ...] = ()
    suffix = ""

    def encoding(self, info: TensorInfo, form: WeightFormat, sign: str | None) -> Encoding:
        """How a weight is stored in a format; see the module."""
        if form.elements not in _TYPES or form.tensor_scale or form.scale_format == "e8m0":
            known = "int8, int4, e4m3fn and e5m2, with :axis=K or _gB"
            raise ValueError(f"DequantizeLinear is written with {known}, not for {form.text}")
        if info.dtype not in _SCALE_TYPES:
            raise ValueError(f"DequantizeLinear gives float32, float16 or bfloat16, not {plain(info.dtype, 20)}")
        if form.elements == "int4" and (not info.shape or info.shape[-1] % 2):
            raise ValueError(f"int4 needs an even number of columns, got shape {info.shape}")
        tag, options = own_scale(info, form)
        options |= {"axis": form.axis} if form.axis is not None else {}
        options |= {"block_size": form.block_size} if form.block_size is not None else {}
        options |= {"sign": "either"} if sign == "either" else {}
        kind, opset = _TYPES[form.elements]
        said: dict[str, Any] = {"type": kind, "opset": opset, "shape": info.shape}
        scales: tuple[int, ...] = ()
        if form.block_size is not None:
            scales = make_groups(info.shape, None, form.block_size, -1).scale_shape
            said |= {"axis": len(info.shape) - 1, "block_size": form.block_size, "opset": _BLOCKED}
        elif form.axis is not None:
            axis = form.axis % len(info.shape)
            scales = (info.shape[axis],)
            said["axis"] = axis
        half = form.elements == "int4"
        shape = (*info.shape[:-1], info.shape[-1] // 2) if half else info.shape
        codes = TensorInfo(f"{info.name}_quantized", shape, "U8")
        scale = TensorInfo(f"{info.name}_scale", scales, tag)
        pack = functools.partial(_packed, codes.name, scale, half)
        return Encoding(form.elements, options, (codes, scale), pack, kind=json.dumps(said))

    def check(self, source: Checkpoint, kept: Sequence[TensorInfo], kinds: Mapping[str, str]) -> None:
        """Refuse models that are not in ONNX, or not in an opset that has what is needed."""
        onnx = load_extra("onnx", "onnx", "writing an ONNX model")
        _model(onnx, source, max(json.loads(text)["opset"] for text in kinds.values()))

    def write(self, folder: Path, entries: Sequence[Entry], source: Checkpoint, kinds: Mapping[str, str]) -> None:
        """model.onnx and model.onnx.data, the model last."""
        onnx = load_extra("onnx", "onnx", "writing an ONNX model")
        said = {name: json.loads(text) for name, text in kinds.items()}
        model = _model(onnx, source, max(each["opset"] for each in said.values()))
        graph, known = model.graph, {entry.info.name: entry for entry in entries}
        old = {each.name: each for each in graph.initializer}
        kept = [each for each in graph.initializer if each.name not in said]
        with atomic_open(folder / _DATA) as out:
            for each in kept:
                if each.data_location == onnx.TensorProto.EXTERNAL:
                    _place(onnx, each, known[each.name], out)
            for name, about in said.items():
                scale_type = old[name].data_type
                codes = onnx.TensorProto(name=f"{name}_quantized", dims=about["shape"])
                codes.data_type = onnx.TensorProto.DataType.Value(about["type"])
                scale = onnx.TensorProto(name=f"{name}_scale", dims=known[f"{name}_scale"].info.shape)
                scale.data_type = scale_type
                for each in (codes, scale):
                    _place(onnx, each, known[each.name], out)
                kept += [codes, scale]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        inputs = [each for each in graph.input if each.name not in said]
        del graph.input[:]
        graph.input.extend(inputs)
        nodes = [_node(onnx, name, about) for name, about in said.items()]
        nodes += list(graph.node)
        del graph.node[:]
        graph.node.extend(nodes)
        model.ir_version = max(model.ir_version, _IR)
        with atomic_open(folder / "model.onnx") as out:
            out.write(model.SerializeToString())


def _packed(name: str, scale: TensorInfo, half: bool, found: Arrays) -> dict[str, NDArray[Any]]:
    codes = found["codes"]
    content = pack_nibbles(codes) if half else codes.astype(np.int8 if codes.dtype.kind == "i" else np.uint8)
    return {name: content.view(np.uint8), scale.name: stored_elements(found["scale"], scale.dtype)}


def _model(onnx: Any, source: Checkpoint, opset: int) -> Any:
    """The model without the data beside it, in an opset that has what is needed."""
    path = Path(source.path)
    models = [path] if path.suffix == ".onnx" else sorted(path.glob("*.onnx")) if path.is_dir() else []
    if len(models) != 1:
        raise ValueError(f"onnx-qdq changes a model in ONNX; {shown(source.path)} is none, or several")
    model = onnx.load(models[0], load_external_data=False)
    own = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
    if own >= opset:
        return model
    try:
        return onnx.version_converter.convert_version(model, opset)
    except Exception as error:
        # Of the converter in C++: whatever operator it does not know.
        reason = plain(str(error), 100)
        raise ValueError(
            f"{shown(models[0])} has opset {own} and this format needs {opset}, to which it cannot be converted "
            f"({reason}); write the model with opset {opset}"
        ) from None


def _place(onnx: Any, tensor: Any, entry: Entry, out: IO[bytes]) -> None:
    """Write the content of a tensor, into the model where it is small."""
    del tensor.external_data[:]
    if entry.nbytes < _INSIDE:
        tensor.data_location = onnx.TensorProto.DEFAULT
        tensor.raw_data = b"".join(piece.tobytes() for piece in entry.pieces())
        return
    out.write(b"\0" * (-out.tell() % _ALIGNED))
    place = {"location": _DATA, "offset": str(out.tell()), "length": str(entry.nbytes)}
    for piece in entry.pieces():
        out.write(piece.data if piece.size else b"")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)


def _node(onnx: Any, name: str, about: Mapping[str, Any]) -> Any:
    attributes = {key: about[key] for key in ("axis", "block_size") if key in about}
    inputs = [f"{name}_quantized", f"{name}_scale"]
    return onnx.helper.make_node("DequantizeLinear", inputs, [name], name=f"{name}_DequantizeLinear", **attributes)
