"""PyTorch's own files, by its reader that runs no code; where PyTorch is not installed they are not read."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .elements import StoredTensor, TensorInfo
from .sources import LocalFile, Source

_TAGS = {
    **{"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "bool": "BOOL"},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e4m3fnuz": "F8_E4M3FNUZ"},
    **{"float8_e5m2fnuz": "F8_E5M2FNUZ", "float8_e8m0fnu": "F8_E8M0", "complex64": "C64", "complex128": "C128"},
}
# Signed types of the size of those that NumPy has no name for.
_SAME_SIZE = {"bfloat16": "int16", **{name: "uint8" for name in _TAGS if name.startswith("float8")}}
_DEEPEST = 20


def read_pytorch(file: Source) -> tuple[dict[str, StoredTensor], dict[str, str], None, dict[str, str]] | None:
    """The tensors of a .pt or .pth file, those of tables in tables as OUTER.INNER; None without PyTorch.

    The storages of zip files are mapped. `torch.load(weights_only=True)` builds tensors, numbers and tables only.

    Raises
    ------
    ValueError
        If the file is damaged, or has objects of other classes.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    if not isinstance(file, LocalFile):
        raise ValueError(f"{shown(file.name)} is a pickle of PyTorch's behind a URL; fetch it")
    try:
        with file.path.open("rb") as stream:
            zipped = stream.read(2) == b"PK"
        held = torch.load(file.path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:
        reason = plain(str(error).partition("\n")[0] or type(error).__name__, 80)
        words = "is a pickle that torch.load(weights_only=True), which can run no code, does not read"
        raise ValueError(
            f"{shown(file.name)} {words} ({reason}); save its tensors with safetensors.torch.save_file"
        ) from None
    tensors: dict[str, StoredTensor] = {}
    skipped: dict[str, str] = {}
    held = held if isinstance(held, Mapping) else {file.path.stem: held}
    for name, value in _flat("", held, 0):
        if not isinstance(value, torch.Tensor):
            skipped[name] = f"no tensor ({type(value).__name__})"
        elif value.layout is not torch.strided or value.device.type == "meta" or value.is_quantized:
            skipped[name] = "a sparse, quantized or empty tensor"
        else:
            kind = str(value.dtype).removeprefix("torch.")
            info = TensorInfo(name, tuple(value.shape), _TAGS.get(kind, f"torch {kind}"))
            whole = functools.partial(_words, torch, value, kind)
            # A part of a contiguous one is not more than that part of the map.
            some = functools.partial(_part, torch, value, kind) if value.is_contiguous() else None
            tensors[name] = StoredTensor(info, whole, some, file)
    return tensors, {}, None, skipped


def _flat(prefix: str, table: Any, depth: int) -> Iterator[tuple[str, Any]]:
    pairs = table.items() if isinstance(table, Mapping) else enumerate(table)
    for key, value in pairs:
        name = f"{prefix}{key}"
        if isinstance(value, Mapping | list | tuple) and depth < _DEEPEST:
            yield from _flat(f"{name}.", value, depth + 1)
        else:
            yield name, value


def _words(torch: Any, tensor: Any, kind: str) -> NDArray[Any]:
    """Elements in the type that `elements` stores them in."""
    plain_ = tensor.detach().resolve_conj().resolve_neg()
    if kind in _SAME_SIZE:
        plain_ = plain_.contiguous().view(getattr(torch, _SAME_SIZE[kind]))
    array: NDArray[Any] = plain_.numpy()
    return array.view(np.uint16) if kind == "bfloat16" else array


def _part(torch: Any, tensor: Any, kind: str, begin: int, end: int) -> NDArray[Any]:
    return _words(torch, tensor.detach().view(-1)[begin:end], kind).copy()
