"""The folder of an export: new, half done, or finished with a record of what was asked and what it cost."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._check import listed, shown
from .._files import atomic_open
from ..files.elements import TensorInfo
from ..files.headers import parse_json
from .claims import Claims

PARTS = ".qerror_parts"
"""Folder of the parts of weights, while an export goes on."""
_RECORD = "qerror_export.json"
_CLAIM = "export.claim"
# Seconds without a sign of life after which an export of another machine counts as dead.
_STALE_AFTER = 60.0
# What exports write.
_WRITTEN = (
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "config.json"),
    *("model.gguf", "model.onnx", "model.onnx.data", "model.npz"),
)


@dataclasses.dataclass(frozen=True)
class ExportedTensor:
    """One tensor of an export.

    Attributes
    ----------
    info : TensorInfo
        As it was.
    format : str
        Of the plan; "keep" where it is a copy.
    bits : float
        Stored for each value, scales and all.
    power, mse : float
        Mean square, and mean squared error; nan for copies.
    """

    info: TensorInfo
    format: str
    bits: float
    power: float = math.nan
    mse: float = math.nan


def begin(target: Path, said: Mapping[str, Any]) -> list[ExportedTensor] | None:
    """Make the folder; what it has where the same export has been finished.

    Raises
    ------
    ValueError
        If it has anything else.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"output must name a folder, got the file {shown(target)}")
    if (target / _RECORD).exists():
        return _finished(target, json.loads(json.dumps(said)))
    others = [path.name for path in target.iterdir()] if target.exists() else []
    if others and PARTS not in others:
        raise ValueError(f"{shown(target)} has other files, such as {shown(others[0])}; name an empty folder")
    (target / PARTS).mkdir(parents=True, exist_ok=True)
    return None


@contextlib.contextmanager
def alone(target: Path) -> Iterator[None]:
    """The folder for this process, free of what an interrupted export has written; its parts stay.

    Raises
    ------
    ValueError
        If another process is at it. One that was killed is none.
    """
    with Claims(target / PARTS, _STALE_AFTER).held(_CLAIM) as mine:
        if not mine:
            raise ValueError(f"another process exports into {shown(target)}; wait for it, or name another folder")
        # An interrupted export of another plan would look like a part of this one; a killed one leaves half of a file.
        if not (target / _RECORD).exists():
            halves = [f".{name}.*.part" for name in _WRITTEN]
            for old in (path for pattern in (*_WRITTEN, *halves) for path in target.glob(pattern)):
                old.unlink(missing_ok=True)
        yield


def _finished(target: Path, said: Mapping[str, Any]) -> list[ExportedTensor]:
    """What the record says, if it is that of the same export."""
    try:
        known = parse_json((target / _RECORD).read_bytes())
        asked = dict(known["asked"])
        done = [_read_row(each) for each in known["tensors"]]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{shown(target / _RECORD)} is damaged; name another folder, or delete this one") from None
    if asked != said:
        other = listed(key for key in said if asked.get(key) != said[key])
        raise ValueError(f"{shown(target)} holds another export (other {other}); name another folder")
    shutil.rmtree(target / PARTS, ignore_errors=True)
    return done


def finish(target: Path, said: Mapping[str, Any], done: Sequence[ExportedTensor]) -> None:
    """Write the record, and remove the parts."""
    with atomic_open(target / _RECORD, "w") as out:
        out.write(json.dumps({"asked": said, "tensors": [_row(each) for each in done]}, indent=1) + "\n")
    shutil.rmtree(target / PARTS, ignore_errors=True)


def _row(each: ExportedTensor) -> dict[str, Any]:
    numbers = {"power": each.power, "mse": each.mse}
    return {
        "name": each.info.name,
        "shape": each.info.shape,
        "dtype": each.info.dtype,
        "format": each.format,
        "bits": each.bits,
        **{key: None if math.isnan(value) else value for key, value in numbers.items()},
    }


def _read_row(row: Mapping[str, Any]) -> ExportedTensor:
    info = TensorInfo(row["name"], tuple(row["shape"]), row["dtype"])
    power, mse = (math.nan if row[key] is None else float(row[key]) for key in ("power", "mse"))
    return ExportedTensor(info, row["format"], row["bits"], power, mse)
