"""Whole checkpoints against what they cannot do without: fitting one tensor in memory, counting, a read of the file."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from make_checkpoint import make_checkpoint

import qerror as qe
from qerror.checkpoints import scan
from qerror.files import open_checkpoint

ROUNDS = 5


def ratios() -> Iterator[tuple[str, float, float]]:
    """Yield rows of claim, measured ratio and limit: CPU seconds, the least of several turns."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_checkpoint(folder, 2, hidden=1024, wide=3584, vocabulary=2048)
        with open_checkpoint(folder) as checkpoint:
            tensors = [checkpoint[info.name] for info in checkpoint.tensors]
            bits = [np.array(checkpoint.bits(info.name)).ravel() for info in checkpoint.tensors]

        def whole() -> None:
            for x in tensors:
                _ = qe.fit(x, "int4", axis=0, measure=False).total

        def parts() -> None:
            with tempfile.TemporaryDirectory() as run:
                qe.checkpoints.fit(folder, "int4", axis=0, output=Path(run) / "run")

        def counts() -> None:
            for each in bits:
                np.bincount(each, minlength=1 << 16)

        ours, theirs = _turns(parts, whole)
        yield "a folder, int4 by channel, in tasks with files / qe.fit of its tensors in memory", ours / theirs, 1.3
        ours, theirs = _turns(lambda: scan(folder), counts)
        yield "scan of bfloat16 / np.bincount of its bits in memory", ours / theirs, 2.5


def _turns(*calls: Callable[[], object]) -> list[float]:
    times: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS):
        for call, mine in zip(calls, times, strict=True):
            start = time.process_time()
            call()
            mine.append(time.process_time() - start)
    return [min(mine) for mine in times]


if __name__ == "__main__":
    for claim, measured, limit in ratios():
        print(f"{measured:6.3f}  (limit {limit})  {claim}")
