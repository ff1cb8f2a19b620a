"""A plan: which format each tensor of a checkpoint gets, what that costs, and what is proven of it; as a JSON file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..._check import plain, shown
from ..._files import atomic_open
from ..._version import __version__
from ...files.headers import parse_json
from ..recipe import check_format
from ..rows import decibels, finite

SCHEMA, VERSION = "qerror.plan", 1
KEEP = "keep"
"""The format of a tensor that is left as it is."""


@dataclasses.dataclass(frozen=True)
class PlannedTensor:
    """What one tensor gets.

    Attributes
    ----------
    format : str
        As `qerror fit --grid` takes it, or "keep": left as it is.
    shape : tuple of int
    dtype : str
        The element type in the checkpoint.
    bits : int
        All that is stored of it: codes, scales, tensor scale.
    mse, power : float
        Mean squared error with the best scales, and mean square; weighted where importance was given. nan: not known.
    error : float
        What it adds to the plan's error: its MSE times what that counts.
    why : str
        Why it is kept, where it could not be anything else.
    """

    format: str
    shape: tuple[int, ...] = ()
    dtype: str = ""
    bits: int = 0
    mse: float = math.nan
    power: float = math.nan
    error: float = 0.0
    why: str = ""

    @property
    def size(self) -> int:
        """How many values it has."""
        return math.prod(self.shape)

    @property
    def bits_per_value(self) -> float:
        """Bits stored for each value."""
        return self.bits / self.size if self.size else 0.0

    @property
    def sqnr_db(self) -> float:
        """Signal to quantization noise in dB; inf without an error."""
        return math.nan if math.isnan(self.mse) else decibels(self.power, self.mse)


@dataclasses.dataclass(frozen=True)
class Point:
    """Bits per planned value, and the weighted error, of one assignment; `db` is 10 log10(power / error).

    `name` is a format where all tensors that can have it have it.
    """

    bits: int
    error: float
    bits_per_value: float
    db: float
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Formats for the tensors of a checkpoint.

    Attributes
    ----------
    model : str or tuple of str
        Where the checkpoint is.
    formats : tuple of str
        What there was to choose from.
    budget : mapping
        kind "bits" (per planned value), "size" (bytes of all tensors) or "db", and its value.
    tensors : mapping of str to PlannedTensor
        All of the checkpoint's that are known, kept ones too.
    total : Point
        The planned tensors together.
    bound : float
        No assignment has a lower error (or, for a budget in dB, fewer bits) than this.
    proven : bool
        Whether none is better at all: shown in exact integer arithmetic on the measured errors.
    front : tuple of Point
        The convex hull of all assignments, from the fewest bits to the least error; each is the best of its size.
    uniform : tuple of Point
        One format for all tensors that can have it.
    options : mapping
        sensitivity, together, keep and what else was asked.
    """

    model: str | tuple[str, ...]
    formats: tuple[str, ...]
    budget: Mapping[str, Any]
    tensors: Mapping[str, PlannedTensor]
    total: Point
    bound: float
    proven: bool
    front: tuple[Point, ...] = ()
    uniform: tuple[Point, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def gap(self) -> float:
        """How far the bound is below what was found, relative to it: 0 where the plan is proven best."""
        found = self.total.bits if self.budget.get("kind") == "db" else self.total.error
        return 0.0 if self.proven or found <= 0 else (found - self.bound) / found

    @property
    def size(self) -> int:
        """Bytes of all tensors, planned and kept."""
        return sum(each.bits for each in self.tensors.values()) // 8

    def counts(self) -> dict[str, int]:
        """How many tensors have each format, most bits first."""
        rank = {name: number for number, name in enumerate([*self.formats, KEEP])}
        names = [each.format for each in self.tensors.values()]
        return {name: names.count(name) for name in sorted(set(names), key=lambda one: rank.get(one, -1))}

    def as_json(self) -> dict[str, Any]:
        """The content of the file: schema "qerror.plan"."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "qerror": __version__,
            "model": self.model,
            "formats": list(self.formats),
            "rule": "optimal",
            "budget": dict(self.budget),
            "options": dict(self.options),
            "total": dataclasses.asdict(self.total),
            "proof": {"proven": self.proven, "bound": self.bound, "gap": self.gap},
            "tensors": {name: _table(each) for name, each in self.tensors.items()},
            "uniform": [dataclasses.asdict(point) for point in self.uniform],
            "front": [[point.bits, point.error, point.bits_per_value, point.db] for point in self.front],
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the plan as JSON; it appears whole or not at all."""
        text = json.dumps(finite(self.as_json()), indent=1, allow_nan=False)
        with atomic_open(path, "w") as out:
            out.write(text + "\n")


def _table(each: PlannedTensor) -> dict[str, Any]:
    found: dict[str, Any] = {
        "format": each.format,
        "bits_per_value": each.bits_per_value,
        "mse": each.mse,
        "sqnr_db": each.sqnr_db,
        "power": each.power,
        "error": each.error,
        "bits": each.bits,
        "shape": list(each.shape),
        "dtype": each.dtype,
    }
    return found | ({"why": each.why} if each.why else {})


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan that `Plan.save` wrote, or one written by hand: model and the format of each tensor suffice.

    Raises
    ------
    ValueError
        If the file is none, is of a later version, or names a format that there is not.
    """
    try:
        content = parse_json(Path(path).read_bytes())
        schema, version = content["schema"], content["version"]
    except FileNotFoundError:
        raise ValueError(f"{shown(path)} does not exist; `qerror plan MODEL ... -o PLAN` makes one") from None
    except (ValueError, KeyError, TypeError):
        schema = version = None
    if schema != SCHEMA:
        raise ValueError(f'{shown(path)} is no plan (JSON with "schema": "{SCHEMA}"); `qerror plan MODEL -o PLAN` is')
    if version != VERSION:
        raise ValueError(f"{shown(path)} has version {shown(version, 20)}, and this qerror reads {VERSION}; update it")
    try:
        return _plan(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{shown(path)} is a damaged plan ({plain(str(error), 120)}); make it again") from None


def _plan(content: Mapping[str, Any]) -> Plan:
    tensors = {}
    for name, table in content["tensors"].items():
        form = table["format"]
        if form != KEEP:
            check_format(form)
        shape = tuple(int(n) for n in table.get("shape", ()))
        mse, power, error = (_number(table.get(key)) for key in ("mse", "power", "error"))
        bits, dtype, why = int(table.get("bits", 0)), str(table.get("dtype", "")), str(table.get("why", ""))
        tensors[str(name)] = PlannedTensor(form, shape, dtype, bits, mse, power, error, why)
    model = content["model"]
    proof = content.get("proof", {})
    return Plan(
        model if isinstance(model, str) else tuple(map(str, model)),
        tuple(map(str, content.get("formats", ()))),
        dict(content.get("budget", {})),
        tensors,
        _point(content.get("total", {})),
        _number(proof.get("bound")),
        proof.get("proven") is True,
        tuple(_front_point(*numbers) for numbers in content.get("front", ())),
        tuple(map(_point, content.get("uniform", ()))),
        dict(content.get("options", {})),
    )


def _point(table: Mapping[str, Any]) -> Point:
    numbers = (table.get(key) for key in ("error", "bits_per_value", "db"))
    return dataclasses.replace(_front_point(table.get("bits", 0), *numbers), name=str(table.get("name", "")))


def _front_point(bits: Any, error: Any, bits_per_value: Any, db: Any) -> Point:
    # JSON has no infinity: without an error there are infinitely many decibels.
    found = math.inf if db is None and error == 0 else _number(db)
    return Point(int(bits), _number(error), _number(bits_per_value), found)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
