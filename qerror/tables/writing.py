"""Tables into files. JSON, CSV and safetensors hold the same header and rows, and load again to the last bit."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._check import shown
from .._files import atomic_open
from .row import ScaleRow, Shift
from .sources import c_header, python_module

FORMAT = "qerror scale table"
SCHEMA = 1
# Right digits of what the search promises; the scale of a flat minimum has fewer, its error does not.
_DIGITS = {"scale": 8, "mse": 12}
_FIELDS = tuple(field.name for field in dataclasses.fields(ScaleRow))
TEXTS = ("grid", "density", "rounding", "status")
NUMBERS = tuple(name for name in _FIELDS if name not in TEXTS)
# CSV has no place for a header: it stands in a first line that readers of CSV can be told to skip.
CSV_MARK = "# "

Header = dict[str, Any]


def write_table(path: str | os.PathLike[str], rows: Sequence[ScaleRow], model: str, shift: Shift, version: str) -> None:
    """Write what a `ScaleTable` holds in the format that the ending of `path` names."""
    check_path(path)
    content = _WRITERS[Path(path).suffix](rows, header_of(rows, model, shift, version))
    with atomic_open(path, "wb") as file:
        file.write(content)


def check_path(path: str | os.PathLike[str]) -> None:
    """Raise unless a table can be written there: before it is computed, not after."""
    if Path(path).suffix not in _WRITERS:
        raise ValueError(f"path must end in {', '.join(_WRITERS)}, got {shown(Path(path))}")
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"the folder of {shown(Path(path))} does not exist; make it first")


def header_of(rows: Sequence[ScaleRow], model: str, shift: Shift, version: str) -> Header:
    """What a file says of its rows."""
    return {
        "format": FORMAT,
        "schema": SCHEMA,
        "version": version,
        "model": model,
        "parameters": {"shift": shift, "rounding": list(dict.fromkeys(row.rounding for row in rows))},
        "digits": _DIGITS,
        "digest": _digest([model, shift, version, [dataclasses.astuple(row) for row in rows]]),
    }


def _digest(content: list[Any]) -> str:
    """SHA-256 of all that a table holds, as JSON: the shortest digits of each float64 are one text everywhere."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=True)
    return "sha256:" + hashlib.sha256(text.encode("ascii")).hexdigest()


def _to_json(rows: Sequence[ScaleRow], header: Header) -> bytes:
    # One row a line: a change of one number is a change of one line.
    lines = ",\n".join("    " + json.dumps(dataclasses.asdict(row), allow_nan=False) for row in rows)
    head = json.dumps(header, indent=2).removesuffix("\n}")
    return f'{head},\n  "rows": [\n{lines}\n  ]\n}}\n'.encode()


def _to_csv(rows: Sequence[ScaleRow], header: Header) -> bytes:
    text = io.StringIO()
    text.write(CSV_MARK + json.dumps(header) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_FIELDS)
    writer.writerows(dataclasses.astuple(row) for row in rows)
    return text.getvalue().encode()


def _to_safetensors(rows: Sequence[ScaleRow], header: Header) -> bytes:
    from safetensors.numpy import save

    columns = {name: np.array([getattr(row, name) for row in rows], np.float64) for name in NUMBERS}
    texts = {name: [getattr(row, name) for row in rows] for name in TEXTS}
    # One entry only: safetensors writes several in an order that changes from run to run.
    return save(columns, {"qerror": json.dumps({**header, "columns": texts})})


def _to_source(write: Callable[[Sequence[ScaleRow], str], str]) -> Callable[[Sequence[ScaleRow], Header], bytes]:
    return lambda rows, header: write(rows, json.dumps(header, indent=1)).encode()


_WRITERS: dict[str, Callable[[Sequence[ScaleRow], Header], bytes]] = {
    ".json": _to_json,
    ".csv": _to_csv,
    ".safetensors": _to_safetensors,
    ".h": _to_source(c_header),
    ".py": _to_source(python_module),
}
