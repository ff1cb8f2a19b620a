"""What is wrong with kernels of block formats: scales, elements and moved outputs as they are got wrong, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .._types import Array
from ..casting.block_scales import own_tensor_scale
from ..casting.cast import fake_quantize
from ..grids.block_formats import BlockFormat
from ..grids.block_rules import OCTAVES
from ..grids.formats import grid as as_grid
from ..grids.grid import Grid
from ..grids.scale_formats import powers_of_two
from .block_subject import BlockSubject, scales_along

Scales = Callable[[Array], Array]
Elements = Callable[[Array], Sequence[Array]]

_LINEAR = {"absmax": "to the nearest", "up": "up to the next", "down": "down to the next"}
_OTHERS = ("e4m3fn", "e5m2", "bf16", "fp16")
_SIZES = (8, 16, 32, 64, 128, 256)


def nearest(grid: Grid) -> Elements:
    """Rounding as the library does it."""
    return lambda q: [fake_quantize(q, grid)]


def neighbours(grid: Grid) -> Elements:
    """Both levels that stochastic rounding may take."""
    return lambda q: [_below(grid, q), _above(grid, q)]


def wrong_scales(subject: BlockSubject) -> Iterator[tuple[str, Scales]]:
    """Scales that are not those of the format, the likeliest first."""
    form, unit = subject.form, subject.scale
    plain = form.replace(rule="absmax", constant=1.0) if form.rule in ("best_of", "optimal") else form
    yield from _other_rules(plain, unit)
    yield from _tensor_scales(form, unit)
    yield from _layouts(form, unit, subject.shape)
    if plain.scale_format is not None:
        bare = _bare(plain)
        yield f"block scales that are not rounded to {_stored(form)}", scales_along(bare, unit)
        if not powers_of_two(plain.scale_format):
            yield from _ends(plain, unit)
    largest = form.grid.max if form.grid.max != form.grid.absmax else 0.0
    if largest > 0 and form.rule not in OCTAVES:
        symmetric = plain.replace(constant=plain.constants[0] * form.grid.absmax / largest)
        words = f"largest magnitudes that are sent to {largest:g} where {form.grid.absmax:g} belongs"
        yield words, scales_along(symmetric, unit)
    if form.signed:
        yield "block scales without the sign of the largest value", scales_along(form.replace(signed=False), unit)
    yield "a block of zeros that is divided by 0", _where(scales_along(form, unit), lambda x, s: _all_zero(x, form))


def _other_rules(form: BlockFormat, unit: float) -> Iterator[tuple[str, Scales]]:
    stored = form.scale_format
    if stored is None:
        return
    others = [*OCTAVES, *_LINEAR] if powers_of_two(stored) else [*_LINEAR]
    for rule in (rule for rule in others if rule != form.rule and not (form.signed and rule in OCTAVES)):
        if rule in OCTAVES or form.rule in OCTAVES:
            words = f"rule {rule} instead of {form.rule}"
        else:
            words = f"block scales rounded {_LINEAR[rule]} {_stored(form)} instead of {_LINEAR[form.rule]}"
        yield words, scales_along(form.replace(rule=rule), unit)
    if not powers_of_two(stored) and not form.signed:
        for rule in (*OCTAVES, *_LINEAR):
            octaves = form.replace(scale_format="pow2", rule=rule, tensor_scale=False)
            yield f"block scales that are powers of two (rule {rule})", scales_along(octaves, unit)
        for name in (name for name in _OTHERS if name != stored.name):
            other = form.replace(scale_format=as_grid(name), tensor_scale=False)
            yield f"block scales that are stored as {name} instead of {_stored(form)}", scales_along(other, unit)


def _tensor_scales(form: BlockFormat, unit: float) -> Iterator[tuple[str, Scales]]:
    if unit != 1.0 and form.scale_format is not None:
        yield "a missing tensor scale", scales_along(form, 1.0)
    if form.full_scale is not None:
        full = form.full_scale

        def own(x: Array) -> Array:
            return scales_along(form, own_tensor_scale(x, form.grid, full))(x)

        yield "a tensor scale that it finds itself", own


def _layouts(form: BlockFormat, unit: float, shape: tuple[int, int]) -> Iterator[tuple[str, Scales]]:
    rows, columns = shape
    size = form.block_size
    if rows % size == 0:
        yield "blocks along the first axis instead of the last", scales_along(form, unit, 0)
    for other in sorted({*_SIZES, size // 2, 2 * size}, key=lambda n: abs(np.log2(n / size)) if n else 0.0):
        if other and other not in (size, columns) and columns % other == 0:
            words = f"blocks of {other} instead of {size}"
            yield words, scales_along(form.replace(block_size=other), unit)
    yield "one scale for each row", scales_along(form.replace(block_size=columns), unit)
    whole = form.replace(block_size=rows * columns)
    yield (
        "one scale for the whole array",
        lambda x: np.broadcast_to(scales_along(whole, unit)(x.reshape(1, -1))[0, 0], x.shape),
    )


def _ends(form: BlockFormat, unit: float) -> Iterator[tuple[str, Scales]]:
    """Stored scales at both ends of what can be stored."""
    stored = form.scale_format
    assert stored is not None
    base, raw = scales_along(form, unit), scales_along(_bare(form), unit)
    top, gap = stored.max, stored.max - float(stored.levels[-2])
    name = _stored(form)
    for limit in (top + 0.5 * gap, top):
        words = f"NaN or infinity where the largest scale of {name}, {top:g}, belongs"
        yield words, _where(base, _beyond(raw, limit * unit))
    yield (
        f"block scales that do not saturate at {top:g}",
        lambda x: np.where(np.abs(raw(x)) > top * unit, raw(x), base(x)),
    )
    yield (
        f"block scales of 0 where {top:g} belongs",
        lambda x: np.where(np.abs(raw(x)) > (top + 0.5 * gap) * unit, 0.0, base(x)),
    )
    if 0.0 not in stored.levels:
        return
    least = float(stored.levels[stored.levels > 0][0])
    spec = stored.float_spec
    if spec is not None and spec.subnormals:
        exponent = 1 - spec.bias
        normal = 2.0**exponent * unit
        yield (
            f"block scales below the least normal of {name}, 2^{exponent}, that are flushed to 0",
            lambda x: np.where(np.abs(base(x)) < normal, 0.0, base(x)),
        )
        yield (
            f"block scales that are clamped to the least normal of {name}, 2^{exponent}",
            lambda x: np.where(np.abs(base(x)) < normal, normal, base(x)),
        )
        yield (
            f"block scales above 0 that are clamped to the least normal of {name}, 2^{exponent}",
            lambda x: np.where((np.abs(raw(x)) < normal) & (raw(x) != 0), normal, base(x)),
        )
    # Blocks of zeros stay 0 with any scale.
    yield (
        f"block scales of 0 that are replaced by {least:g}, the least of {name}",
        lambda x: np.where(base(x) == 0, least * unit, base(x)),
    )
    yield "a division by block scales of 0", _where(base, lambda x, s: s == 0)
    yield "a division by block scales of 0", _where(base, lambda x, s: (s == 0) & (raw(x) != 0))


def _beyond(raw: Scales, limit: float) -> Callable[[Array, Array], Array]:
    return lambda x, s: np.asarray(np.abs(raw(x)) > limit)


def _where(base: Scales, bad: Callable[[Array, Array], Array]) -> Scales:
    """No number where something is bad."""

    def scales(x: Array) -> Array:
        s = base(x)
        return np.where(bad(x, s), np.nan, s)

    return scales


def _all_zero(x: Array, form: BlockFormat) -> Array:
    blocks = x.reshape(len(x), -1, form.block_size)
    zero: Array = np.repeat((blocks == 0).all(axis=2), form.block_size, axis=1)
    return zero


def _bare(form: BlockFormat) -> BlockFormat:
    """With scales of any size."""
    return form.replace(scale_format=None, tensor_scale=False, rule="absmax")


def _stored(form: BlockFormat) -> str:
    assert form.scale_format is not None
    return form.scale_format.name or "the scale format"


def wrong_elements(subject: BlockSubject) -> Iterator[tuple[str, Elements]]:
    """Rounding of x over its scale, as it goes wrong."""
    grid, stochastic = subject.form.grid, subject.rounding == "stochastic"
    if stochastic:
        yield "deterministic rounding", nearest(grid)
    yield "elements truncated (rounding toward zero)", lambda q: [np.where(q > 0, _below(grid, q), _above(grid, q))]
    yield "elements truncated (rounding down)", lambda q: [_below(grid, q)]
    yield "elements rounded up", lambda q: [_above(grid, q)]
    yield "elements rounded away from zero", lambda q: [np.where(q > 0, _above(grid, q), _below(grid, q))]
    yield "ties of elements away from zero", lambda q: [np.where(q > 0, _tie(grid, q, "right"), _tie(grid, q, "left"))]
    yield "ties of elements up", lambda q: [_tie(grid, q, "right")]
    yield "ties of elements down", lambda q: [_tie(grid, q, "left")]
    yield "ties of elements toward zero", lambda q: [np.where(q > 0, _tie(grid, q, "left"), _tie(grid, q, "right"))]
    base = neighbours(grid) if stochastic else nearest(grid)
    yield from _clips(grid, base)
    spec = grid.float_spec
    if spec is not None and spec.subnormals:
        normal = 2.0 ** (1 - spec.bias)
        yield "elements without subnormals", lambda q: [np.where(np.abs(v) < normal, 0.0, v) for v in base(q)]
    for name in ("bf16", "fp16"):
        if not stochastic:
            yield f"double rounding of elements through {name}", _through(name, base)
    yield "elements that are not rounded at all", lambda q: [q]
    yield "elements without their sign", lambda q: [np.abs(v) for v in base(q)]


def _clips(grid: Grid, base: Elements) -> Iterator[tuple[str, Elements]]:
    levels, low, high = grid.levels, grid.min, grid.max
    below, above = float(levels[1] - low), float(high - levels[-2])

    def beyond(q: Array, inside: Array, outside: Array | float, gaps: float = 0.5) -> Array:
        found: Array = np.where((q > high + gaps * above) | (q < low - gaps * below), outside, inside)
        return found

    def replaced(other: float, gaps: float) -> Elements:
        return lambda q: [beyond(q, v, other, gaps) for v in base(q)]

    def clipped(inner: Array) -> Elements:
        return lambda q: [np.clip(v, inner[0], inner[-1]) for v in base(q)]

    def unclipped(q: Array) -> list[Array]:
        step = np.where(q > 0, above, below)
        return [beyond(q, v, np.rint(q / step) * step) for v in base(q)] + [np.where(np.abs(q) > high, q, base(q)[0])]

    yield "a missing clip of elements", unclipped
    for other, words in ((np.nan, "NaN or infinity"), (0.0, "0")):
        for gaps in (0.5, 0.0):
            yield f"{words} where elements should be clipped", replaced(other, gaps)
    if len(levels) < 3:
        return
    if np.ptp(np.diff(levels)) == 0:
        period = len(levels) * above
        yield (
            "integers that wrap around instead of saturating",
            lambda q: [beyond(q, v, (np.rint(q / above) * above - low) % period + low) for v in base(q)],
        )
    for part, side in ((slice(1, None), "bottom"), (slice(None, -1), "top")):
        yield f"a clip of elements one level short at the {side}", clipped(levels[part])


def _through(name: str, base: Elements) -> Elements:
    return lambda q: base(fake_quantize(q, name))


def _below(grid: Grid, q: Array) -> Array:
    place = np.searchsorted(grid.levels, q, side="right") - 1
    return np.asarray(grid.levels[np.clip(place, 0, len(grid) - 1)])


def _above(grid: Grid, q: Array) -> Array:
    return np.asarray(grid.levels[np.clip(np.searchsorted(grid.levels, q), 0, len(grid) - 1)])


def _tie(grid: Grid, q: Array, side: str) -> Array:
    return np.asarray(grid.levels[np.searchsorted(grid.thresholds, q, side=side)])  # type: ignore[call-overload]


def changes(subject: BlockSubject) -> Iterator[tuple[str, Callable[[Array], Array]]]:
    """Outputs of the right kernel that are in the wrong place, or multiplied once too often."""
    size, unit = subject.form.block_size, subject.scale
    if size % 2 == 0:
        yield "nibbles swapped (neighbours of each pair exchanged)", _swapped
        half, words = size // 2, "halves of blocks exchanged or interleaved"
        yield words, lambda v: np.roll(v.reshape(len(v), -1, size), half, axis=2).reshape(v.shape)
        yield words, lambda v: v.reshape(len(v), -1, 2, half).swapaxes(2, 3).reshape(v.shape)
        yield words, lambda v: v.reshape(len(v), -1, half, 2).swapaxes(2, 3).reshape(v.shape)
    if unit != 1.0:
        yield "a tensor scale that is missing in dequantizing", lambda v: v / unit
        yield "a tensor scale that is applied twice", lambda v: v * unit


def _swapped(v: Array) -> Array:
    return np.asarray(v.reshape(len(v), -1, 2)[:, :, ::-1].reshape(v.shape))
