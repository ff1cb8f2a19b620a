"""Fitted rows as tables and arrays, for files, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files.mapping import Checkpoint
from .moments import Moments
from .parts import FormatPart, Part

# Codes that are in memory at a time.
_CODES = 1 << 22

Tables = tuple[dict[str, Any], dict[str, NDArray[Any]]]


def as_tables(part: Part | str) -> Tables:
    """What is said of fitted rows, or why they could not be fitted, and their arrays."""
    if isinstance(part, str):
        return {"failed": part}, {}
    formats: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for number, (grid, found) in enumerate(part.formats.items()):
        table = dataclasses.asdict(dataclasses.replace(found, arrays={}))
        formats[grid] = {key: value for key, value in table.items() if key != "arrays"}
        arrays |= {f"{number}.{name}": array for name, array in found.arrays.items()}
    return {"moments": list(part.moments), "formats": formats}, arrays


def as_part(tables: Mapping[str, Any], arrays: Checkpoint) -> Part | str:
    """The fitted rows of such tables; their codes stay in the file, see `codes_of`."""
    if "failed" in tables:
        return str(tables["failed"])
    formats = {}
    for number, (grid, table) in enumerate(tables["formats"].items()):
        mine = [name for name in arrays if name.startswith(f"{number}.") and name != f"{number}.codes"]
        own = {name.partition(".")[2]: _plain(arrays, name) for name in mine}
        formats[grid] = FormatPart(**{**table, "wanted": tuple(table["wanted"])}, arrays=own)
    return Part(tables["tensor"], tables["begin"], tables["end"], Moments(*tables["moments"]), formats)


def codes_of(tables: Mapping[str, Any], arrays: Checkpoint, grid: str) -> Iterator[NDArray[Any]]:
    """The codes of the rows in one format, flat, some at a time; none where none were written."""
    name = f"{list(tables['formats']).index(grid)}.codes"
    if name not in arrays:
        return
    info = arrays.info(name)
    for begin in range(0, info.size, _CODES):
        part = arrays.part_bits(name, begin, min(begin + _CODES, info.size))
        yield part.view(_integers(info.dtype))


def _integers(tag: str) -> str:
    return f"{'i' if tag[0] == 'I' else 'u'}{int(tag[1:]) // 8}"


def _plain(file: Checkpoint, name: str) -> NDArray[Any]:
    tag = file.info(name).dtype
    if tag == "BOOL":
        return file.bits(name).view(np.bool_)
    return file.bits(name).view(_integers(tag)) if tag[0] in "IU" else file[name]
