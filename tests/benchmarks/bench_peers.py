"""Other tools on the same arrays: CPU time of each, and the dB that its scales lose against the proven best.

`make bench-peers` installs them into an environment of their own; what is missing is named and left out. Every tool is
called as its documentation does. Errors are those of quantizing to nearest at the scale (and zero point) that it gives.
quant_mp, the program of StatQAT, is in no package index: its analytic and iterative scales are `qerror`'s rules here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

import qerror as qe

ROUNDS = 3
SIZE = 4096

Row = tuple[str, str, float, float]


def compared() -> Iterator[Row]:
    """Yield rows of work, tool, microseconds a row (or block, or value) and dB lost."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, SIZE)).astype(np.float32)
    for grid in ("int4", "int8"):
        yield from _rows(x, grid)
    yield from _zero_points(rng.standard_normal((4096, 64)).astype(np.float32))
    yield from _codebooks(rng)


def _rows(x: np.ndarray, grid: str) -> Iterator[Row]:
    bits = int(grid[3:])
    work = f"rows of {SIZE}, {grid}"
    best = qe.fit(x, grid, axis=0).error.mse.ravel()

    def row(tool: str, call: Callable[[], Any]) -> Row:
        elapsed, scale = least(call)
        mse = qe.evaluate(x, grid, np.reshape(scale, (-1, 1)), axis=0).error.mse.ravel()
        return work, tool, elapsed / len(x) * 1e6, lost(mse, best)

    yield row("qerror, proven best", lambda: qe.fit(x, grid, axis=0, measure=False).scale)
    yield row("qerror, minmax", lambda: qe.fit(x, grid, axis=0, rule="minmax", measure=False).scale)
    if importlib.util.find_spec("numba") is not None:
        yield row("qerror, proven best, with numba", lambda: _compiled(lambda: qe.fit(x, grid, axis=0, measure=False)))
    for rule in ("octav", "analytic", "iterative"):
        yield row(f"qerror, {rule}", lambda rule=rule: qe.fit(x, grid, axis=0, rule=rule, measure=False).scale)
    if here("torch"):
        import torch

        torch.set_num_threads(1)
        data = torch.from_numpy(x)
        for count in (100, 2000):
            yield row(f"{count} candidates in torch", lambda count=count: _candidates(data, bits, count).numpy())
    if here("torchao.quantization.observer"):
        yield row("torchao AffineQuantizedMSEObserver", lambda: _torchao(x, bits))
    if here("llmcompressor.observers"):
        yield row("llm-compressor mse observer", lambda: _llmcompressor(x, bits))
    if here("ai_edge_quantizer.algorithms.uniform_quantize.octav"):
        yield row("ai-edge-quantizer OCTAV", lambda: _ai_edge(x, bits))


def _compiled(call: Callable[[], Any]) -> np.ndarray:
    os.environ["QERROR_KERNELS"] = "numba"
    try:
        return call().scale
    finally:
        os.environ["QERROR_KERNELS"] = "numpy"


def _candidates(x: Any, bits: int, count: int) -> Any:
    """The best of `count` fractions of minmax for each row, one after the other."""
    import torch

    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    most = torch.maximum(x.amax(1, keepdim=True) / high, x.amin(1, keepdim=True) / low)
    best, scale = torch.full_like(most, torch.inf), most.clone()
    for factor in torch.linspace(0.2, 1.0, count):
        s = most * factor
        error = (torch.clamp(torch.round(x / s), low, high) * s - x).square().sum(1, keepdim=True)
        better = error < best
        best, scale = torch.where(better, error, best), torch.where(better, s, scale)
    return scale


def _torchao(x: np.ndarray, bits: int) -> np.ndarray:
    import torch
    from torchao.quantization.granularity import PerAxis
    from torchao.quantization.observer import AffineQuantizedMSEObserver
    from torchao.quantization.quant_primitives import MappingType

    observer = AffineQuantizedMSEObserver(
        MappingType.SYMMETRIC,
        torch.int8,
        granularity=PerAxis(0),
        quant_min=-(2 ** (bits - 1)),
        quant_max=2 ** (bits - 1) - 1,
        eps=1e-12,
        steps=100,
        run_once=True,
    )
    observer(torch.from_numpy(x))
    return observer.calculate_qparams()[0].numpy()


def _llmcompressor(x: np.ndarray, bits: int) -> np.ndarray:
    import torch
    from compressed_tensors.quantization import QuantizationArgs
    from llmcompressor.observers import Observer

    arguments = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="channel", observer="mse")
    observer = Observer.load_from_registry("mse", base_name="weight", args=arguments)
    return observer(torch.from_numpy(x)).get_qparams()["scale"].numpy().ravel()


def _ai_edge(x: np.ndarray, bits: int) -> np.ndarray:
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.algorithms.uniform_quantize import octav

    config = qtyping.TensorQuantizationConfig(bits, granularity=qtyping.QuantGranularity.CHANNELWISE)
    operation = qtyping.OpInfo(
        None,
        qtyping.TFLOperationName.FULLY_CONNECTED,
        0,
        qtyping.OpQuantizationConfig(weight_tensor_config=config),
    )
    return octav.get_tensor_quant_params(operation, config, x, None).scale


def _zero_points(x: np.ndarray) -> Iterator[Row]:
    work = "blocks of 64, uint4 with a shift"
    elapsed, best = least(lambda: qe.fit(x, "uint4", axis=0, shift="optimal", measure=False))
    reached = best.error.mse.ravel()
    yield work, "qerror, any shift, proven best", elapsed / len(x) * 1e6, 0.0
    elapsed, whole = least(lambda: qe.fit(x, "uint4", axis=0, zero_point="storable", measure=False))
    yield work, "qerror, zero points, proven best", elapsed / len(x) * 1e6, lost(whole.error.mse, reached)
    if here("hqq.core.quantize"):
        import torch
        from hqq.core.quantize import Quantizer

        def call() -> tuple[Any, dict[str, Any]]:
            return Quantizer.quantize(
                torch.from_numpy(x), nbits=4, group_size=64, axis=1, compute_dtype=torch.float32, device="cpu"
            )

        elapsed, (codes, meta) = least(call)
        back = Quantizer.dequantize(codes, meta).numpy()
        yield work, "HQQ, half-quadratic", elapsed / len(x) * 1e6, lost(((back - x) ** 2).mean(axis=1), reached)


def _codebooks(rng: np.random.Generator) -> Iterator[Row]:
    for count, levels in ((1_000_000, 16), (100_000, 256)):
        x = rng.standard_normal(count).astype(np.float32)
        work = f"best {levels} levels of {count:.0e} values"
        elapsed, best = least(lambda x=x, levels=levels: qe.lloyd_max(qe.Empirical(x), levels), 1)
        reached = float(qe.quantization_error(qe.Empirical(x), best, 1.0).mse)
        yield work, "qerror lloyd_max", elapsed * 1e6, 0.0
        if here("ckwrap"):
            import ckwrap

            elapsed, found = least(lambda x=x, levels=levels: ckwrap.ckmeans(x.astype(np.float64), levels), 1)
            yield work, "ckwrap", elapsed * 1e6, lost(np.sum(found.withinss) / count, reached)
        if here("kmeans1d"):
            import kmeans1d

            elapsed, found = least(lambda x=x, levels=levels: kmeans1d.cluster(x, levels), 1)
            centres = np.asarray(found.centroids)[np.asarray(found.clusters)]
            yield work, "kmeans1d", elapsed * 1e6, lost(np.mean((centres - x) ** 2), reached)


def here(package: str) -> bool:
    """Whether a package is installed and can be imported."""
    try:
        importlib.import_module(package)
    except Exception as error:
        print(f"left out: {package}, {type(error).__name__}: {str(error).splitlines()[0]}")
        return False
    return True


def least(call: Callable[[], Any], count: int = ROUNDS) -> tuple[float, Any]:
    """Least CPU seconds of some calls after one that is not counted, and what the last one gave."""
    times, found = [], call() if count > 1 else None
    for _ in range(count):
        start = time.process_time()
        found = call()
        times.append(time.process_time() - start)
    return min(times), found


def lost(mse: Any, best: Any) -> float:
    """DB between the mean errors."""
    return float(10 * np.log10(np.mean(mse) / np.mean(best)))


if __name__ == "__main__":
    for work, tool, microseconds, decibels in compared():
        print(f"{work:38} {tool:36} {microseconds:12.1f} us  {decibels:8.4f} dB", flush=True)
