"""Blocks that a kernel is asked about, where it differs from the reference, and what that looks like."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._types import Array
from ..densities.base import Density
from ..grids.block_rules import OCTAVES, farthest_is_lowest, octave_end, stored_scales
from .block_kernels import changes, nearest, neighbours, wrong_elements, wrong_scales
from .block_subject import BlockSubject, Kernel, Mask, Probe, scales_along
from .subject import Finding

# What a wrong kernel may leave of the differences that it explains: its own arithmetic next to thresholds.
_LEFT = 0.01
# Of the error of a block: what the arithmetic of a kernel that compares errors may miss.
_EQUAL = 1e-5
# Octaves that a sweep goes beyond the ends of the stored scales, and those of formats without ends.
_BEYOND, _AROUND = 6.0, 20.0


def reference(subject: BlockSubject) -> Kernel:
    """The kernel that the subject claims to be."""
    grid = subject.form.grid
    elements = nearest(grid) if subject.rounding == "nearest" else neighbours(grid)
    return Kernel(scales_along(subject.form, subject.scale), elements)


def probes(subject: BlockSubject, density: Density, rng: np.random.Generator) -> list[Probe]:
    """What the kernel answers on a sample, over the range of the block scales, and on ties."""
    sample = subject.inputs(density.sample(subject.shape, rng))
    found = [subject.probe("", sample), subject.probe(" over the range of block scales", _sweep(subject, rng))]
    ties = _ties(subject) if subject.rounding == "nearest" else None
    return found if ties is None else [*found, subject.probe("ties", ties, exact=True)]


def wrong_outputs(subject: BlockSubject, right: Kernel, probe: Probe) -> Mask:
    """Where outputs are not those of the reference; of two scales that are equally good either is right."""
    bad = ~subject.agreeing(right, probe)
    if subject.form.rule in ("best_of", "optimal") and bad.any():
        scale, size = right.scales(probe.x), subject.form.block_size
        best = scale * right.elements(np.where(scale == 0, 0.0, probe.x / np.where(scale == 0, 1.0, scale)))[0]
        errors = [np.square(v - probe.x).reshape(len(v), -1, size).sum(axis=2) for v in (probe.out, best)]
        bad &= np.repeat(~(errors[0] <= errors[1] * (1.0 + _EQUAL)), size, axis=1)
    return bad


def differences(subject: BlockSubject, asked: list[Probe]) -> list[Finding]:
    """Where outputs are not those of the reference, and what explains all of that."""
    right = reference(subject)
    wrong = [wrong_outputs(subject, right, probe) for probe in asked]
    findings = [_told(subject, right, probe, bad) for probe, bad in zip(asked, wrong, strict=True) if bad.any()]
    if not findings:
        return (_zeros if subject.rounding == "nearest" else _deterministic)(subject, right, asked[0])
    causes = _place(subject, asked[0]) or _causes(subject, right, asked, wrong)
    return [findings[0]._replace(cause=causes), *findings[1:]]


def _sweep(subject: BlockSubject, rng: np.random.Generator) -> Array:
    """Largest magnitudes over all stored scales and beyond them, next to smaller values; a first row of zeros."""
    form, info = subject.form, np.finfo(subject.dtype)
    rows, columns = subject.shape
    margin = 1.0 if info.bits == 16 else float(info.bits) / 2
    ends = float(np.log2(info.tiny)) + margin, float(np.log2(info.max)) - margin
    low, high = -_AROUND, _AROUND
    if form.scale_format is not None:
        stored = stored_scales(form.scale_format)
        stored = stored[stored > 0]
        if stored[-1] / stored[0] < 2.0**100:
            low, high = float(np.log2(stored[0])) - _BEYOND, float(np.log2(stored[-1])) + _BEYOND
    offset = np.log2(subject.scale * form.grid.absmax)
    low, high = np.clip([low + offset, high + offset], *ends)
    largest = np.exp2(rng.uniform(low, high, (rows, columns // form.block_size, 1)))
    x = largest * rng.uniform(-1.0, 1.0, (*largest.shape[:2], form.block_size))
    place = rng.integers(0, form.block_size, largest.shape)
    np.put_along_axis(x, place, largest * rng.choice([-1.0, 1.0], largest.shape), axis=2)
    x[0] = 0.0
    return subject.inputs(x.reshape(rows, columns))


def _ties(subject: BlockSubject) -> Array | None:
    """Blocks whose scale is a power of two beyond doubt, with values on thresholds; None where there are none."""
    form, grid = subject.form, subject.form.grid
    if np.frexp(subject.scale)[0] != 0.5 or form.constants != (1.0,) or form.rule in ("best_of", "optimal"):
        return None
    if form.scale_format is None and np.frexp(grid.absmax)[0] != 0.5:
        return None
    if form.rule in OCTAVES:
        largest = 0.75 * octave_end(grid, form.rule)
    else:
        largest = grid.absmax * {"up": 0.999, "down": 1.001}.get(form.rule, 1.0)
    largest *= -1.0 if form.signed and farthest_is_lowest(grid) else 1.0
    edges = grid.thresholds[np.abs(grid.thresholds) < abs(largest)]
    rows, columns = subject.shape
    if not edges.size or form.block_size < 2:
        return None
    x = np.resize(edges, (rows, columns // form.block_size, form.block_size))
    x[:, :, 0] = largest
    x = x.reshape(rows, columns) * subject.scale
    exact = subject.inputs(x) == x
    exact[:, :: form.block_size] = True
    x = np.where(exact, x, 0.0)
    x[:, :: form.block_size] = subject.inputs(x[:, :: form.block_size])
    scale = scales_along(form, subject.scale)(x)
    return x if (np.frexp(scale)[0] == 0.5).all() else None


def _told(subject: BlockSubject, right: Kernel, probe: Probe, bad: Mask) -> Finding:
    """What differs, by its likeliest example: a number in the first block that goes wrong."""
    i, j = (int(k) for k in np.unravel_index(int(np.argmax(bad)), bad.shape))
    size = subject.form.block_size
    block = probe.x[i, j // size * size : (j // size + 1) * size]
    scale = right.scales(probe.x)[i, j]
    wanted = right.elements(np.array([probe.x[i, j] / scale if scale else 0.0]))
    belongs = " or ".join(dict.fromkeys(f"{float(level[0]) * scale:.6g}" for level in wanted))
    example = f"such as x = {probe.x[i, j]:.9g}, which goes to {probe.out[i, j]:.6g} where {belongs} belongs"
    if probe.name == "ties":
        told = np.abs(probe.x) != np.abs(block).max()
        return Finding(f"{int(bad.sum())} of {int(told.sum())} ties do not go to the even code, {example}")
    lost = int(np.count_nonzero(~np.isfinite(probe.out)))
    infinite = f"; {lost} outputs are not finite" if lost else ""
    share = f"{100 * bad.mean():.3g}% of the outputs{probe.name} are not those of the reference"
    return Finding(f"{share}, {example} (largest magnitude of the block {np.abs(block).max():.6g}){infinite}")


def _zeros(subject: BlockSubject, right: Kernel, probe: Probe) -> list[Finding]:
    """Floating-point elements keep the sign of what rounds to 0."""
    grid = subject.form.grid
    if grid.float_spec is None or grid.min >= 0:
        return []
    zero = (probe.out == 0) & (probe.x != 0) & (right.scales(probe.x) > 0)
    wrong = zero & (np.signbit(probe.out) != (probe.x < 0))
    if not wrong.any():
        return []
    i = int(np.argmax(wrong))
    text = (
        f"{int(wrong.sum())} of {int(zero.sum())} zeros have the wrong sign, such as that of x = {probe.x.flat[i]:.9g}"
    )
    return [Finding(text, "a lost sign of -0" if not np.signbit(probe.out[zero]).any() else "a wrong sign of zeros")]


def _deterministic(subject: BlockSubject, right: Kernel, probe: Probe) -> list[Finding]:
    """Neighbours that no chance has chosen."""
    if not np.array_equal(subject.probe("", probe.x).out, probe.out):
        return []
    kernels = ((words, right._replace(elements=rule)) for words, rule in wrong_elements(subject))
    rules = (words for words, kernel in kernels if subject.agreeing(kernel, probe).all())
    return [Finding("the same array gives the same outputs again", next(rules, "deterministic rounding"))]


def _place(subject: BlockSubject, probe: Probe) -> str:
    """Whether the same array, or its rows in another order, give other outputs."""
    if subject.rounding != "nearest":
        return ""
    same = np.array_equal(subject.probe("", probe.x).out, probe.out, equal_nan=True)
    return "" if same else "stochastic rounding"


def _causes(subject: BlockSubject, right: Kernel, asked: list[Probe], wrong: list[Mask]) -> str:
    """The first of the known wrong kernels that explains all differences; two defects at once where none does."""

    def explains(kernel: Kernel) -> bool:
        for probe, bad in sorted(zip(asked, wrong, strict=True), key=lambda pair: -pair[1].mean()):
            left = ~subject.agreeing(kernel, probe, bad if bad.any() else None)
            if left.sum() > _LEFT * bad.sum():
                return False
        return True

    for words, kernel in _kernels(subject, right):
        if explains(kernel):
            return words
    return _by_row(subject, asked[0])


def _kernels(subject: BlockSubject, right: Kernel) -> Iterator[tuple[str, Kernel]]:
    scales = [*wrong_scales(subject)]
    elements = [*wrong_elements(subject)]
    yield from ((words, right._replace(elements=wrong)) for words, wrong in elements)
    yield from ((words, right._replace(scales=wrong)) for words, wrong in scales)
    yield from ((words, right._replace(change=moved)) for words, moved in changes(subject))
    for first, one in scales:
        yield from ((f"{first}; {second}", right._replace(scales=one, elements=two)) for second, two in elements)


def _by_row(subject: BlockSubject, probe: Probe) -> str:
    turned = subject.probe("", np.roll(probe.x, 1, axis=0)).out
    moved = not np.array_equal(np.roll(turned, -1, axis=0), probe.out, equal_nan=True)
    return "outputs that depend on their place" if moved and subject.rounding == "nearest" else ""
