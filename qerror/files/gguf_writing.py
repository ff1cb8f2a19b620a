"""Writing GGUF: blocks of 32 as llama.cpp reads them, in the file of a model that is in GGUF already.

Of 32 neighbours x[0] ... x[31] in a row (d, m are float16; a byte has element i low and element i + 16 high):

======  ========  ==================================================
Q8_0    34 bytes  d, 32 codes of int8; x = d * code
Q4_0    18 bytes  d, 16 bytes of code + 8; x = d * code, d may be negative
Q4_1    20 bytes  d, m, 16 bytes of codes 0 to 15; x = d * code + m
MXFP4   17 bytes  an exponent e, 16 bytes of e2m1; x = 2^(e - 127) * level
======  ========  ==================================================

Of Q4_1 the pair is searched, not proven (`search.samples.affine_blocks`); for its m as it is stored d is the best that
float16 has. The scales of the others are the best of all that can be stored.

Source: gguf/quants.py of the package gguf. Other models become a file whose tensors keep their names: programs that
look for those find them, llama.cpp does not.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .elements import TensorInfo
from .encodings import Arrays, Encoding, stored_elements
from .mapping import Checkpoint
from .shards import Entry
from .sources import LocalFile, load_extra
from .weight_formats import WeightFormat

_BLOCK = 32
# Elements, format as the fit takes it, bytes of a block, number of the kind of file that has mostly these.
_KINDS = {
    "Q8_0": ("int8", "int8_g32_fp16", 34, 7),
    "Q4_0": ("int4", "int4_g32_fp16", 18, 2),
    "Q4_1": ("uint4", "uint4", 20, 3),
    "MXFP4": ("e2m1", "mxfp4", 17, 38),
}
_PLAIN = ("F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64")
_NEEDED = "writing a GGUF file"


class Gguf:
    """The layout as the export asks it."""

    name = "gguf"
    together: tuple[str, ...] = ()
    suffix = ".weight"

    def encoding(self, info: TensorInfo, form: WeightFormat, sign: str | None) -> Encoding:
        """How a weight is stored in a format; see the module."""
        kind = next((kind for kind, (elements, *_) in _KINDS.items() if elements == form.elements), None)
        scales = "e8m0" if kind == "MXFP4" else "fp16"
        if kind is None or form.block_size != _BLOCK or form.scale_format not in (None, scales) or form.tensor_scale:
            raise ValueError(f"GGUF has q8_0, q4_0, q4_1 and mxfp4 (blocks of 32), not {form.text}")
        if not info.shape or info.shape[-1] % _BLOCK:
            raise ValueError(f"{form.text} needs rows of whole blocks of 32, got shape {info.shape}")
        _, grid, width, _ = _KINDS[kind]
        stored = TensorInfo(info.name, (*info.shape[:-1], info.shape[-1] // _BLOCK * width), "U8")
        pack = functools.partial(_packed, info.name, _PACK[kind])
        if kind == "Q4_1":
            return Encoding(grid, {"block_size": _BLOCK}, (stored,), pack, kind=kind, shift_format="fp16")
        # The reference quantizer of Q4_0 divides by the value of largest magnitude with its sign.
        either = kind != "MXFP4" and (sign or ("either" if kind == "Q4_0" else "positive")) == "either"
        return Encoding(grid, {"sign": "either"} if either else {}, (stored,), pack, kind=kind)

    def check(self, source: Checkpoint, kept: Sequence[TensorInfo], kinds: Mapping[str, str]) -> None:
        """Refuse a model in several GGUF files, and tensors that cannot be kept."""
        reader = _reader(load_extra("gguf", "gguf", _NEEDED), source)
        own = set() if reader is None else {tensor.name for tensor in reader.tensors}
        other = next((info for info in kept if info.dtype not in _PLAIN and info.name not in own), None)
        if other is not None:
            what = f"{shown(other.name, 60)} of {plain(other.dtype, 20)}"
            raise ValueError(f"GGUF has no type for {what}; leave it out of the model, or let a plan say fp16 for it")

    def write(self, folder: Path, entries: Sequence[Entry], source: Checkpoint, kinds: Mapping[str, str]) -> None:
        """model.gguf, with the metadata of the model and what it says of its kind changed."""
        gguf = load_extra("gguf", "gguf", _NEEDED)
        reader = _reader(gguf, source)
        temporary = folder / ".model.gguf.part"
        try:
            with contextlib.closing(_writer(gguf, reader, source, temporary)) as writer:
                _about(gguf, writer, kinds)
                contents = [_added(gguf, writer, entry, reader, kinds.get(entry.info.name)) for entry in entries]
                writer.write_header_to_file()
                writer.write_kv_data_to_file()
                writer.write_ti_data_to_file()
                out = writer.fout[0]
                for content in contents:
                    writer.write_padding(out, out.tell())
                    for piece in content():
                        piece.tofile(out)
                writer.write_padding(out, out.tell())
            with temporary.open("rb+") as written:
                os.fsync(written.fileno())
            temporary.replace(folder / "model.gguf")
        finally:
            temporary.unlink(missing_ok=True)


def _reader(gguf: Any, source: Checkpoint) -> Any:
    """The model as a GGUF file; None where it is none."""
    files = [file for file in source.files if isinstance(file, LocalFile)]
    if not any(file.read(0, min(4, file.size)).tobytes() == b"GGUF" for file in files):
        return None
    if len(files) != 1:
        raise ValueError(f"{shown(source.path)} is a GGUF model in {len(files)} files; merge them first")
    return gguf.GGUFReader(files[0].path)


def _writer(gguf: Any, reader: Any, source: Checkpoint, path: Path) -> Any:
    """A writer that has the metadata of the model."""
    architecture = "none" if reader is None else reader.fields["general.architecture"].contents()
    writer = gguf.GGUFWriter(path, architecture)
    skipped = {"general.architecture", "general.file_type", "general.quantization_version", "general.alignment"}
    for field in () if reader is None else reader.fields.values():
        if field.name == "general.alignment":
            writer.add_custom_alignment(field.contents())
        if field.name not in skipped and not field.name.startswith("GGUF."):
            kind = field.types[0]
            inner = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    return writer


def _about(gguf: Any, writer: Any, kinds: Mapping[str, str]) -> None:
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    mostly = max(set(kinds.values()), key=list(kinds.values()).count)
    writer.add_file_type(_KINDS[mostly][3])


def _added(
    gguf: Any, writer: Any, entry: Entry, reader: Any, kind: str | None
) -> Callable[[], Iterator[NDArray[np.uint8]]]:
    """Announce a tensor; what gives its bytes."""
    info = entry.info
    if kind is not None:
        width = _KINDS[kind][2]
        shape = (*info.shape[:-1], info.shape[-1] // width * _BLOCK)
        writer.add_tensor_info(info.name, shape, np.dtype("f4"), entry.nbytes, gguf.GGMLQuantizationType[kind])
        return entry.pieces
    own = None if reader is None else next((each for each in reader.tensors if each.name == info.name), None)
    if own is not None and info.dtype not in _PLAIN:
        # Blocks of the model itself, as they are.
        content = np.ascontiguousarray(own.data).reshape(-1).view(np.uint8)
        writer.add_tensor_info(info.name, info.shape, np.dtype("f4"), content.size, own.tensor_type)
        return lambda: iter((content,))
    kind_ = gguf.GGMLQuantizationType[info.dtype]
    writer.add_tensor_info(info.name, info.shape, np.dtype("f4"), entry.nbytes, kind_)
    return entry.pieces


def _packed(name: str, pack: Callable[[Arrays], list[NDArray[np.uint8]]], found: Arrays) -> dict[str, NDArray[Any]]:
    """Rows of blocks, each the bytes of its parts one after the other."""
    codes = found["codes"]
    blocks = np.concatenate(pack({**found, "codes": codes.reshape(-1, _BLOCK)}), axis=1)
    return {name: blocks.reshape(len(codes), -1)}


def _half(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values as float16, two bytes each."""
    found: NDArray[np.uint8] = values.astype("<f2").reshape(-1, 1).view(np.uint8)
    return found


def _halves(codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Codes of 4 bits, the first half of a block low and the second high."""
    low, high = np.split(codes.astype(np.uint8) & np.uint8(15), 2, axis=1)
    both: NDArray[np.uint8] = low | high << np.uint8(4)
    return both


_PACK: dict[str, Callable[[Arrays], list[NDArray[np.uint8]]]] = {
    "Q8_0": lambda found: [_half(found["scale"]), found["codes"].astype(np.int8).view(np.uint8)],
    "Q4_0": lambda found: [_half(found["scale"]), _halves(found["codes"] + 8)],
    "Q4_1": lambda found: [_half(found["scale"]), _half(found["shift"]), _halves(found["codes"])],
    "MXFP4": lambda found: [stored_elements(found["scale"], "F8_E8M0").reshape(-1, 1), _halves(found["codes"])],
}
