"""Proven optima of 8-bit rows, stored block scales and zero points, in CPU time against NumPy on the same arrays.

Least of rounds in which all calls take turns, after one that is not counted; a fit keeps nothing from call to call.
Where numba is installed, the same once more with QERROR_KERNELS=numba.
"""

from __future__ import annotations

import importlib.util
import os
import tracemalloc
from collections.abc import Iterator

import ml_dtypes
import numpy as np
from baselines import cpu_seconds, rounds

import qerror as qe

ROUNDS = 7
ROWS, SIZE = 256, 4096


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim (with its unit), measured value and limit."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, SIZE)).astype(np.float32)
    os.environ["QERROR_KERNELS"] = "numpy"
    yield from _rows(x, {"int4": 7.0, "e2m1": 7.0, "int8": 60.0, "e4m3fn": 60.0, "e5m2": 60.0})
    yield from _blocks(x)
    yield from _small_blocks(x, 40.0)
    yield from _zero_points(x[:64] + 0.5, 2000.0)
    if importlib.util.find_spec("numba") is not None:
        os.environ["QERROR_KERNELS"] = "numba"
        compiled = (
            _rows(x, {"int8": 15.0, "e4m3fn": 20.0, "e5m2": 20.0}),
            _small_blocks(x, 10.0),
            _zero_points(x[:64] + 0.5, 200.0),
        )
        for part in compiled:
            yield from ((f"with numba: {claim}", value, limit) for claim, value, limit in part)
        os.environ["QERROR_KERNELS"] = "numpy"
    two_ways = least(
        lambda: qe.dequantize(qe.quantize(x, "bf16"), "bf16"), lambda: x.astype(ml_dtypes.bfloat16).astype(np.float32)
    )
    yield "bf16 there and back / ml_dtypes", two_ways[0] / two_ways[1], 2.0
    for name, options in (
        ("int8 by 32", {"grid": "int8", "block_size": 32}),
        ("mxfp4", {"grid": "mxfp4"}),
        ("nvfp4", {"grid": "nvfp4"}),
        ("int4_g32_bf16", {"grid": "int4_g32_bf16"}),
    ):
        yield f"peak memory of {name}, 2^20 values / the array", _peak(x, options), 5.0


def _rows(x: np.ndarray, limits: dict[str, float]) -> Iterator[tuple[str, float, float]]:
    sort, *ours = least(lambda: np.sort(x, axis=1), *(lambda n=n: qe.fit(x, n, axis=0) for n in limits))
    for (name, limit), elapsed in zip(limits.items(), ours, strict=True):
        yield f"rows of {SIZE}, {name} / np.sort(rows)", elapsed / sort, limit


def _blocks(x: np.ndarray) -> Iterator[tuple[str, float, float]]:
    for name, size, limit in (("nvfp4", 16, 90.0), ("mxfp4", 32, 20.0), ("mxfp8_e4m3", 32, 20.0), ("mxint8", 32, 20.0)):
        blocks = x.reshape(-1, size)
        ours, largest = least(lambda name=name: qe.fit(x, name), lambda blocks=blocks: np.abs(blocks).max(axis=1))
        yield f"{name} / np.abs(x).max over the blocks", ours / largest, limit


def _small_blocks(x: np.ndarray, limit: float) -> Iterator[tuple[str, float, float]]:
    (ours,) = least(lambda: qe.fit(x, "int8", block_size=32))
    yield "int8 by 32 [us a block]", ours / (x.size / 32) * 1e6, limit


def _zero_points(x: np.ndarray, limit: float) -> Iterator[tuple[str, float, float]]:
    sort, ours = least(lambda: np.sort(x, axis=1), lambda: qe.fit(x, "uint8", axis=0, zero_point="storable"))
    yield f"rows of {SIZE}, uint8 with a storable zero point / np.sort(rows)", ours / sort, limit


def least(*calls: object) -> list[float]:
    """Least CPU seconds of each call, taken in turns."""
    return rounds(calls, ROUNDS, cpu_seconds).min(axis=0).tolist()


def _peak(x: np.ndarray, options: dict) -> float:
    qe.fit(x[:4], **options)
    tracemalloc.start()
    qe.fit(x, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / x.nbytes


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:9.3f}  (limit {limit:g})  {claim}", flush=True)
