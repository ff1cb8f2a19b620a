"""Anyone's kernel of a block format against the reference and the theory, with a diagnosis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike
from scipy.special import ndtri

from .._check import as_int, as_rng, check_choice, check_scale, shown
from ..densities.base import Density, check_density
from ..errors.quantization import quantization_error
from ..evidence.block_cases import LEAST_BLOCKS, is_predicted, only_honest
from ..evidence.blocks import block_means, moments
from ..evidence.sampling import LEAST, MOST_SAMPLES, seed_of
from ..evidence.simulation import result
from ..grids.block_formats import BlockFormat
from ..results import SimulatedTerms
from .block_probes import differences, probes, reference, wrong_outputs
from .block_subject import BlockSubject, Probe
from .subject import Finding

# The |z| that one of four true terms exceeds with a probability of 1e-7.
_TERMS = ("clipping", "rounding", "mse", "bias")
_CERTAIN = float(-ndtri(1e-7 / (2 * len(_TERMS))))


def check_blocks(
    fn: Callable[[Any], Any],
    form: BlockFormat,
    density: Density,
    scale: float | None = None,
    *,
    n: int = 1_000_000,
    rounding: Literal["nearest", "stochastic"] = "nearest",
    rng: int | np.random.Generator | None = 0,
    dtype: DTypeLike = np.float32,
) -> SimulatedTerms:
    """`check_quantizer` for a block format.

    Examples
    --------
    >>> import qerror as qe
    >>> wrong = lambda x: qe.fake_quantize(x, qe.block_format("mxfp4").replace(rule="ceil"))
    >>> check_blocks(wrong, qe.block_format("mxfp4"), qe.Gaussian(), n=200_000)
    Traceback (most recent call last):
        ...
    AssertionError: the kernel is not mxfp4, rounded to nearest: looks like rule ceil instead of floor
    ...
    """
    check_choice("rounding", rounding, ("nearest", "stochastic"))
    check_density(density)
    if density.shape:
        raise ValueError(f"density must have shape (), got {shown(density)}; check its members one by one")
    subject = _subject(fn, form, scale, rounding, dtype)
    total = as_int("n", n, LEAST["stratified"], MOST_SAMPLES)
    seed = seed_of(rng)
    generator = as_rng(seed)
    asked = probes(subject, density, generator)
    measured, odd = _measure(subject, density, total, seed, generator)
    findings = differences(subject, [*asked, *odd])
    findings = [*_errors(subject, density, measured), *findings]
    if findings:
        raise AssertionError(_diagnosis(subject, findings))
    return measured


def _subject(fn: Any, form: BlockFormat, scale: Any, rounding: str, dtype: DTypeLike) -> BlockSubject:
    if not callable(fn):
        raise ValueError(f"fn must be a function from array to array, got {shown(fn)}")
    if scale is None and form.tensor_scale:
        said = f"that the kernel multiplies the block scales of {form.name} with, such as 2.0**-9"
        raise ValueError(f"scale must be given, got None: the tensor scale {said}")
    if np.ndim(scale):
        raise ValueError(f"scale must be a single number, got {shown(scale)}")
    kind = np.dtype(dtype)
    if kind.kind != "f":
        raise ValueError(f"dtype must be a floating-point dtype of NumPy such as numpy.float32, got {kind}")
    return BlockSubject(fn, form, float(check_scale(1.0 if scale is None else scale)), rounding, kind)


def _measure(
    subject: BlockSubject, density: Density, n: int, seed: int, rng: np.random.Generator
) -> tuple[SimulatedTerms, list[Probe]]:
    """The error on fresh blocks, and the first array on which outputs are not those of the reference."""
    form, right = subject.form, reference(subject)
    odd: list[Probe] = []
    count, tallies = 0, []
    while count < max(n, LEAST_BLOCKS * form.block_size):
        x = subject.inputs(density.sample(subject.shape, rng))
        probe = subject.probe(" of another sample", x)
        if not odd and wrong_outputs(subject, right, probe).any():
            odd.append(probe)
        scale = right.scales(x).reshape(-1, form.block_size)[:, :1]
        blocks = x.reshape(-1, form.block_size)
        with np.errstate(invalid="ignore", over="ignore"):
            tallies.append(moments(blocks, probe.out.reshape(blocks.shape) - blocks, scale, form))
        count += x.size
    with np.errstate(invalid="ignore", over="ignore"):
        value, stderr, why = block_means(density, tallies)
    found = result(value[None], stderr[None], (), count, seed, "; ".join(why))
    return only_honest(density, found), odd


def _errors(subject: BlockSubject, density: Density, measured: SimulatedTerms) -> list[Finding]:
    """Terms that are too far from their prediction."""
    form = subject.form
    if not is_predicted(form):
        return []
    predicted = quantization_error(density, form, subject.scale, rounding=subject.rounding)  # type: ignore[call-overload]
    size = math.sqrt(float(predicted.power))
    unit = float(np.finfo(subject.dtype).eps)
    findings = []
    for term in _TERMS:
        expected, found = float(getattr(predicted, term)), float(getattr(measured.estimate, term))
        # Values and scales are rounded to their type, which moves an error by that part of x itself.
        own = (
            unit * size if term == "bias" else unit * (abs(expected) + size * math.sqrt(abs(expected)) + unit * size**2)
        )
        doubt = math.hypot(float(getattr(measured.stderr, term)), own)
        if not abs(found - expected) > _CERTAIN * doubt:
            continue
        z = f"{(found - expected) / doubt:+.0f} standard errors of blocks"
        if term == "bias":
            findings.append(Finding(f"bias {found:+#.2g} where {expected:+#.2g} is predicted ({z})"))
        else:
            ratio = f"{found / expected:#.3g}x" if expected > unit * size**2 else f"{found:.3g} where none is"
            findings.append(Finding(f"{term} error {ratio} predicted ({z})"))
    return findings


def _diagnosis(subject: BlockSubject, findings: list[Finding]) -> str:
    causes = list(dict.fromkeys(finding.cause for finding in findings if finding.cause))
    mode = "rounded to nearest" if subject.rounding == "nearest" else "rounded stochastically"
    scale = f" at tensor scale {subject.scale:g}" if subject.scale != 1.0 or subject.form.tensor_scale else ""
    looks = f": looks like {'; '.join(causes)}" if causes else ""
    head = f"the kernel is not {subject.form.name}{scale}, {mode}{looks}"
    return "\n  ".join([head, *(finding.text for finding in findings)])
