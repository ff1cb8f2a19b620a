"""Fitting 4096 x 4096 float32, cold, against NumPy on the same array; every call does all its work anew."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
from baselines import bincount, rounds

import qerror as qe
from qerror.rules import iterative

ROUNDS = 5
# Calls of a fifth of a second: what other processes add in bursts is told apart by many rounds, all calls in each.
CALLS = 20
SIZE = 4096

# What the peak is measured on: a process of its own for each rule.
_MEMORY = """
import re
import numpy as np, qerror as qe
x = np.random.default_rng(0).standard_normal(({size}, {size})).astype(np.float32)
qe.fit(x[:64], "int4", rule="{rule}", axis=0)
def peak():  # not ru_maxrss: a child starts with its parent's
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
before = peak()
qe.fit(x, "int4", rule="{rule}", {layout})
print((peak() - before) * 1024 / x.nbytes + 1)
"""


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim, measured ratio and limit."""
    x = np.random.default_rng(0).standard_normal((SIZE, SIZE)).astype(np.float32)
    yield from _rows(x)
    ours, sort = _turns(lambda: qe.fit(x, "int4"), lambda: np.sort(x, axis=None))
    yield "optimal of the tensor, int4 / np.sort(flat)", ours / sort, 1.3
    bits = x.view(np.uint32) >> 16
    half, codes = (bits << 16).view(np.float32), bits.astype(np.uint16)
    ours, count = _turns(lambda: qe.fit(half, "int4"), lambda: bincount(codes.ravel()))
    yield "optimal of the tensor, bf16 values, int4 / np.bincount in chunks", ours / count, 4.0
    blocks = x.reshape(SIZE, -1, 32)
    ours, largest = _turns(lambda: qe.fit(x, "e2m1", block_size=32), lambda: np.abs(blocks).max(axis=-1))
    yield "optimal of blocks of 32, e2m1 / np.abs(x).max over the blocks", ours / largest, 30.0
    for layout in ({}, {"axis": 0}):
        ours, largest = _turns(
            lambda layout=layout: qe.fit(x, "int4", rule="minmax", **layout), lambda: np.abs(x).max()
        )
        yield f"minmax {'by rows' if layout else 'of the tensor'} / np.abs(x).max", ours / largest, 3.0
    yield "iterative by rows, one step / fake_quantize", _step(x), 3.0
    for rule, layout in (("minmax", ""), ("optimal", "axis=0"), ("optimal", "block_size=32"), ("iterative", "axis=0")):
        code = _MEMORY.format(size=SIZE, rule=rule, layout=layout)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        yield f"peak memory of {rule} {layout} / the tensor", float(done.stdout), 5.0


def _rows(x: np.ndarray) -> Iterator[tuple[str, float, float]]:
    limits = {"int4": 3.0, "e2m1": 3.0, "e3m0": 5.0}
    found = rounds([lambda: np.sort(x, axis=1), *(lambda n=n: qe.fit(x, n, axis=0) for n in limits)], CALLS)
    for what, (sort, *ours) in (("least", found.min(axis=0)), ("median", np.median(found, axis=0))):
        for (name, limit), elapsed in zip(limits.items(), ours, strict=True):
            claim = f"optimal by rows, {name} / np.sort(rows), {what} of {CALLS} calls"
            yield claim, elapsed / sort, limit if what == "least" else np.inf
    ours, sort = _turns(lambda: qe.fit(x, "int8", axis=0), lambda: np.sort(x, axis=1))
    yield "optimal by rows, int8 / np.sort(rows)", ours / sort, np.inf


def _step(x: np.ndarray) -> float:
    """One step on the sorted sample, by the difference of two runs, as a multiple of one pass of casting."""
    sample, start = qe.Empirical(x, axis=0), 4 * x.std(axis=1) / 8
    few, many, cast = _turns(
        lambda: iterative(sample, "int4", start=start, n_iter=1, tol=0.0),
        lambda: iterative(sample, "int4", start=start, n_iter=6, tol=0.0),
        lambda: qe.fake_quantize(x, "int4", start[:, None]),
    )
    return (many - few) / 5 / cast


def _turns(*calls: Callable[[], object]) -> list[float]:
    """Least seconds of each call, taken in turns."""
    return rounds(calls, ROUNDS).min(axis=0).tolist()


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:8.3f}  ({f'limit {limit:g}' if np.isfinite(limit) else 'no limit'})  {claim}", flush=True)
