"""The cost of `import qerror`, against that of the libraries it cannot do without."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

ROUNDS = 15


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim, measured ratio and limit; fresh interpreters take turns, medians are compared."""
    ours, theirs = (float(np.median(times)) for times in zip(*(_round() for _ in range(ROUNDS)), strict=True))
    yield "python -c 'import qerror' / python -c 'import numpy, scipy.special'", ours / theirs, 1.5


def _round() -> tuple[float, float]:
    return _seconds("import qerror"), _seconds("import numpy, scipy.special")


def _seconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:6.3f}  (limit {limit})  {claim}")
