"""Simulation against drawing as many samples with the same generator on the same threads; peak memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

import qerror as qe
from qerror._threads import CHUNK, thread_map

N = 100_000_000
ROUNDS = 3


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim (with its unit), measured value and limit.

    The two sides take turns, so that a slow phase of the machine meets both; the ratio is that of the medians.
    """
    scales = {name: float(qe.optimal_scale(qe.Gaussian(), name).scale) for name in ("int4", "e2m1")}
    calls: dict[str, Callable[[], object]] = {
        "draw": lambda: thread_map(draw, np.random.SeedSequence(0).spawn(N // CHUNK))
    }
    for name, scale in scales.items():
        calls[name] = lambda name=name, scale=scale: qe.simulate(qe.Gaussian(), name, scale, n=N, rng=0)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    for name in scales:
        ratio = float(np.median(seconds[name]) / np.median(seconds["draw"]))
        yield f"{N:.0e} Gaussian samples through {name} / drawing them", ratio, 3.0
    yield "peak memory of this process [MB]", peak_megabytes(), 300.0


def draw(seed: np.random.SeedSequence) -> None:
    """One stream of samples, thrown away."""
    np.random.Generator(np.random.PCG64(seed)).standard_normal(CHUNK)


def peak_megabytes() -> float:
    """Largest resident size so far; Linux counts in kB, macOS in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:8.3f}  (limit {limit:g})  {claim}")
