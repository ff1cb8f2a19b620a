"""What the commands cost on a large checkpoint: `python measure_checkpoint.py FOLDER`, of `make_checkpoint.py FOLDER`.

Each runs in a process of its own, so that its processor seconds and its peak memory are its own. Beside `qerror fit`
runs the plain loop that it has to keep up with: every tensor as float32 in memory, then `qerror.fit`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

LAYOUT = ("--grid", "int4", "--axis", "0")
_LOOP = """
import sys
import qerror as qe
for file in sys.argv[1:]:
    with qe.files.open_checkpoint(file) as checkpoint:
        for info in checkpoint.tensors:
            found = qe.fit(checkpoint[info.name], "int4", axis=0, measure=False)
            found.total
"""


def cost(command: Sequence[str]) -> tuple[float, float, float]:
    """Seconds on the clock and of processors, and peak memory in MB, of a process."""
    began = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command[:4]} ended with {process.returncode}")
    return time.monotonic() - began, used.ru_utime + used.ru_stime, used.ru_maxrss / 1e3


def main(folder: Path) -> None:
    """Print a line for each command."""
    files = sorted(folder.glob("*.safetensors"))
    size = sum(file.stat().st_size for file in files) / 1e9
    print(f"{size:.3f} GB in {len(files)} files, {os.cpu_count()} processors")
    print(f"{'':34}   wall s    CPU s  CPU s/GB  peak MB")
    with tempfile.TemporaryDirectory(dir=folder.parent) as place:
        run = Path(place) / "run"
        commands = {
            "qerror.fit in a loop": ("-c", _LOOP, *map(str, files)),
            "qerror fit FOLDER -o DIR": ("-m", "qerror", "fit", str(folder), *LAYOUT, "-o", str(run)),
            "qerror fit FOLDER -o DIR, again": ("-m", "qerror", "fit", str(folder), *LAYOUT, "-o", str(run)),
            "qerror scan": ("-m", "qerror", "scan", str(folder), "-o", f"{place}/sketch.safetensors"),
            "qerror ask int4 int8 e2m1": (
                *("-m", "qerror", "ask", f"{place}/sketch.safetensors"),
                *("--grid", "int4", "--grid", "int8", "--grid", "e2m1"),
            ),
        }
        for name, command in commands.items():
            wall, cpu, peak = cost(command)
            print(f"{name:34} {wall:8.1f} {cpu:8.1f} {cpu / size:9.2f} {peak:8.0f}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
