"""`fit` for a whole checkpoint, from Python."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from ..files.checkpoint import Where
from .against import evaluate, with_stored
from .arguments import check_executor, format_names, path_of, plain_options, seconds_of, size_of, texts
from .collecting import collect
from .fitting import TensorFit, fit_tensors, stored_size
from .pieces import DEFAULT_MEMORY
from .recipe import Recipe, with_fused
from .running import Shard, run
from .tasks import Job, absolute, open_work


def fit(
    model: Where,
    grid: Any = None,
    *,
    against: Where | None = None,
    rule: str | Sequence[str] = "optimal",
    output: str | os.PathLike[str] | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    one_dimensional: bool = False,
    weights: str | os.PathLike[str] | None = None,
    together: str | Sequence[str] = (),
    codes: bool = False,
    shard: str | tuple[int, int] | None = None,
    executor: Executor | None = None,
    memory: float | str | None = None,
    stale_after: float = 60.0,
    progress: Callable[[str, int, int], None] | None = None,
    **options: Any,
) -> list[TensorFit]:
    """Fit scales to the tensors of a checkpoint of any size.

    The work is cut into tasks, rows of a tensor, that each read their own bytes and write one file into `output`. What
    is there is not done again, so that the same call resumes an interrupted one, and several processes, on one machine
    or many, share the work through the folder. The files that come out are the same to the byte, however it was done.

    Parameters
    ----------
    model : path-like or sequence
        As in `qerror.files.open_checkpoint`.
    grid : str, Grid, BlockFormat or sequence of them
        Formats that have a name. With `against` it may be left out: each weight in the format that it has.
    against : path-like or sequence, optional
        What a quantized `model` was made of. Scales are fitted to these values, and the rule "stored" is the error of
        what `model` holds; in its own formats there is "nearest", too (see `evaluate`). Works in this process: without
        output, shard and executor.
    rule : str or sequence of str
        The first one's scales are written.
    output : path-like, optional
        The folder of the run. None: nothing is written, and all is done in this process.
    include, exclude, one_dimensional
        Which tensors; see `select_tensors`.
    weights : path-like, optional
        A file with the importance of a tensor's columns as NAME or NAME.weights, or an imatrix in GGUF.
    together : sequence of str
        Patterns of tensors that share a tensor scale (NVFP4), as "*.{q,k,v}_proj.weight"; "fused" stands for those that
        runtimes fuse.
    codes : bool
        Whether to write the quantized tensors, too.
    shard : str or pair of int, optional
        "i/n": begin with every n-th task from the i-th, and do not put the parts together (see `collect`).
    executor : concurrent.futures.Executor, optional
        Does the tasks; its workers must reach the checkpoint and the folder. Of Dask: ``client.get_executor()``.
    memory : float or str
        Bytes that a worker may use, also as "500MB". None: 1e9 with `output`, else any. Results do not depend on it,
        but for roundings.
    stale_after : float
        Seconds after which the task of a worker that shows no life is taken over.
    progress : callable, optional
        Called as progress(tensor, bytes done since, bytes in all).
    **options
        axis, block_size, block_axis, shift, zero_point, scale_format and sign of `qerror.fit`.

    Returns
    -------
    list of TensorFit
        One for each tensor and format. With `shard` empty.

    Examples
    --------
    >>> import qerror as qe
    >>> found = fit(qe.files.example_checkpoint(), "int4", include=["layers.*.weight"], axis=0)
    >>> [fit.info.name for fit in found if fit.mse]
    ['layers.0.weight', 'layers.1.weight', 'layers.2.weight']
    """
    if against is not None and any(each is not None for each in (output, shard, executor)):
        raise ValueError("output, shard and executor must be left out with against")
    room = math.inf if output is None else DEFAULT_MEMORY
    room = room if memory is None else size_of("memory", memory)
    if grid is None:
        if against is None:
            raise ValueError("grid must be a format, or several; only with against it may be left out")
        if weights is not None or together or codes or options or one_dimensional:
            raise ValueError("with against and without grid the formats of the model count; leave out other options")
        chosen, without = texts("include", include), texts("exclude", exclude)
        return evaluate(
            model,
            against,
            rule=texts("rule", rule),
            include=chosen,
            exclude=without,
            memory=room,
            progress=progress,
        )
    grids, rules, groups = format_names(grid), texts("rule", rule), with_fused(texts("together", together))
    check_executor(executor)
    # As the command line says it, so that both can share a folder.
    recipe = Recipe(grids, rules, {"block_axis": -1, "shift": 0.0} | plain_options(options), bool(codes), groups)
    job = Job(
        absolute(model if against is None else against),
        recipe,
        texts("include", include),
        texts("exclude", exclude),
        bool(one_dimensional),
        None if weights is None else str(absolute(path_of("weights", weights))),
        room,
        seconds_of("stale_after", stale_after),
    )
    if output is None:
        if shard is not None or executor is not None:
            raise ValueError("output must name a folder with shard or executor, which share the work through it")
        work = open_work(job)
        total = sum(stored_size(info) for info, reason in work.selected if not reason)
        heard = None if progress is None else (lambda name, size: progress(name, size, total))
        with work.checkpoint:
            found = fit_tensors(
                *(work.checkpoint, work.selected, grids, rules),
                weigh=work.weigh,
                together=groups,
                memory=job.memory,
                progress=heard,
                **recipe.options,
            )
            done = list(found)
        return done if against is None else with_stored(done, model, against, memory=room)
    run(job, path_of("output", output), shard=Shard.parse(shard), executor=executor, progress=progress)
    return [] if shard is not None else collect(output)[0]
