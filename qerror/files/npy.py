"""NumPy's .npy and .npz files, without pickles: headers first, elements when asked for."""

import contextlib
import dataclasses
import functools
import io
import itertools
import math
import re
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .elements import StoredTensor, TensorInfo, as_array, dtype_tag, is_shape
from .sources import LocalFile, Source
from .zipped import read_member

MAGIC = b"\x93NUMPY"
# NumPy's own limit: a longer header is not parsed.
_LONGEST_HEADER = 10_000
_VERSIONS = {(1, 0), (2, 0), (3, 0)}
# What ml_dtypes' float8_e5m2 calls itself, which NumPy alone does not know; bfloat16 says only that it has two bytes.
_E5M2 = re.compile(rb"(['\"]descr['\"]: ['\"])<f1(['\"])")
_BFLOAT16 = np.dtype("V2")


@dataclasses.dataclass(frozen=True, slots=True)
class _Record:
    """Header of one array, and the bytes of the file that its elements take."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    tag: str
    begin: int
    end: int

    def elements(self, content: NDArray[np.uint8]) -> NDArray[Any]:
        """The array, as a view of the whole file."""
        return as_array(content[self.begin : self.end], self.dtype, self.shape, self.fortran)


def read_npy(source: Source) -> dict[str, StoredTensor]:
    """Read the headers of a .npy file, and map it.

    Its tensor has the name of the file without its ending. Files of several arrays, one behind the other, as repeated
    calls of np.save write them: NAME, NAME.1, NAME.2 and so on. What follows an array of objects belongs to it.

    Raises
    ------
    ValueError
        If a header is damaged, the file shorter than the headers say, or something else follows the arrays.
    """
    with source.open() as file:
        records = list(_records(file, source.size, shown(source.name)))
    content: NDArray[np.uint8] = source.whole() if isinstance(source, LocalFile) else np.empty(0, np.uint8)
    stem = PurePosixPath(source.name.partition("?")[0].replace("\\", "/")).stem
    return {
        name: StoredTensor(_info(name, record), _loader(source, record, content), _reader(source, record), source)
        for name, record in zip(_names(stem), records, strict=False)
    }


def _loader(source: Source, record: _Record, content: NDArray[np.uint8]) -> Callable[[], NDArray[Any]]:
    if isinstance(source, LocalFile):
        return functools.partial(record.elements, content)
    moved = dataclasses.replace(record, begin=0, end=record.end - record.begin)
    return lambda: moved.elements(source.read(record.begin, record.end))


def _reader(source: Source, record: _Record) -> Callable[[int, int], NDArray[Any]] | None:
    """Reads some elements; None where they do not lie side by side."""
    if (record.fortran and len(record.shape) > 1) or record.dtype.hasobject:
        return None
    size = record.dtype.itemsize
    return lambda begin, end: source.read(record.begin + size * begin, record.begin + size * end).view(record.dtype)


def read_npz(source: Source, archive: zipfile.ZipFile) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read the headers of every array in an .npz archive.

    Returns
    -------
    tensors : dict of str to StoredTensor
        Members are told by their content; the ending .npy is left out of their names.
    skipped : dict of str to str
        Members that are no arrays, with the reason.

    Raises
    ------
    ValueError
        If an array is damaged, or two have the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    skipped: dict[str, str] = {}
    last = _Last()
    for member in archive.infolist():
        where, start, records = f"member {shown(member.filename)} of {shown(source.name)}", None, []
        try:
            with _one_error(where), archive.open(member) as file:
                start = file.read(len(MAGIC))
                records = list(_records(file, member.file_size, where)) if start == MAGIC else []
        except _DamagedError:
            if start == MAGIC or member.filename.endswith(".npy"):
                raise
        if not records:
            kinds = {None: "not readable", b"": "a folder" if member.is_dir() else "empty"}
            skipped[member.filename] = kinds.get(start, "no NumPy array")
        for name, record in zip(_names(member.filename.removesuffix(".npy")), records, strict=False):
            if name in tensors:
                raise ValueError(
                    f"{shown(source.name)} has twice the name {shown(name)}; save it again with other names"
                )
            load: Callable[[], NDArray[Any]] = functools.partial(_load_member, archive, member, record, where)
            read = _member_reader(archive, member, record, where)
            if read is None:
                load = functools.partial(last.get, name, load)
            tensors[name] = StoredTensor(_info(name, record), load, read, source)
    return tensors, skipped


def _names(first: str) -> Iterator[str]:
    yield first
    yield from (f"{first}.{number}" for number in itertools.count(1))


def _info(name: str, record: _Record) -> TensorInfo:
    return TensorInfo(name, record.shape, record.tag)


def _records(file: IO[bytes], size: int, where: str) -> Iterator[_Record]:
    """Read the headers of the arrays that fill a file of `size` bytes end to end."""
    place = 0
    while place == 0 or place < size:
        file.seek(place)
        head = _header(file)
        if place and not head.startswith(MAGIC):
            raise _DamagedError(
                f"{where} has {size - place} bytes behind its last array that are none; fetch it or save it again"
            )
        shape, fortran, dtype, tag = _parse(head, where)
        begin = place + len(head)
        # Where pickled objects end is known to pickle alone.
        place = size if dtype.hasobject else begin + math.prod(shape) * dtype.itemsize
        if place > size:
            raise _DamagedError(
                f"{where} is truncated: it needs {place - begin} bytes of data and has {size - begin}; fetch it again"
            )
        yield _Record(shape, fortran, dtype, tag, begin, place)


def _header(file: IO[bytes]) -> bytes:
    """Read one header and no byte more, so that a compressed file is never gone back in."""
    head = file.read(10)
    head += b"" if head[6:7] == b"\x01" else file.read(2)
    return head + file.read(min(int.from_bytes(head[8:], "little"), _LONGEST_HEADER))


def _parse(head: bytes, where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any], str]:
    """Shape, order, type of the stored elements of one array, and what they are."""
    known, e5m2 = _E5M2.subn(rb"\1|u1\2", head, count=1)
    file = io.BytesIO(known)
    with _one_error(where):
        version = np.lib.format.read_magic(file)
        if version not in _VERSIONS:
            raise ValueError(f"its format has version {version[0]}.{version[1]}")
        # Version 3 differs from 2 only in the encoding of field names, and fields are never read as data.
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
        if not is_shape(shape):
            raise ValueError(f"no array can have the shape {shown(shape, 40)}")
    if dtype == _BFLOAT16 and dtype.fields is None:
        return shape, fortran, np.dtype("<u2"), "BF16"
    return shape, fortran, dtype, "F8_E5M2" if e5m2 else dtype_tag(dtype)


def _load_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, record: _Record, where: str) -> NDArray[Any]:
    with _one_error(where), archive.open(member) as file:
        # Grows with what is there, not with what the header claims; read to the end, where zipfile checks the sum.
        content = bytearray()
        while part := file.read(1 << 20):
            content += part
        return record.elements(np.frombuffer(content, np.uint8))


def _member_reader(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, record: _Record, where: str
) -> Callable[[int, int], NDArray[Any]] | None:
    """Reads some elements, going forward; None where they do not lie side by side."""
    if (record.fortran and len(record.shape) > 1) or record.dtype.hasobject:
        return None

    def read(begin: int, end: int) -> NDArray[Any]:
        size = record.dtype.itemsize
        with _one_error(where):
            content = read_member(archive, member, record.begin + size * begin, record.begin + size * end)
        return content.view(record.dtype)

    return read


class _Last:
    """The last array that was loaded: parts of arrays in Fortran's order are taken from the whole."""

    def __init__(self) -> None:
        self._held: tuple[str, NDArray[Any]] | None = None
        self._lock = threading.Lock()

    def get(self, name: str, load: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        with self._lock:
            if self._held is None or self._held[0] != name:
                self._held = None
                self._held = name, load()
            return self._held[1]


class _DamagedError(ValueError):
    """Says what is wrong with a file."""


@contextlib.contextmanager
def _one_error(where: str) -> Iterator[None]:
    """Turn all that the parsers of headers, zip files and compressed data raise on damaged bytes into one error."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except _DamagedError:
        raise
    except Exception as error:
        reason = plain(str(error).partition("\n")[0] or type(error).__name__, 70)
        raise _DamagedError(f"{where} is not a sound NumPy array file ({reason}); fetch or save it again") from None
