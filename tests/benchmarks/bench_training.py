"""Fake quantization of a 4096 x 4096 weight, forward and backward, int4 by rows, as ratios to the rule minmax."""

from __future__ import annotations

import importlib.util

# What rules without a search may cost beside the cheapest; the others are told.
LIMITS = {"analytic": 1.3, "iterative": 2.0}


def main() -> None:
    """Print the ratio of each rule, from passes in turns on one thread."""
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: make test-training makes an environment that has it")
        return
    from qerror.training.experiment import tensor_times

    taken = tensor_times()
    for rule, milliseconds in taken.items():
        ratio, limit = milliseconds / taken["minmax"], LIMITS.get(rule, float("inf"))
        print(f"{ratio:8.3f}  (limit {limit:g})  {rule} / minmax, PyTorch on one thread", flush=True)


if __name__ == "__main__":
    main()
