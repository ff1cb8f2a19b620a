"""Executors that run tasks elsewhere, by the names of the command line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Any

from .._check import plain, shown
from ..files.sources import load_extra

_TIMEOUT = 20


def some_executor(engine: str | None) -> contextlib.AbstractContextManager[Executor | None]:
    """The executor of an engine; None stands for this process."""
    return contextlib.nullcontext() if engine is None else dask_executor(engine)


@contextlib.contextmanager
def dask_executor(engine: str) -> Iterator[Executor]:
    """An executor of the Dask cluster of "dask:ADDRESS".

    Its workers must reach the checkpoint and the folder of the run. Dask's nanny switches off what makes the allocator
    fast, which doubles the time: tasks undo that (see `qerror.checkpoints.malloc`).

    Raises
    ------
    ValueError
        For another engine, or where no scheduler answers.
    """
    kind, _, address = engine.partition(":")
    if kind != "dask" or not address:
        raise ValueError(f"engine must be dask:ADDRESS, as in dask:tcp://127.0.0.1:8786, got {shown(engine)}")
    distributed = load_extra("distributed", "dask", "--engine dask")
    try:
        client: Any = distributed.Client(address, timeout=_TIMEOUT, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        reason = plain(str(error).partition("\n")[0] or type(error).__name__, 100)
        raise ValueError(f"no scheduler of Dask answers at {shown(address)}: {reason}") from None
    with client:
        # Tasks differ by their folder, too, and are done again when they are asked for again.
        yield client.get_executor(pure=False, retries=3)
