"""Real tensors out of files: list them, read one, without loading the rest and without ever loading a pickle."""

import os
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from .._check import listed, near_names, shown
from .elements import StoredTensor, TensorInfo, decode, stored_bits
from .npy import MAGIC, read_npy, read_npz
from .safetensors import looks_like_safetensors, read_safetensors
from .unsupported import PICKLED, first_bytes, foreign_kind


class Checkpoint(Mapping[str, NDArray[Any]]):
    """The tensors of one open file, by name; made by `open_checkpoint`.

    ``checkpoint[name]`` is the exact values in float32 (float64 for F64), read-only where they are a view of the
    file. Arrays stay valid after the checkpoint is closed.

    Attributes
    ----------
    path : Path
    tensors : tuple of TensorInfo
    metadata : mapping of str to str
        What a .safetensors file says of itself; empty for NumPy's files.
    skipped : mapping of str to str
        Members of an .npz archive that are no arrays, with the reason why they were left out.
    """

    def __init__(
        self,
        path: Path,
        tensors: Mapping[str, StoredTensor],
        metadata: Mapping[str, str] | None = None,
        close: Callable[[], None] | None = None,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        self.path = path
        self.metadata = MappingProxyType(dict(metadata or {}))
        self.skipped = MappingProxyType(dict(skipped or {}))
        self._infos = {name: tensor.info for name, tensor in tensors.items()}
        self.tensors = tuple(self._infos.values())
        self._stored: Mapping[str, StoredTensor] | None = tensors
        self._close = close

    def __getitem__(self, name: str) -> NDArray[Any]:
        return decode(self._find(name), self.path)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def __len__(self) -> int:
        return len(self.tensors)

    def __repr__(self) -> str:
        return f"<Checkpoint {shown(self.path)}: {len(self)} tensors>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file. Closing twice is no error."""
        self._stored = None
        if self._close is not None:
            self._close()

    def info(self, name: str) -> TensorInfo:
        """Shape and element type of one tensor."""
        return self._find(name).info

    def bits(self, name: str) -> NDArray[Any]:
        """Stored elements of one tensor as unsigned integers, without a copy where the file is mapped.

        A bfloat16 or float16 tensor has at most 65 536 different values; its bit patterns can be counted
        without widening them. ``bits(name).view(numpy.float16)`` is an F16 tensor as it stands in the file.

        Returns
        -------
        ndarray of uint8, uint16, uint32 or uint64, in the tensor's shape
            Packed types (F4, F6) come as their bytes, one-dimensional.

        Raises
        ------
        ValueError
            If there is no such tensor, or its elements are no machine words (texts, complex numbers).
        """
        return stored_bits(self._find(name), self.path)

    def _find(self, name: str) -> StoredTensor:
        if self._stored is None:
            raise ValueError(f"the checkpoint {shown(self.path)} is closed; open it again")
        if name not in self._stored:
            raise _MissingTensorError(self.path, name, self._infos)
        return self._stored[name]


class _MissingTensorError(ValueError, KeyError):
    """No tensor of that name; a KeyError too, because a mapping's `get` lives on it.

    The words are made when they are read: looking for near names takes far longer than finding that there is none.
    """

    def __init__(self, path: Path, name: object, names: Collection[str]) -> None:
        super().__init__()
        self._path, self._name, self._names = path, name, names

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._path, self._name, self._names)

    def __str__(self) -> str:
        """Name the nearest tensors: those that contain the text, then those that are spelled like it."""
        text, names = str(self._name), list(self._names)
        near = [known for known in names if text.lower() in known.lower()][:3] if text else []
        near += [known for known in near_names(text, names) if known not in near]
        if near:
            hint = f"near it are {listed(near[:4], room=110)}"
        elif len(names) <= 5:
            hint = f"it has {listed(names) or 'none at all'}"
        else:
            ends = f"{shown(names[0], 40)} to {shown(names[-1], 40)}"
            hint = f"it has {len(names)} tensors, {ends}; list_tensors names them"
        return f"tensor {shown(self._name)} is not in {shown(self._path)}; {hint}"


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Open a .safetensors, .npy or .npz file. Only headers are read until a tensor is asked for.

    The content decides what kind of file it is, not the name. Tensors of .safetensors and .npy files are memory
    maps; those of .npz archives are read one at a time. Pickles are never loaded. Members of an archive that are no
    arrays are left out and named in `Checkpoint.skipped`.

    Returns
    -------
    Checkpoint
        A mapping from tensor names to arrays, to be used in a ``with`` statement. The tensor of a .npy file has the
        file's name without its ending; of several behind one another, as repeated calls of np.save or Equinox write
        them, the next are NAME.1, NAME.2 and so on.

    Raises
    ------
    ValueError
        If there is no such file, or it is of another kind, truncated or damaged.

    Examples
    --------
    >>> with open_checkpoint(example_checkpoint()) as checkpoint:
    ...     weight = checkpoint["layers.0.weight"]
    >>> weight.dtype
    dtype('float32')
    """
    file = Path(path)
    start = first_bytes(file)
    if looks_like_safetensors(start):
        tensors, metadata = read_safetensors(file)
        return Checkpoint(file, tensors, metadata)
    if start.startswith(MAGIC):
        return Checkpoint(file, read_npy(file))
    if start.startswith(b"PK\x03\x04"):
        return _open_archive(file)
    raise ValueError(f"{shown(file)} is {foreign_kind(file, start)}")


def list_tensors(path: str | os.PathLike[str]) -> tuple[TensorInfo, ...]:
    """Name, shape and element type of every tensor in a file, from its headers alone.

    Parameters
    ----------
    path : path-like
        A .safetensors, .npy or .npz file.

    Raises
    ------
    ValueError
        As `open_checkpoint`.

    Examples
    --------
    >>> list_tensors(example_checkpoint())[0]
    TensorInfo(name='layers.0.weight', shape=(96, 64), dtype='F32')
    """
    with open_checkpoint(path) as checkpoint:
        return checkpoint.tensors


def read_tensor(path: str | os.PathLike[str], name: str | None = None) -> NDArray[Any]:
    """Read one tensor of a file, exactly.

    Parameters
    ----------
    path : path-like
        A .safetensors, .npy or .npz file.
    name : str, optional
        May be left out where the file has only one tensor.

    Returns
    -------
    ndarray
        float64 for F64; float32 for F32, F16, BF16 and the 8-bit floats. Read-only where it is a map of the file.

    Raises
    ------
    ValueError
        As `open_checkpoint`; if there is no such tensor, or its elements are not real numbers.

    Examples
    --------
    >>> read_tensor(example_checkpoint(), "layers.0.weight").shape
    (96, 64)
    """
    with open_checkpoint(path) as checkpoint:
        if name is not None:
            return checkpoint[name]
        if len(checkpoint) != 1:
            raise ValueError(
                f"name must be given: {shown(checkpoint.path)} has {len(checkpoint)} tensors; list_tensors names them"
            )
        return next(iter(checkpoint.values()))


def example_checkpoint() -> Path:
    """Path of the small .safetensors file of real trained weights and activations that the package ships.

    Its README beside it says where they come from.
    """
    return Path(__file__).parent.parent / "data" / "digits_mlp.safetensors"


def _open_archive(file: Path) -> Checkpoint:
    """Open a zip file: NumPy's, unless its members show it to be PyTorch's."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
        raise ValueError(f"{shown(file)} is a truncated or damaged zip file; fetch it again") from None
    try:
        if any(member.endswith(".pkl") for member in archive.namelist()):
            raise ValueError(f"{shown(file)} is {PICKLED}")
        tensors, skipped = read_npz(file, archive)
        if not tensors and skipped:
            raise ValueError(f"{shown(file)} is a zip file, but not one of numpy.savez; unpack it first")
        return Checkpoint(file, tensors, close=archive.close, skipped=skipped)
    except BaseException:
        archive.close()
        raise
