"""Scales in files: written tensor by tensor, whole or not at all; read again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .._check import is_real_dtype, plain, shown
from .._files import atomic_open
from .checkpoint import open_checkpoint
from .elements import dtype_tag
from .headers import parse_json
from .model_files import find_files
from .sources import LocalFile, Source

_ENDINGS = (".safetensors", ".json")


class ScaleSink(Protocol):
    """What takes arrays by name."""

    def add(self, name: str, array: NDArray[Any]) -> None:
        """Write one array."""

    def add_pieces(self, name: str, shape: tuple[int, ...], pieces: Iterable[NDArray[Any]]) -> None:
        """Write one array whose elements come in flat pieces, at least one."""


def check_output(path: Path) -> None:
    """Refuse a path whose ending names no kind of file, before anything is computed."""
    if path.suffix not in _ENDINGS:
        ends = " or ".join(_ENDINGS)
        raise ValueError(f"-o must end in {ends}, got {shown(path)}; a folder with a dot in its name must end in /")
    if not path.resolve().parent.is_dir():
        raise ValueError(f"the folder of {shown(path)} does not exist; make it first")


def check_apart(output: Path, files: Iterable[Source]) -> None:
    """Refuse to write over a file of a model, or a folder's worth of files among them."""
    inputs = [file.path for file in files if isinstance(file, LocalFile)] if output.exists() else []
    for path in inputs:
        if output.samefile(path) or output.samefile(path.parent):
            what = "the folder" if output.is_dir() else "a file"
            raise ValueError(f"-o must not be {what} of the model itself, got {shown(output)}; name another")


@contextlib.contextmanager
def open_scales(path: str | os.PathLike[str], metadata: Mapping[str, str]) -> Iterator[ScaleSink]:
    """Open a .safetensors or .json file for arrays; it appears only when the block has ended well.

    Arrays go to the disk as they come: none is held in memory. `metadata` is what the file says of itself.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> with open_scales(folder / "scales.json", {"grid": "int4"}) as sink:
    ...     sink.add("w.scale", np.array([0.5, 0.25]))
    >>> read_scales(folder / "scales.json")["w.scale"]
    array([0.5 , 0.25])
    """
    file = Path(path)
    check_output(file)
    if file.suffix == ".json":
        with atomic_open(file, "w") as out:
            yield from _json(out, metadata)
        return
    with atomic_open(file) as out, tempfile.TemporaryFile(dir=file.resolve().parent) as data:
        writer = _Safetensors(data)
        yield writer
        writer.finish(out, metadata)


def _json(out: IO[str], metadata: Mapping[str, str]) -> Iterator[ScaleSink]:
    writer = _Json(out)
    out.write('{"metadata": ' + json.dumps(dict(metadata)) + ', "tensors": {')
    yield writer
    out.write("\n}}\n")


class _Json:
    """One line for each array: its shape and its values with all digits."""

    def __init__(self, out: IO[str]) -> None:
        self._out, self._between = out, ""

    def add(self, name: str, array: NDArray[Any]) -> None:
        self._out.write(f"{self._between}\n{json.dumps(name)}: {json.dumps(np.asarray(array).tolist())}")
        self._between = ","

    def add_pieces(self, name: str, shape: tuple[int, ...], pieces: Iterable[NDArray[Any]]) -> None:
        self.add(name, np.concatenate(list(pieces)).reshape(shape))


class _Safetensors:
    """Data to a temporary file, then length, header and data to the real one."""

    def __init__(self, data: IO[bytes]) -> None:
        self._data, self._entries, self._end = data, {}, 0  # type: tuple[IO[bytes], dict[str, Any], int]

    def add(self, name: str, array: NDArray[Any]) -> None:
        self.add_pieces(name, np.shape(array), [array])

    def add_pieces(self, name: str, shape: tuple[int, ...], pieces: Iterable[NDArray[Any]]) -> None:
        begin, tag = self._end, ""
        for piece in pieces:
            little = np.ascontiguousarray(piece, np.asarray(piece).dtype.newbyteorder("<"))
            tag = dtype_tag(little.dtype)
            self._data.write(little.data if little.size else b"")
            self._end += little.nbytes
        self._entries[name] = {"dtype": tag, "shape": list(shape), "data_offsets": [begin, self._end]}

    def finish(self, out: IO[bytes], metadata: Mapping[str, str]) -> None:
        header = json.dumps({"__metadata__": dict(metadata), **self._entries}).encode()
        # The format wants its data aligned to 8 bytes.
        header += b" " * (-len(header) % 8)
        out.write(struct.pack("<Q", len(header)) + header)
        self._data.seek(0)
        shutil.copyfileobj(self._data, out, 1 << 20)


def read_scales(path: str | os.PathLike[str]) -> Mapping[str, NDArray[Any]]:
    """Arrays by name of a file that `open_scales` wrote, or of any .safetensors or .npz file: those of real numbers.

    Raises
    ------
    ValueError
        If there is no such file, or it is damaged, holds no scales or something that is no array of numbers.
    """
    file = Path(path)
    if file.suffix != ".json":
        return open_checkpoint(file)
    find_files(file)
    try:
        tensors = parse_json(file.read_bytes())["tensors"]
        return {name: _numbers(name, values) for name, values in tensors.items()}
    except KeyError:
        reason = "it lacks 'tensors'"
    except (TypeError, AttributeError):
        reason = "it is no table of tensors"
    except ValueError as error:
        reason = plain(str(error), 120)
    raise ValueError(f"{shown(file)} holds no scales ({reason}); `qerror fit ... -o scales.json` writes such files")


def _numbers(name: str, values: Any) -> NDArray[np.float64]:
    try:
        array = np.asarray(values)
    except (ValueError, OverflowError):
        array = np.array(None)
    if not is_real_dtype(array.dtype):
        raise ValueError(f"{shown(name)} must be an array of real numbers, got {shown(values, 30)}")
    return array.astype(np.float64)
