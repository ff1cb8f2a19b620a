"""Running tasks: in this process, by processes that share a folder and nothing else, or by any executor."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from pathlib import Path
from typing import Any, Protocol

from .._check import listed, shown
from ..files.mapping import Checkpoint
from ..files.scales import check_apart
from .folder import Batch, Folder, Task, batches
from .malloc import keep_freed_memory
from .part_files import Tables

Progress = Callable[[str, int, int], None]
# Tasks that an executor is given ahead of its workers.
_AHEAD = 256
# How often a task is tried again whose worker died.
_TRIES = 3
# Seconds between two looks at the claims of others.
_PATIENCE = 0.5


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, counted from 1: where a process begins; what others leave it takes over, too."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str | tuple[int, int] | None) -> Shard:
        """Read i/n.

        Examples
        --------
        >>> Shard.parse("3/8")
        Shard(index=3, count=8)
        """
        try:
            one, two = (1, 1) if text is None else text.split("/") if isinstance(text, str) else text
            index, count = int(one), int(two)
            sound = 1 <= index <= count
        except (ValueError, TypeError):
            sound = False
        if not sound:
            raise ValueError(f"shard must be i/n with 1 <= i <= n, as in 1/8, got {shown(text)}")
        return cls(index, count)

    def order(self, work: Sequence[Batch]) -> list[Batch]:
        """Largest first: the own ones, then those of the others, their last ones first."""
        ranked = sorted(work, key=lambda batch: -batch.size)
        own = ranked[self.index - 1 :: self.count]
        mine = {batch.file for batch in own}
        return own + [batch for batch in reversed(ranked) if batch.file not in mine]


class Job(Protocol):
    """What is to be done with a checkpoint, in a form that goes to other processes."""

    @property
    def model(self) -> str | tuple[str, ...]:
        """Where the checkpoint is."""

    @property
    def stale_after(self) -> float:
        """Seconds without a sign of life after which a worker's task is taken over."""

    def asked(self) -> dict[str, Any]:
        """What decides about the answers, as JSON."""

    def open(self) -> Work:
        """Open the checkpoint."""


class Work(Protocol):
    """An open checkpoint, and what is to be done with it."""

    @property
    def checkpoint(self) -> Checkpoint:
        """It is read here."""

    def tasks(self) -> tuple[list[Task], dict[str, str]]:
        """All tasks in the order of the tensors, and why other tensors have none."""

    def about(self, failed: Mapping[str, str]) -> dict[str, Any]:
        """What the plan says beside the tasks."""

    def knows(self, batch: Batch) -> bool:
        """Whether this process sees the input, the plan and the version that tasks were made for."""

    def answer(self, folder: Folder, task: Task, heard: Callable[[int], None] | None = None) -> Tables:
        """What is written down for a task; `heard` is told of bytes."""


def prepare(
    job: Job, path: str | os.PathLike[str], apart: Sequence[Path] = ()
) -> tuple[Folder, Work, list[Task], dict[str, str]]:
    """Open the checkpoint, plan the tasks and write the plan."""
    work = job.open()
    for place in (Path(path), *apart):
        check_apart(place, work.checkpoint.files)
    tasks, failed = work.tasks()
    folder = Folder(path, job.stale_after)
    folder.prepare(job.model, job.asked(), tasks, work.about(failed))
    return folder, work, tasks, failed


def run(
    job: Job,
    path: str | os.PathLike[str],
    *,
    shard: Shard | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    apart: Sequence[Path] = (),
) -> Folder:
    """Do all tasks whose answers are not in the folder yet.

    Parameters
    ----------
    job : Job
    path : path-like
    shard : Shard, optional
        Where to begin. In any case what is missing in the end is done, but for what others are at: that is waited for.
    executor : concurrent.futures.Executor, optional
        Does the tasks: of processes, of Dask (client.get_executor()), or of anything else that can reach both the
        checkpoint and the folder.
    progress : callable, optional
        Hears a tensor's name, how many bytes of it were done since, and how many bytes there are in all.
    apart : sequence of Path
        Where else will be written: none of it may be the model's.
    """
    folder, work, tasks, _ = prepare(job, path, apart)
    total = sum(task.size for task in tasks)
    heard = (lambda name, size: progress(name, size, total)) if progress else None
    order = (shard or Shard()).order(batches(tasks))
    left = [batch for batch in order if not folder.done(batch)]
    todo = {batch.file for batch in left}
    for batch in order:
        if batch.file not in todo:
            _hear(heard, batch)
    if executor is None:
        _here(folder, work, left, heard)
    else:
        _by_executor(executor, job, folder, left, heard)
    folder.clear()
    return folder


def _hear(heard: Callable[[str, int], None] | None, batch: Batch) -> None:
    for task in batch.tasks if heard else ():
        heard(task.name, task.size)  # type: ignore[misc]


def _here(folder: Folder, work: Work, left: list[Batch], heard: Callable[[str, int], None] | None) -> None:
    """One after the other in this process; those that others claim are looked after in the end."""
    while left:
        busy = [batch for batch in left if not _one(folder, work, batch, heard)]
        if busy == left:
            time.sleep(_PATIENCE)
        left = busy


def _one(folder: Folder, work: Work, batch: Batch, heard: Callable[[str, int], None] | None = None) -> bool:
    """Do tasks unless they are done; False where another worker is at them."""
    with contextlib.nullcontext(True) if folder.done(batch) else folder.claimed(batch) as own:
        if not own:
            return False
        if not folder.done(batch):
            _check_known(work, batch)
            answers = [
                compute(work, folder, task, heard and functools.partial(heard, task.name)) for task in batch.tasks
            ]
            # Once more: what was read while the file was replaced is of neither.
            _check_known(work, batch)
            folder.write(batch, answers)
        else:
            _hear(heard, batch)
    return True


def _check_known(work: Work, batch: Batch) -> None:
    if not work.knows(batch):
        raise ValueError(
            f"{shown(batch.tasks[0].name, 60)} has changed since the work was planned, or this worker has another "
            "version of qerror; run the same command again"
        )


def compute(work: Work, folder: Folder, task: Task, heard: Callable[[int], None] | None = None) -> Tables:
    """The answer of a task."""
    return work.answer(folder, task, heard)


def work_on(job: Job, path: str, batch: Batch) -> bool:
    """Do some tasks in a worker of an executor; False where another is at them."""
    keep_freed_memory()
    return _one(Folder(path, job.stale_after), _work_of(job, batch), batch)


_held: dict[str, tuple[Work, list[str]]] = {}


def _work_of(job: Job, batch: Batch) -> Work:
    """The open checkpoint, once a process: workers get one task after the other of the same job.

    Workers outlive a job. Where the files have changed since, what is known of them (where tensors begin) is worthless.
    """
    key = repr(job)
    work, stamps = _held.get(key, (None, []))
    if work is None or stamps != _stamps(work) or not work.knows(batch):
        work = job.open()
        _held.clear()
        _held[key] = work, _stamps(work)
    return work


def _stamps(work: Work) -> list[str]:
    return [file.stamp for file in work.checkpoint.files]


def _by_executor(
    executor: Executor, job: Job, folder: Folder, left: list[Batch], heard: Callable[[str, int], None] | None
) -> None:
    """Hand tasks out, a few ahead of the workers; those whose worker died are handed out again."""
    where, tries = str(folder.path.resolve()), {batch.file: 0 for batch in left}
    running: dict[Future[bool], Batch] = {}
    while left or running:
        while left and len(running) < _AHEAD:
            batch = left.pop(0)
            tries[batch.file] += 1
            running[executor.submit(work_on, job, where, batch)] = batch
        finished, _ = wait(running, return_when=FIRST_COMPLETED)
        busy = 0
        for future in finished:
            batch = running.pop(future)
            try:
                done = future.result()
                # Where another one is at it nothing has been tried.
                tries[batch.file] -= not done
                busy += not done
            except (ValueError, MemoryError):
                raise
            except Exception:
                # A worker that died, or could not write; what is there all the same counts as done.
                done = folder.done(batch)
                if not done and tries[batch.file] >= _TRIES:
                    raise
            if not done:
                left.append(batch)
            else:
                _hear(heard, batch)
        if busy == len(finished):
            time.sleep(_PATIENCE)


def missing(folder: Folder, tasks: Sequence[Task]) -> list[Task]:
    """Tasks without an answer."""
    return [task for batch in batches(tasks) if not folder.done(batch) for task in batch.tasks]


def check_complete(folder: Folder, tasks: Sequence[Task]) -> None:
    """Refuse a folder with answers missing."""
    gone = missing(folder, tasks)
    if gone:
        names = listed(dict.fromkeys(task.name for task in gone[:3]), room=110)
        raise ValueError(
            f"{shown(folder.path)} has {len(tasks) - len(gone)} of {len(tasks)} parts; of {names} some are missing: "
            "run the same command again (or its --shard), which makes only these"
        )
