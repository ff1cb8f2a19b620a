"""A folder that collects the answers of tasks: parts that appear whole, a plan, and claims that say who works on what.

Everything that lasts is a file, so that a run is resumed by starting it again, and many processes on many machines
share the work through nothing but the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from .._check import plain, shown
from .._files import atomic_open
from .._version import __version__
from ..files.elements import StoredTensor
from ..files.headers import parse_json
from ..files.mapping import Checkpoint
from ..files.safetensors import read_safetensors
from ..files.scales import open_scales
from ..files.sources import LocalFile
from .claims import Claims

T = TypeVar("T")

PLAN = "plan.json"
_KEYS = {"model", "asked", "left_out", "no_tensors", "failed", "tensors", "tasks"}
# Seconds after which half a file is nobody's: unlike claims they show no life, and shards of scales take long.
_HALF_STALE = 86400.0
# Tasks of so many bytes share a file, up to so many bytes and so many of them.
_SMALL, _BATCH, _MOST = 1 << 20, 1 << 23, 512
# Files of answers that are open at a time: small tensors lie between large ones.
_OPEN = 8


@dataclasses.dataclass(frozen=True)
class Task:
    """Rows or elements `begin` to `end` of a tensor, their bytes, and the name of the file that the answer goes to."""

    name: str
    begin: int
    end: int
    size: int
    file: str


@dataclasses.dataclass(frozen=True)
class Batch:
    """Tasks whose answers go to one file: tensors of kilobytes do not cost a file, a claim and a sync each."""

    tasks: tuple[Task, ...]

    @property
    def file(self) -> str:
        """The name of their file."""
        return self.tasks[0].file

    @functools.cached_property
    def size(self) -> int:
        """Bytes of all."""
        return sum(task.size for task in self.tasks)


def batches(tasks: Iterable[Task]) -> list[Batch]:
    """Tasks by their files, in their order."""
    of: dict[str, list[Task]] = {}
    for task in tasks:
        of.setdefault(task.file, []).append(task)
    return [Batch(tuple(mine)) for mine in of.values()]


def in_batches(tasks: Iterable[Task]) -> list[Task]:
    """The same tasks; small ones share files.

    Examples
    --------
    >>> one, two, large = Task("a", 0, 1, 9, "a.x"), Task("b", 0, 1, 9, "b.x"), Task("c", 0, 1, 1 << 30, "c.x")
    >>> [len(each.tasks) for each in batches(in_batches([one, large, two]))]
    [2, 1]
    """
    out, held, size = list(tasks), [], 0  # type: list[Task], list[int], int
    for at, task in enumerate(out):
        if task.size > _SMALL:
            continue
        if held and (size + task.size > _BATCH or len(held) == _MOST):
            _share(out, held)
            held, size = [], 0
        held.append(at)
        size += task.size
    _share(out, held)
    return out


def _share(tasks: list[Task], held: Sequence[int]) -> None:
    file = batch_file([tasks[at].file for at in held])
    for at in held:
        tasks[at] = dataclasses.replace(tasks[at], file=file)


def batch_file(files: Sequence[str]) -> str:
    """The name of the file that takes the answers for these; of one file its own."""
    if len(files) < 2:
        return "".join(files)
    first = re.sub(r"-\d+-\d+-[0-9a-f]+\.safetensors$", "", files[0])
    mark = hashlib.sha256("/".join(files).encode()).hexdigest()[:16]
    return f"{first}-and-{len(files) - 1}-more-{mark}.safetensors"


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
        self._open: dict[str, dict[tuple[str, int], tuple[Mapping[str, Any], Checkpoint]]] = {}

    def prepare(self, model: Any, asked: Mapping[str, Any], tasks: Sequence[Task], about: Mapping[str, Any]) -> None:
        """Make the folder and write the plan; one that is there must be of the same work.

        Raises
        ------
        ValueError
            If the folder holds other work, or other files.
        """
        known = self.plan() if (self.path / PLAN).exists() else None
        if known is None and self.path.exists() and not self.path.is_dir():
            raise ValueError(f"-o must name a folder or a file ending in .safetensors or .json, got {shown(self.path)}")
        if known is not None and known["asked"] != json.loads(json.dumps(asked)):
            other, of_scan = _difference(known["asked"], asked), "scan" in known["asked"]
            words = "scan ({}); delete it or name another sketch" if of_scan else "fit ({}); name another folder"
            raise ValueError(f"{shown(self.path)} holds another {words.format(other)}")
        self.parts.mkdir(parents=True, exist_ok=True)
        self.claims.path.mkdir(exist_ok=True)
        listed = [dataclasses.asdict(task) for task in tasks]
        plan = {"qerror": __version__, "model": model, "asked": asked, **about, "tasks": listed}
        content = json.dumps(plan, indent=1)
        if known is None or json.dumps(known, indent=1) != content:
            with atomic_open(self.path / PLAN, "w") as out:
                out.write(content)

    def plan(self) -> dict[str, Any]:
        """What `prepare` wrote."""
        file = self.path / PLAN
        try:
            found: dict[str, Any] = parse_json(file.read_bytes())
            if not isinstance(found["tasks"], list) or not found.keys() >= _KEYS:
                raise KeyError
            if not found["asked"].keys() & {"recipe", "scan"}:
                raise KeyError
        except FileNotFoundError:
            raise ValueError(
                f"{shown(self.path)} holds no fit; `qerror fit MODEL --grid ... -o DIR` makes one"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{shown(file)} is damaged; delete it and run the same command again, which keeps the parts"
            ) from None
        return found

    def done(self, batch: Batch) -> bool:
        """Whether the answers are there."""
        return (self.parts / batch.file).exists()

    def claimed(self, batch: Batch) -> contextlib.AbstractContextManager[bool]:
        """Claim tasks while the block lasts; False where another worker is at them."""
        return self.claims.held(batch.file.removesuffix(".safetensors"))

    def clear(self) -> None:
        """Remove what killed workers left behind: claims, and halves of files, which nobody sees."""
        for half in self.parts.glob(".*.part*"):
            with contextlib.suppress(OSError):
                if self.claims.stale(half, max(self.claims.stale_after, _HALF_STALE)):
                    half.unlink()
        self.claims.clear()

    def write(self, batch: Batch, answers: Sequence[tuple[Mapping[str, Any], Mapping[str, NDArray[Any]]]]) -> None:
        """Write the answers of tasks, all of them at once."""
        about = [
            {"tensor": task.name, "begin": task.begin, "end": task.end, **tables}
            for task, (tables, _) in zip(batch.tasks, answers, strict=True)
        ]
        with open_scales(self.parts / batch.file, {"qerror_parts": json.dumps(about)}) as sink:
            for number, (_, arrays) in enumerate(answers):
                for name, array in arrays.items():
                    sink.add(f"{number}/{name}", array)

    def read(self, task: Task, decode: Callable[[Mapping[str, Any], Checkpoint], T]) -> T:
        """What `decode` makes of what `write` wrote; its arrays are read when it asks for them."""
        file = self.parts / task.file
        try:
            return decode(*self._parts(task.file)[task.name, task.begin])
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, zlib.error) as error:
            reason = plain(str(error), 60)
            raise ValueError(f"{shown(file)} is damaged ({reason}); delete it and run the same command again") from None

    def _parts(self, name: str) -> dict[tuple[str, int], tuple[Mapping[str, Any], Checkpoint]]:
        """What a file has, by tensor and where the task begins; the last files stay open."""
        if name not in self._open:
            tensors, metadata = read_safetensors(LocalFile(self.parts / name))
            arrays: dict[str, dict[str, StoredTensor]] = {}
            for key, stored in tensors.items():
                number, _, own = key.partition("/")
                arrays.setdefault(number, {})[own] = stored
            found = {}
            for place, about in enumerate(parse_json(metadata["qerror_parts"])):
                found[about["tensor"], about["begin"]] = (
                    about,
                    Checkpoint(self.parts / name, arrays.get(str(place), {})),
                )
            while len(self._open) >= _OPEN:
                self._open.pop(next(iter(self._open)))
            self._open[name] = found
        return self._open[name]


def _difference(one: Any, two: Any, name: str = "") -> str:
    """What differs first between two tables, in words."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = next((key for key in {**one, **two} if one.get(key) != json.loads(json.dumps(two.get(key)))), "")
        return _difference(one.get(keys), two.get(keys), keys) if keys else name
    return f"{name} {shown(one, 30)}, not {shown(two, 30)}"
