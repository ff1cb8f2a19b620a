"""Block formats: expected errors and codebooks of densities, and scales of blocks of data. Nothing is cached."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from baselines import rounds

import qerror as qe
from qerror.casting.block_scales import scales_of

FAMILIES = ("gaussian", "laplace", "student-t:df=5")
NAMED = (*qe.block_formats(), "int4_g128", "nf4_g64", "int4_g32_e4m3fn")
FINE = ("int4_g128_bf16", "int4_g128_fp16", "nf4_g64_fp16")
ROUNDS = 9
BLOCKS = 1 << 16


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim (with its unit), measured value and limit."""
    for what, names, limit in (("named block formats", NAMED, 20.0), ("scales in bf16 and fp16", FINE, 100.0)):
        calls = [lambda f=f, name=name: qe.quantization_error(qe.density(f), name) for f in FAMILIES for name in names]
        yield f"expected error, maximum over {what} x families [ms]", 1e3 * _slowest(calls), limit
    calls = [lambda f=f: qe.quantization_error(qe.density(f), "nvfp4", size=1 << 20) for f in FAMILIES]
    yield (
        "expected error of nvfp4 with the tensor's own scale, maximum over families [ms]",
        1e3 * _slowest(calls),
        100.0,
    )
    six = qe.BlockFormat("e2m1", 16, "e4m3fn", rule="best_of", constant=(1, 1.5))
    calls = [lambda f=f: qe.quantization_error(qe.density(f), six, 1 / 400) for f in FAMILIES]
    yield "expected error of four over six, maximum over families [s]", _slowest(calls, 3), 1.0
    calls = [lambda f=f: qe.lloyd_max(qe.density(f), 16, block_size=64, fixed=(-1, 0, 1)) for f in FAMILIES]
    yield "codebook of 16 levels for blocks of 64, maximum over families [s]", _slowest(calls, 3), 2.0
    x = np.random.default_rng(0).standard_normal((BLOCKS, 32)).astype(np.float32)
    for rule, stored in (("floor", "e8m0"), ("even", "e8m0"), ("absmax", "e4m3fn"), ("absmax", "bf16")):
        form = qe.BlockFormat("e2m1", 32, stored, rule=rule)
        calls = [lambda form=form: scales_of(x, form), lambda: np.abs(x).max(axis=-1)]
        own, plain = np.median(rounds(calls, ROUNDS), axis=0)
        yield f"block scales by {rule} in {stored} / np.abs(x).max over the blocks", own / plain, 8.0


def _slowest(calls: list, count: int = ROUNDS) -> float:
    return float(np.median(rounds(calls, count), axis=0).max())


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:8.3f}  (limit {limit:g})  {claim}")
