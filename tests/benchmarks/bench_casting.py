"""Casting against the cast of ml_dtypes, side by side in one run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import ml_dtypes
import numpy as np

from qerror.casting.cast import dequantize, quantize

N = 10_000_000
ROUNDS = 9


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim, measured ratio and limit.

    The two sides take turns, so that a slow phase of the machine meets both; the ratio is that of the medians.
    """
    x = np.random.default_rng(0).standard_normal(N).astype(np.float32)
    for name, dtype, limit in (
        ("e4m3fn", ml_dtypes.float8_e4m3fn, 0.35),
        ("e2m1", ml_dtypes.float4_e2m1fn, 0.35),
        ("bf16", ml_dtypes.bfloat16, 2.0),
        ("fp16", np.float16, 2.0),
    ):
        ours, theirs = medians(
            lambda name=name: dequantize(quantize(x, name), name),
            lambda dtype=dtype: x.astype(dtype).astype(np.float32),
        )
        yield (
            f"{N:.0e} float32 through {name} and back / x.astype({dtype.__name__}).astype(float32)",
            ours / theirs,
            limit,
        )
    scale = np.float32(0.3)
    ours, theirs = medians(
        lambda: dequantize(quantize(x, "bf16", 0.3), "bf16", 0.3),
        lambda: (x / scale).astype(ml_dtypes.bfloat16).astype(np.float32) * scale,
    )
    yield f"{N:.0e} float32 through bf16 and back, scale 0.3 / the same with bfloat16", ours / theirs, 2.0


def medians(*calls: Callable[[], object]) -> list[float]:
    """Median seconds of each call; each is run once before and its results are freed outside the timing."""
    seconds: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    for _ in range(ROUNDS):
        for call, times in zip(calls, seconds, strict=True):
            start = time.perf_counter()
            result = call()
            times.append(time.perf_counter() - start)
            del result
    return [float(np.median(times)) for times in seconds]


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:6.3f}  (limit {limit})  {claim}")
