"""NumPy's .npy and .npz files, without pickles: headers first, elements when asked for."""

import functools
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .elements import StoredTensor, TensorInfo, dtype_tag


def read_npy(path: Path) -> dict[str, StoredTensor]:
    """Read the header of a .npy file; its one tensor has the name of the file without its ending.

    Raises
    ------
    ValueError
        If the header is damaged or the file shorter than the header says.
    """
    with path.open("rb") as file:
        shape, dtype = _read_header(file, str(path))
        begin = file.tell()
    info = TensorInfo(path.stem, shape, dtype_tag(dtype))
    available, expected = path.stat().st_size - begin, info.size * dtype.itemsize
    if available < expected and not dtype.hasobject:
        raise ValueError(
            f"{str(path)!r} is truncated: it needs {expected} bytes of data and has {available}; fetch it again"
        )
    return {info.name: StoredTensor(info, functools.partial(_load_npy, path))}


def read_npz(path: Path, archive: zipfile.ZipFile) -> dict[str, StoredTensor]:
    """Read the header of every array in an .npz archive.

    Raises
    ------
    ValueError
        If a member is no array of NumPy's, or damaged.
    """
    tensors = {}
    for member in archive.namelist():
        name = member.removesuffix(".npy")
        where = f"{path}:{member}"
        try:
            with archive.open(member) as file:
                shape, dtype = _read_header(file, where)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise _damaged(where, error) from None
        info = TensorInfo(name, shape, dtype_tag(dtype))
        tensors[name] = StoredTensor(info, functools.partial(_load_member, archive, member, where))
    return tensors


def _read_header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    try:
        version = np.lib.format.read_magic(file)
        # Version 3 differs from 2 only in the encoding of field names, and fields are never read as data.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
    except (ValueError, EOFError) as error:
        raise _damaged(where, error) from None
    return shape, dtype


def _load_npy(path: Path) -> NDArray[Any]:
    stored: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return np.asarray(stored)


def _load_member(archive: zipfile.ZipFile, member: str, where: str) -> NDArray[Any]:
    try:
        with archive.open(member) as file:
            stored: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError) as error:
        raise _damaged(where, error) from None
    return stored


def _damaged(where: str, error: Exception) -> ValueError:
    reason = str(error).partition("\n")[0] or type(error).__name__
    return ValueError(f"{where!r} is not a sound NumPy array file ({reason}); fetch or save it again")
