"""All cases of the experiment, in parallel processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any

import numpy as np
import torch

from ..fake_quantize import FakeQuantize
from ..preparing import quantizers
from .networks import digits, network
from .records import Case, Record
from .training_run import adam, quantized, step, train

GRIDS = ("int2", "int3", "int4", "int8", "e2m1", "e3m0", "e4m3fn", "nf4")
RULES = ("minmax", "analytic", "iterative", "octav", "lsq", "optimal")
_EPOCHS = {"scratch": 10, "finetune": 4}


def cases(
    grids: Sequence[str] = GRIDS, rules: Sequence[str] = RULES, models: Sequence[str] = ("mlp", "cnn")
) -> list[Case]:
    """Every combination; OCTAV where it is defined, on integers.

    Examples
    --------
    >>> len(cases(["int4", "nf4"], ["minmax", "octav"], ["mlp"]))
    12
    """
    return [
        Case(model, start, activations, grid, rule)
        for model in models
        for start in ("scratch", "finetune")
        for activations in (False, True)
        for grid in grids
        for rule in rules
        if rule != "octav" or grid.startswith("int")
    ]


def settings(*, quick: bool = False, workers: int = 2) -> dict[str, Any]:
    """The arguments of `run_study` for the whole experiment, or for a part that takes less than a minute."""
    if quick:
        return {"chosen": cases(["int3", "e2m1"], models=["mlp"]), "seeds": 3, "shorten": 10, "workers": 1}
    return {"chosen": cases(), "workers": workers}


def run_study(
    chosen: Sequence[Case],
    *,
    seeds: int = 6,
    shorten: int = 1,
    workers: int = 2,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> list[Record]:
    """Train all cases and, before them, the same networks in full precision.

    Parameters
    ----------
    chosen : sequence of Case
    seeds : int
        Networks a case; their initial weights and batches are the same in all cases.
    shorten : int
        Divides the number of epochs.
    workers : int
        Processes, each with one thread. 1: this process.
    progress : callable
        Called with the iterable of jobs and their number; goes through it.

    Returns
    -------
    list of Record
        Sorted by case; those of full precision are among them, with rule "none".
    """
    epochs = {start: max(1, count // shorten) for start, count in _EPOCHS.items()}
    with _one_thread():
        return _study(chosen, seeds, epochs, workers, progress)


def _study(
    chosen: Sequence[Case],
    seeds: int,
    epochs: dict[str, int],
    workers: int,
    progress: Callable[[Iterable[Any], int], Iterable[Any]],
) -> list[Record]:
    records, trained = [], {}
    for model in sorted({case.model for case in chosen}):
        record, net = _float_network(model, epochs["scratch"], seeds)
        records.append(record)
        # Arrays travel between processes as bytes, tensors as open files.
        trained[model] = {name: value.numpy() for name, value in net.state_dict().items()}
        records.append(_run(Case(model, "finetune", False, "float", "none"), trained[model], epochs["finetune"], seeds))
    jobs = [
        (case, trained[case.model] if case.start == "finetune" else None, epochs[case.start], seeds)
        # Slow ones first, so that none of them is left for the end.
        for case in sorted(chosen, key=lambda case: (case.rule != "optimal", case.start != "scratch"))
    ]
    if workers == 1:
        records += [_run(*job) for job in progress(jobs, len(jobs))]
    else:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            waiting = [pool.submit(_run, *job) for job in jobs]
            records += [future.result() for future in progress(as_completed(waiting), len(waiting))]
    return sorted(records, key=lambda record: record.case)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """These tensors are so small that threads would mostly wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _float_network(model: str, epochs: int, seeds: int) -> tuple[Record, torch.nn.Module]:
    return train(network(model, seeds), Case(model, "scratch", False, "float", "none"), epochs, seeds)


def _run(case: Case, state: dict[str, Any] | None, epochs: int, seeds: int) -> Record:
    start = network(case.model, seeds)
    if state is not None:
        start.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in state.items()})
    return train(start, case, epochs, seeds)[0]


def step_times(
    grid: str = "int4", rules: Sequence[str] = RULES, *, model: str = "cnn", seeds: int = 6, steps: int = 40
) -> dict[str, float]:
    """Milliseconds of a training step under each rule, weights and activations; the rules take turns.

    Returns
    -------
    dict of str to float
        The median over `steps` steps; "none" is full precision.
    """
    images, labels, *_ = digits()
    batch = torch.arange(64 * seeds).view(seeds, 64) % len(images)
    nets = {}
    for rule in ("none", *rules):
        case = Case(model, "scratch", rule != "none", grid if rule != "none" else "float", rule)
        net = quantized(network(model, seeds), case)
        for _, quantizer in quantizers(net):
            quantizer.every = 1
        nets[rule] = net, adam(net, 1e-3)
    taken: dict[str, list[float]] = {rule: [] for rule in nets}
    with _one_thread():
        for _ in range(steps):
            for rule, (net, optimizer) in nets.items():
                begin = time.perf_counter()
                step(net, optimizer, images[batch], labels[batch])
                taken[rule].append(1e3 * (time.perf_counter() - begin))
    return {rule: float(np.median(times)) for rule, times in taken.items()}


def tensor_times(rules: Sequence[str] = RULES, *, size: int = 4096, repeats: int = 5) -> dict[str, float]:
    """Milliseconds of a forward and backward pass of an int4 quantizer over a size x size weight, axis 0."""
    x, g = torch.randn(size, size, requires_grad=True), torch.randn(size, size)
    modules = {rule: FakeQuantize("int4", rule, axis=0) for rule in rules}
    taken: dict[str, list[float]] = {rule: [] for rule in rules}
    with _one_thread():
        for _ in range(repeats + 1):
            for rule, module in modules.items():
                x.grad = None
                begin = time.perf_counter()
                module(x).backward(g)
                taken[rule].append(1e3 * (time.perf_counter() - begin))
    return {rule: float(np.median(times[1:])) for rule, times in taken.items()}
