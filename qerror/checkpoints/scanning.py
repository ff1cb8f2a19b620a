"""`scan`: a checkpoint read once, in tasks that resume and are shared as those of a fit, and sketched."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from .._check import as_int, shown
from ..files.checkpoint import Where
from ..files.elements import TensorInfo
from ..files.mapping import Checkpoint
from ..files.quantized_weights import as_floats, dequantized
from ..files.scales import check_output
from ..files.sources import ReadError
from .arguments import check_executor, path_of, seconds_of, texts
from .bins import BITS, Bins
from .counting import count_bins
from .fitting import select_tensors, stored_size
from .folder import Batch, Folder, Task, batch_file, in_batches
from .opening import open_model
from .part_files import Tables
from .patterns import Patterns, count_patterns, countable
from .running import Shard, run
from .sketch import Sketch, TensorSketch
from .sketch_tables import described, packed, unpacked
from .tasks import absolute, fingerprint, model_name, part_name, what_is_chosen

# Elements that one task counts: a second of work. What a part holds does not depend on it, nor does the whole.
_TASK = 1 << 28
# Beside a sketch: the folder of the parts that it is put together from.
_PARTS = ".parts"

Content = Patterns | Bins


@dataclasses.dataclass(frozen=True)
class ScanJob:
    """What is to be counted, in a form that goes to other processes; see `scan`."""

    model: str | tuple[str, ...]
    bits: int = BITS
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    one_dimensional: bool = True
    stale_after: float = 60.0

    def asked(self) -> dict[str, Any]:
        """What decides about the counts, as JSON."""
        return {
            "scan": {"bits": self.bits},
            "include": list(self.include),
            "exclude": list(self.exclude),
            "one_dimensional": self.one_dimensional,
        }

    def open(self) -> ScanWork:
        """Open the checkpoint and choose its tensors."""
        checkpoint = as_floats(dequantized(open_model(self.model)))
        chosen = select_tensors(
            checkpoint.tensors, include=self.include, exclude=self.exclude, one_dimensional=self.one_dimensional
        )
        return ScanWork(self, checkpoint, tuple((info, reason or _reason(info)) for info, reason in chosen))


def _reason(info: TensorInfo) -> str:
    known = countable(info.dtype) or info.dtype == "F32"
    return "" if known else f"element type {info.dtype}"


@dataclasses.dataclass(frozen=True)
class ScanWork:
    """An open checkpoint, and what is chosen of it."""

    job: ScanJob
    checkpoint: Checkpoint
    selected: tuple[tuple[TensorInfo, str], ...]

    def tasks(self) -> tuple[list[Task], dict[str, str]]:
        """Some elements of a tensor each."""
        tasks = []
        for info in (info for info, reason in self.selected if not reason):
            for begin in range(0, info.size, _TASK):
                end = min(begin + _TASK, info.size)
                size = stored_size(info) * (end - begin) // info.size
                tasks.append(Task(info.name, begin, end, size, self._file(info, begin, end)))
        return in_batches(tasks), {}

    def _file(self, info: TensorInfo, begin: int, end: int) -> str:
        asked = {"scan": self.job.asked()["scan"]}
        mark = fingerprint(asked, info, begin, end, [self.checkpoint.stamp(info.name)])
        return part_name(info.name, begin, end, mark)

    def about(self, failed: Mapping[str, str]) -> dict[str, Any]:
        """What the plan says beside the tasks."""
        return what_is_chosen(self.checkpoint, self.selected, failed)

    def knows(self, batch: Batch) -> bool:
        """Whether this process sees the input, the plan and the version that tasks were made for."""
        files = [self._file(self.checkpoint.info(task.name), task.begin, task.end) for task in batch.tasks]
        return batch_file(files) == batch.file

    def count(self, task: Task, heard: Callable[[int], None] | None = None) -> Content | str:
        """What a part of a tensor holds, or why that cannot be said."""
        info, part = self.checkpoint.info(task.name), (task.begin, task.end)
        try:
            if countable(info.dtype):
                return count_patterns(self.checkpoint, info, heard, part)
            return count_bins(self.checkpoint, info, self.job.bits, heard, part)
        except ReadError:
            # No answer: written down it would never be tried again.
            raise
        except ValueError as error:
            return str(error)

    def answer(self, folder: Folder, task: Task, heard: Callable[[int], None] | None = None) -> Tables:
        """What is written down for a task."""
        found = self.count(task, heard)
        if isinstance(found, str):
            return {"failed": found}, {}
        info = TensorInfo(task.name, (task.end - task.begin,), self.checkpoint.info(task.name).dtype)
        return {"content": described(info, found)}, {f"{task.name}.KEYS": packed(found)}


def scan(
    model: Where,
    *,
    bits: int = BITS,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    one_dimensional: bool = True,
    output: str | os.PathLike[str] | None = None,
    shard: str | tuple[int, int] | None = None,
    executor: Executor | None = None,
    stale_after: float = 60.0,
    progress: Callable[[str, int, int], None] | None = None,
) -> Sketch:
    """Read a checkpoint once, and keep of each tensor what any format can be answered from.

    Of 16-bit and 8-bit floats how often each bit pattern is there; of float32 counts and sums by the leading bits.
    Quantized weights (`qerror.files.quantized_weights`) are float32 values: codes times scales, which are no weights
    themselves. Other tensors are left out.

    With `output` the counts of parts of tensors are written into the folder OUTPUT.parts as they come: the same call
    goes on where it was interrupted, and several processes share the work. The folder may be deleted afterwards; while
    it is there, only what has changed of the model is read again.

    Parameters
    ----------
    model : path-like or sequence
        As in `qerror.files.open_checkpoint`.
    bits : int
        Leading bits of float32, 14 to 20: a bracket of the best error is 16 times narrower for 2 more.
    include, exclude, one_dimensional
        Which tensors; see `select_tensors`.
    output : path-like, optional
        The file to write, ending in .safetensors.
    shard : str or pair of int, optional
        "i/n": begin with every n-th task from the i-th. What others leave is done, too, what they are at waited for:
        every process ends with the whole sketch.
    executor : concurrent.futures.Executor, optional
        Does the tasks; its workers must reach the checkpoint and the folder.
    stale_after : float
        Seconds after which the task of a worker on another machine that shows no life is taken over.
    progress : callable, optional
        Called as progress(tensor, bytes done since, bytes in all).

    Examples
    --------
    >>> import qerror as qe
    >>> sketch = scan(qe.files.example_checkpoint(), include=["layers.0.*"])
    >>> found, = sketch.ask("int4", include=["*.weight"])
    >>> found.optimum <= found.mse["optimal"] <= found.optimum * 1.001
    True
    """
    check_executor(executor)
    names = texts("include", include), texts("exclude", exclude)
    bits, seconds = as_int("bits", bits, 14, 20), seconds_of("stale_after", stale_after)
    job = ScanJob(absolute(model), bits, *names, bool(one_dimensional), seconds)
    if output is None:
        if shard is not None or executor is not None:
            raise ValueError("output must name a file with shard or executor, which share the work beside it")
        return _in_memory(job, progress)
    place = Path(path_of("output", output))
    if place.suffix != ".safetensors":
        raise ValueError(f"output must end in .safetensors, got {shown(place)}")
    check_output(place)
    part = Shard.parse(shard)
    folder = run(job, f"{place}{_PARTS}", shard=part, executor=executor, progress=progress, apart=[place])
    found = _collected(folder)
    found.save(place)
    return found


def _in_memory(job: ScanJob, progress: Callable[[str, int, int], None] | None) -> Sketch:
    work = job.open()
    with work.checkpoint:
        tasks, _ = work.tasks()
        total = sum(task.size for task in tasks)

        def parts(mine: Sequence[Task]) -> Iterable[Content | str]:
            for task in mine:
                yield work.count(task, progress and (lambda size, name=task.name: progress(name, size, total)))

        return _sketch(job.model, work.about({}), tasks, parts)


def _collected(folder: Folder) -> Sketch:
    """The sketch that the parts in a folder make up."""
    plan = folder.plan()
    tasks = [Task(**each) for each in plan["tasks"]]
    model = plan["model"] if isinstance(plan["model"], str) else tuple(plan["model"])
    return _sketch(model, plan, tasks, lambda mine: (folder.read(task, _content) for task in mine))


def _content(tables: Mapping[str, Any], arrays: Checkpoint) -> Content | str:
    if "failed" in tables:
        return str(tables["failed"])
    return unpacked(arrays, tables["tensor"], tables["content"])[1]


def _sketch(
    model: str | tuple[str, ...],
    about: Mapping[str, Any],
    tasks: Sequence[Task],
    parts: Callable[[Sequence[Task]], Iterable[Content | str]],
) -> Sketch:
    """Parts of each tensor as one, in any order the same: they are integers."""
    left = {**about["no_tensors"], **dict(about["left_out"])}
    of: dict[str, list[Task]] = {}
    for task in tasks:
        of.setdefault(task.name, []).append(task)
    tensors = {}
    for name, mine in of.items():
        shape, dtype = about["tensors"][name]
        whole = functools.reduce(_merged, parts(mine))
        reason = whole if isinstance(whole, str) else _not_finite(whole)
        if reason or isinstance(whole, str):
            left[name] = reason
        else:
            tensors[name] = TensorSketch(TensorInfo(name, tuple(shape), dtype), whole)
    return Sketch(model_name(model), tensors, left)


def _not_finite(whole: Content) -> str:
    """What is said of patterns that are no numbers; bins hold none."""
    try:
        whole.values() if isinstance(whole, Patterns) else None
    except ValueError as error:
        return str(error)
    return ""


def _merged(one: Content | str, two: Content | str) -> Content | str:
    """Both parts as one; the first reason why that cannot be."""
    if isinstance(one, str) or isinstance(two, str):
        return one if isinstance(one, str) else two
    if isinstance(one, Patterns):
        assert isinstance(two, Patterns)
        return one.merged(two)
    assert isinstance(two, Bins)
    return one.merged(two)
