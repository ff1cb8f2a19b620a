"""Putting the parts of a folder together: scales in shards with an index, and one report."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .._check import shown
from .._files import atomic_open
from .._version import __version__
from ..files.elements import TensorInfo
from ..files.scales import ScaleSink, open_scales
from .fitting import TensorFit, stored_arrays, tensor_fits
from .folder import Folder, Task
from .part_files import as_part, codes_of
from .parts import Part, joined_parts
from .recipe import Recipe, shared_scales
from .rows import finite, report
from .running import check_complete
from .tasks import model_name

# Bytes of a shard of scales, about.
_SHARD = 1 << 30


def collect(path: str | os.PathLike[str]) -> tuple[list[TensorFit], dict[str, Any]]:
    """Put the parts of a folder together.

    Writes scales-00001-of-0000N.safetensors and scales.safetensors.index.json (in a folder of its own for each format,
    where there are several), and report.json. The parts stay, so that a later run has nothing to do.

    Returns
    -------
    fits : list of TensorFit
    plan : dict
        What was asked: plan.json.

    Raises
    ------
    ValueError
        If the folder holds no fit, or parts are missing.
    """
    folder = Folder(path)
    plan = folder.plan()
    if "recipe" not in plan["asked"]:
        raise ValueError(f"{shown(folder.path)} holds a scan, not a fit; `qerror scan` itself puts its parts together")
    asked = plan["asked"]["recipe"]
    recipe = Recipe(
        tuple(asked["grids"]), tuple(asked["rules"]), asked["options"], asked["codes"], tuple(asked["together"])
    )
    tasks = [Task(**each) for each in plan["tasks"]]
    check_complete(folder, tasks)
    infos = {name: TensorInfo(name, tuple(shape), dtype) for name, (shape, dtype) in plan["tensors"].items()}
    done = [TensorFit(TensorInfo(name, (), ""), skipped=reason) for name, reason in plan["left_out"]]
    done += [TensorFit(infos[name], failed=reason) for name, reason in plan["failed"].items()]
    writers = {
        grid: _Shards(_place(folder.path, recipe, grid), folder.parts, _about(plan, recipe, grid))
        for grid in recipe.grids
    }
    try:
        for info, part, mine in joined_tensors(folder, tasks, infos):
            if isinstance(part, str):
                done.append(TensorFit(info, failed=part))
                continue
            done += tensor_fits(info, part)
            for grid, writer in writers.items():
                codes = _codes(folder, mine, grid) if recipe.codes else None
                writer.add(list(stored_arrays(info, part, recipe, grid)), info, codes)
        for writer in writers.values():
            writer.finish()
    except BaseException:
        for writer in writers.values():
            writer.abort()
        raise
    about = {"command": "fit", "version": __version__, "grid": ", ".join(recipe.grids), **recipe.options}
    if recipe.together:
        about["together"] = shared_scales([fit.info.name for fit in done if fit.mse], recipe.together)
    content = finite({**about, **report(done, plan["no_tensors"], asked["options"].get("scale_format"))})
    with atomic_open(folder.path / "report.json", "w") as out:
        out.write(json.dumps(content, indent=2, allow_nan=False) + "\n")
    return done, plan


def joined_tensors(
    folder: Folder, tasks: list[Task], infos: dict[str, TensorInfo]
) -> Iterator[tuple[TensorInfo, Part | str, list[Task]]]:
    """Each tensor with its parts as one (without codes), or why it could not be fitted, and its tasks."""
    of: dict[str, list[Task]] = {}
    for task in tasks:
        of.setdefault(task.name, []).append(task)
    for name, mine in of.items():
        parts: list[Part] = []
        failed = ""
        for task in mine:
            part = folder.read(task, as_part)
            failed = failed or (part if isinstance(part, str) else "")
            if not isinstance(part, str):
                parts.append(part)
        yield infos[name], failed or joined_parts(parts), mine


def _codes(folder: Folder, tasks: list[Task], grid: str) -> Iterator[NDArray[Any]]:
    """The codes of a tensor, some at a time."""
    for task in tasks:
        yield from folder.read(task, lambda tables, arrays: codes_of(tables, arrays, grid))


def _place(path: Path, recipe: Recipe, grid: str) -> Path:
    return path if len(recipe.grids) == 1 else path / grid


def _about(plan: dict[str, Any], recipe: Recipe, grid: str) -> dict[str, str]:
    model = plan["model"] if isinstance(plan["model"], str) else tuple(plan["model"])
    said = {"made_by": f"qerror {__version__}", "source": model_name(model), "grid": grid, "rule": recipe.rules[0]}
    return said | {key: str(value) for key, value in recipe.of(grid).items()}


class _Shards:
    """Writes arrays to shards of about one size: how many there are is known in the end, so their names come then."""

    def __init__(self, folder: Path, parts: Path, metadata: dict[str, str]) -> None:
        folder.mkdir(exist_ok=True)
        self._folder, self._parts, self._metadata = folder, parts, metadata
        # Of every process its own: on two machines they may have the same number.
        self._mark = f"{folder.name}.{uuid.uuid4().hex}"
        self._open, self._sink = contextlib.ExitStack(), None  # type: contextlib.ExitStack, ScaleSink | None
        self._size, self._total, self._shards = 0, 0, 0
        self._map: dict[str, int] = {}

    def add(
        self, arrays: list[tuple[str, NDArray[Any]]], info: TensorInfo, codes: Iterator[NDArray[Any]] | None
    ) -> None:
        """Arrays of one tensor, which stay together; none is kept in memory, of the codes no whole tensor ever."""
        first = None if codes is None else next(codes)
        size = sum(array.nbytes for _, array in arrays) + (0 if first is None else info.size * first.itemsize)
        if self._sink is not None and self._size + size > _SHARD:
            self._open.close()
            self._sink, self._size = None, 0
        sink = self._next() if self._sink is None else self._sink
        for name, array in arrays:
            sink.add(name, array)
            self._map[name] = self._shards
        if codes is not None and first is not None:
            sink.add_pieces(f"{info.name}.codes", info.shape, itertools.chain([first], codes))
            self._map[f"{info.name}.codes"] = self._shards
        self._size += size
        self._total += size

    def _next(self) -> ScaleSink:
        self._shards += 1
        self._sink = self._open.enter_context(open_scales(self._temporary(self._shards), self._metadata))
        return self._sink

    def _temporary(self, number: int) -> Path:
        return self._parts / f".{self._mark}.{number}.part.safetensors"

    def abort(self) -> None:
        """Remove what was written, while an error is on its way."""
        self._open.__exit__(*sys.exc_info())
        for number in range(1, self._shards + 1):
            self._temporary(number).unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the shards their names, and write the index."""
        if not self._shards:
            self._next()
        self._open.close()
        names = {n: f"scales-{n:05d}-of-{self._shards:05d}.safetensors" for n in range(1, self._shards + 1)}
        for number, name in names.items():
            self._temporary(number).replace(self._folder / name)
        index = {"metadata": {"total_size": self._total}, "weight_map": {key: names[n] for key, n in self._map.items()}}
        with atomic_open(self._folder / "scales.safetensors.index.json", "w") as out:
            out.write(json.dumps(index, indent=2) + "\n")
        for old in self._folder.glob("scales-*-of-*.safetensors"):
            if old.name not in names.values():
                old.unlink(missing_ok=True)
