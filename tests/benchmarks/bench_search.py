"""Optimal scales of densities and of samples. No result is cached: every call searches and proves anew."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from baselines import bincount, rounds, seconds

import qerror as qe

SMALL = ["int2", "int3", "int4", "int5", "int6", "int7", "int8", "e2m1", "e3m0", "e2m3", "e3m2", "e4m3fn", "e5m2"]
FINE = ("int16", "fp16", "bf16")
FAMILIES = ("gaussian", "laplace", "student-t:df=5", "logistic", "uniform")
N = 10_000_000
ROUNDS = 9
CALLS = 40


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim (with its unit), measured value and limit."""
    yield from _densities()
    yield from _samples()


def _densities() -> Iterator[tuple[str, float, float]]:
    calls = [lambda f=f, name=name: qe.optimal_scale(qe.density(f), name) for f in FAMILIES for name in SMALL]
    scales = np.linspace(0.05, 1.0, 1000)
    calls.append(lambda: qe.quantization_error(qe.Gaussian(), "int4", scales))
    # Calls of a millisecond: what other processes add in bursts is told apart by many rounds, all calls in each.
    found = 1e3 * rounds(calls, CALLS)
    for what, times in (("least", found.min(axis=0)), ("median", np.median(found, axis=0))):
        limits = (1.5, 15.0, 10.0) if what == "least" else 3 * (np.inf,)
        claims = (
            ("optimal_scale, median over grids x families", np.median(times[:-1])),
            ("optimal_scale, maximum over grids x families", times[:-1].max()),
            ("quantization_error at 1000 scales of int4", times[-1]),
        )
        for (claim, value), limit in zip(claims, limits, strict=True):
            yield f"{claim}, {what} of {CALLS} calls [ms]", value, limit
    for name in FINE:
        worst = max(_median(lambda f=family, n=name: qe.optimal_scale(qe.density(f), n), 1) for family in FAMILIES)
        yield f"optimal_scale, maximum over families, {name} [s]", worst, 2.0


def _samples() -> Iterator[tuple[str, float, float]]:
    x = np.random.default_rng(0).standard_normal(N).astype(np.float32)
    bits = (x.view(np.uint32) >> 16).astype(np.uint16)
    half = (bits.astype(np.uint32) << 16).view(np.float32)
    build, count = _turns(lambda: qe.Empirical(half), lambda: bincount(bits))
    yield "Empirical of 1e7 bf16 values / np.bincount of their bits in chunks", build / count, 3.0
    build, sort = _turns(lambda: qe.Empirical(x), lambda: np.sort(x))
    yield "Empirical of 1e7 float32 values / np.sort", build / sort, 1.6
    for what, values in (("bf16", half), ("float32", x)):
        sample = qe.Empirical(values)
        for name, limit in (("int4", 20.0), ("e2m1", 20.0), ("e3m0", 20.0), ("int8", 150.0)):
            elapsed = _median(lambda sample=sample, name=name: qe.optimal_scale(sample, name))
            yield f"exact optimum of 1e7 {what} values, {name} [ms]", 1e3 * elapsed, limit
    few = x[: N // 10]
    best, sort = _turns(lambda: qe.lloyd_max(qe.Empirical(few), 16), lambda: np.sort(few))
    yield "lloyd_max, the best 16 levels of 1e6 float32 values / np.sort", best / sort, 100.0


def _median(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    call()
    return float(np.median([seconds(call) for _ in range(rounds)]))


def _turns(*calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call, taken in turns."""
    return np.median(rounds(calls, ROUNDS), axis=0).tolist()


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:8.3f}  ({f'limit {limit:g}' if np.isfinite(limit) else 'with bursts'})  {claim}")
