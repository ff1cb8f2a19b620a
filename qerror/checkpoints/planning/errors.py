"""What each format costs on each tensor: measured once, and kept in a file for the next budget."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..._check import shown
from ..._files import atomic_open
from ..._threads import thread_map
from ..._version import __version__
from ...casting.cast import fake_quantize
from ...files.elements import TensorInfo
from ...files.headers import parse_json
from ...files.mapping import Checkpoint
from ...files.sources import ReadError
from ..fitting import Largest
from ..parts import FormatPart
from ..pieces import Fitting, bits_of
from ..recipe import Recipe, cut, piece_weights
from ..weights import Weights
from .storage import is_cast

SCHEMA, VERSION = "qerror.errors", 1
_RULES = ("optimal", "minmax")
# Wider grids are searched without a proof (see `qerror.search`).
_PROVEN_BITS = 10
# Seconds between two writings of the file.
_PATIENCE = 5.0


@dataclasses.dataclass(frozen=True)
class FormatError:
    """Errors of one tensor in one format.

    Attributes
    ----------
    mse : float
        Mean squared error with the best scales, weighted where weights were given.
    minmax : float
        The same with minmax scales; nan where a format has no scale.
    power, weight : float
        Weighted mean square, and the sum of weights: the number of values without any.
    unproven : int
        Groups whose scale is not proven best.
    at_least : float
        What the error is at least, where `mse` is the most that it can be (float32 in a sketch); else nan.
    """

    mse: float
    minmax: float
    power: float
    weight: float
    unproven: int = 0
    at_least: float = math.nan

    @property
    def least(self) -> float:
        """What the error is at least: itself, but where it is known by bounds."""
        return self.mse if math.isnan(self.at_least) else self.at_least

    @property
    def bounded(self) -> bool:
        """Whether the error is known by bounds alone."""
        return self.least < self.mse


@dataclasses.dataclass(frozen=True)
class TensorErrors:
    """Errors of one tensor by format, and why a format has none."""

    info: TensorInfo
    formats: Mapping[str, FormatError]
    failed: Mapping[str, str]
    kurtosis: float = math.nan


class ErrorFile:
    """Errors by what they follow from (file, tensor, format, version); without a path nothing is kept.

    A file that cannot be read counts as empty: everything in it can be measured again.
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None and not self.path.parent.is_dir():
            # Before hours of measuring, not after them.
            raise ValueError(f"the folder of {shown(self.path)} does not exist; make it first")
        self._entries: dict[str, dict[str, Any]] = {}
        self._written, self._fresh = time.monotonic(), False
        if self.path is not None and self.path.exists():
            self._entries = self._read(self.path)

    @staticmethod
    def _read(path: Path) -> dict[str, dict[str, Any]]:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            content = parse_json(path.read_bytes())
            if (content["schema"], content["version"]) == (SCHEMA, VERSION):
                return dict(content["entries"])
            raise KeyError
        raise ValueError(f"errors must name a file that an earlier plan wrote, or a new one; {shown(path)} is another")

    def get(self, mark: str) -> dict[str, Any] | None:
        """What is known."""
        return self._entries.get(mark)

    def put(self, mark: str, entry: Mapping[str, Any]) -> None:
        """Keep an entry; it is written now and then, and in the end."""
        self._entries[mark], self._fresh = dict(entry), True
        if time.monotonic() - self._written > _PATIENCE:
            self.save()

    def save(self) -> None:
        """Write what is new."""
        if self.path is None or not self._fresh:
            return
        content = {"schema": SCHEMA, "version": VERSION, "entries": self._entries}
        with atomic_open(self.path, "w") as out:
            out.write(json.dumps(content, indent=0) + "\n")
        self._written, self._fresh = time.monotonic(), False


@dataclasses.dataclass(frozen=True)
class Measuring:
    """Measures formats on tensors of a checkpoint.

    Attributes
    ----------
    checkpoint : Checkpoint
    names : sequence of str
        The tensors: those that share a tensor scale are looked for among them.
    weigh : Weights, optional
    together : sequence of str
        Patterns of tensors that share a tensor scale.
    kept : ErrorFile
    memory : float
        Bytes that may be used.
    """

    checkpoint: Checkpoint
    names: Sequence[str]
    weigh: Weights | None
    together: tuple[str, ...]
    kept: ErrorFile
    memory: float = math.inf

    @functools.cached_property
    def largest(self) -> Largest:
        """Largest magnitudes, of tensors that share their scale together; each is looked for once."""
        return Largest(self.checkpoint, self.names, Recipe(("nvfp4",), together=self.together))

    def tensor(self, name: str, formats: Sequence[str], heard: Callable[[int], None] | None = None) -> TensorErrors:
        """Errors of a tensor in all formats; those that are known are not measured again."""
        info = self.checkpoint.info(name)
        marks = {each: self._mark(info, each) for each in dict.fromkeys(formats)}
        known = {each: self.kept.get(mark) for each, mark in marks.items()}
        missing = [each for each, entry in known.items() if entry is None]
        for each, entry in self._measured(info, missing).items():
            known[each] = entry
            self.kept.put(marks[each], entry)
        if heard:
            heard(-(-info.size * bits_of(info) // 8))
        return tensor_errors(info, {each: entry for each, entry in known.items() if entry is not None})

    def _mark(self, info: TensorInfo, text: str) -> str:
        """A short text that differs where the answer may."""
        scaled = not is_cast(text) and Recipe((text,)).full_scale(text) is not None
        members = self.largest.members(info.name) if scaled else (info.name,)
        stamps = [self.checkpoint.stamp(each) for each in members]
        weights = None if self.weigh is None else self.weigh.stamp
        said = [VERSION, __version__, info.name, info.shape, info.dtype, text, stamps, weights]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:20]

    def _measured(self, info: TensorInfo, formats: Sequence[str]) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        fitted = tuple(each for each in formats if not is_cast(each))
        if fitted:
            try:
                found |= self._fitted(info, fitted)
            except ReadError:
                raise
            except (ValueError, MemoryError) as error:
                # One format may not fit a tensor that others do.
                alone = [self._measured(info, [each]) for each in fitted] if len(fitted) > 1 else []
                found |= {each: entry for part in alone for each, entry in part.items()}
                found |= {} if alone else {fitted[0]: {"failed": str(error)}}
        for each in formats:
            if is_cast(each):
                try:
                    found[each] = cast_error(self.checkpoint, info, each, self.weigh)
                except ReadError:
                    raise
                except ValueError as error:
                    found[each] = {"failed": str(error)}
        return found

    def _fitted(self, info: TensorInfo, formats: tuple[str, ...]) -> dict[str, dict[str, Any]]:
        recipe = Recipe(formats, _RULES, {}, together=self.together)
        fitting = Fitting(self.checkpoint, recipe, self.largest, self.weigh, None, self.memory)
        part = fitting.rows(info.name, 0, cut(info, recipe).rows)
        return {each: entry_of(each, found, part.moments.kurtosis) for each, found in part.formats.items()}


def entry_of(text: str, found: FormatPart, kurtosis: float) -> dict[str, Any]:
    """What is kept of a fitted format."""
    unproven = sum(n for status, n in found.unusual["optimal"].items() if not status.startswith("DEGENERATE"))
    unproven = found.groups if Recipe((text,)).form(text).grid.bits > _PROVEN_BITS else unproven
    return {
        "mse": found.mse["optimal"] / found.weight,
        "minmax": found.mse["minmax"] / found.weight if "minmax" in found.mse else None,
        "power": found.power / found.weight,
        "weight": found.weight,
        "unproven": unproven,
        "kurtosis": None if math.isnan(kurtosis) else kurtosis,
    }


def cast_error(checkpoint: Checkpoint, info: TensorInfo, text: str, weigh: Weights | None = None) -> dict[str, Any]:
    """Errors of a plain cast: every value to the nearest 16-bit float, without a scale."""
    rows_alone = Recipe((f"{text}:axis=0",)) if info.shape else Recipe((text,))
    how, weights = cut(info, rows_alone), weigh(info) if weigh else None

    def work(rows: tuple[int, int]) -> list[float]:
        values = checkpoint.part(info.name, rows[0] * how.row_size, rows[1] * how.row_size)
        values = values.reshape(how.shape(info, rows[1] - rows[0]) if how.leading else info.shape)
        own = piece_weights(weights, info, how, rows)
        w = 1.0 if own is None else np.broadcast_to(own, values.shape)
        exact = values.astype(np.float64)
        away = np.square(fake_quantize(values, text).astype(np.float64) - exact)
        total = float(values.size) if own is None else float(np.sum(w))
        return [float(np.sum(w * away)), float(np.sum(w * np.square(exact))), total]

    error, power, weight = (
        math.fsum(column) for column in zip(*thread_map(work, how.pieces(0, how.rows)), strict=True)
    )
    return {"mse": error / weight, "minmax": None, "power": power / weight, "weight": weight, "unproven": 0}


def tensor_errors(info: TensorInfo, entries: Mapping[str, Mapping[str, Any]]) -> TensorErrors:
    """Errors of a tensor from the entries of its formats."""
    formats = {each: _error(entry) for each, entry in entries.items() if "failed" not in entry}
    failed = {each: str(entry["failed"]) for each, entry in entries.items() if "failed" in entry}
    kurtosis = next((float(e["kurtosis"]) for e in entries.values() if e.get("kurtosis") is not None), math.nan)
    return TensorErrors(info, formats, failed, kurtosis)


def _error(entry: Mapping[str, Any]) -> FormatError:
    minmax = math.nan if entry["minmax"] is None else float(entry["minmax"])
    mse, power, weight = (float(entry[key]) for key in ("mse", "power", "weight"))
    return FormatError(mse, minmax, power, weight, int(entry["unproven"]), float(entry.get("least", math.nan)))
