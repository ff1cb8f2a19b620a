"""Tables as files. JSON, CSV and safetensors hold the same header and rows, and load again to the last bit."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .._check import shown
from .._files import atomic_open
from ..error import MODELS, ROUNDINGS
from ..results import Status
from ..tensors.checkpoints import open_checkpoint
from .sources import c_header, python_module
from .table import ScaleRow, ScaleTable

__all__ = ["check_path", "load_table", "save_table"]

_PACKAGED = Path(__file__).parent.parent / "data" / "scales.json"
_FORMAT = "qerror scale table"
_SCHEMA = 1
# Right digits of what the search promises; the scale of a flat minimum has fewer, its error does not.
_DIGITS = {"scale": 8, "mse": 12}
_FIELDS = tuple(field.name for field in dataclasses.fields(ScaleRow))
_TEXTS = ("grid", "density", "rounding", "status")
_NUMBERS = tuple(name for name in _FIELDS if name not in _TEXTS)
# CSV has no place for a header: it stands in a first line that readers of CSV can be told to skip.
_CSV_MARK = "# "


def load_table(path: str | os.PathLike[str] | None = None) -> ScaleTable:
    """Read a table that `ScaleTable.save` wrote; without a path the one that comes with the package.

    That one holds every named format of up to 8 bits on the parametric densities at their usual shapes, for nearest and
    stochastic rounding.

    Parameters
    ----------
    path : path-like, optional
        A .json, .csv or .safetensors file.

    Returns
    -------
    ScaleTable

    Raises
    ------
    ValueError
        For a file that is missing, no table, damaged (it does not hold what its digest was made of), or written by a
        newer qerror.

    Examples
    --------
    >>> import qerror as qe
    >>> qe.load_table().lookup("e2m1", "gaussian").status
    'EXACT'
    """
    file = _PACKAGED if path is None else Path(path)
    read = _READERS.get(file.suffix)
    if read is None:
        raise ValueError(f"path must end in {', '.join(_READERS)} to be loaded, got {str(path)!r}")
    if not file.is_file():
        raise ValueError(f"path must name a file, there is none at {str(path)!r}")
    try:
        return _checked(*read(file))
    except _NewerError as error:
        raise ValueError(f"{str(file)!r} has schema {error} and this qerror reads {_SCHEMA}; upgrade qerror") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        missing = "it lacks " if isinstance(error, KeyError) else ""
        message = f"{str(file)!r} is no sound scale table: {missing}{error}; write it again with `qerror table -o`"
        raise ValueError(message) from None


def save_table(table: ScaleTable, path: str | os.PathLike[str]) -> None:
    """Write a table in the format that the ending of `path` names."""
    check_path(path)
    content = _WRITERS[Path(path).suffix](table)
    with atomic_open(path, "wb") as file:
        file.write(content)


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise unless a table can be written there: before it is computed, not after."""
    if Path(path).suffix not in _WRITERS:
        raise ValueError(f"path must end in {', '.join(_WRITERS)}, got {str(path)!r}")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"the folder of {str(path)!r} does not exist; make it first")


def _header(table: ScaleTable) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "schema": _SCHEMA,
        "version": table.version,
        "model": table.model,
        "parameters": {"shift": table.shift, "rounding": list(table.roundings)},
        "digits": _DIGITS,
        "digest": _digest(table),
    }


def _digest(table: ScaleTable) -> str:
    """SHA-256 of all that a table holds, as JSON: the shortest digits of each float64 are one text everywhere."""
    rows = [dataclasses.astuple(row) for row in table.rows]
    text = json.dumps([table.model, table.shift, table.version, rows], allow_nan=False, ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def _to_json(table: ScaleTable) -> bytes:
    # One row a line: a change of one number is a change of one line.
    rows = ",\n".join("    " + json.dumps(dataclasses.asdict(row), allow_nan=False) for row in table.rows)
    head = json.dumps(_header(table), indent=2).removesuffix("\n}")
    return f'{head},\n  "rows": [\n{rows}\n  ]\n}}\n'.encode()


def _to_csv(table: ScaleTable) -> bytes:
    text = io.StringIO()
    text.write(_CSV_MARK + json.dumps(_header(table)) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FIELDS)
    writer.writerows(dataclasses.astuple(row) for row in table.rows)
    return text.getvalue().encode()


def _to_safetensors(table: ScaleTable) -> bytes:
    from safetensors.numpy import save

    columns = {name: np.array([getattr(row, name) for row in table.rows], np.float64) for name in _NUMBERS}
    texts = {name: [getattr(row, name) for row in table.rows] for name in _TEXTS}
    # One entry only: safetensors writes several in an order that changes from run to run.
    return save(columns, {"qerror": json.dumps({**_header(table), "columns": texts})})


def _to_source(write: Callable[[ScaleTable, str], str]) -> Callable[[ScaleTable], bytes]:
    return lambda table: write(table, json.dumps(_header(table), indent=1)).encode()


def _from_json(path: Path) -> tuple[Any, list[Any]]:
    found = json.loads(path.read_text(encoding="utf-8"))
    return found, found["rows"]


def _from_csv(path: Path) -> tuple[Any, list[Any]]:
    first, _, body = path.read_text(encoding="utf-8").partition("\n")
    if not first.startswith(_CSV_MARK):
        raise ValueError("its first line is no header")
    return json.loads(first.removeprefix(_CSV_MARK)), [
        {key: float(text) if key in _NUMBERS else text for key, text in row.items()}
        for row in csv.DictReader(io.StringIO(body, newline=""), strict=True)
    ]


def _from_safetensors(path: Path) -> tuple[Any, list[Any]]:
    with open_checkpoint(path) as checkpoint:
        found = json.loads(checkpoint.metadata["qerror"])
        columns = {**found["columns"], **{name: checkpoint[name].tolist() for name in checkpoint}}
    return found, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class _NewerError(Exception):
    """The schema of the file is a later one."""


def _checked(header: Any, rows: list[Any]) -> ScaleTable:
    """Make the table of a header and rows that agree with one another."""
    if header["format"] != _FORMAT:
        raise ValueError(f"its format is {shown(header['format'])}")
    if isinstance(header["schema"], int) and header["schema"] > _SCHEMA:
        raise _NewerError(header["schema"])
    shift, version = header["parameters"]["shift"], header["version"]
    if header["model"] not in MODELS or not isinstance(version, str) or not _is_shift(shift):
        raise ValueError(f"it has model {shown(header['model'])}, shift {shown(shift)}, version {shown(version)}")
    table = ScaleTable(tuple(_row(row) for row in rows), header["model"], shift, version)
    for key, expected in _header(table).items():
        if header[key] != expected:
            raise ValueError(f"its {key} is {shown(header[key])}, that of its content {shown(expected)}")
    return table


def _is_shift(shift: Any) -> bool:
    return shift in ("mean", "optimal") or (type(shift) is float and math.isfinite(shift))


def _row(fields: Any) -> ScaleRow:
    row = ScaleRow(**fields)
    for name in _TEXTS:
        if not isinstance(getattr(row, name), str):
            raise ValueError(f"{name} of a row is {shown(getattr(row, name))}")
    for name in _NUMBERS:
        value = getattr(row, name)
        if type(value) is not float or not math.isfinite(value):
            raise ValueError(f"{name} of a row is {shown(value)}")
    if row.rounding not in ROUNDINGS or row.status not in Status.__members__ or row.scale <= 0 or row.std <= 0:
        raise ValueError(f"there is the impossible row {shown(row)}")
    return row


_READERS: dict[str, Callable[[Path], tuple[Any, list[Any]]]] = {
    ".json": _from_json,
    ".csv": _from_csv,
    ".safetensors": _from_safetensors,
}
_WRITERS: dict[str, Callable[[ScaleTable], bytes]] = {
    ".json": _to_json,
    ".csv": _to_csv,
    ".safetensors": _to_safetensors,
    ".h": _to_source(c_header),
    ".py": _to_source(python_module),
}
