"""A folder that collects the answers of tasks: parts that appear whole, a plan, and claims that say who works on what.

Everything that lasts is a file, so that a run is resumed by starting it again, and many processes on many machines
share the work through nothing but the folder.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

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

T = TypeVar("T")

PLAN = "plan.json"
_KEYS = {"model", "asked", "left_out", "no_tensors", "failed", "tensors", "tasks"}
# Seconds after which half a file is nobody's: unlike claims they show no life, and shards of scales take long.
_HALF_STALE = 86400.0


@dataclasses.dataclass(frozen=True)
class Task:
    """Rows or elements `begin` to `end` of a tensor, their bytes, and the name of the file that the answer goes to."""

    name: str
    begin: int
    end: int
    size: int
    file: str


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

    def write(self, task: Task, tables: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write the answer of a task."""
        about = {"tensor": task.name, "begin": task.begin, "end": task.end, **tables}
        with open_scales(self.parts / task.file, {"qerror_part": json.dumps(about)}) as sink:
            for name, array in arrays.items():
                sink.add(name, array)

    def read(self, task: Task, decode: Callable[[Mapping[str, Any], Checkpoint], T]) -> T:
        """What `decode` makes of what `write` wrote; its arrays are read when it asks for them."""
        file = self.parts / task.file
        try:
            tensors, metadata = read_safetensors(LocalFile(file))
            return decode(parse_json(metadata["qerror_part"]), Checkpoint(file, tensors))
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError, zlib.error) as error:
            reason = plain(str(error), 60)
            raise ValueError(f"{shown(file)} is damaged ({reason}); delete it and run the same command again") from None


def _difference(one: Any, two: Any, name: str = "") -> str:
    """What differs first between two tables, in words."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = next((key for key in {**one, **two} if one.get(key) != json.loads(json.dumps(two.get(key)))), "")
        return _difference(one.get(keys), two.get(keys), keys) if keys else name
    return f"{name} {shown(one, 30)}, not {shown(two, 30)}"
