"""The tensors of an open checkpoint, by name."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .._check import listed, near_names, shown
from .elements import StoredTensor, TensorInfo, decode, decode_part, part_bits, stored_bits
from .sources import Source


class Checkpoint(Mapping[str, NDArray[Any]]):
    """The tensors of one open file, by name; made by `open_checkpoint`.

    ``checkpoint[name]`` is the exact values in float32 (float64 for F64), read-only where they are a view of the
    file. Arrays stay valid after the checkpoint is closed.

    Attributes
    ----------
    path : Path or str
        The file, folder or index; a str for a URL.
    tensors : tuple of TensorInfo
    metadata : mapping of str to str
        What a .safetensors file says of itself; empty for NumPy's files.
    skipped : mapping of str to str
        What is no tensor (members of an archive, entries of a state), with the reason why it was left out.
    """

    def __init__(
        self,
        path: Path | str,
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

    def part(self, name: str, begin: int, end: int) -> NDArray[Any]:
        """Elements `begin` to `end` of one tensor in C order: the exact values, flat.

        Only their bytes are read, into memory of their own, where the file has them side by side: .safetensors, .npy
        and GGUF, on a disk or behind a URL.
        """
        return decode_part(self._find(name), self.path, begin, end)

    def part_bits(self, name: str, begin: int, end: int) -> NDArray[Any]:
        """The stored elements `begin` to `end` as unsigned integers, flat; see `bits`."""
        return part_bits(self._find(name), self.path, begin, end)

    def stored(self, name: str) -> StoredTensor:
        """One tensor with the calls that fetch its stored elements."""
        return self._find(name)

    def raw(self, name: str, begin: int, end: int) -> NDArray[np.uint8]:
        """The bytes of the stored elements `begin` to `end` of any type; of packed ones `begin` starts a byte."""
        stored = np.ascontiguousarray(self._find(name).part(begin, end))
        return stored.astype(stored.dtype.newbyteorder("<"), copy=False).reshape(-1).view(np.uint8)

    @property
    def files(self) -> tuple[Source, ...]:
        """The files that hold its tensors."""
        return tuple(dict.fromkeys(each.file for each in (self._stored or {}).values() if each.file is not None))

    def stamp(self, name: str) -> str:
        """What changes with the file that holds a tensor: its name, size and time or etag."""
        file = self._find(name).file
        return "" if file is None else f"{PurePosixPath(file.name).name}-{file.stamp}"

    @classmethod
    def joined(cls, path: Path | str, parts: Sequence[Self], beside: Mapping[str, str] | None = None) -> Self:
        """The tensors of several files as those of one; `beside` names what is there and none of it, with the reason.

        Raises
        ------
        ValueError
            If two files have tensors of the same name.
        """
        tensors: dict[str, StoredTensor] = {}
        skipped: dict[str, str] = dict(beside or {})
        metadata: dict[str, str] = {}
        for part in parts:
            assert part._stored is not None
            twice = next((name for name in part if name in tensors), None)
            if twice is not None:
                one, two = (file.name if file else "" for file in (tensors[twice].file, part._stored[twice].file))
                places = f"{shown(PurePosixPath(one).name, 40)} and {shown(PurePosixPath(two).name, 40)}"
                raise ValueError(
                    f"tensor {shown(twice, 40)} is in {places} of {shown(path)}; name the files that you mean"
                )
            tensors.update(part._stored)
            skipped.update(part.skipped)
            metadata.update(part.metadata)

        def close() -> None:
            for part in parts:
                part.close()

        return cls(path, tensors, metadata, close, skipped)

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

    def __init__(self, path: Path | str, name: object, names: Collection[str]) -> None:
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
