"""Tables out of files: what `ScaleTable.save` wrote, checked."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .._check import plain, shown
from ..errors.exact import MODELS, ROUNDINGS
from ..files.checkpoint import open_checkpoint
from ..files.headers import parse_json
from ..results import Status
from .row import ScaleRow
from .table import ScaleTable
from .writing import CSV_MARK, FORMAT, NUMBERS, SCHEMA, TEXTS, header_of

_PACKAGED = Path(__file__).parent.parent / "data" / "scales.json"


def load_table(path: str | os.PathLike[str] | None = None) -> ScaleTable:
    """Read a table that `ScaleTable.save` wrote; without a path the one that comes with the package.

    That one holds every named format of up to 8 bits on the parametric densities at their usual shapes, for nearest and
    stochastic rounding.

    Parameters
    ----------
    path : path-like, optional
        A .json, .csv or .safetensors file.

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
        raise ValueError(f"path must end in {', '.join(_READERS)} to be loaded, got {shown(file)}")
    try:
        there = file.is_file()
    except OSError:
        there = False
    if not there:
        raise ValueError(f"path must name a file, there is none at {shown(file)}")
    try:
        return _checked(*read(file))
    except _NewerError as error:
        raise ValueError(f"{shown(file)} has schema {error} and this qerror reads {SCHEMA}; upgrade qerror") from None
    except (KeyError, TypeError, AttributeError, ValueError, csv.Error) as error:
        missing = "it lacks " if type(error) is KeyError else ""
        # The readers of files begin with the name of the file, as this does.
        reason = missing + plain(str(error).removeprefix(f"{shown(file)} is "), 130)
        raise ValueError(
            f"{shown(file)} is no sound scale table: {reason}; write it again with `qerror table -o`"
        ) from None


def _from_json(path: Path) -> tuple[Any, list[Any]]:
    found = parse_json(path.read_bytes())
    return found, found["rows"]


def _from_csv(path: Path) -> tuple[Any, list[Any]]:
    first, _, body = path.read_text(encoding="utf-8").partition("\n")
    if not first.startswith(CSV_MARK):
        raise ValueError("its first line is no header")
    return parse_json(first.removeprefix(CSV_MARK)), [
        {key: float(text) if key in NUMBERS else text for key, text in row.items()}
        for row in csv.DictReader(io.StringIO(body, newline=""), strict=True)
    ]


def _from_safetensors(path: Path) -> tuple[Any, list[Any]]:
    with open_checkpoint(path) as checkpoint:
        found = parse_json(checkpoint.metadata["qerror"])
        columns = {**found["columns"], **{name: checkpoint[name].tolist() for name in checkpoint}}
    return found, [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class _NewerError(Exception):
    """The schema of the file is a later one."""


def _checked(header: Any, rows: list[Any]) -> ScaleTable:
    """Make the table of a header and rows that agree with one another."""
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {shown(header['format'])}")
    if isinstance(header["schema"], int) and header["schema"] > SCHEMA:
        raise _NewerError(shown(header["schema"], 20))
    shift, version = header["parameters"]["shift"], header["version"]
    if header["model"] not in MODELS or not isinstance(version, str) or not _is_shift(shift):
        found = f"model {shown(header['model'], 30)}, shift {shown(shift, 30)}, version {shown(version, 30)}"
        raise ValueError(f"it has {found}")
    said = header["model"], shift, version
    table = ScaleTable(tuple(_row(row) for row in rows), *said)
    for key, expected in header_of(table.rows, *said).items():
        if header[key] != expected:
            said_key, made = shown(header[key], 40), shown(expected, 40)
            raise ValueError(f"its {key} is {said_key}, that of its content {made}")
    return table


def _is_shift(shift: Any) -> bool:
    return shift in ("mean", "optimal") or (type(shift) is float and math.isfinite(shift))


def _row(fields: Any) -> ScaleRow:
    row = ScaleRow(**fields)
    for name in TEXTS:
        if not isinstance(getattr(row, name), str):
            raise ValueError(f"{name} of a row is {shown(getattr(row, name))}")
    for name in NUMBERS:
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
