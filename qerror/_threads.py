"""A map over chunks that runs in threads and whose result does not depend on their number.

The ufuncs of NumPy and SciPy release the interpreter lock, so plain threads scale. The chunk sizes are
constants: what is computed for a chunk, and the order in which chunks are put together, is the same with
one thread and with sixty-four.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

if TYPE_CHECKING or sys.version_info >= (3, 12):
    from functools import cached_property as cached_property
else:

    class cached_property:
        """What `functools.cached_property` is from Python 3.12 on: without a lock that all objects of a class share."""

        def __init__(self, function: Callable[[Any], Any]) -> None:
            self.function, self.__doc__ = function, function.__doc__

        def __set_name__(self, owner: type, name: str) -> None:
            self.name = name

        def __get__(self, instance: Any, owner: type | None = None) -> Any:
            if instance is None:
                return self
            value = instance.__dict__[self.name] = self.function(instance)
            return value


CHUNK = 1 << 20
"""Elements in one chunk: about a millisecond of work, far above the cost of handing it to a thread."""

_inside = threading.local()


def num_threads() -> int:
    """Return how many threads to use: the variable QERROR_NUM_THREADS, else the processors of this process.

    Raises
    ------
    ValueError
        If QERROR_NUM_THREADS is set to anything but a positive integer.

    Examples
    --------
    >>> num_threads() >= 1
    True
    """
    text = os.environ.get("QERROR_NUM_THREADS", "").strip()
    if text:
        if text.isascii() and text.isdigit() and int(text) > 0:
            return int(text)
        raise ValueError(f"QERROR_NUM_THREADS must be a positive integer, got {text!r}")
    # Containers and batch systems limit a process by its affinity; cpu_count() would name the whole machine.
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def one_thread() -> bool:
    """Whether a map started here runs in this thread alone: inside another map, or where there is one processor."""
    return getattr(_inside, "worker", False) or num_threads() == 1


def chunk_slices(n: int, size: int = CHUNK) -> list[slice]:
    """Return the slices that cut ``range(n)`` into pieces of `size` elements, the last one shorter.

    Examples
    --------
    >>> chunk_slices(5, 2)
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def thread_map(function: Callable[[T], R], items: Iterable[T], *, at_most: int | None = None) -> list[R]:
    """Return ``[function(item) for item in items]``, computed by several threads.

    Called from inside one of its own workers it runs serially, so nesting never multiplies the threads.

    Raises
    ------
    Exception
        The first exception, in the order of `items`, that `function` raised.

    Examples
    --------
    >>> thread_map(abs, [-1, 2, -3])
    [1, 2, 3]
    """
    work = list(items)
    threads = min(num_threads(), len(work), at_most or len(work))
    if threads <= 1 or one_thread():
        return [function(item) for item in work]
    # A pool for each call: threads start in tens of microseconds, and a pool kept alive would not survive a fork.
    with ThreadPoolExecutor(threads, initializer=_mark_worker) as pool:
        return list(pool.map(function, work))


def _mark_worker() -> None:
    _inside.worker = True
