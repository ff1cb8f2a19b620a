"""A folder that collects the answers of tasks: parts that appear whole, a plan, and claims that say who works on what.

Everything that lasts is a file, so that a run is resumed by starting it again, and many processes on many machines
share the work through nothing but the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._check import plain, shown
from .._files import atomic_open
from .._version import __version__
from ..files.headers import parse_json
from ..files.mapping import Checkpoint
from ..files.safetensors import read_safetensors
from ..files.scales import open_scales
from ..files.sources import LocalFile
from .claims import Claims
from .fitting import Largest
from .moments import Moments
from .parts import FormatPart, Part
from .tasks import Job, Task

_PLAN = "plan.json"
_KEYS = {"model", "asked", "left_out", "no_tensors", "failed", "tensors", "tasks"}
# Seconds after which half a file is nobody's: unlike claims they show no life, and shards of scales take long.
_HALF_STALE = 86400.0


class Folder:
    """The folder of a run.

    Parameters
    ----------
    path : path-like
    stale_after : float
        Seconds without a sign of life after which a claim of another machine counts for nothing.
    """

    def __init__(self, path: str | os.PathLike[str], stale_after: float = 60.0) -> None:
        self.path = Path(path)
        self.parts, self.claims = self.path / "parts", Claims(self.path / "claims", stale_after)

    def prepare(self, job: Job, tasks: Sequence[Task], about: Mapping[str, Any]) -> None:
        """Make the folder and write the plan; one that is there must be of the same fit.

        Raises
        ------
        ValueError
            If the folder holds another fit, or other files.
        """
        known = self.plan() if (self.path / _PLAN).exists() else None
        if known is None and self.path.exists() and not self.path.is_dir():
            raise ValueError(f"-o must name a folder or a file ending in .safetensors or .json, got {shown(self.path)}")
        if known is not None and known["asked"] != json.loads(json.dumps(job.asked())):
            other = _difference(known["asked"], job.asked())
            raise ValueError(f"{shown(self.path)} holds another fit ({other}); name another folder")
        self.parts.mkdir(parents=True, exist_ok=True)
        self.claims.path.mkdir(exist_ok=True)
        plan = {
            "qerror": __version__,
            "model": job.model,
            "asked": job.asked(),
            **about,
            "tasks": [dataclasses.asdict(task) for task in tasks],
        }
        content = json.dumps(plan, indent=1)
        if known is None or json.dumps(known, indent=1) != content:
            with atomic_open(self.path / _PLAN, "w") as out:
                out.write(content)

    def plan(self) -> dict[str, Any]:
        """What `prepare` wrote."""
        file = self.path / _PLAN
        try:
            found: dict[str, Any] = parse_json(file.read_bytes())
            if not isinstance(found["tasks"], list) or not found.keys() >= _KEYS or "recipe" not in found["asked"]:
                raise KeyError
        except FileNotFoundError:
            raise ValueError(
                f"{shown(self.path)} holds no fit; `qerror fit MODEL --grid ... -o DIR` makes one"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{shown(file)} is damaged; delete it and run the fit again, which keeps the parts"
            ) from None
        return found

    def done(self, task: Task) -> bool:
        """Whether the answer is there."""
        return (self.parts / task.file).exists()

    def claimed(self, task: Task) -> contextlib.AbstractContextManager[bool]:
        """Claim a task while the block lasts; False where another worker is at it."""
        return self.claims.held(task.file.removesuffix(".safetensors"))

    def clear(self) -> None:
        """Remove what killed workers left behind: claims, and halves of files, which nobody sees."""
        for half in self.parts.glob(".*.part*"):
            with contextlib.suppress(OSError):
                if self.claims.stale(half, max(self.claims.stale_after, _HALF_STALE)):
                    half.unlink()
        self.claims.clear()

    def write(self, task: Task, part: Part | str) -> None:
        """Write the answer of a task, or why there is none."""
        tables, arrays = _as_tables(task, part)
        with open_scales(self.parts / task.file, {"qerror_part": json.dumps(tables)}) as sink:
            for name, array in arrays.items():
                sink.add(name, array)

    def read(self, task: Task) -> Part | str:
        """What `write` wrote."""
        try:
            tensors, metadata = read_safetensors(LocalFile(self.parts / task.file))
            arrays = Checkpoint(self.parts / task.file, tensors)
            return _as_part(parse_json(metadata["qerror_part"]), arrays, list(tensors))
        except (KeyError, ValueError, TypeError) as error:
            reason = plain(str(error), 60)
            raise ValueError(
                f"{shown(self.parts / task.file)} is damaged ({reason}); delete it and run the fit again"
            ) from None


class SharedLargest(Largest):
    """Largest magnitudes that are written down, so that of many workers one reads a tensor for its own."""

    def __init__(self, own: Largest, folder: Folder, mark: Callable[[str], str]) -> None:
        self.__dict__.update(own.__dict__)
        self._folder, self._mark = folder, mark

    def _find(self, name: str) -> float:
        file = self._folder.parts / f"{self._mark(name)}.largest.json"
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return float(parse_json(file.read_bytes())["largest"])
        found = super()._find(name)
        with atomic_open(file, "w") as out:
            out.write(json.dumps({"tensor": name, "largest": repr(found)}))
        return found


def _difference(one: Any, two: Any, name: str = "") -> str:
    """What differs first between two tables, in words."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = next((key for key in {**one, **two} if one.get(key) != json.loads(json.dumps(two.get(key)))), "")
        return _difference(one.get(keys), two.get(keys), keys) if keys else name
    return f"{name} {shown(one, 30)}, not {shown(two, 30)}"


def _as_tables(task: Task, part: Part | str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    where = {"tensor": task.name, "begin": task.begin, "end": task.end}
    if isinstance(part, str):
        return {**where, "failed": part}, {}
    formats: dict[str, Any] = {}
    arrays: dict[str, NDArray[Any]] = {}
    for number, (grid, found) in enumerate(part.formats.items()):
        table = dataclasses.asdict(dataclasses.replace(found, arrays={}))
        formats[grid] = {key: value for key, value in table.items() if key != "arrays"}
        arrays |= {f"{number}.{name}": array for name, array in found.arrays.items()}
    return {**where, "moments": list(part.moments), "formats": formats}, arrays


def _as_part(tables: Mapping[str, Any], arrays: Checkpoint, names: Sequence[str]) -> Part | str:
    if "failed" in tables:
        return str(tables["failed"])
    formats = {}
    for number, (grid, table) in enumerate(tables["formats"].items()):
        mine = [name for name in names if name.startswith(f"{number}.")]
        own = {name.partition(".")[2]: _plain(arrays, name) for name in mine}
        formats[grid] = FormatPart(**{**table, "wanted": tuple(table["wanted"])}, arrays=own)
    return Part(tables["tensor"], tables["begin"], tables["end"], Moments(*tables["moments"]), formats)


def _plain(file: Checkpoint, name: str) -> NDArray[Any]:
    tag = file.info(name).dtype
    if tag[0] in "IU":
        return file.bits(name).view(f"{'i' if tag[0] == 'I' else 'u'}{int(tag[1:]) // 8}")
    return file.bits(name).view(np.bool_) if tag == "BOOL" else file[name]
