"""What benchmarks share: the clock, rounds, and the count of bit patterns that is a baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call; its result is freed outside of it."""
    start = time.perf_counter()
    result = call()
    elapsed = time.perf_counter() - start
    del result
    return elapsed


def cpu_seconds(call: Callable[[], object]) -> float:
    """CPU time of one call, of all its threads."""
    start = time.process_time()
    result = call()
    elapsed = time.process_time() - start
    del result
    return elapsed


def rounds(
    calls: Sequence[Callable[[], object]], count: int, clock: Callable[[Callable[[], object]], float] = seconds
) -> np.ndarray:
    """Seconds of each call (columns) in rounds of all, after one that is not counted."""
    for call in calls:
        call()
    return np.array([[clock(call) for call in calls] for _ in range(count)])


def bincount(codes: np.ndarray) -> np.ndarray:
    """np.bincount of 16-bit codes in chunks that stay in the caches."""
    counts = np.zeros(1 << 16, np.int64)
    for start in range(0, codes.size, 1 << 20):
        counts += np.bincount(codes[start : start + (1 << 20)], minlength=1 << 16)
    return counts
