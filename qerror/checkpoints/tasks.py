"""The work on a checkpoint as tasks: rows of a tensor, each with the name of the file that its answer goes to."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .._check import shown
from .._files import atomic_open
from .._version import __version__
from ..files.elements import TensorInfo
from ..files.headers import parse_json
from ..files.mapping import Checkpoint
from ..files.quantized_weights import dequantized
from ..files.sources import ReadError, is_url
from .fitting import Largest, select_tensors, stored_size
from .folder import Batch, Folder, Task, batch_file, in_batches
from .opening import open_model
from .part_files import Tables, as_tables
from .pieces import DEFAULT_MEMORY, LEAST_MEMORY, Fitting
from .recipe import Recipe, cut
from .weights import Weights

# Bytes of a tensor that one task reads, about: some seconds of work, so that little is lost with a worker.
TASK_BYTES = 64 << 20
# Bytes of a tensor that are read again sooner than a file is written of their largest magnitude.
_READ_AGAIN = 1 << 22
# Of what changes the content of a part without changing what was asked.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Job:
    """What is to be done with a checkpoint, in a form that goes to other processes.

    Attributes
    ----------
    model : str or tuple of str
        Where the checkpoint is, as `qerror.files.open_checkpoint` takes it.
    recipe : Recipe
    include, exclude, one_dimensional
        As in `select_tensors`.
    weights : str or None
        A file of weights by tensor.
    memory : float
        Bytes that a worker may use.
    stale_after : float
        Seconds without a sign of life after which a worker's task is taken over.
    """

    model: str | tuple[str, ...]
    recipe: Recipe
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    one_dimensional: bool = False
    weights: str | None = None
    memory: float = DEFAULT_MEMORY
    stale_after: float = 60.0

    def asked(self) -> dict[str, Any]:
        """What decides about the numbers, as JSON."""
        return {
            "recipe": self.recipe.as_json(),
            "include": list(self.include),
            "exclude": list(self.exclude),
            "one_dimensional": self.one_dimensional,
            "weighted": self.weights is not None,
        }

    def open(self) -> Work:
        """As `open_work`."""
        return open_work(self)


@dataclasses.dataclass(frozen=True)
class Work:
    """An open checkpoint, what is chosen of it, and what is left out with the reason."""

    job: Job
    checkpoint: Checkpoint
    selected: tuple[tuple[TensorInfo, str], ...]
    weigh: Weights | None

    @functools.cached_property
    def names(self) -> list[str]:
        """The tensors to fit."""
        return [info.name for info, reason in self.selected if not reason]

    @functools.cached_property
    def largest(self) -> Largest:
        """Finds the largest magnitudes that tensor scales follow from."""
        return Largest(self.checkpoint, self.names, self.job.recipe)

    def fitting(self, largest: Largest) -> Fitting:
        """Fits rows of any of the tensors."""
        return Fitting(self.checkpoint, self.job.recipe, largest, self.weigh, None, self.job.memory)

    def about(self, failed: Mapping[str, str]) -> dict[str, Any]:
        """What the plan says beside the tasks."""
        return what_is_chosen(self.checkpoint, self.selected, failed)

    def tasks(self) -> tuple[list[Task], dict[str, str]]:
        """All tasks in the order of the tensors, and why others cannot be fitted at all."""
        tasks: list[Task] = []
        failed: dict[str, str] = {}
        fitting = self.fitting(self.largest)
        for info, reason in self.selected:
            if reason:
                continue
            try:
                how = cut(info, self.job.recipe)
                fitting.check_memory(info, how)
            except (ValueError, MemoryError) as error:
                failed[info.name] = str(error)
                continue
            per_row = max(1, stored_size(info) // how.rows)
            # Formats with one scale for all rows see them in one task.
            step = how.rows if how.whole else max(1, self._task_bytes // (per_row * how.step)) * how.step
            stamps = self._stamps(info.name)
            for begin in range(0, how.rows, step):
                end = min(begin + step, how.rows)
                mark = self.fingerprint(info, begin, end, stamps)
                file = part_name(info.name, begin, end, mark)
                tasks.append(Task(info.name, begin, end, per_row * (end - begin), file))
        return in_batches(tasks), failed

    @property
    def _task_bytes(self) -> int:
        """Bytes that a task reads: fewer where codes are wanted, which are in memory until they are written."""
        return TASK_BYTES // (4 * len(self.job.recipe.grids)) if self.job.recipe.codes else TASK_BYTES

    @functools.cached_property
    def _scaled(self) -> bool:
        """Whether a format has a tensor scale."""
        return any(self.job.recipe.full_scale(grid) is not None for grid in self.job.recipe.grids)

    def _stamps(self, name: str) -> list[str]:
        """Of the files with what a tensor's answer follows from."""
        members = self.largest.members(name) if self._scaled else (name,)
        return [self.checkpoint.stamp(each) for each in members]

    def knows(self, batch: Batch) -> bool:
        """Whether this process sees the input, the plan and the version that tasks were made for."""

        def file(task: Task) -> str:
            mark = self.fingerprint(self.checkpoint.info(task.name), task.begin, task.end, self._stamps(task.name))
            return part_name(task.name, task.begin, task.end, mark)

        return batch_file([file(task) for task in batch.tasks]) == batch.file

    def answer(self, folder: Folder, task: Task, heard: Callable[[int], None] | None = None) -> Tables:
        """The answer of a task, or why there is none."""

        def mark(name: str) -> str:
            return self.fingerprint(self.checkpoint.info(name), 0, -1, [self.checkpoint.stamp(name)])

        info = self.checkpoint.info(task.name)
        fitting = self.fitting(SharedLargest(self.largest, folder, mark))
        try:
            part = fitting.rows(task.name, task.begin, task.end, heard)
        except ReadError:
            # No answer: written down it would never be tried again.
            raise
        except ValueError as error:
            return as_tables(str(error))
        kind = np.float64 if info.dtype == "F64" else np.float32
        for found in part.formats.values():
            for name in {"scale", "shift", "tensor_scale"} & found.arrays.keys():
                found.arrays[name] = np.asarray(found.arrays[name], kind)
        return as_tables(part)

    def fingerprint(self, info: TensorInfo, begin: int, end: int, stamps: Sequence[str]) -> str:
        """A short text that differs where the plan, the input or the version does."""
        weights = None if self.weigh is None else self.weigh.stamp
        asked = {**self.job.asked(), "include": None, "exclude": None}
        return fingerprint(asked, info, begin, end, stamps, weights)


def what_is_chosen(
    checkpoint: Checkpoint, selected: Iterable[tuple[TensorInfo, str]], failed: Mapping[str, str]
) -> dict[str, Any]:
    """Of a plan: the tensors that have tasks, and why others have none."""
    every = list(selected)
    return {
        "left_out": [[info.name, reason] for info, reason in every if reason],
        "no_tensors": dict(checkpoint.skipped),
        "failed": dict(failed),
        "tensors": {info.name: [list(info.shape), info.dtype] for info, reason in every if not reason},
    }


class SharedLargest(Largest):
    """Largest magnitudes that are written down, so that of many workers one reads a tensor for its own."""

    def __init__(self, own: Largest, folder: Folder, mark: Callable[[str], str]) -> None:
        self.__dict__.update(own.__dict__)
        self._folder, self._mark = folder, mark

    def _find(self, name: str) -> float:
        if stored_size(self._checkpoint.info(name)) <= _READ_AGAIN:
            return super()._find(name)
        file = self._folder.parts / f"{self._mark(name)}.largest.json"
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            return float(parse_json(file.read_bytes())["largest"])
        found = super()._find(name)
        with atomic_open(file, "w") as out:
            out.write(json.dumps({"tensor": name, "largest": repr(found)}))
        return found


def fingerprint(
    asked: Mapping[str, Any], info: TensorInfo, begin: int, end: int, stamps: Sequence[str], *more: Any
) -> str:
    """A short text that differs where the plan, a tensor, its part, the files behind it or the version does."""
    said = [_FORMAT, __version__, asked, info.name, info.shape, info.dtype, begin, end, list(stamps), *more]
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()[:16]


def part_name(name: str, begin: int, end: int, mark: str) -> str:
    """Name of a part's file: readable, short, and different for every tensor.

    Examples
    --------
    >>> part_name("layers/0.weight", 0, 64, "0123456789abcdef")
    'layers_0.weight-0-64-0123456789abcdef.safetensors'
    """
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[-120:]
    return f"{plain}-{begin}-{end}-{mark}.safetensors"


def open_work(job: Job) -> Work:
    """Open the checkpoint of a job and choose its tensors.

    Raises
    ------
    ValueError
        As `open_checkpoint` and `select_tensors`; if the weights are of other tensors.
    """
    if job.memory < LEAST_MEMORY:
        raise ValueError(f"memory must be {LEAST_MEMORY / 1e6:.0f}MB at least, got {job.memory / 1e6:.3g}MB")
    job.recipe.check()
    checkpoint = dequantized(open_model(job.model))
    selected = select_tensors(
        checkpoint.tensors, include=job.include, exclude=job.exclude, one_dimensional=job.one_dimensional
    )
    weigh = None
    if job.weights is not None:
        weigh = Weights(job.weights)
        names = [info.name for info, reason in selected if not reason]
        if names and not weigh.names(names):
            raise ValueError(f"weights {shown(job.weights)} has none for any tensor to fit, such as {shown(names[0])}")
    return Work(job, checkpoint, tuple(selected), weigh)


def absolute(model: Any) -> str | tuple[str, ...]:
    """A path or paths that other processes find from other folders; URLs as they are."""
    if isinstance(model, str) and is_url(model):
        return model
    if isinstance(model, str | os.PathLike):
        return os.path.abspath(model)  # noqa: PTH100 - patterns with * stay, links are not followed
    if not isinstance(model, Iterable):
        raise ValueError(f"path must be a path, or several, got {shown(model)}")
    return tuple(str(absolute(each)) for each in model)


def model_name(model: str | tuple[str, ...]) -> str:
    """How a model is called in titles."""
    if isinstance(model, str):
        return Path(model.rstrip("/")).name
    return ", ".join(Path(each.rstrip("/")).name for each in model)
