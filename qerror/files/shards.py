"""Writing .safetensors files of any size: their headers are known before a tensor is, so that all of it streams."""

from __future__ import annotations

import dataclasses
import json
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import shown
from .._files import atomic_open
from .elements import TensorInfo, stored_bytes

# Bytes of a file, as other programs divide checkpoints.
SHARD = 5_000_000_000


@dataclasses.dataclass(frozen=True)
class Entry:
    """A tensor that is to be written: what it is, and its content piece by piece, in C order."""

    info: TensorInfo
    content: Callable[[], Iterator[NDArray[Any]]]

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        return stored_bytes(self.info.dtype, self.info.size)

    def pieces(self) -> Iterator[NDArray[np.uint8]]:
        """The bytes; ValueError where there are more or fewer than there should be."""
        done = 0
        for piece in self.content():
            little = np.ascontiguousarray(piece, piece.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
            done += little.size
            yield little
        if done != self.nbytes:
            raise ValueError(f"tensor {shown(self.info.name, 60)} has {done} bytes instead of {self.nbytes}")


def write_safetensors(path: Path, entries: Sequence[Entry], metadata: Mapping[str, str]) -> None:
    """Write a file that appears when it is whole."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for entry in entries:
        begin, end = end, end + entry.nbytes
        header[entry.info.name] = {
            "dtype": entry.info.dtype,
            "shape": list(entry.info.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(header).encode()
    # The format wants its data aligned to 8 bytes.
    text += b" " * (-len(text) % 8)
    with atomic_open(path) as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for entry in entries:
            for piece in entry.pieces():
                out.write(piece.data if piece.size else b"")


def divided(entries: Sequence[Entry], limit: int = SHARD) -> list[list[Entry]]:
    """Entries as files of at most so many bytes, or of one tensor.

    Examples
    --------
    >>> sizes = {"a": 3, "b": 4, "c": 9}
    >>> entries = [Entry(TensorInfo(name, (size,), "U8"), lambda: iter(())) for name, size in sizes.items()]
    >>> [[entry.info.name for entry in part] for part in divided(entries, 7)]
    [['a', 'b'], ['c']]
    """
    parts: list[list[Entry]] = []
    room = 0
    for entry in entries:
        if not parts or entry.nbytes > room:
            parts.append([])
            room = limit
        parts[-1].append(entry)
        room -= entry.nbytes
    return parts


def write_model(folder: Path, entries: Sequence[Entry], limit: int = SHARD) -> None:
    """Write model.safetensors, or shards of it and model.safetensors.index.json, the index last."""
    parts = divided(entries, limit) or [[]]
    # Without it transformers refuses a file.
    metadata = {"format": "pt"}
    if len(parts) == 1:
        write_safetensors(folder / "model.safetensors", parts[0], metadata)
        return
    weight_map: dict[str, str] = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05d}-of-{len(parts):05d}.safetensors"
        write_safetensors(folder / name, part, metadata)
        weight_map |= dict.fromkeys((entry.info.name for entry in part), name)
    index = {"metadata": {"total_size": sum(entry.nbytes for entry in entries)}, "weight_map": weight_map}
    with atomic_open(folder / "model.safetensors.index.json", "w") as out:
        out.write(json.dumps(index, indent=2) + "\n")
