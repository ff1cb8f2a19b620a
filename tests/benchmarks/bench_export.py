"""What exports cost and how much error they leave, by rule: `python bench_export.py [MODEL_DIR]`.

Without a folder the shipped network. CPU seconds of the whole export, files written.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from typing import Any

import qerror as qe

CASES: list[tuple[str, dict[str, Any]]] = [
    ("int4_g32", {"rule": "minmax"}),
    ("int4_g32", {}),
    ("int4_g32", {"sign": "either"}),
    ("int8:axis=0", {"rule": "minmax"}),
    ("int8:axis=0", {}),
    ("e4m3fn:axis=0", {"rule": "minmax"}),
    ("e4m3fn:axis=0", {}),
    ("mxfp4", {"rule": "floor"}),
    ("mxfp4", {}),
    ("nvfp4", {"rule": "absmax"}),
    ("nvfp4", {}),
]


def main(model: Any) -> None:
    """Print a line for each format and rule."""
    print(f"{'format':14} {'rule':18} {'bits':>8} {'SQNR dB':>8} {'CPU s':>8}")
    for form, options in CASES:
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            done = qe.checkpoints.export(model, folder, format=form, **options)
        seconds = time.process_time() - start
        made = [each for each in done if not math.isnan(each.mse)]
        size = sum(each.info.size for each in made)
        bits, power, mse = (
            sum(getattr(each, name) * each.info.size for each in made) / size for name in ("bits", "power", "mse")
        )
        said = ", ".join(map(str, options.values())) or "optimal"
        print(f"{form:14} {said:18} {bits:8.4f} {10 * math.log10(power / mse):8.3f} {seconds:8.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else qe.files.example_checkpoint())
