"""Limits and other losses: CPU time of the first call in a process, and of calls that find nothing cached."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
from baselines import cpu_seconds, rounds

import qerror as qe

# The names are loaded first: what importing NumPy, SciPy and the modules takes is in bench_import.py.
FIRST = (
    "import time, qerror as qe; density = qe.Gaussian(); qe.loss_ladder, qe.quantization_error\n"
    "start = time.process_time(); qe.loss_ladder(density, 'int4', 0.25); print(time.process_time() - start)"
)
ROUNDS = 5
CURVES = {
    "laplace": qe.Laplace,
    "uniform": qe.Uniform,
    "student-t:df=5": lambda: qe.StudentT(5),
    "student-t:df=2.5": lambda: qe.StudentT(2.5),
    "generalized-gaussian:beta=0.5": lambda: qe.GeneralizedGaussian(0.5),
    "far mixture": lambda: qe.Mixture([qe.Gaussian(-1, 0.01), qe.Gaussian(1, 0.01)], [0.5, 0.5]),
}
PROCESSES = 5


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim (with its unit), measured value and limit."""
    command = [sys.executable, "-c", FIRST]
    found = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(PROCESSES)]
    yield "loss_ladder of int4 on a Gaussian, first call of a process [ms]", 1e3 * min(map(float, found)), 100.0
    yield "the same, another density object [ms]", _least(lambda: qe.loss_ladder(qe.Gaussian(), "int4", 0.25)), 100.0
    known = qe.Gaussian()
    yield "the same, limits of the density known [ms]", _least(lambda: qe.loss_ladder(known, "int4", 0.25)), 20.0
    for name, make in CURVES.items():
        for bits in (0.1, 1, 4, 10):
            elapsed = _least(lambda make=make, bits=bits: qe.rate_distortion(make(), bits=bits))
            yield f"rate_distortion, {name} at {bits} bits [ms]", elapsed, 1000.0
        yield f"entropy_coded, {name} at 4 bits [ms]", _least(lambda m=make: qe.entropy_coded(m(), bits=4)), 200.0
    yield from _losses()


def _losses() -> Iterator[tuple[str, float, float]]:
    for name in ("int4", "e2m1", "int8"):
        calls = [
            lambda name=name: qe.optimal_scale(qe.Gaussian(), name, certify=True),
            lambda name=name: qe.optimal_scale(qe.Gaussian(), name, loss="absolute"),
            lambda name=name: qe.optimal_scale(qe.Gaussian(), name, loss=2.4),
        ]
        square, absolute, power = rounds(calls, ROUNDS, cpu_seconds).min(axis=0)
        yield f"proven best scale of |e| / of e^2, {name}", absolute / square, 100.0
        yield f"proven best scale of |e|^2.4 / of e^2, {name}", power / square, 100.0
    x = np.random.default_rng(0).standard_normal(100_000)
    sample = qe.Empirical(x)
    calls = [lambda: qe.optimal_scale(sample, "int4", loss="absolute"), lambda: np.sort(x)]
    best, sort = rounds(calls, ROUNDS, cpu_seconds).min(axis=0)
    yield "proven best scale of |e| of 1e5 values, int4 / np.sort", best / sort, 100.0


def _least(call: Callable[[], object]) -> float:
    """Milliseconds of CPU, the least of several."""
    return 1e3 * float(rounds([call], ROUNDS, cpu_seconds).min())


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:8.3f}  (limit {limit:g})  {claim}")
