"""Real tensors out of files: list them, read one, without loading the rest and without ever loading a pickle."""

import os
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .._check import shown
from .elements import TensorInfo
from .gguf import read_gguf
from .made_files import made_of
from .mapping import Checkpoint
from .model_files import Model, find_files
from .npy import MAGIC, read_npy, read_npz
from .onnx import read_onnx
from .pytorch import read_pytorch
from .safetensors import looks_like_safetensors, read_safetensors
from .sources import LocalFile, Source
from .unsupported import PICKLED, first_bytes, foreign_kind, is_pickle
from .zipped import forget_archive

__all__ = ["Checkpoint", "example_checkpoint", "list_tensors", "open_checkpoint", "read_tensor"]

Where = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


def open_checkpoint(path: Where) -> Checkpoint:
    """Open a checkpoint: a file, a folder, an index of shards, several files, or a URL.

    Only headers are read until a tensor is asked for. The content decides what kind of file it is, not the name.
    Tensors of .safetensors and .npy files are memory maps; those of .npz archives are read one at a time. Code in
    pickles never runs: PyTorch's files are read by ``torch.load(weights_only=True)`` where PyTorch is installed.

    Parameters
    ----------
    path : path-like, or a sequence of them
        A .safetensors, .npy or .npz file; with the extra of its name a .gguf or .onnx file, with torch a .pt file; an
        index as in model.safetensors.index.json; a folder that has an index or such files; a pattern with * and ?; a
        URL (extra "remote": https, s3, gs, ...), of which only the bytes that are needed are fetched.

    Returns
    -------
    Checkpoint
        A mapping from tensor names to arrays, to be used in a ``with`` statement. The tensor of a .npy file has the
        file's name without its ending; of several behind one another, as repeated calls of np.save or Equinox write
        them, the next are NAME.1, NAME.2 and so on. What is no tensor is named in `Checkpoint.skipped`.

    Raises
    ------
    ValueError
        If there is no such file, or it is of another kind, truncated or damaged; if a tensor is in two files, or an
        index names one that its file has not.

    Examples
    --------
    >>> with open_checkpoint(example_checkpoint()) as checkpoint:
    ...     weight = checkpoint["layers.0.weight"]
    >>> weight.dtype
    dtype('float32')
    """
    model = find_files(path)
    if len(model.files) == 1 and model.single:
        return _open_one(model.files[0])
    parts: list[Checkpoint] = []
    try:
        for file in model.files:
            parts.append(_open_one(file))
        _check_index(model, parts)
        return _joined(model, parts)
    except BaseException:
        for part in parts:
            part.close()
        raise


def _joined(model: Model, parts: Sequence[Checkpoint]) -> Checkpoint:
    """All as one, without sketches and scales that lie beside the weights."""
    made = [made_of(part) for part in parts]
    weights = [part for part, what in zip(parts, made, strict=True) if not what]
    if not weights or len(weights) == len(parts):
        return Checkpoint.joined(model.path, parts)
    beside = {Path(file.name).name: f"{what} by qerror" for file, what in zip(model.files, made, strict=True) if what}
    for part, what in zip(parts, made, strict=True):
        if what:
            part.close()
    return Checkpoint.joined(model.path, weights, beside)


def _check_index(model: Model, parts: Sequence[Checkpoint]) -> None:
    """Every tensor that an index names must be in the file that it names."""
    found = {Path(file.name).name: part for file, part in zip(model.files, parts, strict=True)}
    for name, file in model.index.items():
        if name not in found[Path(file).name]:
            raise ValueError(
                f"the index of {shown(model.path)} names tensor {shown(name, 60)}, which {shown(file, 60)} has not; "
                "fetch both again"
            )


def _open_one(file: Source) -> Checkpoint:
    path = file.path if isinstance(file, LocalFile) else file.name
    start = first_bytes(file)
    if looks_like_safetensors(start):
        tensors, metadata = read_safetensors(file)
        return Checkpoint(path, tensors, metadata)
    if start.startswith(MAGIC):
        return Checkpoint(path, read_npy(file))
    if start.startswith(b"PK\x03\x04"):
        return _open_archive(file, path)
    if start.startswith(b"GGUF"):
        return Checkpoint(path, *read_gguf(file))
    if is_pickle(start):
        return Checkpoint(path, *_pytorch(file))
    if file.name.lower().endswith(".onnx") and start:
        return Checkpoint(path, *read_onnx(file))
    raise ValueError(f"{shown(file.name)} is {foreign_kind(file, start)}")


def list_tensors(path: Where) -> tuple[TensorInfo, ...]:
    """Name, shape and element type of every tensor in a file, from its headers alone.

    Parameters
    ----------
    path : path-like
        As in `open_checkpoint`.

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


def read_tensor(path: Where, name: str | None = None) -> NDArray[Any]:
    """Read one tensor of a file, exactly.

    Parameters
    ----------
    path : path-like
        As in `open_checkpoint`.
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


def _open_archive(file: Source, path: Path | str) -> Checkpoint:
    """Open a zip file: NumPy's, unless its members show it to be PyTorch's."""
    try:
        # Of a path the archive closes the file itself.
        archive = zipfile.ZipFile(file.path if isinstance(file, LocalFile) else file.open())
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError, struct.error):
        raise ValueError(f"{shown(file.name)} is a truncated or damaged zip file; fetch it again") from None
    try:
        if any(member.endswith(".pkl") for member in archive.namelist()):
            archive.close()
            return Checkpoint(path, *_pytorch(file))
        tensors, skipped = read_npz(file, archive)
        if not tensors and skipped:
            raise ValueError(f"{shown(file.name)} is a zip file, but not one of numpy.savez; unpack it first")

        def close() -> None:
            forget_archive(archive)
            archive.close()

        return Checkpoint(path, tensors, close=close, skipped=skipped)
    except BaseException:
        archive.close()
        raise


def _pytorch(file: Source) -> tuple[Any, ...]:
    found = read_pytorch(file)
    if found is None:
        raise ValueError(f"{shown(file.name)} is {PICKLED}")
    return found
